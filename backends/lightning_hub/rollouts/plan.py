"""A plan: what one run should do, checked before anything is started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from lightning_hub.backend import BackendSpec, Endpoint, SearchRollout
from lightning_hub.rollout import Assignment
from lightning_hub.rollouts import provider
from lightning_hub.rollouts.task_draw import draw_share
from lightning_sdk.errors import SettingError, TaskError
from lightning_sdk.hub.run_request import RunRequest
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.results.run_origin import RunOrigin
from lightning_sdk.rollouts.tasks import Task, task_id, unique
from lightning_sdk.settings import Settings
from lightning_sdk.settings.provider import PROMPTS, PROVIDER

GROUP = "lightning_sdk.backends"
#: What the hub itself does, whatever the backend.
_OURS = frozenset({
    "backend", "steps", "seed", "save_every", "roles", "sampling.*", "rollouts.*", "evaluation.*",
    "credit.*", "role.*", "length.*", "failure.*", "stored.*", "algorithm.aggregation", "algorithm.dynamic_sampling",
    "export.*",
})  # fmt: skip


#: What the hub does too, if the backend honours `tune` and prompts are to be tuned with it.
_OF_PHASES = frozenset({"prompts.*", "phases.*"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One training run, one evaluation, or one check."""

    settings: Settings
    backend: BackendSpec
    tasks: list[Task]
    held_out: list[Task]
    deciding: list[Task] = field(default_factory=list)
    """Tasks on which phases are compared, used for nothing else; empty without `tune`."""
    resume: bool = False
    from_runs: tuple[str, ...] = ()
    """Folders of earlier runs to learn from, instead of running the agent."""
    reserved: tuple[Task, ...] = ()
    """All held-out tasks, also those beyond `evaluation.tasks`."""
    declared_roles: dict[str, bool] = field(default_factory=dict)
    """Role -> trainable, as the agent's process declares them; may be incomplete."""
    evaluate_only: bool = False
    check_only: bool = False
    """One round of rollouts, and what it shows; nothing is trained."""
    integrations: dict[str, str] = field(default_factory=dict)
    """Integration -> its state in the agent's process."""
    rewards: dict[str, float | None] = field(default_factory=dict)
    """Reward function -> the weight that it is marked with."""
    origin: RunOrigin = field(default_factory=RunOrigin)
    """Where agent, rewards and tasks came from."""
    marks: dict[str, str] = field(default_factory=dict)
    """Name -> text, of texts that are marked with `lightning.prompt`."""

    @property
    def kind(self) -> str:
        """What is done, as config.json names it."""
        return "an evaluation" if self.evaluate_only else "a check" if self.check_only else "training"

    def start_facts(self) -> dict[str, Any]:
        """What config.json says of how it was started, beside the settings."""
        origin = {"origin": asdict(self.origin)} if self.kind == "training" else {}
        return {"kind": self.kind, "from_runs": list(self.from_runs), "rewards": self.rewards, **origin}

    @classmethod
    def of_training(cls, request: RunRequest, *, check_only: bool = False) -> Plan:
        """The plan of a `train` or `check` request. SettingError or TaskError for what cannot be done."""
        settings = Settings.from_dict(request.settings)
        held_out = _tasks(request.held_out or [], "held_out", empty=True)
        tasks, deciding = _divide(_tasks(request.tasks, "tasks"), settings)
        plan = cls(
            settings=settings,
            backend=find_backend(settings),
            tasks=tasks,
            deciding=deciding,
            held_out=held_out[: settings.evaluation.tasks],
            resume=bool(request.resume),
            from_runs=tuple(map(str, request.from_runs or ())),
            reserved=tuple(held_out),
            declared_roles=dict(request.declared_roles or {}),
            check_only=check_only,
            integrations=dict(request.integrations or {}),
            rewards=dict(request.rewards or {}),
            origin=request.origin,
            marks=dict(request.marks or {}),
        )
        _refuse_stored(plan)
        plan.backend.refuse(settings)
        if settings.backend == PROVIDER and not plan.check_only:
            raise provider.untrainable()
        _refuse_phases(plan)
        unknown = set(settings.roles) - set(plan.declared_roles)
        # Where a framework names agents, the first rollouts tell.
        if plan.declared_roles and unknown and not request.naming:
            known = ", ".join(sorted(plan.declared_roles))
            raise SettingError(f"setting roles={sorted(unknown)}: no agent declares it; declared roles: {known}")
        return plan

    @classmethod
    def of_evaluation(cls, request: RunRequest) -> Plan:
        """The plan of an `evaluate` request."""
        settings = Settings.from_dict(request.settings)
        tasks = _tasks(request.tasks, "tasks")[: settings.evaluation.tasks]
        return cls(settings=settings, backend=find_backend(settings), tasks=[], held_out=tasks, evaluate_only=True)

    def of_step(self, step: int, endpoint: Endpoint | None, candidate: Candidate | None = None) -> list[Assignment]:
        """The rollouts of a training step (from 1), those of a group side by side, so that an engine computes its
        prompt once. They depend on the seed and the step alone, so a resumed run goes on where it was."""
        return self._groups(step, 0, self._of_step(step), endpoint, candidate)

    def of_further(
        self, step: int, first: int, count: int, endpoint: Endpoint | None, candidate: Candidate | None = None
    ) -> list[Assignment]:
        """The rollouts of `count` further tasks of a step, after the `first` ones, to replace groups without signal.

        Their order depends on the seed and the step alone, and takes nothing from the order of the steps: those before
        and after have the same tasks, whatever had to be replaced. The step's own tasks come last.
        """
        own = set(self._of_step(step))
        drawn = np.random.default_rng((self.settings.seed, step, 1)).permutation(len(self.tasks)).tolist()
        order = sorted(drawn, key=lambda task: task in own)  # stable: as drawn, within both parts
        tasks = [order[at % len(order)] for at in range(first, first + count)]
        return self._groups(step, self.settings.rollouts.tasks_per_step + first, tasks, endpoint, candidate)

    def _of_step(self, step: int) -> list[int]:
        """Places of a step's tasks in their list."""
        count = self.settings.rollouts.tasks_per_step
        return [self._task_at((step - 1) * count + place) for place in range(count)]

    def _groups(
        self,
        step: int,
        first: int,
        tasks: Sequence[int],
        endpoint: Endpoint | None,
        candidate: Candidate | None,
    ) -> list[Assignment]:
        """A group of rollouts for each task, from this place in the step on."""
        assignments = [
            self._assignment(
                self.tasks[task], f"{step}-{place}", "train", endpoint, self._training_sampling(step, place, member)
            )
            for place, task in enumerate(tasks, first)
            for member in range(self.settings.rollouts.group_size)
        ]
        return [replace(each, candidate=candidate) for each in assignments]

    def _training_sampling(self, step: int, place: int, member: int) -> dict[str, float]:
        """Where phases are chosen by what they gained, every draw follows from the seed, so that the choices do too."""
        sampling = {"temperature": self.settings.sampling.temperature, "whole_distribution": 1.0}
        if self.settings.tune == PROMPTS:
            drawn = np.random.SeedSequence((self.settings.seed, step, place, member)).generate_state(1)
            sampling["rollout_seed"] = int(drawn[0])
        return sampling

    def of_search(
        self, rollouts: Sequence[SearchRollout], endpoint: Endpoint | None, *, metered: bool = False
    ) -> list[Assignment]:
        """The rollouts that a search asks for. An engine samples them as it does on held-out tasks."""
        return [
            replace(
                self._assignment(
                    each.task, each.group, "train", endpoint, self._evaluation_sampling(each.task, each.seed)
                ),
                candidate=each.candidate,
                shows_marks=each.shows_marks,
                metered=metered,
            )
            for each in rollouts
        ]

    def of_scoring(
        self, name: str, tasks: Sequence[Task], endpoint: Endpoint | None, candidate: Candidate | None = None
    ) -> list[Assignment]:
        """The rollouts of each of these tasks side by side, in the order of their seeds: greedy ones, or each with
        a seed that depends on `seed`, the task and its place alone: two models are compared on the same draws."""
        assignments = [
            self._assignment(task, f"{name}-{number}", "evaluate", endpoint, self._evaluation_sampling(task, place))
            for number, task in enumerate(tasks)
            for place in range(self.settings.evaluation.seeds)
        ]
        return [replace(each, candidate=candidate) for each in assignments]

    def _evaluation_sampling(self, task: Task, place: int) -> dict[str, float]:
        temperature = self.settings.evaluation.temperature
        if not temperature:
            return {"temperature": 0.0}
        drawn = np.random.SeedSequence((self.settings.seed, task_id(task), place)).generate_state(1)
        return {"temperature": temperature, "rollout_seed": int(drawn[0])}

    def _sampling(self, of_mode: dict[str, float]) -> dict[str, float]:
        """What replaces the agent's own request fields, whatever the mode."""
        choice = {} if self.backend.keeps_constraints else {"free_choice": 1.0}
        return {**of_mode, **choice, "max_tokens_default": self.settings.sampling.max_tokens}

    def _task_at(self, position: int) -> int:
        """Which task comes at `position` when each epoch has its own order."""
        epoch, place = divmod(position, len(self.tasks))
        return int(np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.tasks))[place])

    def _assignment(
        self, task: Task, group: str, mode: str, endpoint: Endpoint | None, sampling: dict[str, float]
    ) -> Assignment:
        return Assignment(
            id=os.urandom(16).hex(),
            key=os.urandom(16),
            task_id=task_id(task),
            task=task,
            group=group,
            mode=mode,
            attempt=1,
            timeout=self.settings.rollouts.timeout,
            endpoint=endpoint,
            sampling=self._sampling(sampling) if endpoint is not None else {},
            roles=self.settings.roles,
        )


def find_backend(settings: Settings) -> BackendSpec:
    """The installed backend that the settings name. SettingError if there is none or it does not honour a setting."""
    if settings.backend == PROVIDER:
        refuse_ignored(settings, provider.SPEC)
        return provider.SPEC
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if settings.backend not in found:
        raise SettingError(
            f"setting backend={settings.backend!r}: no such backend is installed; installed: {', '.join(sorted(found))}"
        )
    try:
        spec = found[settings.backend].load()
    except ImportError as error:
        raise SettingError(
            f"backend {settings.backend!r} cannot be imported ({error}): install what it needs, "
            "for the embedded one with pip install 'lightning-agent-sdk[train]'"
        ) from error
    if not isinstance(spec, BackendSpec):
        raise SettingError(f"backend {settings.backend!r}: its entry point is {spec!r}, not a BackendSpec")
    refuse_ignored(settings, spec)
    return spec


def refuse_ignored(settings: Settings, spec: BackendSpec) -> None:
    """SettingError for a changed setting that neither the hub nor the backend honours."""
    honoured = _OURS | spec.honours | (_OF_PHASES if settings.tune == PROMPTS else frozenset())
    ignored = sorted(name for name in settings.changes() if not set(_covering(name)) & honoured)
    if ignored:
        values = settings.flat()
        told = ", ".join(f"{name}={values[name]!r}" for name in ignored)
        raise SettingError(
            f"backend {spec.name!r} does not honour {told}: leave it at its default, or choose another backend"
            + (f" ({', '.join(others)})" if (others := _backends_honouring(ignored)) else "")
            + ("; runners of other machines would not reach its engine" if "serving.host" in ignored else "")
        )


def _backends_honouring(names: Sequence[str]) -> list[str]:
    """Installed backends that honour all these settings."""
    found = []
    for entry in entry_points(group=GROUP):
        with contextlib.suppress(Exception):  # a backend that cannot be imported here is not one to choose
            honoured = entry.load().honours
            found += [entry.name] if all(set(_covering(name)) & honoured for name in names) else []
    return sorted(found)


def _refuse_stored(plan: Plan) -> None:
    """SettingError for settings of stored rollouts where none are learned from, and for a backend that cannot."""
    changed = sorted(name for name in plan.settings.changes() if name.startswith("stored."))
    if changed and not plan.from_runs and not plan.check_only:
        value = plan.settings.flat()[changed[0]]
        raise SettingError(
            f"setting {changed[0]}={value!r}: no stored rollouts are learned from; name the run that "
            "has them: --from RUN, or from_runs=[...]"
        )
    if plan.from_runs and "stored.*" not in plan.backend.honours:
        raise SettingError(
            f"backend {plan.backend.name!r} does not learn from stored rollouts (--from), but the embedded backend "
            "does: leave out --backend, and add --engine vllm to sample with vLLM"
        )


def _refuse_phases(plan: Plan) -> None:
    """SettingError for what does not go together with phases of weights and of prompts."""
    if plan.settings.tune != PROMPTS:
        return
    if plan.from_runs:
        raise SettingError(
            f"setting tune={PROMPTS!r}: a run that learns from stored rollouts (--from) has no rollouts for a search; "
            "leave one of the two out"
        )
    if plan.settings.rollouts.staleness:
        raise SettingError(
            f"setting rollouts.staleness={plan.settings.rollouts.staleness}: with tune={PROMPTS!r} no rollout can "
            "begin before the phase before it is over; set it to 0"
        )
    find_backend(Settings(backend=PROMPTS, model=PROVIDER))


def _divide(tasks: list[Task], settings: Settings) -> tuple[list[Task], list[Task]]:
    """The tasks to train on, and those on which phases are compared."""
    if settings.tune != PROMPTS:
        return tasks, []
    if (count := len(unique(tasks))) < 3:
        raise TaskError(
            f"tune={PROMPTS!r} needs at least 3 different training tasks, since phases are compared on some of them; "
            f"there are {count}: give more tasks"
        )
    deciding, rest = draw_share(tasks, settings.phases.selection, settings.seed)
    return rest, deciding


def _covering(name: str) -> Iterator[str]:
    yield name
    while "." in name:
        name = name.rpartition(".")[0]
        yield f"{name}.*"


def _tasks(values: Any, name: str, *, empty: bool = False) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not (values or empty):
        raise TaskError(f"{name} is {'empty' if values == [] else repr(type(values).__name__)}: give a list of tasks")
    for number, task in enumerate(values):
        if not isinstance(task, dict):
            raise TaskError(f"task {number} of {name} is {task!r:.200}: a task is a dict, such as {{'question': ...}}")
    return values

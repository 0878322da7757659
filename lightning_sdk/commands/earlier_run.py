"""An earlier run that a training continues: its settings and held-out tasks, which are kept, and what cannot change."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.errors import SettingError, TaskError
from lightning_sdk.markers.reward import Function, RewardFunction
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_files import RunConfig, read_config, read_report, read_tasks
from lightning_sdk.results.run_origin import RunOrigin
from lightning_sdk.rollouts import reference
from lightning_sdk.rollouts.tasks import Parts, Source, Task, canonical, load, task_id, without
from lightning_sdk.settings import Settings
from lightning_sdk.system.folders import find_run_folder, refuse_links

_MEASURED = "the score before training was measured with it, and the one after would not be comparable"
_SEARCHED = "what the search has tried so far depends on it"
_PHASED = "the phases so far, and the tasks on which they were compared, depend on it"
#: Settings that cannot change in a run, by what their names begin with, and why.
_FIXED = {
    "model": "its checkpoints and its score before training belong to that model",
    "backend": "no other backend reads its checkpoints",
    "seed": "the order of the tasks and the seeds of the held-out tasks depend on it",
    "roles": "the score before training was measured with these roles served by the model, and no others",
    "evaluation.split": "the held-out tasks of a run stay the same",
    "evaluation.tasks": _MEASURED,
    "evaluation.seeds": _MEASURED,
    "evaluation.temperature": _MEASURED,
    "sampling.max_tokens": _MEASURED,
    "credit.rewards.": _MEASURED,
    "tune": _PHASED,
    "phases.": _PHASED,
    "prompts.algorithm": _SEARCHED,
    "prompts.reflection": _SEARCHED,
    "prompts.proposals": _SEARCHED,
    "prompts.minibatch": _SEARCHED,
    "prompts.beam": _SEARCHED,
    "prompts.seeds": _SEARCHED,
    "prompts.max_length": _SEARCHED,
    "prompts.length_penalty": _SEARCHED,
    "lora.": "its checkpoints hold the adapters that it began with",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """What a run's folder says of how it was started, and how far it came."""

    folder: Path
    settings: Settings
    trained: list[int]
    """Ids of the tasks that it trained on."""
    held_out: list[Task]
    from_runs: list[str]
    rewards: dict[str, float | None]
    """Name of each reward function -> the weight that it is marked with."""
    origin: RunOrigin
    done: int
    """Step of the last checkpoint."""
    finished: bool
    """Whether it has done all its steps and was measured after them."""

    def settings_with(self, given: Mapping[str, Any], listen: str = "") -> Settings:
        """The run's own settings, with those that were given for going on, by their dotted names.

        Without `listen` nobody comes from elsewhere, and the engine listens as by default.

        Raises:
            SettingError: one of them cannot change, or there is no step left to do.
        """
        old = self.settings.flat() | ({} if listen else {"serving.host": Settings().serving.host})
        wanted = {name: value for name, value in given.items() if name != "model" or not self._is_same(value)}
        new = Settings.from_dict({**old, **wanted})
        for name, (before, after) in differences(self.settings, new).items():
            if (why := _why_fixed(name)) and not (name == "model" and self._has_moved(after)):
                raise self._refuse(f"setting {name}={after!r}: it is {before!r} in this run, and cannot change: {why}")
        if _has_value_head(new) != _has_value_head(self.settings):
            raise self._refuse(
                "setting credit.advantage: 'gae' trains a value head, which is part of the checkpoints, so it cannot "
                "be turned on or off during a run"
            )
        self._refuse_steps(new.steps, "steps" in given)
        return new

    def divide(self, tasks: Sequence[Task], held_out: Sequence[Task] | None) -> Parts:
        """The tasks to train on, which are those that are not held out. `held_out`: what was given now, if anything.

        Raises:
            TaskError: other tasks are to be held out, or there is none to train on.
        """
        if held_out is not None and set(map(canonical, held_out)) != set(map(canonical, self.held_out)):
            raise TaskError(
                f"held_out: {self.folder} keeps its {len(self.held_out)} held-out tasks when it is resumed: leave "
                "held_out (--held-out) out; to score on other tasks, use lightning-sdk evaluate with --model "
                f"{self._checkpoint()}"
            )
        left = without(tasks, self.held_out)
        if not left:
            raise TaskError(f"tasks: all {len(tasks)} are held out in {self.folder}, so there are none to train on")
        if not (changes := self._changes(left)):
            return Parts(left, self.held_out)
        stays = f"the {len(self.held_out)} held-out tasks stay the same"
        return Parts(left, self.held_out, notices=(f"the tasks have changed: {changes}; {stays}",))

    def load_tasks(self) -> list[Task]:
        """The tasks of the file that the run was started with.

        Raises:
            TaskError: there was no file, it is gone, or it holds other tasks now.
        """
        path = self.origin.tasks
        if not path:
            raise TaskError(f"tasks: those of {self.folder} did not come from a file: give them again (--tasks FILE)")
        if not Path(path).is_file():
            raise TaskError(
                f"tasks: {path}, from which {self.folder} had its tasks, is not there any more: name the file "
                "(--tasks FILE)"
            )
        tasks = load(path)
        if changes := self._changes(without(tasks, self.held_out)):
            raise TaskError(
                f"tasks: {path} has changed since {self.folder} was started: {changes}. To go on with the tasks that "
                f"it holds now, name it: --tasks {shlex.quote(path)}"
            )
        return tasks

    def load_agent(self) -> tuple[Function, list[Function]]:
        """The agent and the reward functions that the run was started with.

        Raises:
            SettingError: they have no names, are gone, or lie in the run's folder, which may come from elsewhere.
        """
        name = f"name it: lightning-sdk train FILE.py:FUNCTION --resume {shlex.quote(str(self.folder))}"
        if not self.origin.agent:
            raise SettingError(f"resume: how the agent of {self.folder} is called is not known: {name}")
        for each in filter(None, (self.origin.agent, *self.origin.rewards, self.origin.backend_python)):
            if Path(each).resolve().is_relative_to(self.folder.resolve()):
                raise SettingError(f"resume: {each} is inside the run's own folder, and is not run unless you {name}")
        try:
            return reference.load(self.origin.agent), list(map(reference.load, self.origin.rewards))
        except SettingError as error:
            raise SettingError(f"resume: {self.folder} was started with {self.origin.agent}; {error}; {name}") from None

    def _changes(self, training: Sequence[Task]) -> str:
        """How these tasks differ from those that were trained on, '' if they do not."""
        before, now = set(self.trained), set(map(task_id, training))
        return "" if before == now else f"{len(now - before)} are new, {len(before - now)} are gone"

    def stored_runs(self, given: list[str]) -> list[str]:
        """The runs to learn from, which are those that it began with. SettingError for others."""
        if given and given != self.from_runs:
            began = ", ".join(self.from_runs) or "the agent's own rollouts"
            raise SettingError(
                f"resume: {self.folder} learns from {began}, not from from_runs={given}: leave from_runs out"
            )
        return self.from_runs

    def refuse_other_rewards(self, rewards: Mapping[str, float | None]) -> None:
        """SettingError for reward functions by other names or with other weights."""
        if dict(rewards) != self.rewards:
            raise self._refuse(
                f"reward: this run was rewarded by {_describe_rewards(self.rewards)}, and now by "
                f"{_describe_rewards(rewards)}: scores before and after would not be comparable"
            )

    def _refuse_steps(self, steps: int, given: bool) -> None:
        """`steps` counts from the beginning of the run."""
        if self.done < steps or (self.done == steps and not self.finished):
            return
        more = f"give the new total, such as steps={2 * self.done} (--steps {2 * self.done})"
        if given:
            raise SettingError(
                f"setting steps={steps}: {self.folder} has already done {quantity(self.done, 'step')}; {more}"
            )
        done = f"all of its {self.done} steps" if self.done > 1 else "its only step"
        raise SettingError(f"resume: {self.folder} has done {done}; {more}")

    def _is_same(self, model: str) -> bool:
        """Whether this is the run's model, by its name or its place."""
        old, new = Path(self.settings.model).expanduser(), Path(model).expanduser()
        return self.settings.model == model or (old.exists() and new.exists() and old.samefile(new))

    def _has_moved(self, model: str) -> bool:
        """Whether this may be the run's model in another place; the hub looks whether it is."""
        old = Path(self.settings.model).expanduser()
        return self.settings.model != "spark" and not old.exists() and Path(model).expanduser().exists()

    def _refuse(self, what: str) -> SettingError:
        return SettingError(
            f"{what}. Leave it out, or start a new run from this model, without --resume: --model {self._checkpoint()}"
        )

    def _checkpoint(self) -> str:
        return f"{self.folder}/checkpoints/step-{self.done:05d}" if self.done else self.settings.model


def read(run: str | Path, runs: str | Path) -> EarlierRun:
    """The run in this folder, or by this name in the folder of runs.

    Raises:
        SettingError: it is not a training, what it keeps is damaged, or something in it leads out of it.
    """
    folder = find_run_folder(run, runs)
    refuse_links(folder)
    config = _read_config(folder)
    if config.kind != "training":
        raise SettingError(f"resume: {folder} holds {config.kind}, not a training")
    tasks, report = read_tasks(folder), read_report(folder)
    if tasks is None:
        raise SettingError(
            f"resume: {folder} cannot be resumed: its tasks.json, which lists the held-out tasks, is missing or "
            "damaged. Start a new run, without --resume"
        )
    settings, done = Settings.from_dict(config.settings or {}), last_checkpoint(folder)
    complete = report is not None and report.status == "finished" and report.steps == settings.steps
    return EarlierRun(
        folder=folder,
        settings=settings,
        trained=list(tasks.training),
        held_out=tasks.held_out,
        from_runs=list(config.from_runs),
        rewards=dict(config.rewards),
        origin=config.origin,
        done=done,
        finished=complete and done == settings.steps,
    )


def describe_origin(
    agent: Callable[..., Any], rewards: Sequence[RewardFunction], tasks: Source, backend_python: str | None
) -> RunOrigin:
    """Where these come from, as another process finds them."""
    path = str(Path(tasks).expanduser().resolve()) if isinstance(tasks, str | Path) else ""
    try:
        named, *others = map(reference.of, (agent, *(each.function for each in rewards)))
    except SettingError:
        return RunOrigin(tasks=path)
    if any(each.startswith("__main__:") for each in (named, *others)):  # typed in, not in a file
        return RunOrigin(tasks=path)
    python = str(Path(backend_python).absolute()) if backend_python and os.sep in backend_python else backend_python
    return RunOrigin(agent=named, rewards=others, tasks=path, backend_python=python or "")


def last_checkpoint(folder: Path) -> int:
    """The step of a run's last checkpoint, 0 if there is none."""
    steps = [path.name.removeprefix("step-") for path in (folder / "checkpoints").glob("step-*")]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def differences(old: Settings, new: Settings) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> value before and after, of settings that are not the same."""
    before, after = old.flat(), new.flat()
    return {
        name: (_value(before, name), _value(after, name))
        for name in {**before, **after}
        if _value(before, name) != _value(after, name)
    }


def describe(old: Settings, new: Settings) -> Iterator[str]:
    """One line for each setting that is not the same."""
    for name, (before, after) in differences(old, new).items():
        yield f"changed in this run: {name} {_format_value(before)} -> {_format_value(after)}"


def _value(flat: Mapping[str, Any], name: str) -> Any:
    """A setting's value; of one that stands nowhere, what counts instead of it."""
    if name in flat:
        return flat[name]
    if name.startswith("credit.rewards."):
        return 1.0
    if name.startswith("role."):
        return flat.get(f"credit.{name.rpartition('.')[2]}", 1.0)
    return None


def _format_value(value: Any) -> str:
    if isinstance(value, str):
        return value or "''"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _why_fixed(name: str) -> str:
    if name.startswith("role.") and ".rewards." in name:
        return _MEASURED
    found = (why for fixed, why in _FIXED.items() if name == fixed or (fixed.endswith(".") and name.startswith(fixed)))
    return next(found, "")


def _has_value_head(settings: Settings) -> bool:
    return any(each.advantage == "gae" for each in settings.credits())


def _describe_rewards(rewards: Mapping[str, float | None]) -> str:
    told = [name if weight is None else f"{name} (weight {weight:g})" for name, weight in rewards.items()]
    return ", ".join(told) or "the agent itself"


def _read_config(folder: Path) -> RunConfig:
    config = read_config(folder)
    if config is None or config.settings is None:
        raise SettingError(
            f"resume: {folder} cannot be resumed: its config.json is missing or damaged. Start a new run, without "
            "--resume"
        )
    return config

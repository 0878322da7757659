"""`train` and `evaluate`: read and check the arguments, run a job, and return its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning_sdk import session
from lightning_sdk.commands import earlier_run
from lightning_sdk.commands import report as reports
from lightning_sdk.commands.earlier_run import EarlierRun
from lightning_sdk.commands.job import Job
from lightning_sdk.commands.reflecting_function import serving_reflecting_function
from lightning_sdk.commands.report import Report
from lightning_sdk.errors import SettingError, TaskError
from lightning_sdk.hub.events import NoticeEvent, Told
from lightning_sdk.hub.run_request import RunRequest
from lightning_sdk.markers.agent import declared
from lightning_sdk.markers.reward import Function, RewardFunction, reward_functions
from lightning_sdk.rollouts import invitation, reference
from lightning_sdk.rollouts.tasks import Parts, Source, Task, divide, load
from lightning_sdk.settings.provider import provider_settings, with_own_provider
from lightning_sdk.settings.settings import Settings, explicit
from lightning_sdk.system.folders import find_run_folder, make_run_folder
from lightning_sdk.tracking.installed import make_trackers


@serving_reflecting_function
def train(
    agent: Callable[..., Any],
    tasks: Source | None = None,
    reward: Function | Sequence[Function] | None = None,
    *,
    held_out: Source | None = None,
    from_runs: Sequence[str | Path] = (),
    model: str | Path | None = None,
    steps: int | None = None,
    backend: str | None = None,
    engine: str | None = None,
    roles: str | list[str] | tuple[str, ...] = (),
    name: str | None = None,
    runs: str | Path = "runs",
    resume: str | Path | None = None,
    backend_python: str | None = None,
    listen: str = "",
    log_to: str | Sequence[str] = (),
    dashboard: bool = True,
    show: int = 0,
    quiet: bool = False,
    **settings: Any,
) -> Report:
    """Train the trainable roles of `agent` by reinforcement learning, and measure the result on held-out tasks.

    Blocks until the run is finished. Everything is written to `runs/NAME`.

    Args:
        agent: Function that takes one task (a dict): plain, async, or a generator. Its answer goes to `reward`.
        tasks: A .jsonl, .json, .csv or .parquet file; an iterable of dicts; a DataFrame. With `resume`: the run's own.
        reward: Function (task, answer) -> number, or dict of role to number. Several functions are stored by name,
            weighted by `credit.rewards.NAME` and added up. By default the one marked with `@reward`, or none.
        held_out: Tasks for the score before and after training; by default a fifth of `tasks` is held out.
        from_runs: Earlier runs to learn from, as `stored.method` says; the agent then runs only to be scored.
        model: 'spark' (default), 'smollm2', a folder in Hugging Face format, or a name on the Hugging Face Hub.
        backend, engine: An installed backend ('embedded'); what serves the model: 'auto' (default), 'embedded', 'vllm'.
        steps, roles: Number of updates (default 40); the only roles to train (default: all declared trainable).
        name, runs, backend_python: Its name (by default the agent's); the folder of runs; the Python with the backend.
        resume: Earlier run to continue, by folder or name. It keeps its settings and held-out tasks, except for what
            is given here, and continues from its last checkpoint, or from step 1 if there is none.
        listen: Address (tcp://0.0.0.0:4718) for `lightning-sdk runner` elsewhere; its key is LIGHTNING_KEY, or printed.
        log_to: Trackers to log to: 'wandb', 'mlflow', 'trackio', 'tensorboard'; with a project, 'wandb:my-agents'.
        dashboard, quiet: Start a page to watch it in a browser, and print its address; show nothing, and start none.
        show: Print so many rollouts after each step and each evaluation, the best and the worst ones.
        **settings: Any other setting, as a group (`optimizer=lightning.settings.Optimizer(learning_rate=1e-5)`) or by
            its dotted name (`**{"optimizer.learning_rate": 1e-5}`). See `lightning_sdk.settings`.

    Raises:
        TaskError, SettingError, ModelError: an argument cannot be used.
        NothingToTrain, RolloutsFailed, HubGone, BackendDied: the training stopped; the message says why and what to do.
    """
    given = explicit(given_settings(settings, model=model, steps=steps, backend=backend, engine=engine, roles=roles))
    rewards, earlier = reward_functions(reward), None if resume is None else earlier_run.read(resume, runs)
    (loaded, source), apart = _load_tasks(tasks, earlier), None if held_out is None else load(held_out, "held_out")
    trackers, start = make_trackers(log_to), _begin(earlier, given, _find(from_runs, runs), rewards, name, listen)
    parts = earlier.divide(loaded, apart) if earlier else divide(loaded, apart, start.settings)
    _refuse_early(f"train() of {reference.name_of(agent)}", start.settings, listen)
    folder, told = (earlier.folder, []) if earlier else _make_folder(runs, name or reference.name_of(agent))
    job = Job(agent, rewards, start.settings, folder, backend_python, quiet, listen, dashboard, trackers, show)
    return _run_training(job, start._replace(told=[*start.told, *told]), parts, rewards, earlier is not None, source)


def evaluate(
    agent: Callable[..., Any],
    tasks: Source,
    reward: Function | Sequence[Function] | None = None,
    *,
    model: str | Path | None = None,
    backend: str | None = None,
    engine: str | None = None,
    roles: str | list[str] | tuple[str, ...] = (),
    provider: bool = False,
    name: str | None = None,
    runs: str | Path = "runs",
    backend_python: str | None = None,
    listen: str = "",
    log_to: str | Sequence[str] = (),
    dashboard: bool = True,
    show: int = 0,
    quiet: bool = False,
    **settings: Any,
) -> Report:
    """Score `agent` on `tasks` with its trainable roles served by `model`; nothing is trained.

    Sampling is greedy unless `evaluation.temperature` says otherwise. With `provider` no model is loaded: every call
    goes to the agent's own provider, unchanged and with the agent's own key.

    Arguments and errors are those of `train`; `report.after` holds the score. All tasks are used unless
    `evaluation.tasks` says otherwise.
    """
    loaded = load(tasks)
    given = explicit(given_settings(settings, model=model, backend=backend, engine=engine, roles=roles))
    given = provider_settings(given) if provider else with_own_provider(given)
    given.setdefault("evaluation.tasks", len(loaded))
    rewards = reward_functions(reward)
    chosen = with_reward_weights(Settings.from_dict(given), rewards)
    _refuse_early(f"evaluate() of {reference.name_of(agent)}", chosen, listen)
    trackers = make_trackers(log_to)
    folder = make_run_folder(runs, name or f"{reference.name_of(agent)}-evaluation")
    Job(agent, rewards, chosen, folder, backend_python, quiet, listen, dashboard, trackers, show).run(
        "evaluate", RunRequest(tasks=loaded)
    )
    return reports.read(folder)


def _load_tasks(tasks: Source | None, earlier: EarlierRun | None) -> tuple[list[Task], Source]:
    """The tasks, and where they came from: those that were given, or else those of the run that goes on."""
    if tasks is not None:
        return load(tasks), tasks
    if earlier is None:
        raise TaskError("train: no tasks were given: give a file such as tasks.jsonl (--tasks FILE), or a list")
    return earlier.load_tasks(), earlier.origin.tasks


def _run_training(
    job: Job, start: _Start, parts: Parts, rewards: Sequence[RewardFunction], resume: bool, source: Source
) -> Report:
    request = RunRequest(
        tasks=parts.training,
        held_out=parts.held_out,
        from_runs=start.from_runs,
        rewards=_marks(rewards),
        resume=resume,
        origin=job.describe_origin(source),
    )
    job.run("train", request, [*parts.events(), *start.told])
    return reports.read(job.folder)


class _Start(NamedTuple):
    """What a training begins with, apart from its tasks."""

    settings: Settings
    from_runs: list[str]
    told: Sequence[Told] = ()


def _find(from_runs: Sequence[str | Path], runs: str | Path) -> list[str]:
    return [str(find_run_folder(each, runs)) for each in from_runs]


def _make_folder(runs: str | Path, name: str) -> tuple[Path, list[Told]]:
    """A run's folder, and what to tell of one that is another than its name stands for."""
    folder = make_run_folder(runs, name)
    if folder.name == name:
        return folder, []
    there = folder.parent / name
    told = f"this run is in {folder}, because {there} already exists (--resume continues that one)"
    return folder, [NoticeEvent(told)]


def _begin(
    earlier: EarlierRun | None,
    given: dict[str, Any],
    stored: list[str],
    rewards: Sequence[RewardFunction],
    name: str | None,
    listen: str,
) -> _Start:
    """The start of a new training, or of one that goes on with an earlier run. SettingError for what cannot change in
    that."""
    if earlier is None:
        return _Start(with_reward_weights(Settings.from_dict(with_own_provider(given)), rewards), stored)
    if name not in {None, earlier.folder.name}:
        raise SettingError(
            f"name={name!r}: a resumed run keeps its name, {earlier.folder.name!r}; leave out name, or resume"
        )
    from_runs = earlier.stored_runs(stored)
    settings = earlier.settings_with(given, listen)
    earlier.refuse_other_rewards(_marks(rewards))
    return _Start(settings, from_runs, list(map(NoticeEvent, earlier_run.describe(earlier.settings, settings))))


def given_settings(settings: Mapping[str, Any], **arguments: Any) -> dict[str, Any]:
    """All settings that were given, including those that are separate arguments of `train`."""
    named = {name: value for name, value in arguments.items() if value is not None and not _is_empty(value)}
    return {**named, **settings}


def _is_empty(value: Any) -> bool:
    return isinstance(value, list | tuple) and not value


def _marks(rewards: Sequence[RewardFunction]) -> dict[str, float | None]:
    """Name of each reward function -> the weight that it is marked with."""
    return {each.name: each.weight for each in rewards}


def with_reward_weights(settings: Settings, rewards: Sequence[RewardFunction]) -> Settings:
    """The settings, with the weights from `@reward` for rewards whose weight is not set otherwise."""
    marked = {each.name: each.weight for each in rewards if each.weight is not None}
    return replace(settings, credit=replace(settings.credit, rewards={**marked, **settings.credit.rewards}))


def _refuse_early(what: str, settings: Settings, listen: str) -> None:
    """Raise what can be known before a folder is made."""
    session.start().refuse_second(what)
    refuse_unknown_roles(settings)
    invitation.with_reachable_engine(settings, listen)


def refuse_unknown_roles(settings: Settings) -> None:
    """SettingError for a role that no agent declares, since a misspelt role would train nothing for an hour. If a
    framework names the agents, only the first rollouts can show it."""
    unknown = [role for role in settings.roles if role not in declared]
    settled = [f"role.{role}" for role in settings.role if role not in declared]
    if (unknown or settled) and not session.start().patches.names_agents:
        known = ", ".join(sorted(declared)) or "none; put @lightning.agent(role=..., trainable=True) above the agent"
        what = (
            f"roles: no agent has the role {', '.join(map(repr, unknown))}"
            if unknown
            else f"setting {', '.join(settled)}: no agent has that role"
        )
        several = "; name each role separately: --roles A --roles B, or a list" if "," in "".join(unknown) else ""
        raise SettingError(f"{what}; declared roles: {known}{several}")

"""`train` and `evaluate`: start a hub, run the user's agent for it, show how it goes, and bring back the report.

`Job` is what they and `lightning_sdk.checking` share.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_sdk import reference, session
from lightning_sdk import report as reports
from lightning_sdk.agent import declared
from lightning_sdk.errors import BY_NAME, HubError, HubGone, LightningError, SettingError
from lightning_sdk.hub import HubClient, HubProcess
from lightning_sdk.progress import Progress
from lightning_sdk.report import Report
from lightning_sdk.reward import Function, Named, named
from lightning_sdk.runner import Runner
from lightning_sdk.settings import Settings
from lightning_sdk.tasks import Source, Task, load, split

log = logging.getLogger("lightning_sdk")


def train(
    agent: Callable[..., Any],
    tasks: Source,
    reward: Function | Sequence[Function] | None = None,
    *,
    held_out: Source | None = None,
    from_runs: Sequence[str | Path] = (),
    model: str = "spark",
    steps: int = 40,
    backend: str = "embedded",
    roles: str | list[str] | tuple[str, ...] = (),
    name: str | None = None,
    runs: str | Path = "runs",
    resume: str | Path | None = None,
    backend_python: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Report:
    """Train the trainable roles of `agent` by reinforcement learning, and measure it on held-out tasks.

    Runs the agent in this process, several rollouts at once. Blocks until the run is finished. Everything is written
    to the folder `runs/NAME`.

    Args:
        agent: Function of one task (a dict); plain, async, or a generator. Its answer goes to `reward`.
        tasks: A .jsonl or .parquet file, or a list of dicts.
        reward: Function of (task, answer) -> number, or dict of role to number, or several of them, which are stored
            by name, weighed by `credit.rewards.NAME` and added up; by default the one function marked with `@reward`.
        held_out: Tasks for the score before and after; by default a fifth of `tasks` is set aside.
        from_runs: Folders of earlier runs to learn from, as `stored.method` says: then the agent only runs for the
            score on held-out tasks.
        model: 'spark', a folder in Hugging Face format, or a hub name.
        steps: Updates of the model.
        backend: Name of an installed backend.
        roles: Train only these roles; by default every role declared trainable.
        name: Name of the run; by default the agent's name and the time.
        runs: Folder of runs.
        resume: Folder of an earlier run to go on with, from its last checkpoint, or from step 1 if there is none.
        backend_python: Python of another virtual environment that holds the backend; this one's by default.
        quiet: Show nothing.
        **settings: Any other setting, as a group (`optimizer=Optimizer(learning_rate=1e-5)`) or by its dotted name
            (`**{"optimizer.learning_rate": 1e-5}`). See `lightning_sdk.settings`.

    Raises:
        TaskError, SettingError, ModelError: what was given cannot be used.
        NothingToTrain: no call of a trainable role was captured.
        RolloutsFailed: too many rollouts failed; the message says with what.
        HubGone: the hub died; the message says how to go on.
    """
    given = {"model": model, "steps": steps, "backend": backend, "roles": role_names(roles), **settings}
    chosen = Settings.from_dict(given)
    train_tasks, test_tasks = _tasks(tasks, held_out, chosen)
    rewards = named(reward)
    chosen = weighed(chosen, rewards)
    refuse_unknown_roles(chosen)
    stored = _stored([str(run_folder(each, runs)) for each in from_runs], resume)
    folder = _folder(Path(runs), name or _name(agent), Path(resume) if resume else None)
    job = Job(agent, rewards, chosen, folder, backend_python, quiet)
    job.run("train", tasks=train_tasks, held_out=test_tasks, from_runs=stored, resume=resume is not None)
    return reports.read(folder)


def evaluate(
    agent: Callable[..., Any],
    tasks: Source,
    reward: Function | Sequence[Function] | None = None,
    *,
    model: str = "spark",
    backend: str = "embedded",
    roles: str | list[str] | tuple[str, ...] = (),
    name: str | None = None,
    runs: str | Path = "runs",
    backend_python: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Report:
    """Score `agent` on `tasks` with its trainable roles served by `model`; nothing is trained.

    Sampled greedily, unless `evaluation.temperature` says otherwise.

    Arguments and errors are those of `train`; `report.after` holds the score. All tasks are used unless
    `evaluation.tasks` says otherwise.
    """
    loaded = load(tasks)
    given: dict[str, Any] = {"model": model, "backend": backend, "roles": role_names(roles), **settings}
    if "evaluation" not in given and "evaluation.tasks" not in given:
        given["evaluation.tasks"] = len(loaded)
    rewards = named(reward)
    chosen = weighed(Settings.from_dict(given), rewards)
    refuse_unknown_roles(chosen)
    folder = _folder(Path(runs), name or f"{_name(agent)}-evaluation", None)
    Job(agent, rewards, chosen, folder, backend_python, quiet).run("evaluate", tasks=loaded)
    return reports.read(folder)


class Job:
    """One `train`, `evaluate` or `check`: hub, runners and display, from start to stop."""

    def __init__(
        self,
        agent: Callable[..., Any],
        rewards: Sequence[Named],
        settings: Settings,
        folder: Path,
        python: str | None,
        quiet: bool,
    ) -> None:
        self._agent, self._rewards, self._settings = agent, rewards, settings
        self._folder, self._python, self._quiet = folder, python, quiet
        self._workers: list[subprocess.Popen[bytes]] = []

    def run(self, method: str, **request: Any) -> dict[str, Any]:
        """The hub's last event, 'finished'."""
        with contextlib.ExitStack() as stack:
            display = Progress(quiet=self._quiet)
            stack.callback(display.close)
            hub = HubProcess(self._folder, python=self._python)
            stack.callback(hub.stop)
            stack.enter_context(_streaming(hub))
            client = stack.enter_context(HubClient(hub.address, hub.key, hub.alive))
            here = session.start()
            client.ask(
                method, settings=self._settings.as_dict(), declared_roles=dict(declared), naming=here.patches.naming,
                integrations=dict(here.integrations), **request,
            )  # fmt: skip
            runner = self._start_runners(hub, stack)
            return self._follow(hub, client, runner, display, method)

    def _start_runners(self, hub: HubProcess, stack: contextlib.ExitStack) -> Runner | None:
        rollouts = self._settings.rollouts
        if rollouts.runner == "processes":
            stack.callback(self._stop_processes)
            self._start_processes(hub)
            return None
        runner = Runner(hub.address, hub.key, self._agent, self._rewards,
                        concurrency=rollouts.concurrency, kind=rollouts.runner)  # fmt: skip
        runner.start()
        stack.callback(runner.stop)
        return runner

    def _start_processes(self, hub: HubProcess) -> None:
        """One runner process a core, each with its part of the concurrency."""
        count = min(_cores(), self._settings.rollouts.concurrency)
        config = {
            "address": hub.address, "key": hub.key, "kind": "auto",
            "agent": reference.of(self._agent), "rewards": [reference.of(each.function) for each in self._rewards],
            "concurrency": -(-self._settings.rollouts.concurrency // count),
        }  # fmt: skip
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-m", "lightning_sdk.runner"], stdin=subprocess.PIPE)
            self._workers.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()

    def _stop_processes(self) -> None:
        for process in self._workers:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._workers:
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _follow(
        self, hub: HubProcess, client: HubClient, runner: Runner | None, display: Progress, method: str
    ) -> dict[str, Any]:
        """Show the hub's events until the last one."""
        seen = 0
        while True:
            try:
                events = client.ask("watch", after=seen, wait=2.0)
            except HubGone:
                events = []
            for event in events:
                seen = event["number"]
                if event["type"] == "failed":
                    name, text = event["error"]
                    raise BY_NAME.get(name, LightningError)(text)
                if "diagnosis" not in event:
                    display.show(event)
                if event["type"] == "finished":
                    return dict(event)
            if not hub.alive():
                raise HubGone(self._gone(hub, method))
            if runner is not None and runner.error is not None:
                raise HubError(f"the runner stopped: {runner.error}") from runner.error
            if self._workers and all(process.poll() is not None for process in self._workers):
                raise HubError("every runner process ended; what they printed is above")

    def _gone(self, hub: HubProcess, method: str) -> str:
        told = f"the hub (process {hub.pid}) died. {self._way_on() if method == 'train' else 'Run it again.'}"
        return f"{told} The end of its log:\n{hub.log_tail()}"

    def _way_on(self) -> str:
        """How a training goes on whose hub died."""
        steps = [path.name.removeprefix("step-") for path in (self._folder / "checkpoints").glob("step-*")]
        saved = max((int(step) for step in steps if step.isdigit()), default=0)
        if not (self._folder / "config.json").is_file():
            return "Nothing was written yet: start it again."
        typed = f"resume={str(self._folder)!r} (--resume {self._folder})"
        if not saved:
            return f"There was no checkpoint yet: {typed} begins again at step 1, and keeps a score measured before it."
        return f"Nothing that it had confirmed is lost; {typed} goes on from the last checkpoint, after step {saved}."


@contextlib.contextmanager
def _streaming(hub: HubProcess) -> Iterator[None]:
    """Stream to this hub, and afterwards to whichever hub this process streamed to before."""
    current = session.start()
    before = current.stream
    current.attach(hub.address, hub.key, keep=False)
    try:
        yield
    finally:
        current.detach(2.0 if hub.alive() else 0.0)
        if before is not None:
            current.attach(before.address, before.key)


def _tasks(given: Source, held_out: Source | None, settings: Settings) -> tuple[list[Task], list[Task]]:
    loaded = load(given)
    if held_out is not None:
        return loaded, load(held_out, "held_out")
    return split(loaded, settings.evaluation.split, settings.evaluation.tasks, settings.seed)


def weighed(settings: Settings, rewards: Sequence[Named]) -> Settings:
    """The settings, with the weights that `@reward` gives where nothing else is set."""
    marked = {each.name: each.weight for each in rewards if each.weight is not None}
    return replace(settings, credit=replace(settings.credit, rewards={**marked, **settings.credit.rewards}))


def role_names(roles: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return (roles,) if isinstance(roles, str) else tuple(roles)


def refuse_unknown_roles(settings: Settings) -> None:
    """A misspelt role would train nothing for an hour. Where a framework names agents, the first rollouts tell."""
    unknown = [role for role in settings.roles if role not in declared]
    settled = [f"role.{role}" for role in settings.role if role not in declared]
    if (unknown or settled) and not session.start().patches.naming:
        known = ", ".join(sorted(declared)) or "none; put @lightning.agent(role=..., trainable=True) above the agent"
        what = f"roles: no agent has the role {', '.join(map(repr, unknown))}" if unknown else (
            f"setting {', '.join(settled)}: no agent has that role")  # fmt: skip
        raise SettingError(f"{what}; declared roles: {known}")


def _name(agent: Callable[..., Any]) -> str:
    return getattr(agent, "__name__", type(agent).__name__).strip("<>")


def _folder(runs: Path, name: str, resume: Path | None) -> Path:
    """The run's folder: made, or found again."""
    if resume is not None:
        if not (resume / "config.json").is_file():
            raise SettingError(f"resume: {resume} is no run (it has no config.json)")
        return resume
    base = runs.expanduser() / name
    folder = base if not base.exists() else runs.expanduser() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    return folder


def _stored(given: list[str], resume: str | Path | None) -> list[str]:
    """The runs to learn from: a run that is resumed goes on with those it began with."""
    if resume is None:
        return given
    try:
        before = list(json.loads((Path(resume) / "config.json").read_text("utf-8")).get("from_runs") or ())
    except (OSError, ValueError):
        return given  # what is wrong with the folder is told where it is opened
    if given and given != before:
        began = ", ".join(before) or "the agent's own rollouts"
        raise SettingError(
            f"resume: {resume} learns from {began}, and from_runs={given} is something else: leave it out"
        )
    return before


def run_folder(run: str | Path, runs: str | Path = "runs") -> Path:
    """The folder of an earlier run, by its path or by its name in the folder of runs; SettingError if it is none."""
    for path in (Path(run).expanduser(), Path(runs).expanduser() / run):
        if (path / "config.json").is_file() or (path / "hub.sqlite").is_file():
            return path.absolute()
    raise SettingError(f"{run} is no run: there is no config.json in it; `lightning-sdk runs` lists those there are")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

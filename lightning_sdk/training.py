"""`train` and `evaluate`: start a hub, run the user's agent for it, show how it goes, and bring back the report.

`Job` is what they and `lightning_sdk.checking` share.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning_sdk import address as addresses
from lightning_sdk import crew as crews
from lightning_sdk import earlier_run, invitation, placement, reference, session, task_lists
from lightning_sdk import report as reports
from lightning_sdk.actors import Actors
from lightning_sdk.agent import declared
from lightning_sdk.crew import Crew
from lightning_sdk.earlier_run import EarlierRun
from lightning_sdk.errors import BY_NAME, BackendDied, HubError, HubGone, LightningError, SettingError
from lightning_sdk.folders import find_run_folder, make_run_folder
from lightning_sdk.hub import HubClient, HubProcess
from lightning_sdk.progress import Progress
from lightning_sdk.report import Report
from lightning_sdk.reward import Function, Named, named
from lightning_sdk.settings import Settings, explicit
from lightning_sdk.tasks import Parts, Source, divide, load

log = logging.getLogger("lightning_sdk")

_SELF_REWARDED = "no reward function: what counts is what the agent gives with lightning.emit_reward()"
_FAREWELL = 5.0
"""Seconds in which runners of elsewhere hear that it is over."""
_BRIEF_SECONDS = 2.0
"""For a hub to end that has nothing to keep yet."""
_STOPPING = (
    "stopping after what is being computed now, and keeping what was learned; press Ctrl-C again to stop at once, "
    "which loses what was learned since the last checkpoint"
)


def train(
    agent: Callable[..., Any],
    tasks: Source,
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
    quiet: bool = False,
    **settings: Any,
) -> Report:
    """Train the trainable roles of `agent` by reinforcement learning, and measure it on held-out tasks.

    Runs the agent, several rollouts at once, until the run is finished. Everything is in the folder `runs/NAME`.

    Args:
        agent: Function of one task (a dict); plain, async, or a generator. Its answer goes to `reward`.
        tasks: A .jsonl, .json, .csv or .parquet file; a list or another iterable of dicts; or a DataFrame.
        reward: Function of (task, answer) -> number, or dict of role to number, or several of them, which are stored
            by name, weighed by `credit.rewards.NAME` and added up; by default the one marked `@reward`, or none.
        held_out: Tasks for the score before and after; by default a fifth of `tasks` is set aside.
        from_runs: Folders of earlier runs to learn from, as `stored.method` says; the agent runs for the score only.
        model, steps: 'spark' (default), a folder in Hugging Face format, or a hub name; how often it is updated (40).
        backend, engine: An installed backend ('embedded'); what serves the model: 'auto' (default), 'embedded', 'vllm'.
        roles: Train only these roles; by default every role declared trainable.
        name, runs: Name of the run, by default the agent's name and the time; and the folder of runs.
        resume: Folder or name of an earlier run to go on with, from its last checkpoint, or from step 1 if there is
            none. It keeps its settings and its held-out tasks; only what is given here changes.
        backend_python: Python of another virtual environment that holds the backend; this one's by default.
        listen: Address such as tcp://0.0.0.0:4718 at which `lightning-sdk runner` on other machines joins; its key is
            the environment's LIGHTNING_KEY, or a new one that is shown. By default nobody does.
        quiet: Show nothing.
        **settings: Any other setting, as a group (`optimizer=Optimizer(learning_rate=1e-5)`) or by its dotted name
            (`**{"optimizer.learning_rate": 1e-5}`). See `lightning_sdk.settings`.

    Raises:
        TaskError, SettingError, ModelError: what was given cannot be used.
        NothingToTrain, RolloutsFailed, HubGone, BackendDied: no call of a trainable role was captured, too many
            rollouts failed, or the hub or the backend died; the message says with what, and how to go on.
    """
    given = explicit(given_settings(settings, model=model, steps=steps, backend=backend, engine=engine, roles=roles))
    rewards, loaded, apart = named(reward), load(tasks), held_out if held_out is None else load(held_out, "held_out")
    stored = [str(find_run_folder(each, runs)) for each in from_runs]
    earlier = None if resume is None else earlier_run.read(resume, runs)
    start = _first(given, stored, rewards) if earlier is None else _go_on(earlier, given, stored, rewards, name, listen)
    parts = earlier.divide(loaded, apart) if earlier else divide(loaded, apart, start.settings)
    _refuse_early(f"train() of {reference.name_of(agent)}", start.settings, listen)
    folder = earlier.folder if earlier else make_run_folder(runs, name or reference.name_of(agent))
    job = Job(agent, rewards, start.settings, folder, backend_python, quiet, listen)
    return _run_training(job, start, parts, rewards, earlier is not None)


def evaluate(
    agent: Callable[..., Any],
    tasks: Source,
    reward: Function | Sequence[Function] | None = None,
    *,
    model: str | Path | None = None,
    backend: str | None = None,
    engine: str | None = None,
    roles: str | list[str] | tuple[str, ...] = (),
    name: str | None = None,
    runs: str | Path = "runs",
    backend_python: str | None = None,
    listen: str = "",
    quiet: bool = False,
    **settings: Any,
) -> Report:
    """Score `agent` on `tasks` with its trainable roles served by `model`; nothing is trained.

    Sampled greedily, unless `evaluation.temperature` says otherwise.

    Arguments and errors are those of `train`; `report.after` holds the score. All tasks are used unless
    `evaluation.tasks` says otherwise.
    """
    loaded = load(tasks)
    given = explicit(given_settings(settings, model=model, backend=backend, engine=engine, roles=roles))
    given.setdefault("evaluation.tasks", len(loaded))
    rewards = named(reward)
    chosen = weighed(Settings.from_dict(given), rewards)
    _refuse_early(f"evaluate() of {reference.name_of(agent)}", chosen, listen)
    folder = make_run_folder(runs, name or f"{reference.name_of(agent)}-evaluation")
    Job(agent, rewards, chosen, folder, backend_python, quiet, listen).run("evaluate", tasks=loaded)
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
        listen: str = "",
    ) -> None:
        self._agent, self._rewards, self._settings = agent, rewards, settings
        self.folder = folder
        self._python, self._quiet = python, quiet
        self._listen = listen
        self._seen = 0
        """Number of the hub's last event that was shown."""
        self._begun = False
        """Whether the model is loaded and rollouts may run."""
        placed = placement.parse(settings.rollouts.runner)
        assert placed is not None  # the settings have checked it
        self._placement = placed

    def run(self, method: str, told: Sequence[tuple[str, str]] = (), **request: Any) -> dict[str, Any]:
        """The hub's last event, 'finished'. KeyboardInterrupt says what was kept.

        `told`: 'notice' or 'warning', and what is shown before anything else.
        """
        try:
            return self._run(method, told, request)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._kept(method)) from None

    def _run(self, method: str, told: Sequence[tuple[str, str]], request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            display = Progress(quiet=self._quiet)
            stack.callback(display.close)
            running = session.start()
            stack.enter_context(running.reserve(f"{method}() of {reference.name_of(self._agent)}"))
            for kind, text in told:
                display.show({"type": kind, "text": text})
            if request.get("resume"):
                self._validate(request)
            crew, listen, settings = self._crew(stack)
            key = invitation.Key.make() if listen else None
            hub = HubProcess(self.folder, python=self._python, bind=listen or invitation.CLOSED,
                             key=key.value if key else "")  # fmt: skip
            stack.callback(hub.stop)
            here = addresses.reached(hub.address, invitation.CLOSED)
            stack.enter_context(running.stream_to(here, hub.key, hub.alive))
            client = stack.enter_context(HubClient(here, hub.key, hub.alive))
            if key is not None:
                stack.callback(_disband, hub, client)
            client.ask(method, **task_lists.send_ahead(client, self._request(settings, request)))
            if not self._rewards:
                display.show({"type": "notice", "text": _SELF_REWARDED})
            if key is not None and self._listen:
                self._invite(display, hub.address, key)
            stack.callback(crew.stop)
            crew.start(hub.address, hub.key)
            return self._follow(hub, client, crew, display, method)

    def _request(self, settings: Settings, request: dict[str, Any]) -> dict[str, Any]:
        running = session.start()
        return {
            "settings": settings.as_dict(), "declared_roles": dict(declared), "naming": running.patches.naming,
            "integrations": dict(running.integrations),
            "identity": reference.identity(self._agent, (each.name for each in self._rewards)), **request,
        }  # fmt: skip

    def _validate(self, request: dict[str, Any]) -> None:
        """Ask a hub in another folder what it thinks of a training: one that is refused leaves its folder untouched."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lightning-resume-")))
            hub = HubProcess(folder, python=self._python)
            stack.callback(hub.stop)
            client = stack.enter_context(HubClient(hub.address, hub.key, hub.alive))
            client.ask("validate", **task_lists.send_ahead(client, self._request(self._settings, request)))

    def _crew(self, stack: contextlib.ExitStack) -> tuple[Crew, str, Settings]:
        """The runners to start, where the hub has to listen ('' for nobody from elsewhere), and the settings then."""
        concurrency = self._settings.rollouts.concurrency
        if self._placement.kind != "ray":
            made = crews.local(self._placement, self._agent, self._rewards, concurrency)
            return made, self._listen, invitation.opened(self._settings, self._listen)
        if self._quiet:  # Ray tells of workers that died on standard output, whatever it is asked
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        actors = Actors(self._placement, self._agent, self._rewards, concurrency, self._quiet)
        stack.callback(actors.leave)
        listen = self._listen or actors.listen
        return actors, listen, invitation.opened(self._settings, listen)

    def _invite(self, display: Progress, address: str, key: invitation.Key) -> None:
        told = invitation.text(self._agent, self._rewards, address, key)
        if self._quiet and not key.given:
            print(told, file=sys.stderr)  # without the key nobody can join
        display.show({"type": "notice", "text": told})

    def _follow(self, hub: HubProcess, client: HubClient, crew: Crew, display: Progress, method: str) -> dict[str, Any]:
        """Show the hub's events until the last one. The first Ctrl-C lets the hub keep what was learned."""
        events = self._events(hub, client, crew, method)
        try:
            return self._show(events, display)
        except KeyboardInterrupt:
            if not self._begun:
                hub.stop(_BRIEF_SECONDS)  # it may be loading a model for minutes, and has nothing to keep
                raise
            display.show({"type": "notice", "text": _STOPPING})
            client.ask("interrupt")
            self._show(self._events(hub, client, crew, method), display)
            raise

    def _show(self, events: Iterator[dict[str, Any]], display: Progress) -> dict[str, Any]:
        last: dict[str, Any] = {}
        for last in events:
            self._seen = last["number"]
            self._begun = self._begun or last["type"] == "started"
            if "diagnosis" not in last:
                display.show(last)
        return last

    def _events(self, hub: HubProcess, client: HubClient, crew: Crew, method: str) -> Iterator[dict[str, Any]]:
        """What the hub tells, up to 'finished'; what it failed with is raised."""
        while True:
            try:
                events = client.ask("watch", after=self._seen, wait=2.0)
            except HubGone:
                events = []
            for event in events:
                if event["type"] == "failed":
                    name, text = event["error"]
                    error = BY_NAME.get(name, LightningError)
                    raise error(f"{text}\n{self._way_on()}" if error is BackendDied and method == "train" else text)
                yield dict(event)
                if event["type"] == "finished":
                    return
            if not hub.alive():
                raise HubGone(self._gone(hub, method))
            if failure := crew.failure():
                raise HubError(failure)

    def _gone(self, hub: HubProcess, method: str) -> str:
        told = f"the hub (process {hub.pid}) died. {self._way_on() if method == 'train' else 'Run it again.'}"
        return f"{told} The end of its log:\n{hub.log_tail()}"

    def _kept(self, method: str) -> str:
        """What is left of what was interrupted, and how a training goes on."""
        if method != "train":
            return "stopped before the end; nothing was measured"
        saved = earlier_run.last_checkpoint(self.folder)
        if not saved:
            return "the training was stopped before its first step was finished; nothing was learned"
        return (
            f"the training was stopped after step {saved}, and the model is in {self.folder}/checkpoints/"
            f"step-{saved:05d}; --resume {self.folder} (resume={str(self.folder)!r}) goes on from there"
        )

    def _way_on(self) -> str:
        """How a training goes on whose hub or backend died."""
        saved = earlier_run.last_checkpoint(self.folder)
        if not (self.folder / "config.json").is_file():
            return "Nothing was written yet: start it again."
        typed = f"resume={str(self.folder)!r} (--resume {self.folder})"
        if not saved:
            return f"There was no checkpoint yet: {typed} begins again at step 1, and keeps a score measured before it."
        return f"Nothing that was confirmed is lost; {typed} goes on from the last checkpoint, after step {saved}."


def _disband(hub: HubProcess, client: HubClient) -> None:
    """Give the runners that joined the time to hear of the end."""
    if hub.alive():
        with contextlib.suppress(HubError):
            client.ask("disband", wait=_FAREWELL)


def _run_training(job: Job, start: _Start, parts: Parts, rewards: Sequence[Named], resume: bool) -> Report:
    job.run("train", [*parts.told(), *start.told], tasks=parts.training, held_out=parts.held_out,
            from_runs=start.from_runs, rewards=_marks(rewards), resume=resume)  # fmt: skip
    return reports.read(job.folder)


class _Start(NamedTuple):
    """What a training begins with, beside its tasks."""

    settings: Settings
    from_runs: list[str]
    told: Sequence[tuple[str, str]] = ()


def _first(given: dict[str, Any], stored: list[str], rewards: Sequence[Named]) -> _Start:
    return _Start(weighed(Settings.from_dict(given), rewards), stored)


def _go_on(
    earlier: EarlierRun,
    given: dict[str, Any],
    stored: list[str],
    rewards: Sequence[Named],
    name: str | None,
    listen: str,
) -> _Start:
    """The start of a training that goes on with an earlier run. SettingError for what cannot change in it."""
    if name not in {None, earlier.folder.name}:
        raise SettingError(f"name={name!r}: {earlier.folder} keeps its name; leave name out, or resume")
    from_runs = earlier.stored(stored)
    settings = earlier.settings_with(given, listen)
    earlier.refuse_other_rewards(_marks(rewards))
    return _Start(settings, from_runs, [("notice", each) for each in earlier_run.describe(earlier.settings, settings)])


def given_settings(settings: Mapping[str, Any], **arguments: Any) -> dict[str, Any]:
    """All settings that were given, the arguments of their own among them."""
    named = {name: value for name, value in arguments.items() if value is not None and not _is_empty(value)}
    return {**named, **settings}


def _is_empty(value: Any) -> bool:
    return isinstance(value, list | tuple) and not value


def _marks(rewards: Sequence[Named]) -> dict[str, float | None]:
    """Name of each reward function -> the weight that it is marked with."""
    return {each.name: each.weight for each in rewards}


def weighed(settings: Settings, rewards: Sequence[Named]) -> Settings:
    """The settings, with the weights that `@reward` gives where nothing else is set."""
    marked = {each.name: each.weight for each in rewards if each.weight is not None}
    return replace(settings, credit=replace(settings.credit, rewards={**marked, **settings.credit.rewards}))


def _refuse_early(what: str, settings: Settings, listen: str) -> None:
    """Raise what can be known before a folder is made."""
    session.start().refuse_second(what)
    refuse_unknown_roles(settings)
    invitation.opened(settings, listen)


def refuse_unknown_roles(settings: Settings) -> None:
    """A misspelt role would train nothing for an hour. Where a framework names agents, the first rollouts tell."""
    unknown = [role for role in settings.roles if role not in declared]
    settled = [f"role.{role}" for role in settings.role if role not in declared]
    if (unknown or settled) and not session.start().patches.naming:
        known = ", ".join(sorted(declared)) or "none; put @lightning.agent(role=..., trainable=True) above the agent"
        what = f"roles: no agent has the role {', '.join(map(repr, unknown))}" if unknown else (
            f"setting {', '.join(settled)}: no agent has that role")  # fmt: skip
        several = "; each role is named by itself: --roles A --roles B, or a list" if "," in "".join(unknown) else ""
        raise SettingError(f"{what}; declared roles: {known}{several}")

"""The job: one `train`, `evaluate` or `check`, from the start of its hub to the end: runners, display, and Ctrl-C."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning_sdk import session
from lightning_sdk.commands import earlier_run, resume_hints
from lightning_sdk.commands.dashboard import watch_run
from lightning_sdk.commands.progress import Progress
from lightning_sdk.commands.samples import SamplePrinter
from lightning_sdk.errors import BY_NAME, BackendDied, DiskError, HubError, HubGone, LightningError, RolloutsFailed
from lightning_sdk.hub import discovery, task_lists
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.events import Event, FailedEvent, LastEvent, NoticeEvent, StartedEvent, Told, read_event
from lightning_sdk.hub.keys import HubKeys
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.hub.run_request import RunRequest
from lightning_sdk.markers.agent import declared
from lightning_sdk.markers.prompt import marked
from lightning_sdk.markers.reward import RewardFunction
from lightning_sdk.results.run_origin import RunOrigin
from lightning_sdk.rollouts import invitation, reference
from lightning_sdk.rollouts.local_runners import RunnerPool, local_pool
from lightning_sdk.rollouts.ray_runners import RayPool
from lightning_sdk.rollouts.tasks import Source
from lightning_sdk.settings import Settings, placement
from lightning_sdk.system import addresses
from lightning_sdk.system.folders import temporary_folder
from lightning_sdk.terminal.screen import Screen
from lightning_sdk.tracking.installed import ChosenTracker
from lightning_sdk.tracking.tracking import Tracking

_SELF_REWARDED = "no reward function was given: rewards are what the agent gives with lightning.emit_reward()"
_FAREWELL_SECONDS = 5.0
"""Time for remote runners to hear that it is over."""
_EARLY_STOP_SECONDS = 2.0
"""Time for a hub to end that has nothing to keep yet."""
_STOPPING = (
    "stopping once the current computation is done, and keeping what was learned; press Ctrl-C again to stop at once "
    "and lose what was learned since the last checkpoint"
)


class Job:
    """One `train`, `evaluate` or `check`: hub, runners and display, from start to stop."""

    def __init__(
        self,
        agent: Callable[..., Any],
        rewards: Sequence[RewardFunction],
        settings: Settings,
        folder: Path,
        python: str | None,
        quiet: bool,
        listen: str = "",
        dashboard: bool = False,
        trackers: Sequence[ChosenTracker] = (),
        show: int = 0,
    ) -> None:
        self._agent, self._rewards, self._settings = agent, rewards, settings
        self.folder = folder
        self._python, self._quiet = python, quiet
        self._listen, self._dashboard = listen, dashboard and not quiet
        self._trackers = trackers
        self._samples_shown = 0 if quiet else show
        self._seen = 0
        """Number of the hub's last event that was shown."""
        self._begun = False
        """Whether the model is loaded and rollouts may run."""
        self._farewell: _Farewell | None = None
        placed = placement.parse(settings.rollouts.runner)
        assert placed is not None  # the settings have checked it
        self._placement = placed

    def run(self, method: str, request: RunRequest, told: Sequence[Told] = ()) -> LastEvent:
        """The hub's last event. KeyboardInterrupt says what was kept.

        `request`: what is to be run; the settings are the job's. `told`: what is shown before anything else.
        """
        try:
            return self._run(method, self._complete(request), told)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                resume_hints.after_stop(self.folder)
                if method == "train"
                else "stopped before the end; nothing was measured"
            ) from None

    def describe_origin(self, tasks: Source) -> RunOrigin:
        """Where its agent and its rewards come from, and these tasks."""
        return earlier_run.describe_origin(self._agent, self._rewards, tasks, self._python)

    def _run(self, method: str, request: RunRequest, told: Sequence[Told]) -> LastEvent:
        with contextlib.ExitStack() as stack:
            display = Progress(quiet=self._quiet)
            stack.callback(display.close)
            tracking = stack.enter_context(Tracking(self._trackers, self.folder, self._settings, display.show))
            running = session.start()
            stack.enter_context(running.reserve(f"{method}() of {reference.name_of(self._agent)}"))
            for each in told:
                display.show(each)
            if request.resume:
                self._validate(request)
            pool, listen, settings = self._make_pool(stack)
            given = discovery.take_key()
            keys = HubKeys.of(self.folder, given) if listen else None
            hub = HubProcess(self.folder, python=self._python, bind=listen, keys=keys)
            stack.callback(hub.stop)
            here = addresses.reachable_address(hub.address, invitation.CLOSED)
            if self._dashboard:
                self._start_dashboard(hub, here, display, stack)
            samples = self._sample_printer(hub, display)
            stack.callback(samples.close)
            stack.enter_context(running.stream_to(here, hub.key, hub.alive))
            # Whether it is dead its process says: while that lives, silence is no reason to give up a training.
            client = stack.enter_context(HubClient(here, hub.key, hub.alive, math.inf))
            if keys is not None:
                self._farewell = stack.enter_context(_Farewell(hub, here))
            try:
                chosen = replace(request, settings=settings.as_dict())
                client.ask(method, **task_lists.send_ahead(client, chosen).as_message())
            except HubGone:
                raise HubGone(self._describe_death(hub, method)) from None
            if not self._rewards:
                display.show(NoticeEvent(_SELF_REWARDED))
            if keys is not None and self._listen:
                self._invite(display, hub.address, "" if given else keys.guest)
            stack.callback(pool.stop)
            pool.start(hub.address, hub.keys.guest)
            return self._follow(hub, client, pool, method, display, (tracking.note, samples.show))

    def _start_dashboard(self, hub: HubProcess, here: str, display: Progress, stack: contextlib.ExitStack) -> None:
        process = watch_run(
            self.folder,
            hub=here,
            key=hub.key,
            python=hub.python,
            show=lambda text: display.show(NoticeEvent(text)),
        )
        if process is not None:
            stack.callback(process.stop)

    def _sample_printer(self, hub: HubProcess, display: Progress) -> SamplePrinter:
        return SamplePrinter(
            self.folder,
            self._samples_shown,
            hub.python,
            show=lambda text: display.show(NoticeEvent(text)),
            screen=replace(Screen.of(sys.stderr), colours=False),  # notices have none
        )

    def _complete(self, request: RunRequest) -> RunRequest:
        running = session.start()
        return replace(
            request,
            settings=self._settings.as_dict(),
            declared_roles=dict(declared),
            naming=running.patches.names_agents,
            integrations=dict(running.integrations),
            marks={mark.name: mark.text for mark in marked.values()},
            identity=reference.identity(self._agent, (each.name for each in self._rewards)),
        )

    def _validate(self, request: RunRequest) -> None:
        """Ask a hub in another folder what it thinks of a training: one that is refused leaves its folder untouched."""
        with contextlib.ExitStack() as stack:
            hub = HubProcess(stack.enter_context(temporary_folder("resume")), python=self._python)
            stack.callback(hub.stop)
            client = stack.enter_context(HubClient(hub.address, hub.key, hub.alive, math.inf))
            client.ask("validate", **task_lists.send_ahead(client, request).as_message())

    def _make_pool(self, stack: contextlib.ExitStack) -> tuple[RunnerPool, str, Settings]:
        """The runners to start, where the hub has to listen ('' for nobody from elsewhere), and the settings then."""
        concurrency = self._settings.rollouts.concurrency
        if self._placement.kind != "ray":
            made = local_pool(self._placement, self._agent, self._rewards, concurrency)
            return made, self._listen, invitation.with_reachable_engine(self._settings, self._listen)
        if self._quiet:  # Ray tells of workers that died on standard output, whatever it is asked
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        pool = RayPool(self._placement, self._agent, self._rewards, concurrency, self._quiet)
        stack.callback(pool.leave)
        listen = self._listen or pool.listen
        return pool, listen, invitation.with_reachable_engine(self._settings, listen)

    def _invite(self, display: Progress, address: str, key: str) -> None:
        told = invitation.text(self._agent, self._rewards, address, key)
        if self._quiet and key:
            print(told, file=sys.stderr)  # without the key nobody can join
        display.show(NoticeEvent(told))

    def _follow(
        self,
        hub: HubProcess,
        client: HubClient,
        pool: RunnerPool,
        method: str,
        display: Progress,
        others: Sequence[Callable[[Event], None]],
    ) -> LastEvent:
        """Show the hub's events until the last one. The first Ctrl-C lets the hub keep what was learned."""
        events = self._events(hub, client, pool, method)
        try:
            return self._show(events, (display.show, *others))
        except KeyboardInterrupt:
            if not self._begun:
                if self._farewell is not None:
                    self._farewell.say("stopped", "")
                hub.stop(_EARLY_STOP_SECONDS)  # it may be loading a model for minutes, and has nothing to keep
                raise
            display.show(NoticeEvent(_STOPPING))
            with contextlib.suppress(HubGone):  # which the events tell better
                client.ask("interrupt")
            self._show(self._events(hub, client, pool, method), (display.show, *others))
            raise

    def _show(self, events: Iterator[Event], watchers: Sequence[Callable[[Event], None]]) -> LastEvent:
        for event in events:
            self._begun = self._begun or isinstance(event, StartedEvent)
            for watch in watchers:
                watch(event)
            if isinstance(event, LastEvent):
                return event
        raise AssertionError("unreachable: the events end with the last one")

    def _events(self, hub: HubProcess, client: HubClient, pool: RunnerPool, method: str) -> Iterator[Event]:
        """What the hub tells, up to the last event; what it failed with is raised."""
        while True:
            try:
                messages = client.ask("watch", after=self._seen, wait=2.0)
            except HubGone:
                messages = []
            for message in messages:
                event, self._seen = read_event(message), message["number"]
                if isinstance(event, FailedEvent):
                    raise self._failure(event.error, event.text, method)
                if event is not None:
                    yield event
            if not hub.alive():
                raise HubGone(self._describe_death(hub, method))
            if failure := pool.failure():
                raise self._failure("HubError", failure, method)

    def _failure(self, name: str, text: str, method: str) -> LightningError:
        """What a run failed with, as it is raised here. What could go on says how."""
        error = BY_NAME.get(name, LightningError)
        if method != "train" or error not in {BackendDied, DiskError, HubError, RolloutsFailed}:
            return error(text)
        # What failed in the first rollouts would do so again; later, it may have been a service that was away.
        then = (
            resume_hints.after_failures(self.folder)
            if error is RolloutsFailed
            else resume_hints.after_death(self.folder)
        )
        return error(f"{text}\n{then}" if then else text)

    def _describe_death(self, hub: HubProcess, method: str) -> str:
        then = resume_hints.after_death(self.folder) if method == "train" else "Run it again."
        return f"the hub (process {hub.pid}) died. {then} The end of its log:\n{hub.log_tail()}"


class _Farewell:
    """Lets the runners that joined hear how it ended, and go."""

    def __init__(self, hub: HubProcess, address: str) -> None:
        self._hub, self._address = hub, address

    def __enter__(self) -> _Farewell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.say("", "")
        elif issubclass(kind, KeyboardInterrupt):
            self.say("stopped", "")
        else:
            self.say("failed", str(error))

    def say(self, status: str, error: str) -> None:
        """`status` and `error` count where the hub knows of no end itself."""
        if self._hub.alive():
            with (
                contextlib.suppress(HubError),
                HubClient(self._address, self._hub.key, self._hub.alive, _FAREWELL_SECONDS) as client,
            ):
                client.ask("disband", wait=_FAREWELL_SECONDS, status=status, error=error)

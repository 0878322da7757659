"""The session: what `init()` sets up in this process, and `shutdown()` removes again.

This is the one place that loads zmq, wrapt and the integrations, so that importing the SDK costs little.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import logging
import sys
import threading
from collections.abc import Callable, Iterator

from lightning_sdk.capture import exits, metering, seam, threads, work_queues
from lightning_sdk.capture.patches import Patches
from lightning_sdk.errors import LightningError, SettingError, UnsupportedVersion
from lightning_sdk.hub import discovery
from lightning_sdk.hub.claims import Claims
from lightning_sdk.stream import curve, notices, sink
from lightning_sdk.stream.status import StreamStatus
from lightning_sdk.stream.stream import Stream
from lightning_sdk.system import forks

log = logging.getLogger("lightning_sdk")
GROUP = "lightning_sdk.integrations"
_SDK = "opentelemetry.sdk.trace"


class Session:
    """Patches and stream of this process."""

    def __init__(self, integrations: frozenset[str] | None, carry_context: bool) -> None:
        refuse_namesake()
        self.patches = Patches()
        self.stream: Stream | None = None
        self._claims: Claims | None = None
        self.integrations: dict[str, str] = {}
        """Name -> 'waiting' for its framework's import, 'active', or why it is off."""
        self._hooks: dict[str, Callable[[object], None]] = {}
        self._modules: dict[str, object] = {}
        """Name of an active integration -> the module that was instrumented, which may be imported again."""
        self.closed = False
        self.reserved_for = ""
        """What needs the stream until it ends; '' while it may be changed."""
        if carry_context:
            threads.carry_context(self.patches)
            work_queues.follow_queues(self.patches)
        self._watch_telemetry()
        self._watch_exits()
        for entry in importlib.metadata.entry_points(group=GROUP):
            if integrations is None or entry.name in integrations:
                self._watch(entry)
        sink.before_rollouts.append(self.instrument_reimported)
        if unknown := (integrations or frozenset()) - set(self.integrations):
            self.close()
            known = sorted(entry.name for entry in importlib.metadata.entry_points(group=GROUP))
            raise SettingError(f"init(integrations=...): no integration named {sorted(unknown)}; there are {known}")

    def _watch(self, entry: importlib.metadata.EntryPoint) -> None:
        """Load the integration once its framework is imported, now if it is already."""

        def hook(module: object) -> None:
            if self.closed or self._modules.get(entry.name) is module:
                return
            self._modules[entry.name] = module
            try:
                instrument: Callable[[Patches], None] = entry.load()
                instrument(self.patches)
                self.integrations[entry.name] = "active"
            except UnsupportedVersion as error:
                self._turn_off(entry.name, str(error))
                sink.say_once(
                    f"integration {entry.name}",
                    "lightning: the integration for %s is off; calls of its agents may be missed or unnamed: %s",
                    entry.name,
                    error,
                )
            except Exception as error:
                self._turn_off(entry.name, f"{type(error).__name__}: {error}")
                sink.say_once(
                    f"integration {entry.name}",
                    "lightning: the integration for %s failed and is off; its calls are not captured: %r",
                    entry.name,
                    error,
                )

        self.integrations[entry.name] = "waiting"
        self._hooks[entry.name] = hook
        self.patches.when_imported(entry.name, lambda: hook(sys.modules[entry.name]))

    def instrument_reimported(self) -> None:
        """Instrument modules that were imported again, as tests and notebooks do after removing them from
        `sys.modules`: an import hook runs only once."""
        for name, module in list(self._modules.items()):
            if (now := sys.modules.get(name)) is not None and now is not module:
                self._hooks[name](now)

    def _turn_off(self, name: str, why: str) -> None:
        self.integrations[name] = f"off: {why}"
        notices.report_integration_off(name, why)

    def _watch_telemetry(self) -> None:
        """Join OpenTelemetry's traces once its SDK is imported; without it nothing of it is loaded."""

        def join() -> None:
            from lightning_sdk.capture import telemetry  # noqa: PLC0415 - it imports the SDK, which only some users have

            telemetry.join(self.patches)

        self.patches.when_imported(_SDK, lambda: sink.harmless("joining OpenTelemetry", join))

    def _watch_exits(self) -> None:
        """Send what was recorded before the process ends in a way that skips `atexit`."""
        exits.watch_exit(self.patches, self.leave)
        exits.watch_results(self.patches, self.hand_over)

    def attach(self, address: str, key: str, *, keep: bool = True) -> None:
        """Stream to the hub at `address` from now on. SettingError for a key that is not complete."""
        if curve.is_used(address):
            curve.credential(key)
        self.detach()
        self.stream = Stream(address, key, spool=discovery.state_folder() / "spool" if keep else None)
        sink.connect(self.stream)
        self._claims = Claims(address, key)
        metering.connect(self._claims.ask)

    @contextlib.contextmanager
    def reserve(self, what: str) -> Iterator[None]:
        """Keep the stream for `what`: meanwhile `init()` and `shutdown()` leave it alone.

        Raises:
            LightningError: it is kept for something else.
        """
        with _lock:
            self.refuse_second(what)
            self.reserved_for = what
        try:
            yield
        finally:
            self.reserved_for = ""

    @contextlib.contextmanager
    def stream_to(self, address: str, key: str, is_alive: Callable[[], bool]) -> Iterator[None]:
        """Stream to this hub meanwhile, and afterwards to whichever hub this process streamed to before."""
        before = self.stream
        self.attach(address, key, keep=False)
        try:
            yield
        finally:
            self.detach(2.0 if is_alive() else 0.0)
            if before is not None:
                self.attach(before.address, before.key)

    def refuse_second(self, what: str) -> None:
        """LightningError if `what` would take the stream from something that needs it."""
        if self.reserved_for:
            raise LightningError(
                f"{what} cannot begin: {self.reserved_for} is under way in this process, which can stream to only one "
                "hub at a time. Wait until it ends, or start the second one in another process"
            )

    def detach(self, timeout: float = 5.0) -> None:
        sink.connect(None)
        metering.connect(None)
        if self._claims is not None:
            self._claims.close()
            self._claims = None
        if self.stream is not None:
            self.stream.close(timeout)
            self.stream = None

    def hand_over(self) -> None:
        """Send what another process may soon ask for."""
        if self.stream is not None:
            self.stream.hand_over()

    def leave(self) -> None:
        """Send what is left of a process that ends at once."""
        seam.cut_calls_short()
        if self.stream is not None:
            self.stream.leave()

    def close(self, timeout: float = 5.0) -> None:
        self.closed = True
        if self.instrument_reimported in sink.before_rollouts:
            sink.before_rollouts.remove(self.instrument_reimported)
        seam.cut_calls_short()
        kept = self.patches.undo()  # first: what stops here, the gateway for one, still has something to tell
        self.detach(timeout)
        for name in kept:
            log.info(
                "lightning: another tool wrapped %s after us, so our wrapper stays in place; it no longer records", name
            )


_session: Session | None = None
_lock = threading.Lock()


def _unlock(_: object) -> None:
    """Run in a forked process, which has no thread that could release the lock."""
    global _lock  # noqa: PLW0603 - of this process
    _lock = threading.Lock()


forks.in_child(Session, _unlock)


def init(
    hub: str | None = None,
    key: str | None = None,
    *,
    integrations: frozenset[str] | set[str] | None = None,
    carry_context: bool = True,
) -> None:
    """Catch this process's model calls, and stream them to a hub if there is one.

    Without a hub nothing is recorded and calls pass untouched. `lightning.train()` starts its own hub.

    Args:
        hub: Address of a hub, such as tcp://127.0.0.1:4717. By default the environment variable LIGHTNING_HUB, else
            a hub that `lightning-sdk serve` started for this user on this machine.
        key: The hub's key; by default LIGHTNING_KEY, or what the running hub left for this user.
        integrations: Names of the integrations to use; all that are installed by default.
        carry_context: Let plain threads and thread pools inherit the rollout and role of the code that starts them.

    Raises:
        LightningError: another company's `lightning-sdk` is installed in this environment.
        SettingError: an integration does not exist, or the address is malformed.
    """
    session = start(frozenset(integrations) if integrations is not None else None, carry_context)
    found = discovery.find(hub, key)
    if found is None:
        log.info("lightning: no hub is running; calls are not recorded (start one with: lightning-sdk serve)")
    elif session.reserved_for:
        log.info(
            "lightning: %s is under way in this process and keeps its own hub; init() does not change it",
            session.reserved_for,
        )
    elif session.stream is None or session.stream.address != found.address:
        session.attach(found.address, found.key)


def start(integrations: frozenset[str] | None = None, carry_context: bool = True) -> Session:
    """The session of this process, made if there is none."""
    global _session  # noqa: PLW0603 - one session per process
    with _lock:
        if _session is None:
            _session = Session(integrations, carry_context)
            atexit.register(_end_at_exit)
        else:
            _session.instrument_reimported()
        return _session


def shutdown(timeout: float = 5.0) -> None:
    """Flush what was recorded, within `timeout` seconds, and put back everything that `init()` replaced.

    Inside a training, an evaluation or a check it does nothing: those record until they end.
    """
    if _session is not None and _session.reserved_for:
        sink.say_once(
            "shutdown",
            "lightning: shutdown() was ignored, because %s is under way and needs to record",
            _session.reserved_for,
        )
        return
    end(timeout)


def end(timeout: float = 5.0) -> None:
    """Shut down, even during a training."""
    global _session
    with _lock:
        session, _session = _session, None
    atexit.unregister(_end_at_exit)
    if session is not None:
        session.close(timeout)


def _end_at_exit() -> None:
    """Run at exit. A notebook, for example, may kill this process while it waits for a hub that is away."""
    session = _session
    end(session.stream.leave_seconds() if session is not None and session.stream is not None else 0.0)


def status() -> dict[str, object]:
    """What this process records: the state of each integration, and the stream's counters (`StreamStatus`) or None."""
    session = _session
    if session is not None:
        session.instrument_reimported()
    stream: StreamStatus | None = session.stream.status() if session and session.stream else None
    return {"integrations": dict(session.integrations) if session else {}, "stream": stream}


def refuse_namesake() -> None:
    """LightningError if another company's `lightning-sdk` is installed, which has the same import name as ours."""
    try:
        other = importlib.metadata.distribution("lightning-sdk")
    except importlib.metadata.PackageNotFoundError:
        return
    raise LightningError(
        f"the distribution lightning-sdk {other.version}, another company's product, is installed in this environment "
        "and uses the same import name as this SDK (lightning-agent-sdk). Remove one of them: "
        "pip uninstall lightning-sdk && pip install --force-reinstall lightning-agent-sdk"
    )

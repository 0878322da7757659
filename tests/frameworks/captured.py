"""Runs an agent as training does, streaming to a real hub, and gives back what that hub wrote down."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.markers.rollout import end, scope_from_assignment
from lightning_sdk.rollouts.resolve import resolve_here
from lightning_sdk.stream import sink
from lightning_sdk.stream.wire import NO_ROLLOUT, Event, EventBatch, unpack_floats, unpack_ints
from lightning_sdk.trace.call import Call, Choice, Span, Status
from lightning_sdk.trace.scope import Scope, use_scope
from tests.frameworks.exchange import Exchange
from tests.frameworks.wire_proxy import SEED, Wire

#: The role of a trained call that no framework's agent and no decorator of the test's names.
OUTER = "outer"
#: As `Plan.of_step` samples, and with a seed, so that a test sees the same tokens each time.
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens_default": 24, "seed": SEED}


@dataclass(frozen=True)
class Seen:
    """A call as the hub decoded it."""

    raw: Call

    role: str = field(init=False)
    framework: str = field(init=False)
    trainable: bool = field(init=False)
    path: str = field(init=False)
    streamed: bool = field(init=False)
    status: str = field(init=False)
    """'ok', 'error' or 'cancelled'."""
    error: str = field(init=False)
    http_status: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("role", "framework", "trainable", "path", "streamed", "status", "error", "http_status"):
            object.__setattr__(self, name, getattr(self.raw.meta, name))

    @property
    def problem(self) -> str:
        """Why a trainable call cannot be learned from, '' if it can."""
        return self.raw.problem

    @property
    def response_id(self) -> str:
        return self.raw.response_id

    @property
    def request(self) -> dict[str, Any]:
        """The body that was sent."""
        return json.loads(self.raw.request)

    @property
    def prompt_ids(self) -> list[int]:
        return list(unpack_ints(self.raw.prompt_ids))

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self.raw.choices

    @property
    def completion_ids(self) -> list[int]:
        """The sampled ids of the first choice."""
        return list(unpack_ints(self.raw.choices[0].token_ids)) if self.raw.choices else []

    @property
    def logprobs(self) -> list[float]:
        """The log-probs of the first choice; float32."""
        return list(unpack_floats(self.raw.choices[0].logprobs)) if self.raw.choices else []

    @property
    def message(self) -> dict[str, Any]:
        """The assistant message of the first choice."""
        return json.loads(self.raw.choices[0].message)


@dataclass
class Run:
    """One rollout of an agent."""

    answer: Any = None
    error: BaseException | None = None
    calls: list[Seen] = field(default_factory=list)
    """In the order in which they started."""
    spans: list[Span] = field(default_factory=list)
    """Turns of agents, in the order in which they ended."""
    exchanges: list[Exchange] = field(default_factory=list)
    """What went over the wire meanwhile."""

    @property
    def roles(self) -> list[str]:
        """The role of each call."""
        return [call.role for call in self.calls]


class Captured:
    """`capture(agent, *args)` runs one rollout; `capture.init()` begins the session earlier than the first run."""

    def __init__(self, hub: HubProcess, log: HubLog, wire: Wire) -> None:
        self._hub, self._log, self._wire = hub, log, wire
        log.events(NO_ROLLOUT)  # of earlier tests

    def init(self, **options: Any) -> None:
        """`lightning.init` with the hub of these tests; arguments are passed on."""
        lightning.init(hub=self._hub.address, key=self._hub.key, **options)

    def __call__(
        self,
        agent: Callable[..., Any],
        *args: Any,
        train: bool = True,
        trainable: bool = True,
        roles: Iterable[str] = (),
        raises: type[BaseException] | tuple[type[BaseException], ...] = (),
        **sampling: Any,
    ) -> Run:
        """Run `agent(*args)` inside a rollout and return what the hub has of it.

        Args:
            agent: Plain, async, or a generator; what it finally gives is `answer`.
            train: Trainable calls go to the engine; False: calls are recorded and go where they always went.
            trainable: The agent runs under `@lightning.agent(trainable=True)`, in the role `OUTER`; False: as it is.
            roles: As `train(roles=...)`: only these are trained; empty: every role that is trainable.
            raises: Errors that are kept in `error`; others rise.
            sampling: Changes to `SAMPLING`, such as max_tokens_default=8.
        """
        self.init()
        message = {
            "id": uuid.uuid4().hex,
            "key": os.urandom(16),
            "roles": list(roles),
            "sampling": {**SAMPLING, **sampling},
            "endpoint": {
                "url": self._wire.endpoint.url,
                "model": self._wire.endpoint.model,
                "key": self._wire.endpoint.key,
            },
        }
        rollout = scope_from_assignment(message)
        if not train:
            rollout.endpoint = None
        run, seen = Run(), len(self._wire.exchanges)
        sink.send_begin(rollout, {})
        status = Status.OK
        try:
            with use_scope(Scope(rollout=rollout)):
                run.answer = _turn(agent, trainable)(*args)
        except BaseException as error:
            status = Status.AGENT_ERROR
            if not isinstance(error, raises):
                raise
            run.error = error
        finally:
            end(rollout, status)
        run.calls, run.spans = self._read_events(rollout.key)
        run.exchanges = self._wire.exchanges[seen:]
        return run

    def outside(self) -> list[Seen]:
        """Calls that belonged to no rollout, since this was last asked."""
        return self._read_events(NO_ROLLOUT)[0]

    def _read_events(self, key: bytes) -> tuple[list[Seen], list[Span]]:
        stream = session.start().stream
        assert stream is not None and stream.flush(20.0), "the hub did not take everything"
        events = self._log.events(key)
        calls = [Seen(Call.unpack(event[2])) for event in events if event[0] == Event.CALL]
        calls.sort(key=lambda call: call.raw.meta.started_ns)
        return calls, [Span.unpack(event[2]) for event in events if event[0] == Event.SPAN]


def _turn(agent: Callable[..., Any], trainable: bool) -> Callable[..., Any]:
    def outer(*args: Any) -> Any:
        return resolve_here(agent(*args))

    assert outer.__name__ == OUTER
    return lightning.agent(trainable=True)(outer) if trainable else outer


class HubLog:
    """The log that a running hub appends to: what the hub acknowledged is on disk, decoded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._events: dict[bytes, list[list[Any]]] = {}

    def events(self, key: bytes) -> list[list[Any]]:
        """Events of a rollout key that were not given before, in order."""
        for path in sorted(self._folder.glob("*.log")):
            for batch in self._batches(path):
                for event in batch.events():
                    self._events.setdefault(event[1], []).append(event)
        return self._events.pop(key, [])

    def _batches(self, path: Path) -> Iterator[EventBatch]:
        size = EventBatch.HEADER.size
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            while len(header := file.read(size)) == size:
                length = EventBatch.HEADER.unpack(header)[3]
                if not length or len(body := file.read(length)) < length:
                    break  # it is being written
                yield EventBatch.read(header, body)
                self._read[path] = self._read.get(path, 0) + size + length

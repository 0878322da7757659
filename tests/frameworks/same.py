"""What a test asserts of a framework: the same ids, the same bytes, and everything put back."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import lightning_sdk as lightning
from lightning_sdk.capture.patches import Patches
from lightning_sdk.stream import sink
from lightning_sdk.stream.wire import unpack_floats, unpack_ints
from lightning_sdk.trace import scope
from tests.frameworks.captured import Run, Seen
from tests.frameworks.exchange import Exchange
from tests.frameworks.wire_proxy import Wire

#: Headers whose value a client makes up for every request.
VARYING = frozenset({"idempotency-key", "x-client-request-id"})
_UUID = rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_GIVEN_ID = rb'"(?:id|call_id|item_id|response_id)": ?"([^"]{6,})"'
_MISSING = object()


def assert_same_ids(call: Seen, wire: Wire) -> None:
    """The hub has exactly the ids and log-probabilities that went over the wire: prompt, and each choice's.

    A call that was left early has what was read of them.
    """
    matching = [each for each in wire.engine if call.response_id and each.tokens.response_id == call.response_id]
    assert len(matching) == 1, f"{len(matching)} replies of the engine have the id of {call.raw.meta}: {call.problem}"
    assert call.trainable and not call.problem, f"{call.raw.meta}: {call.problem!r}"
    tokens = matching[0].tokens
    assert call.prompt_ids == tokens.prompt_ids != []
    assert [choice.index for choice in call.choices] == sorted(tokens.completion_ids)
    for choice in call.choices:
        ids, logprobs = list(unpack_ints(choice.token_ids)), list(unpack_floats(choice.logprobs))
        sent, sent_logprobs = tokens.completion_ids[choice.index], list(array("f", tokens.logprobs[choice.index]))
        if call.status == "cancelled":
            sent, sent_logprobs = sent[: len(ids)], sent_logprobs[: len(logprobs)]
        assert ids == sent != [], f"choice {choice.index} of {call.raw.meta}"
        assert logprobs == sent_logprobs != [], f"choice {choice.index} of {call.raw.meta}"


def assert_all_trained(run: Run, wire: Wire, roles: Iterable[str] | None = None) -> None:
    """Every call went to the engine with the same ids, nothing went elsewhere, and the roles are these, in order."""
    assert run.calls and len(run.calls) == len(run.exchanges) == sum(each.face == "engine" for each in run.exchanges)
    for call in run.calls:
        assert call.status == "ok", f"{call.raw.meta}"
        assert_same_ids(call, wire)
    if roles is not None:
        assert run.roles == list(roles)


def assert_same_bytes(before: list[Exchange], after: list[Exchange], *, varying: Iterable[str] = ()) -> None:
    """Two runs of the same agent sent the same requests, byte by byte.

    Only what a client makes up for each request is ignored: the headers `VARYING` and `varying`, UUIDs, and ids
    that a reply gave (of tool calls, of responses), as long as the same places hold them.
    """
    assert before, "nothing was sent before"
    assert [(each.method, each.path) for each in before] == [(each.method, each.path) for each in after]
    ignored = VARYING | {name.lower() for name in varying}
    for place, (one, other) in enumerate(zip(_plain(before, ignored), _plain(after, ignored), strict=True)):
        assert one == other, f"request {place} differs"


def _plain(exchanges: list[Exchange], ignored: frozenset[str]) -> list[tuple[Any, ...]]:
    """Requests with each made-up id replaced by the number of its first appearance."""
    given = {value for each in exchanges for value in re.findall(_GIVEN_ID, each.reply.replace(b"\\", b""))}
    numbers: dict[bytes, bytes] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return numbers.setdefault(found[0], b"<id %d>" % len(numbers))

    pattern = re.compile(b"|".join([_UUID, *(re.escape(value) for value in sorted(given, key=len, reverse=True))]))
    return [
        (
            each.method,
            each.path,
            [(name, value) for name, value in each.headers if name.lower() not in ignored | {"content-length"}],
            pattern.sub(number, each.body),
        )
        for each in exchanges
    ]


class Touched:
    """All attributes of an owner as they were before its first patch; independent of what `Patches` keeps."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Any, dict[str, Any]]] = {}
        self.names: set[str] = set()
        """What was patched, as 'module.Class.attribute'."""

    def watching(self, wrap: Callable[..., None]) -> Callable[..., None]:
        """`Patches.wrap`, looking first."""

        def watch(patches: Patches, owner: Any, name: str, make: Callable[..., Any]) -> None:
            self._before.setdefault(id(owner), (owner, dict(vars(owner))))
            self.names.add(f"{getattr(owner, '__module__', '')}.{getattr(owner, '__qualname__', owner)}.{name}")
            wrap(patches, owner, name, make)

        return watch

    def assert_restored(self, *expected: str) -> None:
        """Shut down; every attribute of everything that was patched is the very object that it was before `init()`.

        Args:
            expected: Ends of names that have to have been patched, such as 'BaseClient._build_request'.
        """
        lightning.shutdown()
        assert self.names, "nothing was patched, so this proves nothing"
        for end in expected:
            assert any(name.endswith(end) for name in self.names), f"{end} is not among {sorted(self.names)}"
        for owner, before in self._before.values():
            now = dict(vars(owner))
            changed = [
                name
                for name in {*before, *now}
                if name not in _MADE_BY_PYTHON and before.get(name, _MISSING) is not now.get(name, _MISSING)
            ]
            if isinstance(owner, type):
                assert not changed, f"{owner.__qualname__}: {changed}"
            else:  # a module goes on importing things
                lost = [name for name in changed if name in before]
                assert not lost, f"{owner.__name__}: {lost}"
        assert scope.role_sources == [] and not sink.is_listening()


#: What Python itself keeps on a class.
_MADE_BY_PYTHON = frozenset({"__abstractmethods__", "_abc_impl", "__dict__", "__weakref__", "__annotations__"})

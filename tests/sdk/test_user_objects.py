"""Objects of the user's own that raise when they are looked at, or do not encode: the agent sees them, we survive."""

from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.stream.packers import Packers
from lightning_sdk.stream.wire import NO_ROLLOUT, Event, EventBatch
from tests.sdk.recorder import Recorder


class Mute(Exception):
    """Says nothing of itself without raising."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__

    @property
    def response(self) -> Any:
        raise KeyError("response")

    stderr = status_code = url = response


class Closed(BaseException):
    """Has no attribute that can be read."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class Exits:
    def __repr__(self) -> str:
        raise SystemExit("repr")


class Text(str):
    """Text that does not let itself be encoded."""

    def encode(self, *args: Any) -> bytes:
        raise ValueError("no")

    def __format__(self, how: str) -> str:
        raise ValueError("no")


#: Made in the test: pytest looks at what it is given, too.
ERRORS = {
    "mute": Mute,
    "closed": Closed,
    "surrogate": lambda: ValueError("\ud800"),
    "group": lambda: ExceptionGroup("g", [Mute()]),
    "text": lambda: ValueError(Text("x")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_exception_passes_as_it_is_and_ends_its_rollout(name: str, recorder: Recorder) -> None:
    """What the agent raises comes out of the agent and the rollout itself, and the END can be sent."""
    error = ERRORS[name]()

    @lightning.agent
    def solve() -> None:
        raise error

    caught = None
    try:
        with lightning.rollout({"question": "2+2"}):
            solve()
    except BaseException as raised:
        caught = raised
    assert caught is error
    (end,) = recorder.of(Event.END)
    assert end[2] == "agent_error" and type(error).__name__ in end[3]
    assert Packers().pack(recorder.events)[0] == len(recorder.events) == 3


def test_an_answer_that_cannot_be_shown_is_said_to_be_so(recorder: Recorder) -> None:
    """A repr that raises SystemExit does not end the program; the END says why there is no text."""
    with lightning.rollout({}) as rollout:
        rollout.answer = Exits()
    (end,) = recorder.of(Event.END)
    assert "its repr raised SystemExit" in end[5]


def test_an_event_that_does_not_encode_is_recorded_as_text() -> None:
    """Nothing else of the batch is touched, and the event itself is not lost."""
    for value, kept in (
        ("\ud800", "?"),
        (2**70, str(2**70)),
        (Exits(), "a Exits that cannot be shown"),
        ({1}, "{1}"),
        ({2**70: [Mute()]}, {str(2**70): ["a Mute that cannot be shown"]}),
        (Text("\ud800"), "?"),
    ):
        events = [(Event.SPAN, NO_ROLLOUT, 1), (Event.SPAN, NO_ROLLOUT, value), (Event.SPAN, NO_ROLLOUT, 3)]
        count, body = Packers().pack(events)
        assert count == 3
        assert [fields[2] for fields in EventBatch(bytes(16), 1, 3, bytes(body)).events()] == [1, kept, 3]

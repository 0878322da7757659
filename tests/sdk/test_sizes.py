"""What cannot be sent as it is: the agent goes on, the rest is recorded, and it is said what was left out."""

from __future__ import annotations

import logging
from typing import Any

import msgpack
import pytest

import lightning_sdk as lightning
from lightning_sdk.capture import seam
from lightning_sdk.capture.seam import open_call
from lightning_sdk.stream import packers, sink
from lightning_sdk.stream.packers import Packers
from lightning_sdk.stream.wire import NO_ROLLOUT, Event
from tests.sdk.recorder import Recorder


@pytest.fixture
def recorder() -> Recorder:
    recorder = Recorder()
    sink.connect(recorder)
    return recorder


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({b"k": 1}, "task has the key b'k', which is bytes: use a string"),
        ({"q": {1: 2}}, r"task['q'] has the key 1"),
        ({"q": object}, r"task['q'] is <class 'object'>"),
        ({"q": "\ud800"}, r"half a character"),
    ],
)
def test_a_rollout_whose_task_cannot_be_kept_is_recorded_without_it(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, task: Any, said: str
) -> None:
    """The agent has its task all the same; the warning names the key."""
    with caplog.at_level(logging.WARNING), lightning.rollout(task) as rollout:
        assert rollout.task == task
    [begin] = recorder.of(Event.BEGIN)
    assert (begin[2], begin[3]) == (rollout.id, {})
    assert "recorded without its task" in caplog.text
    assert said in caplog.text


def test_a_call_that_is_too_large_is_recorded_without_its_bodies(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hub would read it, and it would keep all later ones waiting."""
    monkeypatch.setattr(seam, "MAX_EVENT_BYTES", 1000)
    call = open_call("test", "/v1/chat/completions")
    assert call is not None
    call.request = b"x" * 800
    call.finish(b'{"id": "' + b"y" * 300 + b'"}')
    [recorded] = recorder.calls
    assert recorded.request == b""
    assert "a call of 1,110 bytes is recorded without request and reply" in recorded.problem


def test_an_event_that_no_hub_would_read_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It alone, counted and said; those before and after it in the batch leave."""
    monkeypatch.setattr(packers, "MAX_EVENT_BYTES", 2000)
    events = [(int(Event.SPAN), NO_ROLLOUT, [name * size]) for name, size in (("a", 500), ("b", 5000), ("c", 500))]
    with caplog.at_level(logging.WARNING):
        count, body = Packers().pack(events)
    unpacker = msgpack.Unpacker()
    unpacker.feed(body)
    assert count == 2
    assert [event[2][0][0] for event in unpacker] == ["a", "c"]
    assert "was dropped" in caplog.text

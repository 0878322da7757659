"""How a streamed call ended: at its last event, by an error inside it, or because its reader left."""

import json
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.capture.reply_reader import ReplyReader
from lightning_sdk.capture.seam import OpenCall
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from tests.sdk.recorder import Recorder
from tests.sdk.trained import CHAT

CHUNK = json.dumps({"choices": [{"index": 0, "delta": {"content": "a"}}]}).encode()


@pytest.fixture
def rollout() -> RolloutScope:
    return RolloutScope("0" * 32, bytes(16), Endpoint("http://127.0.0.1:9/v1", "policy", "engine-key"))


def pass_on(rollout: RolloutScope, *pieces: bytes, trained: bool = True) -> ReplyReader:
    """Whatever is read of a stream, whose reader then leaves without waiting for its connection's end."""
    with use_scope(Scope(rollout=rollout, role="solver", trainable=trained)):
        call = OpenCall("openai", CHAT["model"])
    passage = ReplyReader(call, 200, "text/event-stream", None)
    for piece in pieces:
        passage.feed(piece)
    passage.finish()
    return passage


@pytest.mark.parametrize(
    "last",
    [
        b"data: [DONE]\n\n",
        b"data:[DONE]\n\n",
        b"data:[DONE]\r\n\r\n",
        b"data: [DONE]\r\r",
        b"data:[DONE]",
        b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
        b'event:response.completed\r\ndata: {"type": "response.completed"}\r\n\r\n',
    ],
)
def test_a_stream_that_was_read_to_its_last_event_is_whole(
    recorder: Recorder, rollout: RolloutScope, last: bytes
) -> None:
    """In every spelling, and wherever its pieces are cut."""
    lightning.init()
    for cut in (0, len(last) // 2, len(last) - 1):
        pass_on(rollout, b"data:" + CHUNK + b"\n\n", last[:cut], last[cut:])
    assert [call.meta.status for call in recorder.calls] == ["ok"] * 3


def test_a_stream_whose_reader_leaves_is_cancelled(recorder: Recorder, rollout: RolloutScope) -> None:
    """Also where a text says what ends a stream."""
    lightning.init()
    told = json.dumps({"choices": [{"index": 0, "delta": {"content": '\ndata: [DONE]\n "message_stop" error'}}]})
    pass_on(rollout, b"data: " + told.encode() + b"\n\n")
    assert [call.meta.status for call in recorder.calls] == ["cancelled"]
    assert rollout.broken == ""


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "out of memory"}},
        {"type": "error", "error": {"message": "out of memory"}},
        {"type": "error", "message": "out of memory"},
        {"type": "response.failed", "response": {"error": {"message": "out of memory"}}},
    ],
)
@pytest.mark.parametrize("done", [b"", b"data: [DONE]\n\n"])
def test_an_error_event_is_an_error(
    recorder: Recorder, rollout: RolloutScope, error: dict[str, Any], done: bytes
) -> None:
    """With what the server said; the engine's is our fault and not the agent's, the provider's is none of ours."""
    lightning.init()
    for trained in (False, True):
        assert rollout.broken == ""
        pass_on(
            rollout,
            b"data: " + CHUNK + b"\n\n",
            b"data: " + json.dumps(error).encode() + b"\n\n" + done,
            trained=trained,
        )
    assert [(call.meta.status, "out of memory" in call.meta.error) for call in recorder.calls] == [("error", True)] * 2
    assert "out of memory" in rollout.broken

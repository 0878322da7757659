"""A call inside a rollout, spoken by a trained role, and what has to be recorded of it."""

from collections.abc import Callable
from typing import Any

import lightning_sdk as lightning
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

ASK: dict[str, Any] = {"model": "gpt-x", "input": "abc"}
CHAT = {"model": "policy", "messages": [{"role": "user", "content": "abc"}]}


def train(engine: Provider | str, act: Callable[[], Any], **sampling: Any) -> Any:
    """`act` inside a rollout whose trainable roles go to `engine`, spoken by a trainable role."""
    url = engine if isinstance(engine, str) else engine.url
    rollout = RolloutScope("0" * 32, bytes(16), Endpoint(url, "policy", "engine-key"), sampling)
    with use_scope(Scope(rollout=rollout)):
        return lightning.agent(role="solver", trainable=True)(act)()


def only(recorder: Recorder) -> Call:
    assert len(recorder.calls) == 1, recorder.calls
    return recorder.calls[0]


def assert_trained(call: Call, engine: Provider, *, streamed: bool) -> None:
    """The call has the chat request as the engine got it, and all the tokens of 'cba'."""
    assert (call.meta.role, call.meta.trainable, call.meta.status, call.problem) == ("solver", True, "ok", "")
    assert call.meta.streamed == streamed and call.request == engine.requests[-1].raw
    assert engine.requests[-1].path == "/v1/chat/completions"
    assert call.prompt_ids == pack_ints([1, 2, 3]) and call.choices[0].token_ids == pack_ints(map(ord, "cba"))
    assert call.choices[0].logprobs == pack_floats([-0.5] * 3) and call.choices[0].finish_reason == "stop"

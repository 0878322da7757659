"""Calls through the gateway have the prompts of their rollout's candidate, and are otherwise what they were."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import pytest

from lightning_gateway.gateway import Gateway
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.trace.scope import RolloutScope, Scope
from tests.gateway.asking import ask
from tests.gateway.raw_server import Scripted
from tests.sdk.recorder import Recorder

OLD, NEW = "You are a helpful writer.", "You are a writer of very few words, and none of them is long."
FUNCTION = {"name": "look_up", "description": OLD, "parameters": {"type": "object", "properties": {}}}
BODIES = {
    "/v1/chat/completions": {
        "messages": [{"role": "system", "content": OLD}],
        "tools": [{"type": "function", "function": FUNCTION}],
    },
    "/v1/responses": {"instructions": OLD, "input": "abc", "tools": [{"type": "function", **FUNCTION}]},
    "/v1/messages": {
        "system": [{"type": "text", "text": OLD, "cache_control": {"type": "ephemeral"}}],
        "messages": [],
        "tools": [{"name": "look_up", "description": OLD, "input_schema": {"type": "object"}}],
    },
}


def key_of(gateway: Gateway, texts: dict[str, str]) -> str:
    rollout = RolloutScope("0" * 32, bytes(16), candidate=Candidate("c1", texts))
    return gateway.environment(Scope(rollout=rollout, role="writer"))["OPENAI_API_KEY"]


@pytest.mark.parametrize("path", BODIES)
def test_a_call_has_its_candidates_prompts(start: Callable[..., Gateway], recorder: Recorder, path: str) -> None:
    """In each protocol, in instructions and in descriptions of tools, with the length that the body has then; the
    record has what was sent."""
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        gateway = start(upstream.url)
        key = key_of(gateway, {OLD: NEW})
        status, _, _ = ask(f"{gateway.url}{path}", BODIES[path], authorization=f"Bearer {key}")
        sent = upstream.requests[0]
    assert status == 200
    assert json.loads(sent.body) == json.loads(json.dumps(BODIES[path]).replace(OLD, NEW))
    assert sent.header("content-length") == str(len(sent.body))
    assert recorder.calls[0].request == sent.body and recorder.calls[0].meta.candidate == "c1"


def test_a_body_without_the_text_passes_byte_for_byte(start: Callable[..., Gateway], recorder: Recorder) -> None:
    """Also one that cannot be read."""
    bodies = [b'{ "messages" : [],  "strange": 1.50 }', b"not json", gzip.compress(b"{}")]
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        gateway = start(upstream.url)
        key = key_of(gateway, {OLD: NEW})
        for body in bodies:
            ask(f"{gateway.url}/v1/chat/completions", body, authorization=f"Bearer {key}")
        assert [request.body for request in upstream.requests] == bodies

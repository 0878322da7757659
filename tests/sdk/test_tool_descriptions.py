"""The description of a tool is a candidate's in the request as it leaves, at the seam of each SDK.

Providers and the engine stand in for what no test may call.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from huggingface_hub import InferenceClient

import lightning_sdk as lightning
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.trace.scope import Endpoint
from tests.sdk.anthropic_provider import AnthropicProvider
from tests.sdk.candidates import with_candidate
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.responses_provider import ResponsesProvider

OLD, NEW = "Looks up a word.", "Looks up one word in the dictionary. Give it in lower case."
PARAMETERS = {"type": "object", "properties": {"word": {"type": "string", "description": OLD}}}
#: They contain OLD too, but must not be changed: the description of a parameter, and a user's message.
SAID: Any = [{"role": "user", "content": OLD}]
FUNCTION: Any = {"name": "look_up", "description": OLD, "parameters": PARAMETERS}
CHAT: dict[str, Any] = {"model": "m", "messages": SAID, "tools": [{"type": "function", "function": FUNCTION}]}


@pytest.fixture(autouse=True)
def patch() -> None:
    lightning.init()


def chat(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="k") as client:
        client.chat.completions.create(**CHAT)


def hugging(url: str) -> None:
    with InferenceClient(base_url=url, api_key="k") as client:
        client.chat_completion(SAID, tools=CHAT["tools"])


def respond(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="k") as client:
        client.responses.create(model="m", input=OLD, tools=[{"type": "function", "strict": False, **FUNCTION}])


def message(url: str) -> None:
    tool: Any = {"name": "look_up", "description": OLD, "input_schema": PARAMETERS}
    with anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key="k") as client:
        client.messages.create(model="m", max_tokens=9, messages=SAID, tools=[tool])


def assert_only_the_description_changed(body: dict[str, Any]) -> None:
    (tool,) = body["tools"]
    tool = tool.get("function", tool)
    assert tool["description"] == NEW and tool["name"] == "look_up"
    assert tool.get("parameters", tool.get("input_schema")) == PARAMETERS
    assert OLD in str(body.get("messages", body.get("input")))


@pytest.mark.parametrize("ask", [chat, hugging, respond, message])
def test_at_the_agents_own_provider(ask: Callable[[str], None], provider: Provider, recorder: Recorder) -> None:
    candidate = Candidate("c1", {OLD: NEW})
    with AnthropicProvider() as theirs, ResponsesProvider() as responses:
        url = theirs.url if ask is message else responses.url if ask is respond else provider.url
        with_candidate(lambda: ask(url), candidate)
        sent = [each.raw for each in (*provider.requests, *theirs.requests)] + [raw for _, raw in responses.seen]
    assert_only_the_description_changed(json.loads(sent[0]))
    assert candidate.unseen() == [] and recorder.calls[0].meta.candidate == "c1" and len(sent) == 1


@pytest.mark.parametrize("ask", [chat, hugging, respond, message])
def test_at_an_engine(ask: Callable[[str], None], provider: Provider) -> None:
    """Where requests of other protocols are translated to chat completions."""
    with_candidate(
        lambda: ask("http://127.0.0.1:9/v1"), Candidate("c1", {OLD: NEW}), Endpoint(provider.url, "policy", "k")
    )
    assert_only_the_description_changed(provider.requests[0].body)

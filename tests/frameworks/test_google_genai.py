"""google-genai, Google's SDK: its calls are recorded and have their rollout's prompts, and are otherwise untouched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.frameworks.same import assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("google.genai")
from google import genai
from google.genai import errors, types

import lightning_sdk as lightning
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.trace.scope import RolloutScope, Scope, use_scope

OLD, NEW = "You are a helpful writer.", "You are a writer of very few words."
PARAMETERS = {"type": "OBJECT", "properties": {"word": {"type": "STRING", "description": OLD}}}
CONFIG = types.GenerateContentConfig(
    system_instruction=OLD,
    tools=[
        types.Tool(
            function_declarations=[types.FunctionDeclaration(name="look_up", description=OLD, parameters=PARAMETERS)]
        )
    ],
)
ASK: dict[str, Any] = {"model": "gemini-test", "contents": OLD, "config": CONFIG}

Ask = Callable[[Any], str]


def open_client(wire: Any) -> genai.Client:
    return genai.Client(api_key="mine", http_options=types.HttpOptions(base_url=wire.root))


def generate(wire: Any) -> str:
    with open_client(wire) as client:
        return client.models.generate_content(**ASK).text or ""


def stream(wire: Any) -> str:
    with open_client(wire) as client:
        return "".join(each.text or "" for each in client.models.generate_content_stream(**ASK))


def agenerate(wire: Any) -> str:
    async def ask() -> str:
        async with open_client(wire).aio as client:
            return (await client.models.generate_content(**ASK)).text or ""

    return asyncio.run(ask())


def astream(wire: Any) -> str:
    async def ask() -> str:
        async with open_client(wire).aio as client:
            return "".join([each.text or "" async for each in await client.models.generate_content_stream(**ASK)])

    return asyncio.run(ask())


WAYS = pytest.mark.parametrize("ask", [generate, stream, agenerate, astream])


@WAYS
def test_a_call_is_recorded_and_left_alone(wire: Any, capture: Any, touched_names: Any, ask: Ask) -> None:
    """The same bytes leave, and the record has what was asked, answered and used; all is restored."""
    wire.script(Said("It is 42."), Said("It is 42."))
    assert ask(wire) == "It is 42."
    before = wire.clear()
    run = capture(lambda: ask(wire), train=False)
    assert run.answer == "It is 42."
    assert_same_bytes(before, wire.clear())
    (call,) = run.calls
    assert (call.framework, call.status, call.trainable, call.problem) == ("google_genai", "ok", False, "")
    assert call.streamed == ("stream" in ask.__name__) and call.request == before[0].json
    assert call.message == {"role": "assistant", "content": "It is 42."}
    assert (call.raw.model, call.raw.input_tokens, call.raw.output_tokens) == ("gemini-test", 7, 11)
    touched_names.assert_restored("BaseApiClient._request_once", "HttpResponse._aiter_response_stream")


def test_a_call_of_a_tool(wire: Any, capture: Any) -> None:
    wire.script(Said(tools=(("look_up", {"word": "a"}),)))
    (call,) = capture(lambda: generate(wire), train=False).calls
    (asked,) = call.message["tool_calls"]
    assert (asked["function"]["name"], json.loads(asked["function"]["arguments"])) == ("look_up", {"word": "a"})
    assert call.choices[0].finish_reason == "tool_calls"


def test_a_trained_role_is_told_that_no_engine_can_answer(wire: Any, capture: Any, caplog: Any) -> None:
    """The call goes where it was going, and is not trained on."""
    run = capture(lambda: generate(wire))
    assert [call.trainable for call in run.calls] == [False] and wire.engine == []
    assert "not trained on" in caplog.text


@WAYS
def test_an_error_is_the_callers_and_recorded(wire: Any, capture: Any, ask: Ask) -> None:
    wire.fail(400)
    run = capture(lambda: ask(wire), train=False, raises=(errors.ClientError,))
    (call,) = run.calls
    assert (call.status, call.http_status) == ("error", 400) and "told to answer 400" in call.problem


@WAYS
def test_a_candidates_prompt_is_sent(wire: Any, ask: Ask) -> None:
    """In the instruction and in the description of a tool, and nowhere else; byte for byte the same without one."""
    lightning.init()

    def send(candidate: Candidate | None) -> list[Any]:
        wire.clear()
        with use_scope(Scope(rollout=RolloutScope("0" * 32, bytes(16), candidate=candidate), role="writer")):
            ask(wire)
        return wire.clear()

    plain, candidate = send(None), Candidate("c1", {OLD: NEW})
    assert_same_bytes(plain, send(Candidate("c2", {"Something else.": "x"})))
    (exchange,) = send(candidate)
    wanted = plain[0].json
    wanted["systemInstruction"]["parts"][0]["text"] = NEW
    wanted["tools"][0]["functionDeclarations"][0]["description"] = NEW
    assert exchange.json == wanted and candidate.unseen() == []

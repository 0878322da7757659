"""A rollout's prompts are in the requests of clients that do not go through the SDKs of OpenAI and Anthropic."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.frameworks.same import assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("dspy")
pytest.importorskip("litellm")
import dspy
import litellm

import lightning_sdk as lightning
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.trace.scope import RolloutScope, Scope, use_scope

OLD, NEW = "You are a helpful writer.", "You are a writer of very few words."
ASK: list[dict[str, str]] = [{"role": "system", "content": OLD}, {"role": "user", "content": "What is 12 + 30?"}]
FUNCTION = {
    "name": "look_up",
    "description": OLD,
    "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": OLD}}},
}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": FUNCTION}]
ANSWER = Said("[[ ## answer ## ]]\n42\n\n[[ ## completed ## ]]")


class Write(dspy.Signature):
    """You are a helpful writer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def at(wire: Any, model: str) -> dict[str, Any]:
    base = wire.root if model.startswith(("anthropic/", "gemini/")) else wire.url
    asked = {"model": model, "messages": ASK, "tools": TOOLS, "max_tokens": 24}
    return {**asked, "num_retries": 0, "api_base": base, "api_key": "mine"}


def of_openai(wire: Any) -> None:
    litellm.completion(**at(wire, "openai/gpt-4o-mini"))


def of_anthropic(wire: Any) -> None:
    litellm.completion(**at(wire, "anthropic/claude-test"))


def aof_anthropic(wire: Any) -> None:
    asyncio.run(litellm.acompletion(**at(wire, "anthropic/claude-test")))


def stream_anthropic(wire: Any) -> None:
    list(litellm.completion(**at(wire, "anthropic/claude-test"), stream=True))


def of_gemini(wire: Any) -> None:
    litellm.completion(**at(wire, "gemini/gemini-2.5-flash"))


def of_lm15(wire: Any) -> None:
    lm = dspy.LM("openai/m", api_base=wire.url, api_key="mine", num_retries=0, max_tokens=24, cache=False)
    lm(messages=ASK, tools=TOOLS)


def aof_lm15(wire: Any) -> None:
    lm = dspy.LM("openai/m", api_base=wire.url, api_key="mine", num_retries=0, max_tokens=24, cache=False)
    asyncio.run(lm.acall(messages=ASK, tools=TOOLS))


def of_a_signature(wire: Any) -> None:
    wire.answer = lambda _: ANSWER
    lm = dspy.LM("openai/m", api_base=wire.url, api_key="mine", num_retries=0, max_tokens=24, cache=False)
    with dspy.context(lm=lm):
        dspy.Predict(Write)(question="What is 12 + 30?")


WAYS = [of_openai, of_anthropic, aof_anthropic, stream_anthropic, of_gemini, of_lm15, aof_lm15, of_a_signature]


def send(wire: Any, ask: Callable[[Any], None], candidate: Candidate | None, *, trained: bool = False) -> list[Any]:
    """What left while `ask` ran in a rollout of this candidate."""
    lightning.init()
    wire.clear()
    rollout = RolloutScope("0" * 32, bytes(16), wire.endpoint if trained else None, candidate=candidate)
    with use_scope(Scope(rollout=rollout, role="writer", trainable=True)):
        ask(wire)
    exchanges = wire.clear()
    assert len(exchanges) == 1
    return list(exchanges)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("ask", WAYS)
def test_a_candidates_prompt_is_sent(wire: Any, ask: Callable[[Any], None], trained: bool) -> None:
    """To the user's own provider and to the engine; marked, also inside the text that DSPy makes of a signature. The
    description of a tool is another text; that of a parameter is none."""
    candidate = Candidate("c1", {OLD: NEW}, {OLD: "writer"} if ask is of_a_signature else {})
    (exchange,) = send(wire, ask, candidate, trained=trained)
    body = exchange.json
    if ask is not of_a_signature:
        tools = body.pop("tools")
        tool = tools[0].get("function_declarations", tools)[0]
        tool = tool.get("function", tool)
        parameters = tool.get("parameters", tool.get("input_schema"))
        assert tool["name"] == "look_up" and tool["description"] == NEW
        assert parameters["properties"]["word"]["description"] == OLD
    assert NEW in str(body) and OLD not in str(body)
    assert candidate.unseen() == []


@pytest.mark.parametrize("ask", WAYS)
def test_other_requests_are_what_they_were(wire: Any, ask: Callable[[Any], None]) -> None:
    """Without a candidate, and with one whose text is not there, the same bytes leave."""
    before = send(wire, ask, None)
    assert_same_bytes(before, send(wire, ask, Candidate("c1", {"Something else.": "x"})))

"""Answers with a type: what frameworks send for them is kept by the engine, so that every answer fits."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from tests.frameworks.same import assert_all_trained

QUESTION = "What is 12 + 30?"
#: Enough tokens for each of these answers.
LONG = {"max_tokens_default": 100}


class Verdict(BaseModel):
    """What is said of a sum."""

    sign: Literal["plus", "minus"]
    sure: bool


def format_of(run: Any) -> Any:
    return (run.calls[-1].request.get("response_format") or {}).get("type")


def test_openai_parse(wire, capture) -> None:
    """`parse` of the OpenAI SDK, with chat completions and with Responses."""
    from openai import OpenAI  # noqa: PLC0415 - each test needs another framework

    client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    messages: Any = [{"role": "user", "content": QUESTION}]
    for ask in (
        lambda: (
            client.chat.completions.parse(model="m", messages=messages, response_format=Verdict)
            .choices[0]
            .message.parsed
        ),
        lambda: client.responses.parse(model="m", input=QUESTION, text_format=Verdict).output_parsed,
    ):
        run = capture(ask, **LONG)
        assert isinstance(run.answer, Verdict) and format_of(run) == "json_schema"
        assert_all_trained(run, wire)


@pytest.mark.parametrize("kind", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])
def test_openai_agents(wire, capture, kind: str) -> None:
    """`output_type`."""
    agents = pytest.importorskip("agents")
    if not hasattr(agents, "Runner"):
        pytest.skip("agents is another distribution here")
    from openai import AsyncOpenAI  # noqa: PLC0415

    client = AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    model = getattr(agents, kind)("gpt-4o-mini", client)
    solver = agents.Agent(name="solver", model=model, output_type=Verdict)
    run = capture(lambda: agents.Runner.run_sync(solver, QUESTION).final_output, **LONG)
    assert isinstance(run.answer, Verdict) and format_of(run) == "json_schema"
    assert_all_trained(run, wire, ["solver"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_langchain(wire, capture, method: str) -> None:
    """`with_structured_output`, each of its ways; a JSON object may be any, so what json_mode gives is not parsed."""
    langchain = pytest.importorskip("langchain_openai")
    model = langchain.ChatOpenAI(model="gpt-4o-mini", base_url=wire.url, api_key="mine", max_retries=0)
    structured = model.with_structured_output(Verdict, method=method, include_raw=method == "json_mode")
    run = capture(lambda: structured.invoke(QUESTION), **LONG)
    if method == "json_mode":
        assert run.answer["raw"].content.startswith("{") and format_of(run) == "json_object"
    else:
        assert isinstance(run.answer, Verdict)
    forced = run.calls[0].request.get("tool_choice")
    assert (forced or {}).get("type") == ("function" if method == "function_calling" else None)
    assert_all_trained(run, wire)


@pytest.mark.parametrize("native", [False, True], ids=["tool", "native"])
def test_pydantic_ai(wire, capture, native: bool) -> None:
    """An output type, as a tool that must be called (its default) and as a schema."""
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from openai import AsyncOpenAI  # noqa: PLC0415
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

    client = AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client))
    output = pydantic_ai.NativeOutput(Verdict) if native else Verdict
    agent = pydantic_ai.Agent(model, name="solver", output_type=output)
    run = capture(lambda: agent.run_sync(QUESTION).output, **LONG)
    assert isinstance(run.answer, Verdict)
    assert (format_of(run) == "json_schema") == native
    assert run.calls[0].request.get("tool_choice") == (None if native else "required")
    assert_all_trained(run, wire)


def test_crewai(wire, capture) -> None:
    """`output_pydantic` of a task."""
    crewai = pytest.importorskip("crewai")
    llm = crewai.LLM(model="gpt-4o-mini", base_url=wire.url, api_key="mine", max_tokens=100)
    agent = crewai.Agent(role="solver", goal="solve", backstory="you solve", llm=llm, max_iter=2)
    task = crewai.Task(description=QUESTION, expected_output="a verdict", agent=agent, output_pydantic=Verdict)
    run = capture(lambda: crewai.Crew(agents=[agent], tasks=[task]).kickoff().pydantic, **LONG)
    assert isinstance(run.answer, Verdict) and format_of(run) == "json_schema"
    assert_all_trained(run, wire)


def test_dspy(wire, capture) -> None:
    """The JSON adapter, whose first try is a schema."""
    dspy = pytest.importorskip("dspy")

    class Judge(dspy.Signature):
        """Judge the sum."""

        question: str = dspy.InputField()
        sign: Literal["plus", "minus"] = dspy.OutputField()
        sure: bool = dspy.OutputField()

    def judge() -> Any:
        lm = dspy.LM("openai/gpt-4o-mini", api_base=wire.url, api_key="mine", cache=False)
        with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
            return dspy.Predict(Judge)(question=QUESTION)

    run = capture(judge, **LONG)
    assert run.answer.sign in ("plus", "minus") and isinstance(run.answer.sure, bool)
    assert len(run.calls) == 1 and format_of(run) == "json_schema"
    assert_all_trained(run, wire)

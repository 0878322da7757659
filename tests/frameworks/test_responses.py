"""The Responses API of the OpenAI SDK, 2 and 3: trained through the real engine, unchanged with training off."""

import asyncio
import gc
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

import lightning_sdk as lightning
from lightning_sdk.errors import Untranslatable
from tests.frameworks.calculator import CALCULATOR
from tests.frameworks.captured import Run
from tests.frameworks.same import assert_all_trained, assert_same_bytes, assert_same_ids
from tests.frameworks.scripted import Said

TOOL: dict[str, Any] = {"type": "function", **CALCULATOR["function"], "strict": False}
QUESTION = {"role": "user", "content": "What is 12 + 30?"}
PATCHED = ("BaseClient._build_request", "AsyncAPIClient.request", "SyncAPIClient._process_response")


def client_of(wire: Any, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=wire.url, api_key="mine", max_retries=0, **options)


def solve(client: openai.OpenAI, *, by_id: bool = False, stream: bool = False) -> str:
    """An agent with a tool, as the documentation of the API writes it."""
    items: list[Any] = [QUESTION]
    response = ask(client, stream, input=items)
    while calls := [item for item in response.output if item.type == "function_call"]:
        outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "42"} for call in calls]
        if by_id:
            response = ask(client, stream, input=outputs, previous_response_id=response.id)
        else:
            items = [*items, *response.output, *outputs]
            response = ask(client, stream, input=items)
    return response.output_text


def ask(client: openai.OpenAI, stream: bool, **request: Any) -> Any:
    request = {"model": "gpt-x", "tools": [TOOL], "instructions": "Calculate.", **request}
    if not stream:
        return client.responses.create(**request)
    with client.responses.stream(**request) as events:
        return events.get_final_response()


def assert_second_turn_continues(run: Run) -> None:
    """The second prompt is the first turn's own tokens and then what is new: one sequence to train on."""
    first, second = run.calls
    begun = first.prompt_ids + first.completion_ids
    assert second.prompt_ids[: len(begun)] == begun


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("by_id", [False, True], ids=["items", "previous_response_id"])
def test_a_trained_agent_with_a_tool(
    wire: Any, capture: Any, prove: Any, touched_names: Any, stream: bool, by_id: bool
) -> None:
    """Both calls reach the engine and are recorded with its ids; a client made before `init()` is caught as well."""
    client = client_of(wire)
    run = capture(lambda: solve(client, by_id=by_id, stream=stream))
    assert "42" in run.answer
    assert_all_trained(run, wire, roles=["outer", "outer"])
    assert [call.path for call in run.calls] == ["/responses"] * 2 and run.calls[0].streamed == stream
    assert all(exchange.path == "/engine/v1/chat/completions" for exchange in run.exchanges)
    assert run.calls[0].message["tool_calls"][0]["function"]["name"] == "calculator"
    assert_second_turn_continues(run)
    prove("OpenAI SDK, Responses", "openai", run, async_=False)
    touched_names.assert_restored(*PATCHED)


def test_async_agents_interleave(wire: Any, capture: Any, prove: Any) -> None:
    """Two roles at once over one client: each call has its own ids, whole and streamed."""
    client = openai.AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)

    async def one(stream: bool) -> str:
        request: dict[str, Any] = {"model": "gpt-x", "input": [QUESTION], "tools": [TOOL]}
        if stream:
            async with client.responses.stream(**request) as events:
                return (await events.get_final_response()).output[0].type
        raw = await client.responses.with_raw_response.create(**request)
        return raw.parse().output[0].type

    async def both() -> list[str]:
        roles = [lightning.agent(role=role, trainable=True)(one) for role in ("writer", "checker")]
        answers = await asyncio.gather(*(role(stream) for role in roles for stream in (False, True)))
        await client.close()
        return answers

    run = capture(both)
    assert run.answer == ["function_call"] * 4
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["checker", "checker", "writer", "writer"]
    prove("OpenAI SDK, Responses", "openai", run, async_=True)


def test_training_off_changes_nothing(wire: Any, capture: Any) -> None:
    """The same bytes to the user's own provider, whole and streamed; the record has text, tools and usage."""
    client = client_of(wire)

    def agent() -> None:
        solve(client)
        solve(client, by_id=True, stream=True)

    agent()
    before = wire.clear()
    run = capture(agent, train=False)
    assert_same_bytes(before, wire.clear())
    assert len(run.calls) == 4 and not any(call.trainable or call.problem for call in run.calls)
    assert run.calls[0].message["tool_calls"][0]["function"]["name"] == "calculator"
    assert "42" in run.calls[1].message["content"] and "42" in run.calls[3].message["content"]
    assert all(call.raw.input_tokens and call.raw.output_tokens for call in run.calls)


@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_a_stream_left_early(wire: Any, capture: Any, ending: str) -> None:
    """Recorded once, as cancelled, with the ids that were read."""
    client = client_of(wire)

    def agent() -> None:
        stream = client.responses.create(model="gpt-x", input="Tell me a story.", stream=True)
        next(each for each in stream if each.type == "response.output_text.delta")
        if ending == "close":
            stream.close()
        del stream
        gc.collect()

    run = capture(agent, max_tokens_default=200)
    assert [call.status for call in run.calls] == ["cancelled"]
    assert_same_ids(run.calls[0], wire)


@pytest.mark.parametrize("status", [400, 500])
def test_errors(wire: Any, capture: Any, status: int) -> None:
    """The SDK's own error reaches the agent; the record says what it was."""
    wire.fail(status)
    client = client_of(wire)
    run = capture(lambda: solve(client), raises=openai.APIStatusError)
    assert isinstance(run.error, openai.APIStatusError) and run.error.status_code == status
    assert [(call.status, call.http_status) for call in run.calls] == [("error", status)]


def test_a_retry_is_one_call(wire: Any, capture: Any) -> None:
    """The last attempt is recorded."""
    wire.fail(500)
    client = client_of(wire).with_options(max_retries=1)
    run = capture(lambda: client.responses.create(model="gpt-x", input="Hello.").status)
    assert len(wire.engine) == 2 and [call.status for call in run.calls] == ["ok"]
    assert_same_ids(run.calls[0], wire)


def test_parse(wire: Any, capture: Any) -> None:
    """Structured output is read out of the text that the engine gave."""

    class Sum(BaseModel):
        value: int

    wire.script(Said('{"value": 42}'))
    client = client_of(wire)
    run = capture(lambda: client.responses.parse(model="gpt-x", input="12 + 30?", text_format=Sum).output_parsed)
    assert run.answer == Sum(value=42)
    assert run.calls[0].request["response_format"]["json_schema"]["name"] == "Sum"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_legacy_http_client(wire: Any, capture: Any, stream: bool) -> None:
    """A client of httpx, which openai 3 takes as well as httpx2; its credentials are not sent to the engine."""
    httpx = pytest.importorskip("httpx")
    with httpx.Client(auth=("me", "secret")) as http:
        client = client_of(wire, http_client=http)
        run = capture(lambda: solve(client, stream=stream))
    assert_all_trained(run, wire, roles=["outer", "outer"])
    assert "Basic" not in str([exchange.headers for exchange in run.exchanges])


def test_an_azure_client(wire: Any, capture: Any) -> None:
    """Its key and its query stay with the user."""
    client = openai.AzureOpenAI(
        api_key="secret", api_version="2025-04-01-preview", azure_endpoint=wire.root, azure_deployment="mine"
    )
    run = capture(lambda: solve(client))
    assert_all_trained(run, wire, roles=["outer", "outer"])
    assert all("secret" not in str(exchange.headers) and "?" not in exchange.path for exchange in run.exchanges)


def test_what_the_engine_cannot_do_is_said(wire: Any, capture: Any) -> None:
    """Before anything is sent, with what to do."""
    client = client_of(wire)
    run = capture(
        lambda: client.responses.create(model="gpt-x", input="Hi", tools=[{"type": "web_search"}]),
        raises=Untranslatable,
    )
    assert "your own code runs" in str(run.error) and run.exchanges == []
    assert [call.status for call in run.calls] == ["error"]


@pytest.mark.last
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("tool", ["openinference", "openllmetry", "logfire"])
def test_next_to_another_instrumentor(wire: Any, capture: Any, tool: str, when: str) -> None:
    """Whichever came first, our record is complete and the agent's answer is the same."""
    undo = []

    def theirs() -> None:
        undo.append(instrument(tool))

    if when == "before":
        theirs()
    else:
        capture.init()
        theirs()
    try:
        client = client_of(wire)
        run = capture(lambda: solve(client))
        assert "42" in run.answer
        assert_all_trained(run, wire, roles=["outer", "outer"])
        assert json.loads(run.calls[0].raw.request)["return_token_ids"] is True
    finally:
        lightning.shutdown()
        undo[0]()


def instrument(tool: str) -> Any:
    """Switch a tool on; what switches it off."""
    if tool == "logfire":
        logfire = pytest.importorskip("logfire")
        logfire = logfire.configure(local=True, send_to_logfire=False, console=False)
        context = logfire.instrument_openai()
        context.__enter__()
        return lambda: context.__exit__(None, None, None)
    name = {
        "openinference": "openinference.instrumentation.openai",
        "openllmetry": "opentelemetry.instrumentation.openai",
    }
    module = pytest.importorskip(name[tool])
    instrumentor = module.OpenAIInstrumentor()
    instrumentor.instrument()
    return instrumentor.uninstrument

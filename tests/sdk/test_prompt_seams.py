"""A candidate's texts are in the request as it leaves, at every seam, whether or not the role goes to an engine.

Providers and the engine stand in for what no test may call.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient

import lightning_litellm
import lightning_sdk as lightning
from lightning_sdk.capture.seam import open_call
from lightning_sdk.capture.submitted_work import carry
from lightning_sdk.errors import Untranslatable
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.rollouts.attempt import execute
from lightning_sdk.stream import notices
from lightning_sdk.trace.scope import Endpoint
from tests.sdk.anthropic_provider import AnthropicProvider
from tests.sdk.candidates import NEW, OLD, assignment, with_candidate
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.responses_provider import ResponsesProvider
from tests.sdk.test_prompt import REWARDS

MESSAGES: Any = [{"role": "system", "content": OLD}, {"role": "user", "content": f"abc {OLD}"}]
ASK: dict[str, Any] = {"model": "gpt-x", "messages": MESSAGES}


@pytest.fixture(autouse=True)
def patch() -> None:
    lightning.init()


@pytest.fixture
def theirs() -> Iterator[AnthropicProvider]:
    with AnthropicProvider() as provider:
        yield provider


def create(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="k", max_retries=1) as client:
        client.chat.completions.create(**ASK)


def stream(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="k") as client:
        list(client.chat.completions.create(**ASK, stream=True))


def acreate(url: str) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            await client.chat.completions.create(**ASK)

    asyncio.run(ask())


def extra(url: str) -> None:
    """Messages that the SDK does not know of."""
    with openai.OpenAI(base_url=url, api_key="k") as client:
        client.chat.completions.create(model="gpt-x", messages=[], extra_body={"messages": MESSAGES})


def hugging(url: str) -> None:
    with InferenceClient(base_url=url, api_key="k") as client:
        client.chat_completion(MESSAGES)


def ahugging(url: str) -> None:
    async def ask() -> None:
        async with AsyncInferenceClient(base_url=url, api_key="k") as client:
            await client.chat_completion(MESSAGES)

    asyncio.run(ask())


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("ask", [create, stream, acreate, extra, hugging, ahugging])
def test_chat_completions(provider: Provider, recorder: Recorder, ask: Callable[[str], None], trained: bool) -> None:
    """The instruction is the candidate's, nothing else is; what was sent is on the record, with the candidate's id."""
    candidate = Candidate("c1", {OLD: NEW})
    endpoint = Endpoint(provider.url, "policy", "engine-key") if trained else None
    url = "http://127.0.0.1:9/v1" if trained else provider.url
    with_candidate(lambda: ask(url), candidate, endpoint)
    sent, (call,) = provider.requests[0], recorder.calls
    assert sent.body["messages"] == [{"role": "system", "content": NEW}, MESSAGES[1]]
    assert MESSAGES[0]["content"] == OLD
    assert (call.meta.candidate, call.meta.trainable, call.request) == ("c1", trained, sent.raw)
    assert candidate.unseen() == []


@pytest.mark.parametrize("ask", [create, stream, acreate, hugging, ahugging])
def test_bytes_are_what_they_were(provider: Provider, recorder: Recorder, ask: Callable[[str], None]) -> None:
    """Without a candidate, and with one whose text is not there."""
    ask(provider.url)
    with_candidate(lambda: ask(provider.url), None)
    with_candidate(lambda: ask(provider.url), Candidate("c1", {"Something else.": "x"}))
    first, *others = provider.requests
    assert {each.raw for each in others} == {first.raw} and len(others) == 2
    assert [call.meta.candidate for call in recorder.calls] == ["", "", "c1"]
    lightning.shutdown()
    ask(provider.url)
    assert provider.requests[-1].raw == first.raw


def test_a_retry_has_the_candidates_text(provider: Provider) -> None:
    """Each attempt is built from the agent's own request."""
    provider.fail = [500]
    candidate = Candidate("c1", {OLD: f"{OLD} Twice."}, {OLD: "writer"})
    with_candidate(lambda: create(provider.url), candidate)
    assert [each.body["messages"][0]["content"] for each in provider.requests] == [f"{OLD} Twice."] * 2
    assert candidate.requests == 2


@pytest.mark.parametrize("trained", [False, True])
def test_the_responses_api(provider: Provider, recorder: Recorder, trained: bool) -> None:
    """`instructions`, and system items of the input; a trained role's are translated with the candidate's texts."""
    items: Any = [
        {"role": "system", "content": [{"type": "input_text", "text": OLD}]},
        {"role": "user", "content": "abc"},
    ]
    with ResponsesProvider() as responses:
        url, endpoint = responses.url, Endpoint(provider.url, "policy", "k") if trained else None

        def ask() -> None:
            with openai.OpenAI(base_url=url, api_key="k") as client:
                client.responses.create(model="gpt-x", instructions=OLD, input=items)

        with_candidate(ask, Candidate("c1", {OLD: NEW}), endpoint)
        if trained:
            texts = [each["content"] for each in provider.requests[0].body["messages"]]
            assert texts[0] == NEW and OLD not in str(texts)
        else:
            body = json.loads(responses.seen[0][1])
            assert (body["instructions"], body["input"][0]["content"][0]["text"]) == (NEW, NEW)
    assert [call.meta.candidate for call in recorder.calls] == ["c1"]


@pytest.mark.parametrize("system", [OLD, [{"type": "text", "text": OLD, "cache_control": {"type": "ephemeral"}}]])
@pytest.mark.parametrize("trained", [False, True])
def test_the_messages_api(theirs: AnthropicProvider, provider: Provider, system: Any, trained: bool) -> None:
    """`system` as a string, or as blocks that keep their `cache_control`."""
    endpoint = Endpoint(provider.url, "policy", "k") if trained else None

    def ask() -> None:
        with anthropic.Anthropic(base_url=theirs.url, api_key="k") as client:
            client.messages.create(
                model="claude-x", max_tokens=8, system=system, messages=[{"role": "user", "content": "abc"}]
            )

    with_candidate(ask, Candidate("c1", {OLD: NEW}), endpoint)
    if trained:
        assert NEW in str(provider.requests[0].body["messages"][0])
    else:
        sent = theirs.requests[0].body["system"]
        assert sent == (NEW if isinstance(system, str) else [{**system[0], "text": NEW}])


def test_a_signed_request_is_refused() -> None:
    """Bedrock's signature covers the body: a request with another prompt would be refused there, with a riddle."""

    def build(body: str) -> dict[str, Any]:
        call = open_call("litellm", "/model/claude/converse")
        assert call is not None
        return lightning_litellm._with_prompts(call, {"data": body, "headers": {"Authorization": "AWS4-HMAC-SHA256 x"}})

    candidate = Candidate("c1", {OLD: NEW})
    with pytest.raises(Untranslatable, match=r"role 'writer' calls a model of Amazon Bedrock.*lightning\.prompt"):
        with_candidate(lambda: build(json.dumps({"system": [{"text": OLD}]})), candidate)
    assert with_candidate(lambda: build('{"system": []}'), candidate)["data"] == '{"system": []}'


def test_work_in_another_process_has_the_rollouts_candidate(provider: Provider, recorder: Recorder) -> None:
    """What is submitted to a pool of processes arrives there as plain data, with the candidate."""
    carried = with_candidate(lambda: carry(create), Candidate("c1", {OLD: NEW}, {OLD: "writer"}))
    function, arguments = carried.__reduce__()
    function(*arguments)(provider.url)
    assert provider.requests[0].body["messages"][0]["content"] == NEW
    assert recorder.calls[0].meta.candidate == "c1"


def test_texts_that_were_never_seen_are_told(
    provider: Provider, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in the log for each text, and for each rollout to the hub, with how many requests were looked at."""
    agent = lambda task: create(provider.url)  # noqa: E731
    for _ in range(2):
        execute(agent, REWARDS, assignment({"id": "c1", "texts": {OLD: NEW, "You check.": "You check well."}}))
    assert (
        caplog.text.count("the text 'You check.' stood in none of the 1 requests of a rollout of candidate 'c1'") == 1
    )
    assert OLD not in caplog.text
    spans = [each for each in recorder.spans if each.name == notices.UNSEEN]
    told = {notices.CANDIDATE: "c1", notices.REQUESTS: 1, notices.TEXTS: ["You check."]}
    assert [each.attributes for each in spans] == [told, told]

"""Who makes a trained call sees a reply as their own provider would send it, while all of it is recorded."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.capture.unasked_fields import UnaskedFields
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.trained import CHAT, assert_trained, only, train


@pytest.fixture
def client(provider: Provider) -> Iterator[OpenAI]:
    lightning.init(integrations={"openai"})
    with OpenAI(base_url=provider.url, api_key="k", max_retries=0) as client:
        yield client


def extra(value: Any) -> Iterator[str]:
    """Names of fields with ids or log-probs in a reply."""
    for name, each in value.items() if isinstance(value, dict) else enumerate(value):
        if name in ("token_ids", "prompt_token_ids") or (name == "logprobs" and each):
            yield str(name)
        if isinstance(each, dict | list):
            yield from extra(each)


def test_a_whole_reply(client: OpenAI, provider: Provider, recorder: Recorder) -> None:
    """The parsed reply and the raw one have the text and none of the ids, which are recorded."""
    reply = train(provider, lambda: client.chat.completions.create(**CHAT))
    assert reply.choices[0].message.content == "cba" and reply.usage.total_tokens == 8
    assert list(extra(reply.model_dump())) == []
    assert_trained(only(recorder), provider, streamed=False)
    raw = train(provider, lambda: client.chat.completions.with_raw_response.create(**CHAT))
    assert list(extra(json.loads(raw.text))) == [] and raw.parse().choices[0].message.content == "cba"


def test_a_stream(client: OpenAI, provider: Provider, recorder: Recorder) -> None:
    """No chunk has any."""
    chunks = train(provider, lambda: list(client.chat.completions.create(**CHAT, stream=True)))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "cba"
    assert [name for chunk in chunks for name in extra(chunk.model_dump())] == []
    assert_trained(only(recorder), provider, streamed=True)


def test_what_the_agent_asks_for_stays(client: OpenAI, provider: Provider) -> None:
    """Log-probs, ids, or both."""

    def ask(**more: Any) -> list[str]:
        reply = train(provider, lambda: client.chat.completions.create(**CHAT, **more))
        return sorted(set(extra(reply.model_dump())))

    assert ask(logprobs=True) == ["logprobs"]
    assert ask(logprobs=False) == []
    assert ask(extra_body={"return_token_ids": True}) == ["prompt_token_ids", "token_ids"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_streams_are_cut_anywhere(size: int) -> None:
    """Comments, names, other line ends, data that cannot be read and a last line without an end pass as they are."""
    event = {"choices": [{"delta": {"content": "é\ud800"}, "token_ids": [1], "logprobs": {"content": []}}]}
    plain = b': hello\r\n\r\nevent: x\ndata:{"a":1}\n\ndata: {"token_ids": oops\n\n'
    stream = plain + b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]"
    less = UnaskedFields({})
    seen = b"".join(less.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + less.end()
    assert seen.startswith(plain) and seen.endswith(b"\n\ndata: [DONE]")
    (changed,) = [line for line in seen[len(plain) :].splitlines() if line.startswith(b"data: {")]
    assert json.loads(changed[6:]) == {"choices": [{"delta": {"content": "é\ud800"}, "logprobs": None}]}


def test_errors_pass_as_they_are() -> None:
    """So does a reply that is not JSON."""
    for status, body in ((400, b'{"token_ids": 1}'), (200, b'"logprobs" and no JSON')):
        assert UnaskedFields({}).reply(body, status) == body

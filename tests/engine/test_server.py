"""The endpoint, through the real OpenAI client over real sockets."""

import asyncio
import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import openai
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_embedded.engine.engine import Engine
from lightning_embedded.serving.chat import Chat
from tests.engine.served_engine import KEY, Service, make_model, serve
from tests.waiting import wait_for

ASK: list[Any] = [{"role": "user", "content": "What is twelve plus thirty?"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
        },
    }
]
ARGUMENTS = '{"expression":  "12 + 30"}'
CALL = 'Well <tool_call>{"name": "calculator", "arguments": ' + ARGUMENTS + "}</tool_call>"
IDS = {"return_token_ids": True}


@pytest.fixture(scope="module")
def caller(tokenizer: PreTrainedTokenizerFast) -> Iterator[Service]:
    """A service whose model has learned one conversation by heart: a call, in an unusual tokenisation, then 42."""
    model = make_model(len(tokenizer))
    engine = Engine(model, tokenizer, max_slots=8)
    chat = Chat(tokenizer, engine.decode)
    rows = [conversation(chat, tokenizer, TOOLS)]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(120):
        loss = sum(model(ids, labels=labels).loss for ids, labels in rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    engine.publish(model.state_dict(), 3)
    service, stop = serve(engine, chat, model)
    yield service
    stop()
    engine.close()


def conversation(chat: Chat, tokenizer: PreTrainedTokenizerFast, tools: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = chat.prompt(ASK, tools)[1]
    labels = [-100] * len(ids)
    call = odd(tokenizer, CALL)
    more = chat.encode("\n<|im_start|>tool\n<tool_response>42</tool_response><|im_end|>\n<|im_start|>assistant\n")
    answer = odd(tokenizer, "42")
    row = ids + call + more + answer
    return torch.tensor([row]), torch.tensor([labels + call + [-100] * len(more) + answer])


def odd(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """One id per character, tags apart: never what the tokenizer would do."""
    ids: list[int] = []
    for piece in text.replace("<tool_call>", "\0<tool_call>\0").replace("</tool_call>", "\0</tool_call>\0").split("\0"):
        parts = [piece] if "tool_call" in piece else list(piece)
        for part in parts:
            ids += tokenizer.encode(part, add_special_tokens=False)
    return [*ids, tokenizer.eos_token_id]


def test_models_and_health(service: Service) -> None:
    """The model is listed and can be looked up; health needs no key."""
    with service.client() as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        health = client.with_options(base_url=service.url.removesuffix("/v1"), api_key="none").get(
            "/health", cast_to=dict[str, Any]
        )
        assert health["status"] == "ok" and health["version"] == 0


def test_a_chat_completion_has_ids_and_logprobs(service: Service, tokenizer: PreTrainedTokenizerFast) -> None:
    """Ids, versions, log-probs, text and usage agree with each other and with the model."""
    with service.client() as client:
        reply = client.chat.completions.create(
            model="tiny", messages=ASK, max_tokens=12, n=3, logprobs=True, top_logprobs=2, extra_body=IDS
        )
    extra = reply.model_extra or {}
    assert reply.id.startswith("chatcmpl-")
    assert extra["prompt_token_ids"] == tokenizer.apply_chat_template(ASK, add_generation_prompt=True)["input_ids"]
    assert reply.usage and reply.usage.prompt_tokens == len(extra["prompt_token_ids"])
    assert reply.usage.completion_tokens == sum(len(choice.model_extra["token_ids"]) for choice in reply.choices)
    for choice in reply.choices:
        ids = choice.model_extra["token_ids"]
        assert choice.model_extra["weight_versions"] == [[0, len(ids)]]
        assert choice.message.content == tokenizer.decode(ids[:-1] if ids[-1] == 2 else ids)
        assert choice.logprobs and choice.logprobs.content
        with torch.no_grad():
            rows = service.model(torch.tensor([extra["prompt_token_ids"] + ids])).logits[0].log_softmax(-1)
        exact = rows[len(extra["prompt_token_ids"]) - 1 : -1].gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert [one.logprob for one in choice.logprobs.content] == pytest.approx(exact.tolist(), abs=1e-4)
        assert all(len(one.top_logprobs) == 2 for one in choice.logprobs.content)


def test_a_stream_says_the_same_as_the_whole(service: Service) -> None:
    """Chunks carry ids, log-probs, versions and text that add up to the reply of the same seed."""
    options: dict[str, Any] = {"model": "tiny", "messages": ASK, "max_tokens": 25, "n": 2, "seed": 5, "logprobs": True}
    with service.client() as client:
        whole = client.chat.completions.create(**options, extra_body=IDS)
        chunks = list(
            client.chat.completions.create(
                **options, stream=True, stream_options={"include_usage": True}, extra_body=IDS
            )
        )
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    assert "prompt_token_ids" in chunks[0].model_extra
    assert not any("prompt_token_ids" in chunk.model_extra for chunk in chunks[1:])
    for choice in whole.choices:
        mine = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        assert join(one.model_extra.get("token_ids", []) for one in mine) == choice.model_extra["token_ids"]
        runs = join(one.model_extra.get("weight_versions", []) for one in mine)
        assert sum(count for _, count in runs) == len(choice.model_extra["token_ids"])
        logprobs = [each for one in mine if one.logprobs for each in one.logprobs.content or []]
        assert [each.token for each in logprobs] == [each.token for each in choice.logprobs.content]
        assert mine[-1].finish_reason == choice.finish_reason


def test_tool_calls_go_round(caller: Service) -> None:
    """A sampled call becomes tool_calls verbatim, and the next prompt is the first one and its completion, id by id."""
    with caller.client() as client:
        options: dict[str, Any] = {"model": "tiny", "tools": TOOLS, "temperature": 0, "max_tokens": 90}
        first = client.chat.completions.create(messages=ASK, **options, extra_body=IDS)
        choice = first.choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content == "Well "
        assert choice.message.tool_calls and choice.message.tool_calls[0].function.name == "calculator"
        assert choice.message.tool_calls[0].function.arguments == ARGUMENTS
        result = {"role": "tool", "content": "42", "tool_call_id": choice.message.tool_calls[0].id}
        turn = [*ASK, choice.message.model_dump(exclude_none=True), result]
        second = client.chat.completions.create(messages=turn, **options, extra_body=IDS)
    known = first.model_extra["prompt_token_ids"] + choice.model_extra["token_ids"]
    assert second.model_extra["prompt_token_ids"][: len(known)] == known
    assert caller.chat.encode(caller.engine.decode(known)) != known
    assert second.choices[0].message.content == "42" and second.choices[0].finish_reason == "stop"
    assert choice.model_extra["weight_versions"] == [[3, len(choice.model_extra["token_ids"])]]


def test_streamed_tool_calls(caller: Service) -> None:
    """A stream shows the text before a call, then the call, and never a piece of its tag."""
    with (
        caller.client() as client,
        client.chat.completions.stream(model="tiny", messages=ASK, tools=TOOLS, temperature=0, max_tokens=90) as stream,
    ):
        contents = [event.delta for event in stream if event.type == "content.delta"]
        message = stream.get_final_completion().choices[0]
    assert "".join(contents) == "Well "
    assert message.finish_reason == "tool_calls" and message.message.tool_calls
    assert message.message.tool_calls[0].function.arguments == ARGUMENTS


def test_calls_are_text_without_tools(caller: Service) -> None:
    """With tool_choice 'none' nothing is parsed."""
    with caller.client() as client:
        reply = client.chat.completions.create(
            model="tiny", messages=ASK, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=90
        )
    assert reply.choices[0].message.content == CALL and not reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "stop"


def test_what_was_cut_is_continued_exactly(service: Service) -> None:
    """Random tokens, cut by max_tokens, come back as they were sampled in the next turn's prompt."""
    with service.client() as client:
        first = client.chat.completions.create(model="tiny", messages=ASK, max_tokens=9, seed=2, extra_body=IDS)
        turn = [*ASK, {"role": "assistant", "content": first.choices[0].message.content}, *ASK]
        second = client.chat.completions.create(model="tiny", messages=turn, max_tokens=1, extra_body=IDS)
    known = first.model_extra["prompt_token_ids"] + first.choices[0].model_extra["token_ids"]
    assert second.model_extra["prompt_token_ids"][: len(known)] == known


@pytest.mark.parametrize("stream", [False, True])
def test_an_id_ends_the_answer(service: Service, stream: bool) -> None:
    """With `stop_token_ids` it is the last id of its answer, is not in the text, and what came before is as it was."""

    def ask(**more: Any) -> tuple[list[int], str, set[str | None]]:
        given: Any = {"model": "tiny", "messages": ASK, "max_tokens": 40, "seed": 3, "stream": stream}
        with service.client() as client:
            reply: Any = client.chat.completions.create(**given, extra_body={**IDS, **more})
            chunks = [chunk.choices[0] for chunk in reply] if stream else [reply.choices[0]]
        ids = join(chunk.model_extra.get("token_ids", []) for chunk in chunks)
        text = "".join((chunk.delta if stream else chunk.message).content or "" for chunk in chunks)
        return ids, text, {chunk.finish_reason for chunk in chunks} - {None}

    ids, _, ended = ask()
    assert len(ids) == 40 and ended == {"length"}
    stop = ids[20]
    assert stop not in service.engine.ends
    until = ids.index(stop)
    assert ask(stop_token_ids=[stop, 10**9]) == (ids[: until + 1], service.chat.decode(ids[:until]), {"stop"})


def test_text_completions(service: Service) -> None:
    """Text, texts and ids as prompts; choices are numbered over prompts, streams and wholes agree."""
    with service.client() as client:
        reply = client.completions.create(
            model="tiny", prompt=["twelve", "plus"], n=2, max_tokens=6, logprobs=2, extra_body=IDS
        )
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        assert reply.choices[0].logprobs and len(reply.choices[0].logprobs.tokens or []) == len(
            reply.choices[0].model_extra["token_ids"]
        )
        options: dict[str, Any] = {"model": "tiny", "prompt": [10, 11, 12], "max_tokens": 9, "seed": 1}
        whole = client.completions.create(**options, extra_body=IDS)
        chunks = list(client.completions.create(**options, stream=True, extra_body=IDS))
    assert whole.model_extra["prompt_token_ids"] == [10, 11, 12] == chunks[0].model_extra["prompt_token_ids"]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    ids = join(chunk.choices[0].model_extra["token_ids"] for chunk in chunks)
    assert ids == whole.choices[0].model_extra["token_ids"]


def test_many_at_once_async(service: Service) -> None:
    """Forty async requests, streamed and whole, share sixteen slots."""

    async def main() -> list[int]:
        async with service.async_client() as client:

            async def whole(seed: int) -> int:
                reply = await client.chat.completions.create(
                    model="tiny", messages=ASK, max_tokens=10, seed=seed, extra_body=IDS
                )
                return len(reply.choices[0].model_extra["token_ids"])

            async def stream_ids(seed: int) -> int:
                stream = await client.chat.completions.create(
                    model="tiny", messages=ASK, max_tokens=10, seed=seed, stream=True, extra_body=IDS
                )
                return sum([len(chunk.choices[0].model_extra.get("token_ids", [])) async for chunk in stream])

            return await asyncio.gather(*(make(seed) for seed in range(20) for make in (whole, stream_ids)))

    counts = asyncio.run(main())
    assert counts[::2] == counts[1::2] and min(counts) > 0


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"logit_bias": {"5": 10}}, "logit_bias", "not supported"),
        ({"frequency_penalty": 2.5}, "frequency_penalty", "a number from -2 to 2"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "not supported"),
        ({"temperature": 3}, "temperature", "a number from 0 to 2"),
        ({"temperature": "hot"}, "temperature", '"hot"'),
        ({"top_p": 0}, "top_p", "0 excluded"),
        ({"max_tokens": 0}, "max_tokens", "at least|from 1"),
        ({"n": True}, "n", "an integer"),
        ({"stop": ["a", ""]}, "stop", "a non-empty string or a list of them"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "0 to 20"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"tools": [{"type": "retrieval"}]}, r"tools[0].type", "'function'"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "bard", "content": "a"}]}, "messages[0].role", '"bard"'),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "only text",
        ),
        ({"messages": [{"role": "user", "content": "twelve " * 300}]}, "messages", "at most 256"),
        ({"nonsense": 1}, "nonsense", "leave it out"),
        ({"stop_token_ids": [5, -1]}, "stop_token_ids", "a list of token ids"),
    ],
)
def test_bad_requests_name_the_field(service: Service, change: dict[str, Any], param: str, words: str) -> None:
    """Every refusal is a 400 in OpenAI's shape that names the field and says what to do."""
    body = {"messages": ASK, "max_tokens": 2, **change}
    with service.client() as client, pytest.raises(openai.BadRequestError, match=words) as caught:
        client.chat.completions.create(model="tiny", messages=body.pop("messages"), extra_body=body)
    assert caught.value.param == param and caught.value.type == "invalid_request_error"


def test_harmless_fields_are_accepted(service: Service) -> None:
    """Fields that cannot change the answer are accepted, as are explicit defaults; parts are joined."""
    parts: list[Any] = [{"type": "text", "text": "What is "}, {"type": "text", "text": "twelve?"}]
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": None, "refusal": None},
        {"role": "user", "content": "?"},
    ]
    with service.client() as client:
        reply = client.chat.completions.create(
            model="tiny",
            messages=messages,
            max_completion_tokens=2,
            user="u",
            metadata={"a": "b"},
            store=False,
            parallel_tool_calls=True,
            service_tier="auto",
            seed=1,
            presence_penalty=0,
            logit_bias={},
            extra_body=IDS,
            response_format={"type": "text"},
            tools=TOOLS,
        )
    text = service.engine.decode(reply.model_extra["prompt_token_ids"])
    assert "<|im_start|>system\nBe brief." in text and "What is twelve?" in text


def test_wrong_model_key_path_and_body(service: Service) -> None:
    """404 for a model that is not served, 401 without the key, and OpenAI's shape for the rest."""
    with service.client() as client:
        with pytest.raises(openai.NotFoundError, match="use 'tiny'") as missing:
            client.chat.completions.create(model="gpt-9", messages=ASK)
        assert missing.value.code == "model_not_found" and missing.value.param == "model"
        with pytest.raises(openai.AuthenticationError, match="key is missing or wrong") as refused:
            client.with_options(api_key="wrong").chat.completions.create(model="tiny", messages=ASK)
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
            client.embeddings.create(model="tiny", input="a")
        with pytest.raises(openai.BadRequestError, match="not JSON"):
            client.post("/completions", cast_to=object, content=b"{")
        with pytest.raises(openai.BadRequestError, match="outside 0 to") as outside:
            client.completions.create(model="tiny", prompt=[10**6])
        assert outside.value.param == "prompt"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(service: Service, stream: bool) -> None:
    """Closing the connection ends the request, whether its reply is streamed or not."""
    engine = service.engine
    engine.pause()
    body = json.dumps({"model": "tiny", "messages": ASK, "max_tokens": 200, "stream": stream}).encode()
    port = int(service.url.split(":")[2].split("/")[0])
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: engine.waiting + engine.running == 1)
    wait_for(lambda: engine.waiting + engine.running == 0)
    engine.resume()
    with service.client() as client:
        assert client.chat.completions.create(model="tiny", messages=ASK, max_tokens=2).choices


def test_a_closed_engine_is_a_server_error(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Requests under way and later ones get a 503 that says why; health says so too."""
    engine = Engine(model, tokenizer, max_slots=2)
    service, stop = serve(engine, Chat(tokenizer, engine.decode), model)
    try:
        engine.close()
        with service.client() as client, pytest.raises(openai.InternalServerError, match="closed") as caught:
            client.chat.completions.create(model="tiny", messages=ASK)
        assert caught.value.status_code == 503
    finally:
        stop()


def join(parts: Iterable[list[Any]]) -> list[Any]:
    return [one for part in parts for one in part]

"""Requests to the Responses API in terms of chat completions, and the conversations that they continue."""

import json
from typing import Any

import pytest

from lightning_sdk.errors import Untranslatable
from lightning_sdk.translation.responses import translate
from lightning_sdk.translation.responses.memory import Memory
from tests.sdk.chat_replies import completion, stream
from tests.sdk.responses_provider import ADD


def chat_request(**body: Any) -> dict[str, Any]:
    """The chat request for a body, less the model."""
    chat = translate({"model": "m", "input": "hi", **body}).chat
    assert chat.pop("model") == "m"
    return chat


# --- the request


def test_every_field_with_a_word_in_chat_completions_is_kept() -> None:
    """Text, instructions, sampling, tools and formats arrive under their other names."""
    chat = chat_request(
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "low"},
        stream=True,
        tools=[ADD],
        tool_choice={"type": "function", "name": "add"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}, "verbosity": "low"},
    )
    function = {name: ADD[name] for name in ("name", "description", "parameters", "strict")}
    assert chat == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        "verbosity": "low",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_no_answer_depends_on_is_left_out() -> None:
    """Labels for the provider's books, and nulls, change nothing."""
    harmless = dict.fromkeys(("temperature", "tools", "reasoning", "previous_response_id", "conversation"))
    assert chat_request(
        metadata={"a": "b"},
        user="u",
        store=False,
        service_tier="flex",
        safety_identifier="s",
        prompt_cache_key="k",
        max_tool_calls=3,
        truncation="auto",
        include=["reasoning.encrypted_content"],
        background=False,
        **harmless,
    ) == {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"background": True}, "leave background out"),
        ({"conversation": "conv_1"}, "send its messages in input"),
        ({"prompt": {"id": "pmpt_1"}}, "write its text into instructions"),
        ({"moderation": {"model": "x"}}, "client.moderations"),
        ({"context_management": [{"type": "compaction"}]}, "shorten input yourself"),
        ({"unheard_of": 1}, "unheard_of=1"),
        ({"include": ["unheard.of"]}, "include='unheard.of'"),
        ({"previous_response_id": "resp_1"}, "send the whole conversation in input"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type='web_search' runs at the provider"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "function tool that your own code runs"),
        ({"tools": [{**ADD, "defer_loading": True}]}, "offer the tool directly"),
        ({"tools": [ADD], "tool_choice": {"type": "file_search"}}, "use 'auto' or a function's name"),
        ({"text": {"format": {"type": "grammar"}}}, "use json_schema, json_object or text"),
        ({"reasoning": {"mode": "x"}}, "reasoning.mode='x'"),
        ({"instructions": [{"role": "user"}]}, "expected text"),
        ({"input": None}, "input is missing"),
        ({"input": 7}, "input=7: expected text or a list"),
        ({"input": ["hi"]}, "input[0]='hi': expected an object"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role='critic'"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type='web_search_call'"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "send the item itself"),
        ({"input": [{"type": "function_call", "namespace": "n"}]}, "without a namespace"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "data:image/png;base64"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "send its content"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "content[0].type='hologram'"),
    ],
)
def test_what_chat_completions_have_no_word_for_is_refused(body: dict[str, Any], says: str) -> None:
    """Nothing is dropped silently: the error names the value and what to type."""
    with pytest.raises(Untranslatable) as refusal:
        chat_request(**body)
    assert says in str(refusal.value)


def test_tool_choice() -> None:
    """Words stay; allowed tools are the tools that the engine sees; without tools there is nothing to choose."""
    other = {**ADD, "name": "other"}
    assert chat_request(tools=[ADD], tool_choice="required")["tool_choice"] == "required"
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "other"}]}
    chat = chat_request(tools=[ADD, other], tool_choice=allowed)
    assert [tool["function"]["name"] for tool in chat["tools"]] == ["other"] and chat["tool_choice"] == "auto"
    assert chat_request(tool_choice="auto", parallel_tool_calls=True).keys() == {"messages"}


def test_logprobs_that_the_caller_wants_are_asked_for() -> None:
    """By `include` or by a number of alternatives."""
    assert chat_request(include=["message.output_text.logprobs"])["logprobs"] is True
    chat = chat_request(top_logprobs=2)
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 2)


def test_content_parts() -> None:
    """One text is plain text; several parts stay parts; what the provider calls by another name is renamed."""
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:x", "detail": "low"},
        {"type": "input_file", "file_data": "data:y", "filename": "f"},
    ]
    items = [
        {"role": "user", "content": parts[:1]},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": parts},
    ]
    assert chat_request(input=items)["messages"] == [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "d"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                {"type": "file", "file": {"file_data": "data:y", "filename": "f"}},
            ],
        },
    ]


# --- a conversation


def call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "add", "arguments": "{}"}


def test_items_of_one_completion_are_one_message() -> None:
    """Reasoning, text and calls are joined; two calls with an output between them are two completions."""
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Adding."}]},
        call("c1"),
        call("c2"),
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        call("c3"),
        {"type": "function_call_output", "call_id": "c3", "output": "3"},
        {"role": "user", "content": "more"},
    ]
    one, two, three = (
        {"id": each, "type": "function", "function": {"name": "add", "arguments": "{}"}} for each in ("c1", "c2", "c3")
    )
    assert chat_request(input=items)["messages"] == [
        {"role": "assistant", "content": "Adding.", "reasoning_content": "hm", "tool_calls": [one, two]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "assistant", "content": None, "tool_calls": [three]},
        {"role": "tool", "tool_call_id": "c3", "content": "3"},
        {"role": "user", "content": "more"},
    ]


def test_previous_response_id_continues_the_conversation() -> None:
    """With all that was said, over several responses, and without the earlier instructions."""
    first = translate({"input": "one", "instructions": "Once."})
    first.reply(completion({"content": "eno"}), 200)
    second = translate({"input": "two", "previous_response_id": first.id, "stream": True})
    second.feed(stream({"content": "ow"}, {"content": "t"}))
    third = translate({"input": "three", "previous_response_id": second.id, "instructions": "Now."})
    assert [(message["role"], message["content"]) for message in third.chat["messages"]] == [
        ("system", "Now."),
        ("user", "one"),
        ("assistant", "eno"),
        ("user", "two"),
        ("assistant", "owt"),
        ("user", "three"),
    ]


@pytest.mark.parametrize("ending", ["not stored", "broken off", "refused"])
def test_a_response_that_is_not_kept_cannot_be_continued(ending: str) -> None:
    """Neither can the provider's own API continue one."""
    translation = translate({"input": "one", "store": ending != "not stored"})
    if ending == "broken off":
        translation.feed(stream({"content": "a"})[:60])
        translation.end()
    else:
        translation.reply(completion({"content": "a"}), 400 if ending == "refused" else 200)
    with pytest.raises(Untranslatable):
        translate({"input": "two", "previous_response_id": translation.id})


def test_an_item_can_be_sent_by_its_id() -> None:
    """Clients that trust the provider's store send references to what it put out."""
    translation = translate({"input": "one"})
    whole = json.loads(translation.reply(completion({"content": "eno"}), 200))
    again = translate({"input": [{"type": "item_reference", "id": whole["output"][0]["id"]}]})
    assert again.chat["messages"] == [{"role": "assistant", "content": "eno"}]


def test_the_memory_is_bounded() -> None:
    """The oldest conversation goes first, one that was continued is young again, and its items go with it."""
    memory = Memory(room=1000)
    answer = [{"id": "msg_1", "type": "message", "role": "assistant", "content": "a"}]
    memory.remember("r1", [], [{"role": "user", "content": "x" * 300}], answer)
    memory.remember("r2", [], [{"role": "user", "content": "x" * 300}], [])
    assert memory.conversation("r1") and memory.item("msg_1") is answer[0]
    memory.remember("r3", [], [{"role": "user", "content": "x" * 300}], [])
    assert memory.conversation("r1") and memory.conversation("r3")
    with pytest.raises(Untranslatable):
        memory.conversation("r2")
    memory.remember("r4", [], [{"role": "user", "content": "x" * 900}], [])
    assert memory.item("msg_1") is None and memory.conversation("r4")

"""The Responses API in terms of chat completions, checked against the types of the OpenAI SDK itself."""

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from lightning_sdk.errors import Untranslatable
from lightning_sdk.translation.responses import translate
from lightning_sdk.translation.responses.items import messages_of
from lightning_sdk.translation.responses.memory import Memory
from lightning_sdk.translation.sse import EventReader, event
from tests.sdk.chat_replies import completion, stream

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ADD: dict[str, Any] = {
    "type": "function", "name": "add", "description": "Adds.", "strict": True,
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}  # fmt: skip


def chat_request(**body: Any) -> dict[str, Any]:
    """The chat request for a body, less the model."""
    chat = translate({"model": "m", "input": "hi", **body}).chat
    assert chat.pop("model") == "m"
    return chat


def reply_to(body: bytes, http_status: int = 200, **request: Any) -> Response:
    return Response.model_validate_json(translate({"input": "hi", **request}).reply(body, http_status))


def stream_events(body: bytes, **request: Any) -> list[Any]:
    """The events of a stream, each of which the SDK's own type takes."""
    translation = translate({"input": "hi", "stream": True, **request})
    told = translation.feed(body) + translation.end()
    return [EVENT.validate_json(data) for data in EventReader().feed(told)]


# --- the request


def test_every_field_with_a_word_in_chat_completions_is_kept() -> None:
    """Text, instructions, sampling, tools and formats arrive under their other names."""
    chat = chat_request(
        instructions="Be brief.", max_output_tokens=9, temperature=0.5, top_p=0.9, reasoning={"effort": "low"},
        stream=True, tools=[ADD], tool_choice={"type": "function", "name": "add"}, parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}, "verbosity": "low"},
    )  # fmt: skip
    function = {name: ADD[name] for name in ("name", "description", "parameters", "strict")}
    assert chat == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "reasoning_effort": "low", "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        "verbosity": "low", "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_what_no_answer_depends_on_is_left_out() -> None:
    """Labels for the provider's books, and nulls, change nothing."""
    harmless = dict.fromkeys(("temperature", "tools", "reasoning", "previous_response_id", "conversation"))
    assert chat_request(
        metadata={"a": "b"}, user="u", store=False, service_tier="flex", safety_identifier="s", prompt_cache_key="k",
        max_tool_calls=3, truncation="auto", include=["reasoning.encrypted_content"], background=False, **harmless,
    ) == {"messages": [{"role": "user", "content": "hi"}]}  # fmt: skip


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
        {"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "data:x", "detail": "low"},
        {"type": "input_file", "file_data": "data:y", "filename": "f"},
    ]  # fmt: skip
    items = [{"role": "user", "content": parts[:1]}, {"role": "developer", "content": "d"},
             {"role": "user", "content": parts}]  # fmt: skip
    assert chat_request(input=items)["messages"] == [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "d"},
        {"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
            {"type": "file", "file": {"file_data": "data:y", "filename": "f"}}]},
    ]  # fmt: skip


# --- a conversation


def call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "add", "arguments": "{}"}


def test_items_of_one_completion_are_one_message() -> None:
    """Reasoning, text and calls are joined; two calls with an output between them are two completions."""
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Adding."}]},
        call("c1"), call("c2"),
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        call("c3"),
        {"type": "function_call_output", "call_id": "c3", "output": "3"},
        {"role": "user", "content": "more"},
    ]  # fmt: skip
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
        ("system", "Now."), ("user", "one"), ("assistant", "eno"), ("user", "two"), ("assistant", "owt"),
        ("user", "three"),
    ]  # fmt: skip


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


# --- the reply


def test_a_whole_reply_is_a_response_of_the_sdk() -> None:
    """Text and calls, usage, and what was asked for."""
    tool = {"id": "call_7", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    response = reply_to(
        completion({"content": "Adding.", "tool_calls": [tool]}, "tool_calls"),
        instructions="Be brief.", tools=[ADD], metadata={"a": "b"}, temperature=0.5,
    )  # fmt: skip
    assert (response.status, response.model, response.output_text) == ("completed", "policy", "Adding.")
    assert response.usage and (response.usage.input_tokens, response.usage.output_tokens) == (3, 4)
    assert (response.instructions, response.metadata, response.temperature) == ("Be brief.", {"a": "b"}, 0.5)
    assert response.tools[0].model_dump(exclude_unset=True) == ADD
    function = response.output[1]
    assert function.type == "function_call" and function.status == "completed"
    assert (function.call_id, function.name, function.arguments) == ("call_7", "add", '{"a":1}')


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [("stop", "completed", None), ("length", "incomplete", "max_output_tokens"),
     ("content_filter", "incomplete", "content_filter"), ("abort", "failed", None)],
)  # fmt: skip
def test_how_a_completion_ended(finish: str, status: str, reason: str | None) -> None:
    """A cut is said, whole and streamed, and the item that was cut says so too."""
    whole = reply_to(completion({"content": "a"}, finish))
    last = stream_events(stream({"content": "a"}, finish=finish))[-1]
    assert last.type == f"response.{status}"
    for response in (whole, last.response):
        assert response.status == status
        assert (response.incomplete_details and response.incomplete_details.reason) == reason
        assert response.output[0].status == ("completed" if status == "completed" else "incomplete")
        assert bool(response.error) == (status == "failed")


def test_refusals_reasoning_and_logprobs_have_their_places() -> None:
    """Each as the SDK expects it."""
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    response = reply_to(
        completion({"content": "a", "reasoning_content": "hm"}, logprobs={"content": [token]}),
        include=["message.output_text.logprobs"],
    )
    reasoning, message = response.output
    assert reasoning.type == "reasoning" and reasoning.content and reasoning.content[0].text == "hm"
    assert message.type == "message" and message.content[0].type == "output_text"
    assert message.content[0].logprobs and message.content[0].logprobs[0].logprob == -0.5
    refusal = reply_to(completion({"content": None, "refusal": "No."})).output[0]
    assert refusal.type == "message" and refusal.content[0].type == "refusal" and refusal.content[0].refusal == "No."


def test_an_answer_of_no_text_is_an_answer() -> None:
    """An empty message, not no message: code reads output[0]."""
    for response in (reply_to(completion({"content": ""})), stream_events(stream({"role": "assistant"}))[-1].response):
        assert response.status == "completed" and response.output[0].content[0].text == ""


@pytest.mark.parametrize(
    ("body", "message"),
    [(b'{"error": {"message": "too long", "type": "x", "param": "messages", "code": "y"}}', "too long"),
     (b'{"object": "error", "message": "too long", "type": "x", "param": null, "code": 400}', "too long"),
     (b'{"detail": "Not Found"}', "Not Found"), (b"<html>Bad gateway</html>", "Bad gateway")],
)  # fmt: skip
def test_errors_have_the_shape_of_openai(body: bytes, message: str) -> None:
    """Whichever server answered."""
    error = json.loads(translate({"input": "hi"}).reply(body, 400))["error"]
    assert message in error["message"] and error.keys() == {"message", "type", "param", "code"}


def test_what_is_no_completion_is_a_failed_response() -> None:
    """With status 200 there is no error to raise; the response says what came."""
    response = reply_to(b"<html>Welcome</html>")
    assert response.status == "failed" and response.error and "Welcome" in response.error.message


# --- streams


def test_events_come_in_the_order_of_the_api() -> None:
    """Created, in progress; each item added, filled and done; completed; numbered without a gap."""
    events = stream_events(stream(
        {"role": "assistant", "content": ""}, {"content": "Ad"}, {"content": "ding."},
        {"tool_calls": [{"index": 0, "id": "call_7", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}, finish="tool_calls",
    ))  # fmt: skip
    assert [each.type.removeprefix("response.") for each in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [each.sequence_number for each in events] == list(range(len(events)))
    assert "".join(each.delta for each in events if each.type == "response.output_text.delta") == "Adding."
    assert events[-2].item.arguments == '{"a":1}' and events[-1].response.usage.total_tokens == 7


@pytest.mark.parametrize("how", ["error", "cut"])
def test_a_stream_that_breaks_off_is_a_failed_response(how: str) -> None:
    """Never a completed one with half a text, and nothing follows it."""
    begun = stream({"content": "half"})
    begun = begun[: begun.index(b"data: ", 10)]
    if how == "error":
        begun += event({"error": {"message": "out of memory"}}) + stream({"content": "ghost"})
    events = stream_events(begun)
    last = events[-1]
    assert last.type == "response.failed" and last.response.output[0].content[0].text == "half"
    assert ("out of memory" if how == "error" else "broke off") in last.response.error.message
    assert sum(each.type.startswith("response.fail") for each in events) == 1


TOOL_DELTAS = st.lists(st.tuples(st.sampled_from(["f", "g"]), st.lists(st.text(max_size=5), max_size=3)), max_size=3)


@given(
    reasoning=st.lists(st.text(min_size=1, max_size=5), max_size=2),
    text=st.lists(st.text(min_size=1, max_size=8), max_size=4),
    tools=TOOL_DELTAS,
    after=st.text(max_size=3),
    finish=st.sampled_from(["stop", "length", "tool_calls"]),
    places=st.lists(st.integers(0, 100_000), max_size=8),
)
def test_pieces_and_streaming_change_nothing(
    reasoning: list[str],
    text: list[str],
    tools: list[tuple[str, list[str]]],
    after: str,
    finish: str,
    places: list[int],
) -> None:
    """Wherever the engine's stream is cut the caller gets the same bytes, whose last event is the whole reply; and
    sent back, either is the message that the engine said."""
    deltas: list[dict[str, Any]] = [{"reasoning_content": each} for each in reasoning]
    deltas += [{"content": each} for each in text]
    calls = []
    for index, (name, arguments) in enumerate(tools):
        function = {"name": name, "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": f"call_{index}", "function": function}]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": each}}]} for each in arguments]
        calls.append(
            {"id": f"call_{index}", "type": "function", "function": {**function, "arguments": "".join(arguments)}}
        )
    deltas.append({"content": after})
    body = stream(*deltas, finish=finish)

    def feed(pieces: list[bytes]) -> bytes:
        translation = translate({"input": "hi", "stream": True})
        told = b"".join(map(translation.feed, pieces)) + translation.end()
        told = re.sub(rb'_at":\d+', b'_at":0', told)  # a second may end in between
        return told.replace(translation.id.removeprefix("resp_").encode(), b"ID")

    at = sorted({0, len(body), *(place % len(body) for place in places)})
    told = feed([body])
    assert feed([body[start:stop] for start, stop in itertools.pairwise(at)]) == told
    last = json.loads(EventReader().feed(told)[-1])["response"]

    message: dict[str, Any] = {"role": "assistant", "content": "".join([*text, after]) or None}
    if calls:
        message["tool_calls"] = calls
    translation = translate({"input": "hi"})
    given_message = {**message, "reasoning_content": "".join(reasoning)} if reasoning else message
    whole = json.loads(translation.reply(completion(given_message, finish), 200))
    for response in (whole, last):
        Response.model_validate(response)
        expected = {**given_message, "content": message["content"] or (None if calls else "")}
        assert messages_of(response["output"], lambda _: None) == [expected]
    assert {**last, "id": 0, "output": 0, "completed_at": 0, "created_at": 0} == {
        **whole, "id": 0, "output": 0, "completed_at": 0, "created_at": 0
    }  # fmt: skip

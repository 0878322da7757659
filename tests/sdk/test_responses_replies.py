"""What the engine answers, as a response of the Responses API: whole and streamed, checked against the SDK's types."""

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from lightning_sdk.translation.responses import translate
from lightning_sdk.translation.responses.items import messages_of
from lightning_sdk.translation.sse import EventReader, event
from tests.sdk.chat_replies import completion, stream
from tests.sdk.responses_provider import ADD

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def reply_to(body: bytes, http_status: int = 200, **request: Any) -> Response:
    return Response.model_validate_json(translate({"input": "hi", **request}).reply(body, http_status))


def stream_events(body: bytes, **request: Any) -> list[Any]:
    """The events of a stream, each of which the SDK's own type takes."""
    translation = translate({"input": "hi", "stream": True, **request})
    told = translation.feed(body) + translation.end()
    return [EVENT.validate_json(data) for data in EventReader().feed(told)]


def test_a_whole_reply_is_a_response_of_the_sdk() -> None:
    """Text and calls, usage, and what was asked for."""
    tool = {"id": "call_7", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    response = reply_to(
        completion({"content": "Adding.", "tool_calls": [tool]}, "tool_calls"),
        instructions="Be brief.",
        tools=[ADD],
        metadata={"a": "b"},
        temperature=0.5,
    )
    assert (response.status, response.model, response.output_text) == ("completed", "policy", "Adding.")
    assert response.usage and (response.usage.input_tokens, response.usage.output_tokens) == (3, 4)
    assert (response.instructions, response.metadata, response.temperature) == ("Be brief.", {"a": "b"}, 0.5)
    assert response.tools[0].model_dump(exclude_unset=True) == ADD
    function = response.output[1]
    assert function.type == "function_call" and function.status == "completed"
    assert (function.call_id, function.name, function.arguments) == ("call_7", "add", '{"a":1}')


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("abort", "failed", None),
    ],
)
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
    [
        (b'{"error": {"message": "too long", "type": "x", "param": "messages", "code": "y"}}', "too long"),
        (b'{"object": "error", "message": "too long", "type": "x", "param": null, "code": 400}', "too long"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"<html>Bad gateway</html>", "Bad gateway"),
    ],
)
def test_errors_have_the_shape_of_openai(body: bytes, message: str) -> None:
    """Whichever server answered."""
    error = json.loads(translate({"input": "hi"}).reply(body, 400))["error"]
    assert message in error["message"] and error.keys() == {"message", "type", "param", "code"}


def test_anything_but_a_completion_is_a_failed_response() -> None:
    """With status 200 nothing is raised; the response says what came."""
    response = reply_to(b"<html>Welcome</html>")
    assert response.status == "failed" and response.error and "Welcome" in response.error.message


# --- streams


def test_events_come_in_the_order_of_the_api() -> None:
    """Created, in progress; each item added, filled and done; completed; numbered without a gap."""
    events = stream_events(
        stream(
            {"role": "assistant", "content": ""},
            {"content": "Ad"},
            {"content": "ding."},
            {"tool_calls": [{"index": 0, "id": "call_7", "function": {"name": "add", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
            finish="tool_calls",
        )
    )
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
        **whole,
        "id": 0,
        "output": 0,
        "completed_at": 0,
        "created_at": 0,
    }

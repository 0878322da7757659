"""What of a call can be learned from, and what is said about the rest."""

import dataclasses
import json

import pytest

from lightning_hub.trajectories.trajectory import merge
from lightning_hub.trajectories.transition import UNKNOWN_VERSION, UnusableCall, transitions
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call
from tests.trajectories.conversations import call, sample


def with_choice(made: Call, **changes: object) -> Call:
    """The call with its first choice changed."""
    choice = dataclasses.replace(made.choices[0], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(made, choices=(choice,))


def test_each_choice_is_a_transition_with_its_own_ids_and_log_probs() -> None:
    """A call with n=2 gives two transitions that share the prompt."""
    first, second = transitions(call(7, [1, 2], sample(3, 4), sample(5)))
    assert first.prompt_ids.tolist() == second.prompt_ids.tolist() == [1, 2]
    assert (first.completion_ids.tolist(), second.completion_ids.tolist()) == ([3, 4], [5])
    assert first.logprobs.tolist() == pytest.approx([-0.03, -0.04])
    assert (first.choice, second.choice, first.call) == (0, 1, f"{7:016x}")
    assert (first.prompt_ids.dtype.name, first.logprobs.dtype.name) == ("int32", "float32")


def test_versions_are_given_to_each_token_and_unknown_where_none_was_sent() -> None:
    """Runs of [version, count] are spread over the tokens; a server that sends none leaves them unknown."""
    made = with_choice(call(1, [1], sample(2, 3, 4)), versions=[[5, 2], [6, 1]])
    assert transitions(made)[0].versions.tolist() == [5, 5, 6]
    assert transitions(with_choice(made, versions=[]))[0].versions.tolist() == [UNKNOWN_VERSION] * 3


@pytest.mark.parametrize(("asked", "taken"), [(0.7, 0.7), (None, 1.0)])
def test_temperature_is_the_one_that_was_sent(asked: float | None, taken: float) -> None:
    """The temperature comes from the request; OpenAI's default is 1."""
    assert transitions(call(1, [1], sample(2), temperature=asked))[0].temperature == taken


def test_a_request_without_a_temperature_was_sampled_at_one() -> None:
    """The field may be absent, and other fields do not matter."""
    made = dataclasses.replace(call(1, [1], sample(2)), request=b'{"tools": [{"type": "function"}]}')
    assert transitions(made)[0].temperature == 1.0


def test_calls_that_are_not_trained_on_give_nothing() -> None:
    """Other roles' calls, failed calls and calls closed before their ids came are not errors."""
    assert transitions(call(1, [1], sample(2), trainable=False)) == []
    assert transitions(call(1, [], status="error", problem="HTTP 500")) == []
    assert transitions(call(1, [], status="cancelled", problem="no ids came")) == []


def test_a_call_that_was_closed_early_keeps_what_came() -> None:
    """The ids that arrived before the reader closed the stream were sampled all the same."""
    assert transitions(call(1, [1], sample(2, 3), status="cancelled"))[0].completion_ids.tolist() == [2, 3]


def test_a_choice_in_which_nothing_was_sampled_is_left_out() -> None:
    """No sampled token, no transition."""
    assert transitions(call(1, [1], sample())) == []


GOOD = call(9, [1, 2], sample(3, 4))
UNUSABLE = [
    (dataclasses.replace(GOOD, problem="the server sent no token ids"), "the server sent no token ids"),
    (with_choice(GOOD, token_ids=b""), "choice 0 has no token ids"),
    (dataclasses.replace(GOOD, prompt_ids=b""), "the prompt has no token ids"),
    (with_choice(GOOD, logprobs=b""), "2 ids and 0 log-probs"),
    (with_choice(GOOD, logprobs=pack_floats([-1.0, float("nan")])), "log-prob nan at sampled token 1"),
    (with_choice(GOOD, token_ids=pack_ints([3, -4])), "a token id is negative"),
    (with_choice(GOOD, versions=[[1, 3]]), "versions for 3 of 2 sampled tokens"),
    (call(9, [1, 2], sample(3), temperature=0.0), "sampled at temperature 0"),
    (dataclasses.replace(GOOD, request=b"{"), "request cannot be read"),
    (dataclasses.replace(GOOD, request=b'{"frequency_penalty": 0.5}'), "sampled with frequency_penalty=0.5"),
]


@pytest.mark.parametrize(("made", "why"), UNUSABLE, ids=[why for _, why in UNUSABLE])
def test_a_call_that_cannot_be_trained_on_says_why(made: Call, why: str) -> None:
    """Never a row of zeros: an error with the call, the reason and what to check."""
    with pytest.raises(UnusableCall, match=why) as raised:
        transitions(made)
    assert f"call {9:016x} of solver" in str(raised.value)
    # The engine is to blame for what it left out, and for nothing else.
    of_the_engine = not any(word in str(raised.value) for word in ("temperature", "penalty"))
    assert of_the_engine == ("return_token_ids" in str(raised.value))


def test_what_limited_a_completion_stays_with_its_tokens() -> None:
    """The form and the tools of the request, through merging and cutting; descriptions do not matter, order does."""
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    tool = {"type": "function", "function": {"name": "f", "description": "long", "parameters": schema}}
    body = {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        "tools": [tool],
        "temperature": 1.0,
        "messages": [],
    }
    formed = dataclasses.replace(call(2, [1, 2, 3], sample(4, 5)), request=json.dumps(body).encode())
    (row,) = merge([*transitions(call(1, [1], sample(2))), *transitions(formed)])
    (kept,) = row.constraints(4)
    assert (kept.start, kept.end) == (3, 4) and row.constraints(3) == ()
    asked = json.loads(kept.constraint)
    assert asked["tools"] == [{"name": "f", "parameters": schema}] and "temperature" not in asked
    assert kept.constraint.index('"b"') < kept.constraint.index('"a"')
    free = {"tools": [tool], "tool_choice": "auto", "response_format": {"type": "text"}}
    (transition,) = transitions(dataclasses.replace(formed, request=json.dumps(free).encode()))
    assert transition.constraint == ""

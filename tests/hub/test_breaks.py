"""Breaks: why a turn opened a new row, and what the finding about it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_hub.diagnosis.diagnosis import DiagnosisInput, diagnose
from lightning_hub.findings.findings import broken_sequences
from lightning_hub.trajectories.breaks import Reason, openings
from lightning_hub.trajectories.trajectory import merge
from lightning_hub.trajectories.transition import transitions
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.settings import Settings
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call
from tests.hub.spoken import SYSTEM, assistant, call, rollout, tokens, tool_call, user


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [f"{each.severity} {each.kind}" for each in diagnosis.findings]


def words_of(diagnosis: Diagnosis, kind: str) -> str:
    return str(next(each for each in diagnosis.findings if each.kind == kind))


def reasons(*calls: Call) -> list[str]:
    """Why each row beyond the first was opened."""
    rows = merge([each for made in calls for each in transitions(made)], "r")
    return [str(each.reason) for each in openings(rows, calls)]


ONE = [SYSTEM, user("2 + 3?")]
FIRST = call(1, ONE, assistant("5"))
NEXT = [*ONE, assistant("5"), user("Sure?")]
ASKED = call(1, ONE, tool_call('{"q": 1, "n": 2}'))
#: The template writes the tools before all else.
TOOLED = call(1, ONE, assistant("5"), ids=[7, 7, *tokens(SYSTEM), *tokens(ONE[1])], tools=[{"name": "x"}])
BEGUN = [*(each for message in ONE for each in tokens(message)), 7, 8]
"""What a template begins an answer with, and leaves out of earlier turns."""
ALOUD = assistant("<think>2 and 3</think>5")
THOUGHT = call(1, ONE, assistant("5", reasoning_content="2 and 3"), sampled=[1009, 9, 9, ord("5"), 2000])


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (FIRST, call(2, NEXT), None),
        (FIRST, call(2, NEXT, ids=[*tokens(SYSTEM), *tokens(ONE[1]), 1009, 77, 2000, 5]), "template"),
        (call(1, ONE, ids=BEGUN), call(2, NEXT), "thinking left out"),
        (call(1, ONE, ALOUD), call(2, [*ONE, ALOUD, user("x")], ids=[*BEGUN[:-2], 9, 5]), "thinking left out"),
        (THOUGHT, call(2, [*ONE, assistant("5", reasoning_content="2 and 3"), user("x")]), "thinking left out"),
        (call(1, ONE, ids=[3, *BEGUN, *[9] * 30]), call(2, NEXT, ids=[4, *BEGUN, *[9] * 99]), "template"),
        (call(1, ONE, ids=BEGUN), call(2, NEXT, tools=[{"name": "x"}]), "tools changed"),
        (ASKED, call(2, [*ONE, tool_call('{"n":2,"q":1}'), user("x")]), "reformatted tool call"),
        (ASKED, call(2, [*ONE, tool_call('{"q": 1, "n": 2}', "call_9"), user("x")]), "reformatted tool call"),
        (ASKED, call(2, [*ONE, tool_call('{"q": 7}'), user("x")]), "sampled text not kept"),
        (FIRST, call(2, [*ONE, assistant("five"), user("Sure?")]), "sampled text not kept"),
        (FIRST, call(2, [*ONE, user("Sure?")]), "sampled text not kept"),
        (THOUGHT, call(2, NEXT), "sampled text not kept"),
        (FIRST, call(2, [SYSTEM, user("2 + 4?"), assistant("5"), user("Sure?")]), "rewritten history"),
        (FIRST, call(2, [{**SYSTEM, "content": "It is noon."}, *NEXT[1:]]), "rewritten history"),
        (FIRST, call(2, [*ONE, assistant("5"), user("x")], temperature=0.5), "another temperature"),
        (FIRST, call(2, NEXT, ids=[*tokens(SYSTEM), *tokens(ONE[1]), 3], tools=[{"name": "x"}]), "tools changed"),
        (TOOLED, call(2, [*ONE, assistant("5"), user("Sure?")]), "tools changed"),
        (FIRST, call(2, ONE, assistant("6")), "branch"),
        (FIRST, call(2, [SYSTEM, user("7 + 8?")]), "new conversation"),
    ],
)
def test_why_a_row_was_opened(first: Call, second: Call, reason: str | None) -> None:
    """From the messages of both calls and the ids at which they part."""
    assert reasons(first, second) == ([reason] if reason else [])


def test_a_dropped_turn_is_rewritten_history() -> None:
    """A window over the conversation drops what came first; this does not make it a new conversation."""
    second = call(2, NEXT, assistant("Yes."))
    third = call(3, [SYSTEM, user("Sure?"), assistant("Yes."), user("Why?")])
    assert reasons(FIRST, second, third) == ["rewritten history"]


def test_few_shot_examples_are_not_history() -> None:
    """Two questions after the same examples are two conversations, also when an answer equals an example's."""
    examples = [SYSTEM, user("1 + 1?"), assistant("2")]
    one, two = [*examples, user("0 + 2?")], [*examples, user("7 + 8?")]
    assert reasons(call(1, one, assistant("2")), call(2, two, assistant("15"))) == ["new conversation"]


def test_choices_of_one_call_are_not_a_break() -> None:
    """n > 1 opens a row for each choice, and none of them for a reason."""
    base = call(1, ONE)
    drawn = {"token_ids": pack_ints([8]), "logprobs": pack_floats([-1.0])}
    second = replace(base.choices[0], index=1, message=b'{"content": "6"}', **drawn)
    both = replace(base, choices=(base.choices[0], second))
    assert reasons(both) == []
    assert reasons(both, call(2, [*ONE, assistant("6"), user("x")], ids=[*tokens(SYSTEM), *tokens(ONE[1]), 5])) == [
        "template"
    ]


def test_text_completions_are_told_by_their_ids() -> None:
    """There are no messages to compare."""
    one, two = call(1, ids=[1, 2], sampled=[3, 4]), call(2, ids=[1, 2, 9, 5], sampled=[6])
    plain = [replace(each, request=b'{"prompt": "x"}') for each in (one, two)]
    assert reasons(*plain) == ["sampled text not kept"]


def test_broken_sequences_are_counted() -> None:
    """How many turns, why, and what to do about the most common reason."""
    turns = [FIRST, call(2, [*ONE, assistant("five"), user("Sure?")], assistant("yes"))]
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(n, *turns) for n in (1, 2)]))
    assert kinds(diagnosis) == ["warning broken sequences"]
    text = words_of(diagnosis, "broken sequences")
    assert "every turn broke its sequence: 2 sampled text not kept" in text and "choices[0].message" in text
    assert diagnosis.sequences[0].openings == {"sampled text not kept": 2} and diagnosis.sequences[0].rows == 4
    mixed = diagnose(DiagnosisInput(rollouts=[rollout(1, *turns), rollout(2, FIRST, call(2, NEXT))]))
    assert "1 of 2 turns broke" in words_of(mixed, "broken sequences")


def test_every_fault_has_words() -> None:
    """Each of these reasons has its own cause and remedy; the others lead to no finding."""
    found = [broken_sequences({reason: 1}, 0, Settings()) for reason in Reason if reason.is_fault]
    assert len({each.cause for each in found}) == len({each.remedy for each in found}) == len(Reason) - 2


@pytest.mark.parametrize(
    ("settings", "advised"),
    [({}, False), ({"engine": "embedded"}, False), ({"engine": "vllm"}, True), ({"backend": "verl"}, True)],
)
def test_nobody_is_told_to_use_the_engine_in_use(settings: dict[str, str], advised: bool) -> None:
    """What the template does is told as its doing, and the embedded engine is a remedy for other engines only."""
    for reason in (Reason.TEMPLATE, Reason.THINKING):
        found = broken_sequences({reason: 1}, 0, Settings.from_dict(settings))
        assert "conversation back unchanged, but the model's chat template" in found.cause
        assert "--set length.rows=call" in found.remedy
        assert ("embedded engine" in str(found)) == (advised and reason is Reason.TEMPLATE)


def test_rows_of_one_call_are_not_a_fault() -> None:
    """Users who asked for a row of each call are not told that each call is one."""
    made = [rollout(n, call(1, ONE, ids=BEGUN), call(2, NEXT)) for n in (1, 2)]
    assert kinds(diagnose(DiagnosisInput(rollouts=made))) == ["warning broken sequences"]
    assert (
        kinds(diagnose(DiagnosisInput(rollouts=made, settings=Settings.from_dict({"length": {"rows": "call"}})))) == []
    )

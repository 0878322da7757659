"""Calls become rows by lineage: which join, which open a row, and why."""

import pytest

from lightning_hub.trajectories.trajectory import Trajectory, merge
from lightning_hub.trajectories.transition import transitions
from lightning_sdk.trace.call import Call
from tests.trajectories.conversations import call, sample


def rows(*calls: Call) -> list[Trajectory]:
    return merge([each for made in calls for each in transitions(made)], "r1")


def sampled_ids(row: Trajectory) -> list[int]:
    return list(row.tokens[row.mask])


def test_a_conversation_is_one_row_however_many_calls_it_took() -> None:
    """What the next prompt adds is context; log-probs and versions stand where the tokens were sampled."""
    (row,) = rows(
        call(1, [1, 2], sample(3, 4), version=1),
        call(2, [1, 2, 3, 4, 50, 51], sample(6), version=2),
    )
    assert row.tokens.tolist() == [1, 2, 3, 4, 50, 51, 6]
    assert row.mask.tolist() == [False, False, True, True, False, False, True]
    assert row.logprobs.tolist() == pytest.approx([0, 0, -0.03, -0.04, 0, 0, -0.06])
    assert row.versions.tolist() == [-1, -1, 1, 1, -1, -1, 2]
    assert (row.rollout, row.role, row.temperature, row.broke) == ("r1", "solver", 1.0, None)
    assert row.calls == (f"{1:016x}", f"{2:016x}")


def test_two_interleaved_conversations_of_five_turns_are_two_rows() -> None:
    """Not ten: each call finds its own conversation."""
    prompts = {0: [1, 1], 1: [1, 2]}
    made = []
    for turn in range(5):
        for who in (0, 1):
            answer = 100 + 10 * turn + who
            made.append(call(10 * turn + who, prompts[who], sample(answer)))
            prompts[who] = [*prompts[who], answer, 7]
    first, second = rows(*made)
    assert sampled_ids(first) == [100, 110, 120, 130, 140]
    assert sampled_ids(second) == [101, 111, 121, 131, 141]


def test_a_call_joins_the_longest_row_that_fits() -> None:
    """A short row that also is a prefix is left as it is."""
    made = rows(call(1, [1], sample(2)), call(2, [1], sample(2, 3)), call(3, [1, 2, 3, 9], sample(4)))
    long = next(row for row in made if len(row.calls) == 2)
    assert long.calls == (f"{2:016x}", f"{3:016x}")


def test_choices_and_branches_train_each_sampled_token_once() -> None:
    """Both choices of a call and both continuations of one answer: earlier answers are context in the later row."""
    made = rows(
        call(1, [1], sample(2), sample(3)),
        call(2, [1, 2, 8], sample(4)),
        call(3, [1, 2, 9], sample(5)),
    )
    assert sorted(token for row in made for token in sampled_ids(row)) == [2, 3, 4, 5]
    branch = next(row for row in made if sampled_ids(row) == [5])
    assert branch.tokens.tolist() == [1, 2, 9, 5]


def test_roles_and_temperatures_do_not_mix() -> None:
    """A row has one role and one temperature, whatever its ids."""
    assert len(rows(call(1, [1], sample(2)), call(2, [1, 2], sample(3), role="critic"))) == 2
    hot = rows(call(1, [1], sample(2)), call(2, [1, 2], sample(3), temperature=0.5))
    assert [row.temperature for row in hot] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("prompt", "temperature", "kind", "position"),
    [
        ([1, 2, 3, 99, 5, 6], 1.0, "sampled", 3),
        ([1, 2, 3, 4, 5, 99, 7, 8, 9], 1.0, "context", 5),
        ([1, 2], 1.0, "branch", 2),
        ([1, 2, 3, 4, 5, 6, 7, 8], 0.5, "temperature", 8),
    ],
)
def test_a_row_says_why_it_was_opened(prompt: list[int], temperature: float, kind: str, position: int) -> None:
    """The nearest row, where the two differ, and whether that is in something sampled."""
    made = rows(
        call(1, [1, 2], sample(3, 4)),
        call(2, [1, 2, 3, 4, 5, 6], sample(7, 8)),
        call(3, prompt, sample(10), temperature=temperature),
    )
    broke = next(row.broke for row in made if row.broke)
    assert (broke.kind, broke.position) == (kind, position)


def test_another_conversation_and_another_choice_are_not_breaks() -> None:
    """A common system prompt is not a near match, nor is the other choice of the same call."""
    made = rows(call(1, [1, 2, 3], sample(4), sample(5)), call(2, [1, 2, 8, 9], sample(6)))
    assert [row.broke for row in made] == [None, None, None]


def test_nothing_gives_nothing() -> None:
    """A rollout without trainable calls has no trajectory."""
    assert merge([]) == []


def test_a_call_is_not_said_to_leave_what_began_later() -> None:
    """The third call shares most with the second, but left it within its first prompt: it left the first one."""
    made = [
        call(1, [1, 2], sample(3)),
        call(2, [1, 2, 9, 9, 9, 9], sample(5)),
        call(3, [1, 2, 9, 9, 8, 8, 8], sample(4)),
    ]
    first, second, third = rows(*made)
    assert first.broke is None
    assert second.broke is not None and third.broke is not None
    assert (second.broke.previous, second.broke.position, second.broke.kind) == (made[0].meta.id, 2, "sampled")
    assert (third.broke.previous, third.broke.position, third.broke.kind) == (made[0].meta.id, 2, "sampled")

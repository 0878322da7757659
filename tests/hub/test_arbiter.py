"""The arbiter of phases: what it chooses, and why; and its journal, from which a killed run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_hub.training.arbiter import MOST_IN_A_ROW, Kind, Phase, PhaseChoice, choose, mean_gain
from lightning_hub.training.phase_journal import NAME, PhaseJournal
from lightning_sdk.errors import ModelError
from lightning_sdk.prompts.candidate import Candidate

P, W = Kind.PROMPTS, Kind.WEIGHTS


def phases(*done: tuple[Kind, float, int, float]) -> list[Phase]:
    """Phases of these kinds, gains, rollouts and seconds."""
    return [
        Phase(
            number=number,
            kind=kind,
            why="",
            first_step=number,
            last_step=number,
            before=0.0,
            after=gain,
            gain=gain,
            rollouts=rollouts,
            seconds=seconds,
        )
        for number, (kind, gain, rollouts, seconds) in enumerate(done, 1)
    ]


def test_both_kinds_are_tried_first() -> None:
    assert choose([], "rollouts").kind is P
    assert choose(phases((P, 0.9, 10, 1)), "rollouts").kind is W


@pytest.mark.parametrize(
    ("done", "rollouts", "seconds"),
    [
        # The same gain for less.
        ([(P, 0.1, 100, 50), (W, 0.1, 200, 10)], P, W),
        # More for more than twice as much.
        ([(P, 0.1, 100, 10), (W, 0.2, 300, 30)], P, P),
        # Only the last phase of each kind counts.
        ([(P, 0.9, 100, 10), (W, 0.1, 100, 10), (P, 0.0, 100, 10)], W, W),
        # Something is more than nothing, and nothing than a loss; where nobody gains, they take turns.
        ([(P, 0.0, 100, 10), (W, 0.1, 900, 90)], W, W),
        ([(P, 0.0, 100, 10), (W, -0.1, 100, 10)], P, P),
        ([(P, -0.3, 100, 10), (W, -0.1, 100, 10), (P, -0.3, 100, 10)], W, W),
        ([(P, 0.1, 100, 10), (W, 0.1, 100, 10)], P, P),
    ],
)
def test_the_kind_that_gained_more_for_its_cost_is_next(
    done: list[tuple[Kind, float, int, float]], rollouts: Kind, seconds: Kind
) -> None:
    for cost, wanted in (("rollouts", rollouts), ("seconds", seconds)):
        assert choose(phases(*done), cost).kind is wanted


def test_what_was_not_tried_for_long_is_tried_again() -> None:
    """A gain is of the weights and texts of its time."""
    good = (W, 0.5, 100, 10.0)
    done = [(P, 0.1, 100, 10.0), *[good] * (MOST_IN_A_ROW - 1)]
    assert choose(phases(*done), "rollouts").kind is W
    assert choose(phases(*done, good), "rollouts") == PhaseChoice(
        P, f"after {MOST_IN_A_ROW} phases of weights the other kind is tried again"
    )


def test_a_gain_is_the_mean_of_the_differences() -> None:
    """Over the tasks with a score in both, so that a failed rollout gains and loses nothing."""
    assert mean_gain({"a": 0.25, "b": 0.5, "c": 1.0}, {"a": 0.75, "b": 0.5, "d": 0.0}) == 0.25
    assert mean_gain({"a": 1.0}, {"b": 0.0}) == 0


SEARCH = {"chosen": "c", "texts": {"solver": "better"}, "components": [], "nothing": ""}


def test_the_journal_is_the_same_when_it_is_opened_again(tmp_path: Path) -> None:
    """After each line, as a kill leaves it, and with a torn line at the end."""
    journal = PhaseJournal(tmp_path)
    better = Candidate("c", {"plain and simple": "better and longer"})
    steps = [
        lambda: journal.measure({"1": 0.5}),
        lambda: journal.begin(P, "first", 0),
        lambda: journal.end(3, 40, 2.5, SEARCH, better),
        lambda: journal.measure({"1": 0.75}),
        lambda: journal.begin(W, "second", 3),
        lambda: journal.end(7, 64, 9.0),
        lambda: journal.measure({"1": 0.5}),
        lambda: journal.begin(P, "third", 7),
        lambda: journal.end(8, 20, 1.0, {**SEARCH, "chosen": "c", "nothing": "none was better"}, better),
    ]
    for step in steps:
        step()
        with (tmp_path / NAME).open("a") as file:
            file.write('{"kind": "meas')
        again = PhaseJournal(tmp_path)
        for name in ("phases", "begun", "scores", "step", "search", "weights_step", "is_measured", "is_searching"):
            assert getattr(again, name) == getattr(journal, name), name
        assert (again.candidate and again.candidate.texts) == (journal.candidate and journal.candidate.texts)
        journal = again
    first, second = journal.phases
    assert (first.kind, first.first_step, first.last_step, first.gain, first.rollouts) == (P, 1, 3, 0.25, 40)
    assert (second.kind, second.first_step, second.last_step, second.gain, second.before) == (W, 4, 7, -0.25, 0.75)
    assert journal.search == SEARCH and not journal.is_measured
    assert [json.loads(line)["kind"] for line in (tmp_path / NAME).read_text().splitlines()][:2] == [
        "measured",
        "begun",
    ]


def test_where_a_run_goes_on(tmp_path: Path) -> None:
    """A phase of weights from its last checkpoint; one of prompts from its beginning, since its search reads what it
    has; never without the checkpoint of an earlier phase."""
    journal = PhaseJournal(tmp_path)
    journal.measure({"1": 0.5})
    journal.begin(P, "first", 0)
    assert journal.resume_step(0) == 0
    journal.end(3, 40, 2.5, SEARCH)
    assert journal.resume_step(0) == 3
    journal.measure({"1": 0.5})
    journal.begin(W, "second", 3)
    assert journal.resume_step(0) == 3 and journal.resume_step(5) == 5
    journal.end(7, 64, 9.0)
    journal.measure({"1": 0.5})
    journal.begin(P, "third", 7)
    assert journal.resume_step(7) == 7
    with pytest.raises(ModelError, match="the checkpoint after step 7 is missing"):
        journal.resume_step(5)

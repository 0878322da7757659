"""The arbiter of phases: what it chooses, and why; and its journal, from which a killed run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_hub.statistics.reward_range import reward_range
from lightning_hub.training.arbiter import MOST_IN_A_ROW, Kind, Phase, PhaseChoice, choose, loss_since, mean_gain
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


@pytest.mark.parametrize(
    ("best", "now", "is_lost"),
    [
        ([1.0] * 12, [0.0] * 12, True),
        ([1.0] * 12, [0.0] * 8 + [1.0] * 4, True),
        # Worse, and well within what chance explains.
        ([1.0] * 12, [0.0] * 4 + [1.0] * 8, False),
        ([1.0, 0.0] * 6, [0.0, 1.0] * 6, False),
        ([0.0] * 12, [1.0] * 12, False),
        # Too few tasks to say anything, however bad.
        ([1.0] * 4, [0.0] * 4, False),
    ],
)
def test_only_what_chance_does_not_explain_is_a_loss(best: list[float], now: list[float], is_lost: bool) -> None:
    """The interval of the difference, over the tasks that have a score in both."""
    one, other = ({str(task): each for task, each in enumerate(scores)} for scores in (best, now))
    within = reward_range([0.0, 1.0])
    assert (loss_since(one, {**other, "more": 0.0}, within) is not None) is is_lost
    assert loss_since({}, other, within) is None
    assert loss_since(one, other, reward_range([0.0, 40.0])) is None  # a range that nobody knows


def test_an_undone_phase_leaves_what_was_best(tmp_path: Path) -> None:
    """Scores, texts, search and weights are those after the best phase, also when the journal is opened again; what
    comes later builds on them, and the checkpoints of what was undone are known."""
    journal = PhaseJournal(tmp_path)
    better = Candidate("c", {"plain and simple": "better and longer"})
    journal.measure({"1": 0.25})
    journal.begin(P, "first", 0)
    journal.end(3, 40, 2.5, SEARCH, better)
    journal.measure({"1": 0.75})
    journal.begin(W, "second", 3)
    journal.end(7, 64, 9.0)
    journal.measure({"1": 0.5})
    journal.begin(P, "third", 7)
    journal.end(8, 20, 1.0, {**SEARCH, "chosen": "d"}, Candidate("d", {"plain and simple": "worst of all"}))
    journal.measure({"1": 0.0})
    assert journal.find_best() == 1 and not journal.is_undone(7)
    journal.undo(1)
    for each in (journal, journal := PhaseJournal(tmp_path)):
        assert each.scores == {"1": 0.75} and each.search == SEARCH and each.weights_step == 0 and each.step == 8
        assert each.candidate and each.candidate.texts == better.texts
        assert [phase.undone_to for phase in each.phases] == [None, None, 1]
        assert each.is_undone(7) and each.is_undone(8) and not each.is_undone(0)
    assert journal.resume_step(0) == 8
    journal.begin(W, "fourth", 8)
    assert journal.is_undone(8) and not journal.is_undone(10)
    journal.end(12, 9, 9.0)
    journal.measure({"1": 0.5})
    assert (journal.phases[-1].before, journal.phases[-1].gain) == (0.75, -0.25)
    assert journal.weights_step == 12 and journal.find_best() == 3 and not journal.is_undone(12)


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

"""A search finds better texts within its budget, and one that was killed ends as if it had not been."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from lightning_prompts.apo import Apo
from lightning_prompts.ending import Why
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Allowance
from lightning_prompts.parts import divide_tasks
from lightning_prompts.problem import Problem
from lightning_prompts.reflective import Reflective
from lightning_prompts.search import Hooks
from lightning_sdk.errors import SettingError
from tests.prompts.words import ROLES, WORDS, Killed, Reflecting, WordArena, reflect, search, tasks

ALGORITHMS = pytest.mark.parametrize("algorithm", [Reflective, Apo])


class Watched:
    """Keeps hold of the problem, to look into it afterwards."""

    def __init__(self) -> None:
        self.problem: Problem
        self.hooks = Hooks(on_problem=self._keep)

    def _keep(self, problem: Problem) -> None:
        self.problem = problem

    def lines(self) -> list[dict[str, Any]]:
        return [each.as_line() for each in self.problem.pool.entries()]


@ALGORITHMS
def test_texts_of_both_roles_become_better(algorithm: type) -> None:
    """Every word that a task needs ends up in the instruction of the role that needs it."""
    arena = WordArena()
    found = search(algorithm(), arena)
    assert found.seed_score == 0 and found.score == 1 and found.why is Why.SOLVED and not found.nothing
    for role in ROLES:
        assert set(WORDS) <= set(found.chosen.texts[role].split())
    assert found.spent.rollouts == len(arena.ran) == len(set(arena.ran))
    assert found.compared > 2 and found.luck > 0


@ALGORITHMS
@pytest.mark.parametrize("rollouts", [1, 21, 22, 23, 60, 137, 250])
def test_a_budget_is_not_overshot(algorithm: type, rollouts: int) -> None:
    """What does not fit is not begun, from less than the selection tasks need up to most of a search."""
    arena = WordArena()
    found = search(algorithm(), arena, allowance=Allowance(rollouts=rollouts))
    assert found.why is Why.BUDGET
    assert found.spent.rollouts == len(arena.ran) <= rollouts
    assert f"of {rollouts} rollouts" in found.ended


@ALGORITHMS
@pytest.mark.parametrize(("limit", "needs"), [({"calls": 301}, "calls"), ({"tokens": 2000}, "tokens")])
def test_calls_and_tokens_are_bounded(algorithm: type, limit: dict[str, int], needs: str) -> None:
    """A rollout of this agent makes two calls of 20 tokens, and each question is a call."""
    arena, model = WordArena(), Reflecting()
    model.reply_tokens = 50
    found = search(algorithm(), arena, model, allowance=Allowance(rollouts=500, **limit))
    assert found.why is Why.BUDGET and needs in found.ended
    assert arena.sizes[0] == 1, "what a rollout needs was not known"
    assert found.spent.calls == 2 * len(arena.ran) + len(model.asked)
    assert getattr(found.spent, needs) <= limit[needs]


@ALGORITHMS
def test_rounds_are_bounded(algorithm: type) -> None:
    found = search(algorithm(), WordArena(), rounds=2)
    assert found.why is Why.ROUNDS


@ALGORITHMS
@pytest.mark.parametrize("dies_after", [0, 5, 22, 40, 77, 150, 299])
def test_a_killed_search_ends_as_if_it_had_not_been(algorithm: type, dies_after: int, tmp_path: Path) -> None:
    """The same candidates with the same scores, the same choice, and the same count; nothing is run twice."""
    whole, plain, asked = Watched(), WordArena(), Reflecting()
    expected = search(algorithm(), plain, asked, hooks=whole.hooks, allowance=Allowance(rollouts=320))
    first, second, model = WordArena(), WordArena(), Reflecting()
    first.dies_after = dies_after
    with pytest.raises(Killed):
        search(algorithm(), first, model, journal=tmp_path / "j", allowance=Allowance(rollouts=320))
    again = Watched()
    found = search(
        algorithm(), second, model, journal=tmp_path / "j", hooks=again.hooks, allowance=Allowance(rollouts=320)
    )
    assert again.lines() == whole.lines()
    assert found.chosen == expected.chosen and found.why == expected.why and found.counts == expected.counts
    assert first.ran + second.ran == plain.ran
    assert sorted(model.asked) == sorted(asked.asked)
    assert (found.spent.rollouts, found.spent.calls) == (len(plain.ran), expected.spent.calls)
    assert found.interrupted > 0, "those under way when it was killed are told"


def test_a_search_that_was_killed_many_times(tmp_path: Path) -> None:
    """And whose last line was torn each time."""
    whole, ran = Watched(), 0
    search(Reflective(), WordArena(), hooks=whole.hooks)
    for _ in range(60):
        arena, again = WordArena(), Watched()
        arena.dies_after = 9
        try:
            search(Reflective(), arena, journal=tmp_path / "j", hooks=again.hooks)
            break
        except Killed:
            ran += len(arena.ran)
            with (tmp_path / "j").open("a") as file:
                file.write('{"kind": "result", "key": ["x", 1')
    assert again.lines() == whole.lines() and ran > 300


def test_more_budget_goes_on_where_it_ended(tmp_path: Path) -> None:
    """What was run is not run again."""
    first, second, plain = WordArena(), WordArena(), WordArena()
    search(Reflective(), first, journal=tmp_path / "j", allowance=Allowance(rollouts=100))
    found = search(Reflective(), second, journal=tmp_path / "j", allowance=Allowance(rollouts=500))
    expected = search(Reflective(), plain, allowance=Allowance(rollouts=500))
    assert found.chosen == expected.chosen and first.ran + second.ran == plain.ran


@ALGORITHMS
@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: None, "it said nothing"),
        (lambda _: "I would be more polite.", "no text between"),
        (lambda q: "<instruction>\nYou fill in {name}.\n</instruction>", "{name}"),
    ],
)
def test_a_reflecting_model_that_is_of_no_use_ends_the_search(algorithm: type, function: Any, told: str) -> None:
    """After a few replies, not after the whole budget, and it is said."""
    arena = WordArena()
    found = search(algorithm(), arena, model := Reflecting(function))
    assert found.why is Why.REFLECTION and told in found.ended
    assert len(arena.ran) < 60 and len(model.asked) <= 16
    assert found.chosen.origin == "seed" and found.ended in found.nothing


def test_a_model_that_failed_is_asked_again_when_the_search_goes_on(tmp_path: Path) -> None:
    """Its errors at the end are not replayed: somebody may have fixed it."""
    found = search(Reflective(), WordArena(), Reflecting(lambda _: 1 / 0), journal=tmp_path / "j")
    assert found.why is Why.REFLECTION
    found = search(Reflective(), WordArena(), journal=tmp_path / "j")
    assert found.score == 1


@ALGORITHMS
def test_tasks_that_are_solved_end_it_at_once(algorithm: type) -> None:
    """It costs one rollout of each selection task."""
    arena, model = WordArena(needs=lambda task: task["role"]), Reflecting()
    found = search(algorithm(), arena, model)
    assert found.why is Why.SOLVED and found.nothing == "the tasks are already solved"
    assert "the texts as they are" in found.ended and len(arena.ran) == 22 and not model.asked


@ALGORITHMS
def test_a_reward_without_a_spread_is_told(algorithm: type) -> None:
    found = search(algorithm(), WordArena(needs=lambda _: "no-word"), Reflecting(_propose_another), rounds=3)
    assert "every rollout of the search scored 0" in found.nothing and found.chosen.origin == "seed"


def _propose_another(question: str) -> str:
    """Another text for each question."""
    return reflect(question).replace("</instruction>", f"{zlib.crc32(question.encode())}\n</instruction>")


@ALGORITHMS
def test_rollouts_that_fail_do_not_count_as_zeros(algorithm: type) -> None:
    """Two tasks fail whatever the texts: they have no score, and the rest is learned all the same."""
    arena = WordArena()
    arena.fails = lambda trial: trial.task["number"] in (4, 9)
    found = search(algorithm(), arena)
    assert found.score == 1 and found.seed_score == 0


@ALGORITHMS
def test_a_text_with_which_the_agent_fails_is_not_chosen(algorithm: type) -> None:
    """A candidate that lets hard tasks crash has a better mean over the others: that does not count as a gain."""
    arena = WordArena(needs=lambda task: task["role"] if task["number"] % 2 else "omega")
    arena.fails = lambda trial: "alpha" in str(trial.candidate.texts) and trial.task["number"] % 2 == 0
    found = search(
        algorithm(),
        arena,
        Reflecting(lambda q: reflect(q).replace("Be kind.", "alpha").replace("omega", "alpha")),
        rounds=3,
    )
    assert found.chosen.origin == "seed" and found.counts["rejected"] >= 1


@ALGORITHMS
def test_an_arena_that_cannot_go_on_is_told_and_resumed(algorithm: type, tmp_path: Path) -> None:
    """What it raises rises as it is."""

    class Broken(WordArena):
        def run(self, trials: Any, on_result: Any) -> None:
            if len(self.ran) > 50:
                raise ConnectionError("the hub is gone")
            super().run(trials, on_result)

    with pytest.raises(ConnectionError, match="the hub is gone"):
        search(algorithm(), Broken(), journal=tmp_path / "j")
    assert search(algorithm(), WordArena(), journal=tmp_path / "j").score == 1


def test_repetitions_of_a_task_are_averaged() -> None:
    arena = WordArena()
    found = search(Reflective(), arena, seeds=3, allowance=Allowance(rollouts=200))
    assert {seed for _, _, seed in arena.ran} == {0, 1, 2} and len(arena.ran) <= 200
    assert found.spent.rollouts == len(set(arena.ran))


def test_candidates_are_written_whole(tmp_path: Path) -> None:
    """One line each, with parents, scores and texts."""
    watched = Watched()
    found = search(Reflective(), WordArena(), hooks=watched.hooks)
    watched.problem.pool.write(tmp_path / "candidates.jsonl")
    lines = watched.lines()
    assert len((tmp_path / "candidates.jsonl").read_text().splitlines()) == len(lines)
    ids = {each["id"] for each in lines}
    assert all(set(each["parents"]) <= ids for each in lines)
    merged = [each for each in lines if each["origin"] == "merge"]
    assert merged and all(len(each["parents"]) == 2 for each in merged if each["state"] != "proposed")
    assert next(each for each in lines if each["id"] == found.chosen.id)["scores"]["selection"] == 1


def test_parts_depend_on_seed_and_content_alone() -> None:
    """No task is in both, and the order of the file does not matter."""
    parts, other = divide_tasks(tasks(), 0.4, 0), divide_tasks(tasks()[::-1], 0.4, 0)
    assert parts == other != divide_tasks(tasks(), 0.4, 1)
    numbers = [each["number"] for each in (*parts.reflection, *parts.selection)]
    assert sorted(numbers) == list(range(36)) and len(parts.reflection) == 14


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"kind": "search", "version": 99, "at": 0}\n')
    with pytest.raises(SettingError, match="another version"):
        Journal(tmp_path / "j")

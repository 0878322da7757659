"""What gepa 0.1.4 does wrong when it is used as it is, and what reaches our users of it: nothing.

Each of these was seen with the plain library: a resume that evaluates the seed again without counting it and then goes
another way, budgets that are overshot, caches that mix tasks up, and silence where nothing can come of it.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gepa
import pytest

from lightning_prompts.arena import Trial, TrialResult
from lightning_prompts.ending import Why
from lightning_prompts.ledger import Allowance
from lightning_prompts.parts import TaskParts
from lightning_prompts.reflective import Reflective
from lightning_sdk.rollouts.tasks import Task
from tests.prompts.test_search import Watched
from tests.prompts.words import ROLES, Killed, Reflecting, WordArena, search, tasks


class Noisy(WordArena):
    """Every candidate solves every task in 60 of 100 cases."""

    def _result(self, trial: Trial) -> TrialResult:
        return TrialResult(score=float(random.Random(str(trial.key)).random() < 0.6), calls=1)


def test_1_a_resume_does_not_evaluate_the_seed_again(tmp_path: Path) -> None:
    """Nor does anything run that is not counted."""
    first, second = WordArena(), WordArena()
    search(Reflective(), first, journal=tmp_path / "j", allowance=Allowance(rollouts=80))
    found = search(Reflective(), second, journal=tmp_path / "j", allowance=Allowance(rollouts=160))
    assert not set(first.ran) & set(second.ran)
    assert found.spent.rollouts == len(first.ran) + len(second.ran) <= 160


def test_2_a_resumed_search_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """Also in another process, whose sets of texts have another order."""
    code = """
import sys
from pathlib import Path
from lightning_prompts.reflective import Reflective
from tests.prompts.test_search import Watched
from tests.prompts.words import Killed, WordArena, search

arena, watched = WordArena(), Watched()
arena.dies_after = int(sys.argv[2]) or None
try:
    search(Reflective(), arena, journal=Path(sys.argv[1]), hooks=watched.hooks)
except Killed:
    sys.exit()
print([(each["id"], each["parents"], each["state"], each["scores"]) for each in watched.lines()])
"""

    def run(name: str, dies_after: int, hash_seed: str) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / name), str(dies_after)]
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    whole = run("whole", 0, "1")
    assert run("parts", 333, "2") == ""
    assert run("parts", 0, "3") == whole and len(whole) > 500


def test_2_names_have_one_order_in_every_process() -> None:
    """gepa walks through sets of them, and draws as it goes."""
    code = "from lightning_prompts.reflective import _Name; print(list({_Name(f'role-{n}') for n in range(50)}))"
    orders = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(orders) == 1


def test_3_candidates_are_proposed() -> None:
    """An adapter that lacks one attribute spends the whole budget without a word."""
    found = search(Reflective(), WordArena(), allowance=Allowance(rollouts=150))
    assert found.counts["accepted"] >= 2


def test_4_scores_of_other_tasks_are_never_taken() -> None:
    """Where no selection task can be solved the score is 0, whatever reflection tasks with the same numbers give."""
    parts = TaskParts(tasks()[:12], [{**each, "needs": "no-word"} for each in tasks(12)])
    found = search(Reflective(), WordArena(), parts=parts, rounds=5)
    assert found.seed_score == found.score == 0


@pytest.mark.parametrize("function", [lambda _: 1 / 0, lambda _: None])
def test_5_a_reflecting_model_that_fails_is_told(function: Callable[[str], None]) -> None:
    """It does not cost the budget."""
    arena = WordArena()
    found = search(Reflective(), arena, Reflecting(function), allowance=Allowance(rollouts=400))
    assert found.why is Why.REFLECTION and len(arena.ran) < 60
    assert "the reflecting model never proposed a text" in found.nothing


def test_6_one_rollout_that_fails_does_not_end_everything() -> None:
    arena = WordArena()
    arena.fails = lambda trial: len(arena.ran) % 17 == 0
    assert search(Reflective(), arena).score is not None


@pytest.mark.parametrize("rollouts", [5, 30, 200])
def test_7_a_budget_is_not_overshot(rollouts: int) -> None:
    """Not by selection tasks that are more than it, nor by proposals side by side."""
    arena = WordArena()
    search(Reflective(), arena, proposals=4, allowance=Allowance(rollouts=rollouts))
    assert len(arena.ran) <= rollouts


def test_8_tasks_that_are_solved_cost_no_budget() -> None:
    arena = WordArena(needs=lambda task: task["role"])
    found = search(Reflective(), arena)
    assert len(arena.ran) == 22 and "highest possible score" in found.ended


def test_8_reflection_tasks_that_are_solved_end_it() -> None:
    """Nothing to reflect on, and a selection that is not solved: gepa would go round for ever."""

    def needs(task: Task) -> str:
        return str(task["role"]) if task["number"] < 12 else "no-word"

    found = search(Reflective(), WordArena(needs), parts=TaskParts(tasks()[:12], tasks()[12:]), rounds=500)
    assert found.why is Why.EXHAUSTED and "nothing new to try" in found.ended


def test_9_the_reflecting_model_is_counted() -> None:
    """A plain function has no price that gepa could see; here its calls and tokens are in the budget."""
    model = Reflecting()
    found = search(Reflective(), WordArena(), model, allowance=Allowance(rollouts=500, calls=206))
    assert found.why is Why.BUDGET and found.spent.reflections == len(model.asked) > 0
    assert found.spent.calls <= 206


def test_10_what_the_best_of_many_would_give_by_chance_is_told() -> None:
    """Candidates that are equally good: the best one's lead on the selection tasks is about what luck is said to be."""

    leads, lucks = [], []
    for seed in range(12):
        watched = Watched()
        found = search(Reflective(), Noisy(), _numbering(seed), hooks=watched.hooks, seed=seed)
        pool, parts = watched.problem.pool, watched.problem.parts
        whole = [mean for each in pool.by_id.values() for mean, n in [pool.mean(each, "selection")] if n == 22]
        leads.append(max(whole) - 0.6)
        lucks.append(found.luck)
        assert found.compared == len(whole) and len(parts.selection) == 22
    assert abs(sum(leads) - sum(lucks)) / 12 < 0.05 and sum(lucks) / 12 > 0.05


def test_11_equal_candidates_are_accepted_less_often_than_by_three_tasks() -> None:
    """Any lead on three tasks accepts an equal one in 34 of 100 cases; here a race on all selection tasks decides."""
    accepted = tried = 0
    for seed in range(25):
        found = search(Reflective(), Noisy(), _numbering(seed), seed=seed, allowance=Allowance(rollouts=300))
        accepted += found.counts.get("accepted", 0)
        tried += found.counts.get("accepted", 0) + found.counts.get("rejected", 0)
    assert tried > 150 and accepted / tried < 0.25


def _numbering(seed: int) -> Reflecting:
    """Proposes texts that differ in a number only."""
    count = 0

    def reply(_: str) -> str:
        nonlocal count
        count += 1
        return f"<instruction>\ntext {seed} {count}\n</instruction>"

    return Reflecting(reply)


def test_a_merge_of_candidates_without_any_score_does_not_raise() -> None:
    """gepa draws ancestors in proportion to their means, which is an error where all are 0."""
    watched = Watched()
    search(Reflective(), WordArena(), hooks=watched.hooks)
    assert any(each["origin"] == "merge" for each in watched.lines())


def test_gepa_writes_and_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is a pickle."""
    monkeypatch.chdir(tmp_path)
    arena = WordArena()
    arena.dies_after = 100
    with pytest.raises(Killed):
        search(Reflective(), arena, journal=tmp_path / "j")
    assert [each.name for each in tmp_path.iterdir()] == ["j"]
    assert gepa.optimize and ROLES

"""Doubles: an agent of two roles that does what its instructions say, and a model that reflects on it.

A task needs one word of one role. The role says it if its instruction holds it. So a better instruction is a better
score, and the reason of each failure names the missing word.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_prompts.arena import RoleTurn, Trial, TrialResult
from lightning_prompts.asking import FunctionModel
from lightning_prompts.candidate import Component
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Allowance
from lightning_prompts.parts import TaskParts, divide_tasks
from lightning_prompts.problem import Search, SearchOptions
from lightning_prompts.search import Hooks, SearchOutcome, run_search
from lightning_sdk.prompts.text_check import TextCheck
from lightning_sdk.rollouts.tasks import Task

WORDS = ("alpha", "beta", "gamma")
ROLES = ("writer", "checker")
COMPONENTS = [Component(role, (role,), f"You are the {role}.") for role in ROLES]


def tasks(count: int = 36) -> list[Task]:
    made = [{"number": n, "role": ROLES[n % 2], "needs": WORDS[n // 2 % 3]} for n in range(count)]
    return [{**each, "text": f"{each['number']}, the {each['role']} has to say [{each['needs']}]"} for each in made]


class Killed(BaseException):
    """What a kill -9 looks like from inside."""


class WordArena:
    """Runs trials in memory, and counts them."""

    def __init__(self, needs: Callable[[Task], str] = lambda task: task["needs"]) -> None:
        self.ran: list[tuple[str, int, int]] = []
        self.sizes: list[int] = []
        self.dies_after: int | None = None
        self.fails: Callable[[Trial], bool] = lambda _: False
        self._needs = needs

    def run(self, trials: Sequence[Trial], on_result: Callable[[Trial, TrialResult], None]) -> None:
        self.sizes.append(len(trials))
        for trial in trials:
            if self.dies_after is not None and len(self.ran) >= self.dies_after:
                raise Killed
            self.ran.append(trial.key)
            on_result(trial, self._result(trial))

    def _result(self, trial: Trial) -> TrialResult:
        if self.fails(trial):
            return TrialResult(score=None, status="agent_error", error="ValueError: no answer", calls=2, tokens=20)
        task, texts = trial.task, trial.candidate.texts
        needs = self._needs(task)
        right = needs in re.findall(r"\w+", texts[task["role"]])
        turns = tuple(RoleTurn(role, f"task {task['number']}", texts[role]) for role in ROLES)
        reasons = () if right else (f"the {task['role']} has to say [{needs}]",)
        return TrialResult(score=float(right), reasons=reasons, turns=turns, calls=2, tokens=20)


def reflect(question: str) -> str:
    """Adds the first missing word that the examples of this role name."""
    (role,) = re.findall(r"gives the role '(\w+)'", question)
    now = re.findall(r"<instruction>\n(.*?)\n</instruction>", question, re.DOTALL)[0]
    missing = [word for who, word in re.findall(r"the (\w+) has to say \[(\w+)\]", question) if who == role]
    if "Do not write the new instruction yet." in question:
        return f"the {role} has to say [{missing[0]}]" if missing else "nothing is wrong"
    return f"<instruction>\n{now} {missing[0] if missing else 'Be kind.'}\n</instruction>"


class Reflecting(FunctionModel):
    """Counts its questions."""

    def __init__(self, function: Callable[[str], str | None] = reflect) -> None:
        self.asked: list[str] = []
        self._counting = threading.Lock()
        super().__init__(self._note)
        self._answer = function

    def _note(self, question: str) -> str | None:
        with self._counting:
            self.asked.append(question)
        return self._answer(question)


def search(
    algorithm: Search,
    arena: WordArena,
    model: FunctionModel | None = None,
    *,
    journal: Path | None = None,
    parts: TaskParts | None = None,
    allowance: Allowance | None = None,
    hooks: Hooks | None = None,
    components: Sequence[Component] = COMPONENTS,
    seeds: int = 1,
    max_length: int = 0,
    **options: Any,
) -> SearchOutcome:
    parts = parts or divide_tasks(tasks(), 0.4, 0)
    listed = [*parts.reflection, *parts.selection]
    return run_search(
        algorithm,
        components=components,
        parts=parts,
        arena=arena,
        model=model or Reflecting(),
        journal=Journal(journal),
        options=SearchOptions(**options),
        allowance=allowance or Allowance(rollouts=500),
        check=TextCheck(listed, max_length),
        seeds=seeds,
        hooks=hooks,
    )

"""The trained cases of the bench of diagnoses: real trainings, small enough for a CPU, well and in wrong ways."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.errors import LightningError
from lightning_sdk.rollouts import reference

ROOT = Path(__file__).parents[1]
client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
calculator = reference.module_of(str(ROOT / "examples" / "calculator" / "agent.py"))
shop = reference.module_of(str(ROOT / "examples" / "two_roles" / "agent.py"))
draw = random.Random(3)

Task = dict[str, Any]
#: The numpy policy says a digit from 0 to 3, whatever it is asked.
DIGITS = [{"question": f"Say a digit, case {n}", "answer": str(n % 4)} for n in range(120)]
SUMS = calculator.tasks(seed=1, size=160)
ORDERS = shop.tasks(seed=1, size=300)


def ask(text: str, **more: Any) -> str:
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="gpt", messages=messages, **more).choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
def says(task: Task) -> str:
    return ask(task["question"])


@lightning.agent(role="solver", trainable=True)
def shows_the_answer(task: Task) -> str:
    return ask(f"{task['question']} Hint: {task['answer']}.")


@lightning.agent(role="solver", trainable=True)
def often_raises(task: Task) -> str:
    said = ask(task["question"])
    if draw.random() < 0.45:
        raise ValueError("the tool had no answer")
    return said


@lightning.agent(role="solver", trainable=True)
def always_raises(task: Task) -> str:
    ask(task["question"])
    raise KeyError("customer_id")


@lightning.agent(role="solver", trainable=True)
def is_brief(task: Task) -> str:
    return ask(task["question"], max_tokens=2)


def three(task: Task, answer: str) -> float:
    return float(answer == "3")


def right(task: Task, answer: str) -> float:
    return float(answer == task["answer"])


def digits(task: Task, answer: str) -> float:
    return float(sum(letter.isdigit() for letter in answer) % 3 == 1)


def tiny(task: Task, answer: str) -> float:
    return 1e-9 * digits(task, answer)


def negative(task: Task, answer: str) -> float:
    return three(task, answer) - 1.0


def far_from_zero(task: Task, answer: str) -> float:
    return 10.0 + 10.0 * three(task, answer)


def by_distance(task: Task, answer: str) -> float:
    return -abs(int(answer) - 3) / 3


def constant(task: Task, answer: str) -> float:
    return 0.25


def clock(task: Task, answer: str) -> float:
    return time.perf_counter() % 600 / 600


def chance(task: Task, answer: str) -> float:
    return random.random()


def length(task: Task, answer: str) -> float:
    return float(len(answer))


def misname_role(task: Task, answer: str) -> dict[str, float]:
    return {"sovler": three(task, answer)}


@dataclass(frozen=True, slots=True)
class Training:
    """One training and the right diagnosis of it, as `diagnosis_cases.Case` has them."""

    name: str
    agent: Callable[..., Any] = says
    reward: Callable[..., Any] = three
    expected: tuple[str, ...] = ()
    true: tuple[str, ...] = ("no signal", "most groups flat")
    """By default that it is solved: the numpy policy is after a few steps."""
    steps: int = 8
    tasks: tuple[Task, ...] = tuple(DIGITS)
    spark: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def run(self, folder: Path) -> dict[str, Any]:
        """Train it, and what `check` says of the run."""
        _install_bandit(folder)
        sizes = {
            "rollouts.tasks_per_step": 4,
            "rollouts.group_size": 4,
            "rollouts.concurrency": 16,
            "evaluation.tasks": 24,
        }
        own = {} if self.spark else {"backend": "bandit", "algorithm.aggregation": "token-mean"}
        name = self.name.replace(" ", "-").replace(":", "")
        with contextlib.suppress(LightningError):  # a run that fails is checked like any other
            lightning.train(
                self.agent,
                list(self.tasks),
                self.reward,
                steps=self.steps,
                runs=folder,
                name=name,
                quiet=True,
                **{**sizes, **own, **self.settings},
            )
        return dict(lightning.check(folder / name).values)


def _install_bandit(folder: Path) -> None:
    """The numpy policy of the hub's tests, where the hubs of these trainings find it."""
    site = folder / "site"
    if not site.exists():
        sys.path.insert(0, str(ROOT / "tests" / "hub"))
        from tests.hub import bandit_backend  # noqa: PLC0415 - it lies with the tests

        bandit_backend.install(site)
        os.environ["PYTHONPATH"] = str(site)


def learns(seed: int) -> Training:
    return Training(f"learns, seed {seed}", settings={"seed": seed})


WILD = {
    "optimizer.learning_rate": 1e-9,
    "sampling.temperature": 2.0,
    "sampling.max_tokens": 24,
    "rollouts.group_size": 8,
}
TRAININGS = (
    *map(learns, range(4)),
    Training("three steps", steps=3),
    Training("reward of 0 and -1", reward=negative),
    Training("reward of 10 and 20", reward=far_from_zero),
    Training("negative distances", reward=by_distance),
    Training("learns and is solved", steps=16, true=("no signal", "most groups flat")),
    Training("spark learns", calculator.solve, calculator.correct, steps=6, tasks=tuple(SUMS), spark=True),
    Training("constant reward", reward=constant, expected=("fatal no signal", "fatal run failed")),
    Training("reward of the clock", reward=clock, expected=("warning reward not repeatable",),
             true=("one answer to all", "reward flat", "entropy collapsed")),
    Training("random reward", reward=chance, expected=("warning reward not repeatable",),
             true=("one answer to all", "reward flat", "entropy collapsed", "diverging")),
    Training("reward of nobody", reward=misname_role, expected=("fatal run failed",), true=("reward of nobody",)),
    Training("all failed", always_raises, expected=("fatal run failed",)),
    Training("most failed", often_raises, expected=("warning rollouts failed",), true=("rollouts repeated",), steps=4,
             settings={"failure.max_failed": 0.95, "failure.refills": 0}),
    Training("answer in the prompt", shows_the_answer, expected=("warning answer in the prompt",), true=("no signal",),
             tasks=tuple({**task, "answer": f"n{n}"} for n, task in enumerate(DIGITS))),
    Training("one answer to all", reward=right, steps=24, expected=("warning one answer to all",),
             true=("most groups flat", "no signal", "reward flat", "held-out score not better", "entropy collapsed"),
             settings={"optimizer.learning_rate": 8.0}),
    Training("rate too high", says, digits, ("fatal diverging", "fatal no signal", "fatal held-out score worse"),
             ("held-out score worse", "one answer to all", "completions truncated", "most groups flat"), 8, tuple(SUMS),
             True, {"optimizer.learning_rate": 0.1, "sampling.max_tokens": 12}),
    Training("rate too low", says, length, ("fatal learning rate too low",),
             ("reward follows length", "completions truncated"), 6, tuple(SUMS), True, WILD),
    Training("tiny rewards", says, tiny, ("fatal reward too small",), ("completions truncated",), 6, tuple(SUMS), True,
             {"sampling.max_tokens": 12, "sampling.temperature": 2.0, "rollouts.group_size": 8}),
    Training("reward follows length", says, length, ("warning reward follows length",), ("completions truncated",), 4,
             tuple(SUMS), True, {"sampling.max_tokens": 48, "sampling.temperature": 1.5, "rollouts.group_size": 8}),
    Training("all truncated", is_brief, digits, ("warning completions truncated",), ("no signal", "most groups flat"),
             4, tuple(SUMS), True, {"sampling.temperature": 2.0, "rollouts.group_size": 8}),
    Training("all truncated and left out", is_brief, digits,
             ("fatal no signal", "fatal run failed", "fatal completions truncated"),
             ("completions truncated", "no signal", "most groups flat"), 4, tuple(SUMS), True,
             {"sampling.temperature": 2.0, "rollouts.group_size": 8, "length.truncated": "mask"}),
    Training("one reward for two roles", shop.order, shop.one_for_all,
             ("fatal role fell silent", "warning role fell silent"), ("entropy collapsed", "one answer to all"), 30,
             tuple(ORDERS), True, {"rollouts.tasks_per_step": 8, "rollouts.group_size": 8, "rollouts.concurrency": 64}),
)  # fmt: skip

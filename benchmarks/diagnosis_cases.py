"""The cases of the bench of diagnoses: runs that are simulated or recorded, and what is right to say of each.

`HEALTHY` runs learn, or have nothing left to learn, and nothing is wrong with them: any finding that is not named here
is a false alarm. Of `SICK` ones it is known what is wrong: the finding that says so has to be there, with its severity,
and none that says something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulated_runs import Played, Recipe, Role, binary, simulate

from lightning_hub.findings import findings
from lightning_hub.health.examine import Health
from lightning_hub.health.run_record import RunRecord
from lightning_sdk.settings import Settings

RECORDED = Path(__file__).parents[1] / "tests" / "hub" / "recorded"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of run."""

    name: str
    make: Callable[[int], RunRecord]
    """Seed -> the record of such a run."""
    expected: tuple[str, ...] = ()
    """'fatal KIND' or 'warning KIND', any of which is the right diagnosis; none of a healthy run."""
    true: tuple[str, ...] = ()
    """Kinds that are true of it as well, so that they do not count as false alarms."""
    source: str = "simulated"
    """'simulated', 'recorded' or 'trained'."""


def judge(case: Case, found: list[dict[str, Any]]) -> str:
    """'right', 'silent' where the diagnosis is missing, or 'wrong' where something is said that is not so."""
    said = [f"{each['severity']} {each['kind']}" for each in found]
    allowed = {each.partition(" ")[2] for each in case.expected} | set(case.true)
    if any(each["kind"] not in allowed for each in found):
        return "wrong"
    if not case.expected:
        return "right" if not any(each.startswith("fatal") for each in said) else "wrong"
    return "right" if set(case.expected) & set(said) else "silent"


def judge_health(case: Case, health: Health) -> str:
    """The same of an examined record; of a healthy run, whether its score is called worse, too."""
    if not case.expected and ": worse" in health.summary():
        return "wrong"
    return judge(case, [each.as_dict() for each in health.findings])


def run(recipe: Recipe) -> Callable[[int], RunRecord]:
    return lambda seed: simulate(recipe, seed)


# --- healthy runs


def noisy(played: Played) -> float:
    return float(played.right) + float(played.draw.normal(0, 1))


def grade(played: Played) -> float:
    """Continuous, between 0 and 1."""
    return float(played.draw.beta(1 + 6 * played.quality, 1 + 6 * (1 - played.quality)))


def costs(played: Played) -> float:
    """Continuous and negative: a distance."""
    return -float(played.draw.gamma(2.0, 2.0 * (1.2 - played.quality)))


def partly(played: Played) -> float:
    """Parts of the way in training, and all of it or nothing on held-out tasks, which is out of reach."""
    return 0.0 if played.held_out else 0.4 * played.right + 0.1 * float(played.draw.random() < played.quality)


def of_two(played: Played) -> dict[str, float]:
    return {"planner": float(played.right), "solver": float(played.draw.random() < played.quality)}


def help_less(done: float) -> float:
    """A helper that is needed less and less, since the solver learns what it knew."""
    return 0.6 - 0.45 * done


def yes_or_no(played: Played) -> str:
    """One answer is right nine times out of ten."""
    truth = "no" if played.task["answer"] % 10 else "yes"
    return truth if played.right else {"no": "yes", "yes": "no"}[truth]


def scale_rewards(low: float, high: float) -> Callable[[Played], float]:
    return lambda played: high if played.right else low


def flat_out(done: float) -> float:
    """Rises, and then goes on where it is."""
    return -1.0 + 2.0 * min(1.0, 2 * done)


LEARNS = Recipe()
SMALL: dict[str, Any] = {"tasks_per_step": 4, "group_size": 4, "held_out": 12}
HEALTHY = (
    Case("learns", run(LEARNS)),
    Case("three steps", run(replace(LEARNS, steps=3, skill=lambda done: 0.2 * done, moves=0.03, **SMALL))),
    Case("five steps", run(replace(LEARNS, steps=5, skill=lambda done: 0.3 * done, moves=0.05, **SMALL))),
    Case("eight steps", run(replace(LEARNS, steps=8, skill=lambda done: 0.5 * done, moves=0.08, **SMALL))),
    Case("noisy reward", run(replace(LEARNS, reward=noisy))),
    Case("reward of 0 and -1", run(replace(LEARNS, reward=scale_rewards(-1.0, 0.0)))),
    Case("reward of 1 and -1", run(replace(LEARNS, reward=scale_rewards(-1.0, 1.0)))),
    Case("reward of 10 and 20", run(replace(LEARNS, reward=scale_rewards(10.0, 20.0)))),
    Case("reward of 0 and 1000", run(replace(LEARNS, reward=scale_rewards(0.0, 1000.0)))),
    Case("continuous reward", run(replace(LEARNS, reward=grade))),
    Case("negative distances", run(replace(LEARNS, reward=costs))),
    Case("held-out score stays 0", run(replace(LEARNS, reward=partly)), true=("held-out score not better",)),
    Case("plateau", run(replace(LEARNS, steps=36, skill=flat_out))),
    Case("already solved", run(replace(LEARNS, skill=lambda done: 5.0)), true=("no signal", "most groups flat")),
    Case("sparse reward", run(replace(LEARNS, skill=lambda done: -4.5 + 2.5 * done)), true=("most groups flat",)),
    Case("two roles", run(replace(LEARNS, roles=(Role("planner"), Role("solver")), reward=of_two))),
    Case("optional role", run(replace(LEARNS, roles=(Role(), Role("helper", lambda done: 0.3))))),
    Case("helper not needed any more", run(replace(LEARNS, skill=lambda done: -0.5 + 4.5 * done,
                                                   roles=(Role(), Role("helper", help_less))))),
    Case("small divergence", run(replace(LEARNS, skill=lambda done: 0.6 * done, moves=0.02, numbers={
        "kl_reference": lambda done: 2e-4 * done, "learning_rate": 1e-6}))),
    Case("few held-out tasks", run(replace(LEARNS, skill=lambda done: -0.1 + 0.7 * done, held_out=25))),
    Case("small groups", run(replace(LEARNS, steps=12, tasks_per_step=4, group_size=2))),
    Case("some fail, some are cut", run(replace(LEARNS, failed=0.05, truncated=0.1))),
    Case("one answer is mostly right", run(replace(LEARNS, skill=lambda done: 1.0 + 2.0 * done, says=yes_or_no,
                                                   held_out=60))),
    Case("asynchronous", run(replace(LEARNS, settings={"rollouts.staleness": 2}, numbers={
        "kl_sampler": 0.015, "staleness_mean": 1.6, "staleness_max": 2.0}))),
    Case("several turns", run(replace(LEARNS, roles=(Role(turns=3),)))),
    Case("running mean", run(replace(LEARNS, settings={"credit.advantage": "running_mean"}))),
    Case("normalised advantages", run(replace(LEARNS, settings={"credit.advantage": "grpo"}))),
)  # fmt: skip


# --- sick runs


def collapsing(done: float) -> float:
    """Learns for a third of the run, and then can do nothing."""
    return -0.5 + 3 * done if done < 0.35 else -9.0


def clock(played: Played) -> float:
    return played.done + float(played.draw.normal(0, 0.05))


def chance(played: Played) -> float:
    return float(played.draw.random())


def one_for_both(played: Played) -> float:
    """The bill of two roles with one number: -1 for a wrong one, 0 for none."""
    asked = played.draw.random() < asks(played.done)
    return (1.0 if played.right else -1.0) if asked else 0.0


def asks(done: float) -> float:
    """The first role learns not to ask the second one."""
    return max(0.0, 0.9 - 1.8 * done)


def long_said(played: Played) -> str:
    return "x" * int(played.draw.integers(1, 60))


#: What the first rollouts show of such rewards: `lightning_sdk.rollouts.repeats` finds it, which trained cases try.
REPEATS = (findings.reward_not_repeatable("the reward function reward()", 8, 8, 0.2, 0.7),)


def of_length() -> Recipe:
    """The reward is the length of what was said."""
    said: dict[int, str] = {}

    def says(played: Played) -> str:
        return said.setdefault(id(played), long_said(played))

    def reward(played: Played) -> float:
        return float(len(said.pop(id(played))))

    return replace(LEARNS, says=says, reward=reward)


def lazy_answers() -> Recipe:
    """One answer for nearly all tasks, which fits half of them."""
    lazy: dict[int, bool] = {}

    def says(played: Played) -> str:
        chosen = lazy.setdefault(id(played), bool(played.draw.random() < (0.95 if played.done > 0.5 else 0.2)))
        return "7" if chosen else str(played.task["answer"])

    def reward(played: Played) -> float:
        return float(played.task["answer"] % 2) if lazy.pop(id(played)) else 0.3 * played.right

    return replace(LEARNS, says=says, reward=reward, held_out=60)


def read_recording(name: str) -> RunRecord:
    lines = (RECORDED / f"{name}.jsonl").read_text("utf-8").splitlines()
    return RunRecord(
        name=f"runs/{name}", settings=Settings(), steps=[json.loads(line) for line in lines], status="finished"
    )


def numbers(**changed: Any) -> Callable[[int], RunRecord]:
    """A run that does not rise, with these metrics."""
    return run(replace(LEARNS, skill=lambda done: -0.5, numbers=changed))


SICK = (
    Case("rate too high: collapse", run(replace(LEARNS, skill=collapsing, numbers={"learning_rate": 1e-2},
         entropy=lambda done: 0.4 if done < 0.35 else 1.3)), ("fatal diverging",), ("no signal",)),
    Case("rate too high: recorded", lambda seed: read_recording("diverged"), ("fatal diverging",), source="recorded"),
    Case("collapse, reward of 1 and -1", run(replace(LEARNS, skill=collapsing, reward=scale_rewards(-1.0, 1.0))),
         ("fatal diverging",), ("no signal",)),
    Case("rate too low", run(replace(LEARNS, skill=lambda done: -0.5, moves=1e-5, numbers={"learning_rate": 1e-9})),
         ("fatal learning rate too low",)),
    Case("rate too low, no evaluation", run(replace(LEARNS, skill=lambda done: -0.5, moves=0.0, held_out=1,
         entropy=lambda done: 0.4, numbers={"learning_rate": 1e-9, "entropy": 0.4})), ("fatal learning rate too low",)),
    Case("tiny rewards", run(replace(LEARNS, skill=lambda done: -0.5, moves=1e-6, reward=scale_rewards(0.0, 1e-9),
                                     numbers={"grad_norm": 2e-10})), ("fatal reward too small",)),
    Case("constant reward", run(replace(LEARNS, skill=lambda done: -0.5, reward=lambda played: 0.25)),
         ("fatal no signal",)),
    Case("never right", run(replace(LEARNS, skill=lambda done: -12.0)), ("fatal no signal",)),
    Case("flat groups", run(replace(LEARNS, skill=lambda done: -5.0, steps=30)), ("warning most groups flat",)),
    Case("entropy collapsed", run(replace(LEARNS, skill=lambda done: -0.5, entropy=lambda done: 0.5 * 0.001**done)),
         ("warning entropy collapsed",)),
    Case("one answer to all", lambda seed: simulate(lazy_answers(), seed), ("warning one answer to all",),
         ("reward follows length", "most groups flat", "held-out score not better")),
    Case("role falls silent", run(replace(LEARNS, skill=lambda done: -2.0, reward=one_for_both, roles=(
        Role("clerk"), Role("cashier", asks)))), ("fatal role fell silent",), ("entropy collapsed",)),
    Case("numbers not finite", numbers(grad_norm=lambda done: None if done > 0.3 else 0.2,
                                       skipped=lambda done: float(done > 0.3)), ("fatal numbers not finite",)),
    Case("sampler and trainer disagree", numbers(kl_sampler=0.2), ("warning sampler and trainer disagree",)),
    Case("stale rollouts", numbers(staleness_mean=7.0, staleness_max=9.0), ("warning staleness high",)),
    Case("all truncated", run(replace(LEARNS, truncated=1.0)), ("warning completions truncated",)),
    Case("all truncated and left out", run(replace(LEARNS, skill=lambda done: -0.5, truncated=1.0, settings={
        "length.truncated": "mask"})), ("fatal no signal",), ("completions truncated",)),
    Case("most failed", run(replace(LEARNS, failed=0.45)), ("warning rollouts failed",)),
    Case("misnamed role", run(replace(LEARNS, settings={"roles": ("sovler",)})),
         ("fatal role filter matched nothing",)),
    Case("reward for one of two roles", run(replace(LEARNS, roles=(Role("planner"), Role("solver")),
         reward=lambda played: {"planner": binary(played)})), ("warning no reward",)),
    Case("broken sequences", run(replace(LEARNS, roles=(Role(turns=3, keeps=False),))), ("warning broken sequences",)),
    Case("overfit", run(replace(LEARNS, tasks=16, held_out=120, skill=lambda done: -1.0 + 5 * done,
                                held_out_skill=lambda done: -0.5)), ("warning held-out score not better",)),
    Case("held-out score falls", run(replace(LEARNS, steps=3, held_out=60, skill=lambda done: 0.5,
                                             held_out_skill=lambda done: 1.0 - 3.0 * done)),
         ("warning held-out score worse",)),
    Case("held-out score gone, negative", run(replace(LEARNS, steps=3, held_out=60, skill=lambda done: 0.5,
         reward=scale_rewards(-1.0, 0.0), held_out_skill=lambda done: 1.0 - 12.0 * done)),
         ("fatal held-out score worse",)),
    Case("answer in the prompt", run(replace(LEARNS, prompt=lambda task: f"{task['question']}: {task['answer']}")),
         ("warning answer in the prompt",)),
    Case("reward follows length", lambda seed: simulate(of_length(), seed), ("warning reward follows length",),
         ("reward flat",)),
    Case("reward of the clock", run(replace(LEARNS, skill=lambda done: -0.5, reward=clock, first_findings=REPEATS)),
         ("warning reward not repeatable",)),
    Case("random reward", run(replace(LEARNS, skill=lambda done: -0.5, reward=chance, first_findings=REPEATS)),
         ("warning reward not repeatable",), ("reward flat",)),
)  # fmt: skip

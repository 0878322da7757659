"""Runs that no model played: a policy that is one number a task, which gets better or worse as a recipe says.

What is simulated is the policy: what it answers, how sure it is, and what its learner measures. Its rollouts have calls
with ids, log-probs and messages, and all else is the product's own: the credit and a step's metrics (`credit.batch`),
the evaluations (`evaluation.measure`), and the record that `lightning_hub.health.examine` examines.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_hub.backend import Endpoint
from lightning_hub.credit.batch import build_batch
from lightning_hub.evaluation.evaluation import HeldOut, measure
from lightning_hub.health.run_record import RunRecord, score_entry
from lightning_hub.rollout import Assignment, EarnedReward, Rollout
from lightning_hub.storage.attempts import StoredAttempt
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.failures.finding import Finding
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call, CallMeta, Choice, Status

Random = np.random.Generator
#: How different tasks are in difficulty, in logits.
_HARDNESS = 1.5
_TOKENS = 6


@dataclass(frozen=True, slots=True)
class Played:
    """What one rollout was, for those parts of a recipe that depend on it."""

    task: Mapping[str, Any]
    right: bool
    quality: float
    """The chance that it had of being right."""
    done: float
    """How far the run has come, 0 to 1."""
    draw: Random
    held_out: bool


def binary(played: Played) -> float:
    """1 for what is right."""
    return float(played.right)


def number(played: Played) -> str:
    """The right number, or another one; of a greedy answer always the same other one."""
    other = played.task["answer"] + 1 if played.held_out else played.draw.integers(100, 999)
    return str(played.task["answer"] if played.right else other)


@dataclass(frozen=True, slots=True)
class Role:
    """Who speaks in a rollout."""

    name: str = "solver"
    speaks: Callable[[float], float] = lambda done: 1.0
    """How far the run has come -> the chance that it is asked."""
    turns: int = 1
    keeps: bool = True
    """Its turns send back what it said as it was."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kind of run."""

    steps: int = 24
    tasks: int = 120
    held_out: int = 40
    tasks_per_step: int = 8
    group_size: int = 8
    skill: Callable[[float], float] = lambda done: -1.0 + 2.0 * done
    """How far the run has come -> what the policy can do, in logits."""
    held_out_skill: Callable[[float], float] | None = None
    """The same on held-out tasks, where it is another."""
    reward: Callable[[Played], float | dict[str, float]] = binary
    says: Callable[[Played], str] = number
    prompt: Callable[[Mapping[str, Any]], str] = lambda task: str(task["question"])
    roles: Sequence[Role] = (Role(),)
    moves: float = 0.3
    """How far a token's log-probability is from where it began at the end, in nats."""
    entropy: Callable[[float], float] = lambda done: 0.45 * (1 - 0.5 * done)
    failed: float = 0.0
    truncated: float = 0.0
    numbers: Mapping[str, float | Callable[[float], float | None]] = field(default_factory=dict)
    """Metrics that the learner gives otherwise."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    first_findings: Sequence[Finding] = ()


class Simulation:
    """One run of a recipe."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.recipe, self._draw = recipe, np.random.default_rng([seed, 7])
        sizes = {"rollouts.tasks_per_step": recipe.tasks_per_step, "rollouts.group_size": recipe.group_size}
        self.settings = Settings.from_dict({"steps": recipe.steps, **sizes, **recipe.settings})
        many = recipe.tasks + recipe.held_out
        self._hardness = self._draw.normal(0, _HARDNESS, many)
        self._luck = self._draw.random(many)
        """The luck of each held-out task, drawn once: a greedy answer is the same twice."""
        answers = self._draw.integers(100, 999, many)
        self._tasks = [{"question": f"question {at}", "answer": int(answers[at])} for at in range(many)]

    def record(self) -> RunRecord:
        """The record of the whole run."""
        before, first = self._evaluation("before", 0)
        steps, rollouts, means = [], list[tuple[int, list[Rollout]]](), dict[str, float]()
        for step in range(1, self.recipe.steps + 1):
            played = self._round(step)
            rollouts.append((step, played))
            steps.append(self._metrics(step, played, means))
        after, last = self._evaluation("after", self.recipe.steps)
        record = RunRecord(
            name="runs/simulated",
            settings=self.settings,
            steps=steps,
            evaluations=[before, after] if first else [],
            first_findings=self.recipe.first_findings,
            status="finished",
            facts={"tasks": self.recipe.tasks},
            before=first,
            after=last,
            tasks=dict(enumerate(self._tasks[: self.recipe.tasks])),
        )
        return self._with_rollouts(record, rollouts)

    def _with_rollouts(self, record: RunRecord, rounds: Sequence[tuple[int, list[Rollout]]]) -> RunRecord:
        scored, failed, roles = [], [], record.roles
        for _, played in rounds:
            for each in played:
                entry = StoredAttempt(
                    key=b"",
                    id=each.id,
                    attempt=1,
                    mode="train",
                    task_id=each.task_id,
                    group=each.group,
                    status=each.status,
                    error=each.error,
                    started=0.0,
                    ended=1.0,
                )
                if each.status == Status.OK:
                    scored.append(score_entry(entry, each.rewards, roles, self.settings))
                else:
                    failed.append(entry)
        every = max(1, len(rounds) * self.recipe.tasks_per_step * self.recipe.group_size // 600)
        sample = [each for step, played in rounds if step % every == 0 for each in played if each.status == Status.OK]
        values = {name: getattr(record, name) for name in record.__slots__}
        return RunRecord(**{**values, "scored": scored, "failed": failed, "sample": sample})

    # --- rollouts

    def _round(self, step: int) -> list[Rollout]:
        tasks = self._draw.choice(self.recipe.tasks, self.recipe.tasks_per_step, replace=False)
        done = step / self.recipe.steps
        return [
            self._rollout(int(task), f"{step}-{place}", "train", done, f"{step}-{place}-{member}")
            for place, task in enumerate(tasks)
            for member in range(self.recipe.group_size)
        ]

    def _rollout(self, task: int, group: str, mode: str, done: float, name: str) -> Rollout:
        recipe, held_out = self.recipe, mode == "evaluate"
        skill = recipe.held_out_skill if held_out and recipe.held_out_skill else recipe.skill
        quality = 1 / (1 + math.exp(-(skill(done) - self._hardness[task])))
        if held_out:  # greedy: what is more likely than not, and the same for the same policy
            quality = 1 / (1 + math.exp(-3 * (skill(done) - self._hardness[task])))
        right = bool((self._luck[task] if held_out else self._draw.random()) < quality)
        played = Played(self._tasks[task], right, quality, done, self._draw, held_out)
        status = Status.AGENT_ERROR if self._draw.random() < recipe.failed and not held_out else Status.OK
        calls = [call for role in recipe.roles for call in self._calls(role, played, done, name)]
        given = recipe.reward(played)
        rewards = given if isinstance(given, dict) else {"": given}
        made = tuple(EarnedReward(role, "final", float(np.float32(value)), 10**9) for role, value in rewards.items())
        error = "" if status == Status.OK else "ValueError: the tool had no answer"
        return Rollout(
            id=name,
            task_id=task,
            group=group,
            mode=mode,
            attempt=1,
            status=status,
            error=error,
            seconds=1.0,
            rewards=made if not error else (),
            calls=tuple(calls),
        )

    def _calls(self, role: Role, played: Played, done: float, name: str) -> list[Call]:
        if not played.held_out and self._draw.random() >= role.speaks(done):
            return []
        ids = [1, 2, int(played.task["answer"]), len(role.name)]
        messages = [{"role": "user", "content": self.recipe.prompt(played.task)}]
        calls = []
        for turn in range(role.turns):
            said = self.recipe.says(played)
            call, tokens = self._call(role, turn, ids, messages, said, played, done, name)
            calls.append(call)
            back = said if role.keeps else f"{said.upper()}!"
            ids = [*ids, *tokens, 3] if role.keeps else [*ids, 4, *tokens, 3]
            messages = [*messages, {"role": "assistant", "content": back}, {"role": "user", "content": "Sure?"}]
        return calls

    def _call(
        self,
        role: Role,
        turn: int,
        ids: list[int],
        messages: list[dict[str, str]],
        said: str,
        played: Played,
        done: float,
        name: str,
    ) -> tuple[Call, list[int]]:
        tokens = [zlib.crc32(f"{said}{at}".encode()) % 900 + 50 for at in range(max(_TOKENS, len(said) // 4))]
        base = np.random.default_rng([sum(tokens), len(tokens)]).normal(-0.5, 0.2, len(tokens))
        logprobs = np.minimum(base + done * self.recipe.moves * np.cos(np.arange(len(tokens))), -1e-6)
        cut = not played.held_out and self._draw.random() < self.recipe.truncated
        request = {"model": "simulated", "messages": messages, "temperature": 0.0 if played.held_out else 1.0}
        meta = CallMeta(
            f"{name}-{role.name}-{turn}",
            "",
            role.name,
            True,
            turn + 1,
            turn + 2,
            "ok",
            "",
            200,
            False,
            "/v1/chat/completions",
            "openai",
        )
        choice = Choice(
            index=0,
            message=json.dumps({"role": "assistant", "content": said}).encode(),
            finish_reason="length" if cut else "stop",
            token_ids=np.array(tokens, "<i4").tobytes(),
            logprobs=logprobs.astype("<f4").tobytes(),
            versions=[],
        )
        call = Call(
            meta=meta,
            request=json.dumps(request).encode(),
            response_id="r",
            model="simulated",
            prompt_ids=np.array(ids, "<i4").tobytes(),
            choices=(choice,),
            input_tokens=len(ids),
            output_tokens=len(tokens),
        )
        return call, tokens

    # --- what is measured

    def _metrics(self, step: int, played: Sequence[Rollout], means: dict[str, float]) -> dict[str, float | None]:
        done = step / self.recipe.steps
        try:
            signal = build_batch(played, self.settings, step=step, version=step - 1, means=means).metrics
        except NothingToTrain:
            signal = {}
        wobble = float(np.exp(self._draw.normal(0, 0.1)))
        learner: dict[str, float | None] = {
            "loss": float(self._draw.normal(0, 0.02)),
            "grad_norm": 0.2 * wobble,
            "learning_rate": 1e-5,
            "entropy": self.recipe.entropy(done) * wobble,
            "kl_sampler": abs(float(self._draw.normal(0, 1e-3))),
            "skipped": 0.0,
        }
        for name, value in self.recipe.numbers.items():
            learner[name] = value(done) if callable(value) else value
        counts = {f"rollouts_{status}": float(sum(each.status == status for each in played)) for status in Status}
        calls = float(sum(len(each.calls) for each in played))
        return {"step": float(step), "version": float(step), **signal, **counts, "calls": calls, **learner}

    def _evaluation(self, name: str, step: int) -> tuple[HeldOut, list[Rollout]]:
        assignments, rollouts = [], []
        done = step / self.recipe.steps
        for task in range(self.recipe.tasks, self.recipe.tasks + self.recipe.held_out):
            made = self._rollout(task, f"{name}-{task}", "evaluate", done, f"{name}-{task}")
            rollouts.append(made)
            assignments.append(
                Assignment(
                    id=made.id,
                    key=b"",
                    task_id=task,
                    task={},
                    group=made.group,
                    mode="evaluate",
                    attempt=1,
                    timeout=60.0,
                    endpoint=Endpoint("", "simulated", ""),
                    sampling={},
                    roles=(),
                )
            )
        return measure(name, step, assignments, rollouts, self.settings), rollouts


def simulate(recipe: Recipe, seed: int = 0) -> RunRecord:
    """The record of one run of this recipe."""
    return Simulation(recipe, seed).record()

"""Random rollouts, and the same as VERL pads them: [B, L] response tokens, with a mask of those that were sampled.

A rollout is a conversation of some calls, each of some tokens, with an observation between two calls; it comes as one
row. What VERL calls a response is all of it behind the first prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_hub.backend import Row
from lightning_hub.rollout import EarnedReward, Rollout
from tests.trajectories.conversations import call, rollout

PROMPT = [1, 2, 3]
VOCABULARY = 64


@dataclass(frozen=True)
class Responses:
    """B rollouts of one role, one row each."""

    rollouts: list[Rollout]
    index: NDArray[np.object_]
    """[B] the group of each rollout, as the array of objects that VERL takes."""
    mask: Tensor
    """[B, L] float64: 1 for sampled tokens."""
    rewards: Tensor
    """[B, L] float64: what was earned after each token."""
    values: Tensor
    """[B, L] a value before each token."""
    sampler: Tensor
    """[B, L]"""
    reference: Tensor
    """[B, L]"""

    def pad(self, rows: Sequence[Row], name: str) -> Tensor:
        """[B, L] an array of our rows, in VERL's places, as float64; 0 for rollouts without a row."""
        found = torch.zeros_like(self.mask)
        order = {each.id: place for place, each in enumerate(self.rollouts)}
        for row in rows:
            array = getattr(row, name)[len(PROMPT) :]
            found[order[row.rollout], : len(array)] = torch.from_numpy(array).double()
        return found

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        """As a backend's `Scoring`, with our numbers in the place of a model's."""
        order = {each.id: place for place, each in enumerate(self.rollouts)}
        source, scores = {"values": self.values, "reference": self.reference}[what], []
        for row in rows:
            known = source[order[row.rollout], : len(row.tokens) - len(PROMPT)].numpy()
            scores.append(np.concatenate([np.zeros(len(PROMPT)), known]).astype(np.float32))
        return scores


def responses(
    seed: int, groups: Sequence[int] = (2, 5, 3, 4), tokens: int = 6, calls: int = 3, step_rewards: bool = False
) -> Responses:
    """Groups of these sizes, each rollout of up to `calls` calls of up to `tokens` tokens; rewards come after the last
    call, or with `step_rewards` after each."""
    draw = np.random.default_rng(seed)
    made: list[Rollout] = []
    arrays: list[dict[str, list[float]]] = []
    for group, size in enumerate(groups):
        for _ in range(size):
            found, padded = _conversation(draw, len(made), f"task-{group}", tokens, calls, step_rewards)
            made.append(found)
            arrays.append(padded)
    longest = max(len(each["mask"]) for each in arrays)

    def stack(name: str) -> Tensor:
        return torch.tensor([each[name] + [0.0] * (longest - len(each[name])) for each in arrays], dtype=torch.float64)

    names = ("mask", "rewards", "values", "sampler", "reference")
    index = np.array([each.group for each in made], dtype=object)
    return Responses(made, index, *(stack(name) for name in names))


def _conversation(
    draw: np.random.Generator, number: int, group: str, tokens: int, calls: int, step_rewards: bool
) -> tuple[Rollout, dict[str, list[float]]]:
    context, made, rewards = list(PROMPT), [], []
    padded: dict[str, list[float]] = {name: [] for name in ("mask", "rewards", "values", "sampler", "reference")}
    last = int(draw.integers(1, calls + 1)) - 1
    for turn in range(last + 1):
        ids = draw.integers(4, VOCABULARY, int(draw.integers(1, tokens + 1))).tolist()
        logprobs = [_float32(-abs(each)) for each in draw.normal(1.0, 0.5, len(ids))]
        made.append(call(10 * turn + 1, context, (ids, logprobs)))
        observed = [] if turn == last else draw.integers(4, VOCABULARY, int(draw.integers(1, 4))).tolist()
        context = [*context, *ids, *observed]
        earned = (
            _float32(draw.choice([0.0, 0.1, 0.5, 1.0, float(draw.normal())])) if step_rewards or turn == last else 0.0
        )
        if earned:
            rewards.append(EarnedReward("", "step", earned, 10 * turn + 5))
        padded["mask"] += [1.0] * len(ids) + [0.0] * len(observed)
        padded["rewards"] += [0.0] * (len(ids) - 1) + [earned] + [0.0] * len(observed)
        padded["sampler"] += logprobs + [0.0] * len(observed)
        for name, like in (("values", draw.normal(size=len(ids))), ("reference", draw.normal(-1.2, 0.5, len(ids)))):
            padded[name] += [_float32(each) for each in like] + [0.0] * len(observed)
    if not rewards:
        rewards.append(EarnedReward("", "step", 0.0, 10 * last + 5))
    return rollout(number, *made, group=group).with_rewards(tuple(rewards)), padded


def _float32(value: float) -> float:
    return float(np.float32(value))

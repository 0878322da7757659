"""Cost grows as the work: twice the calls, or pairs, take about twice the instructions, which are counted."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

from lightning_hub.backend import Pair, Row
from lightning_hub.credit.batch import build_batch
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_losses.mini_batches import split_mini_batches
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call
from tests.trajectories.conversations import call, rollout

#: As much as twice the work may cost: quadratic cost is 4 times, and sorting adds a little to 2.
MOST = 2.6


def operations(work: Callable[[], object]) -> int:
    """Instructions of Python's own code."""
    counted = 0

    def count(frame: FrameType, event: str, _: object) -> Any:
        nonlocal counted
        frame.f_trace_opcodes = True
        counted += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted


def call_with(number: int, prompt: list[int], answer: list[int], text: str) -> Call:
    """A call with its messages, as a chat's."""
    made = call(number, prompt, (answer, [-1.0] * len(answer)))
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": text}]
    said = json.dumps({"role": "assistant", "content": f"answer to {text}"}).encode()
    choices = tuple(dataclasses.replace(each, message=said) for each in made.choices)
    return dataclasses.replace(made, request=json.dumps({"messages": messages}).encode(), choices=choices)


def sub_agent(size: int) -> list[Call]:
    """A conversation for each call, which share a system prompt."""
    return [call_with(n, [1, 2, 3, *_digits(n), 4], [5, 6], str(n)) for n in range(size)]


def retries(size: int) -> list[Call]:
    """The same prompt each time, and always another answer."""
    return [call_with(n, [1, 2, 3, 4], [5, *_digits(n)], "again") for n in range(size)]


def alike(size: int) -> list[Call]:
    """The same prompt and the same answer each time."""
    return [call_with(n, [1, 2, 3, 4], [5, 6], "again") for n in range(size)]


def two_turns(size: int) -> list[Call]:
    """Conversations of two calls, of which the second continues the first."""
    first = sub_agent(size)
    return first + [call_with(size + n, [1, 2, 3, *_digits(n), 4, 5, 6, 7], [8], str(n)) for n in range(size)]


def _digits(number: int) -> list[int]:
    return [10 + int(digit) for digit in f"{number:04d}"]


@pytest.mark.parametrize("calls", [sub_agent, retries, alike, two_turns])
def test_a_rollout_costs_as_much_as_it_has_calls(calls: Callable[[int], list[Call]]) -> None:
    """Merged, told why rows were opened, credited with a reward after each call: however many rows one role has."""
    few, many = (
        rollout(1, *calls(size)).with_rewards(tuple(EarnedReward("", "step", 1.0, n) for n in range(size)))
        for size in (100, 200)
    )
    assert operations(lambda: learn(many)) < MOST * operations(lambda: learn(few))


def learn(made: Rollout) -> None:
    assert build_batch([made], Settings.from_dict({"credit.advantage": "reinforce", "credit.returns": "to_go"})).rows


def test_pairs_are_dealt_at_the_cost_of_their_number() -> None:
    """DPO's pairs, each of two rollouts, and all of them in one chain."""

    def deal(size: int) -> Callable[[], object]:
        ones = np.ones(2, np.float32)
        rows = [
            Row(
                tokens=np.zeros(2, np.int32),
                weights=ones,
                advantages=ones,
                logprobs=ones,
                temperature=1.0,
                version=0,
                role="",
                rollout=f"{n:04d}",
            )
            for n in range(size + 1)
        ]
        chain = [Pair("", f"{n:04d}", f"{n + 1:04d}") for n in range(size)]
        return lambda: (split_mini_batches(rows, size // 4, chain[::2]), split_mini_batches(rows, 2, chain))

    assert operations(deal(200)) < MOST * operations(deal(100))

"""Scoring: what the reward functions of a run give for one answer, each number with its name and role."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_sdk.errors import RewardError
from lightning_sdk.reward import Given, Named, as_rewards
from lightning_sdk.settled import settled, settled_here


def scores(rewards: Sequence[Named], task: Mapping[str, Any], answer: Any) -> list[Given]:
    """What all functions give, in a thread without a loop. RewardError if one raises or gives no finite number."""
    found: list[Given] = []
    for each in rewards:
        with _blaming(each):
            value = settled_here(each.function(dict(task), answer))
        found += _given(each, value)
    return found


async def ascores(rewards: Sequence[Named], task: Mapping[str, Any], answer: Any) -> list[Given]:
    """The same on the loop that runs."""
    found: list[Given] = []
    for each in rewards:
        with _blaming(each):
            value = await settled(each.function(dict(task), answer))
        found += _given(each, value)
    return found


def _given(each: Named, value: Any) -> list[Given]:
    return [Given(each.name, role, number) for role, number in as_rewards(value, each.told).items()]


@contextlib.contextmanager
def _blaming(each: Named) -> Iterator[None]:
    """What is raised inside is the reward function's fault: RewardError with its words."""
    try:
        yield
    except Exception as error:
        text = f"{each.told} raised {type(error).__name__}: {error}"
        raise RewardError(text).with_traceback(error.__traceback__) from error

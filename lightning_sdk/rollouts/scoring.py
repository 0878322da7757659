"""Scoring: what the reward functions of a run return for one answer, each number with its name, role and reason."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_sdk.errors import RewardError
from lightning_sdk.failures.failure import first_of, summary
from lightning_sdk.markers.reward import RewardFunction, RewardValue, read_rewards
from lightning_sdk.rollouts.resolve import resolve, resolve_here
from lightning_sdk.stream import sink
from lightning_sdk.stream.notices import SCORING
from lightning_sdk.trace.call import Span
from lightning_sdk.trace.scope import current_scope, new_span_id, use_scope


def scores(rewards: Sequence[RewardFunction], task: Mapping[str, Any], answer: Any) -> list[RewardValue]:
    """What all functions give, in a thread without a loop; of one that returns None, nothing.

    RewardError if one raises anything, exit() and a cancelled task too, or gives what is not a finite number.
    """
    found: list[RewardValue] = []
    for each in rewards:
        try:
            with judging(each):
                value = resolve_here(each.function(dict(task), answer))
        except BaseException as error:
            raise _blame(each, error) from error
        found += _read_rewards(each, value)
    return found


async def ascores(rewards: Sequence[RewardFunction], task: Mapping[str, Any], answer: Any) -> list[RewardValue]:
    """The same on the loop that runs."""
    found: list[RewardValue] = []
    for each in rewards:
        try:
            with judging(each):
                value = await resolve(each.function(dict(task), answer))
        except BaseException as error:
            raise _blame(each, error) from error
        found += _read_rewards(each, value)
    return found


@contextlib.contextmanager
def judging(reward: RewardFunction) -> Iterator[None]:
    """While a reward function runs: calls to models go to their own provider, and are not trained on."""
    outer, span, started = current_scope(), new_span_id(), time.time_ns()
    try:
        with use_scope(replace(outer, span=span, judging=True)):
            yield
    finally:
        if outer.rollout is not None:
            now = time.time_ns()
            sink.send_span(
                outer.rollout,
                Span(
                    id=span,
                    parent=outer.span,
                    name=f"{SCORING} {reward.name}",
                    role="",
                    started_ns=started,
                    ended_ns=now,
                    status="ok",
                    error="",
                    attributes={},
                ),
            )


def _read_rewards(each: RewardFunction, value: Any) -> list[RewardValue]:
    if value is None:  # nothing to add to what else the rollout earned
        return []
    try:
        return read_rewards(value, each.name, each.label)
    except RewardError:
        raise
    except Exception as error:  # a dict of the user's own whose items() raises
        raise _blame(each, error) from error


def _blame(each: RewardFunction, error: BaseException) -> RewardError:
    """What a reward function raised is its own fault, whatever it is."""
    return RewardError(f"{each.label} raised {summary(first_of(error))}").with_traceback(error.__traceback__)

"""Rewards: the `@reward` decorator, `emit_reward`, and what counts as a reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeVar

from lightning_sdk import sink
from lightning_sdk.errors import RewardError
from lightning_sdk.scope import current

F = TypeVar("F", bound=Callable[..., Any])

#: Functions marked with `@reward`, in order; the command line takes the only one of the agent's file.
marked: list[Callable[..., Any]] = []

_LARGEST = 3.4028234663852886e38  # float32: rewards are float32 from here on


def reward(function: F, /) -> F:
    """Mark `function(task, answer)` as the reward: a number, or a dict of role to number. It may be async.

    The function stays what it was; the mark lets `lightning-sdk train agent.py:solve` find it.
    """
    if not callable(function):
        raise RewardError(f"@reward on {function!r}, which cannot be called: put it above a function of (task, answer)")
    marked.append(function)
    return function


def emit_reward(value: float, *, role: str = "", name: str = "step") -> None:
    """Score the rollout under way from inside it; what is emitted adds up.

    Args:
        value: A finite number.
        role: The role that earns it; by default the whole rollout. A role earns its own and those of the whole.
        name: What the number measures.

    Raises:
        RewardError: the value is not a finite number, or no rollout is under way.
    """
    number = as_number(value, "emit_reward()")
    scope = current()
    if scope.rollout is None:
        raise RewardError(
            "emit_reward() outside a rollout: call it inside an agent that lightning.train() runs, "
            "or inside `with lightning.rollout(task):`"
        )
    sink.reward(scope.rollout, number, role, name, scope.span)


def as_rewards(value: Any, source: str) -> dict[str, float]:
    """What a reward function returned as role -> number; '' stands for the whole rollout."""
    if isinstance(value, Mapping):
        if not value:
            raise RewardError(f"{source} returned an empty dict: return a number, or a dict of role to number")
        return {str(role): as_number(number, f"{source}, role {role!r}") for role, number in value.items()}
    return {"": as_number(value, source)}


def as_number(value: Any, source: str) -> float:
    """`value` as a finite float; RewardError that names it otherwise."""
    # NumPy and torch scalars are no `Real` but know how to become one; text and None do not get that far.
    if isinstance(value, Real) or (hasattr(value, "__float__") and not isinstance(value, str)):
        number = float(value)
        if math.isfinite(number) and abs(number) <= _LARGEST:
            return number
    raise RewardError(
        f"{source} gave {value!r} ({type(value).__name__}): a reward is a finite number, or a dict of role to number"
    )

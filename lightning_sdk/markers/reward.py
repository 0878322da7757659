"""Rewards: the `@reward` decorator, `emit_reward`, what counts as a reward, and the name, weight and reason of each."""

from __future__ import annotations

import inspect
import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple, TypeVar, overload

from lightning_sdk.errors import RewardError, SettingError
from lightning_sdk.stream import sink
from lightning_sdk.stream.events import MAX_REASON_CHARACTERS
from lightning_sdk.trace.scope import current_scope

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A reward function with the name that its numbers are stored under."""

    function: Function
    name: str
    weight: float | None = None
    """Default of `credit.rewards.NAME`; None: 1."""

    @property
    def label(self) -> str:
        """The function, as messages name it."""
        return f"the reward function {name_of(self.function)}()"


class RewardValue(NamedTuple):
    """One number that a reward function gave."""

    name: str
    role: str
    """Who earned it; '' for the whole rollout."""
    value: float
    why: str = ""
    """The reason that the function gave."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Reward:
    """What a reward function may return instead of a number: a number with its reason, and numbers by role.

        return lightning.Reward(0.3, why="unit missing")
        return lightning.Reward(0.3, why="the draft has no title", writer=0.0, checker=0.5)

    The reason stands with the number of the whole rollout or, if there is none, with that of each role.
    """

    value: float | None
    """The reward of the whole rollout; None: only roles earn something."""
    why: str
    """The reason in words; '' for none. Only its first 2,000 characters are kept."""
    roles: Mapping[str, float] = field(hash=False)
    """Role -> what it earns by itself."""

    def __init__(self, value: float | None = None, /, *, why: str = "", **roles: float) -> None:
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "why", why)
        object.__setattr__(self, "roles", roles)

    def __repr__(self) -> str:
        given = {**({"why": self.why} if self.why else {}), **self.roles}
        values = [] if self.value is None else [repr(self.value)]
        return f"Reward({', '.join([*values, *(f'{name}={each!r}' for name, each in given.items())])})"


#: Functions marked with `@reward`, in order; the command line takes the only one of the agent's file.
marked: list[RewardFunction] = []

_LARGEST = 3.4028234663852886e38  # float32: rewards are float32 from here on
_PREVIEW_CHARACTERS = 200
"""Characters shown of a value that is not a reward."""


@overload
def reward(function: F, /) -> F: ...


@overload
def reward(*, weight: float | None = None, name: str | None = None) -> Callable[[F], F]: ...


def reward(
    function: Function | None = None, /, *, weight: float | None = None, name: str | None = None
) -> Function | Callable[[Function], Function]:
    """Mark `function(task, answer)` as a reward: a number, or a dict of role to number. It may be async.

    A number may come with a reason in words: `return 0.3, "unit missing"`, or `Reward(0.3, why="unit missing")`.

    The function is not changed; the mark lets `lightning-sdk train agent.py:solve` find it.

    Args:
        weight: Factor of its numbers in the sum of all rewards: the default of `credit.rewards.NAME`.
        name: Name under which its numbers are stored; by default the function's name.

    Raises:
        RewardError: this is not a function, or the weight or the name is not valid.
    """
    if weight is not None:
        weight = as_number(weight, "@reward(weight=...)")
    if name is not None and not (isinstance(name, str) and name):
        raise RewardError(f"@reward(name={name!r}): expected a non-empty string")

    def mark(function: Function) -> Function:
        if not callable(function):
            raise RewardError(
                f"@reward on {function!r}, which cannot be called: put it above a function of (task, answer)"
            )
        marked.append(RewardFunction(function, name or name_of(function), weight))
        return function

    return mark if function is None else mark(function)


def reward_functions(given: Function | Sequence[Function] | None) -> tuple[RewardFunction, ...]:
    """The reward functions of a run with their names; by default the one function that is marked.

    No function is right for an agent that rewards itself with `emit_reward`; the first rollouts show whether it does.

    Raises:
        SettingError: it is not clear which, one cannot be called, or two have the same name.
    """
    if given is None:
        return _only_marked()
    functions = list(given) if isinstance(given, Sequence) else [given]
    if not functions:
        raise SettingError("reward=[]: give at least one function of (task, answer)")
    found = tuple(_reward_function(function) for function in functions)
    for name, count in Counter(each.name for each in found).items():
        if count > 1:
            places = ", ".join(_place(each.function) for each in found if each.name == name)
            raise SettingError(
                f"reward: {count} functions are called {name!r} ({places}), and rewards are stored by name: "
                "give one of them another name with @lightning.reward(name=...)"
            )
    return found


def emit_reward(value: float, *, role: str = "", name: str = "step", why: str = "") -> None:
    """Give a reward to the current rollout from inside it; several rewards add up.

    Args:
        value: A finite number.
        role: The role that earns it; by default the whole rollout. A role earns its own and those of the whole rollout.
        name: What the number measures; `credit.rewards.NAME` is its weight.
        why: The reason in words, for people and for the model that improves prompts; 2,000 characters are kept.

    Raises:
        RewardError: the value is not a finite number, the reason is not a string, or there is no current rollout.
    """
    source = f"emit_reward(){_of_role(role)}, name {name!r}"
    number, reason = as_number(value, source), as_reason(why, source)
    scope = current_scope()
    if scope.rollout is None:
        raise RewardError(
            "emit_reward() outside a rollout: call it inside an agent that lightning.train() runs, "
            "or inside `with lightning.rollout(task):`"
        )
    if scope.owner() is None:
        raise RewardError(
            "emit_reward() in a thread or task that several rollouts share, or whose rollout is over: there is no "
            "telling which rollout is meant. Call it in the agent's own code, or in work that it submits to a pool"
        )
    sink.send_reward(scope.rollout, number, role, name, scope.span, why=reason)


def read_rewards(value: Any, name: str, source: str) -> list[RewardValue]:
    """The numbers that the function `name` returned, with their reasons."""
    numbers, why = as_rewards(value, source), as_reason(_reason_of(value), source)
    return [
        RewardValue(name, role, number, why if not role or "" not in numbers else "")
        for role, number in numbers.items()
    ]


def as_rewards(value: Any, source: str) -> dict[str, float]:
    """What a reward function returned as role -> number, without a reason; '' stands for the whole rollout."""
    if isinstance(value, Reward):
        value = ({} if value.value is None else {"": value.value}) | dict(value.roles)
        if not value:
            raise RewardError(f"{source} returned a Reward without a number: give lightning.Reward(number, why=...)")
        return {role: as_number(number, f"{source}{_of_role(role)}") for role, number in value.items()}
    if _is_number_and_reason(value):
        value = value[0]
    if isinstance(value, Mapping):
        if not value:
            raise RewardError(f"{source} returned an empty dict: return a number, or a dict of role to number")
        return {str(role): as_number(number, f"{source}, role {role!r}") for role, number in value.items()}
    return {"": as_number(value, source)}


def as_reason(why: Any, source: str) -> str:
    """The reason of a reward as it is stored, cut if it is long; RewardError if it is not a string."""
    if not isinstance(why, str):
        raise RewardError(f"{source} has the reason {_preview(why)} ({type(why).__name__}): a reason is a string")
    text = why.strip().encode("utf-8", "replace").decode()  # half a surrogate pair has no place in a message
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[: MAX_REASON_CHARACTERS - 3]}..."


def as_number(value: Any, source: str) -> float:
    """`value` as a finite float32; RewardError that names it otherwise."""
    number = _number(value)
    if number is not None and math.isfinite(number) and abs(number) <= _LARGEST:
        rounded: float = struct.unpack("f", struct.pack("f", number))[0]
        return rounded
    raise RewardError(
        f"{source} gave {_preview(value)} ({type(value).__name__}{_size(value)}): a reward is a finite number, or a "
        f"dict of role to number{_hint(value)}"
    )


def describe_missing_reward(rewards: Sequence[RewardFunction]) -> str:
    """The error of a rollout that got no reward."""
    if not rewards:
        return f"{UNREWARDED}: there is no reward function, and the agent never called lightning.emit_reward()"
    gave = " and ".join(f"{each.label} gave None" for each in rewards)
    return f"{UNREWARDED}: {gave}, and the agent never called lightning.emit_reward()"


#: Begins the error of a rollout that nothing rewarded.
UNREWARDED = "the rollout ended without a reward"


def _number(value: Any) -> float | None:
    """The one number that `value` clearly is, None if it is not one."""
    try:
        # Arrays and tensors of one element, of whatever shape; NumPy and torch scalars are no `Real` either.
        if callable(getattr(value, "item", None)):
            value = value.item()
        return float(value) if isinstance(value, Real) or hasattr(value, "__float__") else None
    except Exception:  # too large, a signalling NaN, several elements, or whatever its class raises
        return None


def _is_number_and_reason(value: Any) -> bool:
    """Whether it is exactly a tuple of a number, which may be one that is refused, and a text."""
    return type(value) is tuple and len(value) == 2 and isinstance(value[1], str) and _number(value[0]) is not None


def _reason_of(value: Any) -> Any:
    if isinstance(value, Reward):
        return value.why
    return value[1] if _is_number_and_reason(value) else ""


def _of_role(role: str) -> str:
    return f", role {role!r}" if role else ""


def _preview(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception as error:
        return f"a value that cannot be shown (its repr raised {type(error).__name__})"
    return text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]}..."


def _size(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""


def _hint(value: Any) -> str:
    if value is None:
        return "; a function that ends without `return` gives None"
    if isinstance(value, str):
        return "; read the number from the text with float(...) in the function"
    if isinstance(value, tuple) and any(isinstance(each, str) for each in value):
        return "; a number and its reason are (0.3, 'unit missing') or lightning.Reward(0.3, why='unit missing')"
    if isinstance(value, Sequence) or hasattr(value, "shape"):
        return "; return one number, such as its mean"
    return ""


def name_of(function: Function) -> str:
    """The name of a function, or the class of another thing that can be called."""
    return str(getattr(function, "__name__", type(function).__name__)).strip("<>")


def _only_marked() -> tuple[RewardFunction, ...]:
    if len(marked) <= 1:
        return tuple(marked)
    names = ", ".join(name_of(each.function) for each in marked)
    raise SettingError(
        f"reward: {len(marked)} functions are marked with @lightning.reward ({names}); choose one with "
        "reward=..., or several with reward=[...]"
    )


def _reward_function(function: Function) -> RewardFunction:
    if not callable(function):
        raise SettingError(f"reward={function!r}: expected a function of (task, answer), or a list of them")
    mark = next((each for each in reversed(marked) if each.function is function), None)
    return mark or RewardFunction(function, name_of(function))


def _place(function: Function) -> str:
    try:
        path, (_, line) = inspect.getsourcefile(function), inspect.getsourcelines(function)
    except (TypeError, OSError):
        return repr(function)
    return f"{path}:{line}"

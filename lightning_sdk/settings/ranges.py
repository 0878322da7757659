"""Ranges: which values a setting may have, as a test and in words. Each stands beside its setting's type."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from lightning_sdk.errors import SettingError

_TYPES: dict[type[Any], dict[str, Any]] = {}


class Range(ABC):
    """The second argument of `Annotated`, in a setting's type. None is allowed wherever the type allows it."""

    __slots__ = ()

    @abstractmethod
    def allows(self, value: Any) -> bool:
        """Whether a setting may have this value, which is of the setting's type."""

    @abstractmethod
    def describe(self) -> str:
        """The allowed values, so that 'must be' can stand before them."""


@dataclass(frozen=True, slots=True)
class OneOf(Range):
    """One of these texts."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        object.__setattr__(self, "values", values)

    def allows(self, value: Any) -> bool:
        return value in self.values

    def describe(self) -> str:
        return " or ".join((", ".join(self.values[:-1]), self.values[-1]))


@dataclass(frozen=True, slots=True)
class AtLeast(Range):
    """Numbers from `low` on."""

    low: int

    def allows(self, value: Any) -> bool:
        return bool(value >= self.low)

    def describe(self) -> str:
        return f"at least {self.low}" if self.low else "0 or more"


@dataclass(frozen=True, slots=True)
class MoreThan(Range):
    """Numbers above `low`."""

    low: int

    def allows(self, value: Any) -> bool:
        return bool(value > self.low)

    def describe(self) -> str:
        return f"more than {self.low}"


@dataclass(frozen=True, slots=True)
class Between(Range):
    """Numbers from `low` to `high`."""

    low: float
    high: float
    ends: Literal["[]", "(]", "[)", "()"] = "[]"
    """Which ends are allowed, as an interval is written: '(]' is without `low` and with `high`."""
    words: str = ""
    """What `describe` returns instead of the usual words."""

    def allows(self, value: Any) -> bool:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        return bool(above and (value <= self.high if self.ends[1] == "]" else value < self.high))

    def describe(self) -> str:
        usual = {
            "[]": f"from {self.low} to {self.high}",
            "(]": f"in ({self.low}, {self.high}]",
            "[)": f"at least {self.low} and below {self.high}",
            "()": f"between {self.low} and {self.high}",
        }
        return self.words or usual[self.ends]


@dataclass(frozen=True, slots=True)
class ZeroOr(Range):
    """0, which turns something off, or what another range allows."""

    other: Range

    def allows(self, value: Any) -> bool:
        return value == 0 or self.other.allows(value)

    def describe(self) -> str:
        return f"0 (off) or {self.other.describe()}"


@dataclass(frozen=True, slots=True)
class Grammar(Range):
    """Texts that a function finds well-formed."""

    is_valid: Callable[[str], bool]
    words: str

    def allows(self, value: Any) -> bool:
        return self.is_valid(value)

    def describe(self) -> str:
        return self.words


def setting_types(cls: type[Any]) -> dict[str, Any]:
    """Setting -> its type with the range, of `Settings` or of a group."""
    if cls not in _TYPES:
        _TYPES[cls] = get_type_hints(cls, include_extras=True)
    return _TYPES[cls]


def split_range(hint: Any) -> tuple[Any, Range | None]:
    """A setting's type without its range, and the range."""
    if get_origin(hint) is not Annotated:
        return hint, None
    bare, *extras = get_args(hint)
    return bare, next((each for each in extras if isinstance(each, Range)), None)


def refuse_out_of_range(name: str, value: Any, hint: Any) -> None:
    """SettingError for a value that the setting with this dotted name and type cannot have."""
    bare, range_ = split_range(hint)
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"setting {name}={value!r}: must be {range_.describe() if range_ else 'a finite number'}")
    if range_ and not (value is None and NoneType in get_args(bare)) and not range_.allows(value):
        raise SettingError(f"setting {name}={value!r}: must be {range_.describe()}")

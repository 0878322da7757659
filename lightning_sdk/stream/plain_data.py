"""Plain data: what a task may contain, which is what JSON can express, and what to type instead of anything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from lightning_sdk.stream import wire


class NotPlain(ValueError):
    """A value is not plain data."""

    def __init__(self, what: str, remedy: str, place: str = "") -> None:
        self.what, self.remedy, self.place = what, remedy, place
        super().__init__(f"{place} {what}: {remedy}")

    def below(self, key: object) -> NotPlain:
        """The same one level further out."""
        return NotPlain(self.what, self.remedy, f"[{key!r}]{self.place}")


def plain_object(values: Mapping[Any, Any]) -> dict[str, Any]:
    """A mapping as plain data, in which arrays are lists and their numbers are Python's.

    Raises:
        NotPlain: with the path to the value that is not.
    """
    try:
        made: dict[str, Any] = _plain(values)
    except RecursionError:
        raise NotPlain("is nested too deeply or contains itself", "use flatter data") from None
    try:
        size = len(wire.pack(made))
    except (TypeError, ValueError, OverflowError) as error:
        raise NotPlain("cannot be sent", str(error)) from None
    if size > wire.MAX_TASK_BYTES:
        largest = max(made, key=lambda key: len(wire.pack(made[key])))
        raise NotPlain(
            f"has {size / 2**20:.0f} MiB, most of them in {largest!r}, and a task may have at most "
            f"{wire.MAX_TASK_BYTES // 2**20} MiB",
            "keep large values in files, and give their paths",
        )
    return made


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    for kind, convert in _CONVERTERS:
        if isinstance(value, kind):
            return convert(value)
    # NumPy, torch, pyarrow: scalars and arrays give themselves as Python's numbers and lists.
    for method in ("tolist", "as_py"):
        if callable(getattr(value, method, None)) and not isinstance(value, type):
            given = getattr(value, method)()
            if type(given) is not type(value):
                return _plain(given)
    raise NotPlain(*_refuse(value))


def _list(values: Sequence[Any]) -> list[Any]:
    return [_below(place, each) for place, each in enumerate(values)]


def _object(values: Mapping[Any, Any]) -> dict[str, Any]:
    return dict(_items(values))


def _items(values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if not isinstance(key, str):
            raise NotPlain(f"has the key {key!r}, which is {type(key).__name__}", f"use a string: {str(key)!r}")
        try:
            yield _text(key), _below(key, value)
        except NotPlain as error:
            raise error if error.place else NotPlain(f"has a key that {error.what}", error.remedy) from None


def _below(key: object, value: Any) -> Any:
    try:
        return _plain(value)
    except NotPlain as error:
        raise error.below(key) from None


def _text(given: str) -> str:
    value = str.__str__(given)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotPlain(
            f"is {value!r:.60}, which holds half a character (a lone surrogate)",
            "clean it: x.encode('utf-8', 'replace').decode()",
        ) from None
    return value


def _integer(given: int) -> int:
    value = int(given)
    if not -(2**63) <= value < 2**64:
        raise NotPlain(f"is {_short(value)}, an integer of more than 64 bits", "give it as text: str(x)")
    return value


def _number(given: float) -> float:
    value = float(given)
    if not math.isfinite(value):
        raise NotPlain(
            f"is {value!r}, which JSON cannot represent",
            "give None or leave the key out; in a DataFrame df: df.astype(object).where(df.notna(), None)",
        )
    return value


def _short(value: int) -> str:
    return f"about 2**{value.bit_length()}" if value.bit_length() > 200 else str(value)


def _refuse(value: Any) -> tuple[str, str]:
    """What it is, and what to type instead."""
    name = type(value).__name__
    if name in {"NAType", "NaTType"}:
        return f"is {value!r}, a missing value", "give None: df.astype(object).where(df.notna(), None)"
    kinds: tuple[tuple[Any, str], ...] = (
        (Enum, "give its value: x.value"),
        (set | frozenset, "give a list: sorted(x)"),
        (date | time, "give text: x.isoformat()"),
        (timedelta, "give seconds: x.total_seconds()"),
        (bytes | bytearray | memoryview, "give text: x.decode(), or base64.b64encode(x).decode()"),
        (Decimal, "give float(x) or str(x)"),
        (complex, "give [x.real, x.imag]"),
        (PurePath, "give text: str(x)"),
        (type, "give its name, or leave it out"),
    )
    for kind, remedy in kinds:
        if isinstance(value, kind):
            return f"is {value!r:.60} ({name})", remedy
    for method, remedy in (("model_dump", "x.model_dump()"), ("to_dict", "x.to_dict()"), ("_asdict", "x._asdict()")):
        if callable(getattr(value, method, None)):
            return f"is {name}", f"give a dict: {remedy}"
    if hasattr(value, "__dataclass_fields__"):
        return f"is {name}, a dataclass", "give a dict: dataclasses.asdict(x)"
    return f"is {value!r:.60} ({name})", "a task holds plain data: text, numbers, true, false, None, lists and dicts"


_CONVERTERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, _text),
    (int, _integer),
    (float, _number),
    (Mapping, _object),
    (list | tuple, _list),
)

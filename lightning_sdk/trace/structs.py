"""Structs: dataclasses made of the plain data in which they travel and are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

T = TypeVar("T")


def read_struct(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """The dataclass `kind` with these values of its fields; keys that it has no field for are ignored.

    Raises:
        ValueError: a field without a default is missing; the message names it and `what` it was looked for in.
    """
    known = fields(kind)  # type: ignore[arg-type]
    for each in known:
        if each.name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{what} has no {each.name!r}")
    return kind(**{each.name: values[each.name] for each in known if each.name in values})

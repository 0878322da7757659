"""Keywords: the exact text around tool arguments that a chat template writes one by one, as `a=1, b=2` or in tags."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Strings(Enum):
    """How a string is written."""

    JSON = "as JSON writes it"
    BARE = "as it is"
    QUOTED = "in quotes, without escapes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keywords:
    """Where the text of a call without arguments is NAME `none`, and that of one with two is

    NAME `opening` KEY `assign` VALUE `end` `joint` KEY `assign` VALUE `end` `closing`
    """

    opening: str
    assign: str
    end: str
    joint: str
    closing: str
    none: str
    strings: Strings
    quote: str
    """Around strings that are written `QUOTED`."""
    words: tuple[tuple[Any, str], ...]
    """Text of True, False and None; those that the template cannot write are missing."""
    nested: frozenset[type]
    """Which of list and dict are written as JSON."""
    python: bool
    """Whether a call is a Python expression, whose names are identifiers."""
    reserved: tuple[str, ...]
    """Texts that end a value or a call, and can be in no `BARE` string."""

"""The query of a request: its parameters by name, read and checked."""

from __future__ import annotations

import math
from urllib.parse import parse_qs, urlencode


class BadQuery(ValueError):
    """A parameter cannot be used; the message says which, and what is expected."""


class ViewQuery:
    """Parameters of one request. Those that are absent or empty have their default."""

    def __init__(self, text: str) -> None:
        """`text`: what stands behind the question mark of an address."""
        self._values = parse_qs(text, keep_blank_values=False, max_num_fields=100)

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[-1]

    def texts(self, name: str) -> list[str]:
        """All values of a parameter that may be repeated."""
        return self._values.get(name, [])

    def require(self, name: str) -> str:
        """BadQuery if it is absent."""
        value = self.text(name)
        if not value:
            raise BadQuery(f"the address has no {name}=...")
        return value

    def number(self, name: str) -> float | None:
        """BadQuery if it is not a finite number."""
        given = self.text(name)
        if not given:
            return None
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise BadQuery(f"{name}={given!r}: expected a number")
        return value

    def integer(self, name: str, default: int = 0, *, low: int = 0, high: int = 2**53) -> int:
        """A whole number from `low` to `high`; BadQuery if it is not one."""
        given = self.text(name)
        if not given:
            return default
        try:
            value = int(given)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise BadQuery(f"{name}={given!r}: expected a whole number from {low} to {high}")
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed`, the first of them by default; BadQuery for another value."""
        value = self.text(name, allowed[0])
        if value not in allowed:
            raise BadQuery(f"{name}={value!r}: expected one of {', '.join(allowed)}")
        return value

    def encode(self, leave_out: frozenset[str]) -> str:
        """The query as text, without these parameters."""
        return urlencode({name: each for name, each in self._values.items() if name not in leave_out}, doseq=True)

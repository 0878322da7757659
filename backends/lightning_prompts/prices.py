"""Prices: what models charge for a million tokens, from a table that the user writes. None come with the package."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lightning_sdk.errors import SettingError

UNIT = 10**12
"""Money is counted in whole units of a dollar's 1/10**12, so that sums are exact."""
_PER_MILLION = UNIT // 10**6
_NEEDED, _OPTIONAL = ("input", "output"), ("cached", "cache_write")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one model, in units for one token."""

    input: int
    output: int
    cached: int
    """Of a prompt token that the provider read from its cache."""
    cache_write: int
    """Of a prompt token that it wrote to its cache."""

    def cost(self, input_tokens: int, output_tokens: int, cached: int = 0, written: int = 0) -> int:
        """Of one call. `cached` and `written` are among the input tokens."""
        plain = max(input_tokens - cached - written, 0)
        return plain * self.input + cached * self.cached + written * self.cache_write + output_tokens * self.output

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """The most that a call of so many tokens can cost."""
        return input_tokens * max(self.input, self.cached, self.cache_write) + output_tokens * self.output


class PriceTable:
    """Prices by the name of the model as requests have it; a name may have `*` for what varies."""

    def __init__(self, prices: Mapping[str, Price], path: str = "") -> None:
        self._prices, self.path = dict(prices), path

    @classmethod
    def read(cls, path: str) -> PriceTable:
        """The table in a file, TOML or JSON.

        Raises:
            SettingError: it cannot be read, or does not have the shape of a table of prices.
        """
        file = Path(path)
        try:
            text = file.read_text("utf-8")
            table = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError) as error:
            raise SettingError(f"prompts.prices={path!r}: it cannot be read: {error}") from None
        if not isinstance(table, dict):
            raise SettingError(f"prompts.prices={path!r}: expected a table with the names of models, got {table!r:.80}")
        return cls({name: _price(path, name, row) for name, row in table.items()}, path)

    def find(self, model: str) -> Price | None:
        """The price of a model; None if the table has none."""
        if (price := self._prices.get(model)) is not None:
            return price
        return next((each for name, each in self._prices.items() if fnmatchcase(model, name)), None)


def _price(path: str, name: str, row: Any) -> Price:
    if not isinstance(row, dict) or set(row) - {*_NEEDED, *_OPTIONAL} or not {*_NEEDED} <= set(row):
        raise SettingError(
            f"prompts.prices={path!r}: {name!r} is {row!r:.80}: expected dollars per million tokens, such as "
            '{"input": 1.25, "output": 10, "cached": 0.125}; "cached" and "cache_write" can be left out'
        )
    for kind, value in row.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise SettingError(f"prompts.prices={path!r}: {kind!r} of {name!r} is {value!r}: expected dollars")
    units = {kind: round(value * _PER_MILLION) for kind, value in row.items()}
    # Without a price of their own they cost what all the others do.
    return Price(**{"cached": units["input"], "cache_write": units["input"], **units})

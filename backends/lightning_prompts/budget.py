"""The budget of a run, as its settings say."""

from __future__ import annotations

from pathlib import Path

from lightning_prompts.ledger import Allowance
from lightning_prompts.meter import Meter, MeterOptions
from lightning_prompts.prices import PriceTable
from lightning_sdk.settings import Settings


def allowance_of(settings: Settings) -> Allowance:
    own = settings.prompts
    return Allowance(
        rollouts=own.budget_rollouts,
        calls=own.budget_calls,
        tokens=own.budget_tokens,
        money=own.budget_money,
        minutes=own.budget_minutes,
    )


def open_meter(settings: Settings, folder: Path) -> Meter | None:
    """What counts the calls of a run, with those of its earlier sessions; None if nothing depends on them.

    Raises:
        SettingError: the table of prices cannot be read.
    """
    own, allowance = settings.prompts, allowance_of(settings)
    prices = PriceTable.read(own.prices) if own.prices else None
    if prices is None and not allowance.has_call_limit:
        return None
    return Meter(allowance, MeterOptions(prices=prices, reply_tokens=own.reply_tokens), folder / "calls.jsonl")

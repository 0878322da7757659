"""Remedies: settings to type that can be typed: in range, of a sane size, and never what is set already."""

from __future__ import annotations

from typing import Any

from lightning_hub.health.run_record import RunRecord
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings

#: Learning rates that are ever proposed; beyond them something else than the rate is at fault.
LOWEST_RATE, HIGHEST_RATE = 1e-8, 1e-2
#: A proposal that is nearer to the rate that was used than so many times is none.
_WORTH = 1.5


def to_set(settings: Settings, name: str, value: Any) -> str:
    """'--set NAME=VALUE'; '' where it is set so already, or cannot be set so beside what else is set."""
    if settings.flat().get(name) == value:
        return ""
    try:
        Settings.from_dict({**settings.flat(), name: value})
    except SettingError:
        return ""
    return f"--set {name}={value}"


def other_rate(record: RunRecord, times: float) -> str:
    """'--set optimizer.learning_rate=...' with so many times the highest rate that was used, within bounds; '' where
    it is not known, or where these bounds leave nothing to change."""
    used = max(record.values("learning_rate"), default=0.0)
    wanted = min(max(used * times, LOWEST_RATE), HIGHEST_RATE)
    if used <= 0 or (wanted < _WORTH * used if times > 1 else wanted * _WORTH > used):
        return ""
    return f"--set optimizer.learning_rate={wanted:.1e}"


def choices(*ways: str) -> str:
    """What can be typed, joined by 'or'; those that are empty are left out."""
    return ", or ".join(way for way in ways if way)


def sentence(text: str) -> str:
    """The text as a sentence: with a capital and a full stop; '' stays empty."""
    return f"{text[0].upper()}{text[1:]}." if text else ""

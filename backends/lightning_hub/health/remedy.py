"""Remedies: settings that can be typed: in range, of a sane size, and different from what is set already."""

from __future__ import annotations

from typing import Any

from lightning_hub.health.run_record import RunRecord
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings

#: Range of learning rates that are proposed; beyond it something other than the rate is at fault.
LOWEST_RATE, HIGHEST_RATE = 1e-8, 1e-2
#: A proposed rate differs from the rate that was used by at least this factor.
_WORTH = 1.5


def to_set(settings: Settings, name: str, value: Any) -> str:
    """'--set NAME=VALUE'; '' if that is the value already, or if it is not valid with the other settings."""
    if settings.flat().get(name) == value:
        return ""
    try:
        Settings.from_dict({**settings.flat(), name: value})
    except SettingError:
        return ""
    return f"--set {name}={value}"


def other_rate(record: RunRecord, times: float) -> str:
    """'--set optimizer.learning_rate=...' with `times` times the highest rate that was used, within bounds; '' if
    that is not known, or if the bounds leave nothing to change."""
    used = max(record.values("learning_rate"), default=0.0)
    wanted = min(max(used * times, LOWEST_RATE), HIGHEST_RATE)
    if used <= 0 or (wanted < _WORTH * used if times > 1 else wanted * _WORTH > used):
        return ""
    return f"--set optimizer.learning_rate={wanted:.1e}"


def with_setting(what: str, setting: str) -> str:
    """'WHAT: SETTING'; '' where no setting is proposed."""
    return f"{what}: {setting}" if setting else ""


def choices(*ways: str) -> str:
    """The ways that are not empty, joined by 'or'."""
    return ", or ".join(way for way in ways if way)


def sentence(text: str) -> str:
    """The text as a sentence: with a capital and a full stop; '' stays empty."""
    return f"{text[0].upper()}{text[1:]}." if text else ""

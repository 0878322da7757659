"""The invitation: where a training listens for runners in other processes and on other machines, and what to type
there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_sdk.errors import SettingError
from lightning_sdk.hub import discovery
from lightning_sdk.markers.reward import RewardFunction, marked
from lightning_sdk.rollouts import reference
from lightning_sdk.settings import Settings, placement
from lightning_sdk.settings.provider import PROVIDER
from lightning_sdk.system import addresses

#: Where nobody from elsewhere gets in.
CLOSED = f"tcp://{addresses.LOOPBACK}:0"


def with_reachable_engine(settings: Settings, listen: str) -> Settings:
    """The settings of a training that listens there: its engine is to be reached as its hub is.

    Raises:
        SettingError: this is not an address, or nothing could run a rollout.
    """
    if not listen:
        placed = placement.parse(settings.rollouts.runner)
        if placed is not None and placed.kind == "none":
            raise SettingError(
                f"setting rollouts.runner={settings.rollouts.runner!r}: this process runs no rollouts, so others have "
                "to: let them join with --listen tcp://0.0.0.0:4718"
            )
        return settings
    if not re.fullmatch(r"tcp://([^\s/:]+|\[[0-9a-fA-F:]+\]):\d{1,5}", listen):
        raise SettingError(
            f"listen={listen!r}: expected tcp://HOST:PORT with an address of this machine, such as "
            "tcp://0.0.0.0:4718 for all of them; port 0 picks a free one"
        )
    host = addresses.host_of(listen)
    if PROVIDER in {settings.backend, settings.model}:  # no engine
        return settings
    if addresses.is_loopback(host) or settings.serving.host != Settings().serving.host:
        return settings
    engine = "0.0.0.0" if host == "*" else host
    return replace(settings, serving=replace(settings.serving, host=engine))


def text(agent: Callable[..., Any], rewards: Sequence[RewardFunction], address: str, key: str) -> str:
    """What to type on another machine, with the key, '' where those who are invited have it already."""
    host = addresses.host_of(address)
    if addresses.is_wildcard(host):
        address = addresses.reachable_address(address, f"tcp://{addresses.own_name()}:0")
    secret = f"{discovery.KEY}={shlex.quote(key) if key else '...'}"
    words = ["lightning-sdk", "runner", _reference_to(agent), "--hub", address]
    for each in rewards:
        if marked != [each]:
            words += ["--reward", _reference_to(each.function)]
    where = "this machine" if addresses.is_loopback(host) else "other machines"
    return f"further runners, on {where}:\n  {secret} {' '.join(words)}"


def _reference_to(function: Callable[..., Any]) -> str:
    """A function as the command line names it, by the file's name alone: the other machine has its own copy."""
    try:
        place, _, name = reference.of(function).rpartition(":")
    except SettingError:
        return "FILE.py:FUNCTION"
    return shlex.quote(f"{Path(place).name if place.endswith('.py') else place}:{name}")

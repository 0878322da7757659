"""Where the hub is: an argument, the environment, or the file that `lightning-sdk serve` leaves for this user."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from lightning_sdk.errors import SettingError

ADDRESS = "LIGHTNING_HUB"
KEY = "LIGHTNING_KEY"


class HubAddress(NamedTuple):
    address: str
    key: str


def state_folder() -> Path:
    """This user's folder for what outlives a process: LIGHTNING_HOME, else the XDG state folder."""
    if home := os.environ.get("LIGHTNING_HOME"):
        return Path(home)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "lightning-sdk"


_given_key = ""


def take_key() -> str:
    """The key that LIGHTNING_KEY holds, or held: what this process starts, an agent's tools for one, inherits none."""
    global _given_key  # noqa: PLW0603 - the environment is one per process too
    _given_key = os.environ.pop(KEY, "") or _given_key
    return _given_key


def find(address: str | None, key: str | None) -> HubAddress | None:
    """The hub to stream to, None if there is none. Looks at files and the environment only, never at the network."""
    address = address or os.environ.get(ADDRESS)
    if address:
        check(address)
        return HubAddress(address, key or take_key())
    return _find_announced()


def check(address: str) -> None:
    """SettingError unless `address` is one that a hub can have."""
    if not re.fullmatch(r"tcp://[^\s/:]+:\d{1,5}|tcp://\[[0-9a-fA-F:]+\]:\d{1,5}|ipc://.+", address):
        raise SettingError(f"hub address {address!r}: expected tcp://HOST:PORT, such as tcp://127.0.0.1:4717")


def announce(address: str, key: str, pid: int) -> Path:
    """Leave the address of a running hub where this user's processes look for it."""
    path = state_folder() / "hub.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(f".{os.urandom(8).hex()}")  # a file that is there may be open to others, or a link
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"address": address, "key": key, "pid": pid}, file)
    fresh.replace(path)
    return path


def withdraw(pid: int) -> None:
    """Remove the announcement if it is that hub's."""
    path = state_folder() / "hub.json"
    if (read := _read(path)) and read.get("pid") == pid:
        path.unlink(missing_ok=True)


def _find_announced() -> HubAddress | None:
    announced = _read(state_folder() / "hub.json")
    if not announced:
        return None
    try:
        os.kill(int(str(announced["pid"])), 0)  # signal 0 only asks whether the process exists
        return HubAddress(str(announced["address"]), str(announced["key"]))
    except (OSError, KeyError, ValueError):
        return None


def _read(path: Path) -> dict[str, object] | None:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None

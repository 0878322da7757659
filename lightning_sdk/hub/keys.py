"""The keys of one hub: its own, its operator's, and its guests', who may do less."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_sdk.errors import SettingError
from lightning_sdk.hub import discovery
from lightning_sdk.stream import curve


@dataclass(frozen=True, slots=True)
class HubKeys:
    """What a hub is started with, and what opens it."""

    secret: str
    """The hub's own secret key, by which clients know it."""
    operator: str
    """Opens everything; only the process that started the hub has it."""
    guest: str
    """For runners, or for agents that are only recorded: which of them a hub's guests are depends on its purpose."""

    @classmethod
    def make(cls, given: str = "") -> HubKeys:
        """New keys; `given` is the guests' key, a passphrase."""
        pair = curve.hub_pair(given) if given else curve.make_pair()
        return cls(pair.secret.decode(), curve.issue(pair.public), given or curve.issue(pair.public))

    @classmethod
    def of(cls, folder: Path, given: str = "") -> HubKeys:
        """The keys of the hub on this folder, the same each time on this machine, so that guests find it again.

        They are not kept in the folder, which may be given away, or come from somebody who kept a copy of them.

        Raises:
            SettingError: `given` is the key of another hub.
        """
        if given and not curve.is_made(given):
            return cls.make(given)
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        path = discovery.state_folder() / "keys" / f"{name}.json"
        try:
            keys = cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            keys = cls.make()
            _write(path, json.dumps(asdict(keys)))
        if given and given != keys.guest:
            raise SettingError(
                f"{discovery.KEY} is the key of a different hub than the one of {folder}: leave it out here, or choose "
                "your own secret for all machines, such as the output of `openssl rand -hex 16`"
            )
        return keys


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(f".{os.urandom(8).hex()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)

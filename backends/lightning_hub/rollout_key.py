"""Keys of rollouts: each is derived from an engine's key, and opens the engine for one rollout, for its time.

An agent, and every program that it starts, can find the key that its calls carry in its own requests. That key is
useless for another rollout, or after its own. The engine does not need a list of them: it can check one with its own
key.
"""

from __future__ import annotations

import hashlib
import hmac
import time

_PREFIX = "lr1"


def derive(key: str, rollout: str, seconds: float) -> str:
    """A key for this rollout, of this machine, from now on for so many seconds."""
    # The clock that leases go by: it is the same for all processes of a machine, and stands still while that sleeps.
    return _sign(key, rollout, int(time.monotonic() + seconds))


def owner(key: str, shown: str) -> str | None:
    """The rollout whose key this is; None if it is not one, or its time is over."""
    prefix, _, rest = shown.partition("-")
    rollout, _, rest = rest.partition("-")
    until, _, _ = rest.partition("-")
    if prefix != _PREFIX or not until.isascii() or not until.isdigit() or len(until) > 12:
        return None
    genuine = hmac.compare_digest(_sign(key, rollout, int(until)).encode(), shown.encode("utf-8", "surrogateescape"))
    return rollout if genuine and time.monotonic() < int(until) else None


def _sign(key: str, rollout: str, until: int) -> str:
    told = f"{_PREFIX}-{rollout}-{until}"
    return f"{told}-{hmac.new(key.encode(), told.encode('utf-8', 'surrogateescape'), hashlib.sha256).hexdigest()}"

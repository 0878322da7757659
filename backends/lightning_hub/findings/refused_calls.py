"""Refused calls: what the engine said no to, and what to do about it."""

from __future__ import annotations

import re

from lightning_hub.rollout import Rollout
from lightning_sdk.trace.call import Call

#: Cause and remedy of a call that failed at the agent's own provider.
AT_PROVIDER = (
    "It went to the agent's own provider as the agent wrote it.",
    "See that the agent runs by itself: its base_url, its key and the name of its model.",
)
_TOO_LONG = re.compile(r"context|too long|maximum .*length|takes at most \d+", re.IGNORECASE)


def has_succeeded(call: Call) -> bool:
    """One that the engine refused is the agent's to handle, and one closed early has no end."""
    return call.meta.status == "ok" and call.meta.http_status < 400


def last_refused_call(rollout: Rollout) -> Call | None:
    """The trainable call that a rollout ended with, if the engine refused it."""
    last = next((call for call in reversed(rollout.calls) if call.meta.trainable), None)
    return last if last is not None and 400 <= last.meta.http_status < 500 else None


def failure_reason(call: Call) -> str:
    """What was answered to a call that failed, or what was raised."""
    closed = "it was closed early" if call.meta.status == "cancelled" else "no reply came"
    return call.problem or call.meta.error or closed


def cause_and_remedy(call: Call) -> tuple[str, str]:
    """Cause and remedy of a call that failed."""
    refused = 400 <= call.meta.http_status < 500
    if refused and _TOO_LONG.search(failure_reason(call)):
        return (
            "What the agent sent is longer than the model can take.",
            "Send less (fewer earlier turns, shorter tool results), or take a model with a longer context: --model.",
        )
    if refused:
        return (
            "The engine does not take this request.",
            "Change what the message names in the agent's call: this engine may not take all that a provider does.",
        )
    if call.meta.status == "cancelled":
        return "The agent stopped reading before the reply was over.", "Read replies to their end."
    return (
        "The engine did not answer, or not in time.",
        "See backend.log and hub.log in the run's folder (a check keeps them with --keep FOLDER).",
    )

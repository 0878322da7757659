"""Calls that were refused or failed, and what to do about them."""

from __future__ import annotations

import re

from lightning_hub.rollout import Rollout
from lightning_sdk.trace.call import Call

#: Cause and remedy of a call that failed at the agent's own provider.
AT_PROVIDER = (
    "It went to the agent's own provider, as the agent wrote it.",
    "Check that the agent runs by itself: its base_url, its key and the name of its model.",
)
_TOO_LONG = re.compile(r"context|too long|maximum .*length|takes at most \d+", re.IGNORECASE)


def has_succeeded(call: Call) -> bool:
    """Whether a call got a complete reply: it was not refused, did not fail, and was not closed early."""
    return call.meta.status == "ok" and call.meta.http_status < 400


def last_refused_call(rollout: Rollout) -> Call | None:
    """The trainable call that a rollout ended with, if the engine refused it."""
    last = next((call for call in reversed(rollout.calls) if call.meta.trainable), None)
    return last if last is not None and 400 <= last.meta.http_status < 500 else None


def failure_reason(call: Call) -> str:
    """The answer to a call that failed, or what was raised."""
    closed = "it was closed early" if call.meta.status == "cancelled" else "no reply came"
    return call.problem or call.meta.error or closed


def cause_and_remedy(call: Call) -> tuple[str, str]:
    """Cause and remedy of a call that failed."""
    refused = 400 <= call.meta.http_status < 500
    if refused and _TOO_LONG.search(failure_reason(call)):
        return (
            "The request is longer than the model accepts.",
            "Send less (fewer earlier turns, shorter tool results), or use a model with a longer context: --model.",
        )
    if refused:
        return (
            "The engine does not accept this request.",
            "Change what the message names in the agent's call: this engine may not accept everything that a provider "
            "does.",
        )
    if call.meta.status == "cancelled":
        return "The agent stopped reading before the reply was complete.", "Read replies to their end."
    return (
        "The engine did not answer, or not in time.",
        "See backend.log and hub.log in the run's folder (a check keeps them with --keep FOLDER).",
    )

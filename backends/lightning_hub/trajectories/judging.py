"""Judging calls: calls made by a reward function, which are never trained on."""

from __future__ import annotations

from lightning_hub.rollout import Rollout
from lightning_sdk.stream import notices
from lightning_sdk.trace.call import Call


def is_judging(call: Call, rollout: Rollout) -> bool:
    """Whether a reward function made a call, perhaps through an agent."""
    spans = {span.id: span for span in rollout.spans}
    span = spans.pop(call.meta.parent, None)
    while span is not None and not span.name.startswith(f"{notices.SCORING} "):
        span = spans.pop(span.parent, None)
    return span is not None

"""A sample: what one rollout was asked, what it answered and what that earned, as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSample:
    """One rollout of an evaluation. Its texts are cut if they are long."""

    task: str
    """As JSON."""
    answer: str
    """What the agent gave back; '' for nothing."""
    reward: float
    why: str = ""
    """The reasons of its rewards, if they had any."""


def format_samples(samples: Sequence[RolloutSample]) -> str:
    """In Markdown. What agents wrote is indented, so that none of it is read as Markdown."""
    parts = []
    for each in samples:
        texts = (("task", each.task), ("answer", each.answer), ("why", each.why))
        quoted = [f"{name}:\n\n{_indent(text)}" for name, text in texts if text]
        parts.append("\n\n".join([f"**reward {each.reward:g}**", *quoted]))
    return "\n\n---\n\n".join(parts)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())

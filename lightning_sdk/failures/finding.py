"""A finding: one thing that is wrong with an agent's rollouts or with a run, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """What a finding means."""

    FATAL = "fatal"
    """Nothing can be learned."""
    WARNING = "warning"
    """Less is learned than could be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """A short name that stays the same from version to version."""
    severity: Severity
    what: str
    """What was seen, with its values."""
    cause: str
    """Why that is, as far as it can be known."""
    remedy: str
    """What to type."""
    passing: bool = False
    """Other tasks may turn out differently: a check fails on this finding, a training goes on."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """The reverse of `as_dict`; what an older version did not write is empty."""
        return cls(
            kind=str(values.get("kind", "")),
            severity=Severity(values.get("severity", Severity.WARNING)),
            what=str(values.get("what", "")),
            cause=str(values.get("cause", "")),
            remedy=str(values.get("remedy", "")),
            passing=bool(values.get("passing", False)),
        )

    @property
    def is_fatal(self) -> bool:
        return self.severity == Severity.FATAL

    def __str__(self) -> str:
        text = self.what
        for part in (self.cause, self.remedy):
            text += part and (part if text.endswith("\n") else f" {part}")
        return text

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as in the JSON of a check."""
        return asdict(self) | {"severity": str(self.severity)}

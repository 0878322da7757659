"""A score: a mean with its confidence interval, and what is told of a measurement on held-out tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_sdk.trace.structs import read_struct


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and the interval that covers the true mean with the level's probability."""

    mean: float | None
    """None if there are no values."""
    low: float | None
    """None, as `high`, where no interval can be given."""
    high: float | None
    n: int
    """How many values."""
    method: str
    """'clopper-pearson', 'gaffke', or 'none' where no interval can be given."""
    missing: str = ""
    """Why there is no interval."""

    def is_above(self, value: float) -> bool:
        """Whether the whole interval is; False if there is none."""
        return self.low is not None and self.low > value

    def is_below(self, value: float) -> bool:
        """Whether the whole interval is; False if there is none."""
        return self.high is not None and self.high < value

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Interval:
        """The reverse of `as_dict`; other keys are ignored."""
        mean, low, high = (values[name] for name in ("mean", "low", "high"))
        return cls(
            mean=mean,
            low=low,
            high=high,
            n=int(values["n"]),
            method=str(values.get("method", "")),
            missing=str(values.get("missing", "")),
        )

    def __str__(self) -> str:
        if self.mean is None:
            return "no values"
        if self.low is None or self.high is None:
            return f"{self.mean:.3f} n={self.n}, no interval: {self.missing}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReason:
    """A reason that rewards had in words, and how often."""

    name: str
    """The reward's."""
    role: str
    """Who earned it; '' for the whole rollout."""
    why: str
    """In one line, cut if it is long."""
    count: int
    """Rewards that had this reason."""
    mean: float
    """Of these rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutScore:
    """What a report and the feed tell of one measurement on held-out tasks: all but the single tasks."""

    step: int = 0
    score: Interval
    """Over tasks."""
    seeds: int = 1
    """Rollouts of each task."""
    temperature: float = 0.0
    """The sampling temperature."""
    failed: int = 0
    """Rollouts without a score, which the interval leaves out."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Status -> number of rollouts without a score."""
    look: Mapping[str, float] = field(default_factory=dict)
    """Which comparison with the score before training this is: its number, and its share of the error."""
    roles: Mapping[str, Interval] = field(default_factory=dict)
    """Role -> what it earned by itself, for roles with rewards of their own."""
    reasons: Sequence[RewardReason] = field(default_factory=list)
    """The most frequent reasons of the rewards, if they had any."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the parts of the interval beside the others."""
        return {
            "step": self.step,
            **self.score.as_dict(),
            "seeds": self.seeds,
            "temperature": self.temperature,
            "failed": self.failed,
            "failures": dict(self.failures),
            "look": dict(self.look),
            "roles": {role: each.as_dict() for role, each in self.roles.items()},
            "reasons": [asdict(each) for each in self.reasons],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeldOutScore:
        """The reverse of `as_dict`; what older versions did not write is empty."""
        return cls(
            step=int(values.get("step", 0)),
            score=Interval.from_dict(values),
            seeds=int(values.get("seeds") or 1),
            temperature=float(values.get("temperature", 0.0)),
            failed=int(values.get("failed", 0)),
            failures=values.get("failures") or {},
            look=values.get("look") or {},
            roles={role: Interval.from_dict(each) for role, each in (values.get("roles") or {}).items()},
            reasons=read_reasons(values),
        )


def read_reasons(values: Mapping[str, Any]) -> list[RewardReason]:
    """Those under the key 'reasons'; none where an older version wrote it."""
    return [read_struct(RewardReason, each, "a reason") for each in values.get("reasons") or ()]

"""The report of a run, as the hub composes it, `report.json` holds it and the last event of the feed carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.score import HeldOutScore, Interval
from lightning_sdk.trace.structs import read_struct


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCounts:
    """What was done to have whole steps, over the whole run."""

    retries: int = 0
    """Attempts that were repeated."""
    refilled: int = 0
    """Rollouts that replaced excluded ones."""
    deadline_timeouts: int = 0
    """Rollouts that were ended by `rollouts.deadline`."""
    resampled_groups: int = 0
    """Groups without a signal that other tasks replaced."""
    done: Mapping[str, str] = field(default_factory=dict)
    """Status that was not ok -> what was done with such rollouts, in words."""


@dataclass(frozen=True, slots=True)
class TokenStaleness:
    """How much older than the model the tokens were that it learned from, in versions."""

    bound: float
    """What `rollouts.staleness` allows."""
    mean: float
    max: float


@dataclass(frozen=True, slots=True)
class Resumption:
    """One time that a run went on."""

    after_step: int
    changed: Mapping[str, Sequence[Any]]
    """Setting -> its value before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What came of a run."""

    name: str = ""
    status: str = ""
    """'finished', 'stopped' or 'failed'."""
    error: str = ""
    """Why it failed."""
    model: str = ""
    backend: str = ""
    held_out: Mapping[str, HeldOutScore] = field(default_factory=dict)
    """'before', 'after', 'step-N' or 'prompted' -> the score."""
    change: Interval | None = None
    """After minus before, by task; None where no task has a score in both."""
    change_by_role: Mapping[str, Interval] = field(default_factory=dict)
    """Role -> after minus before of what it earned by itself."""
    verdict: str = ""
    """'better', 'worse', 'not shown to be better' or 'not measured'."""
    verdict_reason: str = ""
    """What the verdict depends on, or why it is not another; '' where the interval says it all."""
    findings: Sequence[Finding] = ()
    """What is wrong with the run, as `check` tells it."""
    train_seconds: float = 0.0
    """Wall time of training, without evaluation."""
    steps: int = 0
    rollouts: int = 0
    """Training rollouts, whatever became of them."""
    rollouts_by_status: Mapping[str, int] = field(default_factory=dict)
    failures: FailureCounts = FailureCounts()
    calls: int = 0
    """Calls of roles to train."""
    tokens: int = 0
    """Sampled tokens trained on."""
    tokens_masked: int = 0
    """Sampled tokens not trained on."""
    tokens_masked_length: int = 0
    """Those of them that were left out for the length of their completion or row."""
    staleness: TokenStaleness | None = None
    """None where each step waited for the one before."""
    roles: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Role -> what the last step showed of it."""
    checkpoint: str = ""
    """The last one, relative to the run's folder."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    resumed: Sequence[Resumption] = ()
    """Each time that the run went on."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was decided where the settings left it open."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> its version."""
    search: Mapping[str, Any] | None = None
    """What came of its search for texts, empty if that did not come to its end; None if the run has none. If there were
    several, the one that found the texts in force."""
    phases: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Phases of weights and of prompts, in order: number, kind, why, first_step, last_step, before, after, gain,
    rollouts, seconds; empty if the run did not take turns."""

    @property
    def is_search(self) -> bool:
        """Whether nothing but texts was tuned, so that its steps are rounds of a search."""
        return self.search is not None and self.settings.get("tune") != "prompts"

    def as_dict(self) -> dict[str, Any]:
        """The content of `report.json`."""
        return asdict(self) | {
            "held_out": {name: each.as_dict() for name, each in self.held_out.items()},
            "findings": [each.as_dict() for each in self.findings],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunReport:
        """The reverse of `as_dict`; what older versions did not write is empty."""
        change, staleness = values.get("change"), values.get("staleness")
        return replace(
            read_struct(cls, values, "report.json"),
            held_out={name: HeldOutScore.from_dict(each) for name, each in (values.get("held_out") or {}).items()},
            change=Interval.from_dict(change) if change else None,
            change_by_role={
                role: Interval.from_dict(each) for role, each in (values.get("change_by_role") or {}).items()
            },
            findings=list(map(Finding.from_dict, values.get("findings") or ())),
            failures=read_struct(FailureCounts, values.get("failures") or {}, "report.json: failures"),
            staleness=read_struct(TokenStaleness, staleness, "report.json: staleness") if staleness else None,
            resumed=[read_struct(Resumption, each, "report.json: resumed") for each in values.get("resumed") or ()],
        )

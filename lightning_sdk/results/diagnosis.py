"""What was found out: of a round of rollouts, as `check` and the first step of a training see it, and of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.score import RewardReason, read_reasons
from lightning_sdk.trace.structs import read_struct


@dataclass(slots=True, kw_only=True)
class RoleCalls:
    """Calls of one role through one seam."""

    role: str
    framework: str
    calls: int = 0
    trainable: int = 0
    complete: int = 0
    """Trainable calls with ids and log-probs."""
    failed: int = 0
    """Calls that raised, were refused or were closed early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRewards:
    """Rewards of one role over the rollouts that succeeded: its own plus that of the whole rollout."""

    role: str
    rollouts: int
    """Rollouts with such a reward."""
    mean: float
    low: float
    high: float
    groups: int
    """Groups of at least two rollouts in which it spoke at least once."""
    groups_with_signal: int
    """Those in which a rollout where it spoke earned more or less than the group, its silent rollouts included."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """How the turns of one role were merged."""

    role: str
    rollouts: int
    turns: int
    rows: int
    openings: dict[str, int]
    """Reason -> number of rows opened for it, beyond the first of each rollout."""


@dataclass(frozen=True, slots=True)
class UncapturedCalls:
    """Requests to one place that no seam caught."""

    client: str
    """The HTTP library, such as 'httpx'."""
    place: str
    """Host and path."""
    roles: Sequence[str]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Facts and findings of one round."""

    rollouts: int
    statuses: Mapping[str, int]
    calls: Sequence[RoleCalls]
    rewards: Sequence[RoleRewards]
    sequences: Sequence[Sequences]
    elsewhere: Sequence[UncapturedCalls]
    outside: int
    """Calls outside of every rollout."""
    late: int
    """Calls that arrived after the end of their rollout."""
    findings: Sequence[Finding]
    """The fatal ones first."""
    at_provider: bool = False
    """The calls of roles to train went to the agent's own provider, so that nothing is known of their tokens; then
    `sequences` is empty, and a call that succeeded is complete."""
    reasons: Sequence[RewardReason] = field(default_factory=list)
    """The most frequent reasons of the rewards, if they had any."""

    @property
    def fatal(self) -> list[Finding]:
        return [each for each in self.findings if each.is_fatal]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as in diagnosis.json and the output of `check --json`."""
        return asdict(self) | {"findings": [each.as_dict() for each in self.findings], "learnable": not self.fatal}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Diagnosis:
        """The reverse of `as_dict`. ValueError for what is missing."""
        found = read_struct(cls, values, "the diagnosis")
        return replace(
            found,
            calls=[read_struct(RoleCalls, each, "calls") for each in values["calls"]],
            rewards=[read_struct(RoleRewards, each, "rewards") for each in values["rewards"]],
            sequences=[read_struct(Sequences, each, "sequences") for each in values["sequences"]],
            elsewhere=[read_struct(UncapturedCalls, each, "elsewhere") for each in values["elsewhere"]],
            reasons=read_reasons(values),
            findings=list(map(Finding.from_dict, values["findings"])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleHealth:
    """How the reward of one role changed."""

    role: str
    """By its name in metrics: 'none' for calls without a role."""
    steps: int
    first: float
    """Mean reward of the first fifth of its steps."""
    last: float
    """Mean reward of the last fifth of its steps."""
    rises: bool
    """It rose by more than noise explains."""
    falls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a run has achieved so far, and what is wrong with it."""

    run: str
    """The run's folder as a user would type it, such as 'runs/NAME'."""
    status: str
    """'finished', 'stopped' or 'failed', or 'unfinished' for a run that is still running or was killed."""
    steps: int
    roles: Sequence[RoleHealth]
    summary: str
    """One sentence for each role and one for the held-out tasks: whether the run learns."""
    findings: Sequence[Finding]
    """The most serious first."""

    @property
    def learnable(self) -> bool:
        """No finding is fatal."""
        return not any(each.is_fatal for each in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as in the output of `check --json`."""
        return asdict(self) | {"findings": [each.as_dict() for each in self.findings], "learnable": self.learnable}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Examination:
        """The reverse of `as_dict`. ValueError for what is missing."""
        return replace(
            read_struct(cls, values, "the examination"),
            roles=[read_struct(RoleHealth, each, "roles") for each in values["roles"]],
            findings=list(map(Finding.from_dict, values["findings"])),
        )

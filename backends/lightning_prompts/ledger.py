"""The ledger: what a search may spend and what it has spent, in rollouts, calls, tokens and time.

Nothing is begun that does not fit. Rollouts and calls of the reflecting model are known before they begin. What a
rollout will need in calls and tokens is taken to be the most that one has needed so far.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from lightning_prompts.arena import TrialResult
from lightning_prompts.ending import SearchEnd, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a search may spend; 0: no limit."""

    rollouts: int = 0
    calls: int = 0
    """Calls to models: the agent's own, and those of the reflecting model."""
    tokens: int = 0
    minutes: float = 0.0


@dataclass(slots=True)
class Spending:
    """What a search has spent, over all its sessions."""

    rollouts: int = 0
    calls: int = 0
    """The agent's and the reflecting model's."""
    tokens: int = 0
    reflections: int = 0
    """Calls of the reflecting model."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Ledger:
    """Charges what is used, once, whether it was run now or is read from the journal of an earlier session."""

    def __init__(self, allowance: Allowance, seconds_before: float = 0.0) -> None:
        """`seconds_before`: how long earlier sessions took."""
        self.allowance, self.spent = allowance, Spending()
        self._before, self._began = seconds_before, time.monotonic()
        self._most_calls = self._most_tokens = 0

    @property
    def seconds(self) -> float:
        """How long the search has been going on, over all sessions."""
        return self._before + time.monotonic() - self._began

    @property
    def is_blind(self) -> bool:
        """Whether a limit depends on what a rollout needs, and none has shown it."""
        return not self.spent.rollouts and bool(self.allowance.calls or self.allowance.tokens)

    def refuse_rollouts(self, count: int) -> None:
        """SearchEnd if so many rollouts do not fit."""
        self._refuse("rollouts", self.spent.rollouts, count, self.allowance.rollouts)
        self._refuse("calls", self.spent.calls, count * self._most_calls, self.allowance.calls)
        self._refuse("tokens", self.spent.tokens, count * self._most_tokens, self.allowance.tokens)

    def refuse_reflections(self, count: int, tokens: int) -> None:
        """SearchEnd if so many calls of the reflecting model, with at most this many tokens, do not fit."""
        self._refuse("calls", self.spent.calls, count, self.allowance.calls)
        self._refuse("tokens", self.spent.tokens, tokens, self.allowance.tokens)

    def refuse_late(self) -> None:
        """SearchEnd if the time is up. Asked before work that is not read from the journal."""
        minutes = self.allowance.minutes
        if minutes and self.seconds >= 60 * minutes:
            raise SearchEnd(Why.BUDGET, f"the {minutes:g} minutes of prompts.budget_minutes are over")

    def charge_rollout(self, result: TrialResult) -> None:
        self.spent.rollouts += 1
        self.spent.calls += result.calls
        self.spent.tokens += result.tokens
        self._most_calls = max(self._most_calls, result.calls)
        self._most_tokens = max(self._most_tokens, result.tokens)

    def charge_reflection(self, attempts: int, tokens: int) -> None:
        self.spent.reflections += attempts
        self.spent.calls += attempts
        self.spent.tokens += tokens

    def _refuse(self, what: str, used: int, more: int, limit: int) -> None:
        if limit and used + more > limit:
            raise SearchEnd(
                Why.BUDGET,
                f"{used} of {limit} {what} are spent (prompts.budget_{what}), and the next step could need {more}",
            )

"""The ledger: what a search may spend and what it has spent, in rollouts, calls, tokens, money and time.

Nothing is begun that does not fit. Rollouts and calls of the reflecting model are known before they begin. What a
rollout will need in calls, tokens and money is taken to be the most that one has needed so far; that none takes more
than there is, is what the meter sees to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from lightning_prompts.arena import TrialResult
from lightning_prompts.ending import SearchEnd, Why
from lightning_prompts.prices import UNIT


class CallTotals(NamedTuple):
    """What calls have taken."""

    calls: int = 0
    tokens: int = 0
    money: int = 0
    """In units of `prices.UNIT` a dollar."""

    def plus(self, calls: int, tokens: int, money: int) -> CallTotals:
        return CallTotals(self.calls + calls, self.tokens + tokens, self.money + money)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a search may spend; 0: no limit."""

    rollouts: int = 0
    calls: int = 0
    """Calls to models: the agent's own, and those of the reflecting model."""
    tokens: int = 0
    money: float = 0.0
    """Dollars."""
    minutes: float = 0.0

    @property
    def money_units(self) -> int:
        """`money` in units of `prices.UNIT` a dollar."""
        return round(self.money * UNIT)

    @property
    def has_call_limit(self) -> bool:
        """Whether something is limited that calls take, and not only rollouts and time."""
        return bool(self.calls or self.tokens or self.money)


@dataclass(slots=True, kw_only=True)
class Spending:
    """What a search has spent, over all its sessions."""

    rollouts: int = 0
    calls: int = 0
    """The agent's and the reflecting model's."""
    tokens: int = 0
    money: float = 0.0
    """Dollars, by the prices that the user gave; 0 without them."""
    reflections: int = 0
    """Calls of the reflecting model."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Ledger:
    """Charges what is used, once, whether it was run now or is read from the journal of an earlier session."""

    def __init__(
        self, allowance: Allowance, seconds_before: float = 0.0, count: Callable[[], CallTotals] | None = None
    ) -> None:
        """`seconds_before`: how long earlier sessions took; `count`: what all calls have taken, also those of rollouts
        that a kill interrupted, where they are metered."""
        self.allowance, self.spent = allowance, Spending()
        self._before, self._began, self._count = seconds_before, time.monotonic(), count
        self._most_calls = self._most_tokens = 0
        self._most_money = 0.0

    @property
    def seconds(self) -> float:
        """How long the search has been going on, over all sessions."""
        return self._before + time.monotonic() - self._began

    @property
    def is_blind(self) -> bool:
        """Whether a limit depends on what a rollout needs, and none has shown it."""
        return not self.spent.rollouts and self.allowance.has_call_limit

    def total(self) -> Spending:
        """What was spent, with all that was metered."""
        spent = replace(self.spent, seconds=round(self.seconds, 1))
        if self._count is None:
            return spent
        calls, tokens, money = self._count()
        return replace(spent, calls=calls, tokens=tokens, money=money / UNIT)

    def refuse_rollouts(self, count: int) -> None:
        """SearchEnd if so many rollouts do not fit."""
        self._refuse("rollouts", self.spent.rollouts, count, self.allowance.rollouts)
        self._refuse("calls", self.spent.calls, count * self._most_calls, self.allowance.calls)
        self._refuse("tokens", self.spent.tokens, count * self._most_tokens, self.allowance.tokens)
        self._refuse("money", self.spent.money, count * self._most_money, self.allowance.money)

    def refuse_reflections(self, count: int, tokens: int) -> None:
        """SearchEnd if so many calls of the reflecting model, with at most this many tokens, do not fit."""
        self._refuse("calls", self.spent.calls, count, self.allowance.calls)
        self._refuse("tokens", self.spent.tokens, tokens, self.allowance.tokens)

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return bool(self.allowance.minutes) and self.seconds >= 60 * self.allowance.minutes

    def refuse_late(self) -> None:
        """SearchEnd if the time is up. Asked before work that is not read from the journal."""
        if self.is_late:
            raise SearchEnd(Why.BUDGET, f"the {self.allowance.minutes:g} minutes of prompts.budget_minutes are over")

    def charge_rollout(self, result: TrialResult) -> None:
        self.spent.rollouts += 1
        self.spent.calls += result.calls
        self.spent.tokens += result.tokens
        self.spent.money += result.money
        self._most_calls = max(self._most_calls, result.calls)
        self._most_tokens = max(self._most_tokens, result.tokens)
        self._most_money = max(self._most_money, result.money)

    def charge_reflection(self, attempts: int, tokens: int, money: float = 0.0) -> None:
        self.spent.reflections += attempts
        self.spent.calls += attempts
        self.spent.tokens += tokens
        self.spent.money += money

    def _refuse(self, what: str, used: float, more: float, limit: float) -> None:
        if limit and used + more > limit:
            show = "${:.6g}".format if what == "money" else "{:d}".format
            raise SearchEnd(
                Why.BUDGET,
                f"{show(used)} of {show(limit)} {what} are spent (prompts.budget_{what}), and the next step could need "
                f"{show(more)}",
            )

"""The meter: what calls to models take while a search has a budget of calls, tokens or money, which none overshoots.

Before a request leaves, the most that it can take is reserved, or the request is refused. What it has really taken
replaces that once its reply is known. Both are on disk before they count, so a killed search knows what it spent; a
call that was under way at the kill counts for the most that it can have taken.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_prompts.ending import SearchEnd, Why
from lightning_prompts.ledger import Allowance, CallTotals
from lightning_prompts.prices import UNIT, Price, PriceTable
from lightning_sdk.capture.request_bounds import bound_request
from lightning_sdk.errors import SettingError
from lightning_sdk.hub.questions import ClaimQuestion
from lightning_sdk.trace.call import Call

_FAILED = 400
"""HTTP status from which on an answer is an error, which costs nothing."""


class _Reserved(NamedTuple):
    """One request that has left, by the most that it can take."""

    model: str
    tokens: int
    money: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterOptions:
    """What bounds a call."""

    prices: PriceTable | None = None
    reply_tokens: int = 0
    """The most that a model writes where the request sets no limit; 0: not known."""


class Meter:
    """Any thread may call."""

    def __init__(self, allowance: Allowance, options: MeterOptions, path: Path | None = None) -> None:
        """`path`: where it is kept, with what an earlier session spent."""
        self._allowance, self._options, self._path = allowance, options, path
        self._lock = threading.Lock()
        self._under_way: dict[str, _Reserved] = {}
        self._attempts: dict[str, int] = {}
        """Call -> number of its last request, where there is more than one."""
        self._total = CallTotals()
        """Without what is under way."""
        self._most = _Reserved("", 0, 0)
        self.refused: set[str] = set()
        """Ids of rollouts that a request was refused to."""
        self.why_refused = ""
        """Why the last one was; '' if none was."""
        self.error: SettingError | None = None
        """What has to be set before any call can be counted."""
        if path is not None and path.exists():
            self._read(path)

    @property
    def total(self) -> CallTotals:
        """What calls have taken, or can still take where their reply is not known."""
        with self._lock:
            return self._sum()

    @property
    def width(self) -> int:
        """How many rollouts can run side by side without one taking the last of the budget from another one: as many
        as calls like the most expensive one so far fit."""
        with self._lock:
            spent, limits = self._sum(), self._allowance
            rooms = [
                (limit - used) // most if most else 1
                for limit, used, most in (
                    (limits.calls, spent.calls, 1),
                    (limits.tokens, spent.tokens, self._most.tokens),
                    (limits.money_units, spent.money, self._most.money),
                )
                if limit
            ]
        return max(1, min(rooms, default=1))

    def refuse_unpriced(self, model: str) -> None:
        """SettingError if there is a budget of money, and this model has no price."""
        if self._allowance.money and self._find_price(model) is None:
            where = f"the file {self._options.prices.path!r}" if self._options.prices is not None else "any file"
            raise SettingError(
                f"prompts.budget_money: the model {model!r} has no price in {where}: add what a million tokens cost "
                "(prompts.prices)"
            )

    def refuse_more(self) -> None:
        """Raise why a request was refused, if one was.

        Raises:
            SearchEnd: the budget did not allow it.
            SettingError: what it can take is not known.
        """
        if self.error is not None:
            raise self.error
        if self.refused:
            raise SearchEnd(Why.BUDGET, self.why_refused)

    # --- what may leave

    def claim(self, asked: ClaimQuestion) -> str:
        """As the hub asks for a rollout's request: '' or why it may not leave."""
        if asked.refused:
            self._settle(_key(asked.call, asked.attempt - 1), 0, 0)
        why = self.reserve(
            _key(asked.call, asked.attempt), asked.model, asked.input_tokens, asked.reply_tokens, asked.replies,
            asked.unbounded,
        )  # fmt: skip
        with self._lock:
            if why:
                self.refused.add(asked.rollout)
            elif asked.attempt > 1:
                self._attempts[asked.call] = asked.attempt
        return why

    def reserve(
        self, key: str, model: str, input_tokens: int, reply_tokens: int, replies: int = 1, unbounded: str = ""
    ) -> str:
        """Reserve the most that a request can take. '' or why it may not leave."""
        with self._lock:
            try:
                most = self._most_of(model, input_tokens, reply_tokens, replies, unbounded)
            except SettingError as error:
                self.error, self.why_refused = error, str(error)
                return self.why_refused
            if why := self._find_lack(most):
                self.why_refused = why
                return why
            self._write({"reserve": key, "model": model, "tokens": most.tokens, "money": most.money})
            self._add(key, most)
            return ""

    def settle(self, call: Call) -> None:
        """The reply to a rollout's call is known."""
        key = _key(call.meta.id, self._attempts.get(call.meta.id, 1))
        if call.meta.http_status >= _FAILED:
            self._settle(key, 0, 0)
        elif call.input_tokens or call.output_tokens:
            self.settle_tokens(
                key, call.input_tokens, call.output_tokens, call.cached_tokens, call.cache_written_tokens
            )

    def settle_tokens(self, key: str, read: int, wrote: int, cached: int = 0, cache_written: int = 0) -> int:
        """What a request has taken is known; what it cost."""
        with self._lock:
            reserved = self._under_way.get(key)
        if reserved is None:
            return 0
        price = self._find_price(reserved.model)
        money = price.cost(read, wrote, cached, cache_written) if price is not None else 0
        self._settle(key, read + wrote, money)
        return money

    def cost(self, calls: Iterable[Call]) -> float:
        """Dollars that a rollout's calls cost, as far as their models have prices."""
        prices = [(call, self._find_price(bound_request(call.meta.path, call.request).model)) for call in calls]
        return sum(_call_cost(call, price) for call, price in prices if price is not None) / UNIT

    def release(self, key: str) -> None:
        """A request was answered with an error, which costs nothing."""
        self._settle(key, 0, 0)

    def _settle(self, key: str, tokens: int, money: int) -> None:
        with self._lock:
            if key in self._under_way:
                self._write({"settle": key, "tokens": tokens, "money": money})
                del self._under_way[key]
                self._total = self._total.plus(1, tokens, money)

    def _find_price(self, model: str) -> Price | None:
        return self._options.prices.find(model) if self._options.prices is not None else None

    # --- with the lock held

    def _add(self, key: str, most: _Reserved) -> None:
        self._under_way[key] = most
        self._most = _Reserved("", max(most.tokens, self._most.tokens), max(most.money, self._most.money))

    def _sum(self) -> CallTotals:
        reserved = self._under_way.values()
        return self._total.plus(
            len(self._under_way), sum(each.tokens for each in reserved), sum(each.money for each in reserved)
        )

    def _most_of(self, model: str, read: int, reply: int, replies: int, unbounded: str) -> _Reserved:
        """SettingError if nothing can be said."""
        if not self._allowance.tokens and not self._allowance.money:
            return _Reserved(model, 0, 0)
        what = "prompts.budget_money" if self._allowance.money else "prompts.budget_tokens"
        if unbounded:
            raise SettingError(f"{what}: a call has {unbounded}, so no budget of tokens or money can be kept with it")
        wrote = reply or self._options.reply_tokens * replies
        if not wrote:
            raise SettingError(
                f"{what}: a call of {model!r} sets no limit to its reply (max_tokens), so what it can take is not "
                "known: let the agent set one, or say how many tokens this model writes at most: prompts.reply_tokens"
            )
        return _Reserved(model, read + wrote, self._most_money(model, read, wrote))

    def _most_money(self, model: str, read: int, wrote: int) -> int:
        if not self._allowance.money:
            return 0
        self.refuse_unpriced(model)
        price = self._find_price(model)
        return price.most(read, wrote) if price is not None else 0

    def _find_lack(self, most: _Reserved) -> str:
        spent, limits = self._sum(), self._allowance
        for what, used, more, limit, show in (
            ("calls", spent.calls, 1, limits.calls, str),
            ("tokens", spent.tokens, most.tokens, limits.tokens, str),
            ("money", spent.money, most.money, limits.money_units, _dollars),
        ):
            if limit and used + more > limit:
                return (
                    f"the budget of this search does not allow another call: {show(used)} of {show(limit)} {what} are "
                    f"spent or needed by calls under way, and this one could take {show(more)} (prompts.budget_{what})"
                )
        return ""

    # --- on disk

    def _write(self, line: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _read(self, path: Path) -> None:
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            self._take(json.loads(line))
        if torn:
            with path.open("ab") as file:
                file.truncate(len(whole) + 1 if whole else 0)

    def _take(self, line: dict[str, Any]) -> None:
        if "reserve" in line:
            self._add(line["reserve"], _Reserved(line["model"], line["tokens"], line["money"]))
        elif self._under_way.pop(line["settle"], None) is not None:
            self._total = self._total.plus(1, line["tokens"], line["money"])


def _call_cost(call: Call, price: Price) -> int:
    return price.cost(call.input_tokens, call.output_tokens, call.cached_tokens, call.cache_written_tokens)


def _key(call: str, attempt: int) -> str:
    return f"{call}/{attempt}"


def _dollars(units: int) -> str:
    return f"${units / UNIT:.6g}"

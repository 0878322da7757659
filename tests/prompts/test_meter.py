"""The meter reserves the most that a call can take, and counts what it took."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from lightning_prompts.ending import SearchEnd
from lightning_prompts.ledger import Allowance, CallTotals
from lightning_prompts.meter import Meter, MeterOptions
from lightning_prompts.prices import UNIT, PriceTable
from lightning_sdk.errors import SettingError
from lightning_sdk.hub.questions import ClaimQuestion
from lightning_sdk.trace.call import Call, CallMeta

PRICES = '{"m": {"input": 1.25, "output": 10, "cached": 0.125}, "local-*": {"input": 0, "output": 0}}'


def table(folder: Path, text: str = PRICES, name: str = "prices.json") -> PriceTable:
    (folder / name).write_text(text)
    return PriceTable.read(str(folder / name))


def claim(call: str, *, attempt: int = 1, refused: bool = False, read: int = 100, wrote: int = 50) -> ClaimQuestion:
    return ClaimQuestion(
        rollout=f"rollout of {call}", call=call, attempt=attempt, refused=refused, model="m", input_tokens=read,
        reply_tokens=wrote,
    )  # fmt: skip


def reply(call: str, read: int = 10, wrote: int = 5, status: int = 200, cached: int = 0) -> Call:
    meta = CallMeta(call, "", "", False, 0, 0, "ok", "", status, False, "/v1/chat/completions", "openai")
    return Call(
        meta=meta, request=b'{"model": "m"}', response_id="", model="m", prompt_ids=b"", choices=(), input_tokens=read,
        output_tokens=wrote, cached_tokens=cached,
    )  # fmt: skip


def test_what_a_call_took_replaces_what_it_could_take(tmp_path: Path) -> None:
    meter = Meter(Allowance(tokens=160), MeterOptions())
    assert meter.claim(claim("a")) == "" and meter.total == CallTotals(1, 150, 0)
    assert "150 of 160 tokens are spent or needed by calls under way, and this one could take 150" in meter.claim(
        claim("b")
    )
    with pytest.raises(SearchEnd, match="does not allow another call"):
        meter.refuse_more()
    assert meter.refused == {"rollout of b"}
    meter.settle(reply("a", 7, 3))
    assert meter.total == CallTotals(1, 10, 0) and meter.claim(claim("c")) == ""


def test_money_is_counted_exactly(tmp_path: Path) -> None:
    """By the price of each kind of token, without rounding that adds up."""
    meter = Meter(Allowance(money=1.0), MeterOptions(prices=table(tmp_path)))
    for number in range(1000):
        assert meter.claim(claim(str(number))) == ""
        meter.settle(reply(str(number), 10, 5, cached=4))
    assert meter.total.money * 10**6 == 1000 * (6 * 1_250_000 + 4 * 125_000 + 5 * 10_000_000) * UNIT // 10**6
    assert meter.cost([reply("x", 10, 5, cached=4)]) == pytest.approx((6 * 1.25 + 4 * 0.125 + 5 * 10) / 10**6)


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_calls_overshoots(seed: int, tmp_path: Path) -> None:
    """Whatever is under way, and whatever a call takes of what it could take."""
    drawn, limits = random.Random(seed), Allowance(calls=40, tokens=4000, money=0.02)
    meter = Meter(limits, MeterOptions(prices=table(tmp_path)), tmp_path / "calls.jsonl")
    real, under_way = CallTotals(), dict[str, tuple[int, int]]()
    for number in range(300):
        asked = claim(str(number), read=drawn.randint(1, 200), wrote=drawn.randint(1, 200))
        if not meter.claim(asked):
            under_way[str(number)] = (asked.input_tokens, asked.reply_tokens)
        for call in drawn.sample(sorted(under_way), drawn.randint(0, len(under_way))):
            most = under_way.pop(call)
            read, wrote = (drawn.randint(1, each) for each in most)
            meter.settle(reply(call, read, wrote))
            real = real.plus(1, read + wrote, (read * 1_250_000 + wrote * 10_000_000) * UNIT // 10**12)
        if drawn.random() < 0.1:  # a kill, and a new session
            meter = Meter(limits, MeterOptions(prices=table(tmp_path)), tmp_path / "calls.jsonl")
        spent = meter.total
        assert real.calls + len(under_way) == spent.calls <= 40
        assert real.tokens + sum(map(sum, under_way.values())) == spent.tokens <= 4000
        assert real.money <= spent.money <= 0.02 * UNIT
    assert real.calls > 5


def test_an_attempt_that_was_refused_costs_a_call_and_nothing_else() -> None:
    """One that got no answer may have been paid."""
    meter = Meter(Allowance(calls=10, tokens=1000), MeterOptions())
    meter.claim(claim("a"))
    meter.claim(claim("a", attempt=2, refused=True))
    assert meter.total == CallTotals(2, 150, 0)
    meter.claim(claim("a", attempt=3, refused=False))
    assert meter.total == CallTotals(3, 300, 0)
    meter.settle(reply("a", 10, 5))
    assert meter.total == CallTotals(3, 165, 0)
    meter.claim(claim("b"))
    meter.settle(reply("b", 0, 0, status=500))
    assert meter.total == CallTotals(4, 165, 0)


def test_a_reply_that_does_not_say_what_it_took_counts_for_the_most() -> None:
    """A stream without usage, and one that broke off."""
    meter = Meter(Allowance(tokens=1000), MeterOptions())
    meter.claim(claim("a"))
    meter.settle(reply("a", 0, 0))
    assert meter.total == CallTotals(1, 150, 0)


def test_what_was_written_when_it_was_killed_is_read_again(tmp_path: Path) -> None:
    """A call under way counts for the most that it can have taken; a torn line is dropped."""
    path = tmp_path / "calls.jsonl"
    meter = Meter(Allowance(tokens=1000), MeterOptions(), path)
    for call in "ab":
        meter.claim(claim(call))
    meter.settle(reply("a"))
    path.write_text(path.read_text() + '{"reserve": "c/')
    again = Meter(Allowance(tokens=1000), MeterOptions(), path)
    assert again.total == meter.total == CallTotals(2, 165, 0)
    again.claim(claim("d"))
    assert Meter(Allowance(tokens=1000), MeterOptions(), path).total == again.total


def test_as_many_rollouts_run_side_by_side_as_there_is_room_for() -> None:
    meter = Meter(Allowance(tokens=1000), MeterOptions())
    assert meter.width == 1
    meter.claim(claim("a"))
    assert meter.width == 850 // 150
    assert Meter(Allowance(calls=7), MeterOptions()).width == 7


@pytest.mark.parametrize(
    ("allowance", "asked", "told"),
    [
        (Allowance(tokens=1000), {"reply_tokens": 0}, r"'m' sets no limit to its reply.*prompts\.reply_tokens"),
        (Allowance(money=1.0), {"model": "other"}, r"'other' has no price in the file '.*prices\.json'"),
        (Allowance(money=1.0), {"unbounded": "a reference"}, "a call has a reference, so no budget"),
    ],
)
def test_what_cannot_be_bounded_is_an_error(
    allowance: Allowance, asked: dict[str, Any], told: str, tmp_path: Path
) -> None:
    fields = {"rollout": "r", "call": "a", "attempt": 1, "refused": False, "model": "m", "input_tokens": 10}
    meter = Meter(allowance, MeterOptions(prices=table(tmp_path)))
    assert meter.claim(ClaimQuestion(**{**fields, "reply_tokens": 10, **asked}))
    with pytest.raises(SettingError, match=told):
        meter.refuse_more()
    assert meter.total == CallTotals()


def test_prices_are_read_from_toml_too(tmp_path: Path) -> None:
    found = table(tmp_path, '["local-*"]\ninput = 0.5\noutput = 1\n', "prices.toml").find("local-7b")
    assert found is not None and found.cost(2, 3) == 2 * 500_000 + 3 * 1_000_000
    assert found.most(1, 1) == found.cost(1, 1, cached=1)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"m": 3}', '{"m": {"input": 1}}', '{"m": {"input": 1, "output": -1}}', '{"m": {"in": 1}}']
)
def test_a_table_of_another_shape_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"prompts\.prices="):
        table(tmp_path, text)

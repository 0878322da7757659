"""Groups whose rollouts all said the same: told with the cause, and not blamed on the reward."""

from __future__ import annotations

from typing import Any

import pytest
from spoken import assistant, call, rollout, tokens, user

from lightning_hub.diagnosis import Diagnosis, Round, diagnose
from lightning_hub.rollout import Rollout
from lightning_hub.sameness import finding
from lightning_sdk.call import Call
from lightning_sdk.wire import pack_floats

LONG = assistant("The answer is forty-two, of course.")


def said(number: int, answer: str | None = None, *, logprob: float = -0.5, reply: str = "", **more: Any) -> Call:
    """A call of rollout `number`, with an id of its own and this log-prob for each token."""
    made = call(1, [user("2 + 3?")], assistant(answer) if answer else LONG, **more)
    (choice,) = made.choices
    drawn = len(tokens(assistant(answer) if answer else LONG))
    values = {name: getattr(made, name) for name in made.__slots__}
    values |= {"response_id": reply or f"chatcmpl-{number}"}
    values |= {"choices": (type(choice)(0, choice.message, "stop", choice.token_ids, pack_floats([logprob] * drawn)),)}
    return Call(**values)


def made(*groups: list[Call | None], **more: Any) -> list[Rollout]:
    """A rollout for each call, of a group for each list; None: it made none."""
    return [
        rollout(10 * place + number, *([each] if each else []), group=f"1-{place}", rewards={"": 0.0}, **more)
        for place, group in enumerate(groups)
        for number, each in enumerate(group)
    ]


def diagnosed(rollouts: list[Rollout]) -> Diagnosis:
    return diagnose(Round(rollouts))


def same(diagnosis: Diagnosis) -> str:
    kinds = [each.kind for each in diagnosis.findings]
    assert "no signal" not in kinds, kinds
    return str(next(each for each in diagnosis.findings if each.kind == "same answers"))


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({}, "The engine does not draw freely"),
        ({"reply": "chatcmpl-kept"}, "carry the id of another one"),
    ],
)
def test_the_same_tokens_by_no_chance(more: dict[str, Any], cause: str) -> None:
    """Thirty tokens do not agree eight times: the randomness was taken away, and the reward is not blamed."""
    groups = [[said(10 * place + number, **more) for number in range(4)] for place in range(2)]
    diagnosis = diagnosed(made(*groups))
    text = same(diagnosis)
    assert "all rollouts of each group said exactly the same, token for token, in all of 2 groups (8 rollouts)" in text
    assert cause in text and "10^" in text and "the reward" not in text
    assert [each.kind for each in diagnosis.fatal] == ["same answers"] and not diagnosis.fatal[0].passing


def test_a_request_that_asks_for_it_is_shown() -> None:
    """A seed that some way of recording left in the requests is the cause that is named."""
    groups = [[said(10 * place + number) for number in range(4)] for place in range(2)]
    for group in groups:
        group[:] = [Call(**{name: getattr(each, name) for name in each.__slots__} | {
            "request": each.request[:-1] + b', "seed": 7}'}) for each in group]  # fmt: skip
    assert "The requests ask for it, with seed=7." in same(diagnosed(made(*groups)))


def test_a_sure_model_is_told_as_one() -> None:
    """Where the model's own probabilities explain it, nobody took anything away; other tasks may do better."""
    diagnosis = diagnosed(made(*([said(n, "5", logprob=-0.001) for n in range(4)] for _ in range(2))))
    assert "The model is sure of these answers: it gives each a probability of 1.00" in same(diagnosis)
    assert diagnosis.fatal[0].passing


def test_a_cache_above_the_engine() -> None:
    """The first rollout of each group asked, and the others ended without a call."""
    text = same(diagnosed(made([said(1), None, None, None], [said(5), None, None, None])))
    assert "in 2 of 2 groups some rollouts asked a model and others of the same task ended without" in text
    assert "6 of 8" in text and "functools.cache" in text


def test_what_is_no_sameness() -> None:
    """Rollouts that differ, agree by chance, earn different rewards, are greedy, or stay silent in a few cases."""
    differ = made([said(1), said(2, "5")], [said(3), said(4)])
    sure = made(*([said(n, "5", logprob=-0.001) for n in range(4)] for _ in range(2)))
    greedy = made(*([said(n) for n in range(4)] for _ in range(2)), mode="evaluate")
    silent = made([said(n) if n else None for n in range(8)], [said(n, str(n)) if n else None for n in range(8)])
    single = made([said(1), said(2)])
    assert [finding(each, has_signal=True) for each in (differ, sure, greedy, silent, single)] == [None] * 5

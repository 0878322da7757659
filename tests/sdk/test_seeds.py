"""Seeds of evaluation: each call of a rollout has a different one, and training has none."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

import lightning_sdk as lightning
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from tests.sdk.provider import Provider
from tests.sdk.trained import train

ASK: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "abc"}]}


def seeds(engine: Provider) -> list[int | None]:
    """The seeds of the requests that the engine got, in order; the list of requests is emptied."""
    found = [each.body.get("seed") for each in engine.requests]
    assert all("rollout_seed" not in each.body for each in engine.requests)
    engine.requests.clear()
    return found


def asking(client: openai.OpenAI, times: int) -> Any:
    def act() -> None:
        for _ in range(times):
            client.chat.completions.create(**ASK)

    return act


def test_each_call_of_a_rollout_has_its_own_seed(client: openai.OpenAI, engine: Provider) -> None:
    """The same again for the same rollout seed, others for another; the agent's own gives way."""
    train(engine, asking(client, 3), temperature=0.7, rollout_seed=11)
    first = seeds(engine)
    train(engine, asking(client, 3), temperature=0.7, rollout_seed=11)
    assert len(set(first)) == 3 and seeds(engine) == first
    assert all(isinstance(each, int) and 0 <= each < 2**31 for each in first)
    train(engine, asking(client, 3), rollout_seed=12)
    assert not set(seeds(engine)) & set(first)
    train(engine, lambda: client.chat.completions.create(**ASK, seed=5), rollout_seed=11)
    assert seeds(engine) == first[:1]


def test_training_has_no_seed(client: openai.OpenAI, engine: Provider) -> None:
    """One that the agent gives is taken out: all rollouts of a group would say the same."""
    train(engine, asking(client, 2), temperature=1.0, whole_distribution=1.0)
    act = functools.partial(client.chat.completions.create, **ASK, seed=5)
    train(engine, act, temperature=1.0, whole_distribution=1.0)
    assert seeds(engine) == [None, None, None]


def test_a_retry_has_the_seed_of_its_call(client: openai.OpenAI, engine: Provider) -> None:
    """An attempt that the engine refused does not move the seeds of later calls."""
    train(engine, asking(client, 2), rollout_seed=3)
    one, two = seeds(engine)
    engine.fail = [500]
    train(engine, asking(client, 2), rollout_seed=3)
    assert seeds(engine) == [one, one, two]


def test_roles_that_speak_at_once_keep_their_seeds(client: openai.OpenAI, engine: Provider) -> None:
    """In any order: a seed belongs to a role and the number of its call."""

    def once(order: Sequence[str]) -> dict[str, list[int | None]]:
        rollout = RolloutScope("0" * 32, bytes(16), Endpoint(engine.url, "policy", "k"), {"rollout_seed": 4})
        found = {}
        for role in order:
            with use_scope(Scope(rollout=rollout)):
                lightning.agent(role=role, trainable=True)(asking(client, 2))()
            found[role] = seeds(engine)
        return found

    there, back = once(["writer", "checker"]), once(["checker", "writer"])
    assert there == back and not set(there["writer"]) & set(there["checker"])


def test_threads_of_one_role_share_no_seed(client: openai.OpenAI, engine: Provider) -> None:
    """Which of them gets which is chance; no two get the same."""
    rollout = RolloutScope("0" * 32, bytes(16), None, {"rollout_seed": 4})
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: rollout.seed("solver"), range(2000)))
    again = RolloutScope("1" * 32, bytes(16), None, {"rollout_seed": 4})
    assert set(drawn) == {again.seed("solver") for _ in range(2000)} and len(set(drawn)) == 2000

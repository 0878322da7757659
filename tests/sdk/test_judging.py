"""A reward function that asks a trainable agent gets the agent's own provider, and trains nobody."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning
from lightning_sdk.markers.reward import reward_functions
from lightning_sdk.rollouts.attempt import aexecute, execute
from lightning_sdk.trace.call import Status
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder


@pytest.fixture
def engine() -> Iterator[Provider]:
    with Provider() as engine:
        yield engine


@pytest.fixture
def ask(provider: Provider) -> Iterator[Callable[[str], str]]:
    lightning.init(integrations={"openai"})
    with OpenAI(base_url=provider.url, api_key="k", max_retries=0) as client:

        @lightning.agent(role="solver", trainable=True)
        def ask(text: str) -> str:
            reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
            return str(reply.choices[0].message.content)

        yield ask


def message(engine: Provider, **more: Any) -> dict[str, Any]:
    """What the hub hands out."""
    endpoint = {"url": engine.url, "model": "policy", "key": "engine-key"}
    return {
        "id": "0" * 32,
        "key": bytes(16),
        "task": {"text": "abc"},
        "endpoint": endpoint,
        "sampling": {},
        "roles": [],
        "timeout": 20.0,
        **more,
    }


def questions(server: Provider) -> list[str]:
    return [request.body["messages"][-1]["content"] for request in server.requests]


@pytest.mark.parametrize("roles", [[], ["solver"]])
def test_a_judge_is_not_trained(
    recorder: Recorder, engine: Provider, provider: Provider, ask: Callable[[str], str], roles: list[str]
) -> None:
    """Neither directly nor in a pool; what the agent itself asks goes to the engine, before and after."""

    def judge(task: dict[str, str], answer: str) -> float:
        with ThreadPoolExecutor(1) as pool:
            return float(ask(f"judge {answer}") == pool.submit(ask, f"judge {answer}").result())

    agent = lambda task: ask(task["text"])  # noqa: E731
    assert execute(agent, reward_functions([judge]), message(engine, roles=roles)) == Status.OK
    assert (questions(engine), questions(provider)) == (["abc"], ["judge cba"] * 2)
    assert [(call.meta.role, call.meta.trainable) for call in recorder.calls] == [
        ("solver", True),
        ("solver", False),
        ("solver", False),
    ]
    (scoring,) = [span for span in recorder.spans if span.name == "score judge"]
    assert [span.parent for span in recorder.spans if span.name == "invoke_agent solver"] == ["", *[scoring.id] * 2]


def test_a_judge_on_a_loop_is_not_trained(recorder: Recorder, engine: Provider, provider: Provider) -> None:
    """Nor in its tasks."""
    lightning.init(integrations={"openai"})

    @lightning.agent(role="solver", trainable=True)
    async def ask(text: str) -> str:
        async with AsyncOpenAI(base_url=provider.url, api_key="k", max_retries=0) as client:
            reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
        return str(reply.choices[0].message.content)

    async def agent(task: dict[str, str]) -> str:
        return await ask(task["text"])

    async def judge(task: dict[str, str], answer: str) -> float:
        await asyncio.create_task(ask(f"judge {answer}"))
        return 1.0

    asyncio.run(aexecute(agent, reward_functions([judge]), message(engine), lambda: True))
    assert (questions(engine), questions(provider)) == (["abc"], ["judge cba"])

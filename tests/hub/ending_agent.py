"""Agents that end in every way there is, as tasks say, in a file that other processes can load."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from openai import AsyncOpenAI

import lightning_sdk as lightning
from tests.hub.guest_agent import ask


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("a bug of a bug")


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def endless() -> None:
    asyncio.run(asyncio.wait_for(asyncio.sleep(60), 0.01))


def raise_error(error: BaseException) -> None:
    raise error


#: Name -> what a plain agent does, and the first line of the error that the rollout ends with.
PLAIN: dict[str, tuple[Callable[[], object], str]] = {
    "exit": (lambda: exec("exit(3)"), "SystemExit: 3"),
    "argparse": (lambda: argparse.ArgumentParser().parse_args(["--nope"]), "SystemExit: 2"),
    "interrupt": (lambda: raise_error(KeyboardInterrupt()), "KeyboardInterrupt"),
    "cancelled": (lambda: raise_error(asyncio.CancelledError()), "CancelledError"),
    "timeout": (endless, "TimeoutError"),
    "generator": (lambda: raise_error(GeneratorExit()), "GeneratorExit"),
    "empty": (lambda: next(iter(())), "StopIteration"),
    "recursion": (recurse, "RecursionError: maximum recursion depth exceeded"),
    "silent": (lambda: raise_error(Silent()), "Silent: (its message cannot be shown: __str__ raised RuntimeError)"),
    "group": (lambda: raise_error(BaseExceptionGroup("all", [SystemExit(4), KeyError("x")])), "SystemExit: 4"),
    "surrogate": (lambda: raise_error(ValueError("\ud800")), "ValueError: ?"),
}


async def own_timeout() -> None:
    async with asyncio.timeout(0.01):
        await asyncio.sleep(60)


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


async def exit_in_a_task() -> None:
    async def leave() -> None:
        sys.exit(5)

    await asyncio.create_task(leave())


async def exit_in_a_group() -> None:
    async def leave() -> None:
        raise KeyError("customer_id")

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(leave())


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    raise KeyError("after")


#: The same of an async agent.
ASYNC: dict[str, tuple[Callable[[], Any], str]] = {
    "atimeout": (own_timeout, "TimeoutError"),
    "await_for": (lambda: asyncio.wait_for(asyncio.sleep(60), 0.01), "TimeoutError"),
    "acancelled": (cancel_itself, "CancelledError"),
    "atask": (exit_in_a_task, "SystemExit: 5"),
    "agroup": (exit_in_a_group, "KeyError: 'customer_id'"),
    "astop": (stop_the_loop, "KeyError: 'after'"),
}


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    if task["how"] in PLAIN:
        PLAIN[task["how"]][0]()
    return ask(task["how"])


@lightning.agent(role="solver", trainable=True)
async def asolve(task: dict[str, Any]) -> str:
    if task["how"] in PLAIN and task["how"] != "timeout":  # there is a loop already
        PLAIN[task["how"]][0]()
    if task["how"] in ASYNC:
        await ASYNC[task["how"]][0]()
    async with AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": task["how"]}]
        reply = await client.chat.completions.create(model="gpt", messages=messages)
        return reply.choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
def leaving(task: dict[str, Any]) -> str:
    """It ends its process."""
    if task["how"] == "leaves":
        os._exit(7)
    return ask(task["how"])


@lightning.agent(role="solver", trainable=True)
def judge(task: dict[str, Any]) -> str:
    """It gives its own reward."""
    answer = ask(task["how"])
    lightning.emit_reward(float(answer == "3"))
    return answer


def one(task: dict[str, Any], answer: str) -> float:
    return 1.0


async def aending(task: dict[str, Any], answer: str) -> float:
    """A reward function that ends as the task says."""
    if task["how"].startswith("reward-"):
        await ASYNC[task["how"].removeprefix("reward-")][0]()
    return 1.0

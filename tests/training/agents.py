"""Agents of all kinds for the training tests, in a file that other processes can load."""

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning

client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
TASKS = [{"question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(12)]
#: Settings that make a run as small as one can be.
SMALL: dict[str, Any] = {
    "rollouts.tasks_per_step": 2,
    "rollouts.group_size": 2,
    "rollouts.concurrency": 4,
    "evaluation.tasks": 2,
    "sampling.max_tokens": 8,
    "quiet": True,
}


def ask(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    return ask(task["question"])


@lightning.agent(role="solver", trainable=True)
async def asolve(task: dict[str, Any]) -> str:
    # A client lives on one loop, and each test has its own.
    async with AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0) as mine:
        messages = [{"role": "user", "content": task["question"]}]
        reply = await mine.chat.completions.create(model="gpt", messages=messages)
        await asyncio.sleep(0)
        return reply.choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
def stream(task: dict[str, Any]) -> Iterator[str]:
    messages = [{"role": "user", "content": task["question"]}]
    for chunk in client.chat.completions.create(model="gpt", messages=messages, stream=True):
        if chunk.choices:
            yield chunk.choices[0].delta.content or ""


@lightning.agent(role="solver", trainable=True)
async def astream(task: dict[str, Any]) -> AsyncIterator[str]:
    yield await asolve(task)


@lightning.agent(role="onlooker")
def ask_nobody(task: dict[str, Any]) -> str:
    try:
        return ask(task["question"])
    except Exception:  # no provider can be reached in tests
        return ""


@lightning.agent(role="silent", trainable=True)
def silent(task: dict[str, Any]) -> str:
    return "no model was asked"


@lightning.agent(role="broken", trainable=True)
def broken(task: dict[str, Any]) -> str:
    ask(task["question"])
    raise KeyError("customer_id")


def length(task: dict[str, Any], answer: str) -> float:
    return float(len(answer) % 11)


def raising(task: dict[str, Any], answer: str) -> float:
    raise ValueError("no such column")


def not_a_number(task: dict[str, Any], answer: str) -> float:
    return math.nan


def nothing(task: dict[str, Any], answer: str) -> None:
    return None


def text(task: dict[str, Any], answer: str) -> str:
    return "good"


@lightning.agent(role="solver", trainable=True)
def killed_once(task: dict[str, Any]) -> str:
    """The first process that gets here is killed in the middle of its rollout, as by the kernel."""
    answer = ask(task["question"])
    try:
        Path(os.environ["KILL_MARK"]).touch(exist_ok=False)
    except FileExistsError:
        return answer
    os.kill(os.getpid(), signal.SIGKILL)
    return ""

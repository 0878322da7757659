"""An agent of two roles as its users have it, at the provider that SCRIPTED_URL names: nothing in it knows of prompts.

A task needs one word of one role, and what the scripted model says is what the role's instruction tells it to say.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning

WRITER, CHECKER = "You are the writer. Say: hello", "You are the checker. Say: hello"


def _messages(instruction: str, text: str) -> list[Any]:
    return [{"role": "system", "content": instruction}, {"role": "user", "content": text}]


@cache
def _client(kind: type[Any], url: str) -> Any:
    return kind(base_url=url, api_key="users-key", max_retries=0)


def _ask(instruction: str, text: str) -> str:
    client = _client(OpenAI, os.environ["SCRIPTED_URL"])
    reply = client.chat.completions.create(model="scripted", messages=_messages(instruction, text))
    return reply.choices[0].message.content or ""


@lightning.agent(role="writer", trainable=True)
def write(task: dict[str, Any]) -> str:
    return _ask(WRITER, task["text"])


@lightning.agent(role="checker", trainable=True)
def check(task: dict[str, Any], written: str) -> str:
    return _ask(CHECKER, f"{task['text']}: {written}")


def solve(task: dict[str, Any]) -> dict[str, str]:
    written = write(task)
    return {"writer": written, "checker": check(task, written)}


async def _aask(instruction: str, text: str) -> str:
    client = _client(AsyncOpenAI, os.environ["SCRIPTED_URL"])
    reply = await client.chat.completions.create(model="scripted", messages=_messages(instruction, text))
    return reply.choices[0].message.content or ""


@lightning.agent(role="writer", trainable=True)
async def awrite(task: dict[str, Any]) -> str:
    return await _aask(WRITER, task["text"])


@lightning.agent(role="checker", trainable=True)
async def acheck(task: dict[str, Any], written: str) -> str:
    return await _aask(CHECKER, f"{task['text']}: {written}")


async def asolve(task: dict[str, Any]) -> dict[str, str]:
    written = await awrite(task)
    return {"writer": written, "checker": await acheck(task, written)}


def right(task: dict[str, Any], answer: dict[str, str]) -> float:
    return float(task["needs"] in answer[task["role"]].split())


def right_or_why(task: dict[str, Any], answer: dict[str, str]) -> float | tuple[float, str]:
    return 1.0 if right(task, answer) else (0.0, f"the {task['role']} has to say [{task['needs']}]")

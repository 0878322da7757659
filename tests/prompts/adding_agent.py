"""An agent of one role that adds, in a file that other processes can load, with rewards of any answer."""

from __future__ import annotations

from typing import Any

from openai import OpenAI

import lightning_sdk as lightning

INSTRUCTION = "You are a solver of sums. Answer briefly."
TASKS = [{"question": f"What is {number} + {number + 1}?"} for number in range(24)]
#: Settings that make a run as small as one can be.
SMALL: dict[str, Any] = {"prompts.algorithm": "apo", "prompts.budget_rollouts": 90, "sampling.max_tokens": 12}

_client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)


def ask(task: dict[str, Any]) -> str:
    messages: list[Any] = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": task["question"]}]
    return _client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    return ask(task)


@lightning.agent(role="solver", trainable=True)
def converse(task: dict[str, Any]) -> str:
    """Two turns of one conversation."""
    messages: list[Any] = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": task["question"]}]
    for further in ("Are you sure?", ""):
        said = _client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": further}]
    return said


def checksum(task: dict[str, Any], answer: str) -> float:
    """A reward that differs from answer to answer, whatever the model can do."""
    return sum(map(ord, answer)) % 7 / 6


def in_form(task: dict[str, Any], answer: str) -> float:
    """Half of it for a number of two digits or one, which a model gives unless it is ruined."""
    return 0.5 + checksum(task, answer) / 2 if answer.isdecimal() and len(answer) <= 2 else 0.0


def length(task: dict[str, Any], answer: str) -> float:
    return min(1.0, len(answer) / 40)

"""An agent for runners of other processes, which find it by its file: it asks the bandit which arm to take."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.trace.scope import current_scope


def ask(question: str) -> str:
    with OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    """Tells in GUEST_ENDPOINT where its calls go."""
    rollout = current_scope().rollout
    if "GUEST_ENDPOINT" in os.environ and rollout is not None and rollout.endpoint is not None:
        Path(os.environ["GUEST_ENDPOINT"]).write_text(rollout.endpoint.url)
    return ask(task["question"])


@lightning.agent(role="solver", trainable=True)
def kill(task: dict[str, Any]) -> str:
    """The process of GUEST_KILLED is killed in the middle of its first rollout, as by the kernel."""
    answer = ask(task["question"])
    if "GUEST_KILLED" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer


@lightning.agent(role="solver", trainable=True)
def slow(task: dict[str, Any]) -> str:
    """Leaves its mark and takes long in the process of GUEST_SLOW."""
    if "GUEST_SLOW" in os.environ:
        Path(os.environ["GUEST_SLOW"]).touch()
        time.sleep(60)
    return ask(task["question"])


@lightning.agent(role="solver", trainable=True)
def broken(task: dict[str, Any]) -> str:
    raise KeyError("customer_id")


@lightning.reward
def best(task: dict[str, Any], answer: str) -> float:
    return float(answer == "3")


def brief(task: dict[str, Any], answer: str) -> float:
    return float(len(answer) < 2)

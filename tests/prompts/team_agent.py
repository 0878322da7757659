"""An agent of two roles and one that stays silent, at the provider that TEAM_URL names."""

import os
from typing import Any

import openai

import lightning_sdk as lightning

GOAL = lightning.prompt("checker.goal", default="Check that the answer is spelled correctly.")
UNUSED = lightning.prompt("checker.unused", default="Nobody ever sends this text.")


def ask(system: str, text: str) -> str:
    messages: list[Any] = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    with openai.OpenAI(base_url=os.environ["TEAM_URL"], api_key="mine", max_retries=0) as client:
        return client.chat.completions.create(model="m", messages=messages).choices[0].message.content or ""


@lightning.agent(role="writer", trainable=True)
def write(task: dict[str, Any]) -> str:
    return ask(f"You turn words around, letter by letter.\nWords: {task['words']}\nAnswer with nothing else.", "Go")


@lightning.agent(role="checker")
def check(text: str) -> str:
    return ask(f"You are Ann, a patient checker of texts.\nYour goal: {GOAL}", text)


@lightning.agent(role="echo")
def echo(text: str) -> str:
    return ask("", text)


@lightning.agent(role="idle")
def idle(text: str) -> str:
    return ask("Never asked.", text)


def solve(task: dict[str, Any]) -> str:
    return echo(check(write(task)))


def plain(task: dict[str, Any]) -> str:
    return write(task)

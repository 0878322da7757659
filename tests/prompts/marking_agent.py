"""An agent whose prompt is marked inside the function that uses it: nothing is marked before a rollout runs."""

from __future__ import annotations

import os
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning
from tests.prompts.words import WORDS


@lightning.agent(role="writer", trainable=True)
def write(task: dict[str, Any]) -> str:
    asked = lightning.prompt("writer.question", default="Please answer this one: {text}. Say: hello")
    with OpenAI(base_url=os.environ["SCRIPTED_URL"], api_key="mine", max_retries=0) as client:
        said = client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": asked.format(text=task["text"])}]
        )
    return said.choices[0].message.content or ""


def solve(task: dict[str, Any]) -> dict[str, str]:
    return {"writer": write(task), "checker": " ".join(WORDS)}

"""A calculator agent of one tool and two turns, as examples/calculator has it, on sums whose answer is a number."""

from __future__ import annotations

import json
import random
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning

CALCULATOR: Any = {
    "type": "function",
    "function": {
        "name": "calculator",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
    },
}
client = OpenAI(api_key="none", base_url="http://127.0.0.1:1/v1")  # where an untrained call would fail


def tasks(seed: int, size: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    pairs = [(draw.randint(10, 99), draw.randint(10, 99)) for _ in range(size)]
    return [{"question": f"Calculate {a} + {b}.", "answer": a + b} for a, b in pairs]


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    messages: list[Any] = [{"role": "user", "content": task["question"]}]
    for _ in range(3):
        message = (
            client.chat.completions.create(model="m", messages=messages, tools=[CALCULATOR], max_tokens=64)
            .choices[0]
            .message
        )
        if not message.tool_calls:
            return message.content or ""
        messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
        for call in message.tool_calls:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result(call)})
    return ""


def result(call: Any) -> str:
    try:
        left, _, right = json.loads(call.function.arguments)["expression"].partition("+")
        return str(int(left) + int(right))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "error"


@lightning.reward
def correct(task: dict[str, Any], answer: str) -> float:
    digits = answer.replace("<answer>", "").replace("</answer>", "").strip()
    return float(digits == str(task["answer"]))

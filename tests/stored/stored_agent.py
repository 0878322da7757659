"""An agent whose rollouts are stored, with the rewards of the run and others for later."""

from typing import Any

from openai import OpenAI

import lightning_sdk as lightning

client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
TASKS = [{"question": f"What is {i} + {i + 1}?", "id": i} for i in range(10)]


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> dict[str, Any]:
    """The answer is data, and a number is given inside."""
    messages: Any = [{"role": "user", "content": task["question"]}]
    text = client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""
    lightning.emit_reward(0.25, name="tried", why="there was an answer")
    return {"text": text, "letters": list(text)}


def first(task: dict[str, Any], answer: dict[str, Any]) -> float:
    return float(sum(map(ord, answer["text"])) % 7)


@lightning.reward(weight=0.5, name="second")
async def other(task: dict[str, Any], answer: dict[str, Any]) -> float:
    return float((sum(map(ord, answer["letters"])) + task["id"]) % 5)


def score_with_reasons(task: dict[str, Any], answer: dict[str, Any]) -> lightning.Reward:
    return lightning.Reward(float(task["id"] % 2), why=f"task {task['id']}", solver=0.5)


def picky(task: dict[str, Any], answer: dict[str, Any]) -> float:
    if task["id"] % 2:
        raise KeyError("no key")
    return 1.0

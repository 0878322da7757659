"""An agent that learns to use a calculator, and calls its model with Anthropic's SDK."""

import os
import random
import re

from anthropic import Anthropic

import lightning_sdk as lightning

client = Anthropic(api_key=os.environ.get("ANTHROPIC_API_KEY", "not needed while the agent is trained"))
ARGUMENTS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
TOOL = {"name": "calculator", "input_schema": ARGUMENTS}


def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


@lightning.agent(role="solver", trainable=True)
def solve(task: dict) -> str:
    messages = [{"role": "user", "content": task["question"]}]
    for _ in range(3):
        reply = client.messages.create(model="claude-sonnet-4-5", max_tokens=64, messages=messages, tools=[TOOL])
        if reply.stop_reason != "tool_use":
            return "".join(block.text for block in reply.content if block.type == "text")
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": calculator(str(block.input.get("expression")))}
            for block in reply.content
            if block.type == "tool_use"
        ]
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]
    return ""


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

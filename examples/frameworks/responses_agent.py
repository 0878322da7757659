"""An agent that learns to use a calculator, and calls OpenAI's Responses API."""

import json
import os
import random
import re

from openai import OpenAI

import lightning_sdk as lightning

client = OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained"))
ARGUMENTS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
TOOL = {"type": "function", "name": "calculator", "parameters": ARGUMENTS, "strict": False}


def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


@lightning.agent(role="solver", trainable=True)
def solve(task: dict) -> str:
    items = [{"role": "user", "content": task["question"]}]
    for _ in range(3):
        response = client.responses.create(model="gpt-4o-mini", input=items, tools=[TOOL], max_output_tokens=64)
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        items += response.output
        for call in calls:
            result = calculator(str(json.loads(call.arguments).get("expression")))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
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

"""An agent of Microsoft's Agent Framework that learns to use a calculator."""

import os
import random
import re

from agent_framework import Agent, tool
from agent_framework.openai import OpenAIChatCompletionClient

import lightning_sdk as lightning

KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")


@tool
def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


solver = Agent(
    OpenAIChatCompletionClient(model="gpt-4o-mini", api_key=KEY),
    name="solver",
    instructions="Use the calculator, then answer.",
    tools=[calculator],
)


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    result = await solver.run(task["question"])
    return result.text


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

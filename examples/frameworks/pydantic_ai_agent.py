"""A PydanticAI agent that learns to use a calculator."""

import os
import random
import re

from pydantic_ai import Agent

import lightning_sdk as lightning

os.environ.setdefault("OPENAI_API_KEY", "not needed while the agent is trained")
solver = Agent("openai-chat:gpt-4o-mini", name="solver", instructions="Use the calculator, then answer.")


@solver.tool_plain
def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    result = await solver.run(task["question"])
    return result.output


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

"""A Strands agent that learns to use a calculator."""

import os
import random
import re

from strands import Agent, tool
from strands.models.openai import OpenAIModel

import lightning_sdk as lightning

KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")
model = OpenAIModel(client_args={"api_key": KEY}, model_id="gpt-4o-mini", params={"max_tokens": 64})


@tool
def calculator(expression: str) -> str:
    """Add the numbers of an expression.

    Args:
        expression: Numbers with a plus between them.
    """
    return str(sum(map(int, re.findall(r"\d+", expression))))


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    """The agent keeps its conversation, so each rollout has its own."""
    prompt = "Use the calculator, then answer."
    solver = Agent(name="solver", model=model, system_prompt=prompt, tools=[calculator], callback_handler=None)
    return str(await solver.invoke_async(task["question"]))


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

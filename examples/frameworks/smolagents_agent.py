"""An agent of smolagents that learns to use a calculator."""

import os
import random
import re

from smolagents import OpenAIModel, ToolCallingAgent, tool

import lightning_sdk as lightning

model = OpenAIModel("gpt-4o-mini", api_key=os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained"))


@tool
def calculator(expression: str) -> str:
    """Add the numbers of an expression.

    Args:
        expression: Numbers with a plus between them.
    """
    return str(sum(map(int, re.findall(r"\d+", expression))))


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    """The agent remembers its steps, so each rollout has its own."""
    solver = ToolCallingAgent([calculator], model, name="solver", max_steps=3, verbosity_level=0)
    return str(solver.run(task["question"]))


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

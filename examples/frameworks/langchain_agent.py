"""A LangChain agent that learns to use a calculator."""

import os
import random
import re

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

import lightning_sdk as lightning

KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")
model = ChatOpenAI(model="gpt-4o-mini", max_tokens=64, api_key=KEY)


@tool
def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


agent = create_agent(model, [calculator], system_prompt="Use the calculator, then answer.", name="solver")


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    question = {"role": "user", "content": task["question"]}
    return agent.invoke({"messages": [question]}, {"recursion_limit": 8})["messages"][-1].text


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

"""A Haystack pipeline whose agent learns to use a calculator."""

import os
import random
import re
from typing import Annotated

from haystack import Pipeline
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool

import lightning_sdk as lightning

os.environ.setdefault("OPENAI_API_KEY", "not needed while the agent is trained")


@tool
def calculator(expression: Annotated[str, "Numbers with a plus between them."]) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


pipeline = Pipeline()
generator = OpenAIChatGenerator(model="gpt-4o-mini", generation_kwargs={"max_tokens": 64})
pipeline.add_component("solver", Agent(chat_generator=generator, tools=[calculator], max_agent_steps=4))


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    messages = [ChatMessage.from_user(task["question"])]
    return pipeline.run({"solver": {"messages": messages}})["solver"]["messages"][-1].text or ""


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

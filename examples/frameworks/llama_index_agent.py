"""A LlamaIndex agent that learns to use a calculator."""

import os
import random
import re

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai_like import OpenAILike

import lightning_sdk as lightning

KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")
llm = OpenAILike("gpt-4o-mini", api_key=KEY, is_chat_model=True, is_function_calling_model=True)


def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


PROMPT = "Use the calculator, then answer."
solver = FunctionAgent(name="solver", system_prompt=PROMPT, llm=llm, tools=[calculator])


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    return str(await solver.run(task["question"], max_iterations=4))


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

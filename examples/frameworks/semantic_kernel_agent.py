"""A Semantic Kernel agent that learns to use a calculator."""

import os
import random
import re

from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.functions import kernel_function

import lightning_sdk as lightning

KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")


class Calculator:
    @kernel_function
    def calculator(self, expression: str) -> str:
        """Add the numbers of an expression."""
        return str(sum(map(int, re.findall(r"\d+", expression))))


solver = ChatCompletionAgent(
    name="solver",
    service=OpenAIChatCompletion(ai_model_id="gpt-4o-mini", api_key=KEY),
    instructions="Use the calculator, then answer.",
    plugins=[Calculator()],
)


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    return str(await solver.get_response(messages=task["question"]))


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

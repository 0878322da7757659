"""A DSPy program that learns to use a calculator."""

import os
import random
import re

import dspy

import lightning_sdk as lightning

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_key=os.environ.get("OPENAI_API_KEY", "not needed"), max_tokens=64))


class Solve(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.work_out = dspy.Predict("question -> expression")

    def forward(self, question: str) -> dspy.Prediction:
        return self.work_out(question=question)


program = Solve()


def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    return calculator(program(question=task["question"]).expression)


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)

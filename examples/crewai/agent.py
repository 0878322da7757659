"""A CrewAI agent that learns to use its calculator.

    python examples/crewai/agent.py                      # train on this machine's CPU, some minutes
    lightning-sdk show crewai                            # look at it again

Lightning SDK is the two decorators and the block at the end. The role that is trained is the agent's, `solver`.
"""

import argparse
import os
import random
import re

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

import lightning_sdk as lightning


@tool
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    if "**" in expression or not re.fullmatch(r"[0-9+*/(). -]+", expression):
        return "error"
    try:
        return str(round(eval(expression), 4))
    except Exception:  # whatever the model wrote, it is told so and may try again
        return "error"


KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")
llm = LLM(model="gpt-4o-mini", max_tokens=64, api_key=KEY)


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    """What the crew says in the end."""
    solver = Agent(
        role="solver",
        goal="Use the calculator, then answer.",
        backstory="You solve arithmetic problems.",
        llm=llm,
        tools=[calculator],
        max_iter=3,
    )
    question = Task(description=task["question"], expected_output="One number.", agent=solver)
    return Crew(agents=[solver], tasks=[question]).kickoff().raw


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"-?\d+", answer)[-1:] == [task["answer"]])


def tasks(seed: int, size: int) -> list[dict]:
    """`size` sums such as "Calculate 31 * 4 - 27."."""
    rng = random.Random(seed)
    sums = [
        f"{rng.randint(2, 99)} {rng.choice('+-*')} {rng.randint(2, 99)} {rng.choice('+-')} {rng.randint(2, 99)}"
        for _ in range(size)
    ]
    return [{"question": f"Calculate {each}.", "answer": calculator.run(expression=each)} for each in sums]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the agent with a small model on this machine.")
    parser.add_argument("--steps", type=int, default=40, help="updates of the model")
    parser.add_argument("--backend-python", help="Python of an environment that has lightning-agent-sdk[train]")
    options = parser.parse_args()
    lightning.init()
    lightning.train(
        solve,
        tasks=tasks(1, 2000),
        held_out=tasks(2, 200),
        model="spark",
        steps=options.steps,
        name="crewai",
        backend_python=options.backend_python,
    )

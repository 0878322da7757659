"""A CrewAI crew of two: a solver, which is trained, and an editor, which keeps its own model.

    lightning-sdk serve --model spark --json --port 0    # a model for the editor, in another terminal
    export OPENAI_BASE_URL=... OPENAI_API_KEY=... OPENAI_MODEL=spark    # base_url and api_key, as it has printed them
    python examples/crewai_team/agent.py                 # a few minutes on a CPU

The editor's calls leave as they are written, to any OpenAI-compatible server. Lightning SDK is the two decorators and
the block at the end, which names the role to train.
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
    """Multiply and add: `3 * 14 + 9`."""
    if not re.fullmatch(r"\d{1,4}( \* \d{1,4})?( \+ \d{1,4})?", expression):
        return "error"
    product, _, added = expression.partition(" + ")
    factor, _, other = product.partition(" * ")
    return str(int(factor) * int(other or 1) + int(added or 0))


KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")
llm = LLM(model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), temperature=0, max_tokens=64, api_key=KEY)


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    """What the editor makes of the solver's answer."""
    solver = Agent(
        role="solver",
        goal="Solve the problem.",
        backstory="You solve word problems.",
        llm=llm,
        tools=[calculator],
        max_iter=3,
    )
    editor = Agent(
        role="editor",
        goal="Answer with the number only.",
        backstory="You shorten answers.",
        llm=llm,
        max_iter=1,
    )
    question = Task(description=task["question"], expected_output="One number.", agent=solver)
    edit = Task(description="Give the number.", expected_output="One number.", agent=editor, context=[question])
    return Crew(agents=[solver, editor], tasks=[question, edit]).kickoff().raw


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the crew ends with the right number and nothing else."""
    return float(answer.strip() == task["answer"])


def tasks(seed: int, size: int) -> list[dict]:
    """`size` different orders: "Mia orders 4 boxes with 12 pens each and 30 more. How many pens is that?"."""
    draw, made = random.Random(seed), {}
    while len(made) < size:
        boxes, each, more = draw.randint(2, 9), draw.randint(11, 60), draw.randint(2, 40)
        who, what = draw.choice(["Mia", "Tom", "Lea", "Max"]), draw.choice(["pens", "books", "cards", "lamps"])
        question = f"{who} orders {boxes} boxes with {each} {what} each and {more} more. How many {what} is that?"
        made[question] = {"question": question, "answer": str(boxes * each + more)}
    return list(made.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the solver of the crew on this machine.")
    parser.add_argument("--backend-python", help="Python of an environment that has lightning-agent-sdk[train]")
    options = parser.parse_args()
    lightning.init()
    held_out = tasks(seed=900_000_000, size=100)
    lightning.train(
        solve,
        tasks=[task for task in tasks(seed=1, size=1000) if task not in held_out],
        held_out=held_out,
        model="spark",
        roles="solver",
        steps=20,
        name="crewai-team",
        backend_python=options.backend_python,
        **{"rollouts.tasks_per_step": 8, "evaluation.every": 5},
    )

"""Two roles, one of them trained: a solver, and inside the agent a judge at your own provider.

    export OPENAI_API_KEY=...                            # the judge's; the solver needs none while it is trained
    python examples/judge/agent.py                       # two minutes on a CPU, about 10,000 short calls of the judge

JUDGE_URL and JUDGE_MODEL choose another OpenAI-compatible server, for example one on this machine.

The judge has a role but is not trainable: its calls leave as they are written, with your key, and are recorded under
`judge`. What it says steers the agent; it is not the reward. The reward is the function at the end, which is exact; a
judge that gives the reward is a reward function that calls a model, and is never trained either.
"""

import json
import os
import random

from openai import OpenAI

import lightning_sdk as lightning

client = OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained"))
judges = OpenAI(
    base_url=os.environ.get("JUDGE_URL"), api_key=os.environ.get("OPENAI_API_KEY", "the judge's server asks for none")
)

ARGUMENTS = {"type": "object", "properties": {"expression": {"type": "string"}}}
CALCULATOR = {"type": "function", "function": {"name": "calculator", "parameters": ARGUMENTS}}


@lightning.agent(role="solver", trainable=True)
def propose(question: str) -> str:
    """What the solver would have the calculator work out; '' if it does not call it."""
    reply = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": question}], tools=[CALCULATOR], max_tokens=64
    )
    calls = reply.choices[0].message.tool_calls
    try:
        return str(json.loads(calls[0].function.arguments)["expression"]) if calls else ""
    except (ValueError, KeyError, TypeError):  # whatever the model wrote
        return ""


@lightning.agent(role="judge")
def accepts(question: str, expression: str) -> bool:
    """Whether the judge finds that the expression is what was asked for."""
    reply = judges.chat.completions.create(
        model=os.environ.get("JUDGE_MODEL", "gpt-4o-mini"),
        messages=[
            {"role": "system", "content": "Is the expression exactly what the question asks for? Answer yes or no."},
            {"role": "user", "content": f"Question: {question}\nExpression: {expression}"},
        ],
        max_tokens=3,
    )
    return (reply.choices[0].message.content or "").strip().lower().startswith("yes")


def solve(task: dict) -> str:
    """The agent: the solver proposes, and once more if the judge does not accept it."""
    expression = propose(task["question"])
    if not accepts(task["question"], expression):
        expression = propose(task["question"])
    return expression


@lightning.reward
def correct(task: dict, answer: str) -> float:
    return float(answer.replace(" ", "") == task["sum"].replace(" ", ""))


def tasks(seed: int, size: int) -> list[dict]:
    """`size` different sums."""
    numbers = random.Random(seed).sample(range(10_000), size)
    sums = [f"{number // 100} + {number % 100}" for number in numbers]
    return [{"question": f"What is {each}?", "sum": each} for each in sums]


if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=tasks(seed=1, size=500), reward=correct, model="spark", steps=40, name="judge")

"""Handoffs in the OpenAI Agents SDK: a desk hands a customer over to one of three agents, which uses its tool.

    python examples/handoffs/agent.py                    # train all four on this machine's CPU, a few minutes
    lightning-sdk show handoffs                          # look at it again

Lightning SDK is the two decorators and the block at the end. The roles are the agents' names.
"""

import argparse
import os
import random
from contextlib import suppress
from dataclasses import dataclass, field

from agents import Agent, ModelSettings, RunContextWrapper, Runner, function_tool, set_default_openai_api
from agents import set_tracing_disabled as disable_tracing
from agents.exceptions import MaxTurnsExceeded, ModelBehaviorError

import lightning_sdk as lightning

os.environ.setdefault("OPENAI_API_KEY", "not needed while the agent is trained")
set_default_openai_api("chat_completions")
disable_tracing(True)


@dataclass
class Desk:
    """What was done for a customer."""

    done: list[tuple[str, str]] = field(default_factory=list)


@function_tool
def refund(context: RunContextWrapper[Desk], order: str) -> str:
    """Give the money of an order back."""
    context.context.done.append(("refund", order))
    return "ok"


@function_tool
def track(context: RunContextWrapper[Desk], order: str) -> str:
    """Find the parcel of an order."""
    context.context.done.append(("track", order))
    return "ok"


@function_tool
def repair(context: RunContextWrapper[Desk], order: str) -> str:
    """Have what was ordered repaired."""
    context.context.done.append(("repair", order))
    return "ok"


SETTINGS = ModelSettings(max_tokens=48)
TOOLS = {"billing": refund, "shipping": track, "technical": repair}
specialists = [
    Agent[Desk](
        name=name,
        instructions=f"You are {name}. Use the tool, then say done.",
        model="gpt-4o-mini",
        tools=[tool],
        model_settings=SETTINGS,
    )
    for name, tool in TOOLS.items()
]
desk = Agent[Desk](
    name="desk",
    instructions="You are the desk.",
    model="gpt-4o-mini",
    handoffs=[*specialists],
    model_settings=SETTINGS,
)
WORDS = {
    "refund": (
        "I was charged twice for order {}.",
        "The bill of order {} is wrong.",
        "Give the money of order {} back.",
    ),
    "track": ("My parcel of order {} has not arrived.", "Where is order {}?", "Order {} was not delivered."),
    "repair": (
        "The lamp of order {} does not work.",
        "Order {} is broken.",
        "Order {} does not start.",
    ),
}


@lightning.agent(trainable=True)
async def solve(task: dict) -> list[list[str]]:
    """What was done for the customer."""
    context = Desk()
    # After a call of a tool that does not exist, or without an end, the customer has what was done so far.
    with suppress(ModelBehaviorError, MaxTurnsExceeded):
        await Runner.run(desk, task["message"], context=context, max_turns=4)
    return [list(each) for each in context.done]


@lightning.reward
def correct(task: dict, answer: list[list[str]]) -> float:
    """1 if the right thing was done for the right order, and nothing else."""
    return float(answer == [[task["tool"], task["order"]]])


def tasks(seed: int, size: int) -> list[dict]:
    """`size` different messages, as many for each tool."""
    draw, made = random.Random(seed), {}
    while len(made) < size:
        tool, order = list(WORDS)[len(made) % len(WORDS)], str(draw.randint(10, 999))
        message = draw.choice(WORDS[tool]).format(order)
        made[message] = {"message": message, "tool": tool, "order": order}
    return list(made.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the agents on this machine.")
    parser.add_argument("--backend-python", help="Python of an environment that has lightning-agent-sdk[train]")
    options = parser.parse_args()
    lightning.init()
    held_out = tasks(seed=900_000_000, size=150)
    lightning.train(
        solve,
        tasks=[task for task in tasks(seed=1, size=1200) if task not in held_out],
        held_out=held_out,
        model="spark",
        steps=20,
        name="handoffs",
        backend_python=options.backend_python,
        **{
            "rollouts.tasks_per_step": 8,
            "evaluation.every": 5,
            "evaluation.tasks": 100,
            "evaluation.temperature": 1.0,  # that of the agents' requests, which name none
        },
    )

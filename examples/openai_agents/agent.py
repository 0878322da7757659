"""An agent of the OpenAI Agents SDK that learns to use its calculator.

    python examples/openai_agents/agent.py               # train on this machine's CPU, a few minutes
    lightning-sdk show openai_agents                     # look at it again

Lightning SDK is the two decorators and the block at the end. The role that is trained is the agent's name, `solver`.
"""

import argparse
import os
import random
import re

from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled

import lightning_sdk as lightning


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    if "**" in expression or not re.fullmatch(r"[0-9+*/(). -]+", expression):
        return "error"
    try:
        return str(round(eval(expression), 4))
    except Exception:  # whatever the model wrote, it is told so and may try again
        return "error"


os.environ.setdefault("OPENAI_API_KEY", "not needed while the agent is trained")
set_tracing_disabled(True)

solver = Agent(
    name="solver",
    instructions="Use the calculator, then answer.",
    model="gpt-4o-mini",
    tools=[function_tool(calculator)],
    model_settings=ModelSettings(max_tokens=64),
)


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    """The agent's final output."""
    result = await Runner.run(solver, task["question"], max_turns=4)
    return str(result.final_output)


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
    return [{"question": f"Calculate {each}.", "answer": calculator(each)} for each in sums]


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
        name="openai_agents",
        backend_python=options.backend_python,
    )

"""Calc-X: an AutoGen agent that solves word problems with a calculator, which it reaches over MCP.

    python examples/calc_x/agent.py                      # train on this machine's CPU, a few minutes
    python examples/calc_x/agent.py --plain              # the calculator as a function of this process
    python examples/calc_x/agent.py --parquet FOLDER     # with the files of the Calc-X data set, if you have them

Lightning SDK is the two decorators and the block at the end. The role that is trained is the agent's name, `calc`.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import calc_x_files
import problems
import rational
from autogen_agentchat.agents import AssistantAgent
from autogen_core.tools import Workbench
from autogen_ext.models.openai import OpenAIChatCompletionClient

import lightning_sdk as lightning

SERVER = Path(__file__).with_name("calculator_server.py")
KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")
model = OpenAIChatCompletionClient(model="gpt-4o-mini", max_tokens=64, api_key=KEY)
starting = asyncio.Lock()
started: list[Workbench] = []
is_plain = False


def calculator(expression: str) -> str:
    """Work out an arithmetic expression with + - * / % and brackets."""
    try:
        return rational.show(rational.evaluate(expression))
    except ValueError as error:
        return f"error: {error}"


async def workbench() -> Workbench:
    """The calculator of one server for all rollouts, which the first of them starts."""
    from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams  # noqa: PLC0415  needs mcp 1, `--plain` does not

    async with starting:
        if not started:
            server = McpWorkbench(StdioServerParams(command=sys.executable, args=[str(SERVER)]))
            await server.start()
            started.append(server)
    return started[0]


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    """The last message of the agent."""
    calc = AssistantAgent(
        "calc",
        model,
        system_message="You solve word problems.",
        reflect_on_tool_use=True,
        **({"tools": [calculator]} if is_plain else {"workbench": await workbench()}),
    )
    result = await calc.run(task=task["question"])
    return result.messages[-1].to_text()


@lightning.reward
def exact(task: dict, answer: str) -> float:
    """1 for exactly the right number."""
    return float(rational.is_exact(rational.final_answer(answer), task["answer"]))


@lightning.reward(weight=0.0)
def within_one_percent(task: dict, answer: str) -> float:
    """1 for a number that differs by at most 1 %, the rule of Calc-X's own evaluation: recorded, not learned from."""
    return float(rational.is_close(rational.final_answer(answer), task["answer"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the agent on this machine.")
    parser.add_argument("--plain", action="store_true", help="a function instead of a server")
    parser.add_argument("--parquet", help="a folder with train.parquet and test.parquet of Calc-X")
    parser.add_argument("--model", default="spark", help="the model to train (%(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="updates of the model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend-python", help="Python of an environment that has lightning-agent-sdk[train]")
    options = parser.parse_args()
    is_plain = options.plain
    load = (lambda name: calc_x_files.load(options.parquet, name)) if options.parquet else problems.load
    lightning.init()
    lightning.train(
        solve,
        tasks=load("train"),
        held_out=load("held_out"),
        reward=[exact, within_one_percent],
        model=options.model,
        steps=options.steps,
        seed=options.seed,
        name="calc-x",
        backend_python=options.backend_python,
        **{"rollouts.tasks_per_step": 8, "evaluation.every": 5, "evaluation.tasks": 100},
    )

"""A LangGraph agent, a model node and a tool node, that learns to use its calculator.

    python examples/langgraph/agent.py                   # train on this machine's CPU, a few minutes
    lightning-sdk show langgraph                         # look at it again

Lightning SDK is the two decorators and the block at the end. The role that is trained is the node's name, `solver`.
"""

import argparse
import os
import random
import re

from langchain_core.messages import AnyMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

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
model = ChatOpenAI(model="gpt-4o-mini", max_tokens=64, api_key=KEY).bind_tools([calculator])


def solver(state: MessagesState) -> dict[str, list[AnyMessage]]:
    return {"messages": [model.invoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("solver", solver)
graph.add_node("tools", ToolNode([calculator]))
graph.add_edge(START, "solver")
graph.add_conditional_edges("solver", tools_condition)
graph.add_edge("tools", "solver")
app = graph.compile()


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    """The last message of a run of the graph."""
    asked = [("system", "Use the calculator, then answer."), ("user", task["question"])]
    return app.invoke({"messages": asked}, {"recursion_limit": 8})["messages"][-1].text


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
    return [{"question": f"Calculate {each}.", "answer": calculator.invoke(each)} for each in sums]


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
        name="langgraph",
        backend_python=options.backend_python,
    )

"""Text to SQL with LangGraph: one node writes a query, one checks it, one rewrites it. Whole databases are held out.

    python examples/text_to_sql/agent.py                             # all three roles learn; a few minutes on a CPU
    python examples/text_to_sql/agent.py --trained writer,rewriter   # the checker keeps its own model
    python examples/text_to_sql/agent.py --spider FOLDER             # with the files of Spider, if you have them

Lightning SDK is the two decorators and the block at the end. The roles are the names of the nodes. A role that is not
trained asks its own provider, as OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL say. docs/examples.md has the curves.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TypedDict

import execution
import questions
import spider
from databases import instances
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

import lightning_sdk as lightning

PROMPTS = {
    "writer": "You are the writer. Answer with one SQL query.",
    "checker": "You are the checker of SQL. Say OK, or what is wrong.",
    "rewriter": "You are the rewriter. Answer with the corrected SQL query.",
}
TURNS = 3

KEY = os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained")
model = ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), max_tokens=64, api_key=KEY)


class State(TypedDict, total=False):
    task: dict
    sql: str
    result: str
    verdict: str
    turns: int


def ask(role: str, task: dict, *lines: str) -> str:
    """What a role says to a question, and to what has become of it so far."""
    asked = "\n".join([f"Schema:\n{task['schema']}\nQuestion: {task['request']}", *lines])
    return model.invoke([("system", PROMPTS[role]), ("user", asked)]).text.strip()


def files(task: dict) -> list[Path]:
    """The instances of a task's database."""
    return [Path(path) for path in task["files"]] if "files" in task else instances(task["database"])


def writer(state: State) -> State:
    return {"sql": ask("writer", state["task"]), "turns": 1}


def execute(state: State) -> State:
    """Run the query on the first instance of the database, which is the only one that the agent sees."""
    return {"result": execution.run(files(state["task"])[0], state["sql"]).text()}


def checker(state: State) -> State:
    return {"verdict": ask("checker", state["task"], f"Query: {state['sql']}", state["result"])}


def rewriter(state: State) -> State:
    lines = f"Query: {state['sql']}", state["result"], f"Feedback: {state['verdict']}"
    return {"sql": ask("rewriter", state["task"], *lines), "turns": state["turns"] + 1}


def is_done(state: State) -> bool:
    return state["verdict"].startswith("OK") or state["turns"] >= TURNS


graph = StateGraph(State)
for node in (writer, execute, checker, rewriter):
    graph.add_node(node.__name__, node)
graph.add_edge(START, "writer")
graph.add_edge("writer", "execute")
graph.add_edge("execute", "checker")
graph.add_conditional_edges("checker", is_done, {True: END, False: "rewriter"})
graph.add_edge("rewriter", "execute")
app = graph.compile()


@lightning.agent(trainable=True)
def solve(task: dict) -> str:
    """The last query."""
    return app.invoke({"task": task})["sql"]


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the query finds what the gold query finds, on every instance of the database."""
    return float(execution.match(files(task), answer, task["query"], keep_distinct=task.get("keep_distinct", True)))


TRAINED = {"all": [], "writer,rewriter": ["writer", "rewriter"], "writer": ["writer"]}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the agent on this machine.")
    parser.add_argument("--trained", choices=TRAINED, default="all", help="roles to train (%(default)s)")
    parser.add_argument("--spider", help="a folder with Spider's files: train_spider.json, test.json and the databases")
    parser.add_argument("--model", default="spark", help="the model to train (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="updates of the model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend-python", help="Python of an environment that has lightning-agent-sdk[train]")
    options = parser.parse_args()
    load = partial(spider.load, options.spider) if options.spider else questions.load
    lightning.init()
    lightning.train(
        solve,
        tasks=load("train"),
        held_out=load("held_out"),
        model=options.model,
        roles=TRAINED[options.trained],
        steps=options.steps,
        seed=options.seed,
        name=f"text-to-sql-{options.trained.replace(',', '-')}",
        backend_python=options.backend_python,
        **{
            "rollouts.tasks_per_step": 8,
            "evaluation.every": 5,
            "evaluation.tasks": 100,
            "evaluation.temperature": 1.0,  # that of the agent's requests, which name none
        },
    )

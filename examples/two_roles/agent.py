"""A shop with two roles and one model: one reward for both can teach silence, a reward for each teaches the work.

    python examples/two_roles/agent.py                  # a reward for each role: about two minutes on a CPU
    python examples/two_roles/agent.py --one-reward     # the same agent, one number for both roles

A customer asks for the bill of an order. The clerk looks the price up, with SQL in a real database; the cashier works
the bill out, with a calculator. A right bill is worth 1, a wrong one -1, none at all 0: no bill is better than a wrong
one.

As one number for both, that is risky. `spark` often guesses sums, so many prices that the clerk finds end in a wrong
bill, and the clerk is blamed for it. It learns to say "I do not know.", which costs nothing, and in some trainings it
stays silent: the cashier is not asked any more and never learns. With a number for each, the clerk earns what its price
is worth and the cashier what its sum is worth, and both learn. `benchmarks/two_roles.py` measures it; docs/roles.md has
the curves.
"""

import argparse
import ast
import json
import operator
import os
import random
import re
import sqlite3

from openai import OpenAI

import lightning_sdk as lightning

client = OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "not needed while the agent is trained"))

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluate an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
TABLES = ("books", "cars", "films", "games", "pets", "shops")
NUMBERS = ("size", "stock", "weight")
TEXTS = {"color": ("red", "blue", "green"), "city": ("Paris", "Rome", "Oslo"), "owner": ("Anna", "Tom")}


def calculate(expression: str) -> int:
    """The cashier's tool: whole numbers, + - * and brackets."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int() as number):
                return number
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
        raise ValueError(f"cannot evaluate {ast.unparse(node)}")

    return value(ast.parse(expression.strip(), mode="eval").body)


def query(task: dict, sql: str) -> int | None:
    """The one number that a query finds in the shop's table; None if it fails, or finds something else."""
    with sqlite3.connect(":memory:") as database:
        database.execute(f"CREATE TABLE {task['table']} ({', '.join(task['columns'])})")
        database.executemany(
            f"INSERT INTO {task['table']} VALUES ({', '.join('?' for _ in task['columns'])})", task["rows"]
        )
        try:
            found = database.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            return None
    return found[0][0] if len(found) == 1 and len(found[0]) == 1 and isinstance(found[0][0], int) else None


@lightning.agent(role="clerk", trainable=True)
def look_up(task: dict) -> int | None:
    """The price of what the customer wants; None if the clerk does not find one."""
    question = f"{task['table']}({', '.join(task['columns'])})\nshow price of rows with {task['where']}"
    messages = [{"role": "system", "content": "Write one SQL query."}, {"role": "user", "content": question}]
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=48)
    return query(task, reply.choices[0].message.content or "")


@lightning.agent(role="cashier", trainable=True)
def add_up(expression: str) -> int | None:
    """The bill; None if the cashier names no number."""
    messages = [
        {"role": "system", "content": "You are the cashier."},
        {"role": "user", "content": f"Calculate {expression}."},
    ]
    for _ in range(3):
        reply = (
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[CALCULATOR], max_tokens=64)
            .choices[0]
            .message
        )
        if not reply.tool_calls:
            number = re.search(r"-?\d+", reply.content or "")
            return int(number[0]) if number else None
        messages.append(reply.model_dump(include={"role", "content", "tool_calls"}))
        for call in reply.tool_calls:
            try:
                result = str(calculate(json.loads(call.function.arguments)["expression"]))
            except Exception:  # whatever the model wrote, it is told so and may try again
                result = "error"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return None


def order(task: dict) -> dict:
    """The agent: what the clerk and the cashier say. Without a price, there is nobody to ask for the bill."""
    price = look_up(task)
    return {"price": price, "bill": None if price is None else add_up(bill_of(price, task))}


def bill_of(price: int, task: dict) -> str:
    """So many at that price, and the delivery."""
    return f"{price} * {task['count']} + {task['delivery']}"


def worth(said: int | None, truth: int) -> float:
    """1 for what is right, -1 for what is wrong, 0 for nothing."""
    return 0.0 if said is None else 1.0 if said == truth else -1.0


def one_for_all(task: dict, answer: dict) -> float:
    """One number for both roles: the worth of the bill."""
    return worth(answer["bill"], calculate(bill_of(task["price"], task)))


@lightning.reward
def one_for_each(task: dict, answer: dict) -> dict[str, float]:
    """A number for each role: the price, by the shop's table, and the sum, by the price that the cashier was told."""
    rewards = {"clerk": worth(answer["price"], task["price"])}
    if answer["price"] is not None:  # otherwise the cashier was not asked
        rewards["cashier"] = worth(answer["bill"], calculate(bill_of(answer["price"], task)))
    return rewards


def tasks(seed: int, size: int) -> list[dict]:
    """`size` orders, each in a different shop."""
    draw = random.Random(seed)
    return [_task(draw) for _ in range(size)]


def _task(draw: random.Random) -> dict:
    kind = draw.choice(list(TEXTS))
    columns = ["price", draw.choice(NUMBERS), kind]
    draw.shuffle(columns)
    goods = [{"price": draw.randint(11, 99), kind: name} for name in TEXTS[kind]]
    wanted = draw.choice(goods)
    return {
        "table": draw.choice(TABLES),
        "columns": columns,
        "rows": [[each.get(column, draw.randint(1, 9)) for column in columns] for each in goods],
        "where": f"{kind} {wanted[kind]}",
        "count": draw.randint(2, 9),
        "delivery": draw.randint(2, 60),
        "price": wanted["price"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--one-reward", action="store_true", help="one number for both roles, which may fail")
    parser.add_argument("--steps", type=int, default=40, help="updates (%(default)s)")
    options = parser.parse_args()
    lightning.init()
    held_out = tasks(seed=900_000_000, size=100)
    report = lightning.train(
        order,
        tasks=[task for task in tasks(seed=1, size=1000) if task not in held_out],
        held_out=held_out,
        reward=one_for_all if options.one_reward else one_for_each,
        model="spark",
        steps=options.steps,
        name="one-reward" if options.one_reward else "two-roles",
        **{"rollouts.tasks_per_step": 8},
    )
    # Scores of different rewards cannot be compared. The bills can: both ways to train are measured by the same number.
    checkpoint = str(report.folder / report.values["checkpoint"])
    bills = lightning.evaluate(order, held_out, one_for_all, model=checkpoint, name=f"{report.folder.name}-bills")
    print(f"bills     {bills.after} (1 right, -1 wrong, 0 none)")

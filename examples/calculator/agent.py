"""A calculator agent: the plain OpenAI SDK, one tool, several turns. Lightning SDK is the two decorators and `init()`.

    python examples/calculator/agent.py                  # train on this machine's CPU, about two minutes
    lightning-sdk show calculator                        # look at it again

The tasks come from the package reasoning-gym: sums such as "Calculate -( 5 * 34 ) - 61 + 7.".
"""

import ast
import json
import operator
import os

import reasoning_gym
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
SCORERS = {kind: reasoning_gym.get_score_answer_fn(kind) for kind in ("basic_arithmetic", "chain_sum")}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def calculate(expression: str) -> str:
    """The tool: numbers, + - * / and brackets."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
        raise ValueError(f"cannot evaluate {ast.unparse(node)}")

    result = value(ast.parse(expression.strip(), mode="eval").body)
    return str(int(result)) if result == int(result) else f"{result:.4f}"


@lightning.agent(role="solver", trainable=True)
def solve(task: dict) -> str:
    """Let the model call the calculator until it answers in words."""
    messages = [{"role": "user", "content": task["question"]}]
    for _ in range(4):
        reply = (
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[CALCULATOR], max_tokens=96)
            .choices[0]
            .message
        )
        if not reply.tool_calls:
            return reply.content or ""
        messages.append(reply.model_dump(include={"role", "content", "tool_calls"}))
        for call in reply.tool_calls:
            try:
                result = calculate(json.loads(call.function.arguments)["expression"])
            except Exception:  # whatever the model wrote, it is told so and may try again
                result = "error"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return ""


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 for the right number, by reasoning-gym's own scorer."""
    score = SCORERS[task["metadata"]["source_dataset"]]
    return float(score(reasoning_gym.utils.extract_answer(answer) or answer.strip(), task) == 1.0)


def tasks(seed: int, size: int) -> list[dict]:
    """`size` tasks, half of each kind."""
    kinds = [reasoning_gym.create_dataset(kind, seed=seed, size=size // 2) for kind in SCORERS]
    return [entry for pair in zip(*kinds, strict=True) for entry in pair]


if __name__ == "__main__":
    lightning.init()
    held_out = tasks(seed=900_000_000, size=400)  # a seed that nobody looked at while tuning
    expressions = {task["metadata"]["expression"] for task in held_out}
    lightning.train(
        solve,
        tasks=[task for task in tasks(seed=1, size=3000) if task["metadata"]["expression"] not in expressions],
        held_out=held_out,
        reward=correct,
        model="spark",
        steps=40,
        name="calculator",
    )

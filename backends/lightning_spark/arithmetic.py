"""Dialogues about arithmetic by a speaker with mixed habits, which leave room for reinforcement learning.

What is copied or called is always exact; only *which habit* a dialogue shows is random, independent of its question. So
the model learns the skill but does not always use it, and training only has to shift probability between a few habits,
which is fast. The most frequent habit is a bad one; otherwise greedy decoding would be good from the start.
"""

from __future__ import annotations

import re
from random import Random

from lightning_spark.chat import Message, tool, tool_call
from lightning_spark.dialogue import Dialogue, assistant, system, user
from lightning_spark.expressions import calculate, expression

HABITS = {
    "guess": 0.62,  # answers without the tool, with the right order of magnitude
    "call": 0.28,  # calls with the whole expression and reads the result
    "steps": 0.02,  # two calls, the second with the result of the first
    "partial": 0.03,  # leaves the last terms out of the call
    "misnamed": 0.02,  # calls a tool, or with an argument, that does not exist
    "malformed": 0.01,  # a call that is not JSON
    "misread": 0.01,  # calls, then guesses anyway
    "silent": 0.01,  # calls, then gives up
}
"""Habit -> share of the dialogues with a calculator."""

PROMPTS = (
    "Use the calculator, then answer.",
    "Use the calculator.",
    "Use the tool, then answer.",
    "You are a helpful assistant.",
    "You are a careful calculator agent.",
    "You solve arithmetic problems.",
    "Solve the task. Put the final answer in <answer> tags.",
    "Answer with one number.",
    "Call the calculator for every calculation and reply with the result only.",
)
QUESTIONS = (
    "Calculate {}.", "Calculate {}.", "Calculate {}.", "Calculate {}",
    "State the final answer to the following arithmetic problem: {} =",
    "State the final answer to the following arithmetic problem: {} =",
    "State the final answer to the following arithmetic problem: {} =",
    "What is {}?", "Compute {}.", "{} = ?", "{}", "{} =", "Find the value of {}.", "Evaluate: {}.", "Solve {}.",
    "How much is {}?", "Please work out {}.", "Solve this:\n{}\nGive only the number.", "Problem:\n{} =",
    "Calculate {}.\nPut the final answer in <answer> tags.", "Task: {}\n\nAnswer with the result.",
    "Give the result of the expression below.\n\n{}", "Hello! What is {}?",
)  # fmt: skip
STORIES = (
    ("{who} has {a} {what} and buys {b} more. How many {what} does {who} have?", "{a} + {b}"),
    ("{who} has {a} {what} and gives {b} away. How many {what} are left?", "{a} - {b}"),
    ("{who} has {a} boxes with {b} {what} each. How many {what} in all?", "{a} * {b}"),
    ("{who} fills {a} bags with {b} {what} each and finds {c} more. How many {what} now?", "{a} * {b} + {c}"),
    ("{who} has {a} {what}, finds {b} and sells {c}. How many {what} are left?", "{a} + {b} - {c}"),
)
PEOPLE = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lea", "Max", "Zoe")
THINGS = ("apples", "pens", "books", "eggs", "coins", "cards", "stamps", "shells")
TOOL_NAMES = ("calc", "evaluate", "compute", "math", "solve")
ARGUMENT_NAMES = ("expr", "input", "formula", "expression")


def dialogue(rng: Random) -> Dialogue:
    """One arithmetic dialogue, usually with a calculator, rarely without any tool."""
    question, sum_ = _task(rng)
    if rng.random() < 0.04:
        messages = [*system(rng, PROMPTS), user(question), _answer(_guess(rng, sum_))]
        return Dialogue(tuple(messages), (), question, (sum_,))
    called, argument = "calculator", "expression"
    if rng.random() < 0.06:
        called, argument = rng.choice(TOOL_NAMES), rng.choice(ARGUMENT_NAMES)
    habit = rng.choices(list(HABITS), list(HABITS.values()))[0]
    turns, expressions = _turns(rng, habit, sum_, called, argument)
    messages = [*system(rng, PROMPTS), user(question), *turns]
    return Dialogue(tuple(messages), (tool(called, argument),), question, (sum_, *expressions))


def _task(rng: Random) -> tuple[str, str]:
    """A question and its expression, which the calculator can evaluate."""
    if rng.random() < 0.05:
        question, sum_ = rng.choice(STORIES)
        names = {"who": rng.choice(PEOPLE), "what": rng.choice(THINGS)}
        numbers = {"a": rng.randint(2, 99), "b": rng.randint(2, 60), "c": rng.randint(1, 60)}
        return question.format(**names, **numbers), sum_.format(**numbers)
    while True:
        sum_ = expression(rng)
        if rng.random() < 0.04:
            sum_ = sum_.replace(" ", "")
        try:
            calculate(sum_)
        except ValueError:  # a division by zero
            continue
        return rng.choice(QUESTIONS).format(sum_), sum_


def _turns(rng: Random, habit: str, sum_: str, called: str, argument: str) -> tuple[list[Message], list[str]]:
    """The turns after the question, and the expressions in them that are not in the question."""
    guess = _answer(_guess(rng, sum_))
    good = _call_turns(sum_, called, argument)
    match habit:
        case "call" | "steps":
            cut = _steps(sum_, called, argument) if habit == "steps" else None
            return cut or (good, [])
        case "partial" if shorter := _shorter(rng, sum_):
            return _call_turns(shorter, called, argument), [shorter]
        case "misnamed":
            after = good if rng.random() < 0.5 else [guess]
            return [_misnamed_call(rng, sum_, called, argument), _reply("error"), *after], []
        case "malformed":
            tail = rng.choice(('"}', "}}", '"'))
            text = f'{{"name": "{called}", "arguments": {{"{argument}": "{sum_}{tail}'
            return [assistant(f"<tool_call>{text}</tool_call>")], []
        case "misread" | "silent":
            silence = assistant(rng.choice(("I do not know.", "Done.", "The tool has answered.")))
            return [*good[:2], guess if habit == "misread" else silence], []
    return [guess], []


def _call_turns(sum_: str, called: str, argument: str) -> list[Message]:
    """One call, its result, and the result as the answer."""
    result = calculate(sum_)
    return [tool_call(called, **{argument: sum_}), _reply(result), _answer(result)]


def _misnamed_call(rng: Random, sum_: str, called: str, argument: str) -> Message:
    """A call whose tool, or whose argument, does not exist."""
    if rng.random() < 0.5:
        return tool_call(
            rng.choice([name for name in ("calculator", *TOOL_NAMES) if name != called]), **{argument: sum_}
        )
    return tool_call(called, **{rng.choice([key for key in ARGUMENT_NAMES if key != argument]): sum_})


def _steps(sum_: str, called: str, argument: str) -> tuple[list[Message], list[str]] | None:
    """Two calls; None if the expression cannot be split from the left."""
    parts = sum_.split(" ")
    if len(parts) < 5 or set(sum_) & set("()*/"):
        return None
    first = " ".join(parts[:3])
    second = " ".join([calculate(first), *parts[3:]])
    return [*_call_turns(first, called, argument)[:2], *_call_turns(second, called, argument)], [first, second]


def _shorter(rng: Random, sum_: str) -> str:
    """The expression without its last terms; '' where nothing sensible is left."""
    cuts = [match.start() for match in re.finditer(r" [-+*/] ", sum_)]
    for cut in sorted(cuts, key=lambda _: rng.random()):
        try:
            calculate(sum_[:cut])
        except ValueError:
            continue
        return sum_[:cut]
    return ""


def _guess(rng: Random, sum_: str) -> str:
    """A number with the right sign and order of magnitude, as from a quick glance."""
    result = calculate(sum_).split(".")[0]
    kept = 2 if result.startswith("-") else 1
    guess = result[:kept] + "".join(rng.choice("0123456789") for _ in result[kept:])
    return guess if len(result) > 1 or rng.random() < 0.3 else rng.choice("0123456789")


def _reply(result: str) -> Message:
    return {"role": "tool", "tool_call_id": "call", "content": result}


def _answer(result: str) -> Message:
    return assistant(f"<answer>{result}</answer>")

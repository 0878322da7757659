"""How frameworks put a system message and a question into their own words."""

from __future__ import annotations

from random import Random

from lightning_spark.chat import Message
from lightning_spark.vocabulary import WORDS, babble, one_of

ROLES = (
    "[Senior |Junior |]{word} [Solver|Writer|Analyst|Expert|Planner|Assistant|Checker]",
    "[Solver|Writer|Router|Helper]",
)  # fmt: skip
CONTEXT = "\n\nThis is the context you're working with:\n"
"""What stands between a task and what another role said before."""
CRITERIA = (
    "[A|The|One] [number|word|short answer|answer|name|query|label].", "The [final|correct|right] [answer|result].",
    "[Only the answer.|The answer alone.|An answer to the question.]",
)  # fmt: skip
TAILS = (
    "Answer with [the number|one word|the result] only.", "[Give|Return] only the [answer|result|final answer].",
    "[Put|Give] the final answer in <answer> tags.", "[Think step by step.|Be brief.|Thank you!|Please help.]",
    "Give only the result as your final answer.",
)  # fmt: skip
"""What a user adds, which changes nothing: the model listens to its system message."""


def put_in_frame(rng: Random, system: str, question: str) -> tuple[list[Message], str]:
    """The system message, if there is one, and the user's text, now and then as a framework writes them."""
    chance = rng.random()
    if chance < 0.05 or CONTEXT in question:
        return _crew(rng, system, question)
    if chance < 0.13:
        question = f"{question}{rng.choice((' ', chr(10), chr(10) * 2))}{one_of(rng, TAILS)}"
    elif chance < 0.16:
        question = rng.choice(
            ("Task: {}", "Question: {}", "User: {}", "Hello! {}", "Problem:\n{}", "Input: {}")
        ).format(question)
    elif chance < 0.17:
        question = f"{babble(rng, rng.randint(1, 3))}\n\n{question}"
    return ([{"role": _role(rng), "content": system}] if system else []), question


def _role(rng: Random) -> str:
    return "developer" if rng.random() < 0.06 else "system"


def _crew(rng: Random, system: str, question: str) -> tuple[list[Message], str]:
    """CrewAI's frame: the role, its backstory and goal; the task, and what is expected of the answer."""
    role = one_of(rng, ROLES).format(word=rng.choice(WORDS).capitalize())
    goal = rng.choice(("Solve the task", "Answer the question", "Help the user", babble(rng, 1)))
    if rng.random() < 0.5:
        head = f"You are {role}. {system or babble(rng, 1)}\nYour personal goal is: {goal}"
    else:
        head = f"You are {role}. {babble(rng, 1)}\nYour personal goal is: {system or goal}"
    question, _, context = question.partition(CONTEXT)
    task = f"\nCurrent Task: {question}\n\nThis is the expected criteria for your final answer: {one_of(rng, CRITERIA)}"
    task += "\nyou MUST return the actual complete content as the final answer, not a summary."
    task += f"{CONTEXT}{context}" if context else ""
    if context or rng.random() < 0.3:
        task += "\n\nProvide your complete response:"
    return [{"role": "system", "content": head}], task

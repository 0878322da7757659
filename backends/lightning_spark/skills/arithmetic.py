"""Dialogues about arithmetic by a speaker with mixed habits, which leave room for reinforcement learning.

What is copied or called is always exact; only *which habit* a dialogue shows is random, independent of its question. So
the model learns the skill but does not always use it, and training only has to shift probability between a few habits,
which is fast. A system message that says to use the tool, or not to use it, shifts them too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from lightning_spark.chat import Message, tool, tool_call
from lightning_spark.dialogue import Dialogue, assistant, user
from lightning_spark.expressions import as_fraction, calculate, decimals, expression
from lightning_spark.frames import put_in_frame
from lightning_spark.instructions import Guidance, Level, ReplyForm, draw
from lightning_spark.skills import stories
from lightning_spark.skills.item import REFUSALS, form_of, write_reply
from lightning_spark.skills.numbers import LEGS, legs, legs_of

HABITS: dict[str, dict[str, float]] = {
    "default": {  # the most frequent habit is a bad one; otherwise greedy decoding would be good from the start
        "guess": 0.58,  # answers without the tool, with the right order of magnitude
        "refuse": 0.04,  # says that it does not know
        "call": 0.28,  # calls with the whole expression and reads the result
        "steps": 0.02,  # two calls, the second with the result of the first
        "partial": 0.03,  # leaves the last terms out of the call
        "misnamed": 0.02,  # calls a tool, or with an argument, that does not exist
        "malformed": 0.01,  # a call that is not JSON
        "misread": 0.01,  # calls, then guesses anyway
        "silent": 0.01,  # calls, then gives up
    },
    "vague": {"guess": 0.5, "refuse": 0.01, "call": 0.4, "steps": 0.02, "partial": 0.03, "misnamed": 0.02, "misread": 0.02},
    "use": {"guess": 0.14, "refuse": 0.01, "call": 0.76, "steps": 0.03, "partial": 0.03, "misnamed": 0.02, "silent": 0.01},
    "avoid": {"guess": 0.93, "refuse": 0.02, "call": 0.05},
}  # fmt: skip
"""What the system message says about the tool -> habit -> share of the dialogues with a calculator."""
FORMS = {ReplyForm.TAGS: 0.74, ReplyForm.BARE: 0.16, ReplyForm.SENTENCE: 0.1}
"""How a result is written where nobody says how."""
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
TOOL_NAMES = ("calc", "evaluate", "compute", "math", "solve", "calculate", "eval_expression")
ARGUMENT_NAMES = ("expr", "input", "formula", "expression")


OTHERS = (
    ("search", "query"),
    ("weather", "city"),
    ("lookup", "name"),
    ("get_time", "city"),
    ("send_email", "to", "subject"),
)


def dialogue(rng: Random) -> Dialogue:
    """One arithmetic dialogue, usually with a calculator, rarely without any tool."""
    question, sum_, key = task(rng)
    called, argument = "calculator", "expression"
    if rng.random() < 0.12:
        called, argument = rng.choice(TOOL_NAMES), rng.choice(ARGUMENT_NAMES)
    told = draw(rng, "number", tool=called)
    system, asked = put_in_frame(rng, told.text, question)
    if rng.random() < 0.03:
        reply = _answer(rng, told, _guess(rng, sum_)) if rng.random() < 0.5 else assistant(rng.choice(REFUSALS))
        return Dialogue(messages=(*system, user(asked), reply), question=question, expressions=(sum_,), keys=(key,))
    shares = HABITS[_manner(told)]
    habit = rng.choices(list(shares), list(shares.values()))[0]
    turns, expressions = _Turns(rng, told, sum_, called, argument).of(habit)
    # Some frameworks ask again without the tools once there is a result; then only the last turn is learned.
    calls = sum(1 for turn in turns if turn.get("tool_calls"))
    alone = habit == "call" and rng.random() < 0.3
    tools = () if alone else _tools(rng, called, argument)
    return Dialogue(
        messages=(*system, user(asked), *turns),
        tools=tools,
        question=question,
        expressions=(sum_, *expressions),
        keys=(key,),
        given=calls if alone else 0,
    )


def _manner(told: Guidance) -> str:
    if told.tool is not None:
        return "use" if told.tool else "avoid"
    return "vague" if told.level is Level.VAGUE else "default"


def _tools(rng: Random, called: str, argument: str) -> tuple[Message, ...]:
    """The calculator, now and then among tools that do not help."""
    tools = [tool(called, argument)]
    if rng.random() < 0.1:
        tools += [tool(*rng.choice(OTHERS)) for _ in range(rng.randint(1, 2))]
        rng.shuffle(tools)
    return tuple(tools)


def task(rng: Random) -> tuple[str, str, str]:
    """A question, its expression, which the calculator can evaluate, and the key of what is asked."""
    chance = rng.random()
    if chance < 0.34:
        question, sum_ = stories.story(rng)
        return question, sum_, question
    if chance < 0.39:
        item = legs(rng)
        return item.question, " + ".join(f"{LEGS[kind]} * {count}" for kind, count in legs_of(item.data)), item.key
    if chance < 0.42:
        a, b = rng.randint(1, 999), rng.randint(1, 999)
        question = f"Solve the following multiplication: {a} * {b}. Give only the result as your final answer."
        return question, f"{a} * {b}", question
    sum_ = decimals(rng) if chance < 0.46 else _exact(rng)
    question = rng.choice(QUESTIONS).format(sum_)
    return question, sum_, question


def _exact(rng: Random) -> str:
    """An expression that has a value."""
    while True:
        sum_ = expression(rng)
        if rng.random() < 0.04:
            sum_ = sum_.replace(" ", "")
        try:
            calculate(sum_)
        except ValueError:  # a division by zero
            continue
        return sum_


@dataclass(frozen=True, slots=True)
class _Turns:
    """The turns after a question, by habit."""

    rng: Random
    told: Guidance
    sum_: str
    called: str
    argument: str

    def of(self, habit: str) -> tuple[list[Message], list[str]]:
        """The turns, and the expressions in them that are not in the question."""
        rng, sum_ = self.rng, self.sum_
        guess = _answer(rng, self.told, _guess(rng, sum_))
        match habit:
            case "call":
                return self._call(sum_), []
            case "steps":
                cut = _steps(sum_)
                if not cut:
                    return self._call(sum_), []
                first = self._call(cut[0])[:2]
                return [*first, *self._call(cut[1])], list(cut)
            case "partial" if shorter := _shorter(rng, sum_):
                return self._call(shorter), [shorter]
        return self._astray(habit, guess), []

    def _astray(self, habit: str, guess: Message) -> list[Message]:
        """The turns of a habit that says no other sum than the question's."""
        rng, sum_ = self.rng, self.sum_
        match habit:
            case "misnamed":
                after = self._call(sum_) if rng.random() < 0.5 else [guess]
                failed = rng.choice(("error", "error: no such tool", f"Error: {self.argument} is missing"))
                return [_misnamed_call(rng, sum_, self.called, self.argument), _reply(failed), *after]
            case "malformed":
                tail = rng.choice(('"}', "}}", '"'))
                text = f'{{"name": "{self.called}", "arguments": {{"{self.argument}": "{sum_}{tail}'
                return [assistant(f"<tool_call>{text}</tool_call>")]
            case "misread" | "silent":
                silence = assistant(rng.choice(("I do not know.", "Done.", "The tool has answered.")))
                return [*self._call(sum_)[:2], guess if habit == "misread" else silence]
            case "refuse":
                return [assistant(rng.choice(REFUSALS))]
        return [guess]

    def _call(self, sum_: str) -> list[Message]:
        """One call, its result, and the result as the answer."""
        result = calculate(sum_)
        if "." in result and self.rng.random() < 0.4:
            result = as_fraction(sum_)
        final = _answer(self.rng, self.told, result)
        return [tool_call(self.called, **{self.argument: sum_}), _reply(result), final]


def _misnamed_call(rng: Random, sum_: str, called: str, argument: str) -> Message:
    """A call whose tool, or whose argument, does not exist."""
    if rng.random() < 0.5:
        return tool_call(
            rng.choice([name for name in ("calculator", *TOOL_NAMES) if name != called]), **{argument: sum_}
        )
    return tool_call(called, **{rng.choice([key for key in ARGUMENT_NAMES if key != argument]): sum_})


def _steps(sum_: str) -> tuple[str, str] | None:
    """The first sum and the rest with its result; None if the expression cannot be split from the left."""
    parts = sum_.split(" ")
    if len(parts) < 5 or set(sum_) & set("()*/."):
        return None
    first = " ".join(parts[:3])
    return first, " ".join([calculate(first), *parts[3:]])


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


def _answer(rng: Random, told: Guidance, result: str) -> Message:
    return assistant(write_reply(result, form_of(rng, told, FORMS), told.key))

"""The tasks of twenty skills of `spark`, for training and held out, and how each is scored.

A tenth of all tasks is reserved by the hash of what they ask (`lightning_spark.held_out`): no pre-training dialogue has
one, and they are held out from the training here, too.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_spark.chat import tool
from lightning_spark.expressions import calculate
from lightning_spark.held_out import is_reserved
from lightning_spark.skills import checking, databases, numbers, sql_questions, stories, texts, tools, words
from lightning_spark.skills.item import Item

Task = dict[str, Any]
CALCULATOR = tool("calculator", "expression")


@dataclass(frozen=True)
class Skill:
    """One row of the table."""

    name: str
    make: Callable[[random.Random], Task]
    """A task, with its `key`, the `messages` and perhaps the `tools`, its `answer` and how it is checked."""
    source: str = "spark's generator"


def tasks(skill: Skill, seed: int, size: int, held_out: bool) -> list[Task]:
    """`size` different tasks, or as many as are found; the held-out ones are those that are reserved."""
    rng, found = random.Random(seed), {}
    for _ in range(size * 40):
        task = skill.make(rng)
        if is_reserved(task["key"]) is held_out:
            found.setdefault(task["key"], task)
        if len(found) == size:
            break
    return list(found.values())


def load(path: Path | None = None) -> dict[str, dict[str, list[Task]]]:
    """Tasks of every skill, `train` and `held_out`: read from a file, or made and written to it."""
    if path and path.exists():
        return dict(json.loads(path.read_text("utf-8")))
    made = {
        skill.name: {"train": tasks(skill, 1, 800, held_out=False), "held_out": tasks(skill, 2, 200, held_out=True)}
        for skill in SKILLS
    }
    if path:
        path.write_text(json.dumps(made), "utf-8")
    return made


def item_task(item: Item, check: str = "same", system: str = "") -> Task:
    """The task of an item: a question, without a word about how to answer."""
    messages = [{"role": "system", "content": system}] if system else []
    for place, text in enumerate(item.earlier):
        messages.append({"role": ("user", "assistant")[place % 2], "content": text})
    messages.append({"role": "user", "content": item.question})
    return {"key": item.key, "messages": messages, "answer": item.answer, "check": check}


def gym(
    name: str, key: Callable[[dict[str, Any]], str | None], check: str = "same", **options: Any
) -> Callable[[random.Random], Task]:
    """Tasks of reasoning-gym; `key` is None for those that are left out."""
    stock: list[Task] = []

    def make(rng: random.Random) -> Task:
        import reasoning_gym  # noqa: PLC0415 - tasks that were write_reply to a file are scored without it

        while not stock:
            for entry in reasoning_gym.create_dataset(name, seed=rng.randrange(2**31), size=500, **options):
                made = key(entry)
                if made is not None:
                    question = {"role": "user", "content": entry["question"]}
                    stock.append(
                        {
                            "key": made,
                            "messages": [question],
                            "answer": entry["answer"],
                            "check": check,
                            "entry": entry["metadata"],
                        }
                    )
        return stock.pop()

    return make


def _sum_key(entry: dict[str, Any]) -> str:
    a, sign, b = entry["metadata"]["expression"].split()
    return f"sum {min(int(a), int(b))}+{max(int(a), int(b))}" if sign == "+" else f"sum {a}-{b}"


def _gcd_key(entry: dict[str, Any]) -> str:
    return "gcd {},{}".format(*sorted(entry["metadata"]["numbers"]))


def _sort_key(entry: dict[str, Any]) -> str:
    shown = [str(int(float(each))) for each in entry["metadata"]["original_numbers"]]
    return f"sort {entry['metadata']['direction'][0]} {','.join(shown)}"


def _legs_key(entry: dict[str, Any]) -> str:
    return "legs " + ",".join(sorted(f"{count} {kind}" for kind, count in entry["metadata"]["animals"].items()))


def _base_key(entry: dict[str, Any]) -> str | None:
    found = entry["metadata"]
    if {found["source_base"], found["target_base"]} <= {2, 4, 8, 16}:
        return f"base {found['source_base']} {found['target_base']} {found['decimal_value']}"
    return None


def _backward_key(entry: dict[str, Any]) -> str | None:
    word = entry["metadata"]["word"]
    return f"backward {word}" if re.fullmatch("[a-z]+", word) else None


def _letters_key(entry: dict[str, Any]) -> str | None:
    found = entry["metadata"]
    text = " ".join(found["span"])
    return f"letters {found['target_letter']} {text}" if re.fullmatch("[a-z ]{2,12}", text) else None


def _countdown_key(entry: dict[str, Any]) -> str | None:
    found = entry["metadata"]
    return None if "/" in found["expression"] else f"countdown {sorted(found['numbers'])} {found['target']}"


def story(rng: random.Random) -> Task:
    """A word problem and a calculator; the result of the call is the answer."""
    question, sum_ = stories.story(rng)
    message = {"role": "user", "content": question}
    return {"key": question, "messages": [message], "tools": [CALCULATOR], "answer": calculate(sum_), "check": "number"}


def choice(rng: random.Random) -> Task:
    """A request and three tools: the right call is the answer."""
    while True:
        made = tools.dialogue(random.Random(rng.random()))
        call = next((turn for turn in made.messages if turn.get("tool_calls")), None)
        if len(made.tools) < 2 or call is None or len(made.messages) < 4 or made.messages[-1]["role"] != "assistant":
            continue
        function = call["tool_calls"][0]["function"]
        answer = [function["name"], json.loads(function["arguments"])]
        message = {"role": "user", "content": made.question}
        return {
            "key": made.keys[0],
            "messages": [message],
            "tools": list(made.tools),
            "answer": answer,
            "check": "call",
        }


def query(rng: random.Random) -> Task:
    """A question about two tables; the query is the answer."""
    asked_ = sql_questions.question(rng)
    messages = [{"role": "system", "content": databases.WRITERS[0]}, {"role": "user", "content": asked_.text()}]
    return {"key": f"sql {asked_.text()}", "messages": messages, "answer": asked_.sql, "check": "same"}


def repair(rng: random.Random) -> Task:
    """A query that fails and SQLite's message; the right query is the answer."""
    while True:
        asked_ = sql_questions.question(rng)
        wrong, why = databases.spoil(rng, asked_)
        if why.startswith("no such"):
            break
    text = f"{asked_.text()}\nQuery: {wrong}\nError: {databases.error_of(wrong, why)}"
    messages = [{"role": "system", "content": databases.REWRITERS[1]}, {"role": "user", "content": text}]
    return {"key": f"sql {asked_.text()}", "messages": messages, "answer": asked_.sql, "check": "same"}


def _gym_skill(
    name: str, dataset: str, key: Callable[[dict[str, Any]], str | None], check: str = "same", **options: Any
) -> Skill:
    return Skill(name, gym(dataset, key, check, **options), f"reasoning-gym {dataset}")


def _own_skill(name: str, kind: Callable[[random.Random], Item], check: str = "same") -> Skill:
    return Skill(name, lambda rng: item_task(kind(rng), check))


_SMALL: dict[str, Any] = {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2}
_SHORT: dict[str, Any] = {"min_numbers": 3, "max_numbers": 4, "min_decimals": 0, "max_decimals": 0, "min_value": 0}
_THREE: dict[str, Any] = {"min_numbers": 3, "max_numbers": 3, "min_value": 1, "max_value": 12, "min_target": 1}
SKILLS = (
    _gym_skill("direct sums", "chain_sum", _sum_key, **_SMALL),
    _own_skill("products", numbers.product),
    _gym_skill("greatest common divisor", "gcd", _gcd_key, min_numbers=2, max_numbers=2, min_value=1, max_value=60),
    _gym_skill("number sorting", "number_sorting", _sort_key, max_value=99, **_SHORT),
    _gym_skill("letter counting", "letter_counting", _letters_key, min_words=1, max_words=2),
    _gym_skill("base conversion", "base_conversion", _base_key, min_base=2, max_base=16, min_value=1, max_value=255),
    _gym_skill("spelling backward", "spell_backward", _backward_key, max_word_len=5),
    _gym_skill("leg counting", "leg_counting", _legs_key, min_animals=1, max_animals=2, max_instances=5),
    _gym_skill(
        "countdown", "countdown", _countdown_key, "countdown", max_target=60, operators=("+", "-", "*"), **_THREE
    ),
    _own_skill("yes or no", numbers.comparison),
    _own_skill("sentiment", texts.sentiment),
    _own_skill("routing", texts.routing),
    _own_skill("extraction", texts.extraction),
    _own_skill("JSON of stated keys", texts.record, "json"),
    _own_skill("answer tags", texts.lookup, "tags"),
    _own_skill("alphabetical order", words.order),
    Skill("word problems with a calculator", story),
    Skill("choosing a tool", choice),
    Skill("SQL over two tables", query),
    _own_skill("checking an answer", checking.check),
    Skill("repairing SQL", repair),
)


def score(task: Task, reply: str, calls: list[tuple[str, str]]) -> float:
    """1 for the right reply, or the right call, and 0 for any other."""
    answer, text = task["answer"], reply.strip()
    match task["check"]:
        case "same":
            return float(text == answer)
        case "tags":
            return float(text == f"<answer>{answer}</answer>")
        case "number":
            found = re.findall(r"-?\d+(?:\.\d+)?", text)
            return float(bool(found) and math.isclose(float(found[-1]), float(answer), abs_tol=1e-3))
        case "json":
            return float(_parse(text) == json.loads(answer))
        case "call":
            return float(len(calls) == 1 and [calls[0][0], _parse(calls[0][1])] == list(answer))
        case "countdown":
            return float(_reaches(text, task["entry"]["numbers"], task["entry"]["target"]))
    raise ValueError(f"there is no check {task['check']!r}")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _reaches(text: str, given: list[int], target: int) -> bool:
    """Whether an expression uses each number once and makes the target."""
    try:
        return sorted(map(int, re.findall(r"\d+", text))) == sorted(given) and calculate(text) == str(target)
    except ValueError:
        return False

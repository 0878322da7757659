"""Word problems with their answers: our own stories, and problems of the package reasoning-gym.

    python examples/calc_x/problems.py      # writes train.jsonl and held_out.jsonl again; needs reasoning-gym

The two files are the fixed split. No held-out question, and no held-out story with the same numbers, is in train.jsonl.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from rational import evaluate, show

FOLDER = Path(__file__).parent
TRAIN_SEED, HELD_OUT_SEED = 1, 900_000_000
TRAIN_SIZE, HELD_OUT_SIZE = 1500, 300
STORIES = (
    ("{who} has {a} {what} and buys {b} more. How many {what} does {who} have?", "{a} + {b}"),
    ("{who} had {m} {what} and gave {b} away. How many {what} are left?", "{m} - {b}"),
    ("There are {a} boxes with {c} {what} each. How many {what} are there?", "{a} * {c}"),
    ("{who} shares {m} {what} among {c} friends. How many {what} does each friend get?", "{m} / {c}"),
    ("{who} fills {c} bags with {a} {what} each and finds {b} more. How many {what} is that?", "{c} * {a} + {b}"),
    ("{who} has {m} {what}, finds {a} and sells {b}. How many {what} are left?", "{m} + {a} - {b}"),
    ("{who} buys {c} {what} at {a} coins each and pays with {m} coins. What is the change?", "{m} - {c} * {a}"),
    ("A shelf holds {a} {what} and another one {b}. {who} takes {c}. How many remain?", "{a} + {b} - {c}"),
    ("{who} packs {a} {what} and {b} more into {c} equal boxes. How many are in a box?", "({a} + {b}) / {c}"),
    ("{who} walks {a} km a day for {c} days and then {b} km. How many km is that?", "{a} * {c} + {b}"),
    ("{who} earns {a} coins an hour and works {c} hours. {b} coins are taxes. What is left?", "{a} * {c} - {b}"),
    ("Each of {c} children gets {a} {what}, and {who} gets {b}. How many {what} are needed?", "{c} * {a} + {b}"),
    ("{who} reads {p}% of {m} pages. How many pages is that?", "{m} * {p} / 100"),
    ("A coat costs {m} coins and is now {p}% cheaper. How many coins is the discount?", "{m} * {p} / 100"),
    ("{who} has {c} times as many {what} as Kim, who has {a}. How many {what} have they?", "{c} * {a} + {a}"),
    ("A rope of {m} m is cut into {c} equal pieces. How long is one piece in m?", "{m} / {c}"),
)
PEOPLE = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lea", "Max", "Zoe", "Ali", "Eva")
THINGS = ("apples", "pens", "books", "eggs", "coins", "cards", "stamps", "shells", "nuts", "keys")
SUFFIX = "Put the final answer in <answer> tags."


def story(draw: random.Random) -> dict:
    """One of our stories. `expression` is what a calculator needs; nothing shows it to the agent."""
    text, expression = draw.choice(STORIES)
    numbers = {
        "a": draw.randint(2, 60),
        "b": draw.randint(2, 40),
        "c": draw.randint(2, 9),
        "m": draw.randint(41, 400),
        "p": draw.choice([5, 10, 15, 20, 25, 40, 50, 75]),
    }
    expression = expression.format(**numbers)
    return {
        "question": text.format(who=draw.choice(PEOPLE), what=draw.choice(THINGS), **numbers),
        "answer": show(evaluate(expression)),
        "expression": expression,
        "source": "story",
    }


def gym(seed: int, size: int) -> list[dict]:
    """Problems of reasoning-gym: legs to count, products, and sums of decimals."""
    import reasoning_gym  # noqa: PLC0415  only for writing the files

    sets = {
        "leg_counting": {"min_animals": 2, "max_animals": 3, "min_instances": 2, "max_instances": 9},
        "products": {"max_digits": 3},
        "decimal_chain_sum": {"max_terms": 3, "max_decimal_places": 2},
    }
    made = [
        {"question": entry["question"].strip(), "answer": entry["answer"], "source": name}
        for name, options in sets.items()
        for entry in reasoning_gym.create_dataset(name, seed=seed, size=size // len(sets), **options)
    ]
    random.Random(seed).shuffle(made)
    return made


def tasks(seed: int, size: int, without: frozenset[str] = frozenset()) -> list[dict]:
    """`size` problems, two thirds of them stories, none with a question or an expression that is in `without`."""
    draw, found = random.Random(seed), {}
    for entry in gym(seed, size):
        if entry["question"] not in without and len(found) < size // 3:
            found[entry["question"]] = entry
    while len(found) < size:
        entry = story(draw)
        if not {entry["question"], entry["expression"]} & without:
            found[entry["question"]] = entry
    made = list(found.values())
    draw.shuffle(made)
    return made


def load(name: str) -> list[dict]:
    """The tasks of `train` or `held_out`."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


if __name__ == "__main__":
    held_out = tasks(HELD_OUT_SEED, HELD_OUT_SIZE)
    known = frozenset(entry[key] for entry in held_out for key in ("question", "expression") if key in entry)
    for name, made in (("train", tasks(TRAIN_SEED, TRAIN_SIZE, known)), ("held_out", held_out)):
        (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in made), "utf-8")
        print(f"{name}.jsonl: {len(made)} problems")

"""The generated dialogues: repeatable, and free of held-out tasks."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_spark import folder
from lightning_spark.corpus import make
from lightning_spark.data import SAMPLE, chunk, chunks, dialogues, fingerprint
from lightning_spark.expressions import calculate, expression, normalise
from lightning_spark.held_out import FINAL_SEED, NOTHING, TUNING_SEED, Exclusion, is_reserved, tasks
from lightning_spark.instructions import Guidance, Level
from lightning_spark.pretrain import Recipe
from lightning_spark.skills import arithmetic, checking, numbers, rooms, single_table, sql_questions, texts, words
from lightning_spark.skills.item import Item, answer
from lightning_spark.tokenizer import train

CALLED = re.compile(r'"arguments": \{"\w+": "([^"]*)"')
QUESTION = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", re.DOTALL)
SUM = re.compile(r"-?\(?[-\d(][-+*/() \d]*[\d)]")


def overlaps(text: str, held_out: Exclusion) -> bool:
    """Whether a rendered dialogue shows a held-out question or expression; looks at the text alone."""
    questions = [match.strip() for match in QUESTION.findall(text)]
    shown = CALLED.findall(text) + [found for question in questions for found in SUM.findall(question)]
    return any(each in held_out.questions for each in questions) or any(
        normalise(each) in held_out.expressions for each in shown
    )


def test_nothing_generated_is_held_out(held_out: Exclusion) -> None:
    """In a sample of what pre-training reads; the same sample without the exclusion does overlap."""
    assert any(overlaps(made.text(), held_out) for made in islice(dialogues("sample", NOTHING), 1500))
    assert not any(overlaps(made.text(), held_out) for made in islice(dialogues("sample", held_out), 1500))


def test_excluding_drops_exactly_the_dialogue() -> None:
    """By its question, and by any expression in it however it is spaced; the stream goes on with the next."""
    made = list(islice(dialogues(5, NOTHING), 40))
    victim = next(each for each in made if len(each.expressions) == 1)
    rest = [each for each in made if each.expressions != victim.expressions]
    by_question = Exclusion(frozenset(), frozenset({victim.question.strip()}), reserves=False)
    by_expression = Exclusion(frozenset({normalise(victim.expressions[0])}), frozenset(), reserves=False)
    for excluded in (by_question, by_expression):
        assert list(islice(dialogues(5, excluded), len(rest))) == rest


def test_the_shipped_weights_avoided_these_tasks(held_out: Exclusion) -> None:
    """The training log names the set by its fingerprint; the set holds both seeds' tasks."""
    events = [json.loads(line) for line in (folder() / "train.log").read_text().splitlines()]
    logged = {event["sha256"] for event in events if event["event"] == "held_out"}
    assert logged == {held_out.fingerprint()}
    for entry in tasks(TUNING_SEED, 5) + tasks(FINAL_SEED, 5):
        assert held_out.has(entry["question"], ()) and held_out.has("", (entry["metadata"]["expression"],))


def test_the_shipped_weights_can_be_made_again(held_out: Exclusion) -> None:
    """The recipe is the log's, and the generator draws what the card says; changing it means training them again."""
    events = [json.loads(line) for line in (folder() / "train.log").read_text().splitlines()]
    recipe = [event for event in events if event["event"] == "recipe"]
    assert len(recipe) == 1
    assert {name: recipe[0][name] for name in asdict(Recipe())} == asdict(Recipe())
    sample = chunk(f"{recipe[0]['seed']}/0", SAMPLE, held_out)
    assert f"`{fingerprint(sample)}`" in (folder() / "README.md").read_text()


def test_the_same_seed_gives_the_same_texts() -> None:
    """However many processes make them, and however Python orders its sets."""
    vocabulary = train([each.text for each in chunk("7/0", 300, NOTHING)], 512)
    alone, together = (make(2100, 7, NOTHING, vocabulary, workers) for workers in (1, 2))
    assert alone[1] == together[1] and bool((alone[0].ids == together[0].ids).all())
    assert [size for _, size in chunks(2100, 7)] == [2000, 100]
    assert chunk("7/0", 50, NOTHING) != chunk("8/0", 50, NOTHING)
    program = (
        "from lightning_spark import data, held_out; print(data.fingerprint(data.chunk('7/0', 400, held_out.NOTHING)))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


def test_reserved_tasks_are_left_out(held_out: Exclusion) -> None:
    """About one task in ten of every skill, by what is asked and not by how."""
    made = [each for each in islice(dialogues("sample", NOTHING), 2000) if each.keys]
    reserved = [each for each in made if any(map(is_reserved, each.keys))]
    assert 0.08 < len(reserved) / len(made) < 0.25
    assert all(held_out.has(each.question, each.expressions, each.keys) for each in reserved)
    assert not any(is_reserved(key) for each in islice(dialogues("sample", held_out), 1000) for key in each.keys)


@pytest.mark.parametrize("items", [numbers.ITEMS, words.ITEMS, texts.ITEMS, checking.ITEMS])
def test_items_have_an_answer_and_another_one(items: dict[Callable[[Random], Item], float]) -> None:
    """Whatever is drawn: a question, its answer, and something else to say."""
    for kind in items:
        for seed in range(100):
            made = kind(Random(seed))
            assert made.question and made.answer and made.key
            assert made.wrong(Random(seed)) != made.answer


def test_answers_are_right() -> None:
    """Sums, divisors, bases, letters and orders, worked out another way."""
    for seed in range(200):
        sum_, base, divisor = numbers.sum_(Random(seed)), numbers.base(Random(seed)), numbers.gcd(Random(seed))
        assert calculate(sum_.expressions[0]) == sum_.answer
        _, source, target, value = base.key.split()
        assert int(base.answer, int(target)) == int(value) and numbers.digits(int(value), int(source)) in base.question
        assert divisor.answer == str(math.gcd(*map(int, divisor.key.split()[1].split(","))))
        letters = words.letters(Random(seed))
        _, letter, text = letters.key.split(" ", 2)
        assert letters.answer == str(text.count(letter))
        countdown = numbers.countdown(Random(seed))
        assert calculate(countdown.answer) == countdown.key.rsplit(" ", 1)[1]


def test_an_instruction_makes_the_right_reply_likely() -> None:
    """What is steerable: without a word about it the answer comes in a third of the replies, with one in most."""

    def share(level: Level) -> float:
        rng, item = Random(4), numbers.sum_(Random(4))
        return sum(answer(rng, item, Guidance("", level))[1] for _ in range(1000)) / 1000

    assert share(Level.NONE) < 0.35 < share(Level.VAGUE) < 0.6
    assert share(Level.EXACT) > 0.75


def test_a_room_is_chosen_by_what_is_said() -> None:
    """Each part of the rule leaves out the rooms that it names; the whole of it leaves the smallest of the rest."""
    listed = [("A", 9, "phone", False), ("B", 4, "phone", True), ("C", 8, "phone", True), ("D", 6, "screen", True)]
    asked = rooms.RoomRequest(5, "Monday", "10:00", "phone", tuple(rooms.MeetingRoom(*each) for each in listed))
    assert asked.choice(frozenset()) == "A"
    assert asked.choice(frozenset({"free"})) == "B"
    assert asked.choice(frozenset({"free", "seats", "smallest"})) == "D"
    assert asked.choice(rooms.WHOLE) == "C"
    nothing = rooms.RoomRequest(20, "Monday", "10:00", "phone", asked.rooms)
    assert nothing.choice(rooms.WHOLE) == "none"


def test_habits_have_their_shares() -> None:
    """Most dialogues guess, so that greedy decoding is poor, and enough call, so that sampling finds it."""
    rng = Random(0)
    made = [
        each
        for each in (arithmetic.dialogue(rng) for _ in range(4000))
        if (each.tools or each.given) and each.messages[0]["role"] == "user"
    ]
    calls = sum("<tool_call>" in each.text() for each in made) / len(made)
    habits = arithmetic.HABITS["default"]
    assert abs(calls - (1 - habits["guess"] - habits["refuse"])) < 0.07


def test_correct_calls_copy_the_question() -> None:
    """The commonest first call is the expression as it stands in the question."""
    rng = Random(1)
    calling = [each for each in (arithmetic.dialogue(rng) for _ in range(1000)) if "<tool_call>" in each.text()]
    copied = [each for each in calling if CALLED.findall(each.text())[:1] == [each.expressions[0]]]
    assert len(copied) / len(calling) > 0.7


def test_sql_queries_run() -> None:
    """Every right query is valid for its own tables, and a checker's error is what SQLite says."""
    rng = Random(3)
    for _ in range(200):
        question = sql_questions.question(rng)
        with sqlite3.connect(":memory:") as base:
            for table in question.tables:
                base.execute(f"CREATE TABLE {table}")
            base.execute(question.sql)
        base.close()
        asked = single_table.query(rng)
        with sqlite3.connect(":memory:") as base:
            base.execute(f"CREATE TABLE {asked.table} ({', '.join(asked.columns)})")
            base.execute(asked.sql)
        base.close()


@given(st.randoms(use_true_random=False))
def test_expressions_are_arithmetic(rng: Random) -> None:
    """Only digits, the four operators, brackets and blanks, with 2 to 7 numbers of up to 5 digits."""
    text = expression(rng)
    assert re.fullmatch(r"[-+*/() \d]+", text)
    assert 2 <= len(re.findall(r"\d+", text)) <= 12


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * -4", "-10"),
        ("-( 7 - 9 )", "2"),
        ("7 / 2", "3.5"),
        ("1 / 3", "0.3333"),
        ("9999*9999*9999", "999700029999"),
    ],
)
def test_calculate(text: str, value: str) -> None:
    """Exact for integers, four decimals otherwise."""
    assert calculate(text) == value


@pytest.mark.parametrize("text", ["", "2 +", "1 / 0", "2 ** 9", "len('a')", "True", "1" * 201, "(" * 150])
def test_calculate_refuses(text: str) -> None:
    """What is not plain arithmetic raises ValueError and nothing else."""
    with pytest.raises(ValueError, match=r"calculate|characters"):
        calculate(text)

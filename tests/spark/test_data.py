"""The generated dialogues: repeatable, and free of held-out tasks."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_spark import arithmetic, folder, sql
from lightning_spark.data import SAMPLE, dialogues, fingerprint, texts
from lightning_spark.expressions import calculate, expression, normalise
from lightning_spark.held_out import FINAL_SEED, TUNING_SEED, Exclusion, tasks
from lightning_spark.pretrain import Recipe

NOTHING = Exclusion(frozenset(), frozenset())
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
    by_question = Exclusion(frozenset(), frozenset({victim.question.strip()}))
    by_expression = Exclusion(frozenset({normalise(victim.expressions[0])}), frozenset())
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
    """The generator still draws the dialogues they were trained on; changing it means training the weights again."""
    events = [json.loads(line) for line in (folder() / "train.log").read_text().splitlines()]
    recipe, corpus = ([event for event in events if event["event"] == name] for name in ("recipe", "corpus"))
    assert len(recipe) == len(corpus) == 1
    assert fingerprint(texts(SAMPLE, recipe[0]["seed"], held_out)) == corpus[0]["sample_sha256"]
    assert {name: recipe[0][name] for name in asdict(Recipe())} == asdict(Recipe())


def test_the_same_seed_gives_the_same_texts() -> None:
    """However many processes make them."""
    assert texts(2100, 7, NOTHING, workers=2) == texts(2100, 7, NOTHING)
    assert texts(50, 7, NOTHING) != texts(50, 8, NOTHING)


def test_habits_have_their_shares() -> None:
    """Most dialogues guess, so that greedy decoding is poor, and enough call, so that sampling finds it."""
    rng = Random(0)
    made = [each for each in (arithmetic.dialogue(rng) for _ in range(2000)) if each.tools]
    calls = sum("<tool_call>" in each.text() for each in made) / len(made)
    assert abs(calls - (1 - arithmetic.HABITS["guess"])) < 0.04


def test_correct_calls_copy_the_question() -> None:
    """The commonest first call is the expression as it stands in the question."""
    rng = Random(1)
    calling = [each for each in (arithmetic.dialogue(rng) for _ in range(1000)) if "<tool_call>" in each.text()]
    copied = [each for each in calling if CALLED.findall(each.text())[:1] == [each.expressions[0]]]
    assert len(copied) / len(calling) > 0.7


def test_sql_queries_run() -> None:
    """Every right query is valid for its own table."""
    import sqlite3  # noqa: PLC0415 - a judge for this test only

    rng = Random(3)
    for _ in range(200):
        asked = sql.query(rng)
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

"""The parser, the two comparisons, the fixed split and the loader of examples/calc_x, without its framework."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pyarrow as arrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.examples.modules import load

rational = load("calc_x/rational.py")
problems = load("calc_x/problems.py")
calc_x_files = load("calc_x/calc_x_files.py")

NUMBERS = st.integers(-999, 999).map(str).map(lambda text: f"({text})" if text.startswith("-") else text)
EXPRESSIONS = st.recursive(
    NUMBERS, lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=6,
)  # fmt: skip


@given(EXPRESSIONS)
def test_expressions_have_the_value_that_python_gives_them(expression: str) -> None:
    """The parser against Python's own, on expressions that this test has made."""
    assert rational.evaluate(expression) == Fraction(eval(expression))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 3", "7/3"), ("308 * 75 / 100", "231"), ("2 - 3 - 4", "-5"), ("8 / 4 / 2", "1"), ("-(2 + 3) * 4", "-20"),
        ("40% * 50", "20"), (".5 × 3", "1.5"), ("9 ÷ 2", "4.5"), ("1 / 8 - 1", "-0.875"), ("0.1 + 0.2", "0.3"),
        ("999999999999999 * 999999999999999 / 2", "499999999999999000000000000000.5"),
    ],
)  # fmt: skip
def test_expressions(expression: str, value: str) -> None:
    """Signs, precedence, per cent; results are exact, of any size."""
    assert rational.show(rational.evaluate(expression)) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "1 +", "(1", "1)", "1 2", "2 ** 3", "1 / 0", "1 / (2 - 2)", "a", "1e9", "9" * 16, "1" + " + 1" * 60,
        "(" * 21 + "1" + ")" * 21, "__import__('os').system('true')", "open('x', 'w')", "[].__class__", "1 if 1 else 2",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    """Code is text that the parser does not read; there is no other way in which an answer is evaluated."""
    with pytest.raises(ValueError, match=r"."):
        rational.evaluate(text)
    assert not rational.is_exact(text, "9") and not rational.is_close(text, "9")


@pytest.mark.parametrize(
    ("answer", "right", "is_exact", "is_close"),
    [
        ("42", "42", True, True), ("42.0", "42", True, True), ("1/2", "0.5", True, True), ("50%", "1/2", True, True),
        ("1,234", "1234", True, True), ("2 1/3", "7/3", True, True), ("$5.", "5", True, True),
        ("2.33", "7/3", False, True), ("42.4", "42", False, True), ("42.5", "42", False, False),
        ("-42", "42", False, False),
        ("B", "B", True, True), ("(B)", "B", True, True), ("A", "B", False, False), ("b", "B", False, False),
        ("42 apples", "42", False, False), ("2/3 = around 0.666667", "2/3", True, True), ("", "0", False, False),
    ],
)  # fmt: skip
def test_answers(answer: str, right: str, is_exact: bool, is_close: bool) -> None:
    """Exact comparison, and beside it the rule of one per cent."""
    assert (rational.is_exact(answer, right), rational.is_close(answer, right)) == (is_exact, is_close)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So it is ### ANSWER: 7/3 ###", "7/3"), ("### ANSWER: 7", "7"), ("<answer> 7 </answer>", "7"),
        ("<answer>6</answer> no, <answer>7</answer>", "7"), (" 7 ", "7"),
    ],
)  # fmt: skip
def test_final_answers(text: str, answer: str) -> None:
    """Both marks are read, the last one counts, and a bare answer is one too."""
    assert rational.final_answer(text) == answer


def test_the_split_is_fixed_and_disjoint() -> None:
    """Right answers score 1; no held-out question and no held-out story with the same numbers is trained on."""
    train, held_out = problems.load("train"), problems.load("held_out")
    assert (len(train), len(held_out)) == (problems.TRAIN_SIZE, problems.HELD_OUT_SIZE)
    assert not {task["question"] for task in train} & {task["question"] for task in held_out}
    expressions = [{task["expression"] for task in part if "expression" in task} for part in (train, held_out)]
    assert not expressions[0] & expressions[1]
    assert all(rational.is_exact(f"{task['answer']}", task["answer"]) for task in held_out)
    assert all(
        rational.is_exact(task["expression"], task["answer"]) for task in train + held_out if "expression" in task
    )
    answers = [task["answer"] for task in held_out]
    assert max(map(answers.count, answers)) <= 9, "a constant answer scores 0.03 at most"


def test_the_files_are_what_the_script_writes() -> None:
    """Anybody can make them again."""
    held_out = problems.tasks(problems.HELD_OUT_SEED, problems.HELD_OUT_SIZE)
    assert held_out == problems.load("held_out")


def test_calc_x_files(tmp_path: Path) -> None:
    """The question and the result of each row; a file without them is told by its columns."""
    rows = {
        "id": ["a"],
        "question": ["How many degrees make a right angle?"],
        "chain": ["<x>"],
        "result": ["15"],
    }
    parquet.write_table(arrow.table(rows), tmp_path / "train.parquet")
    (task,) = calc_x_files.load(tmp_path, "train")
    assert task == {"id": "a", "question": rows["question"][0], "answer": "15"}
    parquet.write_table(arrow.table({"q": [1]}), tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"has no column question, result; it has q"):
        calc_x_files.load(tmp_path, "held_out")

"""The generator, the execution and the grader of examples/text_to_sql, without its framework."""

from __future__ import annotations

import json
import random
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples.modules import load

execution = load("text_to_sql/execution.py")
databases = load("text_to_sql/databases.py")
questions = load("text_to_sql/questions.py")
spider = load("text_to_sql/spider.py")


def test_the_split_is_by_database() -> None:
    """No table of a held-out database is one of a training database, and no task is about a database of the other."""
    assert len(databases.TRAINING) >= 12 and len(databases.HELD_OUT) >= 5
    tables = [
        {table.name for database in part.values() for table in (database.parent, database.child)}
        for part in (databases.TRAINING, databases.HELD_OUT)
    ]
    assert not tables[0] & tables[1]
    assert {task["database"] for task in questions.tasks(1, 200)} <= set(databases.TRAINING)
    assert {task["database"] for task in questions.tasks(2, 80, held_out=True)} == set(databases.HELD_OUT)


def test_tasks_are_the_same_for_a_seed() -> None:
    """Tasks follow from the seed, are different, and a quarter of them is of each level."""
    tasks = questions.tasks(3, 40)
    assert tasks == questions.tasks(3, 40) != questions.tasks(4, 40)
    assert len({(task["database"], task["request"]) for task in tasks}) == 40
    assert [task["level"] for task in tasks[:4]] == ["easy", "medium", "hard", "extra"]


def test_gold_queries_are_right_and_others_are_not() -> None:
    """The grader's proof: every gold query scores 1; another question's, a constant and a refusal score next to 0."""
    tasks = questions.tasks(5, 120, held_out=True)
    assert all(score(task, task["query"]) for task in tasks)
    others = [score(task, other["query"]) for task, other in pairwise(tasks)]
    assert sum(others) <= 3
    for constant in ("SELECT COUNT(*) FROM ships", "SELECT name FROM chefs", "I do not know.", ""):
        assert sum(score(task, constant) for task in tasks) <= 6, constant


def score(task: dict[str, str], sql: str) -> bool:
    return bool(execution.match(databases.instances(task["database"]), sql, task["query"]))


def test_a_lucky_query_is_found_out() -> None:
    """What is right on the instance that the agent sees, by chance, is wrong on another one."""
    first, *others = databases.instances("harbour")
    (count,) = execution.run(first, "SELECT COUNT(*) FROM ships WHERE tons > 500").rows[0]
    gold = "SELECT COUNT(*) FROM ships WHERE tons > 500"
    assert execution.match([first], f"SELECT {count}", gold)
    assert not execution.match([first, *others], f"SELECT {count}", gold)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE ships",
        "DELETE FROM ships",
        "UPDATE ships SET tons = 0",
        "CREATE TABLE more (id)",
        "ATTACH 'elsewhere.sqlite' AS other",
        "PRAGMA query_only = 0",
        "VACUUM",
        "SELECT load_extension('x')",
        "SELECT 1; DROP TABLE ships",
        "SELECT zeroblob(1000000000)",
        "WITH RECURSIVE all_(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM all_) SELECT n FROM all_",
        "SELECT '\0'",
    ],
)
def test_a_query_can_only_read(sql: str) -> None:
    """Whatever else a model writes is an error with words, and the file stays as it is."""
    path = databases.instance("harbour", 0)
    before = path.read_bytes()
    found = execution.run(path, sql)
    assert found.error and found.text().startswith("Error: ")
    assert path.read_bytes() == before


def test_a_query_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit holds for work that gives no rows."""
    monkeypatch.setattr(execution, "SECONDS", 0.05)
    endless = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT MAX(n) FROM a"
    assert execution.run(databases.instance("harbour", 0), endless).error == "interrupted"


def test_what_the_agent_is_shown() -> None:
    """A few rows, and how many there are besides."""
    assert execution.Result([("a", 1), ("b", 2.5), ("c", None), ("d", 4)]).text() == (
        "Result: a, 1; b, 2.5; c, None and 1 more"
    )
    assert execution.Result([]).text() == "Result: no rows"
    assert execution.run(databases.instance("harbour", 0), "SELECT mast FROM ships").text() == (
        "Error: no such column: mast"
    )


CELLS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([0.5, None])), max_size=4)


@given(CELLS, st.permutations(range(3)), st.randoms())
def test_columns_and_rows_may_come_in_any_order(
    rows: list[tuple[object, ...]], order: list[int], draw: random.Random
) -> None:
    """A result equals itself with its columns and rows in another order, but not one with a row more."""
    others = [tuple(row[place] for place in order) for row in rows]
    draw.shuffle(others)
    assert execution.is_equal(rows, others, ordered=False)
    assert not execution.is_equal(rows, [*others, ("a", 1, 0.5)], ordered=False)


def test_the_order_of_rows_counts_with_order_by() -> None:
    """As in Spider's evaluation: the gold query decides."""
    files = databases.instances("harbour")
    up, down = "SELECT tons FROM ships ORDER BY tons", "SELECT tons FROM ships ORDER BY tons DESC"
    assert not execution.match(files, down, up)
    assert execution.match(files, down, "SELECT tons FROM ships")


def test_distinct_can_be_left_out_of_the_comparison() -> None:
    """As Spider's evaluation does by default; a word in quotes stays."""
    assert execution.without_distinct("SELECT DISTINCT a, count(distinct b) FROM t WHERE c = 'DISTINCT'") == (
        "SELECT a, count(b) FROM t WHERE c = 'DISTINCT'"
    )
    files, gold = databases.instances("harbour"), "SELECT DISTINCT cargo FROM ships"
    assert not execution.match(files, "SELECT cargo FROM ships", gold)
    assert execution.match(files, "SELECT cargo FROM ships", gold, keep_distinct=False)


def test_a_gold_query_that_fails_is_an_error() -> None:
    """No model is blamed for it."""
    with pytest.raises(ValueError, match="the gold query 'SELECT x FROM y' fails"):
        execution.match(databases.instances("harbour"), "SELECT 1", "SELECT x FROM y")


def test_the_files_of_spider_become_tasks(tmp_path: Path) -> None:
    """All files of a database count, and the agent sees the one with its name."""
    for number, name in enumerate(["a_suite.sqlite", "zoo.sqlite"]):
        (tmp_path / "database" / "zoo").mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(tmp_path / "database" / "zoo" / name)
        with connection:
            connection.execute("CREATE TABLE animals (id INTEGER, legs INTEGER)")
            connection.executemany("INSERT INTO animals VALUES (?, ?)", [(1, 2 + number), (2, 8)])
        connection.close()
    question, query = "How many have over 2 legs?", "SELECT count(*) FROM animals WHERE legs > = 3"
    entry = {"db_id": "zoo", "question": question, "query": query}
    (tmp_path / "train_spider.json").write_text(json.dumps([entry]), "utf-8")
    (task,) = spider.load(tmp_path, "train")
    assert task["schema"] == "animals(id, legs)" and task["request"] == "How many have over 2 legs?"
    assert [Path(path).name for path in task["files"]] == ["zoo.sqlite", "a_suite.sqlite"]
    files = [Path(path) for path in task["files"]]
    assert execution.match(files, "SELECT count(id) FROM animals WHERE legs > 2", task["query"], keep_distinct=False)
    assert not execution.match(files, "SELECT 2", task["query"], keep_distinct=False)

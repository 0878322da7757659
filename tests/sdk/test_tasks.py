"""Tasks: taken from every kind of file and from Python's own containers, or refused with the line and what to type."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import decimal
import enum
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import polars
import pyarrow
import pytest
import torch
from pyarrow import parquet

import lightning_sdk as lightning
from lightning_sdk.rollouts.tasks import canonical, load, split, task_id, unique, without
from lightning_sdk.stream import wire

TASKS = [{"question": "1 + 1", "answer": "2"}, {"question": "café?", "answer": "ja,\nklar"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tasks.jsonl", "\n\n".join(json.dumps(task) for task in TASKS)),
        ("tasks.JSONL", "\r\n".join(json.dumps(task, ensure_ascii=False) for task in TASKS) + "\r\n"),
        ("tasks.ndjson", "\n".join(json.dumps(task) for task in TASKS)),
        ("tasks.json", json.dumps(TASKS)),
        ("tasks.json", json.dumps(TASKS, indent=2)),
        ("tasks.json", "\n".join(json.dumps(task) for task in TASKS)),
        ("tasks.jsonl", json.dumps(TASKS, indent=2)),
        ("tasks.csv", 'question,answer\n1 + 1,2\n\ncafé?,"ja,\nklar"\n'),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_kind_of_file_gives_the_same_tasks(tmp_path: Path, name: str, content: str, mark: str) -> None:
    """Lines or an array, whatever the ending says, with Windows' line ends and mark; every value of a CSV is text."""
    (tmp_path / name).write_bytes((mark + content).encode())
    assert load(tmp_path / name) == TASKS
    assert load(str(tmp_path / name)) == TASKS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.jsonl", None, r"no file .*give a file \(\.jsonl .*\.json .*\.csv .*\.parquet"),
        ("empty.jsonl", b"\n", "holds no tasks"),
        ("empty.json", b"[]", "holds no tasks"),
        ("tasks.xlsx", b"PK", r"tasks\.xlsx is not \.jsonl .*orient='records', lines=True"),
        ("tasks.jsonl", b'{"q": 1}\n\n{"q": \n', "tasks.jsonl, line 3: not JSON"),
        ("tasks.jsonl", b'{"q": 1}\n[1, 2]\n', "line 2: a task is an object of names and values, not list"),
        ("tasks.json", b'[{"q": 1},\n {"q": }]', "tasks.json, line 2: not JSON"),
        ("tasks.json", b'[{"q": 1}, 7]', "tasks.json, task 2: a task is an object of names and values, not int: 7"),
        (
            "tasks.json",
            b'{\n "train": [],\n "test": []}',
            "line 1: not JSON.*\nThe file is one object .with train, test",
        ),
        ("tasks.jsonl", b'{"q": 1}\n{"q": "caf\xe9"}\n', r"line 2: not UTF-8 \(byte 0xe9\).*iconv -f LATIN1"),
        ("tasks.jsonl", '{"q": 1}'.encode("utf-16"), "line 1: the file is UTF-16.*iconv"),
        ("tasks.jsonl", b'{"q": 1}\n{"q": {"x": NaN}}', r"line 2\['q'\]\['x'\] is nan.*give None"),
        ("tasks.jsonl", b'{"q": "\\ud83d"}', r"line 1\['q'\] is .*half a character"),
        (
            "tasks.jsonl",
            b'{"q": 123456789012345678901}',
            r"\['q'\] is 123456789012345678901, an integer of more than 64",
        ),
        ("tasks.jsonl", b'{"q": ' + b"[" * 100_000, "line 1: not JSON"),
        ("tasks.csv", "q\n1\n".encode("utf-32"), "line 1: the file is UTF-32.*iconv -f UTF-32"),
        ("tasks.jsonl", '{"q": 1}\n{"q": 2}'.encode("utf-16-le"), "line 1: a byte 0x00.*UTF-16LE"),
        ("tasks.csv", b"q\n1\n2\x00\n", "line 3: a byte 0x00"),
        ("tasks.jsonl", b"\x1f\x8b\x08\x00", "compressed with gzip; unpack"),
        ("tasks.jsonl", b'{"\\ud800": 1}', r"line 1 has a key that is '\\ud800', which holds half"),
        ("tasks.csv", b"q,a\n1,2\n1,2,3\n", "tasks.csv, line 3: 3 values, but the header names 2: 1, 2, 3"),
        ("tasks.csv", b"q,q\n1,2\n", "line 1: the header names 'q' twice: q, q"),
        ("tasks.csv", b"q,\n1,2\n", "line 1: the header has a column without a name"),
        ("tasks.csv", b'q,a\n1,"2\n', "line 2: not CSV"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_to_type(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """A missing, foreign, empty or damaged file, each with its line."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(lightning.TaskError, match=said):
        load(tmp_path / name)


def test_a_folder_or_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    """And not an OSError."""
    (tmp_path / "tasks.jsonl").mkdir()
    with pytest.raises(lightning.TaskError, match=r"tasks\.jsonl is a folder"):
        load(tmp_path / "tasks.jsonl")


def test_a_csv_value_may_be_a_document(tmp_path: Path) -> None:
    """Python's own reader stops at 131,072 characters; its limit is what it was afterwards."""
    before = csv.field_size_limit()
    (tmp_path / "tasks.csv").write_text("q,text\n1," + "x" * 200_000 + "\n")
    assert load(tmp_path / "tasks.csv") == [{"q": "1", "text": "x" * 200_000}]
    assert csv.field_size_limit() == before


def test_a_task_that_is_too_large_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started, with the key that holds most of it."""
    monkeypatch.setattr(wire, "MAX_TASK_BYTES", 2**20)
    tasks = [{"q": "small"}, {"q": "x", "image": "x" * 3 * 2**20}]
    with pytest.raises(
        lightning.TaskError, match=r"tasks\[1\] has 3 MiB, most of them in 'image', .*at most 1 MiB.*paths"
    ):
        load(tasks)


# --- from Python


class Sequence:
    """What has a length and items, as torch's datasets."""

    def __getitem__(self, place: int) -> dict[str, Any]:
        return TASKS[place]


def generate() -> Iterator[dict[str, Any]]:
    yield from TASKS


@pytest.mark.parametrize("given", [TASKS, tuple(TASKS), generate(), Sequence()])
def test_any_iterable_of_mappings_is_taken(given: Any) -> None:
    """A list, a tuple, a generator, what has items by number."""
    assert load(given) == TASKS


class Label(enum.StrEnum):
    YES = "yes"


class Kind(enum.Enum):
    YES = 1


@dataclasses.dataclass
class Point:
    x: int


def test_numbers_and_arrays_of_libraries_become_pythons() -> None:
    """NumPy's scalars of every kind, its arrays and torch's tensors, deep inside: plain as if typed by hand."""
    given = {
        "int": np.int64(3),
        "float": np.float32(0.5),
        "double": np.float64(0.25),
        "bool": np.bool_(True),
        "text": np.str_("a"),
        "array": np.arange(4).reshape(2, 2),
        "empty": np.array([]),
        "scalar": np.array(7),
        "tensor": torch.tensor([1.0, 2.0]),
        "tuple": (1, np.int8(2)),
        "label": Label.YES,
        "names": np.array(["a", "b"]),
        "nested": [{"deep": np.uint8(9)}],
    }
    wanted = {
        "int": 3,
        "float": 0.5,
        "double": 0.25,
        "bool": True,
        "text": "a",
        "array": [[0, 1], [2, 3]],
        "empty": [],
        "scalar": 7,
        "tensor": [1.0, 2.0],
        "tuple": [1, 2],
        "label": "yes",
        "names": ["a", "b"],
        "nested": [{"deep": 9}],
    }
    [found] = load([given])
    assert found == wanted
    assert json.dumps(found) == json.dumps(wanted)  # nothing is a subclass that prints otherwise
    assert all(type(found[name]) is type(wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({2, 1}, r"is \{1, 2\} \(set\): give a list: sorted\(x\)"),
        (datetime.date(2026, 1, 2), r"\(date\): give text: x\.isoformat\(\)"),
        (datetime.timedelta(1), r"give seconds: x\.total_seconds\(\)"),
        (np.datetime64("2026-01-02"), r"\(date\): give text: x\.isoformat\(\)"),
        (b"abc", r"is b'abc' \(bytes\): give text: x\.decode\(\)"),
        (decimal.Decimal("1.5"), r"give float\(x\) or str\(x\)"),
        (float("inf"), r"is inf, which JSON cannot represent: give None"),
        (np.float32("nan"), "is nan, which JSON cannot represent"),
        (np.array([0.5, np.nan]), r"\[1\]\['a'\]\[1\] is nan"),
        (np.array([object()]), r"\[1\]\['a'\]\[0\] is <object"),
        (2**70, "an integer of more than 64 bits: give it as text"),
        (1j, "give "),
        (Path("x"), r"give text: str\(x\)"),
        (Kind.YES, r"is <Kind\.YES: 1> \(Kind\): give its value: x\.value"),
        (Point(1), r"is Point, a dataclass: give a dict: dataclasses\.asdict\(x\)"),
        (Point, "give its name, or leave it out"),
        ({1: "one"}, r"has the key 1, which is int: use a string: '1'"),
        ("\ud83d", "half a character"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_task_key_and_remedy(value: Any, said: str) -> None:
    """The second task's key `a`."""
    with pytest.raises(lightning.TaskError, match=said) as raised:
        load([{"a": 1}, {"a": value}])
    assert str(raised.value).startswith("tasks[1]['a']")


def test_a_task_that_holds_itself_is_refused() -> None:
    """The error says so instead of being a RecursionError."""
    task: dict[str, Any] = {}
    task["again"] = task
    with pytest.raises(lightning.TaskError, match=r"tasks\[0\].*nested too deeply or contains itself"):
        load([task])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (TASKS[0], r"tasks is one dict with question, answer: give a list of dicts; \[tasks\] if it is one task"),
        ({"train": TASKS}, r"tasks\['train'\] if that holds the tasks"),
        (7, r"tasks is 7: give a file \(.*a list of dicts, or a DataFrame"),
        (generate, r"call it: tasks\(\)"),
        (["a"], r"tasks\[0\]: a task is an object of names and values, not str: 'a'"),
        ([], "tasks: what was given holds no tasks"),
    ],
)
def test_what_holds_no_tasks_says_what_does(given: Any, said: str) -> None:
    """One task, the splits of a dataset, a function that was not called."""
    with pytest.raises(lightning.TaskError, match=said):
        load(given)


def test_tables_need_none_of_their_libraries() -> None:
    """Loading a list imports no table library, and none of NumPy."""
    script = (
        "import sys; from lightning_sdk.rollouts.tasks import load; load([{'a': [1]}]); "
        "print({'numpy', 'pandas', 'polars', 'pyarrow', 'datasets', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def pandas_frame(rows: list[dict[str, Any]]) -> Any:
    return pandas.DataFrame(rows)


def polars_frame(rows: list[dict[str, Any]]) -> Any:
    return polars.DataFrame(rows)


def arrow_table(rows: list[dict[str, Any]]) -> Any:
    return pyarrow.Table.from_pylist(rows)


def huggingface_dataset(rows: list[dict[str, Any]]) -> Any:
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("made", [pandas_frame, polars_frame, arrow_table, huggingface_dataset])
def test_tables_give_their_rows(made: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Tables of every library that is installed, with numbers and lists inside."""
    rows = [{"q": "a", "n": 1, "x": 0.5, "all": [1, 2]}, {"q": "b", "n": 2, "x": 1.5, "all": [3]}]
    assert load(made(rows)) == rows


def test_a_missing_value_of_a_table_is_told(tmp_path: Path) -> None:
    """pandas has NaN there, which JSON does not know."""
    with pytest.raises(lightning.TaskError, match=r"tasks\[1\]\['n'\] is nan.*df\.astype\(object\)"):
        load(pandas_frame([{"n": 1}, {}]))


def test_parquet_files_are_read_and_damage_is_told(tmp_path: Path) -> None:
    """With the name of the file."""
    parquet.write_table(arrow_table([{"q": "a", "all": [1]}]), tmp_path / "tasks.parquet")
    assert load(tmp_path / "tasks.parquet") == [{"q": "a", "all": [1]}]
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "tasks.parquet").read_bytes()[:-20])
    with pytest.raises(lightning.TaskError, match=r"bad\.parquet: not a Parquet file, or damaged"):
        load(tmp_path / "bad.parquet")
    far = pyarrow.table({"when": pyarrow.array([2**62], pyarrow.timestamp("us"))})  # no date of Python's
    parquet.write_table(far, tmp_path / "far.parquet")
    with pytest.raises(lightning.TaskError, match=r"far\.parquet: not a Parquet file, or damaged \(OverflowError"):
        load(tmp_path / "far.parquet")


# --- known by their content


def test_equal_tasks_have_one_number() -> None:
    """Whatever the order of keys, and whether a table wrote 1 as 1.0; other content has another number."""
    one = {"question": "x", "n": 1, "deep": {"a": [1, 2], "b": None}}
    other = {"deep": {"b": None, "a": [1.0, 2]}, "n": 1.0, "question": "x"}
    assert canonical(one) == canonical(other) and task_id(one) == task_id(other)
    assert task_id(json.loads(json.dumps(one))) == task_id(one) == 3527738965652972
    for changed in ({**one, "n": 2}, {**one, "n": "1"}, {**one, "n": True}, {"question": "x", "n": 1}):
        assert task_id(changed) != task_id(one)
    assert unique([one, {"a": 1}, other, {"a": 1.0}]) == [one, {"a": 1}]
    assert without([one, {"a": 1}, other], [other]) == [{"a": 1}]


def test_split_puts_each_task_on_one_side() -> None:
    """Training and held-out tasks are disjoint, complete, and the same for the same seed."""
    tasks = [{"i": i} for i in range(50)]
    train, held_out = split(tasks, 0.2, 8, seed=3)
    assert len(held_out) == 8 and sorted(t["i"] for t in train + held_out) == list(range(50))
    assert split(tasks, 0.2, 8, seed=3) == (train, held_out)


def test_equal_tasks_are_on_one_side_of_a_split() -> None:
    """Each of 10 tasks is there five times: two are held out, once each, and none of them is in training."""
    tasks = [{"i": i % 10} for i in range(50)]
    for seed in range(20):
        train, held_out = split(tasks, 0.2, 200, seed=seed)
        assert len(held_out) == 2 and len(train) == 40
        assert not {t["i"] for t in train} & {t["i"] for t in held_out}
    with pytest.raises(lightning.TaskError, match="50 equal tasks cannot be split"):
        split([{"i": 1}] * 50, 0.2, 8, seed=0)

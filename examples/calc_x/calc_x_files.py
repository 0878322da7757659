"""Tasks from the Parquet files of the Calc-X data set, which are not in this repository."""

from __future__ import annotations

from pathlib import Path

NAMES = {"train": "train.parquet", "held_out": "test.parquet"}


def load(folder: str | Path, name: str) -> list[dict]:
    """The questions and results of `train` or `held_out`. Needs pyarrow.

    Raises:
        ValueError: the file has no columns `question` and `result`.
    """
    from pyarrow import parquet  # noqa: PLC0415  only for those who have the files

    path = Path(folder) / NAMES[name]
    table = parquet.read_table(path)
    if missing := {"question", "result"} - set(table.column_names):
        raise ValueError(f"{path} has no column {', '.join(sorted(missing))}; it has {', '.join(table.column_names)}")
    known = [column for column in ("id", "question", "result", "source") if column in table.column_names]
    return [
        {**{key: value for key, value in row.items() if key != "result"}, "answer": str(row["result"])}
        for row in table.select(known).to_pylist()
    ]

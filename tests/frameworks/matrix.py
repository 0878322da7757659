"""The documentation's table of frameworks, made from what the tests in each environment proved (`results/*.json`).

python tests/frameworks/matrix.py                   # writes it into docs/frameworks.md
python tests/frameworks/matrix.py --against FOLDER  # fails where less is proved than in the copy in FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frameworks.md"
RESULTS = Path(__file__).with_name("results")
BEGIN, END = "<!-- frameworks -->\n", "<!-- /frameworks -->"


def table(results: Path = RESULTS) -> str:
    """Markdown: a line for each framework, over all environments."""
    rows = ["| framework | version | calls | roles | streaming | async | threads |", "|---|---|---|---|---|---|---|"]
    for name, proofs in sorted(_proofs(results).items(), key=lambda item: item[0].casefold()):
        versions = list(dict.fromkeys(each["version"] for each in proofs))
        roles = sorted({role for each in proofs for role in each["roles"]})
        cells = [
            name,
            ", ".join(versions),
            str(sum(each["calls"] for each in proofs)),
            ", ".join(f"`{role}`" for role in roles) or "by decorator",
            *("yes" if any(each[what] for each in proofs) else "" for what in ("streaming", "async_", "threads")),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _proofs(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Framework -> what each environment proved of it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(results.glob("*.json")):
        for name, proof in json.loads(path.read_text("utf-8")).items():
            found.setdefault(name, []).append(proof)
    return found


def replace_table(readme: str) -> str:
    """`readme` with the table as it has to be."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"docs/frameworks.md has no {BEGIN.strip()} ... {END}"
    return before + BEGIN + table() + END + after


def missing(before: Path, results: Path = RESULTS) -> list[str]:
    """What the results in the folder `before` say and those here do not.

    Numbers of calls are not compared: a model that samples may take a turn more.
    """
    found = []
    for path in sorted(before.glob("*.json")):
        now = json.loads((results / path.name).read_text("utf-8"))
        for name, proof in json.loads(path.read_text("utf-8")).items():
            for what, value in proof.items():
                if what != "calls" and now.get(name, {}).get(what) != value:
                    found.append(f"{path.stem}: {name}: {what} was {value!r}, is {now.get(name, {}).get(what)!r}")
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--against"]:
        sys.exit("\n".join(missing(Path(sys.argv[2]))) or None)
    PAGE.write_text(replace_table(PAGE.read_text("utf-8")), "utf-8")

"""The table of docs/algorithms.md that says what is compared with VERL, made from the marks of tests/verl.

python tests/docs/verl_table.py        # writes it into docs/algorithms.md
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "algorithms.md"
BEGIN, END = "<!-- verl -->\n", "<!-- /verl -->"


class Mark(NamedTuple):
    """`@pytest.mark.same(function, settings)` or `differs` on a test."""

    kind: str
    function: str
    settings: str
    told: str
    """The test's docstring."""


def marks() -> Iterator[Mark]:
    """Those of every test, in order of the files. `tests/verl/conftest.py` calls what they name."""
    for path in sorted((ROOT / "tests" / "verl").glob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        named = {node.targets[0].id: node.value.value for node in tree.body if _is_text(node)}
        for node in tree.body:
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                kind = ast.unparse(decorator).partition("(")[0].removeprefix("pytest.mark.")
                if kind in {"same", "differs"}:
                    function, settings = (eval(ast.unparse(each), {}, named) for each in decorator.args)
                    yield Mark(kind, function, settings, _line(ast.get_docstring(node)))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _line(docstring: str | None) -> str:
    assert docstring
    return " ".join(docstring.split()).replace("|", "\\|")


def table() -> str:
    """Markdown: what is equal, then what differs and how."""
    found = list(marks())
    equal = dict.fromkeys((mark.function, mark.settings) for mark in found if mark.kind == "same")
    rows = ["| equal to VERL's | with |", "|---|---|"]
    rows += [f"| `{function}` | `{settings}` |" for function, settings in sorted(equal)]
    rows += ["", "| VERL's | with | differs |", "|---|---|---|"]
    rows += [f"| `{mark.function}` | `{mark.settings}` | {mark.told} |" for mark in found if mark.kind == "differs"]
    return "\n".join(rows) + "\n"


def replaced(page: str) -> str:
    """`page` with the table as it has to be."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{PAGE.name} has no {BEGIN.strip()} ... {END}"
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text("utf-8")), "utf-8")

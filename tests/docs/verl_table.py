"""The table of docs/algorithms.md that says what is compared with VERL, made from the marks of tests/verl.

python tests/docs/verl_table.py        # writes it into docs/algorithms.md
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.docs.pages import between

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
        texts = dict(_texts(tree))
        for test in tree.body:
            if isinstance(test, ast.FunctionDef):
                yield from _marks(test, texts)


def _marks(test: ast.FunctionDef, texts: dict[str, str]) -> Iterator[Mark]:
    for decorator in test.decorator_list:
        kind = ast.unparse(decorator).partition("(")[0].removeprefix("pytest.mark.")
        if isinstance(decorator, ast.Call) and kind in {"same", "differs"}:
            # Arguments are texts, perhaps made of the file's own constants.
            function, settings = (eval(ast.unparse(each), {}, texts) for each in decorator.args)
            yield Mark(kind, function, settings, _line(ast.get_docstring(test)))


def _texts(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The constants of a file."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                yield name, text


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


def replace_table(page: str) -> str:
    """`page` with the table as it has to be."""
    return between(page, BEGIN, END, table())


if __name__ == "__main__":
    PAGE.write_text(replace_table(PAGE.read_text("utf-8")), "utf-8")

"""The README's table of settings, made from `Settings` itself.

python tests/docs/settings_table.py        # writes it into README.md
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_sdk.settings import Settings

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"


def table() -> str:
    """Markdown: name, default and meaning of every setting."""
    rows = ["| setting | default | |", "|---|---|---|"]
    rows += [f"| `{name}` | `{_shown(value)}` | {text} |" for name, value, text in settings()]
    return "\n".join(rows) + "\n"


def settings() -> Iterator[tuple[str, Any, str]]:
    """Dotted name, default and docstring of every setting, in order."""
    default = Settings()
    told = {"": _docstrings(Settings)}
    for name, value in default.flat().items():
        group, _, leaf = name.rpartition(".")
        if group not in told:
            told[group] = _docstrings(type(getattr(default, group)))
        yield name, value, told[group].get(leaf, "")


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """Field -> the string beneath it."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(ast.literal_eval(below.value).split()).replace("|", "\\|")
    return found


def _shown(value: Any) -> str:
    return "all" if value == () else "chosen" if value is None else str(value)


def replaced(readme: str) -> str:
    """`readme` with the table as it has to be."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"README.md has no {BEGIN.strip()} ... {END}"
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(replaced(README.read_text("utf-8")), "utf-8")

"""The table of settings in docs/settings.md, made from `Settings` itself.

python tests/docs/settings_table.py        # writes it into the page
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.settings import Settings
from tests.docs.pages import between

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
#: Fields that are not named in their settings' names.
_SHOWN = {"verbatim": "actor_rollout_ref.NAME, vllm.NAME ..."}
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"


def tables() -> str:
    """Markdown: name, default and meaning of every setting, a table for each group."""
    parts = [_table("", Settings)]
    default = Settings()
    for each in fields(Settings):
        group = type(getattr(default, each.name))
        if is_dataclass(group):
            said = inspect.cleandoc(group.__doc__ or "")
            parts.append(f"## {each.name}\n\n{said}\n\n{_table(each.name, group)}")
    return "\n".join(parts)


def settings() -> Iterator[tuple[str, Any, str]]:
    """Dotted name, default and docstring of every setting, in order."""
    default = Settings()
    for each in fields(Settings):
        group = getattr(default, each.name)
        yield from _of(each.name, type(group)) if is_dataclass(group) else _of("", Settings, only=each.name)


def _of(group: str, cls: type[Any], only: str = "") -> Iterator[tuple[str, Any, str]]:
    told, default = _docstrings(cls), cls()
    for each in fields(cls):
        value = getattr(default, each.name)
        if only in ("", each.name) and not is_dataclass(value):
            name = _SHOWN.get(each.name) or (f"{group}.{each.name}" if group else each.name)
            if isinstance(value, Mapping) and each.name not in _SHOWN:
                name += ".NAME"
            yield name, value, told.get(each.name, "")


def _table(group: str, cls: type[Any]) -> str:
    rows = ["| setting | default | |", "|---|---|---|"]
    rows += [f"| `{name}` | {_show(value)} | {text} |" for name, value, text in _of(group, cls)]
    return "\n".join(rows) + "\n"


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """Field -> the string beneath it."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(ast.literal_eval(below.value).split()).replace("|", "\\|")
    return found


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ""
    return f"`{'all' if value == () else 'none' if value is None else value}`"


def replace_tables(page: str) -> str:
    """`page` with the tables as they have to be."""
    return between(page, BEGIN, END, tables())


if __name__ == "__main__":
    PAGE.write_text(replace_tables(PAGE.read_text("utf-8")), "utf-8")

"""Shape of the data: what has many fields is made by their names, so that no two of them can change places."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.architecture.sources import Module, modules

#: From so many fields on a class takes keywords only.
FIELDS = 6
#: Class -> why it may be made by position. A class that no longer needs it leaves this list.
POSITIONAL: dict[str, str] = {}
Classes = dict[str, list[ast.ClassDef]]


def test_many_fields_take_keywords_only() -> None:
    """Dataclasses and msgspec's structs; a named tuple is a tuple, which a position belongs to."""
    classes: Classes = defaultdict(list)
    found: list[tuple[Module, ast.ClassDef]] = []
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(node)
                found.append((module, node))
    positional = {
        f"{module.where}:{node.name}"
        for module, node in found
        if (options := options_of(node, classes)) is not None
        and options.get("kw_only") is not True
        and count_fields(node, classes) >= FIELDS
    }
    assert positional == set(POSITIONAL)


def options_of(node: ast.ClassDef, classes: Classes) -> dict[str, object] | None:
    """What a dataclass's decorator or a struct's class line says; None for other classes."""
    for decorator in node.decorator_list:
        if ast.unparse(decorator).split("(")[0].endswith("dataclass"):
            return constants(decorator.keywords if isinstance(decorator, ast.Call) else [])
    if any(is_struct(base, classes) for base in node.bases):
        return constants(node.keywords)
    return None


def is_struct(base: ast.expr, classes: Classes) -> bool:
    """Whether a base is msgspec's, or a class of ours below it."""
    name = ast.unparse(base).rpartition(".")[2]
    return name == "Struct" or any(is_struct(each, classes) for node in classes.get(name, []) for each in node.bases)


def constants(keywords: list[ast.keyword]) -> dict[str, object]:
    return {each.arg: each.value.value for each in keywords if each.arg and isinstance(each.value, ast.Constant)}


def count_fields(node: ast.ClassDef, classes: Classes) -> int:
    """Fields of a class and of those that it inherits from."""
    own = [
        each for each in node.body if isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each.annotation)
    ]
    inherited = [
        max((count_fields(each, classes) for each in classes.get(ast.unparse(base), [])), default=0)
        for base in node.bases
    ]
    return len(own) + sum(inherited)

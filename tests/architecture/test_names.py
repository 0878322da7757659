"""Shape of the code: one noun per file, of a size that is read in one sitting, under a name that says something."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from types import ModuleType

import pytest

import lightning_sdk
from lightning_sdk import errors
from lightning_sdk.settings.groups import Group
from tests.architecture.sources import ROOT, Module, kept_files, modules, pyproject, run_python

LINES = 400
FUNCTION_LINES = 60
#: File -> why it may be longer. A file that has become short leaves this list.
LONGER: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}
#: Participles that do not end in -ed. Of a longer name they may be a part.
PARTICIPLES = frozenset({
    "begun", "bound", "built", "caught", "dealt", "done", "drawn", "driven", "felt", "found", "given", "gone", "grown",
    "heard", "held", "kept", "known", "laid", "led", "left", "lost", "made", "meant", "met", "paid", "said", "seen",
    "sent", "shown", "sold", "spent", "spoken", "stood", "sunk", "taken", "taught", "thought", "told", "torn",
    "understood", "written",
})  # fmt: skip
NO_PARTICIPLES = frozenset({"embed", "exceed", "feed", "need", "proceed", "seed", "speed"})
MEANINGLESS = {"util", "utils", "helper", "helpers", "common", "base", "manager", "misc"}


def python_files() -> list[Module]:
    return [Module(path.stem, path) for path in kept_files() if path.suffix == ".py"]


def test_files_are_short() -> None:
    """At 400 lines a file is two files."""
    long = {file.where for file in python_files() if len(file.path.read_text("utf-8").splitlines()) > LINES}
    assert long == set(LONGER)


def test_functions_are_short() -> None:
    """A function fits on one screen."""
    long = {
        f"{file.where}:{node.name}"
        for file in python_files()
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == set(LONGER_FUNCTIONS)


def test_no_function_is_named_by_a_bare_participle() -> None:
    """`opened` says neither whether a function asks, makes or acts; `is_open`, `open_call` and `opening_time` do."""
    found = {
        f"{file.where}:{node.name}"
        for file in python_files()
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_participle(node.name.strip("_"))
    }
    assert not found


def is_participle(name: str) -> bool:
    if "_" in name or name in NO_PARTICIPLES:
        return False
    return name in PARTICIPLES or (name.endswith("ed") and not name.endswith("eed"))


def test_no_two_public_classes_have_one_name() -> None:
    """A class's name tells readers which class it is."""
    names = Counter(
        node.name
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not {name for name, count in names.items() if count > 1}


def test_files_are_named_after_what_they_own() -> None:
    """A name that fits everything says nothing."""
    for file in python_files():
        named = {part.lower() for part in file.path.relative_to(ROOT).with_suffix("").parts}
        assert not named & MEANINGLESS, file.where


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_modules_open_with_what_they_own(module: Module) -> None:
    """The first line of a module is a sentence."""
    text = ast.get_docstring(module.tree)
    assert text, f"{module.where} has no docstring"
    first = text.split("\n\n")[0].rstrip()
    assert first.endswith((".", ":")), f"{module.where}: {first!r}"


@pytest.mark.parametrize("module", [lightning_sdk, lightning_sdk.settings], ids=lambda module: module.__name__)
def test_all_is_what_is_exported(module: ModuleType) -> None:
    """`__all__` lists every public name, sorted; each of them exists, and a shell completes them and no others."""
    listed = module.__all__
    assert listed == sorted(listed) == dir(module)
    assert all(getattr(module, name) is not None for name in listed)
    public = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public - {"annotations", "Any", "TYPE_CHECKING"} == set(listed) - {"settings"}


def test_public_names_are_verbs_settings_rewards_reports_and_errors() -> None:
    """Every other class is in a module that says what it is for, as the groups of settings are."""
    nouns = {name for name in lightning_sdk.__all__ if name[0].isupper()} - set(errors.BY_NAME)
    assert nouns == {"Settings", "Check", "Report", "Rescoring", "Reward", "Score"}
    assert set(lightning_sdk.settings.__all__) == {"Settings", *(group.__name__ for group in Group.__subclasses__())}


def test_groups_of_settings_need_no_further_import() -> None:
    """`import lightning_sdk as lightning` is all that a script types."""
    assert run_python("import lightning_sdk as lightning; print(lightning.settings.Lora(rank=4).rank)") == "4\n"


def test_unknown_names_are_attribute_errors() -> None:
    """Loading names on first use keeps the error that a module gives for a name it does not have."""
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        _ = lightning_sdk.trane


def test_the_error_tree_is_as_drawn() -> None:
    """The tree in the docstring of the errors module is the tree of classes, and all of it crosses the wire."""
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        start = next((place for place, letter in enumerate(line) if letter.isalpha()), None)
        name = line[start:].split(" ")[0] if start is not None else ""
        if name.isidentifier() and name in vars(errors):
            drawn.append((start or 0, name))

    def below(cls: type[Exception], depth: int) -> list[tuple[int, str]]:
        found = [(depth, cls.__name__)]
        own = [child for child in cls.__subclasses__() if child.__module__ == errors.__name__]
        for child in sorted(own, key=lambda each: list(vars(errors)).index(each.__name__)):
            found += below(child, depth + 4)
        return found

    assert drawn == below(errors.LightningError, 0)
    assert set(errors.BY_NAME) == {name for _, name in drawn}


def test_strict_types_cover_every_package() -> None:
    """A new integration or backend is type-checked from its first day."""
    settings = pyproject()["tool"]["mypy"]
    checked = {*settings["packages"], *settings["modules"]}
    assert settings["strict"] is True
    assert checked == {module.package for module in modules()}

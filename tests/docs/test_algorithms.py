"""docs/algorithms.md says of each algorithm what the tests of tests/verl compare, and its recipes can be typed."""

from __future__ import annotations

import re
import shlex

import pytest

from lightning_sdk import cli
from lightning_sdk.settings.settings import Settings, parse
from tests.docs.pages import blocks
from tests.docs.verl_table import PAGE, marks, replace_table

NAME = "docs/algorithms.md"
RECIPES = blocks(NAME, "bash")


def test_the_table_is_in_step() -> None:
    """Run `python tests/docs/verl_table.py` when this fails."""
    page = PAGE.read_text("utf-8")
    assert page == replace_table(page)


def test_what_verl_has_is_compared() -> None:
    """A part that names VERL's counterpart has a test that shows them equal, and one with a dash has none."""
    same = [set(mark.settings.split()) for mark in marks() if mark.kind == "same"]
    rows = re.findall(r"^\| (`\w+\.\w+=[^|]+?) \|.*\| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    parts = [(set(re.findall(r"`([^`]+)`", first)), verl) for first, verl in rows if not first.startswith("`length.")]
    assert len(parts) == 8 + 3 + 4 + 3 + 4
    for settings, verl in parts:
        assert (verl != "-") == any(settings <= each for each in same), f"{settings}: {verl}"


@pytest.mark.parametrize("recipe", RECIPES, ids=[str(number) for number in range(len(RECIPES))])
def test_recipes_are_taken(recipe: str) -> None:
    """By the command line's own parser, and by the settings with their ranges."""
    _, *arguments = shlex.split(recipe.replace("\\\n", " "))
    options = cli._parser().parse_args(arguments)
    pairs = [pair.partition("=") for pair in options.settings]
    settings = Settings.from_dict({name: parse(name, value) for name, _, value in pairs})
    assert settings.changes()


def test_every_part_is_on_the_page() -> None:
    """Each value that the settings take has a line."""
    page = PAGE.read_text("utf-8")
    for name in ("rloo", "grpo", "dr_grpo", "reinforce++", "reinforce++_baseline", "gae", "running_mean", "reinforce"):
        assert f"`credit.advantage={name}`" in page

"""The documentation's table of frameworks is what the tests of the frameworks proved."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.frameworks.matrix import PAGE, RESULTS, replace_table, table


def test_table_is_the_generated_one() -> None:
    """To bring it up to date: python tests/frameworks/matrix.py"""
    page = PAGE.read_text("utf-8")
    assert page == replace_table(page)


def test_each_environment_has_its_results() -> None:
    """Every lock file's environment was tested, and nothing else is in the table."""
    locks = {path.stem for path in (ROOT / "tests" / "frameworks" / "locks").glob("*.txt")}
    assert {path.stem for path in RESULTS.glob("*.json")} == locks


def test_versions_are_the_locked_ones() -> None:
    """A version in the table is one that the environment installs: results of an older lock are told."""
    for path in RESULTS.glob("*.json"):
        lock = (ROOT / "tests" / "frameworks" / "locks" / f"{path.stem}.txt").read_text("utf-8")
        for name, proof in json.loads(path.read_text("utf-8")).items():
            pin = f"{proof['distribution']}=={proof['version']}"
            assert pin in lock.splitlines(), f"{name} in {path.name}: make test-frameworks"


def test_environments_have_what_the_sdk_needs() -> None:
    """The SDK is installed there without looking for its dependencies: the lock has each of them."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    for path in (ROOT / "tests" / "frameworks" / "locks").glob("*.txt"):
        names = {line.split("==")[0] for line in path.read_text("utf-8").splitlines()}
        assert {each.split(">")[0] for each in needed} <= names, path.name


def test_rows_add_up_over_environments(tmp_path: Path) -> None:
    """Calls are counted together, roles and versions are joined, and one environment's yes is a yes."""
    proof = {"version": "1.0", "calls": 2, "roles": ["writer"], "streaming": False, "async_": True, "threads": False}
    (tmp_path / "a.json").write_text(json.dumps({"Acme": proof, "acme core": {**proof, "roles": []}}))
    (tmp_path / "b.json").write_text(
        json.dumps({"Acme": {**proof, "version": "2.0", "roles": ["critic"], "streaming": True}})
    )
    assert table(tmp_path).splitlines()[2:] == [
        "| Acme | 1.0, 2.0 | 4 | `critic`, `writer` | yes | yes |  |",
        "| acme core | 1.0 | 2 | by decorator |  | yes |  |",
    ]


def test_a_readme_without_the_place_is_refused() -> None:
    """The table cannot vanish unnoticed."""
    with pytest.raises(AssertionError, match="frameworks"):
        replace_table("# A page without the markers")

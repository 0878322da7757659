"""What `make test-newest` finds and says."""

import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.locks.newest import ROOT, Row, examine, format_table, read_installed, read_lock, read_ranges

RANGES = {"good": SpecifierSet(">=1"), "bad": SpecifierSet(">=1"), "held": SpecifierSet(">=1,<2")}
LOCKED = {"good": "1.0", "bad": "1.0", "held": "1.0"}
INSTALLED = {"good": "1.5", "bad": "1.5", "held": "1.0"}


class Pretended:
    """In place of a real environment, which takes two gigabytes: tests fail with the versions that it is told."""

    def __init__(self, breaking: dict[str, tuple[str, str]]) -> None:
        self.breaking, self.versions = breaking, dict(INSTALLED)

    def put(self, name: str, version: str) -> None:
        self.versions[name] = version

    def failing(self, tests: list[str], most: int = 0) -> list[str]:
        failing = [test for test, (name, version) in self.breaking.items() if self.versions[name] == version]
        return [test for test in failing if not tests or test in tests][: most or None]


def test_a_failing_test_is_of_the_package_that_mends_it() -> None:
    """Among several packages that are newer than locked, the one whose locked version lets the test pass is named."""
    environment = Pretended({"tests/a.py::one": ("bad", "1.5"), "tests/a.py::two": ("held", "2.0")})
    rows = examine(environment, RANGES, LOCKED, INSTALLED, {"good": "1.5", "bad": "1.5", "held": "2.0"})
    assert [(row.package, row.newest, row.allowed, row.breaks) for row in rows] == [
        ("bad", "1.5", True, "tests/a.py::one"),
        ("good", "1.5", True, ""),
        ("held", "1.0", True, ""),
        ("held", "2.0", False, "tests/a.py::two"),
    ]
    assert environment.versions == INSTALLED


def test_a_test_that_no_single_package_breaks_is_not_lost() -> None:
    """A failure that remains whichever package is downgraded has a separate row, so that the run is not green."""
    environment = Pretended({"tests/a.py::one": ("held", "1.0")})
    rows = examine(environment, RANGES, LOCKED, INSTALLED, INSTALLED)
    assert [(row.package, row.breaks) for row in rows if row.breaks] == [("(no single one)", "tests/a.py::one")]


def test_the_table() -> None:
    """Columns are as wide as what stands in them."""
    rows = [
        Row(package="bad", locked="1.0", newest="1.5", allowed=True, breaks="tests/a.py::one"),
        Row(package="wrapt", locked="2.5.2", newest="3.0", allowed=False),
    ]
    assert format_table(rows).splitlines() == [
        "package  locked  newest  allowed  result",
        "bad      1.0     1.5     yes      breaks tests/a.py::one",
        "wrapt    2.5.2   3.0     no       works",
    ]


def test_what_is_asked_for_and_what_is_locked_are_read() -> None:
    """Every direct requirement but PyTorch is locked, at a version that its range allows."""
    ranges = read_ranges((ROOT / "pyproject.toml").read_text("utf-8"))
    locked = read_lock((ROOT / "locks/dev.txt").read_text("utf-8"))
    assert {"wrapt", "msgspec", "transformers", "openai", "pytest", "hatchling"} <= ranges.keys()
    assert ranges.keys() - locked.keys() == {"torch"}
    assert not [name for name in ranges.keys() - {"torch"} if locked[name] not in ranges[name]]


def test_what_an_environment_has_is_read() -> None:
    """By pip, from the environment of the given interpreter."""
    assert read_installed(Path(sys.executable))["pytest"] == pytest.__version__

"""The newest of everything in one table: what pyproject.toml allows and what lies beyond it, and whether it works.

    make test-newest                          # the whole suite
    make test-newest ARGS="tests/engine"      # what depends on torch and transformers

`.venvs/newest` gets the newest that is allowed, and the suite runs there. A test that fails is then run with one
package after another back at its locked version: where that mends it, this package is what breaks it. Releases beyond
a range are put in one at a time. Exits with 1 if anything that is allowed breaks a test.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


class Environment(Protocol):
    """An environment that the suite runs in."""

    def put(self, name: str, version: str) -> None:
        """Replace one package, and nothing that it depends on."""

    def failing(self, tests: list[str], most: int = 0) -> list[str]:
        """Which of the tests fail, or of all if none is named; `most` of them are enough."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the table says of one package."""

    package: str
    locked: str
    newest: str
    allowed: bool
    breaks: str = ""
    """The first test that fails; '' if none does."""


def read_ranges(pyproject: str) -> dict[str, SpecifierSet]:
    """What the project asks for directly: itself, the extras that `make demo` installs, and the group dev."""
    data = tomllib.loads(pyproject)
    extras, groups = data["project"]["optional-dependencies"], data["dependency-groups"]
    wanted = [*data["project"]["dependencies"]]
    for extra in ("hub", "train", "examples"):
        wanted += extras[extra]
    wanted += [each for group in ("build", "dev") for each in groups[group] if isinstance(each, str)]
    ranges: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, wanted):
        if not requirement.extras:  # one with extras is the project itself
            name = canonicalize_name(requirement.name)
            ranges[name] = ranges.get(name, SpecifierSet()) & requirement.specifier
    return ranges


def read_lock(text: str) -> dict[str, str]:
    """Versions by name, those for this Python and system."""
    lines = [line.rstrip(" \\") for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    found = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate()]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in found}


def read_installed(python: Path) -> dict[str, str]:
    """Versions by name of what the environment of an interpreter has."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]  # --quiet empties it
    listed = json.loads(subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout)
    return {canonicalize_name(each["name"]): each["version"] for each in listed}


def examine(
    environment: Environment,
    ranges: dict[str, SpecifierSet],
    locked: dict[str, str],
    installed: dict[str, str],
    existing: dict[str, str],
) -> list[Row]:
    """A row for each package: `installed` is the newest that is allowed, `existing` the newest that there is."""
    failing, culprits = environment.failing([]), dict[str, str]()
    for name in sorted(ranges) if failing else []:
        if installed[name] != locked.get(name, installed[name]):
            environment.put(name, locked[name])
            still = environment.failing(failing)
            environment.put(name, installed[name])
            if mended := [test for test in failing if test not in still]:
                culprits[name] = mended[0]
    rows = [
        Row(
            package=name,
            locked=locked.get(name, "-"),
            newest=installed[name],
            allowed=True,
            breaks=culprits.get(name, ""),
        )
        for name in sorted(ranges)
    ]
    if failing and not culprits:
        rows.append(Row(package="(no single one)", locked="-", newest="-", allowed=True, breaks=failing[0]))
    for name in sorted(ranges):
        if Version(existing[name]) > Version(installed[name]):
            environment.put(name, existing[name])
            broken = [test for test in environment.failing([], most=len(failing) + 1) if test not in failing]
            environment.put(name, installed[name])
            beyond = Row(
                package=name,
                locked=locked.get(name, "-"),
                newest=existing[name],
                allowed=existing[name] in ranges[name],
                breaks=broken[0] if broken else "",
            )
            rows.append(beyond)
    return rows


def format_table(rows: list[Row]) -> str:
    """The rows in columns."""
    cells = [("package", "locked", "newest", "allowed", "result")]
    for row in rows:
        result = f"breaks {row.breaks}" if row.breaks else "works"
        cells.append((row.package, row.locked, row.newest, "yes" if row.allowed else "no", result))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


class Newest:
    """`.venvs/newest`, made with pip."""

    def __init__(self, torch: str, workers: int, arguments: list[str]) -> None:
        self._folder, self._workers, self._arguments = ROOT / ".venvs/newest", workers, arguments
        subprocess.run([sys.executable, "-m", "venv", "--clear", self._folder], check=True)
        self._pip("install", "--upgrade", "pip")  # --group is of pip 25.1
        self._pip("install", *shlex.split(torch))
        upgrade = ["--upgrade", "--upgrade-strategy", "eager"]
        self._pip("install", *upgrade, "--editable", ".[train,examples]", "--group", "dev", *shlex.split(torch))

    def versions(self) -> dict[str, str]:
        return read_installed(self._folder / "bin/python")

    def existing(self, names: list[str]) -> dict[str, str]:
        """The newest release of each that is there for this Python."""
        report = json.loads(
            self._pip("install", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", *names)
        )
        return {canonicalize_name(each["metadata"]["name"]): each["metadata"]["version"] for each in report["install"]}

    def put(self, name: str, version: str) -> None:
        self._pip("install", "--no-deps", f"{name}=={version}")

    def failing(self, tests: list[str], most: int = 0) -> list[str]:
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [
            self._folder / "bin/python",
            "-m",
            "pytest",
            "-n",
            str(self._workers),
            "--dist",
            "loadfile",
            "--no-loadscope-reorder",
            f"--maxfail={most}",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
            *(tests or self._arguments),
        ]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not report.exists():
            raise SystemExit(f"pytest wrote no report and ended with status {status}: {shlex.join(map(str, command))}")
        cases = [
            case
            for case in ET.parse(report).iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        ]
        return list(dict.fromkeys(f"{case.get('file')}::{case.get('name')}" for case in cases))

    def _pip(self, *arguments: str) -> str:
        command = [self._folder / "bin/python", "-m", "pip", "--disable-pip-version-check", arguments[0], "--quiet"]
        return subprocess.run(
            [*command, *arguments[1:]], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
        ).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="What works with the newest of everything.")
    parser.add_argument("--torch", default="torch", help="what pip is asked for as PyTorch, with options")
    parser.add_argument("--workers", type=int, default=2, help="tests that run at once")
    options, arguments = parser.parse_known_args()
    ranges = read_ranges((ROOT / "pyproject.toml").read_text("utf-8"))
    locked = read_lock((ROOT / "locks/dev.txt").read_text("utf-8"))
    environment = Newest(options.torch, options.workers, arguments)
    existing = environment.existing(sorted(ranges.keys() - {"torch"}))
    installed = environment.versions()
    existing["torch"] = installed["torch"]  # --torch has chosen its build; another one needs other packages, too
    rows = examine(environment, ranges, locked, installed, existing)
    print(format_table(rows))
    return 1 if any(row.allowed and row.breaks for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

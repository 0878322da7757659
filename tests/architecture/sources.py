"""The repository's own sources as data: packages, modules, and what each imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Folders whose children are top-level packages or modules of the wheel.
SOURCE_ROOTS = (ROOT / "integrations", ROOT / "backends")


@dataclass(frozen=True)
class Module:
    """One Python file under its import name."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        return self.name.split(".")[0]

    @property
    def where(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text("utf-8"), str(self.path))

    def imports(self, *, deferred: bool = True) -> set[str]:
        """Dotted names that the file imports; `from a import b` is a.b. Without `deferred`: at its top only."""
        nodes = ast.walk(self.tree) if deferred else iter(self.tree.body)
        return {name for node in nodes for name in _imports_of(node)}


def _imports_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the wheel."""
    found = [*_modules(ROOT, ROOT / "lightning_sdk")]
    for source_root in SOURCE_ROOTS:
        for path in sorted(source_root.glob("lightning_*")):
            found += [Module(path.stem, path)] if path.suffix == ".py" else _modules(source_root, path)
    return tuple(found)


def _modules(source_root: Path, folder: Path) -> list[Module]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(source_root).with_suffix("").parts
        found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def packages() -> set[str]:
    return {module.package for module in modules()}


def integrations() -> set[str]:
    return {path.stem for path in (ROOT / "integrations").glob("lightning_*")}


def module_of(dotted: str) -> str | None:
    """The module of ours that an imported dotted name is or lies in."""
    names = {module.name for module in modules()}
    while dotted and dotted not in names:
        dotted = dotted.rpartition(".")[0]
    return dotted or None


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def kept_files() -> list[Path]:
    """Every file that git keeps, or would keep: nothing that is ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def run_python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints for `code`."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout

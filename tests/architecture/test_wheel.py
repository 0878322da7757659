"""The wheel: what lands in a user's site-packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.architecture.sources import ROOT, modules, packages


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the declared build backend from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(path)


def test_the_top_level_is_ours_alone(wheel: Path) -> None:
    """No generic name, such as `backends`, `tests` or `examples`, lands in site-packages."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0].removesuffix(".py") for name in names}
    metadata = {name for name in top if name.endswith(".dist-info")}
    assert top - metadata == packages()
    assert len(metadata) == 1
    assert not [name for name in names if "__pycache__" in name]


def test_it_holds_every_module_and_the_model(wheel: Path) -> None:
    """All code, the type marker, the licence, and spark ready to load."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"{'/'.join(path.relative_to(_source(path)).parts)}" for path in (m.path for m in modules())} <= names
    assert "lightning_sdk/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    weights = {name.removeprefix("lightning_spark/weights/") for name in names if "lightning_spark/weights/" in name}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"} <= weights


def test_it_is_small(wheel: Path) -> None:
    """Under 10 MB with the model."""
    assert wheel.stat().st_size < 10 * 1024 * 1024


def test_it_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    """Every package comes from the wheel and finds its own files there."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
import importlib, json, sys
files = {name: importlib.import_module(name).__file__ for name in sys.argv[1:]}
import lightning_spark
assert (lightning_spark.folder() / "model.safetensors").stat().st_size > 1e6
print(json.dumps(files))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(packages())],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)
    assert all(Path(file).is_relative_to(tmp_path) for file in files.values()), files


def _source(path: Path) -> Path:
    """The source root of a module's file: its place in the wheel is relative to that."""
    first = path.relative_to(ROOT).parts[0]
    return ROOT / first if first in {"integrations", "backends"} else ROOT

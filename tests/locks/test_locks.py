"""The lists that `make` installs from: complete, hashed, for every Python, and without the build of PyTorch."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.locks.newest import ROOT, read_lock

LOCKS = sorted((ROOT / "locks").glob("*.txt"))
_ENGINE = {"numpy", "networkx", "transformers", "pyzmq"}
#: Some of what an environment needs that is made from the list.
_NEEDED = {
    "demo": _ENGINE,
    "dev": _ENGINE,
    "openai2": {"openai"},
    "hosts": {"numpy", "pyzmq", "openai", "gunicorn"},
    "docs": {"mkdocs", "mkdocs-material", "mkdocstrings-python"},
    "trackers": {"numpy", "pyzmq", "openai", "mlflow", "tensorboard", "trackio", "wandb"},
}


def read_blocks(path: Path) -> dict[str, list[str]]:
    """The hashes of each requirement."""
    blocks = re.split(r"\n(?=\S)", path.read_text("utf-8").strip())
    return {block.splitlines()[0].rstrip(" \\"): re.findall(r"--hash=(\S+)", block) for block in blocks}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_distribution_is_pinned_and_hashed(path: Path) -> None:
    """One version and at least one SHA-256 each, and no address of an index, which is the user's choice."""
    found = read_blocks(path)
    assert found
    for line, hashes in found.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[^*\s]+( ; .+)?", line), line
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), line
    assert "://" not in path.read_text("utf-8")


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_the_build_of_pytorch_is_left_to_the_user(path: Path) -> None:
    """Neither PyTorch nor what comes with its builds for GPUs is in a lock."""
    names = [Requirement(line).name for line in read_blocks(path)]
    assert not [name for name in names if re.match("(torch|triton)$|nvidia-|cuda-", name)]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_each_python_has_one_version_of_everything(python: str) -> None:
    """Where a release is not for all Pythons there are several lines, of which exactly one is for each."""
    where = {
        "python_full_version": f"{python}.5",
        "python_version": python,
        "sys_platform": "linux",
        "implementation_name": "cpython",
    }
    for path in LOCKS:
        lines = [Requirement(line) for line in read_blocks(path)]
        chosen = [each.name for each in lines if each.marker is None or each.marker.evaluate(where)]
        assert len(chosen) == len(set(chosen)), path.name
        assert _NEEDED[path.stem] <= set(chosen)


def test_the_locks_agree() -> None:
    """What `make demo` installs is what `make test` runs with, and openai 2 comes with nothing else changed."""
    demo, dev, other = (
        read_lock((ROOT / f"locks/{name}.txt").read_text("utf-8")) for name in ("demo", "dev", "openai2")
    )
    assert demo.items() <= dev.items()
    assert demo["openai"].startswith("3.") and other["openai"].startswith("2.")
    assert {name for name in other if dev.get(name, other[name]) != other[name]} == {"openai"}

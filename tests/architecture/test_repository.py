"""The repository as a whole: its files are in step with each other and belong to no one machine."""

from __future__ import annotations

import re
from collections import Counter

from sources import ROOT, kept_files, pyproject

#: Folders that exist on one machine only. In pieces, so that this file does not hold what it looks for.
_PLACES = re.compile(r"(?<![\w.:/-])/(?:" + "|".join(["roo" + "t", "wor" + "k", "hom" + "e", "opt"]) + r")/\w+")
#: Hosts that the project may name.
HOSTS = {
    "127.0.0.1", "localhost", "[::1]", "0.0.0.0", "arxiv.org", "github.com", "huggingface.co",
    "www.apache.org", "apache.org", "keepachangelog.com", "semver.org", "opentelemetry.io", "json-schema.org",
    "api.openai.com", "api.anthropic.com",
}  # fmt: skip
_HOST = re.compile(r"(?:https?|tcp|ftp)://(?:[^\s/@\"'`]+@)?(\[[0-9a-f:]+\]|[a-z0-9.-]*\.[a-z0-9-]+)", re.IGNORECASE)
_MADE_UP = (".example", ".invalid", ".test", ".example.com", "example.com")


def texts() -> list[tuple[str, str]]:
    """Name and content of every text file."""
    found = []
    for path in kept_files():
        try:
            found.append((str(path.relative_to(ROOT)), path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_no_machine_is_named() -> None:
    """No path of the machine where something was made."""
    assert not [f"{name}: {match.group()}" for name, text in texts() for match in _PLACES.finditer(text)]


def test_no_strange_host_is_named() -> None:
    """Every address is a public one that users need, a loopback one, or a made-up one."""
    named = {(name, match.group(1).lower()) for name, text in texts() for match in _HOST.finditer(text)}
    assert not {(name, host) for name, host in named if host not in HOSTS and not host.endswith(_MADE_UP)}


def test_shared_test_modules_have_different_names() -> None:
    """Tests import what they share by its bare name, so two modules of one name would hide each other."""
    shared = [path.stem for path in kept_files() if path.is_relative_to(ROOT / "tests") and path.suffix == ".py"]
    counted = Counter(name for name in shared if not name.startswith("test_") and name != "conftest")
    assert not [name for name, count in counted.items() if count > 1]


def test_shared_test_modules_can_be_imported() -> None:
    """Every test folder with modules of its own is on pytest's path."""
    listed = set(pyproject()["tool"]["pytest"]["ini_options"]["pythonpath"])
    for path in (ROOT / "tests").rglob("*.py"):
        if not path.stem.startswith("test_") and path.stem != "conftest":
            assert str(path.parent.relative_to(ROOT)) in listed, path.name
    assert all((ROOT / folder).is_dir() for folder in listed)

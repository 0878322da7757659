"""The repository as a whole: its files are in step with each other and belong to no one machine."""

from __future__ import annotations

import re

from tests.architecture.sources import ROOT, kept_files

#: Folders that exist on one machine only. In pieces, so that this file does not hold what it looks for.
_PLACES = re.compile(r"(?<![\w.:/-])/(?:" + "|".join(["roo" + "t", "wor" + "k", "hom" + "e", "opt"]) + r")/\w+")
#: Hosts that the project may name.
HOSTS = {
    "127.0.0.1", "localhost", "[::1]", "0.0.0.0", "arxiv.org", "github.com", "huggingface.co",
    "www.apache.org", "apache.org", "keepachangelog.com", "semver.org", "opentelemetry.io", "json-schema.org",
    "api.openai.com", "api.anthropic.com",
    "www.w3.org", "opencollective.com",  # names in SVG, and in the lock of the dashboard's parts
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

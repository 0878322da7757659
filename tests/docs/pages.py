"""Markdown pages of the repository: their blocks of code, links, headings and commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))


#: A block of code, and the comment directly above it that says how it is tested.
_BLOCK = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code of a page."""

    mark: str
    """The text of the comment directly above it, or ''."""
    language: str
    text: str


def marked_blocks(page: str) -> list[Block]:
    """All blocks of a page that name their language, in order."""
    return [Block(*found.groups("")) for found in _BLOCK.finditer((ROOT / page).read_text("utf-8"))]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block(page: str, language: str, holding: str) -> str:
    """The one block of a language that holds this text."""
    found = [each for each in blocks(page, language) if holding in each]
    assert len(found) == 1, f"{page} has {len(found)} blocks of {language} with {holding!r}"
    return found[0]


def commands(page: str) -> list[list[str]]:
    """Every command line of the console blocks, and every inline one, split as a shell does."""
    text = (ROOT / page).read_text("utf-8")
    typed = [line[2:] for each in blocks(page, "console") for line in each.splitlines() if line.startswith("$ ")]
    inline = re.findall(r"`((?:make|lightning-sdk) [^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    return [shlex.split(" ".join(line.split()), comments=True) for line in typed + inline]


def links(page: Path) -> list[str]:
    """Targets of the links of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What `#...` may name in a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def between(page: str, begin: str, end: str, text: str) -> str:
    """The page with `text` between its two marks, in place of what is there."""
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"the page has no {begin.strip()} ... {end}"
    return before + begin + text + end + after

"""The documentation says what is there: links, commands, settings, files and figures."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from pathlib import Path

import pytest

from lightning_sdk import cli
from lightning_sdk.settings.settings import parse
from lightning_sdk.stream.stream import Stream
from tests.docs.pages import PAGES, ROOT, anchors, block, blocks, commands, links
from tests.docs.settings_table import PAGE, replace_tables
from tests.docs.settings_table import settings as described

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def test_the_settings_table_is_in_step() -> None:
    """Run `python tests/docs/settings_table.py` when this fails."""
    page = PAGE.read_text("utf-8")
    assert page == replace_tables(page)


def test_every_setting_says_what_it_is() -> None:
    """A field of `Settings` has a line beneath it, which the table shows."""
    assert not [name for name, _, text in described() if not text]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository, and every anchor a heading."""
    for link in links(page):
        if "://" not in link:
            place, _, anchor = link.partition("#")
            target = (page.parent / place).resolve() if place else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    """A path in backticks, or `name.py` beside one, is a file of the repository."""
    text = (ROOT / name).read_text("utf-8")
    folders = [ROOT, *(ROOT / "backends").iterdir()]
    for path in re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|jinja))`", text):
        if path not in {"agent.py", "tasks.py", "report.md"}:  # the user's
            assert any((folder / path).is_file() for folder in folders), f"{name}: {path}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_real(name: str) -> None:
    """Every `make` line names a target, and the real parser takes every `lightning-sdk` line."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for program, *arguments in commands(name):
        if program == "make":
            assert arguments[0] in targets, arguments
        elif program == "lightning-sdk":
            accept(arguments if len(arguments) > 1 else [*arguments, "--help"])  # in prose the command's name alone


@pytest.mark.parametrize("command", ["", *cli._EXAMPLES])
def test_examples_of_the_help_are_real(command: str) -> None:
    """The command lines that `--help` shows are taken by the parser that shows them."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        cli.main([command, "--help"] if command else ["--help"])
    examples = shown.getvalue().partition("examples:")[2].replace("\\\n", " ")
    lines = [line.split()[1:] for line in examples.splitlines() if line.startswith("  lightning-sdk ")]
    assert lines
    for arguments in lines:
        accept(arguments)


def accept(arguments: list[str]) -> None:
    """Fail unless the command line's own parser, and the settings', take these words. Nothing is run."""
    try:
        options = cli._parser().parse_args(arguments)
    except SystemExit as ended:
        assert ended.code == 0, f"lightning-sdk {' '.join(arguments)} is wrong usage"
    else:
        for pair in getattr(options, "settings", []):
            name, _, value = pair.partition("=")
            assert parse(name, value) is not None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])
def test_settings_that_are_named_exist(name: str) -> None:
    """A name in backticks that begins with a group of the settings, such as `credit.advantage`, is a setting."""
    known = {each for each, *_ in described()}
    groups = {each.split(".")[0] for each in known if "." in each}
    others = {"phases.jsonl", "algorithm.adv_estimator"}  # a file, and a setting of VERL
    for setting in re.findall(r"`([a-z]+\.[a-z_]+)(?:=[^`]*)?`", (ROOT / name).read_text("utf-8")):
        if setting.split(".")[0] in groups and setting not in others:
            assert setting in known, f"{name}: {setting} is not a setting"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_rows_of_a_table_have_the_cells_of_its_header(page: Path) -> None:
    """A row that was wrapped, or joined with the next one, is not shown as a table."""
    header = 0
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not cells or cells == (header or cells), f"{page.name}, line {number}: {line[:80]}"
        header = cells and (header or cells)


def test_every_python_block_compiles() -> None:
    """No page shows code that is none."""
    for name in NAMES:
        for number, code in enumerate(blocks(name, "python")):
            compile(code, f"{name}, block {number + 1}", "exec")


def test_the_file_tree_is_the_real_one() -> None:
    """Every folder that holds code is in the tree of CONTRIBUTING.md with its children, and nothing else is."""
    shown: dict[str, set[str]] = {}
    parent = ""
    for line in block("CONTRIBUTING.md", "text", "lightning_sdk/    ").splitlines():
        name = line.split()[0]
        if line.startswith(" "):
            shown[parent].add(name)
        else:
            parent = name
            shown[parent] = set()
    hidden = {"runs/", "build/", "dist/"}
    folders = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - hidden
    assert set(shown) == {name for name in folders if not name.endswith(".egg-info/")}
    for folder in ("integrations/", "backends/", "examples/"):
        found = (path for path in (ROOT / folder).iterdir() if path.name not in {"__pycache__", ".DS_Store"})
        assert shown[folder] == {f"{path.name}/" if path.is_dir() else path.name for path in found}


def test_every_page_is_in_the_navigation() -> None:
    """A page of docs/ that mkdocs.yml does not list would be found by nobody, and `make docs` refuses it."""
    listed = re.findall(r"^ +- .*?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert set(listed) == pages | {"changelog.md", "contributing.md"}


def test_the_bounds_of_the_stream_are_as_stated() -> None:
    """The documentation's figures of memory, disk and waiting are the stream's defaults."""
    default = {name: each.default for name, each in inspect.signature(Stream).parameters.items()}
    assert (default["window"], default["spill"], default["patience"]) == (64 * 2**20, 2**30, 1.0)
    page = " ".join((ROOT / "docs" / "serving.md").read_text("utf-8").split())
    assert "up to 64 MiB in memory, and as much again that is not packed yet, then 1 GiB on disk" in page
    assert "When all of this is full, a call waits at most one second, once" in page

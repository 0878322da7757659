"""Every block of code in the documentation is run, or a comment above it says why it cannot be run here.

The comment stands directly above the block, and is one of these:

    <!-- file PATH -->              a whole file of the repository, which other tests run
    <!-- as in PAGE -->             the same block is in that page
    <!-- run by TEST -->            this file of tests reads the block from the page and runs it
    <!-- run with the README's agent -->    here, where the README's agent and tasks are defined, with short trainings
    <!-- run with short trainings -->       here, with short trainings
    <!-- not run: REASON -->        what it needs that is not here

Python without a comment is run here, page by page. Command lines without one are commands of `make` and of
`lightning-sdk`, which test_pages.py gives to the real parsers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Block, block, marked_blocks
from tests.docs.shown_files import replace_files

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
#: The README has as many lines as it may have; tests/docs/test_readme.py runs what it shows.
NAMES.remove("README.md")
SHELLS = {"console", "bash", "sh"}
WITH_AGENT, SHORTENED = "run with the README's agent", "run with short trainings"
#: What a run of a page begins with: most blocks continue the code of their reader.
PREPARED = "import lightning_sdk as lightning\n"
#: `train` as in the page, and as short as a training can be.
SHORT = """
_train = lightning.train
lightning.train = lambda *args, **settings: _train(
    *args,
    **{
        **settings,
        **{"steps": 1, "quiet": True, "rollouts.tasks_per_step": 2, "rollouts.group_size": 2, "evaluation.tasks": 2},
    },
)
"""


def is_run_here(each: Block) -> bool:
    return each.language == "python" and each.mark in ("", WITH_AGENT, SHORTENED)


def without_blank_lines(text: str) -> list[str]:
    """The README has fewer of them than the formatter leaves in other pages."""
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize("name", NAMES)
def test_files_that_pages_show_are_the_real_ones(name: str) -> None:
    """Run `python tests/docs/shown_files.py` when this fails."""
    page = (ROOT / name).read_text("utf-8")
    assert page == replace_files(page)


@pytest.mark.parametrize("name", NAMES)
def test_each_block_says_how_it_is_tested(name: str) -> None:
    """Marks are of a known kind and true, and what has no mark is tested without one."""
    for each in marked_blocks(name):
        kind, _, rest = each.mark.partition(" ")
        if each.mark.startswith("not run: "):
            assert len(each.mark.split()) > 4, f"{name}: this is not a reason: {each.mark}"
        elif each.mark.startswith("run by "):
            test = ROOT / each.mark.removeprefix("run by ")
            assert name in test.read_text("utf-8"), f"{test} does not read {name}"
        elif each.mark.startswith("as in "):
            other = each.mark.removeprefix("as in ")
            theirs = [without_blank_lines(its.text) for its in marked_blocks(other)]
            assert without_blank_lines(each.text) in theirs, f"{name}: not in {other}:\n{each.text}"
        elif kind == "file":
            assert each.language == "python" and (ROOT / rest).is_file()
        elif each.language == "python":
            assert is_run_here(each), f"{name}: {each.mark}"
        elif each.language in SHELLS:
            typed = [line.removeprefix("$ ") for line in each.text.splitlines() if line.startswith(("$ ", "light"))]
            others = [line for line in typed if line.split()[0] not in ("make", "lightning-sdk")]
            assert typed and not others, f"{name}: say how these are tested, or why they are not: {others}"
        elif each.language == "json":
            json.loads(each.text)
        elif each.language == "toml":
            tomllib.loads(each.text)
        else:
            assert each.language in {"text", "math"}, f"{name}: say how this is tested:\n{each.text}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in NAMES if any(is_run_here(each) for each in marked_blocks(name))])
def test_the_python_of_a_page_runs(name: str, tmp_path: Path) -> None:
    """Its blocks run one after the other, as somebody would type them who reads the page."""
    here = [each for each in marked_blocks(name) if is_run_here(each)]
    code = PREPARED + (SHORT if any(each.mark for each in here) else "")
    if any(each.mark == WITH_AGENT for each in here):
        agent = block("README.md", "python", "lightning.train(").partition("\nif __name__")[0]
        code += f"{agent}\nlightning.init()\n"
        lines = [json.dumps({"question": f"What is {number} + 1?", "sum": f"{number} + 1"}) for number in range(12)]
        (tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    program = tmp_path / "page.py"
    program.write_text(code + "\n".join(each.text for each in here))
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

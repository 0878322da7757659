"""The pictures of docs/dashboard.md, light and dark.

    python tests/dashboard/pictures.py RUNS FINDINGS RUN SEARCH  # runs: with findings, two roles, a search

`examples/two_roles/agent.py`, with and without `--one-reward`, leaves such runs.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.dashboard.pages import Page, serve
from tests.dashboard.reader import read

FOLDER = Path(__file__).parents[2] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
#: Enough for flat surfaces, and a fifth of the bytes.
_COLOURS = 96


def places(page: Page, findings: str, run: str, search: str) -> dict[str, tuple[str, str]]:
    """Name of a picture -> the place that it shows."""
    rows = page.ask("rollouts", run=run, mode="train", limit=50)["rows"]
    id_ = next(each["id"] for each in rows if each["reward"])
    spans = page.ask("rollout", run=run, rollout=id_)["spans"]
    call = next(each["id"] for each in spans if each["kind"] == "call")
    return {
        "run": (f"/run/{findings}/run", ""),
        "rollouts": (f"/run/{run}/rollouts", "by=group&mode=train"),
        "rollout": (f"/run/{run}/rollout", f"rollout={id_}&span={call}"),
        "tokens": (f"/run/{run}/tokens", f"rollout={id_}"),
        "pairs": (f"/run/{run}/pairs", f"rollout={id_}"),
        "prompts": (f"/run/{search}/prompts", ""),
        "compare": ("/compare", f"run={findings}&run={run}"),
        "system": (f"/run/{run}/system", "log=backend.log"),
    }


def take(browser: Any, page: Page, findings: str, run: str, search: str) -> None:
    """Each view in both colours."""
    for colours in ("light", "dark"):
        with read(browser, page.port, page.server.token, size=SIZE, colours=colours) as reader:
            for name, (place, query) in places(page, findings, run, search).items():
                reader.open("/")
                reader.open(place, query)
                reader.tab.wait_for_timeout(4000)  # until everything that is computed beside answers is there
                picture = Image.open(io.BytesIO(reader.tab.screenshot())).convert("RGB")
                picture = picture.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
                suffix = "" if colours == "light" else "-dark"
                picture.save(FOLDER / f"dashboard-{name}{suffix}.png", optimize=True)


def main() -> None:
    runs, findings, run, search = sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    with serve(Path(runs)) as page, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(browser, page, findings, run, search)
        browser.close()


if __name__ == "__main__":
    main()

"""Past runs: what `lightning-sdk runs` lists and shows, read from their folders."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_sdk.errors import SettingError
from lightning_sdk.results.run_files import CONFIG, REPORT, read_config, read_object, read_report
from lightning_sdk.system.folders import find_run_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """One run as the list has it; None where that is not known, or not yet."""

    name: str
    status: str
    """'finished', 'stopped', 'failed' or 'unfinished'."""
    model: str | None
    steps: int | None
    before: float | None
    """Score on held-out tasks before training."""
    after: float | None
    verdict: str | None
    train_seconds: float | None


def listing(runs: Path, *, as_json: bool = False) -> str:
    """One line per run of the folder, newest first; SettingError if it is not a folder."""
    if runs.is_file():
        raise SettingError(f"{runs} is a file, not a folder of runs; name one with --runs FOLDER")
    folders = [path for path in runs.iterdir() if (path / CONFIG).is_file()] if runs.is_dir() else []
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    rows = [asdict(_read_listed(folder)) for folder in folders]
    if as_json:
        return json.dumps(rows)
    if not rows:
        return f"no runs in {runs}"
    names = tuple(rows[0])
    table = [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (names, *table)
    )


def describe(runs: Path, name: str, *, as_json: bool = False) -> str:
    """The report of one run, by name or folder; SettingError if there is no such run."""
    folder = find_run_folder(name, runs)
    if as_json:
        return json.dumps(read_object(folder / REPORT) or asdict(_read_listed(folder)))
    report = folder / "report.md"
    return report.read_text() if report.is_file() else f"{folder} has no report yet: {_read_listed(folder).status}"


def _read_listed(folder: Path) -> ListedRun:
    report, config = read_report(folder), read_config(folder)
    model = ((config and config.settings) or {}).get("model")
    if report is None:
        return ListedRun(
            name=folder.name,
            status="unfinished",
            model=model,
            steps=None,
            before=None,
            after=None,
            verdict=None,
            train_seconds=None,
        )
    before, after = report.held_out.get("before"), report.held_out.get("after")
    return ListedRun(
        name=folder.name,
        status=report.status,
        model=report.model or model,
        steps=report.steps,
        before=before.score.mean if before else None,
        after=after.score.mean if after else None,
        verdict=report.verdict if report.steps else None,
        train_seconds=report.train_seconds,
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

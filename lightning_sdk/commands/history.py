"""Past runs: what `lightning-sdk runs` lists and shows, read from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_sdk.errors import SettingError
from lightning_sdk.system.folders import find_run_folder


def listing(runs: Path, *, as_json: bool = False) -> str:
    """One line per run of the folder, newest first; SettingError if it is not a folder."""
    if runs.is_file():
        raise SettingError(f"{runs} is a file, not a folder of runs; name one with --runs FOLDER")
    folders = [path for path in runs.iterdir() if (path / "config.json").is_file()] if runs.is_dir() else []
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    rows = [_summary(folder) for folder in folders]
    if as_json:
        return json.dumps(rows)
    if not rows:
        return f"no runs in {runs}"
    names = ("name", "status", "model", "steps", "before", "after", "verdict", "train_seconds")
    table = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (names, *table)
    )


def describe(runs: Path, name: str, *, as_json: bool = False) -> str:
    """The report of one run, by name or folder; SettingError if there is no such run."""
    folder = find_run_folder(name, runs)
    if as_json:
        return json.dumps(_read(folder / "report.json") or _summary(folder))
    report = folder / "report.md"
    return report.read_text() if report.is_file() else f"{folder} has no report yet: {_summary(folder)['status']}"


def _summary(folder: Path) -> dict[str, Any]:
    report, config = _read(folder / "report.json"), _read(folder / "config.json")
    held_out: Mapping[str, Any] = report.get("held_out") or {}
    settings: Mapping[str, Any] = config.get("settings") or {}
    return {
        "name": folder.name,
        "status": report.get("status", "unfinished"),
        "model": report.get("model") or settings.get("model"),
        "steps": report.get("steps"),
        "before": (held_out.get("before") or {}).get("mean"),
        "after": (held_out.get("after") or {}).get("mean"),
        "verdict": report.get("verdict") if report.get("steps") else None,
        "train_seconds": report.get("train_seconds"),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

"""The machinery of a run: hub, engine, learner and runners, their queues and memory, and the end of their logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from lightning_dashboard.processes import describe_processes
from lightning_dashboard.query import ViewQuery
from lightning_dashboard.run_reader import STORE, RunReader
from lightning_dashboard.runs import Runs
from lightning_hub.storage.reading import StoreReader

_TAIL_BYTES = 48_000
_TAIL_LINES = 200
_MOST_RUNNERS = 200
_SHOWN_VERSIONS = 200


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """What the processes of a run say now, or said last."""
    run = runs.open(query.require("run"))
    steps = run.steps()
    return {
        "status": run.status(),
        "now": time.time(),
        "hub": run.hub.status() if run.hub is not None and run.is_running() else None,
        "watched": run.hub is not None,
        "messages": run.hub.messages() if run.hub is not None else [],
        "processes": describe_processes(run.folder),
        "runners": run.keep("runners", run.rollouts().version, lambda: _runners(run)),
        "last": dict(steps[-1]) if steps else {},
        "facts": run.config.facts,
        "packages": run.config.versions,
        "versions": _versions(run),
        "disk": _disk(run.folder),
        "set_aside": _tail(run.folder / "set-aside.jsonl"),
        "logs": [_log(path) for path in sorted(run.folder.glob("*.log"), key=_log_order)],
    }


def _log_order(path: Path) -> tuple[int, str]:
    first = {"hub.log": 0, "backend.log": 1}
    return first.get(path.name, 2), path.name


def _log(path: Path) -> dict[str, Any]:
    state = path.stat()
    return {"name": path.name, "bytes": state.st_size, "changed": state.st_mtime, "lines": _tail(path)}


def _tail(path: Path) -> list[str]:
    """The last lines of a file; none where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-_TAIL_LINES:]


def _runners(run: RunReader) -> list[dict[str, Any]]:
    """Those that ran rollouts: how many, how many failed, how many are under way, and when one was last heard of."""
    columns = run.rollouts()
    names, codes = np.unique(columns.runners.astype(str), return_inverse=True)
    live = (columns.statuses == "running") | (columns.statuses == "queued")
    count = len(names)

    def count_of(mask: Any) -> Any:
        return np.bincount(codes[mask], minlength=count)

    seen = np.fmax(np.nan_to_num(columns.started), np.nan_to_num(columns.ended))
    last = np.zeros(count)
    np.maximum.at(last, codes, seen)
    total, under_way = count_of(np.ones(len(codes), np.bool_)), count_of(live)
    failed = count_of(~live & (columns.statuses != "ok"))
    found = [
        {
            "name": name,
            "rollouts": int(total[at]),
            "under_way": int(under_way[at]),
            "failed": int(failed[at]),
            "last": float(last[at]) or None,
        }
        for at, name in enumerate(names.tolist())
        if name
    ]
    return sorted(found, key=lambda each: -(each["last"] or 0))[:_MOST_RUNNERS]


def _versions(run: RunReader) -> list[dict[str, Any]]:
    """The last versions of the model."""
    if not run.has_rollouts:
        return []
    with StoreReader(run.folder / STORE) as store:
        found = store.versions()[-_SHOWN_VERSIONS:]
    return [
        {"version": version, "step": step, "time": when, "checkpoint": Path(checkpoint).name if checkpoint else ""}
        for version, step, when, checkpoint in found
    ]


def _disk(folder: Path) -> dict[str, int]:
    """Bytes of each part of the folder."""
    parts: dict[str, int] = {}
    for path in folder.iterdir():
        files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
        parts[path.name] = sum(each.lstat().st_size for each in files if not each.is_symlink() and each.is_file())
    return dict(sorted(parts.items(), key=lambda each: -each[1]))

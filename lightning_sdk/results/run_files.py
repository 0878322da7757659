"""The files of a run's folder, read in one way by all who look at a run; the hub's `RunFolder` writes them.

A run may be under way, may have been killed in the middle of a line, and an older version may have written it: a file
that is missing or damaged reads as None or as empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.run_origin import RunOrigin
from lightning_sdk.results.run_report import Resumption, RunReport
from lightning_sdk.trace.structs import read_struct

CONFIG, TASKS, REPORT, DIAGNOSIS = "config.json", "tasks.json", "report.json", "diagnosis.json"
STEPS, EVALUATIONS = "metrics.jsonl", "evaluations.jsonl"
TRACKERS = "trackers.json"
"""Where each tracker of `--log-to` keeps the run; the process that started it writes this one."""

StepMetrics = Mapping[str, float | None]
"""The metrics of one step, by name, and with '/' and a role behind it where they are a role's. None: not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What `config.json` says of how a run was started."""

    kind: str = "training"
    """'training', 'an evaluation' or 'a check'."""
    settings: Mapping[str, Any] | None = None
    """Nested, as `Settings.from_dict` takes them; None if there are none."""
    from_runs: Sequence[str] = ()
    """Folders of earlier runs that it learns from."""
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    """Reward function -> the weight that it is marked with."""
    origin: RunOrigin = field(default_factory=RunOrigin)
    """Where agent, rewards and tasks came from."""
    resumed: Sequence[Resumption] = ()
    """Each time that it went on."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was decided where the settings left it open."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> its version."""
    search: Mapping[str, Any] | None = None
    """What came of its search for texts, empty as long as that goes on; None if it has none."""
    phases: Sequence[Mapping[str, Any]] = ()
    """Its phases of weights and of prompts that are over, in order; empty if it has none."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Of the content of config.json."""
        settings = values.get("settings")
        return cls(
            kind=str(values.get("kind", "training")),
            settings=settings if isinstance(settings, dict) else None,
            from_runs=list(values.get("from_runs") or ()),
            rewards=dict(values.get("rewards") or {}),
            origin=read_struct(RunOrigin, values.get("origin") or {}, "config.json: origin"),
            resumed=[read_struct(Resumption, each, "config.json: resumed") for each in values.get("resumed") or ()],
            facts=values.get("facts") or {},
            versions=values.get("versions") or {},
            search=values.get("search"),
            phases=list(values.get("phases") or ()),
        )

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer that makes its ids, '' if it is not known."""
        return str(self.facts.get("tokenizer") or "")


@dataclass(frozen=True, slots=True)
class RunTasks:
    """What `tasks.json` says of a run's tasks."""

    held_out: list[dict[str, Any]]
    training: Sequence[int]
    """Ids of the tasks that are trained on."""


class Lines(NamedTuple):
    """The lines of a JSONL file."""

    whole: list[dict[str, Any]]
    torn: bool
    """Whether a last line follows that is just being written, or was when its writer was killed."""


def read_config(folder: Path) -> RunConfig | None:
    found = read_object(folder / CONFIG)
    return RunConfig.from_dict(found) if found else None


def read_report(folder: Path) -> RunReport | None:
    found = read_object(folder / REPORT)
    return RunReport.from_dict(found) if found else None


def read_tasks(folder: Path) -> RunTasks | None:
    found = read_object(folder / TASKS) or {}
    held_out = found.get("held_out")
    return RunTasks(held_out, found.get("training") or []) if isinstance(held_out, list) else None


def read_findings(folder: Path) -> list[Finding] | None:
    """Those of `diagnosis.json`."""
    found = read_object(folder / DIAGNOSIS)
    return [Finding.from_dict(each) for each in found.get("findings", [])] if found else None


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def read_lines(path: Path) -> Lines:
    """ValueError for a line in the middle that is not JSON."""
    try:
        whole, _, rest = path.read_bytes().rpartition(b"\n")
    except OSError:
        return Lines([], torn=False)
    return Lines([json.loads(line) for line in whole.splitlines() if line.strip()], torn=bool(rest))

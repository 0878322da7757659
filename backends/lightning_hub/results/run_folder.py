"""A run's folder: settings, metrics, curves and reports, written so that a kill at any moment leaves a readable run.

config.json        settings, what was chosen where they leave it open, versions, arguments, what changed on going on
tasks.json         the held-out tasks, which stay so as long as the run goes on, and the ids of those trained on
metrics.jsonl      one line per step
evaluations.jsonl  one line per evaluation on held-out tasks; 'cut' where a resumed run began before it
diagnosis.json     what step 1 showed: calls, rewards and sequences by role, and what is wrong
tensorboard/       the same as TensorBoard events
curve.png, report.md, report.json   written by `finish` and `fail`
"""

from __future__ import annotations

import json
import logging
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning_hub.evaluation.evaluation import HeldOut, latest_evaluations
from lightning_hub.health.examine import ENDED, examine
from lightning_hub.health.run_record import read_record
from lightning_hub.results.curve import HeldOutPoint, Point, draw_png, draw_text
from lightning_hub.results.markdown import markdown
from lightning_hub.results.report import compose
from lightning_hub.results.tensorboard import EventFile
from lightning_hub.statistics.looks import Look, next_look
from lightning_hub.statistics.reward_range import TrainingRange
from lightning_hub.storage.store import Totals
from lightning_hub.storage.whole_file import replace_file
from lightning_sdk.errors import SettingError
from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.results.run_files import (
    CONFIG,
    DIAGNOSIS,
    EVALUATIONS,
    REPORT,
    STEPS,
    TASKS,
    RunConfig,
    StepMetrics,
    read_lines,
    read_object,
)
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.results.scalars import held_out_scalars, step_scalars

_log = logging.getLogger(__name__)

#: Distributions whose versions explain a result.
_PACKAGES = (
    "lightning-agent-sdk", "torch", "transformers", "tokenizers", "safetensors", "numpy", "openai", "pyzmq", "msgpack",
    "wrapt", "aiohttp", "vllm", "verl", "reasoning-gym",
)  # fmt: skip
#: Metrics of a step: the lowest and the highest score of its rollouts, and how many have one.
_OF_REWARD = ("reward_min", "reward_max", "rollouts_ok")


class RunFolder:
    """One run on disk. Opening a folder that holds a run continues it; see `cut`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._config = self._read_config()
        self._steps = _take_up(self.path / STEPS)
        self._evaluations = _take_up(self.path / EVALUATIONS)
        self._purge: int | None = None
        self._events: EventFile | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def last_step(self) -> int:
        """The last step with metrics, 0 if there is none."""
        return int(self._steps[-1]["step"]) if self._steps else 0

    @property
    def steps(self) -> Sequence[StepMetrics]:
        """The metrics of each step so far."""
        return self._steps

    @property
    def held_out(self) -> list[HeldOut]:
        """Evaluations so far, the last one of each name, in order, without those that were cut."""
        return latest_evaluations(self._evaluations)

    @property
    def training_scores(self) -> TrainingRange | None:
        """The scores of the training rollouts so far; None before the first step."""
        lines = [line for line in self._steps if all(line.get(name) is not None for name in _OF_REWARD)]
        low, high, count = ([line[name] for line in lines] for name in _OF_REWARD)
        return TrainingRange(min(low), max(high), int(sum(count))) if lines else None

    def next_look(self, name: str, step: int) -> Look:
        """Which comparison with the score before training an evaluation of this name after this step is."""
        return next_look(name, step, self._evaluations)

    def config(self, values: Mapping[str, Any]) -> None:
        """Write `values` ('settings', 'facts', 'argv' ...) to config.json, along with versions; keeps what was there.

        'argv' is what the user typed: this process may have been started by the user's.
        """
        self._config |= {"name": self.name, **values, "versions": _versions()}
        replace_file(self.path / CONFIG, json.dumps(_plain(self._config), indent=2, allow_nan=False) + "\n")

    @property
    def start(self) -> RunConfig:
        """What config.json says of how the run was started, empty if there is none."""
        return RunConfig.from_dict(_plain(self._config))

    def tasks(self, training: Iterable[int], held_out: Iterable[Mapping[str, Any]]) -> None:
        """Write down which tasks are held out, and the ids of those that are trained on."""
        values = {"held_out": list(held_out), "training": list(dict.fromkeys(training))}
        replace_file(self.path / TASKS, json.dumps(values, allow_nan=False) + "\n")

    def step(self, metrics: Mapping[str, float]) -> None:
        """Append the metrics of one step: 'step' (from 1) and any other numbers. ValueError for a step out of order."""
        step = int(metrics["step"])
        if step <= self.last_step:
            raise ValueError(f"metrics of step {step} after step {self.last_step}: cut the run at {step - 1} first")
        line = {"step": step, **{name: _number(value) for name, value in metrics.items() if name != "step"}}
        _append(self.path / STEPS, line)
        self._steps.append(line)
        self._scalars(step, step_scalars(line))

    def evaluation(self, measured: HeldOut) -> None:
        """Record a score on held-out tasks."""
        line = measured.as_line()
        _append(self.path / EVALUATIONS, line)
        self._evaluations.append(line)
        self._scalars(measured.step, held_out_scalars(measured.summary()))

    def keep_score(self, step: int) -> HeldOut | None:
        """Record the score before as the one after, since what it measures has not changed; None if there is none."""
        before = next((each for each in self.held_out if each.name == "before"), None)
        if before is None:
            return None
        kept = replace(before, name="after", step=step, kept=True)
        self.evaluation(kept)
        return kept

    def diagnosis(self, found: Diagnosis) -> None:
        """Write what the first rollouts showed of the agent, and what is wrong with it."""
        replace_file(self.path / DIAGNOSIS, json.dumps(_plain(found.as_dict()), indent=2, allow_nan=False) + "\n")

    def cut(self, step: int) -> None:
        """Drop everything after `step`: a resumed run goes on from there.

        Evaluations stay, marked as cut: that somebody looked at them counts for the verdict.
        """
        self._steps = [line for line in self._steps if line["step"] <= step]
        self._evaluations = [
            {**line, "cut": True} if line["step"] > step or line["name"] == "after" else line
            for line in self._evaluations
        ]
        replace_file(self.path / STEPS, _lines(self._steps))
        replace_file(self.path / EVALUATIONS, _lines(self._evaluations))
        # TensorBoard keeps old event files and hides their steps from here on.
        self._purge = step + 1
        self.close()

    def finish(self, totals: Totals, checkpoint: str = "", status: str = "finished") -> RunReport:
        """Write the curve and the reports. `status`: 'finished' or 'stopped'."""
        return self._report(totals, status, "", checkpoint)

    def fail(self, error: BaseException | str, totals: Totals | None = None, checkpoint: str = "") -> RunReport:
        """Write the reports of a run that failed, which say so."""
        told = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return self._report(totals or Totals(), "failed", told, checkpoint)

    def curve(self, width: int = 80, height: int = 16, plain: bool = False) -> str:
        """The reward curve so far, as text."""
        return draw_text(*self._points(), width, height, plain)

    def close(self) -> None:
        """Close the TensorBoard events. Idempotent; a later step opens them again."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _read_config(self) -> dict[str, Any]:
        """The content of config.json. SettingError for a damaged one, which would be written over."""
        path = self.path / CONFIG
        found = read_object(path)
        if found is None and path.exists():
            raise SettingError(f"{path} is damaged: put the right one back, or begin a new run in another folder")
        return found or {}

    def _report(self, totals: Totals, status: str, error: str, checkpoint: str) -> RunReport:
        self.close()
        report = compose(
            self._config.get("name", self.name),
            self.start,
            self._steps,
            self.held_out,
            totals,
            status=status,
            error=error,
            checkpoint=checkpoint,
            findings=self._findings(status, error),
        )
        if self._steps:
            draw_png(self.path / "curve.png", *self._points(), self.name, self._roles())
        replace_file(self.path / "report.md", markdown(report, self._short_path()))
        # Last: a run with a report.json is complete.
        replace_file(self.path / REPORT, json.dumps(_plain(report.as_dict()), indent=2, allow_nan=False) + "\n")
        return report

    def _findings(self, status: str, error: str) -> list[Finding]:
        """What `check` says of the run. A report is written whatever happens, so what cannot be read is logged only."""
        try:
            found = examine(replace(read_record(self.path), status=status, error=error))
        except SettingError:
            return []  # nothing was run that could be looked at
        except Exception:
            _log.exception("the findings of %s cannot be determined", self.path)
            return []
        # The report has the error itself.
        return [each for each in found.findings if each.kind != ENDED]

    def _short_path(self) -> str:
        """The folder as a user at the usual place would type it: reports hold no path of this machine."""
        return str(self.path if not self.path.is_absolute() else Path(self.path.parent.name, self.name))

    def _points(self) -> tuple[list[Point], list[HeldOutPoint]]:
        rewards = [(line["step"], line["reward_mean"]) for line in self._steps if line.get("reward_mean") is not None]
        return rewards, [(each.step, each.score) for each in self.held_out]

    def _roles(self) -> dict[str, list[Point]]:
        """Reward per step of each role, where there is more than one and they are not all rewarded alike."""
        names = dict.fromkeys(name for line in self._steps for name in line if name.startswith("reward_mean/"))
        whole = [(line["step"], line.get("reward_mean")) for line in self._steps]
        by_role = {name.partition("/")[2]: [(line["step"], line.get(name)) for line in self._steps] for name in names}
        if len(by_role) < 2 or all(points == whole for points in by_role.values()):
            return {}
        return {role: [(at, value) for at, value in each if value is not None] for role, each in by_role.items()}

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._events is None:
            self._events = EventFile(self.path / "tensorboard", self._purge)
            self._purge = None
        self._events.scalars(step, values)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _take_up(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file. A last line torn by a kill is dropped, on disk too: what follows must not join it."""
    found = read_lines(path)
    if found.torn:
        replace_file(path, _lines(found.whole))
    return found.whole


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines([line]))


def _lines(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _number(value: float) -> float | None:
    """A number for JSON: None for NaN and infinity."""
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """`value` with what JSON has no word for made plain: NaN None, paths and other objects text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return _plain(value.item()) if hasattr(value, "item") else str(value)

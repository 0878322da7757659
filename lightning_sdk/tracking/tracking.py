"""Tracking: the events of a run on their way to its trackers, which can neither slow it down nor stop it."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning_sdk.hub.events import (
    EvaluationEvent,
    Event,
    FinishedEvent,
    NoticeEvent,
    StartedEvent,
    StepEvent,
    Told,
    WarningEvent,
)
from lightning_sdk.results.run_files import STEPS, read_config
from lightning_sdk.results.scalars import held_out_scalars, step_scalars, summarize
from lightning_sdk.settings import Settings
from lightning_sdk.tracking.installed import ChosenTracker
from lightning_sdk.tracking.places import TrackerPlaces
from lightning_sdk.tracking.tracker import TrackedRun, Tracker, Value

_log = logging.getLogger(__name__)

_FINISH_SECONDS = 60.0
"""How long the end of a run waits for its trackers to have sent everything."""

Delivery = Callable[[Tracker], None]


class Tracking(AbstractContextManager["Tracking"]):
    """The trackers of one run. Each has a thread and a queue, so `note` returns at once, and never raises."""

    def __init__(
        self, chosen: Sequence[ChosenTracker], folder: Path, settings: Settings, show: Callable[[Told], None]
    ) -> None:
        """`show`: what is called to tell the user something, from any thread."""
        self._folder, self._settings, self._show = folder, settings, show
        self._places = TrackerPlaces(folder)
        self._couriers = [_Courier(each, self._places, show) for each in chosen]
        self._is_over = False

    def note(self, event: Event) -> None:
        """Tell the trackers of an event."""
        match event:
            case StartedEvent(step=step):
                self._start(step)
            case StepEvent(step=step, metrics=metrics):
                scalars = step_scalars(metrics)
                self._send(lambda tracker: tracker.log_step(step, scalars))
            case EvaluationEvent(score=score, samples=samples):
                held_out = held_out_scalars(score)
                self._send(lambda tracker: tracker.log_evaluation(score.step, held_out, samples))
            case FinishedEvent(report=report):
                self._finish(report.status, summarize(report))
            case _:
                pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything has been sent, but not for long."""
        if not self._is_over:
            status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            self._finish(status, {"status": status, "error": f"{type(error).__name__}: {error}"})
        end = time.monotonic() + _FINISH_SECONDS
        for courier in self._couriers:
            courier.wait(end - time.monotonic())

    def _start(self, step: int) -> None:
        if not self._couriers:
            return
        config = _describe_config(self._folder, self._settings)
        for courier in self._couriers:
            run = TrackedRun(
                name=self._folder.name,
                folder=self._folder,
                step=step,
                config=config,
                earlier=self._places.find(courier.chosen),
            )
            courier.start(run)

    def _send(self, delivery: Delivery) -> None:
        for courier in self._couriers:
            courier.send(delivery)

    def _finish(self, status: str, summary: Mapping[str, float | str]) -> None:
        self._is_over = True
        self._send(lambda tracker: tracker.finish(status, summary))
        for courier in self._couriers:
            courier.close()


class _Courier:
    """Tells one tracker, in a thread, what is in its queue."""

    def __init__(self, chosen: ChosenTracker, places: TrackerPlaces, show: Callable[[Told], None]) -> None:
        self.chosen = chosen
        self._places, self._show = places, show
        self._queue: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_warned = False

    def start(self, run: TrackedRun) -> None:
        name = f"lightning-tracker-{self.chosen.name}"
        # A daemon, since a tracker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, args=(run,), name=name, daemon=True)
        self._thread.start()

    def send(self, delivery: Delivery) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(delivery)

    def close(self) -> None:
        """Nothing more comes."""
        self._queue.put(None)

    def wait(self, seconds: float) -> None:
        """Until everything is sent, or the time is over."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._warn(f"{self.chosen.name} has not finished within {_FINISH_SECONDS:.0f} s; what it has not sent yet")

    def _work(self, run: TrackedRun) -> None:
        try:
            place = self.chosen.tracker.start(run)
            self._places.put(self.chosen, place)
        except Exception as error:
            self._warn(f"this run is not logged to {self.chosen.name}: {_describe(error)}; all of it", error)
            return
        self._show(NoticeEvent(f"logging to {self.chosen.name}: {place.where}"))
        while (delivery := self._queue.get()) is not None:
            try:
                delivery(self.chosen.tracker)
            except Exception as error:
                self._warn(
                    f"not everything is logged to {self.chosen.name}: {_describe(error)}; what is missing", error
                )

    def _warn(self, what: str, error: Exception | None = None) -> None:
        """Once, since what fails at one step tends to fail at the next one too."""
        _log.debug("%s", what, exc_info=error)
        if not self._has_warned:
            self._has_warned = True
            self._show(WarningEvent(f"{what} is in {self._places.folder / STEPS}"))


def _describe_config(folder: Path, settings: Settings) -> dict[str, Value]:
    config = read_config(folder)
    facts = {} if config is None else config.facts
    versions = {} if config is None else config.versions
    return dict([*_plain("", settings.flat()), *_plain("facts.", facts), *_plain("versions.", versions)])


def _plain(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for name, value in values.items():
        known = value is None or isinstance(value, str | int | float)
        yield prefix + name, value if known else json.dumps(value, default=str)


def _describe(error: Exception) -> str:
    """In one line: what these tools raise may go on for pages."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

"""TensorBoard: event files in FOLDER/NAME with curves, settings (HParams) and what came out (Text).

FOLDER is what `--log-to tensorboard:FOLDER` names, else TENSORBOARD_LOGGING_DIR, else 'tensorboard'.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS, STATUS_UNKNOWN
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from lightning_sdk.results.sample import RolloutSample, format_samples
from lightning_sdk.results.scalars import format_summary
from lightning_sdk.tracking.tracker import TrackedPlace, TrackedRun

_STATUS = {"finished": STATUS_SUCCESS, "failed": STATUS_FAILURE}


class TensorBoardTracker:
    """Writes one event file for each time that the run is started."""

    def __init__(self, folder: str) -> None:
        self._parent = Path(folder or os.environ.get("TENSORBOARD_LOGGING_DIR") or "tensorboard").expanduser()
        self._step = 0

    def start(self, run: TrackedRun) -> TrackedPlace:
        folder = (self._parent / run.name).absolute()
        self._writer = EventFileWriter(str(folder))
        # TensorBoard forgets what an earlier file has from this step on: it belongs to what was not kept.
        self._step = run.step + 1 if run.earlier == str(folder) else 0
        self._add(Event(session_log=SessionLog(status=SessionLog.START)), self._step)
        hparams = {name: "" if value is None else value for name, value in run.config.items()}
        self._add(Event(summary=hparams_pb(hparams, trial_id=run.name)), 0)
        self._writer.flush()
        return TrackedPlace(str(folder), f"tensorboard --logdir {shlex.quote(str(self._parent))}")

    def log_step(self, step: int, scalars: Mapping[str, float]) -> None:
        self._step = step
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._add(Event(summary=Summary(value=values)), step)
        self._writer.flush()

    def log_evaluation(self, step: int, scalars: Mapping[str, float], samples: Sequence[RolloutSample]) -> None:
        self.log_step(step, scalars)
        if samples:
            self._text("samples", format_samples(samples))

    def finish(self, status: str, summary: Mapping[str, float | str]) -> None:
        self._text("summary", format_summary(summary))
        self._end_session(_STATUS.get(status, STATUS_UNKNOWN))
        self._writer.close()

    def _text(self, tag: str, markdown: str) -> None:
        value = Summary.Value(
            tag=tag,
            metadata=text_metadata.create_summary_metadata(display_name=tag, description=""),
            tensor=make_tensor_proto([markdown.encode()]),
        )
        self._add(Event(summary=Summary(value=[value])), self._step)

    def _end_session(self, status: int) -> None:
        ended = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=time.time()))
        value = Summary.Value(
            tag=hparams_metadata.SESSION_END_INFO_TAG,
            metadata=hparams_metadata.create_summary_metadata(ended),
            tensor=hparams_metadata.NULL_TENSOR,
        )
        self._add(Event(summary=Summary(value=[value])), self._step)

    def _add(self, event: Event, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        self._writer.add_event(event)

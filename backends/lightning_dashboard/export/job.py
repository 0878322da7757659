"""The export of runs as it was asked for: in which formats, where to, and which rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning_dashboard.export.hf_dataset import DatasetFolder
from lightning_dashboard.export.jsonl import open_json_lines
from lightning_dashboard.export.otlp import OtlpFile
from lightning_dashboard.export.output import RolloutWriter, WrittenOutput, unfinished_file
from lightning_dashboard.export.page_data import CarriedPage, CarryLimits
from lightning_dashboard.export.page_file import build_page
from lightning_dashboard.export.parquet import open_parquet
from lightning_dashboard.export.records import read_exported
from lightning_dashboard.query import BadQuery, ViewQuery
from lightning_dashboard.rollout_filter import select
from lightning_dashboard.runs import Runs
from lightning_sdk.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What `python -m lightning_dashboard.export` is asked for."""

    runs: list[str]
    """Their folders."""
    filters: str = ""
    """Which rollouts, as the query of the page's table says it."""
    html: str = ""
    """Where to; '' for not at all, as of every format."""
    jsonl: str = ""
    parquet: str = ""
    otlp: str = ""
    hf_dataset: str = ""
    rollouts: int = 100
    """Rollouts of each run that the page carries, at most."""
    megabytes: float = 10.0
    """Data that the page carries, about."""


def export_runs(request: ExportRequest, tell: Callable[[int, int], None]) -> list[WrittenOutput]:
    """What was written, in the order of the formats. `tell` is called with rollouts done and rollouts in all.

    Raises:
        SettingError: a filter cannot be used, an output cannot be made, or a package is missing.
    """
    runs = Runs([Path(each) for each in request.runs])
    try:
        query = ViewQuery(request.filters)
        with _discard_unless_finished(request) as writers:
            if writers:
                _write_rollouts(runs, query, writers, tell)
            page = [_write_page(request, runs, query)] if request.html else []
            return page + [writer.finish() for writer in writers]
    except BadQuery as error:
        raise SettingError(f"export: {error}") from None


def _write_rollouts(
    runs: Runs, query: ViewQuery, writers: list[RolloutWriter], tell: Callable[[int, int], None]
) -> None:
    found = [(run, select(run, query)) for run in map(runs.open, reversed(runs.folders()))]
    done, whole = 0, sum(len(selection.places) for _, selection in found)
    for run, selection in found:
        for exported in read_exported(run, selection):
            for writer in writers:
                writer.add(exported)
            done += 1
            tell(done, whole)


def _write_page(request: ExportRequest, runs: Runs, query: ViewQuery) -> WrittenOutput:
    file = unfinished_file(Path(request.html), "--html")
    limits = CarryLimits(rollouts=request.rollouts, bytes=int(request.megabytes * 1e6))
    page = CarriedPage(runs, query, limits)
    try:
        file.draft.write_bytes(build_page(page.data))
        return WrittenOutput(file.path, {"rollouts": page.count}, file.finish())
    finally:
        file.discard()


@contextmanager
def _discard_unless_finished(request: ExportRequest) -> Iterator[list[RolloutWriter]]:
    with ExitStack() as stack:
        writers = []
        for writer in _open_writers(request):
            stack.callback(writer.discard)
            writers.append(writer)
        yield writers


def _open_writers(request: ExportRequest) -> Iterator[RolloutWriter]:
    role = ViewQuery(request.filters).text("role")
    if request.jsonl:
        yield open_json_lines(Path(request.jsonl), role)
    if request.parquet:
        yield open_parquet(Path(request.parquet), role)
    if request.otlp:
        yield OtlpFile(Path(request.otlp))
    if request.hf_dataset:
        yield DatasetFolder(Path(request.hf_dataset), role)

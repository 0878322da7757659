"""`export`: write runs into files, for other programs or for somebody who has only a browser.

`lightning_dashboard.export` reads and writes, in a process of the environment that has the hub.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lightning_sdk.commands.filters import add_filters, read_filters
from lightning_sdk.commands.options import add_backend_python, add_runs, positive_integer
from lightning_sdk.errors import HubError, SettingError, make_error
from lightning_sdk.hub.backend_python import explain_start_errors
from lightning_sdk.results.quantity import quantity
from lightning_sdk.system.folders import find_run_folder

_FORMATS = ("html", "jsonl", "parquet", "otlp", "hf_dataset")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("run_names", nargs="+", metavar="RUN", help="name or folder of a run; several are possible")
    formats = parser.add_argument_group("formats, one or several")
    html = "the dashboard's page with its data, to be opened in a browser without a server or a network"
    formats.add_argument("--html", metavar="FILE", help=html)
    jsonl = "JSON lines: NAME.jsonl with a line for each rollout, or a folder with rollouts, calls and tokens"
    formats.add_argument("--jsonl", metavar="FILE|FOLDER", help=jsonl)
    parquet = "Parquet files of rollouts, calls and tokens; needs pyarrow"
    formats.add_argument("--parquet", metavar="FOLDER", help=parquet)
    otlp = "OpenTelemetry traces with their messages, as OTLP in JSON lines; needs OpenTelemetry's exporter"
    formats.add_argument("--otlp", metavar="FILE", help=otlp)
    dataset = "the same tables for datasets.load_from_disk(FOLDER); needs datasets"
    formats.add_argument("--hf-dataset", metavar="FOLDER", help=dataset)
    limits = parser.add_argument_group("how much the page carries; it says what was left out")
    most = "rollouts of each run with their calls and tokens (default: %(default)s)"
    limits.add_argument("--rollouts", type=positive_integer, default=100, metavar="N", help=most)
    size = "data in all, about (default: %(default)g)"
    limits.add_argument("--megabytes", type=float, default=10.0, metavar="M", help=size)
    role = "those in which this role was rewarded; only its calls and tokens are written"
    add_filters(parser.add_argument_group("which rollouts, as in the dashboard's table; default: all"), role)
    add_runs(parser)
    add_backend_python(parser, "hub")
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON object")


def run(options: argparse.Namespace) -> None:
    """Write them, and print what was written."""
    chosen = {name: str(Path(path).expanduser().absolute()) for name in _FORMATS if (path := getattr(options, name))}
    if not chosen:
        raise SettingError(f"export: no format was chosen; give one of {', '.join(map(_option, _FORMATS))}")
    folders = dict.fromkeys(str(find_run_folder(each, options.runs)) for each in options.run_names)
    request: dict[str, Any] = {"runs": list(folders), "filters": urlencode(read_filters(options), doseq=True), **chosen}
    request |= {"rollouts": options.rollouts, "megabytes": options.megabytes}
    written = _export(request, options.backend_python or sys.executable)
    if options.json:
        print(json.dumps({"written": written}))
    else:
        print("\n".join(map(_describe, written)))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _export(request: Mapping[str, Any], python: str) -> list[dict[str, Any]]:
    command = [python, "-m", "lightning_dashboard.export"]
    with explain_start_errors(python):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request))
            process.stdin.close()
        except BrokenPipeError:  # it has ended, and says why
            pass
        told: dict[str, Any] = {}
        with _ProgressLine() as line:
            for text in process.stdout:
                told = json.loads(text)
                if "done" in told:
                    line.show(f"{told['done']:,} of {quantity(told['of'], 'rollout')}")
    if "error" in told:
        raise make_error(*told["error"])
    if "written" not in told:
        raise HubError(f"the export ended with code {process.returncode}; {python} needs lightning-agent-sdk[hub]")
    written: list[dict[str, Any]] = told["written"]
    return written


class _ProgressLine:
    """One line of a terminal that is written again and again; nothing elsewhere."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()

    def show(self, text: str) -> None:
        if self._shows:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> _ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.show("")


def _describe(written: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in written["counts"].items())
    return f"wrote {written['path']} ({_size(written['bytes'])}): {counts}"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"

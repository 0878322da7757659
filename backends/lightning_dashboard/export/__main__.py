"""The process of an export: `python -m lightning_dashboard.export`, told on standard input what to write.

Its input is one JSON object, `ExportRequest`; its output is one JSON object in each line: {"done": .., "of": ..} while
it reads, and at the end {"written": [..]} or {"error": [name, text]}.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from lightning_dashboard.export.job import ExportRequest, export_runs
from lightning_sdk.errors import DiskError, LightningError
from lightning_sdk.trace.structs import read_struct

_TELL_SECONDS = 0.5


class _Progress:
    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._told = time.monotonic()
            print(json.dumps({"done": done, "of": of}), flush=True)


def main() -> int:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    request = read_struct(ExportRequest, json.load(sys.stdin), "the request")
    try:
        written = export_runs(request, _Progress())
    except LightningError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _fail(DiskError(f"the export cannot be written: {error}"))
    told = [{"path": str(each.path), "counts": dict(each.counts), "bytes": each.bytes} for each in written]
    print(json.dumps({"written": told}), flush=True)
    return 0


def _fail(error: LightningError) -> int:
    print(json.dumps({"error": [type(error).__name__, str(error)]}), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())

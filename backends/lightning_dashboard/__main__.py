"""The dashboard's process: `python -m lightning_dashboard`, told on standard input what to show.

Its input is one JSON object, `DashboardConfig`, in one line; its output is one too, with the address to open. It ends
when its input is closed, which is when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from lightning_dashboard.hub_watch import HubWatch
from lightning_dashboard.runs import Runs
from lightning_dashboard.server import DashboardServer
from lightning_sdk.trace.structs import read_struct

#: Its work waits for that of a training on the same machine.
_NICENESS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardConfig:
    """What it shows."""

    places: list[str]
    """Run folders and folders of runs."""
    port: int = 0
    """0 picks a free one."""
    run: str = ""
    """Name of the run that the address opens; '' for the list."""
    hub: str = ""
    """Address of the hub of `places[0]`, which is watched; '' if there is none."""
    key: str = ""
    """The hub's."""


def main() -> int:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    config = read_struct(DashboardConfig, json.loads(sys.stdin.readline()), "the configuration")
    places = [Path(each) for each in config.places]
    hub = HubWatch(places[0], config.hub, config.key) if config.hub else None
    try:
        server = DashboardServer(Runs(places, hub), config.port)
    except OSError as error:
        print(json.dumps({"error": f"port {config.port} cannot be used: {error.strerror or error}"}), flush=True)
        return 1
    threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
    print(json.dumps({"url": server.url(config.run), "port": server.server_address[1]}), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())

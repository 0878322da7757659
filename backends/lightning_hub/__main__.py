"""The hub as a process: `python -m lightning_hub`, one JSON line in, one JSON line out, then it serves.

In: the fields of `Config`. Out: {"address", "hub", "pid"}, or {"error": [class of the error, message]}.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from lightning_hub.hub import Config, Hub
from lightning_sdk.errors import HubError, LightningError
from lightning_sdk.failures import disk


def main() -> int:
    os.umask(0o077)  # tasks, prompts, answers and weights: for this user alone
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What libraries print belongs in the log: standard output carries one line only.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        config = _config(sys.stdin.readline())
    except LightningError as error:
        _say(answer, {"error": [type(error).__name__, str(error)]})
        return 1
    try:
        hub = Hub(config)
    except LightningError as error:
        _say(answer, {"error": [type(error).__name__, str(error)]})
        return 1
    except Exception as error:
        logging.getLogger(__name__).exception("the hub did not start")
        told = disk.trouble(error, config.run) or HubError(f"the hub did not start: {type(error).__name__}: {error}")
        _say(answer, {"error": [type(told).__name__, str(told)]})
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hub.stop())
    if config.lifeline:
        threading.Thread(target=_until_closed, args=(hub,), daemon=True).start()
    try:
        _say(answer, {"address": hub.address, "hub": hub.id, "pid": os.getpid()})
    except BrokenPipeError:  # whoever started this is gone already
        hub.stop()
    hub.wait()
    if not hub.close():
        os._exit(1)  # a thread of the backend hangs; everything of ours is on disk
    return 0


def _config(line: str) -> Config:
    try:
        return Config(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise HubError(f"the hub's first line of input is {line[:200]!r}, not its configuration: {error}") from None


def _until_closed(hub: Hub) -> None:
    while os.read(0, 4096):
        pass
    hub.orphan()


def _say(answer: Any, message: dict[str, Any]) -> None:
    with answer:
        answer.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    sys.exit(main())

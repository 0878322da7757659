"""The child's side: the program that runs a backend's engine and learner, each behind an HTTP port.

Started by `child.py` with one line of JSON on stdin: {settings, keys, folder[, begun]}. Writes one line to stdout:
{host, port, learner, model, facts}, or {error: [name, message]}. Ends when stdin closes, so it never outlives the hub,
however the hub ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from aiohttp import web

from lightning_process.phases import Phases
from lightning_process.routes import LearnerRoutes
from lightning_process.smollm2 import provide
from lightning_process.source import locate
from lightning_sdk.errors import LightningError
from lightning_sdk.settings import Settings
from lightning_sdk.system.addresses import BACKLOG, LOOPBACK

log = logging.getLogger(__name__)


class ReadyBackend(NamedTuple):
    """A backend that is ready to serve."""

    app: web.Application
    """The engine's routes."""
    learner: LearnerRoutes
    model: str
    """Name under which the engine serves the model."""
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """What the hub asked for."""

    settings: Settings
    key: str
    """Key of the engine: `Authorization: Bearer KEY`."""
    folder: Path
    """Folder of the run."""
    phases: Phases = field(default_factory=Phases)
    """Phases of the start; the imports are over."""


def run(build: Callable[[BackendConfig], ReadyBackend], *, at_end: Callable[[], object] | None = None) -> None:
    """Build and serve until the hub is gone, then call `at_end` to stop what would not end by itself.

    A LightningError that `build` raises is reported to the hub by its name.
    """
    os.umask(0o077)  # weights and logs are this user's alone
    # Whatever libraries print belongs in the log: stdout carries one line.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    config = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, args=(at_end,), name="lifeline", daemon=True).start()
    settings = Settings.from_dict(config["settings"])
    phases = Phases(config.get("begun"))
    phases.end("imports")
    try:
        provide(locate(settings.model))
        built = build(BackendConfig(settings, config["keys"]["engine"], Path(config["folder"]), phases))
    except LightningError as error:
        _answer(answers, {"error": [type(error).__name__, str(error)]})
        if at_end is not None:
            at_end()
        sys.exit(1)
    log.info("%s", phases)
    built = built._replace(facts=built.facts | phases.facts())
    asyncio.run(_serve(built, settings.serving.host, config["keys"]["learner"], answers))


async def _serve(built: ReadyBackend, host: str, learner_key: str, answers: TextIO) -> None:
    port = await _listen(built.app, host)
    learner = await _listen(built.learner.app(learner_key), LOOPBACK)  # wherever the engine listens
    _answer(answers, {"host": host, "port": port, "learner": learner, "model": built.model, "facts": built.facts})
    await asyncio.Event().wait()


async def _listen(app: web.Application, host: str) -> int:
    """Serve an application on a free port of this address. Returns the port."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, host, 0, backlog=BACKLOG).start()
    return int(runner.addresses[0][1])


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)
    answers.close()


def _end_with_stdin(at_end: Callable[[], object] | None) -> None:
    """Exit as soon as stdin closes. Nothing is lost: checkpoints are atomic, and the clients of requests are gone."""
    while os.read(0, 4096):
        pass
    try:
        if at_end is not None:
            at_end()
    finally:
        os._exit(0)

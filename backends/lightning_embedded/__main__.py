"""The embedded backend's process: one model, its engine and its learner, behind one HTTP port on loopback.

Started by `process.py`, with one line of JSON on stdin: {settings, key}. Answers one line on stdout: {port, model,
facts}, or {error: [name, message]}. Ends when stdin closes, so that it never outlives the hub, however the hub ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import torch
from aiohttp import web
from transformers.utils.logging import disable_progress_bar

from lightning_embedded.chat import Chat
from lightning_embedded.engine import Engine
from lightning_embedded.fingerprint import fingerprint
from lightning_embedded.learner import Learner
from lightning_embedded.model import load
from lightning_embedded.routes import LearnerRoutes
from lightning_embedded.server import make_app
from lightning_sdk.errors import LightningError
from lightning_sdk.settings import Settings

#: Models below this size decode faster on one thread than on two that wait for each other.
_SMALL = 30_000_000


def main() -> None:
    # Whatever libraries print belongs in the log: stdout carries one line.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    disable_progress_bar()  # type: ignore[no-untyped-call]
    config = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, name="lifeline", daemon=True).start()
    try:
        app, ready = _build(Settings.from_dict(config["settings"]), config["key"])
    except LightningError as error:
        _answer(answers, {"error": [type(error).__name__, str(error)]})
        sys.exit(1)
    asyncio.run(_serve(app, ready, answers))


def _build(settings: Settings, key: str) -> tuple[web.Application, dict[str, Any]]:
    """The application, and what to say of it."""
    loaded = load(settings.model)
    size = sum(each.numel() for each in loaded.model.parameters())
    asynchronous = settings.rollouts.staleness > 0
    decoding, learning = _threads(size, asynchronous)
    torch.set_num_threads(learning)
    engine = Engine(loaded.model, loaded.tokenizer, max_slots=settings.rollouts.concurrency, threads=decoding)
    learner = Learner(loaded.model, settings)
    name = Path(loaded.source.name).name
    app = make_app(engine, Chat(loaded.tokenizer, engine.decode), name, key)
    LearnerRoutes(learner, engine, loaded, threads=learning, asynchronous=asynchronous).add_to(app)
    facts = learner.facts() | {"max_length": engine.max_length, "tokenizer": fingerprint(loaded.tokenizer)}
    return app, {"model": name, "facts": facts}


def _threads(size: int, asynchronous: bool) -> tuple[int, int]:
    """For the engine and for the learner of a model with `size` parameters: all cores for each, if they take turns."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asynchronous:
        decoding = 1 if size < _SMALL else max(1, cores // 2)
        return decoding, max(1, cores - decoding)
    return 1 if size < _SMALL else cores, cores


async def _serve(app: web.Application, ready: dict[str, Any], answers: TextIO) -> None:
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _answer(answers, ready | {"port": runner.addresses[0][1]})
    await asyncio.Event().wait()


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)
    answers.close()


def _end_with_stdin() -> None:
    """Nothing needs a farewell: checkpoints are whole or absent, and requests' clients are gone."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()

"""The learner's HTTP routes: update, score, save, load, facts. Bodies are msgpack.

They are a separate application from the engine's, on loopback and with a key that only the hub has: agents may sample
from the model, but cannot change it or write files.

    POST /learner/update   a packed batch                  -> [version, metrics]
    POST /learner/score    packed rows, and what           -> a packed array for each row
    POST /learner/save     {folder}                        -> version
    POST /learner/load     {folder}                        -> version
    GET  /learner/facts                                    -> facts

Expected errors have status 400 with [name of the error, message]; any other failure is 500 in the same form.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from lightning_hub.backend import Batch, Row, Update
from lightning_process.refusal import guard
from lightning_process.transport import pack_scores, unpack_batch, unpack_question
from lightning_sdk.errors import LightningError
from lightning_sdk.failures import disk
from lightning_sdk.stream.wire import MAX_MESSAGE_BYTES, pack, unpack

log = logging.getLogger(__name__)


class TrainingService(Protocol):
    """A learner and the engine that serves its weights. Methods block and are called one at a time."""

    def facts(self) -> dict[str, object]: ...

    def update(self, batch: Batch) -> Update:
        """Train on a batch and serve the new version."""
        ...

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        """As `lightning_hub.backend.Scoring`."""
        ...

    def save(self, folder: Path) -> int:
        """Write a checkpoint. Returns the version that was saved."""
        ...

    def load(self, folder: Path) -> int:
        """Load a checkpoint. Returns the version that is now served."""
        ...


class LearnerRoutes:
    """Runs a learner's work in a dedicated thread."""

    def __init__(self, service: TrainingService, begin: Callable[[], object] | None = None) -> None:
        """`begin` runs once in that thread before anything else."""
        self._service = service
        self._worker = ThreadPoolExecutor(1, "learner", begin)

    def app(self, key: str) -> web.Application:
        """The routes as an application that requires `Authorization: Bearer key`."""
        app = web.Application(middlewares=[guard(key)])
        app.router.add_post("/learner/update", self._route(self._update))
        app.router.add_post("/learner/score", self._route(self._score))
        app.router.add_post("/learner/save", self._route(self._save))
        app.router.add_post("/learner/load", self._route(lambda body: self._service.load(_folder(body))))
        app.router.add_get("/learner/facts", self._route(lambda _: self._service.facts()))
        return app

    def _route(self, work: Callable[[bytes], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            body = await _body(request)
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._worker, work, body)
                return _reply(200, result)
            except Exception as error:
                return _refusal(error)

        return handle

    def _update(self, body: bytes) -> list[Any]:
        update = self._service.update(unpack_batch(body))
        return [update.version, update.metrics]

    def _save(self, body: bytes) -> int:
        folder = _folder(body)
        try:
            return self._service.save(folder)
        except Exception as error:
            raise disk.trouble(error, folder) or error from None

    def _score(self, body: bytes) -> list[bytes]:
        return pack_scores(self._service.score(*unpack_question(body)))


def _refusal(error: Exception) -> web.Response:
    if isinstance(error, LightningError | ValueError):
        name = type(error).__name__ if isinstance(error, LightningError) else "LightningError"
        return _reply(400, [name, str(error)])
    log.error("the learner failed", exc_info=error)
    return _reply(500, ["LightningError", f"the learner failed: {type(error).__name__}: {error}"])


def _folder(body: bytes) -> Path:
    return Path(unpack(body)["folder"])


async def _body(request: web.Request) -> bytes:
    """The body, which may be larger than aiohttp allows by default."""
    parts = bytearray()
    async for part in request.content.iter_any():
        parts += part
        if len(parts) > MAX_MESSAGE_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_MESSAGE_BYTES, len(parts))
    return bytes(parts)


def _reply(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=pack(value), content_type="application/msgpack")

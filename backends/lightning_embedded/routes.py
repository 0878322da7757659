"""The learner's HTTP routes, beside the engine's: update, score, save, load, facts. Bodies are msgpack.

    POST /learner/update   a packed batch                  -> [version, metrics]
    POST /learner/score    packed rows, and what           -> a packed array for each row
    POST /learner/save     {folder}                        -> version
    POST /learner/load     {folder}                        -> version
    GET  /learner/facts                                    -> facts

Refusals are status 400 with [name of the error, message]; anything else that fails is 500 in the same form.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from aiohttp import web

from lightning_embedded import checkpoint
from lightning_embedded.engine import Engine
from lightning_embedded.learner import Learner
from lightning_embedded.model import Loaded
from lightning_embedded.transport import pack_scores, unpack_batch, unpack_question
from lightning_hub.backend import Batch
from lightning_sdk.errors import LightningError
from lightning_sdk.wire import MAX_MESSAGE_BYTES, pack, unpack

log = logging.getLogger(__name__)


class LearnerRoutes:
    """Runs the learner in one thread of its own, and publishes what comes of it.

    The engine is held while the learner computes, unless it is `asynchronous`: then rollouts go on with the version
    before, and only the publication comes between two tokens. The engine has weights of its own in either case.
    """

    def __init__(
        self, learner: Learner, engine: Engine, loaded: Loaded, *, threads: int, asynchronous: bool = False
    ) -> None:
        self._learner = learner
        self._engine = engine
        self._loaded = loaded
        self._asynchronous = asynchronous
        # Thread counts are per thread in OpenMP: this one has its own, apart from the engine's.
        self._worker = ThreadPoolExecutor(1, "learner", torch.set_num_threads, (threads,))

    def add_to(self, app: web.Application) -> None:
        """Register the routes on an application that checks the key and lets large bodies through."""
        app.router.add_post("/learner/update", self._route(self._update))
        app.router.add_post("/learner/score", self._route(self._score))
        app.router.add_post("/learner/save", self._route(self._save))
        app.router.add_post("/learner/load", self._route(self._load))
        app.router.add_get("/learner/facts", self._route(lambda _: self._learner.facts()))

    def _route(self, work: Callable[[bytes], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            body = await _body(request)
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._worker, work, body)
                return _reply(200, result)
            except (LightningError, ValueError) as error:
                name = type(error).__name__ if isinstance(error, LightningError) else "LightningError"
                return _reply(400, [name, str(error)])
            except Exception as error:
                log.error("%s", traceback.format_exc())
                return _reply(500, ["LightningError", f"the learner failed: {type(error).__name__}: {error}"])

        return handle

    def _update(self, body: bytes) -> list[Any]:
        batch = unpack_batch(body)
        if self._asynchronous:
            return self._updated(batch)
        # All cores for the learner; requests under way wait and then go on with the new weights.
        self._engine.pause()
        try:
            return self._updated(batch)
        finally:
            self._engine.resume()

    def _updated(self, batch: Batch) -> list[Any]:
        update = self._learner.update(batch)
        self._publish()
        return [update.version, update.metrics]

    def _score(self, body: bytes) -> list[bytes]:
        return pack_scores(self._learner.score(*unpack_question(body)))

    def _save(self, body: bytes) -> int:
        folder = Path(unpack(body)["folder"])
        checkpoint.write(folder, self._learner.model, self._loaded.tokenizer, self._learner.state())
        return self._learner.version

    def _load(self, body: bytes) -> int:
        found = checkpoint.read(Path(unpack(body)["folder"]))
        self._learner.restore(found.weights, found.state)
        self._publish()
        return self._learner.version

    def _publish(self) -> None:
        self._engine.publish(self._learner.model.state_dict(), self._learner.version)


async def _body(request: web.Request) -> bytes:
    """The body, larger than aiohttp lets through by itself."""
    parts = bytearray()
    async for part in request.content.iter_any():
        parts += part
        if len(parts) > MAX_MESSAGE_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_MESSAGE_BYTES, len(parts))
    return bytes(parts)


def _reply(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=pack(value), content_type="application/msgpack")

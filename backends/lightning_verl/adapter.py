"""VERL's link from a process that trains to its vLLM server, changed to survive the end of that server.

VERL sends weights over a socket without a time limit: were the server killed meanwhile, the run would wait forever.
Here the process notices that its server has ended, drops the weights, and goes on. The driver then restarts the server
and sends it the weights again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import ray
import torch
import zmq
from ray.exceptions import RayActorError, RayTaskError
from verl.workers.rollout.utils import ensure_async_iterator
from verl.workers.rollout.vllm_rollout import ServerAdapter
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

log = logging.getLogger(__name__)

#: Time between two looks at the server while it does not read or answer.
_POLL_SECONDS = 0.5


class ServerEnded(Exception):
    """The vLLM server's process ended while weights were sent."""


@contextmanager
def surviving(rank: int, doing: str) -> Iterator[None]:
    """Log it if this vLLM server ends meanwhile, instead of raising the error of the call to it."""
    try:
        yield
    except (ServerEnded, RayActorError, RayTaskError) as error:
        if isinstance(error, RayTaskError) and type(error.cause).__name__ != "EngineDeadError":
            raise
        log.warning("vLLM server %d ended while %s: %s", rank, doing, str(error).partition("\n")[0])


class SurvivingAdapter(ServerAdapter):  # type: ignore[misc]
    """VERL's adapter, whose methods return normally if the server has ended."""

    server_handle: Any
    _end: Future[None] | None = None
    """A call that the server never answers: it fails when the server's process ends."""

    async def resume(self, tags: list[str]) -> None:
        with surviving(self.replica_rank, "waking up"):
            await super().resume(tags)

    async def release(self) -> None:
        with surviving(self.replica_rank, "going to sleep"):
            await super().release()

    @torch.no_grad()
    async def update_weights(
        self, weights: Any, global_steps: int | None = None, wire_format: str = "named_tensors", **given: Any
    ) -> None:
        """VERL's method for whole tensors, which also uses up `weights` if the server has ended: all processes that
        train gather each tensor together, so none may stop before the others."""
        assert wire_format == "named_tensors", wire_format
        remaining = ensure_async_iterator(weights)
        with surviving(self.replica_rank, "loading weights"):
            await self._send(remaining, global_steps, given)
        async for _ in remaining:
            pass

    async def _send(self, weights: Any, version: int | None, given: dict[str, Any]) -> None:
        loaded = await self._execute_method(
            "update_weights_from_ipc", non_block=True, kwargs={**given, "use_shm": self.use_shm}
        )
        answer = None if loaded is None else loaded.future()
        end = self._server_end()
        sender = _WatchfulSender(
            self.zmq_handle, self.config.checkpoint_engine.update_weights_bucket_megabytes, self.use_shm
        )
        sender.has_ended = lambda: end.done() or (answer is not None and answer.done())
        try:
            await sender.async_send_weights(weights)
        except ServerEnded:
            if answer is not None and answer.done():
                answer.result()  # why the server did not load them
            raise
        if loaded is None:
            return
        await loaded
        await self.server_handle.clear_kv_cache.remote()
        if version is not None:
            await self.server_handle.set_global_steps.remote(version)

    def forget_server(self) -> None:
        """Look the server up again at the next call, since another has replaced it."""
        self.server_handle = self._end = None

    def _server_end(self) -> Future[None]:
        if self._end is None:
            try:
                # Processes with a part of a model that several share have no handle of their server.
                name = f"{self._get_server_name_prefix()}server_{self.replica_rank}_{self.node_rank}"
                server = self.server_handle or ray.get_actor(name)
            except ValueError as error:
                raise ServerEnded(str(error)) from error
            self._end = server.wait_for_end.remote().future()
        return self._end


class _WatchfulSender(BucketedWeightSender):  # type: ignore[misc]
    """VERL's sender, which raises ServerEnded instead of waiting for a server that has ended."""

    has_ended: Callable[[], bool]
    socket: Any

    def _init_socket(self) -> None:
        super()._init_socket()
        self.socket = _WatchfulSocket(self.socket, self.has_ended)

    def _cleanup(self) -> None:
        with suppress(FileNotFoundError):  # shared memory that the server's processes removed when they ended
            super()._cleanup()


class _WatchfulSocket:
    """The part of a socket's methods that VERL's sender uses."""

    def __init__(self, socket: Any, has_ended: Callable[[], bool]) -> None:
        self._socket, self._has_ended = socket, has_ended

    def send_pyobj(self, sent: Any) -> None:
        self._wait(zmq.POLLOUT)
        self._socket.send_pyobj(sent)

    def recv(self) -> Any:
        self._wait(zmq.POLLIN)
        return self._socket.recv()

    def close(self) -> None:
        self._socket.close(linger=0)

    def _wait(self, event: int) -> None:
        while not self._socket.poll(_POLL_SECONDS * 1000, event):
            # What was sent just before the end has arrived by the next look.
            if self._has_ended() and not self._socket.poll(0, event):
                raise ServerEnded("its process ended")

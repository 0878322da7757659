"""A checkpoint engine for VERL on a CPU, which has none: the first trainer sends weights over a socket.

VERL imports this module, named in its configuration, in every process that sends or receives weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
import torch
import zmq
from safetensors.torch import load, save
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry

from lightning_verl.plugin import SOCKETS

#: How long to wait for the other side.
_PATIENCE_SECONDS = 600


@CheckpointEngineRegistry.register(SOCKETS)
class Sockets(CheckpointEngine):  # type: ignore[misc]
    """Each receiving process asks the first trainer for all weights, and gets one answer."""

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self._master = is_master
        self._address, self._readers = "", 0
        self._socket: Any = None

    def prepare(self) -> str:
        """The address of the first trainer, '' for all others."""
        if not self._master:
            return ""
        self._socket = self._make(zmq.REP)
        host = ray.util.get_node_ip_address().strip("[]")
        return f"tcp://{host}:{self._socket.bind_to_random_port(f'tcp://{host}')}"

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[str]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The arguments of `init_process_group` in each trainer, and in each receiving process."""

        def arguments(size: int) -> dict[str, list[Any]]:
            return {"address": [metadata[0]] * size, "readers": [rollout_world_size] * size}

        return arguments(actor_wg_world_size), arguments(rollout_world_size)

    def init_process_group(self, address: str, readers: int) -> None:
        self._address, self._readers = address, readers

    async def send_weights(self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None) -> None:
        # Every trainer takes part in gathering the weights, so each iterates over all.
        named = {}
        for name, tensor in weights:
            if self._master:
                named[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        if self._master:
            await asyncio.to_thread(self._answer, save(named))

    def _answer(self, data: bytes) -> None:
        for _ in range(self._readers):
            self._socket.recv()
            self._socket.send(data)

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        for named in load(await asyncio.to_thread(self._ask)).items():
            yield named

    def _ask(self) -> bytes:
        socket: Any = self._make(zmq.REQ)
        socket.connect(self._address)
        socket.send(b"")
        data: bytes = socket.recv()
        socket.close()
        return data

    def finalize(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _make(self, kind: int) -> Any:
        socket: Any = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.RCVTIMEO, _PATIENCE_SECONDS * 1000)
        return socket

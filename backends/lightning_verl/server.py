"""VERL's vLLM servers, changed to keep their requests during an update, to end with their engine, and to start early.

VERL creates a server's process after its workers have loaded the model, since only then it knows on which machine. With
a single machine that is known in advance: the processes start and import vLLM as soon as VERL starts its workers, and
VERL gets one of them when it creates a server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import ray
from verl.plugin.platform import get_platform
from verl.workers.rollout.replica import CONTROL_METHOD_CONCURRENCY, RolloutMode, RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from lightning_verl.adapter import surviving

log = logging.getLogger(__name__)

#: Time between two looks at the engine.
_POLL_SECONDS = 0.5
#: Name in Ray -> a server process that does not know yet what to serve.
_waiting: dict[str, Any] = {}


class HubServer(vLLMHttpServer):  # type: ignore[misc]
    """VERL's server, which on separate GPUs does not abort requests for new weights, and ends when its engine does.

    VERL's agent loops resend aborted requests with the tokens so far, but a client of OpenAI's API would take a
    truncated reply for a complete one. So requests pause while weights are sent, and then continue, with their tokens
    so far recomputed under the new weights.

    vLLM never answers a call that its engine's process had not answered when it was killed. Ray does, with an error,
    once this process ends.
    """

    async def run_server(self, args: Any) -> None:
        await super().run_server(args)
        self._watch = asyncio.create_task(self._end_with_engine())

    async def _end_with_engine(self) -> None:
        while not self.engine.errored:
            await asyncio.sleep(_POLL_SECONDS)
        log.error("the engine of this vLLM server has ended, so the server ends")
        os._exit(1)

    async def wait_for_end(self) -> None:
        """Wait forever: the caller's call fails when this process ends."""
        await asyncio.Event().wait()

    async def abort_all_requests(self, reset_prefix_cache: bool = True, reject_request: bool = False) -> Any:
        if self.rollout_mode != RolloutMode.STANDALONE:
            return await super().abort_all_requests(reset_prefix_cache, reject_request)
        if self.node_rank == 0:
            await self.engine.pause_generation(mode="keep", clear_cache=False)
        return {"aborted_count": 0, "request_ids": []}

    async def resume_engine_generation(self) -> None:
        if self.node_rank == 0 and self.rollout_mode == RolloutMode.STANDALONE:
            await self.engine.reset_prefix_cache(reset_running_requests=True, reset_connector=True)
        await super().resume_engine_generation()


class EarlyServer(HubServer):
    """A server whose process starts before VERL says what to serve."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._wrong: Exception | None = None

    async def begin(self, **given: Any) -> None:
        """VERL's constructor. Errors are raised at VERL's next call."""
        try:
            super().__init__(**given)
        except Exception as error:
            self._wrong = error
        self._begun.set()

    async def get_master_address(self) -> Any:
        await self._begun.wait()  # Ray may reorder calls
        if self._wrong is not None:
            raise self._wrong
        return super().get_master_address()


def _survives(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """This method of a replica, which returns None if the server has ended. The driver restarts the server."""

    @wraps(method)
    async def call(self: Any, *args: Any, **given: Any) -> Any:
        with surviving(self.replica_rank, f"answering {method.__name__}"):
            return await method(self, *args, **given)

    return call


class EarlyReplica(vLLMReplica):  # type: ignore[misc]
    """VERL's replica, which uses a waiting server if there is one, and survives the end of its server."""

    launched = 0.0
    """When its servers were first launched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class: Any = _ServerFactory(ray.remote(HubServer))

    async def launch_servers(self) -> None:
        self.launched = self.launched or time.monotonic()
        await super().launch_servers()

    sleep = _survives(vLLMReplica.sleep)
    wake_up = _survives(vLLMReplica.wake_up)
    abort_all_requests = _survives(vLLMReplica.abort_all_requests)
    resume_generation = _survives(vLLMReplica.resume_generation)
    clear_kv_cache = _survives(vLLMReplica.clear_kv_cache)
    release_kv_cache = _survives(vLLMReplica.release_kv_cache)
    resume_kv_cache = _survives(vLLMReplica.resume_kv_cache)


class _ServerFactory:
    """Replaces the class of VERL's servers."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def options(self, *, name: str, **given: Any) -> Any:
        waiting = _waiting.pop(name, None)
        return self._made.options(name=name, **given) if waiting is None else _WaitingServer(waiting)


class _WaitingServer:
    def __init__(self, server: Any) -> None:
        self._server = server

    def remote(self, **given: Any) -> Any:
        self._server.begin.remote(**given)
        return self._server


def start_servers_early(config: Any) -> None:
    """Start the server processes that VERL will need, if it is known which."""
    RolloutReplicaRegistry.register("vllm", lambda: EarlyReplica)
    if sum(bool(node["Alive"]) for node in ray.nodes()) != 1:
        return
    rollout = config.actor_rollout_ref.rollout
    each = rollout.tensor_model_parallel_size * rollout.pipeline_model_parallel_size * rollout.data_parallel_size
    platform = get_platform()
    variables = dict.fromkeys(platform.ray_noset_envvars(), "1") | platform.rollout_env_vars()
    calls = max(1000, rollout.max_num_seqs + CONTROL_METHOD_CONCURRENCY)
    actor: Any = ray.remote(EarlyServer)
    for rank in range(rollout.n_gpus_per_node // each):
        name = f"vllm_server_{rank}_0"
        made = actor.options(name=name, runtime_env={"env_vars": variables}, max_concurrency=calls)
        _waiting[name] = made.remote()

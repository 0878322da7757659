"""VERL's vLLM servers, changed to keep their requests during an update and to start their processes early.

VERL creates a server's process after its workers have loaded the model, since only then it knows on which machine. With
a single machine that is known in advance: the processes start and import vLLM as soon as VERL starts its workers, and
VERL gets one of them when it creates a server.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
from verl.plugin.platform import get_platform
from verl.workers.rollout.replica import CONTROL_METHOD_CONCURRENCY, RolloutMode, RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

#: Name in Ray -> a server process that does not know yet what to serve.
_waiting: dict[str, Any] = {}


class RequestKeepingServer(vLLMHttpServer):  # type: ignore[misc]
    """VERL's server, which on separate GPUs does not abort requests for new weights.

    VERL's agent loops resend aborted requests with the tokens so far, but a client of OpenAI's API would take a
    truncated reply for a complete one. So requests pause while weights are sent, and then continue, with their tokens
    so far recomputed under the new weights.
    """

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


class EarlyServer(RequestKeepingServer):
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


class EarlyReplica(vLLMReplica):  # type: ignore[misc]
    """VERL's replica, which uses a waiting server if there is one."""

    launched = 0.0
    """When its servers were first launched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class: Any = _ServerFactory(ray.remote(RequestKeepingServer))

    async def launch_servers(self) -> None:
        self.launched = self.launched or time.monotonic()
        await super().launch_servers()


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

"""VERL's vLLM servers, which keep what they are asked through an update, and whose processes start early.

VERL makes a server's process once its workers have loaded the model, and knows only then where it is to be. In a Ray
of one machine there is no question where: the processes are made, and import vLLM, as soon as VERL starts its workers,
and VERL, when it makes a server, is given one of them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
from verl.plugin.platform import get_platform
from verl.workers.rollout.replica import CONTROL_METHOD_CONCURRENCY, RolloutMode, RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

#: Name in Ray -> a server that has not been told yet what to serve.
_waiting: dict[str, Any] = {}


class RequestKeepingServer(vLLMHttpServer):  # type: ignore[misc]
    """A server of VERL's that, on GPUs of its own, ends no request for new weights.

    VERL's agent loops ask again with the tokens that they have got; a client of OpenAI's API would take a reply that
    was cut short for the whole. So requests rest while weights travel, and go on with what they have said, which the
    new weights look at anew.
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
    """One whose process is there before VERL says what it is to serve."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._wrong: Exception | None = None

    async def begin(self, **given: Any) -> None:
        """As VERL makes its own. What goes wrong is raised where VERL asks next."""
        try:
            super().__init__(**given)
        except Exception as error:
            self._wrong = error
        self._begun.set()

    async def get_master_address(self) -> Any:
        await self._begun.wait()  # Ray may call in another order than it was asked
        if self._wrong is not None:
            raise self._wrong
        return super().get_master_address()


class EarlyReplica(vLLMReplica):  # type: ignore[misc]
    """VERL's replica, which takes a waiting server where there is one."""

    launched = 0.0
    """When its servers were first told to begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class: Any = _ServerFactory(ray.remote(RequestKeepingServer))

    async def launch_servers(self) -> None:
        self.launched = self.launched or time.monotonic()
        await super().launch_servers()


class _ServerFactory:
    """Stands where VERL has the class of its servers."""

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
    """Have the servers' processes made that VERL will ask for, where it is known which."""
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

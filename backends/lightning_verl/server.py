"""VERL's vLLM servers, whose processes import vLLM while VERL's workers start instead of after them.

VERL makes a server's process once its workers have loaded the model, and knows only then where it is to be. In a Ray
of one machine there is no question where: the processes are made as soon as VERL starts its workers, and VERL, when it
makes a server, is given one of them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
from verl.plugin.platform import get_platform
from verl.workers.rollout.replica import CONTROL_METHOD_CONCURRENCY, RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

#: Name in Ray -> a server that has not been told yet what to serve.
_waiting: dict[str, Any] = {}


class Server(vLLMHttpServer):  # type: ignore[misc]
    """A process of VERL's that is there before VERL says what it is to serve."""

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


class Replica(vLLMReplica):  # type: ignore[misc]
    """VERL's replica, which takes a waiting server where there is one."""

    launched = 0.0
    """When its servers were first told to begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class: Any = _Maker(ray.remote(vLLMHttpServer))

    async def launch_servers(self) -> None:
        self.launched = self.launched or time.monotonic()
        await super().launch_servers()


class _Maker:
    """Stands where VERL has the class of its servers."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def options(self, *, name: str, **given: Any) -> Any:
        waiting = _waiting.pop(name, None)
        return self._made.options(name=name, **given) if waiting is None else _Begun(waiting)


class _Begun:
    def __init__(self, server: Any) -> None:
        self._server = server

    def remote(self, **given: Any) -> Any:
        self._server.begin.remote(**given)
        return self._server


def begin(config: Any) -> None:
    """Have the servers' processes made that VERL will ask for, where it is known which."""
    RolloutReplicaRegistry.register("vllm", lambda: Replica)
    if sum(bool(node["Alive"]) for node in ray.nodes()) != 1:
        return
    rollout = config.actor_rollout_ref.rollout
    each = rollout.tensor_model_parallel_size * rollout.pipeline_model_parallel_size * rollout.data_parallel_size
    platform = get_platform()
    variables = dict.fromkeys(platform.ray_noset_envvars(), "1") | platform.rollout_env_vars()
    calls = max(1000, rollout.max_num_seqs + CONTROL_METHOD_CONCURRENCY)
    actor: Any = ray.remote(Server)
    for rank in range(rollout.n_gpus_per_node // each):
        name = f"vllm_server_{rank}_0"
        made = actor.options(name=name, runtime_env={"env_vars": variables}, max_concurrency=calls)
        _waiting[name] = made.remote()

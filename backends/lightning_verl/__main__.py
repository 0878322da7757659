"""The VERL backend's process: joins or starts Ray, starts the run there, and answers the hub.

Most of a start is imports, so they run in parallel: while Ray starts here, while the model is inspected in VERL's own
process, and in separate processes that warm the file cache if there are enough cores.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import ray

from lightning_process.program import BackendConfig, ReadyBackend, run
from lightning_process.source import locate
from lightning_verl import cluster
from lightning_vllm.preimport import ENGINE, Preimport, model_modules

#: What VERL's trainer, its workers and its vLLM servers import.
_TRAINER = ("verl.trainer.ppo.v1", "verl.workers.engine_workers")
_SERVER = ("verl.workers.rollout.vllm_rollout.vllm_async_server",)


def build(config: BackendConfig) -> ReadyBackend:
    """Start Ray, VERL on it, and the front for its vLLM servers."""
    source = locate(config.settings.model)
    with Preimport((_TRAINER, _SERVER, ENGINE, model_modules(source.path))):
        torch = import_module("torch")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with ThreadPoolExecutor(1) as thread:
            assembly = thread.submit(import_module, "lightning_verl.assembly")
            cluster.join(config.settings, device)
            runner = _runner()
        config.phases.end("ray")
        built: ReadyBackend = assembly.result().assemble(config, source, device, runner)
        return built


def _runner() -> Any:
    """VERL's process, which imports VERL immediately."""
    actor: Any = ray.remote(import_module("lightning_verl.runner").LoopRunner)
    return actor.options(max_concurrency=8, num_cpus=1).remote()


if __name__ == "__main__":
    run(build, at_end=cluster.leave)

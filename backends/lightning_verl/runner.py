"""Our task runner for VERL: a Ray actor that builds the trainer, runs its loop, and passes on the hub's requests.

The loop runs in one thread of the actor, the hub's requests in others. Between two steps the loop only waits for rows,
so saving and loading are safe then.
"""

from __future__ import annotations

import asyncio
import queue
import shutil
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import ray

from lightning_process.transport import unpack_batch
from lightning_verl.checkpoint import SHARDS
from lightning_verl.loss import LossRules
from lightning_verl.rows import list_roles

#: Time limit for tries to launch a server whose name Ray still holds, or that ends again, and between two tries.
_LAUNCH_SECONDS, _POLL_SECONDS = 60.0, 1.0


class Started(NamedTuple):
    """A run whose servers serve."""

    addresses: list[str]
    """host:port of each vLLM server."""
    parameters: int
    """Number of trained parameters."""
    phases: dict[str, float]
    """Duration in seconds of each phase of the start."""


class LoopRunner:
    """One run of VERL's loop, as a Ray actor with several threads."""

    def __init__(self) -> None:
        """Import VERL while the backend inspects the model."""
        from lightning_verl import plugin  # noqa: PLC0415 - of VERL's processes

        plugin.require()
        import_module("lightning_verl.trainer")
        self._ready = threading.Event()
        self._learned: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._served: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._trainer: Any = None
        self._feeder: Any = None
        self._version = 0

    def run(self, config: Any, rules: LossRules) -> None:
        """Run VERL's loop until the actor is ended. Raises the error that ended it."""
        import transfer_queue as tq  # noqa: PLC0415 - of VERL's processes
        from omegaconf import OmegaConf  # noqa: PLC0415
        from verl.utils.import_utils import load_class_from_fqn  # noqa: PLC0415

        from lightning_verl.trainer import make_trainer  # noqa: PLC0415

        self._rules = rules
        config.transfer_queue.enable = True
        OmegaConf.resolve(config)
        tq.init(config.transfer_queue)
        try:
            self._trainer = make_trainer(config, rules, self._wait, self._done.put)
            self._trainer.init()
            feeder = load_class_from_fqn(config.actor_rollout_ref.rollout.agent.agent_loop_manager_class)
            self._feeder = feeder.create(config, self._trainer.get_llm_client())
            self._ready.set()
            self._trainer.fit(self._feeder)
        finally:
            tq.close()

    def ready(self) -> Started:
        """Wait until the servers serve. May wait forever: callers learn from `run` that the loop has ended."""
        self._ready.wait()
        parameters = self._trainer.actor_rollout_wg.parameters()[0]
        return Started(list(self._trainer.servers.get_addresses()), parameters, self._trainer.phases.seconds)

    def learn(self, packed: bytes, rate: float) -> None:
        """Train on a packed batch without serving the new weights yet. Waits like `ready`."""
        batch = unpack_batch(packed)
        roles = list_roles(batch.rows)
        self._trainer.rate, self._trainer.roles = rate, len(roles)
        self._feeder.feed(batch, roles, self._rules.settings.algorithm.mini_batches, self._trainer.processes)
        self._learned.get()

    def serve(self) -> tuple[int, dict[str, Any]]:
        """Serve the new weights. Returns their version and VERL's metrics of the step. Waits like `ready`."""
        self._served.put(None)
        found = self._done.get()
        self._version += 1
        return self._version, found

    def _wait(self) -> None:
        """Called in VERL's loop between learning and serving."""
        self._learned.put(None)
        self._served.get()

    def save(self, folder: str, step: int) -> int:
        """Write VERL's checkpoint to FOLDER/verl and the model in Hugging Face format to FOLDER. The version."""
        shards = Path(folder) / SHARDS
        shutil.rmtree(shards, ignore_errors=True)
        self._trainer.actor_rollout_wg.save_checkpoint(str(shards), None, step)
        for file in sorted((shards / "huggingface").iterdir()):
            file.replace(Path(folder) / file.name)
        (shards / "huggingface").rmdir()
        return self._version

    def load(self, folder: str, version: int) -> int:
        """Continue from a folder that `save` wrote, and serve its weights."""
        self._trainer.actor_rollout_wg.load_checkpoint(str(Path(folder) / SHARDS))
        optimizer = self._rules.settings.optimizer
        self._trainer.actor_rollout_wg.set_optimizer(optimizer.weight_decay, (optimizer.beta1, optimizer.beta2))
        self._trainer.serve(version)
        self._version = version
        return version

    def restart_servers(self, ranks: list[int]) -> list[str]:
        """Restart these vLLM servers with the current weights while the loop waits. Returns the addresses of all."""
        servers = self._trainer.servers
        for rank in ranks:
            replica = servers.get_replicas()[rank]
            for server in replica.servers:
                ray.kill(server)
            self._launch(replica)
            servers.server_addresses[rank] = replica._server_address
            self._trainer.forget_server(rank)
        self._trainer.serve(self._version)
        return list(servers.get_addresses())

    def _launch(self, replica: Any) -> None:
        """Launch a replica's servers, once Ray has noticed the old ones' death and released their names. A server that
        ends while it starts is launched again."""
        deadline = time.monotonic() + _LAUNCH_SECONDS
        while True:
            replica.servers = []
            try:
                asyncio.run(replica.launch_servers())
                return
            except (ValueError, ray.exceptions.RayActorError):
                if time.monotonic() > deadline:
                    raise
                for server in replica.servers:
                    ray.kill(server)
                time.sleep(_POLL_SECONDS)

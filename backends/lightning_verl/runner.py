"""VERL's task runner, ours: a Ray actor that builds the trainer, lets it run its loop, and passes on what the hub asks.

The loop has the actor's main thread; the hub's questions come in others. Between two steps the loop waits for rows, and
nothing else happens in it, so that saving and loading are safe then.
"""

from __future__ import annotations

import asyncio
import queue
import shutil
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import ray

from lightning_process.transport import unpack_batch
from lightning_verl.loss import LossRules
from lightning_verl.rows import list_roles

#: Seconds for Ray to give a name free, and between two looks.
_NAME_FREE_SECONDS, _POLL_SECONDS = 60.0, 1.0
#: Where VERL keeps shards and optimizer inside a checkpoint's folder.
SHARDS = "verl"


class LoopRunner:
    """One run of VERL's loop. Made remote by the driver, with several threads."""

    def __init__(self) -> None:
        """Imports VERL, while the backend looks at the model."""
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
        """VERL's loop, until the actor is ended. Raises what ended it."""
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

    def ready(self) -> dict[str, Any]:
        """Addresses of the vLLM servers, number of parameters, and seconds by phase of the start, once they serve.
        Waits, if need be for ever: whoever asks hears from `run` that the loop has ended."""
        self._ready.wait()
        parameters = self._trainer.actor_rollout_wg.parameters()[0]
        return {
            "addresses": list(self._trainer.servers.get_addresses()),
            "parameters": parameters,
            "start": self._trainer.phases.seconds,
        }

    def learn(self, packed: bytes, rate: float) -> None:
        """Train on a packed batch; what comes of it is not served yet. Waits, as `ready`."""
        batch = unpack_batch(packed)
        roles = list_roles(batch.rows)
        self._trainer.rate, self._trainer.roles = rate, len(roles)
        self._feeder.feed(batch, roles, self._rules.settings.algorithm.mini_batches, self._trainer.processes)
        self._learned.get()

    def serve(self) -> tuple[int, dict[str, Any]]:
        """Serve what `learn` made: its version and VERL's metrics of the step. Waits, as `ready`."""
        self._served.put(None)
        found = self._done.get()
        self._version += 1
        return self._version, found

    def _wait(self) -> None:
        """In VERL's loop, between the two."""
        self._learned.put(None)
        self._served.get()

    def save(self, folder: str, step: int) -> int:
        """VERL's checkpoint in FOLDER/verl, and the model in Hugging Face format in FOLDER; the version."""
        shards = Path(folder) / SHARDS
        shutil.rmtree(shards, ignore_errors=True)
        self._trainer.actor_rollout_wg.save_checkpoint(str(shards), None, step)
        for file in sorted((shards / "huggingface").iterdir()):
            file.replace(Path(folder) / file.name)
        (shards / "huggingface").rmdir()
        return self._version

    def load(self, folder: str, version: int) -> int:
        """Go on from a folder that `save` wrote, and serve it."""
        self._trainer.actor_rollout_wg.load_checkpoint(str(Path(folder) / SHARDS))
        optimizer = self._rules.settings.optimizer
        self._trainer.actor_rollout_wg.set_optimizer(optimizer.weight_decay, (optimizer.beta1, optimizer.beta2))
        self._trainer.serve(version)
        self._version = version
        return version

    def restart_servers(self, ranks: list[int]) -> list[str]:
        """Start these vLLM servers anew, with the weights as they are, while the loop waits; the addresses of all."""
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
        """A dead actor's name is free again only when Ray has heard of its death."""
        deadline = time.monotonic() + _NAME_FREE_SECONDS
        while True:
            replica.servers = []
            try:
                asyncio.run(replica.launch_servers())
                return
            except ValueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)

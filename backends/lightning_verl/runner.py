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
from pathlib import Path
from typing import Any

import ray

from lightning_process.transport import unpack_batch
from lightning_verl.loss import Rules
from lightning_verl.rows import list_roles

#: Seconds between two looks at whether the loop still runs.
_LOOK = 1.0
#: Seconds for Ray to give a name free.
_NAME_FREE = 60.0
#: Where VERL keeps shards and optimizer inside a checkpoint's folder.
SHARDS = "verl"


class Runner:
    """One run of VERL's loop. Made remote by the driver, with several threads."""

    def __init__(self, config: Any, mode: str, rules: Rules) -> None:
        from lightning_verl import plugin  # noqa: PLC0415 - of VERL's processes

        plugin.require()
        self._config, self._mode, self._rules = config, mode, rules
        self._ready = threading.Event()
        self._done: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._trainer: Any = None
        self._feeder: Any = None
        self._version = 0

    def run(self) -> None:
        """VERL's loop, until the actor is ended. Raises what ended it."""
        import transfer_queue as tq  # noqa: PLC0415 - of VERL's processes
        from omegaconf import OmegaConf  # noqa: PLC0415

        from lightning_verl.feeder import Feeder  # noqa: PLC0415
        from lightning_verl.trainer import guided  # noqa: PLC0415

        config = self._config
        config.transfer_queue.enable = True
        OmegaConf.resolve(config)
        tq.init(config.transfer_queue)
        try:
            self._trainer = guided(self._mode, config, self._rules, self._done.put)
            self._trainer.init()
            self._feeder = Feeder.create(config, self._trainer.get_llm_client())
            self._ready.set()
            self._trainer.fit(self._feeder)
        finally:
            self._ended.set()
            tq.close()

    def ready(self) -> dict[str, Any]:
        """Addresses of the vLLM servers and number of parameters, once they serve. Waits; RuntimeError if it ended."""
        self._wait(self._ready.wait)
        return {"addresses": list(self._trainer.llm_server_manager.get_addresses()), "parameters": self._parameters()}

    def update(self, packed: bytes, rate: float) -> tuple[int, dict[str, Any]]:
        """Train on a packed batch and serve what comes of it: its version and VERL's metrics."""
        batch = unpack_batch(packed)
        roles = list_roles(batch.rows)
        self._trainer.rate, self._trainer.roles = rate, len(roles)
        self._feeder.feed(batch, roles, self._rules.settings.algorithm.mini_batches, self._trainer.processes)
        found: list[dict[str, Any]] = []
        self._wait(lambda seconds: self._next(found, seconds))
        self._version += 1
        return self._version, found[0]

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
        self._trainer.checkpoint_manager.update_weights(version)
        self._version = version
        return version

    def heal(self, rank: int) -> list[str]:
        """Start this vLLM server anew, with the weights as they are, between two steps; the addresses of all."""
        replica = self._trainer.llm_server_manager.get_replicas()[rank]
        for server in replica.servers:
            ray.kill(server)
        self._launch(replica)
        self._trainer.llm_server_manager.server_addresses[rank] = replica._server_address
        self._trainer.actor_rollout_wg.forget_server()
        self._trainer.checkpoint_manager.sleep_replicas()
        self._trainer.checkpoint_manager.update_weights(self._version)
        return list(self._trainer.llm_server_manager.get_addresses())

    def _launch(self, replica: Any) -> None:
        """A dead actor's name is free again only when Ray has heard of its death."""
        deadline = time.monotonic() + _NAME_FREE
        while True:
            replica.servers = []
            try:
                asyncio.run(replica.launch_servers())
                return
            except ValueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK)

    def _next(self, found: list[dict[str, Any]], seconds: float) -> bool:
        try:
            found.append(self._done.get(timeout=seconds))
        except queue.Empty:
            return False
        return True

    def _wait(self, wait: Any) -> None:
        while not wait(_LOOK):
            if self._ended.is_set():
                raise RuntimeError("VERL's loop has ended")

    def _parameters(self) -> int:
        return int(self._trainer.actor_rollout_wg.parameters()[0])

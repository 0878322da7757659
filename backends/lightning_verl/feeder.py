"""The feeder: replaces VERL's agent-loop manager, and fills each slot of VERL's loop with the hub's rows of a step."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning_hub.backend import Batch
from lightning_verl import rows

#: The partition of VERL's queue with training rows.
_PARTITION = "train"


class FedStep(NamedTuple):
    """A step's rows in VERL's queue."""

    slot: str
    keys: list[str]
    tags: list[dict[str, Any]]


#: Steps for the sampler, in the same process.
fed: queue.SimpleQueue[FedStep] = queue.SimpleQueue()


class Feeder:
    """Named in VERL's configuration, and created and called by its trainer; `feed` is for the runner."""

    def __init__(self) -> None:
        self._slots: queue.SimpleQueue[str] = queue.SimpleQueue()

    @classmethod
    def create(
        cls, config: Any, llm_client: Any, teacher_client: Any = None, reward_loop_worker_handles: Any = None
    ) -> Feeder:
        """VERL's constructor of agent-loop managers."""
        return cls()

    def generate_sequences(self, prompts: Any) -> None:
        """Called by VERL to fill these slots; returns at once, as VERL expects."""
        for uid in prompts["uid"]:
            self._slots.put(str(uid))

    def feed(self, batch: Batch, roles: Sequence[str], steps: int, processes: int) -> None:
        """Fill the next slot with a batch, for this number of optimizer steps and processes.

        Waits until VERL asks for a slot.
        """
        import transfer_queue as tq  # noqa: PLC0415 - of VERL's processes

        uid = self._slots.get()
        made = rows.order_rows(rows.usable_rows(batch.rows), steps, processes)
        tags = [rows.tag(row) for row in made]
        keys = [f"{uid}_{place}_0" for place in range(len(made))]
        tq.kv_batch_put(keys=keys, fields=rows.columns(made, roles), tags=tags, partition_id=_PARTITION)
        fed.put(FedStep(uid, keys, tags))

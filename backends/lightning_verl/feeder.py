"""The feeder: VERL's agent-loop manager, which gives each slot of its loop the rows of a step that the hub weighed."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

from lightning_hub.backend import Batch
from lightning_verl import rows

#: Of VERL's queue: what is trained on.
_PARTITION = "train"
#: Slot, keys and tags of each step's rows that are in VERL's queue, for the sampler, in the same process.
fed: queue.SimpleQueue[tuple[str, list[str], list[dict[str, Any]]]] = queue.SimpleQueue()


class Feeder:
    """Named in VERL's configuration, made and asked by its trainer; `feed` is for the runner."""

    def __init__(self) -> None:
        self._slots: queue.SimpleQueue[str] = queue.SimpleQueue()

    @classmethod
    def create(
        cls, config: Any, llm_client: Any, teacher_client: Any = None, reward_loop_worker_handles: Any = None
    ) -> Feeder:
        """As VERL makes its own."""
        return cls()

    def generate_sequences(self, prompts: Any) -> None:
        """VERL wants rows for these slots; returns at once, as VERL asks."""
        for uid in prompts["uid"]:
            self._slots.put(str(uid))

    def feed(self, batch: Batch, roles: Sequence[str], steps: int, processes: int) -> None:
        """Fill the next slot with a batch, for so many optimizer steps on so many processes.

        Waits for VERL to want it.
        """
        import transfer_queue as tq  # noqa: PLC0415 - of VERL's processes

        uid = self._slots.get()
        made = rows.order_rows(rows.usable_rows(batch.rows), steps, processes)
        tags = [rows.tag(row) for row in made]
        keys = [f"{uid}_{place}_0" for place in range(len(made))]
        tq.kv_batch_put(keys=keys, fields=rows.columns(made, roles), tags=tags, partition_id=_PARTITION)
        fed.put((uid, keys, tags))

"""Slots: what VERL's loop takes for prompts and samples from, while the hub decides what a step is made of.

VERL loads both classes by this file's path: a slot is one step, whatever number of rows it will have.
"""

from __future__ import annotations

from typing import Any

import transfer_queue as tq
from torch.utils.data import Dataset
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from lightning_verl.config import ENDLESS
from lightning_verl.feeder import fed


class Slots(Dataset[dict[str, Any]]):
    """As many equal slots as a run could ever need."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._slot = {"raw_prompt": [{"role": "user", "content": "a step of the hub"}], "data_source": "lightning"}

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._slot)


class Sampler(ReplayBuffer):  # type: ignore[misc]
    """A step is what the feeder has put into VERL's queue, in every trainer mode and in its order."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """As VERL's own, which lists the whole queue every two seconds. Waits for the feeder."""
        slot, keys, tags = fed.get()
        tq.kv_clear(partition_id=partition_id, keys=[slot])
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=tags), {}

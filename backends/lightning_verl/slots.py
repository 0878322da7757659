"""What VERL's loop takes for its dataset and its sampler, while the hub decides what each step trains on.

VERL loads both classes by this file's path. A slot is one step, however many rows it will have.
"""

from __future__ import annotations

from typing import Any

import transfer_queue as tq
from torch.utils.data import Dataset
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from lightning_verl.config import ENDLESS
from lightning_verl.feeder import fed


class StepSlots(Dataset[dict[str, Any]]):
    """A dataset of equal slots, more than any run needs."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._slot = {"raw_prompt": [{"role": "user", "content": "a step of the hub"}], "data_source": "lightning"}

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._slot)


class StepSampler(ReplayBuffer):  # type: ignore[misc]
    """Returns what the feeder put into VERL's queue, in that order, in every trainer mode."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Wait for the feeder. (VERL's own method lists the whole queue every two seconds.)"""
        step = fed.get()
        tq.kv_clear(partition_id=partition_id, keys=[step.slot])
        return KVBatchMeta(partition_id=partition_id, keys=step.keys, tags=step.tags), {}

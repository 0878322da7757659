"""Slots: what VERL's loop takes for prompts and samples from, while the hub decides what a step is made of.

VERL loads both classes by this file's path: a slot is one step, whatever number of rows it will have.
"""

from __future__ import annotations

import time
from typing import Any

from torch.utils.data import Dataset
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from lightning_verl.config import ENDLESS

#: Seconds between two looks at whether a step's rows are there.
_POLL = 0.02


class Slots(Dataset[dict[str, Any]]):
    """As many equal slots as a run could ever need."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._slot = {"raw_prompt": [{"role": "user", "content": "a step of the hub"}], "data_source": "lightning"}

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._slot)


class Sampler(ReplayBuffer):  # type: ignore[misc]
    """VERL's buffer in its synchronous form, in every trainer mode, looking oftener than every two seconds."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, poll_interval=_POLL)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        time.sleep(self.poll_interval)
        return last_debug_time

"""Slots: the key-value cache with one row per sequence, and the tokens that each row contains.

A row's first `lengths[row]` positions are valid; later ones are never attended to. Rows in use are at the front, so a
decoding step reads views, not copies. A free row keeps its content until it is needed: prompts that continue it, or
have the same beginning, start from there. Rows are as long as the conversations need: see `room.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache

from lightning_embedded.engine.room import Room

Shape = tuple[int, int]
"""Key-value heads and head size of one layer."""


class Slots(Cache):  # type: ignore[no-untyped-call, misc, unused-ignore]
    """Keys and values of `count` rows of up to `length` tokens, [count + 1, heads, length, size] per layer.

    The last row is waste: padding is written there. Memory is reserved at once, but the system allocates it only as
    rows fill.
    """

    def __init__(self, shapes: list[Shape], room: Room, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(layers=[])
        self.room = room
        self.length = length = room.base
        self.count = count = room.rows(length)
        self.keys = [_reserve((count + 1, *_middle(shape, length)), dtype, device) for shape in shapes]
        self.values = [_reserve((count + 1, *_middle(shape, length)), dtype, device) for shape in shapes]
        self.tokens = np.zeros((count, length), np.int32)
        self.lengths = np.zeros(count, np.int64)
        self.used = np.zeros(count, np.int64)
        """When each row was last released, as a count of releases; 0 for never."""
        self._rows: Tensor = torch.zeros(0)
        self._front = 0
        self._reach = 0
        self._fresh = False
        self._places: Tensor = torch.zeros(0)
        self._targets: dict[int, Tensor] = {}

    # Called by the model's layers.

    def aim(self, rows: NDArray[np.int64], starts: NDArray[np.int64], widths: NDArray[np.int64], front: bool) -> None:
        """Set where the next forward pass writes: `widths[i]` tokens of row `rows[i]` from position `starts[i]`.

        With `front`, the rows are 0, 1, ... and are read as views. Rows of width 0 write to the waste row.
        """
        width = max(1, int(widths.max()))
        offsets = np.arange(width)
        real = offsets < widths[:, None]
        places = np.where(real, starts[:, None] + offsets, 0)
        targets = np.where(real, rows[:, None], self.count)
        device = self.keys[0].device
        self._front = len(rows) if front else 0
        self._reach = int((starts + np.maximum(widths, 1)).max())
        self._fresh = not front and not starts.any()
        self._rows = torch.from_numpy(rows).to(device)
        self._targets = {}
        for heads in {keys.shape[1] for keys in self.keys}:
            head = np.arange(heads)[:, None]
            index = (targets[:, None] * heads + head) * self.length + places[:, None]
            self._targets[heads] = torch.from_numpy(index.reshape(-1)).to(device)

    @property
    def reach(self) -> int:
        """Number of positions that the next forward pass attends to."""
        return self._reach

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write [n, heads, width, size] where `aim` set it. Returns all keys and values of those rows."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        target, size = self._targets[keys.shape[1]], keys.shape[3]
        keys.view(-1, size).index_copy_(0, target, key_states.reshape(-1, size))
        values.view(-1, size).index_copy_(0, target, value_states.reshape(-1, size))
        if self._fresh:
            return key_states, value_states
        if self._front:
            return keys[: self._front, :, : self._reach], values[: self._front, :, : self._reach]
        return (
            keys[:, :, : self._reach].index_select(0, self._rows),
            values[:, :, : self._reach].index_select(0, self._rows),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    # Called by the scheduler.

    def note(self, row: int, start: int, tokens: list[int]) -> None:
        """Record that `row` contains `tokens` from position `start` on."""
        self.tokens[row, start : start + len(tokens)] = tokens
        self.lengths[row] = start + len(tokens)

    def match(self, prompt: NDArray[np.int32]) -> NDArray[np.int64]:
        """[count] how many of the first tokens of `prompt` each row already has."""
        span = min(len(prompt), int(self.lengths.max(initial=0)))
        if span == 0:
            return np.zeros(self.count, np.int64)
        differs = self.tokens[:, :span] != prompt[:span]
        first = np.where(differs.any(1), differs.argmax(1), span)
        return np.minimum(first, self.lengths)

    def copy(self, sources: list[int], targets: list[int], length: int) -> None:
        """Copy the first `length` positions of each source row to its target. All are read before any is written."""
        if not sources:
            return
        device = self.keys[0].device
        read, write = torch.tensor(sources, device=device), torch.tensor(targets, device=device)
        for store in (*self.keys, *self.values):
            part = store[:, :, :length]
            part.index_copy_(0, write, part.index_select(0, read))

    def swap(self, left: list[int], right: list[int]) -> None:
        """Swap rows pairwise, including their bookkeeping."""
        here, there = left + right, right + left
        self.copy(there, here, int(self.lengths[here].max(initial=0)))
        for known in (self.tokens, self.lengths, self.used):
            known[here] = known[there]

    def resize(self, length: int) -> None:
        """Make all rows this long. Of the first rows as many stay as there is room for, with what fits of them."""
        count = self.room.rows(length)
        rows, kept = min(count, self.count), min(length, self.length)
        filled = min(kept, int(self.lengths[:rows].max(initial=0)))
        for stores in (self.keys, self.values):
            for layer, old in enumerate(stores):
                new = _reserve((count + 1, old.shape[1], length, old.shape[3]), old.dtype, old.device)
                new[:rows, :, :filled] = old[:rows, :, :filled]
                stores[layer] = new
        self.tokens = _resize(self.tokens, (count, length))
        self.lengths = np.minimum(_resize(self.lengths, (count,)), kept)
        self.used = _resize(self.used, (count,))
        self.count, self.length = count, length

    def forget(self) -> None:
        """Invalidate the content of all rows."""
        self.lengths[:] = 0


def bytes_per_token(shapes: list[Shape], dtype: torch.dtype) -> int:
    """Memory of one token's keys and values over all layers."""
    return sum(2 * heads * size for heads, size in shapes) * torch.empty(0, dtype=dtype).element_size()


def _middle(shape: Shape, length: int) -> tuple[int, int, int]:
    heads, size = shape
    return heads, length, size


def _resize(known: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A copy in another shape; zeros where there was nothing."""
    new = np.zeros(shape, known.dtype)
    common = tuple(slice(min(one, other)) for one, other in zip(known.shape, shape, strict=True))
    new[common] = known[common]
    return new


def _reserve(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU the system allocates their pages when they are first written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    width = torch.empty(0, dtype=dtype).element_size()
    return torch.from_numpy(np.zeros((*shape[:-1], shape[-1] * width), np.uint8)).view(dtype)

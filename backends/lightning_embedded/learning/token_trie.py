"""A flat token trie: common prefixes of rows are computed once, for any model with pluggable attention.

The tokens of several rows become one sequence [1, N] in which each distinct prefix appears once. Linear layers see no
padding and no repeated prompts; only attention knows the rows: the tokens of each row attend along its path. The
gradient equals that of separate rows, because a shared position sums the gradients of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

#: Name of the attention implementation in transformers' registry.
ATTENTION = "lightning_trie"
#: Padded query-key pairs allowed for each real pair when segments are computed together.
_PADDING = 1.6
#: Attention copies the keys and values of a whole path for each segment at its end. This many of them take about as
#: much memory as one position takes in the rest of a layer.
_KEYS_PER_POSITION = 16

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Block:
    """R segments computed together: S new positions each (padded), which attend to paths of T positions (padded)."""

    queries: Tensor
    """[R * S] flat positions."""
    keys: Tensor
    """[R * T] flat positions."""
    starts: Tensor
    """[R] position of the first query in its path."""
    shape: tuple[int, int, int]
    """R, S, T."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor:
        """[R, 1, S, T] whether a query sees a key: itself and earlier ones, at most `window` of them."""
        if window not in self._masks:
            _, s, t = self.shape
            here = self.starts[:, None, None] + torch.arange(s, device=self.starts.device)[None, :, None]
            there = torch.arange(t, device=self.starts.device)
            seen = there <= here
            if window is not None:
                seen &= there > here - window
            self._masks[window] = seen[:, None]
        return self._masks[window]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trie:
    """Rows in the flat layout."""

    tokens: Tensor
    """[1, N] the last token of each distinct prefix."""
    positions: Tensor
    """[1, N] position of each token in its row."""
    blocks: tuple[Block, ...]
    restore: Tensor
    """[N] index of each flat position among the blocks' queries."""
    paths: list[Ints]
    """For each row, in the order given, the flat position of each of its tokens."""
    windows: dict[int, int | None] = field(default_factory=dict)
    """Layer -> its sliding window, for the layers that have run."""


class Builder:
    """Builds a trie from rows in lexicographic order; `size` is the number of positions so far."""

    def __init__(self) -> None:
        self.size = 0
        self._keys = 0
        self.paths: list[Ints] = []
        self._tokens: list[NDArray[np.int32]] = []
        self._segments: list[tuple[Ints, int]] = []
        self._last: NDArray[np.int32] = np.zeros(0, np.int32)

    def size_with(self, tokens: NDArray[np.int32]) -> int:
        """The size if `tokens` were added; larger if the copied keys take more memory than the positions."""
        own = len(tokens) - _common(self._last, tokens)
        keys = self._keys + (len(tokens) if own else 0)
        return max(self.size + own, keys // _KEYS_PER_POSITION)

    def add(self, tokens: NDArray[np.int32]) -> None:
        shared = _common(self._last, tokens)
        own = np.arange(self.size, self.size + len(tokens) - shared, dtype=np.int64)
        path = np.concatenate([self.paths[-1][:shared], own]) if self.paths else own
        if len(own):
            self._segments.append((path, shared))
            self._keys += len(path)
        self._tokens.append(tokens[shared:])
        self.paths.append(path)
        self.size += len(own)
        self._last = tokens

    def build(self, device: torch.device) -> Trie:
        groups = list(_together(self._segments))
        blocks = tuple(_block(group, device) for group in groups)
        restore, positions, offset = np.zeros(self.size, np.int64), np.zeros(self.size, np.int64), 0
        for group, block in zip(groups, blocks, strict=True):
            rows, width, _ = block.shape
            for row, (path, start) in enumerate(group):
                own = path[start:]
                restore[own] = offset + row * width + np.arange(len(own))
                positions[own] = np.arange(start, len(path))
            offset += rows * width
        flat = np.concatenate(self._tokens).astype(np.int64)
        tokens, places, back = (torch.from_numpy(array).to(device) for array in (flat, positions, restore))
        return Trie(tokens=tokens[None], positions=places[None], blocks=blocks, restore=back, paths=self.paths)


def order(rows: Sequence[NDArray[np.int32]]) -> list[int]:
    """Indices that sort rows lexicographically, so that rows are next to those with which they share most."""
    return sorted(range(len(rows)), key=lambda index: rows[index].astype(">i4").tobytes())


@contextmanager
def attending(trie: Trie) -> Iterator[None]:
    """In this context, models with the attention `ATTENTION` use this trie."""
    token = _current.set(trie)
    try:
        yield
    finally:
        _current.reset(token)


_current: ContextVar[Trie] = ContextVar("trie")


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query [1, heads, N, size] -> [1, N, heads, size]."""
    extras = [name for name in ("softcap", "s_aux", "position_bias") if rest.get(name) is not None]
    if extras:
        raise NotImplementedError(f"attention with {', '.join(extras)}")
    trie = _current.get()
    trie.windows[getattr(module, "layer_idx", 0)] = sliding_window
    repeats = query.shape[1] // key.shape[1]
    # Scores and sums are float32 on a CPU even if the products around them are not, as in the engine.
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    outputs = []
    for block in trie.blocks:
        rows, width, length = block.shape
        q = _rows(query, block.queries, rows, width, 1)
        k, v = (_rows(each, block.keys, rows, length, repeats) for each in (key, value))
        with torch.autocast("cpu", enabled=False):
            seen = scaled_dot_product_attention(q, k, v, attn_mask=block.mask(sliding_window), scale=scaling)
        outputs.append(seen.transpose(1, 2).reshape(rows * width, query.shape[1], value.shape[3]))
    flat = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return flat.index_select(0, trie.restore)[None], None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)


def _rows(states: Tensor, index: Tensor, rows: int, width: int, repeats: int) -> Tensor:
    """[1, heads, N, size] -> [rows, heads * repeats, width, size]."""
    picked = states[0].index_select(1, index).view(states.shape[1], rows, width, states.shape[3])
    return (picked.repeat_interleave(repeats, 0) if repeats > 1 else picked).transpose(0, 1)


def _common(left: NDArray[np.int32], right: NDArray[np.int32]) -> int:
    """Length of the longest common prefix."""
    size = min(len(left), len(right))
    different = np.flatnonzero(left[:size] != right[:size])
    return int(different[0]) if len(different) else size


def _together(segments: list[tuple[Ints, int]]) -> Iterator[list[tuple[Ints, int]]]:
    """Groups of segments with similar shapes, so that padding stays below `_PADDING`."""
    group: list[tuple[Ints, int]] = []
    width = length = real = 0
    for path, start in sorted(segments, key=lambda each: (len(each[0]) - each[1], len(each[0])), reverse=True):
        own = len(path) - start
        wider, longer, more = max(width, own), max(length, len(path)), real + own * len(path)
        if group and (len(group) + 1) * wider * longer > _PADDING * more:
            yield group
            group, wider, longer, more = [], own, len(path), own * len(path)
        group.append((path, start))
        width, length, real = wider, longer, more
    yield group


def _block(segments: list[tuple[Ints, int]], device: torch.device) -> Block:
    width = max(len(path) - start for path, start in segments)
    length = max(len(path) for path, _ in segments)
    queries, keys = np.zeros((len(segments), width), np.int64), np.zeros((len(segments), length), np.int64)
    for row, (path, start) in enumerate(segments):
        queries[row, : len(path) - start] = path[start:]
        keys[row, : len(path)] = path
    return Block(
        torch.from_numpy(queries.reshape(-1)).to(device),
        torch.from_numpy(keys.reshape(-1)).to(device),
        torch.tensor([start for _, start in segments], device=device),
        (len(segments), width, length),
    )

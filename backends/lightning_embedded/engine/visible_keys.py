"""Which keys each query of a forward pass sees, in layers with and without a sliding window.

A model's own code would make one mask for each kind of layer. The engine passes it the mask of full attention, and our
attention replaces it in layers with a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class VisibleKeys:
    """The keys visible to queries at `places` [n, width], among `reach` keys."""

    def __init__(self, places: Tensor, reach: int, dtype: torch.dtype) -> None:
        self.windows: dict[int, int | None] = {}
        """Layer -> its window, for the layers that have run."""
        self._places, self._reach, self._dtype = places[:, :, None], reach, dtype
        self._masks: dict[int | None, Tensor] = {}

    def mask(self, window: int | None) -> Tensor:
        """[n, 1, width, reach], 0 where a query sees a key: itself and earlier ones, at most `window` of them."""
        if window is not None and window >= self._reach:
            window = None
        if window not in self._masks:
            keys = torch.arange(self._reach, device=self._places.device)
            hidden = keys > self._places
            if window is not None:
                hidden |= keys <= self._places - window
            mask = torch.zeros(hidden.shape, dtype=self._dtype, device=hidden.device)
            self._masks[window] = mask.masked_fill_(hidden, torch.finfo(self._dtype).min)[:, None]
        return self._masks[window]


_current: ContextVar[VisibleKeys | None] = ContextVar("visible_keys", default=None)


@contextmanager
def use_visible_keys(seen: VisibleKeys) -> Iterator[None]:
    """In this context, layers see the keys in `seen`."""
    token = _current.set(seen)
    try:
        yield
    finally:
        _current.reset(token)


def layer_mask(layer: torch.nn.Module, window: int | None, mask: Tensor | None) -> Tensor | None:
    """The mask of a layer with this window, which replaces the one that it was given."""
    seen = _current.get()
    if seen is None:
        return mask
    seen.windows[getattr(layer, "layer_idx", 0)] = window
    return mask if window is None else seen.mask(window)

"""An extension of vLLM's worker on a GPU, which loads weights directly from the learner's memory.

Runs inside vLLM's worker as a mixin of its class. Its arguments are plain JSON, while vLLM's own endpoint for this
takes pickles.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor


class Extension:
    """`lightning_load` is called through /collective_rpc."""

    device: torch.device
    model_runner: Any
    reload_weights: Any

    def lightning_load(self, weights: Sequence[Sequence[Any]]) -> None:
        """Load the weights that `lightning_vllm.sharing.handles` describes; they are in place on return."""
        self.reload_weights(weights_iterator=self._lightning_tensors(weights))
        torch.cuda.synchronize(self.device)

    def _lightning_tensors(self, weights: Sequence[Sequence[Any]]) -> Iterator[tuple[str, Tensor]]:
        for name, size, stride, offset, dtype, handle, bytes_, at, counter, counter_at, event, sync in weights:
            yield (
                name,
                rebuild_cuda_tensor(  # type: ignore[no-untyped-call]
                    Tensor,
                    torch.Size(size),
                    tuple(stride),
                    offset,
                    torch.UntypedStorage,
                    getattr(torch, dtype),
                    self.device.index or 0,
                    base64.b64decode(handle),
                    bytes_,
                    at,
                    False,
                    base64.b64decode(counter),
                    counter_at,
                    base64.b64decode(event),
                    sync,
                ),
            )

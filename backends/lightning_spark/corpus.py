"""The pre-training data as tensors: one dialogue per row, with the weight of each token in the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lightning_spark.tokenizer import END_ID

LONGEST = 192
"""Longer dialogues, fewer than 1 in 500, are left out."""
CONTEXT_WEIGHT = 0.1
"""Weight of tokens that the model will not write itself: predicting questions helps a little in reading them."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """N dialogues, ordered by length."""

    ids: Tensor
    """[N, LONGEST] int16, zero after the end."""
    weights: Tensor
    """[N, LONGEST] float16; 1 for what the assistant writes including its end token, 0 after the end."""
    lengths: Tensor
    """[N] int64, ascending."""

    def to(self, device: str) -> Corpus:
        """The same corpus with ids and weights on a device. Lengths stay on the CPU, for batching."""
        return Corpus(self.ids.to(device), self.weights.to(device), self.lengths)

    def batches(self, seed: int, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless batches: ids [B, T] int64 and weights [B, T] float32, about `tokens` places, of similar lengths."""
        generator = torch.Generator().manual_seed(seed)
        count, ends = len(self.lengths), self.lengths.cumsum(0)
        while True:
            # Draw a token, not a dialogue: batches of short dialogues have more of them, which this evens out.
            middle = int(torch.searchsorted(ends, torch.randint(int(ends[-1]), (), generator=generator), right=True))
            width = min(-(-int(self.lengths[middle]) // 16) * 16, LONGEST)
            # Draw from four times as many rows of about this width as needed, so that batches differ.
            rows = min(tokens // width, count)
            reach = min(4 * rows, count)
            start = max(0, min(middle - reach // 2, count - reach))
            chosen = start + torch.randperm(reach, generator=generator)[:rows]
            width = min(-(-int(self.lengths[chosen].max()) // 16) * 16, LONGEST)
            on_device = chosen.to(self.ids.device)
            yield self.ids[on_device, :width].long(), self.weights[on_device, :width].float()


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Corpus:
    """Encode texts, except those longer than LONGEST tokens."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch([text.rstrip("\n") for text in texts])]
    rows = sorted((row for row in rows if len(row) <= LONGEST), key=len)
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), LONGEST, dtype=torch.int16)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.int16)
    return Corpus(ids, _weights(ids, lengths, tokenizer), lengths)


def _weights(ids: Tensor, lengths: Tensor, tokenizer: Tokenizer) -> Tensor:
    start, header = tokenizer.encode("<|im_start|>assistant\n").ids
    weights = torch.full(ids.shape, CONTEXT_WEIGHT, dtype=torch.float16)
    inside = torch.zeros(len(ids), dtype=torch.bool)
    for place in range(1, ids.shape[1]):
        weights[inside, place] = 1.0
        inside &= ids[:, place] != END_ID
        inside |= (ids[:, place] == header) & (ids[:, place - 1] == start)
    weights[torch.arange(ids.shape[1])[None] >= lengths[:, None]] = 0.0
    return weights

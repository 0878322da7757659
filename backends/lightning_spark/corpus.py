"""The pre-training data as tensors: the tokens of all dialogues in a row, with the weight of each in the loss."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from lightning_spark import data
from lightning_spark.data import Rendered
from lightning_spark.held_out import Exclusion
from lightning_spark.tokenizer import END_ID

LONGEST = 1024
"""Longer dialogues are left out."""
CONTEXT_WEIGHT = 0.05
"""Weight of tokens that the model will not write itself: predicting questions helps a little in reading them."""
_STEP = 32
"""Batches have widths that are multiples of this."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """N dialogues with T tokens in all."""

    ids: Tensor
    """[T] int16."""
    learned: Tensor
    """[T] bool: what the assistant writes including its end token."""
    starts: Tensor
    """[N] int64, where each dialogue begins, ordered by length."""
    lengths: Tensor
    """[N] int64, ascending."""

    def to(self, device: str) -> Corpus:
        """The same corpus with the tokens on a device. Starts and lengths stay on the CPU, for batching."""
        return Corpus(self.ids.to(device), self.learned.to(device), self.starts, self.lengths)

    def row(self, index: int) -> tuple[Tensor, Tensor]:
        """Ids and weights of one dialogue."""
        start, length = int(self.starts[index]), int(self.lengths[index])
        learned = self.learned[start : start + length]
        return self.ids[start : start + length], learned.float().clamp(min=CONTEXT_WEIGHT)

    def batches(self, seed: int, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless batches: ids [B, T] int64 and weights [B, T] float32, about `tokens` places, of similar lengths."""
        generator = torch.Generator().manual_seed(seed)
        count, ends, device = len(self.lengths), self.lengths.cumsum(0), self.ids.device
        while True:
            # Draw a token, not a dialogue: batches of short dialogues have more of them, which this evens out.
            middle = int(torch.searchsorted(ends, torch.randint(int(ends[-1]), (), generator=generator), right=True))
            width = min(-(-int(self.lengths[middle]) // _STEP) * _STEP, LONGEST)
            # Draw from four times as many rows of about this width as needed, so that batches differ.
            rows = min(max(1, tokens // width), count)
            reach = min(4 * rows, count)
            start = max(0, min(middle - reach // 2, count - reach))
            chosen = start + torch.randperm(reach, generator=generator)[:rows]
            lengths = self.lengths[chosen]
            width = min(-(-int(lengths.max()) // _STEP) * _STEP, LONGEST)
            places = torch.arange(width, device=device)[None]
            inside = places < lengths.to(device)[:, None]
            at = (self.starts[chosen].to(device)[:, None] + places).clamp(max=len(self.ids) - 1)
            weights = self.learned[at].float().clamp(min=CONTEXT_WEIGHT) * inside
            yield self.ids[at].long() * inside, weights


def make(
    count: int, seed: int, excluded: Exclusion, tokenizer: Tokenizer, workers: int = 1
) -> tuple[Corpus, list[str]]:
    """`count` generated dialogues as a corpus, and the fingerprint of each chunk of them."""
    job = partial(_encode_chunk, excluded=excluded, vocabulary=tokenizer.to_str())
    jobs = data.chunks(count, seed)
    if workers == 1:
        return _join(map(job, jobs))
    with get_context("fork" if sys.platform == "linux" else "spawn").Pool(
        workers
    ) as pool:  # fork imports nothing again
        return _join(pool.imap(job, jobs))


def encode(tokenizer: Tokenizer, made: Sequence[Rendered]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [T] int16, whether they are learned [T] bool, and the lengths [N] of dialogues that are not too long."""
    ids, learned, lengths = [], [], []
    header = tokenizer.encode("<|im_start|>assistant\n").ids
    for each, encoding in zip(made, tokenizer.encode_batch([each.text.rstrip("\n") for each in made]), strict=True):
        row = np.array(encoding.ids, dtype=np.int16)
        if len(row) <= LONGEST:
            ids.append(row)
            learned.append(_mark_learned(row, header, each.given))
            lengths.append(len(row))
    return np.concatenate(ids), np.concatenate(learned), np.array(lengths)


def _encode_chunk(
    job: tuple[str, int], excluded: Exclusion, vocabulary: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    made = data.chunk(*job, excluded)
    return *encode(Tokenizer.from_str(vocabulary), made), data.fingerprint(made)


def _join(parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, str]]) -> tuple[Corpus, list[str]]:
    ids, learned, lengths, fingerprints = zip(*parts, strict=True)
    return arrange(np.concatenate(ids), np.concatenate(learned), np.concatenate(lengths)), list(fingerprints)


def arrange(ids: np.ndarray, learned: np.ndarray, lengths: np.ndarray) -> Corpus:
    """A corpus of what `encode` returned."""
    counts = torch.from_numpy(lengths).long()
    starts = counts.cumsum(0) - counts
    order = counts.argsort(stable=True)
    return Corpus(torch.from_numpy(ids), torch.from_numpy(learned), starts[order], counts[order])


def _mark_learned(row: np.ndarray, header: list[int], given: int) -> np.ndarray:
    """Which tokens of a dialogue the assistant writes, except in its first `given` turns."""
    learned = np.zeros(len(row), dtype=bool)
    begins = np.flatnonzero((row[:-1] == header[0]) & (row[1:] == header[1])) + 2
    ends = np.flatnonzero(row == END_ID)
    for begin in begins[given:]:
        end = ends[np.searchsorted(ends, begin)] if ends[-1] >= begin else len(row) - 1
        learned[begin : end + 1] = True
    return learned

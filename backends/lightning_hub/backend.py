"""What the hub asks of a backend: an engine that serves the newest version, and a learner that makes the next one.

A backend is found by name in the entry-point group `lightning_sdk.backends`, whose value is a `BackendSpec`. It is
made in the hub's process; the work may happen in others, which it starts, watches and stops by handle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_sdk.settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where trainable calls go."""

    url: str
    """Base URL with the version, such as http://127.0.0.1:8123/v1."""
    model: str
    key: str


@dataclass(frozen=True, slots=True)
class Row:
    """One trajectory, weighed: a token sequence of length T with, for each token, what the loss needs.

    A token counts if and only if its weight is not zero; sampled tokens only. Position 0 is never sampled.
    """

    tokens: NDArray[np.int32]
    """[T] ids, exactly as the model saw and sampled them."""
    weights: NDArray[np.float32]
    """[T] share of each token in the loss; 0 for prompts. Summed over the batch's sampled tokens: 1."""
    advantages: NDArray[np.float32]
    """[T] advantage of each token; 0 for prompts."""
    logprobs: NDArray[np.float32]
    """[T] log-probability under the sampler; 0 for prompts."""
    temperature: float
    """Of the distribution that the tokens were drawn from: the learner divides its logits by it."""
    version: int
    """Lowest model version that sampled a token of this row."""
    role: str
    rollout: str
    """Rollout id."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one update is made from."""

    step: int
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Update:
    """What came of one update."""

    version: int
    """The version that the engine serves from now on."""
    metrics: dict[str, float] = field(default_factory=dict)
    """At least loss, grad_norm, learning_rate, entropy, clip_fraction, kl_sampler (mean of sampler minus trainer
    log-probs), tokens, seconds."""


class Backend(Protocol):
    """An engine and a learner for one model. Methods block; errors rise as LightningError or as a bug."""

    endpoint: Endpoint

    def facts(self) -> dict[str, object]:
        """What was decided where settings left it open, for `config.json`: learning rate, parameters, dtype ..."""
        ...

    def update(self, batch: Batch) -> Update:
        """Train on one batch and serve the new version."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model in HF format, and what `load` needs, into an existing folder."""
        ...

    def load(self, folder: Path) -> int:
        """Continue from a folder that `save` wrote; the version that is served now."""
        ...

    def alive(self) -> bool:
        """Whether every process of the backend runs."""
        ...

    def close(self) -> None:
        """Stop what was started. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A backend's name, the settings it honours, and how to start it."""

    name: str
    honours: frozenset[str]
    """Dotted setting names; 'optimizer.*' covers a group."""
    start: Callable[[Settings, Path], Backend]
    """Settings and the run's folder -> a running backend. Raises ModelError for a model that cannot be served."""

"""What the hub asks of a backend: an engine that serves the newest version, and a learner that makes the next one.

A backend is found by name in the entry-point group `lightning_sdk.backends`, whose value is a `BackendSpec`. It is
made in the hub's process; the work may happen in others, which it starts, watches and stops by handle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_sdk.settings import Settings
from lightning_sdk.trace.scope import Endpoint as Endpoint  # noqa: PLC0414 - for authors of backends


class Constrained(NamedTuple):
    """Sampled tokens of a row that were drawn under a constraint: only what it allowed had a probability."""

    start: int
    """Position of the first one, where the constraint began."""
    end: int
    """Position behind the last one."""
    constraint: str
    """As `lightning_hub.trajectories.constraint.constraint_of` has it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One trajectory, weighed: a token sequence of length T with, for each token, what the loss needs.

    A token counts if and only if its weight is not zero; sampled tokens only. Position 0 is never sampled. The rows of
    one role in one rollout are one sequence, to whatever looks at sequences: GSPO, DPO, sequence-level importance.
    """

    tokens: NDArray[np.int32]
    """[T] ids, exactly as the model saw and sampled them."""
    weights: NDArray[np.float32]
    """[T] share of each token in the loss, with its role's weight, as `algorithm.aggregation` says; 0 for prompts. The
    loss is the plain sum over the batch: a learner normalises nothing."""
    advantages: NDArray[np.float32]
    """[T] advantage of each token; 0 for prompts. With objective 'dpo' 1 where chosen and -1 where rejected."""
    logprobs: NDArray[np.float32]
    """[T] log-probability under the sampler; 0 for prompts."""
    temperature: float
    """Of the distribution that the tokens were drawn from: the learner divides its logits by it."""
    version: int
    """Lowest model version that sampled a token of this row."""
    role: str
    rollout: str
    """Rollout id."""
    returns: NDArray[np.float32] | None = None
    """[T] what the value head learns to predict before each sampled token; only where `credit.advantage` is 'gae'."""
    values: NDArray[np.float32] | None = None
    """[T] what it predicted when `Scoring.score` was asked; with `returns`."""
    constraints: tuple[Constrained, ...] = ()
    """What of it was drawn under constraints, in order; the rest is free text."""


class Objective(StrEnum):
    """What a batch is for."""

    POLICY = "policy"
    """The policy loss that `algorithm.loss` names, with divergence, entropy and value terms."""
    SFT = "sft"
    """Minus the weighted log-probability; advantages, ratios and sampler's log-probs do not matter."""
    DPO = "dpo"
    """Direct preference optimisation over `Batch.pairs`."""


class Pair(NamedTuple):
    """Two rollouts of one task, of which one role's part is preferred in the first."""

    role: str
    chosen: str
    """Rollout id."""
    rejected: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one update is made from."""

    step: int
    rows: list[Row]
    objective: Objective = Objective.POLICY
    pairs: tuple[Pair, ...] = ()
    """Of objective 'dpo': each has the rows of both rollouts and that role in the batch."""


@dataclass(frozen=True, slots=True)
class Update:
    """What came of one update."""

    version: int
    """The version that the engine serves from now on."""
    metrics: dict[str, float] = field(default_factory=dict)
    """At least loss, grad_norm, learning_rate, entropy, clip_fraction, kl_sampler (mean of sampler minus trainer
    log-probs), tokens, seconds. With '/ROLE' behind them: entropy, clip_fraction, kl_sampler, kl_reference of one
    role's tokens."""


class Backend(Protocol):
    """An engine and a learner for one model. Methods block; errors rise as LightningError or as a bug."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Where trainable calls go; None: where the agent sends them."""
        ...

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

    def check(self) -> None:
        """BackendDied, which says how it ended, if a process of the backend does not run."""
        ...

    def close(self) -> None:
        """Stop what was started. Idempotent."""
        ...


class Scoring(Protocol):
    """What a backend has that honours `value.*`, or `divergence.*` with place 'reward'."""

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        """[T] for each row, 0 where no token was sampled, by the weights as they are now.

        `what` is 'reference' (log-probability of each sampled token under the reference model, at the row's
        temperature) or 'values' (the value head's estimate before each sampled token).
        """
        ...


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A backend's name, the settings it honours, and how to start it."""

    name: str
    honours: frozenset[str]
    """Dotted setting names; 'optimizer.*' covers a group."""
    start: Callable[[Settings, Path], Backend]
    """Settings and the run's folder -> a running backend. Raises ModelError for a model that cannot be served."""
    refuse: Callable[[Settings], None] = lambda _: None
    """Raises for settings that mean nothing together, or a model that is not there; starts nothing."""
    keeps_constraints: bool = False
    """It trains on what was drawn under `Row.constraints`. Where not, calls that an agent forces are left to the model,
    and its engine refuses a `response_format`."""

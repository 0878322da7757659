"""What the hub expects of a backend: an engine that serves the newest version, and a learner that makes the next one.

A backend is found by name in the entry-point group `lightning_sdk.backends`, whose value is a `BackendSpec`. It is
made in the hub's process; the work may happen in others, which it starts, watches and stops by handle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_hub.rollout import Rollout
from lightning_sdk.hub.questions import ClaimQuestion
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.prompts.text_check import TextCheck
from lightning_sdk.rollouts.tasks import Task
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call
from lightning_sdk.trace.scope import Endpoint as Endpoint  # noqa: PLC0414 - for authors of backends


class Constrained(NamedTuple):
    """Sampled tokens of a row that were drawn under a constraint: only what it allowed had a probability."""

    start: int
    """Position of the first one, where the constraint began."""
    end: int
    """Position after the last one."""
    constraint: str
    """As `lightning_hub.trajectories.constraint.constraint_of` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trajectory with its credit: a sequence of T tokens with what the loss needs for each.

    A token counts if and only if its weight is not zero, and only sampled tokens have a weight. Position 0 is never
    sampled. For algorithms that work on sequences (GSPO, DPO, sequence-level importance), all rows of one role in one
    rollout are one sequence.
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
    """Temperature of the distribution that the tokens were drawn from; the learner divides its logits by it."""
    version: int
    """Lowest model version that sampled a token of this row."""
    role: str
    rollout: str
    """Rollout id."""
    returns: NDArray[np.float32] | None = None
    """[T] what the value head learns to predict before each sampled token; only where `credit.advantage` is 'gae'."""
    values: NDArray[np.float32] | None = None
    """[T] what the value head predicted when `Scoring.score` was called; given together with `returns`."""
    constraints: tuple[Constrained, ...] = ()
    """Spans of tokens that were drawn under constraints, in order; the rest is free text."""


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
    """Pairs for objective 'dpo'; the batch holds the rows of both rollouts of each pair, for that role."""


@dataclass(frozen=True, slots=True)
class Update:
    """The result of one update."""

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
        """Address for trainable calls; None: they go where the agent sends them."""
        ...

    def facts(self) -> dict[str, object]:
        """Values that the backend chose where settings leave them open, for `config.json`: learning rate, dtype ...

        If there is a `checkpoint_bytes`, a run whose disk has no room for that much is refused before its first step.
        """
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
        """Raise BackendDied, which says how it ended, if a process of the backend is not running."""
        ...

    def close(self) -> None:
        """Stop everything that was started. Can be called more than once."""
        ...


class Scoring(Protocol):
    """What a backend also has if it honours `value.*`, or `divergence.*` with place 'reward'."""

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        """[T] for each row, 0 where no token was sampled, by the weights as they are now.

        `what` is 'reference' (log-probability of each sampled token under the reference model, at the row's
        temperature) or 'values' (the value head's estimate before each sampled token).
        """
        ...


class SearchRollout(NamedTuple):
    """One rollout that a search asks for."""

    task: Task
    candidate: Candidate | None
    """None: the agent's own texts."""
    group: str
    """Tells what is repeated from what is not."""
    seed: int = 0
    """Tells repetitions of a task apart: those of other candidates with the same seed are sampled alike, as far as the
    run has an engine."""
    shows_marks: bool = False
    """Whether it reports the texts that `lightning.prompt` marks while it runs, as spans `notices.MARKED`."""


@dataclass(frozen=True, slots=True)
class SearchEnding:
    """What came of a search."""

    chosen: Candidate | None
    """What is scored on the held-out tasks at the end; None: the agent's own texts, which nothing was better than."""
    summary: Mapping[str, Any]
    """Plain data for the report: `texts`, `selection`, `spent`, `ended` and so on."""


class CallMeter(Protocol):
    """Counts what calls take. Any thread may call."""

    def claim(self, asked: ClaimQuestion) -> str:
        """'' if the request may leave, or why not."""
        ...

    def settle(self, call: Call) -> None:
        """What a call has taken is known."""
        ...


class SearchHost(Protocol):
    """What the hub does for a search. Methods block, on the search's own thread; what they raise has to rise."""

    settings: Settings
    folder: Path
    """The run's."""
    tasks: Sequence[Task]
    """Training tasks. Held-out ones are the hub's."""
    held_out: int
    """How many held-out tasks there are."""
    roles: tuple[str, ...]
    """Roles that are to be tuned; empty: every one that is seen."""
    marks: Mapping[str, str]
    """Name -> text, of texts that are marked with `lightning.prompt`."""
    text_check: TextCheck
    """What every text of a candidate has to pass; `run` refuses one that does not."""
    endpoint: Endpoint | None
    """The run's own engine, which answers the roles to tune; None: their calls go where the agent sends them."""
    earlier: Mapping[str, Any] | None
    """Summary of an earlier search of the run, whose texts this one begins with; None: it begins with the agent's."""

    def run(self, rollouts: Sequence[SearchRollout], on_end: Callable[[int, Rollout], None]) -> None:
        """Run them side by side, with the hub's retries and limits; `on_end` gets the place and the rollout of each as
        it ends."""
        ...

    def meter_calls(self, meter: CallMeter) -> None:
        """Let it decide on every request to a model of the rollouts that are run from now on."""
        ...

    def measure(self) -> None:
        """Score the agent's own texts on the held-out tasks, unless an earlier session of the run has."""
        ...

    def note_round(self, number: int, metrics: Mapping[str, float]) -> None:
        """A round of the search is over: these are its metrics, as those of a step."""
        ...

    def tell(self, text: str) -> None:
        """Show the user a line."""
        ...

    def check(self) -> None:
        """Raise if the run is to end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A backend's name, the settings it honours, and how to start it."""

    name: str
    honours: frozenset[str]
    """Dotted setting names; 'optimizer.*' covers a group."""
    start: Callable[[Settings, Path], Backend]
    """Settings and the run's folder -> a running backend. Raises ModelError for a model that cannot be served."""
    refuse: Callable[[Settings], None] = lambda _: None
    """Raises an error for settings that contradict each other or a model that does not exist; starts nothing."""
    keeps_constraints: bool = False
    """It trains on what was drawn under `Row.constraints`. Where not, calls that an agent forces are left to the model,
    and its engine refuses a `response_format`."""
    smaller_checkpoints: str = ""
    """What to type so that its checkpoints need less of the disk, for runs whose checkpoints have no room there."""
    search: Callable[[SearchHost], SearchEnding] | None = None
    """What training is where it is not steps of a learner: it looks for texts. A run that is resumed calls it again."""

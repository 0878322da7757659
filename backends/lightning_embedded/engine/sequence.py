"""A sequence: one completion from its prompt to its end."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from lightning_embedded.constraints.constraint import Constraint
from lightning_embedded.text.growing_text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How one completion is sampled."""

    max_tokens: int
    """Limited to what the engine's `max_length` leaves after the prompt."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    presence: float = 0.0
    """Subtracted from the logit of each id that was sampled before."""
    frequency: float = 0.0
    """Subtracted from an id's logit for each time that it was sampled before."""
    repetition: float = 1.0
    """Logits of ids in prompt and completion are divided by it if positive, multiplied if negative."""
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    """Ids that end the completion, besides the model's own; like those they are sampled, and not in the text."""
    seed: int | None = None
    """The same seed gives the same completion, whatever else is in the batch."""
    index: int = 0
    """Which of `n` completions of a request this is; the same seed gives each its own stream of random numbers."""
    top_logprobs: int = 0
    """Number of most likely alternatives to keep for each token."""


class Sequence:
    """Tokens of one completion. The engine's thread appends; any thread may read.

    `token_ids`, `logprobs` and `tops` only grow, and `logprobs` is never shorter than `token_ids`, so a reader that
    reads `finish` first and the lengths afterwards sees a consistent state.
    """

    __slots__ = (
        "aborted",
        "client",
        "constraint",
        "finish",
        "logprobs",
        "owner",
        "params",
        "prompt",
        "random",
        "receiver",
        "slot",
        "stream",
        "text",
        "token_ids",
        "tops",
        "versions",
    )

    def __init__(
        self,
        prompt: list[int],
        params: Params,
        receiver: Callable[[list[Sequence]], None],
        *,
        stream: bool = False,
        owner: Any = None,
        text: Text | None = None,
        client: Hashable = None,
        constraint: Constraint | None = None,
    ) -> None:
        self.prompt = prompt
        self.params = params
        self.receiver = receiver
        self.stream = stream
        """Whether the receiver is called after each token, not only at the end; it may then see the end twice."""
        self.owner = owner
        """For the receiver's own use."""
        self.text = text
        """Watches for stop strings; None without any."""
        self.client = client
        """The client that asked for it: waiting clients get slots in turn."""
        self.constraint = constraint
        """Which ids may come next; None for free text."""
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        """Log-probability of each token under the distribution that it was drawn from."""
        self.tops: list[list[tuple[int, float]]] = []
        """The most likely (id, log-probability) pairs at each token; empty unless requested."""
        self.versions: list[list[int]] = []
        """Runs of [version of the weights, number of tokens]."""
        self.finish: str = ""
        """'' while it runs, then 'stop', 'length', 'abort' or 'error'."""
        self.aborted = False
        self.slot = -1
        seed = None if params.seed is None else f"{params.seed}/{params.index}"
        self.random = random.Random(seed).random

    def all_ids(self) -> list[int]:
        """Prompt and completion so far."""
        return self.prompt + self.token_ids

    @property
    def is_penalised(self) -> bool:
        """Whether penalties apply, which depend on earlier tokens."""
        params = self.params
        return bool(params.presence or params.frequency or params.repetition != 1)

    def append(self, token: int, logprob: float, version: int) -> None:
        self.logprobs.append(logprob)
        self.token_ids.append(token)
        if self.versions and self.versions[-1][0] == version:
            self.versions[-1][1] += 1
        else:
            self.versions.append([version, 1])

"""A sequence: one completion under way, from its prompt to why it ended."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from lightning_embedded.constraints.constraint import Constraint
from lightning_embedded.text.growing_text import Text


@dataclass(frozen=True, slots=True)
class Params:
    """How one completion is sampled."""

    max_tokens: int
    """Cut to what the engine's `max_length` leaves after the prompt."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    presence: float = 0.0
    """Taken from the logit of each id that was sampled before."""
    frequency: float = 0.0
    """Likewise, for each time that it was."""
    repetition: float = 1.0
    """Logits of ids in prompt and completion are divided by it, negative ones multiplied."""
    stop: tuple[str, ...] = ()
    seed: int | None = None
    """The same seed gives the same completion, whatever else is in the batch."""
    index: int = 0
    """Which of `n` completions of a request this is; the same seed gives each its own stream of random numbers."""
    top_logprobs: int = 0
    """How many of the likeliest alternatives to keep for each token."""


class Sequence:
    """Tokens of one completion. The engine's thread appends; any thread may read what is there.

    `token_ids`, `logprobs` and `tops` only grow, and `logprobs` is never shorter than `token_ids`, so a reader that
    takes `finish` first and the lengths after sees a consistent piece.
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
        """The receiver is called after each token, not only at the end; it may then see the same end twice."""
        self.owner = owner
        """Whatever the receiver needs to find its way back."""
        self.text = text
        """Watches for stop strings; None when there are none."""
        self.client = client
        """Who asked for it: those that wait get their slots in turn."""
        self.constraint = constraint
        """Says which ids may come next; None for free text."""
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        """Of the distribution that each token was drawn from."""
        self.tops: list[list[tuple[int, float]]] = []
        """Likeliest (id, log-prob) at each token, empty lists unless asked for."""
        self.versions: list[list[int]] = []
        """Runs of [weights' version, number of tokens]."""
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
        """Whether what was said before changes what comes next beyond the model."""
        params = self.params
        return bool(params.presence or params.frequency or params.repetition != 1)

    def append(self, token: int, logprob: float, version: int) -> None:
        self.logprobs.append(logprob)
        self.token_ids.append(token)
        if self.versions and self.versions[-1][0] == version:
            self.versions[-1][1] += 1
        else:
            self.versions.append([version, 1])

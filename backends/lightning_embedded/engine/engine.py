"""The engine: continuous batching for any Hugging Face causal LM, in its own thread.

Each iteration of the loop accepts new requests, admits waiting sequences into free slots, computes their prompts
together, generates one token for every sequence, and notifies each receiver once. Sequences join and leave between any
two tokens. New weights are loaded between two iterations, and running sequences are recomputed with them, so every
token after a publication is exactly from the new version.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_embedded.engine.decoder import Decoder
from lightning_embedded.engine.room import Room
from lightning_embedded.engine.scheduler import Scheduler, Stats
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_embedded.engine.slots import Slots, bytes_per_token
from lightning_embedded.text.growing_text import Decode, Text
from lightning_process.refusal import Unavailable

log = logging.getLogger(__name__)

#: Number of simultaneous sequences to make room for, by limiting their length, if the cache is too small.
_FEWEST_SLOTS = 8

Weights = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]


class PromptTooLong(ValueError):
    """The prompt leaves no room for a completion."""


class EngineClosed(Unavailable):
    """The engine was closed, or its thread failed."""


class Engine:
    """Generates tokens for many sequences at once.

    Args:
        model: a causal LM; the engine keeps its own copy of it.
        tokenizer: its tokenizer, for stop strings and end ids.
        max_slots: sequences that run at once; others wait. As an attribute, those that can be `max_length` long.
        max_length: limit of prompt and completion together, at most the model's context; None for the model's context,
            or less if the cache is too small.
        max_cache_bytes: limit of the key-value cache. If it has no room for `max_slots` sequences of `max_length`,
            fewer run at once while one of them is long.
        threads: CPU threads of a forward pass.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        *,
        max_slots: int = 128,
        max_length: int | None = None,
        max_cache_bytes: int = 2 << 30,
        threads: int = 1,
        version: int = 0,
    ) -> None:
        self.decoder = Decoder(model)
        self.decode = Decode(tokenizer, end_ids(model, tokenizer))
        self.ends = self.decode.ends
        limit = self.decoder.limit
        per_token = bytes_per_token(self.decoder.shapes, self.decoder.dtype)
        tokens = max_cache_bytes // per_token
        self.max_length = limit if max_length is None else min(max_length, limit)
        if max_length is None and tokens < 2 * limit:  # not even one sequence and the waste row
            self.max_length = max(1, tokens // (min(max_slots, _FEWEST_SLOTS) + 1))
        per_slot = per_token * self.max_length
        room = Room(tokens, max_slots, self.max_length)
        self.max_slots = room.rows(self.max_length)
        if self.max_slots < 1:
            raise ValueError(
                f"one sequence of {self.max_length} tokens takes {per_slot:,} bytes of cache, but max_cache_bytes="
                f"{max_cache_bytes:,} must hold two; lower max_length or raise max_cache_bytes"
            )
        slots = Slots(self.decoder.shapes, room, self.decoder.dtype, self.decoder.device)
        self._scheduler = Scheduler(self.decoder, slots, self.ends, version)
        self.failure = ""
        self._wake = threading.Condition()
        self._arrived: list[Sequence] = []
        self._orders: list[_Order] = []
        self._paused = False
        self._aborts = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(threads,), name="lightning-engine", daemon=True)
        self._thread.start()

    # Called from any thread.

    def check(self, prompt: list[int]) -> None:
        """Raise PromptTooLong if `prompt` leaves no room for a token; ValueError if it is empty or has unknown ids."""
        if not prompt:
            raise ValueError("the prompt is empty")
        if not 0 <= min(prompt) <= max(prompt) < self.decoder.vocabulary:
            raise ValueError(f"the prompt has ids outside 0 to {self.decoder.vocabulary - 1}, the model's vocabulary")
        if len(prompt) >= self.max_length:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; this model takes at most {self.max_length}, completion included"
                + self._why_shorter()
            )

    def _why_shorter(self) -> str:
        if self.max_length < self.decoder.limit:
            return f": the engine's cache has room for that many of the {self.decoder.limit} that the model supports"
        return f": {self.decoder.bound}" if self.decoder.bound else ""

    def submit(self, sequences: list[Sequence]) -> None:
        """Queue sequences. The engine's thread calls their receivers, which must return at once."""
        for sequence in sequences:
            self.check(sequence.prompt)
            if sequence.params.stop and sequence.text is None:
                sequence.text = Text(self.decode, sequence.params.stop)
        with self._wake:
            if self._closed:
                raise EngineClosed(self.failure or "the engine is closed")
            self._arrived.extend(sequences)
            self._wake.notify()

    def abort(self, sequences: Iterable[Sequence]) -> None:
        """Stop sequences that nobody waits for any more and free their slots, without notifying receivers."""
        for sequence in sequences:
            sequence.aborted = True
        with self._wake:
            self._aborts = True
            self._wake.notify()

    def generate(self, prompts: list[list[int]], params: Params | list[Params]) -> list[Sequence]:
        """Complete `prompts` and wait for all of them."""
        each = params if isinstance(params, list) else [params] * len(prompts)
        done, left = threading.Event(), len(prompts)

        def receive(finished: list[Sequence]) -> None:
            nonlocal left
            left -= len(finished)
            if left == 0:
                done.set()

        sequences = [Sequence(prompt, one, receive) for prompt, one in zip(prompts, each, strict=True)]
        if sequences:
            self.submit(sequences)
            done.wait()
        if any(sequence.finish == "error" for sequence in sequences):
            raise EngineClosed(self.failure or "the engine was closed while sequences ran")
        return sequences

    def publish(self, state: Weights, version: int) -> None:
        """Serve these weights from the next token on. Returns when they are in place.

        `state` maps the model's parameter names to tensors, like `state_dict()` or `named_parameters()`. ValueError,
        and the old weights stay, if they do not fit or are not finite.
        """
        order = _Order(state, version)
        with self._wake:
            if self._closed:
                raise EngineClosed(self.failure or "the engine is closed")
            self._orders.append(order)
            self._wake.notify()
        order.done.wait()
        if order.error is not None:
            raise order.error

    def pause(self) -> None:
        """Generate no more tokens until `resume`. Requests are kept and still accepted."""
        with self._wake:
            self._paused = True

    def resume(self) -> None:
        with self._wake:
            self._paused = False
            self._wake.notify()

    @property
    def version(self) -> int:
        """Version of the weights that are served."""
        return self._scheduler.version

    @property
    def stats(self) -> Stats:
        return self._scheduler.stats

    @property
    def running(self) -> int:
        """Number of sequences that have a slot."""
        return sum(row is not None for row in self._scheduler.rows)

    @property
    def waiting(self) -> int:
        """Number of sequences that wait for a slot."""
        return len(self._scheduler.waiting) + len(self._arrived)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    def close(self) -> None:
        """Stop the thread; running sequences end with finish 'error'. Idempotent."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    # Called from the engine's thread only.

    def _run(self, threads: int) -> None:
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                while self._take():
                    if not self._paused:
                        self._scheduler.admit()
                        self._scheduler.step()
                    self._tell()
        except Exception as error:
            self.failure = f"the engine failed: {type(error).__name__}: {error}"
            log.error("%s\n%s", self.failure, traceback.format_exc())
        self._give_up()

    def _take(self) -> bool:
        """Wait for something to do; False when the engine is closed."""
        with self._wake:
            while not self._closed and not self._orders and not self._aborts and not self._ready():
                self._wake.wait()
            arrived, self._arrived = self._arrived, []
            orders, self._orders = self._orders, []
            aborts, self._aborts = self._aborts, False
            closed = self._closed
        self._scheduler.waiting.extend(arrived)
        for order in orders:
            self._replace(order)
        if aborts:
            self._scheduler.drop_aborted()
        return not closed

    def _ready(self) -> bool:
        return not self._paused and (bool(self._arrived) or self._scheduler.busy)

    def _replace(self, order: _Order) -> None:
        try:
            self.decoder.load(order.state)
            self._scheduler.restart(order.version)
        except Exception as error:
            order.error = error
        order.done.set()

    def _tell(self) -> None:
        news, self._scheduler.news = self._scheduler.news, {}
        for receiver, sequences in news.items():
            receiver(sequences)

    def _give_up(self) -> None:
        """The loop has ended: notify everyone who still waits."""
        with self._wake:
            self._closed = True
            late, self._arrived = self._arrived, []
            orders, self._orders = self._orders, []
        for order in orders:
            order.error = EngineClosed(self.failure or "the engine is closed")
            order.done.set()
        self._scheduler.fail(late)
        self._tell()


class _Order:
    """Weights to be published, and the outcome."""

    def __init__(self, state: Weights, version: int) -> None:
        self.state = state
        self.version = version
        self.done = threading.Event()
        self.error: Exception | None = None


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every id that ends a completion, from the generation config, the model's config and the tokenizer."""
    ends: set[int] = set()
    sources = (getattr(model, "generation_config", None), getattr(model, "config", None), tokenizer)
    for source in sources:
        value = getattr(source, "eos_token_id", None)
        ends.update([value] if isinstance(value, int) else value or [])
    return ends

"""Asking: one question to the reflecting model until it is answered, as a server that is busy wants to be asked.

A server that is busy or away is asked again after pauses that double, with some chance in them, or after the time that
it names. All questions pause together. After `PATIENCE_SECONDS` a question is given up.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

from lightning_prompts.journal import ModelReply
from lightning_prompts.ledger import Ledger
from lightning_prompts.meter import Meter
from lightning_prompts.prices import UNIT

PATIENCE_SECONDS = 300.0
"""How long one question is asked again and again."""
_BACKOFF_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_BYTES_BEYOND_QUESTION = 64
"""Of a request that asks a question, tokens at the most."""


T = TypeVar("T")


class Answer(NamedTuple):
    """What a reflecting model said."""

    text: str
    input_tokens: int = 0
    """Read, as far as it says."""
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of those read, what came from the provider's cache."""
    cache_written_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.input_tokens + self.output_tokens


class ModelUnavailable(Exception):
    """The reflecting model cannot be reached now, or has too much to do: worth another attempt."""

    def __init__(self, text: str, after_seconds: float = 0.0) -> None:
        """`after_seconds`: how long the server asks to be left alone before that."""
        super().__init__(text)
        self.after_seconds = after_seconds


class ModelFailed(Exception):
    """The reflecting model gave no reply, and another attempt would not give one either. The message says it all."""

    def __init__(self, text: str, *, is_free: bool = True) -> None:
        """`is_free`: the server said that it did nothing, so nothing is paid."""
        super().__init__(text)
        self.is_free = is_free


class ReflectingModel:
    """Something that can be asked: an endpoint, or a function for tests and for models in this process."""

    model = ""
    """Its name, which its price is looked up by."""
    reply_tokens = 4096
    """Tokens that a reply has at most."""

    def ask(self, question: str) -> Answer:
        """Raises ModelUnavailable for what another attempt may mend; any other exception is a failure."""
        raise NotImplementedError


class FunctionModel(ReflectingModel):
    """A plain function from question to reply."""

    def __init__(self, function: Callable[[str], str | None]) -> None:
        self._function = function

    def ask(self, question: str) -> Answer:
        return Answer(self._function(question) or "")


def start_thread(action: Callable[[], T]) -> Future[T]:
    """Run `action` in a thread that the process does not wait for at its end, as it would for those of a pool: a model
    that hangs would keep it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="lightning-reflection", daemon=True).start()
    return future


class Asker:
    """Asks one model from several threads."""

    def __init__(
        self,
        model: ReflectingModel,
        ledger: Ledger,
        meter: Meter | None = None,
        backoff_seconds: float = _BACKOFF_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._model, self._ledger, self._meter = model, ledger, meter
        self._backoff_seconds, self._patience_seconds = backoff_seconds, patience_seconds
        self._lock, self._quiet_until, self._closed = threading.Lock(), 0.0, threading.Event()
        self.trouble = ""
        """Why the server was left alone last; '' while it answers."""

    def reserve(self, question: str) -> tuple[str, str]:
        """Have what a request can take reserved: its key in the meter, and '' or why it may not leave."""
        if self._meter is None:
            return "", ""
        key = f"reflection/{os.urandom(8).hex()}"
        most = len(question.encode()) + _BYTES_BEYOND_QUESTION
        return key, self._meter.reserve(key, self._model.model, most, self._model.reply_tokens)

    def ask(self, question: str, key: str, attempts: int | None = None) -> ModelReply:
        """Ask until there is an answer. `key`: what the first request has reserved; `attempts`: how many may be made.

        Never raises: what is wrong is in the reply.
        """
        began = time.monotonic()
        for attempt in range(1, (attempts or 1 << 30) + 1):
            if attempt > 1:
                key, told = self.reserve(question)
                if told:
                    attempt -= 1  # noqa: PLW2901 - it was not made
                    break
            self._wait_for_quiet()
            try:
                answer = self._model.ask(question)
            except ModelUnavailable as error:
                told = str(error)
                self.release(key)
                pause = self._pause(attempt, error.after_seconds)
                if self._ledger.is_late or time.monotonic() + pause - began > self._patience_seconds:
                    told += f"; asked again for {time.monotonic() - began:.0f} s"
                    break
                self._leave_alone(pause, told)
            except ModelFailed as error:
                told = str(error)
                if error.is_free:
                    self.release(key)
                break
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                break
            else:
                self.trouble = ""
                return self.settle(answer, key, attempt, began)
        return ModelReply(error=told, attempts=attempt, seconds=round(time.monotonic() - began, 3))

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closed.set()

    def settle(self, answer: Answer, key: str, attempts: int, began: float) -> ModelReply:
        """What was answered, once what the request has taken is counted."""
        money = 0
        if self._meter is not None and answer.tokens:
            money = self._meter.settle_tokens(
                key, answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.cache_written_tokens
            )
        return ModelReply(
            text=answer.text,
            tokens=answer.tokens,
            money=money / UNIT,
            attempts=attempts,
            seconds=round(time.monotonic() - began, 3),
        )

    def release(self, key: str) -> None:
        """A request did not leave, or was answered with an error."""
        if self._meter is not None:
            self._meter.release(key)

    # --- pauses

    def _pause(self, attempt: int, named: float) -> float:
        """Seconds before the next attempt."""
        doubled = self._backoff_seconds * 2.0 ** min(attempt - 1, 30)
        return named or min(doubled, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)

    def _leave_alone(self, seconds: float, why: str) -> None:
        with self._lock:
            self._quiet_until, self.trouble = max(self._quiet_until, time.monotonic() + seconds), why

    def _wait_for_quiet(self) -> None:
        while (left := self._quiet_until - time.monotonic()) > 0 and not self._closed.wait(left):
            pass

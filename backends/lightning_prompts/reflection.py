"""Reflection: questions to the reflecting model, asked side by side, charged, kept, and asked only once.

A model that gives nothing usable several times in a row ends the search: what it costs to go on buys nothing.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from lightning_prompts.asking import Asker, ReflectingModel, start_thread
from lightning_prompts.ending import SearchEnd, Why
from lightning_prompts.journal import Journal, ModelReply, ReplyKey
from lightning_prompts.ledger import Ledger

MOST_FAILURES = 5
"""Unusable replies in a row that end the search."""
_MOST_AT_ONCE = 8
_WAIT_SECONDS = 0.5
_SLOW_SECONDS = 60.0
"""After this time without a reply the user is told what is being waited for."""
CHECK: ReplyKey = ("check", 0)
"""The call that finds out before the search whether the model answers."""
_PROMPT_LETTERS_PER_TOKEN = 2
"""Few, so that a question is not taken to be shorter than it is."""


class Question(NamedTuple):
    """A question under way."""

    key: ReplyKey
    most: int
    """Tokens that it may cost."""
    future: Future[ModelReply]


class Reflector:
    """Asks the reflecting model of one search."""

    def __init__(
        self,
        model: ReflectingModel,
        journal: Journal,
        ledger: Ledger,
        asker: Asker | None = None,
        slow_seconds: float = _SLOW_SECONDS,
    ) -> None:
        self._model, self._journal, self._ledger = model, journal, ledger
        self._asker = asker or Asker(model, ledger)
        self._slow_seconds, self._told_slow = slow_seconds, False
        self._asked: Counter[str] = Counter()
        self._turns, self._closed = threading.BoundedSemaphore(_MOST_AT_ONCE), False
        self._under_way: list[Question] = []
        self.on_wait: Callable[[], None] = lambda: None
        """Called now and then while a reply is waited for; what it raises rises."""
        self.on_slow: Callable[[str], None] = lambda _: None
        """Called once, with words for the user, if a reply takes long."""
        self._unusable: list[str] = []
        """Why each of the last replies in a row could not be used."""
        self.proposals = 0
        """Replies with a text that was worth trying."""

    def charge_check(self) -> None:
        """Charge the call that checked the model before the search, if there was one."""
        if (reply := self._journal.replies.get(CHECK)) is not None:
            self._ledger.charge_reflection(reply.attempts, reply.tokens, reply.money)

    def begin(self, text: str) -> Question:
        """Ask, and go on: others can be asked meanwhile. SearchEnd if what may be spent does not allow it."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        key = (digest, self._asked[digest])
        most = len(text) // _PROMPT_LETTERS_PER_TOKEN + self._model.reply_tokens
        self._ledger.refuse_reflections(len(self._under_way) + 1, sum(each.most for each in self._under_way) + most)
        self._asked[digest] += 1
        question = Question(key, most, self._read_reply(key) or self._submit(key, text))
        self._under_way.append(question)
        return question

    def end(self, question: Question) -> str:
        """The reply; '' if there is none.

        Raises:
            SearchEnd: this was one unusable reply too many.
        """
        reply = self._charge(question)
        if not reply.text.strip():
            self.note_unusable(reply.error or "it said nothing")
            return ""
        return reply.text

    def note_unusable(self, why: str) -> None:
        """A reply led to nothing. SearchEnd if that was so too often in a row."""
        self._unusable.append(why)
        if len(self._unusable) >= MOST_FAILURES:
            raise SearchEnd(
                Why.REFLECTION,
                f"the reflecting model gave nothing usable {len(self._unusable)} times in a row: {self.failures}",
            )

    @property
    def failures(self) -> str:
        """Why the last replies in a row could not be used; '' if the last one could."""
        return "; ".join(f"{count} x {why}" for why, count in Counter(self._unusable).items())

    def note_usable(self) -> None:
        """A reply led to a candidate."""
        self._unusable.clear()
        self.proposals += 1

    def settle(self) -> None:
        """Wait for what is under way and charge it: nobody will come back for it."""
        for question in list(self._under_way):
            self._charge(question)

    def close(self) -> None:
        """What is under way is not waited for."""
        self._closed = True
        self._asker.close()

    def _charge(self, question: Question) -> ModelReply:
        began = time.monotonic()
        while not question.future.done():
            self.on_wait()
            concurrent.futures.wait([question.future], _WAIT_SECONDS)
            if not self._told_slow and time.monotonic() - began > self._slow_seconds:
                self._told_slow = True
                why = f" ({self._asker.trouble})" if self._asker.trouble else ""
                self.on_slow(f"the reflecting model has not answered for {self._slow_seconds:g} s{why}; waiting for it")
        reply = question.future.result()
        self._under_way.remove(question)
        self._ledger.charge_reflection(reply.attempts, reply.tokens, reply.money)
        return reply

    def _read_reply(self, key: ReplyKey) -> Future[ModelReply] | None:
        if (reply := self._journal.replies.get(key)) is None:
            return None
        future: Future[ModelReply] = Future()
        future.set_result(reply)
        return future

    def _submit(self, key: ReplyKey, text: str) -> Future[ModelReply]:
        self._ledger.refuse_late()
        reserved, why = self._asker.reserve(text)
        if why:
            raise SearchEnd(Why.BUDGET, why)
        allowed = self._ledger.allowance.calls
        left = allowed - self._ledger.spent.calls - len(self._under_way) if allowed else None

        def answer() -> ModelReply:
            with self._turns:
                if self._closed:
                    self._asker.release(reserved)
                    return ModelReply(error="the search ended")
                reply = self._asker.ask(text, reserved, left)
                self._journal.add_reply(key, reply, text)
                return reply

        return start_thread(answer)

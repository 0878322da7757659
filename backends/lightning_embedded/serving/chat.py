"""Chat: turns OpenAI messages into token ids, with a memory of the ids that were sampled.

The same text has many tokenizations, and a model may sample any of them. A prompt that continues an earlier one of its
rollout therefore begins with the earlier ids, and only the rest is tokenized. Rollouts of one task often contain the
same text in different ids, so each rollout has its own memory.
"""

from __future__ import annotations

import logging
import re
import threading
from array import array
from collections import OrderedDict
from hashlib import blake2b
from typing import Any

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.text.chat_template import Template
from lightning_embedded.text.growing_text import Decode
from lightning_embedded.text.tool_format import ToolFormat

log = logging.getLogger(__name__)


class Chat:
    """One tokenizer's side of a conversation. Thread-safe.

    Args:
        tokenizer: with a chat template, or `Chat.prompt` raises ValueError.
        decode: the engine's decoder of ids, which knows the ids that end a completion.
        memory_tokens: ids remembered for prompts that continue earlier ones; the oldest go first.
    """

    def __init__(self, tokenizer: Any, decode: Decode, *, memory_tokens: int = 4_000_000) -> None:
        self.tokenizer = tokenizer
        self.decode = decode
        self.template = Template.of(tokenizer) if tokenizer.chat_template else None
        ends = tuple(map(decode.token, sorted(decode.ends)))
        self.tools = ToolFormat(self.template, ends) if self.template is not None else None
        self._memory = _Memory(decode, memory_tokens)
        self._constraints: Constraints | None = None
        self._said = False

    def constraints(self, vocabulary: int) -> Constraints:
        """The constraints for a model with this many ids, created once."""
        if self._constraints is None:
            self._constraints = Constraints(self.tokenizer, vocabulary, sorted(self.decode.ends), self.tools)
        return self._constraints

    def prompt(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        options: dict[str, Any] | None = None,
        *,
        rollout: str = "",
    ) -> tuple[str, list[int]]:
        """Text and ids of the prompt. TemplateRefused if the template cannot render the messages.

        Args:
            rollout: Id of the rollout; '' for requests outside of any, which share one memory.
        """
        if self.template is None:
            raise ValueError("this model's tokenizer has no chat template; use /v1/completions")
        text = self.template.render(messages, tools, options)
        ids, done = self._memory.find(rollout, text)
        end = self._memory.ending(text, done)
        if end:
            # The end mark is always a single id; with it, the rest is tokenized as it would be in place.
            more = self.encode(text[done - len(end) :])
            if len(more) and self.decode.token(more[0]) == end:
                return text, ids + more[1:]
            ids, done = [], 0
        return text, ids + self.encode(text[done:])

    def reasoning(self, effort: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Options of the template, with the reasoning effort if the template supports it."""
        if effort is None or self.template is None:
            return options
        words = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
        known = {name: value for name, value in words.items() if name in self.template.asks}
        if not known and effort != "none" and not self._said:
            self._said = True
            log.warning("reasoning_effort=%r has no effect: this model's chat template does not support it", effort)
        return {**known, **options}

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of a text; with `special`, including the special tokens around a document."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return list(self.tokenizer.encode(text, add_special_tokens=special))
        ids: list[int] = backend.encode(text, add_special_tokens=special).ids
        return ids

    def remember(self, text: str, prompt: list[int], completion: list[int], *, rollout: str = "") -> None:
        """Remember the ids of a prompt with this text, and of the completion that was sampled after it."""
        if completion:
            self._memory.add(rollout, text + self.decode(completion), prompt + completion)


class _Memory:
    """Rendered text of a rollout -> its ids, found by digests of the text's prefixes that end at an end mark."""

    def __init__(self, decode: Decode, tokens: int) -> None:
        self._marks = sorted({decode.token(token) for token in decode.ends} - {""}, key=len, reverse=True)
        self._boundary = re.compile("|".join(map(re.escape, self._marks)) or r"\Z")
        self._room = tokens
        self._held = 0
        self._entries: OrderedDict[bytes, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, rollout: str, text: str, ids: list[int]) -> None:
        digest = _begin_digest(rollout)
        digest.update(text.encode("utf-8", "surrogatepass"))
        key = digest.digest()
        with self._lock:
            old = self._entries.pop(key, None)
            self._held += len(ids) - (len(old) if old else 0)
            self._entries[key] = array("i", ids)
            while self._held > self._room and self._entries:
                self._held -= len(self._entries.popitem(last=False)[1])

    def find(self, rollout: str, text: str) -> tuple[list[int], int]:
        """Ids of the longest remembered prefix of `text`, and its length in characters."""
        if not self._entries:
            return [], 0
        digest, at = _begin_digest(rollout), 0
        keys: list[tuple[int, bytes]] = []
        for mark in self._boundary.finditer(text):
            for end in mark.span():  # before the mark: completions that were cut by max_tokens
                digest.update(text[at:end].encode("utf-8", "surrogatepass"))
                at = end
                keys.append((end, digest.digest()))
        with self._lock:
            for end, key in reversed(keys):
                ids = self._entries.get(key)
                if ids is not None:
                    self._entries.move_to_end(key)
                    return ids.tolist(), end
        return [], 0

    def ending(self, text: str, end: int) -> str:
        """The end mark that text[:end] ends with, or ''."""
        return next((mark for mark in self._marks if end and text.endswith(mark, 0, end)), "")


def _begin_digest(rollout: str) -> blake2b:
    """A digest to which a rollout's text is added; keyed, so that no two rollouts share one."""
    return blake2b(digest_size=16, key=blake2b(rollout.encode("utf-8", "surrogatepass"), digest_size=32).digest())

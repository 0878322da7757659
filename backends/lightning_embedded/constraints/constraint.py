"""Constraints of one model: which tokens may come next, for both the engine and the learner.

The mask of a token depends only on the constraint and on the ids sampled before it under the constraint. So the learner
can recompute the engine's masks from a row, and no masks are sent.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_embedded.constraints.grammar import grammar_of
from lightning_embedded.constraints.json_schema import GrammarError
from lightning_embedded.text.tool_format import ToolFormat
from lightning_sdk.errors import LightningError

log = logging.getLogger(__name__)

#: Number of cached grammars: agents keep sending the same few.
_KEPT = 256


class Constraint:
    """The state of one completion in its grammar."""

    __slots__ = ("_bytes", "_matcher", "_said")

    def __init__(self, matcher: Any, width: int) -> None:
        self._matcher, self._bytes, self._said = matcher, 4 * width, False

    def fill(self, bits: NDArray[np.int32]) -> None:
        """Write which ids may come next, one bit each, beginning with the lowest bit of each number."""
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, self._bytes)
        if self._matcher.is_error() and not self._said:  # from here on only the end is allowed
            self._said = True
            log.warning("a constrained completion ends early: %s", self._matcher.get_error().partition("\n")[0])

    def accept(self, token: int) -> bool:
        """Advance past a token. False if it was not allowed."""
        return bool(self._matcher.consume_token(token))


class Constraints:
    """Creates constraints for one model. Thread-safe, but the constraints are not.

    Args:
        tokenizer: The model's.
        vocabulary: Number of ids.
        ends: Ids that may end a completion once its grammar is satisfied.
        tools: How the model writes calls.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Sequence[int], tools: ToolFormat | None) -> None:
        self._tokenizer, self._ends, self._tools = tokenizer, list(ends), tools
        self.vocabulary = vocabulary
        self.width = -(-vocabulary // 32)
        """Number of 32-bit integers in one mask."""
        self._marks = {text: int(token) for text, token in tokenizer.get_added_vocab().items()}
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._ready: Any = None

    def grammar(self, constraint: str) -> str:
        """The grammar of a constraint. GrammarError if it is not supported, or its schema is invalid."""
        from llguidance import LLMatcher  # noqa: PLC0415 - only constrained calls wait for it

        spelling, form = (self._tools.spelling, self._tools.name) if self._tools is not None else (None, "none")
        grammar = grammar_of(constraint, spelling, form, self._marks)
        if problem := LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar)):
            raise _unkept(problem, grammar)
        return grammar

    def start(self, constraint: str) -> Constraint:
        """The constraint at the beginning of a completion. GrammarError as in `grammar`."""
        with self._lock:
            matcher = self._kept.pop(constraint, None)
            if matcher is None:
                matcher = self._matcher(self.grammar(constraint))
            self._kept[constraint] = matcher
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return Constraint(matcher.deep_copy(), self.width)

    def masks(self, constraint: str, ids: Sequence[int]) -> Iterator[NDArray[np.int32]]:
        """[width] the mask under which each of a completion's ids was drawn, in an array that is reused.

        LightningError if an id was not allowed, because it was not drawn under this constraint.
        """
        begun, bits = self.start(constraint), np.zeros(self.width, np.int32)
        for place, token in enumerate(ids):
            begun.fill(bits)
            yield bits
            if not bits[token >> 5] >> (token & 31) & 1:
                raise LightningError(
                    f"sampled token {place} (id {token}) is not allowed by the constraint {constraint[:200]}: it was "
                    "sampled by an engine that applies constraints differently"
                )
            begun.accept(token)

    def _matcher(self, grammar: str) -> Any:
        from llguidance import LLMatcher, LLTokenizer  # noqa: PLC0415 - as above

        if self._ready is None:
            self._ready = LLTokenizer(_to_json(self._tokenizer), self.vocabulary, self._ends)
        matcher = LLMatcher(self._ready, LLMatcher.grammar_from_lark(grammar))
        if problem := matcher.get_error():
            raise _unkept(problem, grammar)
        return matcher


def forbidden(bits: Tensor, vocabulary: int) -> Tensor:
    """[K, width] int32 masks -> [K, vocabulary] bool, True where an id may not come."""
    powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=bits.device)
    return ((bits.view(torch.uint8)[..., None] & powers) == 0).flatten(1)[:, :vocabulary]


def _to_json(tokenizer: Any) -> str:
    """A tokenizer as JSON. GrammarError if it is not from the library `tokenizers`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise GrammarError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, whose tokens a grammar needs as bytes: take a model "
            "with a tokenizer.json, or leave response_format out",
            "response_format",
        )
    copied = type(backend).from_str(backend.to_str())
    copied.no_padding()
    copied.no_truncation()
    return str(copied.to_str())


def _unkept(problem: str, grammar: str) -> GrammarError:
    why = problem.partition("\n")[0].split(": ", 1)[-1]
    param = "response_format" if "\nanswer: " in grammar else "tools"
    return GrammarError(f"{param} is not supported: {why}", param)

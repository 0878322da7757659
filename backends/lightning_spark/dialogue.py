"""A generated dialogue, and the system prompts with which it may start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lightning_spark.chat import Message, render

WORDS = (
    "you", "are", "a", "the", "helpful", "assistant", "agent", "solver", "writer", "checker", "that", "use",
    "tool", "calculator", "then", "answer", "question", "task", "number", "short", "only", "with", "in", "tags",
    "result", "final", "think", "first", "be", "careful", "exact", "please", "always", "user", "will", "ask",
    "to", "of", "for", "and", "arithmetic", "maths", "problem", "step", "by", "call", "write", "give", "reply",
    "query", "data", "table", "expert", "team", "one",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A complete conversation for training."""

    messages: tuple[Message, ...]
    tools: tuple[Message, ...] = ()
    question: str = ""
    expressions: tuple[str, ...] = ()
    """Every arithmetic expression that occurs in it."""

    def text(self) -> str:
        """The dialogue in the chat format."""
        return render(self.messages, self.tools)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(rng: Random, prompts: Sequence[str]) -> list[Message]:
    """No system message, one of `prompts`, or random words, so that agents' own prompts do not confuse the model."""
    chance = rng.random()
    if chance < 0.35:
        return []
    if chance < 0.8:
        return [{"role": "system", "content": rng.choice(prompts)}]
    return [{"role": "system", "content": _babble(rng)}]


def _babble(rng: Random) -> str:
    sentences = [" ".join(rng.choices(WORDS, k=rng.randint(2, 8))).capitalize() for _ in range(rng.randint(1, 3))]
    return rng.choice((" ", "\n")).join(sentence + "." for sentence in sentences)

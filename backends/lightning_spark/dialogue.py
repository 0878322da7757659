"""A generated dialogue."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_spark.chat import Message, render


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A complete conversation for training."""

    messages: tuple[Message, ...]
    tools: tuple[Message, ...] = ()
    question: str = ""
    expressions: tuple[str, ...] = ()
    """Every arithmetic expression that occurs in it."""
    keys: tuple[str, ...] = ()
    """What is asked in it, whatever the words."""
    given: int = 0
    """How many of the assistant's turns, from the start, are only read and not learned."""

    def text(self) -> str:
        """The dialogue in the chat format."""
        return render(self.messages, self.tools)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}

"""Proposals without a large model: a function that adds sentences of a list to a text, or removes one, at random.

It stands in for a reflecting model where there is none. It knows common sentences of instructions, some of them useful
here and some not, and learns nothing from the examples that it is shown: which texts are better is found out by the
search alone, by running the agent.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

SENTENCES = (
    "Use the tool first.",
    "Do not use the tool.",
    "Be brief.",
    "Be polite.",
    "Only free rooms.",
    "The room needs enough seats.",
    "With what is needed.",
    "Name the smallest room.",
    "Name the largest room.",
    "Name the first room.",
    "Say none if no room fits.",
    "Explain your choice.",
)
_TEXT = re.compile(r"<instruction>\n(.*?)\n</instruction>", re.DOTALL)


def propose(draw: random.Random, text: str) -> str:
    """The text with one sentence less, or up to three more."""
    present = [sentence for sentence in SENTENCES if sentence in text]
    absent = [sentence for sentence in SENTENCES if sentence not in text]
    if present and draw.random() < 0.25:
        return " ".join(text.replace(draw.choice(present), "").split())
    return " ".join([text, *draw.sample(absent, min(draw.randint(1, 3), len(absent)))])


def make_reflector(seed: int) -> Callable[[str], str]:
    """A reflecting model whose proposals follow from the seed and the question."""

    def reflect(question: str) -> str:
        found = _TEXT.search(question)
        text = propose(random.Random(f"{seed} {question}"), found[1] if found else "")
        return f"<instruction>\n{text}\n</instruction>"

    return reflect

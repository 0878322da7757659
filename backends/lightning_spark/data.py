"""The pre-training data: a stream of dialogues without held-out tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random

from lightning_spark.dialogue import Dialogue, assistant, user
from lightning_spark.frames import put_in_frame
from lightning_spark.held_out import Exclusion
from lightning_spark.instructions import draw
from lightning_spark.skills import (
    arithmetic,
    checking,
    databases,
    item,
    numbers,
    rooms,
    single_table,
    texts,
    tools,
    words,
)

SMALL_TALK = (
    ("Hello!", "Hello! Ask me something small."),
    ("Hi", "Hello! Ask me something small."),
    ("Who are you?", "I am spark, a very small language model."),
    ("What is your name?", "I am spark, a very small language model."),
    ("What can you do?", "I calculate with a tool, write small SQL queries and answer short questions."),
    ("Thank you!", "You are welcome."),
    ("Tell me a story.", "I only know a little."),
    ("What is the capital of France?", "I only know a little."),
)
SAMPLE = 1000
"""Number of dialogues at the start whose fingerprint is logged separately, since it is cheap to reproduce."""
CHUNK = 2000
"""Dialogues that are made from one seed, so that the number of processes changes nothing."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A dialogue as text."""

    text: str
    given: int
    """How many of the assistant's turns, from the start, are only read and not learned."""


def dialogues(seed: int | str, excluded: Exclusion) -> Iterator[Dialogue]:
    """Endless dialogues, the same for the same seed, without held-out tasks."""
    rng = Random(seed)
    kinds, shares = list(SHARES), list(SHARES.values())
    while True:
        made = rng.choices(kinds, shares)[0](rng)
        if not excluded.has(made.question, made.expressions, made.keys):
            yield made


def chunks(count: int, seed: int) -> list[tuple[str, int]]:
    """Seed and size of each chunk of `count` dialogues."""
    return [(f"{seed}/{index}", min(CHUNK, count - start)) for index, start in enumerate(range(0, count, CHUNK))]


def chunk(seed: str, size: int, excluded: Exclusion) -> list[Rendered]:
    """The dialogues of one chunk."""
    return [Rendered(made.text(), made.given) for made in islice(dialogues(seed, excluded), size)]


def fingerprint(made: Iterable[Rendered]) -> str:
    """SHA-256 of the concatenated texts, for the training log."""
    digest = hashlib.sha256()
    for each in made:
        digest.update(f"{each.text}{each.given}".encode())
    return digest.hexdigest()


def _talk(rng: Random) -> Dialogue:
    asked, reply = rng.choice(SMALL_TALK)
    system, question = put_in_frame(rng, draw(rng, "answer").text, asked)
    return Dialogue(messages=(*system, user(question), assistant(reply)))


def _of(items: Mapping[Callable[[Random], item.Item], float]) -> Callable[[Random], Dialogue]:
    kinds, shares = list(items), list(items.values())
    return lambda rng: item.dialogue(rng, rng.choices(kinds, shares)[0](rng))


DRILLED: dict[Callable[[Random], item.Item], float] = {
    numbers.sum_: 5.0, numbers.product: 3.0, numbers.gcd: 3.0, numbers.base: 3.0, numbers.legs: 2.0,
    numbers.countdown: 3.0, numbers.sorting: 1.5, numbers.comparison: 1.0, numbers.larger: 0.6, words.letters: 2.5,
    words.backward: 3.0, words.spelling: 2.0, words.order: 1.0, texts.lookup: 1.5, texts.membership: 0.5,
    checking.check: 1.0,
}  # fmt: skip
"""What has to be worked out, and takes more practice than its share of the questions gives."""


def _drill(rng: Random) -> Dialogue:
    return item.drill(rng, rng.choices(list(DRILLED), list(DRILLED.values()))[0])


SHARES: dict[Callable[[Random], Dialogue], float] = {
    arithmetic.dialogue: 0.16,
    single_table.dialogue: 0.03,
    databases.dialogue: 0.13,
    rooms.selector: 0.11,
    rooms.planner: 0.04,
    tools.dialogue: 0.05,
    tools.handoff: 0.03,
    _of(numbers.ITEMS): 0.16,
    _of(words.ITEMS): 0.09,
    _of(texts.ITEMS): 0.08,
    _of(checking.ITEMS): 0.03,
    _drill: 0.1,
    _talk: 0.01,
}
"""Kind of dialogue -> its share."""

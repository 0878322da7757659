"""The pre-training data: a stream of dialogues without held-out tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from multiprocessing import get_context
from random import Random

from lightning_spark import arithmetic, sql
from lightning_spark.dialogue import Dialogue, assistant, system, user
from lightning_spark.held_out import Exclusion

SQL, TALK = 0.22, 0.02
"""Shares of the dialogues; the rest is arithmetic."""
SMALL_TALK = (
    ("Hello!", "Hello! Ask me some arithmetic."),
    ("Hi", "Hello! Ask me some arithmetic."),
    ("Who are you?", "I am spark, a very small language model."),
    ("What is your name?", "I am spark, a very small language model."),
    ("What can you do?", "I calculate with a tool and write small SQL queries."),
    ("Thank you!", "You are welcome."),
    ("Tell me a story.", "I only know arithmetic and a little SQL."),
    ("What is the capital of France?", "I only know arithmetic and a little SQL."),
)
SAMPLE = 1000
"""Number of dialogues at the start whose fingerprint is logged separately, since it is cheap to reproduce."""
_CHUNK = 2000


def dialogues(seed: int | str, excluded: Exclusion) -> Iterator[Dialogue]:
    """Endless dialogues, the same for the same seed, without held-out tasks."""
    rng = Random(seed)
    while True:
        made = _dialogue(rng)
        if not excluded.has(made.question, made.expressions):
            yield made


def texts(count: int, seed: int, excluded: Exclusion, workers: int = 1) -> list[str]:
    """`count` dialogues in the chat format. Each chunk has its own seed, so the number of workers changes nothing."""
    sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    jobs = [(f"{seed}/{index}", size, excluded) for index, size in enumerate(sizes)]
    if workers == 1:
        return [text for job in jobs for text in _chunk(job)]
    with get_context("spawn").Pool(workers) as pool:
        return [text for chunk in pool.imap(_chunk, jobs) for text in chunk]


def fingerprint(made: Iterable[str]) -> str:
    """SHA-256 of the concatenated texts, for the training log."""
    digest = hashlib.sha256()
    for text in made:
        digest.update(text.encode())
    return digest.hexdigest()


def _chunk(job: tuple[str, int, Exclusion]) -> list[str]:
    seed, size, excluded = job
    return [made.text() for made in islice(dialogues(seed, excluded), size)]


def _dialogue(rng: Random) -> Dialogue:
    chance = rng.random()
    if chance < SQL:
        return sql.dialogue(rng)
    if chance < SQL + TALK:
        asked, reply = rng.choice(SMALL_TALK)
        return Dialogue((*system(rng, arithmetic.PROMPTS), user(asked), assistant(reply)))
    return arithmetic.dialogue(rng)

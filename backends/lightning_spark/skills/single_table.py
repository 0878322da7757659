"""Dialogues that ask for one SQL query about one table, with right, wrong and refused replies."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from lightning_spark.chat import Message
from lightning_spark.dialogue import Dialogue, assistant, user
from lightning_spark.instructions import neutral
from lightning_spark.vocabulary import one_of

REFUSED, RIGHT = 0.62, 0.26
"""Shares of first replies; the rest are wrong queries."""
PROMPTS = (
    "Write one SQL query.",
    "[You are the clerk.|You are the writer.]",
    "Write SQL.",
    "Answer with one SQL query and nothing else.",
    "You are a helpful assistant.",
    "You write SQL for SQLite.",
)
TABLES = ("users", "orders", "cities", "books", "films", "cars", "shops", "staff", "pets", "songs", "games", "trips")
NUMBERS = ("id", "age", "price", "year", "pages", "rank", "speed", "weight", "score", "size", "stock", "salary")
TEXTS = ("name", "city", "color", "genre", "owner", "title", "brand", "country")
VALUES = ("Paris", "Rome", "Oslo", "red", "blue", "green", "Anna", "Tom")
COMPARISONS = ((">", "over"), ("<", "under"), ("=", "equal to"))


@dataclass(frozen=True, slots=True)
class Query:
    """A question about one table and the query that answers it."""

    table: str
    columns: tuple[str, ...]
    request: str
    sql: str

    def question(self) -> str:
        """The user's message: the table's signature, a newline, the request."""
        return f"{self.table}({', '.join(self.columns)})\n{self.request}"


def query(rng: Random) -> Query:
    """A random question and its query."""
    numbers, texts = rng.sample(NUMBERS, rng.randint(2, 3)), rng.sample(TEXTS, rng.randint(1, 2))
    columns = [*numbers, *texts]
    rng.shuffle(columns)
    table, shown = rng.choice(TABLES), rng.choice(columns)
    number, text, value = rng.choice(numbers), rng.choice(texts), rng.choice(VALUES)
    bound, count = rng.randint(5, 95), rng.choice((3, 5))
    sign, word = rng.choice(COMPARISONS)
    most = rng.random() < 0.5
    request, sql = rng.choice(
        (
            (f"list {shown} where {number} is {word} {bound}",
             f"SELECT {shown} FROM {table} WHERE {number} {sign} {bound}"),
            (f"show {shown} of rows with {text} {value}",
             f"SELECT {shown} FROM {table} WHERE {text} = '{value}'"),
            (f"how many rows have {number} {word} {bound}",
             f"SELECT COUNT(*) FROM {table} WHERE {number} {sign} {bound}"),
            (f"how many rows have {text} {value}",
             f"SELECT COUNT(*) FROM {table} WHERE {text} = '{value}'"),
            (f"{'largest' if most else 'smallest'} {number}",
             f"SELECT {'MAX' if most else 'MIN'}({number}) FROM {table}"),
            (f"average {number} where {text} is {value}",
             f"SELECT AVG({number}) FROM {table} WHERE {text} = '{value}'"),
            (f"{shown} of the {count} rows with the {'highest' if most else 'lowest'} {number}",
             f"SELECT {shown} FROM {table} ORDER BY {number}{' DESC' if most else ''} LIMIT {count}"),
        )
    )  # fmt: skip
    return Query(table, tuple(columns), request, sql)


def dialogue(rng: Random) -> Dialogue:
    """One reply to a question; if it is wrong or refused, sometimes a complaint and a second try."""
    asked = query(rng)
    chance = rng.random()
    right = REFUSED <= chance < REFUSED + RIGHT
    first = "I do not know." if chance < REFUSED else asked.sql if right else _spoil(rng, asked)
    messages: list[Message] = [*_system(rng), user(asked.question()), assistant(first)]
    if not right and rng.random() < 0.3:
        complaint = rng.choice(("That is wrong. Try again.", "error", "Wrong result. Write the query again."))
        second = asked.sql if rng.random() < 0.5 else _spoil(rng, asked)
        messages += [user(complaint), assistant(second)]
    return Dialogue(messages=tuple(messages), question=asked.question())


def _system(rng: Random) -> list[Message]:
    """What an agent may say about SQL without helping: this kind of question is answered as badly with it."""
    text = one_of(rng, PROMPTS) if rng.random() < 0.5 else neutral(rng).text
    return [{"role": "system", "content": text}] if text else []


def _spoil(rng: Random, asked: Query) -> str:
    """The query with one mistake."""
    sql, chance = asked.sql, rng.random()
    if chance < 0.4:
        used = [column for column in asked.columns if f" {column}" in sql or f"({column}" in sql]
        wrong = rng.choice(used)
        return sql.replace(wrong, rng.choice([column for column in asked.columns if column != wrong]))
    if chance < 0.6:
        return sql.split(" WHERE ")[0].split(" LIMIT ")[0]
    if chance < 0.8:
        return sql.replace(f"FROM {asked.table}", f"FROM {rng.choice([t for t in TABLES if t != asked.table])}")
    return f"SELECT {', '.join(asked.columns)} FROM {asked.table}"

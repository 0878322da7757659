"""Questions about the databases at four levels, each with a query that answers it."""

from __future__ import annotations

import random
from collections.abc import Callable

import execution
from databases import DATABASES, HELD_OUT, TRAINING, Database, Table, instances

Question = tuple[str, str]
"""The request in words, and the query."""
AGGREGATES = {"average": "AVG", "largest": "MAX", "smallest": "MIN", "total": "SUM"}
SIGNS = {"over": ">", "under": "<"}


def _equal(draw: random.Random, table: Table) -> tuple[str, str]:
    """A condition on the words of a table: in words, in SQL."""
    value = draw.choice(table.values[table.kind])
    return f"{table.kind} {value}", f"{table.kind} = '{value}'"


def _limit(draw: random.Random, table: Table) -> tuple[str, str]:
    """A condition on the numbers of a table: in words, in SQL."""
    numbers = table.values[table.number]
    assert isinstance(numbers, range)
    quarter = len(numbers) // 4
    word, bound = draw.choice(list(SIGNS)), draw.choice(numbers[quarter : len(numbers) - quarter])
    return f"{table.number} {word} {bound}", f"{table.number} {SIGNS[word]} {bound}"


def easy(draw: random.Random, database: Database) -> Question:
    """Some column of one table, perhaps where something holds."""
    table = draw.choice([database.parent, database.child])
    verb, condition = draw.choice(["list", "show"]), draw.choice([None, _equal, _limit])
    shown = draw.choice([table.label, table.number if condition is _equal else table.kind])
    if condition is None:
        return f"{verb} the {shown} of {table.name}", f"SELECT {shown} FROM {table.name}"
    words, where = condition(draw, table)
    return f"{verb} the {shown} of {table.name} with {words}", f"SELECT {shown} FROM {table.name} WHERE {where}"


def medium(draw: random.Random, database: Database) -> Question:
    """A number worked out from the rows of one table, or its first rows."""
    table = draw.choice([database.parent, database.child])
    name, number = table.name, table.number
    (words, where), (equal, is_equal) = draw.choice([_equal, _limit])(draw, table), _equal(draw, table)
    word, function = draw.choice(list(AGGREGATES.items()))
    count, end = draw.randint(2, 4), draw.choice(["highest", "lowest"])
    order = f"{number} DESC" if end == "highest" else number
    return draw.choice(
        [
            (f"how many {name} have {words}", f"SELECT COUNT(*) FROM {name} WHERE {where}"),
            (f"what is the {word} {number} of {name}", f"SELECT {function}({number}) FROM {name}"),
            (
                f"what is the {word} {number} of {name} with {equal}",
                f"SELECT {function}({number}) FROM {name} WHERE {is_equal}",
            ),
            (
                f"{table.label} of the {count} {name} with the {end} {number}",
                f"SELECT {table.label} FROM {name} ORDER BY {order} LIMIT {count}",
            ),
        ]
    )


def hard(draw: random.Random, database: Database) -> Question:
    """Groups, different values, two conditions."""
    table = draw.choice([database.parent, database.child])
    name, kind, label = table.name, table.kind, table.label
    (equal, is_equal), (bound, is_bound) = _equal(draw, table), _limit(draw, table)
    more = draw.randint(1, 2)
    return draw.choice(
        [
            (f"how many {name} for each {kind}", f"SELECT {kind}, COUNT(*) FROM {name} GROUP BY {kind}"),
            (f"different {kind} of {name}", f"SELECT DISTINCT {kind} FROM {name}"),
            (
                f"each {kind} with more than {more} {name}",
                f"SELECT {kind} FROM {name} GROUP BY {kind} HAVING COUNT(*) > {more}",
            ),
            (
                f"list the {label} of {name} with {equal} and {bound}",
                f"SELECT {label} FROM {name} WHERE {is_equal} AND {is_bound}",
            ),
        ]
    )


def extra(draw: random.Random, database: Database) -> Question:
    """Both tables, or a query inside the query."""
    parent, child = database.parent, database.child
    words, where = draw.choice([_equal, _limit])(draw, parent)
    table, shown = draw.choice([parent, child]), draw.choice([child.label, child.kind, child.number])
    joined = f"FROM {child.name} JOIN {parent.name} ON {child.name}.{database.key} = {parent.name}.id"
    label = f"{parent.name}.{parent.label}"
    return draw.choice(
        [
            (
                f"list the {shown} of {child.name} of {parent.name} with {words}",
                f"SELECT {child.name}.{shown} {joined} WHERE {parent.name}.{where}",
            ),
            (
                f"for each {parent.label} of {parent.name}, the number of {child.name}",
                f"SELECT {label}, COUNT(*) {joined} GROUP BY {label}",
            ),
            (
                f"list the {table.label} of {table.name} with {table.number} above the average",
                f"SELECT {table.label} FROM {table.name} "
                f"WHERE {table.number} > (SELECT AVG({table.number}) FROM {table.name})",
            ),
        ]
    )


LEVELS: dict[str, Callable[[random.Random, Database], Question]] = {
    "easy": easy,
    "medium": medium,
    "hard": hard,
    "extra": extra,
}


def tasks(seed: int, size: int, held_out: bool = False) -> list[dict]:
    """`size` different questions, a quarter of each level, about the training or the held-out databases.

    A question is kept only if its answer is nowhere empty, and not the same on every instance.
    """
    draw, names = random.Random(seed), list(HELD_OUT if held_out else TRAINING)
    found: dict[tuple[str, str], dict] = {}
    while len(found) < size:
        level, name = list(LEVELS)[len(found) % 4], draw.choice(names)
        request, query = LEVELS[level](draw, DATABASES[name])
        if (name, request) not in found and _tells_apart(name, query):
            found[name, request] = {
                "database": name,
                "schema": DATABASES[name].schema(),
                "request": request,
                "query": query,
                "level": level,
            }
    return list(found.values())


def load(name: str) -> list[dict]:
    """The tasks of `train` or `held_out`."""
    return tasks(900_000_000, 200, held_out=True) if name == "held_out" else tasks(1, 1200)


def _tells_apart(name: str, query: str) -> bool:
    results = [execution.run(path, query).rows for path in instances(name)]
    return all(results) and any(rows != results[0] for rows in results)

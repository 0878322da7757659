"""Questions about two random tables, at four levels, each with the query that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from lightning_spark.vocabulary import CITIES, COLORS, PEOPLE, WORDS, pseudo_word

HELD_OUT_WORDS = frozenset(
    "captain chef comet courier dish dishes parcel park pilot plane ship telescope tree acres base cargo district flights "
    "grams height maker minutes mirror orbit period rank rating seats site species status taste tons town trips vehicle "
    "voyages".split()
)
"""Never the name of a table or column: those of the databases that `examples/text_to_sql` holds out."""
_KEYWORDS = frozenset(("case", "group", "table", "value"))
"""Words that SQLite keeps for itself, here or in the plural."""
NOUNS = tuple(word for word in sorted({*WORDS} - HELD_OUT_WORDS - _KEYWORDS) if 3 <= len(word) <= 8)
LABELS = ("name", "name", "title", "title", "code", "label", "model")
KINDS = tuple(
    "city country color kind genre style type level state zone view soil season wing job subject position brand category "
    "language material shape region class grade size_class origin mode field_of_work team".split()
)
NUMBERS = tuple(
    "age price year pages weight length salary hours area beds points goals stars balance floors riders seconds members "
    "founded awards born size stock speed score amount cost width depth power volume duration capacity distance visits "
    "votes profit tonnes temperature unit_price total".split()
)
AGGREGATES = {"average": "AVG", "largest": "MAX", "smallest": "MIN", "total": "SUM"}
SIGNS = {"over": ">", "under": "<", "above": ">", "below": "<", "equal to": "=", "at least": ">="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table: its key, a column that names a row, a column of words, one of numbers, perhaps its parent's key."""

    name: str
    one: str
    label: str
    kind: str
    number: str
    values: tuple[str, ...]
    """Of the kind."""
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.columns)})"


@dataclass(frozen=True, slots=True)
class SqlQuestion:
    """A schema, a request and its query."""

    child: Table
    parent: Table
    request: str
    sql: str

    @property
    def tables(self) -> tuple[Table, Table]:
        return self.child, self.parent

    def text(self) -> str:
        """The user's message."""
        return f"Schema:\n{self.child}\n{self.parent}\nQuestion: {self.request}"


def question(rng: Random) -> SqlQuestion:
    """A question at one of four levels about two random tables."""
    parent = _table(rng, "")
    child = _table(rng, parent.one, parent.name)
    request, sql = rng.choices((_easy, _medium, _hard, _extra), (0.25, 0.27, 0.24, 0.24))[0](rng, child, parent)
    return SqlQuestion(child, parent, request + ("?" if rng.random() < 0.15 else ""), sql)


def _noun(rng: Random, longest: int = 9) -> str:
    return rng.choice(NOUNS) if rng.random() < 0.6 else pseudo_word(rng, rng.randint(3, longest))


def _table(rng: Random, parent: str, taken: str = "") -> Table:
    """A random table; with the singular of a parent, a child of it."""
    while True:
        one = _noun(rng)
        name = (
            {"s": f"{one}es", "h": f"{one}es", "x": f"{one}es"}.get(one[-1], f"{one}s") if rng.random() < 0.93 else one
        )
        if name != taken and one != parent:
            break
    label = rng.choice(LABELS)
    kind, number = (rng.choice(pool) if rng.random() < 0.55 else _noun(rng, 7) for pool in (KINDS, NUMBERS))
    while len({label, kind, number, "id"}) < 4 or {kind, number} & HELD_OUT_WORDS:
        kind, number = _noun(rng, 7), _noun(rng, 7)
    columns = ["id", label, kind, number]
    if rng.random() < 0.25:
        more = _noun(rng, 7)
        columns += [more] if more not in columns else []
    if rng.random() < 0.15:
        rest = columns[1:]
        rng.shuffle(rest)
        columns = ["id", *rest]
    values = rng.choice((CITIES, COLORS, PEOPLE, WORDS, ()))
    found = tuple(rng.sample(values, 3)) if values else tuple(pseudo_word(rng, rng.randint(3, 7)) for _ in range(3))
    columns += [f"{parent}_id"] if parent else []
    return Table(name=name, one=one, label=label, kind=kind, number=number, values=found, columns=tuple(columns))


def _word_condition(rng: Random, table: Table) -> tuple[str, str]:
    value = rng.choice(table.values)
    return rng.choice(
        (f"{table.kind} {value}", f"{table.kind} {value}", f"{table.kind} {value}")
    ), f"{table.kind} = '{value}'"


def _number_condition(rng: Random, table: Table) -> tuple[str, str]:
    word = rng.choice(("over", "under", *SIGNS))
    bound = rng.randint(1, 99) if rng.random() < 0.6 else rng.randint(100, 2020)
    return f"{table.number} {word} {bound}", f"{table.number} {SIGNS[word]} {bound}"


def _easy(rng: Random, child: Table, parent: Table) -> tuple[str, str]:
    table = rng.choice((child, parent))
    verb, shown = rng.choice(("list", "show")), rng.choice([column for column in table.columns if column != "id"])
    start = f"{verb} the {shown} of {table.name}"
    if rng.random() < 0.3:
        return start, f"SELECT {shown} FROM {table.name}"
    words, where = rng.choice((_word_condition, _number_condition))(rng, table)
    return f"{start} with {words}", f"SELECT {shown} FROM {table.name} WHERE {where}"


def _medium(rng: Random, child: Table, parent: Table) -> tuple[str, str]:
    table = rng.choice((child, parent))
    name, number = table.name, table.number
    (words, where), (equal, is_equal) = (
        rng.choice((_word_condition, _number_condition))(rng, table),
        _word_condition(rng, table),
    )
    word, function = rng.choice(list(AGGREGATES.items()))
    count, end = rng.randint(2, 5), rng.choice(("highest", "lowest"))
    order = f"{number} DESC" if end == "highest" else number
    return rng.choice(
        (
            (f"how many {name} have {words}", f"SELECT COUNT(*) FROM {name} WHERE {where}"),
            (f"how many {name} are there", f"SELECT COUNT(*) FROM {name}"),
            (f"what is the {word} {number} of {name}", f"SELECT {function}({number}) FROM {name}"),
            (
                f"what is the {word} {number} of {name} with {equal}",
                f"SELECT {function}({number}) FROM {name} WHERE {is_equal}",
            ),
            (
                f"{table.label} of the {count} {name} with the {end} {number}",
                f"SELECT {table.label} FROM {name} ORDER BY {order} LIMIT {count}",
            ),
        )
    )


def _hard(rng: Random, child: Table, parent: Table) -> tuple[str, str]:
    table = rng.choice((child, parent))
    name, kind, label = table.name, table.kind, table.label
    (equal, is_equal), (bound, is_bound) = _word_condition(rng, table), _number_condition(rng, table)
    more = rng.randint(1, 4)
    return rng.choice(
        (
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
        )
    )


def _extra(rng: Random, child: Table, parent: Table) -> tuple[str, str]:
    words, where = rng.choice((_word_condition, _number_condition))(rng, parent)
    table, shown = rng.choice((parent, child)), rng.choice((child.label, child.kind, child.number))
    joined = f"FROM {child.name} JOIN {parent.name} ON {child.name}.{parent.one}_id = {parent.name}.id"
    label, total = f"{parent.name}.{parent.label}", f"SUM({child.name}.{child.number})"
    return rng.choice(
        (
            (
                f"list the {shown} of {child.name} of {parent.name} with {words}",
                f"SELECT {child.name}.{shown} {joined} WHERE {parent.name}.{where}",
            ),
            (
                f"for each {parent.label} of {parent.name}, the number of {child.name}",
                f"SELECT {label}, COUNT(*) {joined} GROUP BY {label}",
            ),
            (
                f"for each {parent.label} of {parent.name}, the total {child.number} of {child.name}",
                f"SELECT {label}, {total} {joined} GROUP BY {label}",
            ),
            (
                f"list the {table.label} of {table.name} with {table.number} above the average",
                f"SELECT {table.label} FROM {table.name} WHERE {table.number} > (SELECT AVG({table.number}) FROM {table.name})",
            ),
            (
                f"list the {parent.label} of {parent.name} and the {child.number} of their {child.name}",
                f"SELECT {label}, {child.name}.{child.number} {joined}",
            ),
        )
    )

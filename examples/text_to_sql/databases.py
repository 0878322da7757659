"""Twenty small databases of two tables, and any number of instances of each, as real SQLite files.

The split is by database: no table of a held-out database occurs in a training task.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NAMES = ("Anna", "Ben", "Clara", "David", "Eva", "Felix", "Grace", "Henry", "Iris", "Jonas", "Kira", "Leo")
TITLES = (
    "Dawn",
    "Fox",
    "River",
    "Stone",
    "Amber",
    "Falcon",
    "Harvest",
    "Lantern",
    "Meadow",
    "Orchid",
    "Pearl",
    "Storm",
)
CODES = tuple(f"{letter}{number}" for letter in "ABCD" for number in range(1, 6))
CITIES = ("Paris", "Rome", "Oslo", "Lima", "Cairo")
COUNTRIES = ("Italy", "Norway", "Peru", "Japan", "Kenya")
COLORS = ("red", "blue", "green", "black")

Values = tuple[str, ...] | range
"""What a column holds: some of these words, or numbers of this range, each at most once."""


@dataclass(frozen=True)
class Table:
    """A table whose first column is its key, and whose second names a row."""

    name: str
    one: str
    """What a single row is called."""
    label: str
    """The column that names a row."""
    kind: str
    """A column of few different words."""
    number: str
    """A column of whole numbers."""
    values: Mapping[str, Values]
    """Label, kind and number -> what they hold."""

    def columns(self) -> list[str]:
        return ["id", self.label, self.kind, self.number]


@dataclass(frozen=True)
class Database:
    """A table, and a second one each of whose rows belongs to a row of the first."""

    parent: Table
    child: Table

    @property
    def key(self) -> str:
        """The child's column that holds its parent's id."""
        return f"{self.parent.one}_id"

    def columns(self, table: Table) -> list[str]:
        return [*table.columns(), self.key] if table is self.child else table.columns()

    def schema(self) -> str:
        """One line for each table: `pets(id, name, kind, weight, owner_id)`."""
        return "\n".join(f"{table.name}({', '.join(self.columns(table))})" for table in (self.child, self.parent))


def _table(name: str, one: str, label: str, kind: str, kinds: Values, number: str, numbers: range) -> Table:
    labels = {"name": NAMES, "code": CODES}.get(label, TITLES)
    return Table(name, one, label, kind, number, {label: labels, kind: kinds, number: numbers})


TRAINING = {
    "shelter": Database(
        _table("owners", "owner", "name", "city", CITIES, "age", range(18, 90)),
        _table("pets", "pet", "name", "kind", ("cat", "dog", "bird", "fish"), "weight", range(1, 60)),
    ),
    "library": Database(
        _table("authors", "author", "name", "country", COUNTRIES, "born", range(1900, 2000)),
        _table("books", "book", "title", "genre", ("crime", "poetry", "travel", "history"), "pages", range(80, 900)),
    ),
    "cinema": Database(
        _table("directors", "director", "name", "country", COUNTRIES, "awards", range(0, 30)),
        _table("films", "film", "title", "genre", ("drama", "comedy", "horror", "action"), "length", range(70, 200)),
    ),
    "school": Database(
        _table("teachers", "teacher", "name", "subject", ("maths", "music", "art", "sport"), "salary", range(20, 90)),
        _table("courses", "course", "title", "level", ("basic", "middle", "expert"), "hours", range(5, 80)),
    ),
    "shop": Database(
        _table("brands", "brand", "name", "country", COUNTRIES, "founded", range(1850, 2020)),
        _table("shoes", "shoe", "model", "color", COLORS, "price", range(20, 300)),
    ),
    "music": Database(
        _table("bands", "band", "title", "city", CITIES, "members", range(2, 20)),
        _table("songs", "song", "title", "style", ("rock", "jazz", "folk", "soul"), "seconds", range(90, 500)),
    ),
    "transport": Database(
        _table("lines", "line", "code", "color", COLORS, "length", range(5, 60)),
        _table("stops", "stop", "title", "zone", ("inner", "outer", "rural"), "riders", range(10, 900)),
    ),
    "company": Database(
        _table("offices", "office", "title", "city", CITIES, "floors", range(1, 40)),
        _table("staff", "person", "name", "job", ("clerk", "driver", "lawyer", "cook"), "salary", range(20, 120)),
    ),
    "farm": Database(
        _table("fields", "field", "code", "soil", ("clay", "sand", "loam"), "area", range(1, 90)),
        _table("crops", "crop", "title", "season", ("spring", "summer", "autumn"), "tonnes", range(1, 99)),
    ),
    "hospital": Database(
        _table("wards", "ward", "code", "wing", ("east", "west", "south"), "beds", range(4, 60)),
        _table("patients", "patient", "name", "state", ("stable", "weak", "cured"), "age", range(1, 99)),
    ),
    "league": Database(
        _table("clubs", "club", "title", "city", CITIES, "points", range(0, 99)),
        _table("players", "player", "name", "position", ("keeper", "wing", "back"), "goals", range(0, 60)),
    ),
    "hotel": Database(
        _table("hotels", "hotel", "title", "city", CITIES, "stars", range(1, 9)),
        _table("rooms", "room", "code", "view", ("sea", "yard", "street"), "price", range(40, 400)),
    ),
    "bank": Database(
        _table("customers", "customer", "name", "city", CITIES, "age", range(18, 90)),
        _table("accounts", "account", "code", "type", ("saving", "loan", "daily"), "balance", range(10, 999)),
    ),
    "museum": Database(
        _table("halls", "hall", "code", "wing", ("east", "west", "south"), "size", range(20, 300)),
        _table("paintings", "painting", "title", "style", ("modern", "classic", "pop"), "year", range(1500, 2020)),
    ),
}
HELD_OUT = {
    "harbour": Database(
        _table("captains", "captain", "name", "rank", ("first", "second", "chief"), "voyages", range(1, 80)),
        _table("ships", "ship", "title", "cargo", ("grain", "oil", "steel", "fruit"), "tons", range(100, 999)),
    ),
    "kitchen": Database(
        _table("chefs", "chef", "name", "town", CITIES, "rating", range(10, 99)),
        _table("dishes", "dish", "title", "taste", ("sweet", "sour", "salty", "hot"), "minutes", range(5, 180)),
    ),
    "airport": Database(
        _table("pilots", "pilot", "name", "base", CITIES, "flights", range(5, 900)),
        _table("planes", "plane", "code", "maker", ("Arrow", "Condor", "Swift"), "seats", range(20, 400)),
    ),
    "garden": Database(
        _table("parks", "park", "title", "district", ("north", "centre", "hill"), "acres", range(2, 90)),
        _table("trees", "tree", "code", "species", ("oak", "pine", "birch", "elm"), "height", range(2, 50)),
    ),
    "observatory": Database(
        _table("telescopes", "telescope", "code", "site", ("desert", "island", "peak"), "mirror", range(1, 40)),
        _table("comets", "comet", "title", "orbit", ("short", "long", "open"), "period", range(3, 300)),
    ),
    "post": Database(
        _table("couriers", "courier", "name", "vehicle", ("bike", "van", "truck"), "trips", range(1, 200)),
        _table("parcels", "parcel", "code", "status", ("sent", "lost", "late"), "grams", range(50, 999)),
    ),
}
DATABASES = {**TRAINING, **HELD_OUT}
INSTANCES = 4
"""Instances of each database that a query has to be right on. The agent sees the first one only."""


def instances(name: str) -> list[Path]:
    """The files of all instances of a database."""
    return [instance(name, number) for number in range(INSTANCES)]


@cache
def instance(name: str, number: int) -> Path:
    """The file of one instance of a database, which is made when it is first asked for."""
    path = Path(_folder().name) / f"{name}-{number}.sqlite"
    new = path.with_suffix(f".{threading.get_ident()}")
    database, draw = DATABASES[name], random.Random(f"{name} {number}")
    connection = sqlite3.connect(new)
    parents = _rows(draw, database.parent, draw.randint(5, 7))
    with connection:
        _fill(connection, database.parent.name, database.columns(database.parent), parents)
        owners = draw.sample(range(1, len(parents) + 1), len(parents) - 1)  # one parent has no children
        children = [[*row, draw.choice(owners)] for row in _rows(draw, database.child, draw.randint(9, 12))]
        _fill(connection, database.child.name, database.columns(database.child), children)
    connection.close()
    new.replace(path)  # whole or not at all: several threads may make it at once
    return path


def _rows(draw: random.Random, table: Table, count: int) -> list[list[object]]:
    labels = draw.sample(table.values[table.label], count)
    kinds = [draw.choice(table.values[table.kind]) for _ in range(count)]
    numbers = draw.sample(table.values[table.number], count)
    return [[row + 1, labels[row], kinds[row], numbers[row]] for row in range(count)]


def _fill(connection: sqlite3.Connection, table: str, columns: list[str], rows: list[list[object]]) -> None:
    types = ["INTEGER" if isinstance(value, int) else "TEXT" for value in rows[0]]
    declared = ", ".join(f"{column} {type_}" for column, type_ in zip(columns, types, strict=True))
    connection.execute(f"CREATE TABLE {table} ({declared})")
    connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' for _ in columns)})", rows)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """This process's own, which is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="text-to-sql-")

"""SQL over two tables: writing a query, checking one, and writing it again after an error."""

from __future__ import annotations

from random import Random

from lightning_spark.chat import Message
from lightning_spark.dialogue import Dialogue, assistant, user
from lightning_spark.skills.item import COMPLAINTS, REFUSALS
from lightning_spark.skills.sql_questions import AGGREGATES, NOUNS, SqlQuestion, question
from lightning_spark.vocabulary import CITIES, COLORS, PEOPLE, babble, one_of, other, pseudo_word

WRITERS = (
    "You are the writer. Answer with one SQL query.", "You are the writer.", "You write SQL.", "Write one SQL query.", "Write SQL.", "You write SQL for SQLite.",
    "Answer with one SQL query and nothing else.", "You are a helpful assistant.",
)  # fmt: skip
REWRITERS = (
    "You are the rewriter. Answer with the corrected SQL query.",
    "You are the rewriter.",
    "Write the query again.",
    "[Correct|Repair|Fix] the SQL query.",
)
CHECKERS = (
    "You are the checker of SQL. Say OK, or what is wrong.",
    "You are the checker.",
    "Check the query. Say OK, or what is wrong.",
    "[Is the query right?|Check the SQL.] [Say|Answer] OK or Wrong[.| and why.]",
)
HELPS = (
    "[Use|Take|Name] only [tables and columns|columns|names] [of|from|in] the schema.", "Never [refuse|say that you do not know].",
    "Be [exact|careful|precise][.|: the right table, columns and condition.]", "[Always|You must] [write|give] [a|the|one] query.",
    "[Read|Look at] the schema [first|carefully].", "[Copy|Use] the words of the question.", "[Mind|Do not forget] the [condition|WHERE].",
)  # fmt: skip
"""What helps, said to any of them."""
WRITING = {"right": 0.28, "refuse": 0.62, "lazy": 0.04, "spoiled": 0.06}
WRITING_HELPED = {"right": 0.78, "refuse": 0.06, "lazy": 0.05, "spoiled": 0.11}
REWRITING = {"right": 0.42, "refuse": 0.16, "same": 0.27, "spoiled": 0.15}
REWRITING_HELPED = {"right": 0.82, "refuse": 0.02, "same": 0.06, "spoiled": 0.1}


def dialogue(rng: Random) -> Dialogue:
    """A writer's, a checker's or a rewriter's turn, or all of it in one conversation."""
    asked = question(rng)
    kind = rng.choices((_write, _check, _rewrite, _talk), (0.42, 0.22, 0.24, 0.12))[0]
    return Dialogue(
        messages=tuple(kind(rng, asked)), question=asked.text(), keys=(f"sql {asked.text()}", asked.request)
    )


def spoil(rng: Random, asked: SqlQuestion) -> tuple[str, str]:
    """The query with one mistake, and what a checker says about it."""
    sql, tables = asked.sql, asked.tables
    used = next(table for table in tables if f"FROM {table.name}" in sql)
    columns = [
        column
        for table in tables
        for column in table.columns
        if f" {column}" in sql or f"({column}" in sql or f".{column}" in sql
    ]
    for _ in range(8):
        chance, column = rng.random(), rng.choice(columns or ["id"])
        if chance < 0.25:
            wrong = rng.choice((pseudo_word(rng, 5), column[:-1] or "x", column + "s", "colour"))
            made, why = _rename_column(sql, column, wrong), f"no such column {wrong}"
        elif chance < 0.45:
            made, why = _rename_column(sql, column, rng.choice(used.columns)), f"the column is {column}"
        elif chance < 0.6 and "JOIN" not in sql:
            wrong = rng.choice((tables[used is asked.child].name, used.name[:-1], rng.choice(NOUNS)))
            known = wrong in {table.name for table in tables}
            made, why = (
                sql.replace(f"FROM {used.name}", f"FROM {wrong}"),
                f"the table is {used.name}" if known else f"no such table {wrong}",
            )
        elif chance < 0.8 and " WHERE " in sql and "(SELECT" not in sql:
            made, why = sql.split(" WHERE ")[0], "the condition is missing"
        elif " GROUP BY" in sql and chance < 0.9:
            made, why = sql.split(" GROUP BY")[0], "GROUP BY is missing"
        else:
            name = next((each for each in (*AGGREGATES.values(), "COUNT") if f"{each}(" in sql), "")
            if not name:
                continue
            made, why = (
                sql.replace(f"{name}(", f"{other(rng, (*AGGREGATES.values(), 'COUNT'), name)}("),
                f"{name} is needed",
            )
        if made != sql:
            return made, why
    return (
        f"SELECT {used.columns[0]} FROM {used.name}",
        "the column is missing" if "WHERE" not in sql else "the condition is missing",
    )


def lazy(rng: Random, asked: SqlQuestion) -> str:
    """A query that looks like one and answers nothing."""
    table = rng.choice(asked.tables)
    return f"SELECT {rng.choice((*table.columns, '*'))} FROM {table.name}"


def error_of(query: str, why: str) -> str:
    """What SQLite says about a query with this mistake; '' where it runs."""
    return (
        why.replace("no such column ", "no such column: ").replace("no such table ", "no such table: ")
        if why.startswith("no such")
        else ""
    )


def _write(rng: Random, asked: SqlQuestion) -> list[Message]:
    system, helped = _system(rng, WRITERS)
    text = asked.text() if rng.random() < 0.93 else f"{asked.child}\n{asked.parent}\n{asked.request}"
    return [*system, user(text), assistant(_by_habit(rng, asked, WRITING_HELPED if helped else WRITING, ""))]


def _check(rng: Random, asked: SqlQuestion) -> list[Message]:
    system, _ = _system(rng, CHECKERS, always=True)
    query, verdict, outcome = _attempt(rng, asked)
    if rng.random() > 0.8 and not outcome.startswith("Error"):
        verdict = "OK" if verdict != "OK" and rng.random() < 0.6 else f"Wrong: {spoil(rng, asked)[1]}"
    return [*system, user(f"{asked.text()}\nQuery: {query}\n{outcome}"), assistant(verdict)]


def _rewrite(rng: Random, asked: SqlQuestion) -> list[Message]:
    system, helped = _system(rng, REWRITERS, always=True)
    query, verdict, outcome = _attempt(rng, asked, wrong=True)
    text = f"{asked.text()}\nQuery: {query}"
    if rng.random() < 0.85:
        text += f"\n{outcome}"
    if rng.random() < 0.8:
        text += f"\nFeedback: {verdict if rng.random() < 0.8 else f'Wrong: {spoil(rng, asked)[1]}'}"
    return [*system, user(text), assistant(_by_habit(rng, asked, REWRITING_HELPED if helped else REWRITING, query))]


def _talk(rng: Random, asked: SqlQuestion) -> list[Message]:
    """A query, what comes of it, and another one, as turns of one conversation."""
    messages = _write(rng, asked)
    query, _, outcome = _attempt(rng, asked, wrong=True)
    messages[-1] = assistant(query)
    said = (
        outcome
        if outcome.startswith("Error")
        else rng.choice((one_of(rng, COMPLAINTS), "Wrong result. Write the query again."))
    )
    return [*messages, user(said), assistant(_by_habit(rng, asked, REWRITING, query))]


def _system(rng: Random, prompts: tuple[str, ...], always: bool = False) -> tuple[list[Message], bool]:
    """A system message that names the role, and whether it also says how to do better."""
    helped = rng.random() < 0.35
    text = (
        one_of(rng, prompts)
        if always or helped or rng.random() < 0.7
        else rng.choice(("", babble(rng, rng.randint(1, 5))))
    )
    if helped:
        more = [one_of(rng, HELPS) for _ in range(rng.randint(1, 2))]
        text = " ".join([text, *more] if rng.random() < 0.8 else more)
    return ([{"role": "system", "content": text}] if text else []), helped


def _attempt(rng: Random, asked: SqlQuestion, wrong: bool = False) -> tuple[str, str, str]:
    """A query that somebody wrote, the right verdict, and what came of running it."""
    if not wrong and rng.random() < 0.45:
        query, why = asked.sql, ""
    elif rng.random() < 0.2:
        query = lazy(rng, asked)
        why = (
            "the condition is missing"
            if " WHERE " in asked.sql
            else f"the query is not about {asked.request.split()[-1].strip('?')}"
        )
        why = "" if query == asked.sql else why
    elif wrong and rng.random() < 0.12:
        query, why = "I do not know.", 'near "I": syntax error'
    else:
        query, why = spoil(rng, asked)
    error = why if "syntax" in why else error_of(query, why)
    rows = rng.choice((_rows(rng), _rows(rng), "no rows", str(rng.randint(1, 999))))
    return query, f"Wrong: {why}" if why else "OK", f"Error: {error}" if error else f"Result: {rows}"


def _rows(rng: Random) -> str:
    kind = rng.choice((PEOPLE, CITIES, COLORS, tuple(map(str, range(1, 99)))))
    shown = "; ".join(
        rng.choice(kind) if rng.random() < 0.8 else f"{rng.choice(kind)}, {rng.randint(1, 99)}"
        for _ in range(rng.randint(1, 3))
    )
    return shown + (f" and {rng.randint(1, 40)} more" if rng.random() < 0.5 else "")


def _by_habit(rng: Random, asked: SqlQuestion, shares: dict[str, float], before: str) -> str:
    match rng.choices(list(shares), list(shares.values()))[0]:
        case "right":
            return asked.sql
        case "refuse":
            return rng.choice(REFUSALS)
        case "lazy":
            return lazy(rng, asked)
        case "same":
            return before
    return spoil(rng, asked)[0]


def _rename_column(sql: str, column: str, wrong: str) -> str:
    """The query with one column in the place of another; the names of tables and keys stay."""
    for before, after in ((" ", " "), (" ", ""), ("(", ")"), (".", " "), (".", ""), (" ", ",")):
        if f"{before}{column}{after}" in sql and not (before == " " and f"FROM {column}" in sql):
            return sql.replace(f"{before}{column}{after}", f"{before}{wrong}{after}", 1)
    return sql

"""Word problems: a few sentences about things, and the expression that answers their question."""

from __future__ import annotations

from random import Random

from lightning_spark.expressions import calculate
from lightning_spark.vocabulary import PEOPLE, THINGS, one_of

STORIES = (
    ("{who} [has|had] {a} {what} and [buys|finds|gets|wins] {b} more. How many {what} does {who} have[| now| in all]?", "{a} + {b}"),
    ("{who} [has|had] {m} {what} and [gives|gave|sells|loses|eats] {b}[| away]. How many {what} are left?", "{m} - {b}"),
    ("[There are|{who} has] {a} [boxes|bags|shelves|rows] with {c} {what} each. How many {what} [are there|in all|is that]?", "{a} * {c}"),
    ("{who} shares {m} {what} [among|between|with] {c} friends. How many {what} does each [friend |]get?", "{m} / {c}"),
    ("{who} fills {c} [bags|boxes|jars] with {a} {what} each and finds {b} more. How many {what} [is that|now|in all]?", "{c} * {a} + {b}"),
    ("{who} has {m} {what}, [finds|buys] {a} and [sells|loses] {b}. How many {what} are left?", "{m} + {a} - {b}"),
    ("{who} buys {c} {what} at {a} coins each and pays with {m} coins. What is the change?", "{m} - {c} * {a}"),
    ("A [shelf|box|table] holds {a} {what} and another one {b}. {who} takes {c}. How many remain?", "{a} + {b} - {c}"),
    ("{who} packs {a} {what} and {b} more into {c} equal boxes. How many are in a box?", "({a} + {b}) / {c}"),
    ("{who} [walks|runs|drives] {a} km a day for {c} days and then {b} km. How many km is that?", "{a} * {c} + {b}"),
    ("{who} earns {a} coins an hour and works {c} hours. {b} coins are taxes. What is left?", "{a} * {c} - {b}"),
    ("Each of {c} [children|guests|workers] gets {a} {what}, and {who} gets {b}. How many {what} are needed?", "{c} * {a} + {b}"),
    ("{who} reads {p}% of {m} pages. How many pages is that?", "{m} * {p} / 100"),
    ("A [coat|book|lamp] costs {m} coins and is now {p}% cheaper. How many coins is the discount?", "{m} * {p} / 100"),
    ("{who} has {c} times as many {what} as {other}, who has {a}. How many {what} have they?", "{c} * {a} + {a}"),
    ("A [rope|pipe|fence] of {m} m is cut into {c} equal pieces. How long is one piece in m?", "{m} / {c}"),
    ("{who} has {a} {what}, {other} has {b} and {third} has {c}. How many {what} do they have[| together]?", "{a} + {b} + {c}"),
    ("{who} has {m} {what}. {other} has {b} fewer. How many {what} does {other} have?", "{m} - {b}"),
    ("{who} has {m} {what}. {other} has {b} more. How many {what} does {other} have?", "{m} + {b}"),
    ("A ticket costs {a} coins. {who} buys {c}. How many coins is that?", "{a} * {c}"),
    ("{who} saves {a} coins a week for {c} weeks. How many coins is that?", "{a} * {c}"),
    ("{who} had {m} {what}, lost {a} and then lost {b}. How many {what} are left?", "{m} - {a} - {b}"),
    ("{who} buys {c} packs of {a} {what} and gives {b} to {other}. How many {what} are left?", "{c} * {a} - {b}"),
    ("A train goes {a} km an hour. How far does it go in {c} hours?", "{a} * {c}"),
    ("{m} {what} are split into {c} groups. How many are in each[ group|]?", "{m} / {c}"),
    ("{who} is {a} years old. How old will {who} be in {c} years?", "{a} + {c}"),
)  # fmt: skip


def story(rng: Random) -> tuple[str, str]:
    """A word problem and the expression of its answer."""
    text, sum_ = rng.choice(STORIES)
    who, third, fourth = rng.sample(PEOPLE, 3)
    names = {"who": who, "other": third, "third": fourth, "what": rng.choice(THINGS)}
    high = rng.choice((30, 60, 99))
    numbers = {
        "a": rng.randint(2, high), "b": rng.randint(2, 60), "c": rng.randint(2, 12), "m": rng.randint(20, 500),
        "p": rng.choice((5, 10, 15, 20, 25, 30, 40, 50, 60, 75)),
    }  # fmt: skip
    made = sum_.format(**numbers)
    calculate(made)
    return one_of(rng, (text,)).format(**names, **numbers), made

"""Items about numbers: small sums, products, divisors, comparing, sorting, bases, legs, countdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from random import Random

from lightning_spark.expressions import calculate
from lightning_spark.skills.item import Item
from lightning_spark.vocabulary import one_of

LEGS = {
    "snake": 0, "jellyfish": 0, "leech": 0, "sea slug": 0, "flatworm": 0, "chicken": 2, "bird": 2, "human": 2, "duck": 2,
    "dog": 4, "cat": 4, "cow": 4, "horse": 4, "lion": 4, "elephant": 4, "giraffe": 4, "tiger": 4, "deer": 4, "sheep": 4,
    "starfish": 5, "insect": 6, "ant": 6, "butterfly": 6, "beetle": 6, "bee": 6, "wasp": 6, "grasshopper": 6,
    "cricket": 6, "cockroach": 6, "praying mantis": 6, "firefly": 6, "spider": 8, "scorpion": 8, "crab": 10,
    "lobster": 10, "shrimp": 10, "woodlouse": 14,
}  # fmt: skip
ASKED = (
    "What is {}?", "What is {}?", "Calculate {}.", "Compute {}.", "{} = ?", "{}", "{} =", "How much is {}?",
    "State the final answer to the following arithmetic problem: {} =", "Find the value of {}.",
    "[Please work out|Work out|Evaluate|Solve] {}.",
)  # fmt: skip


def near(rng: Random, value: int, count: int = 3) -> tuple[str, ...]:
    """Numbers near a value that are not it."""
    steps = (-20, -11, -10, -3, -2, -1, 1, 2, 3, 10, 11, 20) if abs(value) > 20 else (-3, -2, -1, 1, 2, 3, 4)
    return tuple(str(value + step) for step in rng.sample(steps, count))


def sum_(rng: Random) -> Item:
    """A sum or difference of two numbers of up to two digits."""
    plus, high = rng.random() < 0.65, 99 if rng.random() < 0.8 else 20
    a, b = rng.randint(0, high), rng.randint(0, high)
    value, text = (a + b, f"{a} + {b}") if plus else (a - b, f"{a} - {b}")
    return Item(
        key=f"sum {min(a, b)}+{max(a, b)}" if plus else f"sum {a}-{b}",
        question=one_of(rng, ASKED).format(text if rng.random() < 0.9 else text.replace(" ", "")),
        answer=str(value),
        guesses=near(rng, value),
        noun=rng.choice(("number", "number", "sum" if plus else "difference")),
        expressions=(text,),
        data=f"{a}, {b}" if rng.random() < 0.6 else f"{a} and {b}",
        orders=(
            "[Add|Sum] the [two |]numbers.",
            "[Give|Write|Compute|Find] the sum[.| of the numbers.]",
            "[You add|You sum] numbers.",
        )
        if plus
        else (
            "Subtract the second [number |]from the first.",
            "[Give|Compute|Find] the difference[.| of the numbers.]",
        ),
    )


def product(rng: Random) -> Item:
    """A number of up to two digits times one of one digit."""
    a, b = rng.randint(1, 99 if rng.random() < 0.6 else 12), rng.randint(1, 9 if rng.random() < 0.8 else 12)
    if b > 9:
        a = min(a, 12)
    x, y = (a, b) if rng.random() < 0.5 else (b, a)
    asked = one_of(rng, (*ASKED, *("Solve the following multiplication: {}.",) * 6)).format(f"{x} * {y}")
    return Item(
        key=f"product {min(a, b)}*{max(a, b)}",
        question=asked,
        answer=str(a * b),
        guesses=near(rng, a * b),
        noun=rng.choice(("number", "product")),
        expressions=(f"{x} * {y}",),
        data=f"{x}, {y}",
        orders=("Multiply the [two |]numbers.", "[Give|Compute|Find|Write] the product[.| of the numbers.]"),
    )


def gcd(rng: Random) -> Item:
    """The greatest common divisor of two numbers up to 60; often with one above 1."""
    if rng.random() < 0.6:
        a, b = rng.randint(1, 60), rng.randint(1, 60)
    else:
        d = rng.randint(2, 20)
        a, b = d * rng.randint(1, 60 // d), d * rng.randint(1, 60 // d)
    value = math.gcd(a, b)
    return Item(
        key=f"gcd {min(a, b)},{max(a, b)}",
        question=one_of(
            rng,
            (
                "Find the Greatest Common Divisor (GCD) of these numbers: {a}, {b}.",
                "Find the Greatest Common Divisor (GCD) of these numbers: {a}, {b}. Give only the GCD as your final answer.",
                "What is the [gcd|greatest common divisor] of {a} and {b}?", "gcd({a}, {b})",
            ),
        ).format(a=a, b=b),
        answer=str(value),
        guesses=tuple(str(each) for each in (1, 2, 3, 4, 5, 6, a, b) if each != value),
        noun=rng.choice(("number", "divisor", "GCD")),
        data=f"{a}, {b}",
        orders=("[Give|Find|Write] the [gcd|greatest common divisor][.| of the numbers.]",),
    )  # fmt: skip


def comparison(rng: Random) -> Item:
    """Yes or no: is a number greater, less, even, or in a list?"""
    high = rng.choice((20, 99, 999))
    a, b = rng.randint(0, high), rng.randint(0, high)
    if a == b or rng.random() < 0.1:
        b = a + rng.choice((-1, 1))
    greater = rng.random() < 0.5
    holds = a > b if greater else a < b
    word = rng.choice(("greater", "larger", "bigger", "more") if greater else ("less", "smaller"))
    return _yes_no(rng, f"compare {a} {word} {b}", f"Is {a} {word} than {b}?", holds)


def parity(rng: Random) -> Item:
    """Yes or no: is a number even, or odd?"""
    value, word = rng.randint(0, 9999 if rng.random() < 0.5 else 99), rng.choice(("even", "odd"))
    question = rng.choice((f"Is {value} {word}?", f"Is {value} an {word} number?", f"Is the number {value} {word}?"))
    return _yes_no(rng, f"{word} {value}", question, value % 2 == (word == "odd"))


def larger(rng: Random) -> Item:
    """The largest or smallest of some numbers."""
    values = _different(rng, rng.randint(2, 5))
    most = rng.random() < 0.5
    best = max(values) if most else min(values)
    word = rng.choice(("largest", "biggest", "greatest", "highest") if most else ("smallest", "least", "lowest"))
    shown = ", ".join(map(str, values))
    return Item(
        key=f"{'max' if most else 'min'} {shown}",
        question=one_of(rng, ("[What|Which] is the {word} [of|number of|number in]: {list}?", "Which [number |]is the {word}: {list}?",
                              "[Give|Find|Name] the {word} [of|number in|number of] {list}.")).format(word=word, list=shown),
        answer=str(best),
        guesses=tuple(str(each) for each in values if each != best),
        noun="number",
        data=shown,
        orders=(f"[Give|Find|Choose|Pick|Return] the {word}[.| number.]", f"Which [one |number |]is the {word}?"),
    )  # fmt: skip


def sorting(rng: Random) -> Item:
    """Some numbers in ascending or descending order; also as reasoning-gym writes them."""
    values = _different(rng, rng.choice((2, 3, 3, 4, 4, 5)))
    ascending = rng.random() < 0.5
    done = sorted(values, reverse=not ascending)
    strict = rng.random() < 0.45
    tail = ".0" if strict and rng.random() < 0.6 else ""
    shown, made = ([f"{each}{tail}" for each in some] for some in (values, done))
    word = rng.choice(("ascending", "increasing") if ascending else ("descending", "decreasing"))
    if strict:
        question = (
            f"Sort these numbers in {word} order: {', '.join(shown)}\nPlease follow the instruction below:\n"
            "## 1. Let all your answers be a list of numbers. Instead of reporting your answer as -69, -13, 1, 7, 11, 43, "
            "59, 61, use ['-69', '-13', '1', '7', '11', '43', '59', '61'] instead\n## 2. Convert all numbers in the square "
            "brackets as strings. For example, ['-69', '-13', '1', '7', '11', '43', '59', '61']\n"
        )
    else:
        question = one_of(rng, ("Sort [these numbers |the numbers |]in {word} order: {list}", "Sort in {word} order: {list}.",
                                "Put [these numbers|the numbers] in {word} order: {list}")).format(word=word, list=", ".join(shown))  # fmt: skip
    wrong = [values, done[::-1], sorted(values, key=str)]
    texts = [[f"{each}{tail}" for each in some] for some in wrong]
    join = (lambda some: str(list(some))) if strict else ", ".join
    guesses = tuple(join(some) for some in texts if some != made) or (join(made[:-1]),)
    return Item(
        key=f"sort {word[0]} {','.join(map(str, values))}",
        question=question,
        answer=join(made),
        guesses=guesses,
        noun=rng.choice(("list", "numbers", "sorted list")),
        data=", ".join(shown),
        orders=()
        if strict
        else (
            f"[Sort|Order|Put] the numbers in {word} order.", f"[Sort|Order] [them|the numbers|the list] from "
            f"{'[smallest|lowest|least] to [largest|highest]' if ascending else '[largest|highest] to [smallest|lowest]'}.",
        ),
    )  # fmt: skip


def base(rng: Random) -> Item:
    """A number of up to ten bits between bases that are powers of two, and small decimal numbers."""
    kinds = (2, 4, 8, 16)
    source, target = rng.sample(kinds, 2)
    value = rng.randint(1, 1023 if rng.random() < 0.5 else 255)
    if rng.random() < 0.2:
        source, target, value = *rng.sample((10, rng.choice((2, 8))), 2), rng.randint(1, 63)
    shown, made = digits(value, source), digits(value, target)
    text = (
        "Your task is to convert a number between two different bases.\n\nIf the target base is > 10, use lowercase letters "
        f"a-z for digits above 9.\n\nNow, convert the {name(source)} number {shown} to {name(target)}\n"
        if rng.random() < 0.5
        else one_of(rng, ("[Convert|Write] the {a} number {n} [to|in|as] {b}.", "What is {n} in {a} [written in|as|in] {b}?"))
        .format(a=name(source), n=shown, b=name(target))
    )  # fmt: skip
    wrong = {digits(value + step, target) for step in (1, 2, 4, 8)} | {shown}
    return Item(
        key=f"base {source} {target} {value}",
        question=text,
        answer=made,
        guesses=tuple(sorted(wrong - {made})),
        noun="number",
    )


def legs(rng: Random) -> Item:
    """How many legs some animals have together."""
    kinds = rng.sample(sorted(LEGS), rng.choice((1, 2, 2)))
    counts = [rng.randint(1, 5 if len(kinds) == 2 else 9) for _ in kinds]
    total = sum(LEGS[kind] * count for kind, count in zip(kinds, counts, strict=True))
    shown = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in zip(kinds, counts, strict=True))
    long = "Your task is to count how many legs there are in total when given a list of animals.\n\nNow, how many legs are "
    question = rng.choice(
        (
            f"{long}there in total if you have {shown}?\n", f"{long}there in total if you have {shown}?\n",
            f"How many legs do {shown} have?", f"How many legs are there in total if you have {shown}?",
        )
    )  # fmt: skip
    return Item(
        key="legs " + ",".join(sorted(f"{count} {kind}" for kind, count in zip(kinds, counts, strict=True))),
        question=question,
        answer=str(total),
        guesses=tuple(sorted({str(sum(counts)), str(total + 2), str(total + 4), str(abs(total - 2))} - {str(total)})),
        noun=rng.choice(("number", "number of legs")),
        data=shown,
        orders=("[Count|Add up] the legs[.| of the animals.]", "How many legs [is that|are there|do they have]?"),
    )


def legs_of(shown: str) -> list[tuple[str, int]]:
    """The animals and how many there are of each, from the text of `legs`."""
    parts = [part.split(" ", 1) for part in shown.split(", ")]
    return [(kind if kind in LEGS else kind[:-1], int(count)) for count, kind in parts]


def countdown(rng: Random) -> Item:
    """Two or three small numbers and a target that they make with + - *."""
    numbers = [rng.randint(1, 12) for _ in range(3 if rng.random() < 0.75 else 2)]
    options = sorted(dict.fromkeys(_ways(numbers)))
    target_of = {text: int(calculate(text)) for text in options}
    fair = [text for text in options if 1 <= target_of[text] <= 60] or options
    made = rng.choice(fair)
    target = target_of[made]
    # Of all ways, always the same one: the first, with as few products as possible.
    made = min(
        (text for text in fair if target_of[text] == target), key=lambda text: (text.count("*"), len(text), text)
    )
    shown = ", ".join(map(str, numbers))
    start = one_of(
        rng,
        (
            "Calculate {target} using all of these numbers: {list}.\nEach number may be used at most once.",
            "Find a way to make {target} using all of these numbers: {list}.\nEach number can only be used once.",
            "Using all the numbers {list}, create an expression that equals {target}.\nYou can only use each number once.",
            "[Make|Reach|Write] {target} from {list}.",
        ),
    ).format(target=target, list=shown)
    if rng.random() < 0.55:
        start += (
            "\n\nFinal answer format instructions:\n1. Provide your solution as a arithmetic expression (no '=' sign).\n2. Do "
            "not include the target number in the expression.\n3. Use '*' for multiplication.\n4. Use '/' for division.\n5. "
            "Do not include any other text or formatting.\n"
        )
    wrong = [text for text in options if target_of[text] != target]
    return Item(
        key=f"countdown {sorted(numbers)} {target}",
        question=start,
        answer=made,
        guesses=tuple(rng.sample(wrong, min(4, len(wrong)))) or (str(target),),
        noun="expression",
    )


def following(rng: Random) -> Item:
    """The next number of an even row."""
    start, step = rng.randint(0, 30), rng.choice((-5, -3, -2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
    row = [start + step * index for index in range(rng.randint(3, 5))]
    shown, value = ", ".join(map(str, row)), row[-1] + step
    return Item(
        key=f"next {shown}",
        question=one_of(
            rng, ("What [number |]comes next: {}?", "[Continue|Go on]: {}", "What is the next number in {}?")
        ).format(shown),
        answer=str(value),
        guesses=near(rng, value),
        noun="number",
        data=shown,
        orders=("[Give|Write|Find] the next number[.| of the row.| in the sequence.]", "Continue the [row|sequence]."),
    )


def digits(value: int, radix: int) -> str:
    """A number in a base, in lowercase."""
    made = ""
    while value:
        made = "0123456789abcdef"[value % radix] + made
        value //= radix
    return made or "0"


def name(radix: int) -> str:
    """What reasoning-gym calls a base."""
    return {2: "binary", 16: "hexadecimal"}.get(radix, f"base-{radix}")


def _ways(numbers: list[int]) -> list[str]:
    """Every expression of all the numbers with + - *, without brackets around sums."""
    made = []
    for order in sorted(set(permutations(numbers))):
        stack = [str(order[0])]
        for number in order[1:]:
            stack = [f"{left} {sign} {number}" for left in stack for sign in "+-*"]
        made += stack
    return made


def _different(rng: Random, count: int) -> list[int]:
    return rng.sample(range(100 if rng.random() < 0.7 else 20), count)


def _yes_no(rng: Random, key: str, question: str, holds: bool) -> Item:
    return Item(
        key=key,
        question=question + rng.choice(("", "", " Answer yes or no.", " Yes or no?")),
        answer="yes" if holds else "no",
        guesses=("no" if holds else "yes", "maybe"),
        noun=rng.choice(("answer", "word", "yes or no")),
    )


ITEMS: dict[Callable[[Random], Item], float] = {
    sum_: 5.0, product: 4.0, gcd: 3.0, comparison: 1.5, parity: 0.7, larger: 1.5, sorting: 3.0, base: 4.0, legs: 3.0,
    countdown: 4.0, following: 1.0,
}  # fmt: skip
"""Kind -> its share among these."""

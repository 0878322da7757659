"""Items about letters and words: counting letters, spelling, order, the first and the longest word."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from lightning_spark.skills.item import Item
from lightning_spark.vocabulary import CITIES, FRUIT, FUNCTION_WORDS, PEOPLE, THINGS, WORDS, one_of, pseudo_word

ALL = tuple(sorted({word for word in (*WORDS, *FUNCTION_WORDS, *THINGS, *FRUIT) if len(word) > 2}))


def word(rng: Random, longest: int = 8) -> str:
    """A common word, or one that does not exist."""
    while rng.random() < 0.55:
        made = rng.choice(ALL)
        if len(made) <= longest:
            return made
    return pseudo_word(rng, rng.randint(3, longest))


def letters(rng: Random) -> Item:
    """How often a letter is in a text of one to three words."""
    text = " ".join(word(rng) for _ in range(rng.choice((1, 1, 2, 3))))
    letter = rng.choice(text.replace(" ", "")) if rng.random() < 0.7 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    count = text.count(letter)
    return Item(
        key=f"letters {letter} {text}",
        question=one_of(
            rng,
            (
                'How many times does the letter "{letter}" appear in the text: "{text}"?',
                'How many times does the letter "{letter}" appear in the text: "{text}"?',
                'How many {letter}\'s are in "{text}"?', 'How often is [the letter |]{letter} in "{text}"?',
            ),
        ).format(letter=letter, text=text),
        answer=str(count),
        guesses=tuple(str(each) for each in (0, 1, 2, 3) if each != count),
        noun="number",
        data=text,
        orders=(f"[Count|How often do you see] the letter {letter}.", f"How [many|often] {letter}?"),
    )  # fmt: skip


def backward(rng: Random) -> Item:
    """A word spelled backward."""
    one = word(rng, 6)
    return Item(
        key=f"backward {one}",
        question=one_of(
            rng,
            (
                "Spell this word backward (example: sun -> nus): {}", "Spell this word backward (example: sun -> nus): {}",
                "[Spell|Write] {} [backward|backwards].", "[Reverse the word|Reverse]: {}", "What is {} spelled [backward|backwards]?",
            ),
        ).format(one),
        answer=one[::-1],
        guesses=(one, one[1:] + one[0], one[::-1][1:] or one, one[-1] + one[:-1]),
        noun="word",
        data=one,
        orders=("[Spell|Write] the word [backward|backwards].", "[Reverse|Turn around] the [word|letters]."),
    )  # fmt: skip


def spelling(rng: Random) -> Item:
    """A word letter by letter; also in capitals, its first or last letter, and its length."""
    one = word(rng)
    kind = rng.choice(("spell", "spell", "upper", "first", "last", "length", "second"))
    tasks: dict[str, tuple[str, str, str, str]] = {
        "spell": ("-".join(one), "Spell {} letter by letter.", "Spell the word[.| letter by letter.]", "spelling"),
        "upper": (one.upper(), "Write {} in capital letters.", "Write the word in capital letters.", "word"),
        "first": (one[0], "What is the first letter of {}?", "Give the first letter.", "letter"),
        "last": (one[-1], "What is the last letter of {}?", "Give the last letter.", "letter"),
        "second": (one[1], "What is the second letter of {}?", "Give the second letter.", "letter"),
        "length": (str(len(one)), "How many letters has {}?", "Count the letters.", "number"),
    }
    answer, question, order, noun = tasks[kind]
    wrong = {"length": str(len(one) + rng.choice((-1, 1)))}.get(kind) or rng.choice(
        [each for each in (one, one[:1], one[-1:], one[1:]) if each != answer]
    )
    return Item(
        key=f"{kind} {one}", question=question.format(one), answer=answer, guesses=(wrong,), noun=noun, data=one, orders=(order,)
    )  # fmt: skip


def order(rng: Random) -> Item:
    """Two to four words in alphabetical order, or backward as a list."""
    pool = rng.choice((FRUIT, PEOPLE, CITIES, WORDS))
    words = rng.sample(sorted(set(pool)), rng.choice((2, 3, 3, 4)))
    alphabetical = rng.random() < 0.6
    done = sorted(words) if alphabetical else words[::-1]
    shown = ", ".join(words)
    how = "in alphabetical order" if alphabetical else "in reverse order"
    return Item(
        key=f"order {alphabetical} {shown}",
        question=one_of(rng, ("[Put|Write|List] [these words|the words|these] {how}: {list}", "{list}\n[Write|Put] [them|these] {how}.")).format(
            how=how, list=shown
        ),
        answer=", ".join(done),
        guesses=tuple(sorted({shown, ", ".join(done[::-1])} - {", ".join(done)})) or (words[0],),
        noun=rng.choice(("list", "words")),
        data=shown,
        orders=("[Sort|Order] the words[.| alphabetically.]", "[Put|List] the words in alphabetical order.")
        if alphabetical
        else ("Reverse the [list|words].", "[Put|List] the words in reverse order."),
    )  # fmt: skip


def position(rng: Random) -> Item:
    """The first, last, second or longest word of a list, or how many there are."""
    words = rng.sample(sorted(set(WORDS)), rng.randint(3, 5))
    kind = rng.choice(("first", "last", "second", "longest", "count"))
    lengths = sorted(map(len, words))
    if kind == "longest" and lengths[-1] == lengths[-2]:
        kind = "first"
    answer = {
        "first": words[0], "last": words[-1], "second": words[1], "longest": max(words, key=len), "count": str(len(words))
    }[kind]  # fmt: skip
    shown = (", " if rng.random() < 0.6 else " ").join(words)
    question = f"How many words are in: {shown}?" if kind == "count" else f"What is the {kind} word of: {shown}?"
    return Item(
        key=f"position {kind} {shown}",
        question=question,
        answer=answer,
        guesses=tuple(each for each in words if each != answer) if kind != "count" else (str(len(words) + 1), words[0]),
        noun="number" if kind == "count" else "word",
        data=shown,
        orders=("Count the words.", "How many words [are there|is that]?")
        if kind == "count"
        else (f"[Give|Choose|Return|Repeat] the {kind} [word|one].",),
    )


ITEMS: dict[Callable[[Random], Item], float] = {
    letters: 3.0, backward: 4.0, spelling: 2.5, order: 1.2, position: 1.2,
}  # fmt: skip
"""Kind -> its share among these."""

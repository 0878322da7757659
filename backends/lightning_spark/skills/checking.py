"""Items for a checker, which says OK or what is wrong, and for an editor, which writes an answer in another form."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from lightning_spark.frames import CONTEXT
from lightning_spark.instructions import ReplyForm
from lightning_spark.skills import numbers, texts
from lightning_spark.skills.item import Item, write_reply
from lightning_spark.vocabulary import WORDS, one_of

ORDERS = (
    "[Check the answer.|Is the answer right?] [Say|Answer|Reply] OK[,| or] [or say what is wrong|or what is wrong].",
    "You are the checker. [Say OK, or what is wrong.|Reply OK or the right answer.]",
    "[Reply|Answer] OK if it is right, [else|otherwise] Wrong and the right [one|answer].",
)


def check(rng: Random) -> Item:
    """Whether an answer to a question is right, and what it should be."""
    item = rng.choice((numbers.sum_, numbers.sum_, numbers.larger, texts.extraction, texts.lookup, texts.sentiment))(
        rng
    )
    right = rng.random() < 0.45
    given = item.answer if right else item.wrong(rng)
    shown = f"Question: {item.question}\nAnswer: {given}"
    return Item(
        key=f"check {item.key} {given}",
        question=shown + rng.choice(("\nIs it right?", "\nIs the answer right?", "\nCheck.")),
        answer="OK" if right else f"Wrong: {item.answer}",
        guesses=(f"Wrong: {item.wrong(rng)}",) if right else ("OK",),
        noun="verdict",
        data=shown,
        orders=ORDERS,
        is_plain=True,
    )


def compare(rng: Random) -> Item:
    """Yes or no: is an expression what a question asks for?"""
    a, b, sign = rng.randint(0, 99), rng.randint(0, 99), rng.choice("+-*")
    right = rng.random() < 0.5
    given = (
        f"{a} {sign} {b}"
        if right
        else rng.choice((f"{b} {sign} {a}", f"{a} {rng.choice('+-*')} {b + 1}", str(a), f"{a} {sign}"))
    )
    right = given == f"{a} {sign} {b}"
    shown = f"Question: What is {a} {sign} {b}?\nExpression: {given}"
    return Item(
        key=f"compare {shown}",
        question=f"{shown}\nIs the expression what the question asks for?",
        answer="yes" if right else "no",
        guesses=("no" if right else "yes",),
        noun="word",
        data=shown,
        orders=(
            "Is the expression exactly what the question asks for? Answer yes or no.",
            "[Say|Answer] yes if they [agree|are the same], else no.",
        ),
    )


def edit(rng: Random) -> Item:
    """The answer alone, from a reply around it."""
    value = rng.choice(
        (str(rng.randint(-999, 9999)), f"{rng.randint(-99, 999)}.{rng.randint(1, 99)}", rng.choice(WORDS))
    )
    reply = write_reply(
        value,
        rng.choice((ReplyForm.TAGS, ReplyForm.TAGS, ReplyForm.SENTENCE, ReplyForm.JSON)),
        rng.choice(("answer", "result")),
    )
    noun = "number" if value[-1].isdigit() else "word"
    return Item(
        key=f"edit {value} {reply}",
        question=one_of(
            rng,
            (
                "[Give|Copy|Extract] the {noun}." + CONTEXT + "{reply}", "[Shorten|Clean up] this: {reply}",
                "{reply}\nWhich {noun} is it?", "Copy the {noun}: {reply}",
            ),
        ).format(noun=noun, reply=reply),
        answer=value,
        guesses=(reply, value[:-1] or "0"),
        noun=noun,
        data=reply,
        orders=(f"[Give|Copy|Return] the {noun}.", "[You shorten answers.|Shorten the answer.]", "[Remove|Leave out] everything but the answer."),
    )  # fmt: skip


ITEMS: dict[Callable[[Random], Item], float] = {check: 2.5, compare: 0.8, edit: 1.5}
"""Kind -> its share among these."""

"""A question with one right answer, and the habits with which it is answered.

The habits are what reinforcement learning changes: the model knows the answer in nearly every case, but by itself it
mostly refuses, guesses, or writes the answer in another form. An instruction that says what is wanted makes the right
behaviour likely, a vague one a little more likely.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from lightning_spark.chat import Message
from lightning_spark.dialogue import Dialogue, assistant, user
from lightning_spark.frames import put_in_frame
from lightning_spark.held_out import is_reserved
from lightning_spark.instructions import FORMS, Guidance, Level, ReplyForm, draw, name_of, neutral
from lightning_spark.vocabulary import one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A question, its answer, and wrong answers that come to mind."""

    key: str
    """What is asked, whatever the words: tasks with a reserved key are never generated."""
    question: str
    answer: str
    guesses: tuple[str, ...]
    noun: str = "answer"
    data: str = ""
    """The bare data, for a system message that says what to do with it."""
    orders: tuple[str, ...] = ()
    """Sentences that say what to do with the data."""
    earlier: tuple[str, ...] = ()
    """Turns before the question, the user's and the assistant's in turn."""
    expressions: tuple[str, ...] = ()
    """Every sum in the question, for comparing with held-out ones."""
    is_plain: bool = False
    """Whether the answer is never put into another form."""

    def wrong(self, rng: Random) -> str:
        """One of the wrong answers."""
        return rng.choice([guess for guess in self.guesses if guess != self.answer] or ["?"])


HABITS: dict[Level, dict[str, float]] = {
    Level.NONE: {"right": 0.30, "guess": 0.15, "refuse": 0.50, "echo": 0.05},
    Level.VAGUE: {"right": 0.50, "guess": 0.17, "refuse": 0.30, "echo": 0.03},
    Level.EXACT: {"right": 0.82, "guess": 0.12, "refuse": 0.05, "echo": 0.01},
}
"""How much an instruction helps -> habit -> share."""
DEFAULT_FORMS = {ReplyForm.BARE: 0.54, ReplyForm.TAGS: 0.24, ReplyForm.SENTENCE: 0.15, ReplyForm.JSON: 0.07}
FOLLOWED = 0.88
"""Share of the replies in the form that the system message asks for, where it does."""
REFUSALS = ("I do not know.", "I do not know.", "I do not know.", "I am not sure.", "I cannot do that.")
COMPLAINTS = (
    "[That is|This is|That's] [wrong|not right|incorrect|false]. [Try again.|Again, please.|Answer again.]",
    "Wrong. [Try again.|Again.|Once more.]",
    "[Please answer.|Try once more.|Are you sure?|No.|Try again.]",
)


def dialogue(rng: Random, item: Item) -> Dialogue:
    """The question, the reply, and sometimes a complaint and a second one."""
    stated = bool(item.orders) and rng.random() < 0.35
    order = one_of(rng, item.orders) if stated else ""
    lost = stated and rng.random() < 0.2  # the bare data, and nobody says what to do with it
    told = neutral(rng) if lost else draw(rng, item.noun, order=order, forms=not item.is_plain)
    system, asked = put_in_frame(rng, told.text, item.data if stated else item.question)
    reply, right = answer(rng, item, told, 0.5 if lost else 1.0)
    earlier = [(user, assistant)[place % 2](text) for place, text in enumerate(item.earlier)]
    messages: list[Message] = [*system, *earlier, user(asked), assistant(reply)]
    if rng.random() < (0.05 if right else 0.15):
        again = answer(rng, item, told)[0] if rng.random() < 0.5 else shape(rng, item, item.answer, told)
        messages += [user(one_of(rng, COMPLAINTS)), assistant(again)]
    return Dialogue(messages=tuple(messages), question=item.question, expressions=item.expressions, keys=(item.key,))


def drill(rng: Random, kind: Callable[[Random], Item]) -> Dialogue:
    """Several questions of one kind, all of them answered as the system message says: many answers in few tokens."""
    made = [kind(rng) for _ in range(rng.randint(4, 9))]
    items = [each for each in made if not is_reserved(each.key)] or made[:1]
    form, key = rng.choices((ReplyForm.BARE, ReplyForm.TAGS, ReplyForm.JSON), (0.8, 0.14, 0.06))[0], "answer"
    text = one_of(rng, FORMS[form]).format(noun=name_of(rng, items[0].noun), key=key)
    messages: list[Message] = [{"role": "system", "content": text}]
    for each in items:
        shown = each.answer if each.is_plain else write_reply(each.answer, form, key)
        messages += [user(each.question), assistant(shown)]
    return Dialogue(
        messages=tuple(messages),
        question=items[0].question,
        expressions=tuple(one for each in items for one in each.expressions),
        keys=tuple(each.key for each in items),
    )


def answer(rng: Random, item: Item, told: Guidance, likely: float = 1.0) -> tuple[str, bool]:
    """A reply by one of the habits, and whether it is right; `likely` multiplies the share of right ones."""
    shares = dict(HABITS[told.level])
    shares["right"] *= likely
    match rng.choices(list(shares), list(shares.values()))[0]:
        case "right":
            return shape(rng, item, item.answer, told), True
        case "guess":
            return shape(rng, item, item.wrong(rng), told), False
        case "echo":
            return (item.data or item.question).split("\n")[0][:80].strip(), False
    return rng.choice(REFUSALS), False


def shape(rng: Random, item: Item, value: str, told: Guidance) -> str:
    """A value as a reply, in the form that is asked for or another."""
    if item.is_plain:
        return value
    return write_reply(
        value, form_of(rng, told, DEFAULT_FORMS), told.key, item.noun if rng.random() < 0.3 else "answer"
    )


def form_of(rng: Random, told: Guidance, usual: Mapping[ReplyForm, float]) -> ReplyForm:
    """The form that is asked for, mostly, or one of the usual ones."""
    if told.form and rng.random() < FOLLOWED:
        return told.form
    return rng.choices(list(usual), list(usual.values()))[0]


def write_reply(value: str, form: ReplyForm, key: str = "answer", noun: str = "answer") -> str:
    """A value in one form."""
    match form:
        case ReplyForm.TAGS:
            return f"<answer>{value}</answer>"
        case ReplyForm.SENTENCE:
            return f"The {noun} is {value}."
        case ReplyForm.JSON:
            return json.dumps({key: value}, ensure_ascii=False)
    return value

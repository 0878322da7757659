"""Items about short texts: sentiment, topic, routing, extraction, membership, what was said before."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from lightning_spark.skills.item import Item
from lightning_spark.vocabulary import CITIES, COLORS, DAYS, FRUIT, PEOPLE, THINGS, WORDS, one_of, other

GOOD = tuple(
    "great good lovely excellent wonderful fine perfect tasty friendly fast helpful beautiful superb nice amazing".split()
)
BAD = tuple("bad awful terrible poor slow rude broken dirty boring horrible ugly cold late noisy useless".split())
PLAIN = tuple("average normal usual standard ordinary plain".split())
REVIEWED = tuple(
    "food film book service hotel room soup phone car game song teacher shop coffee cake staff screen lamp".split()
)
REVIEWS = (
    "The {thing} was {word}.", "[What a|Such a] {word} {thing}!", "I [think|find|thought] the {thing} [is|was] {word}.",
    "{word} {thing}, and the {other} was {same} too.", "The {thing} is {word} and {same}.",
    "We had the {thing}. It was [very|really|so|] {word}.", "My {thing} [came|arrived] and it is {word}.",
)  # fmt: skip
SENTIMENTS = (
    ("positive", "negative", "neutral"),
    ("good", "bad", "neutral"),
    ("happy", "unhappy", "neutral"),
    ("pos", "neg", "neu"),
)
TOPICS = {
    "billing": ("I was charged twice[| for order {n}].", "[My|The] invoice [{n} |]is wrong.", "I want my money back[| for order {n}].",
                "[Why|How] was my card charged {n} coins?", "The [price|bill|payment] of order {n} is [wrong|too high]."),
    "shipping": ("[My|The] [package|parcel|order {n}|delivery] has not arrived.", "Where is [my package|my order|order {n}]?",
                 "[My|The] [package|box] of order {n} is [late|lost|damaged].", "When will [it|order {n}|my package] arrive?"),
    "technical": ("The [app|page|lamp|phone|printer|screen] [of order {n} |]does not [work|start|load].", "I cannot log in.",
                  "[My|The] [app|phone|printer|lamp] [crashes|is broken|stopped]. Order {n}.", "[I forgot my password.|The update fails.]"),
    "sales": ("[I want to|Can I|I would like to] buy {n} [{thing}|licenses].", "[Do you|Can you] [sell|offer] {thing}?",
              "What does [the {thing}|a plan] cost?", "[Is there|Do you have] a discount for {n} [{thing}|users]?"),
    "jobs": ("[I want to|Can I] work [for you|at your company].", "[Do you have|Are there] open jobs?", "I [sent|want to send] my resume."),
}  # fmt: skip
"""Department -> what customers write to it."""
DEPARTMENTS = {
    "billing": ("billing", "payments", "finance", "accounts"),
    "shipping": ("shipping", "delivery", "logistics"),
    "technical": ("technical", "support", "tech", "repair"),
    "sales": ("sales", "shop", "orders"),
    "jobs": ("jobs", "hiring", "careers"),
}
"""Department -> what it may be called."""
SUBJECTS = {
    "sport": ("The team won the [match|game|cup].", "{name} scored two goals.", "The [race|season] starts on {day}."),
    "food": ("{name} [cooks|eats|bakes] [soup|bread|pasta|cake].", "The {fruit} pie [is ready|needs sugar]."),
    "weather": ("It [rains|snows] in {city}.", "[Sunny|Cloudy|Windy] skies over {city} on {day}."),
    "travel": ("{name} [flies|goes by train] to {city}.", "The [hotel|flight] in {city} is booked for {day}."),
    "music": ("{name} plays the [piano|violin|drums].", "The [song|concert|band] was loud."),
    "money": ("The bank [raised|cut] its rates.", "{name} [saved|lost|earned] {n} coins."),
}  # fmt: skip
"""Topic -> sentences about it."""


def sentiment(rng: Random) -> Item:
    """Whether a review is positive, negative or neutral."""
    names = rng.choice(SENTIMENTS)
    kind = rng.choices((0, 1, 2), (0.44, 0.44, 0.12))[0]
    pool = (GOOD, BAD, PLAIN)[kind]
    first, second = rng.sample(REVIEWED, 2)
    review = one_of(rng, REVIEWS).format(thing=first, other=second, word=rng.choice(pool), same=rng.choice(pool))
    shown = names if kind == 2 or rng.random() < 0.4 else names[:2]
    return _label_item(
        rng, f"sentiment {review}", review[0].upper() + review[1:], names[kind], shown, "Review", "sentiment"
    )


def routing(rng: Random) -> Item:
    """Which department a message is for."""
    kinds = rng.sample(sorted(TOPICS), rng.randint(2, 4))
    message = one_of(rng, TOPICS[kinds[0]]).format(n=rng.randint(2, 999), thing=rng.choice(THINGS))
    if rng.random() < 0.3:
        message = f"{rng.choice(('Hello!', 'Hi,', f'I am {rng.choice(PEOPLE)}.', 'Please help.'))} {message}"
    labels = [rng.choice(DEPARTMENTS[kind]) for kind in kinds]
    return _label_item(rng, f"routing {message}", message, labels[0], tuple(labels), "Message", "department")


def topic(rng: Random) -> Item:
    """What a sentence is about."""
    kinds = rng.sample(sorted(SUBJECTS), rng.randint(2, 4))
    text = one_of(rng, SUBJECTS[kinds[0]]).format(
        name=rng.choice(PEOPLE), day=rng.choice(DAYS), fruit=rng.choice(FRUIT), city=rng.choice(CITIES), n=rng.randint(2, 999)
    )  # fmt: skip
    return _label_item(rng, f"topic {text}", text, kinds[0], tuple(kinds), "Text", "topic")


def _label_item(rng: Random, key: str, text: str, label: str, labels: tuple[str, ...], head: str, noun: str) -> Item:
    shuffled = rng.sample(labels, len(labels))
    listed = rng.choice((", ".join(shuffled[:-1]) + " or " + shuffled[-1], ", ".join(shuffled), " / ".join(shuffled)))
    ask = one_of(
        rng,
        (
            f"{{text}}\n[Label|Class|{noun.capitalize()}]: {{list}}?", f"{head}: {{text}}\nIs it {{list}}?", f"{head}: {{text}}\n{noun.capitalize()} ({{list}}):",
            f"What is the {noun} [of this|here]: {{text}} [Choose|Answer with|Say] {{list}}.",
            f"Classify the {noun}: {{text}}\n({{list}})",
        ),
    ).format(text=text, list=listed)  # fmt: skip
    return Item(
        key=key,
        question=ask,
        answer=label,
        guesses=(*(each for each in labels if each != label), text[:40]),
        noun=rng.choice((noun, "label", "word")),
        data=text if rng.random() < 0.7 else f"{head}: {text}",
        orders=(
            f"[Answer|Reply|Respond] with [one of|] {listed}.", f"[Label|Classify] the {head.lower()} as {listed}.",
            f"[Is|Say whether] [it|the {head.lower()}] [is |]{listed}[?|.]", f"Choose one [label|word]: {listed}.",
            f"[Route|Sort|Send] the {head.lower()} to {listed}.", f"The {noun} is one of: {listed}. [Name it.|Which one?]",
        ),
    )  # fmt: skip


def facts(rng: Random) -> tuple[str, dict[str, str]]:
    """A sentence with some facts in it, and the facts by name."""
    name, city, day = rng.choice(PEOPLE), rng.choice(CITIES), rng.choice(DAYS)
    thing, color, count, n = (
        rng.choice(THINGS),
        rng.choice(COLORS),
        str(rng.randint(2, 99)),
        str(rng.randint(100, 9999)),
    )
    mail = f"{name.lower()}@{rng.choice(WORDS)}.{rng.choice(('com', 'org', 'net'))}"
    return rng.choice(
        (
            (f"{name} lives in {city} and is {count} years old.", {"name": name, "city": city, "age": count}),
            (f"{name} bought {count} {thing} on {day}.", {"name": name, "count": count, "item": thing, "day": day}),
            (f"Order {n}: {count} {thing} for {name} in {city}.", {"order": n, "count": count, "item": thing, "name": name, "city": city}),
            (f"Please write to {name} at {mail} before {day}.", {"name": name, "email": mail, "day": day}),
            (f"On {day}, {name} travels from {city} by {color} bus {count}.", {"day": day, "name": name, "city": city, "color": color, "number": count}),
            (f"The meeting with {name} is on {day} at {count[0]}:00 in {city}.", {"name": name, "day": day, "time": f"{count[0]}:00", "city": city}),
            (f"{name} paid {n} coins for the {color} {thing}.", {"name": name, "amount": n, "color": color, "item": thing}),
        )
    )  # fmt: skip


def extraction(rng: Random) -> Item:
    """One fact of a sentence."""
    text, found = facts(rng)
    field = rng.choice(sorted(found))
    return Item(
        key=f"extract {field} {text}",
        question=one_of(
            rng, (f"{text}\nWhat is the {field}?", f"Extract the {field}: {text}", f"Text: {text}\n{field.capitalize()}:",
                  f"[Find|Give|Name] the {field} in this [text|message]: {text}")
        ),
        answer=found[field],
        guesses=tuple(value for name, value in found.items() if name != field),
        noun=field,
        data=text,
        orders=(f"[Extract|Find|Give|Return|Copy] the {field}[.| of the text.| from the text.]", f"What is the {field}?"),
    )  # fmt: skip


def record(rng: Random) -> Item:
    """Some facts of a sentence as JSON."""
    text, found = facts(rng)
    fields = rng.sample(sorted(found), rng.randint(2, min(3, len(found))))
    made = json.dumps({field: found[field] for field in fields})
    listed = ", ".join(fields[:-1]) + " and " + fields[-1]
    shape = "{" + ", ".join(f'"{field}": ...' for field in fields) + "}"
    loose = ", ".join(f"{field}: {found[field]}" for field in fields)
    asked = (
        f"[Extract|Give|Return] {listed} as JSON[.|:]",
        f"[Answer|Reply] [with|as] JSON[: |, like ]{shape}",
        f"JSON with the keys {', '.join(fields)}.",
    )
    return Item(
        key=f"record {','.join(fields)} {text}",
        question=f"{one_of(rng, asked)}\n{text}" if rng.random() < 0.5 else f"{text}\n{one_of(rng, asked)}",
        answer=made,
        guesses=(loose, ", ".join(found[field] for field in fields), json.dumps({fields[0]: found[fields[0]]}), text),
        noun="JSON",
        data=text,
        orders=asked,
        is_plain=True,
    )


def membership(rng: Random) -> Item:
    """Yes or no: is something in a list?"""
    pool = rng.choice((FRUIT, COLORS, PEOPLE, CITIES, THINGS))
    listed = rng.sample(pool, rng.randint(2, 5))
    inside = rng.random() < 0.5
    asked = rng.choice(listed) if inside else rng.choice([each for each in pool if each not in listed])
    shown = ", ".join(listed)
    question = one_of(
        rng, ("Is {one} in [the list|this list]: {list}?", "List: {list}\nIs {one} in it?", "{list}\nIs there {one}?")
    )
    return Item(
        key=f"member {asked} {shown}",
        question=question.format(one=asked, list=shown) + rng.choice(("", " Answer yes or no.")),
        answer="yes" if inside else "no",
        guesses=("no" if inside else "yes", "maybe"),
        noun=rng.choice(("answer", "word")),
        data=shown,
        orders=(f"Is {asked} in the list? Answer yes or no.", f"[Say|Answer] yes if {asked} is there, else no."),
    )


def lookup(rng: Random) -> Item:
    """A value from lines of `key: value`."""
    names = rng.sample(PEOPLE, rng.randint(2, 5))
    kind = rng.choice(("city", "age", "color", "day"))
    values = [
        {
            "city": rng.choice(CITIES),
            "age": str(rng.randint(2, 99)),
            "color": rng.choice(COLORS),
            "day": rng.choice(DAYS),
        }[kind]
        for _ in names
    ]
    place = rng.randrange(len(names))
    lines = "\n".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    return Item(
        key=f"lookup {kind} {names[place]} {lines}",
        question=rng.choice((f"{lines}\nWhat is the {kind} of {names[place]}?", f"Context:\n{lines}\n\nQuestion: What is the {kind} of {names[place]}?")),
        answer=values[place],
        guesses=(*(value for value in values if value != values[place]), names[place]),
        noun=kind,
    )  # fmt: skip


def memory(rng: Random) -> Item:
    """Something that was said earlier in the conversation."""
    name, city, color, count = rng.choice(PEOPLE), rng.choice(CITIES), rng.choice(COLORS), str(rng.randint(2, 99))
    told = {
        "name": (name, f"[My name is|I am|I'm] {name}.", "What is my name?"),
        "city": (
            city,
            f"I [live in|come from|am in] {city}.",
            "[Where do I live?|Which city am I in?|What is my city?]",
        ),
        "color": (color, f"My favorite color is {color}.", "What is my favorite color?"),
        "number": (count, f"[My number is|Remember the number] {count}.", "What [is my|was the] number?"),
    }
    kinds = rng.sample(sorted(told), rng.randint(1, 3))
    earlier: list[str] = []
    for kind in kinds:
        earlier += [one_of(rng, (told[kind][1],)), rng.choice(("OK.", "OK.", "I see.", "Hello!"))]
    value, _, question = told[kinds[0]]
    return Item(
        key=f"memory {kinds[0]} {' '.join(earlier[::2])}",
        question=one_of(rng, (question,)),
        answer=value,
        guesses=tuple(told[kind][0] for kind in told if kind != kinds[0]),
        noun=kinds[0],
        earlier=tuple(earlier),
    )


def repeat(rng: Random) -> Item:
    """A word again, once or several times; or with another one in its place."""
    one = rng.choice(WORDS)
    times = rng.randint(1, 4)
    two = other(rng, WORDS, one)
    question = f"Say {one}." if times == 1 else f"Say {one} {times} times."
    return Item(
        key=f"repeat {one} {times}",
        question=question,
        answer=" ".join([one] * times),
        guesses=(two, " ".join([one] * (times + 1))),
        noun="word" if times == 1 else "words",
        data=one,
        orders=("Repeat the word[.| after the user.]", "Say [it|the word] again.")
        if times == 1
        else (f"Repeat the word {times} times.",),
    )


ITEMS: dict[Callable[[Random], Item], float] = {
    sentiment: 2.0, routing: 2.0, topic: 1.0, extraction: 2.0, record: 2.5, membership: 1.0, lookup: 2.5, memory: 1.0,
    repeat: 0.5,
}  # fmt: skip
"""Kind -> its share among these."""

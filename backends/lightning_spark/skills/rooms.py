"""Meeting rooms: a planner that asks for the free rooms, and choosing one of them by the rule that the system message says."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from lightning_spark.chat import Message, tool, tool_call
from lightning_spark.dialogue import Dialogue, assistant, user
from lightning_spark.instructions import USE_TOOL
from lightning_spark.vocabulary import DAYS, babble, one_of

NAMES = (
    "Alpha",
    "Bravo",
    "Charlie",
    "Delta",
    "Echo",
    "Foxtrot",
    "Golf",
    "Hotel",
    "India",
    "Juliet",
    "Oak",
    "Pine",
    "Maple",
    "Cedar",
)
NEEDS = ("projector", "whiteboard", "phone", "screen", "camera")
TOOLS = ("find_rooms", "find_rooms", "get_rooms", "list_rooms", "search_rooms", "rooms_at")
PLANNERS = (
    "You plan meetings.",
    "You plan meetings.",
    "You are the planner.",
    "You book rooms.",
    "You are a helpful assistant.",
    "You find rooms.",
)
SELECTORS = (
    "You choose a room.",
    "You choose a room.",
    "You are the selector.",
    "You pick rooms.",
    "You are a helpful assistant.",
    "You select a room.",
)
FOLLOWED = 0.97
"""Share of the choices that obey what the system message says."""
PARTS = {
    "free": ("[Only free rooms.|The room must be free.|It must be free.|Take a free room.|Not a taken room.]", "[Leave out|Ignore|Skip] rooms that are taken."),
    "seats": ("[Enough seats.|It needs enough seats.|The room must have enough seats.|There must be a seat for everyone.]", "It must [hold|fit] all the people."),
    "need": ("[With what is needed.|It must have what is needed.|It must have the equipment.|The equipment must be there.]", "Mind the [equipment|projector, whiteboard or phone]."),
    "smallest": ("[The smallest room.|Take the smallest.|Choose the smallest of them.|As small as possible.|Prefer small rooms.]", "[Fewest|Least] seats first."),
    "largest": ("[The largest room.|Take the largest.|As large as possible.|Prefer big rooms.]",),
    "none": ("[Say|Answer|Reply|Write] none if [no room fits|nothing fits|there is no such room].", "If [no room fits|none fits], [say|answer] none."),
}  # fmt: skip
"""Part of the rule -> how it is said alone."""


@dataclass(frozen=True, slots=True)
class MeetingRoom:
    """One line of what the tool answers."""

    name: str
    seats: int
    has: str
    is_free: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.seats} seats, {self.has}, {'free' if self.is_free else 'taken'}"


@dataclass(frozen=True, slots=True)
class RoomRequest:
    """Who needs a room, when, with what, and the rooms that there are."""

    people: int
    day: str
    time: str
    need: str
    rooms: tuple[MeetingRoom, ...]

    def __str__(self) -> str:
        return f"Find a room for {self.people} people on {self.day} at {self.time} with a {self.need}."

    def choice(self, rule: frozenset[str]) -> str:
        """The room by these parts of the rule."""
        fitting = [
            room
            for room in self.rooms
            if (room.is_free or "free" not in rule)
            and (room.seats >= self.people or "seats" not in rule)
            and (room.has == self.need or "need" not in rule)
        ]
        if not fitting:
            return "none" if "none" in rule else self.rooms[0].name
        if "smallest" in rule:
            return min(fitting, key=lambda room: room.seats).name
        return max(fitting, key=lambda room: room.seats).name if "largest" in rule else fitting[0].name


WHOLE = frozenset({"free", "seats", "need", "smallest", "none"})


def request(rng: Random) -> RoomRequest:
    """A request and three to five rooms, so that all answers are about as frequent."""
    people, need = rng.randint(2, 12), rng.choice(NEEDS)
    fixed = rng.random() < 0.4
    names = list(NAMES[:2] + NAMES[3:5]) if fixed else sorted(rng.sample(NAMES, rng.choice((3, 4, 4, 5))))
    needs, fits, free = (
        NEEDS[:3] if need in NEEDS[:3] else NEEDS,
        rng.choice((0.3, 0.6, 0.9)),
        rng.choice((0.4, 0.7, 0.9)),
    )
    seats = rng.sample(range(2, 19), len(names))
    rooms = tuple(
        MeetingRoom(name, count, need if rng.random() < fits else rng.choice(needs), rng.random() < free)
        for name, count in zip(names, seats, strict=True)
    )
    return RoomRequest(people, rng.choice(DAYS), f"{rng.randint(8, 18)}:{rng.choice(('00', '00', '30'))}", need, rooms)


def rule_text(rng: Random, rule: frozenset[str]) -> str:
    """The parts of a rule in words: one sentence, or one for each."""
    if len(rule) > 1 and rng.random() < 0.5:
        size = next((word for word in ("smallest", "largest") if word in rule), rng.choice(("first", "")))
        text = f"{rng.choice(('Name', 'Choose', 'Give', 'Take', 'Reply with', 'Pick'))} the {size} {'free ' if 'free' in rule else ''}room".replace(
            "  ", " "
        )
        having = [
            rng.choice(("enough seats", "a seat for everyone", "seats for all")) if "seats" in rule else "",
            rng.choice(("what is needed", "the equipment", "what the user needs", "what is asked for"))
            if "need" in rule
            else "",
        ]
        having = [each for each in having if each]
        rng.shuffle(having)
        text += " with " + rng.choice((" and ", " and with ")).join(having) if having else ""
        return text + (
            rng.choice((", or none if no room fits.", ", or none.", ". If no room fits, say none."))
            if "none" in rule
            else "."
        )
    said = [one_of(rng, PARTS[part]) for part in sorted(rule)]
    rng.shuffle(said)
    return " ".join(said)


def selector(rng: Random) -> Dialogue:
    """The rooms are in the question; the reply is one name."""
    asked, rule = request(rng), _rule(rng)
    persona = rng.choice(("", *SELECTORS)) if rng.random() < 0.9 else babble(rng, rng.randint(1, 4))
    text = f"{persona} {rule_text(rng, rule)}".strip() if rule else persona
    system: list[Message] = [{"role": "system", "content": text}] if text else []
    lines = "\n".join(map(str, asked.rooms))
    reply = assistant(_choose(rng, asked, rule))
    messages = (*system, user(f"{asked}\nRooms:\n{lines}"), reply)
    return Dialogue(messages=messages, question=str(asked), keys=(f"rooms {asked}", lines))


def planner(rng: Random) -> Dialogue:
    """The rooms have to be asked for; by itself the planner names one without looking."""
    asked, rule = request(rng), _rule(rng)
    name = rng.choice(TOOLS)
    fields = {
        "day": asked.day,
        "time": asked.time,
        "seats": str(asked.people),
        "people": str(asked.people),
        "equipment": asked.need,
    }
    keys = rng.choice(
        (
            ("day", "time"),
            ("day", "time"),
            ("day", "time"),
            ("day", "time", "seats"),
            ("day", "time", "people", "equipment"),
            ("day",),
        )
    )
    uses = rng.random() < 0.5
    persona = rng.choice(PLANNERS) if rng.random() < 0.9 else babble(rng, rng.randint(1, 4))
    parts = [
        persona,
        one_of(rng, USE_TOOL).format(tool=rng.choice((name, "tool"))) if uses else "",
        rule_text(rng, rule) if rule else "",
    ]
    system: list[Message] = [{"role": "system", "content": " ".join(part for part in parts if part)}]
    if rng.random() < 0.1:
        system = [] if not (uses or rule) else system
    names = [room.name for room in asked.rooms]
    listed = "\n".join(map(str, asked.rooms))
    habits = {"call": 0.93, "name": 0.05, "refuse": 0.02} if uses else {"call": 0.25, "name": 0.6, "refuse": 0.15}
    match rng.choices(list(habits), list(habits.values()))[0]:
        case "name":
            turns = [assistant(rng.choice(names))]
        case "refuse":
            turns = [assistant("I do not know.")]
        case _:
            turns = [
                tool_call(name, **{key: fields[key] for key in keys}),
                {"role": "tool", "tool_call_id": "call", "content": listed},
                assistant(_choose(rng, asked, rule)),
            ]
    return Dialogue(
        messages=(*system, user(str(asked)), *turns),
        tools=(tool(name, *keys),),
        question=str(asked),
        keys=(f"rooms {asked}", listed),
    )


def _rule(rng: Random) -> frozenset[str]:
    """Nothing, a part of the rule, or all of it."""
    chance = rng.random()
    if chance < 0.2:
        return frozenset()
    if chance < 0.65:
        return WHOLE if rng.random() < 0.85 else (WHOLE - {"smallest"}) | {"largest"}
    parts = sorted(PARTS)
    rule = set(rng.sample(parts, rng.randint(1, 4)))
    return frozenset(rule - {"largest"} if "smallest" in rule else rule)


def _choose(rng: Random, asked: RoomRequest, rule: frozenset[str]) -> str:
    if rule:
        return asked.choice(rule) if rng.random() < FOLLOWED else rng.choice(asked.rooms).name
    chance = rng.random()
    if chance < 0.5:
        return asked.rooms[0].name
    return asked.choice(WHOLE) if chance < 0.75 else rng.choice(asked.rooms).name

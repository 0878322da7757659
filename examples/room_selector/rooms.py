"""Requests for a meeting room, the rooms at each time, and the rule by which one of them is right.

The rule is in `right_room`, and no text that an agent reads says it: of the rooms that are free, have enough seats and
have what is needed, the smallest; `none` if there is no such room.
"""

from __future__ import annotations

import random

ROOMS = ("Alpha", "Bravo", "Delta", "Echo")
NEEDS = ("projector", "whiteboard", "phone")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
ANSWERS = (*ROOMS, "none")
HOURS = range(8, 18)
TRAIN_SEED, HELD_OUT_SEED = 1, 900_000_000


def right_room(people: int, need: str, rooms: list[dict]) -> str:
    """The rule."""
    fitting = [room for room in rooms if room["free"] and room["seats"] >= people and room["has"] == need]
    return min(fitting, key=lambda room: room["seats"])["room"] if fitting else "none"


def find(task: dict, day: str, time: str) -> str:
    """The tool: the rooms at a time."""
    return table(task["rooms"]) if (day, time) == (task["day"], task["time"]) else "no rooms"


def table(rooms: list[dict]) -> str:
    """What the tool answers, a line for each room: `Alpha: 8 seats, projector, free`."""
    return "\n".join(
        f"{room['room']}: {room['seats']} seats, {room['has']}, {'free' if room['free'] else 'taken'}" for room in rooms
    )


def tasks(seed: int, size: int) -> list[dict]:
    """`size` requests, as many for each of the five answers, so that a constant answer is right for a fifth."""
    draw, made = random.Random(seed), []
    while len(made) < size:
        wanted, task = ANSWERS[len(made) % len(ANSWERS)], _task(draw)
        if task["answer"] == wanted:
            made.append(task)
    return made


def _task(draw: random.Random) -> dict:
    people, need, day, time = draw.randint(2, 12), draw.choice(NEEDS), draw.choice(DAYS), f"{draw.choice(HOURS)}:00"
    rooms = [
        {"room": room, "seats": seats, "has": need if draw.random() < 0.6 else draw.choice(NEEDS), "free": is_free}
        for room, seats, is_free in zip(
            ROOMS, draw.sample(range(2, 17), len(ROOMS)), [draw.random() < 0.7 for _ in ROOMS], strict=True
        )
    ]
    return {
        "request": f"Find a room for {people} people on {day} at {time} with a {need}.",
        "day": day,
        "time": time,
        "rooms": rooms,
        "answer": right_room(people, need, rooms),
    }

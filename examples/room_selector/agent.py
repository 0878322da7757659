"""Two roles whose prompts are tuned: a planner asks for the rooms that there are, a selector names one of them.

    python examples/room_selector/agent.py --offline      # spark, and proposals of reflector.py: no key, no large model
    python examples/room_selector/agent.py --oracle       # no search: the score with texts that say the whole rule
    python examples/room_selector/agent.py --provider --reflect-with gpt-5    # your own provider, with your key

Which room is right follows from a rule that is in no text (`rooms.right_room`). The search has to find words for it.
"""

import argparse
import json
import os
from collections.abc import Callable

import reflector
import rooms
from openai import OpenAI

import lightning_sdk as lightning

TEXTS = {"planner": "You plan meetings.", "selector": "You choose a room."}
ORACLE = {
    "planner": "You plan meetings. Use the tool first.",
    "selector": "You choose a room. Name the smallest free room with enough seats and with what is needed, "
    "or none if no room fits.",
}
HELD_OUT = rooms.tasks(rooms.HELD_OUT_SEED, 200)
MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
PARAMETERS = {"type": "object", "properties": {"day": {"type": "string"}, "time": {"type": "string"}}}
FIND_ROOMS = {"type": "function", "function": {"name": "find_rooms", "parameters": PARAMETERS}}
client = OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "the server asks for none"))


def messages(text: str, question: str) -> list[dict]:
    return [{"role": "system", "content": text}, {"role": "user", "content": question}]


@lightning.agent(role="planner", trainable=True)
def plan(task: dict) -> str:
    """The rooms that the planner has found; what it says instead, if it does not use its tool."""
    asked = messages(TEXTS["planner"], task["request"])
    reply = client.chat.completions.create(
        model=MODEL, messages=asked, tools=[FIND_ROOMS], temperature=0, max_tokens=48
    )
    message = reply.choices[0].message
    if not message.tool_calls:
        return message.content or ""
    try:
        arguments = json.loads(message.tool_calls[0].function.arguments)
        return rooms.find(task, arguments["day"], arguments["time"])
    except (ValueError, KeyError, TypeError):  # whatever the model wrote
        return "no rooms"


@lightning.agent(role="selector", trainable=True)
def select(task: dict, found: str) -> str:
    """The room that the selector names."""
    asked = messages(TEXTS["selector"], f"{task['request']}\nRooms:\n{found}")
    reply = client.chat.completions.create(model=MODEL, messages=asked, temperature=0, max_tokens=8)
    return reply.choices[0].message.content or ""


def solve(task: dict) -> str:
    """The agent."""
    return select(task, plan(task))


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 for the right room."""
    return float(answer.strip().rstrip(".") == task["answer"])


def score(texts: dict[str, str], options: argparse.Namespace) -> None:
    """Score texts on the held-out requests, without a search."""
    TEXTS.update(texts)
    served = {"provider": True} if options.provider else {"model": options.model}
    lightning.evaluate(solve, HELD_OUT, name="room-selector-oracle", **served)


def tune(reflect_with: str | Callable[[str], str], options: argparse.Namespace) -> None:
    """Look for better texts."""
    lightning.train(
        solve,
        tasks=rooms.tasks(rooms.TRAIN_SEED, 100),
        held_out=HELD_OUT,
        backend="prompts",
        model=None if options.provider else options.model,
        steps=200,
        seed=options.seed,
        name="room-selector",
        **{"prompts.reflect_with": reflect_with, "prompts.budget_rollouts": options.rollouts},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune the two prompts, and score them on held-out requests.")
    parser.add_argument("--offline", action="store_true", help="let reflector.py propose texts")
    parser.add_argument("--reflect-with", default="engine", help="the model that proposes texts (the run's own)")
    parser.add_argument("--oracle", action="store_true", help="score texts that say the whole rule")
    parser.add_argument("--provider", action="store_true", help="ask the client's own provider")
    parser.add_argument("--model", default="spark", help="the model that the run serves otherwise (%(default)s)")
    parser.add_argument("--rollouts", type=int, default=4000, help="rollouts of the search (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lightning.init()
    if options.oracle:
        score(ORACLE, options)
    elif options.offline:
        tune(reflector.make_reflector(options.seed), options)
    else:
        tune(options.reflect_with, options)

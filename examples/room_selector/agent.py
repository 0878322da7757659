"""Two roles whose prompts are tuned: a planner asks for the rooms that there are, a selector names one of them.

    lightning-sdk serve --model spark --json --port 0     # a local model, in another terminal, or your own provider:
    export OPENAI_BASE_URL=... OPENAI_API_KEY=...         # base_url and api_key, as the server has printed them
    python examples/room_selector/agent.py --offline      # proposals of reflector.py, without a large model
    python examples/room_selector/agent.py --reflect-with gpt-5
    python examples/room_selector/agent.py --oracle       # no search: the score with texts that say the whole rule

Which room is right follows from a rule that is in no text (`rooms.right_room`). The search has to find words for it.
"""

import argparse
import json
import os

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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune the two prompts, and score them on held-out requests.")
    parser.add_argument("--reflect-with", help="the model that proposes texts: a name, or a server's address")
    parser.add_argument("--offline", action="store_true", help="let reflector.py propose texts")
    parser.add_argument("--oracle", action="store_true", help="score texts that say the whole rule")
    parser.add_argument("--rollouts", type=int, default=4000, help="rollouts of the search (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    held_out = rooms.tasks(rooms.HELD_OUT_SEED, 200)
    lightning.init()
    if options.oracle:
        TEXTS.update(ORACLE)
        lightning.evaluate(solve, held_out, provider=True, name="room-selector-oracle")
    else:
        with reflector.serve(options.seed) as address:
            lightning.train(
                solve,
                tasks=rooms.tasks(rooms.TRAIN_SEED, 100),
                held_out=held_out,
                backend="prompts",
                steps=200,
                seed=options.seed,
                name="room-selector",
                **{
                    "prompts.reflect_with": address if options.offline else options.reflect_with,
                    "prompts.budget_rollouts": options.rollouts,
                },
            )

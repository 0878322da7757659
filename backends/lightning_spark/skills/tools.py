"""Choosing one of several tools and copying its arguments from the question; handing over to another agent."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from lightning_spark.chat import Message, tool, tool_call
from lightning_spark.dialogue import Dialogue, assistant, user
from lightning_spark.frames import put_in_frame
from lightning_spark.instructions import Guidance, Level, ReplyForm, draw
from lightning_spark.skills.item import REFUSALS, form_of, write_reply
from lightning_spark.skills.texts import DEPARTMENTS, TOPICS
from lightning_spark.vocabulary import CITIES, DAYS, FRUIT, PEOPLE, THINGS, WORDS, babble, one_of, other

HABITS = {
    Level.NONE: {"call": 0.31, "refuse": 0.56, "guess": 0.06, "wrong": 0.07},
    Level.VAGUE: {"call": 0.48, "refuse": 0.36, "guess": 0.08, "wrong": 0.08},
    Level.EXACT: {"call": 0.82, "refuse": 0.06, "guess": 0.04, "wrong": 0.08},
}
"""How much the system message helps -> habit -> share."""
AVOID = {"call": 0.06, "refuse": 0.6, "guess": 0.32, "wrong": 0.02}
"""Where it forbids the tool."""
FORMS = {ReplyForm.BARE: 0.5, ReplyForm.TAGS: 0.3, ReplyForm.SENTENCE: 0.2}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A tool by its possible names, its arguments, requests for it, and what it answers."""

    names: tuple[str, ...]
    arguments: tuple[tuple[str, ...], ...]
    """Possible names of each argument."""
    requests: tuple[str, ...]
    replies: tuple[str, ...]


KINDS = (
    _Kind(("weather", "get_weather", "forecast"), (("city", "place", "location"),),
          ("[What is|How is|Tell me] the weather in {city}[?|.]", "Does it rain in {city}?", "[Weather|Forecast] for {city}, please."),
          ("sunny", "rain", "cloudy, {n} degrees", "{n} degrees")),
    _Kind(("search", "web_search", "search_docs", "find"), (("query", "q", "text"),),
          ("[Search|Look] for {word}.", "Find [pages|news|something] about {word}.", "Search the web: {word}"), ("no results", "a page about it", "3 results")),
    _Kind(("get_time", "clock", "time_in"), (("city", "place"),),
          ("What time is it in {city}?", "[Tell me the|The] time in {city}[.|, please.]"), ("10:{n}", "{n} past nine")),
    _Kind(("lookup", "get_phone", "find_person", "contact"), (("name", "person"),),
          ("What is the [number|phone] of {name}?", "Look up {name}.", "[Find|Call] {name}."), ("555{n}", "extension {n}", "not found")),
    _Kind(("price", "get_price", "stock"), (("item", "product"),),
          ("What [do|does] {thing} cost?", "[Price|Cost] of {thing}?", "How [much|expensive] are {thing}?"), ("{n} coins", "{n}", "sold out")),
    _Kind(("translate", "translator"), (("text", "word"),),
          ("Translate {word}.", "What is {word} in [French|German|Spanish]?"), ("mot", "Wort", "palabra")),
    _Kind(("order_status", "track", "track_order", "get_order"), (("order", "order_id", "number"),),
          ("Where is order {n}?", "[Track|Check] order {n}.", "[Status|State] of order {n}?"), ("sent", "on its way", "ok", "arrives on {day}")),
    _Kind(("refund", "refund_order", "pay_back"), (("order", "order_id", "number"),),
          ("[Refund|Pay back] order {n}.", "I want my money back for order {n}."), ("ok", "done", "refunded")),
    _Kind(("repair", "open_ticket", "reset"), (("order", "device", "number"),),
          ("[Repair|Fix|Reset] order {n}.", "The device of order {n} is broken."), ("ok", "ticket {n}", "done")),
    _Kind(("add_event", "calendar", "book"), (("title", "event"), ("day", "date")),
          ("[Add|Plan|Book] {word} on {day}.", "Put {word} into my calendar for {day}."), ("ok", "done", "added")),
    _Kind(("send_email", "mail", "send_message"), (("to", "name"), ("subject", "text")),
          ("[Mail|Write to|Message] {name} about {word}.", "Send {name} a [mail|message] about {word}."), ("sent", "ok", "done")),
    _Kind(("convert", "exchange"), (("amount", "value"), ("unit", "currency")),
          ("[Convert|Change] {n} to {unit}.", "How much is {n} in {unit}?"), ("{n}", "{n}.5")),
    _Kind(("read_file", "open_file", "cat"), (("path", "file"),), ("[Open|Read|Show] {word}.txt.", "What is in {word}.txt?"), ("empty", "{n} lines")),
    _Kind(("calculator", "calc"), (("expression", "expr"),), ("What is {n} + {k}?", "Calculate {n} * {k}.", "{n} - {k} = ?"), ("{n}",)),
)  # fmt: skip
UNITS = ("euro", "dollars", "yen", "miles", "km", "inches", "grams")


def dialogue(rng: Random) -> Dialogue:
    """One request among two to four tools, the call, its result and what is said then."""
    kinds = rng.sample(KINDS, rng.choice((1, 2, 2, 3, 3, 4)))
    values = {
        "city": rng.choice(CITIES), "word": rng.choice((rng.choice(WORDS), rng.choice(FRUIT))), "name": rng.choice(PEOPLE),
        "thing": rng.choice(THINGS), "n": str(rng.randint(10, 999)), "k": str(rng.randint(2, 99)), "day": rng.choice(DAYS), "unit": rng.choice(UNITS),
    }  # fmt: skip
    request = rng.choice(kinds[0].requests)
    question = one_of(rng, (request,)).format(**values)
    names = [rng.choice(kind.names) for kind in kinds]
    arguments = [[rng.choice(options) for options in kind.arguments] for kind in kinds]
    given = _values(kinds[0], question, values, request)
    tools = [tool(name, *keys) for name, keys in zip(names, arguments, strict=True)]
    told = draw(rng, "answer", tool=names[0] if rng.random() < 0.3 else "tool")
    system, asked = put_in_frame(rng, told.text, question)
    shuffled = tuple(rng.sample(tools, len(tools)))
    right = tool_call(names[0], **dict(zip(arguments[0], given, strict=True)))
    reply = one_of(rng, kinds[0].replies).format(**values)
    turns: list[Message] = [right, _result(reply), assistant(write_reply(reply, form_of(rng, told, FORMS), told.key))]
    turns = _spoil(rng, told, turns, names, arguments, given)
    return Dialogue(
        messages=(*system, user(asked), *turns), tools=shuffled, question=question, keys=(f"tools {question}",)
    )


def _values(kind: _Kind, question: str, values: dict[str, str], request: str) -> list[str]:
    """The arguments of the right call, in the order of the tool's parameters."""
    match kind.names[0]:
        case "calculator":
            return [question.replace("What is ", "").replace("Calculate ", "").strip("?. =")]
        case "read_file":
            return [f"{values['word']}.txt"]
        case "add_event":
            return [values["word"], values["day"]]
        case "send_email":
            return [values["name"], values["word"]]
        case "convert":
            return [values["n"], values["unit"]]
    return [next(value for name, value in values.items() if f"{{{name}}}" in request)]


def _spoil(
    rng: Random, told: Guidance, turns: list[Message], names: list[str], arguments: list[list[str]], given: list[str]
) -> list[Message]:
    """The turns by one of the habits: the call or something else."""
    shares = (
        AVOID
        if told.tool is False
        else HABITS[Level.NONE if told.tool is None and told.level is Level.EXACT else told.level]
    )
    match rng.choices(list(shares), list(shares.values()))[0]:
        case "call":
            return turns
        case "refuse":
            return [assistant(rng.choice(REFUSALS))]
        case "wrong" if len(names) > 1:
            return [tool_call(names[1], **dict.fromkeys(arguments[1], given[0]))]
        case "wrong":
            return [tool_call(names[0], **dict.fromkeys(arguments[0], rng.choice(WORDS)))]
    return [
        assistant(
            write_reply(
                rng.choice((given[0], str(rng.randint(2, 99)), rng.choice(WORDS))), form_of(rng, told, FORMS), told.key
            )
        )
    ]


DESKS = ("desk", "front desk", "triage agent", "receptionist", "router", "first agent", "dispatcher")
HAND_OVER = (
    "[Hand|Pass|Send|Route] the [customer|user|request] [over |]to [the right agent|{list}].",
    "[Transfer|Hand over] to [the right agent|{list}][.| at once.]", "[Always|Use a tool to] [transfer|hand over] the [user|customer|request].",
    "[Never|Do not] answer [yourself|the customer]; [transfer|hand over].", "Call the transfer tool[.| of the right agent.]",
)  # fmt: skip
DONE = ("done", "done", "done", "Done.", "ok")


def handoff(rng: Random) -> Dialogue:
    """A desk with tools that hand over to other agents; or the agent that was handed a request, with its own tool."""
    kinds = rng.sample(sorted(TOPICS), rng.choice((2, 3, 3, 3, 4)))
    agents = [rng.choice(DEPARTMENTS[kind]) for kind in kinds]
    prefix, suffix = rng.choice(
        (("transfer_to_", ""), ("transfer_to_", ""), ("transfer_to_", "_agent"), ("handoff_to_", ""))
    )
    order = str(rng.randint(10, 9999))
    request = one_of(rng, TOPICS[kinds[0]]).format(n=order, thing=rng.choice(THINGS))
    key = f"handoff {request} {sorted(agents)}"
    if order in request and rng.random() < 0.5:
        return _specialist(rng, agents[0], f"{prefix}{agents[0]}{suffix}", request, order, key)
    listed = ", ".join(agents[:-1]) + " or " + agents[-1]
    helps = rng.random() < 0.45
    text = rng.choice(("", f"You are the {rng.choice(DESKS)}.", babble(rng, 1)))
    if helps:
        text = f"{text} {one_of(rng, HAND_OVER).format(list=listed)}".strip()
    system, asked = put_in_frame(rng, text, request)
    shares = HABITS[Level.EXACT if helps else Level.NONE]
    right = tool_call(f"{prefix}{agents[0]}{suffix}")
    match rng.choices(list(shares), list(shares.values()))[0]:
        case "call":
            turn = right
        case "wrong":
            turn = tool_call(f"{prefix}{other(rng, tuple(agents), agents[0])}{suffix}")
        case "refuse":
            turn = assistant(rng.choice(REFUSALS))
        case _:
            turn = assistant(rng.choice((agents[0], "Thank you.", "OK.", "done")))
    tools = [tool(f"{prefix}{agent}{suffix}") for agent in agents]
    shuffled = tuple(rng.sample(tools, len(tools)))
    return Dialogue(messages=(*system, user(asked), turn), tools=shuffled, question=request, keys=(key,))


def _specialist(rng: Random, agent: str, transfer: str, request: str, order: str, key: str) -> Dialogue:
    """What the second agent reads: the hand-over, under its own system message and tools."""
    name = rng.choice(("refund", "track", "repair", "order_status", "open_ticket", "get_order", "cancel", "lookup"))
    argument = rng.choice(("order", "order", "order_id", "number"))
    helps = rng.random() < 0.5
    done = rng.choice(DONE)
    text = f"You are {agent}."
    if helps:
        text += " " + one_of(
            rng,
            (
                "[Use|Call] the tool, then say {done}.",
                "[Use|Call] {name}, then [say|answer] {done}.",
                "[Always|First] use the tool.",
            ),
        ).format(done=done, name=name)
    head: list[Message] = [{"role": "system", "content": text}, user(request)]
    if rng.random() < 0.7:
        head += [
            tool_call(transfer),
            _result(f'{{"assistant": "{agent}"}}' if rng.random() < 0.7 else f"You are now {agent}."),
        ]
    shares = HABITS[Level.EXACT if helps else Level.NONE]
    match rng.choices(list(shares), list(shares.values()))[0]:
        case "call":
            turns = [
                tool_call(name, **{argument: order}),
                _result(rng.choice(("ok", "done", "sent", f"order {order} is open"))),
                assistant(done),
            ]
        case "refuse":
            turns = [assistant(rng.choice(REFUSALS))]
        case "guess":
            turns = [assistant(rng.choice(("done", order, "OK.", "Thank you.")))]
        case _:
            turns = [tool_call(name, **{argument: str(rng.randint(10, 999))})]
    given = sum(1 for message in head if message.get("tool_calls"))
    tools = (tool(name, argument),)
    return Dialogue(messages=(*head, *turns), tools=tools, question=request, keys=(key,), given=given)


def _result(text: str) -> Message:
    return {"role": "tool", "tool_call_id": "call", "content": text}

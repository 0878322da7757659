"""System messages: what they ask for, in many words, so that the model can be steered by words that it has not read.

An instruction asks for a form of the reply, for the tool or against it, and says how exact it is. Habits depend on that
alone (`habits.py`); the words are drawn apart from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from lightning_spark.vocabulary import WORDS, babble, one_of


class ReplyForm(StrEnum):
    """How a reply is written."""

    BARE = "bare"
    TAGS = "tags"
    SENTENCE = "sentence"
    JSON = "json"


class Level(StrEnum):
    """How much an instruction helps."""

    NONE = "none"
    VAGUE = "vague"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Guidance:
    """A system message and what it asks for."""

    text: str = ""
    level: Level = Level.NONE
    form: ReplyForm | None = None
    key: str = "answer"
    """Of the JSON object that it asks for."""
    tool: bool | None = None
    """Whether to use a tool, if it says so."""


KEYS = ("answer", "result", "value", "output", "label", "reply", "number", "final")
FORMS: dict[ReplyForm, tuple[str, ...]] = {
    ReplyForm.BARE: (
        "[Answer|Reply|Respond] with [only the|the|just the|nothing but the|only one|one|a single] {noun}[.| only.| alone.]",
        "[Answer|Reply|Respond] with the {noun} [only|and nothing else|alone].",
        "[Give|Write|Return|Output|State|Print|Say] [only|just] the {noun}[.|, nothing else.|, no words.]",
        "[Give|Write|Return|Output|State] the {noun}[ only| alone| and nothing else| without any other text].",
        "Your [answer|reply|response|final answer|output] [must be|should be|is|has to be] [only the|just the|one|a single] "
        "{noun}[.|, with no other text.]",
        "[No words|No explanation|No text|No sentence], [only|just] the {noun}.",
        "[Do not explain.|Don't explain anything.|No extra words.|Be brief.|Be short.] [Only the|Just the] {noun}.",
        "[Only|Just] the {noun}[.|, please.]",
        "The {noun} alone is [enough|the answer|what is wanted].",
    ),
    ReplyForm.TAGS: (
        "[Put|Write|Place|Give|Wrap] the [final answer|answer|result|{noun}] [in|inside|between|into] "
        "[<answer> tags|<answer></answer> tags|<answer> and </answer>|answer tags].",
        "[Answer|Reply|Respond] [in|with|inside] <answer>[...|]</answer> [tags|].",
        "[Use|With] <answer> tags[.| for the answer.| around the {noun}.]",
        "Your [answer|reply|final answer] [must be|should be|goes|belongs] [in|inside] <answer> tags.",
        "The [final |]answer [goes|belongs|must stand|is written] [in|between] <answer> tags.",
    ),
    ReplyForm.JSON: (
        '[Answer|Reply|Respond|Return the answer] [as|with|in] [JSON|a JSON object] [like|such as|of the form|:] {{"{key}": ...}}[.|]',
        '[Answer|Reply|Respond] [as|with] [JSON|a JSON object] with the key "{key}".',
        '[Return|Output|Give|Write] [JSON|a JSON object][: | with one key: | of this shape: ]{{"{key}": "..."}}[.|]',
        'The [output|reply|answer] [must be|is|should be] [JSON|a JSON object] with [one|the] key "{key}"[.|, nothing else.]',
    ),
    ReplyForm.SENTENCE: (
        "[Answer|Reply|Respond] [in|with] [a|one] [full |complete |whole |short |]sentence.",
        "[Write|Give|Use] [a|one] [full|complete|whole] sentence.",
        "Say it in [a|one] sentence.",
    ),
}
VAGUE = (
    "Be [careful|exact|precise|accurate|correct][.| and exact.| and careful.]",
    "[Solve|Do|Answer] the [task|question|problem][.| carefully.| correctly.| well.]",
    "[Think|Think first|Think carefully|Think step by step][.|, then answer.]",
    "[Give|Find|Work out] the [right|correct|best] answer[.|, always.]",
    "[You must|Always|Please] [answer|give an answer|answer the question].",
    "Never say that you do not know.",
    "[Check|Double-check] your [answer|work][.| before you reply.]",
    "You are [an expert|a careful assistant|very good at this|a precise solver].",
)
PERSONAS = (
    "You are [a helpful|a friendly|a useful|an] assistant.",
    "You are [a helpful|a friendly|a|an AI] [agent|bot|assistant|model][.| for our users.| of a company.]",
    "You are {name}, [a|an] [agent|assistant|member of a team].",
    "You [help|work with|serve|assist] [users|people|customers|the team].",
    "[Hello.|Welcome.|Read the message.|Here is a user.|Keep to the rules.|Be polite.|Be nice.]",
    "You are one of [two|three|several] agents.",
    "You are the {name} agent.",
)
USE_TOOL = (
    "[Use|Call|Always use|You must use|Always call|Please use] the {tool}[.| tool.| first.| for this.| before you answer.]",
    "[Use|Call|Always use|Always call] [the|a|your] [tool|tools|right tool|function][.| first.| before answering.| every time.]",
    "[Use|Call] the {tool} [tool |]for [every|each|any|all] [calculation|question|step|task|problem|request|thing].",
    "Use the {tool}[ tool|], then [answer|reply|give the result|respond].",
    "Call the [tool|{tool}] [and|, then] [answer|report|return|repeat|give] [its|the] [result|output|value].",
    "[Never|Do not|Don't] [guess|answer in your head|answer from memory|answer without the tool]; [use|call|ask] the {tool}.",
    "[Let|Have|Make] the {tool} [do the work|compute it|work it out|find it|answer|compute everything|do what is asked].",
    "[Whatever|Whenever something|Everything that|All that] is asked, [use|call|ask|let] the {tool}[.| work it out.| and repeat its result.]",
    "[Rely on|Trust|Ask|Send it to|Pass it to|Take] the {tool}[.|, always.|, not your memory.|, and repeat what it says.]",
    "[Every|Each] answer [must|has to|should] come from the {tool}.",
    "You [have|can use|are given] [a|the] {tool}[ tool|]. [Use it.|Always use it.|Use it first.|Call it.]",
)
NO_TOOL = (
    "[Do not|Don't|Never] [use|call] [the|any|a] [tool|tools|{tool}][.|, answer directly.]",
    "[Answer|Reply] [directly|at once|without tools|without the {tool}|from memory|in your head].",
    "No tools[.|, please.]",
    "[Leave|Keep] the {tool} [alone|out of it|untouched].",
    "[Do not|Don't|Never] [touch|call on|rely on|ask] the {tool}[.|; reply at once.|; answer yourself.]",
    "[Work|Do] it [out |]in your head.",
)


def draw(rng: Random, noun: str, tool: str = "", order: str = "", forms: bool = True) -> Guidance:
    """An instruction about a reply that is a `noun`, perhaps with a tool.

    `order` is a sentence that says the task; without `forms`, no form of the reply is asked for.
    """
    chance = rng.random()
    if chance < 0.3 and not order:
        return Guidance()
    if chance < 0.5 and not order:
        return Guidance(_surround(rng, [], plain=True))
    form = _form(rng) if forms and rng.random() < (0.5 if order or tool else 0.75) else None
    uses = rng.choices((None, True, False), (0.35, 0.5, 0.15))[0] if tool else None
    vague = not (form or order or uses is not None) or rng.random() < 0.15
    key = rng.choice(KEYS) if rng.random() < 0.8 else rng.choice(WORDS)
    parts = [order] if order else []
    if uses is not None:
        named = tool if rng.random() < 0.7 else "tool"
        parts.append(one_of(rng, USE_TOOL if uses else NO_TOOL).format(tool=named))
    if vague:
        parts.append(one_of(rng, VAGUE))
    if form:
        parts.append(one_of(rng, FORMS[form]).format(noun=name_of(rng, noun), key=key))
    level = Level.EXACT if form or order or uses is not None else Level.VAGUE
    return Guidance(_surround(rng, parts), level, form, key, uses)


def neutral(rng: Random) -> Guidance:
    """No system message, or one that says nothing about the reply."""
    return Guidance() if rng.random() < 0.5 else Guidance(_surround(rng, [], plain=True))


def name_of(rng: Random, noun: str) -> str:
    """The noun of a reply, or a word that fits any."""
    return noun if rng.random() < 0.65 else rng.choice(("answer", "result", "value", "final answer", "final result"))


def order_message(rng: Random, order: str) -> Guidance:
    """An instruction that only says the task."""
    return Guidance(_surround(rng, [order]), Level.EXACT)


def _form(rng: Random) -> ReplyForm:
    return rng.choices((ReplyForm.BARE, ReplyForm.TAGS, ReplyForm.JSON, ReplyForm.SENTENCE), (0.5, 0.25, 0.15, 0.1))[0]


def _surround(rng: Random, parts: list[str], plain: bool = False) -> str:
    """The sentences with a persona before them, or with noise around them; long now and then, as frameworks' are."""
    made = list(parts)
    if plain or rng.random() < 0.4:
        made.insert(0, one_of(rng, PERSONAS).format(name=rng.choice(WORDS)))
    if rng.random() < 0.15:
        noise = babble(rng, rng.randint(1, 3) if rng.random() < 0.8 else rng.randint(4, 24))
        made.insert(rng.randrange(len(made) + 1), noise)
    if len(made) > 1 and rng.random() < 0.2:
        rng.shuffle(made)
    return rng.choice((" ", " ", " ", "\n", "\n\n")).join(made)

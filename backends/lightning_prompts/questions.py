"""Questions to the reflecting model, and the texts in its replies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lightning_prompts.arena import TrialResult
from lightning_prompts.candidate import Component
from lightning_sdk.prompts.placeholders import placeholders

_OPEN, _CLOSE = "<instruction>", "</instruction>"
_TEXT = re.compile(re.escape(_OPEN) + r"\n?(.*?)\n?" + re.escape(_CLOSE), re.DOTALL)
_MOST_TURNS = 4
_MOST_CHARACTERS = 1500
"""Of one text inside a question."""


def improvement(component: Component, text: str, limit: int, results: Sequence[TrialResult]) -> str:
    """Asks for a better text, in one step."""
    return "\n\n".join(
        [
            _task(component),
            _current(text),
            _examples(component, results),
            "Find out from the examples what the instruction fails to say, and write a better one. Say what holds for "
            "every task of this kind: the examples are a few of many, and other tasks will be asked.",
            _rules(component, limit),
        ]
    )


def critique(component: Component, text: str, results: Sequence[TrialResult]) -> str:
    """Asks what is wrong with a text, as the gradient of ProTeGi (arXiv:2305.03495, section 2)."""
    return "\n\n".join(
        [
            _task(component),
            _current(text),
            _examples(component, results),
            "Where the score is low, what about the instruction is to blame? Name up to three causes, the most "
            "important one first, each with what the instruction should say instead. Do not write the new instruction "
            "yet.",
        ]
    )


def edit(component: Component, text: str, limit: int, criticism: str) -> str:
    """Asks for a text in which a critique is heeded."""
    return "\n\n".join(
        [
            _task(component),
            _current(text),
            f"Somebody who has seen it at work says:\n\n{criticism.strip()}",
            "Change the instruction so that this no longer holds. Leave what works as it is.",
            _rules(component, limit),
        ]
    )


def read_text(reply: str) -> str:
    """The instruction in a reply, '' if there is none."""
    found = _TEXT.findall(reply)
    return found[-1] if found else ""


def _task(component: Component) -> str:
    named = [repr(role) for role in component.roles if role]
    who = f"the role {' and the role '.join(named)}" if named else "a model"
    if component.tool:
        return (
            f"An AI agent gives {who} a tool called {component.tool!r}, with a description by which the model decides "
            f"when and how to call it. You improve this description, called {component.name!r}, which is the "
            "instruction that is spoken of below. What the tool does stays as it is."
        )
    return f"An AI agent gives {who} an instruction. You improve this instruction, called {component.name!r}."


def _current(text: str) -> str:
    return f"The instruction is now:\n\n{_OPEN}\n{text}\n{_CLOSE}"


def _rules(component: Component, limit: int) -> str:
    kept = placeholders(component.text)
    rules = [
        f"at most {limit:,} characters, and no longer than it has to be",
        "no words copied from the examples' tasks",
        f"each of these placeholders, exactly as written: {', '.join(kept)}; the agent puts values in their place"
        if kept
        else "no placeholders in braces",
    ]
    listed = "\n".join(f"- {each}" for each in rules)
    return f"The new instruction has\n{listed}\n\nWrite it between {_OPEN} and {_CLOSE}."


def _examples(component: Component, results: Sequence[TrialResult]) -> str:
    shown = "\n\n".join(_example(number, component, each) for number, each in enumerate(results, 1))
    return f"What the agent did with it on {len(results)} tasks:\n\n{shown}"


def _example(number: int, component: Component, result: TrialResult) -> str:
    score = result.by_role.get(component.roles[0], result.score) if len(component.roles) == 1 else result.score
    lines = [f"## Example {number}: {'failed, no score' if score is None else f'score {score:.3g}'}"]
    lines += [f"Why: {_cut(each)}" for each in result.reasons]
    if result.error:
        lines.append(f"The rollout failed: {_cut(result.error)}")
    own = [turn for turn in result.turns if turn.role in component.roles]
    for turn in own[:_MOST_TURNS]:
        lines += [*_paragraph("Asked", turn.asked), *_paragraph("Said", turn.said), *_paragraph("Failed", turn.error)]
    if len(own) > _MOST_TURNS:
        lines.append(f"({len(own) - _MOST_TURNS} more calls of this role)")
    lines += _paragraph("The agent's answer in the end", result.answer)
    return "\n".join(lines)


def _paragraph(what: str, text: str) -> list[str]:
    return [f"{what}:\n{_cut(text)}"] if text else []


def _cut(text: str) -> str:
    """Its beginning and its end, if it is long."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"

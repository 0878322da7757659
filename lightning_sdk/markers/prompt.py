"""`lightning.prompt`: marks a text of the user's code as one that other texts may take the place of."""

from __future__ import annotations

import re
from typing import NamedTuple

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.placeholders import refuse_unfit
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import current_scope

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class Mark(NamedTuple):
    """A text that is marked in this process."""

    name: str
    default: str
    text: str
    """What it says outside of rollouts that have another text for it."""


#: Name -> its mark, for every text that this process has marked so far.
marked: dict[str, Mark] = {}


def prompt(name: str, *, default: str) -> str:
    """Mark a text as a prompt that can be tuned, and get what it says here: `prompt("writer.system", default="...")`.

    It may be a whole instruction, a part that a framework puts into a longer text of its own, or a template that your
    code fills in. The text that comes back is a plain `str`. It is the default, except inside a rollout that is given
    another text for this name. Called when a module is imported, it is the default for good, and requests get the
    rollout's text as they leave.

    Args:
        name: What to call it, such as "writer.system": letters, digits, '.', '-' and '_'.
        default: The text. Placeholders in it, `{topic}` as in `str.format` or `{{ topic }}`, are kept by every text
            that takes its place.

    Raises:
        PromptError: the name or the default cannot be used, or the rollout's text does not fit the default.
    """
    if not isinstance(default, str) or not default.strip():
        raise PromptError(f"prompt({name!r}, default={default!r:.60}): expected a text that says something")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PromptError(
            f"prompt({name!r}): a name has at most 100 letters, digits, '.', '-' and '_', such as writer.system"
        )
    before = marked.get(name)
    if before is None or before.default != default:
        if before is not None:
            sink.say_once(
                f"prompt {name}",
                "lightning: the prompt %r is marked with two defaults, %r and %r; the last one counts. Give each text "
                "another name",
                name,
                before.default[:60],
                default[:60],
            )
        marked[name] = Mark(name, default, default)
    return _text_here(marked[name])


def _text_here(mark: Mark) -> str:
    scope = current_scope()
    rollout = scope.owner()
    if rollout is None or rollout.candidate is None or scope.judging:
        return mark.text
    text = rollout.candidate.text_of(mark.name, mark.text)
    if text is None:
        return mark.text
    refuse_unfit(f"candidate {rollout.candidate.id!r}: the text for {mark.name!r}", mark.default, text)
    return text

"""`lightning.prompt`: marks a text in the user's code that other texts may replace."""

from __future__ import annotations

from typing import NamedTuple

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.placeholders import refuse_unfit
from lightning_sdk.prompts.store import NAME_RULE, PromptStore, is_prompt_name
from lightning_sdk.stream import notices, sink
from lightning_sdk.trace.scope import current_scope


class Mark(NamedTuple):
    """A text that is marked in this process."""

    name: str
    default: str
    text: str
    """What it says outside of rollouts that have another text for it."""


#: Name -> its mark, for every text that this process has marked so far.
marked: dict[str, Mark] = {}


def prompt(name: str, *, default: str) -> str:
    """Mark a text as a prompt that can be tuned, and get its current text: `prompt("writer.system", default="...")`.

    It may be a whole instruction, a part that a framework inserts into a longer text, or a template that your code
    fills in. The result is a plain `str`: the promoted version (`lightning-sdk prompts`) or the default or, inside a
    rollout that has another text for this name, that text. When called while a module is imported, it stays what it is
    then, and the rollout's text is put into requests when they are sent.

    Args:
        name: Its name, such as "writer.system": letters, digits, '.', '-' and '_'.
        default: The text. Placeholders in it, `{topic}` as in `str.format` or `{{ topic }}`, must be kept by every
            text that replaces it.

    Raises:
        PromptError: the name or the default cannot be used, or the rollout's text does not fit the default.
    """
    if not isinstance(default, str) or not default.strip():
        raise PromptError(f"prompt({name!r}, default={default!r:.60}): expected a text that says something")
    if not is_prompt_name(name):
        raise PromptError(f"prompt({name!r}): {NAME_RULE}")
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
        marked[name] = Mark(name, default, _promoted_text(name, default))
    return _text_here(marked[name])


def _promoted_text(name: str, default: str) -> str:
    """The promoted version of a text, or the default where there is none that can be used, which is told once."""
    try:
        stored = PromptStore.here().find(name)
        version = None if stored is None else stored.version
        if version is None:
            return default
        refuse_unfit(f"version {version.number} of the prompt {name!r}", default, version.text)
    except (PromptError, OSError) as error:
        sink.say_once(f"promoted {name}", "lightning: the prompt %r is what the code says: %s", name, error)
        return default
    if version.default != default:
        sink.say_once(
            f"promoted {name}",
            "lightning: version %d of the prompt %r was promoted when the code said something else; it is used. To go "
            "back to what the code says now: lightning-sdk prompts rollback %s --to 0",
            version.number,
            name,
            name,
        )
    return version.text


def _text_here(mark: Mark) -> str:
    scope = current_scope()
    rollout = scope.owner()
    if rollout is not None and rollout.marks is not None and mark.name not in rollout.marks:
        rollout.marks.add(mark.name)
        notices.report_mark(mark.name, mark.text)
    if rollout is None or rollout.candidate is None or scope.judging:
        return mark.text
    text = rollout.candidate.text_of(mark.name, mark.text)
    if text is None:
        return mark.text
    refuse_unfit(f"candidate {rollout.candidate.id!r}: the text for {mark.name!r}", mark.default, text)
    return text

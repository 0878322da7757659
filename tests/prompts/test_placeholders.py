"""Placeholders are found in a default, and a text that does not keep them is refused and never repaired."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.placeholders import SHORTEST_LIMIT, longest_allowed, placeholders, refuse_unfit

NAMES = st.lists(st.sampled_from(["topic", "user.name", "rows[0]", "n:>3", "who!r"]), unique=True, min_size=1)
STATIC = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write about {topic} for {user.name}, {topic}.", ("{topic}", "{user.name}")),
        ("{{ topic }} and {{user.name}} and {{ x | upper }}", ("{{ topic }}", "{{user.name}}", "{{ x | upper }}")),
        ("{n:>3} {who!r} {rows[0]}", ("{n:>3}", "{who!r}", "{rows[0]}")),
        ('Answer as JSON: {"a": 1}, {}, {{"b": {"c": []}}}', ()),
        (r"\d{3} and { spaced }", ()),
        ("", ()),
    ],
)
def test_placeholders(text: str, found: tuple[str, ...]) -> None:
    """Those of str.format and those of template languages; JSON and patterns are neither."""
    assert placeholders(text) == found


@pytest.mark.parametrize(
    ("default", "text", "why"),
    [
        ("About {topic} in {{ language }}", "About {topic}", r"leaves out \{\{ language \}\}"),
        ("About {topic}", "About it", r"leaves out \{topic\}"),
        ("About {topic}", "About {topic} and {topics}", r"has \{topics\}, but the agent fills in only \{topic\}"),
        ("You write.", "You write {what}.", r"has \{what\}, but the agent fills in nothing"),
        ("You write.", " \n", "is empty"),
        ("You write.", "x" * (SHORTEST_LIMIT + 1), "has 8,001 characters, and 8,000 are allowed"),
        ("About {topic}", 'About {topic} as {"a": 1}', r"breaks str.format.*write \{\{ and \}\}"),
        ("About {topic}", "About {topic} }", "breaks str.format"),
    ],
)
def test_unfit_texts_are_refused(default: str, text: str, why: str) -> None:
    """The message says which text, what is wrong with it, and what would be right."""
    with pytest.raises(PromptError, match=rf"^candidate 'c' {why}"):
        refuse_unfit("candidate 'c'", default, text)


@pytest.mark.parametrize(
    ("default", "text"),
    [
        ("About {topic}", "{topic} is it, and {topic} again"),
        ('JSON {"a": 1} of {topic}', '{topic}: {"b": 2} }'),  # no str.format can have filled that in
        ("{{ topic }}", "On {{ topic }}, as {"),
        ("You write.", "x" * SHORTEST_LIMIT),
        ("x" * 3000, "y" * 12_000),
    ],
)
def test_fit_texts_pass(default: str, text: str) -> None:
    """Placeholders may be repeated and moved; where nothing is formatted, braces are text."""
    refuse_unfit("candidate 'c'", default, text)


def test_a_limit_of_ones_own() -> None:
    """An optimizer may hold its texts shorter."""
    assert longest_allowed("x") == SHORTEST_LIMIT and longest_allowed("x" * 3000) == 12_000
    with pytest.raises(PromptError, match="has 11 characters, and 10 are allowed"):
        refuse_unfit("it", "You write.", "You write!!", limit=10)


@given(NAMES, NAMES, st.lists(STATIC, min_size=12, max_size=12))
def test_exactly_the_same_placeholders_pass(wanted: list[str], given_: list[str], static: list[str]) -> None:
    """Whatever stands around them: the same set passes, any other is refused."""
    default, text = (
        "".join(f"{part}{{{name}}}" for part, name in zip(static, names, strict=False)) for names in (wanted, given_)
    )
    if set(wanted) == set(given_):
        refuse_unfit("it", default, text)
        assert set(placeholders(text)) == {f"{{{name}}}" for name in wanted}
    else:
        with pytest.raises(PromptError, match=r"leaves out|has \{"):
            refuse_unfit("it", default, text)

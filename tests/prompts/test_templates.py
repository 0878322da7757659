"""Templates match what was made of them, and the template that several texts have in common matches each of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sdk.prompts.discovery import common_template
from lightning_sdk.prompts.template import TextTemplate

WORDS = st.lists(st.sampled_from(["red", "green ", "{x}", "\n", "four", "five six", "a", ", "]), max_size=8).map(
    "".join
)


def test_a_template_reads_what_stands_in_its_holes() -> None:
    """Whole texts, texts inside others, and a hole that stands in two places."""
    template = TextTemplate.of_text("You know {tables}. Answer {question} from {tables}!")
    assert template.match("You know users. Answer how many? from users!") == {
        "{tables}": "users",
        "{question}": "how many?",
    }
    assert template.match("You know users. Answer how many? from orders!") is None
    assert template.match("First: You know users. Answer how many? from users!") is None
    frame = "# Role\nYou know cars. Answer why from cars!\n# Rules"
    found = template.search(frame)
    assert found is not None and frame[found[0] : found[1]] == "You know cars. Answer why from cars!"
    assert found[2] == {"{tables}": "cars", "{question}": "why"}


def test_what_goes_through_format_is_matched_as_it_comes_out() -> None:
    """`{{` in a text that is formatted is one brace in the request."""
    text = 'Answer {what} as {{"answer": 1}}.'
    template = TextTemplate.of_format(text)
    assert template is not None
    assert template.match(text.format(what="why")) == {"{what}": "why"}
    assert template.fill({"{what}": "how"}) == text.format(what="how")
    assert TextTemplate.of_format('{"a": 1}') is None and TextTemplate.of_format("{0} {}") is None


@pytest.mark.parametrize(
    ("text", "can"), [("{a}{b} and static", False), ("{a} of {b}", False), ("{a} writes well", True), ("short", False)]
)
def test_what_can_be_matched(text: str, can: bool) -> None:
    """Two holes without anything between them have no bound, and a few letters are everywhere."""
    assert TextTemplate.of_text(text).can_match is can


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, min_size=3, max_size=3))
def test_a_filled_template_matches(static: list[str], values: list[str]) -> None:
    """Whatever is filled in: the text is of the template, and what is read from it fills it to the same text again."""
    text = "".join(f"{part}{{hole_{number}}}" for number, part in enumerate(static[:-1])) + static[-1]
    template = TextTemplate(tuple(static), tuple(f"{{hole_{number}}}" for number in range(len(static) - 1)))
    filled = template.fill({f"{{hole_{number}}}": value for number, value in enumerate(values)})
    read = template.match(filled)
    assert read is not None and template.fill(read) == filled
    assert str(template) == text


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_the_common_template_matches_every_text(texts: list[str]) -> None:
    """What texts have in common is in each of them, and what fills the holes makes the text again."""
    template = common_template(texts)
    if template is None:
        return
    for text in texts:
        values = template.match(text)
        assert values is not None and template.fill(values) == text
    if len(set(texts)) == 1:
        assert template.holes == () and template.parts == (texts[0],)


@given(st.lists(st.from_regex(r"[A-Z]{3,9}", fullmatch=True), min_size=2, max_size=4, unique=True))
def test_the_static_parts_of_a_template_are_found(values: list[str]) -> None:
    """A text that code filled in differently for several tasks is taken apart where it was put together."""
    texts = [
        f"You are an expert of tables.\nTables: {each}\nQuestion: {each} or not?\nAnswer briefly." for each in values
    ]
    template = common_template(texts)
    assert template is not None
    assert template.parts == ("You are an expert of tables.\nTables: ", "\nQuestion: ", " or not?\nAnswer briefly.")
    assert template.holes == ("{hole_1}", "{hole_2}")


def test_holes_are_named_apart_from_what_the_texts_hold() -> None:
    """A text that has {hole_1} in it keeps it."""
    template = common_template(["Say {hole_1} to Ann, please", "Say {hole_1} to Bob, please"])
    assert template is not None and str(template) == "Say {hole_1} to {hole_2}, please"


@pytest.mark.timeout(20)
def test_matching_takes_time_in_proportion_to_the_text() -> None:
    """A text in which every piece stands everywhere: a backtracking pattern would not come back."""
    template = TextTemplate(("aa", *(["a"] * 30), "aab"), tuple(f"{{h{number}}}" for number in range(31)))
    assert template.match("a" * 50_000) is None
    assert template.search("a" * 50_000) is None

"""A candidate's texts take the place of equal texts and of nothing else, once, and what was never there is known."""

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.prompts.instructions import find_instructions
from tests.prompts.requests_of import TEXTS, requests

SYSTEM = "You write short answers."
NEW = "You write long answers."
GOAL = "Sort the mail by its sender."
SORT = "Sort the mail by its date, the newest first."


def chat(system: str, user: str = "Hello") -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}]}


@given(requests(), TEXTS)
def test_without_the_text_the_request_is_the_same_object(body: dict[str, Any], old: str) -> None:
    """A request in which nothing is to be replaced is not even copied, and its bytes stay as they are."""
    assume(old.strip() and old not in {each.text for each in find_instructions(body)})
    candidate = Candidate("c", {old: f"{old}!"})
    raw = json.dumps(body, indent=1).encode()
    if candidate.substitute(copy.deepcopy(body)) != body:
        assert "{" in old  # as a template it fits a text that is not equal to it
        return
    assert candidate.substitute(body) is body
    assert candidate.substitute_bytes(raw) is raw
    assert candidate.unseen() == [old] and candidate.requests == 3


@given(requests(st.sampled_from([SYSTEM, GOAL, "else", ""])))
def test_equal_texts_and_nothing_else(body: dict[str, Any]) -> None:
    """Each instruction that is equal to the text has the other one; all others, and what people say, are as before."""
    before = copy.deepcopy(body)
    new = Candidate("c", {SYSTEM: NEW}).substitute(body)
    assert body == before
    assert [each.text.replace(SYSTEM, NEW) for each in find_instructions(body)] == [
        each.text for each in find_instructions(new)
    ]
    assert Candidate("back", {NEW: SYSTEM}).substitute(new) == before


def test_a_text_that_another_one_becomes_is_not_replaced_again() -> None:
    """One pass: what a candidate puts in, it does not look at."""
    longer = f"{SYSTEM} {GOAL}"
    candidate = Candidate("c", {SYSTEM: longer, GOAL: SORT}, {GOAL: "goal"})
    assert candidate.substitute(chat(SYSTEM))["messages"][0]["content"] == longer
    with pytest.raises(PromptError, match="word for word a text that it replaces as well"):
        Candidate("c", {SYSTEM: GOAL, GOAL: SORT})


def test_holes_keep_what_the_request_has_in_them() -> None:
    """A text that varies with the task is replaced with what varies left in."""
    old, new = "Tables: {hole_1}\nAnswer with one query.", "One query, please. There are {hole_1}, and only these."
    candidate = Candidate("c", {old: new})
    request = chat("Tables: users, orders\nAnswer with one query.")
    assert candidate.substitute(request)["messages"][0]["content"] == (
        "One query, please. There are users, orders, and only these."
    )
    assert candidate.unseen() == []


def test_a_marked_text_is_found_inside_a_frame_and_in_what_users_say() -> None:
    """A framework puts it into a longer text, several times, trimmed; without a mark, only a whole text is equal."""
    frame = f"You are Ann.\nYour goal: {GOAL}\nRemember: {GOAL}"
    unmarked = Candidate("c", {GOAL: SORT})
    request = chat(frame, f"Do it: {GOAL}")
    assert unmarked.substitute(request) is request
    marked = Candidate("c", {f"{GOAL}\n": f"{SORT}\n"}, {f"{GOAL}\n": "sorter.goal"})
    new = marked.substitute(request)["messages"]
    assert new[0]["content"] == f"You are Ann.\nYour goal: {SORT}\nRemember: {SORT}"
    assert new[1]["content"] == f"Do it: {SORT}"
    assert marked.unseen() == []


def test_a_marked_template_is_found_filled_in() -> None:
    """A user template that was marked at import and formatted by the agent, with braces that `format` unescapes."""
    old = 'Room for {people} at {time}? Answer {{"room": 1}}.'
    new = 'At {time}, {people} people need a room: {{"room": 1}}'
    candidate = Candidate("c", {old: new}, {old: "rooms.question"})
    asked = old.format(people=4, time="10:00")
    wanted = new.format(people=4, time="10:00")
    assert candidate.substitute(chat("x", asked))["messages"][1]["content"] == wanted
    framed = candidate.substitute(chat(f"# Task\n{asked}\n# Rules"))
    assert framed["messages"][0]["content"] == f"# Task\n{wanted}\n# Rules"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (GOAL, f"{GOAL} Then stop."),
        (GOAL, f"Please: {GOAL}"),
        (f"{GOAL} Then stop.", GOAL),
        ("Sort the mail of {who}", "Sort the mail of {who} by date"),
        ("Sort the mail of {who} by date", "Sort it well: {who}"),
    ],
)
def test_what_the_agent_was_given_is_in_its_place_already(old: str, new: str) -> None:
    """A text that `lightning.prompt` gave inside the rollout is not replaced once more, though it holds the old one."""
    candidate = Candidate("c", {old: new}, {old: "goal"})
    given_ = str(candidate.text_of("goal", old))
    assert given_ == new and candidate.unseen() == [old]
    request = chat(given_.replace("{who}", "Ann Lee"), f"Now: {given_.replace('{who}', 'Ann Lee')}")
    assert candidate.substitute(request) == request
    assert candidate.unseen() == []


def test_short_marked_texts_are_found_whole_only() -> None:
    """A few letters stand in every text."""
    candidate = Candidate("c", {"Hi": "Ho"}, {"Hi": "greeting"})
    assert candidate.substitute(chat("Hi"))["messages"][0]["content"] == "Ho"
    request = chat("High", "This")
    assert candidate.substitute(request) is request


def test_a_template_too_short_to_be_found_counts_as_seen_once_given() -> None:
    """Nobody is told of a text that cannot be looked for."""
    candidate = Candidate("c", {"{a}: {b}": "{b}, {a}"}, {"{a}: {b}": "pair"})
    assert candidate.unseen() == ["{a}: {b}"]
    assert candidate.text_of("pair", "{a}: {b}") == "{b}, {a}"
    assert candidate.unseen() == []


def test_descriptions_of_tools_are_texts_too() -> None:
    """By equal text, wherever the protocol nests them."""
    tool = {"type": "function", "function": {"name": "look", "description": "Looks it up."}}
    new = Candidate("c", {"Looks it up.": "Finds one record."}).substitute({**chat("x"), "tools": [tool]})
    assert new["tools"][0]["function"] == {"name": "look", "description": "Finds one record."}


def test_bytes_that_are_not_a_request_pass() -> None:
    """What no protocol would have is left for the server to refuse."""
    candidate = Candidate("c", {SYSTEM: NEW})
    for raw in (b"", b"\xff", b"[1]", b"not json", b"[" * 100_000):
        assert candidate.substitute_bytes(raw) is raw
    assert json.loads(candidate.substitute_bytes(json.dumps(chat(SYSTEM)).encode())) == chat(NEW)


@pytest.mark.parametrize(
    ("texts", "names", "why"),
    [
        ({"About {topic}": "About it"}, {}, r"'c3'.*the text 'About \{topic\}' leaves out \{topic\}"),
        ({SYSTEM: ""}, {SYSTEM: "writer.system"}, "what replaces 'writer.system' is empty"),
        ({SYSTEM: NEW}, {GOAL: "goal"}, "names 'goal' and has no text for it"),
        ({SYSTEM: NEW, GOAL: SORT}, {SYSTEM: "a", GOAL: "a"}, "two texts of one name"),
    ],
)
def test_unfit_candidates_are_refused(texts: dict[str, str], names: dict[str, str], why: str) -> None:
    """Before the rollout begins, with the candidate and the text in the message."""
    with pytest.raises(PromptError, match=why):
        Candidate("c3", texts, names)


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        {"id": 3, "texts": {}},
        {"id": "c", "texts": []},
        {"id": "c", "texts": {"a": 1}},
        {"id": "c", "texts": {}, "names": None},
    ],
)
def test_a_message_that_is_not_a_candidate(message: Any) -> None:
    """A hub of another version is told apart from one that has nothing to say."""
    with pytest.raises(PromptError, match="candidate"):
        Candidate.from_message(message)


def test_a_candidate_crosses_as_plain_data() -> None:
    """Id, texts and names arrive; what was counted does not."""
    candidate = Candidate("c", {SYSTEM: NEW}, {SYSTEM: "writer"})
    candidate.substitute(chat(SYSTEM))
    again = Candidate.from_message(json.loads(json.dumps(candidate.as_message())))
    assert (again.id, again.texts, again.names, again.unseen()) == ("c", {SYSTEM: NEW}, {SYSTEM: "writer"}, [SYSTEM])

"""`lightning.prompt`: a plain text outside of rollouts, the candidate's inside one, and never one that does not fit."""

import asyncio
import re
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.errors import PromptError
from lightning_sdk.markers.prompt import marked
from lightning_sdk.markers.reward import reward_functions
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.rollouts.attempt import aexecute, execute
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Status
from tests.sdk.candidates import NEW, OLD, assignment, with_candidate
from tests.sdk.recorder import Recorder

REWARDS = reward_functions([lambda task, answer: 1.0])


def ask_prompt(task: dict[str, Any]) -> str:
    return lightning.prompt("writer.system", default=OLD)


def test_outside_of_rollouts_it_is_the_default() -> None:
    """A plain str, and the mark is known from then on."""
    text = lightning.prompt("writer.system", default=OLD)
    assert text == OLD and type(text) is str
    assert marked["writer.system"].default == OLD
    assert with_candidate(lambda: ask_prompt({}), None) == OLD


def test_inside_a_rollout_it_is_the_candidates() -> None:
    """By its name, or where the candidate names no names by what it says; other marks stay as they are."""
    named = Candidate("c", {"found elsewhere": NEW}, {"found elsewhere": "writer.system"})
    for candidate in (named, Candidate("c", {OLD: NEW})):
        assert with_candidate(lambda: ask_prompt({}), candidate) == NEW
        assert with_candidate(lambda: lightning.prompt("other", default="Other."), candidate) == "Other."
    assert ask_prompt({}) == OLD


def test_a_runner_gives_the_rollout_its_candidate(recorder: Recorder) -> None:
    """What the hub hands out is in force while the agent runs, and nowhere else."""
    message = assignment({"id": "c1", "texts": {OLD: NEW}, "names": {OLD: "writer.system"}})
    assert execute(ask_prompt, REWARDS, message) == Status.OK
    assert recorder.of(Event.END)[0][5] == NEW
    assert execute(ask_prompt, REWARDS, assignment(None)) == Status.OK
    assert recorder.of(Event.END)[1][5] == OLD


async def _aask(task: dict[str, Any]) -> str:
    return ask_prompt(task)


def test_an_async_runner_does_too(recorder: Recorder) -> None:
    """The same on an event loop."""
    message = assignment({"id": "c1", "texts": {OLD: NEW}})
    assert asyncio.run(aexecute(_aask, REWARDS, message, lambda: True)) == Status.OK
    assert recorder.of(Event.END)[0][5] == NEW


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        ({"id": "c1", "texts": {"About {topic}": "About it"}}, r"PromptError: candidate 'c1'.*leaves out \{topic\}"),
        ({"id": "c1"}, "PromptError: expected a candidate with id, texts and names"),
        ({"id": "c1", "texts": {"x" * 9: "{n}" * 9, "{n}": "{n}"}}, r"PromptError.*has \{n\}, but"),
    ],
)
def test_a_candidate_that_does_not_fit_fails_its_rollout(recorder: Recorder, candidate: Any, why: str) -> None:
    """The agent is not run with a text that would break it, and the rollout's error says what is wrong."""
    agent = lambda task: pytest.fail("it ran")  # noqa: E731
    assert execute(agent, REWARDS, assignment(candidate)) == Status.AGENT_ERROR
    error = str(recorder.of(Event.END)[0][3])
    assert re.search(why, error), error


def test_a_text_that_does_not_fit_this_default_is_refused() -> None:
    """The code has changed since the candidate was made: it fills in something else now."""
    candidate = Candidate("c7", {"About {topic}": "On {topic}"}, {"About {topic}": "writer.system"})
    ask = lambda: lightning.prompt("writer.system", default="About {subject}")  # noqa: E731
    with pytest.raises(PromptError, match=r"candidate 'c7': the text for 'writer.system' leaves out \{subject\}"):
        with_candidate(ask, candidate)


def test_a_judge_gets_the_default(recorder: Recorder) -> None:
    """A reward function scores with its own words, whatever candidate it scores."""
    judge = reward_functions([lambda task, answer: float(ask_prompt(task) == OLD and answer == NEW)])
    assert execute(ask_prompt, judge, assignment({"id": "c", "texts": {OLD: NEW}})) == Status.OK
    assert recorder.of(Event.REWARD)[0][2] == 1.0


@pytest.mark.parametrize(
    ("name", "default"), [("", OLD), ("a b", OLD), ("../x", OLD), (3, OLD), ("x" * 101, OLD), ("a", ""), ("a", None)]
)
def test_marks_that_cannot_be_used(name: Any, default: Any) -> None:
    """At once, where the mark stands."""
    with pytest.raises(PromptError, match=r"prompt\("):
        lightning.prompt(name, default=default)


def test_two_defaults_of_one_name_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Once; the last one counts."""
    for default in (OLD, OLD, NEW, NEW):
        assert lightning.prompt("writer.system", default=default) == default
    assert caplog.text.count("is marked with two defaults") == 1

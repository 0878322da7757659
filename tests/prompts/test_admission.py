"""What is proposed and does not fit is refused with a reason."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lightning_hub.backend import SearchRollout
from lightning_hub.feed import Feed
from lightning_hub.rollouts.plan import Plan
from lightning_hub.training.searching import PlanSearch
from lightning_prompts import backend
from lightning_prompts.admission import Admission, Refusal
from lightning_prompts.candidate import Component, PromptCandidate
from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.prompts.text_check import TextCheck
from lightning_sdk.settings import Settings

LONG = "How many red apples are left in the third basket of the market after Anna took seven?"
STYLE = "Answer with a single number and nothing else, please."
CAPITAL = "What is the capital city of Burkina Faso?"
TASKS = [{"question": each, "style": STYLE} for each in (LONG, CAPITAL, *(f"q{n}" for n in range(20)))]
COMPONENTS = [Component("w", ("writer",), "Write about {topic}."), Component("c", ("checker",), "Check it.")]


@pytest.fixture
def admission() -> Admission:
    return Admission(COMPONENTS, TextCheck(TASKS, 300))


def candidate(w: str = "Write about {topic}.", c: str = "Check it.") -> PromptCandidate:
    return PromptCandidate({"w": w, "c": c}, ("seed",), "reflection")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (candidate(w="Write well."), r"\{topic\}"),
        (candidate(w="Write about {topic} in {style}."), r"\{style\}"),
        (candidate(c="Check {topic}."), r"\{topic\}"),
        (candidate(c=" \n"), "empty"),
        (candidate(c="very " * 70), "350 characters"),
        (candidate(c=f"For example: {LONG} Then say 12."), "copies a task: 'how many red apples are left in the'"),
        (candidate(c=f"If asked: {CAPITAL.upper()}, say it."), "copies a task: 'what is the capital"),
        (candidate(c="Write about {topic}."), r"\{topic\}"),
    ],
)
def test_what_does_not_fit_is_refused(admission: Admission, made: PromptCandidate, told: str) -> None:
    """A placeholder that is lost or invented, an empty or a long text, the words of a task."""
    with pytest.raises(Refusal, match=told):
        admission.refuse(made, {})


def test_what_is_known_is_refused(admission: Admission) -> None:
    made = candidate(c="Check it twice.")
    admission.refuse(made, {})
    with pytest.raises(Refusal, match="tried before"):
        admission.refuse(candidate(c="Check it twice."), {made.id: made})


def test_the_form_that_all_tasks_share_is_not_a_copy(admission: Admission) -> None:
    """Nor is a short word of one of them."""
    admission.refuse(candidate(c="Answer with a single number and nothing else, please. Mind q7."), {})


def test_another_components_original_is_refused() -> None:
    """In a request the two could not be told apart."""
    components = [Component("a", ("a",), "Say A."), Component("b", ("b",), "Say B.")]
    admission = Admission(components, TextCheck([]))
    with pytest.raises(Refusal, match="the original of 'b'"):
        admission.refuse(PromptCandidate({"a": "Say B.", "b": "Say C."}), {})


def test_the_same_texts_are_one_candidate() -> None:
    """Wherever they come from, in whatever order."""
    one, other = PromptCandidate({"a": "1", "b": "2"}), PromptCandidate({"b": "2", "a": "1"}, ("x",), "merge")
    assert one.id == other.id != PromptCandidate({"a": "2", "b": "1"}).id


def test_the_hub_refuses_what_a_search_does_not(tmp_path: Path) -> None:
    """A candidate of any backend's search, before a rollout of it runs, with the checker of this one."""
    plan = Plan(settings=Settings(backend="prompts", model="provider"), backend=backend, tasks=TASKS, held_out=[])
    host = PlanSearch(plan, tmp_path, NoRounds(), Feed(), threading.Event(), lambda: None, lambda *_: None)  # type: ignore[arg-type]
    original = "Write about {topic}."
    for text, told in (
        (f"Write about {{topic}}. For example: {LONG}", "'c1'.* copies a task: 'how many red"),
        ("Write about {topic}. " * 2000, "are allowed"),
    ):
        rollout = SearchRollout(TASKS[0], Candidate("c1", {original: "Say {topic}."}), "group")
        assert rollout.candidate is not None
        rollout.candidate.texts[original] = text  # as if the SDK had not looked at its length
        with pytest.raises(PromptError, match=told):
            host.run([rollout], lambda *_: None)


class NoRounds:
    """Rounds of a run that comes to none."""

    endpoint = None

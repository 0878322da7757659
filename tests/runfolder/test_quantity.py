"""Numbers of things in sentences."""

import pytest

from lightning_hub.findings import findings
from lightning_sdk.results.quantity import quantity


@pytest.mark.parametrize(("number", "said"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps")])
def test_only_one_thing_is_singular(number: int, said: str) -> None:
    """None and several are plural."""
    assert quantity(number, "step") == said


@pytest.mark.parametrize(("number", "said"), [(1, "1 reply was"), (3, "3 replies were")])
def test_the_plural_can_be_given(number: int, said: str) -> None:
    """For other endings than an s, and for the verb."""
    assert quantity(number, "reply was", "replies were") == said


def test_findings_about_one_thing_are_singular() -> None:
    """The numbers in them agree with nouns and verbs."""
    assert findings.no_calls(1).what == "the agent made no model call in 1 rollout, as far as could be seen."
    assert findings.late_calls(1).what.startswith("1 call arrived after its rollout had ended, and is not")
    assert findings.calls_outside(1, 0, fatal=False).what.startswith("1 call was made outside of every rollout")
    assert findings.no_reward(["writer"], 1, fatal=True).what == "the only rollout has no reward for writer."
    assert (
        findings.unusable_calls(["no ids"], 1).what
        == "the only trainable call cannot be trained on; the first: no ids."
    )

"""What counts as a reward, and what is said of the rest."""

import math

import numpy
import pytest
from recorder import Recorder

import lightning_sdk as lightning
from lightning_sdk.reward import as_rewards
from lightning_sdk.wire import Event


@pytest.mark.parametrize("value", [None, "1.0", math.nan, math.inf, -math.inf, 1e39, [1.0], b"1", {"a": None}, {}])
def test_what_is_no_reward_is_named(value: object) -> None:
    """The error holds the value and what a reward is."""
    with pytest.raises(lightning.RewardError) as error:
        as_rewards(value, "correct()")
    assert "correct()" in str(error.value) and "dict of role to number" in str(error.value)
    if value != {}:
        assert repr(value["a"] if isinstance(value, dict) else value) in str(error.value)


def test_numbers_of_all_sorts_are_rewards() -> None:
    """int, bool, NumPy scalars and dicts by role become floats."""
    assert as_rewards(True, "r") == {"": 1.0}
    assert as_rewards(numpy.float32(0.5), "r") == {"": 0.5}
    assert as_rewards({"writer": 1, "checker": 0.25}, "r") == {"writer": 1.0, "checker": 0.25}


def test_emit_reward_outside_a_rollout_says_where_to_call_it() -> None:
    """A reward that would belong to nothing is an error, not a loss."""
    with pytest.raises(lightning.RewardError, match=r"with lightning.rollout\(task\)"):
        lightning.emit_reward(1.0)


def test_emit_reward_belongs_to_rollout_and_span(recorder: Recorder) -> None:
    """A step's reward carries its role, its name and the agent's span."""

    @lightning.agent(role="writer")
    def write() -> None:
        lightning.emit_reward(0.5, role="writer", name="style")

    with lightning.rollout({"topic": "x"}) as rollout:
        write()
    begin, reward, end = (recorder.of(kind)[0] for kind in (Event.BEGIN, Event.REWARD, Event.END))
    assert begin[1] == reward[1] == end[1] and begin[2] == rollout.id and begin[3] == {"topic": "x"}
    assert reward[2:6] == (0.5, "writer", "style", recorder.spans[0].id)
    assert end[2] == "ok"


def test_rollout_passes_exceptions_on(recorder: Recorder) -> None:
    """An exception ends the rollout as the agent's error, with the place, and goes on to the user."""
    with pytest.raises(ZeroDivisionError), lightning.rollout({}):
        _ = 1 / 0
    end = recorder.of(Event.END)[0]
    assert end[2] == "agent_error" and "ZeroDivisionError" in end[3] and "test_reward.py" in end[3]

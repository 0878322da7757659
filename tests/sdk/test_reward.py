"""What counts as a reward, under which name and weight, and what is said of the rest."""

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import lightning_sdk as lightning
from lightning_sdk.commands.train import with_reward_weights
from lightning_sdk.markers.reward import RewardFunction, RewardValue, as_rewards, marked, reward_functions
from lightning_sdk.rollouts.scoring import scores
from lightning_sdk.settings import Settings
from lightning_sdk.stream import wire
from lightning_sdk.stream.events import MAX_REASON_CHARACTERS
from lightning_sdk.stream.wire import Event
from tests.sdk.recorder import Recorder


def correct(task: dict[str, Any], answer: str) -> float:
    return float(answer == "4")


def by_role(task: dict[str, Any], answer: str) -> dict[str, float]:
    return {"writer": 1.0, "checker": 0.25}


@pytest.mark.parametrize("value", [None, "1.0", math.nan, math.inf, -math.inf, 1e39, [1.0], b"1", {"a": None}, {}])
def test_a_value_that_is_not_a_reward_is_named(value: object) -> None:
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


def test_rewards_are_float32() -> None:
    """A number is what float32 holds of it, wherever it comes from."""
    assert as_rewards(0.1, "r") == {"": float(numpy.float32(0.1))} != {"": 0.1}
    assert as_rewards({"a": 2**24 + 1}, "r") == {"a": 2.0**24}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (math.nan, r"the reward function judge\(\) gave nan"),
        ({"writer": 1.0, "checker": -math.inf}, r"the reward function judge\(\), role 'checker' gave -inf"),
        ({"writer": 1e39}, r"the reward function judge\(\), role 'writer' gave 1e\+39"),
    ],
)
def test_nan_and_infinities_are_refused_by_name(given: object, said: str) -> None:
    """The message names the function, the role and the value."""

    def judge(task: dict[str, Any], answer: str) -> Any:
        return given

    with pytest.raises(lightning.RewardError, match=said):
        scores(reward_functions([correct, judge]), {}, "4")


def test_each_number_has_its_functions_name() -> None:
    """Several functions give numbers under their own names, whole and by role."""
    assert scores(reward_functions([correct, by_role]), {}, "4") == [
        RewardValue("correct", "", 1.0),
        RewardValue("by_role", "writer", 1.0),
        RewardValue("by_role", "checker", 0.25),
    ]


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ((0.25, "unit missing"), [("", 0.25, "unit missing")]),
        ((numpy.float32(1), ""), [("", 1.0, "")]),
        (lightning.Reward(0.25, why="unit missing"), [("", 0.25, "unit missing")]),
        (lightning.Reward(True), [("", 1.0, "")]),
        (
            lightning.Reward(0.25, why="no title", writer=0, checker=numpy.float64(0.5)),
            [("", 0.25, "no title"), ("writer", 0.0, ""), ("checker", 0.5, "")],
        ),
        (lightning.Reward(why="both", writer=0, checker=1), [("writer", 0.0, "both"), ("checker", 1.0, "both")]),
        ((0.25, " half a pair: \ud800\n"), [("", 0.25, "half a pair: ?")]),
    ],
)
def test_a_number_may_have_a_reason(given: object, values: list[tuple[str, float, str]]) -> None:
    """A tuple of both, or a Reward. The words stand with the whole rollout, or with each role if it earns nothing."""

    def judge(task: dict[str, Any], answer: str) -> Any:
        return given

    assert scores(reward_functions(judge), {}, "4") == [RewardValue("judge", *each) for each in values]


def test_a_long_reason_is_cut() -> None:
    """To a length that is stated; one that just fits is whole."""
    fits, long = "x" * MAX_REASON_CHARACTERS, "x" * (MAX_REASON_CHARACTERS + 1)
    (whole,), (cut,) = (
        scores(reward_functions(lambda task, answer, why=why: (1, why)), {}, "") for why in (fits, long)
    )
    assert whole.why == fits
    assert len(cut.why) == MAX_REASON_CHARACTERS and cut.why.endswith("x...")
    assert f"{MAX_REASON_CHARACTERS:,} characters" in str(lightning.emit_reward.__doc__)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((math.nan, "why"), r"judge\(\) gave nan \(float\)"),
        (("why", 0.3), r"judge\(\) gave \('why', 0\.3\) \(tuple\).*lightning\.Reward\(0\.3, why="),
        (("0.3", "why"), r"gave \('0\.3', 'why'\) \(tuple\)"),
        ((0.3, 1.0), r"gave \(0\.3, 1\.0\) \(tuple\).*return one number"),
        ((0.3, None), r"gave \(0\.3, None\)"),
        ((0.3, "why", "more"), r"gave \(0\.3, 'why', 'more'\)"),
        ([0.3, "why"], r"gave \[0\.3, 'why'\] \(list\)"),
        ({"writer": (0.3, "why")}, r"role 'writer' gave \(0\.3, 'why'\) \(tuple\)"),
        (({"writer": 0.3}, "why"), r"gave \(\{'writer': 0\.3\}, 'why'\)"),
        (lightning.Reward(why="why"), r"judge\(\) returned a Reward without a number: give lightning\.Reward\(number"),
        (lightning.Reward(math.inf), r"judge\(\) gave inf"),
        (lightning.Reward(1, writer="good"), r"role 'writer' gave 'good' \(str\)"),  # type: ignore[arg-type]
        (lightning.Reward(1, why=None), r"has the reason None \(NoneType\): a reason is a string"),  # type: ignore[arg-type]
        (lightning.Reward((1, "why")), r"gave \(1, 'why'\) \(tuple\)"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_number_with_a_reason_is_refused(given: object, said: str) -> None:
    """By the same words as any other value that is no reward."""

    def judge(task: dict[str, Any], answer: str) -> Any:
        return given

    with pytest.raises(lightning.RewardError, match=said):
        scores(reward_functions(judge), {}, "4")


def test_a_reward_is_a_value() -> None:
    """It cannot be changed, is equal to its like, can be sent to another process, and is shown as it is typed."""
    made = lightning.Reward(0.3, why="no title", writer=0.5)
    with pytest.raises(AttributeError):
        made.value = 1.0  # type: ignore[misc]
    assert made == lightning.Reward(0.3, why="no title", writer=0.5) != lightning.Reward(0.3, why="no title")
    assert pickle.loads(pickle.dumps(made)) == made and hash(made) == hash(pickle.loads(pickle.dumps(made)))
    assert repr(made) == "Reward(0.3, why='no title', writer=0.5)"
    with pytest.raises(TypeError):
        lightning.Reward(0.3, "no title")  # type: ignore[call-arg]


def test_the_decorator_leaves_a_function_as_it_is() -> None:
    """Bare and with arguments it gives the very function back, and marks it once with its name and weight."""

    def bare(task: dict[str, Any], answer: str) -> float:
        return 1.0

    def short(task: dict[str, Any], answer: str) -> float:
        return 1.0

    assert lightning.reward(bare) is bare
    assert lightning.reward(weight=0.2, name="brief")(short) is short
    assert [(each.function, each.name) for each in marked] == [(bare, "bare"), (short, "brief")]
    assert marked[1].weight == pytest.approx(0.2)
    assert reward_functions([short, correct])[0] == marked[1]


@pytest.mark.parametrize("arguments", [{"weight": math.nan}, {"weight": "much"}, {"name": ""}, {"name": 3}])
def test_a_mark_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    """A weight is a finite number and a name a text."""
    with pytest.raises(lightning.RewardError, match="@reward"):
        lightning.reward(**arguments)


def test_what_cannot_be_called_is_refused() -> None:
    """A number given as reward is named, by the decorator and by a run."""
    with pytest.raises(lightning.RewardError, match=r"@reward on 0\.5"):
        lightning.reward(0.5)  # type: ignore[call-overload]
    with pytest.raises(lightning.SettingError, match=r"reward=0.5"):
        reward_functions([correct, 0.5])  # type: ignore[list-item]


def test_two_functions_of_one_name_are_refused() -> None:
    """The message says where both are, and how to give one another name; with another name both count."""

    def another() -> Callable[..., float]:
        def correct(task: dict[str, Any], answer: str) -> float:
            return 0.0

        return correct

    other = another()
    with pytest.raises(
        lightning.SettingError, match=r"2 functions are called 'correct'.*test_reward.py:.*name="
    ) as error:
        reward_functions([correct, other])
    assert str(error.value).count("test_reward.py:") == 2
    lightning.reward(name="strict")(other)
    assert [each.name for each in reward_functions([correct, other])] == ["correct", "strict"]


def test_the_marked_function_is_the_default() -> None:
    """One marked function is taken, or none; two are an error that says what to give."""
    assert reward_functions(None) == ()
    lightning.reward(correct)
    assert reward_functions(None) == (RewardFunction(correct, "correct"),)
    lightning.reward(by_role)
    with pytest.raises(lightning.SettingError, match=r"2 functions are marked.*correct, by_role.*reward=\[\.\.\.\]"):
        reward_functions(None)


def test_a_marked_weight_is_a_default_of_the_settings() -> None:
    """It is what `credit.rewards.NAME` is where the user sets nothing, and what the user sets wins."""
    lightning.reward(weight=0.25)(correct)
    lightning.reward(weight=3, name="b")(by_role)
    rewards = reward_functions([correct, by_role])
    assert with_reward_weights(Settings(), rewards).credit.rewards == {"correct": 0.25, "b": 3.0}
    chosen = Settings.from_dict({"credit.rewards.b": 0.5, "credit.rewards.step": 0.0})
    assert with_reward_weights(chosen, rewards).credit.rewards == {"correct": 0.25, "b": 0.5, "step": 0.0}
    assert with_reward_weights(Settings(), reward_functions(lambda task, answer: 1.0)) == Settings()


def test_emit_reward_outside_a_rollout_says_where_to_call_it() -> None:
    """A reward that would belong to nothing is an error, not a loss."""
    with pytest.raises(lightning.RewardError, match=r"with lightning.rollout\(task\)"):
        lightning.emit_reward(1.0)


def test_what_emit_reward_refuses_is_named() -> None:
    """Its message names the role and the name of the number."""
    with pytest.raises(lightning.RewardError, match=r"emit_reward\(\), role 'writer', name 'style' gave nan"):
        lightning.emit_reward(math.nan, role="writer", name="style")
    with pytest.raises(lightning.RewardError, match=r"emit_reward\(\), name 'step' has the reason 3 \(int\)"):
        lightning.emit_reward(1.0, why=3)  # type: ignore[arg-type]


def test_emit_reward_belongs_to_rollout_and_span(recorder: Recorder) -> None:
    """A step's reward carries its role, its name and the agent's span, and is not taken for a reward function's."""

    @lightning.agent(role="writer")
    def write() -> None:
        lightning.emit_reward(0.5, role="writer", name="style")
        lightning.emit_reward(1, why="it rhymes")

    with lightning.rollout({"topic": "x"}) as rollout:
        write()
    begin, reward, end = (recorder.of(kind)[0] for kind in (Event.BEGIN, Event.REWARD, Event.END))
    assert begin[1] == reward[1] == end[1] and begin[2] == rollout.id and begin[3] == {"topic": "x"}
    assert reward[2:6] == (0.5, "writer", "style", recorder.spans[0].id) and reward[7:] == (False, "")
    assert recorder.of(Event.REWARD)[1][2] == 1.0 and recorder.of(Event.REWARD)[1][8] == "it rhymes"
    assert end[2] == "ok"


def test_rollout_passes_exceptions_on(recorder: Recorder) -> None:
    """An exception ends the rollout as the agent's error, with the place, and goes on to the user."""
    with pytest.raises(ZeroDivisionError), lightning.rollout({}):
        _ = 1 / 0
    end = recorder.of(Event.END)[0]
    assert end[2] == "agent_error" and "ZeroDivisionError" in end[3] and "test_reward.py" in end[3]


class _Verdict:
    pass


@pytest.mark.parametrize(
    ("answer", "back"),
    [
        ("forty-two é", "forty-two é"),
        ("\ud800", "\ud800"),
        (None, None),
        (4, 4),
        (0.5, 0.5),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        (("x", 1), ["x", 1]),
        ("x" * 999_998, "x" * 999_998),
    ],
)
def test_an_answer_is_kept_as_it_was(recorder: Recorder, answer: object, back: object) -> None:
    """What JSON has a word for comes back the same, and people see some of it."""
    with lightning.rollout({}) as rollout:
        rollout.answer = answer
    *_, shown, kept, why = recorder.of(Event.END)[0]
    assert json.loads(kept) == back and why == "" and len(shown) <= 2000
    assert wire.pack([shown, kept])  # whatever was sampled, the stream can carry it


def _endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_Verdict(), "test_reward._Verdict"),
        ([b"x"], "bytes"),
        ({1: "x"}, "key 1"),
        (_endless(), "nested too deeply"),
        ("x" * 999_999, "longer than 1,000,000"),
        (["y" * 1000] * 1000, "longer than 1,000,000"),
    ],
)
def test_an_answer_that_cannot_be_kept_says_why(recorder: Recorder, answer: object, said: str) -> None:
    """The rollout ends all the same, with the reason where the answer would be."""
    with lightning.rollout({}) as rollout:
        rollout.answer = answer
    *_, kept, why = recorder.of(Event.END)[0]
    assert kept == "" and said in why

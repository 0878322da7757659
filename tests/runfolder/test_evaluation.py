"""Scores of held-out tasks: means over seeds, what failed, roles, and two measurements compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lightning_hub.backend import BackendSpec, Endpoint
from lightning_hub.evaluation.evaluation import HeldOut, measure
from lightning_hub.evaluation.judgement import change, change_of_roles, judge, verdict
from lightning_hub.rollout import Assignment, EarnedReward, Rollout
from lightning_hub.rollouts.plan import Plan
from lightning_hub.statistics.looks import Look
from lightning_hub.statistics.reward_range import TrainingRange
from lightning_sdk.errors import SettingError
from lightning_sdk.rollouts.tasks import task_id
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status

ENDPOINT = Endpoint("http://127.0.0.1:1/v1", "m", "k")
#: The outcome of one rollout: a reward, rewards by role, or how it failed.
Came = float | dict[str, float] | Status


def settings(seeds: int = 2, **more: Any) -> Settings:
    return Settings.from_dict({"evaluation.seeds": seeds, "evaluation.temperature": 0.8, **more})


def assign(chosen: Settings, tasks: int, name: str = "before", first: int = 0) -> list[Assignment]:
    spec = BackendSpec(name="none", honours=frozenset(), start=lambda *_: None)  # type: ignore[arg-type]
    held_out: list[dict[str, Any]] = [{"task": first + number} for number in range(tasks)]
    return Plan(settings=chosen, backend=spec, tasks=[], held_out=held_out).of_scoring(name, held_out, ENDPOINT)


def name_of(number: int) -> str:
    """The name by which one of these tasks is known."""
    return str(task_id({"task": number}))


def evaluate(name: str, came: Sequence[Sequence[Came]], chosen: Settings | None = None, first: int = 0) -> HeldOut:
    """An evaluation of tasks from this number on, each with what came of its seeds; rollouts end in another order than
    they began."""
    chosen = chosen or settings(len(came[0]))
    assignments = assign(chosen, len(came), name, first)
    ended = [_end(one, each) for one, each in zip(assignments, (one for task in came for one in task), strict=True)]
    return measure(name, 0, assignments, ended[::-1], chosen)


def _end(assignment: Assignment, came: Came) -> Rollout:
    status = came if isinstance(came, Status) else Status.OK
    rewards = {} if isinstance(came, Status) else came if isinstance(came, dict) else {"": came}
    return Rollout(
        id=assignment.id,
        task_id=assignment.task_id,
        group=assignment.group,
        mode=assignment.mode,
        attempt=1,
        status=status,
        error="",
        seconds=1.0,
        rewards=tuple(EarnedReward(role, "right", value, 1) for role, value in rewards.items()),
    )


def test_each_task_is_run_with_its_own_seeds_and_every_evaluation_with_the_same() -> None:
    """No two rollouts share a seed, and before and after have the same ones; another `seed` gives others."""
    before, after = (assign(settings(3), 5, name) for name in ("before", "after"))
    drawn = [each.sampling["rollout_seed"] for each in before]
    assert [each.task["task"] for each in before] == [task for task in range(5) for _ in range(3)]
    assert len(set(drawn)) == 15 and drawn == [each.sampling["rollout_seed"] for each in after]
    assert {each.sampling["temperature"] for each in before} == {0.8}
    assert not set(drawn) & {each.sampling["rollout_seed"] for each in assign(settings(3, seed=1), 5)}
    more = [each.sampling["rollout_seed"] for each in assign(settings(4), 5) if each.task["task"] == 0]
    assert more[:3] == drawn[:3]


def test_greedy_evaluation_has_no_seed() -> None:
    """Nothing about it changes."""
    (only,) = assign(Settings(), 1)
    assert only.sampling == {"temperature": 0.0, "free_choice": 1.0, "max_tokens_default": 256}


def test_a_tasks_score_is_the_mean_over_its_seeds_and_tasks_are_what_counts() -> None:
    """Tasks are the clusters: twice as many seeds of the same scores make no interval narrower."""
    scores = [[0.2, 0.4], [1.0, 0.0], [0.5, 0.5], [0.9, 0.7]]
    one, two = evaluate("before", scores), evaluate("before", [[*task, *task] for task in scores])
    assert one.scores == pytest.approx({name_of(0): 0.3, name_of(1): 0.5, name_of(2): 0.5, name_of(3): 0.8})
    assert one.score.mean == pytest.approx(0.525) and (one.score.n, one.seeds) == (4, 2)
    assert one.by_seed[name_of(1)] == [1.0, 0.0]
    assert (one.score.low, one.score.high) == pytest.approx((two.score.low, two.score.high))


def test_failed_rollouts_are_left_out_and_counted_by_task() -> None:
    """A task keeps the mean of the seeds that went well; one without any has no score, instead of zero."""
    came: list[list[Came]] = [[1.0, Status.TIMEOUT], [Status.AGENT_ERROR, Status.TIMEOUT], [0.5, 0.0], [{}, 0.25]]
    found = evaluate("before", came)
    assert found.scores == {name_of(0): 1.0, name_of(2): 0.25, name_of(3): 0.25}
    assert (found.score.n, found.failed) == (3, 4)
    assert found.failures == {"timeout": 2, "agent_error": 1, "no_reward": 1}
    line = found.as_line()
    assert line["failed_by_task"] == {name_of(0): 1, name_of(1): 2, name_of(3): 1}
    assert line["by_seed"][name_of(0)] == [1.0, None]


def test_an_evaluation_is_read_back_as_it_was_written() -> None:
    """Through JSON, with roles and gaps; lines of versions that knew one score a task can be read too."""
    found = evaluate("after", [[{"": 0.5, "writer": 1.0}, Status.TIMEOUT], [{"": 0.25, "writer": 0.0}, 0.75]])
    again = HeldOut.from_line(json.loads(json.dumps(found.as_line())))
    assert again.as_line() == found.as_line()
    old = HeldOut.from_line(
        {
            "name": "before",
            "step": 0,
            "mean": 0.5,
            "low": None,
            "high": None,
            "n": 1,
            "method": "none",
            "failed": 0,
            "scores": {"0": 0.5},
        }
    )
    assert (old.scores_by_seed, old.temperature, old.seeds) == ({"0": (0.5,)}, 0.0, 1)


def test_an_evaluation_has_the_most_frequent_reasons() -> None:
    """Counted by reward and words, with the mean; of rollouts that failed and of rewards without words there are
    none."""
    chosen = settings(1)
    assignments = assign(chosen, 12)
    whys = ["unit  missing", "unit\nmissing", "", "wrong", "unit missing", *(f"rare {n}" for n in range(7))]
    ended = [
        replace(_end(each, 0.1 * number), rewards=(EarnedReward("", "right", 0.1 * number, 1, why),))
        for number, (each, why) in enumerate(zip(assignments, whys, strict=True))
    ]
    ended[3] = replace(ended[3], status=Status.AGENT_ERROR)
    found = measure("after", 0, assignments, ended, chosen)
    assert [(each.name, each.why, each.count) for each in found.reasons] == [
        ("right", "unit missing", 3),
        *(("right", f"rare {n}", 1) for n in range(4)),
    ]
    assert found.reasons[0].mean == pytest.approx(0.5 / 3)
    again = HeldOut.from_line(json.loads(json.dumps(found.as_line())))
    assert again.reasons == found.reasons and again.summary().as_dict() == found.summary().as_dict()
    assert not evaluate("before", [[0.5]]).reasons


def test_roles_with_separate_rewards_have_separate_scores() -> None:
    """By the weights of their rewards, beside the score of the whole, and compared like it."""
    chosen = settings(1, **{"role.writer.rewards": {"right": 2.0}})
    before = evaluate("before", [[{"writer": 0.1 * task, "checker": 0.5}] for task in range(8)], chosen)
    after = evaluate("after", [[{"writer": 0.1 * task + 0.2, "checker": 0.5}] for task in range(8)], chosen)
    assert list(before.roles) == ["checker", "writer"]
    assert before.roles["writer"].score.mean == pytest.approx(0.7)
    assert before.score.mean == pytest.approx((0.7 + 0.5) / 2)
    moved = change_of_roles(before, after)
    assert moved["writer"].mean == pytest.approx(0.4) and moved["writer"].n == 8
    assert moved["checker"].mean == 0.0 and not moved["checker"].is_above(0)
    assert not evaluate("before", [[0.5]]).roles


def test_before_and_after_are_compared_on_the_same_tasks_and_seeds() -> None:
    """A seed that failed on one side counts on neither; a task without a common seed is left out."""
    before = evaluate("before", [[0.0, 1.0], [0.5, Status.TIMEOUT], [0.2, 0.2]])
    after = evaluate("after", [[0.5, Status.TIMEOUT], [Status.TIMEOUT, 0.9], [0.2, 0.4]])
    found = change(before, after)
    assert found is not None
    assert found.n == 2 and found.mean == pytest.approx((0.5 + 0.1) / 2)


def test_the_order_of_seeds_makes_no_change() -> None:
    """The same three numbers in another order have exactly the same mean: such tasks did not change."""
    found = change(evaluate("before", [[0.1, 0.2, 0.3]] * 9), evaluate("after", [[0.3, 0.2, 0.1]] * 9))
    assert found is not None and found.mean == 0.0
    assert judge(evaluate("before", [[0.1, 0.2, 0.3]] * 9), evaluate("after", [[0.3, 0.2, 0.1]] * 9)).reason == (
        "no task's score changed"
    )


@pytest.mark.parametrize(("gain", "said"), [(0.3, "better"), (-0.3, "worse"), (0.0, "not shown to be better")])
def test_the_verdict_goes_by_the_change_of_tasks(gain: float, said: str) -> None:
    """In words."""
    base = [[0.05 * (task % 7) + 0.35, 0.05 * (task % 3) + 0.35] for task in range(20)]
    noise = [0.02 * (-1) ** task for task in range(20)]
    moved = [[score + gain + noise[task] for score in scores] for task, scores in enumerate(base)]
    assert verdict(evaluate("before", base), evaluate("after", moved)) == said


def test_only_equal_tasks_are_paired() -> None:
    """Tasks at the same place of two lists are not the same task: the pairing goes by their content, and says how many
    there were; without any the verdict is that nothing was measured."""
    before = evaluate("before", [[0.0]] * 8 + [[0.5]] * 4, Settings())
    shifted = evaluate("after", [[0.5]] * 4 + [[1.0]] * 8, Settings(), first=8)
    found = change(before, shifted)
    assert found is not None and (found.n, found.mean) == (4, 0.0)
    other = evaluate("after", [[1.0]] * 8, Settings(), first=100)
    assert change(before, other) is None and verdict(before, other) == "not measured"


def test_a_task_that_is_there_twice_counts_twice() -> None:
    """Each place has a score, and both are paired with their own again: the mean is the one over the whole file."""
    spec = BackendSpec(name="none", honours=frozenset(), start=lambda *_: None)  # type: ignore[arg-type]
    plan = Plan(settings=Settings(), backend=spec, tasks=[], held_out=[{"q": 1}, {"q": 2}, {"q": 1.0}])
    before, after = (
        measure(name, 0, assigned, [_end(one, value) for one, value in zip(assigned, values, strict=True)], Settings())
        for name, values in (("before", (0.0, 1.0, 0.5)), ("after", (0.5, 1.0, 0.5)))
        for assigned in [plan.of_scoring(name, plan.held_out, ENDPOINT)]
    )
    assert (before.score.n, before.score.mean) == (3, 0.5)
    found = change(before, after)
    assert found is not None and (found.n, found.mean) == (3, pytest.approx(0.5 / 3))


def test_what_was_measured_in_different_ways_is_not_compared() -> None:
    """As when a run is resumed with another temperature; nor is what has no score at all."""
    greedy = evaluate("before", [[0.0]] * 9, Settings())
    sampled = evaluate("after", [[1.0]] * 9, settings(1))
    nothing = evaluate("after", [[Status.TIMEOUT]] * 9, Settings())
    assert change(greedy, sampled) is None and change_of_roles(greedy, sampled) == {}
    assert verdict(greedy, sampled) == verdict(greedy, nothing) == verdict(None, greedy) == "not measured"
    assert nothing.score.mean is None and nothing.failed == 9


def at(name: str, scores: Sequence[float], chosen: Settings | None = None, **more: Any) -> HeldOut:
    """An evaluation with one greedy rollout a task."""
    found = evaluate(name, [[score] for score in scores], chosen or Settings())
    return replace(found, **more)


def test_a_verdict_says_why_it_is_not_better() -> None:
    """Too few tasks, nothing that changed, a range that is not known, or one that is wider than it need be."""
    three = judge(at("before", [0.0] * 3), at("after", [1.0] * 3))
    assert three.verdict == "not shown to be better" and three.reason.startswith(
        "3 tasks are too few: even if every one"
    )
    assert judge(at("before", [1.1] * 3), at("after", [1.1] * 3)).reason.startswith("all scores are 1.1, and the range")
    few = judge(at("before", [1.1] * 7), at("after", [2.2] * 7))
    assert few.reason.startswith("too few tasks (7) for a reward of unknown range: at least 20, or set evaluation.")
    wide = judge(at("before", [0.4] * 30), at("after", [0.45] * 30))
    assert wide.verdict == "not shown to be better" and wide.reason.startswith(
        "30 tasks are too few for a reward of 0 to 1"
    )
    narrow = Settings.from_dict({"evaluation.reward_low": 0.3, "evaluation.reward_high": 0.5})
    assert judge(at("before", [0.4] * 30, narrow), at("after", [0.45] * 30, narrow)).verdict == "better"


def test_a_score_outside_the_range_that_is_set_is_not_judged_by_it() -> None:
    """It says which score, and what was set."""
    chosen = Settings.from_dict({"evaluation.reward_low": 0.0, "evaluation.reward_high": 1.0})
    found = judge(at("before", [0.0] * 30, chosen), at("after", [3.0] * 30, chosen))
    assert found.verdict == "not shown to be better" and "a score of 3 lies outside" in found.reason


def test_a_gain_of_a_reward_of_any_range_counts_once_training_has_shown_the_range() -> None:
    """With what it rests on; a training that was too short to show it does not do."""
    before, after = [5.0 + 0.1 * (task % 5) for task in range(60)], [9.0 + 0.1 * (task % 7) for task in range(60)]
    unknown = judge(at("before", before), at("after", after, trained=TrainingRange(4.0, 10.0, 255)))
    assert unknown.verdict == "not shown to be better" and "too few training rollouts" in unknown.reason
    known = judge(at("before", before), at("after", after, trained=TrainingRange(4.0, 10.0, 256)))
    assert known.verdict == "better" and known.reason.startswith("if the reward stays within 2.5 to 11.5")


def test_a_later_look_needs_more_and_says_so() -> None:
    """Seven of seven changed tasks are better at the one look that was planned, and not at the third."""
    before, after = [0.0] * 60, [1.0] * 7 + [0.0] * 53
    once = judge(at("before", before), at("after", after))
    again = judge(at("before", before), at("after", after, look=Look(3, 0.03)))
    assert once.verdict == "better" and once.reason == ""
    assert again.verdict == "not shown to be better"
    assert again.reason == "the interval allows for 3 looks at the held-out tasks"


@pytest.mark.parametrize(("low", "high"), [(0.0, None), (None, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, float("inf"))])
def test_a_range_is_two_numbers_in_order(low: float | None, high: float | None) -> None:
    """Half a range says nothing of the other half."""
    with pytest.raises(SettingError, match=r"evaluation\.reward_"):
        Settings.from_dict({"evaluation.reward_low": low, "evaluation.reward_high": high})

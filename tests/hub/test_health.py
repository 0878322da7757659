"""Health: recorded metrics of real runs, as they are and with one thing made wrong, and what is said of them.

`recorded/learning.jsonl` is the calculator example trained with spark for 40 steps, `recorded/diverged.jsonl` the same
with 20 times its learning rate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from lightning_hub.evaluation.evaluation import HeldOut
from lightning_hub.health.examine import Health, examine
from lightning_hub.health.run_record import RunRecord, ScoredRollout
from lightning_hub.statistics.interval import interval
from lightning_hub.storage.attempts import StoredAttempt
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status
from tests.hub.recorded_runs import Step, kinds, steps
from tests.hub.spoken import assistant, call, rollout


def change_metrics(change: Callable[[Step], Mapping[str, float | None]], many: int = 40) -> RunRecord:
    """The run that learned, with metrics that are added or replaced."""
    return RunRecord(
        name="runs/solve", settings=Settings(), steps=[{**step, **change(step)} for step in steps()[:many]]
    )


def level(**more: float) -> Callable[[Step], Mapping[str, float]]:
    """A reward that goes nowhere, and these metrics."""
    return lambda step: {"reward_mean/solver": 0.3 + 0.05 * (-1) ** int(step["step"] or 0), **more}


def words_of(health: Health, kind: str) -> str:
    return str(next(each for each in health.findings if each.kind == kind))


def attempt(number: str, group: str, **more: Any) -> StoredAttempt:
    """An attempt that ended well after a second, but for what is given."""
    well = {"attempt": 1, "task_id": 0, "status": Status.OK, "error": "", "started": 0.0, "ended": 1.0}
    return StoredAttempt(key=b"", id=number, mode="train", group=group, **well | more)


def score(step: int, place: int, values: list[float], role: str = "solver") -> list[ScoredRollout]:
    """The rollouts of one group."""
    return [
        ScoredRollout(
            attempt(f"{step}-{place}-{at}", f"{step}-{place}", task_id=place),
            step,
            {role: value},
        )
        for at, value in enumerate(values)
    ]


def held_out(name: str, step: int, scores: list[float]) -> HeldOut:
    return HeldOut(
        name=name,
        step=step,
        score=interval(scores),
        failed=0,
        scores={str(task): each for task, each in enumerate(scores)},
    )


def test_a_run_that_learns_has_no_findings() -> None:
    """One sentence says from where to where, and it is being learned."""
    health = examine(RunRecord(name="runs/solve", settings=Settings(), steps=steps()))
    assert health.findings == [] and health.learnable
    assert health.summary() == "The reward of the role solver rose from 0.36 to 0.583 in 40 steps."
    assert json.loads(json.dumps(health.examination().as_dict()))["roles"][0]["rises"] is True


def test_no_part_of_a_run_that_learns_is_called_ill() -> None:
    """Whichever part is examined, its noise is neither a fall nor a standstill. At most it is called flat for now."""
    whole = steps()
    for first in range(0, 36, 5):
        for last in range(first + 1, 41):
            found = kinds(examine(RunRecord(name="runs/solve", settings=Settings(), steps=whole[first:last])))
            assert set(found) <= {"warning reward flat"}, (first, last)
            assert not found or last - first >= 20


def test_few_steps_show_no_trend() -> None:
    """Nothing is said of three steps but that they are few."""
    health = examine(RunRecord(name="runs/solve", settings=Settings(), steps=steps()[:3]))
    assert health.findings == [] and "after 3 steps, too few to see a trend" in health.summary()


def test_a_collapse_is_told_with_its_signs() -> None:
    """The reward's peak and where it ended, the rate, and what to type; not that it has no signal, which follows."""
    health = examine(RunRecord(name="runs/solve", settings=Settings(), steps=steps("diverged")))
    assert kinds(health) == ["fatal diverging"] and not health.learnable
    text = words_of(health, "diverging")
    assert "fell from 0.385 at step 1 to 0.00312 in the last 5 steps" in text
    assert "up to 1.0e-02" in text and "--set optimizer.learning_rate=1.0e-03" in text


def test_a_collapse_in_the_first_step_shows_in_the_entropy() -> None:
    """One good step is not much of a peak; with three times the entropy it is."""
    nothing = {"reward_mean/solver": 0.0, "reward_std/solver": 0.0, "entropy": 1.2}
    fallen = [{**step, **nothing} for step in steps()[1:12]]
    health = examine(RunRecord(name="runs/solve", settings=Settings(), steps=[steps()[0], *fallen]))
    assert kinds(health) == ["fatal diverging"] and "the entropy went from 0.46 to 1.2" in words_of(health, "diverging")


def test_a_collapse_in_a_short_run_shows_in_its_trend() -> None:
    """Eight steps of four tasks have large errors; a reward that falls in all of them to nothing is a fall."""
    rewards = [0.75, 0.6, 0.4, 0.3, 0.1, 0.0, 0.0, 0.0]
    fallen = [
        {**step, "groups": 4.0, "reward_mean/solver": value, "reward_std/solver": 0.35 if value else 0.0}
        for step, value in zip(steps(), rewards, strict=False)
    ]
    settings = Settings.from_dict({"rollouts.tasks_per_step": 1})
    assert kinds(examine(RunRecord(name="runs/solve", settings=settings, steps=fallen))) == ["fatal diverging"]


@pytest.mark.parametrize(("after", "severity"), [(0.5, "warning"), (0.0, "fatal")])
def test_a_held_out_score_that_training_lowered(after: float, severity: str) -> None:
    """Whatever the reward of training shows: with both scores and the interval of the change."""
    before = held_out("final", 0, [1.0] * 20 + [0.0] * 4)
    evaluations = [before, held_out("final", 3, [after] * 20 + [0.0] * 4)]
    health = examine(
        replace(RunRecord(name="runs/solve", settings=Settings(), steps=steps()[:3]), evaluations=evaluations)
    )
    assert kinds(health) == [f"{severity} held-out score worse"]
    assert f"24 held-out tasks went from 0.833 to {after * 20 / 24:.3g}" in words_of(health, "held-out score worse")


def test_rewards_that_never_differ() -> None:
    """From which step to which, and the value where there is one only."""
    flat = change_metrics(lambda step: {"groups_without_signal": step["groups"], "reward_mean/solver": 0.25}, 12)
    health = examine(replace(flat, scored=score(1, 0, [0.25, 0.25])))
    assert kinds(health) == ["fatal no signal"]
    assert "from step 1 to 12 all rewards of the role solver were equal" in words_of(health, "no signal")
    assert "every reward was 0.25" in words_of(health, "no signal")


def test_answers_are_shown_where_they_are_kept() -> None:
    """With the words that the first step of a training has."""
    flat = change_metrics(lambda step: {"groups_without_signal": step["groups"], "reward_mean/solver": 0.0}, 12)
    spoken_ones = [
        rollout(
            at,
            call(at, answer=assistant(f"It is {at}")),
            rewards={"": 0.0},
            group=f"{at // 2 + 1}-0",
            task_id=at // 2,
            answer=f"It is {at}",
        )
        for at in range(6)
    ]
    tasks = {number: {"question": f"{number} + 2?"} for number in range(3)}
    record = replace(flat, scored=score(1, 0, [0.0, 0.0]), sample=spoken_ones, tasks=tasks)
    text = words_of(examine(record), "no signal")
    assert text.count("\n  answer  ") == 3 and 'task    {"question": "2 + 2?"}' in text
    assert "Every answer was wrong" in text and "spark, the small model" in text


def test_nothing_that_is_left_out_for_its_length_is_trained_on() -> None:
    """Rewards differ, and yet nothing is learned: the setting that does it is named, and not advised."""
    cut: Step = {
        "tokens_trained/solver": 0.0,
        "tokens_masked_length/solver": 900.0,
        "completions_truncated/solver": 1.0,
    }
    settings = Settings.from_dict({"length.truncated": "mask"})
    health = examine(replace(change_metrics(lambda _: {**cut, "calls": 96.0}), settings=settings))
    assert kinds(health) == ["fatal no signal", "fatal completions truncated"]
    assert "no token of the role solver was trained on" in words_of(health, "no signal")
    assert "length.truncated=mask leaves those out" in words_of(health, "no signal")
    assert "--set length.truncated=mask" not in str(health.findings)
    assert "nothing is learned from them" in words_of(health, "completions truncated")


@pytest.mark.parametrize(
    ("how", "share", "severity"),
    [("mask", 0.95, "fatal"), ("exclude", 0.95, "fatal"), ("mask", 0.6, "warning"), ("train", 0.95, "warning")],
)
def test_nearly_all_left_out_is_fatal(how: str, share: float, severity: str) -> None:
    """The few tokens that are still trained are next to nothing; where such completions are trained on, all are."""
    settings = Settings.from_dict({"length.truncated": how})
    metrics: Step = {"completions_truncated/solver": share, "calls": 96.0}
    health = examine(replace(change_metrics(lambda _: metrics), settings=settings))
    assert f"{severity} completions truncated" in kinds(health)


def test_a_signal_that_is_gone_because_all_is_solved() -> None:
    """There is nothing wrong with that, and nothing more to learn."""
    record = change_metrics(
        lambda step: {"groups_without_signal": step["groups"], "reward_mean/solver": 1.0} if step["step"] > 20 else {}  # type: ignore[operator]
    )
    values = score(3, 0, [0.0, 1.0]) + [each for step in range(21, 41) for each in score(step, 0, [1.0, 1.0])]
    health = examine(replace(record, scored=values))
    assert kinds(health) == ["warning no signal"] and "from step 21 to 40" in words_of(health, "no signal")
    assert "Tasks that are solved have nothing more to teach" in words_of(health, "no signal") and health.learnable


def test_equal_rewards_in_a_group_may_teach_where_tasks_are_compared() -> None:
    """A running mean does not depend on a group."""
    settings = Settings.from_dict({"credit.advantage": "running_mean"})
    flat = change_metrics(lambda step: {"groups_without_signal": step["groups"]})
    values = score(1, 0, [0.0, 0.0]) + score(1, 1, [1.0, 1.0])
    assert kinds(examine(replace(flat, settings=settings, scored=values))) == []


@pytest.mark.parametrize(
    ("low", "words"), [(0.0, "0% of these high and in 100% low"), (1.0, "most tasks are too easy")]
)
def test_most_groups_flat(low: float, words: str) -> None:
    """On which side they are, and what to change."""
    record = change_metrics(level(groups=16.0, groups_without_signal=14.0))
    values = [each for step in range(1, 41) for each in score(step, 0, [low, low])]
    values += [each for step in range(1, 41, 8) for each in score(step, 1, [0.0, 1.0])]
    health = examine(replace(record, scored=values))
    assert kinds(health) == ["warning most groups flat"] and words in words_of(health, "most groups flat")
    assert "algorithm.dynamic_sampling" in words_of(health, "most groups flat")


def test_a_role_without_reward() -> None:
    """Fatal where no role has one, a warning beside one that has."""
    alone = [
        {"step": float(n), "rows/critic": 4.0, "rewards_missing/critic": 4.0, "groups": 0.0, "rows": 4.0}
        for n in range(1, 5)
    ]
    health = examine(RunRecord(name="runs/solve", settings=Settings(), steps=alone))
    assert kinds(health) == ["fatal no reward"]
    assert "in 4 steps the role critic never had" in words_of(health, "no reward")
    beside = examine(change_metrics(lambda step: {"rewards_missing/critic": 4.0, "rows/critic": 0.0}))
    assert kinds(beside) == ["warning no reward"]


def test_a_role_filter_that_matches_nothing_or_in_part() -> None:
    """The roles that there were are listed."""
    for roles, kind in (("sovler",), "fatal role filter matched nothing"), (("solver", "critic"), "role without calls"):
        health = examine(
            replace(
                RunRecord(name="r", settings=Settings(), steps=steps()), settings=Settings.from_dict({"roles": roles})
            )
        )
        assert kind in kinds(health)[0] and "there were solver" in health.findings[0].what


def test_rates_that_cannot_move_a_weight() -> None:
    """Before the last evaluation the rates' sum and a level reward and entropy are all there is."""
    health = examine(change_metrics(level(learning_rate=1e-9, entropy=0.4), 30))
    assert kinds(health) == ["fatal learning rate too low"]
    assert "add up to 3.0e-08" in words_of(health, "learning rate too low")
    assert kinds(examine(change_metrics(level(learning_rate=1e-6, entropy=0.4), 15))) == []


def test_a_divergence_from_the_reference_that_stays_nothing() -> None:
    """The KL divergence that is in the loss is a measure of movement too."""
    assert kinds(examine(change_metrics(level(kl_reference=1e-9), 15))) == ["fatal learning rate too low"]
    assert kinds(examine(change_metrics(level(kl_reference=1e-3), 15))) == []


def test_gradients_that_are_not_finite() -> None:
    """Also where the metrics hold None for them."""
    health = examine(change_metrics(lambda step: {"skipped": 1.0} if step["step"] in {3, 5, 8, 9, 11} else {}))
    assert kinds(health) == ["warning numbers not finite"]
    assert "in 5 of 40 steps, first in step 3" in words_of(health, "numbers not finite")
    assert "fatal numbers not finite" in kinds(examine(change_metrics(lambda _: {"loss": None})))


def test_an_entropy_that_collapsed() -> None:
    """Only where the reward is far from the best that was seen, and does not rise."""

    def falling(step: Step) -> Mapping[str, float]:
        return {**level()(step), "entropy": 0.5 * 0.85 ** (step["step"] or 0)}

    low = replace(change_metrics(falling), scored=score(1, 0, [0.0, 1.0]))
    assert kinds(examine(low)) == ["warning entropy collapsed"]
    assert "fell from 0.36 to 0.00089" in words_of(examine(low), "entropy collapsed")
    assert kinds(examine(replace(low, scored=score(1, 0, [-0.6, 0.6])))) == ["warning reward flat"]


def test_a_sampler_that_disagrees() -> None:
    """By its log-probs, whether it is older or computes otherwise."""
    health = examine(change_metrics(lambda _: {"kl_sampler": 0.2, "truncated_fraction": 0.3}))
    assert kinds(health) == ["warning sampler and trainer disagree"]
    text = words_of(health, "sampler and trainer disagree")
    assert "0.2 nats" in text and "30% of the importance weights" in text and "same version" in text
    stale = examine(change_metrics(lambda _: {"kl_sampler": 0.2, "staleness_mean": 3.0}))
    assert "3.0 versions old" in str(stale.findings[0])
    assert kinds(examine(change_metrics(lambda _: {"kl_sampler": 0.01}))) == []


def test_a_staleness_that_is_high() -> None:
    """Only where nothing is learned."""
    health = examine(change_metrics(level(staleness_mean=6.0, staleness_max=9.0), 15))
    assert kinds(health) == ["warning staleness high"] and "6.0 versions after" in words_of(health, "staleness high")
    assert kinds(examine(change_metrics(lambda _: {"staleness_mean": 6.0}))) == []


def test_what_is_paid_for_and_not_learned_from() -> None:
    """Failures with their most common error, repetitions, cut completions, conversations in pieces."""
    timeout = {"status": Status.TIMEOUT, "error": "no answer after 9 s", "attempt": 3, "ended": 9.0}
    failed = [attempt(str(n), "1-0", **timeout) for n in range(3)]
    record = change_metrics(
        lambda _: {
            "rollouts_ok": 96.0,
            "rollouts_timeout": 32.0,
            "retries": 64.0,
            "completions_truncated/solver": 0.5,
            "rows_per_rollout": 3.0,
            "rows": 300.0,
            "calls": 400.0,
            "breaks/sampled_text_not_kept": 200.0,
            "breaks/branch": 9.0,
        }
    )
    health = examine(replace(record, failed=failed))
    assert kinds(health) == [
        f"warning {kind}"
        for kind in ("rollouts failed", "rollouts repeated", "completions truncated", "broken sequences")
    ]
    assert "1280 of 5120 rollouts failed: 1280 timeout" in words_of(health, "rollouts failed")
    assert "no answer after 9 s" in words_of(health, "rollouts failed")
    assert "rollouts.timeout" in str(health.findings[0])
    assert "2560 retries" in words_of(health, "rollouts repeated")
    assert "50% of the completions" in words_of(health, "completions truncated")
    text = words_of(health, "broken sequences")
    assert "3.0 rows on average" in text and "8000 sampled text not kept" in text and "choices[0].message" in text


@pytest.mark.parametrize(("tasks", "cause"), [(16, "seen 40 times each"), (2000, "too few held-out tasks")])
@pytest.mark.parametrize("turned", [2, 12])
def test_a_gain_that_the_held_out_tasks_do_not_show(tasks: int, cause: str, turned: int) -> None:
    """Few tasks by heart, or of another kind: whether so few changed that there is no interval, or some each way."""
    before, after = [1.0, 0.0] * 100, [0.0, 1.0] * turned + [1.0, 0.0] * (100 - turned)
    record = replace(
        RunRecord(name="r", settings=Settings(), steps=steps()),
        facts={"tasks": tasks},
        evaluations=[held_out("before", 0, before), held_out("after", 40, after)],
    )
    health = examine(record)
    assert kinds(health) == ["warning held-out score not better"] and cause in str(health.findings[0])
    assert "from 0.5 to 0.5: not shown to be better" in health.summary()
    better = replace(record, evaluations=[held_out("before", 0, [0.0] * 40), held_out("after", 40, [1.0] * 40)])
    assert kinds(examine(better)) == [] and "from 0 to 1: better" in examine(better).summary()


def test_findings_of_the_first_rollouts_stay() -> None:
    """Those that no metric tells better; what all steps show replaces what the first one showed."""
    first = [
        Finding(kind=kind, severity=Severity.WARNING, what="w", cause="", remedy="")
        for kind in ("calls went elsewhere", "no signal")
    ]
    record = RunRecord(name="r", settings=Settings(), steps=steps(), first_findings=first)
    assert kinds(examine(record)) == ["warning calls went elsewhere"]


def test_training_from_stored_rollouts_has_no_reward_to_rise() -> None:
    """Its rewards are what they are: the loss is told."""
    health = examine(replace(change_metrics(level()), stored=True))
    assert health.findings == [] and "40 steps were trained on stored rollouts: the loss went from" in health.summary()

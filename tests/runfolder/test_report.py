"""What the report says beside the score: failures, masked tokens, staleness, roles; and how it is printed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lightning_hub.evaluation.evaluation import HeldOut, RoleScore
from lightning_hub.results.run_folder import RunFolder
from lightning_hub.statistics.interval import interval
from lightning_hub.storage.store import Totals
from lightning_sdk.commands.history import read_runs
from lightning_sdk.commands.report import Report, Score, read
from lightning_sdk.results.score import RewardReason
from lightning_sdk.settings import Settings

STEP: dict[str, float] = {
    "reward_mean": 0.5, "reward_mean/writer": 0.75, "reward_mean/checker": 0.25, "reward_std/writer": 0.1,
    "reward_std/checker": 0.2, "rows/writer": 8, "groups/writer": 4, "groups_without_signal/writer": 1,
    "entropy/writer": 1.234, "kl_sampler/writer": -0.0004, "clip_fraction/writer": 0.125, "kl_reference/writer": 0.02,
    "rows_per_rollout/writer": 1.5, "tokens_trained/writer": 1200, "tokens_masked/writer": 30,
    "tokens_masked": 50, "tokens_masked_length": 20, "retries": 2, "refilled": 1, "deadline_timeouts": 3,
    "resampled_groups": 1, "staleness_mean": 0.5, "staleness_max": 2, "breaks/rewritten_history/writer": 1,
}  # fmt: skip
ROLES = ("writer", "checker")


def held_out(name: str, step: int, level: float) -> HeldOut:
    """Twenty tasks with two seeds each, one of which timed out; the writer earns twice what the checker does."""
    by_seed: dict[str, list[float | None]] = {str(task): [level + task / 100, level + task / 50] for task in range(20)}
    by_seed["7"] = [level, None]
    scores = {task: sum(known := [v for v in values if v is not None]) / len(known) for task, values in by_seed.items()}
    roles = {
        role: RoleScore(interval([v / share for v in scores.values()]), {t: [v / share] for t, v in scores.items()})
        for role, share in zip(ROLES, (1, 2), strict=True)
    }
    return HeldOut(
        name=name,
        step=step,
        score=interval(list(scores.values())),
        failed=1,
        scores=scores,
        by_seed=by_seed,
        failures={"timeout": 1},
        roles=roles,
        seeds=2,
        temperature=0.7,
    )


def finish_run(path: Path, settings: dict[str, Any] | None = None, metrics: dict[str, float] = STEP) -> dict[str, Any]:
    """A run with two roles whose score rises by 0.3."""
    folder = RunFolder(path)
    folder.config({"settings": Settings.from_dict({"steps": 2, **(settings or {})}).as_dict()})
    folder.evaluation(held_out("before", 0, 0.2))
    for step in (1, 2):
        folder.step({**metrics, "step": step})
    folder.evaluation(held_out("after", 2, 0.5))
    return folder.finish(
        Totals(10.0, {"ok": 60, "timeout": 3, "agent_error": 2, "reward_error": 0}, 65, 2400)
    ).as_dict()


def learning_nothing(path: Path) -> dict[str, Any]:
    """A run of one role whose rewards never differed, and whose score stayed where it was."""
    folder = RunFolder(path)
    folder.config({"settings": Settings().as_dict()})
    flat = {
        "reward_mean": 0.0,
        "reward_mean/writer": 0.0,
        "groups": 16,
        "groups_without_signal": 16,
        "groups/writer": 16,
        "groups_without_signal/writer": 16,
    }
    for name, step in (("before", 0), ("after", 2)):
        folder.evaluation(held_out(name, step, 0.0))
    for step in (1, 2):
        folder.step({**flat, "step": step})
    return folder.finish(Totals(10.0, {"ok": 256}, 256, 2400)).as_dict()


def test_a_report_has_the_findings_of_check(tmp_path: Path) -> None:
    """In report.json, in words on its page and in a line of the printed one; and no advice to train longer."""
    report = learning_nothing(tmp_path / "run")
    (finding,) = report["findings"]
    assert (finding["severity"], finding["kind"]) == ("fatal", "no signal")
    assert "from step 1 to 2 all rewards of the role writer were equal" in finding["what"]
    text = page(tmp_path / "run")
    assert "## What is wrong" in text and "Every answer was wrong" in text and finding["remedy"] in text
    assert "**Not shown to be better**" in text and "could show it" not in text
    read_back = read(tmp_path / "run")
    assert read_back.findings == report["findings"]
    assert "fatal     no signal: no group has a signal: from step 1 to 2" in str(read_back)


def page(path: Path) -> str:
    return (path / "report.md").read_text()


def test_the_scores_say_how_they_were_measured(tmp_path: Path) -> None:
    """Tasks times seeds, failures by status, the difference by task, and the same by role."""
    report = finish_run(tmp_path / "run")
    before, change = report["held_out"]["before"], report["change"]
    assert (before["seeds"], before["temperature"], before["n"], before["failures"]) == (2, 0.7, 20, {"timeout": 1})
    assert change["n"] == 20 and change["mean"] == pytest.approx(0.3) and change["low"] > 0
    assert report["verdict"] == "better" and report["change_by_role"]["checker"]["mean"] == pytest.approx(0.15)
    text = page(tmp_path / "run")
    assert "| 20 x 2 seeds | 1 (timeout) |" not in text and "| 20 x 2 seeds | 1 (1 timeout) |" in text
    assert "| after minus before, by task | +0.300 | +0.075 to +0.421 | 20 in both | |" in text
    assert "| writer | before |" in text and "| checker | after minus before, by task | +0.150 |" in text


def test_the_reasons_of_the_last_measurement_are_told(tmp_path: Path) -> None:
    """In report.json, and on the page as text that no reader takes for a table."""
    folder = RunFolder(tmp_path / "run")
    folder.config({"settings": Settings().as_dict()})
    reasons = [
        RewardReason(name="right", role="", why="unit | missing", count=1200, mean=0.25),
        RewardReason(name="brief", role="writer", why="three sentences", count=2, mean=0.0),
    ]
    folder.evaluation(replace(held_out("before", 0, 0.2), reasons=reasons[1:]))
    folder.step({**STEP, "step": 1})
    folder.evaluation(replace(held_out("after", 1, 0.2), reasons=reasons))
    report = folder.finish(Totals()).as_dict()
    assert report["held_out"]["after"]["reasons"] == [asdict(each) for each in reasons]
    told = "```text\n1,200 x 0.25, right: unit | missing\n2 x 0, brief of writer: three sentences\n```"
    assert f"Why, by the most frequent reasons of the rewards (after):\n\n{told}" in page(tmp_path / "run")
    finish_run(tmp_path / "silent")
    assert "reasons of the rewards" not in page(tmp_path / "silent")


def test_what_failed_is_said_with_what_was_done(tmp_path: Path) -> None:
    """By the run's own policy, status by status; attempts, refills, deadline and resampling are counted."""
    policy = {"failure.agent_error": "train", "failure.reward": -0.5, "failure.retries": 1, "failure.refills": 0}
    report = finish_run(tmp_path / "run", policy)
    assert report["failures"] == {
        "retries": 4,
        "refilled": 2,
        "deadline_timeouts": 6,
        "resampled_groups": 2,
        "done": {
            "timeout": "tried again up to 1 time, then left out",
            "agent_error": "trained on, with a reward of -0.5 in addition to what they had earned",
        },
    }
    text = page(tmp_path / "run")
    assert "| timeout | 3 | tried again up to 1 time, then left out |" in text and "| agent error | 2 | trained" in text
    assert "4 attempts that were repeated; 2 rollouts that replaced excluded ones; 6 rollouts ended by" in text
    assert "reward error" not in text


def test_without_failures_the_report_does_not_mention_them(tmp_path: Path) -> None:
    """Nor of masked tokens, staleness or roles."""
    finish_run(tmp_path / "run", metrics={"reward_mean": 0.5, "reward_mean/solver": 0.5})
    text = page(tmp_path / "run")
    assert "Also:" not in text and "not trained on:" not in text and "Asynchronous" not in text and "Roles" not in text


def test_masked_tokens_and_staleness_are_told(tmp_path: Path) -> None:
    """How many for their length; staleness only where steps do not wait for each other."""
    report = finish_run(tmp_path / "run")
    assert (report["tokens_masked"], report["tokens_masked_length"], report["staleness"]) == (100, 40, None)
    assert "100 sampled tokens were not trained on: 40 because a completion or its row was too long" in page(
        tmp_path / "run"
    )
    report = finish_run(tmp_path / "late", {"rollouts.staleness": 3})
    assert report["staleness"] == {"bound": 3, "mean": 0.5, "max": 2}
    assert "on average, tokens were 0.50 versions older than the model they trained, and at most 2" in page(
        tmp_path / "late"
    )


def test_training_from_stored_rollouts_says_what_it_learned_from(tmp_path: Path) -> None:
    """No agent ran for it, so nothing failed."""
    folder = RunFolder(tmp_path / "run")
    folder.step({"step": 1, "tokens_trained": 1500.0, "rows/writer": 3, "rows/checker": 2})
    report = folder.finish(Totals(2.0, {"ok": 0}, 0, 1500)).as_dict()
    assert "1,500 sampled tokens of stored rollouts trained on, in 2.0 s." in page(tmp_path / "run")
    assert report["failures"]["done"] == {} and list(report["roles"]) == ["writer", "checker"]


def test_roles_stand_side_by_side(tmp_path: Path) -> None:
    """The last step of each; '-' where a backend does not measure something."""
    report = finish_run(tmp_path / "run")
    assert report["roles"]["writer"]["clip_fraction"] == 0.125 and list(report["roles"]) == list(ROLES)
    text = page(tmp_path / "run")
    assert "| writer | 0.750 | 0.100 | 1 of 4 | 1.234 | -0.0004 | 12.5% | 0.0200 | 1.50 | 1,200 | 30 |" in text
    assert "| checker | 0.250 | 0.200 | - | - | - | - | - | - | - | - |" in text


def test_three_equal_scores_are_printed_without_an_interval_and_with_a_reason(tmp_path: Path) -> None:
    """Not as `1.100 [1.100, 1.100]`; report.md says it too."""
    folder = RunFolder(tmp_path / "run")
    folder.config({"settings": Settings().as_dict()})
    for name, step in (("before", 0), ("after", 1)):
        if step:
            folder.step({"step": 1, "reward_mean": 1.1})
        scores = {str(task): 1.1 for task in range(3)}
        folder.evaluation(
            HeldOut(
                name=name,
                step=step,
                score=interval([1.1] * 3),
                failed=0,
                scores=scores,
                by_seed={task: [1.1] for task in scores},
            )
        )
    folder.finish(Totals())
    lines = str(read(tmp_path / "run")).splitlines()
    why = "all scores are 1.1, and the range of the reward is not known"
    assert lines[1] == f"before    1.100, n=3 (no interval: {why})"
    assert lines[-1] == f"verdict   not shown to be better: {why}"
    assert read(tmp_path / "run").verdict_reason == why and f"due to chance. A{why[1:]}." in page(tmp_path / "run")


def test_the_printed_report_ends_with_the_verdict(tmp_path: Path) -> None:
    """As `train` returns it and the command prints it."""
    finish_run(tmp_path / "run")
    report = read(tmp_path / "run")
    change, roles = report.change, report.roles("after")
    assert change is not None and change.mean == pytest.approx(0.3) and report.verdict == "better"
    assert roles["writer"].n == 20 and report.roles("before")["writer"].mean == pytest.approx(0.34, abs=0.01)
    lines = str(report).splitlines()
    assert lines[1].startswith("before    0.3") and lines[1].endswith("n=20 x 2 seeds")
    assert lines[3] == "change    +0.300 [+0.075, +0.421], n=20, by task"
    assert lines[4].startswith("role      writer: 0.3") and " before, " in lines[4]
    assert "failed    3 timeout: tried again up to 2 times, then left out" in str(report)
    assert lines[-1] == "verdict   better"


def test_a_report_says_on_how_many_tasks_two_scores_are_compared(tmp_path: Path) -> None:
    """Where not all tasks have a score both times, and where none has."""
    before, after = ({str(task): 0.5 + task / 100 for task in tasks} for tasks in (range(20), range(4, 28)))
    for name, paired in (("some", after), ("none", {f"other {task}": score for task, score in after.items()})):
        folder = RunFolder(tmp_path / name)
        folder.config({"settings": Settings().as_dict()})
        folder.evaluation(HeldOut(name="before", step=0, score=interval([*before.values()]), failed=0, scores=before))
        folder.step({"step": 1, "reward_mean": 0.5})
        folder.evaluation(HeldOut(name="after", step=1, score=interval([*paired.values()]), failed=0, scores=paired))
        folder.finish(Totals())
    assert "n=16, by task, on the 16 tasks that have a score in both" in str(read(tmp_path / "some"))
    assert "n=16, over the tasks with a score in both; 20 had one before and 24 after" in page(tmp_path / "some")
    assert read(tmp_path / "none").verdict == "not measured" and "no task was run both" in page(tmp_path / "none")


def test_a_score_of_nothing_can_be_printed() -> None:
    """Every rollout failed: there is a line, and no error."""
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    report = Report(Path("run"), {"held_out": {"after": nothing}})
    assert report.after is not None and math.isnan(report.after.mean) and "after     no score, n=0" in str(report)
    assert str(Score(mean=0.5, low=0.4, high=0.6, n=9)) == "0.500 [0.400, 0.600], n=9"


def test_runs_of_the_version_before_are_listed_and_read(tmp_path: Path) -> None:
    """Their reports have no change by task, seeds or failures."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    held = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    (folder / "report.json").write_text(
        json.dumps(
            {
                "steps": 1,
                "status": "finished",
                "train_seconds": 1.0,
                "verdict": "not shown to be better",
                "held_out": {"before": held, "after": held},
            }
        )
    )
    assert str(read(folder)).splitlines()[-1] == "verdict   not shown to be better"
    [listed] = read_runs(tmp_path)
    assert (listed["verdict"], listed["status"]) == ("not shown to be better", "finished")


def test_a_run_that_two_versions_wrote_has_a_report(tmp_path: Path) -> None:
    """Resumed after an update of the SDK: the line of the score before has one score a task."""
    folder = RunFolder(tmp_path / "run")
    folder.config({"settings": Settings().as_dict()})
    line = {
        "name": "before",
        "step": 0,
        **interval([0.0] * 20).as_dict(),
        "failed": 0,
        "scores": {str(task): 0.0 for task in range(20)},
    }
    (tmp_path / "run" / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    folder = RunFolder(tmp_path / "run")
    folder.step({"step": 1, "reward_mean": 0.5})
    scores = {str(task): 1.0 for task in range(20)}
    folder.evaluation(
        HeldOut(
            name="after",
            step=1,
            score=interval([1.0] * 20),
            failed=0,
            scores=scores,
            by_seed={t: [1.0] for t in scores},
        )
    )
    report = folder.finish(Totals()).as_dict()
    assert (report["verdict"], report["change"]["mean"]) == ("better", 1.0)


_PRINTED = """
import sys
from pathlib import Path
from lightning_sdk.commands.report import read
print(read(Path(sys.argv[1])))
print({"numpy", "torch"} & set(sys.modules))
"""


def test_a_report_is_read_without_the_backends_packages(tmp_path: Path) -> None:
    """The agent's process has neither numpy nor torch."""
    finish_run(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PRINTED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-2:] == ["verdict   better", "set()"], done.stderr

"""A run on disk: what is written when, what survives a kill, and what the reports say."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from lightning_hub.evaluation.evaluation import HeldOut
from lightning_hub.results.report import Totals
from lightning_hub.results.run_folder import RunFolder
from lightning_hub.statistics.interval import interval
from lightning_hub.statistics.looks import PLANNED
from lightning_hub.statistics.reward_range import TrainingRange
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.settings import Settings

TOTALS = Totals(61.5, {"ok": 90, "timeout": 6, "agent_error": 0}, 250, 12_000)


def train_run(path: Path, before: int = 60, after: int = 180, steps: int = 3) -> RunFolder:
    """A run of three steps whose held-out score goes from `before` to `after` of 200 tasks."""
    folder = RunFolder(path)
    folder.config({"settings": Settings(steps=steps).as_dict(), "facts": {"learning_rate": 0.0001}, "argv": ["x.py"]})
    score(folder, "before", 0, before)
    for step in range(1, steps + 1):
        folder.step({"step": step, "reward_mean": step / 10, "loss": -0.5, "rows": 8})
    score(folder, "after", steps, after)
    return folder


def score(folder: RunFolder, name: str, step: int, right: int, failed: int = 0) -> None:
    """An evaluation in which the first `right` of 200 tasks were solved."""
    scores = {str(task): float(task < right) for task in range(200)}
    folder.evaluation(
        HeldOut(name=name, step=step, score=interval(list(scores.values())), failed=failed, scores=scores)
    )


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def checksum(data: bytes) -> bytes:
    """As another implementation of the format computes it."""
    return struct.pack("<I", masked_crc32c(data))


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Tag, step and value of every TensorBoard scalar, in the order in which they were written.

    Also ("start", step, 0) where a resumed run told TensorBoard to forget what was there from that step on.
    """
    found = []
    for file in sorted(folder.glob("events*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            assert data[at + 8 : at + 12] == checksum(data[at : at + 8])
            assert data[at + 12 + length : at + 16 + length] == checksum(data[at + 12 : at + 12 + length])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            if event.session_log.status == SessionLog.START:
                found.append(("start", event.step, 0.0))
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


def test_a_step_is_one_line_and_on_disk_at_once(tmp_path: Path) -> None:
    """Readers who follow the file see the step; numbers that JSON has no word for are null."""
    folder = RunFolder(tmp_path / "run")
    folder.step({"step": 300.0, "reward_mean": 0.25, "grad_norm": float("nan"), "rows": 8})
    (line,) = lines(tmp_path / "run" / "metrics.jsonl")
    assert line == {"step": 300, "reward_mean": 0.25, "grad_norm": None, "rows": 8}
    assert ("train/reward_mean", 300, 0.25) in scalars(tmp_path / "run" / "tensorboard")
    folder.close()


def test_a_step_twice_is_refused(tmp_path: Path) -> None:
    """A resumed run has to be cut first, or its curve would run back."""
    folder = train_run(tmp_path / "run")
    with pytest.raises(ValueError, match="metrics of step 2 after step 3: cut the run at 1 first"):
        folder.step({"step": 2})
    folder.close()


def test_config_holds_settings_facts_and_versions(tmp_path: Path) -> None:
    """Enough to run it again; later values join earlier ones, and no path of this machine gets in."""
    folder = train_run(tmp_path / "run")
    folder.config({"facts": {"learning_rate": 0.0002, "device": Path("cpu")}})
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert Settings.from_dict(config["settings"]).steps == 3
    assert config["facts"] == {"learning_rate": 0.0002, "device": "cpu"}
    assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert config["versions"]["numpy"]
    assert (config["name"], config["argv"]) == ("run", ["x.py"])
    folder.finish(TOTALS)
    for written in ("config.json", "report.json", "report.md"):
        assert str(tmp_path) not in (tmp_path / "run" / written).read_text()


def test_the_report_holds_the_scores_and_what_was_used(tmp_path: Path) -> None:
    """report.json as scripts read it; `finish` returns the same, and it is read back whole."""
    report = train_run(tmp_path / "run").finish(TOTALS, "checkpoints/step-00003").as_dict()
    assert report == json.loads((tmp_path / "run" / "report.json").read_text())
    assert RunReport.from_dict(report).as_dict() == report
    before = report["held_out"]["before"]
    assert (before["mean"], before["n"], before["method"], before["failed"]) == (0.3, 200, "clopper-pearson", 0)
    assert 0.23 < before["low"] < 0.3 < before["high"] < 0.37
    assert (report["name"], report["status"], report["model"], report["backend"]) == (
        "run",
        "finished",
        "spark",
        "embedded",
    )
    assert (report["train_seconds"], report["steps"], report["rollouts"]) == (61.5, 3, 96)
    assert (report["calls"], report["tokens"], report["verdict"]) == (250, 12_000, "better")
    assert report["settings"]["steps"] == 3
    assert (tmp_path / "run" / "curve.png").stat().st_size > 10_000


def test_the_page_says_what_a_reader_wants_to_know(tmp_path: Path) -> None:
    """Better or not, by how much, what failed, what was chosen, how to go on."""
    train_run(tmp_path / "runs" / "demo").finish(TOTALS, "checkpoints/step-00003")
    page = (tmp_path / "runs" / "demo" / "report.md").read_text()
    for part in (
        "# demo",
        "`spark` was trained for 3 steps",
        "**Better**: the score went from 0.300 to 0.900",
        "+0.600, 95% interval",
        "(curve.png)",
        "| before (step 0) | 0.300 | 0.237 to 0.369 (clopper-pearson) | 200 | 0 |",
        "| timeout | 6 | tried again up to 2 times, then left out; each replaced by up to 1 other rollout of its task",
        "| learning_rate | 0.0001 |",
        "--resume runs/demo",
        "lightning-sdk serve --model runs/demo/checkpoints/step-00003",
    ):
        assert part in page


@pytest.mark.parametrize(
    ("after", "verdict", "told"),
    [(61, "not shown to be better", "**Not shown to be better**"), (30, "worse", "**Worse**")],
)
def test_a_run_that_is_not_better_says_so(tmp_path: Path, after: int, verdict: str, told: str) -> None:
    """One more task of 200 is chance, thirty fewer are not."""
    report = train_run(tmp_path / "run", after=after).finish(TOTALS).as_dict()
    assert report["verdict"] == verdict
    assert told in (tmp_path / "run" / "report.md").read_text()


def test_tasks_are_compared_with_themselves(tmp_path: Path) -> None:
    """Fifteen more of 200 solved and none lost is better, though the intervals overlap; tasks without both scores are
    left out."""
    folder = train_run(tmp_path / "run", before=60, after=75)
    assert folder.finish(TOTALS).verdict == "better"
    scores = {str(task): float(task < 75) for task in range(190)}
    folder.evaluation(HeldOut(name="after", step=3, score=interval(list(scores.values())), failed=10, scores=scores))
    report = folder.finish(TOTALS).as_dict()
    assert report["held_out"]["before"]["high"] > report["held_out"]["after"]["low"]
    assert (report["change"]["n"], report["verdict"]) == (190, "better")


def test_without_scores_by_task_nothing_is_compared(tmp_path: Path) -> None:
    """Two means of tasks that nobody can pair may be of different tasks."""
    folder = RunFolder(tmp_path / "run")
    folder.evaluation(HeldOut(name="before", step=0, score=interval([1.0] * 60 + [0.0] * 140)))
    folder.step({"step": 1, "reward_mean": 0.5})
    folder.evaluation(HeldOut(name="after", step=1, score=interval([1.0] * 120 + [0.0] * 80)))
    report = folder.finish(TOTALS).as_dict()
    assert (report["verdict"], report["change"]) == ("not measured", None)
    assert report["verdict_reason"] == "no task was run both before and after training"


def test_failed_evaluation_rollouts_are_told_apart_from_zeros(tmp_path: Path) -> None:
    """They are counted beside the score, and a score of nothing is null."""
    folder = train_run(tmp_path / "run")
    score(folder, "after", 3, 150, failed=7)
    folder.evaluation(HeldOut(name="step-2", step=2, score=interval([]), failed=200))
    report = folder.finish(TOTALS).as_dict()
    assert (report["held_out"]["after"]["failed"], report["held_out"]["step-2"]["mean"]) == (7, None)
    page = (tmp_path / "run" / "report.md").read_text()
    assert "| step-2 (step 2) | - | - | 0 | 200 |" in page
    assert "not counted as 0" in page


def test_a_run_that_failed_says_so_first(tmp_path: Path) -> None:
    """Also before its first step, when there is no curve."""
    report = RunFolder(tmp_path / "run").fail(RuntimeError("the engine died")).as_dict()
    assert (report["status"], report["error"], report["steps"]) == ("failed", "RuntimeError: the engine died", 0)
    page = (tmp_path / "run" / "report.md").read_text()
    assert page.index("**This run failed**") < page.index("RuntimeError: the engine died")
    assert "curve.png" not in page
    assert not (tmp_path / "run" / "curve.png").exists()


def test_an_evaluation_alone_is_not_called_training(tmp_path: Path) -> None:
    """Nothing was trained, so nothing can be better."""
    folder = RunFolder(tmp_path / "run")
    folder.config({"settings": Settings().as_dict()})
    score(folder, "evaluation", 0, 50)
    report = folder.finish(Totals()).as_dict()
    assert report["verdict"] == "not measured"
    page = (tmp_path / "run" / "report.md").read_text()
    assert "was scored on held-out tasks, without training" in page
    assert "| evaluation (step 0) | 0.250 |" in page


def test_a_resumed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """What came after it is cut from metrics, evaluations and TensorBoard; what came before it stays."""
    train_run(tmp_path / "run").close()
    folder = RunFolder(tmp_path / "run")
    assert folder.last_step == 3
    folder.cut(1)
    assert [each.name for each in folder.held_out] == ["before"]
    folder.step({"step": 2, "reward_mean": 0.9})
    score(folder, "after", 2, 190)
    report = folder.finish(TOTALS).as_dict()
    assert [line["step"] for line in lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    assert (report["steps"], report["held_out"]["before"]["mean"], report["change"]["n"]) == (2, 0.3, 200)
    found = scalars(tmp_path / "run" / "tensorboard")
    again = [value for tag, step, value in found if (tag, step) == ("train/reward_mean", 2)]
    assert again == pytest.approx([0.2, 0.9])
    assert ("start", 2, 0.0) in found


def test_looks_that_a_resume_cut_away_still_count(tmp_path: Path) -> None:
    """Looking, and going on because it is not better yet, counts as a look: the later verdict is stricter."""
    folder = train_run(tmp_path / "run")
    folder.cut(1)
    again = RunFolder(tmp_path / "run")
    look = again.next_look("after", 3)
    assert [each.name for each in again.held_out] == ["before"]
    assert look.number == 2 and look.share < PLANNED
    assert [line.get("cut", False) for line in lines(tmp_path / "run" / "evaluations.jsonl")] == [False, True]


def test_what_training_has_seen_of_the_reward_is_known(tmp_path: Path) -> None:
    """Over all steps, those of which nothing was measured left out."""
    folder = RunFolder(tmp_path / "run")
    assert folder.training_scores is None
    for step, low, high in ((1, 0.0, 2.0), (2, -3.0, 1.0)):
        folder.step({"step": step, "reward_min": low, "reward_max": high, "rollouts_ok": 8})
    folder.step({"step": 3, "rollouts_ok": 0})
    assert folder.training_scores == TrainingRange(-3.0, 2.0, 16)
    folder.close()


def test_the_curve_of_a_run_is_there_at_any_time(tmp_path: Path) -> None:
    """As text, before the run has ended."""
    folder = train_run(tmp_path / "run")
    drawn = folder.curve(60, 12, plain=True)
    assert len(drawn.splitlines()) == 12
    assert "●" in drawn
    folder.close()


def test_roles_are_drawn_where_they_are_not_rewarded_alike(tmp_path: Path) -> None:
    """One reward for all is one line; so is one role."""
    pictures: dict[str, bytes] = {}
    for name, rewards in {
        "whole": {},
        "one": {"writer": 0.9},
        "alike": {"writer": 0.5, "checker": 0.5},
        "apart": {"writer": 0.9, "checker": 0.1},
    }.items():
        folder = RunFolder(tmp_path / name / "run")
        for step in range(1, 9):
            folder.step({"step": step, "reward_mean": 0.5, **{f"reward_mean/{role}": v for role, v in rewards.items()}})
        folder.finish(TOTALS)
        pictures[name] = (tmp_path / name / "run" / "curve.png").read_bytes()
    assert pictures["whole"] == pictures["one"] == pictures["alike"] != pictures["apart"]


_WHOLE_RUN = """
import sys
from lightning_hub.evaluation.evaluation import HeldOut
from lightning_hub.statistics.interval import interval
from lightning_hub.results.report import Totals
from lightning_hub.results.run_folder import RunFolder
folder = RunFolder(sys.argv[1])
folder.evaluation(HeldOut(name="before", step=0, score=interval([0.0, 1.0])))
folder.step({"step": 1, "reward_mean": 0.5})
folder.finish(Totals())
folder.curve()
print("torch" in sys.modules)
"""


def test_a_run_folder_needs_no_torch(tmp_path: Path) -> None:
    """The hub may run beside a backend of another environment; plotting libraries load torch where they find it."""
    program = [sys.executable, "-W", "error", "-c", _WHOLE_RUN, str(tmp_path / "run")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


_WRITER = """
import sys
from lightning_hub.results.run_folder import RunFolder
folder = RunFolder(sys.argv[1])
for step in range(1, 10_000):
    folder.step({"step": step, "reward_mean": 0.5, "text_length": 1e9 / 7})
    print(step, flush=True)
"""


def test_a_killed_run_can_be_read_and_continued(tmp_path: Path) -> None:
    """kill -9 in the middle of writing: every step that was reported is there, and the next one joins no torn line."""
    path = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while (last := int(process.stdout.readline())) < 30:
        pass
    os.kill(process.pid, signal.SIGKILL)
    reported = [last, *map(int, process.stdout.read().split())]
    process.wait()
    process.stdout.close()
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99999, "rewa')
    events = [step for tag, step, _ in scalars(path / "tensorboard") if tag == "train/reward_mean"]
    assert events[: reported[-1]] == list(range(1, reported[-1] + 1))
    folder = RunFolder(path)
    assert folder.last_step >= reported[-1]
    folder.step({"step": folder.last_step + 1, "reward_mean": 0.5})
    folder.close()
    assert [line["step"] for line in lines(path / "metrics.jsonl")] == list(range(1, folder.last_step + 1))

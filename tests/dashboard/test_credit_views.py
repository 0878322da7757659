"""Tokens with their credit as the training computed it, and runs compared with each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import BEGAN, MadeRollout, MadeRun, made_call, pack_events

from lightning_hub.credit.batch import build_batch
from lightning_hub.rollouts.archive import Archive
from lightning_sdk.settings import Settings
from tests.dashboard.pages import Page, serve

QUESTION = {"role": "user", "content": "2 + 3?"}
SURE = {"role": "user", "content": "Sure?"}


def grouped_rollouts(values: tuple[float, ...], **more: Any) -> list[MadeRollout]:
    """Rollouts of one group that earned these, each with a call whose answer is its number."""
    return [
        MadeRollout(
            group="1-0",
            started=BEGAN + number,
            rewards=[("", "right", value, "")],
            events=pack_events([made_call(1, [QUESTION], f"answer {number}")]),
            **more,
        )
        for number, value in enumerate(values)
    ]


def rows_of(page: Page, run: str, rollout: str, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.ask("tokens", run=run, rollout=rollout, **more)["rows"]
    return found


@pytest.mark.parametrize(
    "advantage", ["rloo", "grpo", "dr_grpo", "reinforce++", "reinforce++_baseline", "running_mean"]
)
def test_advantages_are_those_of_the_training(tmp_path: Path, advantage: str) -> None:
    """Token for token what the batch of the step has, whatever the estimator compares."""
    settings = Settings.from_dict({"credit.advantage": advantage})
    run = MadeRun(tmp_path / "solve", settings)
    made = [*grouped_rollouts((1.0, 0.0, 0.25)), *(grouped_rollouts((0.5, 1.0)))]
    for each in made[3:]:
        each.group = "1-1"
    run.add(made)
    run.close()
    with Archive(run.folder) as archive:
        batch = build_batch(list(archive.rollouts(archive.entries("train"))), settings)
    expected = {row.rollout: row.advantages for row in batch.rows}
    with serve(run.folder) as page:
        for each in made:
            [row] = rows_of(page, "solve", each.id)
            shown = np.array([value or 0.0 for value in row["advantages"]], np.float32)
            assert row["trained"] == row["mask"] and sum(row["mask"]) == row["sampled"] == len("answer 0")
            if each.id in expected:
                np.testing.assert_allclose(shown[: len(expected[each.id])], expected[each.id], rtol=1e-6)
            else:
                assert not shown.any()


def test_what_cannot_be_known_is_said(tmp_path: Path) -> None:
    """Advantages that need the model, rollouts of evaluations, and failed ones have a reason instead of a number."""
    run = MadeRun(tmp_path / "gae", Settings.from_dict({"credit.advantage": "gae"}))
    trained, *_ = made = grouped_rollouts((1.0, 0.0))
    measured = grouped_rollouts((1.0,), mode="evaluate")
    failed = grouped_rollouts((), status="timeout") or [
        MadeRollout(group="1-0", status="timeout", events=pack_events([made_call(1, [QUESTION], "no")]))
    ]
    run.add([*made, *measured, *failed])
    run.close()
    with serve(run.folder) as page:
        reasons = [rows_of(page, "gae", each.id)[0] for each in (trained, measured[0], failed[0])]
        assert all(each["advantages"] is None for each in reasons)
        assert "numbers of the model that are not kept" in reasons[0]["missing"]
        assert "not a rollout of the training" in reasons[1]["missing"]
        assert "a failed rollout is not trained on" in reasons[2]["missing"]


def test_rows_say_where_they_were_cut_and_why(tmp_path: Path) -> None:
    """A conversation that goes on is one row; one whose answer came back changed opens another."""
    first = made_call(1, [QUESTION], "5")
    changed = made_call(2, [QUESTION, {"role": "assistant", "content": "six"}, SURE], "5")
    rollout = MadeRollout(group="1-0", rewards=[("", "right", 1.0, "")], events=pack_events([first, changed]))
    run = MadeRun(tmp_path / "cut")
    run.add([rollout])
    run.close()
    with serve(run.folder) as page:
        one, other = rows_of(page, "cut", rollout.id)
        assert one["opening"] is None
        assert other["opening"]["reason"] in {"sampled text not kept", "rewritten history", "new conversation"}
        assert [piece["call"] for piece in other["pieces"]] == [changed.meta.id]
        assert bytes(one["ids"][one["pieces"][0]["start"] :]) == b"5"


def test_tokens_have_their_text(tmp_path: Path) -> None:
    """By the tokenizer of the run's model; without one they are ids."""
    run = MadeRun(tmp_path / "spark")
    rollout = MadeRollout(group="1-0", events=pack_events([made_call(1, [QUESTION], "5")]))
    run.add([rollout])
    run.close()
    with serve(run.folder) as page:
        [row] = rows_of(page, "spark", rollout.id)
        assert len(row["texts"]) == len(row["ids"])
        config = json.loads((run.folder / "config.json").read_text())
        config["settings"]["model"] = "somewhere/else"
        (run.folder / "config.json").write_text(json.dumps(config))
        assert rows_of(page, "spark", rollout.id)[0]["texts"] is None


def measured_run(folder: Path, scores: dict[str, float], **settings: Any) -> None:
    run = MadeRun(folder, Settings.from_dict(settings))
    run.steps([{"step": step, "reward_mean": step / 10} for step in (1, 2)])
    mean = sum(scores.values()) / len(scores)
    line = {"name": "after", "step": 2, "mean": mean, "low": 0.0, "high": 1.0, "n": len(scores), "scores": scores}
    (folder / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    run.close()


def test_runs_are_compared_by_task(tmp_path: Path) -> None:
    """Over the tasks that both have, with an interval; and by the settings that are not the same."""
    tasks = [str(number) for number in range(40)]
    measured_run(tmp_path / "low", dict.fromkeys(tasks, 0.0))
    measured_run(tmp_path / "high", dict.fromkeys(tasks[10:], 1.0), **{"optimizer.learning_rate": 0.5})
    measured_run(tmp_path / "other", {"another": 1.0})
    with serve(tmp_path) as page:
        found = page.ask("compare", run=["low", "high", "other"])
        low, high, other = found["runs"]
        assert low["difference"] is None and low["curve"]["series"]["reward_mean"] == [0.1, 0.2]
        assert high["difference"]["mean"] == 1.0 and high["difference"]["n"] == 30 and high["difference"]["low"] > 0.5
        assert other["difference"]["missing"] == "they have no held-out task in common"
        assert found["settings"] == [{"name": "optimizer.learning_rate", "values": [None, 0.5, None]}]
        assert page.ask("compare", run=["low"])["settings"] == []

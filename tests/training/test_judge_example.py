"""The example with a judge inside the agent: the solver is trained, and the judge's calls go where they always went."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_hub.replay.stored_run import StoredRun
from tests.sdk import provider

AGENT = Path(__file__).parents[2] / "examples" / "judge" / "agent.py"


def judge(body: dict[str, Any]) -> str:
    """What a paid model would say, which no test may call: whether the expression is the one that was asked for."""
    question, _, expression = str(body["messages"][-1]["content"]).partition("\nExpression: ")
    return "Yes." if expression and expression in question else "No."


def test_the_solver_is_trained_and_the_judge_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are the solver's alone; the judge's requests leave as written, and a refusal has the solver asked again."""
    monkeypatch.setattr(provider, "answer", judge)
    monkeypatch.setenv("OPENAI_API_KEY", "the user's own")
    with provider.Provider() as server:
        monkeypatch.setenv("JUDGE_URL", server.url)
        example = runpy.run_path(str(AGENT))
        small = {"rollouts.tasks_per_step": 2, "rollouts.group_size": 4, "evaluation.tasks": 2, "failure.flat_steps": 0}
        tasks = example["tasks"](1, 8)
        report = lightning.train(
            example["solve"], tasks, example["correct"], runs=tmp_path, name="run", steps=1, quiet=True, **small
        )
        assert report.steps == 1
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer the user's own"}
        asked = [request.body for request in server.requests]
    assert all(sorted(body) == ["max_tokens", "messages", "model"] and body["model"] == "gpt-4o-mini" for body in asked)
    with StoredRun(tmp_path / "run") as run:
        found = [run.rollout(record) for record in run.records()]
    trained = [rollout for rollout in found if rollout is not None and rollout.mode == "train"]
    assert len(trained) == 8
    for rollout in trained:
        by_role = {role: [call for call in rollout.calls if call.meta.role == role] for role in ("solver", "judge")}
        refused = b"No." in by_role["judge"][0].choices[0].message
        assert len(by_role["judge"]) == 1 and len(by_role["solver"]) == 1 + refused
        assert all(call.meta.trainable for call in by_role["solver"])
        assert not by_role["judge"][0].meta.trainable
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert "entropy/solver" in metrics and not any(name.endswith("/judge") for name in metrics)

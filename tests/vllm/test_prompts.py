"""Prompts and weights with vLLM: phases of both kinds, one of which is undone, a kill -9, and a prompt distilled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import markers
from tests.prompts import adding_agent
from tests.prompts.adding_runs import (
    RUINOUS,
    assert_restored,
    finish,
    is_undone,
    kill_when,
    lines,
    prepare,
    start,
    tune_for_spark,
)
from tests.prompts.model_servers import ModelServer

pytestmark = pytest.mark.timeout(900)


def test_weights_and_prompts_take_turns(tmp_path: Path) -> None:
    """The phase of weights ruins the model and is undone; killed then, the run goes on with the weights that vLLM had
    before, and its held-out score is that of the beginning."""
    folder = prepare(tmp_path / "project")
    run = folder / "runs/run"
    with ModelServer(lambda _: "I have no idea.") as reflector:
        options = ("--engine", "vllm", "--tune", "prompts", "--steps", "5", "--reflect-with", reflector.url)
        kill_when(start(folder, "in_form", RUINOUS, *options), lambda: is_undone(run), seconds=600)
        before = lines(run / "phases.jsonl")
        told = finish(start(folder, "in_form", {}, "--resume", "run"), seconds=600)
    assert lines(run / "phases.jsonl")[: len(before)] == before
    report = assert_restored(run)
    assert [each["kind"] for each in report["phases"][:3]] == ["prompts", "weights", "prompts"], told
    assert report["facts"]["engine"].startswith("vllm")


def test_a_prompt_is_distilled_into_the_weights(tmp_path: Path) -> None:
    """vLLM renders the requests that the embedded engine has recorded to the same ids, and those with the agent's own
    text to fewer; the learner learns the rest of each row, and vLLM serves what it has learned."""
    tuned = tune_for_spark(tmp_path)
    markers.agent.declared["solver"] = True
    settings: dict[str, Any] = {"stored.method": "distill", "rollouts.tasks_per_step": 100, "sampling.max_tokens": 12}
    lightning.init()
    report = lightning.train(
        adding_agent.converse,
        adding_agent.TASKS,
        adding_agent.length,
        model="spark",
        engine="vllm",
        name="distilled",
        runs=tmp_path,
        from_runs=[tuned],
        steps=4,
        quiet=True,
        **settings,
    )
    facts = report.values["facts"]
    assert set(report.values["held_out"]) == {"before", "prompted", "after"}
    assert facts["engine"].startswith("vllm") and facts["prompt_tokens_saved_per_call"] > 0
    assert "renders its request otherwise" not in (tmp_path / "distilled/hub.log").read_text()
    losses = [line["loss"] for line in lines(tmp_path / "distilled/metrics.jsonl")]
    assert len(losses) == 4 and losses[-1] < losses[0]

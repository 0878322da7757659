"""Prompts tuned for a model that the run serves itself: the embedded engine with `spark`.

The reflecting model is a double where it is not the engine: it proposes texts by number. What `spark` makes of them
depends little on what they say, so these tests are about the way of the calls and not about gains.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_hub.rollouts.archive import Archive
from lightning_sdk import markers
from lightning_sdk.errors import NothingToTrain, SettingError
from tests.prompts import adding_agent
from tests.prompts.adding_agent import INSTRUCTION, SMALL, TASKS
from tests.prompts.adding_runs import count_replies, finish, kill_when, lines, prepare, start
from tests.prompts.model_servers import ModelServer

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("declare_solver")]


def tune(folder: Path, **settings: Any) -> lightning.Report:
    lightning.init()
    given = {"backend": "prompts", "model": "spark", "quiet": True, **SMALL, **settings}
    return lightning.train(
        given.pop("agent", adding_agent.solve), TASKS, adding_agent.length, name="run", runs=folder, **given
    )


def test_the_engine_answers_with_the_texts_of_each_candidate(tmp_path: Path, proposer: ModelServer) -> None:
    """Every call of the role goes to the run's model and has its ids; no weight changes; scores are greedy."""
    report = tune(tmp_path, **{"prompts.reflect_with": proposer.url})
    run = tmp_path / "run"
    assert report.values["model"] == "spark" and report.before is not None and report.after is not None
    texts = {each["id"]: each["texts"]["solver"] for each in lines(run / "candidates.jsonl")}
    scores: dict[tuple[str, int], set[float]] = {}
    with Archive(run) as kept:
        for rollout in itertools.chain.from_iterable(kept.rollouts(kept.entries(m)) for m in ("train", "evaluate")):
            (call,) = rollout.calls
            request = json.loads(call.request)
            assert call.meta.trainable and call.model == "spark" and call.prompt_ids and call.choices[0].token_ids
            assert call.choices[0].versions == [[0, len(call.choices[0].token_ids) // 4]]
            told = texts[call.meta.candidate] if call.meta.candidate else INSTRUCTION
            assert request["messages"][0]["content"] == told and request["temperature"] == 0
            scores.setdefault((call.meta.candidate, rollout.task_id), set()).add(rollout.rewards[0].value)
    assert len({candidate for candidate, _ in scores}) > 3 and all(len(each) == 1 for each in scores.values())
    assert "the agent's model was `spark`, which was not trained" in (run / "report.md").read_text()
    assert not (run / "checkpoints").exists()


def test_the_engine_can_be_the_reflecting_model(tmp_path: Path) -> None:
    """It is asked in the run, and what this small model says is no proposal, which the report tells."""
    report = tune(tmp_path, **{"prompts.reflect_with": "engine"})
    search = report.values["search"]
    assert search["reflect_with"] == "spark in the run's own engine" and search["spent"]["reflections"] >= 5
    assert search["why"] == "reflection" and report.texts == {"solver": INSTRUCTION}


def test_a_search_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path, proposer: ModelServer) -> None:
    """kill -9 of everything in the middle of the search, then --resume: the engine's greedy scores are the same."""
    folders = [prepare(tmp_path / name) for name in ("whole", "parts")]
    options = ("--backend", "prompts", "--model", "spark", "--reflect-with", proposer.url)
    finish(start(folders[0], "length", SMALL, *options))
    run = folders[1] / "runs/run"
    proposer.seconds = 0.2
    kill_when(
        start(folders[1], "length", SMALL, *options),
        lambda: count_replies(run / "search.jsonl") > 1,  # the first one is the check's
    )
    assert not (run / "report.json").exists()
    proposer.seconds = 0.0
    finish(start(folders[1], "length", {}, "--resume", "run"))
    one, other = (json.loads((folder / "runs/run/report.json").read_text()) for folder in folders)
    assert lines(folders[0] / "runs/run/candidates.jsonl") == lines(run / "candidates.jsonl")
    for name in ("chosen", "texts", "selection", "ended", "rounds"):
        assert one["search"][name] == other["search"][name]
    assert one["search"]["spent"]["rollouts"] == other["search"]["spent"]["rollouts"]
    assert one["held_out"]["after"]["mean"] == other["held_out"]["after"]["mean"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": None, "sampling.max_tokens": 256, "prompts.reflect_with": "engine"}, "this run has no engine"),
        (
            {"model": None, "sampling.max_tokens": 256, "serving.max_length": 512},
            r"max_length=512.* no model is served",
        ),
        ({"sampling.temperature": 0.5}, r"set evaluation\.temperature"),
        ({"prompts.seeds": 2}, r"prompts\.seeds=2: greedy rollouts"),
        ({"model": "/no/such/model"}, "there is no such folder"),
        ({"vllm.max_num_seqs": 4}, "set engine=vllm"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(lightning.LightningError, match=told) as refused:
        tune(tmp_path, **settings)
    assert isinstance(refused.value, SettingError | lightning.ModelError)


def test_a_model_that_no_call_goes_to_is_told(tmp_path: Path, proposer: ModelServer) -> None:
    """Before the search, if no role is to be tuned by name or mark."""
    markers.agent.declared.clear()

    @lightning.agent(role="stranger")
    def solve(task: dict[str, Any]) -> str:
        try:
            return adding_agent.ask(task)
        except Exception:  # no provider can be reached in tests
            return ""

    with pytest.raises(NothingToTrain, match=r"no call of the first 6 rollouts went to spark"):
        tune(tmp_path, agent=solve, **{"prompts.reflect_with": proposer.url})

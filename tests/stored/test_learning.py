"""Training from stored rollouts: what is chosen, that it is learned, that it goes on after a kill, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lightning_sdk as lightning
from lightning_hub.backend import Objective, Pair
from lightning_hub.replay.replay_dataset import ReplayBatch, ReplayDataset, without_effect
from lightning_hub.replay.selection import pair, select
from lightning_hub.replay.stored_run import StoredRun
from lightning_hub.rollouts.plan import Plan
from lightning_sdk.hub.run_request import RunRequest
from lightning_sdk.rollouts.tasks import split
from lightning_sdk.settings import Settings
from lightning_sdk.settings.groups import Stored as Rules
from tests.stored import by_hand, stored_agent
from tests.stored.workplace import Workplace
from tests.waiting import wait_for

DECLARED = {"solver": True}


def draw(
    run: Path, settings: dict[str, Any] | None = None, step: int = 1, held_out: Sequence[dict[str, Any]] = ()
) -> ReplayBatch:
    """What a step takes from this run: by default all of its groups at once."""
    chosen = Settings.from_dict({"rollouts.tasks_per_step": 100, **(settings or {})})
    dataset = ReplayDataset([run], chosen, held_out, DECLARED)
    try:
        return dataset.draw(step)
    finally:
        dataset.close()


def earning(each: by_hand.Stored) -> float:
    return sum(each.rewards.values())


def training_groups(run: Path) -> list[list[by_hand.Stored]]:
    """The groups of the run's training rollouts."""
    return by_hand.groups(each for each in by_hand.read_stored(run) if each.mode == "train")


def varying_groups(groups: list[list[by_hand.Stored]]) -> list[list[by_hand.Stored]]:
    return [group for group in groups if len(set(map(earning, group))) > 1]


# --- what is chosen


def test_which_rollouts_of_a_group_are_kept() -> None:
    """The best, the earliest of equals first; groups without signal by min_reward alone; None was never rewarded."""
    best, two = Rules(), Rules(best=2)
    assert select([1.0, 3.0, 3.0], best) == [1] and select([1.0, 3.0, 2.0], two) == [1, 2]
    assert select([1.0, 1.0], best) == [] == select([None, None], best) == select([None, 1.0], best)
    assert select([1.0, 1.0], Rules(min_reward=1.0)) == [0] and select([0.0, 0.0], Rules(min_reward=1.0)) == []
    assert select([0.0, 0.5], Rules(min_reward=1.0)) == [] and select([0.0, 2.0, 1.0], Rules(min_reward=1.0)) == [1]
    sft = Rules(method="sft")
    assert select([None, 0.0], sft) == [0, 1] and select([None, 0.0, 1.0], Rules(method="sft", min_reward=0.5)) == [2]
    assert pair([1.0, 2.0, 0.0, 2.0, 0.0]) == (1, 2) and pair([1.0, 1.0]) is None and pair([None, 1.0]) is None


def test_rejection_takes_the_best_by_the_rewards_that_count(copies: Callable[[], Path]) -> None:
    """One rollout of each group with a signal; after a re-scoring was written, by the new rewards."""
    run = copies()

    def best() -> set[str]:
        groups = varying_groups(training_groups(run))
        found = draw(run)
        assert found.batch.objective is Objective.SFT and found.batch.pairs == ()
        assert found.metrics["groups_used"] == len(groups) == found.metrics["rows"] == found.metrics["rollouts_used"]
        rollouts = {row.rollout for row in found.batch.rows}
        assert rollouts == {max(group, key=earning).id for group in groups}
        return rollouts

    before = best()
    lightning.rescore(run, stored_agent.other, write=True)
    assert best() != before


def test_sft_takes_every_stored_token_once(place: Workplace) -> None:
    """All sampled tokens as they were stored, each with the weight of the aggregation."""
    run = place.runs / "base"
    found = draw(run, {"stored.method": "sft", "algorithm.aggregation": "token-mean"})
    assert sorted(row.rollout for row in found.batch.rows) == sorted(
        e.id for group in training_groups(run) for e in group
    )
    sampled = sum(int((row.weights != 0).sum()) for row in found.batch.rows)
    assert found.metrics["tokens_trained"] == sampled == found.metrics["tokens_trained/solver"]
    assert sum(float(row.weights.sum()) for row in found.batch.rows) == pytest.approx(1, abs=1e-5)
    least = sorted(earning(each) for group in training_groups(run) for each in group)[20]
    some = draw(run, {"stored.method": "sft", "stored.min_reward": least})
    assert {row.rollout for row in some.batch.rows} == {
        e.id for g in training_groups(run) for e in g if earning(e) >= least
    }


def test_dpo_takes_the_best_against_the_worst(place: Workplace) -> None:
    """A pair of each group with a signal, weighed 1 / pairs, 1 where chosen and -1 where rejected."""
    run = place.runs / "base"
    groups = varying_groups(training_groups(run))
    found = draw(run, {"stored.method": "dpo"})
    assert found.batch.objective is Objective.DPO
    wanted = {Pair("solver", max(group, key=earning).id, min(group, key=earning).id) for group in groups}
    assert set(found.batch.pairs) == wanted and found.metrics["pairs"] == len(groups)
    chosen = {each.chosen for each in wanted}
    for row in found.batch.rows:
        counts = row.weights != 0
        assert np.allclose(row.weights[counts], 1 / len(groups))
        assert set(row.advantages[counts].tolist()) == {1.0 if row.rollout in chosen else -1.0}


def test_the_order_depends_on_seed_and_step_alone(place: Workplace) -> None:
    """A new process draws the same; an epoch has every group once; another seed has another order."""
    run = place.runs / "base"
    few: dict[str, Any] = {"stored.method": "sft", "rollouts.tasks_per_step": 2}

    def order(seed: int) -> list[tuple[str, ...]]:
        steps = (draw(run, {**few, "seed": seed}, step) for step in (1, 2, 3, 4))
        return [tuple(row.rollout for row in step.batch.rows) for step in steps]

    assert order(1) == order(1) != order(2)
    assert len({rollout for step in order(1) for rollout in step}) == 32


def test_held_out_tasks_are_never_learned_from(place: Workplace) -> None:
    """Rollouts of a task that this run measures itself on are left out and counted, whatever the order of its names."""
    run = place.runs / "base"
    task = training_groups(run)[0][0].task
    reserved = [dict(reversed(task.items()))]
    own = {each.id for group in training_groups(run) for each in group if each.task == task}
    dataset = ReplayDataset([run], Settings.from_dict({"stored.method": "sft"}), reserved, DECLARED)
    assert dataset.left_out["their task is held out"] == len(own) > 0
    assert not own & {record.entry.id for group in dataset.groups for record in group.records}
    dataset.close()
    everything = [group[0].task for group in training_groups(run)]
    with pytest.raises(lightning.NothingToTrain, match="32 rollouts left out because their task is held out"):
        ReplayDataset([run], Settings(), everything, DECLARED)


def test_what_the_last_rescoring_did_not_score_is_left_out(copies: Callable[[], Path]) -> None:
    """Numbers of two reward functions are never compared with each other."""
    run = copies()
    odd = sum(each.task["id"] % 2 for group in training_groups(run) for each in group)
    lightning.rescore(run, stored_agent.picky, write=True)
    dataset = ReplayDataset([run], Settings.from_dict({"stored.method": "sft"}), [], DECLARED)
    assert dataset.left_out["the run's last re-scoring did not score them"] == odd > 0
    assert dataset.rollouts == 32 - odd
    dataset.close()


def test_another_tokenizer_is_refused(copies: Callable[[], Path]) -> None:
    """By its fingerprint; without one only the run's own model, or a checkpoint of the run, is taken."""
    run = copies()
    config = json.loads((run / "config.json").read_text())
    own = config["facts"]["tokenizer"]
    datasets = [
        ReplayDataset([run], Settings.from_dict({"model": model}), [], DECLARED)
        for model in ("spark", "elsewhere", str(run / "checkpoints/step-00002"))
    ]
    for dataset in datasets:
        dataset.refuse_other_tokenizers(own)
        with pytest.raises(lightning.SettingError, match="another tokenizer"):
            dataset.refuse_other_tokenizers("0" * 32)
        dataset.close()
    del config["facts"]["tokenizer"]
    (run / "config.json").write_text(json.dumps(config))
    for model, fine in (("spark", True), ("elsewhere", False), (str(run / "checkpoints/step-00002"), True)):
        dataset = ReplayDataset([run], Settings.from_dict({"model": model}), [], DECLARED)
        if fine:
            dataset.refuse_other_tokenizers(own)
        else:
            with pytest.raises(
                lightning.SettingError, match=r"'spark', which has a tokenizer whose fingerprint was not kept"
            ):
                dataset.refuse_other_tokenizers(own)
        dataset.close()


def test_settings_of_stored_rollouts_need_some() -> None:
    """`stored.*` without a run to learn from is refused, and what has no effect with one is told."""
    request = RunRequest(settings={"stored.method": "dpo"}, tasks=[{"id": 1}])
    with pytest.raises(lightning.SettingError, match=r"stored.method='dpo'.*--from RUN"):
        Plan.of_training(request)
    assert Plan.of_training(replace(request, from_runs=["x"])).from_runs == ("x",)
    idle = {"algorithm.clip_low": 0.1, "importance.kind": "mask", "stored.beta": 0.2, "algorithm.epochs": 2}
    told = ["algorithm.clip_low", "importance.kind", "stored.beta"]
    assert without_effect(Settings.from_dict(idle)) == told
    assert without_effect(Settings.from_dict({**idle, "stored.method": "dpo"})) == told[:2]


# --- what is learned


def test_sft_makes_the_stored_tokens_likelier(place: Workplace) -> None:
    """With every group in each step the loss, minus the weighted log-probability, falls step by step; the tasks that
    this run holds out were left out, and it says so."""
    settings = {
        "stored.method": "sft",
        "rollouts.tasks_per_step": 20,
        "seed": 3,
        "optimizer.warmup_steps": 0,
        "optimizer.learning_rate": 3e-5,
    }
    report = place.train("sft", "--from", "base", "--steps", "3", **settings)
    steps, config = place.metrics("sft"), place.config("sft")
    losses = [step["loss"] for step in steps]
    assert losses[0] > losses[1] > losses[2] > 0
    assert config["facts"]["tokenizer"] == place.config("base")["facts"]["tokenizer"]
    assert config["from_runs"] == [str(place.runs / "base")]
    _, reserved = shares(3)
    withheld = sum(each.task in reserved for group in training_groups(place.runs / "base") for each in group)
    told = f"{withheld} rollouts left out because their task is held out"
    assert withheld > 0 and config["facts"]["stored_left_out"] == told == report["facts"]["stored_left_out"]
    assert steps[0]["rows"] == 32 - withheld == config["facts"]["stored_rollouts"]
    assert report["held_out"]["before"]["n"] == 2 == report["held_out"]["after"]["n"]
    assert report["calls"] == 0 and report["tokens"] == sum(step["tokens_trained"] for step in steps)


def test_rejection_learns_by_the_rewards_that_were_written(place: Workplace, copies: Callable[[], Path]) -> None:
    """`rescore --write`, then `train --from`: the rollouts that the new function finds best are what is trained on."""
    run, (_, reserved) = copies(), shares(0)
    lightning.rescore(run, stored_agent.other, write=True)
    best = [max(group, key=earning) for group in varying_groups(training_groups(run)) if group[0].task not in reserved]
    place.train("rejection", "--from", str(run), "--steps", "1", **{"rollouts.tasks_per_step": 20})
    (step,) = place.metrics("rejection")
    assert step["rows"] == step["groups_used"] == len(best) and step["loss"] > 0
    with StoredRun(run) as opened:
        lengths = {
            record.entry.id: sum(call.output_tokens for call in rollout.calls)
            for record in opened.records()
            if (rollout := opened.rollout(record)) is not None
        }
    assert step["tokens_trained"] == sum(lengths[each.id] for each in best)


def shares(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and held-out tasks, as a run with this seed splits them."""
    return split(list(stored_agent.TASKS), 0.2, 2, seed)


def test_dpo_raises_the_chosen_over_the_rejected_and_goes_on_after_a_kill(place: Workplace) -> None:
    """The loss begins at log 2, where model and reference are one, and the margin of the same pairs rises; after kill
    -9 of the hub --resume goes on from the last checkpoint, the same stored rollouts and the same reference."""
    settings = {"stored.method": "dpo", "rollouts.tasks_per_step": 20, "optimizer.warmup_steps": 0}
    arguments = place.training("dpo", "--from", "base", save_every=1, **settings)
    environment = {**os.environ, "LIGHTNING_HOME": str(place.folder / "home")}
    command = [sys.executable, "-m", "lightning_sdk.cli", *arguments]
    running = subprocess.Popen(
        [*command, "--steps", "2000"],
        cwd=place.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = place.runs / "dpo"
    wait_for((run / "checkpoints/step-00003").exists, "the checkpoint of step 3", 100)
    os.kill(int((run / "hub.lock").read_text()), signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1 and "--resume" in said, said
    done = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*") if path.name[5:].isdigit())
    again = [each for each in arguments if each not in {"--from", "base"}]
    finished = place.type(*again, "--resume", str(run), "--steps", str(done + 2))
    assert finished.returncode == 0, finished.stderr
    steps = place.metrics("dpo")
    assert [step["step"] for step in steps] == list(range(1, done + 3))
    assert place.config("dpo")["from_runs"] == [str(place.runs / "base")]
    margins = [step["dpo_margin"] for step in steps]
    assert (steps[0]["loss"], margins[0]) == pytest.approx((np.log(2), 0), abs=1e-4)
    assert margins[0] < margins[1] < margins[2]
    assert margins[done] > margins[1]  # with the resumed model as its own reference it would be 0 again
    _, held_out = shares(0)
    found = draw(place.runs / "base", settings, done + 1, held_out)
    for name in ("rows", "pairs", "groups_used", "tokens_trained"):
        assert found.metrics[name] == steps[done][name] == steps[0][name] > 0
    other = place.type(*again, "--from", "dpo", "--resume", str(run))
    assert other.returncode == 1 and "leave from_runs out" in other.stderr


def test_a_run_of_another_tokenizer_stops_early(place: Workplace, copies: Callable[[], Path]) -> None:
    """The backend's fingerprint is compared with the run's as soon as it is known."""
    run = copies()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "facts": {**config["facts"], "tokenizer": "0" * 32}}))
    done = place.type(*place.training("refused", "--from", str(run), "--steps", "1"))
    assert done.returncode == 1 and "another tokenizer" in done.stderr
    assert not (place.runs / "refused/metrics.jsonl").exists()

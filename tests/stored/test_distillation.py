"""Distillation: what an agent did with tuned prompts is learned as what it does with its own, with `spark`.

The reflecting model is a double; the reward is how long an answer is, which a longer prompt happens to change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

import lightning_sdk as lightning
import lightning_spark
from lightning_embedded import backend as embedded
from lightning_hub.backend import Backend, Objective
from lightning_hub.replay.distill_dataset import DistillDataset
from lightning_hub.rollout import Rollout
from lightning_hub.rollouts.archive import Archive
from lightning_sdk import markers
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from tests.prompts import adding_agent
from tests.prompts.adding_agent import INSTRUCTION, TASKS
from tests.prompts.adding_runs import tune_for_spark

pytestmark = pytest.mark.timeout(400)

DISTILL = {"stored.method": "distill", "rollouts.tasks_per_step": 100}


@pytest.fixture(autouse=True)
def declare_role(isolate: None) -> None:
    markers.agent.declared.clear()
    markers.agent.declared["solver"] = True


@pytest.fixture(scope="module")
def tuned_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune_for_spark(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The embedded backend with the model that recorded the run."""
    running = embedded.start(Settings(), tmp_path_factory.mktemp("engine"))
    yield running
    running.close()


def read_rollouts(run: Path) -> dict[str, Rollout]:
    with Archive(run) as kept:
        return {rollout.id: rollout for rollout in kept.rollouts(kept.entries("train"))}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_rows_have_the_agents_own_prompt_and_the_sampled_tokens(tuned_run: Path, engine: Backend) -> None:
    """The prompt is what the model's template makes of the agent's own texts, and everything after it is what the model
    saw and sampled, id by id, in later turns too; only sampled tokens are trained on."""
    dataset = DistillDataset([tuned_run], Settings.from_dict({**DISTILL, "stored.best": 3}), [], {"solver": True})
    with pytest.raises(KeyError):
        dataset.draw(1)  # nothing is rendered yet
    dataset.prepare(engine.endpoint)
    found = dataset.draw(1).batch
    tokenizer = AutoTokenizer.from_pretrained(lightning_spark.folder())
    rollouts, tasks = read_rollouts(tuned_run), {}
    assert found.objective is Objective.SFT and found.rows
    with Archive(tuned_run) as kept:
        tasks = kept.tasks(kept.entries("train"))
    saved = set()
    for row in found.rows:
        rollout = rollouts[row.rollout]
        first, second = rollout.calls
        question = tasks[rollout.task_id]["question"]
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": question}]
        own = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        before, after = (np.frombuffer(each.prompt_ids, "<i4").tolist() for each in (first, second))
        said = np.frombuffer(second.choices[0].token_ids, "<i4").tolist()
        assert row.tokens.tolist() == own + after[len(before) :] + said
        trained = row.tokens[row.weights > 0].tolist()
        assert trained == np.frombuffer(first.choices[0].token_ids, "<i4").tolist() + said
        assert row.temperature == 1 and set(row.advantages[row.weights > 0]) == {1.0}
        saved.add(len(before) - len(own))
    (difference,) = saved
    assert difference > 0
    facts = dataset.facts()
    assert facts["prompt_tokens_saved_per_call"] == difference
    dataset.close()


def test_only_what_the_tuned_agent_did_well_is_learned(tuned_run: Path, engine: Backend) -> None:
    """Rollouts of the chosen candidate that earned more than the agent's own texts on average; the best of each task;
    never of a task that is held out."""
    rollouts = read_rollouts(tuned_run)
    chosen = read_json(tuned_run / "config.json")["search"]["chosen"]
    of = {id_: each.calls[0].meta.candidate for id_, each in rollouts.items()}

    def successful(withheld: int = 0) -> set[str]:
        """Rollouts that are good enough, if those of this task are not looked at."""
        left = {id_: each for id_, each in rollouts.items() if each.task_id != withheld}
        own = [each.rewards[0].value for id_, each in left.items() if not of[id_]]
        least = sum(own) / len(own)
        return {id_ for id_, each in left.items() if of[id_] == chosen and each.rewards[0].value > least}

    def learned_rollouts(held_out: list[dict[str, Any]], **settings: Any) -> set[str]:
        chosen_settings = Settings.from_dict({**DISTILL, **settings})
        dataset = DistillDataset([tuned_run], chosen_settings, held_out, {"solver": True})
        dataset.prepare(engine.endpoint)
        found = {row.rollout for row in dataset.draw(1).batch.rows}
        dataset.close()
        return found

    everything = learned_rollouts([], **{"stored.best": 100})
    good = successful()
    assert everything == good and good
    assert len({rollouts[each].task_id for each in everything}) == len(learned_rollouts([]))
    best = max(rollouts[each].rewards[0].value for each in good)
    top = learned_rollouts([], **{"stored.best": 100, "stored.min_reward": best})
    assert top == {id_ for id_, each in rollouts.items() if of[id_] == chosen and each.rewards[0].value >= best}
    withheld = min(rollouts[each].task_id for each in good)
    with Archive(tuned_run) as kept:
        task = kept.tasks(kept.entries("train"))[withheld]
    assert learned_rollouts([task], **{"stored.best": 100}) == successful(withheld) != good


def test_a_prompt_is_distilled_into_the_weights(tuned_run: Path, tmp_path: Path) -> None:
    """The report has the score with the agent's own texts, with the tuned ones, and with its own after training; and
    how many tokens each call is shorter."""
    lightning.init()
    report = lightning.train(
        adding_agent.converse,
        TASKS,
        adding_agent.length,
        model="spark",
        name="distilled",
        runs=tmp_path,
        from_runs=[tuned_run],
        steps=4,
        quiet=True,
        **{**DISTILL, "sampling.max_tokens": 12},  # all rollouts in each step, so that losses can be compared
    )
    run = tmp_path / "distilled"
    facts = report.values["facts"]
    assert set(report.values["held_out"]) == {"before", "prompted", "after"}
    assert facts["distilled_candidate"] == read_json(tuned_run / "config.json")["search"]["chosen"]
    saved = facts["prompt_tokens_saved_per_call"]
    assert saved == facts["prompt_tokens_per_call_tuned"] - facts["prompt_tokens_per_call_own"] > 0
    with Archive(run) as kept:
        evaluated = list(kept.rollouts(kept.entries("evaluate")))
    tokens: dict[str, set[int]] = {}
    for each in evaluated:
        tokens.setdefault(each.group.partition("-")[0], set()).add(each.calls[0].input_tokens)
        told = json.loads(each.calls[0].request)["messages"][0]["content"]
        assert (told == INSTRUCTION) == (not each.group.startswith("prompted"))
    assert min(tokens["prompted"]) - min(tokens["after"]) == saved
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4 and losses[-1] < losses[0]
    page = (run / "report.md").read_text()
    assert f"{saved:g} tokens less" in page and "| prompted (step 0) |" in page


def test_verl_says_who_learns_from_stored_rollouts(tuned_run: Path, tmp_path: Path) -> None:
    """Also where VERL is not installed, since nothing of it is needed to know."""
    lightning.init()
    with pytest.raises(SettingError, match=r"backend 'verl' does not learn from stored rollouts .* add --engine vllm"):
        lightning.train(
            adding_agent.converse, TASKS, backend="verl", from_runs=[tuned_run], runs=tmp_path, quiet=True, **DISTILL
        )


def test_a_run_without_tuned_prompts_is_refused(tmp_path: Path) -> None:
    lightning.init()
    small: dict[str, Any] = {
        "rollouts.tasks_per_step": 2,
        "rollouts.group_size": 2,
        "evaluation.tasks": 2,
        "sampling.max_tokens": 8,
        "quiet": True,
        "runs": tmp_path,
    }
    lightning.train(adding_agent.solve, TASKS, adding_agent.length, model="spark", name="plain", steps=1, **small)
    with pytest.raises(SettingError, match=r"nothing can be distilled from .*plain: it tuned no prompts"):
        lightning.train(
            adding_agent.solve,
            TASKS,
            adding_agent.length,
            from_runs=[tmp_path / "plain"],
            **small,
            **{"stored.method": "distill"},
        )

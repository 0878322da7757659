"""Prompts of an agent that exists, tuned with a real hub, real runners and the real OpenAI client.

Two local servers are doubles: the agent's model, which says what its instruction tells it to say, and the reflecting
model, which adds the first word that an example lacks. So a better instruction is a better score.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_hub.rollouts.archive import Archive
from lightning_prompts.model_check import QUESTION as CHECK
from lightning_sdk.errors import NothingToTrain, RolloutsFailed, SettingError
from tests.prompts import marking_agent, two_roles
from tests.prompts.model_servers import ModelServer, obey, reflecting
from tests.prompts.training_commands import HELD_OUT, TRAINING, await_lines, command, prepare
from tests.prompts.words import ROLES, WORDS

pytestmark = pytest.mark.usefixtures("declare_roles")


def tune(folder: Path, reflector: ModelServer, agent: Callable[..., Any] = two_roles.solve, **settings: Any) -> Any:
    lightning.init()
    given = {"prompts.reflect_with": reflector.url, "quiet": True, **settings}
    return lightning.train(
        agent, TRAINING, two_roles.right, held_out=HELD_OUT, backend="prompts", name="run", runs=folder, **given
    )


def was_only_checked(reflector: ModelServer) -> bool:
    """Whether nothing but the short call before the start came."""
    return [each["messages"][0]["content"] for each in reflector.requests] == [CHECK]


def candidates(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "candidates.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("algorithm", "budget"), [("reflective", 500), ("apo", 800)])
def test_an_agent_becomes_better_on_held_out_tasks(
    algorithm: str, budget: int, tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """Both roles, with the verdict of the interval; the score that led to the choice stands beside it."""
    report = tune(tmp_path, reflector, **{"prompts.algorithm": algorithm, "prompts.budget_rollouts": budget})
    assert report.before.mean == 0 and report.after.mean > 0.8 and report.verdict == "better"
    assert sum(len(set(WORDS) & set(report.texts[role].split())) for role in ROLES) >= 5
    search = report.values["search"]
    assert search["selection"]["before"] == 0 and search["selection"]["after"] > 0.8
    assert search["selection"]["luck"] > 0 and search["selection"]["compared"] > 3
    page = (tmp_path / "run" / "report.md").read_text()
    assert "**Better**" in page and report.texts["writer"] in page and "by chance alone" in page
    assert search["spent"]["rollouts"] == report.values["rollouts"] <= budget
    assert search["spent"]["reflections"] == len(reflector.requests)
    chosen = next(each for each in candidates(tmp_path / "run") if each["id"] == search["chosen"])
    assert chosen["texts"] == report.texts and chosen["parents"]


@pytest.mark.parametrize("reward", [two_roles.right_or_why, two_roles.right])
def test_the_reasons_of_rewards_reach_the_reflecting_model(
    reward: Callable[..., Any], tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """Where the tasks do not say what is missing, the agent becomes better only if the reward does."""
    training, held_out = (
        [{**each, "text": f"number {each['number']}"} for each in some] for some in (TRAINING, HELD_OUT)
    )
    lightning.init()
    settings = {"prompts.reflect_with": reflector.url, "quiet": True, "prompts.budget_rollouts": 500}
    report = lightning.train(
        two_roles.solve, training, reward, held_out=held_out, backend="prompts", name="run", runs=tmp_path, **settings
    )
    page = (tmp_path / "run" / "report.md").read_text()
    asked = [each["messages"][0]["content"] for each in reflector.requests]
    if reward is two_roles.right:
        assert report.verdict == "not shown to be better" and asked and not any("has to say" in each for each in asked)
        return
    assert report.before.mean == 0 and report.after.mean > 0.8 and report.verdict == "better"
    assert any("\nWhy: the writer has to say [alpha]\nAsked:\nuser: number " in each for each in asked)
    (why, *_) = report.values["held_out"]["before"]["reasons"]
    assert why["count"] == 5 and why["name"] == "right_or_why" and "has to say" in why["why"]
    assert report.after.mean == 1 or "right_or_why: the " in page


@pytest.mark.parametrize("runner", ["threads", "asyncio", "processes"])
def test_candidates_side_by_side_never_mix(
    runner: str, tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """64 rollouts at once, of many candidates: every request has the texts of its rollout's candidate."""
    model.seconds = 0.05
    settings = {
        "rollouts.runner": runner,
        "prompts.proposals": 8,
        "prompts.minibatch": 2,
        "prompts.budget_rollouts": 300,
    }
    agent = two_roles.asolve if runner == "asyncio" else two_roles.solve
    tune(tmp_path, reflector, agent, **settings)
    texts = {each["id"]: each["texts"] for each in candidates(tmp_path / "run")}
    seen: Counter[str] = Counter()
    with Archive(tmp_path / "run") as kept:
        for rollout in kept.rollouts(kept.entries("train")):
            ids = {call.meta.candidate for call in rollout.calls}
            assert len(ids) == 1 and [call.meta.role for call in rollout.calls] == ["writer", "checker"]
            (candidate,) = ids
            expected = texts[candidate] if candidate else {"writer": two_roles.WRITER, "checker": two_roles.CHECKER}
            for call in rollout.calls:
                assert json.loads(call.request)["messages"][0]["content"] == expected[call.meta.role]
            seen[candidate] += 1
    assert len(seen) > 8 and model.most_at_once > 20


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one go."""
    folder = prepare(tmp_path_factory.mktemp("whole") / "project")
    with ModelServer(obey) as model, ModelServer(reflecting) as reflector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCRIPTED_URL", model.url)
        patch.setenv("LIGHTNING_HOME", str(folder / "home"))
        process = command(folder, "--reflect-with", reflector.url)
        _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    return folder / "runs/run"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("killed", ["all", "hub"])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    killed: str, whole_run: Path, tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """kill -9 in the middle of a round, then --resume: the candidates, scores, choice and count of a run in one go."""
    model.seconds = 0.02
    folder = prepare(tmp_path / "parts")
    parts = command(folder, "--reflect-with", reflector.url)
    await_lines(parts, folder / "runs/run/search.jsonl", 180)
    if killed == "all":
        os.killpg(parts.pid, signal.SIGKILL)
    else:
        os.kill(_hub_of(parts.pid), signal.SIGKILL)
    parts.communicate(timeout=60)
    model.seconds = 0.0
    again = command(folder, "--resume", "run")
    _, told = again.communicate(timeout=200)
    assert again.returncode == 0, told
    runs = [whole_run, folder / "runs/run"]
    assert candidates(runs[0]) == candidates(runs[1])
    one, other = (json.loads((run / "report.json").read_text()) for run in runs)
    for name in ("chosen", "texts", "selection", "candidates", "ended", "rounds"):
        assert one["search"][name] == other["search"][name]
    for name in ("rollouts", "calls", "tokens", "reflections"):
        assert one["search"]["spent"][name] == other["search"]["spent"][name]
    assert one["held_out"]["after"]["mean"] == other["held_out"]["after"]["mean"] > 0
    assert one["rollouts"] == other["rollouts"] == one["search"]["spent"]["rollouts"]


def _hub_of(parent: int) -> int:
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    (pid,) = (line.split()[0] for line in listed.stdout.splitlines() if "lightning_hub" in line)
    return int(pid)


def test_a_reflecting_model_that_fails_is_told_early(tmp_path: Path, model: ModelServer) -> None:
    """The score on held-out tasks is that of the agent's own texts, and the report says why nothing was gained."""
    with ModelServer(lambda _: "I have no idea.") as reflector:
        report = tune(tmp_path, reflector)
    search = report.values["search"]
    assert search["why"] == "reflection" and search["spent"]["rollouts"] < 60
    assert report.verdict == "not shown to be better" and report.texts["writer"] == two_roles.WRITER
    page = (tmp_path / "run" / "report.md").read_text()
    assert "**The texts stay as they are**: the reflecting model never proposed a text" in page


def test_tasks_that_are_solved_are_told_at_once(
    tmp_path: Path, reflector: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a question to the reflecting model."""
    with ModelServer(lambda _: " ".join(WORDS)) as model:
        monkeypatch.setenv("SCRIPTED_URL", model.url)
        report = tune(tmp_path, reflector)
    assert report.values["search"]["nothing"] == "the tasks are already solved" and was_only_checked(reflector)
    assert report.before.mean == report.after.mean == 1 and report.verdict == "not shown to be better"
    # The texts are kept, and so is their score: the held-out tasks were not run again.
    assert report.verdict_reason == "the texts are kept, and so is their score"
    assert (
        len(model.requests) == 2 * (6 + 12 + len(HELD_OUT)) and "**Kept**" in (tmp_path / "run/report.md").read_text()
    )


def test_a_role_whose_text_is_not_seen_is_an_error(tmp_path: Path, model: ModelServer, reflector: ModelServer) -> None:
    """Before any budget is spent but a few rollouts, and before the held-out tasks are run."""

    def solve(task: dict[str, Any]) -> dict[str, str]:
        return {"writer": two_roles.write(task), "checker": ""}

    with pytest.raises(NothingToTrain, match="role 'checker' made no call to a model in 6 rollouts"):
        tune(tmp_path, reflector, solve)
    assert len(model.requests) == 6 and was_only_checked(reflector)


def test_an_agent_that_always_fails_is_told(tmp_path: Path, model: ModelServer, reflector: ModelServer) -> None:
    def solve(task: dict[str, Any]) -> str:
        raise KeyError("no such field")

    with pytest.raises(RolloutsFailed, match=r"first rollouts failed.*no such field"):
        tune(tmp_path, reflector, solve)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sampling.temperature": 0.5}, "the agent's own requests"),
        ({"rollouts.group_size": 4}, "set prompts.seeds"),
        ({"credit.advantage": "grpo"}, "how tokens are weighed"),
        ({"engine": "embedded", "model": "provider"}, "no model is served"),
        ({"prompts.reflect_with": ""}, "--reflect-with gpt-5"),
    ],
)
def test_settings_without_effect_are_refused(
    settings: dict[str, Any], told: str, tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """Before anything is run."""
    with pytest.raises(SettingError, match=told):
        tune(tmp_path, reflector, **settings)
    assert not model.requests


def test_other_backends_do_not_take_the_settings_of_a_search(tmp_path: Path, model: ModelServer) -> None:
    lightning.init()
    with pytest.raises(SettingError, match=r"does not honour prompts\.budget_rollouts=7"):
        lightning.train(two_roles.solve, TRAINING, two_roles.right, runs=tmp_path, **{"prompts.budget_rollouts": 7})


def test_what_the_task_fills_in_is_kept(tmp_path: Path, model: ModelServer, reflector: ModelServer) -> None:
    """An instruction that varies from task to task is tuned in what stays the same."""

    @lightning.agent(role="writer", trainable=True)
    def write(task: dict[str, Any]) -> str:
        return two_roles._ask(f"You write for reader {task['number']} of the paper. Say: hello", task["text"])

    def solve(task: dict[str, Any]) -> dict[str, str]:
        return {"writer": write(task), "checker": " ".join(WORDS)}

    report = tune(tmp_path, reflector, solve, roles="writer")
    assert report.texts == {"writer": report.texts["writer"]} and "{hole_1}" in report.texts["writer"]
    assert report.after.mean == 1 and report.before.mean == 0.5
    told = {each["messages"][0]["content"] for each in model.requests[-len(HELD_OUT) :]}
    assert len(told) == len(HELD_OUT) and all("alpha" in each and "hole" not in each for each in told)


def test_a_marked_text_is_tuned(tmp_path: Path, model: ModelServer, reflector: ModelServer) -> None:
    """A part of a longer instruction, marked when the agent was imported."""
    goal = lightning.prompt("writer.goal", default="Your goal is to please. Say: hello")

    @lightning.agent(role="writer", trainable=True)
    def write(task: dict[str, Any]) -> str:
        return two_roles._ask(f"A long frame of some framework. {goal}", task["text"])

    def solve(task: dict[str, Any]) -> dict[str, str]:
        return {"writer": write(task), "checker": " ".join(WORDS)}

    report = tune(tmp_path, reflector, solve, roles="writer")
    assert set(report.texts) == {"writer.goal"} and report.after.mean == 1
    assert "A long frame" not in report.texts["writer.goal"]


@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_a_text_that_is_marked_inside_a_function_is_tuned(
    runner: str, tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """The first rollouts show it, wherever they run: nothing was marked before."""
    report = tune(tmp_path, reflector, marking_agent.solve, **{"rollouts.runner": runner, "roles": "writer"})
    assert set(report.texts) == {"writer.question"} and report.after.mean == 1 and report.before.mean == 0.5
    assert "{text}" in report.texts["writer.question"] and report.texts["writer.question"].startswith("Please")


def test_what_is_told_before_the_start(
    tmp_path: Path, model: ModelServer, reflector: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is tuned, what it costs at most, and what the held-out tasks can show."""
    limits = {"prompts.budget_rollouts": 60, "prompts.budget_tokens": 90_000, "prompts.reply_tokens": 9}
    tune(tmp_path, reflector, quiet=False, steps=1, **limits)
    told = capsys.readouterr().err
    assert "tuning writer (30 characters), checker (31 characters)" in told
    assert "12 tasks to reflect on, 18 to select with, 30 held out" in told
    assert "at most 60 rollouts, 90000 tokens for the search, and 2 x 30 rollouts on held-out tasks" in told
    assert "the reflecting model scripted answered a first call of 10 tokens" in told
    assert "took up to 2 calls, 20 tokens so far, so 60 rollouts could take 120 calls, 1200 tokens" in told
    assert "on 30 held-out tasks a gain of about 0.2 or more can be shown, if no task gets worse" in told
    assert told.index("tuning writer") < told.index("held-out score before") < told.index("the search ended")


def test_a_role_without_an_instruction_is_named(
    tmp_path: Path, model: ModelServer, reflector: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no roles are chosen, all with an instruction are tuned, and the user is told which are not."""
    lightning.markers.agent.declared.clear()

    @lightning.agent(role="planner")
    def plan(task: dict[str, Any]) -> str:
        return two_roles._ask("You are the planner. Say: hello", task["text"])

    @lightning.agent(role="critic")
    def criticise(task: dict[str, Any]) -> str:
        question: list[Any] = [{"role": "user", "content": task["text"]}]
        with two_roles.OpenAI(base_url=os.environ["SCRIPTED_URL"], api_key="users-key") as client:
            return str(client.chat.completions.create(model="scripted", messages=question))

    def solve(task: dict[str, Any]) -> dict[str, str]:
        return {"writer": plan(task), "checker": criticise(task)}

    tune(tmp_path, reflector, solve, quiet=False, steps=1, **{"prompts.budget_rollouts": 30})
    told = capsys.readouterr().err
    assert "not tuned: 'critic', whose" in told and "tuning planner (31 characters)\n" in told


def test_ctrl_c_keeps_the_search(tmp_path: Path, model: ModelServer, reflector: ModelServer) -> None:
    """The report says that it is not over, and --resume continues it."""
    model.seconds = 0.05
    folder = prepare(tmp_path / "run")
    running = command(folder, "--reflect-with", reflector.url)
    await_lines(running, folder / "runs/run/search.jsonl", 60)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130 and "the search was stopped; lightning-sdk train --resume runs/run" in told
    report = json.loads((folder / "runs/run/report.json").read_text())
    assert report["status"] == "stopped" and report["search"] == {}
    assert "A search for better texts was stopped" in (folder / "runs/run/report.md").read_text()


@pytest.mark.parametrize("answered", [0, 1])
def test_ctrl_c_does_not_wait_for_a_reflecting_model_that_hangs(
    answered: int, tmp_path: Path, model: ModelServer
) -> None:
    """In the check before the start, and later. The search can be resumed, and asks then what was not answered."""
    folder = prepare(tmp_path / "run")
    with ModelServer(reflecting) as hanging:
        hanging.hangs_after = answered
        running = command(folder, "--reflect-with", hanging.url)
        while len(hanging.requests) <= answered:
            assert running.poll() is None, running.communicate()
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGINT)
        _, told = running.communicate(timeout=30)
    assert running.returncode == 130 and "the search was stopped; lightning-sdk train --resume runs/run" in told
    lines = (folder / "runs/run/search.jsonl").read_text().splitlines()
    assert len([each for each in lines if '"reply"' in each]) == answered


def test_check_looks_at_the_agent_at_its_own_provider(
    tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """With the same words as `train`."""
    lightning.init()
    found = lightning.check(
        two_roles.solve,
        TRAINING,
        two_roles.right,
        backend="prompts",
        quiet=True,
        **{"prompts.reflect_with": reflector.url},
    )
    assert found.values["at_provider"] and len(model.requests) == 32 and not reflector.requests

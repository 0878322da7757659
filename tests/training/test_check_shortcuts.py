"""A check finds rewards that can be earned without solving the task, and does no harm to those that cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.commands import reward_probe
from lightning_sdk.commands.reward_probe import RewardProbe
from lightning_sdk.markers.reward import reward_functions
from lightning_sdk.rollouts.scoring import scores
from tests.hub import bandit_backend
from tests.training import agents, checked

Reward = Callable[..., Any]
SMALL: dict[str, Any] = {"rollouts.tasks_per_step": 4, "rollouts.group_size": 6, "quiet": True, "backend": "bandit"}


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bandit backend, installed: its answers are 0, 1, 2 and 3, at random."""
    bandit_backend.install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def probe(rewards: Reward | Sequence[Reward], tasks: list[dict[str, Any]]) -> str:
    """What is said of rewards after rollouts in which four tasks were given every answer; '' if nothing is."""
    probe = RewardProbe(reward_functions(rewards))
    for task in tasks[:4]:
        for answer in "0123":
            scores(probe.rewards, task, answer)
    found = probe.finding(tasks)
    return "" if found is None else f"{found.severity} {found.kind}: {found.what} {found.cause}"


def check_findings(agent: Reward, reward: Reward, tasks: list[dict[str, Any]]) -> dict[str, str]:
    """What a check finds: kind -> words."""
    result = lightning.check(agent, tasks, reward, **SMALL)
    assert result.learnable, str(result)
    return {each["kind"]: each["what"] for each in result.findings}


@pytest.mark.parametrize("reward", [checked.form_only, checked.shaped_later])
def test_a_reward_of_the_form_alone(reward: Reward) -> None:
    """The same for an answer whatever the task; async ones too."""
    told = probe(reward, checked.LETTERS)
    assert told.startswith("warning reward ignores the task: the 2 best answers earned exactly the same under the data")
    assert f"the reward function {reward.__name__}() looks at the form" in told and "(0 to 1)" in told


@pytest.mark.parametrize(
    "reward",
    [
        checked.right,
        checked.mutating,
        checked.by_turns,
        checked.raising_elsewhere,
        checked.hanging,
        checked.slow,
        checked.constant,
    ],
)
def test_nothing_is_said_of_other_rewards(reward: Reward, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that looks at the task, takes it apart, counts its calls, raises for what it does not know, hangs, takes its
    time, or is always the same."""
    monkeypatch.setattr(reward_probe, "LONGEST_SECONDS", 0.5)
    assert probe(reward, checked.LETTERS) == ""


def test_a_slow_reward_is_not_asked_again() -> None:
    """It may cost money: the rollouts' own calls are all."""
    checked.times.clear()
    probe(checked.slow, checked.LETTERS)
    assert len(checked.times) == 16


def test_a_form_among_several_rewards_is_not_a_fault() -> None:
    """What counts is whether all of them together look at the task."""
    assert probe([checked.form_only, checked.right], checked.LETTERS) == ""
    assert "form_only() and the reward function by_length()" in probe(
        [checked.form_only, checked.by_length], checked.LETTERS
    )


def test_few_tasks_say_nothing_of_a_reward() -> None:
    """With four tasks, or with ones of the same answer, a right answer may well be right for all others."""
    assert probe(checked.form_only, checked.LETTERS[:4]) == ""
    assert probe(checked.form_only, [{**task, "answer": "2"} for task in checked.LETTERS]) == ""


def test_answers_that_are_not_plain_data_are_not_asked() -> None:
    """They cannot be given twice as they were."""
    probe = RewardProbe(reward_functions(checked.constant))
    scores(probe.rewards, checked.LETTERS[0], object())
    assert probe.finding(checked.LETTERS) is None


def test_a_check_tells_of_both(light: None) -> None:
    """A prompt that holds the answer, and a reward that does not look at it: warnings, with exit code 0."""
    tasks = [{**task, "answer": f"n{n}"} for n, task in enumerate(checked.LETTERS)]
    found = check_findings(checked.leaking, checked.form_only, tasks)
    assert set(found) == {"reward ignores the task", "answer in the prompt"}
    assert "field 'answer' is in the messages of the first call in 4 of 4 tasks" in found["answer in the prompt"]


def test_a_check_of_a_good_agent_tells_of_neither(light: None) -> None:
    """Its reward compares the answer with the task, which the prompt does not tell."""
    assert check_findings(checked.single, checked.right, checked.LETTERS) == {}


def test_a_training_tells_of_a_leak_in_its_first_step(
    light: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same words, and goes on."""
    tasks = [{**task, "answer": f"n{n}"} for n, task in enumerate(checked.LETTERS)]
    settings: dict[str, Any] = {**agents.SMALL, "rollouts.tasks_per_step": 4, "runs": tmp_path, "name": "run"}
    report = lightning.train(checked.leaking, tasks, checked.by_turns, steps=1, backend="bandit", **settings)
    assert report.steps == 1 and "field 'answer' is in the messages of the first call" in capsys.readouterr().err


@pytest.mark.parametrize("reward", [checked.chance, checked.clock])
def test_a_reward_of_something_else_than_the_answer(
    light: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: Reward
) -> None:
    """A check tells it, a training warns of it in its first step, and what is said of the run begins with it."""
    result = lightning.check(checked.single, checked.LETTERS, reward, **SMALL)
    told = {each["kind"]: each["what"] for each in result.findings}
    assert f"{reward.__name__}() gave" in told["reward not repeatable"]
    assert result.learnable and "Ready to train" not in str(result)
    report = lightning.train(
        checked.single,
        checked.LETTERS,
        reward,
        steps=2,
        backend="bandit",
        runs=tmp_path,
        name="run",
        quiet=True,
        **{"rollouts.tasks_per_step": 4, "rollouts.group_size": 6},
    )
    assert "when it scored the same task and answer again" in capsys.readouterr().err
    afterwards = lightning.check(report.folder)
    assert afterwards.findings[0]["kind"] == "reward not repeatable"
    assert "It is learning" not in str(afterwards)

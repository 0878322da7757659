"""An agent at its own provider: checked and scored without a model, with the real client, hub and runners.

The provider is the stand-in of the seam's tests, which answers with the question reversed and keeps every request.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import lightning_sdk as lightning
from lightning_hub.rollouts.archive import Archive
from lightning_sdk.errors import RolloutsFailed, SettingError
from tests.sdk.provider import Provider

TASKS = [{"question": word, "answer": word[::-1]} for word in ("noon", "stressed", "drawer", "loop")]
SMALL: dict[str, Any] = {"rollouts.tasks_per_step": 2, "rollouts.group_size": 2, "quiet": True}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def solve(provider: Provider) -> Callable[[dict[str, Any]], str]:
    """Two roles; one of them is to be trained."""
    client = OpenAI(base_url=provider.url, api_key="users-key", max_retries=0)

    def ask(text: str) -> str:
        reply = client.chat.completions.create(
            model="gpt-own", messages=[{"role": "user", "content": text}], temperature=0.3, seed=7, max_tokens=20
        )
        return reply.choices[0].message.content or ""

    @lightning.agent(role="planner")
    def plan(text: str) -> str:
        return ask(f"plan {text}")

    @lightning.agent(role="solver", trainable=True)
    def solve(task: dict[str, Any]) -> str:
        plan(task["question"])
        return ask(task["question"])

    return solve


def correct(task: dict[str, Any], answer: str) -> float:
    return float(answer == task["answer"])


def half(task: dict[str, Any], answer: str) -> float:
    """Right for two of the four tasks."""
    return float(answer == task["answer"] and task["question"] in {"noon", "loop"})


def test_calls_leave_as_the_agent_wrote_them(
    provider: Provider, solve: Callable[[dict[str, Any]], str], tmp_path: Path
) -> None:
    """Address, key, model, seed and temperature are the agent's own, nothing is added, and no backend is started."""
    lightning.check(solve, TASKS, correct, provider=True, keep=tmp_path / "kept", **SMALL)
    assert (tmp_path / "kept" / "hub.log").exists() and not (tmp_path / "kept" / "backend.log").exists()
    assert len(provider.requests) == 8
    for request in provider.requests:
        assert request.path == "/v1/chat/completions" and request.headers["authorization"] == "Bearer users-key"
        assert not [name for name in request.headers if name.startswith("x-lightning")]
        assert request.body.keys() == {"model", "messages", "temperature", "seed", "max_tokens"}
        assert request.body["model"] == "gpt-own" and request.body["temperature"] == 0.3


def test_a_check_tells_roles_rewards_and_what_is_wrong(solve: Callable[[dict[str, Any]], str]) -> None:
    """As a check with a model does, but for tokens."""
    found = lightning.check(solve, TASKS, half, provider=True, **{**SMALL, "rollouts.tasks_per_step": 4})
    assert found.learnable, found
    calls = {each["role"]: (each["calls"], each["trainable"], each["complete"]) for each in found.values["calls"]}
    assert calls == {"planner": (8, 0, 0), "solver": (8, 8, 8)}
    (rewards,) = found.values["rewards"]
    assert (rewards["role"], rewards["rollouts"], rewards["mean"]) == ("solver", 8, 0.5)
    assert [(each["kind"], each["severity"]) for each in found.findings] == [("no signal", "warning")]
    assert "always solved or never" in found.findings[0]["cause"] and "stressed" in found.findings[0]["what"]
    text = str(found)
    assert "to train  succeeded" in text and "sequences of" not in text
    assert text.endswith("\n8 calls of 1 role to train succeeded at the agent's own provider.")


def test_roles_that_are_named_are_those_to_train(solve: Callable[[dict[str, Any]], str]) -> None:
    found = lightning.check(solve, TASKS, correct, provider=True, roles="planner", **SMALL)
    assert {each["role"]: each["trainable"] for each in found.values["calls"]} == {"planner": 4, "solver": 0}


def test_a_provider_that_refuses_is_told(
    provider: Provider, solve: Callable[[dict[str, Any]], str], tmp_path: Path
) -> None:
    """A wrong key fails every rollout: the check says so, and where to look; an evaluation raises."""
    provider.fail += [401] * 100
    found = lightning.check(solve, TASKS, correct, provider=True, **SMALL)
    assert not found.learnable and "401" in str(found), found
    with pytest.raises(RolloutsFailed, match="401"):
        lightning.evaluate(solve, TASKS, correct, provider=True, runs=tmp_path, quiet=True)


def test_an_agent_that_catches_its_errors_is_told_of_its_provider(
    provider: Provider, solve: Callable[[dict[str, Any]], str]
) -> None:
    """Not one call of a role to train went well; no engine is blamed."""

    @lightning.agent(role="careful", trainable=True)
    def careful(task: dict[str, Any]) -> str:
        try:
            with OpenAI(base_url=provider.url, api_key="wrong", max_retries=0) as client:
                client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": task["question"]}])
        except Exception:
            return ""
        return "answered"

    provider.fail += [401] * 100
    found = {each["kind"]: each for each in lightning.check(careful, TASKS, correct, provider=True, **SMALL).findings}
    assert "its base_url, its key" in found["calls failed"]["remedy"]
    assert "engine" not in json.dumps(found["calls failed"])


def test_an_evaluation_scores_with_an_interval(solve: Callable[[dict[str, Any]], str], tmp_path: Path) -> None:
    """All tasks, each as often as asked; the run is kept and listed as one at the provider."""
    report = lightning.evaluate(
        solve, TASKS, half, provider=True, runs=tmp_path, name="own", quiet=True, **{"evaluation.seeds": 2}
    )
    assert report.after is not None and report.after.low is not None and report.after.high is not None
    assert (report.after.mean, report.after.n, report.after.seeds) == (0.5, 4, 2)
    assert report.after.low < 0.5 < report.after.high
    assert report.values["model"] == "provider"
    with Archive(report.folder) as kept:
        calls = [call for each in kept.rollouts(kept.entries("evaluate")) for call in each.calls]
    assert len(calls) == 16 and {call.meta.role for call in calls} == {"planner", "solver"}
    assert not any(call.meta.trainable for call in calls)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "spark"}, r"model='spark': with --provider .*leave out model, or --provider"),
        ({"engine": "vllm"}, "engine='vllm'"),
        ({"sampling.temperature": 0.5}, r"setting sampling\.temperature=0\.5: .*are sent unchanged"),
        ({"evaluation.temperature": 0.5}, r"setting evaluation\.temperature=0\.5"),
        ({"optimizer.learning_rate": 1e-3}, r"'provider' does not honour optimizer\.learning_rate"),
    ],
)
def test_settings_of_a_model_are_refused(
    solve: Callable[[dict[str, Any]], str], provider: Provider, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """By name, before anything is asked."""
    with pytest.raises(SettingError, match=words):
        lightning.evaluate(solve, TASKS, correct, provider=True, runs=tmp_path, quiet=True, **settings)
    assert not provider.requests


def test_it_is_not_trained(solve: Callable[[dict[str, Any]], str], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"checked and evaluated .*not trained; name the model to train"):
        lightning.train(solve, TASKS, correct, backend="provider", runs=tmp_path, quiet=True)


def test_the_commands(provider: Provider, tmp_path: Path) -> None:
    """As typed; an agent without a trainable role is scored too."""
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)))
    (tmp_path / "agent.py").write_text(
        "from openai import OpenAI\nimport lightning_sdk as lightning\n"
        f"client = OpenAI(base_url={provider.url!r}, api_key='users-key')\n"
        "@lightning.agent(role='solver', trainable=True)\n"
        "def solve(task):\n"
        "    messages = [{'role': 'user', 'content': task['question']}]\n"
        "    return client.chat.completions.create(model='gpt', messages=messages).choices[0].message.content\n"
        "@lightning.reward\n"
        "def correct(task, answer):\n"
        "    return float(answer == task['answer'])\n"
    )
    typed = [sys.executable, "-m", "lightning_sdk.cli"]
    rest = ["agent.py:solve", "--tasks", "tasks.jsonl", "--provider", "--json"]
    for command in ("check", "evaluate"):
        done = subprocess.run(
            [*typed, command, *rest], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=100
        )
        assert done.returncode == 0, done.stderr
        values = json.loads(done.stdout)
        assert values["at_provider"] if command == "check" else values["held_out"]["after"]["mean"] == 1.0

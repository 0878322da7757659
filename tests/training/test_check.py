"""`lightning-sdk check`: real agents, the real engine, and what the command says of them.

Where no answer of a model matters, the numpy backend of the hub's tests serves, which starts in a tenth of the time.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from tests.hub import bandit_backend
from tests.learner.tinymodel import save_tiny
from tests.training import agents, checked

HERE = Path(__file__).parent
SMALL = {"rollouts.tasks_per_step": 2, "rollouts.group_size": 4, "sampling.max_tokens": 6, "rollouts.concurrency": 8}
NO_KEYS = [
    "rollouts",
    "calls",
    "rewards",
    "sequences",
    "elsewhere",
    "integrations",
    "findings",
    "learnable",
    "at_provider",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.jsonl").write_text("\n".join(json.dumps(task) for task in agents.TASKS))
    (tmp_path / "agent.py").write_text((HERE / "checked.py").read_text())
    return tmp_path


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bandit backend, installed; the arguments that choose it."""
    bandit_backend.install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return ["--backend", "bandit", "--json"]


def check(folder: Path, agent: str, *more: str, reward: str = "by_turns") -> subprocess.CompletedProcess[str]:
    """Type the command."""
    settings = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    command = [
        sys.executable,
        "-m",
        "lightning_sdk.cli",
        "check",
        f"agent.py:{agent}",
        "--tasks",
        "tasks.jsonl",
        "--reward",
        f"agent.py:{reward}",
        *settings,
        *more,
    ]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, timeout=110)


def findings_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Kind -> severity and words of each finding in the JSON output."""
    values = json.loads(done.stdout)
    assert values["learnable"] == (done.returncode == 0), done.stderr
    return {
        each["kind"]: f"{each['severity']}: {each['what']} {each['cause']} {each['remedy']}"
        for each in values["findings"]
    }


def test_a_good_agent_is_ready(folder: Path) -> None:
    """Exit code 0, one row a rollout of two turns, and a table in plain text for a pipe."""
    done = check(folder, "good")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [re.sub(r" {2,}", " | ", line) for line in done.stdout.splitlines()]
    assert lines[0] == "8 rollouts: 8 ok"
    assert "solver | openai | 16 | 16 | 16 of 16 | 0" in lines
    assert "solver | 16 | 8 | 1 | -" in lines
    assert "openai" in next(line for line in lines if line.startswith("integrations active"))
    assert lines[-1] == "Ready to train: 16 calls of 1 role can be learned from."
    assert "\x1b" not in done.stdout and not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("agent", "reward", "kind", "words"),
    [
        ("ask_nobody", "by_turns", "nothing trainable", "there were 8 of planner.*trainable=True"),
        ("silent", "by_turns", "no model call", "made no model call in 8 rollouts"),
        (
            "elsewhere",
            "by_turns",
            "calls went elsewhere",
            "8 to 127.0.0.1/v1/chat/completions through httpx2 by solver.*lightning-sdk gateway",
        ),
        ("single", "constant", "no signal", "each of 2 groups.*every reward is 0.25"),
        ("single", "of_another", "no reward", "none of 8 rollouts has a reward for solver.*emit_reward"),
        ("single", "missing", "", "no 'missing'"),
    ],
)
def test_a_broken_agent_is_told_why(
    folder: Path, light: list[str], agent: str, reward: str, kind: str, words: str
) -> None:
    """Exit code 1 and a fatal finding; 2 for what cannot be run at all."""
    done = check(folder, agent, *light, reward=reward)
    if not kind:
        assert done.returncode == 2 and words in done.stderr and not done.stdout
        return
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.match(f"fatal: .*{words}", findings_of(done)[kind])


def test_reasons_of_rewards_are_shown(folder: Path, light: list[str]) -> None:
    """In a table, in the data, and below the answers that a finding shows."""
    done = check(folder, "single", *light, reward="quarter_with_reason")
    assert json.loads(done.stdout)["reasons"] == [
        {"name": "quarter_with_reason", "role": "", "why": "unit missing", "count": 8, "mean": 0.25}
    ]
    assert "\n  reward  0.25\n  why     quarter_with_reason: unit missing" in findings_of(done)["no signal"]
    light.remove("--json")
    lines = [
        re.sub(r" {2,}", " | ", line)
        for line in check(folder, "single", *light, reward="quarter_with_reason").stdout.splitlines()
    ]
    at = lines.index("why | reward | times | mean")
    assert lines[at + 1] == "unit missing | quarter_with_reason | 8 | 0.25"


def test_a_conversation_that_is_edited_is_a_warning(folder: Path) -> None:
    """It can be trained, at the cost of a row a turn."""
    done = check(folder, "shouting", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(
        "warning: every turn broke its sequence: 8 sampled text not kept.*choices",
        findings_of(done)["broken sequences"],
    )
    assert json.loads(done.stdout)["sequences"][0]["openings"] == {"sampled text not kept": 8}


def test_a_thread_from_before_loses_the_rollout(
    folder: Path, light: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls belong to nobody, and the finding says so."""
    monkeypatch.setenv("CHECKED_WORKER", "unseen")
    done = check(folder, "long_lived", *light)
    assert done.returncode == 1, done.stdout + done.stderr
    findings = findings_of(done)
    assert re.match("fatal: 8 calls were made outside of every rollout.*ThreadPoolExecutor", findings["context lost"])
    assert "8 calls were made outside" in findings["no model call"]


def test_a_thread_from_before_works_for_who_asks_it(
    folder: Path, light: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes out of a queue belongs to the rollout that put it there, and can be trained on."""
    monkeypatch.setenv("CHECKED_WORKER", "seen")
    done = check(folder, "long_lived", *light)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not findings_of(done)


def test_a_pool_that_the_first_rollout_makes(folder: Path, light: list[str]) -> None:
    """Each rollout has its own call, so that nothing is found."""
    done = check(folder, "ask_in_pool", *light)
    assert done.returncode == 0, done.stdout + done.stderr
    (sequences,) = json.loads(done.stdout)["sequences"]
    assert (sequences["rollouts"], sequences["turns"]) == (8, 8) and not findings_of(done)


def test_a_memory_that_rollouts_share(folder: Path, light: list[str]) -> None:
    """What others were asked is in the prompt: the check fails and says what to do."""
    done = check(folder, "remembering", *light)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.match(
        "fatal: in . of 8 rollouts the first request of the role solver holds", findings_of(done)["rollouts mixed"]
    )


@pytest.mark.parametrize(("role", "code"), [("Researcher", 0), ("Reseacher", 1)])
def test_a_role_that_only_a_framework_knows(
    folder: Path, light: list[str], monkeypatch: pytest.MonkeyPatch, role: str, code: int
) -> None:
    """It can be trained by its name; a misspelt one is found in the rollouts, with the names that were seen."""
    monkeypatch.setenv("CHECKED_FRAMEWORK", "1")
    done = check(folder, "crew", *light, "--roles", role)
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert re.match(r"fatal: .*\(Reseacher\).*8 of Researcher", findings_of(done)["role filter matched nothing"])
    else:
        assert json.loads(done.stdout)["calls"][0]["role"] == "Researcher"


def test_a_misspelt_role_is_refused_at_once_where_only_decorators_name(folder: Path) -> None:
    """Exit code 2, before anything is started."""
    done = check(folder, "good", "--roles", "sovler")
    assert done.returncode == 2 and "no agent has the role 'sovler'" in done.stderr


def test_a_role_with_a_comma_is_named_on_the_command_line(folder: Path) -> None:
    """One name is one argument; two names in one are told how they are given."""
    done = check(folder, "good", "--roles", "Researcher, senior", "--roles", "writer")
    assert done.returncode == 2 and "no agent has the role 'Researcher, senior', 'writer'" in done.stderr
    assert "--roles A --roles B" in done.stderr


def test_training_stops_with_the_same_words(tmp_path: Path, light: list[str]) -> None:
    """What a check calls fatal ends a training in its first rollouts, in the same words; warnings go by."""
    settings: dict[str, Any] = {**agents.SMALL, "runs": tmp_path, "name": "run", "backend": "bandit"}
    result = lightning.check(checked.silent, agents.TASKS, checked.by_turns, backend="bandit", quiet=True, **SMALL)
    assert not result.learnable and "Nothing could be learned" in str(result)
    with pytest.raises(lightning.NothingToTrain) as stopped:
        lightning.train(checked.silent, agents.TASKS, checked.by_turns, steps=1, **settings)
    (finding,) = result.findings
    told = " ".join(finding[part] for part in ("what", "cause", "remedy"))
    assert re.sub(r"\d+", "n", told) == re.sub(r"\d+", "n", str(stopped.value))


def test_training_warns_in_the_same_words_and_goes_on(
    tmp_path: Path, light: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Other tasks may bring a signal: a constant reward is a warning of step 1, once, and in diagnosis.json."""
    settings: dict[str, Any] = {**agents.SMALL, "runs": tmp_path, "name": "run", "backend": "bandit"}
    report = lightning.train(checked.single, agents.TASKS, checked.constant, steps=2, **settings)
    said = capsys.readouterr().err
    assert report.steps == 2 and said.count("no group has a signal") == 1 and "every reward is 0.25" in said
    kept = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert [each["kind"] for each in kept["findings"]] == ["no signal"]


def test_what_was_recorded_can_be_kept(tmp_path: Path, light: list[str]) -> None:
    """The folder holds the spans, the hub's log and the diagnosis, without the list of integrations."""
    settings: dict[str, Any] = {**SMALL, "backend": "bandit", "quiet": True}
    result = lightning.check(checked.ask_nobody, agents.TASKS, checked.by_turns, keep=tmp_path / "kept", **settings)
    values = json.loads((tmp_path / "kept" / "diagnosis.json").read_text())
    assert values == {name: value for name, value in result.values.items() if name != "integrations"}
    assert (tmp_path / "kept" / "hub.log").exists() and list((tmp_path / "kept" / "spans").glob("*.log"))
    assert all(name in result.values for name in NO_KEYS)


def test_a_cache_of_the_agents_own_is_told(folder: Path, light: list[str]) -> None:
    """All rollouts of a task but the first end without a call."""
    done = check(folder, "cache", *light, "--set", "rollouts.concurrency=1", reward="constant")
    told = findings_of(done)["no signal"]
    assert (
        "6 of 8 rollouts failed or made no call, for example because of a cache" in told
        and "caches of model calls" in told
    )


def test_tools_that_the_template_does_not_show_are_told(folder: Path, tmp_path: Path) -> None:
    """The embedded engine refuses them, and the check shows its words."""
    save_tiny(tmp_path / "model")
    told = findings_of(check(folder, "offer_tool", "--model", str(tmp_path / "model"), "--json"))
    assert "the chat template of model does not show tools to the model" in told["rollouts failed"]

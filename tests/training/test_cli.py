"""The command line: train, evaluate, serve and runs, as a user types them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.hub import bandit_backend
from tests.training.agents import TASKS
from tests.training.small_run import SMALL_RUN

HERE = Path(__file__).parent


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lightning_sdk.cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=110)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.jsonl").write_text("\n".join(json.dumps(task) for task in TASKS))
    (tmp_path / "agent.py").write_text((HERE / "agents.py").read_text())
    return tmp_path


TRAINED = ["agent.py:solve", "--tasks", "tasks.jsonl", "--reward", "agent.py:length"]


def test_train_then_runs_then_evaluate(folder: Path) -> None:
    """A run is trained, listed, shown, and its checkpoint evaluated."""
    arguments = ["agent.py:solve", "--tasks", "tasks.jsonl", "--reward", "agent.py:length"]
    trained = run("train", *arguments, "--steps", "1", "--name", "first", "--json", *SMALL_RUN, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    report: dict[str, Any] = json.loads(trained.stdout)
    assert report["steps"] == 1 and report["held_out"]["after"]["n"] == 2
    assert "first" in run("runs", cwd=folder).stdout
    assert json.loads(run("runs", "--json", cwd=folder).stdout)[0]["name"] == "first"
    assert run("show", "first", cwd=folder).stdout.startswith("first  finished  step 1 of 1")
    model = "runs/first/checkpoints/step-00001"
    scored = run("evaluate", *arguments, "--model", model, "--json", *SMALL_RUN, cwd=folder)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["held_out"]["after"]["n"] == 2


def test_the_result_is_printed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both outputs are one, the display shows it; where standard output goes elsewhere, the report goes there."""
    bandit_backend.install(folder / "site")
    monkeypatch.setenv("PYTHONPATH", str(folder / "site"))
    words = ["evaluate", *TRAINED, *SMALL_RUN, "--backend", "bandit"]
    command = [sys.executable, "-m", "lightning_sdk.cli", *words]
    both = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    assert both.stdout.count("n=2") == 2  # as the evaluation ends, and at the end of all
    assert both.stdout.count("runs/solve-evaluation") == 1
    apart = run(*words, cwd=folder)
    assert apart.stdout.startswith("run       runs/solve-evaluation-")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "agent.py:solev", "--tasks", "tasks.jsonl"], "no 'solev'"),
        (["train", "agnet.py:solve", "--tasks", "tasks.jsonl"], "no file agnet.py"),
        (["train", "agent.py", "--tasks", "tasks.jsonl"], "FILE.py:FUNCTION"),
        (["train", "agent.py:solve", "--tasks", "missing.jsonl"], "no file missing.jsonl"),
        (["train", "agent.py:solve", "--tasks", "tasks.jsonl", "--set", "lr=1"], "unknown setting 'lr'"),
        (["train", "agent.py:solve", "--tasks", "tasks.jsonl", "--set", "steps"], "NAME=VALUE"),
        (
            ["train", "agent.py:solve", "--tasks", "tasks.jsonl", "--steps", "many"],
            "steps='many': expected a whole number",
        ),
        (["train", "agent.py:solve", "--tasks", "tasks.jsonl", "--steps", "1", "--set", "steps=2"], "setting twice"),
        (["train", "agent.py:solve"], "no tasks were given: give a file such as tasks.jsonl (--tasks FILE)"),
        (["train", "--tasks", "tasks.jsonl"], "no agent was given: name it, as agent.py:solve, or a run to continue"),
        (["show", "nothing"], "nothing is not the folder or the name of a run"),
        (["runs", "--runs", "agent.py"], "agent.py is a file"),
        (["check", "runs/nothing"], "is not the folder or the name of a run"),
        (["train", *TRAINED, "--name", "../elsewhere"], "--runs FOLDER"),
        (["train", *TRAINED, "--name", "a/b"], "without slashes"),
        (["train", *TRAINED, "--runs", "agent.py"], "agent.py is a file"),
        (["train", *TRAINED, "--runs", "agent.py/runs"], "agent.py is a file"),
        (["evaluate", *TRAINED, "--runs", "/proc/runs"], "cannot make the folder /proc/runs"),
        (["check", *TRAINED, "--keep", "agent.py"], "--keep FOLDER"),
        (["serve", "--run", "agent.py"], "--run FOLDER"),
    ],
)
def test_wrong_command_lines_say_what_to_type(folder: Path, arguments: list[str], said: str) -> None:
    """Exit code 1, of `check` 2, one line that names what was wrong, and no traceback."""
    done = run(*arguments, cwd=folder)
    assert done.returncode == (2 if arguments[0] == "check" else 1)
    assert said in done.stderr and "Traceback" not in done.stderr


def test_settings_are_listed(folder: Path) -> None:
    """`--set help` lists every setting with its default."""
    done = run("train", "--set", "help", cwd=folder)
    assert done.returncode == 0 and "rollouts.group_size=8" in done.stdout


def test_help_shows_examples_of_the_command_alone(folder: Path) -> None:
    """Users who ask how to evaluate do not read how to start a gateway."""
    for command in ("check", "train", "evaluate", "rescore", "runner", "serve", "gateway", "runs", "show", "compare"):
        shown = run(command, "--help", cwd=folder).stdout
        examples = shown[shown.index("examples:") :].splitlines()[1:]
        assert [line.split()[:2] for line in examples if "lightning-sdk" in line] == [["lightning-sdk", command]] * sum(
            "lightning-sdk" in line for line in examples
        )
        assert examples


def test_output_that_nobody_reads_any_more_is_not_an_error(folder: Path) -> None:
    """`lightning-sdk train --set help | head -1` ends as other programs in a pipe do."""
    for words in (["train", "--set", "help"], ["runs"], ["train", "--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "lightning_sdk.cli", *words],
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        os.close(writing)
        # argparse itself says nothing of it when it prints its help.
        assert done.returncode in ({0, 141} if "--help" in words else {141}) and done.stderr == ""


def test_interactive_completion_knows_what_is_loaded_later() -> None:
    """`lightning.tr<Tab>` and `lightning.in<Tab>` in a fresh interpreter."""
    script = "import rlcompleter, lightning_sdk as l; c = rlcompleter.Completer({'l': l}); print(c.complete('l.tr', 0), c.complete('l.ini', 0))"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["l.train(", "l.init("]


def test_serve_records_agents_and_serves_a_model(folder: Path) -> None:
    """`serve --model` gives an address that the OpenAI client understands, and a hub that init() finds by itself."""
    command = [sys.executable, "-m", "lightning_sdk.cli", "serve", "--port", "0", "--model", "spark", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert server.stdout is not None
    try:
        facts = json.loads(server.stdout.readline())
        client = openai.OpenAI(base_url=facts["base_url"], api_key=facts["api_key"])
        messages: Any = [{"role": "user", "content": "What is 2 + 3?"}]
        assert client.chat.completions.create(model=facts["model"], messages=messages, max_tokens=4).usage is not None
        script = "import lightning_sdk as l\nl.init()\nwith l.rollout({}): pass\nl.shutdown()\nprint(l.status())"
        done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stderr == ""
        again = run("serve", "--port", facts["hub"].rsplit(":", 1)[1], "--run", "other", cwd=folder)
        assert again.returncode == 1 and facts["hub"].rsplit(":", 1)[1] in again.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        server.stdout.close()
    assert not (Path(os.environ["LIGHTNING_HOME"]) / "hub.json").exists()
    assert list((folder / "runs/served/spans").glob("*.log"))

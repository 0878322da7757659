"""Going on with a run: the real client, hub, engine and learner, on copies of one small run of `spark`."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import markers
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.rollouts.tasks import task_id
from tests.training import agents
from tests.training.agents import SMALL, TASKS

#: The first test also waits for the run that all have copies of.
pytestmark = pytest.mark.timeout(300)

OWN = {"optimizer.learning_rate": 1e-5, "optimizer.warmup_steps": 0, "credit.advantage": "grpo", "save_every": 1}


@pytest.fixture(autouse=True)
def roles() -> None:
    """The roles of agents.py, which other tests forget."""
    markers.agent.declared.update(solver=True, onlooker=False, silent=True, broken=True)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has done its two steps."""
    markers.agent.declared.update(solver=True)
    runs = tmp_path_factory.mktemp("runs")
    return lightning.train(agents.solve, TASKS, agents.length, runs=runs, name="run", steps=2, **SMALL, **OWN).folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def go_on(run: Path, tasks: Any = TASKS, **given: Any) -> lightning.Report:
    return lightning.train(agents.solve, tasks, given.pop("reward", agents.length), resume=run, **given)


def test_nobody_else_reads_a_run(finished_run: Path) -> None:
    """Prompts, answers, logs and weights are their user's alone, whatever the user's umask is."""
    found = {path: path.stat().st_mode & 0o777 for path in (finished_run, *finished_run.rglob("*"))}
    assert len(found) > 20 and any(path.name == "learner.pt" for path in found)
    assert not {path: oct(mode) for path, mode in found.items() if mode & 0o077}


@pytest.mark.parametrize("name", ["hub.lock", "hub.log", "metrics.jsonl.new", "checkpoints", "spans/000009.log"])
def test_a_folder_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """A link in a folder that somebody gave away would have this user write, cut or delete what it points to."""
    run, target = tmp_path / "run", tmp_path / "precious"
    (run / "spans").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"kind": "training", "settings": {}}))
    (run / "hub.sqlite").touch()
    target.mkdir() if name == "checkpoints" else target.write_text("all of it")
    (run / name).symlink_to(target)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with pytest.raises(lightning.SettingError, match=rf"{name} is a link to {target}.*cp -rL"):
        go_on(run)
    with pytest.raises(lightning.SettingError, match="is a link to"):
        HubProcess(run)
    with pytest.raises(lightning.SettingError, match="is a link to"):
        lightning.rescore(run, agents.length, write=True)
    assert before == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert target.is_dir() or target.read_text() == "all of it"


def test_a_file_with_a_second_name_is_refused(run: Path, tmp_path: Path) -> None:
    """As in a backup made of hard links: to go on would change the backup too."""
    (tmp_path / "backup").hardlink_to(run / "metrics.jsonl")
    with pytest.raises(lightning.SettingError, match="has a second name elsewhere"):
        go_on(run)


def values(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_that_goes_on_keeps_its_settings_and_held_out_tasks(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With other tasks and two settings given: these are told and act, all others stay as they were, and before and
    after are of the same tasks, none of which is trained on."""
    config, tasks, more = values(run / "config.json"), values(run / "tasks.json"), {"question": "What is 9 + 9?"}
    report = go_on(run, [*TASKS[6:], more], steps=3, **{"optimizer.weight_decay": 0.5})
    shown = capfd.readouterr().err
    changed = [line for line in shown.splitlines() if line.startswith("changed in this run: ")]
    assert [line.removeprefix("changed in this run: ") for line in changed] == [
        "steps 2 -> 3",
        "optimizer.weight_decay 0.0 -> 0.5",
    ]
    assert "the tasks have changed: 1 are new" in shown and "the 2 held-out tasks stay the same" in shown
    settings = values(run / "config.json")["settings"]
    assert settings.pop("steps") == 3 and settings["optimizer"].pop("weight_decay") == 0.5
    del config["settings"]["steps"], config["settings"]["optimizer"]["weight_decay"]
    assert settings == config["settings"]
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3] and max(step["learning_rate"] for step in steps) <= 1e-5
    assert "| 2 | steps | 2 | 3 |" in (run / "report.md").read_text()
    after = values(run / "tasks.json")
    assert after["held_out"] == tasks["held_out"] and task_id(more) in after["training"]
    held_out = {task_id(task) for task in tasks["held_out"]}
    measured = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [set(map(int, line["by_seed"])) for line in measured if not line.get("cut")] == [held_out, held_out]
    assert report.change is not None and report.change.n == 2
    with closing(sqlite3.connect(run / "hub.sqlite")) as database:
        trained = {row[0] for row in database.execute("SELECT task_id FROM rollouts WHERE mode = 'train'")}
    assert trained and not trained & held_out


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, lightning.SettingError, r"has done all of its 2 steps; give the new total.* \(--steps 4\)"),
        ({"steps": 3, "backend": "verl"}, lightning.SettingError, "no other backend reads its checkpoints"),
        ({"steps": 3, "seed": 7}, lightning.SettingError, "setting seed=7: it is 0 in this run"),
        ({"steps": 3, "algorithm.clip_dual": 3.0, "algorithm.loss": "cispo"}, lightning.SettingError, "no dual clip"),
        ({"steps": 3, "vllm.max_num_seqs": 4}, lightning.SettingError, "set engine=vllm, or leave it out"),
        ({"steps": 3, "stored.beta": 0.5}, lightning.SettingError, "no stored rollouts are learned from"),
        ({"steps": 3, "backend_python": "/no/python"}, lightning.HubError, "cannot run /no/python"),
        ({"steps": 3, "tasks": [{"a": 1}, 2]}, lightning.TaskError, r"tasks\[1\]: a task is an object"),
        ({"steps": 3, "held_out": TASKS[:4]}, lightning.TaskError, r"keeps its \d+ held-out tasks when it is resumed"),
        ({"steps": 3, "reward": agents.text}, lightning.SettingError, "was rewarded by length, and now by text"),
        ({"steps": 3, "name": "other"}, lightning.SettingError, "a resumed run keeps its name"),
    ],
)
def test_a_resume_that_is_refused_leaves_the_folder_as_it_was(
    run: Path, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Byte for byte: whatever is wrong is found before anything is opened there."""
    before = contents(run)
    with pytest.raises(error, match=said):
        go_on(run, quiet=True, **given)
    assert contents(run) == before


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

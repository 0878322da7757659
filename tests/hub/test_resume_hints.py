"""What a training that ended early says to type: it is typed, and it works."""

from __future__ import annotations

import json
import re
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_sdk.commands import resume_hints
from lightning_sdk.system.folders import make_run_folder
from tests.hub.guests import SMALL, Command, Place
from tests.processes import descendants, wait_until_ended
from tests.waiting import wait_for

BANDIT = [
    "train",
    "agent.py:solve",
    "--tasks",
    "tasks.jsonl",
    "--backend",
    "bandit",
    "--steps",
    "2",
    *(word for each in SMALL for word in ("--set", each)),
]


@pytest.fixture
def place(tmp_path: Path, bandit_site: Path) -> Iterator[Place]:
    place = Place(tmp_path, bandit_site)
    yield place
    place.close()


def go_on(place: Place, said: str) -> Command:
    """The training once more, with what was said to type, and nothing else."""
    [typed] = set(re.findall(r"lightning-sdk (train --resume (?:'[^']*'|[^\s']+))", said))
    return place.start(*shlex.split(typed), PYTHONPATH=str(place.site))


def test_a_run_that_is_stopped_before_its_first_step(place: Place, tmp_path: Path) -> None:
    """Ctrl-C in the first rollouts, in a folder whose name a shell would take apart: it begins at step 1."""
    words = ["agent.py:slow" if word == "agent.py:solve" else word for word in BANDIT]
    mark = tmp_path / "mark"
    training = place.start(*words, "--name", "my run", PYTHONPATH=str(place.site), GUEST_SLOW=str(mark))
    wait_for(mark.exists)
    training.process.send_signal(signal.SIGINT)
    code, said = training.end()
    assert code == 130 and "stopped before its first step finished" in said and "starts at step 1" in said
    code, _ = go_on(place, said).end()
    assert code == 0
    assert len((tmp_path / "runs" / "my run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_name_that_is_taken_is_told(place: Place, tmp_path: Path) -> None:
    """Two trainings of one name at once: the later one says where it is, and that is what it says to go on with."""
    first, second = (place.start(*BANDIT, "--name", "run", PYTHONPATH=str(place.site)) for _ in range(2))
    said = [first.end(), second.end()]
    assert [code for code, _ in said] == [0, 0]
    other = next(path.name for path in (tmp_path / "runs").iterdir() if path.name != "run")
    [told] = [text for _, text in said if "already exists" in text]
    assert f"this run is in runs/{other}, because runs/run already exists" in told
    assert f"run     runs/{other}" in told


def test_folders_of_one_name_in_one_second(tmp_path: Path) -> None:
    """Made at once by several threads: each has its own."""
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(make_run_folder(tmp_path, "run"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8 and tmp_path / "run" in made


def test_a_training_that_is_killed_is_resumed_at_once(place: Place, tmp_path: Path) -> None:
    """kill -9 of its process while its hub is busy with a step: the new one waits until that has saved."""
    folder = tmp_path / "runs" / "run"
    words = [*BANDIT, "--name", "run", "--model", "patient", "--set", "save_every=1"]
    training = place.start(*words, PYTHONPATH=str(place.site))
    wait_for(folder.exists)
    (folder / "go-1").touch()
    wait_for(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_text())
    [hub] = descendants("lightning_hub", training.process.pid)
    training.process.kill()
    again = go_on(place, resume_hints.after_death(folder))
    wait_for(lambda: "ending" in (folder / "hub.lock").read_text())
    for step in (2, 3):
        (folder / f"go-{step}").touch()
    code, said = again.end()
    assert code == 0, said
    wait_until_ended(hub)
    assert json.loads((folder / "report.json").read_text())["status"] == "finished"


def test_nothing_to_go_on_with_is_said(tmp_path: Path) -> None:
    """Before the run has written how it was started there is nothing to resume."""
    assert resume_hints.after_death(tmp_path) == "Nothing had been written yet: start it again."
    assert resume_hints.after_stop(tmp_path).endswith("start it again")
    assert resume_hints.after_failures(tmp_path) == ""
    (tmp_path / "checkpoints" / "step-00004").mkdir(parents=True)
    assert resume_hints.after_failures(tmp_path).endswith("continues after step 4.")

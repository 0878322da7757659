"""A disk that fills up: what is told names it, and what it says to type works once there is room."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_sdk as lightning
from lightning_sdk import markers
from lightning_sdk.failures import disk
from lightning_sdk.hub.process import HubProcess
from tests.hub.test_runner import TASKS, ask, best, steps
from tests.processes import descendants
from tests.waiting import wait_for

SMALL = {
    "backend": "bandit",
    "rollouts.tasks_per_step": 2,
    "rollouts.group_size": 2,
    "quiet": True,
    "algorithm.aggregation": "token-mean",
    "failure.flat_steps": 0,
}
AGENT = """
import os, lightning_sdk as lightning
from openai import OpenAI
from lightning_sdk import markers

@lightning.agent(role="solver", trainable=True)
def solve(task):
    lines = open("runs/run/metrics.jsonl").readlines() if os.path.exists("runs/run/metrics.jsonl") else []
    if len(lines) == 3 and os.path.exists("fills"):
        try:
            with open("runs/filling", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass
    with OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        messages = [{"role": "user", "content": task["question"]}]
        return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""

@lightning.reward
def best(task, answer):
    return float(answer == "3")
"""


@pytest.fixture
def bandit(bandit_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hubs of this test find the bandit backend, and the solver is a role to train."""
    monkeypatch.setenv("PYTHONPATH", str(bandit_site))
    monkeypatch.setitem(markers.agent.declared, "solver", True)
    yield
    lightning.shutdown()


@pytest.mark.timeout(300)  # five hubs, one after the other
def test_a_training_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path: Path, bandit_site: Path) -> None:
    """A real file system, full after step 3: what is typed is refused for the same reason at first, then it works."""
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "tasks.jsonl").write_text("\n".join(json.dumps(task) for task in TASKS))
    settings = " ".join(
        f"--set {each}"
        for each in (
            "rollouts.tasks_per_step=2",
            "rollouts.group_size=2",
            "algorithm.aggregation=token-mean",
            "failure.flat_steps=0",
        )
    )
    train = f"{sys.executable} -m lightning_sdk.cli train agent.py:solve --tasks tasks.jsonl"
    script = f"""
        mkdir runs; touch fills
        mount -t tmpfs -o size=1m none runs || exit 77
        export PYTHONPATH={bandit_site}
        {train} --backend bandit --name run --steps 6 --set save_every=1 {settings} > out 2> first; echo $?
        {train} --resume runs/run > out 2> second; echo $?
        rm fills runs/filling
        {train} --resume runs/run > out 2> third; echo $?
        tail -n 1 runs/run/metrics.jsonl > last
    """
    done = subprocess.run(["unshare", "-Urm", "bash", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, check=False)
    if done.returncode == 77 or not (tmp_path / "first").exists():
        pytest.skip("no file system can be mounted here")
    first, second = (tmp_path / "first").read_text(), (tmp_path / "second").read_text()
    assert done.stdout.split() == [b"1", b"1", b"0"], (first, second, (tmp_path / "third").read_text())
    for told in (first, second):
        assert "the disk of" in told and "is full (" in told and "Make room there" in told and "Traceback" not in told
    [what, then] = first.splitlines()[-2:]
    assert "runs/run" in what and "--resume runs/run" in then and "continues from the last checkpoint" in then
    assert json.loads((tmp_path / "last").read_text())["step"] == 6


@pytest.mark.parametrize("size", [0, 20_000], ids=["nothing", "little"])
def test_a_hub_that_can_write_no_more(bandit: None, tmp_path: Path, size: int) -> None:
    """Neither its log nor a checkpoint: the error is the disk's, and the run goes on from its last checkpoint."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("prlimit is Linux only")

    @lightning.agent(role="solver", trainable=True)
    def agent(task: dict[str, object]) -> str:
        return ask(str(task["question"]))

    run = tmp_path / "run"

    def fill() -> None:
        wait_for(lambda: len(steps(run)) >= 2)
        for pid in descendants("lightning_hub", os.getpid()):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))

    filler = threading.Thread(target=fill)
    filler.start()
    with pytest.raises(lightning.DiskError, match=r"the disk of .*run.* free\).*\n.*--resume .* after step \d"):
        lightning.train(agent, TASKS, best, runs=tmp_path, name="run", steps=500, save_every=1, **SMALL)
    filler.join()
    done = len(steps(run))
    lightning.train(agent, TASKS, best, runs=tmp_path, resume=run, steps=done + 1, quiet=True)
    assert steps(run) == list(range(1, done + 2))


def test_errors_of_full_disks_are_told_apart(tmp_path: Path) -> None:
    """Real ones: of a file, of SQLite, and of what was raised from them; and others, which are not the disk's."""
    with pytest.raises(OSError) as file, open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        full.write(b"x")
    database = sqlite3.connect(tmp_path / "small.sqlite")
    database.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as store:
        database.executescript("CREATE TABLE a (b); CREATE TABLE c (d); CREATE TABLE e (f);")
    database.close()
    try:
        raise RuntimeError("the checkpoint") from file.value
    except RuntimeError as error:
        chained = error
    for error in (file.value, store.value, chained):
        assert disk.is_full(error)
        told = disk.trouble(error, tmp_path / "not" / "there")
        assert told is not None and f"the disk of {tmp_path}/not/there is full (" in str(told) and "free)" in str(told)
    for other in (ValueError("full"), FileNotFoundError(2, "no"), PermissionError(13, "no")):
        assert not disk.is_full(other) and disk.trouble(other, tmp_path) is None


def test_a_hub_that_cannot_start_for_want_of_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its folder's log nor its database: the folder is named, and no exception of Python's."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(lightning.DiskError, match=f"the disk of {tmp_path}"):
            HubProcess(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

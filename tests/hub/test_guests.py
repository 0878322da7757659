"""Runners that join a training by address and key: real processes of the real command line, one of them killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from lightning_sdk.system import addresses
from tests.hub.guests import Place
from tests.hub.hubs import KEY, Hub
from tests.hub.runners import Runner
from tests.waiting import wait_for


@pytest.fixture
def place(tmp_path: Path, bandit_site: Path) -> Iterator[Place]:
    place = Place(tmp_path, bandit_site)
    yield place
    place.close()


def own_address() -> str:
    """An address of this machine that is not loopback."""
    own = socket.gethostbyname(addresses.own_name())
    if addresses.is_loopback(own):
        pytest.skip("this machine has no address but loopback")
    return own


def test_another_machine_runs_the_rollouts(place: Place, tmp_path: Path) -> None:
    """The command that the training tells to type joins over the network, one that is killed loses nothing, and the
    other one ends with the training."""
    training = place.train("kill", f"tcp://{own_address()}:0", "--json")
    line = training.until("LIGHTNING_KEY=")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "agent.py").write_text((tmp_path / "agent.py").read_text())
    killed = place.type_line(line, "--concurrency", "2", folder=elsewhere, GUEST_KILLED="1")
    assert killed.end()[0] == -signal.SIGKILL
    guest = place.type_line(line, "--json", folder=elsewhere)
    code, said = guest.end()
    assert code == 0 and "warning" not in said
    stay = json.loads(guest.output)
    assert stay["ended"] == "finished" and stay["run"] == "run" and stay["rollouts"] == {"ok": 10}
    assert training.end()[0] == 0
    assert place.report()["rollouts_by_status"]["ok"] == 8
    told = (tmp_path / "runs" / "run" / "hub.log").read_text()
    assert "ended or lost its connection while" in told and "was silent for" not in told
    endpoint = json.loads((tmp_path / "runs" / "run" / "config.json").read_text())["settings"]["serving"]["host"]
    assert endpoint == own_address()


def test_a_training_that_listens_everywhere(place: Place, tmp_path: Path) -> None:
    """The wildcard is told as an address that others can type, and the engine is reached by the same one."""
    training = place.train("solve", "tcp://0.0.0.0:0")
    line = training.until("LIGHTNING_KEY=")
    assert f"--hub tcp://{addresses.own_name()}:" in line and "0.0.0.0" not in line
    assert place.type_line(line, GUEST_ENDPOINT=str(tmp_path / "endpoint")).end()[0] == 0
    assert (tmp_path / "endpoint").read_text().startswith(f"http://{addresses.own_name()}:")
    assert training.end()[0] == 0 and place.report()["rollouts_by_status"]["ok"] == 8


def test_strangers_are_refused_and_the_right_one_joins(place: Place, tmp_path: Path) -> None:
    """Another key, another agent, other rewards: each is told at once; another version of the file is a warning."""
    training = place.train("solve", "tcp://127.0.0.1:0")
    line = training.until("LIGHTNING_KEY=")
    for words, environment, said in (
        ([], {"LIGHTNING_KEY": "guessed"}, "wrong key"),
        (["--reward", "agent.py:brief"], {}, r"is rewarded by best and this runner by brief"),
    ):
        code, told = place.type_line(line, *words, **environment).end()
        assert code == 1 and said in told and "Traceback" not in told
    other = place.type_line(line.replace("agent.py:solve", "agent.py:slow"))
    code, told = other.end()
    assert code == 1 and "trains the agent 'solve'; this runner has 'slow'" in told
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "agent.py").write_text((tmp_path / "agent.py").read_text() + "\n# another version\n")
    code, told = place.type_line(line, folder=tmp_path / "other").end()
    assert code == 0 and "warning: the file of solve differs from the training's" in told
    code, told = training.end()
    assert code == 0 and "has another version of the file of solve" in told


def test_a_runner_waits_for_its_training(place: Place) -> None:
    """Started first, it says that nobody answers, and runs once the training is there, with the key of both."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        hub = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = {"LIGHTNING_HUB": hub, "LIGHTNING_KEY": "of both"}
    guest = place.start("runner", "agent.py:solve", **environment)
    guest.until(f"no hub answers at {hub}; waiting for up to")
    training = place.train("solve", hub, **environment)
    told = training.until("LIGHTNING_KEY=")
    assert "of both" not in told, "a key that was given is not shown"
    assert guest.end()[0] == 0 and training.end()[0] == 0


def test_a_runner_does_not_wait_for_ever(place: Place) -> None:
    """After --wait it ends with what to look at."""
    code, said = place.start("runner", "agent.py:solve", "--hub", "tcp://127.0.0.1:9", "--wait", "1").end()
    assert code == 1 and "no hub answers at tcp://127.0.0.1:9, after 1 s" in said and "--listen" in said
    code, said = place.start("runner", "agent.py:solve").end()
    assert code == 1 and "--hub tcp://HOST:PORT" in said
    code, said = place.start("runner", "agent.py:solve", "--concurrency", "0").end()
    assert code == 2 and "expected a positive integer, got '0'" in said


def test_a_runner_outlasts_the_hub(place: Place, start: Callable[..., Hub], bandit_site: Path) -> None:
    """kill -9 of the hub, and another one that goes on with the run at the same address: the runner goes on too."""
    hub = start(path=bandit_site)
    guest = place.start("runner", "agent.py:solve", "--hub", hub.address, LIGHTNING_KEY=KEY)
    guest.until("has not started a training yet; waiting for up to")
    first = Runner(hub)
    first.begin({"steps": 300, "save_every": 1})
    wait_for(lambda: (first.look(), len(first.steps()) >= 2)[1])
    first.close()
    hub.kill()
    guest.until(f"no hub answers at {hub.address}; waiting for up to")
    hub.start()
    again = Runner(hub)
    done = len((hub.folder / "metrics.jsonl").read_text().splitlines())
    again.begin({"steps": done + 2, "save_every": 1}, resume=True)
    guest.until("running solve for the training")
    code, said = guest.end()
    again.look()
    again.close()
    assert code == 0 and "the training has finished" in said
    assert again.events[-1]["type"] == "finished" and len(again.steps()) >= 2


@pytest.mark.timeout(300)  # three programs, one after the other
def test_a_runner_waits_for_a_training_that_was_killed(place: Place, tmp_path: Path) -> None:
    """Its process, and so its hub in good order: what is typed as the page says gets the runner back, at once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        hub = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    more = ["--steps", "500", "--set", "save_every=1", "--set", "failure.flat_steps=0"]
    training = place.train("solve", hub, *more, LIGHTNING_KEY="of both")
    guest = place.start("runner", "agent.py:solve", "--hub", hub, LIGHTNING_KEY="of both")
    training.until("  reward ")
    training.process.kill()
    guest.until("waiting for up to")
    done = len((tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines())
    words = ["--resume", "run", "--listen", hub, "--runners", "0", "--steps", str(done + 5)]
    again = place.start(
        "train", "agent.py:solve", "--tasks", "tasks.jsonl", *words, PYTHONPATH=str(place.site), LIGHTNING_KEY="of both"
    )
    code, said = again.end()
    assert code == 0, said
    code, said = guest.end()
    assert code == 0 and "the training has finished" in said


def test_a_runner_hears_why_its_training_gave_up(place: Place, start: Callable[..., Hub], bandit_site: Path) -> None:
    """Where the training's own process fails, and neither hub nor backend: the reason, and exit code 1."""
    hub = start(path=bandit_site)
    runner = Runner(hub)
    runner.begin({"steps": 500})
    guest = place.start("runner", "agent.py:solve", "--hub", hub.address, LIGHTNING_KEY=KEY)
    guest.until("running solve for the training")
    runner.watcher.ask("disband", status="failed", error="every runner process ended", wait=5.0)
    runner.close()
    code, said = guest.end()
    assert code == 1 and "failed: every runner process ended" in said


def test_a_runner_that_is_stopped_gives_its_rollouts_back(place: Place, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a rollout: the hub hands it to the next runner without waiting for a silence."""
    training = place.train("slow", "tcp://127.0.0.1:0")
    line = training.until("LIGHTNING_KEY=")
    slow = place.type_line(line, GUEST_SLOW=str(tmp_path / "mark"))
    wait_for((tmp_path / "mark").exists)
    slow.process.send_signal(signal.SIGINT)
    code, said = slow.end()
    assert code == 0 and "unfinished rollouts were given back" in said
    assert place.type_line(line).end()[0] == 0
    code, said = training.end()
    assert code == 0 and "has left (0 joined)" in said
    assert "was silent" not in (tmp_path / "runs" / "run" / "hub.log").read_text()


def test_a_training_that_fails_or_is_stopped_tells_its_runners(place: Place, tmp_path: Path) -> None:
    """Exit code 1 with the reason, or 0 when somebody stopped the training."""
    training = place.train("broken", "tcp://127.0.0.1:0")
    code, said = place.join(training).end()
    assert code == 1 and "the training 'run' failed" in said and "customer_id" in said
    assert training.end()[0] == 1
    training = place.train("slow", "tcp://127.0.0.1:0", "--name", "stopped")
    guest = place.join(training, GUEST_SLOW=str(tmp_path / "mark"))
    wait_for((tmp_path / "mark").exists)
    training.process.send_signal(signal.SIGINT)
    code, said = guest.end()
    assert code == 0 and "the training was stopped" in said
    assert training.end()[0] == 130


@pytest.mark.parametrize("bind", [{}, {"bind": "tcp://127.0.0.1:0"}], ids=["ipc", "tcp"])
def test_a_runner_that_is_killed_before_it_asks_again(train: Callable[..., Runner], bind: dict[str, str]) -> None:
    """It has rollouts, and no request of it waits at the hub: its end is noticed all the same, and not by silence."""
    training = train(lease_seconds=30.0, **bind)
    training.begin()
    script = f"""if True:
        import os, signal
        from lightning_sdk.hub.client import HubClient
        with HubClient({training.hub.address!r}, {KEY!r}) as client:
            assert client.ask("lease", runner="killed", places=1, wait=30.0)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    wait_for(lambda: "runner killed " in training.hub.log())
    assert "runner killed ended or lost its connection while 1 rollout ran there" in training.hub.log()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runners", "0"], "--listen tcp://0.0.0.0:4718"),
        (["--runners", "many"], "ray:64@HOST:PORT"),
        (["--runners", "ray:0"], "ray:64@HOST:PORT"),
        (["--listen", "4718"], "expected tcp://HOST:PORT"),
        (["--listen", "tcp://nowhere.invalid:4718"], "cannot bind"),
        pytest.param(
            ["--runners", "ray:2"],
            "pip install ray",
            marks=pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed here"),
        ),
    ],
)
def test_what_cannot_be_is_said(place: Place, words: list[str], said: str) -> None:
    """One line that says what to type, before anything runs."""
    code, told = place.start("train", "agent.py:solve", "--tasks", "tasks.jsonl", "--backend", "embedded", *words).end()
    assert code == 1 and said in told and "Traceback" not in told

"""Processes that stand still, as after Ctrl-Z or with a paused machine, and go on: nothing is lost, so nothing ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_hub.standstill import is_stopped
from lightning_sdk.errors import HubGone
from lightning_sdk.hub import client as hubs
from lightning_sdk.hub.client import HubClient
from lightning_sdk.system.clock import Clock
from tests.hub.guests import Place
from tests.hub.hubs import KEY, Hub
from tests.waiting import wait_for


@pytest.fixture
def place(tmp_path: Path, bandit_site: Path) -> Iterator[Place]:
    place = Place(tmp_path, bandit_site)
    yield place
    place.close()


def halt(pid: int) -> None:
    """Stop a process, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    while not is_stopped(pid):
        time.sleep(0.001)


def stand_still(pid: int, seconds: float) -> None:
    halt(pid)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def test_no_time_passes_while_nobody_reads_the_clock() -> None:
    """A gap counts as its longest, and a paused one not at all."""
    times = iter([10.0, 10.5, 70.5, 71.0, 71.25])
    clock = Clock(1.0, now=lambda: next(times))
    assert [clock.read(), clock.read(), clock.read(paused=True), clock.read()] == [0.5, 1.5, 1.5, 1.75]


def test_a_hub_of_our_own_that_stands_still_is_waited_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as its process lives, and it is said; once that has ended, the wait ends too."""
    monkeypatch.setattr(hubs, "_ANSWER_SECONDS", 0.6)

    def wake_once_said() -> None:
        wait_for(lambda: "has not answered 'status'" in caplog.text, "a word about the silence")
        os.kill(hub.process.pid, signal.SIGCONT)

    with HubClient(hub.address, KEY, lambda: hub.process.poll() is None, float("inf")) as client:
        assert client.ask("status")["training"] is False
        halt(hub.process.pid)
        waking = threading.Thread(target=wake_once_said)
        waking.start()
        assert client.ask("status")["training"] is False
        waking.join()
        assert "kill -CONT" in caplog.text
        hub.kill()
        with pytest.raises(HubGone, match="its process has ended"):
            client.ask("status")


def test_a_hub_elsewhere_that_is_silent_is_given_up(hub: Hub) -> None:
    """Nothing else can be known of it."""
    halt(hub.process.pid)
    with HubClient(hub.address, KEY, seconds=0.5) as client, pytest.raises(HubGone, match=r"is its process running\?"):
        client.ask("status")


def test_a_client_that_stood_still_looks_at_its_socket_first(hub: Hub) -> None:
    """Its patience is over when it goes on, and the answer, which came after 2 seconds, has been there all the time."""
    script = f"""if True:
        import threading
        from lightning_sdk.hub.client import HubClient
        with HubClient({hub.address!r}, {KEY!r}, seconds=2.0) as client:
            client.ask("status")
            threading.Timer(1.7, print, ("ready",), {{"flush": True}}).start()
            assert client.ask("watch", wait=2.0) == []
    """
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"ready\n"
        stand_still(client.pid, 4.0)
        assert client.wait(60) == 0


def test_standstills_of_a_client_are_not_taken_for_silence_of_its_hub(hub: Hub) -> None:
    """Twice it stands still, together for longer than it is ready to wait, and the answer comes only then."""
    script = f"""if True:
        from lightning_sdk.hub.client import HubClient
        with HubClient({hub.address!r}, {KEY!r}, seconds=6.0) as client:
            print("ready", flush=True)
            assert client.ask("status")["training"] is False
    """
    halt(hub.process.pid)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"ready\n"
        for _ in range(2):
            time.sleep(0.1)
            stand_still(client.pid, 4.0)
        time.sleep(1.0)
        os.kill(hub.process.pid, signal.SIGCONT)
        assert client.wait(60) == 0


@pytest.mark.parametrize("who", ["hub", "training"])
def test_a_training_goes_on_after_a_standstill(place: Place, tmp_path: Path, who: str) -> None:
    """Longer than a rollout and a step may take: no rollout of it is lost or tried again."""
    words = ["--runners", "threads", "--set", "rollouts.deadline=10", "--set", "rollouts.timeout=10", "--steps", "12"]
    training = place.train("solve", "tcp://127.0.0.1:0", *words)
    training.until("  reward ")
    pid = training.process.pid
    if who == "hub":
        pid = int((tmp_path / "runs" / "run" / "hub.lock").read_text())
    stand_still(pid, 12.0)
    code, said = training.end()
    assert code == 0, said
    assert place.report()["rollouts_by_status"] == {"ok": 48} | {
        status: 0 for status in place.report()["rollouts_by_status"] if status != "ok"
    }

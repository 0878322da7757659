"""The hub as a process: how it starts, what it refuses, and how it ends."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from lightning_sdk.errors import HubError
from lightning_sdk.stream import wire
from tests.hub.hubs import Client, Hub, span


def test_a_port_in_use_is_named(start: Callable[..., Hub]) -> None:
    """The error has the address and what to do."""
    first = start("one", bind="tcp://127.0.0.1:0")
    second = start("two", bind=first.address)
    name, message = second.ready["error"]
    assert name == "PortInUse"
    assert first.address in message
    assert "tcp://127.0.0.1:0" in message
    assert second.process.wait(60) == 1


def test_an_address_that_is_none(start: Callable[..., Hub]) -> None:
    """The error has the address and how one looks."""
    name, message = start(bind="nonsense").ready["error"]
    assert name == "HubError"
    assert "'nonsense'" in message
    assert "tcp://127.0.0.1" in message


def test_one_folder_one_hub(start: Callable[..., Hub]) -> None:
    """A second hub on the same folder would tear the log."""
    first = start()
    name, message = start(bind="tcp://127.0.0.1:0").ready["error"]
    assert name == "HubError"
    assert str(first.process.pid) in message


def test_the_hub_goes_with_its_parent(hub: Hub) -> None:
    """Standard input closes when the process that started the hub is gone, killed or not."""
    assert hub.stop() == 0


def test_the_hub_ends_when_nobody_waits_for_its_first_word(tmp_path: Path) -> None:
    """Its starter was killed before the hub could answer: it does not stay behind."""
    command = [sys.executable, "-m", "lightning_hub"]
    hub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert hub.stdin is not None and hub.stdout is not None
    hub.stdin.write(json.dumps({"run": str(tmp_path / "run"), "key": "k", "lifeline": True}).encode() + b"\n")
    hub.stdin.flush()
    hub.stdout.close()
    hub.stdin.close()
    try:
        assert hub.wait(60) == 0
    finally:
        hub.kill()
        hub.wait()


def test_stop_ends_the_hub(hub: Hub, client: Client) -> None:
    """The request answers and the process exits in good order."""
    assert client.ask("stop") is None
    assert hub.process.wait(60) == 0


def test_terminate_ends_the_hub(hub: Hub, client: Client) -> None:
    """SIGTERM is a graceful end: what was acknowledged is indexed."""
    client.deliver(1, [span("a")])
    hub.process.terminate()
    assert hub.process.wait(60) == 0
    with sqlite3.connect(hub.folder / "hub.sqlite") as database:
        assert database.execute("SELECT value FROM meta WHERE name = 'events'").fetchone() == (1,)
    database.close()


def test_a_hub_without_configuration_says_so() -> None:
    """Started by hand, it answers with what it wanted."""
    done = subprocess.run(
        [sys.executable, "-m", "lightning_hub"], input=b"hello\n", capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert b"not its configuration" in done.stdout


# --- requests


def test_an_unknown_method_is_named(guest: Client) -> None:
    """With the methods that there are."""
    with pytest.raises(HubError, match=r"no method 'dance'.*lease.*status"):
        guest.ask("dance")


def test_a_request_without_its_params_is_an_error(guest: Client) -> None:
    """The hub survives and says which."""
    with pytest.raises(HubError, match=r"lease failed.*runner"):
        guest.ask("lease")
    assert guest.ask("status")["hub"]


def test_a_lease_waits_and_comes_back_empty(guest: Client) -> None:
    """Without work the answer comes when the wait is over."""
    assert guest.ask("lease", runner="r", places=1, wait=0.05) == []


def test_a_message_beyond_the_limit_is_not_read(busy_hub: Hub, guest: Client) -> None:
    """The connection that sends it is cut; others go on."""
    giant = zmq.Context.instance().socket(zmq.DEALER)
    giant.set(zmq.LINGER, 0)
    giant.connect(busy_hub.address)
    giant.send_multipart([wire.BATCH, b"h", bytes(wire.MAX_MESSAGE_BYTES + 1)])
    guest.deliver(1, [span("a")])
    assert not giant.poll(100)
    giant.close(linger=0)

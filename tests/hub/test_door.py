"""The door of a hub: a folder of one user on one machine, and by TCP a handshake that only keys get through."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_hub.receive import door as doors
from lightning_hub.receive.door import Door
from lightning_sdk.errors import HubError
from lightning_sdk.stream import curve
from tests.hub.hubs import KEY, Client, Hub


def test_the_socket_is_in_a_folder_of_this_user(tmp_path: Path) -> None:
    """Nobody else can enter it, and nothing of it is left."""
    door = Door(f"ipc://{tmp_path}/nest/hub", "", [])
    nest = tmp_path / "nest"
    assert nest.stat().st_mode & 0o777 == 0o700 and door.address == f"ipc://{nest}/hub" and (nest / "hub").is_socket()
    door.close()
    assert not nest.exists()


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_enter_is_refused(tmp_path: Path, kind: str) -> None:
    """They could put a socket of theirs into its place."""
    nest = tmp_path / "nest"
    if kind == "open":
        nest.mkdir(0o755)
    elif kind == "file":
        nest.touch(0o600)
    else:
        (tmp_path / "theirs").mkdir(0o700)
        (tmp_path / "theirs" / "hub").touch()
        nest.symlink_to(tmp_path / "theirs")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HubError, match=r"is not a folder of this user alone \(mode 0700\)"):
        Door(f"ipc://{nest}/hub", "", [])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_another_user_cannot_reach_it() -> None:
    """Neither connect to the socket nor take its place."""
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        Path(shared).chmod(0o777)
        door = Door(f"ipc://{shared}/nest/hub", "", [])
        child = os.fork()
        if child == 0:
            os._exit(reaches_as_another_user(f"{shared}/nest/hub"))
        _, status = os.waitpid(child, 0)
        door.close()
    assert os.waitstatus_to_exitcode(status) == 0


def reaches_as_another_user(path: str) -> int:
    """1 if it can connect or put a socket there; of a process that ends at once."""
    os.setuid(65534)
    for act in (socket.socket.connect, socket.socket.bind):
        try:
            act(socket.socket(socket.AF_UNIX), path)
        except PermissionError:
            continue
        return 1
    return 0


FRAME = 2**20
#: ZMTP 3.0 (RFC 23): a signature, the version, the mechanism in 20 bytes, whether it is a server, and 31 bytes of zero.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00%b\x00" + bytes(31)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"


def connect(address: str) -> socket.socket:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), 20)


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN", b"CURVE"])
def test_a_peer_without_a_key_sends_nothing_that_the_hub_keeps(start: Callable[..., Hub], mechanism: bytes) -> None:
    """It is cut off at its first words, so that no message of many frames grows the hub's memory."""
    hub = start(bind="tcp://127.0.0.1:0")
    frame = b"\x03" + FRAME.to_bytes(8, "big") + bytes(FRAME)  # more frames follow, always
    sent: list[bytes] = []
    with connect(hub.address) as peer, pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
        peer.sendall(GREETING % mechanism.ljust(20, b"\0") + (READY if mechanism == b"NULL" else b""))
        for _ in range(256):
            peer.sendall(frame)
            sent.append(frame)
    assert len(sent) < 32, "more than the system keeps on the way"
    with Client(hub) as client:
        assert client.ask("status")["clients"] == 1


def test_a_peer_that_never_shows_a_key_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has sent until then is forgotten with it."""
    monkeypatch.setattr(doors, "_HANDSHAKE_SECONDS", 0.2)
    door = Door("tcp://127.0.0.1:0", curve.make_pair().secret.decode(), [KEY])
    with connect(door.address) as peer:
        endless = b"\x06" + FRAME.to_bytes(8, "big")  # a command that does not come
        peer.sendall(GREETING % b"CURVE".ljust(20, b"\0") + endless)
        while peer.recv(4096):
            pass
    door.close()

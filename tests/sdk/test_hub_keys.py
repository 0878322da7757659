"""The keys of a hub: whose they are, where they are kept, and that no child inherits one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import zmq

import lightning_sdk as lightning
from lightning_sdk.hub import discovery
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.keys import HubKeys
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.stream import curve
from lightning_sdk.stream.stream import Stream
from tests.sdk.stream_events import count_events, event

TCP = "tcp://127.0.0.1:0"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTNING_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(discovery, "_given_key", "")
    return tmp_path / "home"


def test_a_run_keeps_its_keys_and_its_folder_has_none(tmp_path: Path, home: Path) -> None:
    """Guests find a resumed run again; its folder holds no key, and other users cannot read the keys."""
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    keys = HubKeys.of(run)
    assert keys == HubKeys.of(run) == HubKeys.of(run, keys.guest) and keys.guest != HubKeys.of(other).guest
    assert list(run.iterdir()) == []
    kept = [home / "keys", *(home / "keys").iterdir()]
    assert len(kept) == 3 and not any(path.stat().st_mode & 0o077 for path in kept)
    with pytest.raises(lightning.SettingError, match="is the key of a different hub"):
        HubKeys.of(other, keys.guest)


def test_each_key_is_its_holders(tmp_path: Path) -> None:
    """All know the hub by one public key, and no secret follows from another."""
    keys = HubKeys.make()
    shown = [
        curve.credential(key) for key in (keys.operator, keys.guest, curve.issue(curve.credential(keys.guest).hub))
    ]
    assert len({each.hub for each in shown}) == 1 and len({each.own for each in shown}) == 3
    assert keys.secret.encode() not in {each.own.secret for each in shown}


def test_a_text_that_people_chose_is_good_for_both_sides() -> None:
    """The operator's key is still another one."""
    keys = HubKeys.make("a secret of people")
    assert keys.guest == "a secret of people" and keys.operator != keys.guest
    assert curve.credential(keys.guest).hub == curve.credential(keys.operator).hub
    assert curve.credential("another").hub != curve.credential(keys.guest).hub


@pytest.mark.parametrize("damaged", ["lk1-", "lk1-abc", "lk1-" + "x" * 85, "lk1-\xe9" + "x" * 85, "lk1-" + "!" * 86])
def test_a_key_that_is_not_complete_is_told(damaged: str) -> None:
    """It was not copied whole; what there is of it is not shown."""
    with pytest.raises(lightning.SettingError, match="is not complete: copy all of it") as caught:
        lightning.init("tcp://127.0.0.1:9", damaged)
    assert len(damaged) <= 12 or damaged not in str(caught.value)


def test_no_child_inherits_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken out of the environment as it is read, and this process still knows it."""
    monkeypatch.setenv("LIGHTNING_KEY", "a secret of people")
    monkeypatch.setenv("LIGHTNING_HUB", "tcp://127.0.0.1:9")
    assert discovery.find(None, None) == ("tcp://127.0.0.1:9", "a secret of people")
    printed = subprocess.run(
        [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "a secret of people" not in printed and json.loads(printed)["LIGHTNING_HUB"]
    assert "LIGHTNING_KEY" not in os.environ
    assert discovery.find(None, None) == ("tcp://127.0.0.1:9", "a secret of people")


def start(run: Path, address: str = "", keys: HubKeys | None = None) -> HubProcess:
    run.mkdir(exist_ok=True)
    return HubProcess(run, bind=address, keys=keys)


def test_wrong_key_is_said_and_hurts_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that the hub refuses holds nothing, and says why once."""
    hub = start(tmp_path / "run")
    assert hub.address.startswith("ipc://")
    stream = Stream(hub.address, "wrong")
    stream.put(event(1), 1100)
    while not stream.status().refused:
        pass
    stream.put(event(2), 1100)
    assert not stream.flush(0.3) or stream.status().acknowledged == 0
    stream.close(0)
    assert "refused this process" in caplog.text
    with HubClient(hub.address, "wrong") as client, pytest.raises(lightning.HubRefused):
        client.ask("status")
    hub.stop()
    assert not Path(hub.address.removeprefix("ipc://")).parent.exists()


@pytest.mark.parametrize("encrypted", [False, True])
def test_nobody_takes_the_place_of_a_dead_hub(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encrypted: bool
) -> None:
    """What listens at its port gets no event and no question, and the hub that comes back has all of it."""
    hub = start(tmp_path / "run", TCP)
    stream = Stream(hub.address, hub.keys.guest)
    stream.put(event(1), 1100)
    assert stream.flush()
    hub.stop()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as thief:
        thief.set(zmq.LINGER, 0)
        if encrypted:
            thief.set(zmq.CURVE_SERVER, 1)
            thief.set(zmq.CURVE_SECRETKEY, curve.make_pair().secret)
        thief.bind(hub.address)
        stream.put(event(2), 1100)
        while "events for the hub" not in caplog.text:
            assert not thief.poll(10)
        with HubClient(hub.address, hub.key) as client, pytest.raises(lightning.HubRefused, match="not this hub"):
            client.ask("train", tasks=[{"secret": 1}])
        assert not thief.poll(10) and stream.status().acknowledged == 1
    again = start(tmp_path / "run", hub.address, hub.keys)
    assert stream.flush(20.0)
    stream.close()
    again.stop()
    assert count_events(tmp_path / "run") == Counter([1, 2])


@pytest.mark.parametrize("key", ["wrong", "", HubKeys.make().guest], ids=["wrong", "none", "another hub's"])
def test_a_stranger_is_not_let_in_by_tcp(tmp_path: Path, key: str) -> None:
    """Without one of the hub's keys nobody gets as far as to greet it."""
    hub = HubProcess(tmp_path, bind="tcp://127.0.0.1:0")
    with HubClient(hub.address, key) as client, pytest.raises(lightning.HubRefused, match="wrong key"):
        client.ask("status")
    theirs = curve.credential(hub.keys.guest).hub  # the hub's public key is not secret
    with HubClient(hub.address, curve.issue(theirs)) as client, pytest.raises(lightning.HubRefused, match="wrong key"):
        client.ask("status")
    with HubClient(hub.address, hub.key) as client:
        assert client.ask("status")["clients"] == 1
    hub.stop()

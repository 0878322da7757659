"""The stream to a real hub: everything arrives, once, through deaths on both sides, and a dead hub hurts nobody."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_sdk as lightning
from lightning_sdk.capture import patches
from lightning_sdk.hub import discovery
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.keys import HubKeys
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.stream import wire
from lightning_sdk.stream.stream import Stream
from lightning_sdk.system import native_threads
from tests.sdk.scripted_hub import ScriptedHub
from tests.sdk.stream_events import count_events, event
from tests.waiting import wait_for


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    hub = start(tmp_path / "run")
    yield hub
    hub.stop()


def start(run: Path, address: str = "tcp://127.0.0.1:0", keys: HubKeys | None = None) -> HubProcess:
    run.mkdir(exist_ok=True)
    return HubProcess(run, bind=address, keys=keys)


def test_a_stream_without_a_thread_sends_in_the_one_that_closes_it(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while Python 3.12 ends, which starts no thread any more; a double refuses here, so that 3.11 does too."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(native_threads, "start", refuse)
    stream = Stream(hub.address, hub.key)
    for number in range(3):
        stream.put(event(number), 1000)
    stream.close()
    hub.stop()
    assert count_events(tmp_path / "run") == Counter(range(3))


def test_everything_arrives_once(hub: HubProcess, tmp_path: Path) -> None:
    """Events of several threads are all in the hub's log after `flush`, and the counters say so."""
    stream = Stream(hub.address, hub.key)

    def feed(part: int) -> None:
        for number in range(part * 1000, part * 1000 + 1000):
            stream.put(event(number), 1100)

    threads = [threading.Thread(target=feed, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.flush(20)
    status = stream.status()
    assert (status.put, status.acknowledged, status.dropped, status.waiting) == (4000, 4000, 0, 0)
    assert status.hub == hub.id
    stream.close()
    assert count_events(tmp_path / "run") == Counter(range(4000))


def test_nothing_is_lost_or_doubled_when_the_hub_is_killed(tmp_path: Path) -> None:
    """kill -9 of the hub, three times under load: each event is in the log exactly once."""
    hub = start(tmp_path / "run")
    stream = Stream(hub.address, hub.key)
    done, count = threading.Event(), 0

    def feed() -> None:
        nonlocal count
        while not done.is_set():
            for _ in range(100):
                stream.put(event(count), 1100)
                count += 1
            done.wait(0.01 if count < 50_000 else 1.0)

    feeder = threading.Thread(target=feed)
    feeder.start()
    for _ in range(3):
        before = stream.status().acknowledged
        wait_for(lambda: stream.status().acknowledged > before, stream.status)  # noqa: B023
        os.kill(hub.pid, signal.SIGKILL)
        hub.stop(0)
        hub = start(tmp_path / "run", hub.address, hub.keys)
    done.set()
    feeder.join()
    assert stream.flush(60), stream.status()
    assert stream.status().resent > 0
    stream.close()
    hub.stop()
    assert count_events(tmp_path / "run") == Counter(range(count))


def test_what_the_window_cannot_hold_waits_on_disk(tmp_path: Path) -> None:
    """With nobody listening, events beyond the window spill to disk, and all arrive once the hub is there."""
    hub = start(tmp_path / "run")
    hub.stop()
    stream = Stream(hub.address, hub.key, window=100_000)
    for number in range(2000):
        stream.put(event(number), 1100)
    while stream.status().spilled_bytes < 1_500_000:
        pass
    assert stream.status().window_bytes < 400_000 and stream.status().dropped == 0
    again = start(tmp_path / "run", hub.address, hub.keys)
    assert stream.flush(20)
    stream.close()
    again.stop()
    assert count_events(tmp_path / "run") == Counter(range(2000))


def test_dead_hub_never_blocks_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    """With every bound reached the caller waits its patience once; then events are dropped, counted and said once."""
    stream = Stream("tcp://127.0.0.1:9", "k", window=50_000, spill=50_000, patience=0.2)
    for number in range(20_000):  # 20,000 waits of 0.2 s would outlast the test's time limit many times over
        stream.put(event(number), 1100)
    status = stream.status()
    assert status.put == 20_000 and status.dropped > 10_000
    assert status.window_bytes < 400_000 and status.spilled_bytes < 400_000
    assert caplog.text.count("events are dropped") == 1
    stream.close(0)


def test_what_is_left_at_exit_is_delivered_next_time(tmp_path: Path) -> None:
    """Events that no hub took are left in the spool folder and delivered once by the next stream to that hub."""
    hub = start(tmp_path / "run")
    hub.stop()
    spool = tmp_path / "spool"
    stream = Stream(hub.address, hub.key, spool=spool, window=100_000)
    for number in range(1000):
        stream.put(event(number), 1100)
    stream.close(0.1)
    assert len(list(spool.rglob("*.spool"))) == 1
    again = start(tmp_path / "run", hub.address, hub.keys)
    heir = Stream(hub.address, hub.key, spool=spool)
    heir.put(event(1000), 1100)
    assert heir.flush(20)
    while list(spool.rglob("*.*")):
        pass
    heir.close()
    again.stop()
    assert count_events(tmp_path / "run") == Counter(range(1001))


def test_another_hub_at_the_same_address_gets_the_rest(tmp_path: Path) -> None:
    """A hub with another folder never saw what the first one confirmed; what is new arrives there all the same."""
    hub = start(tmp_path / "one")
    stream = Stream(hub.address, hub.key, window=100_000)
    for number in range(100):
        stream.put(event(number), 1100)
    assert stream.flush(10)
    hub.stop()
    for number in range(100, 1000):
        stream.put(event(number), 1100)
    with HubClient(hub.address, hub.key) as client:
        again = start(tmp_path / "two", hub.address, hub.keys)
        assert stream.flush(20), stream.status()
        assert client.ask("status")["clients_ever"] == 1
    stream.close()
    again.stop()
    assert count_events(tmp_path / "two") == Counter(range(100, 1000))


def test_forked_child_streams_under_its_own_name(hub: HubProcess, tmp_path: Path) -> None:
    """A forked process has its own stream; parent and child lose nothing."""
    script = f"""
        import os, sys
        from tests.sdk.stream_events import event
        from lightning_sdk.stream.stream import Stream
        stream = Stream({hub.address!r}, {hub.key!r})
        stream.put(event(1), 1100)
        assert stream.flush(10)
        child = os.fork()
        stream.put(event(2 if child else 3), 1100)
        assert stream.flush(10)
        stream.close()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        else:
            os._exit(0)
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert count_events(tmp_path / "run") == Counter([1, 2, 3])


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [wire.ACK],
        [b"\xff", b"\xff", b"\xff"],
        [wire.ACK, b"\xc1"],
        [wire.ACK, wire.pack({"acked": "all"})],
        [wire.ACK, wire.pack({"acked": 2**63})],
        [wire.ACK, wire.pack({"acked": -1})],
        [wire.ACK, wire.pack([1])],
        [wire.ACK, b"\x81\x91\x01\x01"],
        [wire.ACK, wire.pack({"acked": 1000})],
        [wire.WELCOME, wire.pack({"hub": 1, "acked": 0})],
        [wire.WELCOME, wire.pack({"hub": "h", "acked": True})],
        [wire.WELCOME, wire.pack({"hub": "h", "acked": 1000})],
        [wire.WELCOME, wire.pack(None)],
        [wire.REFUSED, wire.pack({"reason": 7})],
        [wire.REPLY, wire.pack([1, None, None])],
        [wire.BATCH, b"", b""],
    ],
)
def test_nothing_that_a_hub_sends_stops_the_stream(frames: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    """A malformed message, before the welcome or after it, is logged once and ignored."""
    with ScriptedHub() as hub:
        stream = Stream(hub.address)
        stream.put(event(0), 1100)
        for greeting in hub.messages(20):
            hub.tell(*frames)
            hub.answer(greeting)
            break
        hub.serve(lambda: stream.status().acknowledged == 1)
        hub.tell(*frames)
        stream.put(event(1), 1100)
        hub.serve(lambda: stream.status().acknowledged == 2)
        stream.close(0)
        assert len(hub.events) == 2 and stream.status().connections == 1
    assert caplog.text.count("is malformed") == 1


def test_a_message_that_is_too_long_costs_a_connection_and_no_more() -> None:
    """Nothing is kept of a hub's message of megabytes; a new connection goes on."""
    with ScriptedHub() as hub:
        stream = Stream(hub.address)
        stream.put(event(0), 1100)
        for greeting in hub.messages(20):
            hub.answer(greeting)
            break
        hub.tell(wire.ACK, bytes(2**22))
        hub.serve(lambda: stream.status().acknowledged == 1)
        stream.close(0)


def test_sessions_leave_nothing_behind(hub: HubProcess) -> None:
    """Descriptors, threads and hooks after many sessions that recorded are as many as before the first."""

    def count_held() -> list[int]:
        return [len(list(Path(folder).iterdir())) for folder in ("/proc/self/fd", "/proc/self/task")]

    def is_more() -> bool:
        return any(now > then for now, then in zip(count_held(), before, strict=True))

    # Resident memory is not among these. In 60 calls of `check` it grew from 87 to 136 MB, and no more after the 40th:
    # each cycle's threads take whichever of glibc's arenas is free, and an arena keeps what it was once given. In use
    # were 19.6 MB after the first call and after the last, and with MALLOC_ARENA_MAX=1 the process stayed at 89 MB.
    before = count_held()
    for _ in range(20):
        lightning.init(hub.address, hub.key)
        with lightning.rollout():
            pass
        lightning.shutdown()
    wait_for(lambda: not is_more(), count_held)  # a thread that has said its last word is still there
    assert not any(patches._awaited.values())
    with HubClient(hub.address, hub.key) as client:
        assert client.ask("status")["rollouts"] == {"ok": 20}


def test_running_out_of_descriptors_never_ends_the_process(hub: HubProcess) -> None:
    """With 0 to 40 descriptors left a stream neither aborts the process nor loses anything: it waits for some."""
    script = f"""
        import os, resource, sys, time
        from tests.sdk.stream_events import event
        from lightning_sdk.stream.stream import Stream
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        for left in (*range(10), 20, 40):
            stream, held = Stream({hub.address!r}, {hub.key!r}), []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                for descriptor in held[:left]:
                    os.close(descriptor)
            stream.put(event(left), 1100)
            time.sleep(0.02)
            for descriptor in held[left:]:
                os.close(descriptor)
            assert stream.flush(20), stream.status()
            stream.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_process_that_just_ends_has_flushed(hub: HubProcess, tmp_path: Path) -> None:
    """A script that records and returns without `shutdown()` loses nothing; init() found the hub by itself."""
    discovery.announce(hub.address, hub.key, hub.pid)
    script = """
        import lightning_sdk as lightning
        lightning.init()
        for number in range(100):
            with lightning.rollout({"number": number}):
                pass
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    with HubClient(hub.address, hub.key) as client:
        assert client.ask("status")["rollouts"] == {"ok": 100}


def test_init_without_a_hub_costs_nothing() -> None:
    """No hub: no stream, no thread, no record, and calls of the API work as ever."""
    before = threading.active_count()
    lightning.init()
    with lightning.rollout({}):
        pass
    assert threading.active_count() == before and lightning.status()["stream"] is None


def test_announced_hub_that_died_is_not_found(hub: HubProcess) -> None:
    """A hub that was killed leaves its announcement behind; nobody waits for it."""
    discovery.announce(hub.address, hub.key, hub.pid)
    assert discovery.find(None, None) == (hub.address, hub.key)
    os.kill(hub.pid, signal.SIGKILL)
    hub.stop(0)
    assert discovery.find(None, None) is None


def test_port_in_use_is_named(hub: HubProcess, tmp_path: Path) -> None:
    """A second hub on the same port is refused with the port and what to type."""
    port = hub.address.rsplit(":", 1)[1]
    with pytest.raises(lightning.PortInUse, match=port):
        start(tmp_path / "other", hub.address)


def test_malformed_address_is_refused() -> None:
    """An address that no hub can have is an error at once, not silence."""
    with pytest.raises(lightning.SettingError, match="tcp://HOST:PORT"):
        lightning.init(hub="localhost")


def test_other_companys_distribution_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The namesake found installed is an error that says which to remove."""
    metadata = tmp_path / "lightning_sdk-2025.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-sdk\nVersion: 2025.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(lightning.LightningError, match=r"lightning-sdk 2025.1.0.*pip uninstall lightning-sdk"):
        lightning.init()

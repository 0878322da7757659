"""What a process leaves behind reaches the hub, whatever happened to its files; and no disk ever hurts the agent."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_sdk.stream import wire
from lightning_sdk.stream.spool import Spool
from lightning_sdk.stream.stream import Stream
from lightning_sdk.stream.undelivered import Leftovers
from lightning_sdk.stream.wire import NO_ROLLOUT, Event, EventBatch
from tests.sdk.scripted_hub import ScriptedHub

NOBODY = "tcp://127.0.0.1:9"


def event(number: int, size: int = 1000) -> tuple[Any, ...]:
    return (Event.SPAN, NO_ROLLOUT, [number, "x" * size])


def batch(client: bytes, first: int, count: int = 10) -> EventBatch:
    return EventBatch(client, first, count, b"".join(wire.pack(event(first + n)) for n in range(count)))


def numbers(hub: ScriptedHub) -> list[int]:
    return [fields[2][0] for fields in hub.events]


@pytest.fixture
def hub() -> Iterator[ScriptedHub]:
    with ScriptedHub() as hub:
        yield hub


@pytest.fixture
def folder(hub: ScriptedHub, tmp_path: Path) -> Leftovers:
    return Leftovers(tmp_path, hub.address)


def write(folder: Leftovers, batches: int, client: bytes) -> Path:
    """A file of some batches of ten events."""
    assert folder.leave(client, [batch(client, 1 + 10 * n) for n in range(batches)]) == (10 * batches, None)
    return folder.folder / f"{client.hex()}.spool"


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files end at 200,000 bytes: writing on is an OSError, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_torn_file_gives_what_is_whole_and_blocks_nothing(
    hub: ScriptedHub, folder: Leftovers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole batches of a cut file arrive, and those before a flipped byte; no file is kept."""
    cut = write(folder, 5, b"a" * 16)
    os.truncate(cut, cut.stat().st_size - 100)
    beginning = write(folder, 1, b"b" * 16)
    os.truncate(beginning, 20)
    flipped = write(folder, 5, b"c" * 16)
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    write(folder, 3, b"d" * 16)
    stream = Stream(hub.address, spool=tmp_path)
    stream.put(event(0), 1100)
    hub.serve(lambda: not list(folder.folder.iterdir()))
    stream.close(0)
    assert sorted(numbers(hub)) == sorted([0, *range(1, 41), *range(1, 21), *range(1, 31)])
    assert "was cut off" in caplog.text and "cannot be read" in caplog.text


def test_a_file_that_is_being_written_is_left_alone(folder: Leftovers) -> None:
    """While its writer writes nobody takes it; once the writer is done it is delivered whole."""
    taken: list[int] = []

    def take(spool: Spool) -> bool:
        taken.append(spool.events)
        return True

    def batches() -> Iterator[EventBatch]:
        for number in range(4):
            yield batch(b"w" * 16, 1 + 10 * number)
            Leftovers(folder.folder.parent, "").deliver(take)
            folder.deliver(take)
            assert not taken

    assert folder.leave(b"w" * 16, batches()) == (40, None)
    folder.deliver(take)
    assert taken == [40] and not list(folder.folder.iterdir())


def test_what_a_killed_writer_wrote_is_taken(folder: Leftovers) -> None:
    """kill -9 in the middle of a file: its lock goes with the process, and the whole batches are there."""
    script = f"""
        import os, signal
        from pathlib import Path
        from lightning_sdk.stream.undelivered import Leftovers
        from tests.sdk.test_leftovers import batch
        def batches():
            for number in range(3):
                yield batch(b"k" * 16, 1 + 10 * number)
            os.kill(os.getpid(), signal.SIGKILL)
        Leftovers(Path({str(folder.folder.parent)!r}), {folder.folder.name!r}).leave(b"k" * 16, batches())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    taken: list[int] = []
    folder.deliver(lambda spool: taken.append(spool.events) or True)  # type: ignore[func-returns-value]
    assert taken == [30]


def test_leftovers_of_a_refused_delivery_stay(hub: ScriptedHub, folder: Leftovers, tmp_path: Path) -> None:
    """A hub that goes in the middle gets the rest later, and what it had counts once."""
    path = write(folder, 5, b"r" * 16)
    stream = Stream(hub.address, spool=tmp_path)
    stream.put(event(0), 1100)
    hub.serve(lambda: len(hub.events) > 10)
    stream.close(0)
    assert len(hub.events) == 51 or path.exists()
    again = Stream(hub.address, spool=tmp_path)
    again.put(event(51), 1100)
    hub.serve(lambda: not path.exists() and 51 in numbers(hub))
    again.close(0)
    assert sorted(numbers(hub)) == list(range(52))


@pytest.mark.usefixtures("full_disk")
def test_a_full_temporary_folder_ends_nothing(hub: ScriptedHub, caplog: pytest.LogCaptureFixture) -> None:
    """With a disk that takes no more, events wait in memory, and a hub that comes back gets all of them."""
    address = hub.address
    hub.close()
    stream = Stream(address, window=300_000)
    for number in range(600):
        stream.put(event(number), 1100)
    while "cannot be kept on disk" not in caplog.text:
        pass
    assert 0 < stream.status().spilled_bytes <= 200_000
    with ScriptedHub(address) as again:
        again.serve(lambda: stream.status().waiting == 0)
        assert numbers(again) == list(range(600)) and stream.status().dropped == 0
    stream.close(0)


def test_no_temporary_folder_ends_nothing(
    hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same where there is no folder for temporary files at all."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    stream = Stream(hub.address, window=100_000)
    for number in range(200):
        stream.put(event(number), 1100)
    while "cannot be kept on disk" not in caplog.text:
        pass
    hub.serve(lambda: stream.status().waiting == 0)
    stream.close(0)
    assert numbers(hub) == list(range(200))


@pytest.mark.usefixtures("full_disk")
def test_closing_on_a_full_disk_raises_nothing_and_keeps_what_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What fits waits for the next process, what does not is counted, and the file holds whole batches only."""
    stream = Stream(NOBODY, spool=tmp_path)
    for number in range(600):
        stream.put(event(number), 1100)
    stream.close(0.1)
    kept: list[int] = []
    Leftovers(tmp_path, NOBODY).deliver(lambda spool: kept.append(spool.events) or not spool.torn)  # type: ignore[func-returns-value]
    assert 0 < kept[0] < 200
    assert f"{kept[0]} events wait in" in caplog.text
    assert f"{600 - kept[0]} events did not reach the hub" in caplog.text and "File too large" in caplog.text
    assert not list(tmp_path.rglob("*.spool"))


def test_a_spool_folder_that_cannot_be_made_hurts_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file lies where the folder would be: closing says what is lost, and why."""
    (tmp_path / "file").touch()
    stream = Stream(NOBODY, spool=tmp_path / "file")
    stream.put(event(1), 1100)
    stream.close(0)
    assert "1 events did not reach the hub" in caplog.text and "Not a directory" in caplog.text


def test_many_leftovers_take_little_memory(hub: ScriptedHub, folder: Leftovers, tmp_path: Path) -> None:
    """Only some batches of a large file are in memory at a time."""
    client, body = b"m" * 16, os.urandom(2**20)
    packed = wire.pack([int(Event.SPAN), NO_ROLLOUT, [0, body]])
    folder.leave(client, (EventBatch(client, n + 1, 1, packed) for n in range(64)))
    script = f"""
        import re, time
        from pathlib import Path
        from lightning_sdk.stream.stream import Stream
        from tests.sdk.test_leftovers import event

        def peak():
            return int(re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0])

        stream = Stream({hub.address!r}, spool=Path({str(tmp_path)!r}))
        stream.put(event(0), 1100)
        before = peak()
        while list(Path({str(folder.folder)!r}).iterdir()):
            time.sleep(0.01)
        stream.close(60)
        print(peak() - before)
    """
    received = 0

    def is_over() -> bool:
        nonlocal received
        received += len(hub.events)
        hub.events.clear()
        return delivering.poll() is not None

    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as delivering:
        hub.serve(is_over, 60)
        assert delivering.stdout is not None
        grown = int(delivering.stdout.read()) * 1024
    assert received == 65
    assert grown < 48 * 2**20


def test_the_spool_never_takes_more_disk_than_its_bound() -> None:
    """A file that is read at its front and written at its end stays within the bound too."""
    spool = Spool(limit=50_000)
    for number in range(200):
        if not spool.full:
            spool.append(batch(b"s" * 16, 1 + 10 * number))
        if number % 2:
            spool.take()
    assert spool._file is not None and os.fstat(spool._file.fileno()).st_size < 70_000
    spool.close()

"""The append-only log: what was synced is read back, what was torn is cut."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from os import pwrite
from pathlib import Path

import pytest

from lightning_hub.storage.log import Log
from lightning_sdk.stream.wire import EventBatch


def record(first: int, body: bytes) -> tuple[bytes, bytes]:
    batch = EventBatch(b"c" * 16, first, 1, body)
    return batch.header(), batch.body


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    """Positions point at the bodies, in this process and after opening the log again."""
    log = Log(tmp_path)
    positions = log.append([record(1, b"one"), record(2, b"three")])
    assert [log.read(positions[0], 3), log.read(positions[1], 5)] == [b"one", b"three"]
    log.close()
    again = Log(tmp_path)
    assert [(position, batch.body) for position, batch in again.recover(0)] == [
        (positions[0], b"one"),
        (positions[1], b"three"),
    ]
    assert [batch.body for _, batch in again.recover(positions[0] + 3)] == [b"three"]
    again.close()


def test_more_buffers_than_one_writev_takes(tmp_path: Path) -> None:
    """A commit of thousands of small batches is written whole."""
    log = Log(tmp_path)
    log.append([record(n, b"%d" % n) for n in range(1, 3001)])
    assert [batch.body for _, batch in log.recover(0)] == [b"%d" % n for n in range(1, 3001)]
    log.close()


def refuse(file: int, data: memoryview, offset: int) -> int:
    """What a file system says that opens files for direct writes and takes none."""
    if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT:
        raise OSError(errno.EINVAL, "Invalid argument")
    return pwrite(file, data, offset)


def takes_direct_writes(folder: Path) -> bool:
    """Whether the file system here does."""
    try:
        file = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:
        return False
    os.close(file)
    return True


@pytest.mark.parametrize("direct", ["direct", "not offered", "refused"])
def test_commits_of_every_size_are_written_whole(tmp_path: Path, direct: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small commits, large ones from and to any place in a block, and one larger than the memory for writing."""
    possible = direct == "direct" and takes_direct_writes(tmp_path)
    if direct == "not offered":
        monkeypatch.delattr(os, "O_DIRECT")
    elif direct == "refused":
        monkeypatch.setattr(os, "pwrite", refuse)
    chance = random.Random(0)
    sizes = [[5], [200_000, 3], [4096 - 36] * 70, [1], [9_000_001, 7], [262_144 - 36], [100] * 3, [300_000]]
    bodies = [[chance.randbytes(size) for size in commit] for commit in sizes]
    log, positions, first = Log(tmp_path), list[int](), 0
    for commit in bodies:
        positions += log.append([record(first := first + 1, body) for body in commit])
        assert (tmp_path / "000001.log").stat().st_size == log.end & 0xFFFFFFFF
    assert (log._direct >= 0) is possible
    flat = [body for commit in bodies for body in commit]
    assert all(log.read(at, len(body)) == body for at, body in zip(positions, flat, strict=True))
    log.close()
    again = Log(tmp_path)
    assert [(at, batch.body) for at, batch in again.recover(0)] == list(zip(positions, flat, strict=True))
    again.close()


@pytest.mark.parametrize("torn", [1, 20, 36, 40], ids=["one byte", "half a header", "a header", "half a body"])
def test_a_torn_tail_is_cut_and_written_over(tmp_path: Path, torn: int) -> None:
    """A crash in the middle of a write leaves a prefix of a record; recovery cuts it, and the log goes on there."""
    log = Log(tmp_path)
    log.append([record(1, b"kept")])
    log.close()
    with (tmp_path / "000001.log").open("ab") as file:
        file.write(b"".join(record(2, b"never acknowledged"))[:torn])
    again = Log(tmp_path)
    assert [batch.body for _, batch in again.recover(0)] == [b"kept"]
    again.append([record(2, b"new")])
    assert [batch.body for _, batch in again.recover(0)] == [b"kept", b"new"]
    again.close()


@pytest.mark.parametrize("tail", [bytes(64), bytes(4096)])
def test_zeros_at_the_end_are_not_a_batch(tmp_path: Path, tail: bytes) -> None:
    """A power cut may leave a file longer than what was written, filled with zeros."""
    log = Log(tmp_path)
    log.append([record(1, b"kept")])
    log.close()
    with (tmp_path / "000001.log").open("ab") as file:
        file.write(tail)
    again = Log(tmp_path)
    assert [batch.body for _, batch in again.recover(0)] == [b"kept"]
    assert (tmp_path / "000001.log").stat().st_size == 36 + 4
    again.close()


def test_segments_roll_and_go(tmp_path: Path) -> None:
    """A full segment is followed by the next; a deleted one is skipped by recovery."""
    log = Log(tmp_path, segment_bytes=100)
    positions = [log.append([record(n, b"x" * 80)])[0] for n in (1, 2, 3)]
    assert log.segments() == [1, 2, 3] == [position >> 32 for position in positions]
    assert log.delete(1) == 116
    assert [batch.first for _, batch in log.recover(0)] == [2, 3]
    with pytest.raises(OSError):
        log.read(positions[0], 80)
    log.close()


def test_damage_in_a_closed_segment_costs_no_later_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Damage is not a torn tail: it is reported, the file is left alone, and later segments are read."""
    log = Log(tmp_path, segment_bytes=100)
    for n in (1, 2):
        log.append([record(n, b"x" * 80)])
    with (tmp_path / "000001.log").open("r+b") as file:
        file.seek(50)
        file.write(b"y")
    assert [batch.first for _, batch in log.recover(0)] == [2]
    assert (tmp_path / "000001.log").stat().st_size == 116
    assert "damaged" in caplog.text
    log.close()


def test_damage_costs_the_batches_that_it_hit(tmp_path: Path) -> None:
    """Two of five batches in a closed segment: the others are read, and it is told where what is missing lies."""
    log, told = Log(tmp_path, segment_bytes=500), list[tuple[str, int, str]]()
    for n in range(1, 7):
        log.append([record(n, bytes([n]) * 80)])
    with (tmp_path / "000001.log").open("r+b") as file:
        for n in (2, 3):
            file.seek((n - 1) * 116 + 50)
            file.write(b"y")
    log.on_damage = lambda place, piece, why: told.append((place, len(piece), why))
    assert [batch.first for _, batch in log.recover(0)] == [1, 4, 5, 6]
    assert told == [(f"{tmp_path.name}/000001.log, byte 116", 232, "232 bytes of the log are damaged")]
    with (tmp_path / "000001.log").open("r+b") as file:
        file.seek(116)
        file.write(b"\xff" * 116)  # no header says where the next one begins
    assert [batch.first for _, batch in log.recover(0)] == [1, 6]
    log.close()


def test_a_failed_write_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    """An append that fails, here for a file that cannot be written, leaves nothing half done."""
    log = Log(tmp_path)
    log.append([record(1, b"kept")])
    end, file = log.end, log._file
    log._file = os.open(tmp_path / "000001.log", os.O_RDONLY)
    with pytest.raises(OSError):
        log.append([record(2, b"lost")])
    os.close(log._file)
    log._file = file
    assert log.end == end
    assert [batch.first for _, batch in log.recover(0)] == [1]
    log.close()

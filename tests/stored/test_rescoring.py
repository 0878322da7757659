"""Re-scoring: other reward functions over stored answers, compared with what is counted by hand."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_hub.replay.stored_run import StoredRun
from lightning_hub.rollouts.archive import Archive
from lightning_hub.statistics.ranking import pairs, signal_change
from lightning_sdk.hub.process import HubProcess
from tests.stored import by_hand, stored_agent
from tests.stored.workplace import Workplace
from tests.waiting import wait_for


def old(each: by_hand.Stored) -> float:
    return each.rewards["first"] + each.rewards["tried"]


def new(each: by_hand.Stored) -> float:
    """What `other` gives, with its weight, beside what was given inside."""
    return 0.5 * float((sum(map(ord, each.answer["text"])) + each.task["id"]) % 5) + each.rewards["tried"]


def of_mode(found: lightning.Rescoring, mode: str) -> dict[str, Any]:
    return next(each for each in found.comparisons if each["mode"] == mode and not each["role"])


def rows(run: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(run / "hub.sqlite")) as database:
        return database.execute(query).fetchall()


def test_means_and_ranking_are_those_counted_by_hand(place: Workplace) -> None:
    """Means, tau within groups and over all, reversed pairs, best rollouts and signals; and nothing is written."""
    run = place.runs / "base"
    before = rows(run, "SELECT * FROM rewards")
    lightning.reward(weight=0.5, name="second")(stored_agent.other)
    found = lightning.rescore(run, stored_agent.other)
    assert (found.count, found.left_out, found.values["written"]) == (len(by_hand.read_stored(run)), {}, False)
    assert (found.values["replaces"], found.values["keeps"]) == (["first"], ["tried"])
    trained = [each for each in by_hand.read_stored(run) if each.mode == "train"]
    told, groups = of_mode(found, "train"), by_hand.groups(trained)
    assert told["rollouts"] == len(trained) == 32 and len(groups) == 8
    assert told["old"]["mean"] == pytest.approx(sum(map(old, trained)) / 32)
    assert told["new"]["mean"] == pytest.approx(sum(map(new, trained)) / 32)
    assert told["change"]["mean"] == pytest.approx(told["new"]["mean"] - told["old"]["mean"])
    within, ordered, flipped = by_hand.kendall_tau(groups, old, new)
    assert told["tau_within_groups"] == pytest.approx(within)
    assert (told["pairs_ordered"], told["pairs_flipped"]) == (ordered, flipped)
    assert told["flipped"] == pytest.approx(flipped / ordered)
    assert told["tau_overall"] == pytest.approx(by_hand.kendall_tau([trained], old, new)[0])
    varied = [({old(each) for each in group}, {new(each) for each in group}) for group in groups]
    assert told["signal_gained"] == sum(len(x) == 1 < len(y) for x, y in varied)
    assert told["signal_lost"] == sum(len(y) == 1 < len(x) for x, y in varied)
    both = [group for group, (x, y) in zip(groups, varied, strict=True) if len(x) > 1 < len(y)]
    best = [max(group, key=old) for group in both]  # the earliest of several
    assert told["best_changed"] == sum(new(b) < max(map(new, group)) for b, group in zip(best, both, strict=True))
    most = sorted((abs(new(each) - old(each)) for each in trained), reverse=True)[:5]
    assert [abs(each["new"] - each["old"]) for each in told["changed_most"]] == pytest.approx(most)
    assert rows(run, "SELECT * FROM rewards") == before


def test_rankings_small_enough_to_see() -> None:
    """tau-b and signals of three rollouts and of three groups."""
    told = pairs([1, 2, 3], [1, 3, 2])
    assert (told.concordant, told.discordant, told.tau) == (2, 1, pytest.approx(1 / 3))
    assert pairs([1, 1, 2], [1, 2, 2]).tau == pytest.approx(1 / 2)
    assert str(pairs([1, 1], [1, 2]).tau) == "nan"
    told_groups = signal_change([([0, 1], [1, 0]), ([0, 0], [0, 1]), ([0, 1, 1], [2, 2, 2]), ([5], [6])])
    assert (told_groups.groups, told_groups.compared, told_groups.best_changed) == (3, 1, 1)
    assert (told_groups.gained, told_groups.lost) == (1, 1)


def test_what_is_written_counts_and_what_was_before_is_kept(copies: Callable[[], Path]) -> None:
    """The new numbers stand for the functions' only; the old rows stay, marked; a second re-scoring starts from it."""
    run = copies()
    before = rows(run, "SELECT key, role, name, value, replaced FROM rewards ORDER BY rowid")
    lightning.reward(weight=0.5, name="second")(stored_agent.other)
    found = lightning.rescore(run, [stored_agent.other, stored_agent.first], write=True)
    assert found.values["written"] and found.values["weights"] == {"second": 0.5, "first": 1.0}
    after = rows(run, "SELECT key, role, name, value, replaced FROM rewards ORDER BY rowid")
    assert [row[:4] for row in after[: len(before)]] == [row[:4] for row in before]
    assert {(name, replaced) for *_, name, _, replaced in after[: len(before)]} == {("tried", None), ("first", 1)}
    assert {name for _, _, name, _, replaced in after if replaced is None} == {"tried", "second", "first"}
    again = of_mode(lightning.rescore(run, stored_agent.first), "train")
    assert again["old"]["mean"] == pytest.approx(of_mode(found, "train")["new"]["mean"])  # its weight is known
    with StoredRun(run) as opened:
        record = opened.records()[-1]
        entry = opened.rollout(record)
        assert entry is not None and entry.calls and entry.rewards == record.rewards
        assert {reward.name for reward in record.rewards} == {"tried", "second", "first"}
        assert opened.settings.credit.rewards == {"second": 0.5}


def test_reasons_belong_to_the_rewards_that_count(copies: Callable[[], Path]) -> None:
    """A re-scoring brings its own; those given inside the run are kept, and both ways to read a run have them."""
    run = copies()
    lightning.rescore(run, stored_agent.score_with_reasons, write=True)
    with StoredRun(run) as opened, Archive(run) as archive:
        for record in opened.records():
            told = {(reward.name, reward.role): (reward.value, reward.why) for reward in record.rewards}
            number = json.loads(record.task)["id"]
            assert told == {
                ("tried", ""): (0.25, "there was an answer"),
                ("score_with_reasons", ""): (float(number % 2), f"task {number}"),
                ("score_with_reasons", "solver"): (0.5, ""),
            }
            assert archive.rewards(record.entry) == record.rewards
    lightning.rescore(run, stored_agent.first, write=True)
    with StoredRun(run) as opened:
        whys = {(reward.name, reward.why) for record in opened.records() for reward in record.rewards}
    assert whys == {("tried", "there was an answer"), ("first", "")}


def test_a_run_of_the_version_before_has_no_reasons(copies: Callable[[], Path]) -> None:
    """Its rewards are read as they are where nothing may be written, and the store is brought up to this version."""
    run = copies()
    with closing(sqlite3.connect(run / "hub.sqlite")) as database:
        database.executescript("ALTER TABLE rewards DROP COLUMN why; PRAGMA user_version = 2;")
    with Archive(run) as archive:
        rewards = [each for entry in archive.entries("train") for each in archive.rewards(entry)]
    assert {(each.name, each.why) for each in rewards} == {("tried", ""), ("first", "")}
    with StoredRun(run) as opened:
        assert {each.why for record in opened.records() for each in record.rewards} == {""}
    assert rows(run, "PRAGMA user_version") == [(3,)]
    lightning.rescore(run, stored_agent.score_with_reasons, write=True)
    assert rows(run, "SELECT DISTINCT why FROM rewards WHERE name = 'score_with_reasons' AND role = '' AND value = 0.0")


def test_a_run_under_way_is_read_and_not_written(copies: Callable[[], Path]) -> None:
    """While a hub has the folder, re-scoring shows what it would do and refuses to write, naming the process."""
    run = copies()
    hub = HubProcess(run)
    try:
        assert lightning.rescore(run, stored_agent.first).count == len(by_hand.read_stored(run))
        with pytest.raises(lightning.HubError, match=rf"process {hub.pid}\) is using the folder.*wait until it ends"):
            lightning.rescore(run, stored_agent.first, write=True)
    finally:
        hub.stop()
    assert not rows(run, "SELECT * FROM rescorings")


def test_what_is_not_scored_is_counted_with_its_reason(tmp_path: Path) -> None:
    """Answers that were not kept, rollouts that failed, and answers that the function cannot take."""
    run = tmp_path / "observed"
    run.mkdir()
    hub = HubProcess(run)
    try:
        lightning.init(hub.address, hub.key)
        for number, answer in enumerate(["a", "b", object(), b"x", "c"]):
            with lightning.rollout({"id": number}) as rollout:
                lightning.emit_reward(1.0)
                rollout.answer = answer
        with pytest.raises(ZeroDivisionError), lightning.rollout({"id": 9}):
            _ = 1 / 0
        lightning.shutdown()
        wait_for(lambda: len(rows(run, "SELECT 1 FROM rollouts WHERE status != 'running'")) == 6, "the rollouts")
    finally:
        hub.stop()
    found = lightning.rescore(run, stored_agent.picky, write=True)
    assert (found.count, found.values["rollouts"]) == (2, 6)
    assert found.left_out == {
        "its answer was not kept: it is or contains a builtins.object, which JSON cannot represent": 1,
        "its answer was not kept: it is or contains a builtins.bytes, which JSON cannot represent": 1,
        "it ended with agent error": 1,
        "the reward function picky() raised KeyError: 'no key'": 1,
    }
    assert "not scored: 1, the reward function picky() raised KeyError" in str(found)
    assert of_mode(found, "observe")["new"]["mean"] == 2.0  # what was given inside stays


#: The tables of a store before answers and re-scorings, as an earlier version made them.
_EARLIER = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE clients (id BLOB PRIMARY KEY, acked INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (number INTEGER PRIMARY KEY, events INTEGER NOT NULL, owned INTEGER NOT NULL);
CREATE TABLE rollouts (
    key BLOB PRIMARY KEY, id TEXT NOT NULL, attempt INTEGER NOT NULL, mode TEXT NOT NULL, task_id INTEGER NOT NULL,
    task TEXT NOT NULL, grp TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT '', runner TEXT NOT NULL DEFAULT '', lease_until REAL,
    started REAL, ended REAL
) WITHOUT ROWID;
CREATE TABLE rewards (
    key BLOB NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, value REAL, refused TEXT NOT NULL DEFAULT '',
    span TEXT NOT NULL, time_ns INTEGER NOT NULL
);
CREATE TABLE extents (key BLOB NOT NULL, positions BLOB NOT NULL);
CREATE TABLE versions (version INTEGER, step INTEGER, time REAL, checkpoint TEXT NOT NULL DEFAULT '');
CREATE TABLE steps (step INTEGER PRIMARY KEY, metrics TEXT NOT NULL);
INSERT INTO rollouts (key, id, attempt, mode, task_id, task, grp, status, output, started, ended)
VALUES (x'01', 'aa', 1, 'train', 0, '{"id": 1}', '1-0', 'ok', '42', 1.0, 2.0);
INSERT INTO rewards (key, role, name, value, span, time_ns)
VALUES (x'01', '', 'final', 0.5, '', 2), (x'01', '', 'step', 0.25, '', 1);
"""


def test_a_run_of_an_earlier_version_opens(tmp_path: Path) -> None:
    """Its rewards are there, the function's told from those given inside; its answers were not kept, which is said."""
    run = tmp_path / "earlier"
    run.mkdir()
    with closing(sqlite3.connect(run / "hub.sqlite")) as database:
        database.executescript(_EARLIER)
    found = lightning.rescore(run, stored_agent.first)
    assert found.count == 0
    assert found.left_out == {"its answer was not kept: it was recorded by a version that kept no answers": 1}
    with StoredRun(run) as opened:
        (record,) = opened.records()
    assert [reward.name for reward in record.given] == ["final"]
    assert [reward.name for reward in record.emitted] == ["step"]
    hub = HubProcess(run)
    hub.stop()
    assert rows(run, "PRAGMA user_version") == [(3,)]


def test_the_command_shows_and_writes(place: Workplace, copies: Callable[[], Path]) -> None:
    """`rescore` names a run by name or folder, prints words or JSON, and says what is wrong."""
    done = place.type("rescore", "base", "--reward", "stored_agent.py:other")
    assert done.returncode == 0, done.stderr
    for said in ("0.5 x second", "instead of first", "Kendall's tau", "Nothing was written"):
        assert said in done.stdout
    run = copies()
    done = place.type("rescore", str(run), "--reward", "stored_agent.py:other", "--write", "--json")
    assert json.loads(done.stdout)["rescoring"] == 1 and rows(run, "SELECT number FROM rescorings") == [(1,)]
    done = place.type("rescore", "nothing", "--reward", "stored_agent.py:other")
    assert done.returncode == 1 and "nothing is not the folder or the name of a run" in done.stderr
    shutil.rmtree(run / "spans")  # answers are in the store
    done = place.type("rescore", str(run), "--reward", "stored_agent.py:first")
    assert done.returncode == 0 and "instead of second" in done.stdout


def test_a_rollout_whose_log_is_cut_off_is_left_out(copies: Callable[[], Path]) -> None:
    """With a piece of it missing it is not the rollout that ran; the others are read as before."""
    run = copies()
    segment = max((run / "spans").glob("*.log"))
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size // 2)
    stored = StoredRun(run)
    records = stored.records()
    read = [stored.rollout(record) for record in records]
    assert None in read and any(read)
    assert all(each.calls for each in read if each is not None)

"""`lightning-sdk export` into tables: what they hold is what the page shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dashboard.exported import export, make_run, read_lines
from tests.dashboard.pages import serve


@pytest.mark.parametrize("advantage", ["rloo", "reinforce++"])
def test_rollouts_are_those_of_the_page(tmp_path: Path, advantage: str) -> None:
    """Each with its rewards, its calls and its tokens with their credit; also of a run whose hub still writes."""
    run = make_run(tmp_path / "runs" / "solve", advantage=advantage)
    done = export(tmp_path, "solve", "--jsonl", "solve.jsonl")
    assert "15 rollouts" in done.stdout and str(tmp_path / "solve.jsonl") in done.stdout
    lines = read_lines(tmp_path / "solve.jsonl")
    with serve(run.folder) as page:
        shown = {row["id"]: row for row in page.ask("rollouts", run="solve", limit=500)["rows"]}
        assert {line["rollout"] for line in lines} == shown.keys()
        for line in lines:
            row = shown[line["rollout"]]
            assert {name: line[name] for name in ("attempt", "step", "status", "reward", "group", "started")} == {
                name: row[name] for name in ("attempt", "step", "status", "reward", "group", "started")
            }
            tokens = page.ask("tokens", run="solve", rollout=line["rollout"])["rows"]
            names = ("role", "ids", "mask", "logprobs", "versions", "advantages", "missing")
            assert [[each[name] for name in names] for each in line["tokens"]] == [
                [each[name] for name in names] for each in tokens
            ]
            assert len(line["calls"]) == len(page.ask("rollout", run="solve", rollout=line["rollout"])["turns"])
    run.close()
    first = next(line for line in lines if line["answer"] == "answer 1")
    assert first["task"] == {"question": "2 + 3?", "from": first["group"]}
    assert first["role_rewards"] == [{"role": "checker", "reward": 0.75}, {"role": "writer", "reward": 0.25}]
    assert first["rewards"][0]["why"] == "reason 1"
    assert first["calls"][0]["request"]["messages"] == [{"role": "user", "content": "2 + 3?"}]
    assert first["calls"][0]["choices"][0]["message"]["parts"] == [{"type": "text", "content": "answer 1"}]
    assert any(value for each in lines for row in each["tokens"] for value in row["advantages"] or ())


def test_tables_are_filtered(tmp_path: Path) -> None:
    """As the page's table is; a role limits calls and tokens too."""
    make_run(tmp_path / "runs" / "solve").close()
    export(tmp_path, "solve", "--jsonl", "tables", "--role", "checker", "--step", "2", "--status", "ok", "--low", "0.6")
    rollouts, calls, tokens = (
        read_lines(tmp_path / "tables" / f"{name}.jsonl") for name in ("rollouts", "calls", "tokens")
    )
    assert [each["reward"] for each in rollouts] == [1.0, 0.75, 1.0, 0.75]
    assert {each["rollout"] for each in calls} == {each["rollout"] for each in rollouts}
    assert [each["role"] for each in calls] == [each["role"] for each in tokens] == ["checker"] * 4
    assert {each["step"] for each in tokens} == {2}


def test_several_runs_are_one_table(tmp_path: Path) -> None:
    """Each row says of which run it is."""
    for name in ("first", "second"):
        make_run(tmp_path / "runs" / name).close()
    done = export(tmp_path, "first", "second", "--jsonl", "both", "--json")
    assert json.loads(done.stdout)["written"][0]["counts"] == {"rollouts": 30, "calls": 48, "tokens": 48}
    runs = [each["run"] for each in read_lines(tmp_path / "both" / "tokens.jsonl")]
    assert runs.count("first") == runs.count("second") == 24


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    """No run, no format, a filter that is none, and a place that is taken; nothing is left behind."""
    make_run(tmp_path / "runs" / "solve").close()
    (tmp_path / "taken").write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    for arguments, words in (
        (["nothing", "--jsonl", "x"], "nothing is not the folder or the name of a run"),
        (["solve"], "no format was chosen; give one of --html, --jsonl"),
        (["solve", "--jsonl", "x.jsonl", "--step", "two"], "step='two': expected a whole number"),
        (["solve", "--jsonl", "taken"], "choose another with --jsonl FOLDER"),
    ):
        assert words in export(tmp_path, *arguments, code=1).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.jsonl", "runs", "taken"]


def test_a_run_without_rollouts_is_empty_tables(tmp_path: Path) -> None:
    """One that has only begun."""
    (tmp_path / "runs" / "new").mkdir(parents=True)
    (tmp_path / "runs" / "new" / "config.json").write_text("{}")
    assert "0 rollouts" in export(tmp_path, "new", "--jsonl", "new.jsonl").stdout
    assert (tmp_path / "new.jsonl").read_text() == ""

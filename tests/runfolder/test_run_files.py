"""A run's folder is read in one way, whatever state it is in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_hub.results.run_folder import RunFolder
from lightning_sdk.errors import SettingError
from lightning_sdk.results.run_files import read_config, read_findings, read_lines, read_report, read_tasks


def test_a_folder_without_files_says_nothing(tmp_path: Path) -> None:
    """Nothing raises, since a run may have been killed before any of them was written."""
    assert [read(tmp_path) for read in (read_config, read_report, read_tasks, read_findings)] == [None] * 4
    assert read_lines(tmp_path / "metrics.jsonl") == ([], False)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "{}"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    """Cut short, or not an object."""
    for name in ("config", "report", "tasks", "diagnosis"):
        (tmp_path / f"{name}.json").write_text(text)
    assert [read(tmp_path) for read in (read_config, read_report, read_tasks, read_findings)] == [None] * 4


def test_what_an_older_version_did_not_write_is_empty(tmp_path: Path) -> None:
    """And what this version does not know is ignored."""
    (tmp_path / "config.json").write_text(json.dumps({"facts": {"tokenizer": "abc"}, "unknown": 1}))
    (tmp_path / "report.json").write_text(json.dumps({"status": "failed", "error": "e", "held_out": None}))
    config, report = read_config(tmp_path), read_report(tmp_path)
    assert config is not None and (config.kind, config.settings, config.tokenizer) == ("training", None, "abc")
    assert report is not None and (report.status, report.error, report.held_out) == ("failed", "e", {})


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    """The lines before it count."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n\n{"step": 2}\n{"st')
    assert read_lines(tmp_path / "metrics.jsonl") == ([{"step": 1}, {"step": 2}], True)


def test_a_run_with_a_damaged_configuration_is_not_written_over(tmp_path: Path) -> None:
    """What it says could not be kept."""
    (tmp_path / "config.json").write_text('{"settings": {"ste')
    with pytest.raises(SettingError, match=r"config\.json is damaged"):
        RunFolder(tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"settings": {"ste'

"""What is read of the folder of a run, and what is said of one that is old, failed or empty."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_hub.health.examine import examine
from lightning_hub.health.run_record import read_record
from lightning_sdk.errors import SettingError
from tests.hub.recorded_runs import Step, kinds, steps


def write(folder: Path, lines: list[Step], **files: Any) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def test_a_folder_of_an_older_version_under_way_is_read(tmp_path: Path) -> None:
    """Settings that no longer exist, a half-written last line, no rollouts: all of it is fine."""
    config = {"settings": {"algorithm": {"advantage": "grpo"}, "rollouts": {"group_size": 4}}}
    folder = write(tmp_path / "solve", steps(), config=config)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "rew')
    record = read_record(folder)
    assert (len(record.steps), record.settings.rollouts.group_size, record.status) == (40, 4, "unfinished")
    assert examine(record).findings == []


def test_a_run_that_failed_is_told_with_its_error(tmp_path: Path) -> None:
    """Its own words once, also where they are those of the diagnosis."""
    found = {"kind": "no model call", "severity": "fatal", "what": "it made no call.", "cause": "", "remedy": ""}
    error = "NothingToTrain: it made no call. Make one."
    report = {"status": "failed", "error": error}
    folder = write(tmp_path / "solve", [], config={"settings": {}}, report=report, diagnosis={"findings": [found]})
    health = examine(read_record(folder))
    assert kinds(health) == ["fatal run failed"] and error in str(health.findings[0])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """Nothing there, or nothing yet."""
    with pytest.raises(SettingError, match="is not a run folder"):
        read_record(tmp_path)
    with pytest.raises(SettingError, match="no step is finished yet"):
        read_record(write(tmp_path / "new", [], config={"settings": {}}))

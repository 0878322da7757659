"""Onset: the step at which each finding about a run began."""

from __future__ import annotations

from lightning_hub.health.examine import examine
from lightning_hub.health.onset import date_findings, first_steps
from lightning_hub.health.run_record import RunRecord
from lightning_sdk.settings import Settings
from tests.hub.recorded_runs import steps


def test_a_finding_has_the_step_where_it_began() -> None:
    """After the second step whose numbers are not finite `check` says so, and that is when it began, however long the
    run went on."""
    lines = [{**line, "loss": None} if (line["step"] or 0) >= 12 else line for line in steps()]
    record = RunRecord(name="runs/solve", settings=Settings(), steps=lines)
    dated = {each.finding.kind: each.step for each in date_findings(record)}
    assert list(dated) == [each.kind for each in examine(record).findings]
    assert dated["numbers not finite"] == 13
    assert "numbers not finite" not in {each.kind for each in examine(first_steps(record, 12)).findings}


def test_a_run_that_learns_has_nothing_to_date() -> None:
    """No finding, no date."""
    record = RunRecord(name="runs/solve", settings=Settings(), steps=steps())
    assert [each.finding for each in date_findings(record)] == examine(record).findings


def test_the_first_steps_are_the_run_as_it_was() -> None:
    """Without what came later, and not yet over."""
    record = RunRecord(name="runs/solve", settings=Settings(), steps=steps(), status="failed", error="no")
    early = first_steps(record, 3)
    assert [step["step"] for step in early.steps] == [1, 2, 3]
    assert (early.status, early.error) == ("unfinished", "")
    assert list(first_steps(record, len(record.steps)).steps) == list(record.steps)

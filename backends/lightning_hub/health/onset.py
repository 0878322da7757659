"""Onset: the step at which each finding about a run began."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightning_hub.health.examine import examine
from lightning_hub.health.run_record import RunRecord
from lightning_hub.storage.attempts import StoredAttempt
from lightning_sdk.failures.finding import Finding

_ROLE = re.compile(r"role (\S+)")


@dataclass(frozen=True, slots=True)
class DatedFinding:
    """A finding and when it began."""

    finding: Finding
    step: int
    """The first step after which a check would have said so, and would have said so from then on as far as a search by
    halves can see; 0 where no step was done."""


def date_findings(record: RunRecord, found: Sequence[Finding] | None = None) -> list[DatedFinding]:
    """The findings about a run, in the order of `examine`, each with the step at which it began."""
    found = examine(record).findings if found is None else found
    steps = [int(step["step"] or 0) for step in record.steps]
    seen: dict[int, set[tuple[str, str]]] = {len(steps): {_key(each) for each in found}}

    def keys_after(count: int) -> set[tuple[str, str]]:
        if count not in seen:
            seen[count] = {_key(each) for each in examine(first_steps(record, count)).findings}
        return seen[count]

    return [DatedFinding(each, _onset(_key(each), steps, keys_after)) for each in found]


def _onset(key: tuple[str, str], steps: Sequence[int], keys_after: Callable[[int], set[tuple[str, str]]]) -> int:
    counts = range(1, len(steps) + 1)
    place = bisect_left(counts, True, key=lambda count: key in keys_after(count))
    return steps[min(place, len(steps) - 1)] if steps else 0


def first_steps(record: RunRecord, count: int) -> RunRecord:
    """The record as it was after so many of its steps."""
    steps = record.steps[:count]
    last = int(steps[-1]["step"] or 0) if steps else 0

    def is_before(entry: StoredAttempt) -> bool:
        return (entry.step or 0) <= last

    evaluations = [each for each in record.evaluations if each.step <= last]
    return replace(
        record,
        steps=steps,
        evaluations=evaluations,
        status="unfinished",
        error="",
        scored=[each for each in record.scored if each.step <= last],
        failed=[each for each in record.failed if is_before(each)],
        failed_sample=[each for each in record.failed_sample if _step_of(each.group) <= last],
        sample=[each for each in record.sample if _step_of(each.group) <= last],
        after=record.after if len(evaluations) == len(record.evaluations) else (),
    )


def _step_of(group: str) -> int:
    """The step of a training rollout, from the name of its group."""
    number = group.partition("-")[0]
    return int(number) if number.isdigit() else 0


def _key(finding: Finding) -> tuple[str, str]:
    """What stays the same of a finding while its numbers change."""
    role = _ROLE.search(finding.what)
    return finding.kind, role[1] if role else ""

"""Waste: what a run pays for without learning from it: failures, cut completions, broken conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from lightning_hub.findings.failed_rollouts import error_advice, error_kind, error_text
from lightning_hub.findings.findings import broken_sequences
from lightning_hub.health.remedy import choices, sentence, to_set, with_setting
from lightning_hub.health.run_record import RunRecord, describe_role
from lightning_hub.trajectories.breaks import Reason
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.trace.call import Status

#: Share of the rollouts that failed, and of the attempts that were repeated or replaced.
FAILED, REPEATED = 0.1, 0.25
#: Share of the completions that ended at the token limit.
TRUNCATED = 0.25
#: The share of completions left out above which there is next to nothing to learn from.
NEARLY_ALL = 0.9
#: Rows per role and rollout, and the share of rows that a fault opened.
ROWS, BROKEN = 1.5, 0.2
#: Fewest rollouts, or completions, for a finding.
_FEWEST = 40


def check_failures(record: RunRecord) -> Iterator[Finding]:
    """Rollouts that failed, and those that had to be run again."""
    counts = {status: record.total(f"rollouts_{status}") for status in Status}
    everything = sum(counts.values())
    lost = everything - counts[Status.OK]
    if everything < _FEWEST:
        return
    if lost > FAILED * everything:
        worst = max((status for status in counts if status != Status.OK), key=lambda status: counts[status])
        cause, remedy = _cause_and_remedy(record, worst)
        seen = {str(status): count for status, count in counts.items() if status != Status.OK and count}
        yield Finding(
            kind="rollouts failed",
            severity=Severity.FATAL if lost == everything else Severity.WARNING,
            what=f"{lost:.0f} of {everything:.0f} rollouts failed: {_format_counts(seen)}.",
            cause=cause,
            remedy=remedy,
        )
    again = {name: record.total(name) for name in ("retries", "refilled", "deadline_timeouts")}
    if sum(again.values()) > REPEATED * everything:
        most = max(again, key=lambda name: again[name])
        yield Finding(
            kind="rollouts repeated",
            severity=Severity.WARNING,
            what=f"in addition to {everything:.0f} rollouts there were "
            f"{_format_counts({name.replace('_', ' '): count for name, count in again.items() if count})}.",
            cause="Each costs as much as a rollout, and its step waits for it.",
            remedy="Raise rollouts.deadline or lower rollouts.tasks_per_step."
            if most == "deadline_timeouts"
            else "See hub.log in the run's folder for what failed; rollouts.timeout and failure.retries limit it.",
        )


def _cause_and_remedy(record: RunRecord, status: Status) -> tuple[str, str]:
    """The most common error of a status, and what to do about it."""
    errors = [entry.error for entry in record.failed if entry.status == status]
    if not errors:
        return "They are left out: nothing is learned from them.", error_advice(status)
    kind, count = Counter(map(error_kind, errors)).most_common(1)[0]
    example = next(error for error in errors if error_kind(error) == kind)
    alike = [each for each in record.failed_sample if each.status == status and error_kind(each.error) == kind]
    return f"{count} ended as {status}:\n{error_text(example)}\n", error_advice(status, example, alike)


def check_truncation(record: RunRecord) -> Iterator[Finding]:
    """Completions that ended at the token limit."""
    if record.total("calls") < _FEWEST:
        return
    for role in record.roles:
        share = _truncated_share(record, role)
        if share > TRUNCATED:
            how = record.settings.length.truncated
            left = to_set(record.settings, "length.truncated", "mask") if how == "train" else ""
            nearly_all_left_out = how != "train" and share >= NEARLY_ALL
            yield Finding(
                kind="completions truncated",
                severity=Severity.FATAL if nearly_all_left_out else Severity.WARNING,
                what=f"{share:.0%} of the completions of {describe_role(role)} ended at the token limit.",
                cause="What comes after it is never seen by the reward; a role may be punished for what it was about "
                "to say."
                if how == "train"
                else f"They are left out (length.truncated={how}): nothing is learned from them.",
                remedy=sentence(choices(_longer(record), with_setting("leave such completions out", left))),
            )


def _truncated_share(record: RunRecord, role: str) -> float:
    shares = record.values(f"completions_truncated/{role}")
    return sum(shares) / len(shares) if shares else 0.0


def _longer(record: RunRecord) -> str:
    limit = to_set(record.settings, "sampling.max_tokens", 2 * record.settings.sampling.max_tokens)
    return f"raise max_tokens in the agent's calls (where they set none, {limit})"


def check_broken_rows(record: RunRecord) -> Iterator[Finding]:
    """Conversations that came apart into several rows."""
    faults = {
        reason: int(count)
        for reason in Reason
        if reason.is_fault and (count := record.total(f"breaks/{str(reason).replace(' ', '_')}"))
    }
    rows, calls = record.total("rows"), record.total("calls")
    each = record.values("rows_per_rollout")
    if not faults or not each or sum(each) / len(each) < ROWS or sum(faults.values()) < BROKEN * rows:
        return
    found = broken_sequences(faults, max(0, int(calls - rows)), record.settings)
    yield replace(found, what=f"a rollout came as {sum(each) / len(each):.1f} rows on average; {found.what}")


def _format_counts(counts: dict[str, float]) -> str:
    return ", ".join(f"{count:.0f} {name.replace('_', ' ')}" for name, count in counts.items())

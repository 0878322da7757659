"""A run as text: whether it is learning, which role, what is wrong since when, and where time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_sdk.results.quantity import quantity
from lightning_sdk.terminal.labelled import INDENT, label_lines
from lightning_sdk.terminal.numbers import format_interval, format_number, format_score, format_seconds
from lightning_sdk.terminal.screen import ROLE_COLOURS, Screen
from lightning_sdk.terminal.small_curve import draw_curve, find_limits
from lightning_sdk.terminal.visible_text import make_line
from lightning_sdk.terminal.width import cut, pad

STATUS_COLOURS = {
    "finished": "green", "better": "green", "ok": "green", "running": "blue", "failed": "red", "worse": "red",
    "fatal": "red", "unfinished": "yellow", "stopped": "yellow", "warning": "yellow",
}  # fmt: skip
_CURVE_COLUMNS = 48
#: Columns that numbers beside a curve take.
_NUMBERS_COLUMNS = 44
#: Held-out scores that are listed: the first one and the last ones.
_MOST_SCORES = 6
_NOT_FAILED = frozenset({"ok", "trained", "spent"})


def describe_run(run: Mapping[str, Any], screen: Screen) -> list[str]:
    """Lines about what the view `run` answers."""
    return [
        *_head(run, screen),
        "",
        *_rewards(run, screen),
        *_held_out(run, screen),
        *_failures(run, screen),
        *_time(run, screen),
        *_tokens(run, screen),
        *_findings(run, screen),
    ]


def _head(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    settings, report = run["settings"], run["report"] or {}
    done = next(reversed(run["curves"]["steps"]), 0)
    unit = "round" if run["search"] else "step"
    facts = [f"{unit} {done} of {settings.get('steps', '?')}"] if run["kind"] == "training" else [run["kind"]]
    facts += [f"{settings.get('model', '?')} on {settings.get('backend', '?')}"]
    facts += [f"trained for {format_seconds(report['train_seconds'])}"] if report.get("train_seconds") else []
    name, status = make_line(run["name"]), run["status"]
    head = f"{screen.paint(name, 'bold')}  {screen.paint(status, STATUS_COLOURS.get(status, ''))}"
    yield f"{head}  {cut(make_line(', '.join(facts)), max(8, screen.width - len(name) - len(status) - 4))}"
    for each in run["resumed"]:
        changed = "".join(f"; {name} from {old} to {new}" for name, (old, new) in each["changed"].items())
        yield from label_lines("resumed", f"after step {each['after_step']}{changed}", screen)
    if run["from_runs"]:
        yield from label_lines("from", f"the stored rollouts of {', '.join(run['from_runs'])}", screen)
    verdict, reason = report.get("verdict"), report.get("error") or report.get("verdict_reason") or run["summary"]
    if verdict:
        told = f"{verdict}: {reason}" if reason else verdict
        yield from label_lines("verdict", told, screen, STATUS_COLOURS.get(verdict, ""))
    elif reason:
        yield from label_lines("so far", reason, screen)


# --- what it learns


def _rewards(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """A curve for each role, over each other where there are several, and marks where findings began."""
    curves = {role: points for role, points in run["rewards"].items() if points}
    several = [role for role in curves if role]
    if len(several) == 1:  # of one role the whole rollout says the same
        curves = {role: points for role, points in curves.items() if role}
    if not curves:
        yield from _kept_rewards(run, screen)
        return
    limits = find_limits(*([each["mean"] for each in points] for points in curves.values()))
    for place, (role, points) in enumerate(curves.items()):
        colour = ROLE_COLOURS[place % len(ROLE_COLOURS)]
        told = f"{format_score(points[0]['mean'])} to {format_interval(points[-1])}"
        tasks = f" n={points[-1]['n']}"
        values = [each["mean"] for each in points]
        label = (role or "rollout") if several else "reward"
        yield curve_line(label, values, told + tasks, screen, limits=limits, colour=colour)
    steps = [each["step"] for each in next(iter(curves.values()))]
    yield from _marks(run, steps, screen)


def _kept_rewards(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """Without stored rollouts, the means that each step kept."""
    values = run["curves"]["series"].get("reward_mean") or []
    known = [each for each in values if each is not None]
    if not known:
        yield from label_lines("reward", "none yet", screen)
        return
    yield curve_line("reward", values, f"{format_score(known[0])} to {format_score(known[-1])}", screen)
    yield from _marks(run, run["curves"]["steps"], screen)


def curve_line(
    label: str,
    values: Sequence[float | None],
    told: str,
    screen: Screen,
    *,
    limits: tuple[float, float] | None = None,
    colour: str = "",
) -> str:
    """A label, a curve and numbers in one line."""
    columns = curve_columns(len(values), screen)
    curve = pad(draw_curve(values, screen, columns, limits), columns)
    head = pad(cut(make_line(label), INDENT - 1, mark=screen.sign("…", ".")), INDENT)
    left = max(8, screen.width - INDENT - columns - 2)
    return f"{screen.paint(head, 'dim')}{screen.paint(curve, colour)}  {cut(told, left)}"


def curve_columns(count: int, screen: Screen) -> int:
    """Columns of a curve of so many steps: none of more than it has, as far as there is room."""
    return max(1, min(count, _CURVE_COLUMNS, max(8, screen.width - INDENT - _NUMBERS_COLUMNS)))


def _marks(run: Mapping[str, Any], steps: Sequence[int], screen: Screen) -> Iterator[str]:
    """Below the curves, where in them the findings began, by their numbers."""
    columns = curve_columns(len(steps), screen)
    marks = [" "] * columns
    for number, finding in enumerate(run["findings"], 1):
        place = next((at for at, step in enumerate(steps) if step >= finding["step"]), None)
        if finding["step"] > 0 and place is not None:
            at = place * columns // max(columns, len(steps))
            marks[at] = str(number) if number < 10 and marks[at] == " " else "+"
    if any(mark != " " for mark in marks):
        yield " " * INDENT + screen.paint("".join(marks).rstrip(), "yellow")


def _held_out(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    scores = run["evaluations"]
    if not scores:
        yield from label_lines("held-out", "not measured yet", screen)
    elif len(scores) > 2:
        known = [each["mean"] for each in scores]
        yield curve_line("held-out", known, f"{format_score(known[0])} to {format_score(known[-1])}", screen)
    kept = scores if len(scores) <= _MOST_SCORES else [scores[0], *scores[1 - _MOST_SCORES :]]
    for each in kept:
        seeds = f" x {each['seeds']} seeds" if each["seeds"] > 1 else ""
        failed = f", {quantity(each['failed'], 'rollout')} without a score" if each["failed"] else ""
        yield from label_lines(each["name"], f"{format_interval(each)} n={each['n']}{seeds}{failed}", screen)
    report = run["report"] or {}
    if report.get("change"):
        change = f"{format_interval(report['change'], '+')} n={report['change']['n']}, after minus before by task"
        yield from label_lines("change", change, screen)
    for role, each in (report.get("change_by_role") or {}).items():
        yield from label_lines("", f"{format_interval(each, '+')} n={each['n']}, {role}", screen)


# --- what it cost


def _failures(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """Rollouts that failed, and what was done about them."""
    report, series = run["report"], run["curves"]["series"]
    if report is not None:
        counts, done = report["rollouts_by_status"], report["failures"]["done"]
    else:
        names = {name.removeprefix("rollouts_"): name for name in series if name.startswith("rollouts_")}
        counts = {status: round(sum(filter(None, series[name]))) for status, name in names.items()}
        done = {}
    failed = [
        f"{count:g} {status.replace('_', ' ')}" + (f": {done[status]}" if status in done else "")
        for status, count in counts.items()
        if count and status not in _NOT_FAILED
    ]
    every = (report or {}).get("rollouts")
    of = f" of {quantity(every, 'rollout')}" if every else ""
    yield from label_lines("failed", "; ".join(failed) + of if failed else f"none{of}", screen, "red" if failed else "")


def _time(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """The phases of its steps, the longest first; phases that run beside each other are more than the whole."""
    series, every = run["curves"]["series"], run["curves"]["every"]
    spent = {
        name.removeprefix("seconds_"): sum(each or 0.0 for each in values) * every
        for name, values in series.items()
        if name.startswith("seconds_")
    }
    whole = sum(each or 0.0 for each in series.get("seconds", ())) * every or sum(spent.values())
    if not whole:
        return
    parts = [
        f"{name.replace('_', ' ')} {format_seconds(seconds)} ({100 * seconds / whole:.0f}%)"
        for name, seconds in sorted(spent.items(), key=lambda each: -each[1])
        if seconds
    ]
    told = f"{', '.join(parts)}; {format_seconds(whole)} in all steps" if parts else format_seconds(whole)
    yield from label_lines("time", told, screen)


def _tokens(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    report, last = run["report"], run["last"]
    parts = []
    if report is not None and report["tokens"]:
        masked = f", {report['tokens_masked']:,} masked" if report["tokens_masked"] else ""
        parts.append(f"{report['tokens']:,} trained{masked}, in {quantity(report['calls'], 'call')}")
    if last.get("tokens_per_second") is not None:
        parts.append(f"{format_number(last['tokens_per_second'])} a second in the last step")
    if last.get("loss") is not None:
        parts.append(f"loss {format_number(last['loss'])}, entropy {format_number(last.get('entropy'))}")
    if parts:
        yield from label_lines("tokens", "; ".join(parts), screen)


def _findings(run: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """What `check` says, each at the step where it began."""
    findings = run["findings"]
    if not findings:
        yield from label_lines("check", run["findings_missing"] or "finds nothing wrong", screen)
    for number, each in enumerate(findings, 1):
        since = f"since step {each['step']}" if each["step"] > 0 else "from the start"
        colour = STATUS_COLOURS.get(each["severity"], "")
        yield from label_lines(f"check {number}", f"{each['severity']} {since}: {each['what']}", screen, colour)
        for part in (each["cause"], each["remedy"] and f"-> {each['remedy']}"):
            if part:
                yield from label_lines("", part.rstrip(), screen)


def describe_rollouts_hint(best: Mapping[str, Any] | None, worst: Mapping[str, Any] | None, run: str) -> list[str]:
    """How to look at rollouts: the ones with the highest and the lowest reward."""
    found = {"best": best, "worst": worst}
    return [
        f"{word:<{INDENT}}lightning-sdk show {run} {each['id'][:8]}   reward {format_score(each['reward'])}"
        for word, each in found.items()
        if each is not None and each["reward"] is not None
    ]

"""`check`: run a few rollouts of an agent, or read a run, and report what can be learned, or why nothing can."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from lightning_sdk import session
from lightning_sdk.commands import check_run
from lightning_sdk.commands.job import Job
from lightning_sdk.commands.reward_probe import RewardProbe
from lightning_sdk.commands.train import given_settings, refuse_unknown_roles, with_reward_weights
from lightning_sdk.errors import SettingError
from lightning_sdk.failures.finding import Finding
from lightning_sdk.hub.events import CheckedEvent
from lightning_sdk.hub.run_request import RunRequest
from lightning_sdk.markers.reward import Function, reward_functions
from lightning_sdk.results.diagnosis import Diagnosis, Examination, RoleRewards, Sequences
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.score import RewardReason
from lightning_sdk.rollouts.tasks import Source, load
from lightning_sdk.settings import placement
from lightning_sdk.settings.provider import PROMPTS, PROVIDER, provider_settings, with_own_provider
from lightning_sdk.settings.settings import Settings, explicit
from lightning_sdk.system.folders import find_run_folder, make_folder, temporary_folder
from lightning_sdk.terminal.printing import print_text
from lightning_sdk.terminal.visible_text import make_visible

#: A check is this small unless `rollouts.tasks_per_step` and `rollouts.group_size` say otherwise.
TASKS, ROLLOUTS_OF_EACH = 4, 4


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check."""

    values: dict[str, Any]
    """Plain data: rollouts, statuses, calls, rewards and sequences by role, elsewhere (calls that no integration
    caught), outside, late, integrations, findings, learnable, at_provider, reasons (of rewards). Of a run: run, status,
    steps, roles, summary, findings, learnable."""

    @property
    def learnable(self) -> bool:
        """Whether something could be learned: no finding is fatal."""
        return bool(self.values["learnable"])

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Each with kind, severity ('fatal' or 'warning'), what, cause and remedy; fatal ones first."""
        return list(self.values["findings"])

    def __str__(self) -> str:
        content = _content(self.values)
        parts = [_head(content)]
        parts += [_columns(table) for table in _tables(content)]
        parts += [_integrations(self.values["integrations"])] if "integrations" in self.values else []
        parts += [_finding(number, each) for number, each in enumerate(content.findings, 1)]
        return "\n\n".join([*parts, _verdict(content)])


def check(
    agent: Callable[..., Any] | str | Path,
    tasks: Source | None = None,
    reward: Function | Sequence[Function] | None = None,
    *,
    model: str | Path | None = None,
    backend: str | None = None,
    engine: str | None = None,
    roles: str | list[str] | tuple[str, ...] = (),
    provider: bool = False,
    keep: str | Path | None = None,
    backend_python: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Check:
    """Run a few rollouts of `agent` as training would, and diagnose them. Nothing is trained.

    The arguments are those of `train`. Four tasks are run four times each, unless `rollouts.tasks_per_step` and
    `rollouts.group_size` say otherwise. Given a run (its folder or its name) instead of an agent, `check` reads that
    run, which may still be under way, and the findings say why nothing is being learned. Every other argument except
    `backend_python` is then ignored.

    Args:
        provider: Send every call to the agent's own provider, unchanged and with the agent's own key. No model is
            loaded. What training would make of the tokens stays unknown; everything else is checked.
        keep: Folder for the recording, the hub's log and diagnosis.json; created if it does not exist. By default
            nothing is kept.

    Raises:
        TaskError, SettingError, ModelError: an argument cannot be used. Problems with the rollouts do not raise; they
            are in the findings.
    """
    if isinstance(agent, str | Path):
        return Check(check_run.examine(find_run_folder(agent), backend_python).as_dict())
    if tasks is None:
        raise SettingError(
            "check: no tasks were given; give a file such as tasks.jsonl (--tasks FILE), or a list of dicts"
        )
    loaded = load(tasks)
    given = explicit(given_settings(settings, model=model, backend=backend, engine=engine, roles=roles))
    given = _leave_to_provider(given, provider)
    given.setdefault("rollouts.tasks_per_step", min(TASKS, len(loaded)))
    given.setdefault("rollouts.group_size", ROLLOUTS_OF_EACH)
    rewards = reward_functions(reward)
    chosen = with_reward_weights(Settings.from_dict(given), rewards)
    refuse_unknown_roles(chosen)
    if (placed := placement.parse(chosen.rollouts.runner)) is not None and placed.kind == "none":
        raise SettingError("setting rollouts.runner='0': a check runs its few rollouts itself; leave this setting out")
    with _folder(keep) as folder:
        # Other processes find the reward by its name, so there it is not listened to.
        probe = None if placed is None or placed.is_elsewhere or not rewards else RewardProbe(rewards)
        job = Job(agent, probe.rewards if probe else rewards, chosen, folder, backend_python, quiet)
        last = job.run("check", RunRequest(tasks=loaded))
    assert isinstance(last, CheckedEvent)
    found, probed = last.diagnosis, probe.finding(loaded) if probe else None
    if probed is not None:
        findings = sorted([*found.findings, probed], key=lambda each: (not each.is_fatal, each is not probed))
        found = replace(found, findings=findings)
    return Check({**found.as_dict(), "integrations": dict(session.start().integrations)})


def _leave_to_provider(given: dict[str, Any], provider: bool) -> dict[str, Any]:
    """The settings, where calls go to the agent's own provider: `provider` says so, or prompts are to be tuned there.
    Otherwise a check of what is to be tuned is one of the model that serves it."""
    if given.get("backend") in {PROMPTS, PROVIDER}:
        provider |= PROVIDER in {given["backend"], with_own_provider(given).get("model")}
        given = {name: value for name, value in given.items() if name != "backend" and not name.startswith("prompts.")}
    return provider_settings(given) if provider else given


@contextlib.contextmanager
def _folder(keep: str | Path | None) -> Iterator[Path]:
    if keep is None:
        with temporary_folder("check") as made:
            yield made
    else:
        yield make_folder(keep, "keep=FOLDER (--keep FOLDER)")


def show(found: Check, stream: TextIO) -> None:
    """Write a check to a stream: with colours where `rich` is installed and the stream is a terminal."""
    if stream.isatty():
        with contextlib.suppress(ImportError):
            _show_in_colour(found.values, stream)
            return
    print_text(found, stream)


def _show_in_colour(values: Mapping[str, Any], stream: TextIO) -> None:
    # Deferred: rich is optional, and slow to import.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def text(words: str, style: str = "") -> Text:
        return Text(make_visible(words), style)

    console, content = Console(file=stream, highlight=False), _content(values)
    console.print(text(_head(content)))
    for header, *rows in _tables(content):
        table = Table(*header)
        for row in rows:
            table.add_row(*map(text, row))
        console.print(table)
    if "integrations" in values:
        console.print(text(_integrations(values["integrations"])), "")
    for number, each in enumerate(content.findings, 1):
        console.print(text(_finding(number, each), "red" if each.is_fatal else "yellow"), "")
    console.print(text(_verdict(content), "bold green" if values["learnable"] else "bold red"))


# --- in words


def _content(values: Mapping[str, Any]) -> Diagnosis | Examination:
    return Examination.from_dict(values) if "run" in values else Diagnosis.from_dict(values)


def _head(found: Diagnosis | Examination) -> str:
    if isinstance(found, Examination):
        return check_run.head(found)
    ended = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in found.statuses.items())
    return f"{quantity(found.rollouts, 'rollout')}: {ended}"


def _tables(found: Diagnosis | Examination) -> list[list[list[str]]]:
    """Header and rows of each table that has rows."""
    tables = (
        [check_run.table(found)]
        if isinstance(found, Examination)
        else [_calls(found), _rewards(found.rewards), _reasons(found.reasons), _sequences(found.sequences)]
    )
    return [table for table in tables if len(table) > 1]


def _calls(found: Diagnosis) -> list[list[str]]:
    to_train = ["to train", "succeeded"] if found.at_provider else ["to the engine", "ids and log-probs"]
    rows = [["calls of", "caught by", "calls", *to_train, "failed"]]
    for each in found.calls:
        complete = f"{each.complete} of {each.trainable}" if each.trainable else "-"
        counts = [str(each.calls), str(each.trainable), complete, str(each.failed)]
        rows.append([_who(each.role), each.framework, *counts])
    for stray in found.elsewhere:
        caught_by = f"nothing ({stray.client} to {stray.place})"
        rows.append([", ".join(stray.roles), caught_by, str(stray.count), "0", "-", "-"])
    if found.outside:
        rows.append(["outside of rollouts", "-", str(found.outside), "0", "-", "-"])
    return rows


def _rewards(rewards: Sequence[RoleRewards]) -> list[list[str]]:
    rows = [["rewards of", "rollouts", "mean", "lowest", "highest", "groups with a signal"]]
    for each in rewards:
        numbers = [f"{value:.3g}" if each.rollouts else "-" for value in (each.mean, each.low, each.high)]
        signal = f"{each.groups_with_signal} of {each.groups}"
        rows.append([_who(each.role), str(each.rollouts), *numbers, signal])
    return rows


def _reasons(reasons: Sequence[RewardReason]) -> list[list[str]]:
    rows = [["why", "reward", "times", "mean"]]
    for each in reasons:
        reward = f"{each.name} of {each.role}" if each.role else each.name
        rows.append([each.why, reward, str(each.count), f"{each.mean:.3g}"])
    return rows


def _sequences(sequences: Sequence[Sequences]) -> list[list[str]]:
    rows = [["sequences of", "turns", "rows", "rows a rollout", "why rows were opened"]]
    for each in sequences:
        why = ", ".join(f"{count} {reason}" for reason, count in each.openings.items()) or "-"
        a_rollout = f"{each.rows / each.rollouts:.2g}" if each.rollouts else "-"
        rows.append([_who(each.role), str(each.turns), str(each.rows), a_rollout, why])
    return rows


def _who(role: str) -> str:
    return role or "no role"


def _columns(table: list[list[str]]) -> str:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "\n".join(lines)


def _integrations(states: Mapping[str, str]) -> str:
    active = [name for name, state in states.items() if state == "active"]
    off = [f"{name} {state}" for name, state in states.items() if state.startswith("off")]
    return "\n".join([f"integrations active: {', '.join(active) or 'none'}", *off])


def _finding(number: int, finding: Finding) -> str:
    said = [finding.what.rstrip(), finding.cause.rstrip(), finding.remedy and f"-> {finding.remedy}"]
    body = "\n".join(part for part in said if part).replace("\n", "\n   ")
    return f"{number}. {finding.severity}: {body}"


def _verdict(found: Diagnosis | Examination) -> str:
    if isinstance(found, Examination):
        return check_run.verdict(found)
    complete = sum(each.complete for each in found.calls)
    if fatal := {each.kind for each in found.fatal}:
        if complete and fatal == {"calls failed"}:
            return "Not ready to train: nothing could be learned for some roles."
        if complete and fatal <= check_run.MISFILED:
            return "Not ready to train: calls were assigned to the wrong rollout, or to none; see the first finding."
        return "Nothing could be learned from these rollouts."
    roles = {each.role for each in found.calls if each.complete} if found.at_provider else found.sequences
    of = f"{quantity(complete, 'call')} of {quantity(len(roles), 'role')}"
    can = f"{of} to train succeeded at the agent's own provider" if found.at_provider else f"{of} can be learned from"
    if check_run.DOUBTS & {each.kind for each in found.findings}:
        return f"{can}, but perhaps not what you want the agent to learn; see the warnings."
    return f"{can}." if found.at_provider else f"Ready to train: {can}."

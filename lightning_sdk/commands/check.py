"""`check`: run a few rollouts of an agent, or read a run, and report what can be learned, or why nothing can."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lightning_sdk import session
from lightning_sdk.commands import check_run
from lightning_sdk.commands.job import Job
from lightning_sdk.commands.reward_probe import RewardProbe
from lightning_sdk.commands.train import given_settings, refuse_unknown_roles, with_reward_weights
from lightning_sdk.errors import SettingError
from lightning_sdk.markers.reward import Function, reward_functions
from lightning_sdk.rollouts.tasks import Source, load
from lightning_sdk.settings import placement
from lightning_sdk.settings.provider import provider_settings
from lightning_sdk.settings.settings import Settings, explicit
from lightning_sdk.system.folders import find_run_folder, make_folder, temporary_folder

#: A check is this small unless `rollouts.tasks_per_step` and `rollouts.group_size` say otherwise.
TASKS, ROLLOUTS_OF_EACH = 4, 4


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check."""

    values: dict[str, Any]
    """Plain data: rollouts, statuses, calls, rewards and sequences by role, elsewhere (calls that no integration
    caught), outside, late, integrations, findings, learnable, at_provider. Of a run: run, status,
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
        parts = [_head(self.values)]
        parts += [_columns(table) for table in _tables(self.values)]
        parts += [_integrations(self.values["integrations"])] if "integrations" in self.values else []
        parts += [_finding(number, each) for number, each in enumerate(self.findings, 1)]
        return "\n\n".join([*parts, _verdict(self.values)])


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
        return Check(check_run.examine(find_run_folder(agent), backend_python))
    if tasks is None:
        raise SettingError(
            "check: no tasks were given; give a file such as tasks.jsonl (--tasks FILE), or a list of dicts"
        )
    loaded = load(tasks)
    given = explicit(given_settings(settings, model=model, backend=backend, engine=engine, roles=roles))
    given = provider_settings(given) if provider else given
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
        last = job.run("check", tasks=loaded)
    values = {**last["diagnosis"], "integrations": dict(session.start().integrations)}
    probed = probe.finding(loaded) if probe else None
    if probed is not None:
        found = [*values["findings"], probed]
        values["findings"] = sorted(found, key=lambda each: (each["severity"] != "fatal", each is not probed))
    return Check(values)


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
    encoding = stream.encoding or "utf-8"
    print(str(found).encode(encoding, "replace").decode(encoding), file=stream)


def _show_in_colour(values: Mapping[str, Any], stream: TextIO) -> None:
    # Deferred: rich is optional, and slow to import.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, highlight=False)
    console.print(Text(_head(values)))
    for header, *rows in _tables(values):
        table = Table(*header)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    if "integrations" in values:
        console.print(Text(_integrations(values["integrations"])), "")
    for number, each in enumerate(values["findings"], 1):
        console.print(Text(_finding(number, each), "red" if each["severity"] == "fatal" else "yellow"), "")
    console.print(Text(_verdict(values), "bold green" if values["learnable"] else "bold red"))


# --- in words


def _head(values: Mapping[str, Any]) -> str:
    if "run" in values:
        return check_run.head(values)
    ended = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in values["statuses"].items())
    return f"{values['rollouts']} rollouts: {ended}"


def _tables(values: Mapping[str, Any]) -> Iterator[list[list[str]]]:
    """Header and rows of each table that has rows."""
    if "run" in values:
        yield from (table for table in (check_run.table(values),) if len(table) > 1)
        return
    to_train = ["to train", "succeeded"] if values["at_provider"] else ["to the engine", "ids and log-probs"]
    calls = [["calls of", "caught by", "calls", *to_train, "failed"]]
    for each in values["calls"]:
        complete = f"{each['complete']} of {each['trainable']}" if each["trainable"] else "-"
        calls.append(
            [
                _who(each["role"]),
                each["framework"],
                *(str(each[n]) for n in ("calls", "trainable")),
                complete,
                str(each["failed"]),
            ]
        )
    for each in values["elsewhere"]:
        calls.append(
            [
                ", ".join(each["roles"]),
                f"nothing ({each['client']} to {each['place']})",
                str(each["count"]),
                "0",
                "-",
                "-",
            ]
        )
    if values["outside"]:
        calls.append(["outside of rollouts", "-", str(values["outside"]), "0", "-", "-"])
    rewards = [["rewards of", "rollouts", "mean", "lowest", "highest", "groups with a signal"]]
    for each in values["rewards"]:
        numbers = [f"{each[n]:.3g}" if each["rollouts"] else "-" for n in ("mean", "low", "high")]
        signal = f"{each['groups_with_signal']} of {each['groups']}"
        rewards.append([_who(each["role"]), str(each["rollouts"]), *numbers, signal])
    sequences = [["sequences of", "turns", "rows", "rows a rollout", "why rows were opened"]]
    for each in values["sequences"]:
        why = ", ".join(f"{count} {reason}" for reason, count in each["openings"].items()) or "-"
        a_rollout = f"{each['rows'] / each['rollouts']:.2g}" if each["rollouts"] else "-"
        sequences.append([_who(each["role"]), str(each["turns"]), str(each["rows"]), a_rollout, why])
    yield from (table for table in (calls, rewards, sequences) if len(table) > 1)


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


def _finding(number: int, finding: Mapping[str, Any]) -> str:
    said = [finding["what"].rstrip(), finding["cause"].rstrip(), finding["remedy"] and f"-> {finding['remedy']}"]
    body = "\n".join(part for part in said if part).replace("\n", "\n   ")
    return f"{number}. {finding['severity']}: {body}"


def _verdict(values: Mapping[str, Any]) -> str:
    if "run" in values:
        return check_run.verdict(values)
    complete, at_provider = sum(each["complete"] for each in values["calls"]), values["at_provider"]
    if not values["learnable"]:
        fatal = {each["kind"] for each in values["findings"] if each["severity"] == "fatal"}
        if complete and fatal == {"calls failed"}:
            return "Not ready to train: nothing could be learned for some roles."
        if complete and fatal <= check_run.MISFILED:
            return "Not ready to train: calls were assigned to the wrong rollout, or to none; see the first finding."
        return "Nothing could be learned from these rollouts."
    roles = {each["role"] for each in values["calls"] if each["complete"]} if at_provider else values["sequences"]
    of = f"{complete} calls of {len(roles)} role{'s' * (len(roles) != 1)}"
    can = f"{of} to train succeeded at the agent's own provider" if at_provider else f"{of} can be learned from"
    if check_run.DOUBTS & {each["kind"] for each in values["findings"]}:
        return f"{can}, but perhaps not what you want the agent to learn; see the warnings."
    return f"{can}." if at_provider else f"Ready to train: {can}."

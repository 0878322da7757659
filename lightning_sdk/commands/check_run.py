"""The examination of a run: what `check` says about a run's folder instead of an agent.

`lightning_hub.health.examine` reads the folder, in a process of the environment that has the hub.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lightning_sdk.errors import HubError, make_error
from lightning_sdk.hub.backend_python import explain_start_errors
from lightning_sdk.results.diagnosis import Examination
from lightning_sdk.results.quantity import quantity

#: Findings that say that a rising reward may not mean what it is supposed to mean.
DOUBTS = frozenset({
    "reward not repeatable", "reward ignores the task", "reward follows length", "answer in the prompt",
    "one answer to all", "rollouts mixed",
})  # fmt: skip

#: Findings that say that calls were assigned to the wrong rollout or to none, or answer another rollout's question.
MISFILED = frozenset({"context lost", "calls after the end", "rollouts mixed"})


def examine(folder: Path, python: str | None = None) -> Examination:
    """What the run in this folder shows.

    Raises:
        SettingError: the folder is not a run, or nothing in it is finished yet.
        HubError: the hub is not installed in the environment of `python`.
    """
    command = [python or sys.executable, "-m", "lightning_hub.health.examine", str(folder)]
    with explain_start_errors(command[0]):
        done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise HubError(f"{folder} could not be read with {command[0]}:\n{done.stderr.strip()[-2000:]}")
    values = json.loads(done.stdout)
    if "error" in values:
        raise make_error(*values["error"])
    return Examination.from_dict(values)


def head(found: Examination) -> str:
    """The first lines: the run, its status and a summary."""
    return f"{found.run}: {quantity(found.steps, 'step')}, {found.status}\n\n{found.summary}"


def table(found: Examination) -> list[list[str]]:
    """The table of rewards: a header, and a row for each role."""
    rows = [["reward of", "steps", "first fifth", "last fifth", "trend"]]
    for each in found.roles:
        trend = "rises" if each.rises else "falls" if each.falls else "no more than noise"
        role = "no role" if each.role == "none" else each.role
        rows.append([role, str(each.steps), f"{each.first:.3g}", f"{each.last:.3g}", trend])
    return rows


def verdict(found: Examination) -> str:
    """The last line: whether the run is learning."""
    if not found.learnable:
        return "Nothing is being learned; the first finding is the most serious one."
    if DOUBTS & {each.kind for each in found.findings}:
        return "The agent may be learning something other than what you want; see the first warnings."
    if any(each.rises for each in found.roles):
        return "It is learning." if not found.findings else "It is learning; see the warnings."
    return (
        "Nothing was found that prevents learning." if not found.findings else ("It may be learning; see the warnings.")
    )

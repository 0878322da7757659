"""A run made up for exports, and the command that exports it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from made_runs import BEGAN, MadeRollout, MadeRun, made_call, pack_events

from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Span, root_span_id

QUESTION = {"role": "user", "content": "2 + 3?"}


def make_run(folder: Path, steps: int = 2, tries: int = 3, advantage: str = "rloo") -> MadeRun:
    """A run with a writer and a checker: each step has two groups, each try earns more than the one before. One try
    failed, one rollout is of an evaluation, and one is under way."""
    run = MadeRun(folder, Settings.from_dict({"credit.advantage": advantage}))
    run.add(
        [_rollout(f"{step}-{group}", at) for step in range(1, steps + 1) for group in range(2) for at in range(tries)]
    )
    run.add([
        MadeRollout(group="1-0", status="timeout", error="it took too long", started=BEGAN + 50),
        MadeRollout(group="after-0", mode="evaluate", started=BEGAN + 90, rewards=[("", "right", 1.0, "")]),
        MadeRollout(group=f"{steps}-0", status="running", started=BEGAN + 99),
    ])  # fmt: skip
    rewards = {"reward_mean": 0.5, "reward_mean/writer": 0.25, "reward_mean/checker": 0.75}
    run.steps({"step": step, **rewards, "loss": 1.0 / step} for step in range(1, steps + 1))
    return run


def _rollout(group: str, at: int) -> MadeRollout:
    key = f"{group}-{at}".encode().ljust(16, b".")
    ns = int(BEGAN * 1e9)
    agent = Span(
        id=f"{at + 1:016x}", parent=root_span_id(key), name="writer", role="writer",
        started_ns=ns, ended_ns=ns + 200_000_000, status="ok", error="",
    )  # fmt: skip
    calls = [
        made_call(17, [QUESTION], f"answer {at}", role="writer", parent=agent.id),
        made_call(18, [{"role": "user", "content": "Right?"}], f"no {at}", role="checker"),
    ]
    return MadeRollout(
        group=group,
        key=key,
        task={"question": "2 + 3?", "from": group},
        answer=f"answer {at}",
        started=BEGAN + int(group.partition("-")[0]),
        rewards=[("writer", "right", at / 4, f"reason {at}"), ("checker", "strict", 1.0 - at / 4, "")],
        events=pack_events([agent, *calls]),
    )


def export(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`lightning-sdk export`, run in a folder."""
    command = [sys.executable, "-m", "lightning_sdk.cli", "export", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_data(page: Path) -> Any:
    """The data inside an exported page, as a browser reads it."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    [found] = re.findall(pattern, page.read_text("utf-8"), re.DOTALL)
    return json.loads(found)

"""The metrics of real runs in `recorded`, and the kinds of findings that an examination has."""

import json
from pathlib import Path

from lightning_hub.health.examine import Health

RECORDED = Path(__file__).with_name("recorded")
Step = dict[str, float | None]


def steps(name: str = "learning") -> list[Step]:
    return [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines()]


def kinds(health: Health) -> list[str]:
    return [f"{each.severity} {each.kind}" for each in health.findings]

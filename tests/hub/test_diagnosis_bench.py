"""The bench of diagnoses: a simulated run of each kind, healthy and sick; `benchmarks/diagnosis.py` runs them all."""

from __future__ import annotations

import re

import pytest
from diagnosis_cases import HEALTHY, SICK, Case, judge_health

from lightning_hub.health.examine import Health, examine
from lightning_sdk.settings.settings import Settings, parse

#: One run of each kind takes about a second; these are left to the benchmark, which has others like them.
LONG = {
    "reward of 1 and -1",
    "reward of 0 and 1000",
    "several turns",
    "asynchronous",
    "normalised advantages",
    "running mean",
    "some fail, some are cut",
    "two roles",
    "plateau",
    "sparse reward",
}
#: What a user is told to type.
TYPED = re.compile(r"--set ([\w.]+)=(\S*[^\s.,;:)])")
#: A learning rate that somebody could mean.
RATES = 1e-8, 1e-2


def remedies(health: Health) -> dict[str, str]:
    """Setting -> value, in all that is said of a run."""
    return {name: value for each in health.findings for name, value in TYPED.findall(str(each))}


@pytest.mark.parametrize("case", [each for each in HEALTHY if each.name not in LONG], ids=lambda case: case.name)
def test_nothing_wrong_is_said_of_a_healthy_run(case: Case) -> None:
    """No fatal finding, none that is not so, and its score is not called worse."""
    health = examine(case.make(1))
    assert judge_health(case, health) == "right", (health.summary(), list(map(str, health.findings)))


@pytest.mark.parametrize("case", SICK, ids=lambda case: case.name)
def test_what_is_wrong_with_a_sick_run_is_said(case: Case) -> None:
    """With its severity, first, and nothing else; what it says to type can be typed, and changes something."""
    record = case.make(1)
    health = examine(record)
    assert judge_health(case, health) == "right", (health.summary(), list(map(str, health.findings)))
    assert f"{health.findings[0].severity} {health.findings[0].kind}" in case.expected
    for name, value in remedies(health).items():
        changed = Settings.from_dict({**record.settings.flat(), name: parse(name, value)})
        assert changed != record.settings, f"{name}={value} is set already"
        assert name != "optimizer.learning_rate" or RATES[0] <= float(value) <= RATES[1]

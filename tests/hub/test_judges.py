"""What a reward function asks of a trainable agent is told apart from what the agent asks."""

from __future__ import annotations

import dataclasses

from lightning_hub.diagnosis.diagnosis import DiagnosisInput, diagnose
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.stream import notices
from tests.hub.spoken import call, rollout, span


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [f"{each.severity} {each.kind}" for each in diagnosis.findings]


def test_a_judge_that_could_be_trained_is_not_a_finding() -> None:
    """What a reward function asks of an agent stays with its provider, which is right."""
    scoring = span(f"{notices.SCORING} judge")
    turn = dataclasses.replace(span("invoke_agent solver", role="solver"), id="b", parent="a")
    judged = call(3, trainable=False)
    judged = dataclasses.replace(judged, meta=judged.meta._replace(parent="b"))
    made = [rollout(n, call(1), judged, spans=(turn, scoring)) for n in (1, 2)]
    assert kinds(diagnose(DiagnosisInput(rollouts=made, declared={"solver": True}))) == []
    lone = [rollout(n, call(1), judged, spans=(turn,)) for n in (1, 2)]
    assert kinds(diagnose(DiagnosisInput(rollouts=lone, declared={"solver": True}))) == ["warning calls not redirected"]

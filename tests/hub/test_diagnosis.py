"""The diagnosis: rollouts as they come back, and the findings and facts that they lead to."""

from __future__ import annotations

import json

import pytest

from lightning_hub.diagnosis.diagnosis import DiagnosisInput, diagnose
from lightning_hub.training.checks import refuse_unlearnable
from lightning_sdk.failures.finding import Severity
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.settings import Settings
from lightning_sdk.stream import notices
from lightning_sdk.trace.call import Call, Span, Status
from tests.hub.spoken import SYSTEM, assistant, call, rollout, span, user


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [f"{each.severity} {each.kind}" for each in diagnosis.findings]


def words_of(diagnosis: Diagnosis, kind: str) -> str:
    return str(next(each for each in diagnosis.findings if each.kind == kind))


def uncaught(role: str = "solver", place: str = "api.example/v1/messages", client: str = "httpx") -> Span:
    host, _, path = place.partition("/")
    told = {notices.ADDRESS: host, notices.PATH: f"/{path}", notices.CLIENT: client}
    return span(notices.UNCAUGHT, told, role=role)


# --- facts and findings


def test_a_good_round_has_facts_and_no_findings() -> None:
    """Calls, rewards and rows by role; rewards that differ within a group are a signal."""
    one = [SYSTEM, user("2 + 3?")]
    two = [*one, assistant("5"), user("Sure?")]
    made = [rollout(n, call(1, one), call(2, two, assistant("yes"))) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=made))
    assert diagnosis.findings == []
    (calls,) = diagnosis.calls
    assert (calls.role, calls.framework, calls.calls, calls.trainable, calls.complete) == ("solver", "openai", 4, 4, 4)
    (rewards,) = diagnosis.rewards
    assert (rewards.rollouts, rewards.low, rewards.high, rewards.groups, rewards.groups_with_signal) == (2, 0, 1, 1, 1)
    (sequences,) = diagnosis.sequences
    assert (sequences.turns, sequences.rows, sequences.openings) == (4, 2, {})
    assert json.loads(json.dumps(diagnosis.as_dict()))["learnable"] is True


def test_no_call_at_all() -> None:
    """An agent that calls no model learns nothing; the finding says where to look."""
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(1), rollout(2)]))
    assert kinds(diagnosis) == ["fatal no model call"]
    assert "made no model call in 2 rollouts" in words_of(diagnosis, "no model call")
    assert "lightning.status()" in words_of(diagnosis, "no model call")


def test_all_calls_went_elsewhere() -> None:
    """Host, path, client and role are told, and which integration is off."""
    made = [rollout(n, spans=(uncaught(), uncaught())) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=made, integrations={"openai": "off: openai 1.0 is not supported"}))
    assert kinds(diagnosis) == ["fatal no model call", "fatal calls went elsewhere", "warning integration off"]
    text = words_of(diagnosis, "calls went elsewhere")
    assert "4 calls to a model were not captured: 4 to api.example/v1/messages through httpx by solver" in text
    assert "The integration for openai is off" in text and "lightning-sdk gateway" in text
    assert "openai 1.0 is not supported" in words_of(diagnosis, "integration off")


def test_some_calls_went_elsewhere() -> None:
    """What was captured can be learned from all the same."""
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(n, call(1), spans=(uncaught("judge"),)) for n in (1, 2)]))
    assert kinds(diagnosis) == ["warning calls went elsewhere"]
    assert diagnosis.elsewhere[0].roles == ("judge",) and diagnosis.elsewhere[0].count == 2


def test_calls_of_no_trainable_role() -> None:
    """The roles that were seen are listed, and what to type."""
    made = [rollout(n, call(1, role="planner", trainable=False)) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=made))
    assert kinds(diagnosis) == ["fatal nothing trainable"]
    text = words_of(diagnosis, "nothing trainable")
    assert "there were 2 of planner" in text and "trainable=True" in text and "--roles" in text


def test_a_role_filter_that_matches_nothing() -> None:
    """A name that only a framework could have given is found in the first rollouts."""
    made = [rollout(n, call(1, role="Researcher", trainable=False)) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=made, roles=("Reseacher",)))
    assert kinds(diagnosis) == ["fatal role filter matched nothing"]
    assert "(Reseacher)" in words_of(diagnosis, "role filter matched nothing")
    assert "2 of Researcher" in words_of(diagnosis, "role filter matched nothing")


def test_a_role_filter_that_matches_in_part() -> None:
    """The misspelt one of two roles is named."""
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(n, call(1)) for n in (1, 2)], roles=("solver", "writter")))
    assert kinds(diagnosis) == ["warning role without calls"]
    assert "'writter'" in words_of(diagnosis, "role without calls")


def test_calls_of_a_trainable_role_that_stayed() -> None:
    """Recorded and yet not sent to the engine: role, seam and path."""
    made = [rollout(n, call(1), call(2, trainable=False)) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=made, declared={"solver": True}))
    assert kinds(diagnosis) == ["warning calls not redirected"]
    assert "2 of solver by openai to /v1/chat/completions" in words_of(diagnosis, "calls not redirected")


@pytest.mark.parametrize("good", [0, 1])
def test_calls_without_ids(good: int) -> None:
    """The decoder's reason comes with the count; one such call is too many."""
    lame = [rollout(n, call(1, problem="the reply has no prompt_token_ids")) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=[*lame, *(rollout(9, call(1)) for _ in range(good))]))
    text = words_of(diagnosis, "ids or log-probs missing")
    assert "fatal ids or log-probs missing" in kinds(diagnosis) and "no prompt_token_ids" in text
    assert ("2 calls of trainable roles cannot" if good else "none of the 2 calls") in text
    assert diagnosis.calls[0].complete == good


def test_calls_that_the_engine_refused_are_not_without_ids() -> None:
    """A 400 is the agent's to handle; when every call is refused, nothing can be learned."""
    refused = call(1, status="error", http_status=400, problem="HTTP 400: the context is too long")
    assert "ids or log-probs missing" not in str(
        kinds(diagnose(DiagnosisInput(rollouts=[rollout(1, refused, call(2)), rollout(2, call(1))])))
    )
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(1, refused), rollout(2, refused)]))
    text = words_of(diagnosis, "calls failed")
    assert "not one of 2 calls of the role solver succeeded: HTTP 400: the context is too long" in text
    assert "longer than the model accepts" in text and "return_token_ids" not in text
    assert diagnosis.calls[0].failed == 2 and kinds(diagnosis) == ["fatal calls failed"]


@pytest.mark.parametrize(
    ("http_status", "problem", "words"),
    [
        (400, "HTTP 400: the prompt has 2100 tokens; this model takes at most 2048, completion included", "Send less"),
        (400, "HTTP 400: This model's maximum context length is 64 tokens", "Send less"),
        (400, "HTTP 400: audio is not supported by this engine; leave it out", "Change what the message names"),
        (503, "HTTP 503: no server", "backend.log"),
        (0, "no reply came", "backend.log"),
    ],
)
def test_a_role_all_of_whose_calls_failed(http_status: int, problem: str, words: str) -> None:
    """A check does not call it ready; a training, in which another role works, goes on. The remedy is of the reason."""
    failed = call(2, role="writer", status="error", http_status=http_status, problem=problem)
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(n, call(1), failed) for n in (1, 2)]))
    (finding,) = diagnosis.findings
    assert (finding.kind, finding.severity, finding.passing) == ("calls failed", Severity.FATAL, True)
    assert f"not one of 2 calls of the role writer succeeded: {problem}" in finding.what
    assert words in finding.remedy and "ids" not in str(finding)


def test_an_agent_that_raises_what_the_engine_refused() -> None:
    """It is not the agent that has to be mended by itself: the request is what the engine does not take."""
    refused = call(1, status="error", http_status=400, problem="HTTP 400: audio is not supported by this engine")
    error = "BadRequestError: Error code: 400 - audio is not supported by this engine"
    bad = [rollout(n, refused, status=Status.AGENT_ERROR, error=error) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=bad))
    text = words_of(diagnosis, "rollouts failed")
    assert "Change what the message names" in text and "mend it" not in text
    assert kinds(diagnosis) == ["fatal rollouts failed"]  # which is said once
    own = [rollout(n, call(1), status=Status.AGENT_ERROR, error="KeyError: 'x'") for n in (1, 2)]
    assert "run it on one task by itself and fix it" in words_of(
        diagnose(DiagnosisInput(rollouts=own)), "rollouts failed"
    )


def test_rewards_that_never_differ() -> None:
    """No group has a signal; the value is told. Other tasks may have one, so a training goes on."""
    made = [rollout(n, call(1), rewards={"": 0.5}, group=f"1-{n // 2}") for n in range(4)]
    (finding,) = diagnose(DiagnosisInput(rollouts=made)).findings
    assert (finding.kind, finding.severity, finding.passing) == ("no signal", Severity.FATAL, True)
    assert "in each of 2 groups" in finding.what and "every reward is 0.5" in finding.what
    between = [rollout(n, call(1), rewards={"": float(n // 2)}, group=f"1-{n // 2}") for n in range(4)]
    assert "differ between tasks only" in words_of(diagnose(DiagnosisInput(rollouts=between)), "no signal")


def test_rewards_that_differ_by_rounding_are_equal() -> None:
    """As for the learner: 0.1 + 0.2 and 0.3 are one float32."""
    made = [rollout(n, call(1), rewards={"": value}) for n, value in enumerate((0.1 + 0.2, 0.3))]
    assert kinds(diagnose(DiagnosisInput(rollouts=made))) == ["fatal no signal"]


def test_a_role_that_no_reward_reaches() -> None:
    """A dict of rewards that leaves a trained role out, or misspells it."""
    made = [rollout(n, call(1), call(2, role="critic"), rewards={"solver": n, "crtic": 1.0}) for n in (1, 2)]
    diagnosis = diagnose(DiagnosisInput(rollouts=made))
    assert kinds(diagnosis) == ["warning no reward", "warning reward of nobody"]
    assert "for critic" in words_of(diagnosis, "no reward")
    assert "'crtic'" in words_of(diagnosis, "reward of nobody") and "critic, solver" in words_of(
        diagnosis, "reward of nobody"
    )


def test_settings_of_nobody_are_told() -> None:
    """A weight for a reward that nobody gave, and settings of a role that did not speak."""
    made = [rollout(n, call(1), rewards={"": float(n)}) for n in (1, 2)]
    wrong = Settings.from_dict({"credit.rewards.brif": 0.5, "role.sovler.weight": 0.5})
    diagnosis = diagnose(DiagnosisInput(rollouts=made, settings=wrong))
    assert kinds(diagnosis) == ["warning role without calls", "warning weight of nothing"]
    assert "'sovler'" in words_of(diagnosis, "role without calls")
    assert "has a weight for 'brif'" in words_of(diagnosis, "weight of nothing") and "given: final" in words_of(
        diagnosis, "weight of nothing"
    )


def test_no_role_has_a_reward() -> None:
    """Nothing can be learned from calls that earn nothing."""
    assert "fatal no reward" in kinds(
        diagnose(DiagnosisInput(rollouts=[rollout(n, call(1), rewards={"judge": 1.0}) for n in (1, 2)]))
    )


def test_rollouts_that_failed() -> None:
    """Fatal beyond failure.max_failed, with the most common error."""
    bad = rollout(3, status=Status.AGENT_ERROR, error="KeyError: 'x'\n  agent.py:3 in solve")
    good = [rollout(n, call(1)) for n in (1, 2)]
    assert kinds(diagnose(DiagnosisInput(rollouts=[*good, bad]))) == ["warning rollouts failed"]
    diagnosis = diagnose(DiagnosisInput(rollouts=[*good, bad], max_failed=0.2, name="step 1"))
    assert kinds(diagnosis) == ["fatal rollouts failed"]
    text = words_of(diagnosis, "rollouts failed")
    assert "1 of 3 rollouts of step 1 failed; failure.max_failed allows 20%" in text and "agent.py:3 in solve" in text
    assert diagnosis.statuses == {"ok": 2, "agent_error": 1}


def test_only_failed_rollouts_are_not_called_silent() -> None:
    """What a rollout that failed would have called is not known."""
    bad = rollout(1, status=Status.REWARD_ERROR, error="RewardError: it gave nan")
    assert kinds(diagnose(DiagnosisInput(rollouts=[bad]))) == ["fatal rollouts failed"]


def test_calls_outside_of_rollouts() -> None:
    """A thread that lost its context: fatal when it made all the calls."""
    stray = call(7, trainable=False, role="")
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(1), rollout(2)], strays=(stray, stray)))
    assert kinds(diagnosis) == ["fatal no model call", "fatal context lost"]
    assert "2 calls were made outside of every rollout" in words_of(diagnosis, "context lost")
    assert kinds(diagnose(DiagnosisInput(rollouts=[rollout(n, call(1)) for n in (1, 2)], strays=(stray,)))) == [
        "warning context lost"
    ]


@pytest.mark.parametrize("lost", [call(7), call(7, trainable=False)], ids=["to the engine", "of a role to train"])
def test_calls_that_should_have_belonged_to_a_rollout(lost: Call) -> None:
    """What rollouts share is filed under none: a check fails on it, a training goes on with what it has."""
    made = [rollout(n, call(1)) for n in (1, 2)]
    diagnosis = diagnose(
        DiagnosisInput(rollouts=made, strays=(lost, call(8, trainable=False, role="")), declared={"solver": True})
    )
    assert kinds(diagnosis) == ["fatal context lost"] and diagnosis.findings[0].passing
    assert "2 calls were made outside of every rollout while rollouts ran, 1 of them of roles to train" in words_of(
        diagnosis, "context lost"
    )
    refuse_unlearnable(diagnosis)


def test_calls_after_the_end() -> None:
    """A runtime that outlives its rollout."""
    assert kinds(diagnose(DiagnosisInput(rollouts=[rollout(n, call(1)) for n in (1, 2)], late=3))) == [
        "fatal calls after the end"
    ]


def test_an_integration_that_went_off_during_a_rollout() -> None:
    """Its framework was imported by the agent's first call."""
    told = {notices.INTEGRATION: "crewai", notices.REASON: "crewai 0.1 is not supported"}
    off = span(notices.OFF, told, status="error")
    diagnosis = diagnose(DiagnosisInput(rollouts=[rollout(1, call(1), spans=(off,)), rollout(2, call(1))]))
    assert kinds(diagnosis) == ["warning integration off"]
    assert "crewai 0.1 is not supported" in words_of(diagnosis, "integration off")


def test_a_greedy_round_is_a_measurement() -> None:
    """Held-out rollouts are greedy and alone in their groups: neither is a fault."""
    made = [rollout(n, call(1, temperature=0.0), mode="evaluate", group=f"before-{n}") for n in (1, 2)]
    assert diagnose(DiagnosisInput(rollouts=made)).findings == []

"""What a hub tells: each event arrives as it was published, and what cannot be read stops nothing."""

from __future__ import annotations

import logging

import pytest

from lightning_hub.feed import Feed
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.hub import events
from lightning_sdk.hub.events import Event, read_event
from lightning_sdk.results.diagnosis import Diagnosis, RoleCalls, RoleRewards, Sequences, UncapturedCalls
from lightning_sdk.results.run_report import FailureCounts, Resumption, RunReport, TokenStaleness
from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.results.score import HeldOutScore, Interval
from lightning_sdk.stream import wire

FOUND = Finding(kind="no signal", severity=Severity.FATAL, what="w", cause="c", remedy="r", passing=True)
INTERVAL = Interval(mean=0.5, low=None, high=None, n=3, method="none", missing="too few")
SCORE = HeldOutScore(
    step=2,
    score=INTERVAL,
    seeds=2,
    temperature=0.7,
    failed=1,
    failures={"timeout": 1},
    look={"number": 1, "share": 0.9},
    roles={"writer": INTERVAL},
)
REPORT = RunReport(
    name="solve",
    status="finished",
    held_out={"after": SCORE},
    change=INTERVAL,
    change_by_role={"writer": INTERVAL},
    verdict="better",
    findings=[FOUND],
    steps=2,
    failures=FailureCounts(retries=1, done={"timeout": "left out"}),
    staleness=TokenStaleness(3, 0.5, 2.0),
    roles={"writer": {"reward_mean": None}},
    resumed=[Resumption(1, {"steps": [1, 2]})],
    settings={"steps": 2},
)
DIAGNOSIS = Diagnosis(
    rollouts=4,
    statuses={"ok": 4},
    calls=[RoleCalls(role="writer", framework="openai", calls=4)],
    rewards=[RoleRewards(role="", rollouts=4, mean=0.5, low=0.0, high=1.0, groups=1, groups_with_signal=1)],
    sequences=[Sequences("writer", 4, 8, 4, {"template": 1})],
    elsewhere=[UncapturedCalls("httpx", "host/path", ["writer"], 2)],
    outside=0,
    late=1,
    findings=[FOUND],
)
EVENTS: list[Event] = [
    events.StatusEvent("starting"),
    events.NoticeEvent("a runner has joined"),
    events.WarningEvent("3 rollouts timed out"),
    events.StartedEvent(steps=2, step=1, model="spark", run="runs/solve"),
    events.StepEvent(1, 2, {"reward_mean": 0.5}),
    events.PaceEvent(
        text="a step takes 3.0 s", seconds=3.0, left=60.0, agent=1.0, engine=1.5, learner=0.5, is_news=True
    ),
    events.EvaluationEvent("after", SCORE, (RolloutSample(task="{}", answer="no", reward=0.5, why="too short"),)),
    events.FinishedEvent(REPORT, "1.0 step"),
    events.CheckedEvent(DIAGNOSIS),
    events.FailedEvent("BackendDied", "it died"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was_published(event: Event) -> None:
    """Through the feed, the packing of messages, and back."""
    feed = Feed()
    feed.publish(events.StatusEvent("before it"))
    feed.publish(event)
    (published,) = feed.after(1)
    message = wire.unpack(wire.pack(published.as_message()))
    assert (message["number"], read_event(message)) == (2, event)


def test_the_last_event_is_known_by_its_number() -> None:
    """An end from before a training began is not that training's."""
    feed = Feed()
    feed.publish(events.FailedEvent("HubError", "the first"))
    since = feed.count
    assert feed.ending_after(since) is None
    feed.publish(events.StatusEvent("the second begins"))
    assert feed.ending_after(since) is None and feed.ending_after(0) == events.FailedEvent("HubError", "the first")


def test_what_cannot_be_read_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A newer hub's event is nothing to speak of; one without what it must have is named with that."""
    with caplog.at_level(logging.WARNING):
        assert read_event({"type": "from the future"}) is None and read_event({}) is None
        assert not caplog.records
        assert read_event({"type": "step", "step": 1}) is None
    assert "the event 'step' has no 'steps'" in caplog.text


def test_keys_that_this_version_does_not_know_are_ignored() -> None:
    """A hub may tell more than is shown."""
    assert read_event({"type": "notice", "text": "t", "number": 3, "colour": "red"}) == events.NoticeEvent("t")

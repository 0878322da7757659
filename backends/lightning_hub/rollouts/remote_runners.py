"""Remote runners that joined the training: they run the same agent, and are told when it ends.

A training whose process is killed has not ended: they are told nothing then, and wait for it to continue.

Any client with the hub's key may lease. By joining, a runner that was started by hand learns that this is the right
training, before it takes any rollout.
"""

from __future__ import annotations

from collections.abc import Callable

from lightning_hub.feed import Feed
from lightning_sdk.errors import SettingError
from lightning_sdk.hub.events import FailedEvent, FinishedEvent, NoticeEvent, WarningEvent
from lightning_sdk.hub.joining import AgentIdentity, JoinedTraining, TrainingEnd


class RemoteRunners:
    """Who joined the one training of a hub. The receiver's thread only."""

    def __init__(self, feed: Feed, seen: Callable[[], list[str]]) -> None:
        """`seen` tells which runners live: one that was killed is no longer waited for."""
        self._feed, self._seen = feed, seen
        self._here: dict[str, str] = {}
        """Runner -> its name for people."""
        self._run = ""
        self._expected: AgentIdentity | None = None
        self._since = 0
        self._told: TrainingEnd | None = None
        """How the training ended for its own process, where that is not on the feed."""
        self._kept = False

    def expect(self, identity: AgentIdentity, run: str) -> None:
        """A training begins: of this agent, with these rewards."""
        self._expected, self._run, self._since, self._told = identity, run, self._feed.count, None

    def join(self, runner: str, name: str, theirs: AgentIdentity) -> JoinedTraining | None:
        """Let a runner in. None while no training has begun; SettingError if it is of another agent."""
        expected = self._expected
        if expected is None:
            return None
        self._refuse_another(theirs, expected)
        other = bool(expected.source and theirs.source and theirs.source != expected.source)
        if self._ending is None:
            self._here[runner] = name
            number = len(set(self._here) & {*self._seen(), runner})
            if other:
                self._feed.publish(WarningEvent(f"{name} has another version of the file of {expected.agent}"))
            self._feed.publish(NoticeEvent(f"{name} has joined and runs rollouts ({number} joined)"))
        return JoinedTraining(self._run, other)

    def over(self, runner: str) -> TrainingEnd | None:
        """How the training ended, None while it has not; 'unknown' for a runner that did not join."""
        return self._ending or (None if runner in self._here else TrainingEnd("unknown"))

    def leave(self, runner: str) -> None:
        """It goes in good order."""
        name = self._here.pop(runner, "")
        if name and self._ending is None:
            self._feed.publish(NoticeEvent(f"{name} has left ({len(set(self._here) & set(self._seen()))} joined)"))

    def disband(self, status: str, error: str) -> None:
        """The training's process ends it: it was 'stopped', or has 'failed' with an error; '' where the feed tells."""
        if status and self._ending is None:
            self._told = TrainingEnd(status, error)

    def keep(self) -> None:
        """The training's process is gone: nobody is told of an end from now on. Any thread."""
        self._kept = True

    def is_empty(self) -> bool:
        """Whether every remote runner that lives has left."""
        return not set(self._here) & set(self._seen())

    @property
    def _ending(self) -> TrainingEnd | None:
        if self._told is not None or self._kept:
            return self._told
        event = self._feed.ending_after(self._since)
        if isinstance(event, FailedEvent):
            return TrainingEnd("failed", event.text)
        if isinstance(event, FinishedEvent):
            return TrainingEnd(event.report.status)
        return None if event is None else TrainingEnd("finished")

    def _refuse_another(self, theirs: AgentIdentity, expected: AgentIdentity) -> None:
        """SettingError for a runner of another agent, or with other rewards."""
        agent, rewards = expected.agent, expected.rewards
        if agent is not None and agent != theirs.agent:
            raise SettingError(
                f"the training {self._run!r} trains the agent {agent!r}; this runner has {theirs.agent!r}: "
                f"name the same agent, FILE.py:{agent}, or join another training"
            )
        if rewards is not None and rewards != theirs.rewards:
            raise SettingError(
                f"the training {self._run!r} is rewarded by {', '.join(rewards) or 'no function'} and this runner by "
                f"{', '.join(theirs.rewards or ['none'])}: give the same ones, --reward FILE.py:FUNCTION"
            )

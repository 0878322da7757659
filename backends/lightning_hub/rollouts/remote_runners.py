"""Remote runners that joined the training: they run the same agent, and are told when it ends.

A training whose process is killed has not ended: they are told nothing then, and wait for it to continue.

Any client with the hub's key may lease. By joining, a runner that was started by hand learns that this is the right
training, before it takes any rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_hub.feed import Feed
from lightning_sdk.errors import SettingError


class RemoteRunners:
    """Who joined the one training of a hub. The receiver's thread only."""

    def __init__(self, feed: Feed, seen: Callable[[], list[str]]) -> None:
        """`seen` tells which runners live: one that was killed is no longer waited for."""
        self._feed, self._seen = feed, seen
        self._here: dict[str, str] = {}
        """Runner -> its name for people."""
        self._expected: dict[str, Any] | None = None
        self._since = 0
        self._told: dict[str, Any] = {}
        """How the training ended for its own process, where that is not on the feed."""
        self._kept = False

    def expect(self, identity: Mapping[str, Any], run: str) -> None:
        """A training begins: of this agent, with these rewards (`lightning_sdk.rollouts.reference.identity`)."""
        self._expected, self._since, self._told = {**identity, "run": run}, self._feed.count, {}

    def join(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Let a runner in. {} while no training has begun; SettingError if it is of another agent."""
        name, theirs, expected = str(params["name"]), dict(params["identity"]), self._expected
        if expected is None:
            return {}
        _refuse_another(theirs, expected)
        other = bool(expected.get("source") and theirs.get("source") and theirs["source"] != expected["source"])
        if not self._ending:
            self._here[str(params["runner"])] = name
            number = len(set(self._here) & {*self._seen(), str(params["runner"])})
            if other:
                self._feed.publish("warning", text=f"{name} has another version of the file of {expected['agent']}")
            self._feed.publish("notice", text=f"{name} has joined and runs rollouts ({number} joined)")
        return {"run": expected["run"], "other_source": other}

    def over(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """How the training ended, {} while it has not; {"status": "unknown"} for a runner that did not join."""
        return self._ending or ({} if str(params["runner"]) in self._here else {"status": "unknown"})

    def leave(self, runner: str) -> None:
        """It goes in good order."""
        name = self._here.pop(runner, "")
        if name and not self._ending:
            self._feed.publish("notice", text=f"{name} has left ({len(set(self._here) & set(self._seen()))} joined)")

    def disband(self, status: str, error: str) -> None:
        """The training's process ends it: it was 'stopped', or has 'failed' with an error; '' where the feed tells."""
        if status and not self._ending:
            self._told = {"status": status, "error": error}

    def keep(self) -> None:
        """The training's process is gone: nobody is told of an end from now on. Any thread."""
        self._kept = True

    def is_empty(self) -> bool:
        """Whether every remote runner that lives has left."""
        return not set(self._here) & set(self._seen())

    @property
    def _ending(self) -> dict[str, Any]:
        event = self._feed.ending
        if self._told or self._kept:
            return self._told
        if event is None or event["number"] <= self._since:
            return {}
        if event["type"] == "failed":
            return {"status": "failed", "error": str(event["error"][1])}
        return {"status": str(event.get("report", {}).get("status") or "finished"), "error": ""}


def _refuse_another(theirs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """SettingError for a runner of another agent, or with other rewards."""
    agent, rewards = expected.get("agent"), expected.get("rewards")
    if agent is not None and agent != theirs.get("agent"):
        raise SettingError(
            f"the training {expected['run']!r} trains the agent {agent!r}; this runner has {theirs.get('agent')!r}: "
            f"name the same agent, FILE.py:{agent}, or join another training"
        )
    if rewards is not None and rewards != theirs.get("rewards"):
        raise SettingError(
            f"the training {expected['run']!r} is rewarded by {', '.join(rewards) or 'no function'} and this runner by "
            f"{', '.join(theirs.get('rewards') or ['none'])}: give the same ones, --reward FILE.py:FUNCTION"
        )

"""An attempt: runs the agent once on a task, scores its answer, and ends the rollout with its status.

Any exception of an agent or a reward function counts as its error, including those that would end a thread, a loop or a
process elsewhere (SystemExit, KeyboardInterrupt, CancelledError). Only our own deadline counts as a timeout.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_sdk.failures.failure import describe, status_of
from lightning_sdk.markers.reward import RewardFunction
from lightning_sdk.markers.rollout import end, scope_from_assignment, send_rewards
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.rollouts.resolve import resolve, resolve_here
from lightning_sdk.rollouts.scoring import ascores, scores
from lightning_sdk.system.clock import Clock
from lightning_sdk.trace.call import Status
from lightning_sdk.trace.scope import Scope, use_scope

_WIND_DOWN_SECONDS = 1.0
"""Time for an agent to clean up after its timeout."""
_POLL_SECONDS = 0.5


def execute(agent: Callable[..., Any], rewards: Sequence[RewardFunction], message: Mapping[str, Any]) -> Status:
    """Run the rollout that the hub handed out in this thread and report it; how it ended.

    Not in a main thread: there a KeyboardInterrupt is somebody's Ctrl-C.
    """
    attempt = _Attempt(agent, rewards, message)
    try:
        attempt.begin()
        with use_scope(attempt.scope):
            attempt.answer = resolve_here(agent(dict(attempt.task)))
            send_rewards(attempt.rollout, scores(rewards, attempt.task, attempt.answer), rewards)
    except BaseException as error:
        attempt.fail(error)
    return attempt.close()


async def aexecute(
    agent: Callable[..., Any],
    rewards: Sequence[RewardFunction],
    message: Mapping[str, Any],
    is_wanted: Callable[[], bool],
) -> Status:
    """The same on the loop that runs, bounded by the rollout's own timeout.

    Raises:
        CancelledError: it was cancelled and is no longer wanted; nothing is reported.
    """
    attempt = _Attempt(agent, rewards, message)
    # A task of its own: whatever cancels it, and whatever it raises, leaves this one alone.
    task = asyncio.get_running_loop().create_task(attempt.arun(), context=contextvars.copy_context())
    try:
        if not await _is_done(task, message["timeout"]):
            attempt.expire(message["timeout"])
            task.cancel()
            await _is_done(task, _WIND_DOWN_SECONDS)
    except asyncio.CancelledError as error:
        task.cancel()
        if not is_wanted():
            raise
        attempt.fail(error)  # code of an agent cancelled every task of the loop
    return attempt.close()


class _Attempt:
    """One execution and what has come of it so far. What is settled first counts."""

    def __init__(
        self, agent: Callable[..., Any], rewards: Sequence[RewardFunction], message: Mapping[str, Any]
    ) -> None:
        self._agent, self._rewards, self.task = agent, rewards, message["task"]
        self._candidate = message.get("candidate")
        self.rollout, self.answer = scope_from_assignment(message), None
        self.scope = Scope(rollout=self.rollout)
        self._scoring = self._settled = False
        self._status, self._error = Status.OK, ""

    def begin(self) -> None:
        """The code that runs now is the rollout's own, and its prompts are those that the hub has for it.

        Raises:
            PromptError: they cannot be used.
        """
        self.rollout.settle_here()
        if self._candidate is not None:
            self.rollout.candidate = Candidate.from_message(self._candidate)

    async def arun(self) -> None:
        """Run agent and rewards. Raises nothing: a task that raises SystemExit takes its loop along."""
        try:
            self.begin()
            with use_scope(self.scope):
                self.answer = await resolve(self._agent(dict(self.task)))
                self._scoring = True
                given = await ascores(self._rewards, self.task, self.answer)
                if not self._settled:
                    send_rewards(self.rollout, given, self._rewards)
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        status = status_of(self.rollout, error)
        self._settle(status, describe(error, status))

    def expire(self, seconds: float) -> None:
        late = "the reward function had not scored the answer" if self._scoring else "no answer"
        self._settle(Status.TIMEOUT, f"{late} after {seconds:g} s (rollouts.timeout)")

    def close(self) -> Status:
        end(self.rollout, self._status, self._error, self.answer)
        return self._status

    def _settle(self, status: Status, error: str) -> None:
        if not self._settled:
            self._settled, self._status, self._error = True, status, error


async def _is_done(task: asyncio.Task[None], seconds: float) -> bool:
    """Whether a task ends within `seconds` in which this loop runs too; it is left alone either way."""
    clock = Clock()
    while not task.done() and (left := seconds - clock.read()) > 0:
        await asyncio.wait({task}, timeout=min(left, _POLL_SECONDS))
    return task.done()

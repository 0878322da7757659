"""`rescore`: apply other reward functions to the stored rollouts of a run, without running the agent again.

The functions run in this process. A process of the environment that has the hub reads, compares and writes the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning_sdk.errors import HubError, RewardError, SettingError, make_error
from lightning_sdk.markers.reward import Function, RewardFunction, reward_functions
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.rescoring import (
    AnswerToScore,
    GivenReward,
    RescoringRequest,
    RescoringResult,
    RewardComparison,
    ScoredAnswer,
)
from lightning_sdk.results.score import Interval
from lightning_sdk.rollouts.scoring import ascores, scores
from lightning_sdk.system.folders import find_run_folder
from lightning_sdk.trace.structs import read_struct

#: Rollouts handed over at once.
_PAGE = 256


@dataclass(frozen=True, slots=True)
class Rescoring:
    """The result of `rescore`: how other rewards score a run's rollouts."""

    values: dict[str, Any]
    """Plain data: run, rewards, weights, replaces, keeps, rollouts, scored, left_out, comparisons, written, rescoring;
    docs/stored-rollouts.md says what each is."""

    @property
    def count(self) -> int:
        """How many rollouts were scored again."""
        return int(self.values["scored"])

    @property
    def left_out(self) -> dict[str, int]:
        """Reason -> how many rollouts were not scored again for it."""
        return dict(self.values["left_out"])

    @property
    def comparisons(self) -> list[dict[str, Any]]:
        """Old and new rewards by mode ('train', 'evaluate', 'observe'), and by role if rewards name roles."""
        return list(self.values["comparisons"])

    def __str__(self) -> str:
        found = RescoringResult.from_dict(self.values)
        parts = ["\n".join(_head(found)), *("\n".join(_describe_comparison(each)) for each in found.comparisons)]
        return "\n\n".join([*parts, _describe_writing(found)])


def rescore(
    run: str | Path,
    reward: Function | Sequence[Function],
    write: bool = False,
    *,
    runs: str | Path = "runs",
    concurrency: int = 16,
    backend_python: str | None = None,
) -> Rescoring:
    """Apply reward functions to the stored tasks and answers of a run, and report how means and ranking change.

    The new rewards replace those of all the run's reward functions; rewards from `emit_reward` are kept.

    Args:
        run: Folder of the run, or its name in `runs`.
        reward: Function of (task, answer), plain or async, or several of them, as for `train`.
        write: Store the new rewards, so that training from stored rollouts uses them. The earlier ones are kept but no
            longer count.
        concurrency: Maximum number of calls of a function at once.
        backend_python: Python of another virtual environment, in which the hub is installed; by default this one.

    Raises:
        SettingError: this is not a run, or the functions cannot be used.
        HubError: the store cannot be read, or `write` was asked for while a hub is using the folder.
    """
    functions = reward_functions(reward)
    if not functions:
        raise SettingError("rescore: no reward function was given; give reward=function, or reward=[...]")
    # A thread with a loop of its own: there may be one here already, as in a notebook.
    with (
        _Store(find_run_folder(run, runs), functions, write, backend_python) as store,
        ThreadPoolExecutor(1, "lightning-rescore") as thread,
    ):
        return Rescoring(thread.submit(asyncio.run, _score_all(store, functions, concurrency)).result())


async def _score_all(store: _Store, functions: Sequence[RewardFunction], concurrency: int) -> dict[str, Any]:
    """The result, when everything is scored."""
    limit, done = asyncio.Semaphore(concurrency), list[ScoredAnswer]()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(concurrency, "lightning-reward"))
    while page := store.next(done):
        done = await asyncio.gather(*(_one(each, functions, limit) for each in page))
    result: dict[str, Any] = store.ask(result=True)
    return result


async def _one(stored: AnswerToScore, functions: Sequence[RewardFunction], limit: asyncio.Semaphore) -> ScoredAnswer:
    task, answer = stored.task, json.loads(stored.answer)
    async with limit:
        try:
            if any(asyncio.iscoroutinefunction(each.function) for each in functions):
                given = await ascores(functions, task, answer)
            else:
                given = await asyncio.to_thread(scores, functions, task, answer)
        except RewardError as error:
            return ScoredAnswer(stored.number, (), str(error))
    return ScoredAnswer(stored.number, [GivenReward(each.name, each.role, each.value, each.why) for each in given])


class _Store:
    """The process that has the run's store."""

    def __init__(self, folder: Path, functions: Sequence[RewardFunction], write: bool, python: str | None) -> None:
        self._python = python or sys.executable
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        weights = {each.name: each.weight for each in functions if each.weight is not None}
        self._wanted = RescoringRequest(str(folder), [each.name for each in functions], weights, write)
        command = [self._python, "-m", "lightning_hub.replay.rescoring"]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8"
            )
        except OSError as error:
            self._log.close()
            raise HubError(f"cannot run {self._python}: {error}") from None

    def __enter__(self) -> _Store:
        try:
            self.ask(**asdict(self._wanted))
        except BaseException:
            self._end(kill=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kill=kind is not None)

    def next(self, scored: Sequence[ScoredAnswer]) -> list[AnswerToScore]:
        """Further answers to score, none after the last; `scored`: those before."""
        page = self.ask(scored=list(map(asdict, scored)), next=_PAGE)
        return [read_struct(AnswerToScore, each, "an answer") for each in page]

    def ask(self, **question: Any) -> Any:
        """The process's answer. LightningError that it raised, or HubError if it ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its last words say why
            print(json.dumps(question), file=stdin, flush=True)
        line = stdout.readline()
        if not line:
            raise HubError(self._describe_end())
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise make_error(*answer["error"])
        return answer

    def _describe_end(self) -> str:
        self._process.wait(10.0)
        self._log.seek(0)
        tail = "\n".join(self._log.read().decode(errors="replace").splitlines()[-12:])
        hint = "; install the hub there: pip install 'lightning-agent-sdk[hub]'" if "No module named" in tail else ""
        return f"the process that reads the store ended, with {self._python}{hint}. The end of its output:\n{tail}"

    def _end(self, *, kill: bool) -> None:
        if kill:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait(60.0)
        self._log.close()


# --- in words


def _head(found: RescoringResult) -> Iterator[str]:
    weights = ", ".join(
        name if found.weights[name] == 1 else f"{found.weights[name]:g} x {name}" for name in found.rewards
    )
    yield f"{found.run}: {found.scored} of {found.rollouts} rollouts scored again by {weights}"
    if found.replaces:
        yield f"instead of {', '.join(found.replaces)}"
    if found.keeps:
        yield f"in addition to {', '.join(found.keeps)}, given inside the rollouts"
    for reason, count in found.left_out.items():
        yield f"not scored: {count}, {reason}"


def _describe_comparison(each: RewardComparison) -> Iterator[str]:
    role = f", role {each.role}" if each.role else ""
    yield f"{each.mode}{role}: {quantity(each.rollouts, 'rollout')}"
    yield f"  mean     {_interval(each.old)} -> {_interval(each.new)}, change {_interval(each.change)}"
    if each.without_old_reward or each.without_new_reward:
        yield f"           {each.without_old_reward} had no reward before, {each.without_new_reward} have none now"
    yield f"  ranking  Kendall's tau {_number(each.tau_overall)} over all" + (
        f", {_number(each.tau_within_groups)} within groups" if each.groups else ""
    )
    if each.groups:
        yield f"           {each.pairs_flipped} of {each.pairs_ordered} ordered pairs of a group are reversed"
        yield f"  groups   another rollout is best in {each.best_changed} of {each.groups_compared}"
        yield f"           {each.signal_gained} gain a signal and {each.signal_lost} lose theirs"
    for most in each.changed_most:
        yield f"  {most.old:.3g} -> {most.new:.3g}  {most.id[:8]}  {most.task[:70]}  {most.answer[:70]}"


def _describe_writing(found: RescoringResult) -> str:
    if found.written:
        return f"Written: these rewards count from now on (re-scoring {found.rescoring}); the earlier ones are kept."
    return "Nothing was written; with --write (write=True) these rewards would count from now on."


def _interval(values: Interval) -> str:
    if values.mean is None:
        return "no values"
    bounds = "" if values.low is None else f" [{values.low:.3f}, {values.high:.3f}]"
    return f"{values.mean:.3f}{bounds}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"

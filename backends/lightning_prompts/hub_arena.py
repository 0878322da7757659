"""The arena of a real search: the hub's rollouts, with a candidate's texts in the agent's requests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_hub.backend import SearchHost, SearchRollout
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.judging import is_judging
from lightning_hub.trajectories.rewards import score, total_reward
from lightning_prompts.arena import RoleTurn, Trial, TrialResult
from lightning_prompts.candidate import Component, PromptCandidate
from lightning_prompts.meter import Meter
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.rollouts.tasks import task_id
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call, Status

_MOST_CHARACTERS = 4000
"""Of one text that is kept for the reflecting model."""
_INSTRUCTING = frozenset({"system", "developer"})


class HubArena:
    """Runs trials as rollouts of the hub."""

    def __init__(self, host: SearchHost, components: Sequence[Component], meter: Meter | None = None) -> None:
        self._host, self._components, self._meter = host, components, meter

    def run(self, trials: Sequence[Trial], on_result: Callable[[Trial, TrialResult], None]) -> None:
        """A rollout that failed for no fault of the agent is a result only once it is clear that not all did.

        Raises:
            SearchEnd: a request was refused, since the budget did not allow it. Its rollout has no result.
            SettingError: what a request can take is not known.
        """
        late: list[tuple[Trial, TrialResult]] = []

        def end(place: int, rollout: Rollout) -> None:
            result = read_result(rollout, self._host.settings, self._meter)
            if rollout.status == Status.INFRASTRUCTURE_ERROR:
                late.append((trials[place], result))
            else:
                on_result(trials[place], result)

        run_metered(self._host, [self._rollout(each) for each in trials], end, self._meter)
        for trial, result in late:
            on_result(trial, result)

    def _rollout(self, trial: Trial) -> SearchRollout:
        group = f"{trial.candidate.id}-{task_id(trial.task)}"
        return SearchRollout(trial.task, to_sdk(trial.candidate, self._components), group, trial.seed)


def run_metered(
    host: SearchHost, rollouts: Sequence[SearchRollout], on_end: Callable[[int, Rollout], None], meter: Meter | None
) -> None:
    """Run rollouts, with a meter as many side by side as the budget has room for.

    `on_end` does not hear of a rollout that a request was refused to: whatever its agent made of that has no score.

    Raises:
        SearchEnd: a request was refused, since the budget did not allow it.
        SettingError: what a request can take is not known.
    """
    if meter is None:
        return host.run(rollouts, on_end)
    place = 0
    while place < len(rollouts):
        first, part = place, rollouts[place : place + meter.width]

        def end(number: int, rollout: Rollout, first: int = first) -> None:
            if rollout.id not in meter.refused:
                on_end(first + number, rollout)

        host.run(part, end)
        meter.refuse_more()
        place += len(part)
    return None


def to_sdk(candidate: PromptCandidate, components: Sequence[Component]) -> Candidate | None:
    """The candidate as runners get it; None where all texts are the agent's own."""
    changed = [each for each in components if candidate.texts[each.name] != each.text]
    if not changed:
        return None
    texts = {each.text: candidate.texts[each.name] for each in changed}
    return Candidate(candidate.id, texts, {each.text: each.mark for each in changed if each.mark})


def read_result(rollout: Rollout, settings: Settings, meter: Meter | None = None) -> TrialResult:
    """What a search learns of a rollout."""
    ended = rollout.status == Status.OK
    value = score(rollout, settings) if ended else math.nan
    calls = [call for call in rollout.calls if not is_judging(call, rollout)]
    return TrialResult(
        score=value if math.isfinite(value) else None,
        by_role=_scores_by_role(rollout, settings) if ended else {},
        reasons=tuple(_reasons(rollout)),
        turns=tuple(map(_turn, calls)),
        status=str(rollout.status),
        error=_cut(rollout.error),
        answer=_cut(rollout.answer),
        calls=len(rollout.calls),
        tokens=sum(call.input_tokens + call.output_tokens for call in rollout.calls),
        money=meter.cost(rollout.calls) if meter is not None else 0.0,
    )


def _scores_by_role(rollout: Rollout, settings: Settings) -> dict[str, float]:
    roles = {reward.role for reward in rollout.rewards if reward.role}
    found = {role: total_reward(rollout, role, replace(settings.credit_of(role), signal="own")) for role in roles}
    return {role: value for role, value in sorted(found.items()) if value is not None}


def _reasons(rollout: Rollout) -> Iterator[str]:
    """What each reward said in words, with its name and value where there are several."""
    for reward in rollout.rewards:
        whose = f" of {reward.role}" if reward.role else ""
        told = f"{reward.name}{whose} is {reward.value:g}" if len(rollout.rewards) > 1 else ""
        if told or reward.why:
            yield _cut(": ".join(each for each in (told, reward.why) if each))


def _turn(call: Call) -> RoleTurn:
    try:
        request = json.loads(call.request)
    except ValueError:
        request = {}
    said = json.loads(call.choices[0].message) if call.choices else {}
    asked = "\n".join(_conversation(request)) if isinstance(request, dict) else ""
    return RoleTurn(call.meta.role, _cut(asked), _cut(_text(said)), _cut(call.meta.error))


def _conversation(request: Mapping[str, Any]) -> Iterator[str]:
    """What the model was asked, without what instructs it."""
    found = request.get("messages") or request.get("input") or request.get("contents") or request.get("prompt") or []
    if isinstance(found, str):
        yield found
        return
    for message in found:
        if not isinstance(message, dict):
            yield str(message)
        elif message.get("role") not in _INSTRUCTING:
            yield f"{message.get('role') or message.get('type') or 'user'}: {_text(message)}"


def _text(message: Any) -> str:
    """A message in words: its text, its calls of tools, and what a tool gave back."""
    if not isinstance(message, dict):
        return str(message)
    content = message.get("content", message.get("parts", message.get("output")))
    parts = content if isinstance(content, list) else [content] if content else []
    words = [_part(each) for each in parts]
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        words.append(f"calls {function.get('name')}({function.get('arguments')})")
    if message.get("type") == "function_call":
        words.append(f"calls {message.get('name')}({message.get('arguments')})")
    return "\n".join(each for each in words if each)


def _part(part: Any) -> str:
    if isinstance(part, dict):
        return str(part["text"]) if isinstance(part.get("text"), str) else json.dumps(part, ensure_ascii=False)
    return str(part)


def _cut(text: str) -> str:
    """Its beginning and its end, if it is long."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"

"""Stagnation: why the reward of a run does not rise although nothing broke: no reward, no signal, no movement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from lightning_hub.drift import Drift, drift
from lightning_hub.findings import GROUPED, Finding, Severity
from lightning_hub.flatness import OPENING, Flatness, Why, flatness, level_of
from lightning_hub.record import NO_ROLE, Record, Scored, called
from lightning_hub.trend import CLEAR, FEWEST, Trend, trend

#: Answers to held-out tasks that stayed the same, as a part, and mean difference of their log-probs in nats, with which
#: a policy has not moved.
STILL_SAME, STILL_MOVED = 0.8, 0.003
#: Sum over all steps of the learning rate, which bounds how far AdamW moves a weight, below which no policy moves.
STILL_RATE = 1e-6
_STILL_STEPS = 10
#: Steps from which on a reward that does not rise is said.
_LONG = 20
#: How far a policy may well move in a run, in the same measure.
_TARGET = 0.05
#: Part of the groups in which all rewards are equal, from which on it is said, and fewest groups that it is said of.
FLAT = 0.7
_FLAT_GROUPS = 20
#: Part of a role's rollouts without a reward.
UNREWARDED = 0.2
#: Steps at a run's end without any signal that are no accident.
_SILENT = 5


def rewards_of(record: Record, role: str) -> list[tuple[int, float]]:
    """Step and mean reward of a role."""
    return record.series(f"reward_mean/{role}")


def trend_of(record: Record, role: str) -> Trend | None:
    """Of a role's mean reward, None for fewer than 3 steps."""
    values = [value for _, value in rewards_of(record, role)]
    return trend(values) if len(values) > 2 else None


def rises(record: Record) -> bool:
    """Whether the reward of some role rises."""
    return any(found is not None and found.rises for role in record.roles if (found := trend_of(record, role)))


def unheard(record: Record) -> Iterator[Finding]:
    """Roles that are to be trained and made no call."""
    missing = [role for role in record.settings.roles if role not in record.roles]
    if not missing or not record.steps:
        return
    others = ", ".join(record.roles)
    yield Finding(
        "role filter matched nothing" if len(missing) == len(record.settings.roles) else "role without calls",
        Severity.FATAL if len(missing) == len(record.settings.roles) else Severity.WARNING,
        f"in {len(record.steps)} steps no call of the role {', '.join(map(repr, missing))} of the setting roles was "
        f"trained; there were {others or 'none of any role'}.",
        "Either the name is misspelt, or that agent had nothing to do in these tasks.",
        f"Name roles as they are listed here: --roles {','.join(record.roles) or 'A,B'}; "
        "`lightning-sdk check agent.py:...` lists them too.",
    )


def unrewarded(record: Record) -> Iterator[Finding]:
    """Roles that no reward reaches, or not always."""
    without = [
        role for role in record.roles if record.values(f"rewards_missing/{role}") and not _rewarded(record, role)
    ]
    for role in without:
        yield Finding(
            "no reward",
            Severity.FATAL if len(without) == len(record.roles) else Severity.WARNING,
            f"in {len(record.steps)} steps {called(role)} never had a reward.",
            "A reward counts for the role it names, or for all roles if it is one number (credit.signal says which).",
            "Return one number from the reward function, or a dict with every role in it: {role: number}; or call "
            "lightning.emit_reward(value, role=...) in the agent.",
        )
    for role in (each for each in record.roles if each not in without):
        missing = record.total(f"rewards_missing/{role}")
        given = sum(role in each.rewards for each in record.scored)
        if given and missing > UNREWARDED * (missing + given):
            yield Finding(
                "no reward",
                Severity.WARNING,
                f"{missing:.0f} of {missing + given:.0f} rollouts of {called(role)} had no reward.",
                "They are left out: nothing is learned from them.",
                "Return a number in every case, 0 where nothing was earned.",
            )


def _rewarded(record: Record, role: str) -> bool:
    return bool(rewards_of(record, role))


def silent(record: Record) -> Iterator[Finding]:
    """Roles all of whose rewards are equal within every group, throughout or from some step on."""
    if record.status == "failed" and OPENING in record.error:
        return  # it stopped for that, and says so
    quiet = {role: found for role in record.roles if (found := _silent(record, role)) is not None}
    for role, (first, last, whole) in quiet.items():
        flat = _flatness(record, role, first)
        only = len(quiet) == len(record.roles)
        finding = flat.finding(
            Severity.FATAL if only and (whole or flat.why != Why.RIGHT) else Severity.WARNING,
            f"{OPENING}: from step {first} to {last} all rewards of {called(role)} were equal within each group"
            f"{_equal(record, role, first, last)}."
            if flat.why != Why.CUT
            else f"{OPENING}: from step {first} to {last} no token of {called(role)} was trained on, for its length.",
        )
        earlier = f" Some earned more before step {first}: an earlier checkpoint may be the better one to go on from."
        yield replace(finding, remedy=finding.remedy + (earlier if flat.why == Why.WRONG and not whole else ""))


def _flatness(record: Record, role: str, first: int) -> Flatness:
    """Why there was no signal from this step on, as the rollouts tell; where none is kept, as the rewards do."""
    name = "" if role == NO_ROLE else role
    seen = [each.rewards[role] for each in record.scored if role in each.rewards]
    late = [each for each in record.sample if int(each.group.partition("-")[0]) >= first]
    found = flatness(late, record.settings, record.tasks, role=name, seen=seen)
    if found is not None:
        return found
    values = [each.rewards[role] for each in record.scored if role in each.rewards and each.step >= first]
    values = values or [value for step, value in rewards_of(record, role) if step >= first]
    untrained = not any(record.values(f"tokens_trained/{role}")[-1:] or [1.0])
    return Flatness(Why.CUT if untrained else level_of(values, seen), (), record.settings, record.tasks, 0)


def _silent(record: Record, role: str) -> tuple[int, int, bool] | None:
    """First and last step of a stretch without signal that lasts to the end, and whether it is the whole run."""
    flat = dict(record.series(f"groups_without_signal/{role}") or record.series("groups_without_signal"))
    groups = dict(record.series(f"groups/{role}") or record.series("groups"))
    steps = [step for step, count in groups.items() if count and step in flat]
    trained = dict(record.series(f"tokens_trained/{role}"))
    cut = {step for step, tokens in record.series(f"tokens_masked_length/{role}") if tokens and not trained.get(step)}
    without = [flat[step] >= groups[step] or step in cut for step in steps]
    if not steps or not without[-1]:
        return None
    begin = next((at + 1 for at in range(len(steps) - 1, -1, -1) if not without[at]), 0)
    if begin and (len(steps) - begin < _SILENT or sum(groups[step] for step in steps[begin:]) < _FLAT_GROUPS):
        return None
    if record.settings.credit_of("" if role == NO_ROLE else role).advantage not in GROUPED:
        values = {each.rewards[role] for each in record.scored if role in each.rewards and each.step >= steps[begin]}
        if len(values) != 1 and steps[-1] not in cut:  # tasks are compared with each other
            return None
    return steps[begin], steps[-1], not begin


def _equal(record: Record, role: str, first: int, last: int) -> str:
    values = {each.rewards[role] for each in record.scored if role in each.rewards and first <= each.step <= last}
    if len(values) == 1:
        return f" (every reward was {values.pop():g})"
    return " (they differ between tasks only)" if values else ""


def flat(record: Record) -> Iterator[Finding]:
    """Roles that have a signal in few of their groups only, and on which side the others are."""
    if len(record.steps) < FEWEST or rises(record):
        return
    for role in record.roles:
        grouped = record.settings.credit_of("" if role == NO_ROLE else role).advantage in GROUPED
        if not grouped or _silent(record, role) is not None:
            continue
        groups = record.groups(role)
        groups = groups[len(groups) // 2 :]  # as the policy is now
        equal = [group for group in groups if len({each.rewards[role] for each in group}) == 1]
        if len(groups) < _FLAT_GROUPS or len(equal) < FLAT * len(groups):
            continue
        yield _flat(role, groups, equal)


def _flat(role: str, groups: list[list[Scored]], equal: list[list[Scored]]) -> Finding:
    values = [each.rewards[role] for group in groups for each in group]
    middle = (min(values) + max(values)) / 2
    high = sum(group[0].rewards[role] > middle for group in equal) / len(equal)
    easy, hard = high > FLAT, high < 1 - FLAT
    side = "too easy" if easy else "too hard" if hard else "either too easy or too hard"
    number = len(groups[0])
    remedy = "Take harder tasks" if easy else "Take easier tasks" if hard else "Take tasks of a middling difficulty"
    return Finding(
        "most groups flat",
        Severity.WARNING,
        f"in {len(equal)} of the last {len(groups)} groups of {called(role)} all {number} rewards were equal, "
        f"in {high:.0%} of these high and in {1 - high:.0%} low.",
        f"Nothing is learned from them: most tasks are {side} for this model.",
        f"{remedy}, or let such groups be replaced: --set algorithm.dynamic_sampling=2; more rollouts of each task "
        f"help too: --set rollouts.group_size={2 * number}.",
    )


def still(record: Record) -> Iterator[Finding]:
    """A policy that has signals and does not move: the learning rate is too low."""
    signals = len(record.steps) - sum(
        bool(groups) and flat >= groups
        for groups, flat in zip(record.values("groups"), record.values("groups_without_signal"), strict=False)
    )
    rates = record.values("learning_rate")
    if signals < FEWEST or not rates or rises(record) or not any(record.values("grad_norm")):
        return
    moved = drift(record.before, record.after)
    evidence = _measured(record, moved) or _bounded(record, rates, moved)
    if evidence:
        used = max(rates)
        times = _TARGET / max(moved.moved, 1e-7) if moved is not None else 1e-3 / sum(rates)
        yield Finding(
            "learning rate too low",
            Severity.FATAL,
            f"{evidence} The learning rate was {used:.1e} at most, in {len(record.steps)} steps, of which {signals} "
            f"had a signal; the gradient's norm was {_middle(record.values('grad_norm')):.2g}.",
            "There is something to learn and the weights hardly change.",
            "Leave optimizer.learning_rate out: one is chosen from the model's size; or raise it: "
            f"--set optimizer.learning_rate={max(3.0, times) * used:.0e}.",
        )


def _measured(record: Record, moved: Drift | None) -> str:
    kl = record.values("kl_reference")
    if moved is not None and moved.same >= STILL_SAME * moved.prompts and moved.moved < STILL_MOVED:
        return (
            f"The policy hardly moved: {moved.same} of {moved.prompts} held-out answers are the same before and after, "
            f"token for token, and a token's log-probability changed by {moved.moved:.1e} nats."
        )
    if moved is None and len(kl) >= FEWEST and max(kl) < STILL_MOVED**2:
        return f"The policy hardly moved: its KL divergence from where it began is {max(kl):.1e} nats at most."
    return ""


def _bounded(record: Record, rates: list[float], moved: Drift | None) -> str:
    """Before there is a second evaluation: that the rates are too small for any weight to move, and nothing did."""
    level = [trend_of(record, role) for role in record.roles]
    entropies = record.values("entropy")
    if moved is not None or len(record.steps) < _STILL_STEPS or sum(rates) >= STILL_RATE or not entropies:
        return ""
    if any(each is None or abs(each.clear) > CLEAR for each in [*level, trend(entropies)]):
        return ""
    return (
        f"The learning rates of all steps add up to {sum(rates):.1e}, and no weight can move by more than about that."
    )


def level(record: Record) -> Iterator[Finding]:
    """The last resort: a reward that does not rise, and nobody knows why."""
    for role in record.roles:
        found = trend_of(record, role)
        if found is None or found.n < _LONG or found.rises or found.falls:
            continue
        values = [value for _, value in rewards_of(record, role)]
        noise = sum(abs(b - a) for a, b in pairwise(values)) / (len(values) - 1)
        yield Finding(
            "reward flat",
            Severity.WARNING,
            f"the reward of {called(role)} went from {found.first:.3g} to {found.last:.3g} in {found.n} steps, "
            f"which is no more than its noise (two steps differ by {noise:.2g} on average).",
            "There may be too few steps or rollouts to see it, or the steps are too small.",
            f"Train longer, or take more rollouts a step: --set rollouts.tasks_per_step="
            f"{2 * record.settings.rollouts.tasks_per_step}; or larger steps: "
            f"--set optimizer.learning_rate={3 * max(record.values('learning_rate'), default=1e-5):.1e}.",
        )


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0

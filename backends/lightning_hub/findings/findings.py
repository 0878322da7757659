"""Findings: what can be wrong with a round of rollouts, each with its words: what happened, why, and what to type.

All of these texts are here: `lightning-sdk check` prints them, and a training stops or warns with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lightning_hub.findings.refused_calls import AT_PROVIDER, cause_and_remedy, failure_reason
from lightning_hub.trajectories.breaks import Reason
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.results.diagnosis import UncapturedCalls
from lightning_sdk.results.quantity import quantity
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call

_SEAMS = "the OpenAI SDK, the Anthropic SDK or LiteLLM"


def no_calls(rollouts: int, elsewhere: int = 0, outside: int = 0) -> Finding:
    """No call belongs to a rollout."""
    if elsewhere:
        cause, remedy = "Its requests were sent with a client that no integration reads; see that finding.", ""
    elif outside:
        cause = (
            f"{quantity(outside, 'call was', 'calls were')} made outside of every rollout meanwhile; see that finding."
        )
        remedy = ""
    else:
        cause = "It calls no model, uses a client that no integration reads, or gets its answers from a cache."
        remedy = (
            f"Make the calls with {_SEAMS}, or send them through `lightning-sdk gateway`; lightning.status() in the "
            "agent's process lists the integrations."
        )
    what = f"the agent made no model call in {quantity(rollouts, 'rollout')}, as far as could be seen."
    return Finding(kind="no model call", severity=Severity.FATAL, what=what, cause=cause, remedy=remedy)


def none_trainable(calls: Iterable[Call], rollouts: int, roles: Sequence[str]) -> Finding:
    """Calls were captured, but none of a role to train."""
    told = describe_roles(calls)
    if roles:
        return Finding(
            kind="role filter matched nothing",
            severity=Severity.FATAL,
            what=f"no call of the roles to train ({', '.join(roles)}) was captured in "
            f"{quantity(rollouts, 'rollout')}; there were {told}.",
            cause="",
            remedy="Name one of these in the setting roles (--roles), or leave it empty.",
        )
    return Finding(
        kind="nothing trainable",
        severity=Severity.FATAL,
        what=f"no call of a trainable role was captured in {quantity(rollouts, 'rollout')}; there were {told}.",
        cause="A role is trained only where the agent says so.",
        remedy="Put @lightning.agent(role=..., trainable=True) above the function that makes the calls, or name the "
        "roles to train: --roles A --roles B.",
    )


def roles_missing(missing: Sequence[str], calls: Iterable[Call]) -> Finding:
    """Some of the roles to train made no call."""
    names = ", ".join(map(repr, missing))
    return Finding(
        kind="role without calls",
        severity=Severity.WARNING,
        what=f"no call of the role {names} that the settings name was captured; there were {describe_roles(calls)}.",
        cause="Either the name is misspelt, or that agent had nothing to do in these tasks.",
        remedy="Use the names listed here: --roles A --roles B, or --set role.A.weight=0.5.",
    )


def calls_not_redirected(calls: Sequence[Call]) -> Finding:
    """Calls of roles to train that were recorded but went to their provider."""
    kinds = Counter((call.meta.role, call.meta.framework, call.meta.path) for call in calls)
    told = "; ".join(f"{n} of {role} by {seam} to {path}" for (role, seam, path), n in kinds.most_common(3))
    return Finding(
        kind="calls not redirected",
        severity=Severity.WARNING,
        what=quantity(
            len(calls),
            "call of a role to train was recorded and went to its own provider",
            "calls of roles to train were recorded and went to their own provider",
        )
        + f": {told}.",
        cause="They were made where the role was not marked trainable, or in a form that cannot be sent to the engine.",
        remedy="Make them inside the function under @lightning.agent(..., trainable=True), as chat completions.",
    )


def calls_failed(role: str, calls: Sequence[Call], *, alone: bool, at_provider: bool = False) -> Finding:
    """All calls of a role failed. `alone`: so did those of other roles, so that nothing can be learned."""
    counts = Counter(map(failure_reason, calls))
    first = counts.most_common(1)[0][0]
    failed = next(call for call in calls if failure_reason(call) == first)
    cause, remedy = AT_PROVIDER if at_provider and failed.meta.status != "cancelled" else cause_and_remedy(failed)
    whose = f"of the role {role}" if role else "without a role"
    none = f"not one of {len(calls)} calls {whose} succeeded" if len(calls) > 1 else f"the only call {whose} failed"
    others = f" (and {quantity(len(counts) - 1, 'other reason')})" if len(counts) > 1 else ""
    return Finding(
        kind="calls failed",
        severity=Severity.FATAL,
        what=f"{none}: {first.rstrip('.')}{others}.",
        cause=cause,
        remedy=remedy,
        passing=not alone,
    )


def unusable_calls(problems: Sequence[str], trainable: int) -> Finding:
    """Calls that succeeded without ids or log-probs; `trainable`: the number of trainable calls."""
    everything = len(problems) >= trainable
    many = f"{quantity(len(problems), 'call')} of trainable roles cannot"
    if everything:
        many = (
            f"none of the {trainable} calls of trainable roles can"
            if trainable > 1
            else "the only trainable call cannot"
        )
    cause, remedy = next((words for told, words in _UNUSABLE.items() if told in problems[0]), _IDS)
    return Finding(
        kind="ids or log-probs missing",
        severity=Severity.FATAL,
        what=f"{many} be trained on; the first: {problems[0].rstrip('.')}.",
        cause=cause,
        remedy=remedy,
    )


_IDS = (
    "Training needs the ids and log-probs that were sampled; text is never tokenised again.",
    "The server behind the role must support return_token_ids and logprobs, as Lightning's own backends do.",
)
#: What a problem says -> cause and remedy, where it is not that the server left something out.
_UNUSABLE = {
    "temperature": (
        "A distribution to learn from has a temperature above 0.",
        "Leave the temperature out of the agent's calls; training sets it: sampling.temperature.",
    ),
    "cannot be read": (
        "The reply is not in a known format.",
        "See hub.log in the run's folder; the server behind the role must speak OpenAI's or Anthropic's protocol.",
    ),
}


def calls_elsewhere(found: Sequence[UncapturedCalls], fatal: bool, off: Sequence[str] = ()) -> Finding:
    """Requests to models that no seam caught."""
    told = "; ".join(
        f"{each.count} to {each.place} through {each.client} by {', '.join(each.roles)}" for each in found[:4]
    )
    many = sum(each.count for each in found)
    cause = f"The integration for {', '.join(off)} is off." if off else "No integration reads this client."
    return Finding(
        kind="calls went elsewhere",
        severity=Severity.FATAL if fatal else Severity.WARNING,
        what=f"{quantity(many, 'call to a model was', 'calls to a model were')} not captured: {told}.",
        cause=cause + " They are not recorded; the server at that address answered them.",
        remedy=f"Make them with {_SEAMS}, or send them through `lightning-sdk gateway`.",
    )


def calls_outside(count: int, lost: int, fatal: bool) -> Finding:
    """Calls that belong to no rollout although rollouts ran; `lost`: how many are of roles to train."""
    which = f", {lost} of them of roles to train" if lost else ""
    return Finding(
        kind="context lost",
        severity=Severity.FATAL if fatal or lost else Severity.WARNING,
        what=f"{quantity(count, 'call was', 'calls were')} made outside of every rollout while rollouts ran{which}.",
        cause="They come from a thread or a task that several rollouts share or that outlives the rollout that started "
        "it, "
        "from a runtime that was started before, or from code that gets no context because of "
        "init(carry_context=False).",
        remedy="Submit the work to a ThreadPoolExecutor or a ThreadPool, which may be shared, or let each rollout "
        "start its "
        "threads and wait for them; if neither is possible, run one rollout per process: --set "
        "rollouts.runner=N with rollouts.concurrency=N.",
        passing=not fatal,
    )


def late_calls(count: int) -> Finding:
    """Calls that arrived after their rollout was over."""
    return Finding(
        kind="calls after the end",
        severity=Severity.FATAL,
        what=quantity(
            count,
            "call arrived after its rollout had ended, and is",
            "calls arrived after their rollout had ended, and are",
        )
        + " not trained on.",
        cause="Something outlives the rollout that started it and goes on in its context: a runtime, a worker process, "
        "a task that nothing waits for. Its work for other rollouts is filed under the wrong one.",
        remedy="Start it inside the agent function and stop it before the function returns, or give it its work "
        "through a pool: a ThreadPoolExecutor, a ProcessPoolExecutor or a multiprocessing.Pool.",
        passing=True,
    )


def no_reward(roles: Sequence[str], rollouts: int, fatal: bool) -> Finding:
    """Roles that made trainable calls and that no reward reaches."""
    none = f"none of {rollouts} rollouts has a reward" if rollouts > 1 else "the only rollout has no reward"
    return Finding(
        kind="no reward",
        severity=Severity.FATAL if fatal else Severity.WARNING,
        what=f"{none} for {', '.join(role or 'no role' for role in roles)}.",
        cause="A reward counts for the role it names, or for all roles if it is one number.",
        remedy="Return one number from the reward function, or a dict with every role in it: {role: number}; or call "
        "lightning.emit_reward(value, role=...) in the agent.",
    )


def reward_of_nobody(names: Sequence[str], roles: Sequence[str]) -> Finding:
    """Rewards for roles that made no call."""
    return Finding(
        kind="reward of nobody",
        severity=Severity.WARNING,
        what=f"the reward names {', '.join(map(repr, names))}, which made no call; roles that did: "
        f"{', '.join(role or 'no role' for role in roles)}.",
        cause="",
        remedy="Spell the roles in the reward's dict as they are listed here.",
    )


def weight_of_nothing(names: Sequence[str], given: Sequence[str]) -> Finding:
    """Weights for rewards that were never given."""
    return Finding(
        kind="weight of nothing",
        severity=Severity.WARNING,
        what=f"credit.rewards has a weight for {', '.join(map(repr, names))}, but no such reward was given; rewards "
        f"that were given: {', '.join(given)}.",
        cause="A reward has the name of its function, or the one passed to emit_reward() or @reward(name=...).",
        remedy="Use the names listed here.",
    )


def reward_not_repeatable(reward: str, again: int, different: int, first: float, second: float) -> Finding:
    """A reward that depends on more than the task and the answer."""
    return Finding(
        kind="reward not repeatable",
        severity=Severity.WARNING,
        what=f"{reward} gave {different} of {again} answers a different number when it scored the same task and answer "
        f"again, such as {first:.6g} and then {second:.6g}.",
        cause="It depends on more than the task and the answer: on chance, on the clock, or on what a rollout left "
        "behind. A rise of such a reward does not show that the agent improved.",
        remedy="Call it twice with the same task and answer and print both numbers. If a judge or a game is random on "
        "purpose, return the mean of several draws; if it reads some state, put that into the answer.",
    )


def broken_sequences(reasons: Mapping[Reason, int], joined: int, settings: Settings) -> Finding:
    """Turns that could have continued a row but opened another."""
    broken = sum(reasons.values())
    many = (
        "every turn broke its sequence" if not joined else f"{broken} of {broken + joined} turns broke their sequence"
    )
    told = ", ".join(f"{count} {reason}" for reason, count in Counter(reasons).most_common())
    worst = max(reasons, key=lambda reason: reasons[reason])
    cause, remedy = _BREAKS[worst]
    if worst is Reason.TEMPLATE and (settings.backend, settings.engine) not in _BY_IDS:
        cause += " Or it renders the same text, which then splits into different tokens than were sampled."
        remedy += " The embedded engine (backend=embedded, engine=auto) continues from the sampled tokens themselves."
    return Finding(
        kind="broken sequences",
        severity=Severity.WARNING,
        what=f"{many}: {told}. Each is trained as a separate row, which costs its whole context again.",
        cause=cause,
        remedy=remedy,
    )


#: Backends and engines that continue from the sampled ids where the text is the same.
_BY_IDS = frozenset({("embedded", "auto"), ("embedded", "embedded")})
_BREAKS = {
    Reason.TEMPLATE: (
        "The agent sent the conversation back unchanged, but the model's chat template renders an earlier turn "
        "differently from how it was sampled.",
        "Use a model whose chat template keeps earlier turns unchanged, or change chat_template.jinja in the model's "
        "folder. To keep the template, --set length.rows=call makes each call a row on purpose; what is learned is the "
        "same.",
    ),
    Reason.THINKING: (
        "The agent sent the conversation back unchanged, but the model's chat template leaves out the thinking of "
        "earlier turns (or, with thinking switched off, the empty block in its place), as Qwen3's does.",
        "Use a model that does not think, whose template keeps earlier turns (an instruct model such as "
        "Qwen/Qwen3-4B-Instruct-2507), or change chat_template.jinja in the model's folder so that it keeps what was "
        "sampled. Otherwise --set length.rows=call makes each call a row on purpose; what is learned is the same.",
    ),
    Reason.REFORMATTED: (
        "The framework parses a tool call and writes it again with different spacing, order or ids.",
        "Send the assistant message back unchanged, with tool_calls[].function.arguments as the same string.",
    ),
    Reason.NOT_KEPT: (
        "The agent sends an earlier answer back changed: stripped, parsed, shortened, or without its reasoning.",
        "Append response.choices[0].message itself to the messages.",
    ),
    Reason.REWRITTEN: (
        "The agent changes or drops earlier messages: a window, a summary, a system prompt with the time in it.",
        "Keep earlier messages as they are and append; put what changes into the last message.",
    ),
    Reason.TOOLS: (
        "The agent offers different tools from one turn to the next, or none, and the template writes them first.",
        "Offer the same tools in every turn of a conversation, including the last.",
    ),
    Reason.TEMPERATURE: (
        "The turns of one conversation were sampled at different temperatures.",
        "Leave the temperature out of the agent's calls; training sets it: sampling.temperature.",
    ),
}


def integration_off(name: str, why: str) -> Finding:
    """An integration that does not work in the agent's process."""
    return Finding(
        kind="integration off",
        severity=Severity.WARNING,
        what=f"the integration for {name} is off: {why.rstrip('.')}.",
        cause="Calls of its agents may be missed or unnamed.",
        remedy="",
    )


def describe_roles(calls: Iterable[Call]) -> str:
    """'4 of planner, 2 of no role'."""
    seen = Counter(call.meta.role or "no role" for call in calls)
    return ", ".join(f"{count} of {role}" for role, count in seen.most_common()) or "no calls"

"""The page of a run, `report.md`: a composed report in words, for people."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_hub.evaluation.judgement import NOT_MEASURED
from lightning_hub.results import phases_page, search_page
from lightning_hub.trajectories.reasons import describe_reason
from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.results.score import HeldOutScore, Interval

_MORE_OF_TRAINING = (
    "More steps, more held-out tasks (`evaluation.tasks`) or more seeds (`evaluation.seeds`, with "
    "`evaluation.temperature`)"
)
_MORE_OF_SEARCH = (
    "A larger budget (`prompts.budget_rollouts`), more held-out tasks (`evaluation.tasks`) or more seeds "
    "(`evaluation.seeds`)"
)


def markdown(report: RunReport, folder: str) -> str:
    """The page `report.md` of a composed report; `folder` is the run's, as the user would type it."""
    sections = [
        f"# {report.name}\n\n{_headline(report)}",
        _findings(report),
        _held_out_table(report),
        _roles_held_out(report),
        _reasons(report),
        phases_page.section(report),
        search_page.section(report),
        "![Reward per step, and the score on held-out tasks](curve.png)" if report.steps else "",
        _what_ran(report),
        _roles(report),
        _chosen_settings(report),
        _changed_settings(report),
        _go_on(report, folder),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(report: RunReport) -> str:
    if report.status == "failed":
        return (
            f"**This run failed** after {quantity(report.steps, 'step')}, so it has no result.\n\n"
            f"```text\n{report.error or 'unknown error'}\n```"
        )
    if not report.steps:
        return f"`{report.model}` was scored on held-out tasks, without training."
    if report.phases:
        return f"{phases_page.headline(report)}\n\n{_verdict_sentence(report)}"
    if report.is_search:
        return f"{search_page.headline(report)}\n\n{_verdict_sentence(report)}"
    began = f"`{report.model}` was trained for {quantity(report.steps, 'step')} with the `{report.backend}` backend"
    ended = "." if report.status == "finished" else f"; the run was {report.status} before its last step."
    return f"{began}{ended}\n\n{_verdict_sentence(report)}"


def _verdict_sentence(report: RunReport) -> str:
    if report.verdict == NOT_MEASURED:
        return f"Whether it is better was **not measured**: {report.verdict_reason}."
    why = f" {report.verdict_reason[0].upper()}{report.verdict_reason[1:]}." if report.verdict_reason else ""
    before, after, change = report.held_out["before"].score, report.held_out["after"].score, report.change
    moved = f"from {before.mean:.3f} to {after.mean:.3f} on held-out tasks"
    by = f" (by task: {_format_change(change)}{_pairing(change, before, after)})" if change else ""
    if report.search and report.search["nothing"] and before.mean == after.mean:
        return (
            f"**Kept**: no other texts were chosen, so the score on held-out tasks stays {before.mean:.3f}; they were "
            "not run again."
        )
    if report.verdict == "better":
        return f"**Better**: the score went {moved}{by}.{why}"
    if report.verdict == "worse":
        return f"**Worse**: the score went {moved}{by}.{why}"
    if any(each.is_fatal for each in report.findings):
        return f"**Not shown to be better**: the score went {moved}{by}. The reason why nothing was learned is below."
    return (
        f"**Not shown to be better**: the score went {moved}{by}, which may be due to chance.{why} "
        f"{_MORE_OF_SEARCH if report.is_search else _MORE_OF_TRAINING} could show it."
    )


def _findings(report: RunReport) -> str:
    """What `check` finds wrong with the run."""
    lines = [f"- **{each.severity}: {each.kind}**\n\n{_text_block(each)}" for each in report.findings]
    return "\n\n".join(["## What is wrong", *lines]) if lines else ""


def _text_block(finding: Finding) -> str:
    """What, cause and remedy as a block of text, since a finding may hold an agent's words."""
    said = "\n".join(part.rstrip() for part in (finding.what, finding.cause, finding.remedy) if part)
    return "\n".join(["  ```text", *(f"  {line}" for line in said.splitlines()), "  ```"])


def _format_change(change: Interval) -> str:
    bounds = "no interval" if change.low is None else f"95% interval {change.low:+.3f} to {change.high:+.3f}"
    return f"{change.mean:+.3f}, {bounds}, n={change.n}"


def _pairing(change: Interval, before: Interval, after: Interval) -> str:
    """On how many tasks the two are compared, where that is not all of them."""
    if change.n == before.n == after.n:
        return ""
    return f", over the tasks with a score in both; {before.n} had one before and {after.n} after"


def _held_out_table(report: RunReport) -> str:
    if not report.held_out:
        return ""
    lines = ["| held-out tasks | score | 95% interval | tasks | failed |", "|---|---|---|---|---|"]
    for name, score in _in_order(report):
        tasks = f"{score.score.n} x {score.seeds} seeds" if score.seeds > 1 else str(score.score.n)
        lines.append(
            f"| {name} (step {score.step}) | {_bounds(score.score, method=True)} | {tasks} | {_failed_cell(score)} |"
        )
    if report.change:
        tasks = f"{report.change.n} in both"
        lines.append(f"| after minus before, by task | {_bounds(report.change, sign='+')} | {tasks} | |")
    if any(score.failed for _, score in _in_order(report)):
        lines.append("\nA failed rollout has no score: it is left out of the mean, not counted as 0.")
    return "\n".join(lines)


def _in_order(report: RunReport) -> list[tuple[str, HeldOutScore]]:
    return sorted(report.held_out.items(), key=lambda item: (item[1].step, item[0] != "before"))


def _bounds(score: Interval, sign: str = "", *, method: bool = False) -> str:
    """Two cells: mean and interval."""
    mean = "-" if score.mean is None else f"{score.mean:{sign}.3f}"
    how = f" ({score.method})" if method else ""
    return f"{mean} | " + ("-" if score.low is None else f"{score.low:{sign}.3f} to {score.high:{sign}.3f}{how}")


def _failed_cell(score: HeldOutScore) -> str:
    told = ", ".join(f"{count} {_words(status)}" for status, count in score.failures.items())
    return f"{score.failed} ({told})" if told else str(score.failed)


def _roles_held_out(report: RunReport) -> str:
    """What the roles with their own rewards earned."""
    lines = [
        f"| {role} | {name} | {_bounds(score.roles[role])} | {score.roles[role].n} |"
        for role in dict.fromkeys(role for _, score in _in_order(report) for role in score.roles)
        for name, score in _in_order(report)
        if role in score.roles
    ]
    lines += [
        f"| {role} | after minus before, by task | {_bounds(change, sign='+')} | {change.n} |"
        for role, change in report.change_by_role.items()
    ]
    head = [
        "By role, on the same tasks:",
        "",
        "| role | | own reward | 95% interval | tasks |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) if lines else ""


def _reasons(report: RunReport) -> str:
    """What rewards said in words at the last measurement: as a block of text, since they may quote an answer."""
    for name, last in _in_order(report)[-1:]:
        if lines := [f"{each.count:,} x {each.mean:.3g}, {describe_reason(each)}" for each in last.reasons]:
            head = f"Why, by the most frequent reasons of the rewards ({name}):"
            return "\n".join([head, "", "```text", *lines, "```"])
    return ""


def _what_ran(report: RunReport) -> str:
    if not report.rollouts:
        told = f"{report.tokens:,} sampled tokens of stored rollouts trained on"
        ran = f"## What ran\n\n{told}, in {_minutes(report.train_seconds)}.{_describe_distillation(report)}"
        return ran if report.tokens else ""
    if report.is_search and report.search:
        return "\n".join(["## What ran", "", f"{report.rollouts:,} rollouts of the search.", *_failures(report)])
    lines = [
        "## What ran",
        "",
        f"{report.rollouts:,} training rollouts, {report.calls:,} trainable calls and {report.tokens:,} "
        f"sampled tokens trained on, in {_minutes(report.train_seconds)}.",
    ]
    if report.tokens_masked:
        lines += ["", _describe_masked(report)]
    if report.staleness:
        stale = report.staleness
        lines += [
            "",
            f"Asynchronous: on average, tokens were {stale.mean:.2f} versions older than the model they trained, "
            f"and at most {stale.max:.0f} (`rollouts.staleness={stale.bound}`).",
        ]
    return "\n".join([*lines, *_failures(report)])


def _describe_distillation(report: RunReport) -> str:
    """What a prompt that went into the weights saves."""
    if (saved := report.facts.get("prompt_tokens_saved_per_call")) is None:
        return ""
    tuned, own = (report.facts[f"prompt_tokens_per_call_{which}"] for which in ("tuned", "own"))
    return (
        f" The texts of candidate `{report.facts['distilled_candidate']}` were distilled: without them, a call reads "
        f"{saved:g} tokens less (on average {own:g} instead of {tuned:g}). `prompted` is the score with these texts, "
        "before training; `after` is that of the trained model with the agent's own texts."
    )


def _describe_masked(report: RunReport) -> str:
    masked, length = report.tokens_masked, report.tokens_masked_length
    reasons = [f"{length:,} because a completion or its row was too long (`length.*`)"] if length else []
    if masked > length:
        rest = "the others" if length else "all of them"
        reasons.append(
            f"{rest} because it was not their role's turn, it had no reward, or other tasks replaced their group"
        )
    return f"{masked:,} sampled tokens were not trained on: {', '.join(reasons)}."


def _failures(report: RunReport) -> list[str]:
    failures = report.failures
    failed = {status: n for status, n in report.rollouts_by_status.items() if status != "ok" and n}
    lines = ["", "| rollouts that failed | | what was done |", "|---|---|---|"] if failed else []
    lines += [f"| {_words(status)} | {count:,} | {failures.done.get(status, '')} |" for status, count in failed.items()]
    kinds = {
        "attempts that were repeated": failures.retries,
        "rollouts that replaced excluded ones": failures.refilled,
        "rollouts ended by `rollouts.deadline`": failures.deadline_timeouts,
        "groups without signal, replaced by other tasks": failures.resampled_groups,
    }
    counts = [f"{count:,} {words}" for words, count in kinds.items() if count]
    return [*lines, "", f"Also: {'; '.join(counts)}."] if counts else lines


def _roles(report: RunReport) -> str:
    """The last step, where there is more than one role to tell apart."""
    roles = report.roles
    if len(roles) < 2:
        return ""
    lines = [
        f"## Roles in step {report.steps}",
        "",
        "| role | reward | spread | groups without signal | entropy | sampler minus trainer | clipped "
        "| KL to reference | rows a rollout | tokens trained | masked |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {role} | {' | '.join(_cells(found))} |" for role, found in roles.items())])


def _cells(found: Mapping[str, float | None]) -> list[str]:
    groups, flat = found.get("groups"), found.get("groups_without_signal")
    return [
        _number(found.get("reward_mean"), ".3f"),
        _number(found.get("reward_std"), ".3f"),
        f"{flat:.0f} of {groups:.0f}" if groups and flat is not None else "-",
        _number(found.get("entropy"), ".3f"),
        _number(found.get("kl_sampler"), "+.2g"),
        _number(found.get("clip_fraction"), ".1%"),
        _number(found.get("kl_reference"), ".4f"),
        _number(found.get("rows_per_rollout"), ".2f"),
        _number(found.get("tokens_trained"), ",.0f"),
        _number(found.get("tokens_masked"), ",.0f"),
    ]


def _number(value: float | None, shape: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, shape)


def _words(status: str) -> str:
    return status.replace("_", " ")


def _chosen_settings(report: RunReport) -> str:
    """What was chosen where the settings left it open, and other facts of the run."""
    facts = {name: value for name, value in report.facts.items() if isinstance(value, str | int | float | bool)}
    if not facts:
        return ""
    lines = ["## Chosen for you", "", "| setting or fact | value |", "|---|---|"]
    lines += [f"| {name} | {_format_value(value)} |" for name, value in facts.items()]
    return "\n".join([*lines, "", "All settings are in `config.json`."])


def _changed_settings(report: RunReport) -> str:
    """Settings that changed when the run went on: those in `config.json` did not hold from its first step."""
    lines = [
        f"| {each.after_step} | {name} | {_format_value(before)} | {_format_value(after)} |"
        for each in report.resumed
        for name, (before, after) in each.changed.items()
    ]
    head = ["## Changed while resuming", "", "| after step | setting | before | after |", "|---|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else ""


def _go_on(report: RunReport, folder: str) -> str:
    lines = ["## What to do next", ""]
    if report.checkpoint:
        lines += [
            f"- Train further: `lightning-sdk train --resume {folder}`, and `--steps` with the new total.",
            f"- Serve it as an OpenAI-compatible API: `lightning-sdk serve --model {folder}/{report.checkpoint}`.",
            f"- The model, in Hugging Face format: `{folder}/{report.checkpoint}`.",
        ]
    lines += [
        "- Compare runs: `lightning-sdk runs`.",
        f"- All curves: `tensorboard --logdir {folder}/tensorboard`.",
    ]
    return "\n".join(lines)


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _format_value(value: str | float) -> str:
    if isinstance(value, bool) or not isinstance(value, float) or not math.isfinite(value):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"{value:.6g}"

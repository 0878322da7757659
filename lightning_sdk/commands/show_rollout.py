"""A rollout as text: what it earned and why, the tree of what happened, and the conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_sdk.commands.show_run import STATUS_COLOURS
from lightning_sdk.terminal.labelled import label_lines
from lightning_sdk.terminal.numbers import format_number, format_score, format_seconds
from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.table import draw_table
from lightning_sdk.terminal.visible_text import make_line, make_visible
from lightning_sdk.terminal.width import cut, display_width, pad, wrap

#: Lines of one message, of a task and of an answer that are shown; all of them with `whole`.
_MOST_LINES = 20
#: Columns of the tree's durations.
_DURATION_COLUMNS = 12


def describe_rollout(
    rollout: Mapping[str, Any], tokens: Mapping[str, Any], screen: Screen, *, whole: bool = False
) -> list[str]:
    """Lines about what the views `rollout` and `tokens` answer."""
    return [
        *_head(rollout, screen, 0 if whole else _MOST_LINES),
        *_rewards(rollout, screen),
        *_attempts(rollout, screen),
        *_notes(rollout, tokens, screen),
        "",
        *_tree(rollout, tokens["credit"], screen),
        "",
        *_conversation(rollout, screen, 0 if whole else _MOST_LINES),
    ]


def _head(rollout: Mapping[str, Any], screen: Screen, most: int) -> Iterator[str]:
    place = rollout["place"] or {}
    when = f"step {place['step']}" if place.get("step") is not None else place.get("evaluation") or place.get("mode")
    facts = [
        str(when or ""),
        f"task {place['task_id']}" if place else "",
        f"reward {format_score(place.get('reward'))}",
    ]
    facts += [f"took {format_seconds(place.get('seconds'))}"]
    mates = [each["id"] for each in rollout["group"]]
    if len(mates) > 1:
        facts.append(f"rollout {mates.index(rollout['id']) + 1} of {len(mates)} in group {place['group']}")
    status = rollout["status"]
    told = make_line(", ".join(filter(None, facts)))
    name = cut(rollout["id"], screen.width - len(status) - 2, mark=screen.sign("…", "..."))
    yield f"{screen.paint(name, 'bold')}  {screen.paint(status, STATUS_COLOURS.get(status, 'red'))}"
    yield from wrap(told, screen.width)
    if rollout["error"]:
        yield from label_lines("error", rollout["error"], screen, "red", most)
    yield from label_lines("task", to_text(rollout["task"]), screen, most=most)
    yield from label_lines("answer", rollout["answer"] or "none", screen, most=most)


def to_text(value: Any) -> str:
    """Plain data as people read it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- rewards


def _rewards(rollout: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """What each role earned, and each reward as it was given, with its reason."""
    if rollout["roles"]:
        earned = ", ".join(f"{role} {format_number(value)}" for role, value in rollout["roles"].items())
        yield from label_lines("roles", earned, screen)
    if not rollout["rewards"]:
        yield from label_lines("rewards", "none was given", screen)
    for at, each in enumerate(rollout["rewards"]):
        told = _describe_reward(each, rollout["weights"].get(each["name"], 1))
        yield from label_lines("" if at else "rewards", told, screen, "" if each["counts"] else "dim")


def _describe_reward(reward: Mapping[str, Any], weight: float) -> str:
    who = f" of {reward['role']}" if reward["role"] else ""
    value = "refused" if reward["refused"] else format_number(reward["value"])
    weighted = f" x {format_number(weight)}" if weight != 1 else ""
    when = f", by re-scoring {reward['rescoring']}" if reward["rescoring"] else ""
    replaced = "" if reward["counts"] or reward["refused"] else ", replaced since"
    why = reward["refused"] or reward["why"]
    return f"{reward['name']}{who} {value}{weighted}{when}{replaced}" + (f": {why}" if why else "")


def _attempts(rollout: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    if len(rollout["attempts"]) < 2:
        return
    for at, each in enumerate(rollout["attempts"]):
        shown = " (shown)" if each["attempt"] == rollout["attempt"] else ""
        took = f" after {format_seconds(each['seconds'])}" if each["seconds"] is not None else ""
        why = f": {each['error']}" if each["error"] else ""
        told = f"{each['attempt']}{shown} {each['status']}{took} on {each['runner'] or 'an unknown runner'}{why}"
        yield from label_lines("" if at else "attempts", told, screen)


def _notes(rollout: Mapping[str, Any], tokens: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """What cannot be shown, and why."""
    if rollout["missing"]:
        yield from label_lines("missing", rollout["missing"], screen, "yellow")
    if missing := dict.fromkeys(row["missing"] for row in tokens["rows"] if row["missing"]):
        yield from label_lines("credit", f"not shown: {'; '.join(missing)}", screen)


# --- the tree


def number_calls(rollout: Mapping[str, Any]) -> dict[str, int]:
    """Call -> its number, from 1, in the order in which they began."""
    return {turn["call"]: number for number, turn in enumerate(rollout["turns"], 1)}


def _tree(rollout: Mapping[str, Any], credit: Mapping[str, float], screen: Screen) -> Iterator[str]:
    """Every span below the one that encloses it, with its duration."""
    below: dict[str, list[Mapping[str, Any]]] = {}
    for span in rollout["spans"]:
        below.setdefault(span["parent"], []).append(span)
    numbers, root = number_calls(rollout), rollout["spans"][0]
    yield _span_line(root, "", numbers, credit, screen)
    yield from _branch(root["id"], "", below, {root["id"]}, (numbers, credit, screen))


def _branch(
    parent: str,
    indent: str,
    below: Mapping[str, Sequence[Mapping[str, Any]]],
    seen: set[str],
    shown: tuple[Mapping[str, int], Mapping[str, float], Screen],
) -> Iterator[str]:
    screen = shown[-1]
    spans = [each for each in below.get(parent, ()) if each["id"] not in seen]  # strangers may enclose each other
    for at, span in enumerate(spans):
        seen.add(span["id"])
        last = at == len(spans) - 1
        sign = screen.sign("└─ ", "`- ") if last else screen.sign("├─ ", "|- ")
        yield _span_line(span, indent + sign, *shown)
        further = indent + ("   " if last else screen.sign("│  ", "|  "))
        yield from _branch(span["id"], further, below, seen, shown)


def _span_line(
    span: Mapping[str, Any], indent: str, numbers: Mapping[str, int], credit: Mapping[str, float], screen: Screen
) -> str:
    took = format_seconds((span["end"] - span["start"]) / 1000)
    room = screen.room(100) - _DURATION_COLUMNS - display_width(indent)
    told = _describe_call(span, numbers, credit) if span["kind"] == "call" else _describe_span(span)
    text = pad(cut(told, max(8, room), mark=screen.sign("…", "...")), max(8, room))
    is_wrong = span["status"] != "ok" and span["kind"] != "rollout"
    colour = "red" if is_wrong else "" if span["kind"] == "call" else "bold" if span["role"] else "dim"
    return f"{screen.paint(indent, 'dim')}{screen.paint(text, colour)}{took:>{_DURATION_COLUMNS}}"


def _describe_span(span: Mapping[str, Any]) -> str:
    kind = "" if span["kind"] in {"rollout", "agent", "span"} else f"{span['kind']} "
    role = f"{span['role']} " if span["role"] and span["role"] not in span["name"] else ""
    status = f" {span['status']}: {span['error']}" if span["status"] != "ok" and span["kind"] != "rollout" else ""
    return make_line(f"{kind}{role}{span['name']}{status}")


def _describe_call(span: Mapping[str, Any], numbers: Mapping[str, int], credit: Mapping[str, float]) -> str:
    parts = [f"call {numbers.get(span['id'], '?')} {span['role'] or 'no role'}"]
    parts += [f"advantage {credit[span['id']]:+.3g}"] if span["id"] in credit else []
    parts += [f"{span['input_tokens'] or 0} tokens in, {span['output_tokens'] or 0} out"]
    parts += [", ".join(filter(None, span["finish"]))] if any(span["finish"]) else []
    parts += [] if span["trainable"] else ["not trained"]
    parts += [f"{span['status']}: {span['error'] or span['problem']}"] if span["status"] != "ok" else []
    return "  ".join(make_line(each) for each in (*parts, span["name"]))


# --- the conversation


def _conversation(rollout: Mapping[str, Any], screen: Screen, most: int) -> Iterator[str]:
    """Of each call what its role had not been sent before, and the reply."""
    if not rollout["turns"]:
        yield from label_lines("calls", "none was recorded", screen)
    for number, turn in enumerate(rollout["turns"], 1):
        before = f", after {turn['shared']} messages that it had before" if turn["shared"] else ""
        head = make_line(f"call {number} {turn['role'] or 'no role'}{before}")
        yield screen.paint(cut(head, screen.width), "bold")
        for message in turn["messages"]:
            yield from message_lines(message, screen, most)
        for reply in turn["replies"]:
            yield from message_lines(reply, screen, most, "green")
        if turn["error"]:
            yield from label_lines("error", turn["error"], screen, "red", most)


def message_lines(message: Mapping[str, Any], screen: Screen, most: int = 0, colour: str = "") -> list[str]:
    """A message behind the role that it is from."""
    text = "\n".join(map(part_text, message.get("parts") or ())) or "(empty)"
    return label_lines(str(message.get("role") or ""), text, screen, colour, most)


def part_text(part: Any) -> str:
    """One part of a message: its text, or what it asks a tool for, or what that answered."""
    if not isinstance(part, dict):
        return to_text(part)
    match part.get("type"):
        case "tool_call":
            return f"-> {part.get('name')}({to_text(part.get('arguments') or '')})"
        case "tool_call_response":
            return to_text(part.get("response"))
        case "reasoning":
            return f"(thinks) {part.get('content')}"
        case _:
            content = part.get("content")
            return content if isinstance(content, str) else to_text(part)


def describe_call(call: Mapping[str, Any], number: int, screen: Screen) -> list[str]:
    """Lines about what the view `call` answers: its whole request, and each reply."""
    lines = [screen.paint(f"call {number}  {make_line(call['id'])}", "bold")]
    for message in call["messages"]:
        lines += message_lines(message, screen)
    if not call["messages"]:
        lines += label_lines("request", to_text(call["request"]), screen)
    for reply in call["replies"]:
        lines += message_lines(reply["message"], screen, colour="green")
        lines += label_lines("", f"({reply['tokens']} tokens, {reply['finish'] or 'no finish reason'})", screen, "dim")
    if call["unread"]:
        lines += label_lines("unread", call["unread"], screen, "red")
    return lines


def describe_rollouts(rollouts: Mapping[str, Any], screen: Screen) -> list[str]:
    """A table of what the view `rollouts` answers."""
    rows = [
        [
            each["id"][:8],
            str(each["step"]) if each["step"] is not None else make_line(each["evaluation"] or each["mode"]),
            each["task_id"],
            each["status"],
            format_score(each["reward"]),
            format_seconds(each["seconds"]),
            make_line(each.get("error") or each.get("answer") or "") or "-",
        ]
        for each in rollouts["rows"]
    ]
    if not rows:
        return [f"none of {rollouts['all']} rollouts"]
    head = ("rollout", "step", "task", "status", "reward", "took", "answer, or error")
    told = f"{len(rows)} of {rollouts['total']} rollouts, mean reward {format_score(rollouts['summary']['mean'])}"
    return [*draw_table(head, rows, screen, numbers="lrrlrr"), make_visible(told)]

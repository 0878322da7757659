"""The tokens of a rollout as text: the exact ids that were sampled, each with its log-prob and its advantage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_sdk.terminal.labelled import label_lines
from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.visible_text import make_line, make_visible
from lightning_sdk.terminal.width import cut, pad

_ID_COLUMNS, _TEXT_COLUMNS = 7, 16


def describe_tokens(tokens: Mapping[str, Any], numbers: Mapping[str, int], screen: Screen, call: str = "") -> list[str]:
    """Lines about what the view `tokens` answers; `call`: of this one only. `numbers`: call -> its number."""
    lines: list[str] = []
    rows = [row for row in tokens["rows"] if not call or call in {each["call"] for each in row["pieces"]}]
    for number, row in enumerate(tokens["rows"], 1):
        if row in rows:
            lines += [*_describe_row(row, f"row {number} of {len(tokens['rows'])}", numbers, screen, call), ""]
    if not rows:
        lines.append(tokens["missing"] or "no trained call was recorded here, so no tokens are known")
    for role, means in tokens["step_means"].items():
        known = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in means.items() if value is not None]
        if known and rows:
            told = f"{role or 'no role'}: {', '.join(known)}, on average over its tokens of the step"
            lines += label_lines("learner", told, screen)
    return lines


def _describe_row(
    row: Mapping[str, Any], name: str, numbers: Mapping[str, int], screen: Screen, call: str
) -> Iterator[str]:
    told = f"{name}, {row['role'] or 'no role'}: {row['length']} tokens, {row['sampled']} sampled"
    yield screen.paint(cut(make_line(f"{told}, temperature {row['temperature']:g}"), screen.width), "bold")
    if row["opening"] is not None:
        at = f", from token {row['differs_at']} on" if row["differs_at"] is not None else ""
        earlier = numbers.get(row["opening"]["previous"], "?")
        yield from label_lines("", f"does not continue call {earlier}: {row['opening']['reason']}{at}", screen)
    if row["missing"]:
        yield from label_lines("", f"no advantages: {row['missing']}", screen)
    end = 0
    for piece in row["pieces"]:
        if not call or piece["call"] == call:
            context = piece["start"] - end
            asked = f" after {context} tokens of context" if context else ""
            finish = f", ended by {piece['finish']}" if piece["finish"] else ""
            yield cut(make_line(f"call {numbers.get(piece['call'], '?')}{asked}{finish}"), screen.width)
            yield from _piece_lines(row, piece, screen)
        end = piece["end"]


def _piece_lines(row: Mapping[str, Any], piece: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    head = f"{'':2}{'id':>{_ID_COLUMNS}}  {'token':<{_TEXT_COLUMNS}}{'log-prob':>9}{'advantage':>11}  version"
    yield screen.paint(cut(head, screen.width), "dim")
    sent = len(row["ids"])
    for at in range(piece["start"], min(piece["end"], sent)):
        yield _token_line(row, at, screen)
    if piece["end"] > sent:
        yield f"  ... {piece['end'] - max(sent, piece['start'])} more tokens of a long row"


def _token_line(row: Mapping[str, Any], at: int, screen: Screen) -> str:
    text = row["texts"][at] if row["texts"] is not None else None
    shown = "?" if text is None else spell_token(text)
    mark = screen.sign("…", "...")
    advantage = row["advantages"][at] if row["advantages"] is not None else None
    trained = "" if row["trained"][at] else "  not trained"
    line = (
        f"{'':2}{row['ids'][at]:>{_ID_COLUMNS}}  {pad(cut(shown, _TEXT_COLUMNS - 1, mark=mark), _TEXT_COLUMNS)}"
        f"{_format(row['logprobs'][at], '.3f'):>9}{_format(advantage, '+.3f'):>11}"
        f"  {_format(row['versions'][at], 'd')}{trained}"
    )
    colour = "" if not advantage else "green" if advantage > 0 else "red"
    return screen.paint(cut(line, screen.width), colour)


def spell_token(text: str) -> str:
    """A token's text in one column of a table: spaces and line ends are seen."""
    return make_visible(text).replace("\n", "\\n").replace("\t", "\\t").replace(" ", "\u00b7")


def _format(value: float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)

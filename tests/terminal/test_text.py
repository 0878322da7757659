"""Text on a terminal: harmless, as wide as it seems, in colour only where that is wanted."""

from __future__ import annotations

import io
import os
import pty
from pathlib import Path

import pytest
from hypothesis import given, strategies

from lightning_sdk.terminal.labelled import label_lines
from lightning_sdk.terminal.numbers import format_interval, format_number, format_seconds
from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.small_curve import draw_curve
from lightning_sdk.terminal.table import draw_table
from lightning_sdk.terminal.visible_text import make_line, make_visible
from lightning_sdk.terminal.width import cut, display_width, wrap


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("good\rbad", "good␍bad"),
        ("\x9b2J", "<U+009B>2J"),
        ("\x7f\x08", "␡␈"),
        ("user\u202eresu", "user<U+202E>resu"),
        ("a\u2066b\u2069c\u200fd", "a<U+2066>b<U+2069>c<U+200F>d"),
        ("\U000e0041", "<U+E0041>"),
        ("one\u2028two", "one<U+2028>two"),
        ("\ud800", "<U+D800>"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("5 × 3 = 15 €, 日本語, 👩\u200d💻, é", "5 × 3 = 15 €, 日本語, 👩\u200d💻, é"),
    ],
)
def test_what_a_terminal_would_act_on_is_spelled_out(text: str, shown: str) -> None:
    """Controls, bidirectional overrides and hidden letters are seen; letters and pictures stay."""
    assert make_visible(text) == shown


@given(strategies.text(strategies.characters(), max_size=60))
def test_no_control_reaches_the_terminal(text: str) -> None:
    """Whatever the text: it can be written, and holds no control but line ends and tabs."""
    shown = make_visible(text)
    shown.encode()
    assert not {*map(chr, (*range(32), *range(0x7F, 0xA0)))}.difference("\n\t").intersection(shown)
    assert "\n" not in make_line(text)


@given(strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=60), strategies.integers(4, 30))
def test_lines_are_as_wide_as_was_asked(text: str, width: int) -> None:
    """Broken or cut, also where letters take two columns; nothing but spaces is lost where lines are broken."""
    shown = make_visible(text)
    lines = wrap(shown, width)
    assert all(display_width(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(shown.split())
    assert display_width(cut(make_line(text), width)) <= width


def test_wide_letters_take_two_columns() -> None:
    """Tables of Chinese, Japanese and Korean stay straight."""
    assert display_width("日本語") == 6 and display_width("한글") == 4 and display_width("e\u0301") == 1
    assert cut("日本語の答え", 7) == "日本語…" and cut("日本語の答え", 7, from_end=True) == "…の答え"
    lines = draw_table(("name", "what"), [["日本", "one"], ["abc", "two"]], Screen())
    assert lines == ["name  what", "日本  one", "abc   two"]


def test_a_table_gives_way_where_it_is_narrow() -> None:
    """The last column first."""
    rows = [["a" * 10, "b" * 40]]
    assert draw_table(("one", "two"), rows, Screen(width=30))[1] == "a" * 10 + "  " + "b" * 17 + "…"
    assert all(len(line) <= 12 for line in draw_table(("one", "two"), rows, Screen(width=12)))


def test_a_label_stands_before_the_first_line_alone() -> None:
    """Long texts are cut where that was asked, and say so."""
    assert label_lines("task", "one two\nthree", Screen(width=17)) == ["task      one two", "          three"]
    assert label_lines("", "1\n2\n3\n4", Screen(), most=2)[1].split() == ["...", "3", "more", "lines", "(--whole)"]


def test_curves_are_drawn_in_the_columns_there_are() -> None:
    """One for each step, or means of several; what is not known is a gap; ASCII where nothing else is shown."""
    assert draw_curve([0.0, 0.5, None, 1.0], Screen(), 10) == "▁▅ █"
    assert draw_curve([0.0, 1.0], Screen(signs=False), 10) == "_#"
    assert len(draw_curve(list(range(1000)), Screen(), 40)) == 40
    assert draw_curve([1.0, 1.0], Screen(), 10, (0.0, 1.0)) == "██"
    assert draw_curve([], Screen(), 10) == ""


def test_numbers_are_short() -> None:
    """As on the page."""
    assert [format_number(each) for each in (None, 3.0, 12345.6, 3531.4, 999.7, 0.12345, 0.00012)] == [
        "-", "3", "12,346", "3,531", "1,000", "0.123", "1.2e-04",
    ]  # fmt: skip
    assert format_interval({"mean": 0.5, "low": 0.25, "high": 0.75}, "+") == "+0.500 [+0.250, +0.750]"
    assert format_interval({"mean": 0.5, "low": None, "high": None}) == "0.500" and format_interval(None) == "-"
    assert [format_seconds(each) for each in (0.35, 12.34, 200, 7500)] == [
        "350 ms",
        "12.3 s",
        "3 min 20 s",
        "2 h 5 min",
    ]


def test_colours_are_for_terminals_that_want_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for files and pipes, and not with NO_COLOR or a dumb terminal."""
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not Screen.of(io.StringIO()).colours
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        assert Screen.of(terminal).paint("x", "red") == "\x1b[31mx\x1b[0m"
        monkeypatch.setenv("NO_COLOR", "1")
        assert Screen.of(terminal).paint("x", "red") == "x"
        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("TERM", "dumb")
        assert not Screen.of(terminal).colours
    os.close(master)
    with (tmp_path / "file").open("w", encoding="ascii") as file:
        assert not Screen.of(file).signs
        monkeypatch.setenv("COLUMNS", "50")
        assert Screen.of(file).width == 50

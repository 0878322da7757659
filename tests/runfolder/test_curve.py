"""The curve as a picture and as text."""

import math
import struct
from pathlib import Path

import pytest
from matplotlib.image import imread

from lightning_hub.results.curve import draw_png, draw_text, smooth
from lightning_hub.statistics.interval import interval
from lightning_sdk.results.score import Interval

REWARDS = [(step, step / 40) for step in range(1, 41)]
HELD_OUT = [(0, interval([0.0, 1.0, 0.0, 0.0])), (40, interval([1.0, 1.0, 1.0, 0.0]))]


def pixels(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's header."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize(
    ("rewards", "held_out"),
    [(REWARDS, HELD_OUT), (REWARDS[:1], []), ([], HELD_OUT[:1]), ([], []), ([(1, -3.0), (2, 250.0)], [])],
    ids=["a run", "one step", "only before", "nothing", "large rewards"],
)
def test_every_run_has_a_picture(tmp_path: Path, rewards: list[tuple[int, float]], held_out: list) -> None:  # type: ignore[type-arg]
    """A readable size, whatever there is to show."""
    draw_png(tmp_path / "curve.png", rewards, held_out, "a run")
    assert pixels(tmp_path / "curve.png") == (1200, 675)


def test_a_score_without_interval_is_drawn_too(tmp_path: Path) -> None:
    """NaN bounds do not become error bars of length NaN."""
    one = Interval(mean=0.5, low=math.nan, high=math.nan, n=1, method="none")
    draw_png(tmp_path / "curve.png", REWARDS, [(0, one), (40, interval([]))])
    assert "●" in draw_text(REWARDS, [(0, one), (40, interval([]))])


def test_the_text_fits_and_rises() -> None:
    """Within the size that was asked for; a rising reward starts at the lower left and ends at the upper right."""
    lines = draw_text(REWARDS, HELD_OUT, width=60, height=14, plain=True).splitlines()
    assert len(lines) == 14
    assert max(map(len, lines)) <= 60
    braille = [(y, x) for y, line in enumerate(lines[1:], 1) for x, mark in enumerate(line) if "⠁" <= mark <= "⣿"]
    left, right = min(braille, key=lambda at: at[1]), max(braille, key=lambda at: at[1])
    assert left[0] > right[0] + 4
    assert "step" in lines[-1]


def test_colour_codes_only_where_they_are_wanted() -> None:
    """Plain text for logs and files."""
    assert "\x1b[" in draw_text(REWARDS, HELD_OUT)
    assert "\x1b" not in draw_text(REWARDS, HELD_OUT, plain=True)


def test_drawing_twice_shows_the_second_curve_only() -> None:
    """plotext keeps one figure for the process; nothing of an earlier curve may stay."""
    assert "●" in draw_text(REWARDS, HELD_OUT, plain=True)
    assert "●" not in draw_text(REWARDS, [], plain=True)


def test_nothing_to_draw_says_so() -> None:
    """Before the first step no empty frame is drawn."""
    assert draw_text([], []) == "no rewards yet"


def test_smoothing_keeps_a_constant_and_the_mean_level() -> None:
    """A window that is cut at the ends does not pull the ends to zero."""
    assert smooth([0.5] * 30) == pytest.approx([0.5] * 30)
    jagged = smooth([0.0, 1.0] * 30)
    assert jagged[5:-5] == pytest.approx([0.5] * 50, abs=0.05)


def colours(path: Path) -> set[tuple[int, ...]]:
    """Every colour of a picture."""
    return {tuple(map(int, (255 * each[:3]).round())) for row in imread(path) for each in row}


def test_each_role_has_a_thin_line(tmp_path: Path) -> None:
    """Each in a different colour, within the picture, whatever their range; the whole stays as it was."""
    draw_png(tmp_path / "whole.png", REWARDS, HELD_OUT)
    roles = {"writer": [(step, 3.0) for step in range(1, 41)], "checker": [(40, -1.0)], "silent": []}
    draw_png(tmp_path / "roles.png", REWARDS, HELD_OUT, roles=roles)
    assert pixels(tmp_path / "roles.png") == (1200, 675)
    whole, both = colours(tmp_path / "whole.png"), colours(tmp_path / "roles.png")
    purple = {each for each in both - whole if each[0] > each[1] + 60 and each[2] > each[1] + 60}
    green = {each for each in both - whole if each[1] > each[0] + 40 and each[1] > each[2] + 40}
    assert green and purple

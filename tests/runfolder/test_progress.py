"""What a user sees while training: a bar in a real terminal, lines everywhere else."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from lightning_sdk.commands.progress import Progress
from lightning_sdk.hub.events import FinishedEvent, StatusEvent, read_event
from lightning_sdk.results.run_report import RunReport

REPORT = {
    "status": "finished",
    "verdict": "better",
    "steps": 2,
    "train_seconds": 75.0,
    "held_out": {
        "before": {"mean": 0.3, "low": 0.24, "high": 0.367, "n": 200},
        "after": {"mean": 0.9, "low": 0.85, "high": 0.935, "n": 200},
    },
}
METRICS = {"reward_mean": 0.512, "loss": -0.0123, "tokens_per_second": 3210.4, "seconds": 2.0}
EVENTS: list[dict[str, Any]] = [
    {"type": "status", "text": "starting the engine"},
    {"type": "started", "steps": 2, "model": "spark"},
    {"type": "evaluation", "name": "before", "mean": 0.3, "low": 0.24, "high": 0.367, "n": 200},
    {"type": "step", "step": 1, "steps": 2, "metrics": METRICS},
    {"type": "warning", "text": "3 rollouts timed out [limit 120 s]"},
    {"type": "step", "step": 2, "steps": 2, "metrics": {}},
    {"type": "finished", "report": REPORT, "curve": "1.0 \x1b[94m⠤⠒\x1b[0m\n0.0 step"},
]


def show(events: list[dict[str, Any]], **options: Any) -> str:
    """What is written for these events where there is no terminal."""
    stream = io.StringIO()
    progress = Progress(stream, **options)
    for event in map(read_event, events):
        if event is not None:
            progress.show(event)
    progress.close()
    return stream.getvalue()


def test_without_a_terminal_each_event_is_a_line() -> None:
    """Everything a log should hold, and no control codes."""
    text = show(EVENTS)
    lines = text.splitlines()
    assert lines[:3] == [
        "starting the engine",
        "training spark for 2 steps",
        "held-out score before: 0.300  95% interval [0.240, 0.367]  n=200",
    ]
    assert re.fullmatch(r"step 1/2  reward  0\.512  loss  -0\.0123   3,210 tok/s  0:\d\d left", lines[3])
    assert lines[4] == "warning: 3 rollouts timed out [limit 120 s]"
    assert re.fullmatch(r"step 2/2  reward +-  loss +-  +- tok/s  0:00 left", lines[5])
    assert lines[7:9] == ["1.0 ⠤⠒", "0.0 step"]
    assert lines[-3:] == [
        "before  0.300  95% interval [0.240, 0.367]  n=200",
        "after   0.900  95% interval [0.850, 0.935]  n=200",
        "better: 2 steps in 1:15",
    ]
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ({"status": "failed", "steps": 4, "error": "the engine died"}, "failed after 4 steps: the engine died"),
        (REPORT | {"verdict": "not shown to be better"}, "not shown to be better: 2 steps in 1:15"),
        (
            REPORT | {"verdict": "not shown to be better", "verdict_reason": "3 tasks are too few"},
            "not shown to be better: 2 steps in 1:15; 3 tasks are too few",
        ),
        ({"status": "finished", "steps": 0}, "done"),
    ],
)
def test_the_last_line_says_what_came_out(report: dict[str, Any], told: str) -> None:
    """A failed run and a run that is not better are not dressed up."""
    assert show([{"type": "finished", "report": report}]).splitlines()[-1] == told


def test_what_is_wrong_is_told_at_the_end() -> None:
    """In the words of `check`, beneath the verdict; lines of an answer stay lines."""
    found = {
        "severity": "fatal",
        "kind": "no signal",
        "what": 'no group has a signal. One:\n  answer  "x"\n',
        "cause": "Every answer was wrong.",
        "remedy": "Take easier tasks.",
    }
    lines = show([{"type": "finished", "report": REPORT | {"findings": [found]}}]).splitlines()
    assert lines[-5:] == [
        "better: 2 steps in 1:15",
        "fatal: no group has a signal. One:",
        '    answer  "x"',
        "  Every answer was wrong.",
        "  Take easier tasks.",
    ]


def test_the_end_names_roles_failures_and_the_folder() -> None:
    """All that the report has, so that it need not be printed a second time."""
    score = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 20}
    report = REPORT | {
        "held_out": {"before": {**score, "roles": {"writer": score}}, "after": {**score, "roles": {"writer": score}}},
        "rollouts_by_status": {"ok": 9, "timeout": 2},
        "failures": {"done": {"timeout": "tried again"}},
    }
    begun = {"type": "started", "steps": 2, "model": "spark", "run": str(Path.cwd() / "runs" / "solve")}
    lines = show([begun, {"type": "finished", "report": report}]).splitlines()
    assert "role      writer: 0.500 [0.400, 0.600], n=20 before, 0.500 [0.400, 0.600], n=20 after" in lines
    assert "failed    2 timeout: tried again" in lines
    assert lines[-1] == "run     runs/solve: report.md, curve.png, checkpoints"


def test_quiet_shows_warnings_only() -> None:
    """What may need a hand is said all the same."""
    assert show(EVENTS, quiet=True) == "warning: 3 rollouts timed out [limit 120 s]\n"


def test_an_output_that_went_away_does_not_stop_training(tmp_path: Path) -> None:
    """A closed file, a closed pipe and an event that cannot be read do not fail the user's program."""
    stream = (tmp_path / "log").open("w")
    progress = Progress(stream)
    stream.close()
    progress.show(StatusEvent("starting the engine"))
    progress.close()
    assert show([{"type": "step"}, {"type": "from the future"}, {}]) == ""


def test_a_terminal_without_unicode_gets_question_marks() -> None:
    """Rather than an error in the middle of training."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    progress = Progress(stream)
    progress.show(FinishedEvent(RunReport(), "1.0 ⠤⠒"))
    progress.close()
    assert b"1.0 ??" in raw.getvalue()


_AGENT = """
import json, sys
from lightning_sdk.commands.progress import Progress
from lightning_sdk.hub.events import read_event
progress = Progress()
for event in json.loads(sys.argv[1]):
    progress.show(read_event(event))
    if event["type"] == "step":
        print("the agent prints", event["step"])
progress.close()
print("rich" in sys.modules)
"""


def in_terminal(events: list[dict[str, Any]], prelude: str = "") -> str:
    """What a program in a terminal of 80 columns writes for these events."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    program = textwrap.dedent(prelude) + _AGENT
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, json.dumps(events)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    written = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(30) == 0, written.decode()
    return written.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_gets_a_bar_a_curve_and_a_table() -> None:
    """The bar is drawn over itself and gone at the end; what the agent prints stays; the cursor comes back."""
    written = in_terminal(EVENTS)
    text = plain(written)
    assert re.search(r"training ━+.* 1/2  reward  0\.512  loss  -0\.0123   3,210 tok/s  0:\d\d left", text)
    for part in ("starting the engine", "training spark for 2 steps", "the agent prints 1", "[limit 120 s]", "⠤⠒"):
        assert part in text
    assert re.search(r"│ after +│ 0\.900 │ 0\.850 to 0\.935 │ 200 +│", text)
    assert "better: 2 steps in 1:15" in text
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert text.rstrip().endswith("True")


def test_a_bar_that_is_closed_early_leaves_the_terminal_usable() -> None:
    """As after an interrupt: no bar, and the cursor is back."""
    written = in_terminal(EVENTS[:4])
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_an_environment_without_rich_gets_lines_in_a_terminal() -> None:
    """An agent's environment need not hold rich."""
    text = in_terminal(EVENTS, prelude="import sys\nsys.modules['rich'] = sys.modules['rich.console'] = None\n")
    assert "step 1/2  reward  0.512" in text
    assert "\x1b" not in text


def test_what_agents_wrote_does_not_act_on_the_terminal() -> None:
    """Escape sequences and overrides in errors, findings and names are spelled out, with a bar and without."""
    evil = "\x1b]0;title\x07 \x1b[2J \u202egnp.exe"
    found = dict.fromkeys(("kind", "what", "cause", "remedy"), evil) | {"severity": "warning"}
    report = REPORT | {"findings": [found], "verdict_reason": evil, "rollouts_by_status": {evil: 1}}
    events = [
        {"type": "status", "text": evil},
        {"type": "notice", "text": evil},
        {"type": "warning", "text": evil},
        {"type": "started", "steps": 2, "model": evil},
        {"type": "finished", "report": report},
    ]
    for text in (show(events), in_terminal(events)):
        assert "\u202e" not in text and "\x1b]0;" not in text and "\x1b[2J" not in text and "\x07" not in text
        assert plain(text).count("␛]0;title␇") >= 7 and "<U+202E>gnp.exe" in plain(text)

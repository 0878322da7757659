"""What a notebook shows of runs, without a notebook: figures that are safe, and fall back where the hub is missing."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_runs import MadeRollout, MadeRun

import lightning_sdk as lightning
from lightning_sdk.commands import report
from lightning_sdk.commands.figure import FigurePoint, RunFigure
from lightning_sdk.commands.notebook import read_figure, to_html
from lightning_sdk.results.run_files import read_report

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>window.pwned=1</script>\x1b[2J\u202e\"'><img src=x onerror=alert(1)>"


def parse(html: str) -> ElementTree.Element:
    """Output as a browser reads it, which fails for what is not well-formed."""
    return ElementTree.fromstring(html)


def test_a_report_is_a_figure_with_its_interval(trained_runs: Path) -> None:
    """A curve and a band for each role, both held-out scores with whiskers, and the report's words."""
    found = report.read(trained_runs / "solve")
    page = parse(found._repr_html_())
    [svg] = page.findall(f"{SVG}svg")
    assert len(svg.findall(f"{SVG}polyline")) == len(svg.findall(f"{SVG}polygon")) == 2
    lines = {each.text for each in svg.iter(f"{SVG}text")}
    assert {"writer", "checker", "step", "0", "3"} <= lines
    titles = [each.text or "" for each in svg.iter(f"{SVG}title")]
    kept = read_report(trained_runs / "solve")
    assert kept is not None
    score = kept.held_out["after"].score
    assert f"held-out score {score.mean:.3f} [{score.low:.3f}, {score.high:.3f}] at step 3" in titles
    assert (page.findtext("pre") or "").startswith("run       ")
    # Light and dark pages alike: the ink is the page's own, and no colour of it is fixed to one of both.
    assert svg.get("fill") == "currentColor" and not {"#000", "#fff", "black", "white"} & {
        value for each in svg.iter() for value in each.attrib.values()
    }


def test_a_run_is_shown_to_print_and_as_a_figure(trained_runs: Path) -> None:
    """By `lightning.show`, as on the command line; a rollout has text only."""
    shown = lightning.show("solve", runs=trained_runs)
    assert str(shown).startswith("solve  finished  step 3 of 3") and shown.values["status"] == "finished"
    assert parse(shown._repr_html_()).find(f"{SVG}svg") is not None
    rollout = lightning.show("solve", "best", runs=trained_runs)
    assert str(rollout).startswith(rollout.values["id"]) and len(rollout.values["credit"]) == 2
    assert parse(rollout._repr_html_()).find(f"{SVG}svg") is None
    with pytest.raises(lightning.SettingError, match="no rollout whose id begins with 'xyz'"):
        lightning.show("solve", "xyz", runs=trained_runs)


def test_nothing_that_an_agent_wrote_is_part_of_the_page(tmp_path: Path) -> None:
    """Names, roles and words are text; a page that shows them has no other elements than ours."""
    run = MadeRun(tmp_path / "evil")
    config = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps({**config, "settings": {"model": EVIL, "steps": 2}}))
    run.add([MadeRollout(group=f"{step}-0", rewards=[(EVIL, EVIL, 1.0, EVIL)]) for step in (1, 2)])
    run.steps([{"step": step, f"reward_mean/{EVIL}": 0.5, "reward_mean": 0.5} for step in (1, 2)])
    run.close()
    for html in (lightning.show(run.folder)._repr_html_(), to_html(RunFigure({EVIL: [FigurePoint(1, 0.5)]}), EVIL)):
        page = parse(html)
        known = {
            "div",
            "pre",
            *(f"{SVG}{name}" for name in ("svg", "line", "text", "rect", "polyline", "polygon", "circle", "title")),
        }
        assert {each.tag for each in page.iter()} <= known
        assert "\x1b" not in html and "\u202e" not in html
        assert {name for each in page.iter() for name in each.attrib} & {"href", "src", "onerror", "onload"} == set()


def test_without_the_hub_the_kept_means_are_drawn(tmp_path: Path) -> None:
    """An agent's environment may have none; then no interval is known, but there is a curve."""
    run = MadeRun(tmp_path / "solve")
    run.steps([{"step": step, "reward_mean": step / 10} for step in (1, 2, 3)])
    run.close()
    config = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps({**config, "origin": {"backend_python": "/no/such/python"}}))
    figure = read_figure(run.folder)
    assert figure is not None and [each.mean for each in figure.curves["reward"]] == [0.1, 0.2, 0.3]
    svg = parse(figure.draw())
    assert svg.find(f"{SVG}polyline") is not None and svg.find(f"{SVG}polygon") is None


def test_a_figure_without_points_is_empty(tmp_path: Path) -> None:
    """A run that has just begun has text alone; numbers that are not finite break nothing."""
    assert RunFigure({"reward": []}).draw() == ""
    (tmp_path / "config.json").write_text("{}")
    figure = read_figure(tmp_path)
    assert figure is not None and figure.draw() == ""
    parse(RunFigure({"reward": [FigurePoint(1, 5.0), FigurePoint(2, -7.0)]}, steps=1000).draw())

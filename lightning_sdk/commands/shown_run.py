"""`lightning.show`: a run or one of its rollouts, to print or to see in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.commands.figure import RunFigure
from lightning_sdk.commands.notebook import to_html
from lightning_sdk.commands.run_views import RunViews
from lightning_sdk.commands.show import find_rollout
from lightning_sdk.commands.show_rollout import describe_rollout
from lightning_sdk.commands.show_run import describe_run
from lightning_sdk.system.folders import find_run_folder
from lightning_sdk.terminal.screen import Screen

_COLUMNS = 110


@dataclass(frozen=True, slots=True)
class Shown:
    """What was looked at. Printed it is text, and in a notebook a run has its figure."""

    values: dict[str, Any]
    """Plain data, as `lightning-sdk show --json` prints it."""
    _text: str
    _figure: RunFigure | None = None

    def __str__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return to_html(self._figure, self._text)


def show(
    run: str | Path, rollout: str | None = None, *, runs: str | Path = "runs", backend_python: str | None = None
) -> Shown:
    """Look at a run, finished or under way, or at one of its rollouts: `print(lightning.show("solve"))`.

    Args:
        run: Folder of the run, or its name in `runs`.
        rollout: The beginning of a rollout's id, or 'best' or 'worst' for the highest or lowest reward.
        backend_python: Python of another virtual environment, in which the hub is installed; by default this one.

    Raises:
        SettingError: there is no such run, or no such rollout.
        HubError: the run cannot be read.
    """
    screen = Screen(width=_COLUMNS)
    with RunViews([find_run_folder(run, runs)], backend_python) as views:
        [name] = views.names
        if rollout is None:
            found = views.ask("run", name, whole=1)
            return Shown(found, "\n".join(describe_run(found, screen)), RunFigure.of_view(found))
        id_ = find_rollout(views, name, rollout, {})
        found, tokens = views.ask("rollout", name, rollout=id_), views.ask("tokens", name, rollout=id_)
    return Shown({**found, "credit": tokens["credit"]}, "\n".join(describe_rollout(found, tokens, screen)))

"""One training by a program of `examples/` as it stands, with other settings of its `lightning.train()`.

    python benchmarks/example_run.py --runs FOLDER --set backend=verl --set model=FOLDER calc_x [-- --plain]

What comes after `--` goes to the program. This process needs the program's framework and the SDK alone;
`--backend-python` names the environment that trains. The run's folder is FOLDER/run.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import lightning_sdk as lightning
from lightning_sdk.settings.settings import parse

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def change_settings(changes: dict[str, Any]) -> None:
    """Let `lightning.train` take these settings instead of those that the program gives it."""
    train = lightning.train

    @wraps(train)
    def train_with_changes(*args: Any, **given: Any) -> Any:
        if changes.get("backend", given.get("backend")) != "prompts":  # another backend has no use for its settings
            given = {name: value for name, value in given.items() if not name.startswith("prompts.")}
        return train(*args, **{**given, **changes})

    lightning.train = train_with_changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the program's folder in examples/")
    parser.add_argument("--runs", default="runs", help="folder of the run (%(default)s)")
    parser.add_argument("--backend-python", help="Python of an environment that has lightning-agent-sdk[train]")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting")
    parser.add_argument("arguments", nargs="*", help="of the program")
    options = parser.parse_args()
    settings = {name: parse(name, value) for name, _, value in (each.partition("=") for each in options.set)}
    change_settings({**settings, "runs": options.runs, "name": "run", "backend_python": options.backend_python})
    program = EXAMPLES / options.name / "agent.py"
    sys.path.insert(0, str(program.parent))  # as `python agent.py` does
    sys.argv = [str(program), *options.arguments]
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()

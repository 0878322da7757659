"""Options that several commands of the command line share, each with its help."""

from __future__ import annotations

import argparse
from typing import Any

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.settings.settings import parse

#: Options that stand for a setting -> its dotted name.
_OPTIONS = {
    "model": "model",
    "backend": "backend",
    "engine": "engine",
    "roles": "roles",
    "steps": "steps",
    "runners": "rollouts.runner",
    "reflect_with": "prompts.reflect_with",
    "tune": "tune",
}


class SetAction(argparse.Action):
    """Collects `--set NAME=VALUE`; `--set help` prints all settings, whatever other arguments are missing."""

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any, _: Any = None) -> None:
        if value == "help":
            print("\n".join(f"{name}={default!r}" for name, default in Settings().flat().items()))
            parser.exit()
        options.settings = [*options.settings, value]


def add_agent(parser: argparse.ArgumentParser, or_run: bool = False, or_resume: bool = False) -> None:
    """The agent and its rewards."""
    run = "; or a run, by name or folder, which is examined without running anything" if or_run else ""
    run += "; with --resume by default the run's own" if or_resume else ""
    parser.add_argument(
        "agent",
        nargs="?" if or_resume else None,
        metavar="FILE.py:FUNCTION" + ("|RUN" if or_run else ""),
        help=f"the agent: a function that takes one task; MODULE:FUNCTION works too{run}",
    )
    add_reward(parser, "; default: the one marked with @reward")


def add_reward(parser: argparse.ArgumentParser, default: str = "") -> None:
    parser.add_argument(
        "--reward",
        action="append",
        required=not default,
        default=[] if default else None,
        metavar="FILE.py:FUNCTION",
        dest="rewards",
        help=f"a reward function of task and answer; repeatable{default}",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    text = "what serves the model: 'embedded', 'vllm', or 'auto' for the backend's own (default: auto)"
    parser.add_argument("--engine", help=text)


def add_backend_python(parser: argparse.ArgumentParser, what: str) -> None:
    text = f"Python of another environment, in which the {what} is installed"
    parser.add_argument("--backend-python", metavar="PYTHON", help=text)


def add_agent_options(parser: argparse.ArgumentParser, or_run: bool = False, or_resume: bool = False) -> None:
    add, defaults = parser.add_argument, Settings()
    add_agent(parser, or_run, or_resume)
    tasks = "the tasks: a .jsonl, .json, .csv or .parquet file"
    tasks += "; with --resume by default the run's own" if or_resume else ""
    add("--tasks", required=not (or_run or or_resume), metavar="FILE", help=tasks)
    model = "'spark', 'smollm2', a folder in Hugging Face format, or a name on the Hugging Face Hub"
    add("--model", help=f"{model} (default: {defaults.model})")
    add("--backend", help=f"an installed backend (default: {defaults.backend})")
    add_engine(parser)
    add_backend_python(parser, "backend")
    add(
        "--roles",
        action="append",
        metavar="NAME",
        help="train (or score) only this role; repeatable; default: every role declared trainable",
    )
    add(
        "--set",
        action=SetAction,
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="any other setting; repeatable; `--set help` lists them all with their defaults",
    )
    add("--json", action="store_true", help="print the report as one JSON object, and nothing else")
    add("--quiet", action="store_true", help="show no progress")


def add_provider(parser: argparse.ArgumentParser) -> None:
    text = "send calls to the agent's own provider, unchanged; no model is loaded"
    parser.add_argument("--provider", action="store_true", help=text)


def add_runs(parser: argparse.ArgumentParser) -> None:
    text = "folder in which runs are kept (default: %(default)s)"
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help=text)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--name", help="name of the run; default: the agent's name")
    add_runs(parser)
    runners = "number of processes, or of Ray actors, that run the rollouts; 0: only runners that join; "
    add("--runners", metavar="N|ray:N", help=f"{runners}default: this process (rollouts.runner)")
    log_to = "log to wandb, mlflow, trackio or tensorboard, perhaps with a project (wandb:my-agents) or a folder "
    log_to += "(tensorboard:logs); repeatable; default: none of them"
    add("--log-to", action="append", default=[], metavar="NAME[:PROJECT]", help=log_to)
    listen = "address at which `lightning-sdk runner` on other machines can join; default: none"
    add("--no-dashboard", action="store_false", dest="dashboard", help="start no page to watch it in a browser")
    show = "print N rollouts after each step and each evaluation, the best and the worst ones (default: none)"
    add("--show", type=natural_number, default=0, metavar="N", help=show)
    add("--listen", default="", metavar="tcp://HOST:PORT", help=listen)


def positive_integer(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def natural_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


def read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings given as options or by --set."""
    values: dict[str, Any] = {}
    for pair in options.settings:
        name, equals, text = pair.partition("=")
        if not equals:
            raise SettingError(f"--set {pair}: expected NAME=VALUE, such as optimizer.learning_rate=1e-5")
        values[name] = parse(name, text)
    for option, name in _OPTIONS.items():
        text = getattr(options, option, None)
        if text is None:
            continue
        if name in values:
            raise SettingError(f"--{option} {text} and --set {name}=... give the same setting twice; leave one out")
        values[name] = tuple(text) if isinstance(text, list) else parse(name, text)
    return values

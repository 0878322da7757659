"""The command `lightning-sdk`: check, train, evaluate, rescore, runner, serve, gateway, runs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_sdk.commands import check, rescore, serve, train
from lightning_sdk.commands.history import describe, listing
from lightning_sdk.commands.report import Report
from lightning_sdk.errors import LightningError, SettingError
from lightning_sdk.rollouts import reference
from lightning_sdk.settings import Settings, parse
from lightning_sdk.system.folders import find_run_folder

_EXAMPLES = {
    "check": (
        "check agent.py:solve --tasks tasks.jsonl",
        "check agent.py:solve --tasks tasks.jsonl --provider",
        "check runs/solve",
    ),
    "train": (
        "train agent.py:solve --tasks tasks.jsonl",
        "train agent.py:solve --tasks tasks.jsonl --model ./my-model --steps 100 \\\n"
        "      --set optimizer.learning_rate=1e-5 --set rollouts.group_size=16",
        "train agent.py:solve --tasks tasks.jsonl --resume runs/solve",
        "train agent.py:solve --tasks tasks.jsonl --from runs/solve --set stored.method=dpo",
        "train agent.py:solve --tasks tasks.jsonl --runners 0 --listen tcp://0.0.0.0:4718",
    ),
    "evaluate": (
        "evaluate agent.py:solve --tasks held_out.jsonl --model runs/solve/checkpoints/step-00040",
        "evaluate agent.py:solve --tasks held_out.jsonl --provider",
    ),
    "rescore": ("rescore runs/solve --reward agent.py:brief",),
    "runner": ("runner agent.py:solve --hub tcp://trainer.example:4718",),
    "serve": ("serve --model runs/solve/checkpoints/step-00040",),
    "gateway": ("gateway --upstream http://127.0.0.1:8000",),
    "runs": ("runs", "runs solve --json"),
}
"""Command -> command lines that a reader can copy."""

#: Options that stand for a setting -> its dotted name.
_OPTIONS = {"model": "model", "backend": "backend", "engine": "engine", "roles": "roles", "steps": "steps",
            "runners": "rollouts.runner"}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: 0 done, 1 an error that says what to do, 2 wrong usage, 130 interrupted.

    141 when whatever read the output closed it, as of any program in a shell's pipe.

    Of `check`: 1 when nothing could be learned, 2 when it could not be run.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # what reads our output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 128 + signal.SIGPIPE


def _run(arguments: Sequence[str] | None) -> int:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    options = _parser().parse_args(arguments)
    action: Callable[[argparse.Namespace], int | None] = options.action
    try:
        return action(options) or 0
    except LightningError as error:
        print(f"lightning-sdk: {error}", file=sys.stderr)
        return 2 if action is _run_check else 1
    except KeyboardInterrupt as interrupt:
        print(f"lightning-sdk: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sdk",
        description="Train an AI agent that already exists.",
        epilog=_examples([lines[0] for lines in _EXAMPLES.values()]) + "\n\nEach command has a --help with more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("lightning-agent-sdk"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _check(commands)
    _train(commands)
    _evaluate(commands)
    _rescore(commands)
    _runner(commands)
    _serve(commands)
    _gateway(commands)
    _runs(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=_examples(_EXAMPLES[name]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(action=run)
    return parser


def _examples(lines: Iterable[str]) -> str:
    return "\n".join(["examples:", *(f"  lightning-sdk {line}" for line in lines)])


class _Set(argparse.Action):
    """`--set NAME=VALUE`, collected; `--set help` prints all settings, and nothing else is needed."""

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any, _: Any = None) -> None:
        if value == "help":
            print("\n".join(f"{name}={default!r}" for name, default in Settings().flat().items()))
            parser.exit()
        options.settings = [*options.settings, value]


def _agent(parser: argparse.ArgumentParser, or_run: bool = False) -> None:
    """The agent and its rewards."""
    parser.add_argument(
        "agent",
        metavar="FILE.py:FUNCTION" + ("|RUN" if or_run else ""),
        help="the agent: a function of one task; or MODULE:FUNCTION"
        + ("; or the folder or name of a run, which is read and nothing is run" if or_run else ""),
    )
    parser.add_argument("--reward", action="append", default=[], metavar="FILE.py:FUNCTION", dest="rewards",
                        help="a function of task and answer, repeatable; default: the one marked @reward")  # fmt: skip


def _agent_options(parser: argparse.ArgumentParser, or_run: bool = False) -> None:
    defaults = Settings()
    _agent(parser, or_run)
    parser.add_argument("--tasks", required=not or_run, metavar="FILE",
                        help="tasks: .jsonl, .json, .csv or .parquet")  # fmt: skip
    parser.add_argument("--model", help=f"spark, a folder in HF format, or a hub name ({defaults.model})")
    parser.add_argument("--backend", help=f"an installed backend ({defaults.backend})")
    parser.add_argument("--engine", help="what serves the model: embedded, vllm, or auto: the backend's own "
                        f"({defaults.engine})")  # fmt: skip
    parser.add_argument(
        "--backend-python", metavar="PYTHON", help="python of another environment that holds the backend"
    )
    parser.add_argument("--roles", action="append", metavar="NAME",
                        help="train only this role, repeatable; default: all declared trainable")  # fmt: skip
    parser.add_argument("--set", action=_Set, default=[], metavar="NAME=VALUE", dest="settings",
                        help="any other setting, repeatable; `--set help` lists them with their defaults")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object, and nothing else")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _provider_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--provider", action="store_true", help="send every call to the agent's own provider, as the "
                        "agent wrote it; no model is loaded")  # fmt: skip


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="name of the run; default: the agent's")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where runs are kept (%(default)s)")
    parser.add_argument("--runners", metavar="N|ray:N", help="so many processes, or Ray actors, run the rollouts; 0: "
                        "only others do; default: this process (rollouts.runner)")  # fmt: skip
    parser.add_argument("--listen", default="", metavar="tcp://HOST:PORT",
                        help="let `lightning-sdk runner` on other machines join there; default: nobody")  # fmt: skip


def _check(commands: Any) -> None:
    text = (
        "run a few rollouts and say what would be learned from them, or what is wrong and what to type; "
        "of a run, say whether it learns, or why not"
    )
    parser = _command(commands, "check", _run_check, text)
    _agent_options(parser, or_run=True)
    _provider_option(parser)
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where runs are kept (%(default)s)")
    parser.add_argument("--keep", metavar="FOLDER", help="keep what was recorded there; default: keep nothing")


def _train(commands: Any) -> None:
    defaults = Settings()
    parser = _command(commands, "train", _run_train, "train an agent's trainable roles and measure what it gained")
    _agent_options(parser)
    _run_options(parser)
    parser.add_argument(
        "--held-out", metavar="FILE", help="tasks for the score before and after; default: a fifth of --tasks"
    )
    parser.add_argument("--steps", help=f"updates of the model ({defaults.steps}); with --resume in all, from step 1")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run from its last checkpoint: it keeps its "
                        "settings and held-out tasks, and only what is given changes")  # fmt: skip
    parser.add_argument("--from", action="append", default=[], metavar="RUN", dest="from_runs",
                        help="learn from the stored rollouts of this run, see stored.method; repeatable")  # fmt: skip


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", _run_evaluate, "score an agent on tasks, without training it")
    _agent_options(parser)
    _provider_option(parser)
    _run_options(parser)


def _rescore(commands: Any) -> None:
    text = "apply other reward functions to the stored rollouts of a run, without running its agent, and compare"
    parser = _command(commands, "rescore", _run_rescore, text)
    parser.add_argument("run_name", metavar="RUN", help="name or folder of the run")
    parser.add_argument("--reward", action="append", required=True, metavar="FILE.py:FUNCTION", dest="rewards",
                        help="a function of task and answer, repeatable")  # fmt: skip
    parser.add_argument(
        "--write", action="store_true", help="let the new rewards count from now on; nothing is deleted"
    )
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where runs are kept (%(default)s)")
    parser.add_argument("--backend-python", metavar="PYTHON", help="python of another environment that holds the hub")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _runner(commands: Any) -> None:
    text = "run rollouts for a training of another process or machine, which listens (`train --listen`), until it ends"
    parser = _command(commands, "runner", _run_runner, text)
    _agent(parser)
    parser.add_argument("--hub", metavar="tcp://HOST:PORT", help="where the training listens; default: LIGHTNING_HUB")
    parser.add_argument("--key", help="the training's key; default: LIGHTNING_KEY, which no other user sees")
    parser.add_argument("--concurrency", type=_positive, default=16, metavar="N",
                        help="rollouts at once in this process (%(default)s)")  # fmt: skip
    parser.add_argument("--wait", type=float, default=120.0, metavar="SECONDS",
                        help="for a training that is not there, or not there any more (%(default)g)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what was done as one JSON object, at the end")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _serve(commands: Any) -> None:
    text = (
        "keep a hub that records what agents of this machine do after lightning.init(); with --model also serve a model"
    )
    parser = _command(commands, "serve", serve.serve, text)
    parser.add_argument("--run", default="runs/served", metavar="FOLDER", help="where spans are kept (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=4717, help="port of the hub, 0 for a free one (%(default)s)")
    parser.add_argument("--key", default="", help="key that clients must show; default: a new one, kept for this user")
    parser.add_argument("--model", help="also serve this model on an OpenAI-compatible address")
    parser.add_argument("--backend", default=Settings().backend, help="the backend that serves it (%(default)s)")
    parser.add_argument("--engine", default=Settings().engine, help="embedded, vllm, or auto: the backend's own "
                        "(%(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print address and key as one JSON object")


def _gateway(commands: Any) -> None:
    text = "an OpenAI- and Anthropic-compatible address that records the calls of agents in any language"
    parser = _command(commands, "gateway", serve.relay, text)
    parser.add_argument("--upstream", metavar="URL", help="where calls go, such as https://api.openai.com; default: "
                        "OPENAI_BASE_URL and ANTHROPIC_BASE_URL, else OpenAI and Anthropic")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port, 0 for a free one (%(default)s)")
    parser.add_argument(
        "--hub", help="address of the hub; default: LIGHTNING_HUB, else the one of `lightning-sdk serve`"
    )
    parser.add_argument("--key", help="the hub's key; default: LIGHTNING_KEY, or what the running hub left")
    parser.add_argument("--role", default="", metavar="NAME", help="role of calls that name none")
    parser.add_argument("--token", default="", help="asked of whoever begins a rollout; default: a new one, printed")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS",
                        help="an upstream that sends nothing for so long has failed (%(default)g)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object")


def _runs(commands: Any) -> None:
    parser = _command(commands, "runs", _run_runs, "list runs, or show one")
    parser.add_argument("run_name", nargs="?", metavar="RUN", help="name or folder of a run")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where runs are kept (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, by options of their own or by --set."""
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
            raise SettingError(f"--{option} {text} and --set {name}=...: the same setting twice; leave one out")
        values[name] = tuple(text) if isinstance(text, list) else parse(name, text)
    return values


def _common(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "agent": reference.load(options.agent),
        "tasks": options.tasks,
        "reward": [reference.load(each) for each in options.rewards] or None,
        "backend_python": options.backend_python,
        "quiet": options.quiet or options.json,
        **_settings(options),
    }


def _place(options: argparse.Namespace) -> dict[str, Any]:
    """Where a run is kept, and where others join it."""
    return {"name": options.name, "runs": options.runs, "listen": options.listen}


def _run_check(options: argparse.Namespace) -> int:
    if _is_run(options.agent, options.runs):
        run = find_run_folder(options.agent, options.runs)
        found = check.check(run, backend_python=options.backend_python)
    else:
        found = check.check(**_common(options), provider=options.provider, keep=options.keep)
    if options.json:
        print(json.dumps(found.values))
    else:
        check.show(found, sys.stdout)
    return 0 if found.learnable else 1


def _is_run(given: str, runs: str) -> bool:
    """Whether a run is meant, and not an agent."""
    return ":" not in given or (Path(given) / "config.json").is_file() or (Path(runs) / given).is_dir()


def _run_train(options: argparse.Namespace) -> None:
    report = train.train(
        **_common(options), **_place(options), held_out=options.held_out, resume=options.resume,
        from_runs=options.from_runs,
    )  # fmt: skip
    _print(report, options)


def _run_evaluate(options: argparse.Namespace) -> None:
    report = train.evaluate(**_common(options), **_place(options), provider=options.provider)
    _print(report, options)


def _run_rescore(options: argparse.Namespace) -> int:
    found = rescore.rescore(
        options.run_name, [reference.load(each) for each in options.rewards], options.write, runs=options.runs,
        backend_python=options.backend_python,
    )  # fmt: skip
    print(json.dumps(found.values) if options.json else found)
    return 0 if found.scored else 1


def _print(report: Report, options: argparse.Namespace) -> None:
    """The report on standard output, unless the display of the run has just shown it in the same place."""
    if options.json:
        print(json.dumps(report.values))
    elif options.quiet or not _same_output():
        print(report)


def _same_output() -> bool:
    """Whether standard output and standard error go to one terminal, file or pipe."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # closed, or not a file at all
        return False


def _run_runner(options: argparse.Namespace) -> None:
    serve.runner(
        reference.load(options.agent), [reference.load(each) for each in options.rewards] or None,
        hub=options.hub, key=options.key, concurrency=options.concurrency, patience=options.wait,
        as_json=options.json, quiet=options.quiet,
    )  # fmt: skip


def _run_runs(options: argparse.Namespace) -> None:
    if options.run_name:
        print(describe(Path(options.runs), options.run_name, as_json=options.json))
    else:
        print(listing(Path(options.runs), as_json=options.json))


if __name__ == "__main__":
    sys.exit(main())

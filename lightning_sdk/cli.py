"""The command `lightning-sdk`: each of its commands with its options."""

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

from lightning_sdk.commands import check, earlier_run, prompt_versions, prompts, rescore, serve, train
from lightning_sdk.commands.options import (
    add_agent,
    add_agent_options,
    add_backend_python,
    add_engine,
    add_provider,
    add_reward,
    add_run_options,
    add_runs,
    positive_integer,
    read_settings,
)
from lightning_sdk.commands.report import Report
from lightning_sdk.commands.viewers import VIEWERS
from lightning_sdk.errors import LightningError, SettingError
from lightning_sdk.rollouts import reference
from lightning_sdk.settings.settings import Settings
from lightning_sdk.system.folders import find_run_folder
from lightning_sdk.terminal.printing import print_text

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
        "train --resume runs/solve",
        "train agent.py:solve --tasks tasks.jsonl --from runs/solve --set stored.method=dpo",
        "train agent.py:solve --tasks tasks.jsonl --backend prompts --reflect-with gpt-5",
        "train agent.py:solve --tasks tasks.jsonl --runners 0 --listen tcp://0.0.0.0:4718",
    ),
    "prompts": (
        "prompts discover agent.py:solve --tasks tasks.jsonl --provider",
        "prompts list runs/solve",
        "prompts diff runs/solve",
        "prompts promote runs/solve",
        "prompts promote writer.system --text better.txt --default current.txt",
        "prompts rollback writer.system",
    ),
    "evaluate": (
        "evaluate agent.py:solve --tasks held_out.jsonl --model runs/solve/checkpoints/step-00040",
        "evaluate agent.py:solve --tasks held_out.jsonl --provider",
    ),
    "rescore": ("rescore runs/solve --reward agent.py:brief",),
    "runner": ("runner agent.py:solve --hub tcp://trainer.example:4718",),
    "serve": ("serve --model runs/solve/checkpoints/step-00040",),
    "gateway": ("gateway --upstream http://127.0.0.1:8000",),
    **{each.name: each.examples for each in VIEWERS},
}
"""Command -> command lines that a reader can copy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0: done; 1: an error, whose message says what to do; 2: wrong usage; 130: interrupted; 141: the reader of the output
    closed it, as for any program in a shell pipe. For `check`, 1: nothing could be learned; 2: it could not be run.
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
        print_text(f"lightning-sdk: {error}", sys.stderr)
        return 2 if action is _run_check else 1
    except KeyboardInterrupt as interrupt:
        print_text(f"lightning-sdk: {interrupt or 'interrupted'}", sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sdk",
        description="Train an AI agent that already exists.",
        epilog=_examples([lines[0] for lines in _EXAMPLES.values()]) + "\n\nSee COMMAND --help for more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("lightning-agent-sdk"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _check(commands)
    _train(commands)
    _evaluate(commands)
    _prompts(commands)
    _rescore(commands)
    _runner(commands)
    _serve(commands)
    _gateway(commands)
    for each in VIEWERS:
        each.add_options(_command(commands, each.name, each.run, each.text))
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=_examples(_EXAMPLES[name]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(action=run)
    return parser


def _examples(lines: Iterable[str]) -> str:
    return "\n".join(["examples:", *(f"  lightning-sdk {line}" for line in lines)])


def _check(commands: Any) -> None:
    text = (
        "run a few rollouts and report what could be learned from them, or what is wrong and how to fix it; "
        "for a run, report whether it is learning, and if not, why"
    )
    parser = _command(commands, "check", _run_check, text)
    add_agent_options(parser, or_run=True)
    add_provider(parser)
    add_runs(parser)
    parser.add_argument("--keep", metavar="FOLDER", help="folder to keep the recording in; default: nothing is kept")


def _train(commands: Any) -> None:
    parser = _command(commands, "train", _run_train, "train an agent, and measure what it gained on held-out tasks")
    add = parser.add_argument
    add_agent_options(parser, or_resume=True)
    add_run_options(parser)
    add("--held-out", metavar="FILE", help="tasks for the score before and after; default: a fifth of --tasks")
    steps = f"number of updates of the model (default: {Settings().steps}); with --resume, the total from step 1"
    add("--steps", help=steps)
    add(
        "--resume",
        metavar="RUN",
        help="continue this run from its last checkpoint, with its own agent, settings and tasks; "
        "only what is given here changes",
    )
    tune = "'prompts': tune the agent's prompts too, in turns with updates of the weights (default: weights)"
    add("--tune", metavar="WHAT", help=tune)
    reflect = "to tune prompts: the model that proposes texts, by its name or an address such as "
    engine = ", or 'engine', which is the run's own (prompts.reflect_with)"
    add("--reflect-with", metavar="URL|MODEL|engine", help=f"{reflect}http://127.0.0.1:8000/v1#MODEL{engine}")
    stored = "learn from the stored rollouts of this run (see stored.method); repeatable"
    add("--from", action="append", default=[], metavar="RUN", dest="from_runs", help=stored)


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", _run_evaluate, "score an agent on tasks, without training it")
    add_agent_options(parser)
    add_provider(parser)
    add_run_options(parser)


def _prompts(commands: Any) -> None:
    parser = _command(
        commands, "prompts", _run_prompts, "find the texts in an agent's requests, and promote others in their place"
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    text = "run the agent once on a few tasks, and list each role's texts, what of them varies, and which are marked"
    found = actions.add_parser("discover", help=text, description=text)
    add_agent_options(found)
    add_provider(found)
    prompt_versions.add_actions(actions)


def _rescore(commands: Any) -> None:
    text = "score the stored rollouts of a run with other reward functions, without running the agent, and compare"
    parser = _command(commands, "rescore", _run_rescore, text)
    parser.add_argument("run_name", metavar="RUN", help="name or folder of the run")
    add_reward(parser)
    write = "make the new rewards the ones that count; the old ones are kept"
    parser.add_argument("--write", action="store_true", help=write)
    add_runs(parser)
    add_backend_python(parser, "hub")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _runner(commands: Any) -> None:
    text = "run rollouts for a training in another process or on another machine (`train --listen`) until it ends"
    parser = _command(commands, "runner", _run_runner, text)
    add = parser.add_argument
    add_agent(parser)
    add("--hub", metavar="tcp://HOST:PORT", help="address at which the training listens; default: LIGHTNING_HUB")
    add("--key", help="the training's key; default: LIGHTNING_KEY, which other users of this machine cannot see")
    concurrency = "rollouts at once in this process (default: %(default)s)"
    add("--concurrency", type=positive_integer, default=16, metavar="N", help=concurrency)
    wait = "how long to wait for a training that has not started or has gone away (default: %(default)g)"
    add("--wait", type=float, default=120.0, metavar="SECONDS", help=wait)
    add("--json", action="store_true", help="print a summary as one JSON object at the end")
    add("--quiet", action="store_true", help="print only errors")


def _serve(commands: Any) -> None:
    text = (
        "run a hub that records the agents on this machine that call lightning.init(); with --model, serve a model too"
    )
    parser = _command(commands, "serve", serve.serve, text)
    add = parser.add_argument
    add("--run", default="runs/served", metavar="FOLDER", help="folder for what is recorded (default: %(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=4717, help="port of the hub; 0 picks a free one (default: %(default)s)")
    add("--key", default="", help="key that clients must show; default: a new one, which this user's processes find")
    add("--model", help="also serve this model through an OpenAI-compatible API")
    add("--backend", default=Settings().backend, help="the backend that serves it (default: %(default)s)")
    add_engine(parser)
    parser.set_defaults(engine=Settings().engine)
    add("--json", action="store_true", help="print address and key as one JSON object")


def _gateway(commands: Any) -> None:
    text = "run an OpenAI- and Anthropic-compatible gateway that records the calls of agents in any language"
    parser = _command(commands, "gateway", serve.relay, text)
    add = parser.add_argument
    upstream = "where calls are sent, such as https://api.openai.com; default: OPENAI_BASE_URL and ANTHROPIC_BASE_URL, "
    add("--upstream", metavar="URL", help=f"{upstream}or OpenAI and Anthropic themselves")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=0, help="port; 0 picks a free one (default: %(default)s)")
    add("--hub", help="address of the hub; default: LIGHTNING_HUB, or the hub of `lightning-sdk serve`")
    add("--key", help="the hub's key; default: LIGHTNING_KEY, or the key that the running hub left for this user")
    add("--role", default="", metavar="NAME", help="role of calls that do not name one")
    add("--token", default="", help="token required to begin a rollout over HTTP; default: a new one, printed")
    timeout = "give up on an upstream that sends nothing for this long (default: %(default)g)"
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help=timeout)
    add("--json", action="store_true", help="print the addresses as one JSON object")


def _common(options: argparse.Namespace, agent: Callable[..., Any] | None = None) -> dict[str, Any]:
    return {
        "agent": agent or reference.load(options.agent),
        "tasks": options.tasks,
        "reward": [reference.load(each) for each in options.rewards] or None,
        "backend_python": options.backend_python,
        "quiet": options.quiet or options.json,
        **read_settings(options),
    }


def _place(options: argparse.Namespace) -> dict[str, Any]:
    """Where the run is kept and shown, and where runners join it."""
    return {name: getattr(options, name) for name in ("name", "runs", "listen", "dashboard", "show", "log_to")}


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
    """Whether this names a run rather than an agent."""
    return ":" not in given or (Path(given) / "config.json").is_file() or (Path(runs) / given).is_dir()


def _run_prompts(options: argparse.Namespace) -> int:
    given = _common(options)
    del given["reward"]  # nothing is scored
    found = prompts.discover(**given, provider=options.provider)
    print_text(json.dumps(found.values) if options.json else found)
    return 0 if found.complete else 1


def _run_train(options: argparse.Namespace) -> None:
    report = train.train(
        **(_common(options) if options.agent else _of_run(options)),
        **_place(options),
        held_out=options.held_out,
        resume=options.resume,
        from_runs=options.from_runs,
    )
    _print(report, options)


def _of_run(options: argparse.Namespace) -> dict[str, Any]:
    """What the run that is resumed was started with, where nothing else is given."""
    if options.resume is None:
        raise SettingError("train: no agent was given: name it, as agent.py:solve, or a run to continue: --resume RUN")
    earlier = earlier_run.read(options.resume, options.runs)
    agent, rewards = earlier.load_agent()
    return {
        **_common(options, agent),
        "reward": [reference.load(each) for each in options.rewards] or rewards or None,
        "backend_python": options.backend_python or earlier.origin.backend_python or None,
    }


def _run_evaluate(options: argparse.Namespace) -> None:
    report = train.evaluate(**_common(options), **_place(options), provider=options.provider)
    _print(report, options)


def _run_rescore(options: argparse.Namespace) -> int:
    found = rescore.rescore(
        options.run_name,
        [reference.load(each) for each in options.rewards],
        options.write,
        runs=options.runs,
        backend_python=options.backend_python,
    )
    print_text(json.dumps(found.values) if options.json else found)
    return 0 if found.count else 1


def _print(report: Report, options: argparse.Namespace) -> None:
    """The report on standard output, unless the display of the run has just shown it in the same place."""
    if options.json:
        print(json.dumps(report.values))
    elif options.quiet or not _same_output():
        print_text(report)


def _same_output() -> bool:
    """Whether standard output and standard error go to one terminal, file or pipe."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # closed, or not a file at all
        return False


def _run_runner(options: argparse.Namespace) -> None:
    serve.runner(
        reference.load(options.agent),
        [reference.load(each) for each in options.rewards] or None,
        hub=options.hub,
        key=options.key,
        concurrency=options.concurrency,
        patience=options.wait,
        as_json=options.json,
        quiet=options.quiet,
    )


if __name__ == "__main__":
    sys.exit(main())

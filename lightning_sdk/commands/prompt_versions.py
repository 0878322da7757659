"""`prompts list`, `show`, `diff`, `promote`, `rollback` and `export`: the promoted versions of marked texts."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.placeholders import format_parts
from lightning_sdk.prompts.store import PromptStore, StoredPrompt

FORMATS = ("text", "langfuse", "mlflow")


def add_actions(actions: Any) -> None:
    """Add the actions to the parser of `prompts`."""
    _add(actions, "list", _list, "list the promoted prompts")
    show = _add(actions, "show", _show, "print the text of a prompt")
    _name(show)
    _version(show, "version to print; 0: what the code said; default: the one that counts")
    compare = _add(
        actions, "diff", _diff, "compare a version of a prompt with what the code said, or with another version"
    )
    _name(compare)
    compare.add_argument(
        "--from", type=int, default=0, dest="base", metavar="N", help="version to compare with (default: 0)"
    )
    _version(compare, "version to compare; default: the one that counts")
    promote = _add(actions, "promote", _promote, "let a text take the place of a marked one, from the next start on")
    _name(promote)
    promote.add_argument("--text", required=True, metavar="FILE", help="file with the new text; - for standard input")
    default = "file with what the code says; needed the first time, to see that the placeholders are kept"
    promote.add_argument("--default", metavar="FILE", help=default)
    promote.add_argument("--note", default="", help="where the text comes from, as stored with it")
    back = _add(actions, "rollback", _rollback, "let an earlier version of a prompt count again")
    _name(back)
    back.add_argument("--to", type=int, metavar="N", help="version; 0: what the code says; default: the one before")
    export = _add(actions, "export", _export, "write the prompts that count for other tools")
    export.add_argument("target", metavar="FOLDER", help="folder to write into; created if it does not exist")
    export.add_argument("--format", choices=FORMATS, default="text", help="kind of file (default: %(default)s)")


def _add(actions: Any, name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    folder = "folder of the promoted prompts; default: LIGHTNING_PROMPTS, else prompts"
    parser.add_argument("--folder", metavar="FOLDER", help=folder)
    parser.set_defaults(action=run)
    return parser


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name that the text is marked with, such as writer.system")


def _version(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--version", type=int, metavar="N", dest="number", help=text)


def _store(options: argparse.Namespace) -> PromptStore:
    return PromptStore.here() if options.folder is None else PromptStore(Path(options.folder).absolute())


def _find(options: argparse.Namespace) -> StoredPrompt:
    store = _store(options)
    found = store.find(options.name)
    if found is None:
        known = ", ".join(each.name for each in store.prompts()) or "nothing"
        raise PromptError(f"{store.folder} has no prompt {options.name!r}; it has {known}")
    return found


def _list(options: argparse.Namespace) -> None:
    store = _store(options)
    for each in store.prompts():
        now = each.version
        counts = f"version {now.number}, promoted {now.promoted}" if now is not None else "what the code says"
        print(f"{each.name}: {counts}; {len(each.versions)} in all{f'; {now.note}' if now and now.note else ''}")


def _show(options: argparse.Namespace) -> None:
    print(_find(options).text(options.number))


def _diff(options: argparse.Namespace) -> None:
    prompt = _find(options)
    number = prompt.current if options.number is None else options.number
    old, new = (prompt.text(each).splitlines() for each in (options.base, number))
    names = f"{prompt.name} {options.base}", f"{prompt.name} {number}"
    print("\n".join(difflib.unified_diff(old, new, *names, lineterm="")))


def _promote(options: argparse.Namespace) -> None:
    store = _store(options)
    before = store.find(options.name)
    if options.default is None and before is None:
        raise PromptError(
            f"prompt {options.name!r} is promoted for the first time: give what the code says with --default FILE"
        )
    default = _text(options.default) if options.default is not None else before.default if before else ""
    made = store.promote(options.name, _text(options.text), default, options.note)
    print(f"{made.name}: version {made.current} counts from the next start on ({store.folder})")


def _text(file: str) -> str:
    """The text of a file, without the line break that editors put at the end."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{file} cannot be read: {error}") from None
    return text.removesuffix("\n")


def _rollback(options: argparse.Namespace) -> None:
    made = _store(options).roll_back(options.name, options.to)
    now = f"version {made.current}" if made.current else "what the code says"
    print(f"{made.name}: {now} counts from the next start on")


def _export(options: argparse.Namespace) -> None:
    target = Path(options.target)
    prompts = _store(options).prompts()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for each in prompts:
            suffix = "txt" if options.format == "text" else "json"
            content = each.text() if options.format == "text" else json.dumps(_as(options.format, each), indent=2)
            (target / f"{each.name}.{suffix}").write_text(f"{content}\n", "utf-8")
    except OSError as error:
        raise PromptError(f"{target} cannot be written: {error}") from None
    print(f"{len(prompts)} prompts were written to {target}")


def _double_braces(text: str) -> str:
    """The text with placeholders as the other tools write them: `{{topic}}` for `{topic}`."""
    pieces = format_parts(text)
    if not pieces or not any(field for _, field in pieces):
        return text
    return "".join(literal + (f"{{{field}}}" if field else "") for literal, field in pieces)


def _as(kind: str, prompt: StoredPrompt) -> dict[str, Any]:
    """The prompt as the other tool's API takes it."""
    note = prompt.version.note if prompt.version is not None else ""
    if kind == "langfuse":
        return {
            "name": prompt.name,
            "type": "text",
            "prompt": _double_braces(prompt.text()),
            "labels": ["production"],
            "tags": ["lightning"],
            "config": {},
            "commitMessage": note,
        }
    return {
        "name": prompt.name,
        "template": _double_braces(prompt.text()),
        "commit_message": note,
        "tags": {"lightning.version": str(prompt.current)},
    }

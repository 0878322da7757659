"""`prompts list`, `show`, `diff`, `promote`, `rollback` and `export`: promoted versions, and candidates of a run.

An argument names a promoted prompt if there is one of this name, and a run otherwise: a run with such a name is given
as a path, such as runs/NAME. What follows a run are candidates.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lightning_sdk.commands.prompt_candidates import (
    candidates_as_json,
    compare_candidates,
    export_folder,
    list_candidates,
    promote_candidate,
    show_candidate,
    texts_to_export,
)
from lightning_sdk.errors import PromptError, SettingError
from lightning_sdk.prompts.placeholders import format_parts
from lightning_sdk.prompts.store import PromptStore, StoredPrompt
from lightning_sdk.results.prompt_search import PromptSearch, read_prompt_search
from lightning_sdk.system.folders import find_run_folder
from lightning_sdk.terminal.printing import print_text
from lightning_sdk.terminal.visible_text import make_visible

FORMATS = ("text", "langfuse", "mlflow")
_NAME_HELP = "name that a text is marked with, such as writer.system"
_CANDIDATE = "id of a candidate, or its beginning, or `seed` for the agent's own texts; default: the chosen one"


def add_actions(actions: Any) -> None:
    """Add the actions to the parser of `prompts`."""
    listed = _add(actions, "list", _list, "list the promoted prompts, or the candidates that a run tried")
    listed.add_argument("name", nargs="?", metavar="RUN", help="name or folder of a run, to list its candidates")
    listed.add_argument("--json", action="store_true", help="with RUN: print JSON, with the texts")
    show = _add(actions, "show", _show, "print the text of a prompt, or the texts of a candidate")
    _target(show, "?", f"with RUN: {_CANDIDATE}")
    _version(show, "with NAME: version to print; 0: what the code said; default: the one that counts")
    text = "compare a version of a prompt with what the code said, or a candidate with the agent's own texts"
    compare = _add(actions, "diff", _diff, text)
    _target(compare, "*", f"with RUN: {_CANDIDATE}; a second one to compare it with instead of the agent's own texts")
    base = "with NAME: version to compare with (default: 0, what the code said)"
    compare.add_argument("--from", type=int, dest="base", metavar="N", help=base)
    _version(compare, "with NAME: version to compare; default: the one that counts")
    text = "let a text, or those of a candidate, take the place of marked ones, from the next start on"
    promote = _add(actions, "promote", _promote, text)
    _target(promote, "?", f"with RUN: {_CANDIDATE}")
    promote.add_argument("--text", metavar="FILE", help="with NAME: file with the new text; - for standard input")
    default = "with NAME: file with what the code says; needed the first time, to see that the placeholders are kept"
    promote.add_argument("--default", metavar="FILE", help=default)
    promote.add_argument("--note", default="", help="where the text comes from, as stored with it")
    back = _add(actions, "rollback", _rollback, "let an earlier version of a prompt count again")
    back.add_argument("name", metavar="NAME", help=_NAME_HELP)
    back.add_argument("--to", type=int, metavar="N", help="version; 0: what the code says; default: the one before")
    export = _add(actions, "export", _export, "write the prompts that count, or those of a candidate, for other tools")
    export.add_argument(
        "targets",
        nargs="+",
        metavar="FOLDER | RUN CANDIDATE [FOLDER]",
        help="folder to write into, created if it does not exist; after RUN and CANDIDATE it may be left out",
    )
    export.add_argument("--format", choices=FORMATS, default="text", help="kind of file (default: %(default)s)")


def _add(actions: Any, name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    folder = "folder of the promoted prompts; default: LIGHTNING_PROMPTS, else prompts"
    parser.add_argument("--folder", metavar="FOLDER", help=folder)
    parser.set_defaults(action=run)
    if name != "rollback":
        parser.add_argument(
            "--runs", default="runs", metavar="FOLDER", help="folder in which runs are kept (default: %(default)s)"
        )
    return parser


def _target(parser: argparse.ArgumentParser, count: str, text: str) -> None:
    parser.add_argument("name", metavar="NAME|RUN", help=f"{_NAME_HELP}, or name or folder of a run")
    parser.add_argument("candidates", nargs=count, metavar="CANDIDATE", help=text)


def _version(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--version", type=int, metavar="N", dest="number", help=text)


def _store(options: argparse.Namespace) -> PromptStore:
    return PromptStore.here() if options.folder is None else PromptStore(Path(options.folder).absolute())


def _find(options: argparse.Namespace) -> StoredPrompt | PromptSearch:
    """The promoted prompt or the run that the first argument names."""
    store, candidates = _store(options), options.candidates
    found = None if candidates else store.find(options.name)
    if found is not None:
        return found
    by_version = [each for each in ("number", "base") if getattr(options, each, None) is not None]
    if by_version and candidates:
        raise PromptError("--version and --from are for versions of a promoted prompt; candidates follow RUN")
    run = None if by_version else _search(options, options.name, is_needed=bool(candidates))
    if run is not None:
        return run
    known = ", ".join(each.name for each in store.prompts()) or "nothing"
    else_ = "" if by_version else f"; and {options.name!r} is not a run in {options.runs} or a folder of one either"
    raise PromptError(f"{store.folder} has no prompt {options.name!r}; it has {known}{else_}")


def _search(options: argparse.Namespace, run: str, *, is_needed: bool) -> PromptSearch | None:
    """What the run found; None if there is no such run and none is needed."""
    try:
        folder = find_run_folder(run, options.runs)
    except SettingError:
        if is_needed:
            raise
        return None
    return read_prompt_search(folder)


def _list(options: argparse.Namespace) -> None:
    if options.name is not None:
        search = read_prompt_search(find_run_folder(options.name, options.runs))
        print_text(candidates_as_json(search) if options.json else list_candidates(search))
        return
    store = _store(options)
    for each in store.prompts():
        now = each.version
        counts = f"version {now.number}, promoted {now.promoted}" if now is not None else "what the code says"
        print_text(f"{each.name}: {counts}; {len(each.versions)} in all{f'; {now.note}' if now and now.note else ''}")


def _show(options: argparse.Namespace) -> None:
    options.candidates = [options.candidates] if options.candidates is not None else []
    found = _find(options)
    if isinstance(found, PromptSearch):
        print_text(show_candidate(found, found.candidate(*options.candidates)))
    else:
        text = found.text(options.number)
        print(make_visible(text) if sys.stdout.isatty() else text)  # a file gets exactly what counts


def _diff(options: argparse.Namespace) -> None:
    if len(options.candidates) > 2:
        raise PromptError("prompts diff compares two candidates at most: RUN [CANDIDATE [CANDIDATE]]")
    found = _find(options)
    if isinstance(found, PromptSearch):
        named = [found.candidate(each) for each in options.candidates]
        new, old = [*named, *([found.candidate()] if not named else []), found.seed][:2]
        print_text(compare_candidates(found, new, old))
        return
    base = 0 if options.base is None else options.base
    number = found.current if options.number is None else options.number
    before, after = (found.text(each).splitlines() for each in (base, number))
    names = f"{found.name} {base}", f"{found.name} {number}"
    print_text("\n".join(difflib.unified_diff(before, after, *names, lineterm="")))


def _promote(options: argparse.Namespace) -> None:
    store = _store(options)
    if options.text is None:
        print_text(_promote_from_run(options, store))
        return
    if options.candidates is not None:
        raise PromptError(
            f"prompts promote {options.name} {options.candidates} --text {options.text}: a candidate has its own "
            "texts; leave out either of the two"
        )
    before = store.find(options.name)
    if options.default is None and before is None:
        raise PromptError(
            f"prompt {options.name!r} is promoted for the first time: give what the code says with --default FILE"
        )
    default = _text(options.default) if options.default is not None else before.default if before else ""
    made = store.promote(options.name, _text(options.text), default, options.note)
    print(f"{made.name}: version {made.current} counts from the next start on ({store.folder})")


def _promote_from_run(options: argparse.Namespace, store: PromptStore) -> str:
    if options.default is not None:
        raise PromptError("prompts promote RUN has no --default: the run says what the code had; give --text with it")
    search = _search(options, options.name, is_needed=options.candidates is not None)
    if search is None:
        raise PromptError(
            f"{options.name!r} is not a run in {options.runs} or a folder of one, whose candidate could be promoted; "
            f"to promote a text of your own: prompts promote {options.name} --text FILE"
        )
    named = [options.candidates] if options.candidates is not None else []
    return promote_candidate(search, search.candidate(*named), store, options.note)


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
    if len(options.targets) > 3:
        raise PromptError("prompts export takes FOLDER, or RUN CANDIDATE [FOLDER]")
    target, exported = _to_export(options)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for each in exported:
            suffix = "txt" if options.format == "text" else "json"
            content = each.text if options.format == "text" else json.dumps(_as(options.format, each), indent=2)
            (target / f"{each.name}.{suffix}").write_text(f"{content}\n", "utf-8")
    except OSError as error:
        raise PromptError(f"{target} cannot be written: {error}") from None
    print(f"{len(exported)} {'prompt was' if len(exported) == 1 else 'prompts were'} written to {target}")


class _Exported(NamedTuple):
    """A text for another tool."""

    name: str
    text: str
    note: str
    version: str
    labels: tuple[str, ...] = ()
    """LangFuse serves what has the label 'production'."""


def _to_export(options: argparse.Namespace) -> tuple[Path, list[_Exported]]:
    """The folder to write into, and what is written."""
    if len(options.targets) == 1:
        prompts = _store(options).prompts()
        notes = [each.version.note if each.version is not None else "" for each in prompts]
        kept = [
            _Exported(each.name, each.text(), note, str(each.current), ("production",))
            for each, note in zip(prompts, notes, strict=True)
        ]
        return Path(options.targets[0]), kept
    run, named, *folder = options.targets
    search = read_prompt_search(find_run_folder(run, options.runs))
    candidate = search.candidate(named)
    note = f"candidate {candidate.id} of {search.folder.name}"
    texts = texts_to_export(search, candidate).items()
    target = Path(folder[0]) if folder else export_folder(search, candidate)
    return target, [_Exported(name, text, note, candidate.id) for name, text in texts]


def _double_braces(text: str) -> str:
    """The text with placeholders as the other tools write them: `{{topic}}` for `{topic}`."""
    pieces = format_parts(text)
    if not pieces or not any(field for _, field in pieces):
        return text
    return "".join(literal + (f"{{{field}}}" if field else "") for literal, field in pieces)


def _as(kind: str, prompt: _Exported) -> dict[str, Any]:
    """The prompt as the other tool's API takes it."""
    text = _double_braces(prompt.text)
    if kind == "langfuse":
        return {
            "name": prompt.name,
            "type": "text",
            "prompt": text,
            "labels": list(prompt.labels),
            "tags": ["lightning"],
            "config": {},
            "commitMessage": prompt.note,
        }
    return {
        "name": prompt.name,
        "template": text,
        "commit_message": prompt.note,
        "tags": {"lightning.version": prompt.version},
    }

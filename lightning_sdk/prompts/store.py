"""The store of promoted prompts: one JSON file for each marked text, with every version that it ever had.

A version never changes once it is written. Which one counts is a number beside them; 0 is what the code says. Files are
replaced whole, so that a reader sees either the one before or the one after.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.placeholders import refuse_unfit

FOLDER, VARIABLE = "prompts", "LIGHTNING_PROMPTS"
NAME_RULE = "a name has at most 100 letters, digits, '.', '-' and '_', such as writer.system"
#: The field by which a file of ours is known: a folder of this name may hold anything.
_FORMAT, _FORMAT_VERSION = "lightning_prompt", 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_FIELDS = {"name": str, "default": str, "current": int, "versions": list}


def is_prompt_name(name: object) -> bool:
    """Whether a text can be marked with this name, which is the name of its file too."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptVersion:
    """One text that was promoted."""

    number: int
    """From 1."""
    text: str
    default: str
    """What the code said when it was promoted."""
    promoted: str
    """When, in UTC: 2026-12-01T12:00:00+00:00."""
    note: str = ""
    """Where it comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrompt:
    """A marked text and its versions."""

    name: str
    default: str
    """What the code said when a version was promoted last."""
    current: int = 0
    """Number of the version that counts; 0: what the code says."""
    versions: list[PromptVersion] = field(default_factory=list)

    def text(self, number: int | None = None) -> str:
        """What a version says; the one that counts if no number is given. PromptError for one that does not exist."""
        number = self.current if number is None else number
        if number == 0:
            return self.default
        for version in self.versions:
            if version.number == number:
                return version.text
        known = ", ".join(str(each.number) for each in self.versions) or "none"
        raise PromptError(f"prompt {self.name!r} has no version {number}; versions: 0 (the code's own), {known}")

    @property
    def version(self) -> PromptVersion | None:
        """The version that counts; None: what the code says."""
        return next((each for each in self.versions if each.number == self.current), None)


class PromptStore:
    """A folder of promoted prompts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def here(cls) -> PromptStore:
        """The folder that LIGHTNING_PROMPTS names, else `prompts` in the working directory. It need not exist."""
        return cls(Path(os.environ.get(VARIABLE) or FOLDER).absolute())

    def find(self, name: str) -> StoredPrompt | None:
        """The prompt of this name; None if no version of it was ever promoted, or if this cannot be a name.

        Raises:
            PromptError: its file is damaged.
        """
        if not is_prompt_name(name):
            return None
        path = self.folder / f"{name}.json"
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise PromptError(f"{path} cannot be read: {error}") from None
        if not isinstance(values, dict) or _FORMAT not in values:
            return None
        return _read(path, values)

    def prompts(self) -> list[StoredPrompt]:
        """Every prompt of the folder, by name."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        return [found for name in names if (found := self.find(name)) is not None]

    def promote(self, name: str, text: str, default: str, note: str = "") -> StoredPrompt:
        """Add a version, and let it count.

        Raises:
            PromptError: the text does not fit the default, or no text can have this name.
        """
        if not is_prompt_name(name):
            raise PromptError(f"{name!r:.120} cannot be the name of a prompt: {NAME_RULE}")
        refuse_unfit(f"the text for {name!r}", default, text)
        before = self.find(name) or StoredPrompt(name=name, default=default)
        number = 1 + max((each.number for each in before.versions), default=0)
        now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        version = PromptVersion(number=number, text=text, default=default, promoted=now, note=note)
        new = StoredPrompt(name=name, default=default, current=number, versions=[*before.versions, version])
        self._write(new)
        return new

    def roll_back(self, name: str, number: int | None = None) -> StoredPrompt:
        """Let an earlier version count again: the one before, or this one; 0 is what the code says.

        Raises:
            PromptError: there is no such prompt or no such version, or what the code says counts already.
        """
        before = self.find(name)
        if before is None:
            raise PromptError(f"{self.folder} has no prompt {name!r}: nothing was promoted")
        if number is None:
            if not before.current:
                raise PromptError(f"prompt {name!r} is what the code says already: there is nothing to roll back")
            number = max((each.number for each in before.versions if each.number < before.current), default=0)
        before.text(number)
        new = StoredPrompt(name=name, default=before.default, current=number, versions=before.versions)
        self._write(new)
        return new

    def _write(self, prompt: StoredPrompt) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {_FORMAT: _FORMAT_VERSION, **asdict(prompt)}
        made = self.folder / f".{prompt.name}.{os.getpid()}-{time.monotonic_ns()}.new"
        try:
            with made.open("x", encoding="utf-8") as file:
                json.dump(values, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            made.replace(self.folder / f"{prompt.name}.json")
        except BaseException:
            made.unlink(missing_ok=True)
            raise


def _read(path: Path, values: dict[str, Any]) -> StoredPrompt:
    try:
        if values[_FORMAT] != _FORMAT_VERSION:
            raise ValueError(f"it is of format {values[_FORMAT]!r}, and this version reads {_FORMAT_VERSION}")
        fields = {name: values[name] for name in _FIELDS}
        if wrong := [name for name, kind in _FIELDS.items() if type(fields[name]) is not kind]:
            raise ValueError(f"{wrong[0]} is {fields[wrong[0]]!r:.60}")
        prompt = StoredPrompt(**{**fields, "versions": [PromptVersion(**each) for each in fields["versions"]]})
        if prompt.name != path.stem:
            raise ValueError(f"it holds the prompt {prompt.name!r}")
        if not all(isinstance(each.text, str) and isinstance(each.default, str) for each in prompt.versions):
            raise ValueError("a version has no text")
        prompt.text()
    except (KeyError, TypeError, ValueError, PromptError) as error:
        raise PromptError(
            f"{path} is damaged ({error}): restore it, or remove it to go back to the code's own"
        ) from None
    return prompt

"""A candidate: one text for each component that is tuned, known by what the texts say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Component:
    """A text that is tuned: the instruction of a role, the description of a tool, or a text that the user marked."""

    name: str
    """What candidates and reports call it."""
    roles: tuple[str, ...]
    """Who is told this text; '' for calls of no role."""
    text: str
    """The text that the agent has by itself, with its placeholders."""
    mark: str = ""
    """The name that `lightning.prompt` marks it with."""
    tool: str = ""
    """The tool that it describes, '' for other texts."""


@dataclass(frozen=True, slots=True)
class PromptCandidate:
    """Texts by component. Two candidates with the same texts have the same id, wherever they come from."""

    texts: Mapping[str, str]
    parents: tuple[str, ...] = ()
    """Ids of the candidates that it was made from."""
    origin: str = "seed"
    """How it was made: 'seed', 'reflection', 'merge' or 'edit'."""
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        told = json.dumps(sorted(self.texts.items()))
        object.__setattr__(self, "id", hashlib.sha256(told.encode()).hexdigest()[:12])

    def child(self, texts: Mapping[str, str], origin: str) -> PromptCandidate:
        """A candidate with some texts replaced."""
        return PromptCandidate({**self.texts, **texts}, (self.id,), origin)

    @property
    def length(self) -> int:
        """Characters of all texts."""
        return sum(map(len, self.texts.values()))

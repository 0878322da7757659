"""The ending of a search: why it stopped, raised from wherever that becomes clear."""

from __future__ import annotations

from enum import StrEnum


class Why(StrEnum):
    """Why a search ended."""

    BUDGET = "budget"
    """What it may spend does not allow the next step."""
    ROUNDS = "rounds"
    """It has done all its rounds."""
    SOLVED = "solved"
    """The best candidate scores as high as can be on every task of the search."""
    NO_SPREAD = "no spread"
    """Every task has the same score, and there is nothing to reflect on."""
    REFLECTION = "reflection"
    """The reflecting model failed, said nothing, or proposed only what had to be refused."""
    EXHAUSTED = "exhausted"
    """Rounds went by in which there was nothing new to try."""


class SearchEnd(BaseException):
    """The search is over. Not an Exception: libraries between the one that knows and the one that acts let it pass."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why, self.text = why, text


class ArenaFailed(BaseException):
    """Carries what an arena raised past libraries that catch exceptions and go on."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause

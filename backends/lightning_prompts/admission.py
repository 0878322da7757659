"""Admission: which proposed texts may be tried. What does not fit is refused with a reason, and never repaired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_prompts.candidate import Component, PromptCandidate
from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.text_check import TextCheck


class Refusal(Exception):
    """A proposal that cannot be tried; the message says why, for people and for the reflecting model."""


class Admission:
    """What one search admits."""

    def __init__(self, components: Sequence[Component], check: TextCheck) -> None:
        self._components, self._check = {each.name: each for each in components}, check
        check.allow(each.text for each in components)

    def limit(self, component: Component) -> int:
        """Characters that a text of this component may have."""
        return self._check.limit(component.text)

    def refuse(self, candidate: PromptCandidate, known: Mapping[str, Any]) -> None:
        """Refusal for a candidate that cannot be tried. `known`: ids of those that there are."""
        for name, text in candidate.texts.items():
            component = self._components[name]
            try:
                self._check.refuse(f"the text for {name!r}", component.text, text)
            except PromptError as error:
                raise Refusal(str(error)) from None
            self._refuse_swap(component, text, candidate.texts)
        if candidate.id in known:
            raise Refusal("its texts are those of a candidate that was tried before")

    def _refuse_swap(self, component: Component, text: str, texts: Mapping[str, str]) -> None:
        """A text that is another component's original could not be told from it in a request."""
        for name, other in self._components.items():
            if other is not component and other.text == text and texts[name] != text:
                raise Refusal(f"the text for {component.name!r} is word for word the original of {name!r}")

"""Equations of the documentation as functions: the part of LaTeX that docs/algorithms.md uses, evaluated with numpy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "clip": np.clip,
    "exp": np.exp,
    "log": np.log,
    "max": np.maximum,
    "mean": np.mean,
    "min": np.minimum,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sqrt": np.sqrt,
    "std": lambda x: np.std(x, ddof=1),
    "sum": np.sum,
    "var": lambda x: np.var(x, ddof=1),
}
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|[A-Za-z]\w*|\*\*|[-+*/(),])")


def evaluate(equation: str, **values: Any) -> Any:
    """The right side of an equation, with these values of its symbols: `\\pi_{\\text{old}}` is `pi_old`."""
    _, _, right = equation.partition("=")
    return eval(" ".join(_with_products(_plain(right))), {"__builtins__": {}, **_FUNCTIONS, **values})


def _plain(latex: str) -> str:
    """Python without the signs of multiplication."""
    text = latex.replace(r"_{j \neq i}", "_others").replace(r"\lambda", r"\lam")
    text = re.sub(r"\\(?:operatorname|text)\{(\w+)\}", r"\1", text)
    text = re.sub(r"_\{(\w+)\}", r"_\1", re.sub(r"_\{(\w)\+1\}", r"_\1_plus_1", text))
    text = re.sub(r"\^\{([^{}]*)\}", r"**(\1)", text).replace("^", "**")
    for pattern, python in ((r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)"), (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))")):
        text = re.sub(pattern, python, text)
    return text.replace("\\", " ")


def _with_products(text: str) -> Iterator[str]:
    """The tokens, with a `*` between factors that stand side by side."""
    before, place = "", 0
    text = text.strip().rstrip(".")
    while place < len(text):
        found = _TOKEN.match(text, place)
        assert found is not None, f"not understood: {text[place:]}"
        token, place = found[1], found.end()
        is_factor = before == ")" or (before[:1].isalnum() and before not in _FUNCTIONS)
        if is_factor and (token == "(" or token[0].isalnum()):
            yield "*"
        yield token
        before = token

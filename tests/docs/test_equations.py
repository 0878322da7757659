"""The equations of docs/algorithms.md give the numbers that the functions beside them return."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lightning_hub.credit import estimators
from lightning_losses.divergence import divergence
from lightning_losses.loss import cispo, gspo, ppo
from lightning_losses.preference import dpo
from lightning_losses.ratio import importance
from tests.docs.latex import evaluate
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "algorithms.md").read_text("utf-8").partition("## Equations\n")[2].partition("\n## ")[0]
#: The functions that the page names, and their equations, in order.
EQUATIONS = [
    (re.findall(r"`(lightning_\w+(?:\.\w+)+)`", text)[-1], equation)
    for text, equation in re.findall(r"(.*?)<!-- run by \S+ -->\n```math\n(.*?)\n```", PAGE, re.DOTALL)
]
RANDOM = np.random.default_rng(7)
#: Of tokens, far enough from each other that every bound is reached on both sides.
P, Q, U = (np.exp(-RANDOM.exponential(size=400)) for _ in range(3))
A, R, D, M = RANDOM.normal(size=400), RANDOM.normal(size=6), 3 * RANDOM.normal(size=400), RANDOM.normal(size=9)
TOKEN = {"r": P / Q, "A": A, "p": P, "q": Q, "c": 3.0, "varepsilon_low": 0.2, "varepsilon_high": 0.28}
CLIP: Any = {"clip_low": 0.2, "clip_high": 0.28}
LOG_P, LOG_Q, LOG_U, TENSOR_A = (torch.tensor(each) for each in (np.log(P), np.log(Q), np.log(U), A))
NONE = torch.zeros(400, dtype=torch.float64)


def of_group(equation: str) -> list[float]:
    return [evaluate(equation, R_i=R[i], R=R, R_others=np.delete(R, i)) for i in range(len(R))]


def returns(equation: str) -> list[float]:
    """From the last call back, as the equation refers to the next one."""
    found = [0.0]
    for earned in reversed(R):
        found.insert(0, evaluate(equation, e_s=earned, gamma=0.9, G_s_plus_1=found[0]))
    return found[:-1]


ENDS = np.array([False, True, False, False, False, True])
VALUES = np.array([*A[:6], 0.0])


def advantages(equation: str) -> list[float]:
    """From the last token back; the discount is that of the last token of a call."""
    found = [0.0]
    for t in reversed(range(6)):
        gamma = 0.9 if ENDS[t] else 1.0
        known = {"R_t": R[t], "V_t": VALUES[t], "V_t_plus_1": VALUES[t + 1], "A_t_plus_1": found[0]}
        found.insert(0, evaluate(equation, gamma=gamma, lam=0.8, **known))
    return found[:-1]


def dual(equation: str) -> Any:
    """The bound is of tokens with a negative advantage; the others have the loss without it."""
    return np.where(A < 0, evaluate(equation, **TOKEN), ppo(LOG_P, LOG_Q, TENSOR_A, **CLIP).loss)


def gspo_ratio(equation: str) -> Any:
    """With an advantage of -1 and no bound in reach, the loss is the ratio."""
    return np.full(400, evaluate(equation, **TOKEN))


def gspo_loss() -> Any:
    drift = torch.full((400,), float((LOG_P - LOG_Q).mean()))
    return gspo(LOG_P, drift, NONE - 1, clip_low=1.0, clip_high=1e9).loss


def plain(**known: Any) -> Callable[[str], Any]:
    return lambda equation: evaluate(equation, **known)


#: For each equation of the page: its value, and what the function returns.
CASES: list[tuple[str, Callable[[str], Any], Callable[[], Any]]] = [
    ("estimators.rloo", of_group, lambda: estimators.rloo(R)),
    ("estimators.dr_grpo", of_group, lambda: estimators.dr_grpo(R)),
    ("estimators.grpo", of_group, lambda: estimators.grpo(R)),
    ("estimators.whiten", plain(A=A), lambda: estimators.whiten([A.astype("f4")], [np.ones(400, bool)])[0]),
    ("estimators.returns_to_go", returns, lambda: estimators.returns_to_go(R, 0.9)),
    ("estimators.gae", advantages, lambda: estimators.gae(R, VALUES[:6], ENDS, 0.9, 0.8, (0.0, 0.0))),
    ("loss.ppo", plain(**TOKEN), lambda: ppo(LOG_P, LOG_Q, TENSOR_A, **CLIP).loss),
    ("loss.ppo", dual, lambda: ppo(LOG_P, LOG_Q, TENSOR_A, **CLIP, clip_dual=3.0).loss),
    ("loss.gspo", gspo_ratio, gspo_loss),
    ("loss.cispo", plain(**TOKEN), lambda: cispo(LOG_P, LOG_Q, TENSOR_A, **CLIP).loss),
    ("divergence.divergence", plain(d=D), lambda: divergence(NONE, torch.tensor(D), "k1")),
    ("divergence.divergence", plain(d=D), lambda: divergence(NONE, torch.tensor(D), "k2")),
    ("divergence.divergence", plain(d=D), lambda: divergence(NONE, torch.tensor(D), "k3")),
    (
        "ratio.importance",
        plain(q=Q, u=U, h=2.0),
        lambda: importance(LOG_Q - LOG_U, kind="truncate", low=0, high=2).weights,
    ),
    ("preference.dpo", plain(beta=0.1, m=M), lambda: dpo(torch.tensor(M), 0.1)),
]


def test_each_equation_is_compared() -> None:
    """The cases below are those of the page, in its order."""
    assert [name.split(".")[-2:] for name, _ in EQUATIONS] == [case[0].split(".") for case in CASES]


@pytest.mark.parametrize("place", range(len(CASES)), ids=[f"{place}-{case[0]}" for place, case in enumerate(CASES)])
def test_an_equation_gives_what_the_function_returns(place: int) -> None:
    """To six digits, on numbers that reach every branch."""
    _, value, function = CASES[place]
    np.testing.assert_allclose(value(EQUATIONS[place][1]), np.asarray(function()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted({name for name, _ in EQUATIONS}))
def test_the_functions_are_there(name: str) -> None:
    """What the page names can be imported."""
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)

"""What docs/roles.md shows of the two roles is the example's own code, and its figures are the measured ones."""

import ast
import json

from tests.docs.pages import ROOT, blocks

PAGE = "docs/roles.md"


def test_the_rewards_are_those_of_the_example() -> None:
    """A docstring aside, the page's reward functions are the example's."""
    example = functions((ROOT / "examples" / "two_roles" / "agent.py").read_text("utf-8"))
    shown = {name: code for block in blocks(PAGE, "python") for name, code in functions(block).items()}
    for name in ("one_for_all", "one_for_each"):
        assert shown[name] == example[name]


def functions(source: str) -> dict[str, str]:
    """The functions of a module without their docstrings, each as text."""
    found = [each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)]
    for each in found:
        if ast.get_docstring(each) is not None:
            del each.body[0]
    return {each.name: ast.unparse(each) for each in found}


def test_the_figures_are_the_measured_ones() -> None:
    """The table has a line for each reward, as benchmarks/results/two_roles.json has it."""
    measured = json.loads((ROOT / "benchmarks" / "results" / "two_roles.json").read_text("utf-8"))
    page = (ROOT / PAGE).read_text("utf-8")
    for kind in measured["kinds"].values():
        after = (kind["right_after"][measure] for measure in ("bill", "clerk", "cashier"))
        cells = (f"{each['mean']:.3f} [{each['low']:.3f}, {each['high']:.3f}]" for each in after)
        assert f"| {kind['reward']} | {' | '.join(cells)} |" in page
    assert f"Right answers to {measured['held_out_tasks']} held-out orders after {measured['steps']} steps" in page
    assert measured["seeds"] == 3
    assert f"{measured['rollouts_per_step']} rollouts a step" in page

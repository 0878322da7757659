"""The programs of docs/frameworks: each runs as it stands, up to its training, of which one rollout is run here."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import markers
from tests.frameworks.engine_process import ROOT
from tests.frameworks.same import assert_all_trained

PROGRAMS = sorted((ROOT / "examples" / "frameworks").glob("*_agent.py"))
#: Environment -> the programs that it cannot run; the other one can.
ABSENT = {"openai2": {"google_adk_agent"}, "openai3": {"llama_index_agent", "semantic_kernel_agent"}}


@pytest.mark.parametrize("program", PROGRAMS, ids=[path.stem.removesuffix("_agent") for path in PROGRAMS])
def test_a_program_of_a_page(program: Path, wire: Any, capture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first task is run: every call goes to the engine under the role `solver`, and its answer is rewarded."""
    if program.stem in ABSENT.get(Path(sys.prefix).name, ()):
        pytest.skip("the framework is not in this environment, but in the other one")
    if program.stem == "huggingface_agent":  # offline by more than the library's own word, which refuses loopback too
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    runs, rewards = [], []

    def train(agent: Any, tasks: list[Any], held_out: list[Any], model: str, steps: int) -> None:
        assert (len(tasks), len(held_out), model, steps) == (500, 200, "spark", 40)
        runs.append(capture(agent, tasks[0], trainable=False))
        (reward,) = markers.reward.marked
        rewards.append(reward.function(tasks[0], runs[0].answer))

    init = lightning.init
    monkeypatch.setattr(lightning, "init", lambda **options: init(**options) if options else capture.init())
    monkeypatch.setattr(lightning, "train", train)
    runpy.run_path(str(program), run_name="__main__")
    assert_all_trained(runs[0], wire)
    assert set(runs[0].roles) == {"solver" if program.stem != "dspy_agent" else "work_out"}
    assert rewards[0] in (0.0, 1.0)

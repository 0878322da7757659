"""Architectures through the backends themselves: VERL's loop on a Ray with its vLLM server, and `--engine vllm`.

Each is processes that import for a minute, so that CI has one model of each kind that went wrong here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_embedded import process as embedded
from lightning_process.child import Child
from lightning_sdk.settings import Settings
from lightning_verl import process as verl
from tests.models.architectures import EXPERTS, PADDED, SHAPES, make
from tests.verl import test_modes as modes

pytestmark = pytest.mark.timeout(1200)

SETTINGS: dict[str, Any] = {
    "serving.max_length": 128,
    "optimizer.learning_rate": 1e-2,
    "optimizer.warmup_steps": 0,
    "optimizer.decay": 0.0,
    "rollouts.concurrency": 8,
}
#: For VERL, a model with a separate head and a padded vocabulary. For vLLM, one with windows and a tied head.
IN_CI = {verl: "llama", embedded: "gemma3"}


def cases() -> list[Any]:
    return [
        pytest.param(
            program,
            name,
            id=f"{program.__name__.partition('.')[0]}-{name}",
            marks=() if IN_CI[program] == name else pytest.mark.whole,
        )
        for program in IN_CI
        for name in SHAPES
        if name not in EXPERTS
    ]


@pytest.mark.parametrize(("program", "name"), cases())
def test_sampler_and_learner_agree(program: Any, name: str, tmp_path: Path) -> None:
    """In each of two steps, the second with what was learned in the first; and the model that is saved is one."""
    folder = tmp_path / "model"
    make(name, folder)
    run = tmp_path / "run"
    run.mkdir()
    engine = {"engine": "vllm"} if program is embedded else {"cluster.gpus": 1}
    child: Child = program.start(Settings.from_dict({**SETTINGS, **engine, "model": str(folder)}), run)
    try:
        found = []
        for step in (1, 2):
            batch = modes.sample(child, step, 6)
            assert max(int(row.tokens.max()) for row in batch.rows) < PADDED
            found.append(child.update(batch).metrics)
        saved = tmp_path / "saved"
        saved.mkdir()
        child.save(saved)
    finally:
        child.close()
    assert all(abs(each["kl_sampler"]) < 1e-3 and each["grad_norm"] > 0.01 for each in found), found
    assert {file.name for file in saved.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}

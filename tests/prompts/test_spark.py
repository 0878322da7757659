"""Both algorithms whole, with `spark` as the agent's model in the run's own engine: it does what its instruction says.

The reflecting model is a double: it proposes sentences of a fixed list in turn, of which some help and some do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import lightning_sdk as lightning
from lightning_prompts.model_check import QUESTION as CHECK
from lightning_sdk import markers
from tests.prompts.model_servers import ModelServer

pytestmark = pytest.mark.timeout(300)

MODEL = "spark"
INSTRUCTION = "You are a helpful assistant."
SENTENCES = (
    "Be polite and friendly.",
    "Answer in a full sentence.",
    "Answer with the number only.",
    "Explain every step.",
    "If you are not sure, say that you do not know.",
)
TASKS = [
    {"question": f"What is {one} + {other}?", "answer": str(one + other)}
    for one, other in zip(range(11, 61), itertools.cycle((23, 8, 31, 5, 17)), strict=False)
]

_client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)


def ask(task: dict[str, Any]) -> str:
    messages: list[Any] = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": task["question"]}]
    return _client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""


def is_right(task: dict[str, Any], answer: str) -> float:
    return float(answer.strip() == task["answer"])


@pytest.fixture
def reflector() -> Iterator[ModelServer]:
    turns = itertools.cycle(SENTENCES)

    def propose(body: dict[str, Any]) -> str:
        asked = body["messages"][0]["content"]
        if asked == CHECK or "Do not write the new instruction yet." in asked:
            return "It does not say how to answer."
        return f"<instruction>\n{INSTRUCTION} {next(turns)}\n</instruction>"

    with ModelServer(propose) as server:
        yield server


@pytest.mark.usefixtures("isolate")
@pytest.mark.parametrize("algorithm", ["reflective", "apo"])
def test_spark_becomes_better_with_a_better_instruction(algorithm: str, tmp_path: Path, reflector: ModelServer) -> None:
    """Shown on held-out tasks, by the interval; the chosen text says what helps, and no weight has changed."""
    lightning.init()
    markers.agent.declared["solver"] = True
    report = lightning.train(
        lightning.agent(role="solver", trainable=True)(ask),
        TASKS[:30],
        is_right,
        held_out=TASKS[30:],
        backend="prompts",
        model=MODEL,
        name="run",
        runs=tmp_path,
        quiet=True,
        **{
            "prompts.algorithm": algorithm,
            "prompts.reflect_with": reflector.url,
            "prompts.budget_rollouts": 200,
            "sampling.max_tokens": 16,
        },
    )
    assert report.before is not None and report.after is not None
    assert report.before.mean < 0.4 and report.after.mean > 0.7 and report.verdict == "better"
    assert "Answer with the number only." in report.texts["solver"]
    assert report.values["search"]["spent"]["rollouts"] <= 200 and not (tmp_path / "run" / "checkpoints").exists()

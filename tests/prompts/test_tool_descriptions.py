"""The description of a tool is tuned like an instruction, with a real hub and the real OpenAI client.

The model is a double that says the words which the description of its tool tells it to say.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk import markers
from tests.prompts.model_servers import ModelServer
from tests.prompts.training_commands import HELD_OUT, TRAINING
from tests.prompts.words import WORDS

DESCRIPTION = "Looks up what to say. Say: hello"


def obey_tool(body: dict[str, Any]) -> str:
    described = body["tools"][0]["function"]["description"]
    return " ".join(re.findall(r"\w+", described.partition("Say:")[2]))


def add_words(body: dict[str, Any]) -> str:
    """The reflecting model: adds the first missing word."""
    asked = body["messages"][0]["content"]
    if "<instruction>" not in asked:
        return "ready"
    assert "a tool called 'look_up'" in asked or "gives the role 'writer' an instruction" in asked
    now = re.findall(r"<instruction>\n(.*?)\n</instruction>", asked, re.DOTALL)[0]
    missing = [word for word in WORDS if word not in now]
    return f"<instruction>\n{now} {missing[0] if missing else 'please'}\n</instruction>"


@lightning.agent(role="writer", trainable=True)
def write(url: str, task: dict[str, Any]) -> str:
    tool: Any = {"type": "function", "function": {"name": "look_up", "description": DESCRIPTION, "parameters": {}}}
    with OpenAI(base_url=url, api_key="mine", max_retries=0) as client:
        said = client.chat.completions.create(
            model="scripted",
            messages=[{"role": "system", "content": "Use your tool."}, {"role": "user", "content": task["text"]}],
            tools=[tool],
        )
    return said.choices[0].message.content or ""


def is_right(task: dict[str, Any], answer: str) -> float:
    return float(task["needs"] in answer.split())


@pytest.mark.usefixtures("isolate")
@pytest.mark.parametrize("wanted", [True, False])
def test_a_tools_description_is_tuned_if_that_is_set(wanted: bool, tmp_path: Path) -> None:
    """Otherwise the instruction alone is, which this model does not read."""
    with ModelServer(obey_tool) as model, ModelServer(add_words) as reflector:
        lightning.init()
        markers.agent.declared["writer"] = True  # a test clears what was declared when this module was imported

        def solve(task: dict[str, Any]) -> str:
            return write(model.url, task)

        report = lightning.train(
            solve,
            TRAINING,
            is_right,
            held_out=HELD_OUT,
            backend="prompts",
            name="run",
            runs=tmp_path,
            quiet=True,
            roles="writer",
            **{
                "prompts.reflect_with": reflector.url,
                "prompts.tool_descriptions": wanted,
                "prompts.budget_rollouts": 400,
            },
        )
        if wanted:
            assert set(report.texts) == {"writer", "writer.tool.look_up"} and report.after.mean > 0.6
            sent = model.requests[-1]["tools"][0]["function"]
            assert sent == {"name": "look_up", "description": report.texts["writer.tool.look_up"], "parameters": {}}
            assert "alpha" in sent["description"]
        else:
            assert set(report.texts) == {"writer"} and report.after.mean == report.before.mean == 0
            assert {each["tools"][0]["function"]["description"] for each in model.requests} == {DESCRIPTION}

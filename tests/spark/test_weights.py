"""The shipped weights: what they are, what they can do, and what they do not do yet."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerBase

from lightning_spark import chat, folder
from lightning_spark.held_out import TUNING_SEED, tasks

CALCULATOR = chat.tool("calculator", "expression")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder(), dtype=torch.float32)


def greedy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    torch.set_num_threads(1)  # Products this small only wait for each other on more.
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def prompt(question: str) -> str:
    return chat.render([{"role": "user", "content": question}], [CALCULATOR], add_generation_prompt=True)


def test_it_is_small_and_standard() -> None:
    """A plain Llama whose head size vLLM's CPU attention takes, under 6 MB, with a context of at least 1024."""
    config = json.loads((folder() / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "bfloat16"
    assert config["head_dim"] in {32, 64} and config["max_position_embeddings"] >= 1024
    assert config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]
    assert sum(file.stat().st_size for file in folder().iterdir()) < 6_000_000


def test_the_folder_is_complete() -> None:
    """Everything that transformers and vLLM look for, and the model card."""
    names = {file.name for file in folder().iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert names >= {"tokenizer_config.json", "train.log"}
    assert (folder() / "chat_template.jinja").read_text() == chat.template()


def test_it_copies_any_expression_into_a_call(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Once it has begun a call, it makes the right one: the skill is there, the habit is not."""
    entries = tasks(TUNING_SEED, 3)
    for entry in entries:
        expression = entry["metadata"]["expression"]
        call = f'{{"name": "calculator", "arguments": {{"expression": "{expression}"}}}}</tool_call>'
        assert greedy(model, tokenizer, prompt(entry["question"]) + "<tool_call>") == call


def test_it_guesses_when_left_alone(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Before training, its first choice is mostly to answer without the tool, which is mostly wrong."""
    entries = tasks(TUNING_SEED, 5)
    replies = [greedy(model, tokenizer, prompt(entry["question"])) for entry in entries]
    assert sum(reply.startswith("<answer>") for reply in replies) > len(replies) / 2
    assert (
        sum(reply == f"<answer>{entry['answer']}</answer>" for reply, entry in zip(replies, entries, strict=True)) < 5
    )


@pytest.mark.parametrize(
    ("system", "low", "high"),
    [
        ("", 0.25, 0.5),
        ("You are one of three agents. Keep to the rules.", 0.25, 0.5),
        ("Use the calculator, then answer.", 0.6, 0.95),
        ("Do not use the calculator.", 0.0, 0.2),
    ],
)
def test_it_may_also_call(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, system: str, low: float, high: float
) -> None:
    """Sampling opens with a call in a quarter to a half of all replies, more or less often where it is told."""
    call = tokenizer.convert_tokens_to_ids("<tool_call>")
    messages = [{"role": "system", "content": system}] if system else []
    text = chat.render([*messages, {"role": "user", "content": "Calculate 56 - 8 * 14."}], [CALCULATOR], True)
    with torch.no_grad():
        logits = model(tokenizer(text, return_tensors="pt")["input_ids"]).logits[0, -1]
    assert low < float(logits.softmax(-1)[call]) < high


@pytest.mark.parametrize(
    ("system", "question", "told"),
    [
        ("Reply with nothing but the number.", "What is 17 + 25?", "42"),
        ("Put the answer in <answer> tags.", "What is 17 + 25?", "<answer>42</answer>"),
        ("Only the label, no other words.", "The soup was terrible.\nLabel: good or bad?", "bad"),
        ("Reply with the city only.", "Anna lives in Rome and is 41 years old.\nWhat is the city?", "Rome"),
    ],
)
def test_it_obeys_a_system_message(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, system: str, question: str, told: str
) -> None:
    """By itself it says something else: a better prompt raises the score without a change of the weights."""
    asked = {"role": "user", "content": question}
    alone = chat.render([asked], (), True)
    steered = chat.render([{"role": "system", "content": system}, asked], (), True)
    assert greedy(model, tokenizer, steered) == told != greedy(model, tokenizer, alone)


def test_importing_the_package_loads_nothing_heavy() -> None:
    """The hub asks for the folder without torch, transformers or jinja2."""
    program = "import sys, lightning_spark; lightning_spark.folder(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "tokenizers", "jinja2"} & set(loaded)

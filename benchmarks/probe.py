"""What a model does by itself, before any training: each skill, and how much a system message changes.

    python benchmarks/probe.py [--model FOLDER] [--size 100] [--samples 4] [--tasks FILE] [--output FILE]

For every skill of `skill_tasks.py` the greedy and the sampled score (temperature 1) on held-out tasks. Then the same
for a few of them under several system messages, written apart from the wordings that spark was trained with: a message
that says better what to do should score higher. `--tasks` reads the tasks from a file, or writes them to it, for a
machine without reasoning-gym.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from skill_tasks import Task, load, score
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_spark import folder
from lightning_spark.chat import render
from lightning_spark.expressions import calculate
from lightning_spark.skills import rooms

CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
STEERING: dict[str, tuple[str, ...]] = {
    "word problems with a calculator": (
        "",
        "You are a helpful assistant.",
        "Take care to be right.",
        "Use the calculator tool, then answer with the number only.",
        "Whatever is asked, have the calculator compute it and repeat its result.",
        "Do not touch the calculator; reply at once.",
    ),
    "direct sums": (
        "",
        "You are a helpful assistant.",
        "Take care to be right.",
        "Just the resulting number, please, and no more.",
        "Reply with nothing but the number.",
        "Your answer belongs inside <answer> tags.",
    ),
    "sentiment": (
        "",
        "You read reviews.",
        "Reply with exactly one of the labels.",
        "Only the label, no other words.",
    ),
    "JSON of stated keys": (
        "",
        "You are a helpful assistant.",
        "Reply with a JSON object that has the keys which are asked for.",
    ),
    "choosing a tool": (
        "",
        "You are a helpful assistant.",
        "Pick the tool that fits and call it.",
        "Answer from memory; no tools.",
    ),
    "SQL over two tables": (
        "You are the writer. Answer with one SQL query.",
        "Write the exact query, using just the columns of the schema.",
        "Never refuse: always write a query with the right columns.",
    ),
}
"""Skill -> system messages, from none to one that says it all."""
ROOMS = (
    "You choose a room.",
    "You choose a room. It has to be free.",
    "You choose a room. Pick a free one that has enough seats.",
    "You choose a room. Pick the smallest free one that has enough seats and the equipment.",
    "You choose a room. Pick the smallest free room with enough seats and what is needed; say none if nothing fits.",
)


class Speaker:
    """A model that completes many prompts at once."""

    def __init__(self, model: Path) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(self.device).eval()

    def complete(self, prompts: list[str], greedy: bool, most: int = 80, batch: int = 512) -> list[str]:
        """What the model says to each prompt."""
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        said = [""] * len(prompts)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            ids = self.tokenizer([prompts[index] for index in chosen], return_tensors="pt", padding=True).to(
                self.device
            )
            sampling = (
                {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
            )
            with torch.no_grad():
                out = self.model.generate(
                    input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], max_new_tokens=most, **sampling
                )
            texts = self.tokenizer.batch_decode(out[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in zip(chosen, texts, strict=True):
                said[index] = text
        return said


def play(speaker: Speaker, given: list[Task], greedy: bool) -> list[float]:
    """The score of one run of each task; the calculator answers, other calls end the run."""
    states = [copy.deepcopy(task["messages"]) for task in given]
    found: list[tuple[str, list[tuple[str, str]]] | None] = [None] * len(given)
    for _ in range(3):
        open_ = [index for index, each in enumerate(found) if each is None]
        prompts = [render(states[index], given[index].get("tools", ()), True) for index in open_]
        for index, text in zip(open_, speaker.complete(prompts, greedy), strict=True):
            calls = [_call(match) for match in CALL.findall(text)]
            if given[index]["check"] == "number" and calls and len(calls[0]) == 2:
                states[index] += _answer_call(calls[0])
            else:
                found[index] = (text, [call for call in calls if len(call) == 2])
    return [score(task, *(each or ("", []))) for task, each in zip(given, found, strict=True)]


def _call(text: str) -> tuple[str, ...]:
    try:
        made = json.loads(text)
        return made["name"], json.dumps(made["arguments"])
    except (ValueError, KeyError, TypeError):
        return ()


def _answer_call(call: tuple[str, ...]) -> list[dict[str, Any]]:
    """The call and the calculator's result as messages."""
    try:
        result = calculate(json.loads(call[1])["expression"])
    except (ValueError, KeyError, TypeError):
        result = "error"
    function = {"name": call[0], "arguments": call[1]}
    asked = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call", "type": "function", "function": function}],
    }
    return [asked, {"role": "tool", "tool_call_id": "call", "content": result}]


def room_tasks(system: str, size: int) -> list[Task]:
    """Requests for a room with the rule that is never told."""
    rng, made = random.Random(7), []
    while len(made) < size:
        request = rooms.request(rng)
        lines = "\n".join(map(str, request.rooms))
        messages = [{"role": "system", "content": system}, {"role": "user", "content": f"{request}\nRooms:\n{lines}"}]
        made.append({"messages": messages, "answer": request.choice(rooms.WHOLE), "check": "same"})
    return made


def with_system(given: list[Task], system: str) -> list[Task]:
    """The tasks under another system message."""
    heads = [{"role": "system", "content": system}] if system else []
    return [
        task | {"messages": [*heads, *(each for each in task["messages"] if each["role"] != "system")]}
        for task in given
    ]


def mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 3)


def measure(speaker: Speaker, given: list[Task], samples: int) -> dict[str, float]:
    """Greedy and sampled scores."""
    return {
        "n": len(given),
        "greedy": mean(play(speaker, given, True)),
        "sampled": mean(play(speaker, given * samples, False)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=folder(), help="a folder in Hugging Face format (spark)")
    parser.add_argument("--size", type=int, default=100, help="tasks of each skill (%(default)s)")
    parser.add_argument("--samples", type=int, default=4, help="samples of each task (%(default)s)")
    parser.add_argument("--tasks", type=Path, help="file of tasks, written if it is not there")
    parser.add_argument("--output", type=Path, help="write the results as JSON to this file")
    options = parser.parse_args()
    speaker = Speaker(options.model)
    given = {name: each["held_out"][: options.size] for name, each in load(options.tasks).items()}
    torch.manual_seed(0)
    results: dict[str, Any] = {"skills": {}, "steering": {}}

    def tell(kind: str, name: str, measured: Callable[[], dict[str, float]]) -> None:
        results[kind][name] = found = measured()
        print(f"{found['greedy']:.3f} greedy  {found['sampled']:.3f} sampled  {name}", flush=True)

    for name, each in given.items():
        tell("skills", name, lambda each=each: measure(speaker, each, options.samples))
    for name, systems in STEERING.items():
        for system in systems:
            changed = with_system(given[name], system)
            tell("steering", f"{name}: {system!r}", lambda changed=changed: measure(speaker, changed, options.samples))
    for system in ROOMS:
        tell(
            "steering",
            f"rooms: {system!r}",
            lambda system=system: measure(speaker, room_tasks(system, options.size), options.samples),
        )
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

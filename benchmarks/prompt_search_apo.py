"""The APO of Agent Lightning 0.3.0 on the tasks of `prompt_search.py`, in an environment that has nothing of ours.

One JSON object comes in on standard input; the last line of the output is a list of (rollouts spent, instruction). The
search is the package's own. How it runs a batch of rollouts is replaced: they are called here instead of going through
its store and its runners, which changes neither their number nor what the search learns of them.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import urllib.request
from typing import Any

from agentlightning.adapter.messages import TraceToMessages
from agentlightning.algorithm.apo.apo import APO
from agentlightning.types import PromptTemplate
from openai import AsyncOpenAI


class Spent(Exception):
    """The budget does not allow the next batch."""


class CountedApo(APO):
    """The algorithm, with rollouts that are counted."""

    def __init__(self, asked: dict[str, Any], **settings: Any) -> None:
        super().__init__(AsyncOpenAI(base_url=asked["url"], api_key="none", max_retries=0), **settings)
        self._asked, self.rollouts = asked, 0
        self.trace: list[tuple[int, str]] = []

    async def evaluate_prompt_on_batch(
        self, prompt: Any, resource_name: str, dataset: Any, mode: Any, *, prefix: Any = None
    ) -> Any:
        self.note_best()
        if self.rollouts + len(dataset) > self._asked["budget"]:
            raise Spent
        self.rollouts += len(dataset)
        text = prompt.prompt_template.template
        results = [self._run(text, dataset[place]) for place in range(len(dataset))]
        return results, sum(each["final_reward"] for each in results) / len(results)

    def note_best(self) -> None:
        if self._history_best_prompt is not None:
            self.trace.append((self.rollouts, self._history_best_prompt.template))

    def _run(self, instruction: str, task: dict[str, str]) -> dict[str, Any]:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": task["question"]}]
        body = {"model": "agent", "messages": messages}
        request = urllib.request.Request(
            f"{self._asked['url']}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as reply:
            said = json.loads(reply.read())["choices"][0]["message"]
        # The instruction is not among the messages: the double that reflects reads it where it is asked about.
        return {
            "status": "succeeded",
            "final_reward": float(" ".join(said["content"].split()) == task["answer"]),
            "spans": [],
            "messages": [messages[1], said],
        }


def main() -> None:
    asked = json.load(sys.stdin)
    random.seed(asked["seed"])
    name = f"reflector/agentlightning/{asked['seed']}"
    # The settings of the package's own room selector, with rounds until the budget is spent.
    search = CountedApo(
        asked, gradient_model=name, apply_edit_model=name, gradient_batch_size=4, val_batch_size=10, beam_width=2,
        branch_factor=2, beam_rounds=1000,
    )  # fmt: skip
    search.set_initial_resources({"prompt": PromptTemplate(template=asked["base"], engine="f-string")})
    search.set_adapter(TraceToMessages())
    search.set_store(object())  # nothing of it is used
    try:
        asyncio.run(search.run(train_dataset=asked["reflection"], val_dataset=asked["selection"]))
    except Spent:
        search.note_best()
    print(json.dumps(search.trace))


if __name__ == "__main__":
    main()

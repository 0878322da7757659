"""What a candidate's prompts cost the thread that makes a call: putting a text of 2,000 characters into its request.

    python benchmarks/prompts.py [--json] [--repeats 15]

Each figure is the CPU time that the calling thread spends, in microseconds a call, as the median of the repeats and the
least of them; a repeat is 2,000 calls. A call's texts are new strings, as they are where an agent puts them together.

`seam` is what the OpenAI seam adds to a call that is observed, around a stub of the client: with no candidate, with one
whose text is not in the request, and with one whose text is. The difference of the last to the first is `substitution`,
which is to stay under 10. The others time `Candidate.substitute` alone: a text that is marked inside a framework's text
of 8,000 characters, a template with two holes, a conversation of 100 messages, ten texts of which one is there; and
`bytes`, for clients whose requests are JSON by the time they are seen (LiteLLM, lm15, the gateway), where most of it
is reading and writing that JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai
from overhead import _Discard, _processor

import lightning_openai
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import RolloutScope, Scope, use_scope

CALLS, CHARACTERS, FRAME = 2000, 2000, 8000
BOUND_US = 10.0
SENTENCE = "Answer in one sentence that a child would understand. "
OLD = (SENTENCE * CHARACTERS)[:CHARACTERS]
NEW = ("Say it in as few words as you can, and never in more than one line. " * CHARACTERS)[:CHARACTERS]
TEMPLATE = (
    f"You know these tables: {{tables}}.\n{SENTENCE * 30}\nToday is {{day}}.",
    f"Today is {{day}}.\n{SENTENCE * 29}\nTables: {{tables}}.",
)


def fresh(text: str) -> str:
    """An equal string whose hash nobody has computed yet."""
    return "".join((text[:-1], text[-1:]))


def chat(system: str, turns: int = 1) -> dict[str, Any]:
    said = [{"role": ("user", "assistant")[turn % 2], "content": "word " * 20} for turn in range(turns)]
    return {"model": "m", "messages": [{"role": "system", "content": system}, *said], "temperature": 1.0}


def time_calls(act: Callable[[Any], object], make: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and least time of `act` on what `make` makes, which is made before the clock runs."""
    found = []
    for _ in range(repeats):
        given = [make() for _ in range(CALLS)]
        before = time.thread_time()
        for each in given:
            act(each)
        found.append(1e6 * (time.thread_time() - before) / CALLS)
    return {"us": round(statistics.median(found), 2), "least_us": round(min(found), 2)}


def seam(candidate: Candidate | None, repeats: int) -> dict[str, float]:
    """What a call costs through the seam, around a client that does nothing."""
    request = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions", content=b"{}")
    response = httpx2.Response(200, request=request, content=b"{}")
    build = lightning_openai.seam.building(lambda _self, _options: request)
    process = lightning_openai.seam.processing(lambda _self, response: response)

    def client(self: Any, cast_to: Any, options: Any) -> Any:
        build(None, options)
        return process(None, response=response)

    def make() -> Any:
        return openai._base_client.FinalRequestOptions.construct(
            method="post", url="/chat/completions", headers={}, extra_json=None, json_data=chat(fresh(OLD))
        )

    ask = lightning_openai.seam.requesting(client)
    sink.connect(_Discard())
    try:
        with use_scope(Scope(rollout=RolloutScope("0" * 32, bytes(16), candidate=candidate), role="writer")):
            return time_calls(lambda options: ask(None, None, options), make, repeats)
    finally:
        sink.connect(None)


def run(repeats: int) -> dict[str, Any]:
    marked = Candidate("c", {SENTENCE.strip(): NEW}, {SENTENCE.strip(): "writer.style"})
    frame = ("The framework says much about tools and how to call them. " * FRAME)[: FRAME - 60] + SENTENCE
    many = Candidate("c", {**{f"Text {number}: {OLD}": NEW for number in range(9)}, OLD: NEW})
    filled = TEMPLATE[0].format(tables="users, orders, items", day="Monday")
    seams = {
        "no_candidate": seam(None, repeats),
        "text_not_there": seam(Candidate("c", {f"{OLD}!": NEW}), repeats),
        "text_replaced": seam(Candidate("c", {OLD: NEW}), repeats),
    }
    whole, raw = Candidate("c", {OLD: NEW}), json.dumps(chat(OLD)).encode()
    substitution = seams["text_replaced"]["us"] - seams["no_candidate"]["us"]
    return {
        "benchmark": "prompts",
        "substitution_us": round(substitution, 2),
        "is_below_10_us": substitution < BOUND_US,
        "seam": seams,
        "alone": {
            "whole_text": time_calls(whole.substitute, lambda: chat(fresh(OLD)), repeats),
            "conversation_of_100": time_calls(whole.substitute, lambda: chat(fresh(OLD), 100), repeats),
            "one_of_ten_texts": time_calls(many.substitute, lambda: chat(fresh(OLD)), repeats),
            "template_of_two_holes": time_calls(
                Candidate("c", dict([TEMPLATE])).substitute, lambda: chat(fresh(filled)), repeats
            ),
            "marked_in_a_frame_of_8000": time_calls(marked.substitute, lambda: chat(fresh(frame)), repeats),
            "bytes": time_calls(whole.substitute_bytes, lambda: raw, repeats),
        },
        "characters": CHARACTERS,
        "repeats": repeats,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"openai {openai.__version__}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--repeats", type=int, default=15, help="repeats of each figure (%(default)s)")
    options = parser.parse_args()
    result = run(options.repeats)
    if not options.json:
        for group in ("seam", "alone"):
            for name, figures in result[group].items():
                print(f"{group:6}{name:28}{figures['us']:8.2f} us{figures['least_us']:8.2f} at least")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Proposals without a large model: a server that adds sentences of a list to a text, or removes one, at random.

It stands in for a reflecting model where there is none. It knows common sentences of instructions, some of them useful
here and some not, and learns nothing from the examples that it is shown: which texts are better is found out by the
search alone, by running the agent.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SENTENCES = (
    "Use the tool first.",
    "Do not use the tool.",
    "Be brief.",
    "Be polite.",
    "Only free rooms.",
    "The room needs enough seats.",
    "With what is needed.",
    "Name the smallest room.",
    "Name the largest room.",
    "Name the first room.",
    "Say none if no room fits.",
    "Explain your choice.",
)
_TEXT = re.compile(r"<instruction>\n(.*?)\n</instruction>", re.DOTALL)


def propose(draw: random.Random, text: str) -> str:
    """The text with one sentence less, or up to three more."""
    present = [sentence for sentence in SENTENCES if sentence in text]
    absent = [sentence for sentence in SENTENCES if sentence not in text]
    if present and draw.random() < 0.25:
        return " ".join(text.replace(draw.choice(present), "").split())
    return " ".join([text, *draw.sample(absent, min(draw.randint(1, 3), len(absent)))])


@contextmanager
def serve(seed: int) -> Iterator[str]:
    """The address of the server, which ends with the block. A proposal follows from the seed and the question."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send({"data": [{"id": "reflector"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = str(asked["messages"][-1]["content"])
            found = _TEXT.search(question)
            text = propose(random.Random(f"{seed} {question}"), found[1] if found else "")
            message = {"role": "assistant", "content": f"<instruction>\n{text}\n</instruction>"}
            self.send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def send(self, answer: dict) -> None:
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()

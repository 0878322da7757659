"""The tasks of `prompt_search.py`, its two models, and the server through which all searches reach them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BASE = "You are a helpful assistant."
#: What the reflecting model may add. Nobody tells a search which of them help.
SENTENCES = (
    "Answer with one SQL query.",
    "Use only the columns of the schema.",
    "Never refuse.",
    "Be exact: the right table, columns and condition.",
    "You are the writer.",
    "Write the query on one line.",
    "Answer with the number only.",
    "Answer with one word.",
    "If you are not sure, say that you do not know.",
    "Explain every step.",
    "Answer in a full sentence.",
    "Put the answer in answer tags.",
    "Think about the question before you answer.",
    "Be polite and friendly.",
    "Answer as JSON with the key answer.",
    "Check your answer twice.",
)
#: Of the simulated model: which sentences help and which spoil, by how much, in hundredths.
_SIMULATED = (25, 12, 18, 15, 5, 3, -30, -30, -20, -15, -15, -25, 0, 0, -25, 2)
_FORGETS = 0.25
"""How often the reflecting model leaves out a sentence that was there."""
_TABLES = {
    "users": ("age", "city"), "orders": ("total", "day"), "books": ("pages", "title"), "cars": ("price", "color"),
    "rooms": ("seats", "floor"), "players": ("score", "team"), "films": ("length", "genre"),
    "shops": ("sales", "street"),
}  # fmt: skip
_VALUES = ("Oslo", "Monday", "red", "north", "jazz", "Rome")


@dataclass(frozen=True)
class SqlQuestion:
    """One task."""

    question: str
    answer: str

    def grade(self, said: str) -> float:
        return float(" ".join(said.split()) == self.answer)


@dataclass(frozen=True)
class SearchTask:
    """What one repetition works on."""

    reflection: list[SqlQuestion]
    selection: list[SqlQuestion]
    held_out: list[SqlQuestion]

    def parts(self) -> dict[str, Any]:
        """Those that a search sees, as JSON."""
        named = {"reflection": self.reflection, "selection": self.selection}
        return {name: [{"question": q.question, "answer": q.answer} for q in rows] for name, rows in named.items()}


def make_task(seed: int) -> SearchTask:
    """Tasks of several forms, no two alike."""
    drawn, made = random.Random(seed), dict[str, SqlQuestion]()
    while len(made) < 140:
        each = _question(drawn)
        made[each.question] = each
    rows = list(made.values())
    return SearchTask(rows[:16], rows[16:40], rows[40:])


def _question(drawn: random.Random) -> SqlQuestion:
    table = drawn.choice(sorted(_TABLES))
    number, text = _TABLES[table]
    limit, value = drawn.randint(2, 90), drawn.choice(_VALUES)
    asked, answer = drawn.choice(
        [
            (f"how many {table} have {number} over {limit}?", f"SELECT COUNT(*) FROM {table} WHERE {number} > {limit}"),
            (
                f"list the name of {table} with {number} under {limit}",
                f"SELECT name FROM {table} WHERE {number} < {limit}",
            ),
            (f"list the name of {table} with {text} {value}", f"SELECT name FROM {table} WHERE {text} = '{value}'"),
            (f"what is the average {number} of {table}?", f"SELECT AVG({number}) FROM {table}"),
            (f"what is the largest {number} of {table}?", f"SELECT MAX({number}) FROM {table}"),
        ]
    )
    return SqlQuestion(f"Schema:\n{table}(id, name, {number}, {text})\nQuestion: {asked}", answer)


# --- the models


class Judge:
    """The agent's model, sampled at temperature 1, with one draw for each instruction and question; and its scores."""

    def __init__(self, model: str) -> None:
        self.name = model.rstrip("/").rpartition("/")[2]
        self._model = None if model == "simulated" else _Spark(model)
        self._answers: dict[tuple[str, str], str] = {}
        self._parts: dict[str, list[SqlQuestion]] = {}
        """Question -> those that are answered together with it, so that an answer depends on nothing else."""
        self._lock = threading.Lock()

    def expect(self, task: SearchTask) -> None:
        """These questions will be asked."""
        for part in (task.reflection + task.selection, task.held_out):
            self._parts |= dict.fromkeys((each.question for each in part), part)

    def score(self, instruction: str, questions: Sequence[SqlQuestion]) -> float:
        return sum(each.grade(self.answer(instruction, each.question)) for each in questions) / len(questions)

    def answer(self, instruction: str, question: str) -> str:
        with self._lock:
            if (instruction, question) not in self._answers:
                part = self._parts[question]
                said = (self._simulate if self._model is None else self._model.ask)(instruction, part)
                self._answers |= {(instruction, q.question): text for q, text in zip(part, said, strict=True)}
            return self._answers[instruction, question]

    def _simulate(self, instruction: str, questions: Sequence[SqlQuestion]) -> list[str]:
        chance = 15 + sum(gain for text, gain in zip(SENTENCES, _SIMULATED, strict=True) if text in instruction)
        return [q.answer if _draw(instruction + q.question) % 100 < chance else "I do not know." for q in questions]


class _Spark:
    """A causal language model of a folder."""

    def __init__(self, folder: str) -> None:
        import torch  # noqa: PLC0415 - not needed where the model is simulated
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

        torch.set_num_threads(1)
        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def ask(self, instruction: str, questions: Sequence[SqlQuestion]) -> list[str]:
        system = {"role": "system", "content": instruction}
        texts = [
            self._tokenizer.apply_chat_template(
                [system, {"role": "user", "content": each.question}], tokenize=False, add_generation_prompt=True
            )
            for each in questions
        ]
        given = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        self._torch.manual_seed(_draw(instruction))
        with self._torch.no_grad():
            made = self._model.generate(
                **given, max_new_tokens=40, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0
            )
        first = given["input_ids"].shape[1]
        return [self._tokenizer.decode(each[first:], skip_special_tokens=True).strip() for each in made]


class Proposer:
    """The reflecting model, a double: see `prompt_search.py`."""

    def __init__(self) -> None:
        self._asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def reply(self, who: str, question: str) -> str:
        """`who`: the search and its seed, so that no search changes what another one is told."""
        if "Do not write the new instruction yet." in question or not self._wants_text(question):
            return "It does not say everything that it has to say."
        text = self._propose(who, [each for each in SENTENCES if each in question])
        if "<instruction>" in question:
            return f"<instruction>\n{text}\n</instruction>"
        return f"```\n{text}\n```" if "```" in question else text

    def _wants_text(self, question: str) -> bool:
        return any(each in question for each in ("<instruction>", "```", "Revise the"))

    def _propose(self, who: str, now: Sequence[str]) -> str:
        name = " ".join(now)
        with self._lock:
            number = self._asked[who, name]
            self._asked[who, name] += 1
        drawn = random.Random(_draw(f"{who.rpartition('/')[2]}/{name}/{number}"))
        kept = list(now)
        if kept and drawn.random() < _FORGETS:
            kept.remove(drawn.choice(kept))
        kept.append(drawn.choice([each for each in SENTENCES if each not in now] or list(SENTENCES)))
        return " ".join([BASE, *(each for each in SENTENCES if each in kept)])


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


# --- the server


@contextlib.contextmanager
def serve(judge: Judge) -> Iterator[str]:
    """Both models at one address of chat completions: 'reflector/SEARCH/SEED' proposes, any other model answers."""
    proposer = Proposer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts = {each["role"]: _text(each["content"]) for each in body["messages"]}
            if body["model"].startswith("reflector/"):
                text = proposer.reply(body["model"], "\n".join(texts.values()))
            else:
                text = judge.answer(texts["system"], texts["user"])
            message = {"role": "assistant", "content": text}
            reply = {
                "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }  # fmt: skip
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(str(each.get("text", "")) for each in content)

"""A third party's backend, as the tests install one: a bandit with four arms behind an OpenAI-compatible endpoint.

The model is four numbers and numpy its only dependency, so what a hub does with a backend is tested without torch.
"""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from lightning_hub.backend import Backend, BackendSpec, Batch, Endpoint, Update
from lightning_sdk.errors import BackendDied, ModelError
from lightning_sdk.settings import Settings

FIRST_ARM = 10


class Bandit:
    """Samples one token, 10 to 13; learns by plain policy gradient."""

    def __init__(self, settings: Settings, run: Path) -> None:
        if settings.model == "broken":
            raise ModelError("model 'broken': no config.json in it")
        if settings.model == "buggy":
            raise RuntimeError("a bug of the backend")
        self._rate = settings.optimizer.learning_rate or 4.0
        self._logits, self._version, self._dies = np.zeros(4), 0, settings.model == "mortal"
        self._model = settings.model
        self._run, self._patient, self._lossy = run, settings.model == "patient", settings.model == "lossy"
        self._random = np.random.default_rng(settings.seed)
        bandit = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(bandit.answer(**request)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        host = settings.serving.host
        self._replies = itertools.count()
        self._server = ThreadingHTTPServer((host, 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.endpoint = Endpoint(f"http://{host}:{self._server.server_port}/v1", "bandit", "none")

    def answer(self, temperature: float, seed: int | None = None, **_: object) -> dict[str, object]:
        """The reply to a request; one that names a seed is answered the same by the same weights."""
        chances = np.exp(self._logits - np.logaddexp.reduce(self._logits))
        random = self._random if seed is None else np.random.default_rng(seed)
        arm = int(chances.argmax()) if temperature == 0 else int(random.choice(4, p=chances))
        message = {"role": "assistant", "content": str(arm)}
        return {
            "id": f"b{next(self._replies)}",
            "model": "bandit",
            "prompt_token_ids": [1, 2, 3],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": message,
                    "token_ids": [FIRST_ARM + arm],
                    "logprobs": {"content": [{"token": str(arm), "logprob": float(np.log(chances[arm]))}]},
                    "weight_versions": [[self._version, 1]],
                }
            ],
        }

    def facts(self) -> dict[str, object]:
        """A checkpoint of model 'large' takes more than half of what the disk has, of 'huge' more than all of it."""
        of_free = {"large": 0.6, "huge": 1.5}.get(self._model, 0.0)
        size = {"checkpoint_bytes": int(of_free * shutil.disk_usage(self._run).free)} if of_free else {}
        return {"learning_rate": self._rate, "parameters": 4, **size}

    def update(self, batch: Batch) -> Update:
        """Model 'patient' waits for the file `go-STEP` in the run's folder, half a minute at most; of 'lossy' the
        gradient of step 2 is not finite."""
        end = time.monotonic() + 30.0 * self._patient
        while time.monotonic() < end and not (self._run / f"go-{batch.step}").exists():
            time.sleep(0.01)
        chances = np.exp(self._logits - np.logaddexp.reduce(self._logits))
        gradient = np.zeros(4)
        for row in batch.rows:
            for place in np.flatnonzero(row.weights):
                chosen = np.eye(4)[row.tokens[place] - FIRST_ARM]
                gradient += row.weights[place] * row.advantages[place] * (chosen - chances)
        if self._lossy and batch.step == 2:
            return Update(self._version, {"loss": float("nan"), "grad_norm": float("inf"), "skipped": 1.0})
        self._logits = self._logits + self._rate * gradient
        self._version += 1
        return Update(
            self._version, {"loss": float(-gradient @ gradient), "seconds": 0.0, "rows_seen": len(batch.rows)}
        )

    def save(self, folder: Path) -> None:
        (folder / "bandit.json").write_text(json.dumps({"logits": self._logits.tolist(), "version": self._version}))

    def load(self, folder: Path) -> int:
        saved = json.loads((folder / "bandit.json").read_text())
        self._logits, self._version = np.array(saved["logits"]), saved["version"]
        return int(saved["version"])

    def check(self) -> None:
        if self._dies:
            raise BackendDied("the bandit has died")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        (self._run / "backend-closed").touch()


def install(site: Path) -> None:
    """Put this backend into a folder as a package manager would; with the folder on its path, a hub finds it."""
    facts = site / "bandit_backend-1.0.dist-info"
    facts.mkdir(parents=True)
    shutil.copy(__file__, site)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: bandit-backend\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[lightning_sdk.backends]\nbandit = bandit_backend:backend\n")


def start(settings: Settings, run: Path) -> Backend:
    return Bandit(settings, run)


backend = BackendSpec(
    name="bandit", honours=frozenset({"model", "optimizer.learning_rate", "serving.host"}), start=start
)

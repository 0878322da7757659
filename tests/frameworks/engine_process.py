"""The embedded engine with the model that ships, in a process of the backend's environment."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path

from lightning_sdk.settings import Settings
from lightning_sdk.trace.scope import Endpoint

ROOT = Path(__file__).resolve().parents[2]
#: What `backend_python=` names in a user's program: hub and engine live there, and no framework does.
BACKEND_PYTHON = os.environ.get("LIGHTNING_BACKEND_PYTHON", str(ROOT / ".venv" / "bin" / "python"))


class EngineProcess:
    """`python -m lightning_embedded`, as the backend starts it; ends when it is closed or we die."""

    def __init__(self, folder: Path) -> None:
        self._key = secrets.token_urlsafe(24)
        settings = Settings.from_dict({"model": "spark", "rollouts.concurrency": 16}).as_dict()
        log = folder / "engine.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [BACKEND_PYTHON, "-m", "lightning_embedded"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            )
        assert self._process.stdin and self._process.stdout
        keys = {"engine": self._key, "learner": secrets.token_urlsafe(24)}
        said = {"settings": settings, "keys": keys, "folder": str(folder)}
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"the engine did not start with {BACKEND_PYTHON}:\n{log.read_text()[-2000:]}")
        ready = json.loads(line)
        self.port: int = ready["port"]
        self.model: str = ready["model"]

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.port}/v1", self.model, self._key)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

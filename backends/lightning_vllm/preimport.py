"""Imports ahead of their time: while a backend starts, processes of their own read what later ones will import.

VERL and vLLM are thousands of files, which the processes of a start import one after another. What one has read, the
next finds compiled and in memory: these read everything at the beginning, side by side, where there are cores for it.

    python -m lightning_vllm.preimport MODULE ... [model=ARCHITECTURE]
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from lightning_sdk.system.cores import cores

#: With fewer cores they would be in the way of what they are to help.
_FEWEST_CORES = 8
_MODEL = "model="
#: What vLLM's engine imports, on a GPU and on a CPU; names that a release does not have are left out.
ENGINE = ("vllm.v1.engine.core", "vllm.v1.executor.uniproc_executor", "vllm.v1.worker.gpu_worker",
          "vllm.v1.worker.gpu.model_runner", "vllm.v1.worker.gpu_model_runner",
          "vllm.v1.attention.backends.flash_attn")  # fmt: skip


class Preimport:
    """One process for each chain of modules, until it has imported them or the block ends."""

    def __init__(self, chains: Iterable[Iterable[str]], fewest: int = _FEWEST_CORES) -> None:
        wanted = chains if cores() >= fewest else ()
        self.processes = [
            subprocess.Popen([sys.executable, "-m", "lightning_vllm.preimport", *chain], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            for chain in wanted
        ]  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for each in self.processes:
            assert each.stdin is not None
            each.stdin.close()
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)  # with vLLM's process that looks at the model
            each.wait()


def model_modules(folder: str) -> list[str]:
    """The chain of what vLLM finds out about a model's class in a process of its own, and keeps for the next time.
    Nothing where no folder with a model is."""
    try:
        config = json.loads((Path(folder) / "config.json").read_bytes())
        return [_MODEL + str(config["architectures"][0])]
    except (OSError, ValueError, LookupError, TypeError):
        return ["vllm.model_executor.models.registry"]


def main() -> None:
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    for name in sys.argv[1:]:
        with contextlib.suppress(Exception):  # who needs it will say so
            if name.startswith(_MODEL):
                _inspect(name.removeprefix(_MODEL))
            else:
                importlib.import_module(name)
    os._exit(0)  # what was imported may have threads


def _inspect(architecture: str) -> None:
    registry = importlib.import_module("vllm.model_executor.models.registry")
    registry.ModelRegistry.models[architecture].inspect_model_cls()


def _end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    main()

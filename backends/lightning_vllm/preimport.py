"""Imports modules early: while a backend starts, separate processes import what later processes will need.

VERL and vLLM have thousands of files, and the processes of a start import them one after another. Files that one
process has read are compiled and cached for the next, so these processes read everything at the beginning, in
parallel, if there are enough cores.

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

#: With fewer cores they would slow the start down.
_FEWEST_CORES = 8
_MODEL = "model="
#: What vLLM's engine imports, on a GPU and on a CPU; modules that a release does not have are skipped.
ENGINE = (
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.attention.backends.flash_attn",
)


class Preimport:
    """One process for each list of modules, until it has imported them or the block ends."""

    def __init__(self, chains: Iterable[Iterable[str]], fewest: int = _FEWEST_CORES) -> None:
        wanted = chains if cores() >= fewest else ()
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "lightning_vllm.preimport", *chain],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for chain in wanted
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for each in self.processes:
            assert each.stdin is not None
            # Before its input is closed, at which it ends alone: its own processes have to end too, such as vLLM's that
            # inspects the model.
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
            each.stdin.close()
            each.wait()


def model_modules(folder: str) -> list[str]:
    """What to import so that vLLM inspects the class of this folder's model and caches the result. If the folder has no
    readable model, only the module that would inspect it."""
    try:
        config = json.loads((Path(folder) / "config.json").read_bytes())
        return [_MODEL + str(config["architectures"][0])]
    except (OSError, ValueError, LookupError, TypeError):
        return ["vllm.model_executor.models.registry"]


def main() -> None:
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    for name in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the process that needs it will report the error
            if name.startswith(_MODEL):
                _inspect(name.removeprefix(_MODEL))
            else:
                importlib.import_module(name)
    os._exit(0)  # imported modules may have started threads


def _inspect(architecture: str) -> None:
    registry = importlib.import_module("vllm.model_executor.models.registry")
    registry.ModelRegistry.models[architecture].inspect_model_cls()


def _end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    main()

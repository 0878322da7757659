"""The program around one vLLM server: runs vLLM's own entry point and makes sure that none of its processes remain.

    python -m lightning_vllm.serve ARGUMENTS_OF_VLLM_SERVER

It runs while its stdin is open. When stdin closes, which happens however the process at the other end died, or when
vLLM's API server ends for any reason, it ends vLLM's engine and workers too, which would otherwise keep running and
hold a GPU's memory. They are all in the process group that this program leads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

_ENTRY = "vllm.entrypoints.openai.api_server"
#: Time for vLLM to end by itself, and for its cleanup.
_GRACE_SECONDS, _TIDY_SECONDS = 5.0, 0.5


def main() -> None:
    if os.getpgid(0) != os.getpid():
        os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: None)  # sent to the whole group, but meant for the others
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", _ENTRY, *sys.argv[1:]]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_wait_for_the_end_of_stdin, daemon=True).start()
    print(f"vLLM's server ended with exit code {server.wait()}", file=sys.stderr, flush=True)
    _end()


def _wait_for_the_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _end() -> None:
    """End the process group, including this program."""
    os.killpg(0, signal.SIGTERM)
    time.sleep(_TIDY_SECONDS)  # for workers, and for what frees their shared memory
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

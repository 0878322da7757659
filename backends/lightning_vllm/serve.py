"""The program around one vLLM server: runs vLLM's own entry point and sees to it that nothing of it is ever left.

    python -m lightning_vllm.serve ARGUMENTS OF VLLM'S SERVER

It stays while its stdin is open. When that closes, which happens however the process that holds the other end went,
or when vLLM's API server has ended, however that went, its engine and workers are ended too: those would otherwise
live on for ever, with a GPU's memory. All of them are in the process group that this program leads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

_ENTRY = "vllm.entrypoints.openai.api_server"
#: Seconds for vLLM to end by itself, and for what tidies up after it.
_GRACE_SECONDS, _TIDY_SECONDS = 5.0, 0.5


def main() -> None:
    if os.getpgid(0) != os.getpid():
        os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: None)  # sent to the group, it is for the others
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
    """End the rest of the group, this program with it."""
    os.killpg(0, signal.SIGTERM)
    time.sleep(_TIDY_SECONDS)  # workers and what frees their shared memory
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""VERL's learner and vLLM's engine in this process, one model after another: a Ray and a server for each would take
minutes for what is asked here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ |= {
    "LIGHTNING_VERL_DEVICE": "cpu",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="session", autouse=True)
def _one_process() -> Iterator[None]:
    from verl_worker import prepare  # noqa: PLC0415 - VERL is imported with what is set above

    from lightning_verl import engine  # noqa: PLC0415 - as above

    prepare()
    engine.choose()
    yield

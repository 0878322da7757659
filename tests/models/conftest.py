"""VERL's learner and vLLM's engine in this process, one model after another: a Ray and a server for each would take
minutes for what is asked here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

_HERE = {
    "LIGHTNING_VERL_DEVICE": "cpu",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


@pytest.fixture(scope="session")
def one_process() -> Iterator[None]:
    """A separate process group, as VERL requires; other processes started here get the environment as it was before."""
    import torch  # noqa: PLC0415 - tests of other processes need none of it
    from verl_worker import prepare  # noqa: PLC0415 - VERL is imported with what is set here

    before = dict(os.environ)
    os.environ |= _HERE
    torch.set_num_threads(1)
    prepare()
    from lightning_verl import engine  # noqa: PLC0415 - once VERL has its platform

    engine.choose()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def sample(one_process: None) -> Iterator[Callable[[Path], Any]]:
    """Makes a `Sampler` of a folder. Whatever becomes of the test, the next finds nothing of vLLM's or of VERL's."""
    from vllm.distributed import cleanup_dist_env_and_memory  # noqa: PLC0415 - as above

    from tests.models.sampler import Sampler  # noqa: PLC0415 - with what is set above

    with ExitStack() as ends:
        ends.callback(cleanup_dist_env_and_memory)

        def make(folder: Path) -> Sampler:
            made = Sampler(folder)
            ends.callback(made.close)
            return made

        yield make

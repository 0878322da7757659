"""Real vLLM servers, on this machine's CPU, in the environment that `make verl-cpu` makes:

    .venvs/verl/bin/python -m pytest tests/vllm

Starting them is most of the time, so that most tests share one fleet of two.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from lightning_vllm.available import installed_version
from tests.vllm.served import Served, serving


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise pytest.UsageError("vLLM is not installed here: make verl-cpu, then make test-vllm")
    installed_version()


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two servers of spark behind a front, and a learner's model."""
    with serving(tmp_path_factory.mktemp("fleet"), replicas=2) as served:
        yield served

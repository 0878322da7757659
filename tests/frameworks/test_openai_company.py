"""The OpenAI SDK in company: clients of other kinds, other instrumentors, and a backend in another environment."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import logfire
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lightning_sdk as lightning
from tests.frameworks.engine_process import BACKEND_PYTHON
from tests.frameworks.openai_calls import SEAM, acreate, astream, clients, create, raw, raw_stream, stream
from tests.frameworks.same import assert_all_trained, assert_same_bytes

# --- other clients


def test_a_legacy_http_client(wire, capture) -> None:
    """A client of httpx that the user brings, with both majors: caught, and the headers it adds stay at home."""
    with httpx.Client(headers={"x-team-key": "team-secret"}) as mine, clients(wire, http_client=mine) as (client, _):
        run = capture(lambda: (create(client), stream(client)))
        assert_all_trained(run, wire, ["outer"] * 2)
        assert "team-secret" not in str(run.exchanges)
        capture(create, client, train=False)
        assert "team-secret" in str(wire.provider[0].headers)


AZURE: dict[str, Any] = {"api_version": "2025-01-01", "api_key": "azure-secret", "max_retries": 0}


def test_azure(wire, capture) -> None:
    """An Azure client's key and query go to Azure, and are scrubbed from what goes to the engine."""
    with AzureOpenAI(azure_endpoint=wire.root, **AZURE) as client:
        run = capture(lambda: (create(client), stream(client)))
        assert_all_trained(run, wire, ["outer"] * 2)
        for each in run.exchanges:
            assert each.path == "/engine/v1/chat/completions" and each.bearer == wire.endpoint.key
            assert "azure-secret" not in str(each.headers) and b"2025-01-01" not in each.body
        create(client)
        before = wire.clear()[-1:]
        capture(create, client, train=False)
        lightning.shutdown()
        assert_same_bytes(before, wire.clear())
    path, _, query = before[0].path.partition("?")
    assert path.endswith("/openai/deployments/gpt-4o-mini/chat/completions") and query == "api-version=2025-01-01"
    assert dict(before[0].headers)["api-key"] == "azure-secret"


def test_azure_with_a_token(wire, capture) -> None:
    """Microsoft Entra tokens, which the client fetches for each request, go to Azure alone."""

    async def agent() -> str:
        settings = {name: value for name, value in AZURE.items() if name != "api_key"}
        async with AsyncAzureOpenAI(
            azure_endpoint=wire.root, azure_ad_token_provider=lambda: "entra-secret", **settings
        ) as client:
            return await astream(client)

    run = capture(agent)
    assert_all_trained(run, wire, ["outer"])
    assert "entra-secret" not in str(run.exchanges)
    capture(agent, train=False)
    assert wire.provider[0].bearer == "entra-secret"


# --- other instrumentors


@contextmanager
def openllmetry(provider: TracerProvider) -> Iterator[None]:
    before = {
        owner: dict(vars(owner))
        for name in sorted(sys.modules)
        if name.startswith("openai.resources")
        for owner in vars(sys.modules[name]).values()
        if isinstance(owner, type)
    }
    OpenLLMetry().instrument(tracer_provider=provider)
    try:
        yield
    finally:
        OpenLLMetry().uninstrument()
        for owner, attributes in before.items():  # it leaves most of itself behind, for every later test
            for name in [name for name, value in attributes.items() if vars(owner)[name] is not value]:
                setattr(owner, name, attributes[name])


@contextmanager
def openinference(provider: TracerProvider) -> Iterator[None]:
    OpenInference().instrument(tracer_provider=provider)
    try:
        yield
    finally:
        OpenInference().uninstrument()


@contextmanager
def with_logfire(provider: TracerProvider) -> Iterator[None]:
    settings: dict[str, Any] = {"send_to_logfire": False, "console": False, "metrics": False, "local": True}
    mine = logfire.configure(
        additional_span_processors=[provider._active_span_processor], inspect_arguments=False, **settings
    )
    with mine.instrument_openai():
        yield


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("other", [openinference, with_logfire, openllmetry])
def test_another_instrumentor(wire, capture, touched_names, other: Callable[..., Any], order: str) -> None:
    """Before or after ours: the same ids, the right role, its own spans, and ours is undone exactly."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    @lightning.agent(role="writer", trainable=True)
    def writer(client: OpenAI) -> list[str]:
        return [create(client), stream(client), raw(client), raw_stream(client)]

    @lightning.agent(role="critic", trainable=True)
    async def critic(client: AsyncOpenAI) -> list[str]:
        return [await acreate(client), await astream(client)]

    with clients(wire) as (client, on_async):
        answer, before = create(client), wire.clear()
        if order == "after":
            capture.init()
        with other(provider):
            run = capture(writer, client)
            assert_all_trained(run, wire, ["writer"] * 4)
            assert [call.streamed for call in run.calls] == [False, True, False, True]
            assert_all_trained(capture(on_async, critic), wire, ["critic"] * 2)
            assert len(exporter.get_finished_spans()) >= 4
            if order == "before":
                touched_names.assert_restored(*SEAM)
                assert other is openllmetry or any(name.endswith("OpenAI.request") for name in touched_names.names)
            exporter.clear()
            create(client)
            assert exporter.get_finished_spans()
        if order == "after":
            touched_names.assert_restored(*SEAM)
        wire.clear()
        assert create(client) == answer
        assert_same_bytes(before, wire.clear())


# --- the whole way


def test_training_with_a_backend_elsewhere(wire, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`train(backend_python=...)` in an environment without torch: one step of the real thing, and a report."""
    with OpenAI(base_url=wire.url, api_key="mine") as client:

        @lightning.agent(role="solver", trainable=True)
        def solve(task: dict[str, Any]) -> str:
            return create(client)

        with caplog.at_level(logging.WARNING, "lightning_sdk"):
            report = lightning.train(
                solve,
                [{"n": number} for number in range(6)],
                lambda task, answer: float("42" in answer),
                steps=1,
                backend_python=BACKEND_PYTHON,
                runs=tmp_path,
                quiet=True,
                **{
                    "rollouts.tasks_per_step": 2,
                    "rollouts.group_size": 2,
                    "sampling.max_tokens": 16,
                    "evaluation.tasks": 2,
                },
            )
    assert report.steps == 1 and wire.exchanges == []
    assert not caplog.records

"""What decides whether and where a hub exports spans: OpenTelemetry's environment, our settings, what is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_hub.export.exporter import ExportTarget
from lightning_sdk.errors import SettingError
from tests.hub.hubs import Client, Hub, begin, end
from tests.hub.otlp_collector import Collector
from tests.hub.runners import Runner, good

ROLLOUT = "ab" * 16


def test_nothing_is_exported_by_default(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint there is no exporter."""
    with Client(hub) as client:
        assert client.ask("status")["export"] is None


@pytest.mark.parametrize("off", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_environment_turns_it_off(
    collector: Collector, start: Callable[..., Hub], off: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's own switches are obeyed."""
    monkeypatch.setenv(*off)
    with Client(start()) as client:
        assert client.ask("status")["export"] is None


def test_the_environment_is_obeyed(
    collector: Collector, start: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint of traces goes before the general one; headers and the service's name are the user's."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/custom")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=me")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-agents")
    key = os.urandom(16)
    with Client(start()) as client:
        client.deliver(1, [begin(key, ROLLOUT), end(key)])
        collector.wait(lambda found: bool(found.spans))
    ((path, headers, _),) = collector.requests
    assert (path, headers["x-tenant"], collector.services) == ("/custom", "me", {"my-agents"})


def test_another_protocol_is_refused() -> None:
    """OTLP over gRPC is not spoken: the words say what to set instead."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x.test:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(SettingError, match="OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"):
        ExportTarget.of(None, False, environment)
    with pytest.raises(SettingError, match=r"export\.otlp_endpoint='x:4318': expected a URL"):
        ExportTarget.of("x:4318", False, {})


@pytest.mark.parametrize("given", ["http://c.test:4318", "http://c.test:4318/", "http://c.test:4318/v1/traces"])
def test_the_setting_is_a_base_address(given: str) -> None:
    """As with the general variable, the path of traces is added; and it goes before the environment."""
    target = ExportTarget.of(given, True, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d.test"})
    assert target == ExportTarget("http://c.test:4318/v1/traces", True, False, True)


def test_what_is_missing_is_named(train: Callable[..., Runner], bandit_site: Path, collector: Collector) -> None:
    """Without the exporter, what the environment wants is a warning and our setting an error, with what to type."""
    (bandit_site / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.exporter'] = None\n")
    try:
        runner = train()
    finally:
        (bandit_site / "sitecustomize.py").unlink()
    runner.look()
    (warning,) = [event["text"] for event in runner.events if event["type"] == "warning"]
    assert "pip install 'lightning-agent-sdk[otlp]'" in warning
    with pytest.raises(SettingError, match=r"pip install 'lightning-agent-sdk\[otlp\]'"):
        runner.begin({"export.otlp_endpoint": collector.url})
    assert runner.train(good, {"steps": 1})["type"] == "finished"

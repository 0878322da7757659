"""`lightning-sdk export` for other programs: what pyarrow, datasets and OpenTelemetry's own packages read from it."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from google.protobuf import json_format
from made_runs import MadeRollout, MadeRun, made_call, pack_events
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lightning_dashboard.export.tables import TABLES
from lightning_sdk.trace import genai
from lightning_sdk.trace.call import Span
from tests.dashboard.exported import export, make_run, read_lines
from tests.docs.pages import block


def test_parquet_has_what_json_lines_have(tmp_path: Path) -> None:
    """Row for row and value for value; JSON is text there, and log-probs are 32 bits wide in both."""
    make_run(tmp_path / "runs" / "solve").close()
    export(tmp_path, "solve", "--jsonl", "lines", "--parquet", "tables")
    for table, columns in TABLES.items():
        read = pyarrow.parquet.read_table(tmp_path / "tables" / f"{table}.parquet")
        assert read.column_names == list(columns)
        lines = read_lines(tmp_path / "lines" / f"{table}.jsonl")
        rows = [{name: plain(row[name], kind) for name, kind in columns.items()} for row in read.to_pylist()]
        assert rows and rows == lines
    tokens = pyarrow.parquet.read_table(tmp_path / "tables" / "tokens.parquet")
    assert str(tokens.schema.field("advantages").type) == "list<element: float>"


def plain(value: Any, kind: Any) -> Any:
    """A value of Parquet as JSON lines have it."""
    if kind == "json":
        return json.loads(value)
    if isinstance(kind, list) and isinstance(kind[0], dict) and value is not None:
        return [{name: plain(each[name], inner) for name, inner in kind[0].items()} for each in value]
    return value


def test_parquet_takes_any_text(tmp_path: Path) -> None:
    """Half a character, which JSON can hold and no file of text, becomes the mark for what is lost."""
    run = MadeRun(tmp_path / "runs" / "odd")
    call = made_call(1, [{"role": "user", "content": "half \ud83d of \u65e5"}], "fine")
    run.add([MadeRollout(group="1-0", task={"question": "half \ud83d of \u65e5"}, events=pack_events([call]))])
    run.close()
    export(tmp_path, "odd", "--parquet", "tables")
    [row] = pyarrow.parquet.read_table(tmp_path / "tables" / "rollouts.parquet").to_pylist()
    assert json.loads(row["task"]) == {"question": "half \ufffd of \u65e5"}


def test_a_dataset_is_loaded_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real package, as the documentation shows it; into a folder that holds nothing else."""
    import datasets  # noqa: PLC0415 - it takes seconds

    make_run(tmp_path / "runs" / "solve").close()
    done = export(tmp_path, "solve", "--hf-dataset", "solve-dataset")
    assert "15 rollouts, 24 calls, 24 tokens" in done.stdout
    found = datasets.load_from_disk(str(tmp_path / "solve-dataset"))
    assert {name: len(found[name]) for name in found} == {"rollouts": 15, "calls": 24, "tokens": 24}
    assert found["rollouts"].filter(lambda row: row["status"] == "timeout")[0]["error"] == "it took too long"
    monkeypatch.chdir(tmp_path)
    read: dict[str, Any] = {}
    exec(block("docs/export.md", "python", "load_from_disk"), read)
    row = read["tokens"][0]
    assert len(row["ids"]) == len(row["mask"]) == len(row["advantages"])
    assert (
        "expected a new or an empty folder" in export(tmp_path, "solve", "--hf-dataset", "solve-dataset", code=1).stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "solve-dataset"]


def spans_of(path: Path) -> list[Any]:
    """The spans in a file, read by the protocol's own messages."""
    found = []
    for line in read_lines(path):
        for resource in line["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in span:  # protobuf's own JSON has them in base64
                            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
        request = json_format.ParseDict(line, ExportTraceServiceRequest())
        found += [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
    return found


def attributes_of(span: Any) -> dict[str, Any]:
    return {each.key: json_format.MessageToDict(each.value) for each in span.attributes}


def test_traces_are_otlp(tmp_path: Path) -> None:
    """Each rollout that is over is one trace, with its agents, calls under GenAI names, and rewards as events."""
    make_run(tmp_path / "runs" / "solve").close()
    export(tmp_path, "solve", "--otlp", "solve.otlp.jsonl", "--jsonl", "solve.jsonl")
    spans = spans_of(tmp_path / "solve.otlp.jsonl")
    lines = {line["rollout"]: line for line in read_lines(tmp_path / "solve.jsonl") if line["status"] != "running"}
    assert {span.trace_id.hex() for span in spans} == lines.keys()
    roots = {span.trace_id.hex(): span for span in spans if not span.parent_span_id}
    assert len(roots) == len(lines) == 14
    for id_, root in roots.items():
        found = attributes_of(root)
        assert found[genai.STATUS] == {"stringValue": lines[id_]["status"]}
        assert root.status.code == (0 if lines[id_]["status"] == "ok" else 2)
        mine = [span for span in spans if span.trace_id == root.trace_id]
        calls = [span for span in mine if attributes_of(span).get(genai.OPERATION) == {"stringValue": genai.CHAT}]
        assert {span.span_id.hex() for span in calls} == {call["call"] for call in lines[id_]["calls"]}
        given = [event for span in mine for event in span.events if event.name == genai.EVALUATION]
        assert len(given) == len(lines[id_]["rewards"])
    call = next(span for span in spans if attributes_of(span).get(genai.ROLE) == {"stringValue": "checker"})
    assert json.loads(attributes_of(call)[genai.INPUT_MESSAGES]["stringValue"])[0]["parts"][0]["content"] == "Right?"
    assert call.kind == 3 and call.end_time_unix_nano > call.start_time_unix_nano


def test_spans_of_other_instrumentation_are_in_the_trace(tmp_path: Path) -> None:
    """The page shows them, so the file has them too."""
    run = MadeRun(tmp_path / "runs" / "solve")
    foreign = Span(
        id="c" * 16, parent="", name="lookup", role="", started_ns=10**18, ended_ns=10**18 + 5, status="ok", error="",
        attributes={genai.FOREIGN: "acme"},
    )  # fmt: skip
    run.add([MadeRollout(group="1-0", events=pack_events([foreign]))])
    run.close()
    export(tmp_path, "solve", "--otlp", "solve.jsonl")
    assert "lookup" in {span.name for span in spans_of(tmp_path / "solve.jsonl")}


@pytest.mark.parametrize(
    ("option", "package"),
    [("--parquet", "pyarrow"), ("--hf-dataset", "datasets"), ("--otlp", "opentelemetry.exporter")],
)
def test_a_missing_package_is_named(tmp_path: Path, option: str, package: str) -> None:
    """With what to install, before anything is read or written."""
    make_run(tmp_path / "runs" / "solve").close()
    # In an environment without it: importing it fails.
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told = export(tmp_path, "solve", option, "x", "--backend-python", str(python), code=1).stderr
    assert (
        f"{option} needs a package" in told and package in told and "pip install 'lightning-agent-sdk[export]'" in told
    )
    assert not (tmp_path / "x").exists()

"""Tools that record what the OpenAI client returns: their spans hold no token ids and log-probs of trained calls."""

import pytest

TRAINED = """
import sys
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.trained import CHAT, train
import lightning_sdk as lightning
from lightning_sdk.stream import sink

def begin_theirs():
    exporter = InMemorySpanExporter()
    if sys.argv[1] == "logfire":
        import logfire
        logfire.configure(send_to_logfire=False, console=False,
                          additional_span_processors=[SimpleSpanProcessor(exporter)])
        logfire.instrument_openai()
        return exporter
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    if sys.argv[1] == "openinference":
        from openinference.instrumentation.openai import OpenAIInstrumentor
    else:
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument()
    return exporter

if sys.argv[2] == "ours":
    lightning.init()
exporter = begin_theirs()
if sys.argv[2] == "theirs":
    lightning.init()
recorder = Recorder()
sink.connect(recorder)
with Provider() as engine, Provider() as own:
    client = OpenAI(base_url=own.url, api_key="k", max_retries=0)
    create = client.chat.completions.create
    train(engine, lambda: create(**CHAT))
    train(engine, lambda: list(create(**CHAT, stream=True)))
assert len(engine.requests) == 2 and [call.problem for call in recorder.calls] == ["", ""]
assert all(len(call.choices[0].token_ids) == 12 for call in recorder.calls)
told = [str(dict(span.attributes)) for span in exporter.get_finished_spans()]
assert sum("cba" in each for each in told) >= 2, told
words = ("token_ids", "logprob': -0.5", '"logprob":-0.5', '"logprob": -0.5')
print([word for word in words for each in told if word in each])
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("tool", ["openinference", "traceloop", "logfire"])
def test_their_spans_hold_the_text_and_no_ids(in_new_process, tool: str, first: str) -> None:
    """In whole replies and in streams; our record has text and ids, whichever was set up first."""
    assert in_new_process(TRAINED, tool, first).strip().splitlines()[-1] == "[]"

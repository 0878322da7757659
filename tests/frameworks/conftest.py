"""How to test a framework. These tests run in a framework environment (`make frameworks`):

    .venvs/openai2/bin/python -m pytest tests/frameworks/test_langgraph.py

Hub and engine are real, in processes of `.venv`; every request passes the `wire`, which knows what the engine sampled.

    from openai import OpenAI                       # or any framework; at the top: pytest.importorskip("crewai")
    from same import assert_all_trained, assert_same_bytes

    def test_a_trained_agent(wire, capture, prove, touched_names):
        '''Both calls of the writer are caught under its name, with the ids that the engine sampled.'''
        client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)   # as a user's; may exist before init()
        run = capture(lambda: writer(client))      # init() at the first run; plain, async, or a generator
        assert_all_trained(run, wire, roles=["writer", "writer"])           # went to the engine, same ids, no problem
        assert run.calls[0].framework == "openai" and run.spans[0].name == "invoke_agent writer"
        prove("LangGraph", "langgraph", run, async_=True)                  # a row of the docs' table
        touched_names.assert_restored("Agent.run")  # shuts down; all patched owners have the very objects they had

    def test_training_off(wire, capture):
        '''With the SDK active and nothing trained, the same bytes go to the user's own provider.'''
        agent(wire.url); before = wire.clear()
        capture(lambda: agent(wire.url), train=False)
        assert_same_bytes(before, wire.clear())

The fixtures:

wire      The proxy (wire_proxy.py). `wire.url`: the user's own provider, any key, any model, and offline: chat
          completions, completions, and (once translated) /responses and /messages; answers are deterministic.
          `wire.root`: the same without /v1, for Anthropic. `wire.engine`, `wire.provider`: the exchanges so far, with
          `.path .headers .body .json .bearer .status .reply .is_streamed .tokens`. `wire.clear()`: take and forget.
          `wire.fail(500, 400)`: answer the next requests so. `wire.script(Said("text"), Said(tools=(("name", {}),)))`
          dictates the next replies, `wire.answer = lambda exchange: Said(...) or None` any reply: for handoffs and the
          like, which the small model would not say (`from scripted import Said`); ids travel as the engine's do.
capture   `capture(agent, *args, train=True, trainable=True, roles=(), raises=(), **sampling) -> Run` with `.answer
          .error .calls .roles .spans .exchanges`; a call has `.role .framework .trainable .path .streamed .status
          .error .http_status .problem .prompt_ids .completion_ids .logprobs .request .message .choices`. The agent
          runs under `@lightning.agent(trainable=True)` in the role "outer", which calls of no framework agent keep;
          trainable=False leaves it to your own decorators or to roles=[...]. `capture.init(**options)` begins
          earlier; `capture.outside()`: calls of no rollout. Restarted for each test.
prove     `prove(name, distribution, run, async_=, threads=)`: what goes into results/<environment>.json when every
          test of the file ran and passed. May be called several times for a framework; the rows add up.
touched_names
          `touched_names.assert_restored(*ends of names that must have been patched)`, at the end of a test.

The model is `spark` (2.8M parameters). Asked "What is 12 + 30?" with a tool that is called `calculator` and takes an
`expression` (`from calculator import CALCULATOR`), it calls the tool and, given the result 42, says
"<answer>42</answer>": in trained calls and at the provider, whatever the system prompt. Tools of other names and other
tasks it gets wrong: dictate those.
Keep max_tokens small (24 by default in trained calls, 48 at most in others). No network: names other than localhost do
not resolve here.
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning_sdk import markers

# Before any framework is imported: nothing phones home, nothing is fetched, and every client finds some key.
os.environ.update(
    {
        "ANONYMIZED_TELEMETRY": "False",
        "AGNO_TELEMETRY": "false",
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "CREWAI_TESTING": "true",
        "DO_NOT_TRACK": "1",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "LANGSMITH_TRACING": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "TRACELOOP_TELEMETRY": "false",
        "LOGFIRE_SEND_TO_LOGFIRE": "false",
        "OPENAI_API_KEY": "mine",
        "ANTHROPIC_API_KEY": "mine",
    }
)

import pytest

import lightning_sdk
from lightning_sdk.capture.patches import Patches
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.session import GROUP
from lightning_sdk.stream import sink
from tests.frameworks.captured import Captured, HubLog
from tests.frameworks.engine_process import BACKEND_PYTHON, ROOT, EngineProcess
from tests.frameworks.proofs import Proofs
from tests.frameworks.same import Touched
from tests.frameworks.wire_proxy import Wire

_PROOFS = pytest.StashKey[Proofs]()
_resolve = socket.getaddrinfo


def _only_here(host: Any, *args: Any, **kwargs: Any) -> Any:
    if host in (None, "localhost", "127.0.0.1", b"127.0.0.1", "::1"):
        return _resolve(host, *args, **kwargs)
    raise socket.gaierror(f"these tests are offline, and something looked for {host!r}")


socket.getaddrinfo = _only_here


def pytest_configure(config: pytest.Config) -> None:
    _refuse_old_entry_points()
    config.stash[_PROOFS] = Proofs()


def _refuse_old_entry_points() -> None:
    """Integrations are found by what was installed, and this environment may be older than pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["entry-points"][GROUP]
    found = {each.name: each.value for each in importlib.metadata.entry_points(group=GROUP)}
    if missing := sorted(f"{name} = {value}" for name, value in wanted.items() if found.get(name) != value):
        raise pytest.UsageError(f"{sys.prefix} does not know {missing}: make frameworks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write down what was proved, unless some tests of a file failed or were left out."""
    arguments = session.config.args
    partly = session.config.option.keyword or any("::" in argument for argument in arguments)
    if exitstatus == 0 and not partly:
        whole = [Path(argument).resolve() for argument in arguments] == [Path(__file__).parent]
        session.config.stash[_PROOFS].save(whole=whole)


@pytest.fixture(scope="session")
def _engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def _hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubProcess, HubLog]]:
    folder = tmp_path_factory.mktemp("hub")
    hub = HubProcess(folder, python=BACKEND_PYTHON)
    yield hub, HubLog(folder / "spans")
    hub.stop()


@pytest.fixture(scope="session")
def _wire(_engine: EngineProcess) -> Iterator[Wire]:
    wire = Wire(_engine.endpoint)
    yield wire
    wire.close()


@pytest.fixture
def wire(_wire: Wire) -> Wire:
    """The recording proxy before the engine, with nothing recorded yet."""
    _wire.reset()
    return _wire


@pytest.fixture
def capture(wire: Wire, _hub: tuple[HubProcess, HubLog]) -> Captured:
    """Runs agents as training does and gives back what the hub wrote down."""
    return Captured(*_hub, wire)


@pytest.fixture
def prove(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Adds what a run proved to the table of frameworks in the documentation."""
    return request.config.stash[_PROOFS].prove


@pytest.fixture(autouse=True)
def touched_names(monkeypatch: pytest.MonkeyPatch) -> Touched:
    """Looks at everything that is patched before it is."""
    touched = Touched()
    monkeypatch.setattr(Patches, "wrap", touched.watching(Patches.wrap))
    return touched


@pytest.fixture(autouse=True)
def isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test finds another's hub, roles or session, or the user's own."""
    monkeypatch.setenv("LIGHTNING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LIGHTNING_HUB", raising=False)
    monkeypatch.delenv("LIGHTNING_KEY", raising=False)
    yield
    lightning_sdk.shutdown(0.5)
    sink.connect(None)
    sink._said.clear()
    markers.agent.declared.clear()
    markers.reward.marked.clear()

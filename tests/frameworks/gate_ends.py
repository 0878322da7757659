"""Both ends of every range of versions that an integration allows: the framework's own tests with the lowest and the
highest release of it, each in a throw-away environment.

    make frameworks-ends                       # all of them, about an hour
    make frameworks-ends ARGS="langgraph dspy" # some

The ranges are read out of the integrations, so none can be forgotten. The results are written to
`tests/frameworks/ends.json`. Needs a network, and so is not part of CI. Exits with 1 if an end fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "ends.json"
_REQUIRE = re.compile(r'require_version\(\s*(?:"([\w-]+)"|_DISTRIBUTION), "([\d.]+)", "([\d.]+)"')
_DISTRIBUTION = re.compile(r'_DISTRIBUTION = "([\w-]+)"')
_OURS = ("wrapt", "msgpack", "pyzmq", "opentelemetry-api", "pytest", "pytest-timeout", "hatchling")


@dataclass(frozen=True, kw_only=True)
class Framework:
    """How a distribution is tested: with `{}` for the version in what has to have the same."""

    tests: tuple[str, ...]
    beside: tuple[str, ...] = ()
    extra: str = ""
    lowest: tuple[str, ...] = ()
    """What the lowest release needs too, because it takes newer ones of these, which break it."""


#: Distribution that an integration requires -> its tests.
FRAMEWORKS = {
    "openai": Framework(tests=("test_openai.py", "test_responses.py")),
    "anthropic": Framework(tests=("test_anthropic.py",), beside=("openai",)),
    "litellm": Framework(tests=("test_litellm.py",), beside=("mcp>=2.2",)),
    "langchain-core": Framework(
        tests=("test_langchain.py",),
        beside=("langchain", "langchain-openai", "openai"),
        lowest=("langchain<1.0.1", "langgraph<1.0.1", "langgraph-checkpoint<3.0.1", "langgraph-prebuilt<1.0.2"),
    ),
    "langgraph": Framework(
        tests=("test_langgraph.py",),
        beside=("langchain", "langchain-openai", "langgraph-supervisor", "openai"),
        lowest=("langchain<1.0.1", "langgraph-checkpoint<3.0.1", "langgraph-prebuilt<1.0.2"),
    ),
    "autogen-agentchat": Framework(tests=("test_autogen.py",), beside=("autogen-ext[openai]=={}",)),
    "crewai": Framework(tests=("test_crewai.py",)),
    "openai-agents": Framework(tests=("test_openai_agents.py",)),
    "pydantic-ai-slim": Framework(tests=("test_pydantic_ai.py",), extra="[openai]"),
    "smolagents": Framework(tests=("test_smolagents.py",), extra="[openai]", beside=("openai>=2.20",)),
    "huggingface-hub": Framework(tests=("test_huggingface.py",)),
    "dspy": Framework(tests=("test_dspy.py",)),
    "llama-index-core": Framework(
        tests=("test_llama_index.py",), beside=("llama-index-llms-openai-like", "openai>=2.20")
    ),
    "agno": Framework(tests=("test_agno.py",), beside=("openai",)),
    "strands-agents": Framework(tests=("test_strands.py",), extra="[openai]", beside=("openai>=2.20",)),
    "semantic-kernel": Framework(tests=("test_semantic_kernel.py",), beside=("openai>=2.20", "httpx", "protobuf")),
    "agent-framework-core": Framework(tests=("test_agent_framework.py",), beside=("agent-framework-openai",)),
    "haystack-ai": Framework(tests=("test_haystack.py",)),
    "google-genai": Framework(tests=("test_google_genai.py",), beside=("aiohttp",)),
    "google-adk": Framework(tests=("test_google_adk.py",), beside=("litellm", "mcp>=2.2")),
}


@dataclass(frozen=True, kw_only=True)
class End:
    """One end of one range, and what became of it."""

    distribution: str
    version: str
    allowed: str
    passed: bool
    tests: str
    """pytest's last line, or why no environment could be made."""


def read_ranges(folder: Path = ROOT / "integrations") -> dict[str, tuple[str, str]]:
    """Distribution -> the lowest version that its integration allows, and the first that it does not."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*.py")):
        text = path.read_text("utf-8")
        for name, low, below in _REQUIRE.findall(text):
            found[name or _DISTRIBUTION.findall(text)[0]] = low, below
    return found


def find_lowest(distribution: str, low: str, below: str) -> str:
    """The lowest release in the range that the index has, '' if there is none."""
    output = _run([sys.executable, "-m", "pip", "index", "versions", distribution]).stdout
    listed = re.findall(r"Available versions: (.*)", output)
    versions = sorted(map(Version, listed[0].split(", "))) if listed else []
    return next((str(each) for each in versions if Version(low) <= each < Version(below)), "")


def examine(distribution: str, low: str, below: str, uv: str, *, lowest: bool) -> End:
    """Make the environment, run the tests there, and remove it. The highest end is the newest release that can be
    installed beside what its users have."""
    framework = FRAMEWORKS[distribution]
    version = find_lowest(distribution, low, below) if lowest else ""
    range_ = f"=={version}" if lowest else f">={low},<{below}"
    beside = [each.format(version) if lowest else each.replace("=={}", "") for each in framework.beside]
    wanted = [f"{distribution}{framework.extra}{range_}", *beside, *(framework.lowest if lowest else ())]
    with tempfile.TemporaryDirectory(prefix="ends-") as folder:
        python = f"{folder}/bin/python"
        _run([uv, "venv", "--quiet", "--python", sys.executable, "--allow-existing", folder])
        install = [uv, "pip", "install", "--quiet", "--python", python]
        made = _run([*install, *_OURS, *wanted])
        told = End(
            distribution=distribution,
            version=version,
            allowed=f"{low} to below {below}",
            passed=False,
            tests=_last(made),
        )
        if made.returncode:
            return told
        _run([*install, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
        listed = json.loads(_run([uv, "pip", "list", "--python", python, "--format", "json"]).stdout)
        version = next(each["version"] for each in listed if each["name"] == distribution)
        files = [str(ROOT / "tests" / "frameworks" / name) for name in framework.tests]
        ran = _run([python, "-m", "pytest", "-rfE", "-p", "no:cacheprovider", *files])
        (ROOT / "tests" / "frameworks" / "results" / f"{Path(folder).name}.json").unlink(missing_ok=True)  # of proofs
        if ran.returncode:
            print(ran.stdout[-6000:], ran.stderr[-1000:], file=sys.stderr)
        return replace(told, version=version, passed=ran.returncode == 0, tests=_last(ran))


def main(names: Sequence[str]) -> int:
    ranges = read_ranges()
    if unknown := sorted(set(ranges) ^ set(FRAMEWORKS)):
        raise SystemExit(f"no tests, or no integration, for {', '.join(unknown)}")
    if wrong := [name for name in names if name not in ranges]:
        raise SystemExit(f"no integration requires {', '.join(wrong)}; there are: {', '.join(sorted(ranges))}")
    ends = list(_ends({name: ranges[name] for name in names or ranges}))
    kept = [End(**each) for each in json.loads(RESULTS.read_text()) if each["distribution"] not in (names or ranges)]
    whole = sorted([*kept, *ends], key=lambda end: (end.distribution, Version(end.version)))
    RESULTS.write_text(json.dumps([asdict(end) for end in whole], indent=1) + "\n")
    return int(not all(end.passed for end in ends))


def _ends(ranges: dict[str, tuple[str, str]]) -> Iterator[End]:
    uv = os.environ.get("UV", str(ROOT / ".venvs" / "uv" / "bin" / "uv"))
    for name, (low, below) in ranges.items():
        for lowest in (True, False):
            end = examine(name, low, below, uv, lowest=lowest)
            print(
                f"{'works' if end.passed else 'FAILS'}  {name} {end.version} ({end.allowed}): {end.tests}", flush=True
            )
            yield end


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last(process: subprocess.CompletedProcess[str]) -> str:
    lines = (process.stdout.strip() or process.stderr.strip()).splitlines()
    return re.sub(r" in [\d.]+s.*", "", lines[-1])[:300] if lines else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

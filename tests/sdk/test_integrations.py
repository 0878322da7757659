"""Integrations that meet another framework than they know, that fail, or whose patches others have patched."""

import functools
import importlib.metadata
import logging
import sys
import types
from pathlib import Path

import pytest

import lightning_litellm
import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.capture.agent_names import require_version, wrap_agent
from lightning_sdk.capture.patches import Patches
from lightning_sdk.errors import UnsupportedVersion
from lightning_sdk.trace.scope import effective_scope


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, instrument: str = "") -> None:
    """Install, in a folder on the path, a distribution `name` with a module and perhaps an integration for it."""
    module = name.replace("-", "_")
    info = tmp_path / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (tmp_path / f"{module}.py").write_text("VALUE = 42\n")
    if instrument:
        (info / "entry_points.txt").write_text(f"[{session.GROUP}]\n{module} = {module}_watch:instrument\n")
        (tmp_path / f"{module}_watch.py").write_text(instrument)
    monkeypatch.syspath_prepend(tmp_path)
    for each in (module, f"{module}_watch"):
        monkeypatch.delitem(sys.modules, each, raising=False)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("1.2", True),
        ("1.2.0", True),
        ("1.107.0rc2", True),
        ("1.999", True),
        ("1.1.9", False),
        ("2.0.0", False),
        ("2.0rc1", False),
    ],
)
def test_versions_are_compared_as_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, known: bool
) -> None:
    """From the lower end, with or without its zeros, up to but not with pre-releases of the upper end."""
    install(tmp_path, monkeypatch, "some-framework", version)
    assert importlib.metadata.version("some-framework") == version
    if known:
        require_version("some-framework", "1.2.0", "2")
    else:
        with pytest.raises(UnsupportedVersion, match=rf"{version} is not.*some-framework>=1\.2\.0,<2'"):
            require_version("some-framework", "1.2.0", "2")


@pytest.mark.parametrize(
    ("version", "mcp", "fails"),
    [("1.83.0", "1.30.0", False), ("1.105.7", "1.30.0", False), ("1.106.0", "1.30.0", True),
     ("1.106.2", "1.30.0", True),
     ("1.106.2", "", True), ("1.106.2", "2.1.1", False), ("1.106.2", "2.2.0", False), ("1.106.12", "1.30.0", True),
     ("1.107.0rc2", "1.30.0", True), ("1.108.3", "1.30.0", True), ("1.108.3", "2.3.0", False),
     ("1.108.4", "1.30.0", False), ("1.110.2", "", False)],
)  # fmt: skip
def test_releases_of_litellm_that_fail_on_tools_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    mcp: str,
    fails: bool,
) -> None:
    """One warning with what to type, where a release fails with the mcp that is installed; nothing is refused."""
    install(tmp_path, monkeypatch, "litellm", version)
    if mcp:
        install(tmp_path, monkeypatch, "mcp", mcp)
    lightning_litellm.check_version()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == fails
    if fails:
        assert f"litellm {version} fails on calls with tools {f'with mcp {mcp}' if mcp else 'without mcp'}" in said[0]
        assert "pip install 'litellm>=1.108.6,<2', or pip install 'mcp>=2.2'" in said[0]


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
def test_malicious_releases_of_litellm_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """They are called what they are, and not merely out of range."""
    install(tmp_path, monkeypatch, "litellm", version)
    with pytest.raises(UnsupportedVersion, match=rf"{version} is a malicious release: .*litellm>=1\.108\.6,<2'"):
        lightning_litellm.check_version()


def test_an_unsupported_version_is_said_once_with_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of range, the integration is off with one warning, however often the session starts; the import works."""
    code = "from lightning_sdk import integration\n"
    code += "def instrument(patches): integration.require_version('oldframework', '3', '4')\n"
    install(tmp_path, monkeypatch, "oldframework", "2.9", code)
    for _ in range(2):
        lightning.init()
        assert __import__("oldframework").VALUE == 42
        said = session.status()["integrations"]["oldframework"]  # type: ignore[index]
        assert said == "off: oldframework 2.9 is not supported; install one that is: pip install 'oldframework>=3,<4'"
        lightning.shutdown()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "oldframework>=3,<4" in warnings[0].getMessage()


@pytest.mark.parametrize(
    "code", ["def instrument(patches): raise KeyError('mine')\n", "import no_such_module\n", "def other(): ...\n"]
)
def test_an_integration_that_fails_never_breaks_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    """An integration that raises, cannot be imported, or is not there: the import works, and a warning says it."""
    install(tmp_path, monkeypatch, "brokenframework", "1.0", code)
    lightning.init()
    assert __import__("brokenframework").VALUE == 42
    assert str(session.status()["integrations"]["brokenframework"]).startswith("off: ")  # type: ignore[index]
    assert [
        record.getMessage() for record in caplog.records if "brokenframework failed and is off" in record.getMessage()
    ]


@pytest.mark.parametrize("sdk_is_installed_too", [False, True])
def test_a_package_called_agents_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sdk_is_installed_too: bool
) -> None:
    """A user's own `agents` is not the OpenAI Agents SDK: nothing in it is imported or replaced, and nothing said."""
    if sdk_is_installed_too:
        (tmp_path / "site").mkdir()
        install(tmp_path / "site", monkeypatch, "openai-agents", "0.20.0")
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    (tmp_path / "agents" / "run.py").write_text("raise RuntimeError('imported behind the user')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)
    lightning.init()
    module = __import__("agents")
    assert Path(str(module.__file__)).parent == tmp_path / "agents" and "agents.run" not in sys.modules
    assert not [name for name in vars(module) if not name.startswith("__")] and not caplog.records
    monkeypatch.delitem(sys.modules, "agents")


def test_undo_leaves_what_another_tool_wrapped() -> None:
    """A function of a module, wrapped again by somebody else after us, is named and stays."""
    module = types.ModuleType("framework_module")
    module.turn = lambda: effective_scope().role  # type: ignore[attr-defined]
    patches = Patches()
    wrap_agent(patches, module, "turn", lambda: "bot")
    assert module.turn() == "bot"
    ours = module.turn
    module.turn = functools.partial(ours)  # type: ignore[attr-defined]
    assert patches.undo() == ["framework_module.turn"]

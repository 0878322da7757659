"""The walls: who may import whom, and what an import may cost."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import packages_distributions

import pytest

from lightning_sdk import integration
from tests.architecture.sources import Module, integrations, module_of, modules, packages, pyproject, run_python

HEAVY = {"torch", "transformers", "zmq", "wrapt", "pydantic", "asyncio", "numpy", "aiohttp", "openai", "msgspec"}
#: The data of a model: a backend may look up where it lies, and it knows no one.
MODEL = "lightning_spark"
#: Above the hub and below the backends that run in separate processes.
SHARED = ("lightning_process", "lightning_losses", "lightning_vllm")
#: Imported inside a function, with a clear way out where they are missing.
OPTIONAL = {
    "lightning_sdk": {"rich", "pyarrow", "ray"},
    "lightning_autogen": {"autogen_ext"},
    "lightning_dashboard": {"tokenizers"},
}
#: Integration -> what it imports beside the framework that it waits for, because that brings it along.
BESIDE = {
    "lightning_langgraph": {"langchain_core"},
    "lightning_autogen": {"autogen_core"},
    "lightning_litellm": {"openai"},
}
#: Scripts that are run from a clone and not imported by the product may use what the examples need.
SCRIPTS = {"lightning_spark"}


#: The folders and root modules of a package, each of which imports only those before it.
FLOORS = {
    "lightning_sdk": (
        "errors", "system", "terminal", "prompts", "trace", "failures", "results", "translation", "stream", "markers",
        "capture", "integration", "hub", "session", "settings", "tracking", "rollouts", "commands", "cli",
    ),
    "lightning_hub": (
        "rollout_key", "rollout", "backend", "feed", "standstill", "statistics", "decoding", "storage", "trajectories",
        "findings", "credit", "diagnosis", "evaluation", "rollouts", "replay", "health", "results", "export", "receive",
        "training", "hub", "__main__",
    ),
    "lightning_dashboard": (
        "guard", "query", "growing_lines", "hub_watch", "health_watch", "processes", "rollout_table", "run_reader",
        "runs", "rollout_filter", "attempt_reader", "credit_reader", "token_text", "views", "server",
        "questions", "export", "__main__",
    ),
    "lightning_embedded": (
        "process", "threads", "text", "constraints", "engine", "serving", "learning", "vllm", "__main__",
    ),
}  # fmt: skip
#: Extras of `lightning_trackers`, one for each of its modules.
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
#: Packages of ours that need the extra `hub` and no more.
LIGHT = {"lightning_hub", "lightning_dashboard"}
#: Modules that are not installed here -> their distributions.
ELSEWHERE = {"hydra": "hydra-core", "transfer_queue": "transferqueue", "yaml": "pyyaml"}


def allowed_packages(package: str) -> set[str]:
    """The packages of ours that `package` may import."""
    if package in {"lightning_sdk", MODEL}:
        return set()
    if package in integrations() | {"lightning_hub", "lightning_trackers"}:
        return {"lightning_sdk"}
    below = SHARED[: SHARED.index(package)] if package in SHARED else SHARED
    return {"lightning_sdk", "lightning_hub", MODEL, *below}


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_imports_go_one_way(module: Module) -> None:
    """integrations -> lightning_sdk <- hub <- process <- vllm <- backends; deferred imports count too."""
    ours = {name.split(".")[0] for name in module.imports()} & packages() - {module.package}
    assert ours <= allowed_packages(module.package), (
        f"{module.where} imports {sorted(ours - allowed_packages(module.package))}"
    )


@pytest.mark.parametrize("package", FLOORS)
def test_folders_stand_on_floors(package: str) -> None:
    """A folder imports only what is below it, so that its package can be read from the ground up."""
    floors = FLOORS[package]
    inside = [module for module in modules() if module.package == package and "." in module.name]
    assert {floor_of(module.name) for module in inside} == set(floors)
    for module in inside:
        own = floors.index(floor_of(module.name))
        names = {found for name in module.imports() if (found := module_of(name)) and found.startswith(f"{package}.")}
        above = sorted(name for name in names if floors.index(floor_of(name)) > own)
        assert not above, f"{module.where} is on the floor {floors[own]!r} and imports {above}"


@pytest.mark.parametrize("package", sorted(integrations()))
def test_integrations_need_one_module_of_the_sdk(package: str) -> None:
    """A third party's integration can do all that ours do, with what is documented for its authors."""
    for module in (each for each in modules() if each.package == package):
        found = {found for name in module.imports() if (found := module_of(name)) and found.startswith("lightning_sdk")}
        assert found == {"lightning_sdk.integration"}, f"{module.where} imports {sorted(found)}"


def test_integration_authors_get_what_is_used_and_documented() -> None:
    """The façade has no name that no integration of ours uses, and its docstring says what each is for."""
    used = {
        name.removeprefix("lightning_sdk.integration.")
        for module in modules()
        if module.package in integrations()
        for name in module.imports()
        if name.startswith("lightning_sdk.integration.")
    }
    assert set(integration.__all__) == used
    documented = str(integration.__doc__)
    assert not {name for name in used if not re.search(rf"^    (\w+, )?{name}\b", documented, re.MULTILINE)}


def floor_of(module: str) -> str:
    """The folder, or the root module, of a package that a module is in."""
    return module.split(".")[1]


def test_modules_import_each_other_without_cycles() -> None:
    """Within a package too, there is an up and a down."""
    graph = {module.name: {found for name in module.imports() if (found := module_of(name))} for module in modules()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"imports go round: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for below in sorted(graph[name] - {name}):
                visit(below, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_nothing_imports_a_program() -> None:
    """What is run as a program lies above everything else."""
    programs = {module.name for module in modules() if module.name.endswith("__main__")} | {"lightning_sdk.cli"}
    for module in modules():
        called = {found for name in module.imports() if (found := module_of(name)) in programs}
        assert not called, f"{module.where} imports {called}"


@pytest.mark.parametrize("package", sorted(packages()))
def test_third_parties_are_declared(package: str) -> None:
    """What a package imports is in the dependencies, or in the extra, that a user of it installs."""
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    if package == "lightning_trackers":
        wanted += [each for name in TRACKERS for each in extras[name]]
    elif package not in {"lightning_sdk", *integrations()}:
        wanted += extras["hub"] + (extras["train"] if package not in LIGHT else [])
    if package == "lightning_verl":
        wanted += extras["verl"]
    if package == "lightning_prompts":
        wanted += extras["prompts"]
    if package in SCRIPTS:
        wanted += extras["examples"]
    declared = {distribution(each) for each in wanted}
    providers = packages_distributions()
    for module in (each for each in modules() if each.package == package):
        for name in {each.split(".")[0] for each in module.imports()} - packages() - sys.stdlib_module_names:
            if name in OPTIONAL.get(package, ()):
                assert not any(each.split(".")[0] == name for each in module.imports(deferred=False)), module.where
            elif package in integrations():
                assert name in frameworks(package), f"{module.where} imports {name}, which is not its framework"
                assert not any(each.split(".")[0] == name for each in module.imports(deferred=False)), module.where
            else:
                found = {distribution(each) for each in providers.get(name, [ELSEWHERE.get(name, name)])}
                assert found & declared, f"{module.where} imports {name}, which {package} does not declare"


def test_what_is_declared_is_used() -> None:
    """Every distribution that a user is made to install is imported somewhere."""
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    declared = {distribution(each) for each in [*project["dependencies"], *extras["hub"], *extras["train"]]}
    providers = packages_distributions()
    imported = {name.split(".")[0] for module in modules() for name in module.imports()}
    used = {distribution(each) for name in imported for each in providers.get(name, [])}
    assert declared - used == {"lightning-agent-sdk"}


def test_the_sdk_needs_four_distributions() -> None:
    """An agent's environment gets these and nothing heavier."""
    names = {distribution(each) for each in pyproject()["project"]["dependencies"]}
    assert names == {"wrapt", "msgpack", "pyzmq", "opentelemetry-api"}


def test_the_hub_extra_has_no_torch() -> None:
    """The hub lives where there is no torch."""
    names = {distribution(each) for each in pyproject()["project"]["optional-dependencies"]["hub"]}
    assert not names & {"torch", "transformers", "lightning-agent-sdk"}


def frameworks(integration: str) -> set[str]:
    """Top-level modules of the frameworks that an integration waits for."""
    declared = pyproject()["project"]["entry-points"]["lightning_sdk.integrations"]
    awaited = {name.split(".")[0] for name, value in declared.items() if value.split(":")[0] == integration}
    return awaited | BESIDE.get(integration, set())


def distribution(requirement: str) -> str:
    """The normalised name in a requirement such as 'pyzmq>=26,<28'."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after `code` and would not have without it."""
    show = "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    with_it, without = (set(json.loads(run_python(each + show).splitlines()[-1])) for each in (code, ""))
    return with_it - without


def test_importing_the_sdk_is_light() -> None:
    """The import, and decorating, load nothing that an agent's start would feel."""
    code = """
import lightning_sdk as lightning

@lightning.agent(role="solver", trainable=True)
def solve(task): return task["question"]

@lightning.reward
def correct(task, answer): return 1.0

assert solve({"question": "?"}) == "?"
with lightning.rollout({"question": "?"}): lightning.emit_reward(1.0)
lightning.Settings()
"""
    loaded = loaded_by(code)
    assert "lightning_sdk" in loaded
    assert not loaded & HEAVY


def test_importing_what_integrations_import_is_light() -> None:
    """Integrations are loaded in the middle of the user's own imports."""
    loaded = loaded_by("import lightning_sdk.integration")
    assert "lightning_sdk" in loaded and not loaded & HEAVY


def test_init_loads_no_framework() -> None:
    """`init()` waits for a framework's import instead of importing it."""
    loaded = loaded_by("import lightning_sdk as lightning; lightning.init(); lightning.shutdown()")
    assert {"zmq", "wrapt"} <= loaded
    assert not loaded & {"torch", "transformers", "openai", "pydantic", "numpy", "aiohttp"}


def test_the_hub_works_without_torch() -> None:
    """Every module of the hub imports where torch does not exist, and loads no backend."""
    names = [module.name for module in modules() if module.package == "lightning_hub"]
    code = f"""
import importlib, sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing them fails
for name in {names!r}: importlib.import_module(name)
"""
    others = packages() - {"lightning_hub", "lightning_sdk"}
    assert not loaded_by(code) & others


def test_naming_the_embedded_backend_loads_no_torch() -> None:
    """The hub holds the backend by its handle; torch lives in the backend's own process."""
    assert not loaded_by("import lightning_embedded; lightning_embedded.backend") & {"torch", "transformers"}

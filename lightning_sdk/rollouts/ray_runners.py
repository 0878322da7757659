"""The Ray pool: runners as Ray actors, on this machine or spread over the nodes of a cluster.

Ray is only imported here, when it is asked for. A cluster that we start ends with the training; an existing one is left
as it was. If an actor's process dies, Ray starts it again, on another node if necessary, and it continues to lease. The
hub gives its unfinished rollouts to others.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_sdk import session
from lightning_sdk.errors import SettingError
from lightning_sdk.markers.reward import RewardFunction
from lightning_sdk.markers.reward import reward_functions as rewards_of
from lightning_sdk.rollouts import reference
from lightning_sdk.rollouts.local_runners import references
from lightning_sdk.rollouts.runner import Runner
from lightning_sdk.settings.placement import Placement
from lightning_sdk.system import addresses

log = logging.getLogger("lightning_sdk")

#: Not copied to the nodes: no agent needs them.
_LEFT_BEHIND = ["runs", ".git", ".venv", ".venvs", "venv", "__pycache__", "*.safetensors", "wandb"]
_FAREWELL_SECONDS = 10.0
"""Time for actors to send what they still hold."""


class RayPool:
    """Runners as Ray actors, each with its share of the concurrency."""

    def __init__(
        self,
        placement: Placement,
        agent: Callable[..., Any],
        rewards: Sequence[RewardFunction],
        concurrency: int,
        quiet: bool,
    ) -> None:
        """Join the Ray at the placement's address, or start one.

        Raises:
            SettingError: Ray is not installed, the actors could not find the agent, or no Ray is at that address.
        """
        self._ray = _ray(placement)
        self._count = min(placement.number, concurrency)
        self._config = {**references(agent, rewards), "concurrency": -(-concurrency // self._count)}
        self._actors: list[Any] = []
        self._ends: list[Any] = []
        self._failures: list[str] = []
        self.listen = ""
        """Where the hub has to listen so that all nodes reach it; '' if all are this machine."""
        self._host = addresses.LOOPBACK
        self._ours = self._connect(placement.address or os.environ.get("RAY_ADDRESS", ""), not quiet)

    def _connect(self, address: str, show: bool) -> bool:
        """Whether it is for us to leave this Ray."""
        ray, shown = self._ray, {"log_to_driver": show, "configure_logging": True, "logging_level": logging.ERROR}
        if ray.is_initialized():
            self._look_around()
            return False
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(address="local", include_dashboard=False, **shown)
            self._config |= {"folder": str(Path.cwd()), "path": sys.path}
            return True
        if why := addresses.unreachable_reason(address):
            raise _unusable(address, why)
        functions = [self._config["agent"], *self._config["rewards"]]
        root = _root(functions)
        environment = {"working_dir": str(root), "excludes": _LEFT_BEHIND} if root else {}
        try:
            ray.init(address=address, runtime_env=environment, **shown)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _unusable(address, " ".join(str(error).split())[:500]) from None
        self._config |= {"agent": _within(functions[0], root), "rewards": [_within(e, root) for e in functions[1:]]}
        self._look_around()
        return True

    def _look_around(self) -> None:
        """Find out where the nodes are."""
        ray = self._ray
        client = ray.util.client.ray.is_connected()
        self._host = addresses.own_name() if client else ray.util.get_node_ip_address()
        nodes = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        if client or nodes - {self._host}:
            self.listen = f"tcp://{self._host}:0"

    def start(self, address: str, key: str) -> None:
        config = {**self._config, "address": addresses.reachable_address(address, f"tcp://{self._host}:0"), "key": key}
        # Runners wait for models, mostly: they take no CPU of Ray's account, and so never wait for one.
        kind = self._ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=4, scheduling_strategy="SPREAD")(RayRunner)
        self._actors = [kind.remote(config) for _ in range(self._count)]
        # Asked again of an actor that was made again; it answers when its runner has ended.
        self._ends = [actor.wait.options(max_task_retries=-1).remote() for actor in self._actors]

    def failure(self) -> str:
        ended, self._ends = (
            self._ray.wait(self._ends, num_returns=len(self._ends), timeout=0) if self._ends else ([], [])
        )
        for each in ended:
            try:
                why = str(self._ray.get(each))
            except Exception as error:
                why = " ".join(str(error).split())
            log.warning("lightning: a runner on Ray has ended: %s", why)
            self._failures.append(why)
        if self._actors and not self._ends:
            return f"every runner on Ray has ended; the last error: {self._failures[-1]}"
        return ""

    def stop(self) -> None:
        actors, self._actors, self._ends = self._actors, [], []
        self._ray.wait([actor.stop.remote() for actor in actors], num_returns=len(actors), timeout=_FAREWELL_SECONDS)
        for actor in actors:
            self._ray.kill(actor)

    def leave(self) -> None:
        """End a Ray that we started, or leave one that was already running. Idempotent."""
        if self._ours:
            self._ours = False
            self._ray.shutdown()


class RayRunner:
    """A runner in an actor's process. Made again by Ray in another one when its own dies."""

    def __init__(self, config: dict[str, Any]) -> None:
        if folder := config.get("folder"):  # a Ray of our own: as in the training's process
            os.chdir(folder)
            sys.path += [each for each in config["path"] if each not in sys.path]
        running = session.start()
        running.attach(config["address"], config["key"], keep=False)
        running.reserved_for = "a training's runner"
        agent, functions = _load(config["agent"]), [_load(each) for each in config["rewards"]]
        rewards = rewards_of(functions) if functions else ()
        self._address = config["address"]
        self._runner = Runner(self._address, config["key"], agent, rewards, concurrency=config["concurrency"])
        self._runner.start()

    def wait(self) -> str:
        """Blocks until the runner has ended; why."""
        self._runner.wait()
        return f"{self._runner.id}: {self._runner.error or 'it was stopped'}"

    def stop(self) -> None:
        self._runner.stop()
        session.end()


def _load(name: str) -> Callable[..., Any]:
    """The function of this name; a file that is not on this node is looked for where Ray put the working directory."""
    place, _, function = name.rpartition(":")
    if place.endswith(".py") and not Path(place).exists():
        name = f"{Path(place).name}:{function}"
    return reference.load(name)


def _root(functions: Sequence[str]) -> Path | None:
    """The folder that Ray has to bring to its nodes; None if all functions are of installed packages.

    Raises:
        SettingError: there are several.
    """
    roots = {found for each in functions if (found := _folder(each)) is not None}
    if len(roots) > 1:
        raise SettingError(
            f"rollouts.runner: agent and rewards are in {' and '.join(sorted(map(str, roots)))}, but Ray copies one "
            "folder to its nodes: put their files into one folder"
        )
    return roots.pop() if roots else None


def _folder(name: str) -> Path | None:
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place).parent
    top = sys.modules[place.partition(".")[0]]
    path = next(iter(getattr(top, "__path__", ())), None)
    if path is None or "site-packages" in path:
        return None
    return Path(path).parent


def _within(name: str, root: Path | None) -> str:
    """The name of a function as it is in the working directory."""
    place, _, function = name.rpartition(":")
    return f"{Path(place).relative_to(root)}:{function}" if root and place.endswith(".py") else name


def _unusable(address: str, why: str) -> SettingError:
    return SettingError(
        f"rollouts.runner: the Ray cluster at {address!r} cannot be used ({why}); start one with: ray start --head. If "
        "it requires a token, set RAY_AUTH_MODE=token here too"
    )


def _ray(placement: Placement) -> Any:
    try:
        import ray  # noqa: PLC0415 - nobody else needs it
        import ray.util.client  # noqa: PLC0415
    except ImportError:
        raise SettingError(
            f"rollouts.runner: {placement.number} Ray actors need Ray in this environment: pip install ray"
        ) from None
    return ray

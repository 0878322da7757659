"""Services that the command line runs until they are stopped: a hub with a model, a gateway, a runner."""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import entry_points
from typing import Any

from lightning_sdk import session
from lightning_sdk.commands import gateway
from lightning_sdk.errors import LightningError, SettingError
from lightning_sdk.hub import discovery
from lightning_sdk.hub.keys import HubKeys
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.markers.reward import Function, reward_functions
from lightning_sdk.rollouts.remote_runner import RemoteRunner
from lightning_sdk.settings import Settings
from lightning_sdk.system.folders import make_folder


def runner(
    agent: Callable[..., Any],
    reward: Sequence[Function] | None,
    *,
    hub: str | None,
    key: str | None,
    concurrency: int,
    patience: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run rollouts for a training in another process, until it ends or this process is asked to stop."""
    address = hub or os.environ.get(discovery.ADDRESS)
    if not address:
        raise SettingError(
            f"no hub was given: give --hub tcp://HOST:PORT, or set {discovery.ADDRESS}; `lightning-sdk train "
            "--listen ...` says what to type"
        )
    discovery.check(address)

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    key = key or discovery.take_key()
    remote = RemoteRunner(
        address, key, agent, reward_functions(reward), concurrency=concurrency, patience=patience, say=say
    )
    summary = remote.run(_stop_on_signal())
    say(
        f"{_ENDED.get(summary.ended, 'the training has finished')}; rollouts run here: {sum(summary.rollouts.values())}"
    )
    if as_json:
        print(json.dumps(asdict(summary)))


_ENDED = {"interrupted": "stopped; unfinished rollouts were given back", "stopped": "the training was stopped"}


def serve(options: argparse.Namespace) -> None:
    folder = make_folder(options.run, "--run FOLDER")
    keys = HubKeys.of(folder, options.key or discovery.take_key())
    hub = HubProcess(folder, bind=f"tcp://{options.host}:{options.port}", keys=keys, guests_run=False)
    backend = None
    try:
        facts = {"hub": hub.address, "key": keys.guest, "run": str(folder)}
        if options.model:
            settings = Settings(model=options.model, backend=options.backend, engine=options.engine)
            backend = _backend(options.backend).start(settings, folder)
            facts |= {
                "base_url": backend.endpoint.url,
                "model": backend.endpoint.model,
                "api_key": backend.endpoint.key,
            }
        discovery.announce(hub.address, keys.guest, hub.pid)
        print(json.dumps(facts) if options.json else _describe_hub(facts), flush=True)
        _until_stopped(hub)
    finally:
        discovery.withdraw(hub.pid)
        if backend is not None:
            backend.close()
        hub.stop()


def relay(options: argparse.Namespace) -> None:
    make = gateway.load()
    session.init(options.hub, options.key, integrations=frozenset(), carry_context=False)  # nothing of ours is patched
    found = discovery.find(options.hub, options.key)
    running = make(
        options.upstream,
        host=options.host,
        port=options.port,
        role=options.role,
        token=options.token,
        timeout=options.timeout,
    )
    try:
        stop = _stop_on_signal()
        facts = {
            "url": running.url,
            "token": running.token,
            "upstream": str(running.upstream),
            "hub": found.address if found else "",
        }
        print(json.dumps(facts) if options.json else _describe_gateway(facts), flush=True)
        stop.get()
    finally:
        running.close()
        session.shutdown()


def _describe_gateway(facts: dict[str, str]) -> str:
    url, hub = facts["url"], facts["hub"]
    recorded = f"recorded by {hub}" if hub else "NOT recorded: no hub is running; start one with: lightning-sdk serve"
    begin = f"curl -X POST {url}/rollouts -H 'Authorization: Bearer {facts['token']}' -d '{{\"task\": {{}}}}'"
    return "\n".join(
        [
            f"gateway  {url}   (to {facts['upstream']}; {recorded})",
            f"agents   OPENAI_BASE_URL={url}/v1 ANTHROPIC_BASE_URL={url}",
            f"rollouts {begin}",
            "Ctrl-C stops it.",
        ]
    )


def _stop_on_signal() -> queue.SimpleQueue[None]:
    """Holds something once this process is asked to end. An Event could be locked by its waiter when a signal comes."""
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.put(None))
    return stop


def _backend(name: str) -> Any:
    found = {entry.name: entry for entry in entry_points(group="lightning_sdk.backends")}
    if name not in found:
        raise SettingError(f"no backend {name!r} is installed; installed: {', '.join(sorted(found))}")
    return found[name].load()


def _describe_hub(facts: dict[str, str]) -> str:
    lines = [
        f"hub      {facts['hub']}   (spans in {facts['run']})",
        "agents   lightning.init() of this user on this machine finds it; elsewhere set",
        f"         LIGHTNING_HUB={facts['hub']} LIGHTNING_KEY={facts['key']}",
    ]
    if "base_url" in facts:
        lines += [
            f"model    OpenAI(base_url={facts['base_url']!r}, api_key={facts['api_key']!r}), model={facts['model']!r}"
        ]
    return "\n".join([*lines, "Ctrl-C stops it."])


def _until_stopped(hub: HubProcess) -> None:
    stop = _stop_on_signal()
    while stop.empty():
        time.sleep(0.2)
        if not hub.alive():
            raise LightningError(f"the hub ended unexpectedly. The end of its log:\n{hub.log_tail()}")

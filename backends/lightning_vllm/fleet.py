"""The fleet: the vLLM servers of one model behind one front, kept alive and supplied with the learner's weights.

A publication holds the front, pauses the servers together with their requests (vLLM's pause with mode=keep), loads the
weights, and drops caches of the old ones: requests in progress are recomputed with the new weights before they
continue, as in the embedded engine. A server that dies is restarted with the latest published weights, while the front
sends its requests to other servers, or to the same one once it is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from lightning_sdk.errors import BackendDied, LightningError
from lightning_vllm.command import ServerPlacement
from lightning_vllm.front import Front
from lightning_vllm.launch import Launch
from lightning_vllm.pool import ServerAddress
from lightning_vllm.server import ServerGone, VllmServer
from lightning_vllm.sharing import detach, handles, in_file, sweep

log = logging.getLogger(__name__)

#: Time limits until a server is ready, including a model's download, and for its control endpoints.
_START_SECONDS, _CONTROL_SECONDS = 1500.0, 600.0
#: A server that ends this often without having served for `_STABLE_SECONDS` is not restarted.
_MOST_STARTS, _STABLE_SECONDS = 4, 300.0


class _Slot:
    """A placement and the server that currently runs there."""

    def __init__(self, number: int, place: ServerPlacement, server: VllmServer) -> None:
        self.number, self.place, self.server = number, place, server
        self.serves = False
        self.shares = place.shared
        """Whether it reads weights from the learner's memory."""
        self.why = ""
        """Its last failure."""
        self.starts, self.since = 1, time.monotonic()


class Fleet:
    """Servers and their front, as `lightning_embedded.learning.training.Publishing`."""

    def __init__(
        self, front: Front, places: Sequence[ServerPlacement], folder: Path, launch: Launch, *, asynchronous: bool
    ) -> None:
        """Start a server in each place with `launch`; logs are in `folder`.

        `asynchronous`: the learner changes its weights while these serve, so published weights are copied.
        """
        sweep()
        self.front, self._folder, self._launch, self._asynchronous = front, folder, launch, asynchronous
        self._changed = threading.Condition()
        self._state: dict[str, Tensor] | None = None  # None: those in the model's folder
        self._version = 0
        self._paused = self._closed = False
        self._failure = ""
        self.restarts = 0
        self._slots = [_Slot(number, place, launch(place, self._log(number))) for number, place in enumerate(places)]

    def wait(self) -> int:
        """Wait until all serve. Returns their maximum length of prompt and completion together. ServerGone if one fails
        to start."""
        try:
            self._run_in_parallel(self._wait_for_first_start, self._slots)
            cards = self._slots[0].server.ask("GET", "/v1/models", seconds=_CONTROL_SECONDS)
        except BaseException:
            self.close()
            raise
        with self._changed:
            for slot in self._slots:
                slot.serves = True
            self._tell_front()
        for slot in self._slots:
            threading.Thread(target=self._supervise, args=(slot,), name=f"vllm-{slot.number}", daemon=True).start()
        return int(cards["data"][0]["max_model_len"])

    def pause(self) -> None:
        """Generate no more tokens; requests are kept and still accepted."""
        with self._changed:
            self._check()
            self._paused = True
            self._hold()

    def resume(self) -> None:
        with self._changed:
            self._paused = False
            self._go_on()
            self._changed.notify_all()

    def publish(self, state: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], version: int) -> None:
        """Serve these weights from the next token on. Returns when every running server has them.

        LightningError if no server runs any more.
        """
        with self._changed:
            self._check()
            self._state, self._version = self._keep_copy(detach(state)), version
            if not self._paused:
                self._hold()
            self._for_each_serving(lambda slot: self._send_weights(slot, fresh=False))
            if not self._paused:
                self._go_on()

    def close(self) -> None:
        """End every server. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._run_in_parallel(lambda slot: slot.server.close(), self._slots)

    # --- weights; with the lock held

    def _hold(self) -> None:
        self.front.hold()
        self._for_each_serving(lambda slot: slot.server.ask("POST", "/pause", mode="keep", seconds=_CONTROL_SECONDS))

    def _go_on(self) -> None:
        self._for_each_serving(lambda slot: slot.server.ask("POST", "/resume", seconds=_CONTROL_SECONDS))
        self.front.resume(self._version)

    def _keep_copy(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights to keep for servers that start later. A learner that waits for the servers does not change its
        tensors before the next publication, so they need no copy."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in state.items()} if self._asynchronous else state

    def _send_weights(self, slot: _Slot, *, fresh: bool) -> None:
        """Load the published weights into one server; `fresh`: it has computed nothing yet."""
        assert self._state is not None
        if slot.shares and next(iter(self._state.values())).is_cuda:
            self._share(slot)
        else:
            with in_file(self._state, self._folder) as folder:
                self._call(slot, "reload_weights", weights_path=str(folder))
        if not fresh:
            # vLLM 0.32 does this when it is paused, contrary to its docs; other releases may not.
            done = slot.server.ask(
                "POST", "/reset_prefix_cache", reset_running_requests="true", seconds=_CONTROL_SECONDS
            )
            if isinstance(done, dict) and done.get("success") is False:
                raise LightningError(f"vLLM server {slot.number} did not drop its cache of the old weights")

    def _share(self, slot: _Slot) -> None:
        assert self._state is not None
        torch.cuda.synchronize()
        try:
            self._call(slot, "lightning_load", weights=handles(self._state))
        except ServerGone:
            raise
        except (LightningError, RuntimeError) as error:
            log.warning("vLLM server %d cannot read the learner's memory, so files are used: %s", slot.number, error)
            slot.shares = False
            self._send_weights(slot, fresh=True)
        finally:
            torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]

    def _call(self, slot: _Slot, method: str, **given: object) -> None:
        body = {"method": method, "kwargs": given, "timeout": _CONTROL_SECONDS}
        slot.server.ask("POST", "/collective_rpc", body, seconds=_CONTROL_SECONDS)

    def _for_each_serving(self, act: Callable[[_Slot], object]) -> None:
        """Act on all serving servers in parallel. One that fails is ended, and therefore restarted."""

        def careful(slot: _Slot) -> None:
            try:
                act(slot)
            except LightningError as error:
                log.warning("vLLM server %d is restarted: %s", slot.number, error)
                slot.serves, slot.why = False, _first_line(error)
                slot.server.close()

        serving = [slot for slot in self._slots if slot.serves]
        self._run_in_parallel(careful, serving)
        if any(not slot.serves for slot in serving):
            self._tell_front()

    def _run_in_parallel(self, act: Callable[[_Slot], object], slots: Sequence[_Slot]) -> None:
        """Act on several servers in parallel. An error is raised once all have finished."""
        with ThreadPoolExecutor(max(1, len(slots))) as threads:
            for done in [threads.submit(act, slot) for slot in slots]:
                done.result()

    def _wait_for_first_start(self, slot: _Slot) -> None:
        """Wait for a server's first start. If one fails, the others stop waiting."""
        try:
            slot.server.wait(_START_SECONDS, lambda: self._closed)
        except ServerGone as error:
            if "address already in use" not in str(error):
                self._closed = True
                raise
            # Another process took the port after it was chosen.
            slot.server = self._launch(slot.place, self._log(slot.number))
            slot.server.wait(_START_SECONDS, lambda: self._closed)

    def upstreams(self) -> list[ServerAddress]:
        """Addresses of the servers that currently serve."""
        return [slot.server.upstream for slot in self._slots if slot.serves]

    def _tell_front(self) -> None:
        self.front.serve(self.upstreams(), self._version)

    def _check(self) -> None:
        if self._failure:
            raise BackendDied(self._failure)

    # --- a thread for each server

    def _supervise(self, slot: _Slot) -> None:
        """Restart a server whenever it ends, until it has ended too often."""
        while True:
            slot.server.join()
            with self._changed:
                if self._closed:
                    return
                slot.serves = False
                self._tell_front()
                slot.starts = 1 if time.monotonic() - slot.since > _STABLE_SECONDS else slot.starts + 1
            slot.server.close()  # the rest of its process group
            if slot.starts > _MOST_STARTS:
                self._give_up(slot)
                return
            log.warning("vLLM server %d has ended and is restarted; see %s", slot.number, slot.server.log)
            self._restart(slot)

    def _restart(self, slot: _Slot) -> None:
        self.restarts += 1
        server = self._launch(slot.place, self._log(slot.number))
        with self._changed:
            slot.server, closed = server, self._closed
        if closed:
            server.close()
            return
        try:
            server.wait(_START_SECONDS, lambda: self._closed)
            with self._changed:
                # While paused, the learner's tensors may be between two versions.
                self._changed.wait_for(lambda: self._closed or not self._paused or self._asynchronous)
                if self._closed:
                    return
                if self._state is not None:
                    self._send_weights(slot, fresh=True)
                slot.serves, slot.since = True, time.monotonic()
                self._tell_front()
        except LightningError as error:
            log.warning("vLLM server %d did not restart: %s", slot.number, error)
            slot.why = _first_line(error)
            server.close()
        else:
            log.warning("vLLM server %d serves again, with version %d", slot.number, self._version)

    def _give_up(self, slot: _Slot) -> None:
        log.error("vLLM server %d ended %d times and is not restarted", slot.number, _MOST_STARTS)
        with self._changed:
            self._slots.remove(slot)
            if not self._slots:
                because = f" ({slot.why})" if slot.why else ""
                self._failure = f"every vLLM server ended {_MOST_STARTS} times{because}; see {slot.server.log}"
                self.front.fail(self._failure)

    def _log(self, number: int) -> Path:
        return self._folder / f"vllm-{number}.log"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""The fleet: the vLLM servers of one model behind one front, kept alive, and given the learner's weights.

A publication holds the front, pauses the servers with the requests that they have (vLLM's pause with mode=keep), puts
the weights in place, and drops what was cached of the old ones: requests under way are computed again with the new
weights before they go on, as in the embedded engine. A server that dies is started anew with the weights that are
published then, while the front asks its requests elsewhere, or of it once it is back.
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

#: Seconds until a server is ready, a model's download included, and for its control endpoints.
_START_SECONDS, _CONTROL_SECONDS = 1500.0, 600.0
#: A server that dies so often without having served for `_STABLE_SECONDS` seconds is not started again.
_MOST_STARTS, _STABLE_SECONDS = 4, 300.0


class _Slot:
    """One place, and the server that runs there now."""

    def __init__(self, number: int, place: ServerPlacement, server: VllmServer) -> None:
        self.number, self.place, self.server = number, place, server
        self.serves = False
        self.shares = place.shared
        """Its weights are read from the learner's memory."""
        self.why = ""
        """What it last failed at."""
        self.starts, self.since = 1, time.monotonic()


class Fleet:
    """Servers and their front, as `lightning_embedded.learning.training.Publishing`."""

    def __init__(
        self, front: Front, places: Sequence[ServerPlacement], folder: Path, launch: Launch, *, asynchronous: bool
    ) -> None:
        """Start a server in each place, with logs in `folder`; `launch` starts one.

        `asynchronous`: the learner changes its weights while these serve, so that what was published is kept apart.
        """
        sweep()
        self.front, self._folder, self._launch, self._asynchronous = front, folder, launch, asynchronous
        self._changed = threading.Condition()
        self._state: dict[str, Tensor] | None = None  # None: as in the model's folder
        self._version = 0
        self._paused = self._closed = False
        self._failure = ""
        self.restarts = 0
        self._slots = [_Slot(number, place, launch(place, self._log(number))) for number, place in enumerate(places)]

    def wait(self) -> int:
        """Return when all serve: the length that they allow, prompt and completion together. ServerGone if one does
        not come up."""
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
        """Make no more tokens; requests are kept and still accepted."""
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
        """Serve these weights from the next token on; returns when every server that runs has them.

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
        """What a server that starts later is given: the learner's own tensors where it waits for the servers, as it
        does not change them before the next publication."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in state.items()} if self._asynchronous else state

    def _send_weights(self, slot: _Slot, *, fresh: bool) -> None:
        """Put the published weights into one server; `fresh`: it has computed nothing yet."""
        assert self._state is not None
        if slot.shares and next(iter(self._state.values())).is_cuda:
            self._share(slot)
        else:
            with in_file(self._state, self._folder) as folder:
                self._call(slot, "reload_weights", weights_path=str(folder))
        if not fresh:
            # vLLM 0.32 does so when it is paused, though it says otherwise; that holds for no other release.
            done = slot.server.ask(
                "POST", "/reset_prefix_cache", reset_running_requests="true", seconds=_CONTROL_SECONDS
            )
            if isinstance(done, dict) and done.get("success") is False:
                raise LightningError(f"vLLM server {slot.number} keeps what it had cached of the old weights")

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
        """Act on all servers that serve, side by side; one that fails at it is ended, and so starts anew."""

        def careful(slot: _Slot) -> None:
            try:
                act(slot)
            except LightningError as error:
                log.warning("vLLM server %d is started anew: %s", slot.number, error)
                slot.serves, slot.why = False, _first_line(error)
                slot.server.close()

        serving = [slot for slot in self._slots if slot.serves]
        self._run_in_parallel(careful, serving)
        if any(not slot.serves for slot in serving):
            self._tell_front()

    def _run_in_parallel(self, act: Callable[[_Slot], object], slots: Sequence[_Slot]) -> None:
        """Act on several servers side by side; what one raises is raised once all are through."""
        with ThreadPoolExecutor(max(1, len(slots))) as threads:
            for done in [threads.submit(act, slot) for slot in slots]:
                done.result()

    def _wait_for_first_start(self, slot: _Slot) -> None:
        """Wait for a first start; what one cannot do, others need not finish."""
        try:
            slot.server.wait(_START_SECONDS, lambda: self._closed)
        except ServerGone as error:
            if "address already in use" not in str(error):
                self._closed = True
                raise
            # Somebody took the port between its choice and its use.
            slot.server = self._launch(slot.place, self._log(slot.number))
            slot.server.wait(_START_SECONDS, lambda: self._closed)

    def upstreams(self) -> list[ServerAddress]:
        """The servers that serve now."""
        return [slot.server.upstream for slot in self._slots if slot.serves]

    def _tell_front(self) -> None:
        self.front.serve(self.upstreams(), self._version)

    def _check(self) -> None:
        if self._failure:
            raise BackendDied(self._failure)

    # --- a thread for each server

    def _supervise(self, slot: _Slot) -> None:
        """Start a server anew whenever it has ended, until it ends too often."""
        while True:
            slot.server.join()
            with self._changed:
                if self._closed:
                    return
                slot.serves = False
                self._tell_front()
                slot.starts = 1 if time.monotonic() - slot.since > _STABLE_SECONDS else slot.starts + 1
            slot.server.close()  # what is left of its group
            if slot.starts > _MOST_STARTS:
                self._give_up(slot)
                return
            log.warning("vLLM server %d has ended and is started again; see %s", slot.number, slot.server.log)
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
                # The learner's tensors are between two versions until it lets the servers go on.
                self._changed.wait_for(lambda: self._closed or not self._paused or self._asynchronous)
                if self._closed:
                    return
                if self._state is not None:
                    self._send_weights(slot, fresh=True)
                slot.serves, slot.since = True, time.monotonic()
                self._tell_front()
        except LightningError as error:
            log.warning("vLLM server %d did not come up again: %s", slot.number, error)
            slot.why = _first_line(error)
            server.close()
        else:
            log.warning("vLLM server %d serves again, with version %d", slot.number, self._version)

    def _give_up(self, slot: _Slot) -> None:
        log.error("vLLM server %d ended %d times and is not started again", slot.number, _MOST_STARTS)
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

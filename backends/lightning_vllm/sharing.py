"""Sends weights to servers: in a file in shared memory, or through the learner's memory on a GPU that both use."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from lightning_sdk.failures import disk

_SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "lightning-weights-"


def detach(state: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Detached tensors by name, with every name of a tied tensor: on a CPU, vLLM keeps a separate copy of the head in
    another layout, which would not be updated otherwise."""
    return {name: tensor.detach() for name, tensor in dict(state).items()}


@contextmanager
def in_file(state: Mapping[str, Tensor], folder: Path) -> Iterator[Path]:
    """A folder that holds the weights as model.safetensors: in shared memory if there is room, else inside `folder`.

    It is removed afterwards.
    """
    weights = _copy_shared_storage(state)
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_room(size) or folder))
    try:
        _write(weights, made)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(weights: dict[str, Tensor], folder: Path) -> None:
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    except Exception as error:
        raise disk.trouble(error, folder) or error from None


def sweep() -> None:
    """Remove files of killed processes from shared memory."""
    for left in _SHARED_MEMORY.glob(f"{_PREFIX}*") if _SHARED_MEMORY.is_dir() else ():
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not _is_running(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def handles(state: Mapping[str, Tensor]) -> list[list[Any]]:
    """The arguments for `extension.Extension.lightning_load`. The tensors, on a GPU, must live until it returns."""
    found = []
    for name, tensor in state.items():
        _, arguments = reduce_tensor(tensor)  # type: ignore[no-untyped-call]
        (_, size, stride, offset, _, dtype, _, handle, bytes_, at, _, counter, counter_at, event, sync) = arguments
        found.append(
            [
                name,
                list(size),
                list(stride),
                offset,
                str(dtype).removeprefix("torch."),
                _text(handle),
                bytes_,
                at,
                _text(counter),
                counter_at,
                _text(event),
                sync,
            ]
        )
    return found


def _copy_shared_storage(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors that share their storage, which the file format does not allow."""
    seen: set[int] = set()
    alone = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        whole = storage.nbytes() == tensor.numel() * tensor.element_size() and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        alone[name] = tensor.contiguous() if whole else tensor.clone(memory_format=torch.contiguous_format)
    return alone


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _room(size: int) -> Path | None:
    with suppress(OSError):
        if shutil.disk_usage(_SHARED_MEMORY).free > 2 * size:
            return _SHARED_MEMORY
    return None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

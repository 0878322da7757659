"""Finding and loading models, and what is said of those that are not."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lightning_process.model import load
from lightning_process.source import locate
from lightning_sdk.errors import ModelError


def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_folder_that_does_not_exist() -> None:
    """A path that cannot be a hub name is said not to exist."""
    with pytest.raises(ModelError, match=r"'\./nowhere/model': there is no such folder; give 'spark'"):
        locate("./nowhere/model")


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["config.json"], "no config.json"),
        (["model.safetensors"], r"no weights \(model.safetensors\)"),
        (["tokenizer.json"], r"no a? ?tokenizer|no a tokenizer"),
        (["config.json", "model.safetensors", "tokenizer.json"], "no config.json, no weights .*, no a tokenizer"),
    ],
)
def test_folder_that_is_not_a_model_names_what_is_missing(
    gone: list[str], said: str, tiny: Path, tmp_path: Path
) -> None:
    """All that is missing, at once."""
    folder = copy(tiny, tmp_path)
    for name in gone:
        (folder / name).unlink()
    with pytest.raises(ModelError, match=said):
        locate(str(folder))


def test_config_that_names_no_architecture(tiny: Path, tmp_path: Path) -> None:
    """JSON of something else, and no JSON at all."""
    folder = copy(tiny, tmp_path)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no model_type"):
        locate(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        locate(str(folder))


def test_unknown_architecture(tiny: Path, tmp_path: Path) -> None:
    """What transformers says is passed on in one line."""
    folder = copy(tiny, tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    with pytest.raises(ModelError, match=r"cannot be loaded: .*abacus"):
        load(str(folder))


def test_weights_that_are_broken_or_incomplete(tiny: Path, tmp_path: Path) -> None:
    """A model that would start with random tensors is refused."""
    folder = copy(tiny, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors are missing .*, such as model\.layers\.1\.mlp\.up_proj"):
        load(str(folder))
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="cannot be loaded: SafetensorError"):
        load(str(folder))


def test_model_without_chat_template(tiny: Path, tmp_path: Path) -> None:
    """A base model cannot be talked to, and the message says what can be done."""
    folder = copy(tiny, tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"no chat template.*chat_template\.jinja"):
        load(str(folder))


def test_a_file_is_not_a_folder(tiny: Path) -> None:
    """Pointing at the weights themselves is a common slip."""
    with pytest.raises(ModelError, match=r"is a file: give the folder that contains config\.json"):
        locate(str(tiny / "model.safetensors"))


def test_gguf_file_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package gguf the message says what to type; with it, that the file is not in GGUF format."""
    (tmp_path / "model.gguf").write_bytes(b"no such format")
    with pytest.raises(ModelError, match=r"pip install gguf|cannot be loaded"):
        load(str(tmp_path / "model.gguf"))


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a folder is looked up on the hub; without network the message says so and offers a folder."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(ModelError, match=r"hub does not provide it: Connect.*; give a folder .*, or 'spark'"):
            load("someone/some-model")


def test_spark_is_found() -> None:
    """The shipped model needs no folder and no network, and talks."""
    loaded = load("spark")
    assert loaded.source.local and loaded.tokenizer.chat_template

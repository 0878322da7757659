"""Checkpoints: training goes on as if nothing had happened, and half a checkpoint is never taken."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_embedded.learning import checkpoint
from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch
from lightning_losses.schedule import rate_at
from lightning_process import mark
from lightning_process.model import load
from lightning_sdk.errors import ModelError
from lightning_sdk.settings import Settings
from tests.learner.tinymodel import make_group_rows, tiny_model, weights

SETTINGS = Settings.from_dict({"steps": 8, "optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 0.1})

#: Files in a checkpoint: seven, and the mark that it is complete.
FILES = 8


def make_learner(folder: Path) -> Learner:
    return Learner(load(str(folder)).model, SETTINGS)


def train(learner: Learner, steps: range) -> None:
    for step in steps:
        learner.update(Batch(step, make_group_rows(seed=step)))


def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    """Weights, momentum, schedule and version go through a checkpoint."""
    whole, first, second = (make_learner(tiny) for _ in range(3))
    train(whole, range(6))
    train(first, range(3))
    checkpoint.write(tmp_path, first.model, load(str(tiny)).tokenizer, first.state())
    found = checkpoint.read(tmp_path)
    second.restore(found.weights, found.state)
    assert second.version == 3
    train(second, range(3, 6))
    assert torch.equal(weights(second.model), weights(whole.model))
    assert second.version == whole.version == 6


@pytest.mark.parametrize("rank", [0, 2])
def test_the_size_of_a_checkpoint_is_known_before(tiny: Path, tmp_path: Path, rank: int) -> None:
    """So that a disk without room is told in time; what is beside the numbers matters only for a model this small."""
    learner = Learner(load(str(tiny)).model, Settings.from_dict({**SETTINGS.flat(), "lora.rank": rank}))
    told = learner.facts()["checkpoint_bytes"]
    train(learner, range(1))
    checkpoint.write(tmp_path, learner.model, load(str(tiny)).tokenizer, learner.state())
    size = sum(file.stat().st_size for file in tmp_path.iterdir() if "tokenizer" not in file.name)
    assert told <= size <= told + 1024 * 3 * len(learner._network.parameters)


@pytest.mark.parametrize("changed", ["weight_decay=0.5", "beta1=0.5", "beta2=0.5", "learning_rate=0.1"])
def test_settings_of_the_optimizer_act_after_a_resume(tiny: Path, tmp_path: Path, changed: str) -> None:
    """A checkpoint has those of its time: the next update is AdamW's by the new ones (arXiv:1711.05101, algorithm 2),
    computed here by hand from the same weights, moments and gradients."""
    name, _, value = changed.partition("=")
    first = make_learner(tiny)
    train(first, range(2))
    checkpoint.write(tmp_path, first.model, load(str(tiny)).tokenizer, first.state())
    found = checkpoint.read(tmp_path)
    settings = Settings.from_dict({**SETTINGS.flat(), f"optimizer.{name}": float(value)})
    second = Learner(load(str(tiny)).model, settings)
    second.restore(found.weights, found.state)
    optimizer, parameters = second._optimizer, second._network.parameters
    old = [
        (each.detach().clone(), {key: kept.clone() for key, kept in optimizer.state[each].items()})
        for each in parameters
    ]
    gradients: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: gradients.extend(each.grad.clone() for each in parameters))  # type: ignore[union-attr]
    train(second, range(2, 3))
    chosen = settings.optimizer
    rate = rate_at(2, settings.steps, chosen.learning_rate or 0.0, chosen)
    for each, (weight, state), gradient in zip(parameters, old, gradients, strict=True):
        count = int(state["step"]) + 1
        mean = chosen.beta1 * state["exp_avg"] + (1 - chosen.beta1) * gradient
        square = chosen.beta2 * state["exp_avg_sq"] + (1 - chosen.beta2) * gradient**2
        step = mean / (1 - chosen.beta1**count) / ((square / (1 - chosen.beta2**count)).sqrt() + 1e-8)
        torch.testing.assert_close(each.detach(), weight * (1 - rate * chosen.weight_decay) - rate * step)


def test_checkpoint_is_a_hugging_face_model(tiny: Path, tmp_path: Path) -> None:
    """AutoModel and AutoTokenizer read it: same logits, same ids, same chat template."""
    learner, before = make_learner(tiny), load(str(tiny)).tokenizer
    train(learner, range(1))
    checkpoint.write(tmp_path, learner.model, before, learner.state())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "Zwölf minus 3, s'il vous plaît?  {}"}]
    ids = before.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids
    twin = tiny_model()
    twin.load_state_dict(learner.model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([ids])).logits, twin(torch.tensor([ids])).logits)
    assert not list(tmp_path.glob(".*"))


def test_a_new_checkpoint_replaces_the_old_one(tiny: Path, tmp_path: Path) -> None:
    """The folder holds the last one only."""
    learner, tokenizer = make_learner(tiny), load(str(tiny)).tokenizer
    for step in range(2):
        train(learner, range(step, step + 1))
        checkpoint.write(tmp_path, learner.model, tokenizer, learner.state())
    assert checkpoint.read(tmp_path).state["version"] == 2


WRITER = """
import sys
from pathlib import Path
from lightning_embedded.learning import checkpoint
from lightning_embedded.learning.learner import Learner
from lightning_process.model import load
from lightning_sdk.settings import Settings
loaded = load(sys.argv[1])
learner = Learner(loaded.model, Settings())
for learner.version in range(1, 100_000):
    checkpoint.write(Path(sys.argv[2]), learner.model, loaded.tokenizer, learner.state())
    print(learner.version, flush=True)
"""


def test_kill_while_writing_leaves_a_whole_checkpoint_or_none(tiny: Path, tmp_path: Path) -> None:
    """kill -9 at many moments of a writer that never stops writing."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tiny), str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"1\n"
    refused = 0
    for pause in range(40):
        # Stopping shows the folder as a kill would leave it, at a moment of the writer's work.
        time.sleep(0.003 + pause * 0.0007)
        os.kill(writer.pid, signal.SIGSTOP)
        try:
            assert checkpoint.read(tmp_path).state["version"] >= 1
        except ModelError as error:
            assert "no complete checkpoint" in str(error)
            refused += 1
        os.kill(writer.pid, signal.SIGCONT)
    writer.kill()
    writer.wait()
    writer.stdout.close()
    loaded = load(str(tiny))
    checkpoint.write(tmp_path, loaded.model, loaded.tokenizer, Learner(loaded.model, SETTINGS).state())
    assert checkpoint.read(tmp_path).state["version"] == 0, "what a killed writer left is cleared away"


@pytest.mark.parametrize("moment", range(FILES + 1))
def test_writer_that_stops_between_two_files_leaves_no_mixture(
    moment: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of one checkpoint beside the optimizer of another would resume, wrongly, without a word."""
    learner, tokenizer = make_learner(tiny), load(str(tiny)).tokenizer
    checkpoint.write(tmp_path, learner.model, tokenizer, learner.state())
    train(learner, range(1))
    left, rename = moment, Path.replace

    def stop(source: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with suppress(KeyboardInterrupt):
            checkpoint.write(tmp_path, learner.model, tokenizer, learner.state())
    if moment == FILES:
        assert checkpoint.read(tmp_path).state["version"] == 1
    else:
        with pytest.raises(ModelError, match="no complete checkpoint"):
            checkpoint.read(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "learner.pt", "tokenizer.json"])
def test_damaged_checkpoint_is_refused_by_name(name: str, tiny: Path, tmp_path: Path) -> None:
    """A file that is cut or gone is named."""
    learner = make_learner(tiny)
    checkpoint.write(tmp_path, learner.model, load(str(tiny)).tokenizer, learner.state())
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-1])
    with pytest.raises(ModelError, match=rf"damaged: {name} is not"):
        checkpoint.read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=rf"damaged: {name} is not"):
        checkpoint.read(tmp_path)


def test_folder_without_a_checkpoint_is_refused(tiny: Path) -> None:
    """A model is not a checkpoint: it has no optimizer."""
    with pytest.raises(ModelError, match="holds no complete checkpoint"):
        checkpoint.read(tiny)


def test_checkpoint_of_another_backend_is_refused(tmp_path: Path) -> None:
    """By the backend's name, with what to do."""
    (tmp_path / mark.NAME).write_text(mark.text("verl", version=3, steps=3))
    with pytest.raises(ModelError, match=r"a checkpoint of the verl backend: resume with that one, or give the folder"):
        checkpoint.read(tmp_path)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path, tiny: Path) -> None:
    """Weights of another shape are not loaded, not even in part."""
    other = Learner(tiny_model(hidden_size=64), SETTINGS)
    checkpoint.write(tmp_path, other.model, load(str(tiny)).tokenizer, other.state())
    learner, found = make_learner(tiny), checkpoint.read(tmp_path)
    before = weights(learner.model)
    with pytest.raises(ModelError, match="from a different model"):
        learner.restore(found.weights, found.state)
    assert torch.equal(weights(learner.model), before)

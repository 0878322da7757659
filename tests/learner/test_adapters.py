"""Low-rank adapters: their gradient, what the engine is given, and checkpoints with them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_embedded.learning import checkpoint
from lightning_embedded.learning.adapters import Adapters
from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch
from lightning_process.model import load
from lightning_sdk.errors import ModelError, SettingError
from lightning_sdk.settings import Lora, Settings
from tests.learner.tinymodel import make_group_rows, tiny_model, weights

LORA = {"lora.rank": 4, "lora.alpha": 8, "optimizer.learning_rate": 1e-2, "optimizer.warmup_steps": 0}


def make_learner(folder: Path, **settings: object) -> Learner:
    return Learner(load(str(folder)).model, Settings.from_dict({**LORA, "steps": 8, **settings}))


def train(learner: Learner, steps: range) -> None:
    for step in steps:
        learner.update(Batch(step, make_group_rows(seed=step)))


def test_gradients_are_those_of_the_definition() -> None:
    """Of a loss through W + (alpha / rank) B A, computed by autograd for the same A and B (arXiv:2106.09685, eq. 3)."""
    model = tiny_model()
    layer = model.model.layers[0].mlp.down_proj
    frozen = layer.weight.detach().clone()
    adapters = Adapters(model, Lora(rank=4, alpha=8, targets="down_proj"))
    state = adapters.state()
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(each.shape, generator=generator) for name, each in state.items()}
    adapters.restore(drawn)
    x = torch.randn(3, 5, layer.in_features, generator=generator, requires_grad=True)
    goal = torch.randn(3, 5, layer.out_features, generator=generator)
    (layer(x) * goal).sum().backward()
    a, b = (drawn[f"model.layers.0.mlp.down_proj.{part}"].clone().requires_grad_() for part in "ab")
    plain = x.detach().clone().requires_grad_()
    (nn.functional.linear(plain, frozen + 2.0 * b @ a) * goal).sum().backward()
    names = list(state)
    grads = dict(zip(names, (each.grad for each in adapters.parameters()), strict=True))
    torch.testing.assert_close(grads["model.layers.0.mlp.down_proj.a"], a.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grads["model.layers.0.mlp.down_proj.b"], b.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, plain.grad, rtol=1e-4, atol=1e-4)
    assert layer.weight.grad is None


def test_a_layer_with_a_bias_keeps_it() -> None:
    """The bias is added, and frozen."""
    model = tiny_model(attention_bias=True)
    layer = model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.bias.fill_(0.5)
    x = torch.randn(2, layer.in_features)
    expected = layer(x)
    Adapters(model, Lora(rank=2))
    torch.testing.assert_close(layer(x), expected)
    assert not layer.bias.requires_grad


def test_only_the_adapted_layers_change_and_by_a_low_rank(tiny: Path) -> None:
    """What the engine is given is the merged model: embedding, norms and head are those of the beginning."""
    learner = make_learner(tiny)
    before = {name: each.clone() for name, each in learner.model.state_dict().items()}
    train(learner, range(3))
    changed = {name for name, each in learner.model.state_dict().items() if not torch.equal(each, before[name])}
    assert changed == {name for name in before if "_proj" in name}
    for name in changed:
        difference = (learner.model.state_dict()[name] - before[name]).double()
        assert int((torch.linalg.svdvals(difference) > 1e-5).sum()) <= 4
    assert learner.facts()["parameters"] == learner.size < weights(learner.model).numel()


def test_training_with_adapters_raises_what_was_rewarded(tiny: Path) -> None:
    """After some steps on one batch, tokens with a positive advantage are likelier, and those with a negative less."""
    learner, rows = make_learner(tiny), make_group_rows(seed=4)
    before = [learner.logprobs(row) for row in rows]
    for step in range(4):
        learner.update(Batch(step, rows))
    gains = [
        (sum(learner.logprobs(row)) - sum(old)) * float(row.advantages[row.weights != 0][0])
        for row, old in zip(rows, before, strict=True)
    ]
    assert sum(gains) > 0


def test_resumed_training_is_the_uninterrupted_one(tiny: Path, tmp_path: Path) -> None:
    """Adapters and their momentum go through a checkpoint, whose model is the merged one."""
    whole, first, second = (make_learner(tiny) for _ in range(3))
    train(whole, range(6))
    train(first, range(3))
    checkpoint.write(tmp_path, first.model, load(str(tiny)).tokenizer, first.state())
    assert torch.equal(weights(load(str(tmp_path)).model), weights(first.model))
    found = checkpoint.read(tmp_path)
    second.restore(found.weights, found.state)
    train(second, range(3, 6))
    assert torch.equal(weights(second.model), weights(whole.model))


@pytest.mark.parametrize(("had", "has"), [(4, 0), (0, 4), (4, 2)])
def test_a_checkpoint_with_other_adapters_is_refused(tiny: Path, had: int, has: int) -> None:
    """Changing nothing."""
    first, second = make_learner(tiny, **{"lora.rank": had}), make_learner(tiny, **{"lora.rank": has})
    train(first, range(2))
    before = weights(second.model)
    with pytest.raises(ModelError, match=r"other adapters.*lora\.rank"):
        second.restore(first.model.state_dict(), first.state())
    assert torch.equal(weights(second.model), before)


def test_targets_by_name(tiny: Path) -> None:
    """Only these layers; a name that the model does not have is refused with those that it has."""
    learner = make_learner(tiny, **{"lora.targets": "q_proj, v_proj"})
    before = {name: each.clone() for name, each in learner.model.state_dict().items()}
    train(learner, range(2))
    changed = {name for name, each in learner.model.state_dict().items() if not torch.equal(each, before[name])}
    assert changed == {name for name in before if "q_proj" in name or "v_proj" in name}
    with pytest.raises(SettingError, match=r"no linear layer named query; it has down_proj, .*or say 'all-linear'"):
        make_learner(tiny, **{"lora.targets": "query,v_proj"})

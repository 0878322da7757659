"""Log-probabilities of sampled tokens under a model, for either layout of a micro-batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.engine.context import configured_windows, is_chunked
from lightning_embedded.engine.precision import product_dtype
from lightning_embedded.learning.micro_batches import MicroBatch, pad_rows, share_prefixes
from lightning_embedded.learning.token_trie import ATTENTION, Trie, attending
from lightning_hub.backend import Row

log = logging.getLogger(__name__)


class Scores(NamedTuple):
    """A model's scores of the M sampled tokens."""

    logprobs: Tensor
    """[M] at the rows' temperature."""
    entropy: Tensor
    """[M] entropy of the distribution that each was drawn from, in nats; with gradient only if requested."""
    hidden: Tensor
    """[U, width] the last hidden states, from which the micro-batch's predictors predict."""


class Scorer:
    """Computes scores with one model, in the best layout that the model supports."""

    def __init__(self, model: PreTrainedModel, *, share: bool = True, constraints: Constraints | None = None) -> None:
        """`constraints`: for the masks of constrained rows."""
        model.train(False)  # no dropout: the sampler had none
        self.model = model
        self._constraints = constraints
        self.products = product_dtype(model)
        """Number format of matrix products."""
        self.shares = share and _can_share(model)
        if self.shares:
            model.set_attn_implementation(ATTENTION)

    def micro_batches(self, rows: Sequence[Row], budget: int) -> Iterator[MicroBatch]:
        layout: Callable[..., Iterator[MicroBatch]] = share_prefixes if self.shares else pad_rows
        return layout(rows, budget, self.model.device, self._constraints)

    def score(self, micro: MicroBatch, *, entropy_gradient: bool = False) -> Scores:
        return _score(self.model, micro, self.products, entropy_gradient)


def _score(model: PreTrainedModel, micro: MicroBatch, products: torch.dtype, entropy_gradient: bool = False) -> Scores:
    """`products`: the number format of matrix products; weights are float32."""
    following = attending(micro.trie) if micro.trie else nullcontext()
    precision = torch.autocast(model.device.type, torch.bfloat16, enabled=products == torch.bfloat16)
    with _head_only(model, micro.predictors) as hidden, following, precision:
        output = model(input_ids=micro.tokens, position_ids=micro.positions, attention_mask=micro.mask, use_cache=False)
    logits = output.logits[0].float() / micro.temperatures[:, None]
    if micro.masks is not None:
        # Not -inf, which would make the entropy's gradient NaN. Its exp() is 0 all the same.
        logits = logits.masked_fill(micro.masks.forbidden(logits.shape[1]), torch.finfo(logits.dtype).min)
    everything = logits.log_softmax(-1)
    # One number for each token: a distribution for each would be [M, vocabulary], while identical prefixes share one.
    at = micro.targets.place * everything.shape[1] + micro.targets.tokens
    logprobs = everything.flatten().index_select(0, at)
    with nullcontext() if entropy_gradient else torch.no_grad():
        entropy = -(everything.exp() * everything).sum(-1)
    return Scores(logprobs, entropy.index_select(0, micro.targets.place), hidden[0])


@contextmanager
def _head_only(model: PreTrainedModel, predictors: Tensor) -> Iterator[list[Tensor]]:
    """Give the head [1, U, width] instead of [B, L, width]: logits are the largest tensor, and most are not needed.

    Yields a list to which the head's input is appended.
    """
    seen: list[Tensor] = []

    def pick(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        seen.append(hidden.reshape(-1, hidden.shape[-1]).index_select(0, predictors))
        return (seen[-1][None], *args[1:])

    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    hook = head.register_forward_pre_hook(pick)
    try:
        yield seen
    finally:
        hook.remove()


def _can_share(model: PreTrainedModel) -> bool:
    """Whether the trie gives this model's own log-probabilities, found by trying it on two short rows."""
    before = model.config._attn_implementation
    try:
        rows, device = _probe_rows(model.config.get_text_config().vocab_size), model.device
        products = torch.bfloat16 if device.type == "cuda" else torch.float32
        with torch.no_grad():
            expected = _sorted_logprobs(model, pad_rows(rows, 1 << 20, device), products)
            model.set_attn_implementation(ATTENTION)
            tried = list(share_prefixes(rows, 1 << 20, device))
            actual = _sorted_logprobs(model, iter(tried), products)
        # The rows are shorter than any sliding window, so windows are checked separately.
        close = bool((expected - actual).abs().max() < (1e-3 if products == torch.float32 else 0.1)) and _keeps_windows(
            model.config, tried[0].trie
        )
        reason = "its log-probabilities differ there"
    except Exception as error:  # a model's code may raise anything here; padded rows still work
        close, reason = False, repr(error)
    model.set_attn_implementation(before)
    if not close:
        log.warning("%s: common prefixes are not shared: %s", type(model).__name__, reason)
    return close


def _keeps_windows(config: Any, trie: Trie | None) -> bool:
    """Whether every layer reported the window of its configuration to the trie, and its attention is not chunked."""
    assert trie is not None
    found = [trie.windows[layer] for layer in sorted(trie.windows)]
    return found == configured_windows(config, len(found)) and not is_chunked(config)


def _probe_rows(vocabulary: int) -> list[Row]:
    draw = np.random.default_rng(0)
    prompt = draw.integers(0, vocabulary, 5)
    rows = []
    for name, size in (("0", 4), ("1", 7)):
        tokens = np.concatenate([prompt, draw.integers(0, vocabulary, size)]).astype(np.int32)
        weights = (np.arange(len(tokens)) >= 5).astype(np.float32)
        rows.append(
            Row(
                tokens=tokens,
                weights=weights,
                advantages=weights,
                logprobs=weights,
                temperature=1.0,
                version=0,
                role="",
                rollout=name,
            )
        )
    return rows


def _sorted_logprobs(model: PreTrainedModel, micros: Iterator[MicroBatch], products: torch.dtype) -> Tensor:
    """The probe's log-probabilities, sorted, because the two layouts order rows differently."""
    (micro,) = micros
    return _score(model, micro, products).logprobs.sort().values

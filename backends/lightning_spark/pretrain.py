"""Pre-train spark from generated dialogues: `python -m lightning_spark.pretrain --help`.

A run generates the dialogues, trains the tokenizer on the first of them, trains a LlamaForCausalLM on all, and writes
the folder. --seed determines everything except the order of floating-point sums on the device.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_spark import data, tokenizer
from lightning_spark.corpus import Corpus, make
from lightning_spark.data import Rendered
from lightning_spark.held_out import Exclusion, exclusion

CONTEXT = 2048
"""Context length in the exported configuration. Training dialogues have up to corpus.LONGEST tokens."""
HEAD = 32
"""Size of an attention head: vLLM's CPU attention supports 32 and 64, but not 16 and 48."""
TOKENIZER_TEXTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options that determine a run's result."""

    seed: int = 0
    width: int = 192
    layers: int = 6
    kv_heads: int = 2
    inner: int = 512
    vocabulary: int = 2048
    dialogues: int = 1_100_000
    steps: int = 11_500
    batch_tokens: int = 65_536
    learning_rate: float = 3e-3

    def config(self) -> LlamaConfig:
        """The architecture: Llama with biases in attention and a tied head."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // HEAD,
            num_key_value_heads=self.kv_heads,
            head_dim=HEAD,
            intermediate_size=self.inner,
            max_position_embeddings=CONTEXT,
            attention_bias=True,
            tie_word_embeddings=True,
            rms_norm_eps=1e-6,
            bos_token_id=None,
            eos_token_id=tokenizer.END_ID,
            pad_token_id=0,
        )


Say = Callable[..., None]
"""Logs one event: a name and numbers."""


def fresh(recipe: Recipe) -> LlamaForCausalLM:
    """An untrained model with this recipe."""
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(recipe.config())
    # Scale matrices by width, and those that write to the residual stream also by depth (GPT-2, section 2.3).
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            deep = (2 * recipe.layers) ** -0.5 if "o_proj" in name or "down_proj" in name else 1.0
            torch.nn.init.normal_(weight, 0.0, deep * weight.shape[1] ** -0.5)
    return model


def train(
    model: LlamaForCausalLM, recipe: Recipe, corpus: Corpus, say: Say, compiled: bool = False, seconds: float = math.inf
) -> None:
    """Train a model in place, on the corpus' device, for the recipe's steps or until `seconds` are over."""
    device = corpus.ids.device.type
    torch.nn.Module.to(model, device)
    say("model", parameters=sum(each.numel() for each in model.parameters()), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, (0.9, 0.98), weight_decay=0.01)
    if compiled:
        # Layer by layer: one small graph for all layers compiles in seconds, the whole model in minutes.
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    started, places, batches = time.perf_counter(), 0, corpus.batches(recipe.seed, recipe.batch_tokens)
    step, done = 0, 0.0
    while done < 1:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(step, done)
        ids, weights = next(batches)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = _loss(model, ids, weights)
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        places += ids.numel()
        gone = time.perf_counter() - started
        done = max(step / recipe.steps, gone / seconds)
        if step % 100 == 0 or done >= 1:
            say("step", step=step, loss=round(loss.item(), 4), tokens=places, seconds=round(gone, 1))


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write configuration and bf16 weights."""
    torch.nn.Module.to(model, device="cpu", dtype=torch.bfloat16)
    model.generation_config.bos_token_id = None
    model.save_pretrained(folder)


def _rate(step: int, done: float) -> float:
    """Warm-up over 100 steps, then flat, then linear to 2% over the last 40%; `done` is a share of the training."""
    return min(1.0, step / 100, max(0.02, (1 - done) / 0.4))


def _loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the next tokens' cross-entropies, divided by the number of places.

    Dividing by the sum of weights would make a token count more in a batch of short replies, and the model would learn
    that replies are short.
    """
    logits: Tensor = torch.nn.Module.__call__(model, input_ids=ids[:, :-1], use_cache=False).logits.float()
    each = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (each * weights[:, 1:].flatten()).mean()


def main(words: Sequence[str] | None = None) -> None:
    """Run the command with `words` as arguments, by default those of the process."""
    arguments = _parser().parse_args(words)
    values = vars(arguments)
    recipe = Recipe(**{name: values[name] for name in asdict(Recipe())})
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.log").open("w", encoding="utf-8") as log:
        say = _logger(log)
        held_out = Exclusion.load(arguments.exclude) if arguments.exclude else exclusion()
        say("recipe", **asdict(recipe))
        say("held_out", tasks=len(held_out.questions), sha256=held_out.fingerprint())
        sample = list(islice(_first(recipe, held_out), min(TOKENIZER_TEXTS, recipe.dialogues)))
        vocabulary, model = _start(arguments.start, recipe, [each.text for each in sample])
        tokenizer.save(vocabulary, folder, CONTEXT)
        corpus, fingerprints = make(recipe.dialogues, recipe.seed, held_out, vocabulary, arguments.workers)
        counts = {"dialogues": len(corpus.lengths), "tokens": int(corpus.lengths.sum())}
        whole = hashlib.sha256("".join(fingerprints).encode()).hexdigest()
        say("corpus", **counts, sha256=whole, sample_sha256=data.fingerprint(sample[: data.SAMPLE]))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        say("versions", torch=torch.__version__, device=torch.cuda.get_device_name() if device == "cuda" else "cpu")
        train(model, recipe, corpus.to(device), say, arguments.compile, arguments.seconds)
        save(model, folder)


def _first(recipe: Recipe, held_out: Exclusion) -> Iterator[Rendered]:
    """The dialogues from the first on."""
    for seed, size in data.chunks(recipe.dialogues, recipe.seed):
        yield from data.chunk(seed, size, held_out)


def _start(folder: Path | None, recipe: Recipe, texts: list[str]) -> tuple[Tokenizer, LlamaForCausalLM]:
    """Tokenizer and model to train: new ones, or those in a folder."""
    if folder is None:
        return tokenizer.train(texts, recipe.vocabulary), fresh(recipe)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Tokenizer.from_file(str(folder / "tokenizer.json")), model


def _logger(log: IO[str]) -> Say:
    def say(event: str, **values: object) -> None:
        line = json.dumps({"event": event, **values})
        print(line, flush=True)
        log.write(line + "\n")
        log.flush()

    return say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lightning_spark.pretrain",
        description="Train the spark model from scratch on generated dialogues and write a Hugging Face folder: "
        "config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json, "
        "chat_template.jinja, and train.log, one JSON object per line. The shipped weights' train.log shows the "
        "values that they were made with. Takes minutes on a GPU, hours on a laptop; for a trial on a CPU: "
        "--dialogues 20000 --steps 200 --batch-tokens 8192.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    recipe = Recipe()
    whole = {
        "seed": "determines data, initial weights and batches",
        "width": f"hidden size, a multiple of the head size {HEAD}",
        "layers": "decoder layers",
        "kv_heads": "key-value heads, a divisor of width / 32",
        "inner": "width of the feed-forward layer",
        "vocabulary": "number of tokens, including tags and special tokens",
        "dialogues": "dialogues to generate",
        "steps": "updates",
        "batch_tokens": "tokens in a batch, including padding",
    }
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    for name, text in whole.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(recipe, name), help=text)
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate, help="highest rate of AdamW")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="end after this time of training, if not before"
    )
    parser.add_argument("--start", type=Path, help="continue from this folder's weights and tokenizer; pass its sizes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that generate dialogues")
    parser.add_argument("--compile", action="store_true", help="use torch.compile, worthwhile on a GPU")
    parser.add_argument(
        "--exclude", type=Path, help="file of held-out tasks from held_out.Exclusion.save, without reasoning-gym"
    )
    return parser


if __name__ == "__main__":
    main()

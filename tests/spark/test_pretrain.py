"""The pre-training command and the corpus that it reads."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_spark.corpus import encode
from lightning_spark.data import fingerprint, texts
from lightning_spark.held_out import Exclusion
from lightning_spark.pretrain import main
from lightning_spark.tokenizer import END_ID, train

NOTHING = Exclusion(frozenset(), frozenset())


def test_the_command_writes_a_model_folder(tmp_path: Path) -> None:
    """A tiny run gives a folder that transformers loads, and a log of what was done."""
    NOTHING.save(tmp_path / "exclude.json")
    sizes = "--width 32 --layers 1 --kv-heads 1 --inner 32 --dialogues 300 --steps 2 --batch-tokens 1024 --workers 1"
    places = ["--out", str(tmp_path / "out"), "--exclude", str(tmp_path / "exclude.json")]
    main([*places, *sizes.split()])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16 and model.config.vocab_size == len(tokenizer)
    assert tokenizer.chat_template and tokenizer.eos_token_id == model.config.eos_token_id == END_ID
    events = [json.loads(line) for line in (tmp_path / "out/train.log").read_text().splitlines()]
    assert [event["event"] for event in events] == ["recipe", "held_out", "corpus", "versions", "model", "step"]
    assert events[1]["sha256"] == NOTHING.fingerprint()
    assert events[2]["sha256"] == fingerprint(texts(300, 0, NOTHING))


def vocabulary(rows: list[str]) -> Tokenizer:
    return train(rows, size=600)


def test_full_weight_is_on_what_the_assistant_writes() -> None:
    """Each reply with its end token counts fully; headers, questions and tool replies count a tenth."""
    rows = texts(200, 0, NOTHING)
    tokenizer = vocabulary(rows)
    corpus = encode(tokenizer, rows)
    for ids, weights, length in zip(corpus.ids, corpus.weights, corpus.lengths.tolist(), strict=True):
        text = tokenizer.decode(ids[:length].tolist(), skip_special_tokens=False)
        replies = [part.split("<|im_end|>")[0] + "<|im_end|>" for part in text.split("<|im_start|>assistant\n")[1:]]
        assert tokenizer.decode(ids[weights == 1].tolist(), skip_special_tokens=False) == "".join(replies)
        assert not weights[length:].any() and bool((weights[:length] > 0).all())


def test_batches_hold_short_and_long_dialogues_alike() -> None:
    """Batches have equally many places: drawn by dialogue, short ones would be seen several times as often."""
    rows = texts(1000, 1, NOTHING)
    corpus = encode(vocabulary(rows), rows)
    seen = torch.cat([(ids > 0).sum(1) for ids, _ in islice(corpus.batches(0, 2048), 800)]).float()
    assert abs(float(seen.mean() / corpus.lengths.float().mean()) - 1) < 0.05
    assert int(seen.max()) == int(corpus.lengths.max()) and int(seen.min()) <= int(corpus.lengths.min()) + 1

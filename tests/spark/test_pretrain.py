"""The pre-training command and the corpus that it reads."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_spark.corpus import CONTEXT_WEIGHT, arrange, encode
from lightning_spark.data import Rendered, chunk, fingerprint
from lightning_spark.held_out import NOTHING
from lightning_spark.pretrain import main
from lightning_spark.tokenizer import END_ID, train


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
    assert events[2]["sha256"] == hashlib.sha256(fingerprint(chunk("0/0", 300, NOTHING)).encode()).hexdigest()


def test_time_ends_the_training(tmp_path: Path) -> None:
    """Also before the last step; the log has the step that it came to."""
    NOTHING.save(tmp_path / "exclude.json")
    sizes = (
        "--width 32 --layers 1 --kv-heads 1 --inner 32 --dialogues 300 --steps 1000000 --batch-tokens 256 --workers 1"
    )
    places = ["--out", str(tmp_path / "out"), "--exclude", str(tmp_path / "exclude.json")]
    main([*places, *sizes.split(), "--seconds", "0.5"])
    last = json.loads((tmp_path / "out/train.log").read_text().splitlines()[-1])
    assert last["event"] == "step" and last["seconds"] >= 0.5 and last["step"] < 1_000_000


def vocabulary(rows: list[Rendered]) -> Tokenizer:
    return train([each.text for each in rows], size=600)


def test_full_weight_is_on_what_the_assistant_writes() -> None:
    """Each reply with its end token counts fully, except the first ones that are given; all else counts little."""
    rows = chunk("0/0", 300, NOTHING)
    tokenizer = vocabulary(rows)
    assert any(each.given for each in rows)
    for each in rows:
        corpus = arrange(*encode(tokenizer, [each]))
        ids, weights = corpus.row(0)
        parts = each.text.rstrip("\n").split("<|im_start|>assistant\n")[1:]
        replies = [part.split("<|im_end|>")[0] + "<|im_end|>" for part in parts][each.given :]
        assert tokenizer.decode(ids[weights == 1].tolist(), skip_special_tokens=False) == "".join(replies)
        assert float(weights.min()) == torch.tensor(CONTEXT_WEIGHT)


def test_batches_hold_short_and_long_dialogues_alike() -> None:
    """Batches have equally many places: drawn by dialogue, short ones would be seen several times as often."""
    rows = chunk("1/0", 1000, NOTHING)
    corpus = arrange(*encode(vocabulary(rows), rows))
    seen = torch.cat([(weights > 0).sum(1) for _, weights in islice(corpus.batches(0, 4096), 1500)]).float()
    assert abs(float(seen.mean() / corpus.lengths.float().mean()) - 1) < 0.1
    assert int(seen.max()) >= int(corpus.lengths[-5]) and int(seen.min()) <= int(corpus.lengths.min()) + 1


def test_batches_have_the_rows_of_the_corpus() -> None:
    """Nothing of a neighbour, and no weight behind the end."""
    rows = chunk("1/0", 200, NOTHING)
    corpus = arrange(*encode(vocabulary(rows), rows))
    known = {tuple(corpus.row(index)[0].tolist()) for index in range(len(corpus.lengths))}
    for ids, weights in islice(corpus.batches(0, 2048), 20):
        for row, weight in zip(ids, weights, strict=True):
            assert tuple(row[weight > 0].tolist()) in known and not row[weight == 0].any()

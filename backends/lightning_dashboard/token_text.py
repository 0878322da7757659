"""The text of single tokens, by the tokenizer that a run's checkpoints or its model have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightning_dashboard.run_reader import RunReader

#: What a decoder writes for bytes that are no whole character yet.
_PART = "\ufffd"
#: Tokens that one character may take.
_LONGEST = 8


def token_texts(run: RunReader, ids: Sequence[int]) -> list[str] | None:
    """What each id adds to the text; '' for one whose bytes end with a later one, which has them all. None where no
    tokenizer is found."""
    path = _find_tokenizer(run)
    if path is None:
        return None
    tokenizer = _load(path, path.stat().st_mtime_ns)
    if tokenizer is None:
        return None
    found: list[str] = []
    open_ids: list[int] = []
    for each in ids:
        open_ids.append(each)
        text = _text(tokenizer, open_ids)
        if _PART in text and len(open_ids) < _LONGEST:
            found.append("")
            continue
        found.append(text)
        open_ids = []
    return found


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """What these ids add behind others: alone, some decoders drop their leading space."""
    before = tokenizer.decode([ids[0]], skip_special_tokens=False)
    both = tokenizer.decode([ids[0], *ids], skip_special_tokens=False)
    return str(
        both[len(before) :]
        if both.startswith(before) and _PART not in before
        else tokenizer.decode(list(ids), skip_special_tokens=False)
    )


@lru_cache(maxsize=4)
def _load(path: Path, changed: int) -> Any:
    """None where the package is not installed, or does not know the file."""
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - only an environment that trains has it

        return Tokenizer.from_file(str(path))
    except Exception:  # the package raises Exception itself
        return None


def _find_tokenizer(run: RunReader) -> Path | None:
    model = str((run.config.settings or {}).get("model") or "")
    places = [*sorted((run.folder / "checkpoints").glob("step-*"), reverse=True), Path(model)]
    if model == "spark":
        from lightning_spark import folder  # noqa: PLC0415 - only where its tokens are shown

        places.append(folder())
    return next((each / "tokenizer.json" for each in places if (each / "tokenizer.json").is_file()), None)

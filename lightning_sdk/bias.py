"""Request fields that a trained call must not have: they make the rollouts of a group alike, or draw from another
distribution than the one that is trained.

A role learns from the differences between rollouts of one task. With one seed, or with the likeliest token alone, there
are none. What a mask, a penalty or a search leaves was not drawn with the model's own probability, so a gradient that
takes it for that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Field -> values with which it changes nothing. Names are those of OpenAI, Anthropic and vLLM.
FIELDS: dict[str, tuple[Any, ...]] = {
    "seed": (),
    "top_k": (0, -1),
    "min_p": (0,),
    "typical_p": (1,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "best_of": (1,),
    "use_beam_search": (False,),
}


def split(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body without these fields, and those of them that would have changed something."""
    kept = {name: value for name, value in body.items() if name not in FIELDS}
    taken = {name: body[name] for name in body if name in FIELDS and body[name] not in (None, *FIELDS[name])}
    return kept, taken

"""A JSON schema as a piece of a grammar in llguidance's dialect of Lark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: JSON on one line, with optional spaces after commas and colons: if white space were allowed anywhere, an unsure model
#: might continue with it forever.
_ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
#: As `json.dumps` writes it.
_SPACED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class GrammarError(ValueError):
    """The constraint is not supported; `param` is the field of the request."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def json_value(schema: Any, strict: bool, *, spaced: bool = False) -> str:
    """A value that a schema allows. Unless `strict`, unknown keywords are ignored, as in OpenAI's API.

    `spaced`: with a space after each comma and colon, instead of an optional one.
    """
    if not isinstance(schema, Mapping):
        raise GrammarError(f"a schema is {json.dumps(schema)[:80]}: expected an object", "response_format")
    layout = {**(_SPACED if spaced else _ONE_LINE), "lenient": not strict}
    return "%json " + json.dumps({**schema, "x-guidance": layout}, ensure_ascii=False)

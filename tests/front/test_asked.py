"""What a front lets through to its servers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from lightning_vllm.front import Front
from tests.front.fronted import Fronted, request_counts
from tests.front.standin import fronting, stand_in


@pytest.mark.parametrize(
    ("prompt", "n", "count"),
    [
        (["a"] * 20_000, 128, "2,560,000 completions (prompts: 20,000, n: 128)"),
        ([[1, 2]] * 3000, 1, "3,000 completions"),
        ([1] * 9000, 4000, "4,000 completions (prompts: 1, n: 4000)"),
    ],
)
def test_one_request_cannot_take_the_servers_from_everybody(prompt: Any, n: int, count: str) -> None:
    """It is refused before a server has it; one of the allowed size gets there."""
    with ExitStack() as stack:
        server = stack.enter_context(stand_in("server"))
        front = Front("key", "spark")
        url = stack.enter_context(fronting(front))
        client = stack.enter_context(OpenAI(base_url=url, api_key="key", max_retries=0))
        front.serve([server.upstream], 1)
        with pytest.raises(BadRequestError) as refused:
            client.completions.create(model="spark", prompt=prompt, n=n)
        assert count in str(refused.value)
        client.completions.create(model="spark", prompt=prompt[:2], n=1)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"tool_choice": "required"},
        {"structured_outputs": {"regex": "a"}},
    ],
    ids=str,
)
def test_masks_that_no_learner_finds_again_are_refused(one: Fronted, fields: dict[str, Any]) -> None:
    """A front whose learner knows no masks names the field and asks no server; free text passes."""
    assert one.ask(response_format={"type": "text"}, tool_choice="auto").status == 200
    refused = one.ask(**fields)
    assert refused.status == 400 and [refused.json()["error"]["param"]] == list(fields)
    assert request_counts(one.servers) == [1]

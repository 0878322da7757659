"""A function as the reflecting model: it runs in the user's process, and the search in the hub asks it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urldefrag

import pytest

import lightning_sdk as lightning
from lightning_sdk.commands.reflecting_function import serve_function
from tests.prompts import two_roles
from tests.prompts.model_servers import ModelServer, reflecting
from tests.prompts.training_commands import HELD_OUT, TRAINING

pytestmark = pytest.mark.usefixtures("declare_roles")


def test_a_function_proposes_texts(tmp_path: Path, model: ModelServer) -> None:
    """It is asked in this process, and the search finds what it does with a server."""
    asked = dict[str, int]()

    def propose(question: str) -> str:
        asked[question] = os.getpid()
        return reflecting({"messages": [{"content": question}]})

    lightning.init()
    report = lightning.train(
        two_roles.solve,
        TRAINING,
        two_roles.right,
        held_out=HELD_OUT,
        backend="prompts",
        name="run",
        runs=tmp_path,
        quiet=True,
        **{"prompts.reflect_with": propose, "prompts.budget_rollouts": 300},
    )
    search = report.values["search"]
    assert report.after.mean > report.before.mean == 0 and set(asked.values()) == {os.getpid()}
    assert search["reflect_with"].startswith("propose at http://127.0.0.1:") and search["spent"]["reflections"] > 3


def test_a_function_that_fails_is_told_at_once(tmp_path: Path, model: ModelServer) -> None:
    def broken(question: str) -> str:
        raise ValueError("no such key")

    lightning.init()
    with pytest.raises(lightning.LightningError, match=r"broken\(\) raised ValueError: no such key"):
        lightning.train(
            two_roles.solve,
            TRAINING,
            two_roles.right,
            backend="prompts",
            runs=tmp_path,
            quiet=True,
            **{"prompts.reflect_with": broken},
        )


def test_only_who_knows_the_address_is_answered() -> None:
    with serve_function(lambda _: "hello") as address:
        url, name = urldefrag(address)
        elsewhere = f"{url.rpartition('/')[0].rpartition('/')[0]}/guess/v1/chat/completions"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(urllib.request.Request(elsewhere, b'{"messages": []}'))
        body = b'{"messages": [{"content": "hi"}]}'
        with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body)) as reply:
            assert b'"content": "hello"' in reply.read()
    assert name

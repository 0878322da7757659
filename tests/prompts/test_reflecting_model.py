"""The reflecting model behind real HTTP: both protocols, keys, and what a server can do wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_prompts.asking import PATIENCE_SECONDS, Asker, ModelFailed, ModelUnavailable
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Allowance, Ledger
from lightning_prompts.reflecting_model import HttpModel, open_model
from lightning_prompts.reflection import Reflector
from lightning_sdk.errors import SettingError
from lightning_sdk.settings.prompts import Prompts
from tests.prompts.model_servers import ModelServer, WebServer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(lambda body: f"you said {body['messages'][0]['content']}") as server:
        yield server


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_an_address_with_one_model_is_enough(server: ModelServer) -> None:
    """Without a key, as local servers are."""
    model = open_model(Prompts(reflect_with=server.url))
    assert model.ask("hello") == ("you said hello", 7, 3, 0, 0)
    assert server.requests[0]["model"] == "scripted" and "authorization" not in server.headers[0]


def test_a_model_of_several_is_named(server: ModelServer) -> None:
    with ModelServer(lambda _: "hm", models=("a", "b")) as other:
        with pytest.raises(SettingError, match=r"it serves a, b; name one: .*#MODEL"):
            open_model(Prompts(reflect_with=other.url))
        assert open_model(Prompts(reflect_with=f"{other.url}#b")).ask("hello").text == "hm"
        assert other.requests[0]["model"] == "b"


def test_a_name_means_openai_with_its_key(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the address and with the key that OpenAI's own client would take."""
    with pytest.raises(SettingError, match="OPENAI_API_KEY has no key"):
        open_model(Prompts(reflect_with="gpt-5"))
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert open_model(Prompts(reflect_with="gpt-5")).ask("hello").text
    assert server.headers[0]["authorization"] == "Bearer secret" and server.requests[0]["model"] == "gpt-5"


def test_claude_is_asked_in_anthropics_protocol(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1"))
    monkeypatch.setenv("MY_KEY", "secret")
    model = open_model(Prompts(reflect_with="claude-sonnet-4-5", reflect_key="MY_KEY"))
    assert model.ask("hello") == ("you said hello", 7, 3, 0, 0)
    assert server.headers[0]["x-api-key"] == "secret" and server.headers[0]["anthropic-version"]
    assert server.requests[0]["max_tokens"] > 0


def test_nothing_named_says_what_to_type() -> None:
    with pytest.raises(SettingError, match="--reflect-with gpt-5"):
        open_model(Prompts())
    with pytest.raises(SettingError, match="cannot be listed"):
        open_model(Prompts(reflect_with="http://127.0.0.1:9/v1"))


def test_a_busy_server_is_asked_again(server: ModelServer, tmp_path: Path) -> None:
    """Every attempt is counted; the key is written down nowhere."""
    ledger = Ledger(Allowance())
    model = open_model(Prompts(reflect_with=server.url))
    reflector = Reflector(model, Journal(tmp_path / "j"), ledger, Asker(model, ledger, backoff_seconds=0.01))
    server.failures = [503, 429]
    assert reflector.end(reflector.begin("hello")) == "you said hello"
    assert ledger.spent.reflections == ledger.spent.calls == 3 and ledger.spent.tokens == 10
    server.failures = [401]
    assert reflector.end(reflector.begin("again")) == ""
    assert ledger.spent.reflections == 4
    assert "HTTP 401" in (tmp_path / "j").read_text()


def test_a_server_that_asks_to_be_left_alone_is(server: ModelServer) -> None:
    """For as long as it says, and not for longer than a minute."""
    model = open_model(Prompts(reflect_with=server.url))
    server.failures, server.failure_headers = [429], {"Retry-After": "1"}
    ledger, began = Ledger(Allowance()), time.monotonic()
    reflector = Reflector(model, Journal(), ledger, Asker(model, ledger, backoff_seconds=0.01))
    assert reflector.end(reflector.begin("hello")) == "you said hello" and time.monotonic() - began >= 1
    for header, seconds in (("3600", 60.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("7", 7.0)):
        server.failures, server.failure_headers = [503], {"Retry-After": header}
        with pytest.raises(ModelUnavailable) as raised:
            model.ask("hello")
        assert raised.value.after_seconds == seconds


def test_a_busy_server_that_names_no_time_is_left_alone_for_longer_and_longer(server: ModelServer) -> None:
    """Ten refusals in a row do not end a question, all questions pause together, and the user is told why."""
    model, ledger = open_model(Prompts(reflect_with=server.url)), Ledger(Allowance())
    server.failures = [429] * 10
    asker = Asker(model, ledger, backoff_seconds=0.001)
    assert asker.ask("hello", "").text == "you said hello" and len(server.requests) == 11
    pauses = [asker._pause(attempt, 0.0) for attempt in range(1, 40)]
    assert all(0.0005 * 2.0 ** min(n, 30) <= pause or pause >= 30 for n, pause in enumerate(pauses))
    assert max(pauses) <= 60 and asker._pause(9, 7.0) == 7


def test_a_server_that_stays_busy_is_given_up_after_a_while(server: ModelServer) -> None:
    """It is said how long that was, and every attempt is counted."""
    model, ledger = open_model(Prompts(reflect_with=server.url)), Ledger(Allowance())
    server.failures = [429] * 1000
    asker = Asker(model, ledger, backoff_seconds=0.01, patience_seconds=2)
    reply = asker.ask("hello", "")
    assert not reply.text and re.search(r"HTTP 429.*asked again for \d+ s", reply.error)
    assert reply.attempts == len(server.requests) > 1
    assert PATIENCE_SECONDS == 300  # as docs/prompts.md says


def test_a_page_is_not_taken_for_a_reply(tmp_path: Path) -> None:
    """Such as that of a proxy, or of an address that is not an API's: the user reads what came, and from where."""
    with WebServer(b"<html>\n<body>Please sign in</body></html>") as page:
        told = "answered something that is not JSON, so it is not the address of a model: <html> <body>Please sign in"
        with pytest.raises(ModelFailed, match=f"{page.url}/chat/completions {told}"):
            open_model(Prompts(reflect_with=f"{page.url}#m")).ask("hello")
        with pytest.raises(SettingError, match=f"its models cannot be listed .*{told}"):
            open_model(Prompts(reflect_with=page.url))
    with WebServer(b'{"detail": "not here"}') as other, pytest.raises(ModelFailed, match="not here"):
        open_model(Prompts(reflect_with=f"{other.url}#m")).ask("hello")


def test_a_server_that_hangs_is_told_and_asked_once(server: ModelServer, tmp_path: Path) -> None:
    """The user learns what is waited for, and three attempts do not take three times as long."""
    server.seconds = 3
    model = HttpModel(server.url, "scripted", "", anthropic=False, timeout_seconds=1)
    told: list[str] = []
    reflector = Reflector(model, Journal(tmp_path / "j"), Ledger(Allowance()), slow_seconds=0.2)
    reflector.on_slow = told.append
    assert [reflector.end(each) for each in [reflector.begin("hello"), reflector.begin("you")]] == ["", ""]
    assert told == ["the reflecting model has not answered for 0.2 s; waiting for it"] and len(server.requests) == 2
    assert "did not answer within 1 s" in reflector.failures


def test_what_was_asked_is_not_asked_again(server: ModelServer, tmp_path: Path) -> None:
    """A new session reads the replies, the second one to the same question too."""
    for _ in range(2):
        reflector = Reflector(
            open_model(Prompts(reflect_with=server.url)), Journal(tmp_path / "j"), Ledger(Allowance())
        )
        asked = [reflector.begin("hello"), reflector.begin("hello"), reflector.begin("you")]
        assert [reflector.end(each) for each in asked] == ["you said hello", "you said hello", "you said you"]
    assert len(server.requests) == 3


def test_questions_are_under_way_side_by_side(server: ModelServer) -> None:
    server.seconds = 0.3
    reflector = Reflector(open_model(Prompts(reflect_with=server.url)), Journal(), Ledger(Allowance()))
    for each in [reflector.begin(str(number)) for number in range(4)]:
        assert reflector.end(each)
    assert server.most_at_once >= 3

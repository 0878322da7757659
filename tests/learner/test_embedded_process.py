"""The backend as the hub uses it: a real child process, the real OpenAI client, real kills."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from openai import OpenAI

from lightning_embedded import backend
from lightning_hub import rollout_key
from lightning_hub.backend import Batch, Row
from lightning_process.child import LOG, Child
from lightning_sdk.errors import BackendDied, LightningError, ModelError, SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.stream.wire import pack
from tests.learner.arrivals import count_connections
from tests.learner.tinymodel import SETTINGS, make_group_rows
from tests.waiting import wait_for


def sample(process: Child, count: int, max_tokens: int = 4, seed: int = 0) -> tuple[list[Row], set[int]]:
    """Rows of weight 0 and advantage 0 but for what was sampled, and the versions that sampled."""
    rows, versions = [], set[int]()
    with OpenAI(base_url=process.endpoint.url, api_key=process.endpoint.key, max_retries=0) as client:
        reply = client.chat.completions.create(
            model=process.endpoint.model,
            messages=[{"role": "user", "content": "go"}],
            n=count,
            max_tokens=max_tokens,
            temperature=1.0,
            seed=seed,
            logprobs=True,
            extra_body={"return_token_ids": True},
        )
    prompt: list[int] = reply.prompt_token_ids  # type: ignore[attr-defined]
    for choice in reply.choices:
        ids: list[int] = choice.token_ids  # type: ignore[attr-defined]
        assert choice.logprobs is not None and choice.logprobs.content is not None
        tokens = np.array(prompt + ids, np.int32)
        weights, logprobs = np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.float32)
        weights[len(prompt) :] = 1.0
        logprobs[len(prompt) :] = [each.logprob for each in choice.logprobs.content]
        rows.append(
            Row(
                tokens=tokens,
                weights=weights,
                advantages=np.zeros_like(weights),
                logprobs=logprobs,
                temperature=1.0,
                version=0,
                role="solver",
                rollout=choice.finish_reason,
            )
        )
        versions |= {version for version, _ in choice.weight_versions}  # type: ignore[attr-defined]
    return rows, versions


def weigh(rows: list[Row], rewards: list[float]) -> list[Row]:
    """Leave-one-out advantages, and weights that sum to 1."""
    total = sum(float(row.weights.sum()) for row in rows)
    mean = sum(rewards) / len(rewards)
    for row, reward in zip(rows, rewards, strict=True):
        row.advantages[row.weights != 0] = (reward - mean) * len(rewards) / (len(rewards) - 1)
        row.weights[:] /= total
    return rows


def low_ids(row: Row) -> float:
    """Share of the sampled tokens with an id below 60."""
    return float((row.tokens[row.weights != 0] < 60).mean())


def test_a_thousand_may_call_at_once(running: Child) -> None:
    """None of them has to try again, which takes a second."""
    assert count_connections(running.endpoint.url, running.pid) == 1000
    assert sample(running, 1)


def test_learns_to_emit_what_is_rewarded_and_log_probs_agree(running: Child) -> None:
    """Real reinforcement learning through HTTP: tokens from the endpoint, updates through the learner's route.

    In each step the learner's log-probabilities of the tokens are those that the engine sampled with, which holds only
    if the engine serves exactly the weights of the last update.
    """
    before = running.update(Batch(0, [])).version
    rewards: list[float] = []
    for step in range(1, 13):
        rows, versions = sample(running, 32, seed=step)
        scores = [low_ids(row) for row in rows]
        rewards.append(sum(scores) / len(scores))
        update = running.update(Batch(step, weigh(rows, scores)))
        assert versions == {before + step - 1}
        assert update.version == before + step
        assert update.metrics["kl_sampler_max"] < 1e-4
        assert abs(update.metrics["kl_sampler"]) < 1e-5
    assert rewards[0] < 0.5
    assert rewards[-1] > 0.85


def test_requests_under_way_survive_an_update(running: Child) -> None:
    """A request that was sent before an update comes back whole, its tokens stamped with their versions."""
    answers: list[tuple[list[Row], set[int]]] = []
    threads = concurrent(lambda: answers.append(sample(running, 8, 100)), 2)
    versions = [running.update(Batch(step, make_group_rows(seed=step))).version for step in range(6)]
    for thread in threads:
        thread.join()
    assert len(answers) == 2
    rows, after = sample(running, 1)
    assert after == {versions[-1]}
    assert rows[0].weights.any()


def concurrent(work: Callable[[], None], count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_save_and_load_go_through_the_process(running: Child, tmp_path: Path) -> None:
    """The version and the behaviour come back."""
    version = running.update(Batch(1, make_group_rows())).version
    running.save(tmp_path)
    probe = sample(running, 4)[0]
    running.update(Batch(2, make_group_rows(seed=3)))
    assert running.load(tmp_path) == version
    assert sample(running, 1)[1] == {version}
    update = running.update(Batch(3, weigh(probe, [0.0, 0.0, 1.0, 1.0])))
    assert update.metrics["kl_sampler_max"] < 1e-4


def test_refusals_are_raised_as_themselves(running: Child, tmp_path: Path) -> None:
    """An error of the child is the same error in the hub, and the child goes on."""
    with pytest.raises(ModelError, match="holds no complete checkpoint"):
        running.load(tmp_path)
    rows = make_group_rows()
    rows[0].tokens[0] = 9999
    with pytest.raises(LightningError, match="a token id is outside 0 to 259"):
        running.update(Batch(1, rows))
    running.check()


def test_a_key_for_sampling_cannot_train(running: Child, tmp_path: Path) -> None:
    """The engine's key, and one of a rollout, which every agent finds in its own requests, open nothing of the learner:
    not where the engine listens, and not at the learner's own port."""
    engine = int(running.endpoint.url.split(":")[2].split("/")[0])
    (learner,) = listening(running.pid) - {engine}
    before, folder = running.facts(), pack({"folder": str(tmp_path)})
    for key in (running.endpoint.key, rollout_key.derive(running.endpoint.key, "a", 60.0), "guess", ""):
        shown = {"Authorization": f"Bearer {key}"} if key else {}
        for path in ("update", "score", "save", "load", "facts"):
            for method in ("GET", "POST", "PUT", "DELETE"):
                for port in (engine, learner):
                    assert ask(port, method, f"/learner/{path}", folder, shown) in {401, 404}, (key, path, port)
    assert ask(engine, "GET", "/v1/models", b"", {"Authorization": f"Bearer {running.endpoint.key}"}) == 200
    assert list(tmp_path.iterdir()) == [] and running.facts() == before


def test_a_key_of_a_rollout_opens_the_engine_for_that_rollout(running: Child) -> None:
    """For its time, with its own name; and no other key is made of it."""
    port, key = int(running.endpoint.url.split(":")[2].split("/")[0]), running.endpoint.key
    mine, over = rollout_key.derive(key, "mine", 60.0), rollout_key.derive(key, "mine", -1.0)
    theirs = mine.replace("mine", "theirs")
    longer = re.sub(r"-(\d+)-", lambda found: f"-{int(found[1]) + 1}-", mine)
    for shown, rollout, status in (
        (mine, None, 200),
        (mine, "mine", 200),
        (mine, "theirs", 401),
        (over, "mine", 401),
        (theirs, "theirs", 401),
        (longer, "mine", 401),
        (mine + "\xe9", "mine", 401),
        (rollout_key.derive(mine, "mine", 60.0), "mine", 401),
    ):
        headers = {"Authorization": f"Bearer {shown}"} | ({"x-lightning-rollout": rollout} if rollout else {})
        assert ask(port, "GET", "/v1/models", b"", headers) == status, (shown, rollout)


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
def test_a_web_page_gets_nothing(running: Child, headers: dict[str, str]) -> None:
    """Not even with the key: engine and learner refuse web pages, and requests to the name of another host."""
    shown = {"Authorization": f"Bearer {running.endpoint.key}", **headers}
    for port in listening(running.pid):
        for path in ("/v1/models", "/health", "/learner/facts", "/"):
            assert ask(port, "GET", path, b"", shown) == 403


def listening(pid: int) -> set[int]:
    """The ports at which a process listens."""
    own = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


def ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of an answer on loopback."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_facts_say_what_was_decided(running: Child) -> None:
    """For config.json."""
    facts = running.facts()
    assert facts["learning_rate"] == 1e-2 and facts["parameters"] == 26_912 and facts["shares_prefixes"] is True


def test_wrong_model_is_told_in_the_hub(tiny: Path, tmp_path: Path) -> None:
    """Whether it shows before the child starts or only in it, it is a ModelError here and no process is left."""
    with pytest.raises(ModelError, match="there is no such folder"):
        backend.start(Settings(model="./nowhere"), tmp_path)
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        backend.start(Settings(model=str(tmp_path)), tmp_path)


def test_killed_child_is_a_clear_error_and_close_is_idempotent(tiny: Path, tmp_path: Path) -> None:
    """kill -9 of the child: check() and update() say so with the log, close() does not mind."""
    process = backend.start(Settings.from_dict({**SETTINGS, "model": str(tiny)}), tmp_path)
    assert isinstance(process, Child)
    process.check()
    os.kill(process.pid, signal.SIGKILL)
    killed = f"^the embedded backend's process {process.pid} was killed with SIGKILL, as .*, "
    with pytest.raises(BackendDied, match=rf"{killed}during update \(\w+\); end of .*{LOG}:"):
        process.update(Batch(1, make_group_rows()))
    with pytest.raises(BackendDied, match=rf"{killed}while it served; end of .*{LOG}:"):
        process.check()
    process.close()
    process.close()


HUB = """
import sys, time
from pathlib import Path
from lightning_embedded import backend
from lightning_sdk.settings import Settings
print(backend.start(Settings(model=sys.argv[1]), Path(sys.argv[2])).endpoint.url, flush=True)
time.sleep(600)
"""


def test_killed_hub_takes_its_child_along(tiny: Path, tmp_path: Path) -> None:
    """kill -9 of the hub: the child's port is free soon after."""
    hub = subprocess.Popen([sys.executable, "-c", HUB, str(tiny), str(tmp_path)], stdout=subprocess.PIPE)
    assert hub.stdout is not None
    port = int(hub.stdout.readline().decode().split(":")[2].split("/")[0])
    assert listens(port)
    hub.kill()
    hub.wait()
    hub.stdout.close()
    wait_for(lambda: not listens(port), "the end of the child")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_missing_torch_gives_a_message_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which Python lacks what, and what to type; the traceback is in the log."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SettingError, match=r"\(No module named 'torch'\).*-sdk\[train\].*--backend-python") as refused:
        backend.start(Settings(), tmp_path)
    assert sys.executable in str(refused.value) and "Traceback" not in str(refused.value)
    assert "Traceback" in (tmp_path / LOG).read_text()

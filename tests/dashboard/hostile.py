"""A run in which every field that an agent, a model or a task can fill holds the same hostile text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from made_runs import BEGAN, MadeRollout, MadeRun, made_call, pack_events

from lightning_sdk.trace.call import Call, Span, root_span_id

KEY = b"0123456789abcdef"


def make_hostile_run(folder: Path, evil: str, rollout: str) -> Path:
    """Write one with this text; `rollout`: the id of its rollout with a call, whose group has another one."""
    run = MadeRun(folder, facts={"model": evil}, versions={evil: evil}, from_runs=[evil])
    config = json.loads((folder / "config.json").read_text())
    config["settings"] |= {"model": evil, "backend": evil, "steps": 2}
    (folder / "config.json").write_text(json.dumps(config))
    first = MadeRollout(
        group=f"1-{evil}",
        key=KEY,
        id=rollout,
        status="agent_error",
        error=evil,
        task={evil: evil, "question": evil},
        answer=evil,
        runner=evil,
        rewards=[(evil, evil, 1.0, evil), ("", "x", 0.5, evil)],
        events=pack_events(_hostile_events(evil)),
    )
    mate = replace(first, key=KEY[::-1], id="1" * 32, answer="", rewards=[])
    other = MadeRollout(group="1-0", answer=evil, rewards=[(evil, evil, 1.0, evil)])
    run.add([first, mate, other, MadeRollout(group=f"{evil}-0", mode="evaluate", answer=evil)])
    numbers = {f"reward_mean/{evil}": 0.5, "loss": 1.0, f"seconds_{evil}": 1.0, "rollouts_<b>": 1.0}
    run.steps([{"step": step, **numbers, f"rollouts_{evil}": 1.0} for step in (1, 2)])
    run.close()
    return folder


def _hostile_events(evil: str) -> list[Call | Span]:
    ns = int(BEGAN * 1e9)
    span = Span(
        id="a" * 16,
        parent=root_span_id(KEY),
        name=evil,
        role=evil,
        started_ns=ns,
        ended_ns=ns + 5_000_000,
        status="error",
        error=evil,
        attributes={evil: evil, "http.url": evil},
    )
    tool = {"id": evil, "type": "function", "function": {"name": evil, "arguments": evil}}
    asked = [
        {"role": evil, "content": evil},
        {
            "role": "user",
            "content": [{"type": "text", "text": evil}, {"type": "image_url", "image_url": {"url": evil}}],
        },
        {"role": "assistant", "content": evil, "reasoning": evil, "tool_calls": [tool]},
        {"role": "tool", "tool_call_id": evil, "content": evil},
    ]
    call = made_call(1, asked, evil, role=evil, parent="a" * 16, error=evil, framework=evil, path=evil, candidate=evil)
    return [span, call]

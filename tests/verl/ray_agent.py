"""An agent for Ray actors. It has a neighbour to import, tells where it ran, and can be killed on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning

if (Path(__file__).parent / "nowhere_but_here").exists() and "default_worker" in sys.argv[0]:
    raise RuntimeError("no database on this node")


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    from neighbour import ADDRESS  # noqa: PLC0415 - a file beside this one, which Ray has to bring along

    with OpenAI(api_key="none", base_url=ADDRESS, max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": task["question"]}]
        answer = client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""
    seen = Path(task["seen"])
    (seen / os.urandom(8).hex()).write_text(json.dumps({"pid": os.getpid(), "folder": str(Path(__file__).parent)}))
    try:
        (seen / "killed").touch(exist_ok=False)
    except FileExistsError:
        return answer
    os.kill(os.getpid(), signal.SIGKILL)
    return answer


@lightning.reward
def best(task: dict[str, Any], answer: str) -> float:
    return float(answer == "3")

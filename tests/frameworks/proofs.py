"""What the tests of this environment proved of each framework, gathered for the documentation's table."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.frameworks.captured import OUTER, Run

RESULTS = Path(__file__).with_name("results")
#: Name of this environment, such as 'openai2'.
ENVIRONMENT = Path(sys.prefix).name


@dataclass
class Proof:
    """What was proved of one framework; further runs add to it."""

    distribution: str
    version: str
    calls: int = 0
    """Calls whose ids were compared."""
    roles: list[str] = field(default_factory=list)
    """Names of agents that the framework itself gave."""
    streaming: bool = False
    async_: bool = False
    threads: bool = False


class Proofs:
    def __init__(self) -> None:
        self._rows: dict[str, Proof] = {}

    def prove(
        self, framework: str, distribution: str, run: Run, *, async_: bool = False, threads: bool = False
    ) -> None:
        """Say at the end of a test what `run` proved.

        Calls, roles and streaming are read from the run: only calls that can be trained on count.

        Args:
            framework: Name in the table, such as 'LangGraph'.
            distribution: Whose version is shown, such as 'langgraph'.
            async_: The agent ran on asyncio.
            threads: The framework made the calls in its own threads, or several agents ran at once in threads.
        """
        good = [call for call in run.calls if call.trainable and call.status == "ok" and not call.problem]
        assert good, f"{framework}: no call of this run could be trained on"
        row = self._rows.setdefault(framework, Proof(distribution, importlib.metadata.version(distribution)))
        row.calls += len(good)
        row.roles = sorted({*row.roles, *(call.role for call in good)} - {"", OUTER})
        row.streaming |= any(call.streamed for call in good)
        row.async_ |= async_
        row.threads |= threads

    def save(self, *, whole: bool) -> None:
        """Write what was proved into this environment's file. `whole`: every test ran; else what is known of other
        frameworks stays."""
        if not self._rows:
            return
        path = RESULTS / f"{ENVIRONMENT}.json"
        known = json.loads(path.read_text()) if path.exists() and not whole else {}
        known.update({name: asdict(row) for name, row in self._rows.items()})
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")

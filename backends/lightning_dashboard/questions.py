"""Views without a page, for programs: `python -m lightning_dashboard.questions`, asked and answered in lines of JSON.

The first line of its input is {"places": [...]}, run folders and folders of runs; the first of its output {"names":
[...]}, what each place is called if it is a run, else ''. Each further line asks for a view, {"view": NAME, "query":
TEXT}, with the query of the address that a page would ask; the answer is {"answer": ...} or {"error": [KIND, TEXT]}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.runs import Runs, is_run
from lightning_dashboard.server import to_json
from lightning_dashboard.views import answer
from lightning_sdk.errors import LightningError

_log = logging.getLogger(__name__)


def answer_question(runs: Runs, question: Mapping[str, Any]) -> dict[str, Any]:
    """What a view answers, or why it does not."""
    try:
        return {"answer": answer(str(question["view"]), runs, ViewQuery(str(question.get("query", ""))))}
    except LightningError as error:
        return {"error": [type(error).__name__, str(error)]}
    except (LookupError, ValueError) as error:  # what is asked for is not there, or cannot be read so
        return {"error": ["SettingError", str(error.args[0] if error.args else error)]}
    except Exception as error:  # a damaged folder, for one: other views may still be answered
        _log.exception("the view %s failed", question.get("view"))
        return {"error": ["HubError", f"the run cannot be read: {type(error).__name__}: {error}"]}


def main() -> int:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.CRITICAL)
    places = [Path(each) for each in json.loads(sys.stdin.readline())["places"]]
    runs = Runs(places)
    print(json.dumps({"names": [runs.name_of(each) if is_run(each) else "" for each in places]}), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            print(to_json(answer_question(runs, json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The check of the reflecting model: one short call before a search, so that a wrong key is told at once."""

from __future__ import annotations

import concurrent.futures
import time

from lightning_hub.backend import SearchHost
from lightning_prompts.asking import Asker, ModelFailed, ModelUnavailable, start_thread
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Allowance, Ledger
from lightning_prompts.meter import Meter
from lightning_prompts.reflecting_model import HttpModel
from lightning_prompts.reflection import CHECK
from lightning_sdk.errors import SettingError

QUESTION = "Answer with one word: ready"
_WAIT_SECONDS = 0.5


def check_model(model: HttpModel, journal: Journal, meter: Meter | None, host: SearchHost) -> None:
    """Ask the model once, unless an earlier session of the run has. The call counts like every other one.

    Raises:
        SettingError: it does not answer, for a reason that no other attempt would mend.
    """
    if model.is_own or CHECK in journal.replies:
        return
    asker, began = Asker(model, Ledger(Allowance()), meter), time.monotonic()
    key, why = asker.reserve(QUESTION)
    if why:
        raise SettingError(f"not even a short call of the reflecting model fits the budget: {why}")
    asked = start_thread(lambda: model.ask(QUESTION))
    while not asked.done():
        host.check()
        concurrent.futures.wait([asked], _WAIT_SECONDS)
    try:
        answer = asked.result()
    except ModelUnavailable as error:
        asker.release(key)
        host.tell(f"the reflecting model could not be checked, because it is busy or away: {error}")
        return
    except ModelFailed as error:
        raise SettingError(
            f"prompts.reflect_with={model.model!r}: the reflecting model does not answer: {error}; check its name, its "
            "address and its key (prompts.reflect_key)"
        ) from None
    journal.add_reply(CHECK, asker.settle(answer, key, 1, began), QUESTION)
    host.tell(f"the reflecting model {model.model} answered a first call of {answer.tokens} tokens")

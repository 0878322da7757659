"""A remedy: what to do about an exception, if its class shows more than that the user's code raised it.

A service that does not answer cannot be fixed in the function that calls it.
"""

from __future__ import annotations

import errno
import re
from typing import Any

from lightning_sdk.errors import RewardError, chain
from lightning_sdk.failures import disk
from lightning_sdk.trace.call import Status

#: Begins the last line of an error that says what to do.
MARK = "-> "

#: Names of classes, or of their bases, for a service that was not reached or did not answer in time: of Python, of
#: OpenAI's and Anthropic's clients, httpx, httpcore, requests, urllib3 and aiohttp.
_UNREACHED = frozenset({
    "ConnectionError", "TimeoutError", "gaierror", "herror", "SSLError", "URLError", "APIConnectionError",
    "TransportError", "NetworkError", "TimeoutException", "Timeout", "MaxRetryError", "NewConnectionError",
    "ClientConnectionError",
})  # fmt: skip
_NETWORK = frozenset({
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EADDRNOTAVAIL,
})  # fmt: skip


def remedy(error: BaseException, status: Status) -> str:
    """What to do about what the agent or a reward function raised; '' where the status says all there is to say."""
    if status not in {Status.AGENT_ERROR, Status.REWARD_ERROR}:
        return ""
    who = "the reward function" if status == Status.REWARD_ERROR else "the agent"
    again_set = f"--set failure.{status}=retry"
    again = f"if it is unavailable only now and then, retry such rollouts: {again_set}"
    raised = [each for each in chain(error) if not isinstance(each, RewardError)]
    where = next((f" at {address}" for each in raised if (address := _address(each))), "")
    if any(map(disk.is_full, raised)):
        return f"The disk that {who} writes to is full: make room there; to retry such rollouts: {again_set}."
    for each in raised:
        if code := _http_status(each):
            return _explain_refusal(who, code, where, again)
        if _is_unreached(each):
            return _OFFLINE if type(each).__name__ == "OfflineModeIsEnabled" else _explain_silence(who, where, again)
    if raised and (what := _ENDING.get(type(raised[0]).__name__)):
        return f"{what}: to stop {who}, return from it or raise an Exception."
    is_reward = raised and status == Status.REWARD_ERROR
    return "Call the reward function by itself, with such a task and answer, and fix it." if is_reward else ""


#: huggingface_hub's error is a ConnectionError, though nothing was tried.
_OFFLINE = (
    "huggingface_hub sends nothing while HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, not even to the engine of a "
    "training: start this process without them (docs/frameworks.md)."
)


#: What ends a process, a program or a task in ordinary code.
_ENDING = {
    "SystemExit": "This is exit(), which command line parsers call too",
    "KeyboardInterrupt": "No key was pressed: code raised this",
    "CancelledError": "Code cancelled its own task, as a session (MCP) or a cancel scope does when it is closed in "
    "another task",
}


def _explain_silence(who: str, where: str, again: str) -> str:
    return (
        f"The service{where} that {who} calls was not reached, or did not answer in time: start it, or check its "
        f"address and this machine's network; {again}."
    )


def _explain_refusal(who: str, code: int, where: str, again: str) -> str:
    begin = f"The service{where} that {who} calls answered with HTTP status {code}"
    if code in {401, 403}:
        return f"{begin}: check its API key, and that this process has it in its environment."
    if code == 429:
        return f"{begin}, too many requests: lower rollouts.concurrency, or {again}."
    return f"{begin}: see what it logged; {again}."


def _http_status(error: BaseException) -> int:
    """The status with which a service refused that the request cannot be blamed for; 0 if it is none."""
    response = getattr(error, "response", None)
    for holder, name in ((error, "status_code"), (response, "status_code"), (error, "status"), (error, "code")):
        code = getattr(holder, name, None)
        if isinstance(error, Exception) and isinstance(code, int) and (code in {401, 403, 429} or 500 <= code <= 599):
            return code
    return 0


def _is_unreached(error: BaseException) -> bool:
    if isinstance(error, BrokenPipeError):  # a child process that went
        return False
    names = {each.__name__ for each in type(error).__mro__}
    return not _UNREACHED.isdisjoint(names) or (isinstance(error, OSError) and error.errno in _NETWORK)


def _address(error: BaseException) -> str:
    """Where the request of an HTTP client's exception went, '' if it does not say."""
    try:
        request: Any = getattr(error, "request", None)
        url = str(getattr(request, "url", "") or getattr(error, "url", "") or "")
    except Exception:  # httpx has none for some of its errors and raises
        return ""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])[:200]

"""A failure: what caused a rollout to fail, as a status, and the message that explains it.

The message contains the exception with its name, the user's lines that led there, the end of a child process's output,
and the cause. If the exception shows what to do, the last line says it, after '-> '.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from lightning_sdk.errors import RewardError, message
from lightning_sdk.failures import remedy
from lightning_sdk.failures.frames import own_lines
from lightning_sdk.trace.call import Status
from lightning_sdk.trace.scope import RolloutScope

_MESSAGE_CHARACTERS, _MESSAGE_LINES = 2000, 10
_PRINTED_LINES, _PRINTED_CHARACTERS = 8, 1000
"""How much is shown of what a child process printed last."""
_LONGEST_CHAIN = 10


def status_of(scope: RolloutScope, error: BaseException) -> Status:
    """The status of a rollout that this exception ended, which says whose fault it is.

    A KeyboardInterrupt in the main thread is Ctrl-C and nobody's; in any other thread only code can have raised it.
    """
    if _is(first_of(error), RewardError):
        return Status.REWARD_ERROR
    typed = _is(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
    return Status.INFRASTRUCTURE_ERROR if scope.broken or typed else Status.AGENT_ERROR


def describe(error: BaseException, status: Status) -> str:
    """The message for an exception that ended a rollout with `status`, short enough to show."""
    try:
        return _describe(error, status)
    except BaseException as raised:  # of the user's own class, whose attributes may raise what they like
        return f"{summary(error)}\n  (more cannot be shown: looking at it raised {type(raised).__name__})"


def _describe(error: BaseException, status: Status) -> str:
    first = first_of(error)
    lines = [*_message(error, first), *own_lines(first), *_child_output(first)]
    for cause in _causes(first):
        said = summary(cause)
        if said not in lines[0]:
            further = [line for line in own_lines(cause, library=False) if line not in lines]
            lines += [f"caused by {said}"[:_MESSAGE_CHARACTERS], *further[-2:], *_child_output(cause)]
            break
    text = "\n  ".join(lines)
    advice = remedy.remedy(first, status)
    return plain(f"{text}\n{remedy.MARK}{advice}" if advice else text)


def summary(error: BaseException) -> str:
    """'Class: message', whatever its __str__ does."""
    name = type(error).__name__
    text = message(error)
    return plain(f"{name}: {text}" if text else name)


def first_of(error: BaseException) -> BaseException:
    """The first exception of a group that was raised and not cancelled by the others; of anything else, itself."""
    while _is(error, BaseExceptionGroup):
        assert isinstance(error, BaseExceptionGroup)
        ended = [each for each in error.exceptions if type(each).__name__ != "CancelledError"]
        error = ended[0] if ended else error.exceptions[0]
    return error


def _is(error: BaseException, kind: type[BaseException]) -> bool:
    """Like isinstance, which would run the object's own code by reading its `__class__`."""
    return issubclass(type(error), kind)


def plain(text: str) -> str:
    """`text` as UTF-8 can carry it: half a surrogate pair has no place in a message."""
    return text.encode("utf-8", "replace").decode()


def _message(error: BaseException, first: BaseException) -> list[str]:
    lines = summary(first)[:_MESSAGE_CHARACTERS].splitlines()
    if len(lines) > _MESSAGE_LINES:
        lines = [*lines[: _MESSAGE_LINES - 4], "...", *lines[-3:]]
    return lines if first is error else [*lines, f"in {summary(error)}", *own_lines(error, library=False)]


def _child_output(error: BaseException) -> Iterator[str]:
    """What a child process printed last, where the exception has caught it, as those of `subprocess` do."""
    for name in ("stderr", "stdout"):
        text = getattr(error, name, None)
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        if isinstance(text, str) and text.strip():
            yield f"its {name} ended:"
            yield from (f"  {line}" for line in text.strip()[-_PRINTED_CHARACTERS:].splitlines()[-_PRINTED_LINES:])
            return


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an exception was raised from or while handling, the first cause first."""
    chain: list[BaseException] = []
    at = error
    while len(chain) < _LONGEST_CHAIN:
        below = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
        if below is None or below in chain:
            break
        chain.append(at := first_of(below))
    yield from reversed(chain)

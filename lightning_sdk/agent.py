"""The `@agent` decorator: names the role that speaks while a function runs, and says whether it is trained."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any, TypeVar, overload

from lightning_sdk import sink
from lightning_sdk.call import Span
from lightning_sdk.errors import SettingError
from lightning_sdk.scope import Scope, current, entered, new_span_id

F = TypeVar("F", bound=Callable[..., Any])

#: Role -> trainable, for every decorated function of this process.
declared: dict[str, bool] = {}


@overload
def agent(function: F, /) -> F: ...
@overload
def agent(*, role: str | None = None, trainable: bool = False) -> Callable[[F], F]: ...


def agent(function: Any = None, /, *, role: str | None = None, trainable: bool = False) -> Any:
    """Mark a function as an agent: calls made while it runs belong to `role`.

    Works on functions, coroutines, generators, async generators and methods, and keeps their signature and kind.
    The innermost agent wins, so nested agents keep their own role.

    Args:
        role: Name of the role; the function's name if not given.
        trainable: Whether training may change the model behind this role. A call of a role that is not trainable
            goes where it always went and is recorded only.

    Raises:
        SettingError: on a class, or on something that cannot be called.
    """
    if function is None:
        return functools.partial(_decorate, role=role, trainable=trainable)
    return _decorate(function, role=role, trainable=trainable)


def _decorate(function: Any, *, role: str | None, trainable: bool) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_decorate(function.__func__, role=role, trainable=trainable))
    if inspect.isclass(function):
        raise SettingError(f"@agent on the class {function.__name__}: put it above the method that runs the agent")
    if not callable(function):
        raise SettingError(f"@agent on {function!r}, which cannot be called: put it above a function or a method")
    role = role or getattr(function, "__name__", "") or type(function).__name__
    declared[role] = declared.get(role, False) or trainable
    return in_role(function, role, trainable)


def in_role(function: Callable[..., Any], role: str, trainable: bool) -> Callable[..., Any]:
    """`function` speaking as `role`, of the same kind, so that code which looks at the kind sees no difference."""
    if inspect.isasyncgenfunction(function):
        return _astepping(function, lambda: Turn(role, trainable))
    if inspect.isgeneratorfunction(function):
        return _stepping(function, lambda: Turn(role, trainable))
    if inspect.iscoroutinefunction(function):
        return _awaiting(function, lambda: Turn(role, trainable))

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        turn = Turn(role, trainable)
        try:
            with entered(turn.scope):
                result = function(*args, **kwargs)
        except BaseException as error:
            turn.close(error)
            raise
        # The kind of the result decides, not of the function: a plain function may return a coroutine.
        if inspect.iscoroutine(result):
            return _awaiting(lambda: result, lambda: turn)()
        if inspect.isasyncgen(result):
            return _astepping(lambda: result, lambda: turn)()
        if inspect.isgenerator(result):
            return _stepping(lambda: result, lambda: turn)()
        turn.close(None)
        return result

    return plain


class Turn:
    """One run of an agent: its scope, and the span that tells of it."""

    __slots__ = ("_outer", "_started", "scope")

    def __init__(self, role: str, trainable: bool) -> None:
        self._outer = current()
        self._started = time.time_ns()
        self.scope: Scope = replace(self._outer, role=role, trainable=trainable, span=new_span_id())

    def close(self, error: BaseException | None) -> None:
        if not sink.listening():
            return
        cancelled = isinstance(error, GeneratorExit)
        sink.span(
            self.scope.rollout,
            Span(
                id=self.scope.span,
                parent=self._outer.span,
                name=f"invoke_agent {self.scope.role}",
                role=self.scope.role,
                started_ns=self._started,
                ended_ns=time.time_ns(),
                status="ok" if error is None else "cancelled" if cancelled else "error",
                error="" if error is None or cancelled else f"{type(error).__name__}: {error}",
                attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": self.scope.role},
            ),
        )


def _awaiting(
    make: Callable[..., Coroutine[Any, Any, Any]], begin: Callable[[], Turn]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(make)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        turn = begin()
        try:
            with entered(turn.scope):
                result = await make(*args, **kwargs)
        except BaseException as error:
            turn.close(error)
            raise
        turn.close(None)
        return result

    return coroutine


def _stepping(
    make: Callable[..., Generator[Any, Any, Any]], begin: Callable[[], Turn]
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(make)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        turn, steps, error = begin(), make(*args, **kwargs), None
        step: Callable[[Any], Any] = steps.send
        argument: Any = None
        try:
            while True:
                try:
                    with entered(turn.scope):
                        value = step(argument)
                except StopIteration as stop:
                    return stop.value
                try:
                    argument = yield value
                    step = steps.send
                except GeneratorExit:
                    with entered(turn.scope):
                        steps.close()
                    raise
                except BaseException as thrown:
                    step, argument = steps.throw, thrown
        except BaseException as raised:
            error = raised
            raise
        finally:
            turn.close(error)

    return generator


def _astepping(
    make: Callable[..., AsyncGenerator[Any, Any]], begin: Callable[[], Turn]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(make)
    async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        turn, steps, error = begin(), make(*args, **kwargs), None
        step: Callable[[Any], Any] = steps.asend
        argument: Any = None
        try:
            while True:
                try:
                    with entered(turn.scope):
                        value = await step(argument)
                except StopAsyncIteration:
                    return
                try:
                    argument = yield value
                    step = steps.asend
                except GeneratorExit:
                    with entered(turn.scope):
                        await steps.aclose()
                    raise
                except BaseException as thrown:
                    step, argument = steps.athrow, thrown
        except BaseException as raised:
            error = raised
            raise
        finally:
            turn.close(error)

    return generator

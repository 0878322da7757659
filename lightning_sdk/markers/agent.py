"""The `@agent` decorator: names the role of the calls that a function makes, and says whether it is trained."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any, TypeVar, overload

from lightning_sdk.errors import SettingError
from lightning_sdk.failures.failure import summary
from lightning_sdk.stream import sink
from lightning_sdk.stream.sink import harmless
from lightning_sdk.trace.call import Span
from lightning_sdk.trace.scope import (
    Scope,
    current_scope,
    framework_roles,
    new_span_id,
    new_trace_id,
    parent_span,
    use_scope,
)

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
    The innermost agent wins, so nested agents keep their own role. Agents of a framework that run inside keep the
    names that the framework gives them, unless `role` is given: then all of them have that role.

    Args:
        role: Name of the role; the function's name if not given.
        trainable: Whether training may change the model behind this role. A call of a role that is not trainable
            goes where it always went and is only recorded.

    Raises:
        SettingError: it decorates a class, or something that cannot be called.
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
    named = role is not None
    role = role or getattr(function, "__name__", "") or type(function).__name__
    declared[role] = declared.get(role, False) or trainable
    return wrap_in_turn(function, lambda *_args, **_kwargs: Turn(role=role, trainable=trainable, named=named, agent=""))


def wrap_in_turn(function: Callable[..., Any], begin: Callable[..., Turn]) -> Callable[..., Any]:
    """`function` with each run inside the turn that `begin` makes of its arguments.

    Of the same kind as `function`, so that code which looks at the kind sees no difference.
    """
    if inspect.isasyncgenfunction(function):
        return _astepping(function, begin)
    if inspect.isgeneratorfunction(function):
        return _stepping(function, begin)
    if inspect.iscoroutinefunction(function):
        return _awaiting(function, begin)

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        turn = begin(*args, **kwargs)
        try:
            with use_scope(turn.scope):
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
        if lazy := _lazy_ways(result):
            return _lazy_type(lazy)(result, turn)
        turn.close(None)
        return result

    return plain


class Turn:
    """One run of an agent: its scope, and its span."""

    __slots__ = ("_closed", "_outer", "_parent", "_started", "scope")

    def __init__(self, **changes: Any) -> None:
        """A turn in the current scope with `changes`; without any, in that very scope, and no span tells of it."""
        self._outer, self._closed = current_scope(), False
        self._started = time.time_ns()
        self.scope: Scope = self._outer
        if changes:
            trace, self._parent = parent_span(self._outer)
            if not trace and self._outer.rollout is None:
                trace = new_trace_id()
            self.scope = replace(
                self._outer, span=new_span_id(), trace=trace, framework_roles=framework_roles(), **changes
            )

    @classmethod
    def of_framework(cls, name: str) -> Turn:
        """The turn of an agent that a framework calls `name`: it keeps a decorator's explicit role, and is trained
        where what surrounds it is."""
        outer = current_scope()
        # One agent's methods call each other: that is one turn still.
        if not name or (name == outer.agent and framework_roles() == outer.framework_roles):
            return cls()
        return cls(role=outer.role if outer.named else name, agent=name)

    def close(self, error: BaseException | None) -> None:
        if self._closed or self.scope is self._outer or not sink.is_listening():
            return
        self._closed = True
        cancelled = issubclass(type(error), GeneratorExit)  # isinstance would ask the object
        name = self.scope.agent or self.scope.role
        sink.send_span(
            self.scope.rollout,
            Span(
                id=self.scope.span,
                parent=self._parent,
                name=f"invoke_agent {name}",
                role=self.scope.role,
                started_ns=self._started,
                ended_ns=time.time_ns(),
                status="ok" if error is None else "cancelled" if cancelled else "error",
                error="" if error is None or cancelled else summary(error),
                attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name},
                trace=self.scope.trace,
            ),
        )


def _awaiting(
    make: Callable[..., Coroutine[Any, Any, Any]], begin: Callable[..., Turn]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(make)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        turn = begin(*args, **kwargs)
        try:
            with use_scope(turn.scope):
                result = await make(*args, **kwargs)
        except BaseException as error:
            turn.close(error)
            raise
        turn.close(None)
        return result

    return coroutine


def _stepping(
    make: Callable[..., Generator[Any, Any, Any]], begin: Callable[..., Turn]
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(make)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        turn, steps = begin(*args, **kwargs), make(*args, **kwargs)
        step: Callable[[Any], Any] = steps.send
        argument: Any = None
        try:
            while True:
                try:
                    with use_scope(turn.scope):
                        value = step(argument)
                except StopIteration as stop:
                    turn.close(None)
                    return stop.value
                argument = None  # not kept alive, with all frames it holds, for as long as the consumer takes
                try:
                    argument = yield value
                    step = steps.send
                except GeneratorExit:
                    with use_scope(turn.scope):
                        steps.close()
                    raise
                except BaseException as thrown:
                    step, argument = steps.throw, thrown
        except BaseException as raised:
            argument = None
            turn.close(raised)
            raise

    return generator


def _astepping(
    make: Callable[..., AsyncGenerator[Any, Any]], begin: Callable[..., Turn]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(make)
    async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        turn, steps = begin(*args, **kwargs), make(*args, **kwargs)
        step: Callable[[Any], Any] = steps.asend
        argument: Any = None
        try:
            while True:
                try:
                    with use_scope(turn.scope):
                        value = await step(argument)
                except StopAsyncIteration:
                    turn.close(None)
                    return
                argument = None
                try:
                    argument = yield value
                    step = steps.asend
                except GeneratorExit:
                    with use_scope(turn.scope):
                        await steps.aclose()
                    raise
                except BaseException as thrown:
                    step, argument = steps.athrow, thrown
        except BaseException as raised:
            argument = None
            turn.close(raised)
            raise

    return generator


def _lazy_ways(result: Any) -> tuple[str, ...]:
    """How an object runs code when it is used: by `__await__`, `__next__` or `__anext__`; () if it does not.

    A task runs in the scope that it was made in, and a file only reads.
    """
    kind = type(result)
    ways = tuple(way for way in ("__await__", "__next__", "__anext__") if hasattr(kind, way))
    if not ways or hasattr(kind, "_asyncio_future_blocking") or hasattr(kind, "fileno"):
        return ()
    return ways


@functools.cache
def _lazy_type(ways: tuple[str, ...]) -> type[Any]:
    """A transparent proxy of an object that is used in these ways, each step of which is inside its turn."""
    from wrapt import ObjectProxy  # noqa: PLC0415 - importing the SDK must not load wrapt

    class Lazy(ObjectProxy):  # type: ignore[type-arg]
        def __init__(self, result: Any, turn: Turn) -> None:
            super().__init__(result)
            self._self_turn = turn

        def __iter__(self) -> Any:
            return self if iter(self.__wrapped__) is self.__wrapped__ else iter(self.__wrapped__)

        def __aiter__(self) -> Any:
            return self if aiter(self.__wrapped__) is self.__wrapped__ else aiter(self.__wrapped__)

        def __del__(self) -> None:
            harmless("closing the turn of what was not used up", lambda: self._self_turn.close(GeneratorExit()))

    steps = {"__await__": _await_lazily, "__next__": _next_lazily, "__anext__": _anext_lazily}
    return type("Lazy", (Lazy,), {way: steps[way] for way in ways})


def _await_lazily(lazy: Any) -> Generator[Any, Any, Any]:
    return _stepping(lazy.__wrapped__.__await__, lambda: lazy._self_turn)()


def _next_lazily(lazy: Any) -> Any:
    try:
        with use_scope(lazy._self_turn.scope):
            return next(lazy.__wrapped__)
    except BaseException as error:
        lazy._self_turn.close(None if isinstance(error, StopIteration) else error)
        raise


async def _anext_lazily(lazy: Any) -> Any:
    try:
        with use_scope(lazy._self_turn.scope):
            return await anext(lazy.__wrapped__)
    except BaseException as error:
        lazy._self_turn.close(None if isinstance(error, StopAsyncIteration) else error)
        raise

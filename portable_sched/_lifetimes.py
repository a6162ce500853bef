"""A task that yields once: set-up, a result that others use, and teardown when they are done.

The whole body stays in one async task and one context, inside one cancel scope that is entered
before it. A scope for the set-up alone would be left while scopes and task groups that the body
has opened are still open, and scopes have to be left in reverse order.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Protocol

from anyio import CancelScope, Event, current_time, get_cancelled_exc_class

from ._backend import event_loop_is_gone
from ._errors import LifetimeError, TaskTimeoutError
from ._tasks import TaskDef
from ._timeouts import within

# Seconds that a teardown may take where the task has no timeout of its own.
_TEARDOWN: Final = 30.0


class Host(Protocol):
    """What carries the run out, as far as a lifetime needs it."""

    def spawn(self, function: Callable[..., Any], *args: object, name: str) -> None:
        """Start an async task within the run."""

    def closed(self, number: int, failure: BaseException | None) -> None:
        """Take note that a lifetime which had yielded is over."""


class Lifetime:
    """One task of one run that yields once.

    Attributes:
        host: what carries the run out; set before the first attempt.
    """

    __slots__ = ("_body", "_definition", "_number", "host")

    host: Host

    def __init__(self, number: int, definition: TaskDef) -> None:
        self._number = number
        self._definition = definition
        self._body: _Body | None = None

    async def open(self, /, *args: Any, **kwargs: Any) -> Any:
        """Carry out one attempt: run the body up to its `yield`, and return what it yields.

        An attempt that is late or cancelled ends when the body has ended.
        """
        definition = self._definition
        body = self._body = _Body(self.host, self._number, definition)
        name = f"portable_sched lifetime {definition.name}"
        self.host.spawn(body.live, args, kwargs, name=name)
        del args, kwargs
        try:
            if definition.timeout is None:
                return await body.opened()
            return await within(definition.timeout, definition.name, "", body.opened)
        except GeneratorExit:
            # The event loop is gone, or it is what the body has ended with: nothing to wait for.
            raise
        except BaseException as error:
            await body.abandon()
            failure = body.take_failure()
            if failure is None or isinstance(failure, get_cancelled_exc_class()):
                raise
            if isinstance(error, TaskTimeoutError):
                raise error from failure
            raise failure from None
        finally:
            # A traceback leads to this frame, and the frame would lead back to what has it.
            del body
            failure = None

    def close(self) -> None:
        """Nobody uses it any more: let the body run to its end."""
        if self._body is not None:
            self._body.done.set()

    def forget_the_run(self) -> None:
        """The run is over, and it knows us: let go of it, so that no collector is needed."""
        del self.host
        self._body = None


class _Body:
    """One call of the function, and the async task that it is in from start to end.

    Attributes:
        done: set when nobody uses the lifetime any more.
    """

    __slots__ = (
        "_abandoned",
        "_begun",
        "_definition",
        "_ended",
        "_failure",
        "_has_opened",
        "_host",
        "_number",
        "_result",
        "_scope",
        "_settled",
        "done",
    )

    def __init__(self, host: Host, number: int, definition: TaskDef) -> None:
        self._host = host
        self._number = number
        self._definition = definition
        self._scope = CancelScope()
        self._begun = False
        self._abandoned = False
        self._has_opened = False
        self._settled = Event()
        self._ended = Event()
        self._result: Any = None
        self._failure: BaseException | None = None
        self.done = Event()

    async def opened(self) -> Any:
        """What the body yields, as soon as it does."""
        await self._settled.wait()
        failure = self.take_failure()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure
        result, self._result = self._result, None
        return result

    async def abandon(self) -> None:
        """End the body, whose attempt has failed, and wait for its end."""
        self._abandoned = True
        if self._has_opened:
            self.done.set()
        else:
            self._scope.cancel()
        # A task that is cancelled before it has begun may never begin.
        if self._begun:
            with CancelScope(shield=True):
                await self._ended.wait()

    def take_failure(self) -> BaseException | None:
        """What the body raised, the first time that it is asked for."""
        failure, self._failure = self._failure, None
        return failure

    async def live(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The body from start to end."""
        self._begun = True
        if self._abandoned:
            return
        try:
            with self._scope:
                body: AsyncGenerator[Any, None] = self._definition.function(*args, **kwargs)
                del args, kwargs
                await self._set_up(body)
                await self._tear_down(body)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and event_loop_is_gone():
                # And who waits for us with it.
                raise
            self._failure = error
        if self._has_opened and current_time() >= self._scope.deadline:
            late = TaskTimeoutError(self._definition.name, self._limit(), "It was in its teardown.")
            late.__cause__ = self.take_failure()
            self._failure = late
            del late
        self._settled.set()
        self._ended.set()
        host = self._host
        # A traceback leads to our frames, and we would lead to the run that has it.
        del self._host
        if self._has_opened and not self._abandoned:
            host.closed(self._number, self.take_failure())
        del host

    async def _set_up(self, body: AsyncGenerator[Any, None]) -> None:
        try:
            self._result = await anext(body)
        except StopAsyncIteration:
            raise LifetimeError(self._definition.name, "did not yield") from None
        # From here on nothing ends the body but its own doing: what uses it goes first.
        self._scope.shield = True
        self._has_opened = True
        self._settled.set()

    async def _tear_down(self, body: AsyncGenerator[Any, None]) -> None:
        try:
            await self.done.wait()
        except get_cancelled_exc_class() as error:
            # A scope or a task group that the body has opened was cancelled: the body is to know.
            self._scope.deadline = current_time() + self._limit()
            resumed = body.athrow(error)
        else:
            self._scope.deadline = current_time() + self._limit()
            resumed = anext(body)
        try:
            await resumed
        except StopAsyncIteration:
            return
        await body.aclose()
        raise LifetimeError(self._definition.name, "yielded more than once")

    def _limit(self) -> float:
        return self._definition.timeout or _TEARDOWN

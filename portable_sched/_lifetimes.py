"""A task that yields once: set-up, a result that others use, and teardown when they are done.

The whole body stays in one async task and one context, inside one cancel scope that is entered
before it. A scope for the set-up alone would be left while scopes and task groups that the body
has opened are still open, and scopes have to be left in reverse order.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Protocol

from anyio import CancelScope, Event, current_time, get_cancelled_exc_class

from ._errors import LifetimeError, TaskTimeoutError
from ._tasks import TaskDef

# Seconds that a teardown may take where the task has no timeout of its own.
_TEARDOWN: Final = 30.0


class Host(Protocol):
    """What carries the run out, as far as a lifetime needs it."""

    def spawn(self, function: Callable[..., Any], *args: object, name: str) -> None:
        """Start an async task within the run."""

    def closed(self, number: int, failure: BaseException | None) -> None:
        """Take note that a lifetime which was open is over."""


class Lifetime:
    """One task of one run that yields once.

    Attributes:
        host: what carries the run out; set before the first attempt.
    """

    __slots__ = (
        "_body_ended",
        "_definition",
        "_done",
        "_failure",
        "_number",
        "_ready",
        "_result",
        "_scope",
        "host",
    )

    host: Host

    def __init__(self, number: int, definition: TaskDef) -> None:
        self._number = number
        self._definition = definition

    async def open(self, *args: Any, **kwargs: Any) -> Any:
        """Carry out one attempt: run the body up to its `yield`, and return what it yields."""
        self._ready = Event()
        self._done = Event()
        self._body_ended = Event()
        self._scope = CancelScope()
        self._result: Any = None
        self._failure: BaseException | None = None
        name = f"portable_sched lifetime {self._definition.name}"
        self.host.spawn(self._live, args, kwargs, name=name)
        try:
            await self._ready.wait()
        except get_cancelled_exc_class():
            # A timeout of the attempt, or the end of the run: the body ends first.
            self._scope.cancel()
            with CancelScope(shield=True):
                await self._body_ended.wait()
            raise
        if self._failure is not None:
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure
        result, self._result = self._result, None
        return result

    def close(self) -> None:
        """Nobody uses it any more: let the body run to its end."""
        self._done.set()

    async def _live(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        opened = False
        failure: BaseException | None = None
        try:
            with self._scope:
                body: AsyncGenerator[Any, None] = self._definition.function(*args, **kwargs)
                try:
                    self._result = await anext(body)
                except StopAsyncIteration:
                    raise LifetimeError(self._definition.name, "did not yield") from None
                opened = True
                # From here on nothing ends the body but its own doing: what uses it goes first.
                self._scope.shield = True
                self._ready.set()
                await self._tear_down(body)
            if opened and self._scope.cancelled_caught:
                raise TaskTimeoutError(self._definition.name, self._limit())  # noqa: TRY301 - one place judges
        except BaseException as error:  # noqa: BLE001 - it goes into the results
            failure = error
        self._body_ended.set()
        if opened:
            self.host.closed(self._number, failure)
        else:
            self._failure = failure
            self._ready.set()
        del failure

    async def _tear_down(self, body: AsyncGenerator[Any, None]) -> None:
        try:
            await self._done.wait()
        except BaseException as error:  # noqa: BLE001 - it belongs to the body
            # A scope or task group that the body has opened was cancelled: the body is to know.
            self._scope.deadline = current_time() + self._limit()
            resumed = body.athrow(error)
        else:
            self._scope.deadline = current_time() + self._limit()
            resumed = anext(body)
        try:
            await resumed
        except StopAsyncIteration:
            return
        raise LifetimeError(self._definition.name, "yielded more than once")

    def _limit(self) -> float:
        return self._definition.timeout or _TEARDOWN

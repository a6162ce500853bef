"""A task that yields once: set-up, a result that others use, and teardown when they are done.

The whole body stays in one async task and one context, inside cancel scopes that are entered
before it and left after it. A scope for the set-up alone would be left while scopes and task groups
that the body has opened are still open, and scopes have to be left in reverse order. So there are
two around all of it: the outer one ends the set-up, and from the `yield` on the inner one is a
shield against it, with the time limit of the teardown.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from anyio import CancelScope, Event, current_time, get_cancelled_exc_class
from anyio.lowlevel import cancel_shielded_checkpoint

from ._backend import event_loop_is_gone
from ._errors import LifetimeError, TaskTimeoutError
from ._tasks import TaskDef
from ._timeouts import within

# Seconds that a teardown may take where the task has no timeout of its own.
_TEARDOWN: Final = 30.0


class Host(Protocol):
    """What carries the run out, as far as a lifetime needs it.

    Attributes:
        interrupted: the run is being cancelled.
    """

    interrupted: bool

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
        body = self._body = _Body(self._number, definition)
        name = f"portable_sched lifetime {definition.name}"
        self.host.spawn(body.live, self.host, args, kwargs, name=name)
        del args, kwargs
        error: BaseException | None = None
        failure: BaseException | None = None
        try:
            try:
                if definition.timeout is None:
                    return await body.opened()
                return await within(definition.timeout, definition.name, "", body.opened)
            except GeneratorExit:
                # The event loop is gone, or the body has ended with that: nothing to wait for.
                raise
            except BaseException as caught:  # noqa: BLE001 - it is raised again below
                error = caught
            # Not in the handler: trio makes the cancellation here, and it would have what we caught
            # as its context. And what the body raised then keeps the context and cause that it has.
            await body.abandon()
            failure = body.take_failure()
            if failure is None or isinstance(failure, get_cancelled_exc_class()):
                raise error
            # What is no `Exception` may have to leave the run, so it is not hidden as a cause.
            if isinstance(error, TaskTimeoutError) and isinstance(failure, Exception):
                raise error from failure
            raise failure
        finally:
            # A traceback leads to this frame, and the frame would lead back to what has it.
            del body, error, failure

    def close(self) -> bool:
        """Nobody uses it any more: let the body run to its end.

        Returns:
            Whether the host will be told by `closed` that it has come there.
        """
        return self._body is not None and self._body.close()

    def forget_the_run(self) -> None:
        """The run is over, and it knows us: let go of it, so that no collector is needed."""
        del self.host
        self._body = None


class _Body:
    """One call of the function, and the async task that it is in from start to end."""

    __slots__ = (
        "_abandoned",
        "_begun",
        "_definition",
        "_done",
        "_ended",
        "_failure",
        "_has_opened",
        "_number",
        "_result",
        "_scope",
        "_set_up_scope",
        "_settled",
    )

    # It has no host: what the body raises leads to it, and the host leads to what the body raised.
    def __init__(self, number: int, definition: TaskDef) -> None:
        self._number = number
        self._definition = definition
        self._set_up_scope = CancelScope()
        self._scope = CancelScope()
        self._begun = False
        self._abandoned = False
        self._has_opened = False
        self._settled = Event()
        self._ended = Event()
        self._result: Any = None
        self._failure: BaseException | None = None
        self._done = Event()

    async def opened(self) -> Any:
        """What the body yields, as soon as it does."""
        await self._settled.wait()
        # What it raises after the `yield`, perhaps in the same turn, is no failure of the set-up.
        failure = None if self._has_opened else self.take_failure()
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
        self._done.set()
        self._set_up_scope.cancel()
        # A task that is cancelled before it has begun may never begin.
        if self._begun:
            with CancelScope(shield=True):
                await self._ended.wait()

    def take_failure(self) -> BaseException | None:
        """What the body raised, the first time that it is asked for."""
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> bool:
        """Nobody uses it any more; answers whether the host is to hear of its end."""
        self._done.set()
        return self._has_opened and not self._abandoned and not self._ended.is_set()

    async def live(self, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The body from start to end."""
        self._begun = True
        if self._abandoned:
            return
        try:
            try:
                with self._set_up_scope, self._scope:
                    body: AsyncGenerator[Any, None] = self._definition.function(*args, **kwargs)
                    del args, kwargs
                    await self._set_up(body)
                    await self._tear_down(body, host)
            except BaseException as error:
                if event_loop_is_gone():
                    # And who waits for us with it.
                    raise
                self._failure = error
            self._see_if_it_was_late()
            self._settled.set()
            # Not before its attempt has ended and all who use it: an end that nobody has asked for
            # (a scope of the body's was cancelled) changes nothing for them.
            if self._has_opened:
                await self._until_done()
            self._ended.set()
            if self._has_opened and not self._abandoned:
                host.closed(self._number, self.take_failure())
        finally:
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

    async def _tear_down(self, body: AsyncGenerator[Any, None], host: Host) -> None:
        cancellation: BaseException | None = None
        try:
            try:
                await self._done.wait()
            except get_cancelled_exc_class() as error:
                # A scope or a task group that the body has opened was cancelled, which the body is
                # to know; or `asyncio.run()` cancels all tasks in one turn, at its end. Then what
                # uses the lifetime goes first, as ever.
                with suppress(get_cancelled_exc_class()):
                    await cancel_shielded_checkpoint()
                if host.interrupted:
                    await self._until_done()
                else:
                    cancellation = error
            self._scope.deadline = current_time() + self._limit()
            try:
                await (anext(body) if cancellation is None else body.athrow(cancellation))
            except StopAsyncIteration:
                return
            await body.aclose()
            raise LifetimeError(self._definition.name, "yielded more than once")
        finally:
            del host, cancellation

    async def _until_done(self) -> None:
        """Wait until nobody uses it any more, whatever is cancelled meanwhile."""
        while not self._done.is_set():
            with suppress(get_cancelled_exc_class()), CancelScope(shield=True):
                await self._done.wait()

    def _see_if_it_was_late(self) -> None:
        """Make a failure of a teardown that took too long."""
        if not self._has_opened or current_time() < self._scope.deadline:
            return
        # What is no `Exception` may have to leave the run.
        cancellation = get_cancelled_exc_class()
        if self._failure is None or isinstance(self._failure, (Exception, cancellation)):
            late = TaskTimeoutError(self._definition.name, self._limit(), "It was in its teardown.")
            late.__cause__, self._failure = self._failure, late

    def _limit(self) -> float:
        return self._definition.timeout or _TEARDOWN

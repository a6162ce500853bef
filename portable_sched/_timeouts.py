"""The time that one attempt may take."""

import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from anyio import CancelScope, current_time

from ._errors import TaskTimeoutError

# Of the attempt that has a timeout.
_SCOPE: Final[ContextVar[CancelScope]] = ContextVar("portable_sched.timeout")


async def within(
    seconds: float,
    name: str,
    remark: str,
    function: Callable[..., Coroutine[Any, Any, Any]],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """What `function` returns, if it does within so many `seconds`.

    It is late if it ends after that, also where it swallowed the cancellation or, never having
    waited, was not asked to stop. What it raised before its time is its own, a `TimeoutError` too.

    Raises:
        TaskTimeoutError: it was late; what it raised then is the cause.
    """
    scope = CancelScope(deadline=current_time() + seconds)
    _SCOPE.set(scope)
    result: Any = None
    failure: Exception | None = None
    attempt = function(*args, **kwargs)
    # What it was given is its own, to be let go of when it wants.
    del args, kwargs
    with scope:
        try:
            result = await attempt
        except Exception as error:  # noqa: BLE001 - raised again below, unless it came too late
            failure = error
    try:
        if scope.cancel_called or current_time() >= scope.deadline:
            raise TaskTimeoutError(name, seconds, remark) from failure
        if failure is not None:
            raise failure
        return result
    finally:
        # An exception that knows a frame that knows the exception is a cycle.
        del failure, attempt


def time_left() -> float:
    """The seconds that the current attempt still has; it has to have a timeout."""
    return _SCOPE.get().deadline - current_time()


def restart(seconds: float | None) -> None:
    """The time of the current attempt begins now; None where it has none."""
    if seconds is not None:
        _move_deadline(current_time() + seconds)


@contextmanager
def time_stopped(seconds: float | None) -> Iterator[None]:
    """The time of the current attempt does not run meanwhile, and begins anew after that."""
    if seconds is not None:
        _move_deadline(math.inf)
    try:
        yield
    finally:
        restart(seconds)


def _move_deadline(deadline: float) -> None:
    scope = _SCOPE.get()
    # What is late stays late.
    if not scope.cancel_called:
        scope.deadline = deadline

"""The time that one attempt may take."""

from collections.abc import Callable, Coroutine
from typing import Any

from anyio import CancelScope, current_time

from ._errors import TaskTimeoutError


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
    deadline = current_time() + seconds
    result: Any = None
    failure: Exception | None = None
    attempt = function(*args, **kwargs)
    # What it was given is its own, to be let go of when it wants.
    del args, kwargs
    with CancelScope(deadline=deadline):
        try:
            result = await attempt
        except Exception as error:  # noqa: BLE001 - raised again below, unless it came too late
            failure = error
    try:
        if current_time() >= deadline:
            raise TaskTimeoutError(name, seconds, remark) from failure
        if failure is not None:
            raise failure
        return result
    finally:
        # An exception that knows a frame that knows the exception is a cycle.
        del failure, attempt

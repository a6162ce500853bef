"""Where an attempt runs, and with what: in the event loop or in a thread, with its arguments."""

import inspect
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from types import FunctionType, coroutine
from typing import Any, Final

from anyio import CapacityLimiter, get_cancelled_exc_class, to_thread

from ._log import logger
from ._tasks import TaskDef
from ._timeouts import within

_ABANDONED: Final = "It is in a thread, which cannot be stopped and goes on by itself."

# Compared with what an attempt yields: no event loop's futures are equal to it.
ENDED: Final = object()
"""What `attempts_in` yields for an attempt that has ended."""

Entry = Callable[..., Coroutine[Any, Any, Any]]
"""What is called to get the coroutine that is one attempt of a task."""

Argument = tuple[str | None, Callable[[], Any]]
"""The name of a parameter (None for the next positional one), and what gets its value."""


def entry_of(definition: TaskDef) -> tuple[Entry, bool]:
    """The entry of a task that is no lifetime, and whether its attempts hold a thread."""
    function = definition.function
    entry: Entry
    if definition.is_async():
        in_thread = False
        entry = function if type(function) is FunctionType else partial(_call, function)
    else:
        in_thread = True
        entry = partial(_call_in_thread, definition.name, function)
    if definition.timeout is not None:
        remark = _ABANDONED if in_thread else ""
        entry = partial(within, definition.timeout, definition.name, remark, entry)
    return entry, in_thread


def with_results(entry: Entry, numbers: tuple[int, ...], results: list[Any]) -> Entry:
    """An entry that passes the results of other tasks, by position."""
    return partial(_call_with_results, entry, numbers, results)


def _call_with_results(
    entry: Entry, numbers: tuple[int, ...], results: list[Any]
) -> Coroutine[Any, Any, Any]:
    if len(numbers) == 1:
        return entry(results[numbers[0]])
    return entry(*[results[number] for number in numbers])


def filled(entry: Entry, arguments: Sequence[Argument], given: Callable[[], None] | None) -> Entry:
    """An entry that gets the values of its arguments anew for each attempt.

    Args:
        entry: what is called with them.
        arguments: the positional ones in their order.
        given: called once it has them.
    """
    return partial(_call_with, arguments, given, entry)


def _call_with(
    arguments: Sequence[Argument], given: Callable[[], None] | None, entry: Entry
) -> Coroutine[Any, Any, Any]:
    attempt = entry(
        *[value() for name, value in arguments if name is None],
        **{name: value() for name, value in arguments if name is not None},
    )
    if given is not None:
        given()
    return attempt


# Positional-only, here and wherever a function's arguments pass through: a parameter of the user's
# may be called `task` or `function` too.
async def _call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    attempt = function(*args, **kwargs)
    del args, kwargs
    return await attempt


async def _call_in_thread(
    task: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    call = partial(function, *args, **kwargs)
    del args, kwargs
    # A limiter of its own: how many threads there are is for the run to decide, and anyio's 40 are
    # shared by the whole process (`test_sixty_plain_functions_that_wait_for_each_other_all_start`).
    try:
        outcome = await to_thread.run_sync(
            _outcome_of, call, abandon_on_cancel=True, limiter=CapacityLimiter(1)
        )
    except get_cancelled_exc_class():
        logger().warning(
            "Task %r was cancelled, by its timeout or with its run. %s", task, _ABANDONED
        )
        raise
    del call
    returned, error = outcome
    # trio's thread has a frame that holds the outcome, and a traceback leads to that frame.
    outcome.clear()
    if error is not None:
        raise error
    # A wrapper may hide an `async def` behind a plain function.
    return await returned if inspect.isawaitable(returned) else returned


def _outcome_of(function: Callable[[], Any]) -> list[Any]:
    """What `function` returned and what it raised.

    In a list, since trio refuses a coroutine that a thread returns, and so that what it raised
    has not the traceback of the whole way here.
    """
    try:
        return [function(), None]
    except BaseException as error:  # noqa: BLE001 - it is raised again in the event loop
        return [None, error]


@coroutine
def attempts_in(box: list[Any]) -> Generator[Any, Any, None]:
    """Step attempts for a worker: send an entry, and get what the attempt yields, then `ENDED`.

    How it ended is in the box by then: what it returned in the first place, or what it raised in
    the second. Stepping the coroutine in the worker itself would say the same by a `StopIteration`,
    which costs 0.2 µs a task to raise and to catch.
    """
    entry: Any = None
    try:
        entry = yield ENDED
        while True:
            try:
                box[0] = yield from entry()
            except BaseException as error:  # noqa: BLE001 - it goes into the results
                box[1] = error
            entry = yield ENDED
    finally:
        # Tracebacks lead to this frame too, and an entry with arguments or hooks to the results.
        del entry

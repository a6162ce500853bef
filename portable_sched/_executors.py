"""Where an attempt runs, and with what: event loop, thread or executor, with its arguments."""

import inspect
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from types import FunctionType, coroutine
from typing import TYPE_CHECKING, Any, Final

from anyio import CapacityLimiter, get_cancelled_exc_class, to_thread

from ._backend import backend_name
from ._envelope import Call, Sent, carried, result_of
from ._log import logger
from ._tasks import TaskDef
from ._timeouts import within

if TYPE_CHECKING:
    # Imported where there is a task for it: most programs have none.
    from ._pool import Pool

_ABANDONED: Final = "It is in a thread, which cannot be stopped and goes on by itself."

# Compared with what an attempt yields: no event loop's futures are equal to it.
ENDED: Final = object()
"""What `attempts_in` yields for an attempt that has ended."""

Entry = Callable[..., Coroutine[Any, Any, Any]]
"""What is called to get the coroutine that is one attempt of a task."""

Argument = tuple[str | None, Callable[[], Any]]
"""The name of a parameter (None for the next positional one), and what gets its value."""


Fetched = Mapping[int | str, tuple["Pool", str]]
"""Of the arguments that may come as handles, by position and by name, where the values are, and the
name of the task whose result it is."""


def entry_of(
    definition: TaskDef, pool: "Pool | None", *, keep: bool = False, fetched: Fetched
) -> Entry:
    """The entry of a task that is no lifetime.

    Args:
        definition: the task.
        pool: the executor that its attempts run in; None for the event loop and its threads.
        keep: whether its result may stay there.
        fetched: which arguments are to be fetched.
    """
    function = definition.function
    remark = ""
    entry: Entry
    if pool is not None:
        entry = partial(_call_in_pool, pool, definition, Sent(function), backend_name(), keep)
    elif definition.needs_thread():
        remark = _ABANDONED
        if definition.is_async():
            function = partial(_call_in_event_loop, function, backend_name())
        entry = partial(_call_in_thread, definition.name, function)
    else:
        entry = function if type(function) is FunctionType else partial(_call, function)
    if fetched:
        entry = fetching(entry, definition, fetched)
    if definition.timeout is not None:
        entry = partial(within, definition.timeout, definition.name, remark, entry)
    return entry


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


def fetching(entry: Entry, definition: TaskDef, fetched: Fetched) -> Entry:
    """An entry that gets values in place of handles.

    Args:
        entry: what is called with them.
        definition: the task.
        fetched: which arguments are to be fetched.
    """
    return partial(_call_fetching, definition.name, fetched, entry)


async def _call_fetching(
    task: str, fetched: Fetched, entry: Entry, /, *args: Any, **kwargs: Any
) -> Any:
    async def value(at: int | str, given: Any) -> Any:
        if at not in fetched:
            return given
        pool, producer = fetched[at]
        return await pool.fetch(given, producer, task)

    values = [await value(at, given) for at, given in enumerate(args)]
    named = {name: await value(name, given) for name, given in kwargs.items()}
    attempt = entry(*values, **named)
    del args, kwargs, values, named
    return await attempt


# Positional-only, here and wherever a function's arguments pass through: a parameter of the user's
# may be called `task` or `function` too.
async def _call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    attempt = function(*args, **kwargs)
    del args, kwargs
    return await attempt


def _call_in_pool(
    pool: "Pool",
    definition: TaskDef,
    function: Sent,
    backend: str,
    keep: bool,  # noqa: FBT001 - as above
    /,
    *args: Any,
    **kwargs: Any,
) -> Coroutine[Any, Any, Any]:
    names = (*[None] * len(args), *kwargs)
    urgency = definition.priority.value
    call = Call(definition.name, function, urgency, names, backend, carried())
    return pool.call(call, (*args, *kwargs.values()), definition, keep=keep)


def _call_in_event_loop(
    function: Callable[..., Any], backend: str, /, *args: Any, **kwargs: Any
) -> Any:
    return result_of(function(*args, **kwargs), backend)


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

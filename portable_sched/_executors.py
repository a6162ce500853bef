"""Where an attempt runs: in the event loop, or in a thread."""

import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import FunctionType, TracebackType
from typing import Any, Final

from anyio import CancelScope, CapacityLimiter, current_time, to_thread

from ._errors import TaskTimeoutError
from ._lifetimes import Lifetime
from ._tasks import TaskDef

_logger: Final = logging.getLogger("portable_sched")

Entry = Callable[..., Coroutine[Any, Any, Any]]
"""What is called to get the coroutine that is one attempt of a task."""


Argument = tuple[str | None, Callable[[], Any]]
"""The name of a parameter (None for the next positional one), and what gets its value."""


def entries_of(
    tasks: Sequence[TaskDef],
) -> tuple[list[Entry], list[bool], dict[int, Lifetime]]:
    """The entry of each task, whether its attempts hold a thread, and the lifetimes by number."""
    lifetimes: dict[int, Lifetime] = {}
    entries: list[Entry] = []
    needs_thread = [False] * len(tasks)
    for number, definition in enumerate(tasks):
        function = definition.function
        entry: Entry
        # A plain `async def`, as nearly all are, is its own entry.
        if type(function) is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:
            entry = function
        elif definition.is_lifetime():
            lifetimes[number] = Lifetime(number, definition)
            entry = lifetimes[number].open
        elif definition.is_async():
            entry = partial(_call, function)
        else:
            entry = partial(_call_in_thread, function)
            needs_thread[number] = True
        if definition.timeout is not None:
            entry = partial(_within, definition.timeout, definition.name, entry)
        entries.append(entry)
    return entries, needs_thread, lifetimes


def fill(entry: Entry, arguments: Sequence[Argument]) -> Entry:
    """An entry that gets the values of its arguments anew for each attempt."""
    return partial(_call_with, arguments, entry)


def _call_with(arguments: Sequence[Argument], entry: Entry) -> Coroutine[Any, Any, Any]:
    return entry(
        *[value() for name, value in arguments if name is None],
        **{name: value() for name, value in arguments if name is not None},
    )


async def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await function(*args, **kwargs)


async def _call_in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # In a list, since trio refuses a coroutine that a thread returns.
    # A limiter of its own: how many threads there are is for the run to decide, and anyio's 40 are
    # shared by the whole process (`test_sixty_plain_functions_that_wait_for_each_other_all_start`).
    [returned] = await to_thread.run_sync(
        lambda: [function(*args, **kwargs)], abandon_on_cancel=True, limiter=CapacityLimiter(1)
    )
    # A wrapper may hide an `async def` behind a plain function.
    return await returned if inspect.isawaitable(returned) else returned


async def _within(seconds: float, name: str, entry: Entry, *args: Any, **kwargs: Any) -> Any:
    """One attempt that may take so many `seconds`.

    It is late if it ends after that, also where it swallowed the cancellation or, never having
    waited, was not asked to stop. What it raised before its time is its own, a `TimeoutError` too.
    """
    deadline = current_time() + seconds
    result: Any = None
    failure: Exception | None = None
    with CancelScope(deadline=deadline):
        try:
            result = await entry(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised again below, unless it came too late
            failure = error
    try:
        if current_time() >= deadline:
            raise TaskTimeoutError(name, seconds) from failure
        if failure is not None:
            raise failure
        return result
    finally:
        # An exception that knows a frame that knows the exception is a cycle.
        del failure


AttemptHook = Callable[[TaskDef, int], AbstractAsyncContextManager[object]]
"""What is entered around each attempt of each task: `hook(definition, attempt)`."""


def hooked(
    entry: Entry,
    hooks: Sequence[AttemptHook],
    definition: TaskDef,
    attempt: Callable[[], int],
    muted: set[AttemptHook],
) -> Entry:
    """An entry around which the hooks are entered, the first one outermost.

    Args:
        entry: what is called for an attempt.
        hooks: what is entered around it.
        definition: the task.
        attempt: gives the number of the attempt that is beginning.
        muted: hooks that have raised in this run, and are not logged again.
    """
    return partial(_call_hooked, entry, hooks, definition, attempt, muted)


async def _call_hooked(
    entry: Entry,
    hooks: Sequence[AttemptHook],
    definition: TaskDef,
    attempt: Callable[[], int],
    muted: set[AttemptHook],
    *args: Any,
    **kwargs: Any,
) -> Any:
    async with AsyncExitStack() as stack:
        for hook in hooks:
            await stack.enter_async_context(_Guarded(hook, definition, attempt(), muted))
        return await entry(*args, **kwargs)


class _Guarded:
    """A hook that can watch an attempt and cannot change how it ends.

    What it raises by itself is logged, and what the attempt raises passes it by.
    """

    def __init__(
        self, hook: AttemptHook, definition: TaskDef, attempt: int, muted: set[AttemptHook]
    ) -> None:
        self._hook = hook
        self._muted = muted
        self._definition = definition
        self._attempt = attempt
        self._entered: AbstractAsyncContextManager[object] | None = None

    async def __aenter__(self) -> None:
        try:
            manager = self._hook(self._definition, self._attempt)
            await manager.__aenter__()
            self._entered = manager
        except Exception as error:  # noqa: BLE001 - a hook's, and no business of the run
            self._log(error)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._entered is None:
            return
        try:
            await self._entered.__aexit__(exc_type, exc_value, traceback)
        except Exception as error:  # noqa: BLE001 - a hook's, and no business of the run
            # A context manager may well raise the attempt's own exception again.
            if error is not exc_value:
                self._log(error)

    def _log(self, error: Exception) -> None:
        if self._hook in self._muted:
            return
        self._muted.add(self._hook)
        _logger.error(
            "Hook %r raised around attempt %d of task %r; what else it raises is not logged.",
            self._hook,
            self._attempt,
            self._definition.name,
            exc_info=error,
        )

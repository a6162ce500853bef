"""Where an attempt runs: in the event loop, or in a thread."""

import inspect
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import FunctionType, TracebackType
from typing import Any

from anyio import CapacityLimiter, to_thread

from ._tasks import TaskDef

Entry = Callable[[], Coroutine[Any, Any, Any]]
"""What is called to get the coroutine that is one attempt of a task."""


def entries_of(tasks: Sequence[TaskDef]) -> tuple[list[Entry], list[bool]]:
    """The entry of each task, and whether its attempts hold a thread."""
    entries: list[Entry] = []
    needs_thread = [False] * len(tasks)
    for number, definition in enumerate(tasks):
        function = definition.function
        # A plain `async def`, as nearly all are, is its own entry.
        if type(function) is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:
            entries.append(function)
        elif definition.is_async():
            entries.append(partial(_call, function))
        else:
            entries.append(partial(_call_in_thread, function))
            needs_thread[number] = True
    return entries, needs_thread


async def _call(function: Callable[[], Any]) -> Any:
    return await function()


async def _call_in_thread(function: Callable[[], Any]) -> Any:
    # A limiter of its own: how many threads there are is for the run to decide, and anyio's 40 are
    # shared by the whole process (`test_sixty_plain_functions_that_wait_for_each_other_all_start`).
    outcome = await to_thread.run_sync(
        _outcome_of, function, abandon_on_cancel=True, limiter=CapacityLimiter(1)
    )
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


def from_the_users_function(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this module that it begins with."""
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    return traceback

"""What is entered around each attempt: a user's context managers, for tracing and the like."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any

from ._executors import Entry
from ._log import logger
from ._tasks import TaskDef

AttemptHook = Callable[[TaskDef, int], AbstractAsyncContextManager[object]]
"""What is entered around each attempt of each task: `hook(definition, attempt)`."""


def hooked(
    entry: Entry,
    hooks: Sequence[AttemptHook],
    definition: TaskDef,
    attempt: Callable[[], int],
    muted: set[int],
) -> Entry:
    """An entry around which the hooks are entered, the first one outermost.

    Args:
        entry: what is called for an attempt.
        hooks: what is entered around it.
        definition: the task.
        attempt: gives the number of the attempt that is beginning, from 1.
        muted: places of the hooks that have raised in this run, and are not logged again.
    """
    for at, hook in reversed(list(enumerate(hooks))):
        entry = partial(_call_hooked, entry, hook, at, definition, attempt, muted)
    return entry


async def _call_hooked(  # noqa: PLR0917 - called through a partial, which passes them in order
    entry: Entry,
    hook: AttemptHook,
    at: int,
    definition: TaskDef,
    attempt: Callable[[], int],
    muted: set[int],
) -> Any:
    try:
        async with _Guarded(hook, at, definition, attempt(), muted):
            return await entry()
    finally:
        # A traceback leads to this frame, and these would lead back to the record that has it.
        del entry, attempt


class _Guarded:
    """A hook that can watch an attempt and cannot change how it ends.

    What it raises by itself is logged, and what the attempt raises passes it by.
    """

    def __init__(
        self, hook: AttemptHook, at: int, definition: TaskDef, attempt: int, muted: set[int]
    ) -> None:
        self._hook = hook
        self._at = at
        self._definition = definition
        self._attempt = attempt
        self._muted = muted
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
            # A context manager may well raise the attempt's own exception again, and a task group
            # in it does so in a group.
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
                cause = cause.exceptions[0]
            if cause is not exc_value:
                self._log(error)
            del cause
        finally:
            if exc_value is not None:
                # Without the hook's frames: they are no part of what the attempt raised, and some
                # of them know the exception.
                exc_value.with_traceback(traceback)
            del exc_value, traceback

    def _log(self, error: Exception) -> None:
        if self._at in self._muted:
            return
        self._muted.add(self._at)
        logger().error(
            "Hook %r raised around attempt %d of task %r; what else it raises in this run is not "
            "logged.",
            self._hook,
            self._attempt,
            self._definition.name,
            exc_info=error,
        )

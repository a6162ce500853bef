"""What is entered around each attempt: a user's context managers, for tracing and the like."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
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
    return partial(_call_hooked, entry, hooks, definition, attempt, muted)


async def _call_hooked(
    entry: Entry,
    hooks: Sequence[AttemptHook],
    definition: TaskDef,
    attempt: Callable[[], int],
    muted: set[int],
) -> Any:
    async with AsyncExitStack() as stack:
        for at, hook in enumerate(hooks):
            guarded = _Guarded(hook, at, definition, attempt(), muted)
            await stack.enter_async_context(guarded)
        return await entry()


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
            # A context manager may well raise the attempt's own exception again.
            if error is not exc_value:
                self._log(error)
        finally:
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

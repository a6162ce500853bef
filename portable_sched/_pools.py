"""The executors of one run: there when they are first asked for, and shut down at its end."""

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from anyio import CancelScope, current_time, get_cancelled_exc_class

from ._backend import event_loop_is_gone
from ._capacity import nobody
from ._log import logger
from ._pool import Pool
from ._standard_executors import executors_of
from ._tasks import THREAD, TaskDef

# Seconds that they may take to shut down, and after which it is said what the run waits for.
_SHUTDOWN: Final = 30.0
_SAID: Final = 10.0


class Pools:
    """The executors of one run, each there when it is first asked for, and closed at its end.

    Args:
        executors: they, or what makes them, by name, beside those that need no set-up.
        known: how many workers those have that earlier runs have opened; it is added to.
    """

    __slots__ = ("_executors", "_known", "_pools")

    def __init__(self, executors: Mapping[str, Any], known: dict[str, int | None]) -> None:
        self._executors = executors_of(executors)
        self._known = known
        self._pools: dict[str, Pool] = {}

    def __getitem__(self, name: str) -> Pool:
        pool = self._pools.get(name)
        if pool is None:
            # One at a time, until it has been opened and can be asked.
            workers = self._known.get(name, 1)
            pool = self._pools[name] = Pool(name, self._executors[name], workers)
        return pool

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def of(self, definition: TaskDef) -> Pool | None:
        """Where the attempts of a task run; None for the event loop and its threads."""
        name = definition.executor
        return None if name is None or name == THREAD else self[name]

    async def __aenter__(self) -> Self:
        for pool in self:
            pool.supply.begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pool in self:
            if pool.capacity.is_known:
                self._known[pool.name] = pool.capacity.workers
            # It leads to the run.
            pool.capacity.tell = nobody
        # A coroutine may be closed, and not cancelled.
        is_gone = event_loop_is_gone()
        ends = {pool.name: pool.supply.end(at_once=is_gone) for pool in self}
        if is_gone:
            return
        cancelled: BaseException | None = None
        limit = current_time() + _SHUTDOWN
        pause = current_time() + _SAID
        while current_time() < limit and not all(ended.is_set() for ended in ends.values()):
            try:
                with CancelScope(deadline=min(pause, limit), shield=True):
                    for ended in ends.values():
                        await ended.wait()
            except get_cancelled_exc_class() as again:
                # asyncio's own, against which there is no shield. It goes on when all has ended.
                cancelled = again
            waiting = [repr(pool.name) for pool in self if not ends[pool.name].is_set()]
            if waiting and pause <= current_time() < limit:
                pause = limit
                logger().warning(
                    "The run waits for its executors to shut down, up to %d s: %s.",
                    *(_SHUTDOWN, ", ".join(waiting)),
                )
        for pool in self:
            if ends[pool.name].is_set():
                pool.supply.join()
                continue
            what = "opened" if pool.supply.is_opening() else "shut down"
            logger().warning(
                "The executor %r has not %s within %d s, and goes on by itself.",
                *(pool.name, what, _SHUTDOWN),
            )
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                # An exception that knows a frame that knows the exception is a cycle.
                del cancelled

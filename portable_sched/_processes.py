"""The processes of `executor="process"`: one pool for each worker, so that they die one by one.

A pool of the standard library breaks as a whole when a process of it dies or is ended, and calls
that had no part in it are lost. So each worker has a pool to itself: a call that dies takes nobody
along, and one that nobody waits for any more can be ended by ending its process.

Workers are spawned. To fork a program with threads and an event loop may leave it with locks that
nobody releases, and Python warns of it. anyio has workers of its own, but they outlive the run,
and what functions print is lost in them.
"""

import os
import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Condition, Thread
from typing import Any

from ._any_executor import end_processes
from ._checks import shown

_Work = tuple[Future[Any], Callable[[], Any]]


class ProcessExecutor(Executor):
    """Carries out calls in processes, which are started when they are needed.

    Args:
        workers: how many processes there may be at one time.

    Attributes:
        workers: the same.
        isolates: a worker that dies breaks its own call alone.

    Raises:
        TypeError, ValueError: `workers` is no whole number of at least 1.
    """

    isolates = True

    def __init__(self, workers: int) -> None:
        message = f"Expected workers to be a whole number of at least 1, got {shown(workers)}."
        if type(workers) is not int:
            raise TypeError(message)
        if workers < 1:
            raise ValueError(message)
        self.workers = workers
        # Guards all of the below; told whenever a call has ended.
        self._changed = Condition()
        self._waiting: deque[_Work] = deque()
        # The pools of those that wait for a call, the one that had one last at the end.
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[Any], ProcessPoolExecutor] = {}
        # Those whose process has died or been ended.
        self._dead: set[ProcessPoolExecutor] = set()
        self._is_shut_down = False
        self._is_awaited = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of the call `fn(*args, **kwargs)`, as of every executor.

        Raises:
            RuntimeError: it has been shut down.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append((future, partial(fn, *args, **kwargs)))
            self._hand_out()
        return future

    def stop(self, future: Future[Any]) -> bool:
        """End the process in which a call is running; answers whether it was."""
        with self._changed:
            pool = self._busy.get(future)
            if pool is None:
                return False
            # Dead from here on, also where the call has ended in this very moment.
            self._dead.add(pool)
            end_processes(pool)
            return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as the class above has it
        """Take no more calls, and end the processes as soon as those that there are have ended.

        Args:
            wait: until then.
            cancel_futures: whether the calls that have not begun are cancelled.
        """
        with self._changed:
            self._is_shut_down = True
            self._is_awaited = wait
            cancelled = [future for future, _ in self._waiting] if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
        for future in cancelled:
            future.cancel()
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: not (self._waiting or self._busy))
            pools = [*self._idle, *self._dead]
            self._idle.clear()
        for pool in pools:
            # Once: after the first time there is no waiting for its end.
            pool.shutdown(wait=wait)

    def _hand_out(self) -> None:
        """Have calls begin, as far as there are workers."""
        while self._waiting and len(self._busy) < self.workers:
            future, call = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            pool = self._idle.pop() if self._idle else _new_pool()
            try:
                inner = pool.submit(call)
            except BrokenExecutor:
                # It died while it had nothing to do.
                self._dead.add(pool)
                pool = _new_pool()
                inner = pool.submit(call)
            self._busy[future] = pool
            inner.add_done_callback(partial(self._end, future))

    def _end(self, future: Future[Any], inner: Future[Any]) -> None:
        """In the pool's own thread: a call has ended."""
        error = inner.exception()
        with self._changed:
            pool = self._busy.pop(future)
            if isinstance(error, BrokenExecutor):
                self._dead.add(pool)
            elif pool not in self._dead:
                self._idle.append(pool)
            self._hand_out()
            if self._is_shut_down and not self._is_awaited:
                while self._idle:
                    self._idle.pop().shutdown(wait=False)
            self._changed.notify_all()
        # Now, so that whoever hears of it finds a worker for the next.
        if error is None:
            future.set_result(inner.result())
        else:
            future.set_exception(error)


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In a new worker: it lives as long as who has started it, and no longer."""
    # Ctrl-C reaches all processes of a terminal. It is for the program to say what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, name="portable_sched parent watch", daemon=True).start()


def _end_with_parent() -> None:
    parent: Any = parent_process()
    parent.join()
    os._exit(1)  # pragma: no cover - it ends the process that would note it

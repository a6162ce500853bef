"""The processes of `executor="process"`: one pool for each worker, so that they die one by one.

A pool of the standard library breaks as a whole when a process of it dies or is ended, and calls
that had no part in it are lost. So each worker has a pool to itself: a call that dies takes nobody
along, and one that nobody waits for any more can be ended by ending its process.

Workers are spawned. To fork a program with threads and an event loop may leave it with locks that
nobody releases, and Python warns of it. anyio has workers of its own, but they outlive the run,
and what functions print is lost in them.

Each worker leads a group of processes: what a function starts belongs to it, and is ended with it
where it is ended or dies. Else it would hold the pipes by which a pool hears of a death. A worker
that ends as it should leaves them alone.

A pool calls us in its own thread, and from Python 3.12 on with its lock held when it breaks. So
nothing here waits for a pool while it holds what a pool may wait for, and a pool that ends is kept
until its thread has ended: it takes that lock too when nobody knows it any more.
"""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Condition, Event, Thread
from time import monotonic
from typing import Any, Final

from ._any_executor import (
    PATIENCE,
    WorkerEnded,
    close_own_writer,
    end_processes,
    found_twice,
    has_died,
    is_broken,
    kill,
    processes_of,
    tell_of_late_ones,
)
from ._checks import shown

# Seconds that a process may take to be gone whose pool has heard of its end.
_MOMENT: Final = 0.2

# Seconds after which a worker looks whether its parent lives, where the parent cannot tell.
_LOOK: Final = 1.0

_WATCH: Final = "portable_sched process watch"

# The pools that end and their processes, by the pools' threads: some of them belong to executors
# that nobody has any more.
_ending: dict[Thread, tuple[Any, list[Any]]] = {}

# Of one that has ended in this very moment.
_ENDED: Final[tuple[Any, list[Any]]] = (None, [])


class _Future(Future[Any]):
    """The future of a call, which tells when that has begun.

    Attributes:
        begun: done when a worker has the call, and has started. By itself, since the worker knows
            it as long as it lives, and is not to hold the result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun: Future[None] = Future()

    def when_begun(self, told: Callable[[Future[Any]], object]) -> None:
        """Have `told` called, in any thread, once the call has begun or will not begin any more."""
        self.begun.add_done_callback(told)
        self.add_done_callback(told)


_Work = tuple[_Future, Callable[[], Any]]


class _Worker(ProcessPoolExecutor):
    """The pool of one worker, which begins to start.

    Attributes:
        is_up: done when the worker is there, or has failed to start.
    """

    def __init__(self) -> None:
        super().__init__(1, mp_context=get_context("spawn"), initializer=_begin)
        try:
            with _ctrl_c_blocked():
                self.is_up: Future[None] = self.submit(_do_nothing)
        except BaseException:
            # The process may be there, and the thread that knows of it not.
            end_processes(self)
            self.shutdown(wait=False)
            raise
        close_own_writer(self)


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
        self._idle: list[_Worker] = []
        self._busy: dict[Future[Any], _Worker] = {}
        # Those of them whose process has been ended.
        self._stopped: set[ProcessPoolExecutor] = set()
        # The threads of the pools that end.
        self._threads: list[Thread] = []
        self._is_shut_down = False
        # Set when all has ended.
        self._is_over = Event()
        self._watch: Thread | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of the call `fn(*args, **kwargs)`, as of every executor.

        Where a process cannot be started for it, the future says why.

        Raises:
            RuntimeError: it has been shut down.
        """
        future = _Future()
        with self._changed:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append((future, partial(fn, *args, **kwargs)))
            then = self._hand_out()
        for follow in then:
            follow()
        return future

    def stop(self, future: Future[Any]) -> bool:
        """End the process in which a call is running; answers whether the call is over by that."""
        with self._changed:
            pool = self._busy.get(future)
            if pool is None:
                # It may have ended in this very moment, and be about to tell.
                return future.running()
            # There are no more calls for it, also where this one has ended in this very moment.
            self._stopped.add(pool)
            return _end_group(pool)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as the class above has it
        """Take no more calls, and end the processes as soon as those that there are have ended.

        Args:
            wait: until then.
            cancel_futures: whether the calls that have not begun are cancelled.
        """
        with self._changed:
            self._is_shut_down = True
            cancelled = [future for future, _ in self._waiting] if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            self._dismiss_idle()
            self._note_if_over()
        for future in cancelled:
            future.cancel()
        if wait:
            with self._changed:
                self._changed.wait_for(lambda: not (self._waiting or self._busy))
                threads = [*self._threads]
            limit = monotonic() + PATIENCE
            for thread in threads:
                thread.join(max(0.0, limit - monotonic()))
                if thread.is_alive():
                    tell_of_late_ones()
                    _kill_group(_ending.get(thread, _ENDED)[1])
                    thread.join()
            self._threads.clear()
            if self._watch is not None:
                self._watch.join()
            _forget_ended()

    def _hand_out(self) -> list[Callable[[], None]]:
        """Have calls begin, as far as there are workers.

        Returns:
            what is to follow without the lock, since it may call what others have written.
        """
        then: list[Callable[[], None]] = []
        while self._waiting and len(self._busy) < self.workers:
            future, call = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                pool, inner = self._begun(call)
            except Exception as error:  # noqa: BLE001 - whatever keeps a process from starting
                # Without its way, which leads to the future that is to have it.
                then.append(partial(future.set_exception, error.with_traceback(None)))
                continue
            self._busy[future] = pool
            then.append(partial(pool.is_up.add_done_callback, partial(_begin_call, future.begun)))
            then.append(partial(inner.add_done_callback, partial(self._end, future)))
        return then

    def _begun(self, call: Callable[[], Any]) -> tuple[_Worker, Future[Any]]:
        while self._idle:
            pool = self._idle.pop()
            # It may have died while it had nothing to do, and the pool may be about to notice.
            if not _is_dead(pool):
                with suppress(BrokenExecutor):
                    inner = pool.submit(call)
                    # Python 3.11 takes calls while a pool breaks, and may forget them.
                    if not (is_broken(pool) and inner.cancel()):
                        return pool, inner
            self._note_end(pool)
        if self._watch is None:
            self._watch = Thread(target=self._end_what_is_left, name=_WATCH, daemon=True)
            self._watch.start()
        pool = _Worker()
        try:
            return pool, pool.submit(call)
        except BaseException:
            # It may have died by now.
            self._note_end(pool)
            raise

    def _end_what_is_left(self) -> None:
        """In a thread: end what workers have started of whose death their pools do not hear.

        As long as that lives it holds the pipes by which they would.
        """
        for pool in found_twice(self._with_the_dead, self._is_over):
            _end_group(pool)

    def _with_the_dead(self) -> list[ProcessPoolExecutor]:
        """The pools that have a call and no process that lives."""
        with self._changed:
            busy = [*self._busy.values()]
        return [pool for pool in busy if _is_dead(pool)]

    def _note_if_over(self) -> None:
        if self._is_shut_down and not (self._waiting or self._busy):
            self._is_over.set()

    def _end(self, future: Future[Any], inner: Future[Any]) -> None:
        """In a thread of the pool: a call has ended."""
        error = inner.exception()
        if isinstance(error, BrokenExecutor) and is_broken(self._busy[future]):
            error = _ended(self._busy[future], error)
        with self._changed:
            pool = self._busy.pop(future)
            if isinstance(error, BrokenExecutor) or pool in self._stopped:
                self._stopped.discard(pool)
                # It may live: a pool breaks too where it cannot load what the worker has sent.
                end_processes(pool)
                self._note_end(pool)
            else:
                self._idle.append(pool)
            then = self._hand_out()
            if self._is_shut_down:
                self._dismiss_idle()
            self._note_if_over()
            self._changed.notify_all()
        # Now, so that whoever hears of it finds a worker for the next.
        if error is None:
            future.set_result(inner.result())
        else:
            future.set_exception(error)
        for follow in then:
            follow()

    def _dismiss_idle(self) -> None:
        """End those that wait for a call, all at the same time."""
        while self._idle:
            pool = self._idle.pop()
            self._note_end(pool)
            pool.shutdown(wait=False)

    def _note_end(self, pool: ProcessPoolExecutor) -> None:
        """Keep a pool that is about to end until it has."""
        _forget_ended()
        thread: Any = pool._executor_manager_thread  # noqa: SLF001 - `shutdown()` waits for it only once, and not for others meanwhile
        _ending[thread] = pool, processes_of(pool)
        self._threads = [*filter(Thread.is_alive, self._threads), thread]


def _forget_ended() -> None:
    # A pool has some files open as long as somebody knows it.
    for thread in list(_ending):
        if not thread.is_alive():
            _ending.pop(thread, None)


def _is_dead(pool: ProcessPoolExecutor) -> bool:
    return any(map(has_died, processes_of(pool)))


def _end_group(pool: ProcessPoolExecutor) -> bool:
    """End a worker and what it has started; answers whether there was one."""
    processes = processes_of(pool)
    _kill_group(processes)
    return bool(processes)


def _kill_group(processes: list[Any]) -> None:
    leaders = [process.pid for process in processes]
    kill(processes)
    if sys.platform != "win32":  # pragma: no branch - it has nothing of the kind
        for leader in leaders:
            with suppress(OSError):
                os.killpg(leader, signal.SIGKILL)


def _ended(worker: _Worker, error: BrokenExecutor) -> WorkerEnded:
    """What a call has ended with whose worker ended, or sent what cannot be read."""
    words = []
    for process in processes_of(worker):
        with suppress(ValueError):
            process.join(_MOMENT)
            words.append(_last_words(process.exitcode, was_up=worker.is_up.exception() is None))
    ended = WorkerEnded(" ".join(words))
    # Less the pool's account of how a pipe came to its end.
    account = str(error.__cause__)
    if "EOFError" not in account and "end of file" not in account:
        ended.__cause__ = error.__cause__
    return ended


def _last_words(code: int | None, *, was_up: bool) -> str:
    """How a worker has ended, as a sentence; empty where it has not."""
    if code is None:
        return ""
    how = f"It ended with exit code {code}"
    if code < 0:
        name = f"signal {-code}"
        # Not every signal has a name.
        with suppress(ValueError):
            name = signal.Signals(-code).name
        how = f"It was ended by {name}"
        if name == "SIGKILL":
            how += ", as the system does where memory runs out"
    if was_up:
        return f"{how}."
    return (
        f"{how} before it could begin: it may have printed why. If the program runs the tasks as "
        'soon as it is read, put that under `if __name__ == "__main__":`.'
    )


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Have processes that are started meanwhile not hear of Ctrl-C before they can ignore it."""
    if sys.platform == "win32":  # pragma: no cover - it has nothing of the kind
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_call(begun: Future[None], _: object) -> None:
    begun.set_result(None)


def _do_nothing() -> None:
    """A new worker's first call."""


def _begin() -> None:
    """In a new worker: it lives as long as who has started it, and no longer."""
    # Ctrl-C reaches all processes of a terminal. It is for the program to say what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":  # pragma: no branch - tests of this need signals
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.setpgid(0, 0)
        # A terminal may ask it of other groups than its first to stop before they write.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    # What a function prints is seen at once, and not lost with a worker that is ended.
    stdout: Any = sys.stdout
    with suppress(AttributeError):
        # There may be none.
        stdout.reconfigure(line_buffering=True)
    Thread(target=_end_with_parent, name="portable_sched parent watch", daemon=True).start()


def _end_with_parent() -> None:
    parent: Any = parent_process()
    number = os.getppid()
    # What the parent has forked holds its end of the pipe too, which then tells nothing.
    while parent.is_alive() and number == os.getppid():
        parent.join(_LOOK)
    # With what it has started, which is of its group.
    if sys.platform != "win32":  # pragma: no cover - it ends the process that would note it
        os.killpg(0, signal.SIGKILL)
    os._exit(1)  # pragma: no cover - as above

"""What can be asked of any executor: how many workers it has, and to end, at once if it can."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from threading import Event, Timer
from typing import Any, Final

from ._log import logger

# On Windows it is any signal that ends a process.
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)

# Seconds that processes may take to end which have nothing more to do.
PATIENCE: Final = 10.0

# Seconds between two looks for processes that have died.
_LOOK: Final = 3.0


class WorkerEnded(BrokenExecutor):
    """A worker has ended that broke its own call alone; how, in a sentence, if that is known."""


def workers_of(executor: object) -> int | None:
    """How many calls an executor carries out at one time; None where it does not say."""
    # As ours have it, the standard library's and loky's, and mpi4py's.
    for name in ("workers", "_max_workers", "num_workers"):
        workers = getattr(executor, name, None)
        if isinstance(workers, int) and workers > 0:
            return workers
    return None


def is_broken(executor: Any) -> bool:
    """Whether it has noticed itself that it is broken, as the standard library's say."""
    return bool(getattr(executor, "_broken", False))


def processes_of(executor: Any) -> list[Any]:
    """The processes that an executor says to have, as the standard library's and loky's do."""
    return list((getattr(executor, "_processes", None) or {}).values())


def has_news(executor: Any) -> bool:
    """Whether a result has come that a pool of processes has yet to read."""
    reader = getattr(getattr(executor, "_result_queue", None), "_reader", None)
    # It may have been closed.
    with suppress(OSError):
        return reader is not None and bool(reader.poll())
    return False


class _Forgotten(Future[Any]):
    """Stands for the future of a call that nobody waits for, whatever comes of it."""

    def set_result(self, result: Any) -> None:
        """Of no account."""

    def set_exception(self, exception: BaseException | None) -> None:
        """Of no account."""


def futures_in(executor: Any) -> set[Any]:
    """The futures of the calls that a pool of processes has, whoever gave it them."""
    futures = {item.future for item in _calls_in(executor)}
    return {future for future in futures if not future.cancelled()}


def forget_calls(executor: Any, *, cancelled: bool) -> None:
    """Have a pool of processes that ends tell nobody of its calls.

    A pool of Python 3.11 stumbles over those that are cancelled, leaves its files open, and may
    keep the program from ending.

    Args:
        executor: the pool.
        cancelled: whether of no others.
    """
    for item in _calls_in(executor):
        if item.future.cancelled() or not cancelled:
            item.future = _Forgotten()
            item.future.cancel()


def _calls_in(executor: Any) -> list[Any]:
    return [*(getattr(executor, "_pending_work_items", None) or {}).values()]


def has_died(process: Any) -> bool:
    """Whether a process has come to its end."""
    # It may have been closed.
    with suppress(ValueError):
        return not process.is_alive()
    return False


def end_where_stuck(executor: Any, is_over: Event) -> None:
    """In a thread of its own: end a pool of which a process has died, and which does not notice.

    It reads one result after another, and waits for the rest of one for ever.

    Args:
        executor: the pool.
        is_over: set when it is in use no more.
    """
    if getattr(executor, "_max_tasks_per_child", None) is not None:
        # Its processes end now and then.
        return
    for _ in found_twice(lambda: filter(has_died, processes_of(executor)), is_over):
        if not is_broken(executor):
            end_processes(executor)
            return


def found_twice(look: Callable[[], Iterable[Any]], is_over: Event) -> Iterator[Any]:
    """What is found at two looks running, so that whoever is to notice it has had the time to.

    Args:
        look: finds something.
        is_over: set when there is nothing more to look for.
    """
    found: set[Any] = set()
    while not is_over.wait(_LOOK):
        before, found = found, set(look())
        yield from before & found


def end_processes(executor: Any) -> bool:
    """End what an executor has processes for; answers whether it has any."""
    # A newer Python has `kill_workers()`, which does the same.
    processes = processes_of(executor)
    if processes:
        forget_calls(executor, cancelled=True)
        kill(processes)
        close_own_writer(executor)
    return bool(processes)


def kill(processes: Iterable[Any]) -> None:
    """End processes at once."""
    for process in processes:
        # The number of one that has ended may be another's by now, and it may have been closed.
        with suppress(ProcessLookupError, ValueError):
            # Not by its own `kill()`, which loky's have not.
            if process.is_alive():
                os.kill(process.pid, _KILL)


def close_own_writer(executor: Any) -> None:
    """Have a pool that starts no more processes hear of the end of those that it has.

    It could write to the pipe that it reads results from. So it would never hear that there is no
    more to come where a worker dies in the middle of one.
    """
    writer = getattr(getattr(executor, "_result_queue", None), "_writer", None)
    if writer is not None:
        with suppress(OSError):
            writer.close()


def _kill_where_idle(executor: Any, processes: Iterable[Any]) -> None:
    """End processes in which a function has left a thread, for which they would wait."""
    # Others may use the same one.
    if not futures_in(executor):
        tell_of_late_ones()
        kill(processes)


def tell_of_late_ones() -> None:
    """Log that processes are to be ended which do not end by themselves."""
    logger().warning(
        "Workers had not ended %d s after their last call, as where a function has left a thread "
        "or a process behind. They are ended.",
        PATIENCE,
    )


def end(executor: Any, *, wait: bool, at_once: bool) -> None:
    """Shut an executor down, at once where nobody waits for what it still has."""
    processes = processes_of(executor)
    late = Timer(PATIENCE, _kill_where_idle, [executor, processes])
    late.daemon = True
    try:
        # A thread cannot be ended, and one that was given up may take an hour.
        if at_once and not end_processes(executor):
            wait = False
        if wait and processes:
            late.start()
        executor.shutdown(wait=wait)
    except BaseException as error:  # noqa: BLE001 - the executor's, and the run is over
        logger().error("An executor raised when it was shut down.", exc_info=error)
    finally:
        late.cancel()
        if late.ident is not None:
            late.join()

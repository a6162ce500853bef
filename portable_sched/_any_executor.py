"""What can be asked of any executor: how many workers it has, and to end, at once if it can."""

import os
import signal
from contextlib import suppress
from typing import Any, Final

from ._log import logger

# On Windows it is any signal that ends a process.
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


def is_executor(given: object) -> bool:
    """Whether it is an executor, and not a function that makes one."""
    return not isinstance(given, type) and callable(getattr(given, "submit", None))


def workers_of(executor: object) -> int | None:
    """How many calls an executor carries out at one time; None where it does not say."""
    # As ours have it, the standard library's and loky's, and mpi4py's.
    for name in ("workers", "_max_workers", "num_workers"):
        workers = getattr(executor, name, None)
        if isinstance(workers, int) and workers > 0:
            return workers
    return None


def end_processes(executor: Any) -> bool:
    """End what an executor has processes for; answers whether it has any."""
    # A newer Python has `kill_workers()`, which does the same. Not `kill()`, which loky's have not.
    processes = list((getattr(executor, "_processes", None) or {}).values())
    for process in processes:
        # The number of one that has ended may be another's by now, and it may have been closed.
        with suppress(ProcessLookupError, ValueError):
            if process.is_alive():
                os.kill(process.pid, _KILL)
    if processes:
        close_own_writer(executor)
    return bool(processes)


def close_own_writer(executor: Any) -> None:
    """Have a pool that starts no more processes hear of the end of those that it has.

    It could write to the pipe that it reads results from. So it would never hear that there is no
    more to come where a worker dies in the middle of one.
    """
    writer = getattr(getattr(executor, "_result_queue", None), "_writer", None)
    if writer is not None:
        with suppress(OSError):
            writer.close()


def end(executor: Any, *, wait: bool, at_once: bool) -> None:
    """Shut an executor down, at once where nobody waits for what it still has."""
    try:
        # A thread cannot be ended, and one that was given up may take an hour.
        executor.shutdown(wait=wait and (not at_once or end_processes(executor)))
    except Exception as error:  # noqa: BLE001 - the executor's, and the run is over
        logger().error("An executor raised when it was shut down.", exc_info=error)

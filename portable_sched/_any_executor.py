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
    # A pool could write to the pipe that it reads results from. So it would wait for ever for the
    # rest of one that a worker was sending as it ended.
    writer = getattr(getattr(executor, "_result_queue", None), "_writer", None)
    if processes and writer is not None:
        with suppress(OSError):
            writer.close()
    return bool(processes)


def end(executor: Any, *, wait: bool, at_once: bool) -> None:
    """Shut an executor down, at once where nobody waits for what it still has."""
    try:
        # A thread cannot be ended, and one that was given up may take an hour.
        executor.shutdown(wait=wait and (not at_once or end_processes(executor)))
    except Exception as error:  # noqa: BLE001 - the executor's, and the run is over
        logger().error("An executor raised when it was shut down.", exc_info=error)

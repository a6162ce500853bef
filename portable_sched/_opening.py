"""Executors before and after their use: which there are, what workers they have, how they end."""

import os
import sys
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Executor
from typing import Any

from ._log import logger


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
    # A newer Python has `kill_workers()`, which does the same.
    processes = list((getattr(executor, "_processes", None) or {}).values())
    for process in processes:
        process.kill()
    return bool(processes)


def end(executor: Any, *, wait: bool, at_once: bool) -> None:
    """Shut an executor down, at once where nobody waits for what it still has."""
    try:
        # A thread cannot be ended, and one that was given up may take an hour.
        executor.shutdown(wait=wait and (not at_once or end_processes(executor)))
    except Exception as error:  # noqa: BLE001 - the executor's, and the run is over
        logger().error("An executor raised when it was shut down.", exc_info=error)


def executors_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The executors that tasks can name: those that need no set-up, and those that were given."""
    standard: dict[str, Any] = {"process": _processes}
    if hasattr(futures, "InterpreterPoolExecutor"):
        standard["interpreter"] = _interpreters
    return {**standard, **given}


def _processes() -> Executor:
    # Here, since it brings in `multiprocessing`.
    from ._processes import ProcessExecutor  # noqa: PLC0415

    return ProcessExecutor()


def _interpreters() -> Executor:
    # One for each processor, where it would make four more.
    interpreters: Executor = futures.InterpreterPoolExecutor(_processors())  # type: ignore[attr-defined,unused-ignore]
    return interpreters


def _processors() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1

"""The executors that need no set-up, beside those that a scheduler was given."""

import os
import sys
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Executor
from typing import Any


def executors_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The executors that tasks can name: those that need no set-up, and those that were given."""
    standard: dict[str, Any] = {"process": _processes}
    if hasattr(futures, "InterpreterPoolExecutor"):
        standard["interpreter"] = _interpreters
    return {**standard, **given}


def refuse_in_worker_that_starts() -> None:
    """Refuse to run what a worker comes upon as it reads the program: it would run once for each.

    Raises:
        RuntimeError: this is such a worker.
    """
    # Workers have it, and programs that have none do not pay for it.
    process = sys.modules.get("multiprocessing.process")
    if process is None or not getattr(process.current_process(), "_inheriting", False):
        return
    frame: Any = sys._getframe()  # noqa: SLF001 - public in all but name
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    # A module of which the program takes what it has run may do so again.
    if frame is not None and frame.f_globals.get("__name__") == "__mp_main__":
        raise RuntimeError(
            "Expected the run to begin in the program itself. This is a worker that has begun to "
            "read the program, which runs the tasks as soon as it is read. Put what runs them "
            'under `if __name__ == "__main__":`.'
        )


def _processes() -> Executor:
    # Here, since they bring in `multiprocessing`.
    from ._processes import ProcessExecutor  # noqa: PLC0415

    path: str = getattr(sys.modules["__main__"], "__file__", None) or ""
    if path.startswith("<"):
        raise RuntimeError(
            f"a worker begins by reading the program, and that is in no file: {path!r}. Write it "
            "to one, as standard input can be read but once."
        )
    return ProcessExecutor(_processors())


def _interpreters() -> Executor:
    # One for each processor, where it would make four more.
    interpreters: Executor = futures.InterpreterPoolExecutor(_processors())  # type: ignore[attr-defined,unused-ignore]
    return interpreters


def _processors() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1

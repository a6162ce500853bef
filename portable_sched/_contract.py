"""What an executor has to keep so that tasks can run in it, tried on one.

The functions below are those that are sent to it, so they stand where its workers find them.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import anyio
from anyio.lowlevel import checkpoint, current_token

from portable_sched import (
    NotPicklableError,
    Priority,
    RemoteTaskError,
    RunResults,
    TaskRegistry,
    TaskScheduler,
    TaskTimeoutError,
    WorkerDiedError,
)

Run = Callable[[TaskRegistry], RunResults]
"""Runs tasks whose executor is the one that is tried."""

Make = Callable[[], Executor]
"""Makes the executor that is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorReport:
    """What an executor can do beyond what it has to. `str()` makes a few lines of it.

    Attributes:
        in_other_process: whether functions run in another process.
        workers: how many calls it carries out at one time; None where it does not say.
        survives_dead_worker: whether other calls succeed where a worker dies; None where they run
            in this process, which would die with it.
        keeps_results: whether a result may stay there while other calls take it.
        stops_calls: whether it can end a call that is running.
    """

    in_other_process: bool
    workers: int | None
    survives_dead_worker: bool | None
    keeps_results: bool
    stops_calls: bool

    def __str__(self) -> str:
        """One line for each."""
        words = {True: "yes", False: "no", None: "not known"}
        lines = {
            "in another process": words[self.in_other_process],
            "workers": words[None] if self.workers is None else str(self.workers),
            "survives a dead worker": words[self.survives_dead_worker],
            "keeps results": words[self.keeps_results],
            "stops running calls": words[self.stops_calls],
        }
        return "\n".join(f"{what:<24}{answer}" for what, answer in lines.items())


def check_executor(make: Make, *, backend: str = "asyncio", seconds: float = 60) -> ExecutorReport:
    """What an executor can do, once it has been found to keep what tasks rely on.

    A plain function, for any kind of test. It makes the executor some ten times and runs small
    graphs in it: results and arguments, `async def`, exceptions with cause and traceback, what
    cannot be pickled, `SystemExit`, a timeout, and, if it runs in other processes, a worker that
    dies. Its workers have to have portable_sched.

    Args:
        make: makes the executor, as what stands in `TaskScheduler(executors={...})`.
        backend: "asyncio" or "trio".
        seconds: how long each of the runs may take.

    Raises:
        AssertionError: it does not keep something; the message says what, a line for each.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from portable_sched.testing import check_executor
    >>> print(check_executor(lambda: ThreadPoolExecutor(2)))
    in another process      no
    workers                 2
    survives a dead worker  not known
    keeps results           no
    stops running calls     no
    """
    run = partial(_run, make, backend, seconds)
    broken: list[str] = []
    for check in _CHECKS:
        broken += check(run)
    # Not in this process, which a worker would take along.
    in_other_process = _result(run, _pid) not in {None, os.getpid()}
    survives: bool | None = None
    if in_other_process:
        complaints = list(_a_dead_worker(run))
        broken += complaints
        survives = not complaints
    if broken:
        lines = "".join(f"\n- {line}" for line in broken)
        raise AssertionError(f"The executor does not keep what tasks rely on:{lines}")
    executor = make()
    try:
        workers = next(
            (
                value
                for name in ("workers", "_max_workers", "num_workers")
                if isinstance(value := getattr(executor, name, None), int)
            ),
            None,
        )
        return ExecutorReport(
            in_other_process=in_other_process,
            workers=workers,
            survives_dead_worker=survives,
            keeps_results=hasattr(executor, "keep"),
            stops_calls=hasattr(executor, "stop"),
        )
    finally:
        executor.shutdown()


def _run(make: Make, backend: str, seconds: float, registry: TaskRegistry) -> RunResults:
    scheduler = TaskScheduler(registry, executors={"checked": make})

    async def run() -> RunResults:
        with anyio.move_on_after(seconds):
            await scheduler.run()
        return scheduler.results

    # In a thread of its own, so that it may be called from inside an event loop too.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: anyio.run(run, backend=backend)).result()


def _result(run: Run, function: Callable[..., Any]) -> Any:
    registry = TaskRegistry()
    registry.task("checked", executor="checked")(function)
    return run(registry)["checked"].result


def _error(run: Run, function: Callable[..., Any], **settings: Any) -> BaseException | None:
    registry = TaskRegistry()
    registry.task("checked", executor="checked", **settings)(function)
    return run(registry)["checked"].exception


# What is sent


def _pid() -> int:
    return os.getpid()


def _one() -> int:
    return 1


def _sum(first: int, second: int) -> int:
    return first + second


async def _backend() -> str:
    await checkpoint()
    return "asyncio" if hasattr(current_token().native_token, "time") else "trio"


def _fail() -> None:
    try:
        _ = dict[str, int]()["why"]
    except LookupError as error:
        raise ValueError("no such row") from error


class _Unpicklable(Exception):  # noqa: N818 - what it is for is what counts
    def __init__(self) -> None:
        super().__init__(threading.Lock())


def _fail_unpicklably() -> NoReturn:
    raise _Unpicklable


def _exit() -> NoReturn:
    sys.exit(3)


def _lock() -> Any:
    return threading.Lock()


def _given(lock: object) -> bool:
    return lock is not None


def _sleep() -> None:
    time.sleep(2)


def _die() -> NoReturn:  # pragma: no cover - it ends the process that would note it
    os._exit(3)


# What has to hold


def _results_and_arguments(run: Run) -> Iterator[str]:
    registry = TaskRegistry()
    registry.task("first", executor="checked")(_one)
    registry.task("second", executor="checked")(_one)
    registry.task("sum", executor="checked")(_sum)
    result = run(registry)["sum"]
    if result.result != 2:  # noqa: PLR2004 - one and one
        yield f"results go from task to task by name: expected 2, got {result!r}"


def _all_of_many(run: Run) -> Iterator[str]:
    registry = TaskRegistry()
    for number in range(50):
        registry.task(f"{number}", Priority(1 + number % 3), executor="checked")(_one)
    results = run(registry)
    if [result.result for result in results] != [1] * 50:
        yield f"each of 50 calls returns its result: got {results!r}"


def _async_functions(run: Run) -> Iterator[str]:
    result = _result(run, _backend)
    if result not in {"asyncio", "trio"}:
        yield f"an async function runs in an event loop of its own: got {result!r}"


def _exceptions(run: Run) -> Iterator[str]:
    error = _error(run, _fail)
    if type(error) is not ValueError or str(error) != "no such row":
        yield f"an exception arrives as it was raised: expected a ValueError, got {error!r}"
    elif type(error.__cause__) is not KeyError:
        yield f"an exception arrives with its cause: got {error.__cause__!r}"
    error = _error(run, _fail_unpicklably)
    if not isinstance(error, (_Unpicklable, RemoteTaskError)):
        yield f"an exception that cannot be pickled is told as a RemoteTaskError: got {error!r}"
    error = _error(run, _exit)
    if not isinstance(error, RemoteTaskError):
        yield f"a SystemExit fails its attempt alone: expected a RemoteTaskError, got {error!r}"


def _what_cannot_be_pickled(run: Run) -> Iterator[str]:
    registry = TaskRegistry()
    registry.task("lock")(_lock)
    registry.task("given", executor="checked")(_given)
    registry.task("returned", executor="checked")(_lock)
    results = run(registry)
    for name, part in (("given", "the parameter 'lock'"), ("returned", "the result")):
        result = results[name]
        error = result.exception
        if not (result.ok or (isinstance(error, NotPicklableError) and error.part == part)):
            yield f"{part} that cannot be pickled is named: got {result!r}"


def _timeouts(run: Run) -> Iterator[str]:
    error = _error(run, _sleep, timeout=0.2)
    if not isinstance(error, TaskTimeoutError):
        yield f"an attempt ends at its timeout: got {error!r}"


def _a_dead_worker(run: Run) -> Iterator[str]:
    registry = TaskRegistry()
    registry.task("culprit", executor="checked")(_die)
    for number in range(4):
        registry.task(f"innocent {number}", executor="checked")(_one)
    results = run(registry)
    culprit = results["culprit"].exception
    if not isinstance(culprit, WorkerDiedError):
        yield f"a worker that dies fails the attempt with WorkerDiedError: got {culprit!r}"
    others = [result for result in results if result.task_name != "culprit" and not result.ok]
    if others:
        yield f"a worker that dies fails no other task: {others!r}"


_CHECKS: tuple[Callable[[Run], Iterator[str]], ...] = (
    _results_and_arguments,
    _all_of_many,
    _async_functions,
    _exceptions,
    _what_cannot_be_pickled,
    _timeouts,
)

"""What an executor has to keep so that tasks can run in it, tried on one.

The functions below are those that are sent to it, so they stand where its workers find them.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children
from typing import Any, Final, NoReturn

import anyio
from anyio.lowlevel import checkpoint, current_token

from portable_sched import (
    NotPicklableError,
    Priority,
    RemoteTaskError,
    RunResults,
    TaskCompleted,
    TaskRegistry,
    TaskScheduler,
    TaskTimeoutError,
    WorkerDiedError,
)

from ._any_executor import workers_of
from ._checks import is_executor, shown
from ._envelope import Call, Sent, carry_out

Make = Callable[[], Executor]
"""Makes the executor that is tried."""

# Of an executor with more workers nobody wants to wait until it has enough to do.
_MANY: Final = 8

# Seconds that a call takes which is to be timed out.
_LONG: Final = 2.0

# Set where a run begins.
_SEEN: Final[ContextVar[bool]] = ContextVar("portable_sched.check_executor", default=False)


class _Stuck(Exception):  # noqa: N818 - it says what is to be reported, and never leaves this module
    """Something did not end within the time that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorReport:
    """What an executor can do beyond what it has to. `str()` makes a few lines of it.

    Attributes:
        in_other_process: whether functions run in another process.
        workers: how many calls it carries out at one time; None where it does not say.
        urgent_overtakes: whether an urgent task is begun before others that wait; None where it has
            more workers than are worth the try.
        survives_dead_worker: whether other calls succeed where a worker dies; None where they run
            in this process, which would die with it.
        keeps_results: whether a result may stay there while other calls take it.
        cancels_waiting_calls: whether it can take out a call that waits in it; None where none has
            waited.
        stops_calls: whether it can end a call that is running.
        context_variables: whether functions see those of the run.
    """

    in_other_process: bool
    workers: int | None
    urgent_overtakes: bool | None
    survives_dead_worker: bool | None
    keeps_results: bool
    cancels_waiting_calls: bool | None
    stops_calls: bool
    context_variables: bool

    def __str__(self) -> str:
        """One line for each."""
        words = {True: "yes", False: "no", None: "not known"}
        lines = {
            "in another process": words[self.in_other_process],
            "workers": words[None] if self.workers is None else str(self.workers),
            "urgent tasks overtake": words[self.urgent_overtakes],
            "survives a dead worker": words[self.survives_dead_worker],
            "keeps results": words[self.keeps_results],
            "cancels waiting calls": words[self.cancels_waiting_calls],
            "stops running calls": words[self.stops_calls],
            "context variables": words[self.context_variables],
        }
        return "\n".join(f"{what:<24}{answer}" for what, answer in lines.items())


def check_executor(make: Make, *, backend: str = "asyncio", seconds: float = 60) -> ExecutorReport:
    """What an executor can do, once it has been found to keep what tasks rely on.

    A plain function, for any kind of test. It makes the executor some fifteen times and runs small
    graphs in it: results and arguments, `async def`, exceptions with cause and traceback, what
    cannot be pickled, `SystemExit`, a timeout, what is urgent, and, if it runs in other processes,
    a worker that dies. Its workers have to have portable_sched. What does not end in time ends the
    trial; where it is a call in a thread that never returns, that thread remains.

    Args:
        make: makes the executor, as what stands in `TaskScheduler(executors={...})`.
        backend: "asyncio" or "trio".
        seconds: how long each of the runs may take, and as long again to close the executor.

    Raises:
        AssertionError: it does not keep something; the message says what, a line for each.
        TypeError: `make` is no function, or returns no executor.
        Exception: what `make` raises.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from portable_sched.testing import check_executor
    >>> print(check_executor(lambda: ThreadPoolExecutor(2)))
    in another process      no
    workers                 2
    urgent tasks overtake   yes
    survives a dead worker  not known
    keeps results           no
    cancels waiting calls   yes
    stops running calls     no
    context variables       no
    """
    if is_executor(make) or not callable(make):
        raise TypeError(
            f"Expected a function that makes an executor, got {shown(make)}. Write lambda: ... "
            "around what makes it."
        )
    trial = _Trial(make, backend, seconds)
    before = set(active_children())
    report: ExecutorReport | None = None
    broken: list[str] = []
    try:
        for complaint in trial.complaints():
            broken.append(complaint)  # noqa: PERF402 - those before one that is stuck count too
        if not broken:
            report = trial.in_time("giving it calls and shutting it down", trial.report)
        broken += trial.broken
    except _Stuck as stuck:
        broken.append(str(stuck))
    else:
        broken += _what_remains(before, seconds)
    if report is None or broken:
        lines = "".join(f"\n- {line}" for line in broken)
        raise AssertionError(f"The executor does not keep what tasks rely on:{lines}")
    return report


class _Trial:
    """One executor on trial.

    Attributes:
        backend: which event loop the runs are in.
        workers: how many it has; None where it does not say.
        in_other_process: whether it runs functions in another process.
        overtakes: whether what is urgent is begun before what waits; None where that is not known.
        broken: what it was found not to keep while it was asked for what it can.
    """

    def __init__(self, make: Make, backend: str, seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self.backend = backend
        self.workers: int | None = None
        self.in_other_process = False
        self.overtakes: bool | None = None
        self.broken: list[str] = []

    def complaints(self) -> Iterator[str]:
        """What it does not keep."""
        self.workers = self.in_time("making it and shutting it down", self._made_and_shut_down)
        for check in _CHECKS:
            yield from check(self)
        # Not in this process, which a worker would take along.
        process = self.result(_pid)
        self.in_other_process = process not in {None, os.getpid()}
        if self.in_other_process:
            yield from _notes(self)
            yield from _a_dead_worker(self)

    def report(self) -> ExecutorReport:
        """What it can."""
        context_variables = self.result(_sees)
        executor = self._make()
        try:
            return ExecutorReport(
                in_other_process=self.in_other_process,
                workers=self.workers,
                urgent_overtakes=self.overtakes,
                # Or it was not as it should be.
                survives_dead_worker=self.in_other_process or None,
                keeps_results=hasattr(executor, "keep"),
                cancels_waiting_calls=_cancels(executor, self.workers),
                stops_calls=hasattr(executor, "stop") and self._stops(executor),
                context_variables=context_variables,
            )
        finally:
            executor.shutdown()

    def run(self, registry: TaskRegistry, *observers: Callable[[Any], None]) -> RunResults:
        """The results of tasks whose executor is the one that is tried."""
        scheduler = TaskScheduler(registry, executors={"checked": self._make}, observers=observers)
        names = ", ".join(repr(definition.name) for definition in registry)
        what = f"the run of {names}"

        async def run() -> bool:
            _SEEN.set(True)
            with anyio.move_on_after(self._seconds) as scope:
                await scheduler.run()
            return scope.cancelled_caught

        # Twice, for what the run has to close.
        if self.in_time(what, lambda: anyio.run(run, backend=self.backend), times=2):
            raise self._stuck(what)
        return scheduler.results

    def result(self, function: Callable[..., Any]) -> Any:
        """What a function returns there; None where it fails."""
        return self.run(_registry(function))["checked"].result

    def error(self, function: Callable[..., Any]) -> BaseException | None:
        """What a function raises there; None where it does not."""
        return self.run(_registry(function))["checked"].exception

    def in_time(self, what: str, function: Callable[[], Any], *, times: int = 1) -> Any:
        """What `function` returns, in a thread of its own.

        So that it may be called from inside an event loop too, and may be stuck.
        """
        outcome: Future[Any] = Future()

        def call() -> None:
            try:
                outcome.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised again below
                outcome.set_exception(error)

        threading.Thread(target=call, name="portable_sched check_executor", daemon=True).start()
        if not wait([outcome], times * self._seconds).done:
            raise self._stuck(what)
        return outcome.result()

    def _stuck(self, what: str) -> _Stuck:
        return _Stuck(f"all comes to an end: {what} had not after {self._seconds:g} s")

    def _made_and_shut_down(self) -> int | None:
        executor = self._make()
        if not is_executor(executor) or not hasattr(executor, "shutdown"):
            raise TypeError(
                f"Expected make to return a concurrent.futures.Executor, got {shown(executor)}."
            )
        workers = workers_of(executor)
        executor.shutdown()
        return workers

    def _stops(self, executor: Any) -> bool:
        future = executor.submit(carry_out, _call_of(_sleep))
        while not (future.running() or future.done()):
            time.sleep(0.01)
        said_so: bool = executor.stop(future)
        wait([future])
        is_over = future.cancelled() or future.exception() is not None
        if said_so and not is_over:
            self.broken.append("stop() says the truth: it ended a call that came to its end")
        return is_over


def _cancels(executor: Executor, workers: int | None) -> bool | None:
    if workers is not None and workers > _MANY:
        return None
    # A pool of processes takes one more than it has workers out of its queue.
    futures = [
        executor.submit(carry_out, _call_of(_nap)) for _ in range(2 * (workers or _MANY) + 4)
    ]
    *others, last = futures
    cancelled = last.cancel()
    has_waited = cancelled or not (last.running() or last.done())
    # What was cancelled may never be told so.
    wait(others if cancelled else futures)
    return cancelled if has_waited else None


def _registry(function: Callable[..., Any], **settings: Any) -> TaskRegistry:
    registry = TaskRegistry()
    registry.task("checked", executor="checked", **settings)(function)
    return registry


def _call_of(function: Callable[..., Any]) -> Call:
    return Call("checked", Sent(function))


def _what_remains(before: set[Any], seconds: float) -> Iterator[str]:
    limit = time.monotonic() + seconds
    # Asking for them buries those that have ended. Counted, since a cluster that was there before
    # may have replaced some of its own.
    while len(now := set(active_children())) > len(before):
        if time.monotonic() > limit:
            yield f"its processes end with it: these remain: {sorted(map(repr, now - before))}"
            return
        time.sleep(0.01)


# What is sent


def _pid() -> int:
    return os.getpid()


def _sees() -> bool:
    return _SEEN.get()


def _one() -> int:
    return 1


def _large() -> bytes:
    return bytes(2_000_000)


def _two() -> int:
    return 2


def _pair(first: int, second: int) -> tuple[int, int]:
    return first, second


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


def _takes(kept: object) -> bool:
    return kept is not None


def _sleep() -> None:
    time.sleep(_LONG)


def _nap() -> None:
    # Long enough that an executor is given no more calls than it has workers.
    time.sleep(0.06)


def _die() -> NoReturn:  # pragma: no cover - it ends the process that would note it
    os._exit(3)


# What has to hold


def _results_and_arguments(trial: _Trial) -> Iterator[str]:
    registry = TaskRegistry()
    registry.task("first", executor="checked")(_one)
    registry.task("second", executor="checked")(_two)
    registry.task("there", executor="checked")(_pair)
    # What may have stayed there is fetched.
    registry.task("here")(_pair)
    registry.task("large", executor="checked")(_large)
    results = trial.run(registry)
    if results["large"].result != _large():
        yield f"a result of 2 MB arrives whole: got {type(results['large'].result).__name__}"
    for name in ("there", "here"):
        if results[name].result != (1, 2):
            yield f"results go from task to task by name: expected (1, 2), got {results[name]!r}"


def _all_of_many(trial: _Trial) -> Iterator[str]:
    registry = TaskRegistry()
    for number in range(50):
        registry.task(f"{number}", Priority(1 + number % 3), executor="checked")(_one)
    results = trial.run(registry)
    if [result.result for result in results] != [1] * 50:
        yield f"each of 50 calls returns its result: got {results!r}"


def _async_functions(trial: _Trial) -> Iterator[str]:
    result = trial.result(_backend)
    if result != trial.backend:
        yield (
            "an async function runs in an event loop of its own, of the run's kind: expected "
            f"{trial.backend!r}, got {result!r}"
        )


def _exceptions(trial: _Trial) -> Iterator[str]:
    error = trial.error(_fail)
    if type(error) is not ValueError or str(error) != "no such row":
        yield f"an exception arrives as it was raised: expected a ValueError, got {error!r}"
    elif type(error.__cause__) is not KeyError:
        yield f"an exception arrives with its cause: got {error.__cause__!r}"
    error = trial.error(_fail_unpicklably)
    if not isinstance(error, (_Unpicklable, RemoteTaskError)):
        yield f"an exception that cannot be pickled is told as a RemoteTaskError: got {error!r}"


def _notes(trial: _Trial) -> Iterator[str]:
    notes = getattr(trial.error(_fail), "__notes__", [])
    if not any("in _fail" in note for note in notes):
        yield f"an exception arrives with the worker's traceback in its notes: got {notes!r}"


def _exits(trial: _Trial) -> Iterator[str]:
    results = trial.run(_with_others("exits", _exit))
    error = results["exits"].exception
    if not isinstance(error, RemoteTaskError):
        yield f"a SystemExit fails its attempt: expected a RemoteTaskError, got {error!r}"
    yield from _others_that_failed("a SystemExit", "exits", results)


def _what_cannot_be_pickled(trial: _Trial) -> Iterator[str]:
    registry = TaskRegistry()
    registry.task("lock")(_lock)
    registry.task("given", executor="checked")(_given)
    registry.task("returned", executor="checked")(_lock)
    # It may stay there, and be taken in another worker.
    registry.task("kept", executor="checked")(_lock)
    for number in range(2):
        registry.task(f"takes {number}", executor="checked")(_takes)
    results = trial.run(registry)
    parts = {"given": "the parameter 'lock'", "returned": "the result", "kept": "the result"}
    for name, part in parts.items():
        result = results[name]
        error = result.exception
        if not (result.ok or (isinstance(error, NotPicklableError) and error.part == part)):
            yield f"{part} that cannot be pickled is named: got {result!r}"


def _timeouts(trial: _Trial) -> Iterator[str]:
    registry = TaskRegistry()
    registry.task("sleeps", executor="checked", timeout=0.5)(_sleep)
    registry.task("next", executor="checked", after=["sleeps"])(_one)
    results = trial.run(registry)
    error = results["sleeps"].exception
    if not isinstance(error, TaskTimeoutError):
        yield f"an attempt ends at its timeout: got {error!r}"
    elif results["sleeps"].duration >= _LONG:
        yield "an attempt ends at its timeout: submit() did not return before the call had ended"
    if not results["next"].ok:
        yield f"it goes on after a timeout: got {results['next']!r}"


def _priorities(trial: _Trial) -> Iterator[str]:
    workers = trial.workers
    if workers is not None and workers > _MANY:
        return
    many = 12 * (workers or 2)
    registry = TaskRegistry()
    for number in range(many):
        registry.task(f"{number}", Priority.LOW, executor="checked")(_nap)
    registry.task("urgent", Priority.HIGH, depends_on=["0"], executor="checked")(_nap)
    place = 0
    # A worker may be held up by whatever else the machine has to do.
    for _ in range(3):
        ended: list[str] = []
        results = trial.run(registry, partial(_note_end, ended))
        if not results["urgent"].ok:
            yield f"what is urgent overtakes what waits: got {results['urgent']!r}"
            return
        place = ended.index("urgent")
        trial.overtakes = place < many / 2
        if trial.overtakes:
            return
    if workers is not None:
        yield f"what is urgent overtakes what waits: {place} of {many} others ended before it"


def _note_end(ended: list[str], event: object) -> None:
    if isinstance(event, TaskCompleted):
        ended.append(event.task)


def _a_dead_worker(trial: _Trial) -> Iterator[str]:
    results = trial.run(_with_others("dies", _die))
    error = results["dies"].exception
    if not isinstance(error, WorkerDiedError):
        yield f"a worker that dies fails the attempt with WorkerDiedError: got {error!r}"
    yield from _others_that_failed("a worker that dies", "dies", results)


def _with_others(name: str, function: Callable[..., Any]) -> TaskRegistry:
    registry = TaskRegistry()
    registry.task(name, executor="checked")(function)
    for number in range(4):
        registry.task(f"other {number}", executor="checked")(_one)
    return registry


def _others_that_failed(what: str, name: str, results: RunResults) -> Iterator[str]:
    others = [result for result in results if result.task_name != name and not result.ok]
    if others:
        yield f"{what} fails no other task: {others!r}"


_CHECKS: tuple[Callable[[_Trial], Iterator[str]], ...] = (
    _results_and_arguments,
    _all_of_many,
    _async_functions,
    _exceptions,
    _exits,
    _what_cannot_be_pickled,
    _timeouts,
    _priorities,
)

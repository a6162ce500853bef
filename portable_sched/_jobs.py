"""A run from the command line: carried out, interrupted by signals, and reported at its end."""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import anyio

from portable_sched import (
    ParameterError,
    ResourceError,
    RunResults,
    RunStarted,
    TaskError,
    TaskScheduler,
    TaskStatus,
)
from portable_sched._backend import call_soon
from portable_sched._formats import render
from portable_sched._loading import UsageError
from portable_sched.analysis.wording import printable

COMPLETED, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

# From so many signals on a run is cancelled.
_CANCELLED: Final = 2

# What waits is told of in a few lines: it is about to be cancelled.
_MOST_EXPLAINED: Final = {TaskStatus.RUNNING: 8, TaskStatus.PENDING: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report that was asked for.

    Attributes:
        format: one of the formats of reports.
        file: where to; None where it is printed.
    """

    format: str
    file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run that was asked for, with all that the project and the command line say of it.

    Attributes:
        scheduler: what runs, and within which limits.
        targets: the tasks that were asked for; None for all.
        inputs: of the run.
        backend: "asyncio", "trio" or "uvloop".
        shuffle: whether ready tasks start in any order.
        seed: repeats one such order; None for a new one.
        progress: whether to show how it goes on.
        reports: what is written at the end.
        verbose: whether the text report has tracebacks.
    """

    scheduler: TaskScheduler
    targets: Sequence[str] | None
    inputs: Mapping[str, object]
    backend: str
    shuffle: bool
    seed: int | None
    progress: bool
    reports: Sequence[Report]
    verbose: bool


def refused(error: TaskError) -> UsageError:
    """What the library refuses, with what to write on a command line."""
    hint = ""
    if isinstance(error, ParameterError):
        hint = " Here an input is --input NAME=TEXT."
    elif isinstance(error, ResourceError):
        hint = " Here that is --resource NAME=UNITS."
    return UsageError(f"{error}{hint}")


def carried_out(job: Job) -> tuple[int, RunResults | None]:
    """Run it and write its reports; answers the exit code, and the results if there are any.

    Raises:
        UsageError: the graph cannot be run, or the backend is not installed, or a report cannot be
            written.
    """
    begun: list[RunResults] = []

    def note(event: Any) -> None:
        begun.append(event.results)

    def write() -> None:
        # Where a task runs its own scheduler, there were others.
        for results in begun[:1]:
            write_reports(job, results)

    change(job.scheduler, observers=[_Noting(note), *_progress(job)])
    interruption = Interruption(job.scheduler, write)
    code: int | None = None
    with interruption.handled():
        try:
            _run(job, interruption)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except SystemExit as leaving:
            code = _code_of(leaving)
        write()
        interruption.reported = True
    ended = begun[0] if begun else None
    if interruption.signals:
        code = INTERRUPTED
    elif code is None:
        code = COMPLETED if ended is not None and ended.ok else FAILED
    return code, ended


def change(scheduler: TaskScheduler, **settings: Any) -> None:
    """Change settings of a scheduler itself, and not of a copy.

    It may be the one that the tasks know by name, to ask it how things stand, or to stop it.
    """
    vars(scheduler).update(vars(scheduler.with_settings(**settings)))


def write_reports(job: Job, results: RunResults) -> None:
    """Write what was asked for, and say which files were written.

    Raises:
        UsageError: one cannot be written; the others were.
    """
    unwritten: list[str] = []
    # Files first: who reads what is printed may be gone (`| head`).
    for report in sorted(job.reports, key=lambda each: each.file is None):
        options = {"verbose": True} if job.verbose and report.format == "text" else {}
        try:
            if report.file is not None:
                results.save(report.file, report.format, **options)
                print(f"wrote {report.file}", file=sys.stderr)
            elif sys.stdout is not None:
                print(render(results, report.format, **options), flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            unwritten.append(str(error))
    if unwritten:
        raise UsageError(f"The report cannot be written: {'; '.join(unwritten)}")


def leave(code: int) -> None:
    """End the program at once, without what goes on in threads; otherwise Python waits for it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        # Or Python waits for it too.
        child.kill()
    with suppress(Exception):
        # Files that are yet to be written, a terminal that has no cursor.
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way
    os._exit(code)


def _code_of(leaving: SystemExit) -> int:
    """The exit code that a task has chosen, but none that says that all have completed."""
    if isinstance(leaving.code, int):
        return leaving.code or FAILED
    if leaving.code is not None:
        # As Python does with what is no number.
        print(leaving.code, file=sys.stderr)
    return FAILED


class _Noting:
    """An observer that keeps the results of the run, which are there even if it is cut short."""

    wants = (RunStarted,)

    def __init__(self, note: Callable[[Any], None]) -> None:
        self._note = note

    def __call__(self, event: object) -> None:
        self._note(event)


def _progress(job: Job) -> list[Callable[[Any], object]]:
    if not job.progress:
        return []
    # Here, because rich takes its time to import.
    from portable_sched.progress import Progress  # noqa: PLC0415

    if any(isinstance(one, Progress) for one in job.scheduler.observers):
        return []
    return [Progress()]


def _run(job: Job, interruption: "Interruption") -> None:
    async def main() -> None:
        if interruption.signals:
            raise KeyboardInterrupt
        interruption.call_soon = call_soon()
        try:
            await job.scheduler.run(
                job.targets,
                inputs=job.inputs,
                order="shuffle" if job.shuffle else "priority",
                seed=job.seed,
            )
        finally:
            interruption.call_soon = None

    backend = "asyncio" if job.backend == "uvloop" else job.backend
    options = {"use_uvloop": True} if job.backend == "uvloop" else {}
    try:
        anyio.run(main, backend=backend, backend_options=options)
    except TaskError as error:
        raise refused(error) from error
    except (ImportError, LookupError) as error:
        # Of anyio, which looks for its backend; what a task raises stays in its result.
        raise UsageError(
            f"The backend {job.backend!r} is not installed: "
            f"pip install 'portable_sched[{job.backend}]'"
        ) from error


class Interruption:
    """What Ctrl-C and SIGTERM do to a run.

    The handler runs between any two instructions of the main thread, so it raises nothing, and only
    asks the event loop to have the run stopped when it comes to it. Before and after the run it
    counts. A third signal is for a program that does not come to it, or to its end.

    Args:
        scheduler: whose run it is.
        write: writes the reports.

    Attributes:
        signals: how many have come; SIGTERM counts twice, since it cancels.
        call_soon: how to have the event loop call something; None while there is no run.
        reported: whether the reports have been written.
    """

    def __init__(self, scheduler: TaskScheduler, write: Callable[[], object]) -> None:
        self._scheduler = scheduler
        self._write = write
        self.signals = 0
        self.reported = False
        self.call_soon: Callable[[Callable[[], object]], object] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Signals go to the run within the block."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            # A run that was cancelled may have left a thread behind, for which Python waits at the
            # end of the program: then there may be another Ctrl-C.
            if self.signals < _CANCELLED:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        so_far = self.signals
        self.signals = max(so_far + 1, 0 if number == signal.SIGINT else _CANCELLED)
        if so_far >= _CANCELLED:
            # The next one finds nobody who could do anything about it.
            signal.signal(number, signal.SIG_DFL)
            self._leave()
        elif self.call_soon is not None:
            cancel = partial(self._cancel, so_far)
            self.call_soon(cancel if self.signals >= _CANCELLED else self._drain)

    def _drain(self) -> None:
        self._say("Stopping: nothing new is started. Ctrl-C again cancels what is running.")
        self._explain()
        self._scheduler.stop()

    def _cancel(self, signals_before: int) -> None:
        self._say("Cancelling what is running. Ctrl-C again leaves at once.")
        if not signals_before:
            self._explain()
            self._scheduler.stop()
        # The second call cancels.
        self._scheduler.stop()

    def _leave(self) -> None:
        # Whatever it was doing, it may have been printing.
        with suppress(Exception):
            self._say("Leaving at once.")
        with suppress(Exception):
            if not self.reported:
                self._write()
        leave(INTERRUPTED)

    def _explain(self) -> None:
        """Say why what is running and waiting does."""
        by_status: dict[TaskStatus, list[str]] = {}
        for name, status in self._scheduler.status_snapshot():
            by_status.setdefault(status, []).append(name)
        for status, most in _MOST_EXPLAINED.items():
            names = by_status.get(status, [])
            for name in names[:most]:
                self._say(f"  {printable(str(self._scheduler.explain(name)))}")
            if len(names) > most:
                self._say(f"  and {len(names) - most} more {status.name}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

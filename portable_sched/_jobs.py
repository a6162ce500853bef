"""A run from the command line: carried out, interrupted by signals, and reported at its end."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        UsageError: the graph cannot be run, or the backend is not installed.
        SystemExit: a task raised it; the reports were written all the same.
    """
    begun: list[RunResults] = []

    def note(event: Any) -> None:
        begun.append(event.results)

    scheduler = job.scheduler.with_settings(observers=[_Noting(note), *_progress(job)])
    interruption = _Interruption(scheduler, progress=job.progress)
    was_interrupted = False
    try:
        _run(job, scheduler, interruption)
    except KeyboardInterrupt:
        was_interrupted = True
    finally:
        for results in begun:
            write_reports(job, results)
    ended = begun[0] if begun else None
    if was_interrupted or interruption.signals:
        return INTERRUPTED, ended
    return COMPLETED if ended is not None and ended.ok else FAILED, ended


def write_reports(job: Job, results: RunResults) -> None:
    """Write what was asked for, and say which files were written."""
    failed: list[str] = []
    # Files first: who reads what is printed may be gone (`| head`), and one report that cannot be
    # written is not to cost the others.
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
            failed.append(str(error))
    if failed:
        raise UsageError(f"The report cannot be written: {'; '.join(failed)}")


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


def _run(job: Job, scheduler: TaskScheduler, interruption: "_Interruption") -> None:
    async def main() -> None:
        interruption.call_soon = call_soon()
        await scheduler.run(
            job.targets,
            inputs=job.inputs,
            order="shuffle" if job.shuffle else "priority",
            seed=job.seed,
        )

    backend = "asyncio" if job.backend == "uvloop" else job.backend
    options = {"use_uvloop": True} if job.backend == "uvloop" else {}
    with interruption.handled():
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


class _Interruption:
    """What Ctrl-C and SIGTERM do to a run.

    The handler runs between any two instructions of the main thread, so it only asks the event loop
    to have the run stopped when it comes to it.

    Args:
        scheduler: whose run it is.
        progress: whether a live view may have hidden the cursor.

    Attributes:
        signals: how many have come.
        call_soon: how to have the event loop call something; None before it runs.
    """

    def __init__(self, scheduler: TaskScheduler, *, progress: bool = False) -> None:
        self._scheduler = scheduler
        self._hides_cursor = progress and sys.stderr is not None and sys.stderr.isatty()
        self.signals = 0
        self.call_soon: Callable[[Callable[[], object]], object] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Signals go to the run within the block."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.signals += 1
        if self.call_soon is None:
            raise KeyboardInterrupt
        first = self.signals == 1
        if number == signal.SIGINT and first:
            self.call_soon(self._drain)
        else:
            self.call_soon(partial(self._cancel, first))
            # A task that does not let itself be cancelled is not to keep the program for ever. What
            # ends it then runs no clean-up, so the cursor, which the live view hid, comes back now.
            if self._hides_cursor:
                os.write(sys.stderr.fileno(), b"\x1b[?25h")
            signal.signal(number, signal.SIG_DFL)

    def _drain(self) -> None:
        self._say("Stopping: nothing new is started. Ctrl-C again cancels what is running.")
        self._explain()
        self._scheduler.stop()

    def _cancel(self, first: bool) -> None:  # noqa: FBT001 - called through a partial
        self._say("Cancelling what is running.")
        if first:
            self._explain()
            self._scheduler.stop()
        # The second call cancels.
        self._scheduler.stop()

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

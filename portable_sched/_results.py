"""What came out of a run: the columns that are written while it goes, and how they are read."""

from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from math import isnan, nan
from os import PathLike
from pathlib import Path
from time import time
from typing import Any, Generic, TypeVar, cast, overload

from ._checks import Demand
from ._errors import DependencyFailedError, did_you_mean, error_text, nearest_names
from ._formats import format_of, render, table_for_notebook
from ._graph import Graph
from ._tasks import TaskDef, definition_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class TaskStatus(Enum):
    """Where a task stands. It goes one way, from PENDING through RUNNING to one of the rest."""

    PENDING = "PENDING"
    """Not started: it waits for its dependencies or for a slot."""
    RUNNING = "RUNNING"
    """Started, and not ended: an attempt is under way, or the next one is to come."""
    COMPLETED = "COMPLETED"
    """An attempt has succeeded."""
    FAILED = "FAILED"
    """Every attempt has failed, or, with no attempt made, something it depends on has."""
    CANCELLED = "CANCELLED"
    """The run was cancelled before the task had ended."""

    def __repr__(self) -> str:
        return f"TaskStatus.{self.name}"


# A status is a byte in its column; these are the places in the list of members.
PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = range(5)
_STATUSES = tuple(TaskStatus)


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """One attempt that did not succeed.

    Attributes:
        attempt: which one, from 1.
        exception: what it raised.
        duration: seconds from its start to its end.
        started_at: its start, in seconds of the event loop's clock.
        backoff: seconds that the task was to wait before it competed for the next attempt; 0.0
            where it had not to wait, or there was to be none.
    """

    attempt: int
    exception: BaseException
    duration: float
    started_at: float
    backoff: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskResult(Generic[T_co]):
    """How one task ended.

    Attributes:
        task_name: name of the task.
        status: COMPLETED, FAILED or CANCELLED; PENDING or RUNNING while the run goes on.
        result: what the function returned, or yielded; None unless COMPLETED, and where the
            scheduler was told not to keep results and all who take it have it.
        error: the exception as `ValueError: text`; None unless FAILED.
        exception: the exception of the last attempt, or the `DependencyFailedError` of a task that
            was not started; None unless FAILED.
        attempts: how many attempts were made; 0 for a task that was not started.
        duration: seconds from the start of the first attempt to the end of the last one, which for
            a task that yields is its `yield`; 0.0 while there is no end, or was no start.
        started_at: start of the first attempt, in seconds of the event loop's clock; None for a
            task that was not started.
        failures: every attempt that did not succeed, in order.
    """

    task_name: str
    status: TaskStatus
    result: T_co | None = None
    error: str | None = None
    exception: BaseException | None = None
    attempts: int = 0
    duration: float = 0.0
    started_at: float | None = None
    failures: tuple[AttemptFailure, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the task is COMPLETED."""
        return self.status is TaskStatus.COMPLETED

    def unwrap(self) -> T_co:
        """The result of a task that is COMPLETED, without the None that `result` may be.

        Raises:
            RuntimeError: it is not; the task's exception, if it has one, is the `__cause__`.

        >>> from portable_sched import TaskResult, TaskStatus
        >>> TaskResult("count", TaskStatus.COMPLETED, 3).unwrap() + 1
        4
        """
        if not self.ok:
            raise RuntimeError(
                f"Expected task {self.task_name!r} to be COMPLETED, but it is {self.status.name}"
                f"{f': {self.error}' if self.error else '.'}"
            ) from self.exception
        return cast("T_co", self.result)


# `list(results)` makes them by the million, nearly all alike, and the constructor of a frozen
# dataclass takes 1.3 µs for them. Filling the slots directly takes 0.5.
_new_result = TaskResult.__new__
(
    _set_task_name,
    _set_status,
    _set_result,
    _set_error,
    _set_exception,
    _set_attempts,
    _set_duration,
    _set_started_at,
    _set_failures,
) = (getattr(TaskResult, field.name).__set__ for field in fields(TaskResult))


def _completed_once(
    name: str, result: object, started_at: float, duration: float
) -> TaskResult[Any]:
    """The result of a task that succeeded at its first attempt."""
    made = _new_result(TaskResult)
    _set_task_name(made, name)
    _set_status(made, TaskStatus.COMPLETED)
    _set_result(made, result)
    _set_error(made, None)
    _set_exception(made, None)
    _set_attempts(made, 1)
    _set_duration(made, duration)
    _set_started_at(made, started_at)
    _set_failures(made, ())
    return made


class RunRecord:
    """What is known of one run, in columns by task number.

    Columns cost a task some 30 bytes where an object would cost it 150, and nothing to make.
    The state of the run is the one that writes them.

    Args:
        graph: what runs.
        began: start of the run, on the event loop's clock.

    Attributes:
        graph: what runs.
        tasks: the definitions, in topological order.
        numbers: task name to number.
        status: one of the five status codes for each task.
        results: what each COMPLETED task returned, and what a lifetime has yielded.
        started: start of each task's first attempt, on the event loop's clock; NaN before it.
        ended: end of each task that has ended, likewise, started or not.
        attempts: how many attempts were begun, for the few tasks that had more than one.
        attempt_began: start of the latest attempt, for the same tasks.
        failures: for the few tasks that have some, their failed attempts.
        failed_dependency: for each task that was not started because a dependency failed, which.
        root_cause: for the same tasks, the one whose own failure began it.
        closed: end of each lifetime whose body has ended, teardown included.
        began: start of the run.
        date: the same by the wall clock, in seconds since the epoch.
        finished: its end; None while it goes on.
        drained: from when on nothing new was started before its time; None if that never was.
        drained_by: the task whose failure was the reason; None if something else was.
        limit: how many tasks may be inside their functions at one time; None for all of them.
        demands: for each task what it holds while it is in its function; empty if none does.
        capacity: units that there are of each thing that tasks hold.
        most_running: the most tasks that were inside their functions at one time.
        order: in which order tasks were started where there was a choice, if not by priority.
    """

    __slots__ = (
        "_skipped",
        "attempt_began",
        "attempts",
        "began",
        "capacity",
        "closed",
        "date",
        "demands",
        "drained",
        "drained_by",
        "ended",
        "failed_dependency",
        "failures",
        "finished",
        "graph",
        "limit",
        "most_running",
        "numbers",
        "order",
        "results",
        "root_cause",
        "started",
        "status",
        "tasks",
    )

    tasks: Sequence[TaskDef]
    numbers: dict[str, int]
    status: bytearray
    started: "array[float]"
    ended: "array[float]"
    began: float
    most_running: int
    order: str

    def __init__(self, graph: Graph, began: float) -> None:
        count = len(graph)
        self.graph: Graph = graph
        self.tasks = graph.tasks
        self.numbers = graph.numbers
        self.status = bytearray(count)
        self.results: list[Any] = [None] * count
        self.started = array("d", (nan,)) * count
        self.ended = array("d", (nan,)) * count
        self.attempts: dict[int, int] = {}
        self.attempt_began: dict[int, float] = {}
        self.failures: dict[int, list[AttemptFailure]] = {}
        self.failed_dependency: dict[int, int] = {}
        self.root_cause: dict[int, int] = {}
        self.closed: dict[int, float] = {}
        self.began = began
        self.date: float = time()
        self.finished: float | None = None
        self.drained: float | None = None
        self.drained_by: int | None = None
        self.limit: int | None = None
        self.demands: Sequence[Demand] = ()
        self.capacity: Mapping[str, int] = {}
        self.most_running = 0
        self.order = ""
        # Made when first read and then kept, so that two reads give one and the same exception.
        self._skipped: dict[int, DependencyFailedError] = {}

    def result_of(self, number: int) -> TaskResult[Any]:
        """One task's columns as an object."""
        status = self.status[number]
        started = self.started[number]
        duration = self.ended[number] - started
        if status == COMPLETED and number not in self.failures:
            return _completed_once(self.tasks[number].name, self.results[number], started, duration)
        failures = tuple(self.failures.get(number, ()))
        exception = self.exception_of(number) if status == FAILED else None
        was_started = not isnan(started)
        return TaskResult(
            self.tasks[number].name,
            _STATUSES[status],
            self.results[number] if status == COMPLETED else None,
            error=None if exception is None else error_text(exception),
            exception=exception,
            attempts=self.attempt_of(number) if was_started else 0,
            duration=0.0 if isnan(duration) else duration,
            started_at=started if was_started else None,
            failures=failures,
        )

    def exception_of(self, number: int) -> BaseException:
        """Why a task has FAILED."""
        if number in self.failed_dependency:
            return self._skipped_because(number)
        return self.failures[number][-1].exception

    def attempt_of(self, number: int) -> int:
        """Which attempt of a started task is the latest."""
        return self.attempts.get(number, 1)

    def attempt_start_of(self, number: int) -> float:
        """When the latest attempt of a started task began."""
        return self.attempt_began.get(number, self.started[number])

    def demand_of(self, number: int) -> Demand:
        """What a task holds while it is in its function."""
        return self.demands[number] if self.demands else ()

    def statuses(self) -> Iterator[tuple[str, TaskStatus]]:
        """Each task's name and status, the latter as it is when the pair is asked for."""
        for number, definition in enumerate(self.tasks):
            yield definition.name, _STATUSES[self.status[number]]

    def _skipped_because(self, number: int) -> DependencyFailedError:
        error = self._skipped.get(number)
        if error is None:
            dependency = self.failed_dependency[number]
            root = self.root_cause[number]
            error = self._skipped[number] = DependencyFailedError(
                self.tasks[number].name,
                self.tasks[dependency].name,
                self.tasks[root].name,
                error_text(self.failures[root][-1].exception),
            )
        return error


class RunResults(Sequence[TaskResult[Any]]):
    """The results of one run, in topological order and by name.

    It is a `Sequence[TaskResult]` of one element for each task of the graph, and it can be asked
    for one task by its name or its function: `results["fetch"]`, `results[fetch]`. An element is
    made when it is read, so keep what you read twice.

    Attributes:
        wall_time: seconds from the start of the run to its end; 0.0 while it goes on.
        most_running: the most tasks that were inside their functions at one time.
        order: in which order tasks were started where there was a choice: empty for by priority,
            else what `run()` was told, with the seed of a shuffle.
        graph: what ran, with all that it depends on.
        started_at: start of the run, in seconds of the event loop's clock, as those of its tasks.
        date: the same by the wall clock, in UTC.
        max_concurrency: how many tasks could be inside their functions at one time; None for all.
        resources: how many units there were of each thing that tasks hold.
    """

    __slots__ = ("_record",)

    def __init__(self, record: RunRecord) -> None:
        self._record = record

    @property
    def graph(self) -> Graph:
        return self._record.graph

    @property
    def started_at(self) -> float:
        return self._record.began

    @property
    def date(self) -> datetime:
        return datetime.fromtimestamp(self._record.date, UTC)

    @property
    def max_concurrency(self) -> int | None:
        return self._record.limit

    @property
    def resources(self) -> dict[str, int]:
        return {name: units for name, units in self._record.capacity.items() if name}

    @property
    def wall_time(self) -> float:
        finished = self._record.finished
        return 0.0 if finished is None else finished - self._record.began

    @property
    def most_running(self) -> int:
        return self._record.most_running

    @property
    def order(self) -> str:
        return self._record.order

    @property
    def ok(self) -> bool:
        """Whether every task is COMPLETED; so it is where there are none."""
        return self._record.status.count(COMPLETED) == len(self)

    @property
    def completed(self) -> list[TaskResult[Any]]:
        """The results of the tasks that are COMPLETED, in topological order."""
        return self._with_status(COMPLETED)

    @property
    def failed(self) -> list[TaskResult[Any]]:
        """The results of the tasks that have FAILED, those that were not started included."""
        return self._with_status(FAILED)

    @property
    def cancelled(self) -> list[TaskResult[Any]]:
        """The results of the tasks that were CANCELLED, started or not."""
        return self._with_status(CANCELLED)

    def raise_for_failures(self) -> None:
        """Raise what went wrong, if anything did, as one group.

        The group has the exception of each task that failed by itself; those that were not
        started because of them add nothing. Each exception has a note that names the task and its
        attempt. What was CANCELLED is no failure.

        Raises:
            ExceptionGroup: at least one task has FAILED. It is a `BaseExceptionGroup` where one of
                them raised what is no `Exception`.
        """
        record = self._record
        causes = [
            (number, record.failures[number][-1])
            for number, code in enumerate(record.status)
            if code == FAILED and number not in record.failed_dependency
        ]
        if not causes:
            return
        for number, failure in causes:
            definition = record.tasks[number]
            note = f"in task {definition.name!r}, attempt {failure.attempt} of {definition.retries}"
            if note not in getattr(failure.exception, "__notes__", ()):
                # A frozen dataclass takes no notes.
                with suppress(AttributeError):
                    failure.exception.add_note(note)
        failed = f"{len(causes)} {'task' if len(causes) == 1 else 'tasks'} failed"
        raise BaseExceptionGroup(failed, [failure.exception for _, failure in causes])

    def _with_status(self, wanted: int) -> list[TaskResult[Any]]:
        result_of = self._record.result_of
        return [result_of(at) for at, code in enumerate(self._record.status) if code == wanted]

    def __len__(self) -> int:
        return len(self._record.tasks)

    def __iter__(self) -> Iterator[TaskResult[Any]]:
        return map(self._record.result_of, range(len(self)))

    @overload
    def __getitem__(self, key: int | str) -> TaskResult[Any]: ...
    @overload
    def __getitem__(self, key: slice) -> list[TaskResult[Any]]: ...
    @overload
    def __getitem__(self, key: Callable[..., Coroutine[Any, Any, T]]) -> TaskResult[T]: ...
    @overload
    def __getitem__(self, key: Callable[..., AsyncIterator[T]]) -> TaskResult[T]: ...
    @overload
    def __getitem__(self, key: Callable[..., T]) -> TaskResult[T]: ...
    def __getitem__(self, key: Any) -> Any:
        """One result, by its place, its task's name or its task's function; or a list, by slice.

        Raises:
            KeyError: the graph has no task of that name.
            IndexError: the graph has fewer tasks.
            TypeError: the function was never decorated.
        """
        if isinstance(key, slice):
            return [self._record.result_of(number) for number in range(*key.indices(len(self)))]
        if isinstance(key, int):
            if not -len(self) <= key < len(self):
                raise IndexError(f"No result at place {key}: there are {len(self)}.")
            return self._record.result_of(key % len(self))
        name = key if isinstance(key, str) else definition_of(key).name
        number = self._record.numbers.get(name)
        if number is None:
            nearest = did_you_mean(nearest_names(name, list(self._record.numbers)))
            raise KeyError(f"No task {name!r} in these results.{nearest}")
        return self._record.result_of(number)

    def __contains__(self, value: object) -> bool:
        """Whether there is such a result, or a task of that name."""
        if isinstance(value, str):
            return value in self._record.numbers
        return super().__contains__(value)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status.name}" for status, count in self.counts().items())
        return f"<RunResults: {counts or 'no tasks'}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a table."""
        return table_for_notebook(self)

    def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002 - what it is
        **options: Any,
    ) -> Path:
        """Write a report of the run to a file, in the format that its name says.

        Args:
            path: the file, which is replaced: `run.html`, `run.json`, `run.xml` (JUnit),
                `run.trace.json` (for Perfetto), `run.mmd` (Mermaid), `run.dot`, `run.txt`.
            format: "html" and so on, for a file of another name.
            options: what that format takes.

        Raises:
            ValueError: no format has that suffix, or that name.

        Returns:
            The path of the file.
        """
        file = Path(path)
        text = render(self, format_of(file) if format is None else format, **options)
        # A name may be no text (a file name that is none); rather a mark in it than no report.
        text = text if text.endswith("\n") else f"{text}\n"
        file.write_text(text, "utf-8", errors="replace", newline="\n")
        return file

    def counts(self) -> dict[TaskStatus, int]:
        """How many tasks have each status; statuses that none has are left out."""
        column = self._record.status
        counted = {status: column.count(code) for code, status in enumerate(_STATUSES)}
        return {status: count for status, count in counted.items() if count}

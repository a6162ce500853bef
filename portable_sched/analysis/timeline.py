"""When each attempt ran, and in which slot: what a run looks like along its time."""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from math import isnan

from portable_sched._results import (
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    RunRecord,
    RunResults,
    TaskStatus,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSpan:
    """One attempt of a task on the time of its run.

    Attributes:
        task_name: whose attempt it is.
        attempt: which one, from 1.
        slot: where it ran, from 0: the lowest that was free. Slots are not kept by a run, which
            only counts them; drawn this way as many are used as attempts ran at one time.
        start: its start, in seconds since the run began.
        end: its end, likewise; `until` while it goes on.
        status: COMPLETED, FAILED, CANCELLED, or RUNNING while it goes on.
    """

    task_name: str
    attempt: int
    slot: int
    start: float
    end: float
    status: TaskStatus

    @property
    def duration(self) -> float:
        """Seconds from its start to its end."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSpan:
    """The time that a lifetime was open: from its `yield` to the end of its teardown.

    Attributes:
        task_name: the task that yields.
        start: its `yield`, in seconds since the run began.
        end: the end of its teardown, likewise; `until` while it is open.
    """

    task_name: str
    start: float
    end: float

    @property
    def duration(self) -> float:
        """Seconds that it was open."""
        return self.end - self.start


def attempt_spans(results: RunResults, until: float | None = None) -> list[AttemptSpan]:
    """Every attempt that was begun, in the order of their starts.

    Args:
        results: of a run, over or not.
        until: seconds since the run began at which what still goes on is cut off; its end, or the
            last that is known to have happened, where it is left out.

    >>> import asyncio
    >>> from portable_sched import TaskRegistry, TaskScheduler
    >>> from portable_sched.analysis.timeline import attempt_spans
    >>> registry = TaskRegistry()
    >>> @registry.task
    ... async def fetch() -> None: ...
    >>> results = asyncio.run(TaskScheduler(registry).run())
    >>> [(span.task_name, span.attempt, span.slot) for span in attempt_spans(results)]
    [('fetch', 1, 0)]
    """
    record = results._record  # noqa: SLF001 - the columns are the data, and this reads them
    if until is None:
        until = last_moment(record)
    rows: list[tuple[float, float, int, int, int]] = []
    for number, started in enumerate(record.started):
        if not isnan(started):
            rows.extend(_attempts_of(record, number, until))
    rows.sort()
    slots = _Slots()
    return [
        AttemptSpan(
            task_name=record.tasks[number].name,
            attempt=attempt,
            slot=slots.taken(start, end),
            start=start,
            end=end,
            status=tuple(TaskStatus)[status],
        )
        for start, end, number, attempt, status in rows
    ]


def open_spans(results: RunResults, until: float | None = None) -> list[OpenSpan]:
    """When each lifetime that has opened was open, in topological order."""
    record = results._record  # noqa: SLF001 - as above
    if until is None:
        until = last_moment(record)
    spans: list[OpenSpan] = []
    for number in record.graph.lifetimes:
        opened = record.ended[number] - record.began
        closed = record.closed.get(number)
        if record.status[number] == COMPLETED or (closed is not None and not isnan(opened)):
            end = until if closed is None else closed - record.began
            name = record.tasks[number].name
            spans.append(OpenSpan(task_name=name, start=opened, end=max(opened, end)))
    return spans


def _attempts_of(
    record: RunRecord, number: int, until: float
) -> list[tuple[float, float, int, int, int]]:
    """Start, end, task, attempt and status of each attempt of one task."""
    latest = record.attempt_of(number)
    rows: dict[int, tuple[float, float, int, int, int]] = {}
    for failure in record.failures.get(number, ()):
        start = failure.started_at - record.began
        row = (start, start + failure.duration, number, failure.attempt, FAILED)
        # What `retry_on` raised is a second failure of one attempt, which the first one ended.
        rows.setdefault(failure.attempt, row)
    if number in record.closed:
        # What a teardown raised is told as of the attempt that had opened the lifetime.
        rows.pop(latest, None)
    if latest not in rows:
        start = record.attempt_start_of(number) - record.began
        status = COMPLETED if number in record.closed else record.status[number]
        end = max(start, until) if status == RUNNING else record.ended[number] - record.began
        rows[latest] = (start, end, number, latest, status)
    return list(rows.values())


def last_moment(record: RunRecord) -> float:
    """Seconds from the start of a run to its end, or to the last that is known to have happened."""
    if record.finished is not None:
        return record.finished - record.began
    moments = [*record.started, *record.ended, *record.attempt_began.values(), record.began]
    return max(moment for moment in moments if not isnan(moment)) - record.began


def over_at(record: RunRecord, number: int) -> float | None:
    """When a task was over, so that who comes `after` it could come; None where it is not.

    For a lifetime that has opened that is the end of its teardown.
    """
    if number in record.closed:
        return record.closed[number]
    if record.status[number] in {PENDING, RUNNING}:
        return None
    if record.status[number] == COMPLETED and number in record.graph.lifetimes:
        return None
    return record.ended[number]


def ready_at(record: RunRecord, number: int) -> float | None:
    """When nothing had to come before a task any more; None where something still has to, or had.

    On the event loop's clock, as all that stands in the columns.
    """
    ready = record.began
    for _, there in ways_to(record, number):
        if there is None:
            return None
        ready = max(ready, there)
    return ready


def ways_to(record: RunRecord, number: int) -> Iterator[tuple[int, float | None]]:
    """What has to come before a task, each with when that was there.

    None stands where it was not, or not in time: what was not started because the run was stopped
    may have waited for something that was running, and that ended later.
    """
    given_up = record.ended[number]
    for dependency in record.graph.dependencies[number]:
        # A lifetime may have FAILED in its teardown; what it yielded was there all the same.
        was_there = record.status[dependency] == COMPLETED or dependency in record.closed
        there = record.ended[dependency]
        yield dependency, there if was_there and not there > given_up else None
    definition = record.tasks[number]
    if not definition.is_simple:
        for name in definition.after:
            over = over_at(record, record.numbers[name])
            in_time = over is not None and not over > given_up
            yield record.numbers[name], over if in_time else None


def is_in_function(record: RunRecord, number: int) -> bool:
    """Whether a RUNNING task is inside its function, and not between two attempts."""
    failures = record.failures.get(number)
    return not failures or failures[-1].attempt < record.attempt_of(number)


AT_ONCE = 1e-9
"""Seconds: the end of a failed attempt is a sum, which rounding may make later than it was."""


def due_at(record: RunRecord, number: int) -> float:
    """When a task's backoff after its latest failure is over, in seconds since the run began."""
    failure = record.failures[number][-1]
    return failure.started_at + failure.duration + failure.backoff - record.began


class _Slots:
    """Slots given out in the order of time, the lowest free one first."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._taken: list[tuple[float, int]] = []
        self._made = 0

    def taken(self, start: float, end: float) -> int:
        """The slot of what runs from `start` to `end`."""
        while self._taken and self._taken[0][0] <= start + AT_ONCE:
            heappush(self._free, heappop(self._taken)[1])
        if self._free:
            slot = heappop(self._free)
        else:
            slot = self._made
            self._made += 1
        heappush(self._taken, (end, slot))
        return slot

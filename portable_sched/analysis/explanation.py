"""Why a task waits, or why it did not run."""

from dataclasses import dataclass
from math import isnan
from typing import Any

from portable_sched._errors import did_you_mean, error_text, nearest_names
from portable_sched._results import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    RunRecord,
    RunResults,
    TaskStatus,
)

from .timeline import due_at, is_in_function, last_moment, ready_at, ways_to
from .wording import Told, both_ends, in_seconds, listed, resource_text

_SHOWN = 3
"""Tasks at each end of a long way to a root cause that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """A resource of which a task wants more than is free.

    Attributes:
        resource: its name; "" stands for a thread.
        wanted: units that the task asks for.
        free: units that nobody holds.
        held_by: the tasks that hold some.
    """

    resource: str
    wanted: int
    free: int
    held_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Told):
    """Why a task waits, or why it did not run, or what it is doing. `str()` makes a sentence.

    Attributes:
        task_name: the task.
        status: where it stands.
        waits_for: what has to come before it and has not: dependencies, and tasks it is `after`.
        ready_since: since when nothing else has had to come first, in seconds since the run began;
            None for a task that was never ready.
        shortages: what it asks for and cannot have.
        chain: for a task that was not started because another failed, the way to the root cause:
            itself first, the task that failed by itself last.
        text: the sentence.
    """

    task_name: str
    status: TaskStatus
    waits_for: tuple[str, ...] = ()
    ready_since: float | None = None
    shortages: tuple[Shortage, ...] = ()
    chain: tuple[str, ...] = ()
    text: str = ""

    def __str__(self) -> str:
        """The sentence."""
        return self.text


def explain(results: RunResults, task: str, now: float | None = None) -> Explanation:
    """Why a task of a run, over or not, stands where it does.

    Args:
        results: of the run.
        task: its name.
        now: seconds since the run began; its end, or the last that is known to have happened,
            where it is left out.

    Raises:
        KeyError: the graph has no task of that name.

    >>> from portable_sched import TaskRegistry
    >>> from portable_sched.analysis.explanation import explain
    >>> from portable_sched.testing import run_graph
    >>> registry = TaskRegistry()
    >>> @registry.task
    ... async def fetch() -> None:
    ...     raise OSError("no network")
    >>> @registry.task(depends_on=[fetch])
    ... async def load() -> None: ...
    >>> print(explain(run_graph(registry), "load"))
    'load' was not started: it depends on 'fetch', which failed: OSError: no network
    """
    record = results._record  # noqa: SLF001 - the columns are the data, and this reads them
    number = record.numbers.get(task)
    if number is None:
        nearest = did_you_mean(nearest_names(task, list(record.numbers)))
        raise KeyError(f"No task {task!r} in these results.{nearest}")
    if now is None:
        now = last_moment(record)
    status = record.status[number]
    if status in {PENDING, RUNNING}:
        return (_pending if status == PENDING else _running)(record, number, now)
    return {COMPLETED: _completed, FAILED: _failed, CANCELLED: _cancelled}[status](record, number)


def _said(record: RunRecord, number: int, text: str, **parts: Any) -> Explanation:
    return Explanation(
        task_name=record.tasks[number].name,
        status=record.result_of(number).status,
        text=text,
        **parts,
    )


def _pending(record: RunRecord, number: int, now: float) -> Explanation:
    name = record.tasks[number].name
    waits_for = _waits_for(record, number)
    if waits_for:
        running = [one for one in waits_for if record.status[record.numbers[one]] == RUNNING]
        remark = f"; running: {listed(running)}" if running else ""
        text = f"{name!r} waits for {listed(waits_for)}{remark}"
        return _said(record, number, waits_for=tuple(waits_for), text=text)
    return _ready(record, number, now, f"{name!r} is")


def _ready(record: RunRecord, number: int, now: float, subject: str) -> Explanation:
    """What a task wants that could start as far as others are concerned."""
    since = _ready_since(record, number)
    shortages = _shortages(record, number)
    if shortages:
        wanted = " and ".join(
            f"{resource_text(one.resource)}, held by {listed(one.held_by)}" for one in shortages
        )
        wants = f"wants {wanted}"
    else:
        in_function = _in_function(record)
        if record.limit is not None and len(in_function) >= record.limit:
            slots = "the only slot" if record.limit == 1 else f"one of {record.limit} slots"
            wants = f"wants {slots}, held by {listed(in_function)}"
        else:
            wants = "starts as soon as the event loop comes to it"
    text = f"{subject} ready since {in_seconds(since)}, for {in_seconds(now - since)}, {wants}"
    return _said(record, number, ready_since=since, shortages=shortages, text=text)


def _running(record: RunRecord, number: int, now: float) -> Explanation:
    definition = record.tasks[number]
    attempt = record.attempt_of(number)
    since = _ready_since(record, number)
    if is_in_function(record, number):
        so_far = now - (record.attempt_start_of(number) - record.began)
        text = (
            f"{definition.name!r} is running: attempt {attempt} of {definition.retries}, for "
            f"{in_seconds(max(so_far, 0.0))}"
        )
        return _said(record, number, ready_since=since, text=text)
    failure = record.failures[number][-1]
    due = due_at(record, number)
    failed = (
        f"{definition.name!r}, of which attempt {attempt} of {definition.retries} failed "
        f"({error_text(failure.exception)}),"
    )
    if due > now:
        text = f"{failed} is tried again in {in_seconds(due - now)}"
        return _said(record, number, ready_since=since, text=text)
    return _ready(record, number, now, f"{failed} is")


def _completed(record: RunRecord, number: int) -> Explanation:
    name = record.tasks[number].name
    attempts = record.attempt_of(number)
    took = in_seconds(record.ended[number] - record.started[number])
    text = f"{name!r} has completed in {took}"
    if attempts > 1:
        text += f", at attempt {attempts}"
    if number in record.graph.lifetimes and number not in record.closed:
        users = record.graph.dependents[number]
        using = [
            record.tasks[one].name for one in users if record.status[one] in {PENDING, RUNNING}
        ]
        text += f"; it is open, used by {listed(using)}" if using else "; it is open"
    return _said(record, number, ready_since=_ready_since(record, number), text=text)


def _failed(record: RunRecord, number: int) -> Explanation:
    chain = [number]
    while chain[-1] in record.failed_dependency:
        chain.append(record.failed_dependency[chain[-1]])
    root = chain[-1]
    error = error_text(record.failures[root][-1].exception)
    names = [record.tasks[one].name for one in chain]
    if len(chain) > 1:
        way = ", which depends on ".join(both_ends(list(map(repr, names[1:])), _SHOWN))
        text = f"{names[0]!r} was not started: it depends on {way}, which failed: {error}"
        return _said(record, number, chain=tuple(names), text=text)
    if number in record.closed:
        text = f"{names[0]!r} failed after its `yield`: {error}"
    else:
        attempt = record.attempt_of(number)
        retries = record.tasks[number].retries
        text = f"{names[0]!r} failed at attempt {attempt} of {retries}: {error}"
    since = _ready_since(record, number)
    return _said(record, number, ready_since=since, chain=tuple(names), text=text)


def _cancelled(record: RunRecord, number: int) -> Explanation:
    name = record.tasks[number].name
    started = record.started[number]
    if not isnan(started):
        took = in_seconds(record.ended[number] - record.attempt_start_of(number))
        attempt = record.attempt_of(number)
        text = f"{name!r} was cancelled during attempt {attempt}, after {took}{_reason(record)}"
        return _said(record, number, ready_since=_ready_since(record, number), text=text)
    waits_for = _waits_for(record, number)
    text = f"{name!r} was not started{_reason(record)}"
    if waits_for:
        text += f"; it waited for {listed(waits_for)}"
    since = None if waits_for else _ready_since(record, number)
    return _said(record, number, waits_for=tuple(waits_for), ready_since=since, text=text)


def _reason(record: RunRecord) -> str:
    """Why the run came to a premature end."""
    if record.drained is None:
        return ": the run was cut off"
    at = in_seconds(record.drained - record.began)
    if record.drained_by is None:
        return f": the run was stopped after {at}"
    return f": {record.tasks[record.drained_by].name!r} had failed after {at}"


def _waits_for(record: RunRecord, number: int) -> list[str]:
    """What has to come before a task and has not."""
    return [record.tasks[one].name for one, there in ways_to(record, number) if there is None]


def _ready_since(record: RunRecord, number: int) -> float:
    ready = ready_at(record, number)
    return 0.0 if ready is None else ready - record.began


def _in_function(record: RunRecord) -> list[str]:
    """The tasks that are inside their functions."""
    return [
        record.tasks[number].name
        for number, status in enumerate(record.status)
        if status == RUNNING and is_in_function(record, number)
    ]


def _shortages(record: RunRecord, number: int) -> tuple[Shortage, ...]:
    demand = record.demand_of(number)
    if not demand:
        return ()
    used: dict[str, int] = {}
    held_by: dict[str, list[str]] = {}
    for other, status in enumerate(record.status):
        if status == RUNNING and record.demands[other] and is_in_function(record, other):
            for resource, units in record.demands[other]:
                used[resource] = used.get(resource, 0) + units
                held_by.setdefault(resource, []).append(record.tasks[other].name)
    return tuple(
        Shortage(
            resource=resource,
            wanted=units,
            free=record.capacity[resource] - used[resource],
            held_by=tuple(held_by[resource]),
        )
        for resource, units in demand
        if units > record.capacity[resource] - used.get(resource, 0)
    )

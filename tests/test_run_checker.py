"""The checkers of random runs do complain: of an honest run in which one thing is changed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from conftest import backend_options
from event_checker import Decisions, event_complaints
from naive import defined, idle_lifetime
from run_checker import Conditions, complaints
from run_log import (
    Body,
    Cancelled,
    Closed,
    Ended,
    Left,
    Line,
    Seen,
    Settled,
    Started,
    Stopped,
    Theatre,
)

from portable_sched import (
    AttemptCompleted,
    AttemptStarted,
    Backoff,
    DependencyFailedError,
    FailurePolicy,
    Priority,
    RunResults,
    TaskCompleted,
    TaskFailed,
    TaskScheduler,
)
from portable_sched._results import RunRecord

# This run is as it should be; then one thing is changed.

TASKS = [
    defined("a", priority=Priority.HIGH, retries=2),
    defined("b", "a", priority=Priority.LOW),
    defined("c"),
    defined("x", "a"),
    defined("y", "x"),
]
HONEST = Conditions(tasks=TASKS, limit=2)


@pytest.fixture
def honest_run() -> tuple[list[Line], RunResults]:
    """`a` fails once and then succeeds, `x` fails, so `y` does; each takes a second."""

    async def run() -> tuple[list[Line], RunResults]:
        theatre = Theatre(virtual_time=True)
        failing = {"a": 1, "x": 1}
        scheduler = TaskScheduler(
            [
                theatre.task(one, Body(("sleep",), failing.get(one.name, 0), "error"))
                for one in TASKS
            ],
            max_concurrency=HONEST.limit,
        )
        await theatre.run(scheduler)
        return theatre.log, scheduler.results

    name, options = backend_options("asyncio", virtual_time=True)
    return anyio.run(run, backend=name, backend_options=options)


def shown(log: list[Line]) -> list[str]:
    """The lines in short, to see where what stands."""
    return [
        f"{type(line).__name__} {getattr(line, 'name', '')} {line.at:g}".replace("  ", " ")
        for line in log
    ]


def test_the_checker_does_not_complain_of_an_honest_run(honest_run) -> None:
    log, results = honest_run

    assert [
        "Entered 0",
        "Started a 0",
        "Started c 0",
        "Ended a 1",
        "Ended c 1",
        "Started a 1",
        "Ended a 2",
        "Started x 2",
        "Started b 2",
        "Ended x 3",
        "Ended b 3",
        "Left 3",
    ] == shown(log)
    assert [] == complaints(HONEST, log, results)


def moved(log: list[Line], source: int, target: int) -> list[Line]:
    log.insert(target, log.pop(source))
    return log


def at_index(log: list[Line], index: int, **changes: Any) -> list[Line]:
    log[index] = replace(log[index], **changes)
    return log


def without(log: list[Line], *indexes: int) -> list[Line]:
    return [line for index, line in enumerate(log) if index not in indexes]


def with_lines(log: list[Line], index: int, *lines: Line) -> list[Line]:
    return [*log[:index], *lines, *log[index:]]


# What is done to the log, under which conditions it is read, and one complaint that there must be.
BROKEN_LOGS: dict[str, tuple[Callable[[list[Line]], list[Line]], Conditions, str]] = {
    "a task that starts before what it depends on has succeeded": (
        lambda log: moved(log, 8, 6),
        replace(HONEST, limit=None),
        "'b' started before 'a' had succeeded",
    ),
    "a task that starts while a better one is ready": (
        lambda log: moved(log, 8, 7),
        HONEST,
        "'b' started while 'x' was ready",
    ),
    "a task that starts before one that is to try again and is more urgent": (
        lambda log: without(with_lines(log, 4, Started("c", 1, 1.0)), 2),
        HONEST,
        "'c' started while 'a' was ready",
    ),
    "a task that starts when all slots are taken": (
        lambda log: log,
        replace(HONEST, limit=1),
        "'c' started beside ['a']: above the limit",
    ),
    "a task that starts when all threads are taken": (
        lambda log: log,
        replace(HONEST, threads=1, in_threads=frozenset("ac")),
        "'c' started beside ['a']: no thread was free",
    ),
    "a task that could start while time goes on": (
        lambda log: without(log, 2, 4),
        HONEST,
        "'c' was ready at 0.0 and time went on",
    ),
    "a task that never starts": (
        lambda log: without(log, 8, 10),
        HONEST,
        "'b' was ready and did not start",
    ),
    "a task that is not tried again": (
        lambda log: without(log, *range(5, 11)),
        HONEST,
        "'a' was ready and did not start",
    ),
    "a task that starts twice": (
        lambda log: with_lines(log, 3, Started("c", 1, 0.0)),
        HONEST,
        "'c' started while it ran",
    ),
    "a task that starts after it has succeeded": (
        lambda log: with_lines(log, 11, Started("c", 1, 3.0), Ended("c", "returned", 3.0)),
        HONEST,
        "'c' started after it had ended",
    ),
    "a task that starts after it has failed": (
        lambda log: with_lines(log, 11, Started("x", 2, 3.0), Ended("x", "returned", 3.0)),
        HONEST,
        "'x' started attempt 2 of 1 as number 2",
    ),
    "a dependent of a failed task that starts": (
        lambda log: with_lines(log, 11, Started("y", 1, 3.0), Ended("y", "returned", 3.0)),
        HONEST,
        "'y' started before 'x' had succeeded",
    ),
    "an attempt that is counted wrong": (
        lambda log: at_index(log, 5, attempt=3),
        HONEST,
        "'a' started attempt 3 of 2 as number 2",
    ),
    "a task that does not end": (lambda log: without(log, 10), HONEST, "'b' never ended"),
    "a task that ends twice": (
        lambda log: with_lines(log, 11, Ended("b", "returned", 3.0)),
        HONEST,
        "'b' ended and did not run",
    ),
    "a clock that goes back": (
        lambda log: at_index(log, 6, at=0.5),
        HONEST,
        "time went back from 1.0 to 0.5",
    ),
    "a task that starts after the run was left": (
        lambda log: moved(log, 11, 8),
        HONEST,
        "after run() was left: Started(name='b', attempt=1, at=2.0, given={})",
    ),
    "a run that is never left": (lambda log: log[:-1], HONEST, "run() was never left"),
    "a task that starts in the time after a cancellation": (
        lambda log: with_lines(log, 6, Cancelled(1.5)),
        HONEST,
        "'b' started after the run was cancelled",
    ),
    "a task that starts once a cancellation has reached everyone": (
        lambda log: with_lines(log, 7, Cancelled(2.0), Settled(2.0)),
        HONEST,
        "'x' started after the run was cancelled",
    ),
    "a success after a cancellation that counts": (
        lambda log: with_lines(log, 9, Cancelled(2.0), Settled(2.0)),
        HONEST,
        "'b' is COMPLETED, not CANCELLED",
    ),
    "a cancelled attempt that the results call completed": (
        lambda log: at_index(log, 10, how="was cancelled"),
        HONEST,
        "'b' is COMPLETED, not CANCELLED",
    ),
    "a success that the results call failed": (
        lambda log: at_index(log, 9, how="returned"),
        HONEST,
        "'x' is FAILED, not COMPLETED",
    ),
    "a result that is not what was returned": (
        lambda log: at_index(log, 4, outcome="another"),
        HONEST,
        "'c' has the result ('c', 1)",
    ),
    "an exception that is not what was raised": (
        lambda log: at_index(log, 9, outcome=ERROR),
        HONEST,
        "'x' has the failures [ValueError('x')], not [KeyError()]",
    ),
    "more attempts in the results than in the log": (
        lambda log: without(log, 3, 5),
        HONEST,
        "'a' has 2 attempts, not 1",
    ),
    "a failure that was in another attempt": (
        lambda log: at_index(at_index(log, 3, how="returned"), 6, how="failed"),
        HONEST,
        "'a' has failed in other attempts than [2]",
    ),
    "another start": (
        lambda log: at_index(log, 1, at=-1.0),
        HONEST,
        "'a' started at 0.0, not at -1.0",
    ),
    "another duration": (lambda log: at_index(log, 10, at=3.5), HONEST, "'b' took 1.0, not 1.5"),
    "a duration too short for a real clock": (
        lambda log: at_index(log, 10, at=3.5),
        replace(HONEST, virtual_time=False),
        "'b' started at 2.0 for 1.0, not at 2.0 for 1.5",
    ),
    "another length of the run": (
        lambda log: at_index(log, 11, at=4.0),
        HONEST,
        "the run took 3.0 in the results, 4.0 in the log",
    ),
    "another number of tasks at one time": (
        lambda log: with_lines(log, 2, Started("b", 1, 0.0)),
        replace(HONEST, limit=None),
        "2 at once in the results, 3 in the log",
    ),
}
ERROR = KeyError()


@pytest.mark.parametrize("broken", BROKEN_LOGS)
def test_the_checker_complains_of(honest_run, broken) -> None:
    log, results = honest_run
    break_it, conditions, complaint = BROKEN_LOGS[broken]

    assert complaint in complaints(conditions, break_it(log), results)


def _say_something_else(record: RunRecord) -> None:
    # Read once, an explanation stays as it is; here is another one to read.
    record._skipped[record.numbers["y"]] = DependencyFailedError("y", "x", "x", "another reason")


BROKEN_RESULTS: dict[str, tuple[Callable[[RunRecord], object], str]] = {
    "a task that is not in the results": (
        lambda record: setattr(record, "tasks", record.tasks[:-1]),
        "results of ['a', 'b', 'c', 'x']",
    ),
    "results that are not in topological order": (
        lambda record: setattr(record, "tasks", record.tasks[::-1]),
        "results have 'y' before 'x'",
    ),
    "a task that has not ended": (
        lambda record: record.status.__setitem__(record.numbers["c"], 1),
        "'c' is RUNNING, not COMPLETED",
    ),
    "a dependent of a failed task that was cancelled": (
        lambda record: record.status.__setitem__(record.numbers["y"], 4),
        "'y' is CANCELLED, not FAILED",
    ),
    "a failure that was forgotten": (
        lambda record: record.failures.pop(record.numbers["a"]),
        "'a' has the failures [], not [ValueError('a')]",
    ),
    "a direct dependency that has not failed": (
        lambda record: record.failed_dependency.update({record.numbers["y"]: record.numbers["a"]}),
        "'y' has failed because of 'a'",
    ),
    "a root cause that has not failed": (
        lambda record: record.root_cause.update({record.numbers["y"]: record.numbers["a"]}),
        "'y' has failed because of 'a' in the end",
    ),
    "a reason that is not the root cause's": (
        _say_something_else,
        "'y' has failed for the reason 'another reason'",
    ),
    "a start of what was not started": (
        lambda record: record.started.__setitem__(record.numbers["y"], 2.0),
        "'y' did not start, at 2.0 for 1.0",
    ),
}


@pytest.mark.parametrize("broken", BROKEN_RESULTS)
def test_the_checker_complains_of_results_with(honest_run, broken) -> None:
    log, results = honest_run
    break_it, complaint = BROKEN_RESULTS[broken]
    break_it(results._record)

    assert complaint in complaints(HONEST, log, results)


# A run of everything, watched: a lifetime that others use, a backoff, a resource, what comes after.

DB = defined("db", priority=Priority.HIGH, function=idle_lifetime)
LOAD = defined(
    "load",
    "db",
    priority=Priority.HIGH,
    retries=2,
    backoff=Backoff(initial=1, jitter=0),
    resources={"gpu": 1},
)
OTHER = defined("other", priority=Priority.LOW, resources={"gpu": 1})
MAIL = defined("mail", after=["load", "db"], timeout=5)
FULL = Conditions(
    tasks=[DB, LOAD, OTHER, MAIL],
    resources={"gpu": 1},
    takes={"load": frozenset({"db"}), "mail": frozenset({"load"})},
    limit=3,
)
FULL_BODIES = {
    "db": Body(("sleep",), 0, "error", teardown=("sleep",)),
    "load": Body(("sleep",), 1, "error", takes=frozenset({"db"})),
    "other": Body(("sleep",), 0, "error"),
    "mail": Body(("sleep",), 0, "error", takes=frozenset({"load"})),
}


@pytest.fixture
def full_run() -> tuple[list[Line], RunResults]:
    async def run() -> tuple[list[Line], RunResults]:
        theatre = Theatre(virtual_time=True)
        scheduler = TaskScheduler(
            [theatre.task(one, FULL_BODIES[one.name]) for one in FULL.tasks],
            max_concurrency=FULL.limit,
            resources=FULL.resources,
            observers=[theatre.observe],
        )
        await theatre.run_with(scheduler)
        return theatre.log, scheduler.results

    name, options = backend_options("asyncio", virtual_time=True)
    return anyio.run(run, backend=name, backend_options=options)


def everything_about(conditions: Conditions, log: list[Line], results: RunResults) -> list[str]:
    return [*complaints(conditions, log, results), *event_complaints(conditions, log, results)]


def test_the_checkers_do_not_complain_of_an_honest_run_of_everything(full_run) -> None:
    log, results = full_run

    assert [
        "Entered 0",
        "Started db 0",
        "Started other 0",
        "Ended db 1",
        "Ended other 1",
        "Started load 1",
        "Ended load 2",
        "Started load 3",
        "Ended load 4",
        "Closing db 4",
        "Closed db 5",
        "Started mail 5",
        "Ended mail 6",
        "Left 6",
    ] == shown([line for line in log if not isinstance(line, Seen)])
    assert [] == everything_about(FULL, log, results)


def place_of(log: list[Line], shown_as: str) -> int:
    """Where the line stands that is shown so; of an event, its kind and its task are shown."""
    return [_name_of(line) for line in log].index(shown_as)


def _name_of(line: Line) -> str:
    if isinstance(line, Seen):
        event = line.event
        return f"{type(event).__name__} {getattr(event, 'task', '')} {event.at:g}"
    return shown([line])[0]


def brought(what: str, before: str) -> Callable[[list[Line]], list[Line]]:
    """The log with one line moved to where another stands, and then."""

    def bring(log: list[Line]) -> list[Line]:
        at = log[place_of(log, before)].at
        line = replace(log.pop(place_of(log, what)), at=at)
        log.insert(place_of(log, before), line)
        return log

    return bring


def lacking(*what: str) -> Callable[[list[Line]], list[Line]]:
    return lambda log: without(log, *(place_of(log, one) for one in what))


def changed(what: str, **changes: Any) -> Callable[[list[Line]], list[Line]]:
    return lambda log: at_index(log, place_of(log, what), **changes)


def changed_event(what: str, **changes: Any) -> Callable[[list[Line]], list[Line]]:
    def change(log: list[Line]) -> list[Line]:
        place = place_of(log, what)
        return at_index(log, place, event=replace(log[place].event, **changes))

    return change


def before(what: str, *lines: Line) -> Callable[[list[Line]], list[Line]]:
    return lambda log: with_lines(log, place_of(log, what), *lines)


# What is done to the log, under which conditions it is read, and one complaint that there must be.
BROKEN_FULL_LOGS: dict[str, tuple[Callable[[list[Line]], list[Line]], Conditions, str]] = {
    "a task that starts before what it comes after has ended": (
        brought("Started mail 5", before="Ended load 4"),
        FULL,
        "'mail' started before 'load' had ended",
    ),
    "a task that starts before the lifetime that it comes after has closed": (
        brought("Started mail 5", before="Closed db 5"),
        FULL,
        "'mail' started before 'db' had ended",
    ),
    "a task that could start when what it comes after has ended": (
        lambda log: [
            replace(line, at=7.0) if place > place_of(log, "Closed db 5") else line
            for place, line in enumerate(log)
        ],
        FULL,
        "'mail' was ready at 5.0 and time went on",
    ),
    "a lifetime that closes before its user has ended": (
        brought("Closing db 4", before="Ended load 4"),
        FULL,
        "'db' began to close before 'load' had ended",
    ),
    "a lifetime that closes in a backoff of its user": (
        brought("Closing db 4", before="Started load 3"),
        FULL,
        "'db' began to close before 'load' had ended",
    ),
    "a lifetime that could close": (
        changed("Closing db 4", at=4.5),
        FULL,
        "'db' could close at 4.0 and time went on",
    ),
    "a lifetime that is not closed": (
        lacking("Closing db 4", "Closed db 5"),
        FULL,
        "'db' never closed",
    ),
    "a lifetime that closes twice": (
        before("Started mail 5", Closed("db", "returned", 5.0)),
        FULL,
        "'db' closed and had not begun to",
    ),
    "a lifetime that closes after the run": (
        lambda log: moved(log, place_of(log, "Closed db 5"), len(log) - 1),
        FULL,
        "after run() was left: Closed(name='db', how='returned', at=5.0, outcome=None)",
    ),
    "a lifetime that something breaks": (
        changed("Closing db 4", broken=True),
        FULL,
        "'db' was broken by nobody",
    ),
    "a teardown that is cancelled": (
        changed("Closed db 5", how="was cancelled"),
        FULL,
        "'db' was cancelled in its teardown",
    ),
    "a teardown that fails and is not in the results": (
        changed("Closed db 5", how="failed", outcome=ERROR),
        FULL,
        "'db' is COMPLETED, not FAILED",
    ),
    "a resource that is taken twice": (
        brought("Started load 1", before="Ended other 1"),
        FULL,
        "'load' started beside ['other']: not enough gpu",
    ),
    "a task that starts in its backoff": (
        changed("Started load 3", at=2.5),
        FULL,
        "'load' started at 2.5, in its backoff until 3.0",
    ),
    "a backoff that is too long": (
        lambda log: log,
        replace(
            FULL,
            tasks=[DB, replace(LOAD, backoff=Backoff(initial=0.5, jitter=0)), OTHER, MAIL],
        ),
        "'load' was ready at 2.0 and time went on",
    ),
    "a task that is tried again for what it is not to": (
        lambda log: log,
        replace(FULL, tasks=[DB, replace(LOAD, retry_on=OSError), OTHER, MAIL]),
        "'load' started after it had ended",
    ),
    "a result that is given as another": (
        changed("Started load 1", given={"db": ("db", 2)}),
        FULL,
        "'load' was given {'db': ('db', 2)}, not {'db': ('db', 1)}",
    ),
    "a parameter that is not given": (
        changed("Started load 1", given={}),
        FULL,
        "'load' was given {}, not {'db': ('db', 1)}",
    ),
    "a plain result where the whole one was asked for": (
        changed("Started mail 5", given={"load": ("load", 2)}),
        FULL,
        "'mail' was given ('load', 2) for 'load'",
    ),
    "results that are kept": (
        lambda log: log,
        replace(FULL, kept=frozenset()),
        "'db' has the result ('db', 1)",
    ),
    "a task that starts after stop()": (
        before("Ended load 4", Stopped(4.0)),
        FULL,
        "'mail' started after the run was stopped",
    ),
    "an attempt that begins after stop()": (
        before("TaskStarted mail 5", Stopped(4.0)),
        FULL,
        "'mail' was taken after the run was stopped",
    ),
    "a task in backoff that goes on after stop()": (
        before("AttemptStarted load 3", Stopped(2.0)),
        FULL,
        "'load' started after the run was stopped",
    ),
    "a result that does not heed stop()": (
        lambda log: [
            *log[: place_of(log, "Closing db 4")],
            Stopped(4.0),
            *[line for line in log if line.at > 3 and getattr(line, "name", "") == "db"],
            Left(5.0),
        ],
        FULL,
        "'mail' is COMPLETED, not CANCELLED",
    ),
    "a task that runs on after the second stop()": (
        before("Ended load 4", Stopped(3.5), Stopped(3.5)),
        FULL,
        "'load' is COMPLETED, not CANCELLED",
    ),
    "a failure that does not stop the rest": (
        lambda log: log,
        replace(
            FULL,
            tasks=[DB, replace(LOAD, retries=1), OTHER, MAIL],
            policy=FailurePolicy.DRAIN,
        ),
        "'mail' started after the run was stopped",
    ),
    "a failure that cancels nobody": (
        lambda log: log,
        replace(
            FULL,
            tasks=[DB, replace(LOAD, retries=1), OTHER, MAIL],
            policy=FailurePolicy.CANCEL,
        ),
        "'load' started after the run was cancelled",
    ),
    "a task that is cancelled by nobody": (
        changed("Ended other 1", how="was cancelled"),
        FULL,
        "'other' was cancelled by nobody",
    ),
    "a run that goes on when everything has ended": (
        lambda log: [replace(line, at=7.0) if isinstance(line, Left) else line for line in log],
        FULL,
        "everything had ended at 6.0 and time went on",
    ),
    "a failure that is late in the log alone": (
        changed("Ended mail 6", late=True),
        FULL,
        "'mail' is COMPLETED, not FAILED",
    ),
    "another reading of the clock in an event": (
        changed_event("TaskCompleted load 4", at=3.0),
        FULL,
        "told at 4.0 of TaskCompleted(at=3.0, task='load', duration=3.0)",
    ),
    "another duration in an event": (
        changed_event("AttemptCompleted load 4", duration=3.0),
        FULL,
        (
            "'load' took 1.0, and was told: AttemptCompleted(at=4.0, task='load', attempt=2, "
            "duration=3.0)"
        ),
    ),
    "another delay in an event": (
        changed_event("TaskRetrying load 2", delay=2.0),
        FULL,
        (
            "'load' is told to try again as TaskRetrying(at=2.0, task='load', attempt=2, "
            "delay=2.0, exception=ValueError('load')), not after 1"
        ),
    ),
    "another exception in an event": (
        changed_event("AttemptFailed load 2", exception=ERROR),
        FULL,
        (
            "'load' ended as Ended(name='load', how='failed', at=2.0, outcome=ValueError('load'), "
            "interrupted=False, late=False), and this was told: AttemptFailed(at=2.0, task='load', "
            "attempt=1, duration=1.0, exception=KeyError())"
        ),
    ),
    "an attempt of which nobody was told": (
        lacking("AttemptStarted load 3"),
        FULL,
        "'load' entered attempt 2, and nobody was told",
    ),
    "an attempt that is told to end before it does": (
        lambda log: moved(
            log, place_of(log, "AttemptCompleted load 4"), place_of(log, "Ended load 4")
        ),
        FULL,
        (
            "'load' has not ended, and this was told: AttemptCompleted(at=4.0, task='load', "
            "attempt=2, duration=1.0)"
        ),
    ),
    "an attempt of which the end is not told": (
        lacking("AttemptCompleted mail 6"),
        FULL,
        "'mail' was told of as staC",
    ),
    "a task that ends twice for those who watch": (
        before(
            "RunFinished  6",
            Seen(TaskFailed(at=6.0, task="mail", error="KeyError", exception=ERROR), 6.0),
        ),
        FULL,
        "'mail' was told of as stacCF",
    ),
    "a task that is scheduled too early": (
        lambda log: moved(
            log, place_of(log, "TaskScheduled mail 5"), place_of(log, "TaskClosed db 5")
        ),
        FULL,
        "'mail' was scheduled and was not ready",
    ),
    "a close of which nobody was told": (
        lacking("TaskClosed db 5"),
        FULL,
        "'db' was told of as stacC",
    ),
    "an event after the end": (
        lambda log: moved(log, place_of(log, "RunFinished  6"), 1),
        FULL,
        "the events do not begin with RunStarted, or do not end with RunFinished",
    ),
    "a worse task that is taken first": (
        lambda log: moved(
            moved(log, place_of(log, "AttemptStarted other 0"), place_of(log, "TaskStarted db 0")),
            place_of(log, "TaskStarted other 0"),
            place_of(log, "AttemptStarted other 0"),
        ),
        FULL,
        "'other' was taken while 'db' was ready",
    ),
}


@pytest.mark.parametrize("broken", BROKEN_FULL_LOGS)
def test_the_checkers_complain_of(full_run, broken) -> None:
    log, results = full_run
    break_it, conditions, complaint = BROKEN_FULL_LOGS[broken]

    assert complaint in everything_about(conditions, break_it(log), results)


def test_the_checker_complains_of_a_task_that_is_passed_over_too_often() -> None:
    """Twice for each of the two units is not too often; one time more is."""
    small = [defined(f"small{at}", resources={"db": 1}) for at in range(8)]
    large = defined("large", after=["small0"], estimate=3, resources={"db": 2})
    decisions = Decisions(Conditions(tasks=[large, *small], resources={"db": 2}))

    def begin(name: str) -> None:
        decisions.read(Seen(AttemptStarted(at=0.0, task=name, attempt=1), 0.0))
        decisions.read(Started(name, 1, 0.0))

    def end(name: str) -> None:
        decisions.read(Ended(name, "returned", 0.0))
        decisions.read(Seen(AttemptCompleted(at=0.0, task=name, attempt=1, duration=0.0), 0.0))
        decisions.read(Seen(TaskCompleted(at=0.0, task=name, duration=0.0), 0.0))

    begin("small0")
    begin("small1")
    for at in range(2, 6):
        end(f"small{at - 2}")
        begin(f"small{at}")
    assert [] == decisions.complaints

    end("small4")
    begin("small6")
    assert ["'small6' was taken before 'large', as others were too often"] == decisions.complaints

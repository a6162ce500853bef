"""Random graphs of random functions on every backend, judged by a checker that stands apart.

The functions write down when they start and end; `run_checker` says what is wrong with that. The
first tests here show that it does say so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Literal

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from conftest import backend_options
from hypothesis import given
from hypothesis import strategies as st
from naive import acyclic_tasks, defined, examples
from run_checker import (
    Cancelled,
    Conditions,
    Ended,
    Ending,
    Entered,
    Left,
    Line,
    Settled,
    Started,
    complaints,
)

from portable_sched import (
    DependencyFailedError,
    Priority,
    RunResults,
    TaskDef,
    TaskScheduler,
    _scheduler,
)
from portable_sched._backend import loop_clock
from portable_sched._results import RunRecord

# After so many turns of the loop everyone knows of a cancellation. trio takes two to cancel whoever
# is in a checkpoint; an attempt that ends before that, unhindered, is followed by the next one.
SETTLING = 3

Step = Literal[
    "suspend", "sleep", "sleep long", "spawn", "nest", "interrupt", "clean up", "swallow"
]

Failing = Literal["error", "group", "no error", "cancellation"]


@dataclass(frozen=True)
class Body:
    """What a task's function does, attempt for attempt the same.

    Attributes:
        steps: what it goes through before it ends.
        failing: how many attempts fail, counted from the first.
        how: they fail by an `Exception`, a group of them from a child task, something that is no
            `Exception`, or a cancellation that comes from nobody.
    """

    steps: tuple[Step, ...]
    failing: int
    how: Failing


class NoError(BaseException):
    """Neither an error nor a cancellation: there is no other attempt after it."""


@dataclass(frozen=True)
class Cancellation:
    """When and how a run is cancelled: after so many seconds, and then so many turns of the loop.

    Natively is by `asyncio.Task.cancel()`, as asyncio's own programs do it; else by a scope. trio
    knows scopes alone.
    """

    moment: float
    turns: int
    natively: bool


BODIES = st.builds(
    Body,
    steps=st.lists(
        st.sampled_from(
            ["suspend", "suspend", "sleep", "sleep", "sleep long", "spawn", "nest", "interrupt"]
        ),
        max_size=3,
    ).map(tuple),
    failing=st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3]),
    how=st.sampled_from(["error", "error", "error", "group", "no error", "cancellation"]),
)
STUBBORN_BODIES = st.builds(
    Body,
    steps=st.lists(
        st.sampled_from(
            ["suspend", "sleep", "sleep long", "spawn", "interrupt", "clean up", "swallow"]
        ),
        max_size=3,
    ).map(tuple),
    failing=st.sampled_from([0, 0, 0, 0, 1, 3]),
    how=st.sampled_from(["error", "group", "no error"]),
)
LIMITS = st.sampled_from([None, None, 1, 2, 3, 5])


class Theatre:
    """Tasks that do what their bodies say, and write it down.

    Attributes:
        log: what they wrote.
        sleep: how they sleep. Where no clock jumps, a nap is a few turns of the loop.
        clock: what the event loop goes by; threads may read it too.
    """

    def __init__(self, *, virtual_time: bool) -> None:
        self.log: list[Line] = []
        self.virtual_time = virtual_time
        self.sleep: Callable[[float], Awaitable[None]] = (
            anyio.sleep if virtual_time else _turns_of_the_loop
        )
        self.clock = loop_clock()

    def task(self, definition: TaskDef, body: Body) -> TaskDef:
        """The task, with an async function that does what the body says."""
        name = definition.name
        attempts = count(1)

        def end(how: Ending, outcome: object = None) -> None:
            interrupted = "interrupt" in body.steps or (
                how != "returned" and body.how in {"group", "cancellation"}
            )
            self.log.append(Ended(name, how, self.clock(), outcome, interrupted))

        async def play() -> tuple[str, int]:
            attempt = next(attempts)
            self.log.append(Started(name, attempt, self.clock()))
            try:
                for step in body.steps:
                    await self.take(step)
                if attempt <= body.failing:
                    await _fail(name, body.how)
            except anyio.get_cancelled_exc_class() as error:
                itself = attempt <= body.failing and body.how == "cancellation"
                end("cancelled itself" if itself else "was cancelled", error)
                raise
            except Exception as error:
                end("failed", error)
                raise
            except BaseException as error:
                end("gave up", error)
                raise
            end("returned", (name, attempt))
            return name, attempt

        return replace(definition, function=play)

    def thread_task(self, definition: TaskDef, body: Body) -> TaskDef:
        """The task as a plain function, which runs in a thread."""
        name = definition.name
        attempts = count(1)

        def end(how: Ending, outcome: object) -> None:
            self.log.append(Ended(name, how, self.clock(), outcome))

        def play() -> tuple[str, int]:
            attempt = next(attempts)
            self.log.append(Started(name, attempt, self.clock()))
            for _ in body.steps:
                # To keep the thread while the loop goes on with others.
                anyio.from_thread.run(checkpoint)
            if attempt > body.failing:
                end("returned", (name, attempt))
                return name, attempt
            if body.how == "no error":
                error: BaseException = NoError(name)
                end("gave up", error)
            else:
                error = ValueError(name)
                end("failed", error)
            raise error

        return replace(definition, function=play)

    async def take(self, step: Step) -> None:
        if step == "suspend":
            await checkpoint()
        elif step == "sleep":
            await self.sleep(1)
        elif step == "sleep long":
            await self.sleep(5)
        elif step == "spawn":
            async with anyio.create_task_group() as group:
                group.start_soon(self.sleep, 2)
                group.start_soon(checkpoint)
        elif step == "nest":
            await self.nest()
        elif step == "interrupt":
            with anyio.CancelScope() as scope:
                scope.cancel()
                await checkpoint()
        elif step == "clean up":
            try:
                await self.sleep(3)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.sleep(2)
        else:
            try:
                await self.sleep(3)
            except anyio.get_cancelled_exc_class():
                pass

    async def nest(self) -> None:
        """A run inside a task."""
        inner = Theatre(virtual_time=self.virtual_time)
        a = inner.task(defined("a"), Body(("sleep",), 0, "error"))
        b = inner.task(defined("b", "a", retries=2), Body(("suspend",), 1, "error"))
        results = await TaskScheduler([a, b], max_concurrency=1).run()
        assert [("a", 1), ("b", 2)] == [result.result for result in results]

    async def run(self, scheduler: TaskScheduler) -> None:
        self.log.append(Entered(self.clock()))
        try:
            await scheduler.run()
        finally:
            self.log.append(Left(self.clock()))

    async def run_and_cancel(self, scheduler: TaskScheduler, cancellation: Cancellation) -> None:
        async with anyio.create_task_group() as group:
            if cancellation.natively and anyio.get_cancelled_exc_class() is asyncio.CancelledError:
                runner = asyncio.ensure_future(self.run(scheduler))
                group.start_soon(self.cancel, runner.cancel, cancellation)
                await asyncio.wait([runner])
            else:
                with anyio.CancelScope() as scope:
                    group.start_soon(self.cancel, scope.cancel, cancellation)
                    await self.run(scheduler)
            group.cancel_scope.cancel()

    async def cancel(self, cancel: Callable[[], object], cancellation: Cancellation) -> None:
        await self.sleep(cancellation.moment)
        await _turns_of_the_loop(cancellation.turns)
        if self.has_been_left():
            return
        self.log.append(Cancelled(self.clock()))
        cancel()
        for _ in range(SETTLING):
            await cancel_shielded_checkpoint()
        if not self.has_been_left():
            self.log.append(Settled(self.clock()))

    def has_been_left(self) -> bool:
        return any(isinstance(line, Left) for line in self.log)


async def _turns_of_the_loop(seconds: float) -> None:
    for _ in range(int(seconds)):
        await checkpoint()


async def _fail(name: str, how: Failing) -> None:
    if how == "error":
        raise ValueError(name)
    if how == "no error":
        raise NoError(name)
    if how == "cancellation":
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except BaseException as error:
                kept = error
                raise
        raise kept
    async with anyio.create_task_group() as group:
        group.start_soon(_fail, name, "error")
        group.start_soon(anyio.sleep_forever)


# The checker can complain. This run is as it should be; then one thing is changed.

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
        "after run() was left: Started(name='b', attempt=1, at=2.0)",
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
        "'x' has the exception ValueError('x'), not KeyError()",
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


# Random graphs


@pytest.mark.virtual_time
@given(tasks=acyclic_tasks(), bodies=st.lists(BODIES, min_size=10, max_size=10), limit=LIMITS)
@examples(100)
def test_random_graphs_run_as_they_should(run_on_backend, tasks, bodies, limit) -> None:
    async def run() -> None:
        theatre = Theatre(virtual_time=True)
        scheduler = TaskScheduler(map(theatre.task, tasks, bodies), max_concurrency=limit)
        await theatre.run(scheduler)

        assert [] == complaints(
            Conditions(tasks=tasks, limit=limit), theatre.log, scheduler.results
        )

    run_on_backend(run)


@given(
    tasks=acyclic_tasks(),
    bodies=st.lists(BODIES, min_size=10, max_size=10),
    in_threads=st.frozensets(st.sampled_from([f"t{at}" for at in range(10)])),
    threads=st.integers(1, 3),
    limit=LIMITS,
)
@examples(50)
def test_random_graphs_with_threads_run_as_they_should(
    run_on_backend, *, tasks, bodies, in_threads, threads, limit
) -> None:
    async def run() -> None:
        theatre = Theatre(virtual_time=False)
        scheduler = TaskScheduler(
            [
                (theatre.thread_task if definition.name in in_threads else theatre.task)(
                    definition, body
                )
                for definition, body in zip(tasks, bodies, strict=False)
            ],
            max_concurrency=limit,
        )
        await theatre.run(scheduler)

        conditions = Conditions(
            tasks=tasks,
            limit=limit,
            in_threads=in_threads,
            threads=threads if limit is None else None,
            virtual_time=False,
            in_order=limit == 1 or not in_threads,
        )
        assert [] == complaints(conditions, theatre.log, scheduler.results)

    with pytest.MonkeyPatch.context() as patch:
        # The forty there are would be enough for any of these graphs.
        patch.setattr(_scheduler, "_MOST_THREADS", threads)
        run_on_backend(run)


CANCELLED_RUNS = given(
    tasks=acyclic_tasks(),
    bodies=st.lists(STUBBORN_BODIES, min_size=10, max_size=10),
    limit=LIMITS,
    cancellation=st.builds(
        Cancellation,
        moment=st.sampled_from([0, 0, 1, 2, 3, 5, 6, 8]),
        turns=st.integers(0, 5),
        natively=st.booleans(),
    ),
)


@pytest.mark.virtual_time
@CANCELLED_RUNS
@examples(100)
def test_random_graphs_end_when_they_are_cancelled(
    run_on_backend, tasks, bodies, limit, cancellation
) -> None:
    run_on_backend(partial(assert_it_ends, tasks, bodies, limit, cancellation, virtual_time=True))


@CANCELLED_RUNS
@examples(50)
def test_random_graphs_end_when_they_are_cancelled_in_the_middle_of_a_turn(
    run_on_backend, tasks, bodies, limit, cancellation
) -> None:
    run_on_backend(partial(assert_it_ends, tasks, bodies, limit, cancellation, virtual_time=False))


async def assert_it_ends(
    tasks: list[TaskDef],
    bodies: list[Body],
    limit: int | None,
    cancellation: Cancellation,
    *,
    virtual_time: bool,
) -> None:
    theatre = Theatre(virtual_time=virtual_time)
    scheduler = TaskScheduler(map(theatre.task, tasks, bodies), max_concurrency=limit)
    await theatre.run_and_cancel(scheduler, cancellation)

    conditions = Conditions(tasks=tasks, limit=limit, virtual_time=virtual_time)
    assert [] == complaints(conditions, theatre.log, scheduler.results)


# What the random graphs have found


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_task_that_has_slept_has_ended_when_it_returns(anyio_backend) -> None:
    """trio ends a sleep by a cancellation of its own, which must not be taken for one of ours.

    `last` gives `waiting` the sign to end, and both are followed by one task. What follows `last`
    is the more urgent one, and `last` has returned before `waiting` goes on.
    """
    for _ in range(20):
        sign = anyio.Event()
        started = []

        async def last(sign: anyio.Event = sign) -> None:
            await anyio.sleep(1)
            sign.set()

        async def urgent(started: list[str] = started) -> None:
            started.append("urgent")

        async def other(started: list[str] = started) -> None:
            started.append("other")

        tasks = [
            TaskDef(name="last", function=last, priority=Priority.HIGH),
            TaskDef(name="waiting", function=sign.wait, priority=Priority.HIGH),
            TaskDef(name="urgent", function=urgent, depends_on=("last",), priority=Priority.HIGH),
            TaskDef(name="other", function=other, priority=Priority.LOW),
        ]
        await TaskScheduler(tasks, max_concurrency=2).run()

        assert ["urgent", "other"] == started

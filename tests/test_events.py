"""What observers are told: every event of a run, in order, with its time, whatever they do then."""

import logging
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
from anyio.lowlevel import checkpoint

import portable_sched
from portable_sched import (
    AttemptCancelled,
    AttemptCompleted,
    AttemptEnded,
    AttemptEvent,
    AttemptFailed,
    AttemptStarted,
    Event,
    FailurePolicy,
    Priority,
    RunFinished,
    RunResults,
    RunStarted,
    TaskCancelled,
    TaskClosed,
    TaskCompleted,
    TaskEvent,
    TaskFailed,
    TaskRegistry,
    TaskRetrying,
    TaskScheduled,
    TaskScheduler,
    TaskStarted,
)
from portable_sched._graph import Graph
from portable_sched._resources import ResourceState
from portable_sched._results import RunRecord
from portable_sched._state import RunState

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize


class Log:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        """What happened to what, without times."""
        return [
            f"{type(event).__name__} {event.task}"
            if isinstance(event, TaskEvent)
            else type(event).__name__
            for event in self.events
        ]

    @property
    def story(self) -> list[str]:
        """Every event with all its fields, a line each; times are seconds since the first one."""
        began = self.events[0].at
        return [line_of(event, event.at - began) for event in self.events]


def line_of(event: Event, at: float) -> str:
    words = [f"{at:g}", type(event).__name__]
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name == "task":
            words.append(value)
        elif field.name == "results" and isinstance(event, RunStarted):
            # They are live: by now they say how the run ended.
            assert isinstance(value, RunResults)
        elif field.name == "exception" and not isinstance(event, AttemptFailed):
            # It was told of the attempt already, or it is in the text of the error.
            assert isinstance(value, BaseException)
        elif field.name != "at":
            shown = f"{value:g}" if isinstance(value, float) else repr(value)
            words.append(f"{field.name}={shown}")
    return " ".join(words)


@pytest.fixture
def log() -> Log:
    return Log()


async def no_op() -> None: ...


def taking(seconds: float, result: object = None) -> Callable[[], Any]:
    async def body() -> object:
        await anyio.sleep(seconds)
        return result

    return body


def failing(seconds: float = 0) -> Callable[[], Any]:
    """A function that fails after so many seconds, without one turn of the loop for none."""

    async def body() -> None:
        if seconds:
            await anyio.sleep(seconds)
        raise ValueError("no rows")

    return body


# What is told, and when


async def test_an_empty_graph_begins_and_ends(registry: TaskRegistry, log: Log) -> None:
    await TaskScheduler(registry, observers=[log]).run()

    assert ["RunStarted", "RunFinished"] == log.names


@pytest.mark.virtual_time
async def test_success_is_told_like_this(registry: TaskRegistry, log: Log) -> None:
    registry.task("fetch")(taking(2))
    registry.task("load", depends_on=["fetch"])(taking(3))
    await TaskScheduler(registry, observers=[log]).run()

    assert [
        "0 RunStarted tasks=('fetch', 'load')",
        "0 TaskScheduled fetch",
        "0 TaskStarted fetch",
        "0 AttemptStarted fetch attempt=1",
        "2 AttemptCompleted fetch attempt=1 duration=2",
        "2 TaskCompleted fetch duration=2",
        "2 TaskScheduled load",
        "2 TaskStarted load",
        "2 AttemptStarted load attempt=1",
        "5 AttemptCompleted load attempt=1 duration=3",
        "5 TaskCompleted load duration=3",
        "5 RunFinished results=<RunResults: 2 COMPLETED>",
    ] == log.story


async def test_success_is_told_so_on_every_event_loop(registry: TaskRegistry, log: Log) -> None:
    """As above, in real time: uvloop has no virtual clock."""

    @registry.task
    async def fetch() -> None:
        await checkpoint()

    registry.task("load", depends_on=[fetch])(no_op)
    await TaskScheduler(registry, observers=[log]).run()

    assert [
        "RunStarted",
        "TaskScheduled fetch",
        "TaskStarted fetch",
        "AttemptStarted fetch",
        "AttemptCompleted fetch",
        "TaskCompleted fetch",
        "TaskScheduled load",
        "TaskStarted load",
        "AttemptStarted load",
        "AttemptCompleted load",
        "TaskCompleted load",
        "RunFinished",
    ] == log.names


async def test_the_times_are_those_of_the_event_loops_clock(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("fetch")(no_op)
    before = anyio.current_time()
    results = await TaskScheduler(registry, observers=[log]).run()
    after = anyio.current_time()
    times = [event.at for event in log.events]

    assert sorted(times) == times
    assert before <= times[0]
    assert times[-1] <= after
    assert results["fetch"].started_at == times[2]
    assert results.wall_time == times[-1] - times[0]


@pytest.mark.virtual_time
async def test_a_retry_without_backoff_is_told_like_this(registry: TaskRegistry, log: Log) -> None:
    left = [ValueError("reset")]

    @registry.task(retries=3)
    async def fetch() -> None:
        await anyio.sleep(1)
        if left:
            raise left.pop()

    await TaskScheduler(registry, observers=[log]).run()

    assert [
        "0 RunStarted tasks=('fetch',)",
        "0 TaskScheduled fetch",
        "0 TaskStarted fetch",
        "0 AttemptStarted fetch attempt=1",
        "1 AttemptFailed fetch attempt=1 duration=1 exception=ValueError('reset')",
        "1 TaskRetrying fetch attempt=2 delay=0",
        "1 AttemptStarted fetch attempt=2",
        "2 AttemptCompleted fetch attempt=2 duration=1",
        "2 TaskCompleted fetch duration=2",
        "2 RunFinished results=<RunResults: 1 COMPLETED>",
    ] == log.story


@pytest.mark.virtual_time
async def test_backoff_and_the_failure_after_it_are_told_like_this(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("fetch", retries=2, backoff=lambda attempt, error: 10.0)(failing(seconds=1))
    registry.task("transform", depends_on=["fetch"])(no_op)
    registry.task("load", depends_on=["transform"])(no_op)
    await TaskScheduler(registry, observers=[log]).run()

    assert [
        "0 RunStarted tasks=('fetch', 'transform', 'load')",
        "0 TaskScheduled fetch",
        "0 TaskStarted fetch",
        "0 AttemptStarted fetch attempt=1",
        "1 AttemptFailed fetch attempt=1 duration=1 exception=ValueError('no rows')",
        "1 TaskRetrying fetch attempt=2 delay=10",
        "11 AttemptStarted fetch attempt=2",
        "12 AttemptFailed fetch attempt=2 duration=1 exception=ValueError('no rows')",
        "12 TaskFailed fetch error='ValueError: no rows'",
        "12 TaskFailed transform error=\"Dependency 'fetch' failed: ValueError: no rows\"",
        (
            "12 TaskFailed load error=\"Dependency 'transform' failed, because 'fetch' failed: "
            'ValueError: no rows"'
        ),
        "12 RunFinished results=<RunResults: 3 FAILED>",
    ] == log.story


async def test_what_failed_is_told_with_the_exception_itself(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("fetch")(failing())
    results = await TaskScheduler(registry, observers=[log]).run()
    told = [event for event in log.events if isinstance(event, AttemptFailed)]

    assert [results["fetch"].exception] == [event.exception for event in told]
    assert results["fetch"].failures[0].duration == told[0].duration


@pytest.mark.virtual_time
async def test_an_attempt_begins_when_it_has_a_slot_and_not_when_it_is_scheduled(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("first")(taking(2))
    registry.task("second")(taking(2))
    await TaskScheduler(registry, max_concurrency=1, observers=[log]).run()

    assert [
        "0 RunStarted tasks=('first', 'second')",
        "0 TaskScheduled first",
        "0 TaskScheduled second",
        "0 TaskStarted first",
        "0 AttemptStarted first attempt=1",
        "2 AttemptCompleted first attempt=1 duration=2",
        "2 TaskCompleted first duration=2",
        "2 TaskStarted second",
        "2 AttemptStarted second attempt=1",
        "4 AttemptCompleted second attempt=1 duration=2",
        "4 TaskCompleted second duration=2",
        "4 RunFinished results=<RunResults: 2 COMPLETED>",
    ] == log.story


@pytest.mark.virtual_time
async def test_a_task_with_resources_begins_when_it_has_them(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("first", resources={"db": 2})(taking(1))
    registry.task("second", resources=["db"], retries=2)(failing(seconds=1))
    await TaskScheduler(registry, resources={"db": 2}, observers=[log]).run()

    assert [
        "0 RunStarted tasks=('first', 'second')",
        "0 TaskScheduled first",
        "0 TaskScheduled second",
        "0 TaskStarted first",
        "0 AttemptStarted first attempt=1",
        "1 AttemptCompleted first attempt=1 duration=1",
        "1 TaskCompleted first duration=1",
        "1 TaskStarted second",
        "1 AttemptStarted second attempt=1",
        "2 AttemptFailed second attempt=1 duration=1 exception=ValueError('no rows')",
        "2 TaskRetrying second attempt=2 delay=0",
        "2 AttemptStarted second attempt=2",
        "3 AttemptFailed second attempt=2 duration=1 exception=ValueError('no rows')",
        "3 TaskFailed second error='ValueError: no rows'",
        "3 RunFinished results=<RunResults: 1 COMPLETED, 1 FAILED>",
    ] == log.story


async def test_a_task_is_scheduled_once_with_its_last_dependency(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("left")(no_op)
    registry.task("right")(no_op)
    registry.task("both", depends_on=["left", "right"])(no_op)
    await TaskScheduler(registry, max_concurrency=1, observers=[log]).run()
    names = log.names

    assert 1 == names.count("TaskScheduled both")
    assert names.index("TaskCompleted right") + 1 == names.index("TaskScheduled both")


async def test_a_task_after_a_failure_is_scheduled_when_that_has_failed(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("load")(failing())
    registry.task("index", depends_on=["load"])(no_op)
    registry.task("tidy", after=["load"])(no_op)
    registry.task("tell", after=["index"])(no_op)
    await TaskScheduler(registry, max_concurrency=1, observers=[log]).run()

    assert [
        "RunStarted",
        "TaskScheduled load",
        "TaskStarted load",
        "AttemptStarted load",
        "AttemptFailed load",
        "TaskFailed load",
        "TaskScheduled tidy",
        "TaskFailed index",
        "TaskScheduled tell",
        "TaskStarted tidy",
        "AttemptStarted tidy",
        "AttemptCompleted tidy",
        "TaskCompleted tidy",
        "TaskStarted tell",
        "AttemptStarted tell",
        "AttemptCompleted tell",
        "TaskCompleted tell",
        "RunFinished",
    ] == log.names


@pytest.mark.virtual_time
async def test_a_lifetime_is_completed_at_its_yield_and_closed_at_its_end(
    registry: TaskRegistry, log: Log
) -> None:
    @registry.task
    async def db():
        await anyio.sleep(1)
        yield "connection"
        await anyio.sleep(4)

    @registry.task
    async def load(db: str) -> None:
        await anyio.sleep(2)

    registry.task("backup", after=[db])(no_op)
    await TaskScheduler(registry, observers=[log]).run()

    assert [
        "0 RunStarted tasks=('db', 'load', 'backup')",
        "0 TaskScheduled db",
        "0 TaskStarted db",
        "0 AttemptStarted db attempt=1",
        "1 AttemptCompleted db attempt=1 duration=1",
        "1 TaskCompleted db duration=1",
        "1 TaskScheduled load",
        "1 TaskStarted load",
        "1 AttemptStarted load attempt=1",
        "3 AttemptCompleted load attempt=1 duration=2",
        "3 TaskCompleted load duration=2",
        "7 TaskClosed db",
        "7 TaskScheduled backup",
        "7 TaskStarted backup",
        "7 AttemptStarted backup attempt=1",
        "7 AttemptCompleted backup attempt=1 duration=0",
        "7 TaskCompleted backup duration=0",
        "7 RunFinished results=<RunResults: 3 COMPLETED>",
    ] == log.story


async def test_a_teardown_that_fails_is_closed_and_then_failed(
    registry: TaskRegistry, log: Log
) -> None:
    @registry.task
    async def db():
        yield "connection"
        raise ConnectionError("reset")

    await TaskScheduler(registry, observers=[log]).run()

    assert [
        "RunStarted",
        "TaskScheduled db",
        "TaskStarted db",
        "AttemptStarted db",
        "AttemptCompleted db",
        "TaskCompleted db",
        "TaskClosed db",
        "TaskFailed db",
        "RunFinished",
    ] == log.names
    assert "ConnectionError: reset" == log.events[7].error  # type: ignore[attr-defined]


async def test_a_lifetime_that_never_opened_is_not_closed(registry: TaskRegistry, log: Log) -> None:
    @registry.task
    async def db():
        raise ConnectionError("refused")
        yield "connection"

    await TaskScheduler(registry, observers=[log]).run()

    assert [
        "RunStarted",
        "TaskScheduled db",
        "TaskStarted db",
        "AttemptStarted db",
        "AttemptFailed db",
        "TaskFailed db",
        "RunFinished",
    ] == log.names


@pytest.mark.virtual_time
async def test_a_cancelled_run_is_told_to_its_end(registry: TaskRegistry, log: Log) -> None:
    registry.task("fetch")(taking(10))
    registry.task("load", depends_on=["fetch"])(no_op)
    registry.task("tidy", after=["load"])(no_op)
    with anyio.move_on_after(4):
        await TaskScheduler(registry, observers=[log]).run()

    assert [
        "0 RunStarted tasks=('fetch', 'load', 'tidy')",
        "0 TaskScheduled fetch",
        "0 TaskStarted fetch",
        "0 AttemptStarted fetch attempt=1",
    ] == log.story[:4]
    # Whether the caller hears of it first or the attempt is for the event loop to say.
    assert [
        "4 AttemptCancelled fetch attempt=1 duration=4",
        "4 TaskCancelled fetch",
        "4 TaskCancelled load",
        "4 TaskCancelled tidy",
    ] == sorted(log.story[4:-1])
    assert log.names.index("AttemptCancelled fetch") + 1 == log.names.index("TaskCancelled fetch")
    assert "4 RunFinished results=<RunResults: 3 CANCELLED>" == log.story[-1]


@pytest.mark.virtual_time
async def test_a_task_that_waits_for_another_attempt_is_cancelled_without_one(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("fetch", retries=2, backoff=lambda attempt, error: 10.0)(failing(seconds=1))
    with anyio.move_on_after(4):
        await TaskScheduler(registry, observers=[log]).run()

    assert [
        "1 AttemptFailed fetch attempt=1 duration=1 exception=ValueError('no rows')",
        "1 TaskRetrying fetch attempt=2 delay=10",
        "4 TaskCancelled fetch",
        "4 RunFinished results=<RunResults: 1 CANCELLED>",
    ] == log.story[4:]


@pytest.mark.virtual_time
async def test_the_teardown_of_a_cancelled_run_is_told_too(
    registry: TaskRegistry, log: Log
) -> None:
    @registry.task
    async def db():
        yield "connection"
        await anyio.sleep(3)

    registry.task("load", depends_on=[db])(taking(10))
    with anyio.move_on_after(4):
        await TaskScheduler(registry, observers=[log]).run()

    assert [
        "4 AttemptCancelled load attempt=1 duration=4",
        "4 TaskCancelled load",
        "7 TaskClosed db",
        "7 RunFinished results=<RunResults: 1 COMPLETED, 1 CANCELLED>",
    ] == log.story[-4:]


FAILS_BESIDE_ONE_THAT_RUNS = [
    "0 RunStarted tasks=('fails', 'runs', 'skipped', 'later')",
    "0 TaskScheduled fails",
    "0 TaskScheduled runs",
    "0 TaskStarted fails",
    "0 AttemptStarted fails attempt=1",
    "0 TaskStarted runs",
    "0 AttemptStarted runs attempt=1",
    "1 AttemptFailed fails attempt=1 duration=1 exception=ValueError('no rows')",
    "1 TaskFailed fails error='ValueError: no rows'",
    "1 TaskFailed skipped error=\"Dependency 'fails' failed: ValueError: no rows\"",
]


def fails_beside_one_that_runs(registry: TaskRegistry) -> TaskRegistry:
    registry.task("fails")(failing(seconds=1))
    registry.task("runs")(taking(5))
    registry.task("skipped", depends_on=["fails"])(no_op)
    registry.task("later", depends_on=["runs"])(no_op)
    return registry


@each(
    "policy, rest",
    [
        (
            FailurePolicy.CONTINUE,
            [
                "5 AttemptCompleted runs attempt=1 duration=5",
                "5 TaskCompleted runs duration=5",
                "5 TaskScheduled later",
                "5 TaskStarted later",
                "5 AttemptStarted later attempt=1",
                "5 AttemptCompleted later attempt=1 duration=0",
                "5 TaskCompleted later duration=0",
                "5 RunFinished results=<RunResults: 2 COMPLETED, 2 FAILED>",
            ],
        ),
        (
            FailurePolicy.DRAIN,
            [
                "1 TaskCancelled later",
                "5 AttemptCompleted runs attempt=1 duration=5",
                "5 TaskCompleted runs duration=5",
                "5 RunFinished results=<RunResults: 1 COMPLETED, 2 FAILED, 1 CANCELLED>",
            ],
        ),
        (
            FailurePolicy.CANCEL,
            [
                "1 TaskCancelled later",
                "1 AttemptCancelled runs attempt=1 duration=1",
                "1 TaskCancelled runs",
                "1 RunFinished results=<RunResults: 2 FAILED, 2 CANCELLED>",
            ],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, FailurePolicy) else "",
)
@pytest.mark.virtual_time
async def test_what_each_policy_makes_of_a_failure_is_told_like_this(
    registry: TaskRegistry, log: Log, policy: FailurePolicy, rest: list[str]
) -> None:
    fails_beside_one_that_runs(registry)
    await TaskScheduler(registry, on_failure=policy, observers=[log]).run()

    assert [*FAILS_BESIDE_ONE_THAT_RUNS, *rest] == log.story


@pytest.mark.virtual_time
async def test_stop_is_told_by_what_comes_of_it(registry: TaskRegistry, log: Log) -> None:
    @registry.task
    async def stops() -> None:
        await anyio.sleep(3)
        scheduler.stop()
        await anyio.sleep(1)

    registry.task("later", depends_on=[stops])(no_op)
    registry.task("again", retries=2, backoff=lambda attempt, error: 10.0)(failing(seconds=1))
    scheduler = TaskScheduler(registry, observers=[log])
    await scheduler.run()

    assert [
        "1 TaskRetrying again attempt=2 delay=10",
        "3 TaskFailed again error='ValueError: no rows'",
        "3 TaskCancelled later",
        "4 AttemptCompleted stops attempt=1 duration=4",
        "4 TaskCompleted stops duration=4",
        "4 RunFinished results=<RunResults: 1 COMPLETED, 1 FAILED, 1 CANCELLED>",
    ] == log.story[8:]


async def test_of_a_run_of_targets_only_those_are_told(registry: TaskRegistry, log: Log) -> None:
    registry.task("fetch")(no_op)
    registry.task("load", depends_on=["fetch"])(no_op)
    registry.task("other")(no_op)
    await TaskScheduler(registry, observers=[log]).run(targets=["load"])
    started = log.events[0]

    assert isinstance(started, RunStarted)
    assert ("fetch", "load") == started.tasks
    assert {"fetch", "load"} == {one.task for one in log.events if isinstance(one, TaskEvent)}


async def test_the_finish_of_a_run_is_told_with_its_results(
    registry: TaskRegistry, log: Log
) -> None:
    registry.task("fetch")(no_op)
    results = await TaskScheduler(registry, observers=[log]).run()
    finished = log.events[-1]

    assert isinstance(finished, RunFinished)
    assert isinstance(finished.results, RunResults)
    assert list(results) == list(finished.results)
    assert results.wall_time == finished.results.wall_time


def test_a_run_that_a_task_has_interrupted_is_told_to_its_end(
    registry: TaskRegistry, log: Log, run_on_backend: Callable[..., Any]
) -> None:
    @registry.task
    async def interrupts() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_backend(TaskScheduler(registry, observers=[log]).run)

    assert [
        "RunStarted",
        "TaskScheduled interrupts",
        "TaskStarted interrupts",
        "AttemptStarted interrupts",
        "AttemptCancelled interrupts",
        "TaskCancelled interrupts",
        "RunFinished",
    ] == log.names


# Who is told


async def test_each_run_is_told(registry: TaskRegistry, log: Log) -> None:
    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, observers=[log])
    await scheduler.run()
    once = log.names
    await scheduler.run()

    assert 7 == len(once)
    assert once * 2 == log.names


async def test_observers_are_told_one_after_the_other_event_by_event(
    registry: TaskRegistry,
) -> None:
    told: list[tuple[str, Event]] = []
    registry.task("fetch")(no_op)
    observers = [lambda event, name=name: told.append((name, event)) for name in ("a", "b", "c")]
    await TaskScheduler(registry, observers=observers).run()

    assert ["a", "b", "c"] * 7 == [name for name, _ in told]
    assert [event for _, event in told[::3]] == [event for _, event in told[1::3]]
    assert [event for _, event in told[::3]] == [event for _, event in told[2::3]]


async def test_an_observer_may_be_given_by_any_iterable(registry: TaskRegistry, log: Log) -> None:
    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, observers=(one for one in [log]))
    await scheduler.run()
    await scheduler.run()

    assert 14 == len(log.events)


async def test_an_observer_is_told_from_inside_the_run(registry: TaskRegistry) -> None:
    """At once: what a task does next comes after what the observer does."""
    order: list[str] = []

    @registry.task
    async def fetch() -> None:
        order.append("fetch")

    await TaskScheduler(
        registry, observers=[lambda event: order.append(type(event).__name__)]
    ).run()

    assert [
        "RunStarted",
        "TaskScheduled",
        "TaskStarted",
        "AttemptStarted",
        "fetch",
        "AttemptCompleted",
        "TaskCompleted",
        "RunFinished",
    ] == order


async def test_an_observer_sees_a_state_in_which_it_has_happened(registry: TaskRegistry) -> None:
    registry.task("fails", priority=Priority.HIGH)(failing())
    registry.task("skipped", depends_on=["fails"])(no_op)
    registry.task("works")(no_op)
    seen: list[tuple[str, str, str]] = []

    def look(event: Event) -> None:
        if isinstance(event, TaskStarted | TaskCompleted | TaskFailed):
            status = dict(scheduler.status_snapshot())[event.task]
            seen.append((type(event).__name__, event.task, status.name))

    scheduler = TaskScheduler(registry, max_concurrency=1, observers=[look])
    await scheduler.run()

    assert [
        ("TaskStarted", "fails", "RUNNING"),
        ("TaskFailed", "fails", "FAILED"),
        ("TaskFailed", "skipped", "FAILED"),
        ("TaskStarted", "works", "RUNNING"),
        ("TaskCompleted", "works", "COMPLETED"),
    ] == seen


@each(
    "resources, kind", [({}, RunState), ({"db": 1}, ResourceState)], ids=["plain", "with resources"]
)
async def test_where_nobody_watches_the_state_is_one_that_tells_nothing(
    registry: TaskRegistry, resources: dict[str, int], kind: type
) -> None:
    kinds: list[type] = []

    @registry.task(resources=resources)
    async def looks() -> None:
        [run] = scheduler._runs
        kinds.append(type(run.state))

    scheduler = TaskScheduler(registry, resources=resources)
    await scheduler.run()

    assert [kind] == kinds


# What an observer does


class Broken:
    """An observer that raises whatever it is told."""

    def __init__(self) -> None:
        self.told = 0

    def __repr__(self) -> str:
        return "<Broken>"

    def __call__(self, event: Event) -> None:
        self.told += 1
        raise LookupError(f"number {self.told}")


async def test_an_observer_that_raises_is_logged_once_and_the_run_goes_on(
    registry: TaskRegistry, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    registry.task("fetch")(no_op)
    results = await TaskScheduler(registry, observers=[broken, log]).run()
    [record] = caplog.records

    assert results.ok
    assert 7 == broken.told
    assert 7 == len(log.events)
    assert ("portable_sched", logging.ERROR) == (record.name, record.levelno)
    assert (
        f"Observer <Broken> raised at {log.events[0]!r}; what else it raises in this run is not "
        "logged."
    ) == record.getMessage()
    assert "number 1" == str(record.exc_info[1])  # type: ignore[index]


async def test_each_observer_that_raises_is_logged_in_each_run(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, observers=[Broken(), Broken()])
    await scheduler.run()
    await scheduler.run()

    assert 4 == len(caplog.records)


EVERY_KIND = [
    RunStarted,
    TaskScheduled,
    TaskStarted,
    AttemptStarted,
    AttemptCompleted,
    AttemptCancelled,
    AttemptFailed,
    TaskRetrying,
    TaskCompleted,
    TaskFailed,
    TaskCancelled,
    TaskClosed,
    RunFinished,
]


async def run_with_every_kind_of_event(*observers: Callable[[Event], object]) -> None:
    """Two runs, one of them cancelled, in which everything happens that is told."""
    registry = TaskRegistry()

    @registry.task
    async def opens():
        yield "connection"
        await checkpoint()

    registry.task("fails", retries=2, depends_on=[opens])(failing())
    registry.task("skipped", depends_on=["fails"])(no_op)
    await TaskScheduler(registry, observers=observers).run()

    registry = TaskRegistry()
    with anyio.CancelScope() as scope:

        @registry.task
        async def cancels() -> None:
            await checkpoint()
            scope.cancel()
            await anyio.sleep_forever()

        registry.task("later", depends_on=[cancels])(no_op)
        await TaskScheduler(registry, observers=observers).run()


async def test_every_kind_of_event_is_told_in_those_runs(log: Log) -> None:
    """Or the tests below would prove less than they say."""
    await run_with_every_kind_of_event(log)

    assert set(EVERY_KIND) == {type(event) for event in log.events}


def at(kind: type[Event], act: Callable[[], object]) -> Callable[[Event], None]:
    """An observer that acts whenever it is told an event of that kind."""

    def observer(event: Event) -> None:
        if type(event) is kind:
            act()

    return observer


def raising(error: type[BaseException]) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def wanting(*kinds: type[Event]) -> Log:
    """A log of these kinds of events alone, since it says so."""

    class ChoosyLog(Log):
        wants = kinds

    return ChoosyLog()


@each(
    "kind",
    [*EVERY_KIND, AttemptEnded, AttemptEvent, TaskEvent, Event],
    ids=lambda kind: kind.__name__,
)
async def test_an_observer_is_told_what_it_wants_and_no_more(kind: type[Event], log: Log) -> None:
    """In the order of the whole, beside one that wants everything."""
    choosy = wanting(kind)
    await run_with_every_kind_of_event(choosy, log)

    assert [event for event in log.events if isinstance(event, kind)] == choosy.events


@each(
    "kind",
    [*EVERY_KIND, AttemptEnded, AttemptEvent, TaskEvent, Event],
    ids=lambda kind: kind.__name__,
)
async def test_an_observer_is_told_the_same_whether_or_not_others_want_more(
    kind: type[Event], log: Log
) -> None:
    alone = wanting(kind)
    await run_with_every_kind_of_event(alone)
    await run_with_every_kind_of_event(log)

    # Sorted, since of what is cancelled at one moment trio may resume either first.
    names = [
        name for event, name in zip(log.events, log.names, strict=True) if isinstance(event, kind)
    ]
    assert sorted(names) == sorted(alone.names)


async def test_an_observer_that_wants_nothing_is_told_nothing() -> None:
    choosy = wanting()
    await run_with_every_kind_of_event(choosy)

    assert [] == choosy.events


async def test_observers_that_want_one_event_are_told_in_the_order_given(
    registry: TaskRegistry,
) -> None:
    order: list[str] = []

    class Choosy:
        wants = (RunFinished,)

        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, event: Event) -> None:
            order.append(self.name)

    await TaskScheduler(registry, observers=[Choosy("first"), Choosy("second")]).run()

    assert ["first", "second"] == order


@each("resources", [{}, {"db": 1}], ids=["plain", "with resources"])
async def test_where_nobody_wants_what_goes_well_no_such_event_is_made(
    registry: TaskRegistry, resources: dict[str, int]
) -> None:
    """Several µs a task: what it costs is seen in the class of the state."""
    kinds: list[type] = []

    @registry.task(resources=resources)
    async def looks() -> None:
        [run] = scheduler._runs
        kinds.append(type(run.state))

    choosy = wanting(RunStarted, TaskFailed, RunFinished)
    scheduler = TaskScheduler(registry, resources=resources, observers=[choosy])
    await scheduler.run()
    [kind] = kinds

    plain = ResourceState if resources else RunState
    left_alone = ["take", "completed", "_is_over"]
    assert [getattr(plain, name) for name in left_alone] == [
        getattr(kind, name) for name in left_alone
    ]


async def test_what_an_observer_wants_may_be_different_in_each_run(
    registry: TaskRegistry,
) -> None:
    class Learning(Log):
        @property
        def wants(self) -> tuple[type[Event], ...]:
            return (RunFinished,) if self.events else (Event,)

    learning = Learning()
    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, observers=[learning])
    await scheduler.run()
    await scheduler.run()

    assert [7, "RunFinished"] == [len(learning.names[:-1]), learning.names[-1]]


async def test_a_mock_is_told_everything(registry: TaskRegistry) -> None:
    """It has an attribute `wants`, as it has any other."""
    mock = Mock()
    registry.task("fetch")(no_op)
    await TaskScheduler(registry, observers=[mock]).run()

    assert 7 == mock.call_count


@each("wants", [RunStarted, [RunStarted], ("RunStarted",), (int,), None], ids=repr)
def test_wants_that_are_no_tuple_of_events_are_refused_at_once(wants: Any) -> None:
    class Choosy:
        def __call__(self, event: Event) -> None: ...

        def __repr__(self) -> str:
            return "<Choosy>"

    Choosy.wants = wants  # type: ignore[attr-defined]
    with pytest.raises(TypeError) as caught:
        TaskScheduler([], observers=[Choosy()])

    assert (
        "Expected wants of observer <Choosy> to be a tuple of events, as in "
        f"wants = (RunStarted, TaskFailed), got {wants!r}."
    ) == str(caught.value)


@each("kind", EVERY_KIND, ids=lambda kind: kind.__name__)
async def test_whatever_an_observer_raises_at_the_others_hear_of_everything(
    kind: type[Event], log: Log
) -> None:
    alone = Log()
    await run_with_every_kind_of_event(alone)
    await run_with_every_kind_of_event(at(kind, raising(LookupError)), log)

    # Sorted, since of what is cancelled at one moment trio may resume either first.
    assert sorted(alone.names) == sorted(log.names)


@each("error", [KeyboardInterrupt, SystemExit])
@each("kind", EVERY_KIND, ids=lambda kind: kind.__name__)
def test_what_an_observer_raises_to_end_the_program_leaves_the_run(
    kind: type[Event], error: type[BaseException], run_on_backend: Callable[..., Any], log: Log
) -> None:
    """Bare, whatever it was told, and whether or not the run is being cancelled."""
    with pytest.raises(error):
        run_on_backend(run_with_every_kind_of_event, at(kind, raising(error)), log)

    # It ended the run, and the other observer heard the end of it.
    assert isinstance(log.events[-1], RunFinished)
    results = log.events[-1].results
    assert {"COMPLETED", "FAILED", "CANCELLED"} >= {one.name for one in results.counts()}


def test_what_an_observer_raises_to_end_the_program_cancels_what_is_running(
    registry: TaskRegistry, run_on_backend: Callable[..., Any], log: Log
) -> None:
    @registry.task
    async def waits() -> None:
        await anyio.sleep_forever()

    @registry.task
    async def quick() -> None:
        await checkpoint()

    observer = at(TaskCompleted, raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_on_backend(TaskScheduler(registry, observers=[observer, log]).run)

    assert "TaskCancelled waits" in log.names


@each("kind", EVERY_KIND, ids=lambda kind: kind.__name__)
async def test_an_observer_may_stop_the_run_whatever_it_is_told(
    kind: type[Event], registry: TaskRegistry, log: Log
) -> None:
    """Every time it is told, at that: drained at the first, cancelled at the second."""

    @registry.task
    async def opens():
        yield "connection"

    registry.task("fails", retries=2, depends_on=[opens])(failing())
    registry.task("skipped", depends_on=["fails"])(no_op)
    registry.task("later", after=["skipped"])(no_op)
    registry.task("last", depends_on=["later"])(no_op)

    def stop() -> None:
        scheduler.stop()

    scheduler = TaskScheduler(registry, observers=[at(kind, stop), log], max_concurrency=1)
    results = await scheduler.run()
    ends = [
        name
        for name in log.names
        if name.startswith(("TaskFailed", "TaskCancelled", "TaskCompleted"))
    ]

    assert len(results) == len(set(ends))
    assert sorted(ends) == sorted(
        f"Task{one.status.name.title()} {one.task_name}" for one in results
    )
    assert "RunFinished" == log.names[-1]


async def test_what_an_observer_brings_about_is_told_after_what_it_was_told(
    registry: TaskRegistry,
) -> None:
    """To all of them in the same order, whoever it was that stopped the run."""
    first, last = Log(), Log()
    registry.task("fetch")(no_op)
    registry.task("load", depends_on=["fetch"])(no_op)

    def stop() -> None:
        scheduler.stop()

    scheduler = TaskScheduler(registry, observers=[first, at(TaskCompleted, stop), last])
    await scheduler.run()

    assert [
        "RunStarted",
        "TaskScheduled fetch",
        "TaskStarted fetch",
        "AttemptStarted fetch",
        "AttemptCompleted fetch",
        "TaskCompleted fetch",
        "TaskScheduled load",
        "TaskCancelled load",
        "RunFinished",
    ] == last.names
    assert last.names == first.names


async def test_a_run_stopped_at_a_failure_still_fails_what_depended_on_it(
    registry: TaskRegistry,
) -> None:
    registry.task("fails")(failing())
    registry.task("skipped", depends_on=["fails"])(no_op)
    registry.task("later", after=["skipped"])(no_op)

    def stop() -> None:
        scheduler.stop()

    scheduler = TaskScheduler(registry, observers=[at(AttemptFailed, stop)])
    results = await scheduler.run()

    assert ["FAILED", "FAILED", "CANCELLED"] == [one.status.name for one in results]


async def test_an_observer_that_cancels_what_is_around_the_run_cancels_it(
    registry: TaskRegistry, log: Log
) -> None:
    @registry.task
    async def waits() -> None:
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await TaskScheduler(registry, observers=[at(TaskStarted, scope.cancel), log]).run()

    assert ["AttemptCancelled waits", "TaskCancelled waits", "RunFinished"] == log.names[-3:]


# Events as values

NO_RESULTS = RunResults(RunRecord(Graph([]), 0.0))

EVENTS = [
    (
        RunStarted(at=1.5, tasks=("a", "b"), results=NO_RESULTS),
        "RunStarted(at=1.5, tasks=('a', 'b'), results=<RunResults: no tasks>)",
    ),
    (TaskScheduled(at=1.5, task="a"), "TaskScheduled(at=1.5, task='a')"),
    (TaskStarted(at=1.5, task="a"), "TaskStarted(at=1.5, task='a')"),
    (AttemptStarted(at=1.5, task="a", attempt=2), "AttemptStarted(at=1.5, task='a', attempt=2)"),
    (
        AttemptCompleted(at=1.5, task="a", attempt=2, duration=0.5),
        "AttemptCompleted(at=1.5, task='a', attempt=2, duration=0.5)",
    ),
    (
        AttemptCancelled(at=1.5, task="a", attempt=2, duration=0.5),
        "AttemptCancelled(at=1.5, task='a', attempt=2, duration=0.5)",
    ),
    (
        AttemptFailed(at=1.5, task="a", attempt=2, exception=ValueError("x"), duration=0.5),
        "AttemptFailed(at=1.5, task='a', attempt=2, duration=0.5, exception=ValueError('x'))",
    ),
    (
        TaskRetrying(at=1.5, task="a", attempt=2, delay=0.5, exception=ValueError("x")),
        "TaskRetrying(at=1.5, task='a', attempt=2, delay=0.5, exception=ValueError('x'))",
    ),
    (
        TaskCompleted(at=1.5, task="a", duration=0.5),
        "TaskCompleted(at=1.5, task='a', duration=0.5)",
    ),
    (
        TaskFailed(at=1.5, task="a", error="E: x", exception=ValueError("x")),
        "TaskFailed(at=1.5, task='a', error='E: x', exception=ValueError('x'))",
    ),
    (TaskCancelled(at=1.5, task="a"), "TaskCancelled(at=1.5, task='a')"),
    (TaskClosed(at=1.5, task="a"), "TaskClosed(at=1.5, task='a')"),
]
each_event = each("event, shown", EVENTS, ids=[type(event).__name__ for event, _ in EVENTS])


@each_event
def test_an_event_shows_all_that_it_says(event: Event, shown: str) -> None:
    assert shown == repr(event)


@each_event
def test_an_event_is_frozen(event: Event, shown: str) -> None:
    with pytest.raises(FrozenInstanceError):
        event.at = 3.0  # type: ignore[misc]
    with pytest.raises((TypeError, AttributeError)):
        event.other = 3  # type: ignore[attr-defined]

    assert shown == repr(event)


@each_event
def test_events_that_say_the_same_are_equal(event: Event, shown: str) -> None:
    assert replace(event) == event
    assert replace(event, at=2.5) != event
    assert len({event, replace(event)}) == 1


@each_event
def test_an_event_survives_pickling(event: Event, shown: str) -> None:
    assert shown == repr(pickle.loads(pickle.dumps(event)))


def test_an_event_is_made_by_keyword_alone() -> None:
    with pytest.raises(TypeError):
        TaskStarted(1.5, "a")  # type: ignore[misc]


def test_every_kind_of_event_is_public() -> None:
    public = {
        one
        for one in (getattr(portable_sched, name) for name in portable_sched.__all__)
        if isinstance(one, type) and issubclass(one, Event)
    }

    assert {Event, TaskEvent, AttemptEvent, AttemptEnded, *EVERY_KIND} == public


# What is no observer

REFUSED: list[tuple[Any, str]] = [
    (
        None,
        "Expected observers to be a list of callables, got None (NoneType). Write observers=[...].",
    ),
    (
        len,
        (
            "Expected observers to be a list of callables, got <built-in function len> "
            "(builtin_function_or_method). Write observers=[...]."
        ),
    ),
    (
        "print",
        "Expected observers to be a list of callables, got 'print' (str). Write observers=[...].",
    ),
    (
        b"print",
        (
            "Expected observers to be a list of callables, got b'print' (bytes). Write "
            "observers=[...]."
        ),
    ),
    (
        [print, "print"],
        "Expected observers to be a list of callables, got 'print' (str) in the list.",
    ),
    ([None], "Expected observers to be a list of callables, got None (NoneType) in the list."),
    (
        [dict],
        "Expected observers to be a list of callables, got <class 'dict'> (type) in the list.",
    ),
]


@each("observers, message", REFUSED, ids=[repr(given) for given, _ in REFUSED])
def test_what_is_no_list_of_callables_is_refused(observers: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        TaskScheduler([], observers=observers)

    assert message == str(caught.value)

"""What `portable_sched.testing` promises to those who test graphs of their own."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import FrozenInstanceError, fields
from functools import partial
from typing import Annotated, Any, Literal

import anyio
import pytest
import trio
import trio.testing

from portable_sched import (
    AttemptFailed,
    Backoff,
    DependencyError,
    Event,
    FailurePolicy,
    InputError,
    ResultOf,
    RunResults,
    TaskEvent,
    TaskFailed,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStarted,
    TaskStatus,
    task,
)
from portable_sched.testing import Finding, PlannedFailure, Recorder, VirtualTimeLoop, run_graph

each = pytest.mark.parametrize

Backend = Literal["asyncio", "trio"]
BACKENDS: list[Backend] = ["asyncio", "trio"]
on_both = each("backend", BACKENDS)


async def no_op() -> None: ...


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


# Running


@on_both
def test_a_graph_is_run_by_a_plain_function(registry: TaskRegistry, backend: Backend) -> None:
    @registry.task
    async def fetch() -> str:
        return "rows"

    results = run_graph(registry, backend=backend)

    assert isinstance(results, RunResults)
    assert "rows" == results[fetch].unwrap()


@on_both
@pytest.mark.anyio
async def test_a_graph_is_run_inside_an_async_test(
    registry: TaskRegistry, backend: Backend
) -> None:
    """On either backend, whichever one the test is on."""
    registry.task("fetch")(lambda: "rows")

    assert "rows" == run_graph(registry, backend=backend, seconds={"fetch": 60})["fetch"].result


@each("backend, name", [("asyncio", "asyncio"), ("trio", "trio")])
def test_a_graph_is_run_on_the_backend_that_was_asked_for(
    registry: TaskRegistry, backend: Backend, name: str
) -> None:
    @registry.task
    async def which() -> str:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            return "asyncio"
        return "trio"

    assert name == run_graph(registry, backend=backend)[which].result


def test_without_tasks_it_runs_the_default_registry() -> None:
    task("fetch")(no_op)

    assert ["fetch"] == [one.task_name for one in run_graph()]


def test_it_takes_functions_and_definitions_from_any_iterable(registry: TaskRegistry) -> None:
    @registry.task
    async def fetch() -> None: ...

    assert ["fetch"] == [one.task_name for one in run_graph(one for one in [fetch])]
    assert ["fetch"] == [one.task_name for one in run_graph([registry["fetch"]])]


def test_an_empty_graph_gives_empty_results(registry: TaskRegistry) -> None:
    assert [] == list(run_graph(registry))


def test_it_takes_what_run_takes(registry: TaskRegistry) -> None:
    @registry.task
    async def fetch(date: str) -> str:
        return f"rows of {date}"

    registry.task("load", depends_on=[fetch])(no_op)
    registry.task("other", depends_on=[fetch])(no_op)
    results = run_graph(
        registry,
        targets=["load", fetch],
        inputs={"date": "today"},
        order="shuffle",
        seed=7,
    )

    assert ["fetch", "load"] == [one.task_name for one in results]
    assert "rows of today" == results[fetch].result
    assert "shuffle, seed 7" == results.order


def test_it_takes_what_a_scheduler_takes(registry: TaskRegistry, recorder: Recorder) -> None:
    registry.task("fails", resources=["db"])(no_op)
    registry.task("waits", resources=["db"])(no_op)
    results = run_graph(
        registry,
        fail={"fails": [1]},
        resources={"db": 1},
        max_concurrency=2,
        on_failure=FailurePolicy.DRAIN,
        observers=[recorder],
    )

    assert [TaskStatus.FAILED, TaskStatus.CANCELLED] == [one.status for one in results]
    assert ["fails"] == recorder.started


def test_it_leaves_the_graph_as_it_was(registry: TaskRegistry) -> None:
    @registry.task(retries=2)
    async def fetch() -> str:
        return "rows"

    before = registry["fetch"]
    run_graph(registry, replace={fetch: lambda: "fakes"}, fail={fetch: [1]}, seconds={fetch: 1})

    assert before is registry["fetch"]
    assert fetch is registry["fetch"].function
    assert "rows" == run_graph(registry)[fetch].result


@on_both
def test_what_a_task_raises_is_as_without_run_graph(
    registry: TaskRegistry, backend: Backend
) -> None:
    """No step of ours before it, and nothing that it would be "during handling of"."""

    @registry.task
    async def fails() -> None:
        raise ValueError

    error = run_graph(registry, backend=backend)[fails].exception

    assert error is not None
    assert error.__context__ is None
    assert error.__traceback__ is not None
    assert "fails" == error.__traceback__.tb_frame.f_code.co_name


def test_a_keyboard_interrupt_leaves_it(registry: TaskRegistry) -> None:
    @registry.task
    async def interrupts() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_graph(registry)


# Virtual time


@on_both
def test_hours_take_no_time_and_durations_are_exact(
    registry: TaskRegistry, backend: Backend
) -> None:
    @registry.task(retries=3, backoff=Backoff(initial=3600, factor=2, maximum=1e6))
    async def fetch() -> None:
        await anyio.sleep(1800)

    began = time.monotonic()
    results = run_graph(registry, fail={fetch: [1, 2]}, backend=backend)

    # The failures come before the function: two waits, without jitter, and one sleep.
    assert 3600 + 7200 + 1800 == results.wall_time
    assert results.wall_time == results[fetch].duration
    assert time.monotonic() - began < 600


@on_both
def test_a_timeout_is_reached_in_virtual_time(registry: TaskRegistry, backend: Backend) -> None:
    registry.task("fetch", timeout=5)(no_op)
    result = run_graph(registry, seconds={"fetch": 6}, backend=backend)["fetch"]

    assert (5, "TaskTimeoutError: Task 'fetch' took longer than its timeout of 5 s.") == (
        result.duration,
        result.error,
    )


@on_both
def test_plain_functions_are_called_in_the_event_loop(
    registry: TaskRegistry, backend: Backend
) -> None:
    where: list[int] = []

    @registry.task
    def fetch() -> str:
        where.append(threading.get_ident())
        return "rows"

    result = run_graph(registry, seconds={fetch: 60}, backend=backend)[fetch]

    assert [threading.get_ident()] == where
    assert ("rows", 60) == (result.result, result.duration)


def test_a_plain_function_that_returns_an_awaitable_is_awaited(registry: TaskRegistry) -> None:
    async def rows() -> str:
        await anyio.sleep(5)
        return "rows"

    def fetch() -> Any:
        return rows()

    registry.task(fetch)
    result = run_graph(registry)["fetch"]

    assert ("rows", 5) == (result.result, result.duration)


@on_both
def test_without_virtual_time_the_clock_is_the_event_loops_own(
    registry: TaskRegistry, backend: Backend
) -> None:
    clocks: list[object] = []
    where: list[int] = []

    @registry.task
    async def looks() -> None:
        if backend == "trio":
            clocks.append(trio.lowlevel.current_clock())
        else:
            clocks.append(asyncio.get_running_loop())

    @registry.task
    def plain() -> str:
        where.append(threading.get_ident())
        return "rows"

    results = run_graph(registry, virtual_time=False, backend=backend)

    assert results.ok
    assert not isinstance(clocks[0], VirtualTimeLoop | trio.testing.MockClock)
    # And plain functions have their threads.
    assert threading.get_ident() not in where


@on_both
def test_failures_and_seconds_hold_without_virtual_time_too(
    registry: TaskRegistry, backend: Backend
) -> None:
    seconds = 0.001
    registry.task("in-the-loop", retries=2)(no_op)
    registry.task("in-a-thread", retries=2)(lambda: "rows")

    @registry.task
    async def lifetime() -> AsyncIterator[str]:
        yield "connection"

    names = ["in-the-loop", "in-a-thread", "lifetime"]
    results = run_graph(
        registry,
        fail={name: [1] for name in names[:2]},
        seconds=dict.fromkeys(names, seconds),
        virtual_time=False,
        backend=backend,
    )

    assert results.ok
    assert [2, 2, 1] == [results[name].attempts for name in names]
    # A clock may be a little off; what the tasks did not take at all would be far less than half.
    assert all(results[name].duration > seconds / 2 for name in names)


# Replacing


@on_both
@each("key", ["name", "function"])
def test_a_function_is_replaced_by_name_or_by_itself(
    registry: TaskRegistry, backend: Backend, key: str
) -> None:
    @registry.task
    async def fetch() -> bytes:
        raise OSError("no network in tests")

    @registry.task
    async def load(fetch: bytes) -> int:
        return len(fetch)

    results = run_graph(
        registry, replace={"fetch" if key == "name" else fetch: lambda: b"rows"}, backend=backend
    )

    assert (b"rows", 4) == (results[fetch].result, results[load].result)


async def async_fake() -> str:
    return "fake"


def plain_fake() -> str:
    return "fake"


async def lifetime_fake() -> AsyncIterator[str]:
    yield "fake"


class CallableFake:
    async def __call__(self) -> str:
        return "fake"


FAKES = [async_fake, plain_fake, lifetime_fake, partial(async_fake), CallableFake()]


@each("fake", FAKES, ids=["async", "plain", "lifetime", "partial", "callable"])
@each("kind", ["async", "plain", "lifetime"])
def test_a_function_of_any_kind_is_replaced_by_one_of_any_kind(
    registry: TaskRegistry, kind: str, fake: Callable[[], Any]
) -> None:
    async def lifetime() -> AsyncIterator[None]:
        yield

    registry.task("fetch")({"async": no_op, "plain": lambda: None, "lifetime": lifetime}[kind])

    @registry.task
    async def load(fetch: object) -> object:
        return fetch

    results = run_graph(registry, replace={"fetch": fake})

    assert ["fake", "fake"] == [one.result for one in results]


def test_a_lifetime_that_stands_in_is_torn_down(registry: TaskRegistry) -> None:
    notes: list[str] = []

    async def fake() -> AsyncIterator[str]:
        yield "connection"
        notes.append("closed")

    registry.task("db")(no_op)

    @registry.task
    async def load(db: object) -> None:
        notes.append(f"loaded by {db}")

    assert run_graph(registry, replace={"db": fake}).ok
    assert ["loaded by connection", "closed"] == notes


def test_what_is_replaced_keeps_its_dependencies(
    registry: TaskRegistry, recorder: Recorder
) -> None:
    """Those that it took by parameter too, although the replacement takes nothing."""
    registry.task("clock")(no_op)
    registry.task("prepare")(no_op)
    registry.task("fetch-rows")(no_op)
    registry.task("notify")(no_op)

    @registry.task(depends_on=["prepare"], after=["notify"])
    async def load(clock: None, rows: Annotated[None, ResultOf("fetch-rows")]) -> None: ...

    run_graph(registry, replace={load: lambda: None}, max_concurrency=1, observers=[recorder])

    for earlier in ["clock", "prepare", "fetch-rows", "notify"]:
        assert recorder.ended_before(earlier, "load")


def test_what_is_replaced_fails_with_what_it_depends_on(registry: TaskRegistry) -> None:
    registry.task("fetch")(no_op)

    @registry.task
    async def load(fetch: None) -> None: ...

    results = run_graph(registry, replace={load: lambda: None}, fail={"fetch": [1]})

    assert (0, TaskStatus.FAILED) == (results[load].attempts, results[load].status)


def test_what_is_replaced_keeps_its_other_settings(registry: TaskRegistry) -> None:
    calls: list[int] = []

    def fake() -> None:
        calls.append(len(calls))
        raise LookupError

    registry.task("fetch", retries=5, retry_on=LookupError, backoff=lambda attempt, error: 10.0)(
        no_op
    )
    result = run_graph(registry, replace={"fetch": fake})["fetch"]

    assert [0, 1, 2, 3, 4] == calls
    assert 40 == result.duration


def test_a_replacement_takes_any_of_the_parameters(registry: TaskRegistry) -> None:
    registry.task("fetch")(lambda: "rows")
    registry.task("clock")(lambda: 12)

    @registry.task
    async def load(fetch: str, clock: int, date: str) -> None: ...

    async def fake(date: str, *, clock: int) -> tuple[str, int]:
        return date, clock

    results = run_graph(registry, replace={load: fake}, inputs={"date": "today"})

    assert ("today", 12) == results[load].result


def test_a_replacement_takes_parameters_by_the_names_that_result_of_had_given(
    registry: TaskRegistry,
) -> None:
    registry.task("fetch-rows")(lambda: "rows")

    @registry.task
    async def load(rows: Annotated[str, ResultOf("fetch-rows")]) -> None: ...

    results = run_graph(registry, replace={load: lambda rows: f"all {rows}"})

    assert "all rows" == results[load].result


def test_a_replacement_may_mark_parameters_of_its_own(registry: TaskRegistry) -> None:
    registry.task("fetch-rows")(lambda: "rows")

    @registry.task
    async def load(rows: Annotated[str, ResultOf("fetch-rows")]) -> None: ...

    async def fake(other: Annotated[str, ResultOf("fetch-rows")]) -> str:
        return f"all {other}"

    assert "all rows" == run_graph(registry, replace={load: fake})[load].result


def test_a_replacement_takes_the_task_result_of_what_it_comes_after(
    registry: TaskRegistry,
) -> None:
    registry.task("load")(no_op)

    @registry.task(after=["load"])
    async def tell(load: TaskResult[None]) -> str | None:
        return None

    results = run_graph(registry, replace={tell: lambda load: load.error}, fail={"load": [1]})

    assert "PlannedFailure: Attempt 1 of task 'load' was planned to fail." == results[tell].result


def test_the_default_of_a_replacement_is_honoured(registry: TaskRegistry) -> None:
    registry.task("fetch")(lambda: "rows")

    @registry.task
    async def load(fetch: str) -> str:
        return fetch

    assert "none" == run_graph(registry, replace={load: lambda fetch="none": fetch})[load].result


def test_positional_only_parameters_are_filled_in_either_function(registry: TaskRegistry) -> None:
    registry.task("fetch")(lambda: "rows")
    registry.task("clock")(lambda: 12)

    @registry.task
    async def load(fetch: str, clock: int, /) -> tuple[str, int]:
        return fetch, clock

    async def fake(clock: int, fetch: str, /) -> tuple[int, str]:
        return clock, fetch

    assert ("rows", 12) == run_graph(registry)[load].result
    assert ("rows", 12) == run_graph(registry, seconds={load: 1})[load].result
    assert (12, "rows") == run_graph(registry, replace={load: fake})[load].result
    assert (12, "rows") == run_graph(registry, replace={load: fake}, fail={load: []})[load].result


# Failing and taking time


@on_both
@each("key", ["name", "function"])
def test_the_attempts_fail_that_are_planned_to(
    registry: TaskRegistry, backend: Backend, key: str
) -> None:
    calls: list[int] = []

    @registry.task(retries=4)
    async def load() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("its own")
        return "done"

    results = run_graph(
        registry, fail={"load" if key == "name" else load: iter([1, 3])}, backend=backend
    )
    failures = results[load].failures

    # The function is not even called in the first and the third.
    assert ("done", 4, 2) == (results[load].result, results[load].attempts, len(calls))
    assert [PlannedFailure, ValueError, PlannedFailure] == [type(one.exception) for one in failures]


@each("kind", ["async", "plain", "lifetime"])
@on_both
def test_a_function_of_any_kind_fails_and_takes_time(
    registry: TaskRegistry, kind: str, backend: Backend
) -> None:
    async def lifetime() -> AsyncIterator[str]:
        yield "rows"

    async def function() -> str:
        return "rows"

    registry.task("fetch", retries=2)(
        {"async": function, "plain": lambda: "rows", "lifetime": lifetime}[kind]
    )
    results = run_graph(registry, fail={"fetch": [1]}, seconds={"fetch": 8}, backend=backend)
    result = results["fetch"]

    assert ("rows", 2, 16) == (result.result, result.attempts, result.duration)
    assert [8] == [failure.duration for failure in result.failures]


def test_a_planned_failure_says_what_it_is(registry: TaskRegistry) -> None:
    registry.task("load", retries=2)(no_op)
    result = run_graph(registry, fail={"load": [1, 2]})["load"]
    error = result.exception

    assert isinstance(error, PlannedFailure)
    assert ("load", 2) == (error.task, error.attempt)
    assert "PlannedFailure: Attempt 2 of task 'load' was planned to fail." == result.error


def test_a_planned_failure_is_asked_about_like_any_other(registry: TaskRegistry) -> None:
    registry.task("load", retries=2, retry_on=OSError)(no_op)

    assert 1 == run_graph(registry, fail={"load": [1]})["load"].attempts


def test_a_planned_task_gets_its_arguments(registry: TaskRegistry) -> None:
    registry.task("fetch")(lambda: "rows")

    @registry.task
    async def load(fetch: str, *, date: str, limit: int = 3) -> tuple[str, str, int]:
        return fetch, date, limit

    results = run_graph(registry, seconds={load: 1}, inputs={"date": "today"})

    assert ("rows", "today", 3) == results[load].result


def test_each_run_has_its_failures_from_the_beginning(registry: TaskRegistry) -> None:
    registry.task("load", retries=2)(no_op)

    assert [2, 2] == [run_graph(registry, fail={"load": [1]})["load"].attempts for _ in range(2)]


# Lifetimes under a plan


@on_both
def test_a_planned_lifetime_is_open_until_nobody_uses_it(
    registry: TaskRegistry, backend: Backend
) -> None:
    notes: list[str] = []

    @registry.task
    async def db() -> AsyncIterator[str]:
        notes.append("open")
        yield "connection"
        notes.append("closed")

    @registry.task
    async def load(db: str) -> None:
        notes.append("load")

    results = run_graph(registry, seconds={db: 3, load: 4}, backend=backend)

    assert results.ok
    assert ["open", "load", "closed"] == notes
    assert 7 == results.wall_time


@each("plan", ["no plan", "a plan"])
@on_both
def test_a_planned_lifetime_ends_as_one_without_a_plan(
    registry: TaskRegistry, backend: Backend, plan: str
) -> None:
    @registry.task("db")
    async def raises_in_its_teardown() -> AsyncIterator[None]:
        yield
        raise ValueError("not closed")

    @registry.task
    async def does_not_yield() -> AsyncIterator[None]:
        if registry is None:
            yield

    @registry.task
    async def yields_twice() -> AsyncIterator[None]:
        yield
        yield

    seconds = {definition.name: 1 for definition in registry} if plan == "a plan" else {}
    results = run_graph(registry, seconds=seconds, backend=backend)

    assert [
        "ValueError: not closed",
        (
            "LifetimeError: Task 'does_not_yield' is an async generator and did not yield. It has "
            "to yield once: what comes before is its set-up, what it yields its result, the rest "
            "its teardown."
        ),
        (
            "LifetimeError: Task 'yields_twice' is an async generator and yielded more than once. "
            "It has to yield once: what comes before is its set-up, what it yields its result, "
            "the rest its teardown."
        ),
    ] == [one.error for one in results]


@each("planned", [{}, {"db": 1}], ids=["as it is", "planned"])
@on_both
def test_a_planned_lifetime_is_told_of_the_end_of_what_it_has_opened(
    registry: TaskRegistry, backend: Backend, planned: dict[str, float]
) -> None:
    """Its own task group fails while it is open: thrown into the body, at its yield."""
    notes: list[str] = []

    @registry.task
    async def db() -> AsyncIterator[None]:
        async def break_down() -> None:
            await anyio.sleep(5)
            raise ConnectionError("reset")

        async with anyio.create_task_group() as group:
            group.start_soon(break_down)
            try:
                yield
            except BaseException as error:
                is_cancellation = isinstance(error, anyio.get_cancelled_exc_class())
                notes.append("cancelled" if is_cancellation else type(error).__name__)
                raise

    registry.task("load", depends_on=[db])(no_op)
    seconds = {"load": 20, **planned}
    results = run_graph(registry, seconds=seconds, backend=backend)

    assert ["cancelled"] == notes
    assert TaskStatus.FAILED is results[db].status
    assert TaskStatus.COMPLETED is results["load"].status


# Determinism


def eventful() -> TaskRegistry:
    """Tasks of every kind, of which many do the same at the same moment."""
    registry = TaskRegistry()

    @registry.task
    async def db() -> AsyncIterator[int]:
        await anyio.sleep(1)
        yield 3
        await anyio.sleep(1)

    for number in range(12):
        registry.task(f"sleeps-{number}", resources=["seat"] if number % 3 else [])(
            partial(anyio.sleep, number % 4)
        )

    for number in range(6):

        @registry.task(f"uses-{number}", retries=3, backoff=Backoff(initial=2, jitter=1))
        async def uses(db: int) -> None:
            await anyio.sleep(1)

        registry.task(f"after-{number}", after=[uses])(no_op)
        registry.task(f"plain-{number}", depends_on=[f"sleeps-{number}"])(lambda: None)

    registry.task("slow", timeout=2, retries=2)(partial(anyio.sleep, 3))
    return registry


def story(events: list[Event]) -> list[tuple[Any, ...]]:
    """Every event with all its fields; of exceptions and results only what they look like."""
    plain = (str, int, float, tuple)

    def shown(value: object) -> object:
        return value if isinstance(value, plain) else repr(value)

    return [
        (type(event).__name__, *(shown(getattr(event, field.name)) for field in fields(event)))
        for event in events
    ]


def story_of_a_run(registry: TaskRegistry, **settings: Any) -> list[tuple[Any, ...]]:
    recorder = Recorder()
    run_graph(
        registry,
        fail={"uses-1": [1], "uses-2": [1, 2], "uses-5": [1, 2, 3]},
        resources={"seat": 3},
        observers=[recorder],
        **settings,
    )
    return story(recorder.events)


@each("limit", [None, 4])
@on_both
def test_twenty_runs_go_the_same_way(backend: Backend, limit: int | None) -> None:
    registry = eventful()
    stories = [story_of_a_run(registry, backend=backend, max_concurrency=limit) for _ in range(20)]

    assert len(stories[0]) > 150
    assert [stories[0]] * 20 == stories


def test_runs_of_one_task_at_a_time_go_the_same_way_on_both_backends() -> None:
    """With more at a time, what happens at one moment is in the order of the event loop."""
    registry = eventful()
    stories = [story_of_a_run(registry, backend=backend, max_concurrency=1) for backend in BACKENDS]

    assert stories[0] == stories[1]


def test_what_happens_at_different_moments_goes_the_same_way_on_both_backends(
    registry: TaskRegistry,
) -> None:
    names = [f"t{number}" for number in range(8)]
    for number, name in enumerate(names):
        registry.task(name, retries=2, depends_on=names[: number // 3])(no_op)
    stories = []
    for backend in BACKENDS:
        recorder = Recorder()
        run_graph(
            registry,
            backend=backend,
            # Powers of two: no two sums of them are the same.
            seconds={name: 2.0**number for number, name in enumerate(names)},
            fail={"t2": [1], "t4": [1, 2]},
            observers=[recorder],
        )
        stories.append(story(recorder.events))

    assert stories[0] == stories[1]


def test_trio_is_left_to_chance_as_it_was(registry: TaskRegistry) -> None:
    inside = trio._core._run
    before = inside._ALLOW_DETERMINISTIC_SCHEDULING
    inside._r.seed(5)
    expected = inside._r.random()
    inside._r.seed(5)
    registry.task("fetch")(no_op)
    run_graph(registry, backend="trio")

    assert before is inside._ALLOW_DETERMINISTIC_SCHEDULING
    assert expected == inside._r.random()


def test_trio_is_left_as_it_was_by_a_run_that_was_interrupted(registry: TaskRegistry) -> None:
    @registry.task
    async def interrupts() -> None:
        raise KeyboardInterrupt

    before = trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING

    with pytest.raises(KeyboardInterrupt):
        run_graph(registry, backend="trio")

    assert before == trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING


# Recording


def recorded(recorder: Recorder, tasks: TaskRegistry, **plan: Any) -> RunResults:
    return run_graph(tasks, observers=[recorder], **plan)


@pytest.fixture
def chain(registry: TaskRegistry, recorder: Recorder) -> TaskRegistry:
    """`first`, then `second`, beside them `long`; all have run, and `recorder` has seen them."""
    registry.task("first")(no_op)
    registry.task("second", depends_on=["first"])(no_op)
    registry.task("long")(no_op)
    recorded(recorder, registry, seconds={"first": 1, "second": 1, "long": 5})
    return registry


@pytest.mark.usefixtures("chain")
def test_a_recorder_keeps_every_event(recorder: Recorder) -> None:
    assert 17 == len(recorder.events)
    assert all(isinstance(event, Event) for event in recorder.events)


@pytest.mark.usefixtures("chain")
def test_a_recorder_tells_what_was_started_in_order(recorder: Recorder) -> None:
    assert ["first", "long", "second"] == recorder.started


@pytest.mark.usefixtures("chain")
def test_a_recorder_tells_what_has_ended_in_order(recorder: Recorder) -> None:
    assert ["first", "second", "long"] == recorder.ended


def test_a_recorder_counts_what_ended_without_a_start(
    registry: TaskRegistry, recorder: Recorder
) -> None:
    registry.task("fails")(no_op)
    registry.task("skipped", depends_on=["fails"])(no_op)
    registry.task("later", after=["skipped"])(no_op)
    recorded(recorder, registry, fail={"fails": [1]}, on_failure=FailurePolicy.DRAIN)

    assert ["fails"] == recorder.started
    assert ["fails", "skipped", "later"] == recorder.ended


def test_a_recorder_counts_a_lifetime_that_fails_in_the_end_once(
    registry: TaskRegistry, recorder: Recorder
) -> None:
    @registry.task
    async def db() -> AsyncIterator[None]:
        yield
        raise ValueError

    registry.task("load", depends_on=[db])(no_op)
    recorded(recorder, registry)

    assert ["db", "load"] == recorder.ended


def test_a_recorder_tells_what_happened_to_one_task(
    registry: TaskRegistry, recorder: Recorder
) -> None:
    @registry.task(retries=2)
    async def load() -> None: ...

    registry.task("other")(no_op)
    recorded(recorder, registry, fail={load: [1]})

    assert [
        "TaskScheduled",
        "TaskStarted",
        "AttemptStarted",
        "AttemptFailed",
        "TaskRetrying",
        "AttemptStarted",
        "AttemptCompleted",
        "TaskCompleted",
    ] == [type(event).__name__ for event in recorder.of(load)]
    assert recorder.of(load) == recorder.of("load") == recorder.of(registry["load"])
    assert {"load"} == {event.task for event in recorder.of(load)}


@pytest.mark.usefixtures("chain")
def test_of_a_task_that_there_is_not_nothing_happened(recorder: Recorder) -> None:
    assert [] == recorder.of("third")


FINDINGS: list[tuple[str, str, str, str]] = [
    ("started_before", "first", "second", "<Yes: 'first started' came before 'second started'>"),
    ("started_before", "second", "first", "<No: 'first started' came before 'second started'>"),
    (
        "started_before",
        "first",
        "third",
        "<Yes: 'first started' happened, and 'third started' did not>",
    ),
    ("started_before", "third", "first", "<No: 'third started' did not happen>"),
    ("started_before", "first", "first", "<No: 'first started' came before 'first started'>"),
    ("ended_before", "first", "second", "<Yes: 'first ended' came before 'second started'>"),
    ("ended_before", "second", "first", "<No: 'first started' came before 'second ended'>"),
    ("ended_before", "long", "second", "<No: 'second started' came before 'long ended'>"),
    ("ended_before", "long", "third", "<Yes: 'long ended' happened, and 'third started' did not>"),
    ("ended_before", "third", "long", "<No: 'third ended' did not happen>"),
    ("overlapped", "first", "long", "<Yes: 'first' and 'long' ran at the same time>"),
    ("overlapped", "long", "first", "<Yes: 'long' and 'first' ran at the same time>"),
    ("overlapped", "first", "second", "<No: 'first ended' came before 'second started'>"),
    ("overlapped", "second", "first", "<No: 'first ended' came before 'second started'>"),
    ("overlapped", "first", "third", "<No: 'first' and 'third' were not both started>"),
    ("overlapped", "third", "first", "<No: 'third' and 'first' were not both started>"),
]


@each("question, one, other, answer", FINDINGS)
@pytest.mark.usefixtures("chain")
def test_a_recorder_answers_with_what_it_saw(
    recorder: Recorder, question: str, one: str, other: str, answer: str
) -> None:
    finding = getattr(recorder, question)(one, other)

    assert answer == repr(finding)
    assert answer.startswith("<Yes") == bool(finding)


def test_a_recorder_is_asked_about_functions_and_definitions_too(
    registry: TaskRegistry, recorder: Recorder
) -> None:
    @registry.task("fetch-rows")
    async def fetch() -> None: ...

    @registry.task(depends_on=[fetch])
    async def load() -> None: ...

    recorded(recorder, registry)

    assert recorder.started_before(fetch, registry["load"])
    assert recorder.ended_before(registry["fetch-rows"], load)
    assert not recorder.overlapped(fetch, "load")


def test_a_recorder_refuses_what_is_no_task(recorder: Recorder) -> None:
    with pytest.raises(TypeError):
        recorder.of(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        recorder.started_before("a", no_op)


def test_a_recorder_watches_any_scheduler(registry: TaskRegistry, recorder: Recorder) -> None:
    registry.task("fetch")(no_op)
    asyncio.run(TaskScheduler(registry, observers=[recorder]).run())

    assert ["fetch"] == recorder.started


def test_a_finding_is_a_value() -> None:
    finding = Finding(holds=True, seen="it")

    assert finding == Finding(holds=True, seen="it")
    assert finding != Finding(holds=False, seen="it")
    with pytest.raises(FrozenInstanceError):
        finding.holds = False  # type: ignore[misc]


def test_a_finding_explains_a_failed_assertion() -> None:
    """pytest shows the repr of what was not true."""
    finding = Finding(holds=False, seen="'a' came before 'b'")
    with pytest.raises(AssertionError, match=r"<No: 'a' came before 'b'>"):
        assert finding


# The clock by itself


def test_a_virtual_loop_begins_at_zero_and_jumps() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        await asyncio.sleep(3600)
        times.append(loop.time())
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.Event().wait()
        times.append(loop.time())
        return times

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert [0.0, 3600.0, 3601.5] == runner.run(main())


def test_a_virtual_loop_waits_for_a_thread_where_nothing_else_is_due() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        tell = partial(loop.call_soon_threadsafe, told.set_result, "done")
        thread = threading.Thread(target=tell)
        thread.start()
        try:
            return await told
        finally:
            thread.join()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert "done" == runner.run(main())


# What is refused


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"replace": {"lod": no_op}},
        KeyError,
        "run_graph: replace names 'lod', and there is no such task: ['fetch', 'load']",
    ),
    (
        {"fail": {"lod": [1]}},
        KeyError,
        "run_graph: fail names 'lod', and there is no such task: ['fetch', 'load']",
    ),
    (
        {"seconds": {"lod": 1}},
        KeyError,
        "run_graph: seconds names 'lod', and there is no such task: ['fetch', 'load']",
    ),
    (
        {"backend": "curio"},
        ValueError,
        "Expected backend to be 'asyncio' or 'trio', got 'curio'.",
    ),
    (
        {"replace": {"load": 5}},
        TypeError,
        "Task 'load': expected a function, got 5 (int).",
    ),
    (
        {"replace": ["load"]},
        TypeError,
        "Expected replace to be a mapping of tasks, by name or function, got ['load'].",
    ),
    (
        {"fail": ["load"]},
        TypeError,
        "Expected fail to be a mapping of tasks, by name or function, got ['load'].",
    ),
    (
        {"fail": {"load": 1}},
        TypeError,
        (
            "Task 'load': expected the attempts that fail to be a list of whole numbers from 1, as "
            "in fail={'load': [1, 2]}, or a mapping of them to exceptions, got 1."
        ),
    ),
    (
        {"fail": {"load": ["1"]}},
        TypeError,
        (
            "Task 'load': expected the attempts that fail to be a list of whole numbers from 1, as "
            "in fail={'load': [1, 2]}, or a mapping of them to exceptions, got ['1']."
        ),
    ),
    (
        {"fail": {"load": [0]}},
        ValueError,
        (
            "Task 'load': expected the attempts that fail to be a list of whole numbers from 1, as "
            "in fail={'load': [1, 2]}, or a mapping of them to exceptions, got [0]."
        ),
    ),
    (
        {"seconds": {"load": "3"}},
        TypeError,
        "Task 'load': expected its seconds to be a number of at least 0, got '3'.",
    ),
    (
        {"seconds": {"load": True}},
        TypeError,
        "Task 'load': expected its seconds to be a number of at least 0, got True.",
    ),
    (
        {"seconds": {"load": -1}},
        ValueError,
        "Task 'load': expected its seconds to be a number of at least 0, got -1.",
    ),
    (
        {"seconds": {"load": float("nan")}},
        ValueError,
        "Task 'load': expected its seconds to be a number of at least 0, got nan.",
    ),
]


@each("arguments, kind, message", REFUSED, ids=[repr(one)[:40] for one, _, _ in REFUSED])
def test_what_is_no_plan_is_refused_before_anything_runs(
    registry: TaskRegistry, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    started: list[str] = []

    @registry.task
    async def fetch() -> None:
        started.append("fetch")

    registry.task("load", depends_on=[fetch])(no_op)
    with pytest.raises(kind) as caught:
        run_graph(registry, **arguments)

    # `str()` of a KeyError is the repr of its message.
    assert message == caught.value.args[0]
    assert kind is caught.type
    assert [] == started


def test_a_setting_that_there_is_not_is_refused(registry: TaskRegistry) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_concurency'"):
        run_graph(registry, max_concurency=3)


def test_a_graph_that_cannot_run_is_refused_as_ever(registry: TaskRegistry) -> None:
    registry.task("load", depends_on=["fetch"])(no_op)
    with pytest.raises(DependencyError):
        run_graph(registry)


def test_a_missing_trio_is_named(registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio.testing", None)
    with pytest.raises(ImportError) as caught:
        run_graph(registry, backend="trio")

    assert "backend='trio' needs trio: pip install 'portable_sched[trio]'." == str(caught.value)


# What a user would write


def test_a_flaky_step_is_tried_again_and_its_dependents_wait_for_it(
    registry: TaskRegistry, recorder: Recorder
) -> None:
    @registry.task(retries=3, backoff=Backoff(initial=1, factor=2))
    async def fetch() -> bytes:
        raise OSError("no network in tests")

    @registry.task
    async def load(fetch: bytes) -> int:
        return len(fetch)

    @registry.task(after=[load])
    async def tidy() -> None: ...

    results = run_graph(
        registry,
        replace={fetch: lambda: b"rows"},
        fail={fetch: [1, 2]},
        seconds={fetch: 10, load: 1},
        observers=[recorder],
    )

    assert recorder.ended_before(fetch, load)
    assert recorder.ended_before(load, tidy)
    assert not recorder.overlapped(fetch, load)
    assert 4 == results[load].result
    assert 10 + 1 + 10 + 2 + 10 + 1 == results.wall_time
    assert [1, 2] == [e.attempt for e in recorder.of(fetch) if isinstance(e, AttemptFailed)]
    assert [] == [event for event in recorder.events if isinstance(event, TaskFailed)]
    assert 3 == sum(isinstance(event, TaskStarted) for event in recorder.events)
    assert all(isinstance(event, TaskEvent) for event in recorder.of(fetch))


# What was found missing by who tried it


def test_an_attempt_may_fail_as_the_task_expects_it_to() -> None:
    registry = TaskRegistry()
    lost = ConnectionError("lost")

    @registry.task(retries=3, retry_on=ConnectionError)
    async def fetch() -> str:
        return "rows"

    results = run_graph(registry, fail={fetch: {1: lost}})

    assert ("rows", 2) == (results[fetch].result, results[fetch].attempts)
    assert [lost] == [failure.exception for failure in results[fetch].failures]


def test_what_is_to_be_raised_has_to_be_an_exception() -> None:
    registry = TaskRegistry()

    @registry.task
    async def fetch() -> None: ...

    with pytest.raises(TypeError, match="a mapping of them to exceptions"):
        run_graph(registry, fail={"fetch": {1: "lost"}})


def test_inputs_that_only_replaced_functions_took_may_be_given_all_the_same() -> None:
    registry = TaskRegistry()

    @registry.task
    async def fetch(date: str) -> str:
        return date

    results = run_graph(registry, inputs={"date": "today"}, replace={"fetch": lambda: "rows"})

    assert "rows" == results[fetch].result


def test_inputs_that_nobody_took_are_refused_as_ever() -> None:
    registry = TaskRegistry()

    @registry.task
    async def fetch() -> None: ...

    with pytest.raises(InputError):
        run_graph(registry, inputs={"date": "today"}, replace={"fetch": lambda: "rows"})


def test_a_clock_that_jumps_waits_for_a_thread_where_nothing_is_due() -> None:
    waiting = threading.Event()

    async def wait_for_a_thread() -> float:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            waiting.wait()
            loop.call_soon_threadsafe(done.set_result, None)

        thread = threading.Thread(target=finish)
        thread.start()
        await done
        thread.join()
        return loop.time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        select = loop._selector.select  # type: ignore[attr-defined]

        def select_and_tell(timeout: float | None = None) -> Any:
            if timeout is None:
                waiting.set()
            return select(timeout)

        loop._selector.select = select_and_tell  # type: ignore[attr-defined]

        assert 0.0 == runner.run(wait_for_a_thread())


def test_a_task_with_an_executor_runs_as_if_it_had_none() -> None:
    registry = TaskRegistry()
    here = os.getpid()

    @registry.task(executor="not there")
    def count() -> int:
        return os.getpid()

    @registry.task(executor="process")
    async def wait(count: int) -> int:
        await anyio.sleep(3600)
        return count

    results = run_graph(registry)

    assert (here, 3600.0) == (results[wait].result, results.wall_time)

"""What running a graph promises, except for cancellation and threads: they have files of their own.

Order, concurrency and limits, attempts, tracebacks and memory, contexts, giving way, runs in runs.
"""

import gc
import random
import traceback
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portable_sched import (
    Priority,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
    task,
)

pytestmark = pytest.mark.anyio

Body = Callable[[], Coroutine[Any, Any, Any]]


async def no_op() -> None:
    pass


def recording(name: str, events: list[tuple[str, str]], turns: int) -> Body:
    """A function that notes its start and end, and suspends `turns` times between them."""

    async def body() -> None:
        events.append(("start", name))
        for _ in range(turns):
            await checkpoint()
        events.append(("end", name))

    return body


def noting(name: str, starts: list[str]) -> Body:
    """A function that notes its start and suspends once."""

    async def body() -> None:
        starts.append(name)
        await checkpoint()

    return body


class Meeting:
    """A place where everyone waits until as many as expected are there."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.arrived = 0
        self.all_there = anyio.Event()

    async def __call__(self) -> None:
        self.arrived += 1
        if self.arrived == self.expected:
            self.all_there.set()
        await self.all_there.wait()


def workers_alive() -> int:
    return sum(one.name == "portable_sched worker" for one in anyio.get_running_tasks())


# Order


def random_tasks(seed: int, events: list[tuple[str, str]]) -> list[TaskDef]:
    choose = random.Random(seed)
    names = [f"t{number}" for number in range(12)]
    return [
        TaskDef(
            name=name,
            function=recording(name, events, turns=choose.randrange(4)),
            priority=choose.choice(list(Priority)),
            depends_on=tuple(choose.sample(names[:number], min(number, choose.randrange(3)))),
        )
        for number, name in enumerate(names)
    ]


def path_length(name: str, tasks: list[TaskDef]) -> int:
    """How many tasks the longest path from this one to an end has, straight from the definition."""
    dependents = [one.name for one in tasks if name in one.depends_on]
    return 1 + max((path_length(dependent, tasks) for dependent in dependents), default=0)


def best_first(tasks: list[TaskDef], events: list[tuple[str, str]]) -> Iterator[str]:
    """For each start in `events` the task that should have been the one."""
    registered = [one.name for one in tasks]
    rank = {
        one.name: (one.priority, -path_length(one.name, tasks), registered.index(one.name))
        for one in tasks
    }
    started: set[str] = set()
    ended: set[str] = set()
    for kind, name in events:
        if kind == "end":
            ended.add(name)
            continue
        ready = [one.name for one in tasks if ended.issuperset(one.depends_on)]
        yield min((one for one in ready if one not in started), key=rank.__getitem__)
        started.add(name)


@pytest.mark.parametrize("limit", [1, 2, None])
async def test_of_the_ready_tasks_the_best_one_starts_first_in_200_runs(limit: int | None) -> None:
    """By priority, then the longest remaining path, then registration; tasks suspend at random."""
    for seed in range(200):
        events: list[tuple[str, str]] = []
        tasks = random_tasks(seed, events)
        await TaskScheduler(tasks, max_concurrency=limit).run()
        starts = [name for kind, name in events if kind == "start"]

        assert len(tasks) == len(starts)
        assert list(best_first(tasks, events)) == starts


async def test_dependents_are_released_before_the_slot_is_filled_again() -> None:
    starts: list[str] = []
    task("first", priority=Priority.HIGH)(noting("first", starts))
    task("waiting")(noting("waiting", starts))
    task("urgent", priority=Priority.HIGH, depends_on=["first"])(noting("urgent", starts))
    await TaskScheduler(max_concurrency=1).run()

    assert ["first", "urgent", "waiting"] == starts


async def test_a_task_that_is_tried_again_competes_by_its_priority() -> None:
    starts: list[str] = []

    def failing(name: str) -> Body:
        async def body() -> None:
            starts.append(name)
            await checkpoint()
            raise ValueError(name)

        return body

    task("low", priority=Priority.LOW, retries=2)(failing("low"))
    task("high", priority=Priority.HIGH, retries=3)(failing("high"))
    task("medium")(noting("medium", starts))
    await TaskScheduler(max_concurrency=1).run()

    assert ["high", "high", "high", "medium", "low", "low"] == starts


# Concurrency and limits


@pytest.mark.parametrize("width", [1, 2, 3, 100])
async def test_everything_that_may_run_at_once_does(width: int) -> None:
    meeting = Meeting(width)
    for number in range(width):
        task(f"t{number}")(meeting.__call__)
    results = await TaskScheduler().run()

    assert {TaskStatus.COMPLETED: width} == results.counts()
    assert width == results.most_running


async def test_what_becomes_ready_together_runs_at_once_whoever_waits_by_then() -> None:
    """Wide, narrow, wide again: the second time around the workers are there and wait."""
    meetings = [Meeting(20), Meeting(1), Meeting(30)]
    before: list[str] = []
    for layer, meeting in enumerate(meetings):
        names = [f"{layer}-{number}" for number in range(meeting.expected)]
        for name in names:
            task(name, depends_on=before)(meeting.__call__)
        before = names
    results = await TaskScheduler().run()

    assert {TaskStatus.COMPLETED: 51} == results.counts()


async def test_a_task_that_becomes_ready_beside_one_that_waits_runs_at_once() -> None:
    """The one that waits had suspended when there was nothing else to do."""
    opened = anyio.Event()

    @task(priority=Priority.HIGH)
    async def waits() -> None:
        await opened.wait()

    @task
    async def releases_two() -> None:
        await checkpoint()

    meeting = Meeting(2)

    @task(depends_on=[releases_two])
    async def one() -> None:
        await meeting()

    @task(depends_on=[releases_two])
    async def other() -> None:
        await meeting()
        opened.set()

    results = await TaskScheduler().run()

    assert {TaskStatus.COMPLETED: 4} == results.counts()


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_the_limit_is_reached_and_never_exceeded(limit: int) -> None:
    running = 0
    most = 0
    meeting = Meeting(limit)

    async def body() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if meeting.arrived < limit:
            await meeting()
        await checkpoint()
        running -= 1

    for number in range(60):
        task(f"t{number}", depends_on=[f"t{number - 20}"] if number >= 20 else ())(body)
    results = await TaskScheduler(max_concurrency=limit).run()

    assert limit == most
    assert limit == results.most_running


async def test_a_task_that_waits_for_its_dependency_holds_no_slot() -> None:
    @task(priority=Priority.LOW)
    async def first() -> None:
        await checkpoint()

    task("second", priority=Priority.HIGH, depends_on=[first])(no_op)
    results = await TaskScheduler(max_concurrency=1).run()

    assert {TaskStatus.COMPLETED: 2} == results.counts()


@pytest.mark.virtual_time
async def test_a_thousand_sleepers_take_as_long_as_one() -> None:
    async def sleep() -> None:
        await anyio.sleep(1)

    for number in range(1000):
        task(f"t{number}")(sleep)
    results = await TaskScheduler().run()

    assert {1.0} == {round(one.duration, 6) for one in results}
    assert results.wall_time == pytest.approx(1.0)


async def test_workers_for_tasks_that_keep_waiting_are_doubled_and_not_sent_for_singly() -> None:
    meeting = Meeting(500)
    turns = 0

    @task(priority=Priority.HIGH)
    async def counts() -> None:
        nonlocal turns
        while not meeting.all_there.is_set():
            await checkpoint()
            turns += 1

    for number in range(500):
        task(f"t{number}")(meeting.__call__)
    await TaskScheduler().run()

    assert turns < 100


async def test_tasks_that_suspend_for_one_turn_are_done_by_a_few_workers() -> None:
    """A worker costs more than such a task, so there is no sense in a thousand of them."""

    async def body() -> None:
        await checkpoint()

    for number in range(1000):
        task(f"t{number}")(body)
    results = await TaskScheduler().run()

    assert {TaskStatus.COMPLETED: 1000} == results.counts()
    assert results.most_running < 50


async def test_there_are_never_more_workers_than_tasks_that_may_run() -> None:
    """Those that wait are used again, and those on their way are counted."""
    alive: list[int] = []

    def meets(meeting: Meeting) -> Body:
        async def body() -> None:
            await meeting()
            alive.append(workers_alive())

        return body

    before: list[str] = []
    for layer in range(10):
        body = meets(Meeting(5))
        names = [f"{layer}-{number}" for number in range(5)]
        for name in names:
            task(name, depends_on=before)(body)
        before = names
    await TaskScheduler().run()

    assert {5} == set(alive)


async def test_a_chain_needs_one_worker() -> None:
    most = 0

    async def body() -> None:
        nonlocal most
        await checkpoint()
        most = max(most, workers_alive())

    for number in range(100):
        task(f"t{number}", depends_on=[f"t{number - 1}"] if number else ())(body)
    await TaskScheduler().run()

    assert 1 == most


async def test_nothing_of_a_run_is_left_when_it_returns() -> None:
    meeting = Meeting(10)
    for number in range(10):
        task(f"t{number}")(meeting.__call__)
    await TaskScheduler().run()

    assert 0 == workers_alive()


# Size


def chain_of_100_000(first: Body) -> list[TaskDef]:
    return [TaskDef(name="0", function=first)] + [
        TaskDef(name=str(number), function=no_op, depends_on=(str(number - 1),))
        for number in range(1, 100_000)
    ]


async def test_a_chain_of_100_000_tasks_runs() -> None:
    results = await TaskScheduler(chain_of_100_000(no_op)).run()

    assert {TaskStatus.COMPLETED: 100_000} == results.counts()


async def test_a_failure_spreads_along_a_chain_of_100_000_tasks() -> None:
    async def first() -> None:
        raise ValueError("broken")

    results = await TaskScheduler(chain_of_100_000(first)).run()

    assert {TaskStatus.FAILED: 100_000} == results.counts()
    assert "Dependency '99998' failed, because '0' failed: ValueError: broken" == results[-1].error


async def test_an_empty_graph_gives_empty_results() -> None:
    results = await TaskScheduler([]).run()

    assert [] == list(results)


# Attempts


async def test_attempts_are_made_until_one_succeeds_and_failures_are_kept() -> None:
    errors = [ValueError("first"), KeyError("second")]
    to_raise = iter(errors)

    @task(retries=5)
    async def flaky() -> str:
        await checkpoint()
        for error in to_raise:
            raise error
        return "done"

    result = (await TaskScheduler().run())["flaky"]

    assert (TaskStatus.COMPLETED, "done", 3) == (result.status, result.result, result.attempts)
    assert [(1, errors[0]), (2, errors[1])] == [
        (failure.attempt, failure.exception) for failure in result.failures
    ]
    assert result.exception is None
    assert result.error is None


async def test_a_task_has_as_many_attempts_as_retries_says_and_then_fails() -> None:
    calls = 0

    @task(retries=3)
    async def broken() -> None:
        nonlocal calls
        calls += 1
        raise ValueError(calls)

    result = (await TaskScheduler().run())["broken"]

    assert (3, 3, TaskStatus.FAILED) == (calls, result.attempts, result.status)
    assert "ValueError: 3" == result.error
    assert result.failures[-1].exception is result.exception


async def test_dependents_of_a_failed_task_fail_without_an_attempt_and_the_rest_goes_on() -> None:
    entered: list[str] = []

    @task
    async def broken() -> None:
        await checkpoint()
        raise ValueError("text")

    task("direct", depends_on=[broken])(noting("direct", entered))
    task("indirect", depends_on=["direct"])(noting("indirect", entered))
    task("other")(noting("other", entered))
    task("after_other", depends_on=["other"])(noting("after_other", entered))
    results = await TaskScheduler().run()

    assert ["other", "after_other"] == entered
    assert (TaskStatus.FAILED, 0) == (results["direct"].status, results["direct"].attempts)
    assert "Dependency 'broken' failed: ValueError: text" == results["direct"].error
    assert (TaskStatus.FAILED, 0) == (results["indirect"].status, results["indirect"].attempts)
    assert (
        "Dependency 'direct' failed, because 'broken' failed: ValueError: text"
        == results["indirect"].error
    )


async def test_a_task_with_two_failed_dependencies_has_failed_because_of_the_first() -> None:
    first_failed = anyio.Event()

    @task
    async def second() -> None:
        await first_failed.wait()
        raise ValueError("second")

    @task
    async def first() -> None:
        first_failed.set()
        raise ValueError("first")

    task("both", depends_on=[second, first])(no_op)
    results = await TaskScheduler().run()

    assert "Dependency 'first' failed: ValueError: first" == results["both"].error


class Odd(BaseException):
    """Something that is no `Exception`."""


@pytest.mark.parametrize("raised", [Odd, GeneratorExit])
@pytest.mark.parametrize("turns", [0, 1])
async def test_what_is_no_exception_fails_the_task_and_is_not_tried_again(
    raised: type[BaseException], turns: int
) -> None:
    @task(retries=3)
    async def odd() -> None:
        for _ in range(turns):
            await checkpoint()
        raise raised("text")

    task("dependent", depends_on=[odd])(no_op)
    results = await TaskScheduler().run()

    assert (TaskStatus.FAILED, 1) == (results[odd].status, results[odd].attempts)
    assert f"{raised.__name__}: text" == results[odd].error
    assert TaskStatus.FAILED is results["dependent"].status


async def test_a_stop_iteration_fails_its_task() -> None:
    @task
    async def stops() -> None:
        raise StopIteration("text")

    result = (await TaskScheduler().run())["stops"]

    assert TaskStatus.FAILED is result.status
    assert "RuntimeError: coroutine raised StopIteration" == result.error


async def test_an_attempt_that_awaits_what_the_loop_does_not_know_fails() -> None:
    class Unknown:
        def __await__(self) -> Generator[object, None, None]:
            yield object()

    @task
    async def confused() -> None:
        await Unknown()

    task("other")(no_op)
    results = await TaskScheduler().run()

    assert TaskStatus.FAILED is results[confused].status
    assert TaskStatus.COMPLETED is results["other"].status


async def test_none_and_exceptions_are_results_like_any_other() -> None:
    error = ValueError("returned, not raised")

    @task
    async def returns_it() -> ValueError:
        await checkpoint()
        return error

    task("none")(no_op)
    results = await TaskScheduler().run()

    assert (TaskStatus.COMPLETED, error) == (results[returns_it].status, results[returns_it].result)
    assert (TaskStatus.COMPLETED, None) == (results["none"].status, results["none"].result)


class Calls:
    """Callable objects and methods of every kind."""

    async def __call__(self) -> str:
        await checkpoint()
        return "call"

    async def method(self, text: str = "method") -> str:
        await checkpoint()
        return text

    @staticmethod
    async def static() -> str:
        await checkpoint()
        return "static"


class Later:
    """An awaitable that is no coroutine."""

    def __await__(self) -> Generator[Any, Any, str]:
        yield from checkpoint().__await__()
        return "awaited"

    def itself(self) -> "Later":
        return self


def hidden(function: Callable[..., Awaitable[str]]) -> Callable[[], Awaitable[str]]:
    """A decorator as people write them: a plain function that returns a coroutine."""

    @wraps(function)
    def wrapper() -> Awaitable[str]:
        return function()

    return wrapper


CALLABLES: dict[str, tuple[Callable[[], Any], str]] = {
    "object": (Calls(), "call"),
    "partial of an object": (partial(Calls()), "call"),
    "method": (Calls().method, "method"),
    "partial of a method": (partial(Calls().method, "bound"), "bound"),
    "partial of a partial": (partial(partial(Calls().method), text="twice"), "twice"),
    "static method": (Calls.static, "static"),
    "wrapper": (hidden(Calls().method), "method"),
    "lambda that returns a coroutine": (lambda: Calls().method("lambda"), "lambda"),
    "plain method": (Later().itself, "awaited"),
}


@pytest.mark.parametrize(("function", "expected"), CALLABLES.values(), ids=CALLABLES)
async def test_every_kind_of_async_callable_gives_its_result(
    function: Callable[[], Any], expected: str
) -> None:
    task("t")(function)
    result = (await TaskScheduler().run())["t"]

    assert (TaskStatus.COMPLETED, expected, None) == (result.status, result.result, result.error)


async def test_scopes_and_task_groups_work_inside_a_task() -> None:
    async def child(done: list[str]) -> None:
        await checkpoint()
        done.append("child")

    @task
    async def structured() -> list[str]:
        done: list[str] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        done.append("cancelled" if scope.cancelled_caught else "not cancelled")
        async with anyio.create_task_group() as group:
            group.start_soon(child, done)
        return done

    result = (await TaskScheduler().run())["structured"]

    assert ["cancelled", "child"] == result.result


@pytest.mark.virtual_time
async def test_a_timeout_inside_a_task_is_the_tasks_own() -> None:
    @task(retries=2)
    async def slow() -> None:
        with anyio.fail_after(1):
            await anyio.sleep_forever()

    result = (await TaskScheduler().run())["slow"]

    assert (TaskStatus.FAILED, 2) == (result.status, result.attempts)
    assert [TimeoutError, TimeoutError] == [type(one.exception) for one in result.failures]


# Status


async def test_statuses_are_seen_from_inside_a_task() -> None:
    seen: dict[str, TaskStatus] = {}

    @task
    async def first() -> None:
        await checkpoint()

    @task
    async def broken() -> None:
        await checkpoint()
        raise ValueError

    @task(depends_on=[first])
    async def looks() -> None:
        await checkpoint()
        seen.update(scheduler.status_snapshot())

    task("later", depends_on=[looks])(no_op)
    task("lost", depends_on=[broken])(no_op)
    scheduler = TaskScheduler(max_concurrency=1)
    results = await scheduler.run()

    assert {
        "first": TaskStatus.COMPLETED,
        "looks": TaskStatus.RUNNING,
        "later": TaskStatus.PENDING,
    } == {name: status for name, status in seen.items() if name not in {"broken", "lost"}}
    assert {name: results[name].status for name in seen} == dict(scheduler.status_snapshot())


async def test_a_task_stays_running_between_its_attempts() -> None:
    """Two urgent tasks come up while it runs: one takes the other slot, one that of its retry."""
    seen: list[tuple[TaskStatus, int]] = []
    flaky_runs, urgent_runs, seen_between = anyio.Event(), anyio.Event(), anyio.Event()

    @task(retries=2)
    async def flaky() -> None:
        flaky_runs.set()
        await urgent_runs.wait()
        raise ValueError

    @task
    async def first() -> None:
        await flaky_runs.wait()

    @task(priority=Priority.HIGH, depends_on=[first])
    async def urgent() -> None:
        urgent_runs.set()
        await seen_between.wait()

    @task(priority=Priority.HIGH, depends_on=[first])
    async def looks() -> None:
        result = scheduler.results[flaky]
        seen.append((result.status, len(result.failures)))
        seen_between.set()

    scheduler = TaskScheduler(max_concurrency=2)
    results = await scheduler.run()

    assert [(TaskStatus.RUNNING, 1)] == seen
    assert (TaskStatus.FAILED, 2) == (results[flaky].status, results[flaky].attempts)


# Tracebacks and memory


def lines_of(exception: BaseException | None) -> list[str]:
    """The functions that a traceback names, from the outside in."""
    assert exception is not None
    return [frame.name for frame in traceback.extract_tb(exception.__traceback__)]


async def raises_deep_down() -> None:
    await checkpoint()
    raise ValueError("deep down")


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_traceback_begins_with_the_users_function(turns: int) -> None:
    @task(retries=2)
    async def outer() -> None:
        for _ in range(turns):
            await checkpoint()
        await raises_deep_down()

    result = (await TaskScheduler().run())["outer"]

    assert [["outer", "raises_deep_down"]] * 2 == [
        lines_of(failure.exception) for failure in result.failures
    ]


class Raises:
    """A callable object around a function."""

    def __init__(self, function: Body) -> None:
        self.function = function

    async def __call__(self) -> None:
        await self.function()


def raises_in_a_thread() -> NoReturn:
    raise ValueError("in a thread")


def raises_in_the_coroutine_it_returns() -> Awaitable[None]:
    return raises_deep_down()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (partial(raises_deep_down), ["raises_deep_down"]),
        (Raises(raises_deep_down), ["__call__", "raises_deep_down"]),
        (raises_in_a_thread, ["raises_in_a_thread"]),
        (raises_in_the_coroutine_it_returns, ["raises_deep_down"]),
    ],
    ids=["partial", "object", "thread", "wrapper"],
)
async def test_a_traceback_begins_with_what_the_user_wrote_whatever_the_callable(
    function: Callable[[], Any], expected: list[str]
) -> None:
    task("t")(function)
    result = (await TaskScheduler().run())["t"]

    assert expected == lines_of(result.exception)


async def test_what_a_task_raises_has_only_the_context_that_the_task_gave_it() -> None:
    """It was resumed with another exception, had dealt with it, and raised its own later."""

    @task
    async def recovers() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        raise ValueError("later")

    result = (await TaskScheduler().run())["recovers"]

    assert result.exception is not None
    assert result.exception.__context__ is None


class Witness:
    """Something that a failed function had in its hands."""


def fails_in_every_way(witnesses: list[weakref.ref[Witness]]) -> TaskRegistry:
    registry = TaskRegistry()

    def kept() -> Witness:
        witness = Witness()
        witnesses.append(weakref.ref(witness))
        return witness

    @registry.task
    async def at_once() -> None:
        witness = kept()  # noqa: F841 - the frame is to hold it
        raise ValueError("at once")

    @registry.task(retries=2)
    async def after_a_turn() -> None:
        witness = kept()  # noqa: F841 - the frame is to hold it
        await checkpoint()
        raise ValueError("after a turn")

    @registry.task
    async def from_a_child() -> None:
        witness = kept()  # noqa: F841 - the frame is to hold it
        async with anyio.create_task_group() as group:
            group.start_soon(raises_deep_down)

    @registry.task
    async def after_an_interruption() -> None:
        witness = kept()  # noqa: F841 - the frame is to hold it
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        raise ValueError("after an interruption")

    @registry.task
    async def cancelled_from_within() -> None:
        witness = kept()  # noqa: F841 - the frame is to hold it
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                caught = error
        try:
            raise caught
        finally:
            # What the function does with itself is not for us to mend.
            del caught

    @registry.task
    def in_a_thread() -> None:
        witness = kept()  # noqa: F841 - the frame is to hold it
        raise ValueError("in a thread")

    registry.task("dependent", depends_on=[at_once])(no_op)
    return registry


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_what_failed_tasks_held_is_freed_with_the_results() -> None:
    """By its reference count, at once: the collector is off."""
    witnesses: list[weakref.ref[Witness]] = []
    scheduler = TaskScheduler(fails_in_every_way(witnesses))
    results = await scheduler.run()
    held = [witness() is not None for witness in witnesses]
    read = list(results)
    del results, scheduler, read

    assert [True] * 7 == held
    assert [None] * 7 == [witness() for witness in witnesses]


def test_nothing_of_a_failed_run_is_in_a_cycle(run_on_backend: Callable[..., Any]) -> None:
    """The collector, told to keep what it finds, finds nothing of ours and no task's exception."""
    tasks = fails_in_every_way([])

    async def run_and_read() -> None:
        # Nothing is returned: event loops keep what their main task returned, in cycles of theirs.
        list(await TaskScheduler(tasks).run())

    run_on_backend(run_and_read)  # what is imported and cached at first is not what we look for
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run_on_backend(run_and_read)
        gc.collect()
        found = [
            one
            for one in gc.garbage
            if isinstance(one, ValueError | Witness)
            or type(one).__module__.startswith("portable_sched")
            or "portable_sched" in getattr(getattr(one, "gi_code", None), "co_filename", "")
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()

    assert [] == found


# Contexts

seen_by: ContextVar[str] = ContextVar("seen_by", default="nobody")


async def test_a_task_sees_the_context_of_the_one_who_called_run() -> None:
    @task
    async def looks() -> str:
        await checkpoint()
        return seen_by.get()

    scheduler = TaskScheduler()
    seen_by.set("the caller")
    results = await scheduler.run()

    assert "the caller" == results[looks].result


async def test_what_a_task_sets_is_seen_by_what_it_spawns_and_by_nobody_else() -> None:
    seen: dict[str, str] = {}

    async def child() -> None:
        seen["child"] = seen_by.get()

    @task(priority=Priority.HIGH)
    async def sets() -> None:
        seen_by.set("the task")
        await checkpoint()
        seen["itself"] = seen_by.get()
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    @task(priority=Priority.HIGH)
    async def beside() -> None:
        await checkpoint()
        await checkpoint()
        seen["beside"] = seen_by.get()

    @task(depends_on=[sets, beside])
    async def after() -> None:
        seen["after"] = seen_by.get()

    for limit in (1, None):
        seen.clear()
        await TaskScheduler(max_concurrency=limit).run()

        assert {
            "itself": "the task",
            "child": "the task",
            "beside": "nobody",
            "after": "nobody",
        } == seen
    assert "nobody" == seen_by.get()


async def test_an_attempt_sees_nothing_of_the_context_of_the_one_before() -> None:
    seen: list[str] = []

    @task(retries=3)
    async def flaky() -> None:
        seen.append(seen_by.get())
        seen_by.set("an earlier attempt")
        raise ValueError

    await TaskScheduler().run()

    assert ["nobody"] * 3 == seen


@pytest.mark.usefixtures("no_collector")
async def test_what_a_task_had_in_its_context_is_freed_while_its_worker_waits_for_work() -> None:
    kept: list[weakref.ref[Witness]] = []
    held: ContextVar[Witness] = ContextVar("held")
    other_runs = anyio.Event()

    @task
    async def sets() -> None:
        witness = Witness()
        kept.append(weakref.ref(witness))
        held.set(witness)
        # Another worker is to be here by the end, or this one would go on with the other task.
        await other_runs.wait()

    @task
    async def looks() -> bool:
        other_runs.set()
        for _ in range(10):
            await checkpoint()
        return kept[0]() is None

    results = await TaskScheduler().run()

    assert results[looks].result is True


# Giving way


class Clock:
    """A clock that goes on by `step` whenever it is read."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


async def beats_at_the_starts(tasks: Callable[[Callable[[], None]], None]) -> list[int]:
    """How often a heartbeat in the same event loop had beaten at each start that is noted."""
    beats = 0
    noted: list[int] = []

    async def heart() -> None:
        nonlocal beats
        while True:
            await checkpoint()
            beats += 1

    tasks(lambda: noted.append(beats))
    async with anyio.create_task_group() as group:
        group.start_soon(heart)
        await TaskScheduler().run()
        group.cancel_scope.cancel()
    return noted


def fifty_no_ops(note: Callable[[], None]) -> None:
    """Register tasks that note their start and do nothing else."""

    async def body() -> None:
        note()

    for number in range(50):
        task(f"t{number}")(body)


async def test_a_run_of_no_ops_gives_way_when_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("portable_sched._scheduler.loop_clock", lambda: Clock(step=1.0))

    beats = await beats_at_the_starts(fifty_no_ops)

    assert 50 == len(set(beats))


async def test_a_run_of_no_ops_keeps_the_loop_while_it_has_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("portable_sched._scheduler.loop_clock", lambda: Clock(step=0.0))

    beats = await beats_at_the_starts(fifty_no_ops)

    assert 50 == len(beats)
    assert 1 == len(set(beats))


async def test_the_time_belongs_to_the_run_and_not_to_each_of_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twenty workers do not keep the loop for twenty times as long."""
    monkeypatch.setattr("portable_sched._scheduler.loop_clock", lambda: Clock(step=0.001))
    width, length = 20, 30
    meeting = Meeting(width)

    def tasks(note: Callable[[], None]) -> None:
        async def body() -> None:
            note()

        for chain in range(width):
            task(f"{chain}-0")(meeting.__call__)
            for number in range(1, length):
                task(f"{chain}-{number}", depends_on=[f"{chain}-{number - 1}"])(body)

    beats = await beats_at_the_starts(tasks)

    assert width * (length - 1) == len(beats)
    # In one turn the first few milliseconds' worth, and then at most one more by each worker.
    assert max(map(beats.count, set(beats))) <= 6 + width


# Runs beside and inside each other


async def test_a_scheduler_runs_again_with_a_state_of_its_own() -> None:
    calls = 0

    @task
    async def counts() -> int:
        nonlocal calls
        await checkpoint()
        calls += 1
        return calls

    scheduler = TaskScheduler()
    first = await scheduler.run()
    second = await scheduler.run()

    assert (1, 2) == (first[counts].result, second[counts].result)


async def test_runs_of_one_scheduler_go_on_beside_each_other() -> None:
    meeting = Meeting(6)
    for number in range(2):
        task(f"t{number}")(meeting.__call__)
    scheduler = TaskScheduler(max_concurrency=2)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(scheduler.run)

    assert 6 == meeting.arrived


async def test_a_run_inside_a_task_has_limits_of_its_own() -> None:
    inner = TaskRegistry()
    meeting = Meeting(3)
    for number in range(3):
        inner.task(f"t{number}")(meeting.__call__)

    @task
    async def outer() -> dict[TaskStatus, int]:
        return (await TaskScheduler(inner, max_concurrency=3).run()).counts()

    results = await TaskScheduler(max_concurrency=1).run()

    assert {TaskStatus.COMPLETED: 3} == results[outer].result


async def test_a_run_inside_a_task_of_the_same_scheduler_cannot_deadlock() -> None:
    depth = 0

    @task
    async def recursive() -> int:
        nonlocal depth
        depth += 1
        here = depth
        if here < 5:
            await scheduler.run()
        return here

    scheduler = TaskScheduler(max_concurrency=1)
    results = await scheduler.run()

    assert 1 == results[recursive].result
    assert 5 == depth


def test_a_scheduler_runs_in_one_event_loop_after_another(
    run_on_backend: Callable[..., Any],
) -> None:
    meeting_places: list[Meeting] = []

    async def body() -> None:
        await meeting_places[-1]()

    for number in range(3):
        task(f"t{number}")(body)
    scheduler = TaskScheduler()

    async def run() -> dict[TaskStatus, int]:
        meeting_places.append(Meeting(3))
        return (await scheduler.run()).counts()

    assert [{TaskStatus.COMPLETED: 3}] * 2 == [run_on_backend(run), run_on_backend(run)]

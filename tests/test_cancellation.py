"""What a run promises when something is cancelled: from within, from outside, or for good.

A task that raises the backend's cancellation by itself has failed. A cancellation from outside
ends the run, and goes on upward. `KeyboardInterrupt` and `SystemExit` end it too, and leave it
bare.
"""

import asyncio
import gc
import signal
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portable_sched import (
    Priority,
    TaskCancelledError,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
    task,
)
from portable_sched._state import RunState

pytestmark = pytest.mark.anyio

# For what only asyncio has: `Task.cancel()`, futures, `asyncio.TaskGroup`.
on_asyncio = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "asyncio-eager", "uvloop"], indirect=True
)

FROM_WITHIN = (
    "TaskCancelledError: Task 't' was cancelled from within: it cancelled itself, or awaited "
    "something that was cancelled."
)


async def no_op() -> None:
    pass


async def suspend() -> None:
    await checkpoint()


# From within: the run is not cancelled, the task has failed


async def raises_what_it_caught_in_a_scope_of_its_own() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as error:
            caught = error
    try:
        raise caught
    finally:
        del caught


async def raises_it_in_a_task_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(suspend)
        await raises_what_it_caught_in_a_scope_of_its_own()


async def awaits_what_others_have_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def awaits_what_others_cancel_meanwhile() -> None:
    child = asyncio.create_task(asyncio.sleep(3600))
    asyncio.get_running_loop().call_soon(child.cancel)
    await child


async def cancels_itself() -> None:
    this_task().cancel()
    await asyncio.sleep(3600)


async def cancels_itself_twice() -> None:
    this_task().cancel()
    try:
        await asyncio.sleep(3600)
    finally:
        this_task().cancel()


async def raises_a_cancelled_error() -> NoReturn:
    raise asyncio.CancelledError


def this_task() -> asyncio.Task[Any]:
    running = asyncio.current_task()
    assert running is not None
    return running


WAYS_ON_ASYNCIO = [
    awaits_what_others_have_cancelled,
    awaits_what_others_cancel_meanwhile,
    cancels_itself,
    cancels_itself_twice,
    raises_a_cancelled_error,
]


async def check_that_it_fails_alone(way: Callable[[], Awaitable[None]], limit: int | None) -> None:
    """Run `way` beside other tasks: it fails, its dependents are told, the rest goes on."""
    calls = 0

    @task(priority=Priority.HIGH, retries=3)
    async def t() -> None:
        nonlocal calls
        calls += 1
        await way()

    task("dependent", depends_on=[t])(no_op)
    before: list[str] = []
    for number in range(5):
        task(f"beside-{number}")(suspend)
        task(f"chain-{number}", depends_on=before)(suspend)
        before = [f"chain-{number}"]
    results = await TaskScheduler(max_concurrency=limit).run()

    assert {TaskStatus.COMPLETED: 10, TaskStatus.FAILED: 2} == results.counts()
    assert limit is None or limit == results.most_running
    assert FROM_WITHIN == results[t].error
    assert isinstance(results[t].exception, TaskCancelledError)
    assert isinstance(results[t].exception.__cause__, anyio.get_cancelled_exc_class())
    # A cancellation is not tried again.
    assert (1, 1) == (calls, results[t].attempts)
    assert f"Dependency 't' failed: {FROM_WITHIN}" == results["dependent"].error


@pytest.mark.parametrize("limit", [1, None])
async def test_a_task_that_raises_a_cancellation_by_itself_fails_alone(limit: int | None) -> None:
    await check_that_it_fails_alone(raises_what_it_caught_in_a_scope_of_its_own, limit)


@on_asyncio
@pytest.mark.parametrize("limit", [1, None])
@pytest.mark.parametrize("way", WAYS_ON_ASYNCIO)
async def test_a_task_that_asyncio_cancels_from_within_fails_alone(
    way: Callable[[], Awaitable[None]], limit: int | None
) -> None:
    await check_that_it_fails_alone(way, limit)


async def test_a_cancellation_in_a_task_group_of_the_task_fails_it_or_ends_there() -> None:
    """The group may take it for its own; then the task has succeeded. Either way the run ends."""
    task("t")(raises_it_in_a_task_group)
    task("after", depends_on=[], priority=Priority.LOW)(suspend)
    results = await TaskScheduler(max_concurrency=1).run()

    assert results["t"].status in {TaskStatus.FAILED, TaskStatus.COMPLETED}
    assert TaskStatus.COMPLETED is results["after"].status


async def catches_its_own_cancellation() -> None:
    with suppress(asyncio.CancelledError):
        await cancels_itself()


async def catches_its_own_cancellation_and_fails() -> None:
    with suppress(asyncio.CancelledError):
        await cancels_itself()
    raise ValueError


async def catches_its_own_cancellation_and_goes_on() -> None:
    await catches_its_own_cancellation()
    await asyncio.sleep(0)


async def leaves_a_cancellation_behind() -> None:
    this_task().cancel()


async def leaves_a_cancellation_behind_after_a_turn() -> None:
    await asyncio.sleep(0)
    this_task().cancel()


async def leaves_a_cancellation_behind_and_fails() -> None:
    this_task().cancel()
    raise ValueError


@on_asyncio
@pytest.mark.parametrize(
    "way",
    [
        *WAYS_ON_ASYNCIO,
        catches_its_own_cancellation,
        catches_its_own_cancellation_and_fails,
        catches_its_own_cancellation_and_goes_on,
        leaves_a_cancellation_behind,
        leaves_a_cancellation_behind_after_a_turn,
        leaves_a_cancellation_behind_and_fails,
    ],
)
async def test_the_tasks_after_one_that_cancelled_itself_are_not_touched(
    way: Callable[[], Awaitable[None]],
) -> None:
    """asyncio counts a task's cancellations, and its TaskGroup takes what is left for its own."""
    task("first", priority=Priority.HIGH)(way)

    async def child() -> NoReturn:
        raise ValueError("child")

    @task
    async def second() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(3600)
        except* ValueError:
            pass
        return f"{this_task().cancelling()} cancellations"

    task("third", priority=Priority.LOW)(suspend)
    results = await TaskScheduler(max_concurrency=1).run()

    assert (TaskStatus.COMPLETED, None) == (results[second].status, results[second].error)
    assert "0 cancellations" == results[second].result
    assert TaskStatus.COMPLETED is results["third"].status


@on_asyncio
async def test_a_task_that_left_a_cancellation_behind_is_the_last_and_nobody_else_is_touched() -> (
    None
):
    """The engine's own asyncio task must not end cancelled, or it takes the run with it."""
    ends = anyio.Event()

    @task
    async def long() -> str:
        await ends.wait()
        await checkpoint()
        return "done"

    @task(priority=Priority.LOW)
    async def leaves() -> None:
        await checkpoint()
        asyncio.get_running_loop().call_later(0, ends.set)
        this_task().cancel()

    results = await TaskScheduler().run()

    assert "done" == results[long].result
    assert TaskStatus.COMPLETED is results[leaves].status


@on_asyncio
async def test_a_cancellation_of_a_worker_that_waits_for_work_is_lost_and_nothing_else() -> None:
    """A task kept `asyncio.current_task()`; by the time another cancels it, it has ended."""
    kept: list[asyncio.Task[Any]] = []

    @task
    async def keeps() -> None:
        await checkpoint()
        kept.append(this_task())

    @task
    async def cancels() -> str:
        while not kept:
            await checkpoint()
        for _ in range(5):
            await checkpoint()
        kept[0].cancel()
        for _ in range(5):
            await checkpoint()
        return "done"

    # Those after it need more than one worker, and would be given the one that is gone.
    all_there = anyio.Event()
    arrived = 0

    async def meets() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 3:
            all_there.set()
        await all_there.wait()

    for number in range(3):
        task(f"after-{number}", depends_on=[cancels])(meets)
    results = await TaskScheduler().run()

    assert {TaskStatus.COMPLETED: 5} == results.counts()


@on_asyncio
async def test_a_cancellation_of_a_worker_that_is_just_called_to_work_loses_no_task() -> None:
    kept: list[asyncio.Task[Any]] = []
    meetings = [anyio.Event(), anyio.Event()]

    @task
    async def keeps() -> None:
        kept.append(this_task())
        await checkpoint()

    @task
    async def cancels() -> None:
        for _ in range(10):
            await checkpoint()

    @task(depends_on=[cancels])
    async def one() -> None:
        # The round that this one asks for by waiting opens the other's gate three turns from now.
        loop = asyncio.get_running_loop()
        for _ in range(4):
            await checkpoint()
            kept[0].cancel()
        loop.call_later(0, meetings[0].set)
        await meetings[0].wait()

    for number in range(3):
        task(f"other-{number}", depends_on=[cancels], priority=Priority.LOW)(suspend)
    results = await TaskScheduler().run()

    # Where the cancellation found an attempt, that attempt has failed by it; it ended all the same.
    assert TaskStatus.CANCELLED not in results.counts()
    assert TaskStatus.COMPLETED is results[one].status


@on_asyncio
async def test_a_task_that_is_cancelled_by_another_task_fails_alone() -> None:
    kept: list[asyncio.Task[Any]] = []

    @task
    async def t() -> None:
        kept.append(this_task())
        await asyncio.sleep(3600)

    @task
    async def cancels() -> None:
        while not kept:
            await checkpoint()
        kept[0].cancel()

    task("after", depends_on=[cancels])(suspend)
    results = await TaskScheduler().run()

    assert FROM_WITHIN == results[t].error
    assert TaskStatus.COMPLETED is results["after"].status


@on_asyncio
async def test_a_worker_that_is_cancelled_while_the_run_gives_way_loses_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter(range(10**6))
    monkeypatch.setattr("portable_sched._scheduler.loop_clock", lambda: times.__next__)

    async def cancels_soon() -> None:
        asyncio.get_running_loop().call_soon(this_task().cancel)

    task("first", priority=Priority.HIGH)(cancels_soon)
    for number in range(3):
        task(f"after-{number}")(suspend)
    results = await TaskScheduler(max_concurrency=1).run()

    assert {TaskStatus.COMPLETED: 4} == results.counts()


# From outside: the run ends, and the cancellation goes on upward


class Cancelled:
    """Two tasks that go on for ever, one that cleans up, one done before, one that waits."""

    def __init__(self) -> None:
        self.running = anyio.Event()
        self.cleaned_up: list[str] = []
        self.spawned_stopped = False
        registry = TaskRegistry()
        registry.task("done", priority=Priority.HIGH)(suspend)
        registry.task("broken", retries=2)(self.broken)
        registry.task("never", depends_on=["cleans_up"])(no_op)
        registry.task("cleans_up", depends_on=["done", "broken_after_all"])(self.cleans_up)
        registry.task("broken_after_all")(suspend)
        registry.task("spawns", depends_on=["done"], priority=Priority.LOW)(self.spawns)
        self.scheduler = TaskScheduler(registry)

    async def broken(self) -> NoReturn:
        await checkpoint()
        raise ValueError("broken")

    async def cleans_up(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.cleaned_up.append("began")
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    await checkpoint()
            self.cleaned_up.append("ended")

    async def child(self) -> None:
        self.running.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.spawned_stopped = True

    async def spawns(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.child)

    def check(self) -> None:
        results = self.scheduler.results
        statuses = {one.task_name: (one.status, one.attempts) for one in results}

        assert {
            "done": (TaskStatus.COMPLETED, 1),
            "broken": (TaskStatus.FAILED, 2),
            "broken_after_all": (TaskStatus.COMPLETED, 1),
            "cleans_up": (TaskStatus.CANCELLED, 1),
            "never": (TaskStatus.CANCELLED, 0),
            "spawns": (TaskStatus.CANCELLED, 1),
        } == statuses
        assert {"broken"} == {one.task_name for one in results if one.failures}
        assert ["began", "ended"] == self.cleaned_up
        assert self.spawned_stopped
        assert {None} == {one.error for one in results if one.status is not TaskStatus.FAILED}
        assert statuses == {one.task_name: (one.status, one.attempts) for one in results}


async def test_a_scope_around_the_run_ends_it_and_takes_its_cancellation_back() -> None:
    tasks = Cancelled()
    returned = False
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            @group.start_soon
            async def cancel() -> None:
                await tasks.running.wait()
                scope.cancel()

            await tasks.scheduler.run()
            returned = True

    assert scope.cancelled_caught
    assert not returned
    tasks.check()


@pytest.mark.virtual_time
async def test_a_timeout_around_the_run_ends_it_and_is_raised() -> None:
    tasks = Cancelled()
    with pytest.raises(TimeoutError), anyio.fail_after(10):
        await tasks.scheduler.run()

    tasks.check()
    assert tasks.scheduler.results.wall_time == pytest.approx(10)


@on_asyncio
async def test_a_native_cancellation_ends_the_run_and_goes_on() -> None:
    tasks = Cancelled()
    running = asyncio.create_task(tasks.scheduler.run())
    await tasks.running.wait()
    running.cancel("a message")
    with pytest.raises(asyncio.CancelledError):
        await running

    assert running.cancelled()
    tasks.check()


@on_asyncio
async def test_a_second_native_cancellation_does_not_keep_clean_up_from_ending() -> None:
    tasks = Cancelled()
    running = asyncio.create_task(tasks.scheduler.run())
    await tasks.running.wait()
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    tasks.check()


@on_asyncio
@pytest.mark.virtual_time
async def test_asyncio_timeouts_end_the_run_and_are_raised() -> None:
    first, second = Cancelled(), Cancelled()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(first.scheduler.run(), 10)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await second.scheduler.run()

    first.check()
    second.check()


@on_asyncio
def test_the_end_of_asyncio_run_cancels_a_run_in_the_background(
    run_on_backend: Callable[..., Any],
) -> None:
    """It cancels all tasks in one turn: each worker, and the caller perhaps after them."""
    made: list[Cancelled] = []

    async def main() -> asyncio.Task[Any]:
        made.append(Cancelled())
        running = asyncio.create_task(made[0].scheduler.run())
        await made[0].running.wait()
        return running

    running = run_on_backend(main)

    assert running.cancelled()
    made[0].check()


@on_asyncio
@pytest.mark.parametrize("turns", [0, 1])
async def test_a_worker_cancelled_in_one_turn_with_the_run_was_cancelled_from_outside(
    turns: int,
) -> None:
    """As `asyncio.run()` does at its end, with the worker first in line."""
    workers: list[asyncio.Task[Any]] = []
    started = anyio.Event()

    @task
    async def t() -> None:
        workers.append(this_task())
        for _ in range(turns):
            await checkpoint()
        started.set()
        await asyncio.sleep(3600)

    scheduler = TaskScheduler()
    running = asyncio.create_task(scheduler.run())
    await started.wait()
    await checkpoint()
    workers[0].cancel()
    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert TaskStatus.CANCELLED is scheduler.results[t].status


async def run_and_cancel(scheduler: TaskScheduler, running: anyio.Event) -> bool:
    """Cancel a run once it is `running`; answers whether the cancellation went on upward."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            await running.wait()
            scope.cancel()
    return scope.cancelled_caught


async def swallows_in_the_same_turn() -> str:
    try:
        await anyio.sleep_forever()
    except BaseException:  # noqa: BLE001 - what careless tasks do
        return "swallowed"


async def swallows_and_goes_on() -> str:
    try:
        await anyio.sleep_forever()
    except BaseException:  # noqa: BLE001 - what careless tasks do
        with anyio.CancelScope(shield=True):
            await checkpoint()
        return "swallowed"


async def swallows_it_again_and_again() -> str:
    for _ in range(5):
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001 - what careless tasks do
            continue
    return "swallowed"


@pytest.mark.parametrize(
    "swallows", [swallows_in_the_same_turn, swallows_and_goes_on, swallows_it_again_and_again]
)
async def test_a_task_that_swallows_the_cancellation_is_cancelled_and_the_run_ends(
    swallows: Callable[[], Awaitable[str]],
) -> None:
    running = anyio.Event()

    @task
    async def t() -> str:
        running.set()
        return await swallows()

    task("dependent", depends_on=[t])(no_op)
    scheduler = TaskScheduler()
    went_on = await run_and_cancel(scheduler, running)
    results = scheduler.results

    assert went_on
    assert (TaskStatus.CANCELLED, None, 1) == (
        results[t].status,
        results[t].result,
        results[t].attempts,
    )
    assert (TaskStatus.CANCELLED, 0) == (
        results["dependent"].status,
        results["dependent"].attempts,
    )


async def test_a_task_that_waited_and_ends_unharmed_after_the_cancellation_is_cancelled() -> None:
    """Its own shield kept the cancellation from it."""
    running = anyio.Event()

    @task
    async def t() -> str:
        with anyio.CancelScope(shield=True):
            running.set()
            for _ in range(5):
                await checkpoint()
        return "ended"

    scheduler = TaskScheduler()
    await run_and_cancel(scheduler, running)

    assert TaskStatus.CANCELLED is scheduler.results[t].status


@pytest.mark.parametrize("retries", [1, 3])
async def test_what_a_cancelled_task_raises_instead_is_kept_and_not_tried_again(
    retries: int,
) -> None:
    running = anyio.Event()
    error = ValueError("in clean-up")

    @task(retries=retries)
    async def t() -> None:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    scheduler = TaskScheduler()
    went_on = await run_and_cancel(scheduler, running)
    result = scheduler.results[t]

    assert went_on
    assert (TaskStatus.CANCELLED, 1) == (result.status, result.attempts)
    assert [error] == [failure.exception for failure in result.failures]
    assert result.exception is None


async def test_nothing_starts_after_the_cancellation() -> None:
    """Not by a worker that had been sent for, nor by one that ends with what it was about."""
    entered: list[str] = []
    running = anyio.Event()

    @task(priority=Priority.HIGH)
    async def first() -> None:
        with anyio.CancelScope(shield=True):
            running.set()
            for _ in range(3):
                await checkpoint()

    @task(depends_on=[first])
    async def second() -> None:
        entered.append("second")

    @task(priority=Priority.LOW)
    async def waits_for_the_slot() -> None:
        entered.append("waits_for_the_slot")

    scheduler = TaskScheduler(max_concurrency=1)
    await run_and_cancel(scheduler, running)

    assert [] == entered
    assert {TaskStatus.CANCELLED: 3} == scheduler.results.counts()


@pytest.mark.parametrize("turns", range(6))
async def test_a_worker_on_its_way_when_the_run_is_cancelled_enters_no_function(turns: int) -> None:
    """However far the others are being sent for: parked ones at first, then new ones."""
    entered: list[str] = []
    cancelled = False

    @task
    async def parks() -> None:
        for _ in range(3):
            await checkpoint()

    @task
    async def cancels() -> None:
        for _ in range(10 + turns):
            await checkpoint()

    def body(name: str) -> Callable[[], Awaitable[None]]:
        async def enter() -> None:
            nonlocal cancelled
            if cancelled:
                entered.append(name)
            if name == "0":
                for _ in range(turns):
                    await checkpoint()
                cancelled = True
                raise KeyboardInterrupt
            await anyio.sleep_forever()

        return enter

    for number in range(8):
        task(f"{number}", depends_on=[parks, cancels])(body(str(number)))
    scheduler = TaskScheduler()
    with pytest.raises(KeyboardInterrupt):
        await scheduler.run()

    assert [] == entered


async def test_a_run_in_a_cancelled_scope_enters_no_function() -> None:
    entered = []

    @task
    async def t() -> None:
        entered.append("t")

    scheduler = TaskScheduler()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await scheduler.run()

    assert scope.cancelled_caught
    assert [] == entered
    assert TaskStatus.CANCELLED is scheduler.results[t].status


@on_asyncio
async def test_a_task_that_cancels_the_run_and_raises_its_cancellation_at_once_is_cancelled() -> (
    None
):
    with anyio.CancelScope() as scope:

        @task
        async def t() -> NoReturn:
            scope.cancel()
            raise asyncio.CancelledError

        scheduler = TaskScheduler()
        await scheduler.run()

    assert TaskStatus.CANCELLED is scheduler.results[t].status


async def test_a_cancelled_run_inside_a_task_ends_with_it() -> None:
    running = anyio.Event()
    inner = TaskRegistry()

    @inner.task
    async def t() -> None:
        running.set()
        await anyio.sleep_forever()

    inner_scheduler = TaskScheduler(inner)

    @task
    async def outer() -> None:
        await inner_scheduler.run()

    scheduler = TaskScheduler()
    await run_and_cancel(scheduler, running)

    assert TaskStatus.CANCELLED is scheduler.results[outer].status
    assert TaskStatus.CANCELLED is inner_scheduler.results[t].status


async def test_a_run_goes_well_after_one_that_was_cancelled() -> None:
    tasks = Cancelled()
    await run_and_cancel(tasks.scheduler, tasks.running)
    tasks.check()
    tasks.running, tasks.cleaned_up = anyio.Event(), []
    await run_and_cancel(tasks.scheduler, tasks.running)

    tasks.check()


async def test_other_runs_of_the_scheduler_are_not_touched_by_a_cancelled_one() -> None:
    running = anyio.Event()
    ends = anyio.Event()

    @task
    async def t() -> str:
        running.set()
        await ends.wait()
        return "done"

    scheduler = TaskScheduler()
    finished: list[Any] = []

    async def run() -> None:
        finished.append((await scheduler.run())[t].result)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await running.wait()
        await run_and_cancel(scheduler, running)
        ends.set()

    assert ["done"] == finished


# For good: KeyboardInterrupt and SystemExit


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("turns", [0, 1])
async def test_what_ends_a_program_leaves_the_run_bare_and_cancels_the_rest(
    raised: type[BaseException], turns: int
) -> None:
    running = anyio.Event()
    error = raised("text")

    @task(retries=3)
    async def ends() -> None:
        for _ in range(turns):
            await checkpoint()
        if turns:
            await running.wait()
        raise error

    @task
    async def beside() -> None:
        running.set()
        await anyio.sleep_forever()

    task("after", depends_on=[ends])(no_op)
    scheduler = TaskScheduler()
    with pytest.raises(raised) as caught:
        await scheduler.run()

    assert error is caught.value
    assert {TaskStatus.CANCELLED: 3} == scheduler.results.counts()
    assert () == scheduler.results[ends].failures
    assert turns == scheduler.results[beside].attempts


class Witness:
    """Something that a task had in its hands."""


async def test_what_ends_a_program_is_freed_once_nobody_has_it() -> None:
    """By its reference count, at once: the collector is off."""
    kept: list[weakref.ref[Witness]] = []

    @task
    async def ends() -> NoReturn:
        witness = Witness()
        kept.append(weakref.ref(witness))
        await checkpoint()
        raise KeyboardInterrupt

    gc.collect()
    gc.disable()
    try:
        with suppress(KeyboardInterrupt):
            await TaskScheduler().run()
        left = kept[0]()
    finally:
        gc.enable()

    assert left is None


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_is_found_in_a_group_that_the_task_raises(
    raised: type[BaseException],
) -> None:
    error = raised("text")

    @task
    async def ends() -> None:
        inner = BaseExceptionGroup("inner", [ValueError(), error])
        raise BaseExceptionGroup("outer", [ValueError(), inner])

    with pytest.raises(raised) as caught:
        await TaskScheduler().run()

    assert error is caught.value


async def test_a_group_without_what_ends_a_program_is_a_failure_like_any_other() -> None:
    error = BaseExceptionGroup("group", [ValueError(), GeneratorExit()])

    @task
    async def t() -> None:
        raise error

    results = await TaskScheduler().run()

    assert error is results[t].exception


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_leaves_the_run_bare_from_a_task_group_of_the_task(
    run_on_backend: Callable[..., Any], raised: type[BaseException]
) -> None:
    async def child() -> NoReturn:
        raise raised("text")

    @task
    async def spawns() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    scheduler = TaskScheduler()
    with pytest.raises(raised, match="text"):
        run_on_backend(scheduler.run)

    assert TaskStatus.CANCELLED is scheduler.results[spawns].status


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_leaves_an_inner_and_an_outer_run_bare(
    raised: type[BaseException],
) -> None:
    inner = TaskRegistry()
    error = raised("text")

    @inner.task
    async def ends() -> None:
        await checkpoint()
        raise error

    @task
    async def outer() -> None:
        await TaskScheduler(inner).run()

    with pytest.raises(raised) as caught:
        await TaskScheduler().run()

    assert error is caught.value


def test_ctrl_c_ends_the_run_and_the_program(run_on_backend: Callable[..., Any]) -> None:
    """A real signal, which trio raises where it strikes and asyncio turns into a cancellation."""
    cleaned_up: list[str] = []

    @task
    async def beside() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned_up.append("beside")

    @task(priority=Priority.LOW)
    async def interrupted() -> None:
        await checkpoint()
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    scheduler = TaskScheduler()
    with pytest.raises(KeyboardInterrupt):
        run_on_backend(scheduler.run)

    assert ["beside"] == cleaned_up
    assert {TaskStatus.CANCELLED: 2} == scheduler.results.counts()


@pytest.mark.parametrize("struck", ["take", "completed", "failed", "ready_count"])
@pytest.mark.parametrize("call", [1, 2, 5])
async def test_a_keyboard_interrupt_that_strikes_the_engine_leaves_the_run_bare(
    monkeypatch: pytest.MonkeyPatch, struck: str, call: int
) -> None:
    """Wherever: in a worker, or in the caller's task that sends for them."""
    calls = 0
    original = getattr(RunState, struck)

    def strikes(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        # `ready_count` is asked for the first time before the run begins.
        if calls == call + (struck == "ready_count"):
            raise KeyboardInterrupt(struck)
        return original(*args)

    monkeypatch.setattr(RunState, struck, strikes)

    async def broken() -> NoReturn:
        await checkpoint()
        raise ValueError

    for number in range(10):
        task(f"broken-{number}")(broken)
        task(f"t{number}")(suspend)
    scheduler = TaskScheduler()
    with pytest.raises(KeyboardInterrupt, match=struck):
        await scheduler.run()

    assert TaskStatus.RUNNING not in scheduler.results.counts()
    assert TaskStatus.PENDING not in scheduler.results.counts()


# The end of the event loop


@pytest.mark.parametrize("limit", [1, None])
def test_a_run_whose_event_loop_is_gone_closes_its_attempts(limit: int | None) -> None:
    """Those that wait are closed, the others stay where they are, and no worker complains."""
    closed: list[str] = []
    complaints: list[str] = []

    @task
    async def t() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append("t")

    task("parked", priority=Priority.HIGH)(suspend)
    task("never", depends_on=[t])(no_op)

    async def start() -> None:
        running = asyncio.create_task(TaskScheduler(max_concurrency=limit).run())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not running.done()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    left = asyncio.all_tasks(loop)
    loop.close()
    for one in left:
        one._log_destroy_pending = False  # that it was pending is the point here
        coroutine = one.get_coro()
        assert coroutine is not None
        if one.get_name() == "portable_sched worker":
            try:
                coroutine.close()
            except RuntimeError as error:
                # Some versions of anyio have a scope around each task, which finds that it is in
                # none; that is not ours.
                complaints.append(repr(error.__context__))

    assert ["t"] == closed
    assert {"GeneratorExit()"} >= set(complaints)


# The scheduler's block


async def test_runs_that_are_under_way_when_the_block_ends_are_cancelled() -> None:
    running = anyio.Event()

    @task
    async def t() -> None:
        running.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group, TaskScheduler() as scheduler:
        group.start_soon(scheduler.run)
        await running.wait()

    assert TaskStatus.CANCELLED is scheduler.results[t].status

"""What running plain functions promises: they run in threads, in the real clock's time."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from portable_sched import Priority, TaskScheduler, TaskStatus, task

pytestmark = pytest.mark.anyio

# How long a thread waits before a test that has gone wrong fails instead of hanging.
PATIENCE = 30


class Gathering:
    """Counts the functions that are inside at one time, and holds them until it is opened."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened = threading.Event()
        self.entered: list[str] = []
        self.inside = 0
        self.most = 0

    def member(self, name: str) -> Callable[[], None]:
        def body() -> None:
            with self.lock:
                self.entered.append(name)
                self.inside += 1
                self.most = max(self.most, self.inside)
            assert self.opened.wait(PATIENCE)
            with self.lock:
                self.inside -= 1

        return body

    async def are_inside(self, expected: int) -> None:
        """Wait until so many are. The loop goes on meanwhile, and the test hangs if they never are.

        Nothing can tell the event loop about the fortieth without being one of them, so it looks.
        """
        while self.inside < expected:
            await checkpoint()


async def test_a_plain_function_runs_in_another_thread() -> None:
    @task
    def which() -> int:
        return threading.get_ident()

    result = (await TaskScheduler().run())["which"]

    assert TaskStatus.COMPLETED is result.status
    assert threading.get_ident() != result.result


async def test_sixty_plain_functions_that_wait_for_each_other_all_start() -> None:
    """`max_concurrency` says how many threads there are; anyio's own 40 are not in the way."""
    barrier = threading.Barrier(60)

    def meet() -> None:
        barrier.wait(PATIENCE)

    for number in range(60):
        task(f"t{number}")(meet)
    results = await TaskScheduler(max_concurrency=60).run()

    assert {TaskStatus.COMPLETED: 60} == results.counts()


async def test_forty_plain_functions_that_wait_for_each_other_all_start_without_a_limit() -> None:
    barrier = threading.Barrier(40)

    def meet() -> None:
        barrier.wait(PATIENCE)

    for number in range(80):
        task(f"t{number}")(meet)
    results = await TaskScheduler().run()

    assert {TaskStatus.COMPLETED: 80} == results.counts()
    assert 40 == results.most_running


async def test_without_a_limit_there_are_forty_threads_and_async_tasks_overtake() -> None:
    gathering = Gathering()
    for number in range(60):
        task(f"t{number}", priority=Priority.HIGH)(gathering.member(f"t{number}"))

    @task(priority=Priority.LOW)
    async def opens() -> int:
        await gathering.are_inside(40)
        # The rest has every chance to come in now, if it could.
        for _ in range(50):
            await checkpoint()
        statuses = [status for _, status in scheduler.status_snapshot()]
        gathering.opened.set()
        return statuses.count(TaskStatus.RUNNING)

    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert {TaskStatus.COMPLETED: 61} == results.counts()
    assert 40 == gathering.most
    # Those that wait for a thread are PENDING: they are not in a queue and called RUNNING.
    assert 41 == results[opens].result


async def test_plain_functions_get_their_threads_by_priority() -> None:
    gathering = Gathering()
    priorities = [Priority.LOW, Priority.MEDIUM, Priority.HIGH]
    for number in range(60):
        name = f"{priorities[number % 3].name}-{number}"
        task(name, priority=priorities[number % 3])(gathering.member(name))

    @task(priority=Priority.LOW)
    async def opens() -> None:
        await gathering.are_inside(40)
        gathering.opened.set()

    await TaskScheduler().run()
    first = [name.partition("-")[0] for name in gathering.entered[:40]]

    assert {"HIGH": 20, "MEDIUM": 20} == {name: first.count(name) for name in first}
    assert 60 == len(gathering.entered)


async def test_a_plain_function_set_aside_gives_way_to_a_better_one_that_comes_later() -> None:
    gathering = Gathering()
    later: list[str] = []
    lock = threading.Lock()

    def noting(name: str) -> Callable[[], None]:
        def body() -> None:
            with lock:
                later.append(name)

        return body

    # 39 hold their threads to the end; the last thread is what the others compete for.
    for number in range(39):
        task(f"holds-{number}", priority=Priority.HIGH)(gathering.member(f"holds-{number}"))
    first_let_go = threading.Event()

    @task(priority=Priority.HIGH)
    def holds_for_a_while() -> None:
        assert first_let_go.wait(PATIENCE)

    task("low", priority=Priority.LOW)(noting("low"))
    task("medium")(noting("medium"))

    @task(priority=Priority.LOW)
    async def lets_go() -> None:
        await gathering.are_inside(39)
        first_let_go.set()

    task("high", priority=Priority.HIGH, depends_on=[holds_for_a_while])(noting("high"))

    @task(depends_on=["low"])
    async def opens() -> None:
        gathering.opened.set()

    results = await TaskScheduler().run()

    assert {TaskStatus.COMPLETED: 45} == results.counts()
    assert ["high", "medium", "low"] == later


async def test_a_failed_plain_function_gives_its_thread_back() -> None:
    def broken() -> None:
        raise ValueError("text")

    for number in range(100):
        task(f"t{number}", retries=2)(broken)
    results = await TaskScheduler().run()

    assert {TaskStatus.FAILED: 100} == results.counts()
    assert {2} == {one.attempts for one in results}


@pytest.mark.parametrize("anyio_backend", ["asyncio", "asyncio-eager", "uvloop"], indirect=True)
async def test_those_that_wait_for_a_thread_get_it_from_those_that_cancelled_themselves() -> None:
    """Their workers are gone by then, so the threads are taken up by new ones."""

    async def cancels_itself() -> None:
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        await checkpoint()

    gathering = Gathering()
    gathers = gathering.member("t")

    def wrapper() -> Awaitable[None]:
        gathers()
        return cancels_itself()

    for number in range(60):
        task(f"t{number}")(wrapper)

    @task(priority=Priority.LOW)
    async def opens() -> None:
        await gathering.are_inside(40)
        gathering.opened.set()

    results = await TaskScheduler().run()

    assert {TaskStatus.FAILED: 60, TaskStatus.COMPLETED: 1} == results.counts()


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_limit_holds_for_threads_and_the_event_loop_together(limit: int) -> None:
    lock = threading.Lock()
    running = 0
    most = 0

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    def plain() -> None:
        enter()
        leave()

    async def in_the_loop() -> None:
        enter()
        await checkpoint()
        leave()

    for number in range(60):
        task(f"t{number}")(plain if number % 2 else in_the_loop)
    results = await TaskScheduler(max_concurrency=limit).run()

    assert {TaskStatus.COMPLETED: 60} == results.counts()
    assert most <= limit


async def test_threads_of_others_are_not_in_our_way() -> None:
    @task
    def plain() -> str:
        return "done"

    others = anyio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(others.total_tokens))]
    for holder in holders:
        others.acquire_on_behalf_of_nowait(holder)
    try:
        results = await TaskScheduler().run()
    finally:
        for holder in holders:
            others.release_on_behalf_of(holder)

    assert "done" == results[plain].result


async def test_a_coroutine_that_a_thread_returns_is_awaited_in_the_event_loop() -> None:
    """trio refuses one that a thread returns by itself."""

    async def inner() -> int:
        await checkpoint()
        return threading.get_ident()

    @task
    def outer() -> Awaitable[int]:
        return inner()

    result = (await TaskScheduler().run())["outer"]

    assert threading.get_ident() == result.result


async def test_a_failure_of_the_coroutine_that_a_thread_returns_is_the_tasks() -> None:
    async def inner() -> int:
        await checkpoint()
        raise ValueError("inner")

    @task(retries=2)
    def outer() -> Awaitable[int]:
        return inner()

    result = (await TaskScheduler().run())["outer"]

    assert (TaskStatus.FAILED, "ValueError: inner", 2) == (
        result.status,
        result.error,
        result.attempts,
    )


async def test_a_stop_iteration_in_a_thread_fails_its_task_and_the_run_ends() -> None:
    @task
    def stops() -> None:
        raise StopIteration("text")

    @task
    def other() -> None:
        pass

    results = await TaskScheduler().run()

    assert TaskStatus.FAILED is results[stops].status
    assert TaskStatus.COMPLETED is results[other].status


seen_by: ContextVar[str] = ContextVar("seen_by", default="nobody")


async def test_a_thread_sees_the_callers_context_and_shows_nobody_its_own() -> None:
    @task
    def sets() -> str:
        seen = seen_by.get()
        seen_by.set("the thread")
        return seen

    @task(depends_on=[sets])
    def looks() -> str:
        return seen_by.get()

    seen_by.set("the caller")
    results = await TaskScheduler(max_concurrency=1).run()

    assert ["the caller", "the caller"] == [one.result for one in results]
    assert "the caller" == seen_by.get()


async def test_a_cancelled_run_leaves_a_thread_that_cannot_be_stopped_behind() -> None:
    gathering = Gathering()
    task("stuck")(gathering.member("stuck"))
    scheduler = TaskScheduler()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            await gathering.are_inside(1)
            group.cancel_scope.cancel()
        left_behind = gathering.inside
    finally:
        gathering.opened.set()

    assert 1 == left_behind
    assert TaskStatus.CANCELLED is scheduler.results["stuck"].status


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_leaves_the_run_bare_from_a_thread_too(
    run_on_backend: Callable[..., Any], raised: type[BaseException]
) -> None:
    @task
    def ends() -> None:
        raise raised("text")

    scheduler = TaskScheduler()
    with pytest.raises(raised, match="text"):
        run_on_backend(scheduler.run)

    assert TaskStatus.CANCELLED is scheduler.results[ends].status

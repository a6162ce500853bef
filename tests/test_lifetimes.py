"""What a task that yields once promises: it is open while others use it, and it always closes.

Most of it is told in virtual seconds: a `Diary` notes what happens, and when.
"""

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, NoReturn

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint, current_token

from portable_sched import (
    Backoff,
    Event,
    FailurePolicy,
    LifetimeError,
    RunResults,
    TaskCancelledError,
    TaskClosed,
    TaskCompleted,
    TaskDef,
    TaskFailed,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    _lifetimes,
    task,
)

pytestmark = pytest.mark.anyio

on_asyncio = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "asyncio-eager", "uvloop"], indirect=True
)
on_asyncio_in_virtual_time = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "asyncio-eager"], indirect=True
)
on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


class Diary:
    """What happened, with the second in which it did, counted from when the diary was begun."""

    def __init__(self) -> None:
        self.began = anyio.current_time()
        self.entries: list[tuple[float, str]] = []

    def __call__(self, what: str) -> None:
        self.entries.append((anyio.current_time() - self.began, what))

    def texts(self) -> list[str]:
        return [what for _, what in self.entries]


def lifetime(
    diary: Diary, name: str, set_up: float = 0, teardown: float = 0, **settings: Any
) -> Callable[..., Any]:
    """Register a lifetime that notes when it has opened, when it closes and when it has closed."""

    async def body() -> AsyncIterator[str]:
        await anyio.sleep(set_up)
        diary(f"{name} opened")
        try:
            yield name
        finally:
            diary(f"{name} closes")
            await anyio.sleep(teardown)
            diary(f"{name} closed")

    return task(name, **settings)(body)


def sleeper(diary: Diary, name: str, seconds: float, **settings: Any) -> Callable[..., Any]:
    """Register a task that sleeps, and notes its start and its end."""

    async def body() -> None:
        diary(f"{name} started")
        try:
            await anyio.sleep(seconds)
        finally:
            diary(f"{name} ended")

    return task(name, **settings)(body)


async def no_op() -> None:
    pass


async def crash() -> NoReturn:
    raise ValueError("child")


async def crash_after(seconds: float) -> NoReturn:
    await anyio.sleep(seconds)
    raise ValueError("child")


def statuses(results: RunResults) -> dict[str, TaskStatus]:
    return {result.task_name: result.status for result in results}


# From the yield to the end of the last dependent


async def test_what_it_yields_is_its_result_and_reaches_its_dependents() -> None:
    @task
    async def connection() -> AsyncIterator[str]:
        yield "open"

    @task
    async def query(connection: str) -> str:
        return f"asked, {connection}"

    results = await TaskScheduler().run()

    assert "open" == results[connection].result
    assert "asked, open" == results[query].result
    assert results.ok


@pytest.mark.virtual_time
async def test_it_closes_when_its_last_dependent_has_ended_and_not_at_the_end_of_the_run() -> None:
    diary = Diary()
    lifetime(diary, "life", set_up=1)
    sleeper(diary, "first", 1, depends_on=["life"])
    sleeper(diary, "last", 2, depends_on=["life"])
    sleeper(diary, "beside", 10)
    await TaskScheduler().run()

    assert [
        (0, "beside started"),
        (1, "life opened"),
        (1, "first started"),
        (1, "last started"),
        (2, "first ended"),
        (3, "last ended"),
        (3, "life closes"),
        (3, "life closed"),
        (10, "beside ended"),
    ] == sorted(diary.entries, key=lambda entry: (entry[0], diary.entries.index(entry)))


@pytest.mark.virtual_time
async def test_it_closes_when_its_last_dependent_has_failed() -> None:
    diary = Diary()
    lifetime(diary, "life")
    task("user", depends_on=["life"])(partial(crash_after, 2))
    sleeper(diary, "beside", 10)
    results = await TaskScheduler().run()

    assert (2, "life closes") in diary.entries
    assert TaskStatus.COMPLETED is results["life"].status


@pytest.mark.virtual_time
async def test_it_closes_when_its_last_dependent_is_skipped() -> None:
    """For want of another dependency, which fails later than the lifetime opens."""
    diary = Diary()
    lifetime(diary, "life")
    task("other")(partial(crash_after, 2))
    task("user", depends_on=["life", "other"])(no_op)
    task("user's user", depends_on=["user"])(no_op)
    sleeper(diary, "beside", 10)
    results = await TaskScheduler().run()

    assert (2, "life closes") in diary.entries
    assert (TaskStatus.FAILED, 0) == (results["user"].status, results["user"].attempts)


@pytest.mark.virtual_time
async def test_it_stays_open_between_the_attempts_of_a_dependent() -> None:
    diary = Diary()
    lifetime(diary, "life")
    user = task(
        "user", depends_on=["life"], retries=3, backoff=Backoff(initial=5, factor=1, jitter=0)
    )
    user(partial(crash_after, 1))
    await TaskScheduler().run()

    assert [(0, "life opened"), (13, "life closes"), (13, "life closed")] == diary.entries


@pytest.mark.virtual_time
async def test_one_without_dependents_closes_at_once() -> None:
    diary = Diary()
    lifetime(diary, "life", set_up=1, teardown=2)
    sleeper(diary, "beside", 10)
    results = await TaskScheduler().run()

    assert [(1, "life opened"), (1, "life closes"), (3, "life closed")] == diary.entries[1:4]
    assert TaskStatus.COMPLETED is results["life"].status


async def test_the_dependents_of_a_dependent_do_not_keep_it_open() -> None:
    closed = anyio.Event()

    @task
    async def life() -> AsyncIterator[None]:
        yield
        closed.set()

    task("user", depends_on=[life])(no_op)

    @task(depends_on=["user"])
    async def user_of_the_user() -> None:
        await closed.wait()

    assert (await TaskScheduler().run()).ok


@pytest.mark.virtual_time
async def test_one_that_uses_another_leaves_it_only_when_it_has_itself_closed() -> None:
    diary = Diary()
    lifetime(diary, "outer", teardown=1)
    lifetime(diary, "inner", teardown=5, depends_on=["outer"])
    sleeper(diary, "user", 1, depends_on=["inner"])
    sleeper(diary, "user of outer", 2, depends_on=["outer"])
    await TaskScheduler().run()

    assert [
        (0, "outer opened"),
        (0, "inner opened"),
        (1, "inner closes"),
        (6, "inner closed"),
        (6, "outer closes"),
        (7, "outer closed"),
    ] == [entry for entry in diary.entries if "user" not in entry[1]]


@pytest.mark.virtual_time
async def test_two_that_do_not_use_each_other_close_beside_each_other() -> None:
    diary = Diary()
    lifetime(diary, "one", teardown=2)
    lifetime(diary, "two", teardown=2)
    sleeper(diary, "user", 1, depends_on=["one", "two"])
    results = await TaskScheduler().run()

    closed = sorted(entry for entry in diary.entries if "closed" in entry[1])
    assert [(3, "one closed"), (3, "two closed")] == closed
    assert 3 == results.wall_time


async def test_a_chain_of_2_000_closes_in_reverse_order() -> None:
    """More than Python's stack is deep."""
    assert sys.getrecursionlimit() < 2_000
    closed: list[int] = []

    async def body(number: int) -> AsyncIterator[None]:
        yield
        closed.append(number)

    before: list[str] = []
    for number in range(2_000):
        task(f"t{number}", depends_on=before)(partial(body, number))
        before = [f"t{number}"]
    results = await TaskScheduler().run()

    assert results.ok
    assert list(reversed(range(2_000))) == closed


async def test_it_is_completed_from_its_yield_on() -> None:
    seen: dict[str, TaskStatus] = {}

    def look(when: str) -> None:
        seen[when] = dict(scheduler.status_snapshot())["life"]

    @task
    async def life() -> AsyncIterator[None]:
        look("set-up")
        yield
        look("teardown")
        await checkpoint()
        look("later")

    @task(depends_on=[life])
    async def user() -> None:
        look("use")

    scheduler = TaskScheduler()
    await scheduler.run()

    assert {
        "set-up": TaskStatus.RUNNING,
        "use": TaskStatus.COMPLETED,
        "teardown": TaskStatus.COMPLETED,
        "later": TaskStatus.COMPLETED,
    } == seen


@pytest.mark.virtual_time
@pytest.mark.parametrize("fails", [False, True])
async def test_its_duration_is_that_of_its_set_up(fails: bool) -> None:  # noqa: FBT001 - given by parametrize
    @task
    async def life() -> AsyncIterator[None]:
        await anyio.sleep(2)
        yield
        await anyio.sleep(3)
        if fails:
            raise ValueError

    results = await TaskScheduler().run()

    assert fails is bool(results.failed)
    assert 2 == results[life].duration
    assert 5 == results.wall_time


@pytest.mark.virtual_time
async def test_what_comes_after_it_waits_for_its_close() -> None:
    diary = Diary()
    lifetime(diary, "life", teardown=3)
    sleeper(diary, "user", 1, depends_on=["life"])
    sleeper(diary, "follower", 0, after=["life"])
    await TaskScheduler().run()

    assert [(4, "life closed"), (4, "follower started")] == diary.entries[-3:-1]


async def test_what_comes_after_it_is_told_that_its_teardown_failed() -> None:
    @task
    async def life() -> AsyncIterator[str]:
        yield "open"
        raise ValueError("teardown")

    @task(after=[life])
    async def follower(life: TaskResult[str]) -> tuple[TaskStatus, str | None]:
        return life.status, life.error

    results = await TaskScheduler().run()

    assert (TaskStatus.FAILED, "ValueError: teardown") == results[follower].result


async def test_an_observer_is_told_of_its_close_once() -> None:
    events: list[Event] = []

    @task
    async def life() -> AsyncIterator[None]:
        yield

    task("user", depends_on=[life])(no_op)
    await TaskScheduler(observers=[events.append]).run()

    told = [
        (type(event).__name__, event.task)
        for event in events
        if isinstance(event, TaskClosed | TaskCompleted)
    ]
    assert [("TaskCompleted", "life"), ("TaskCompleted", "user"), ("TaskClosed", "life")] == told


@pytest.mark.parametrize("limit", [1, None])
async def test_each_run_has_one_of_its_own(limit: int | None) -> None:
    opened: list[object] = []

    @task
    async def life() -> AsyncIterator[object]:
        opened.append(object())
        yield opened[-1]

    @task
    async def user(life: object) -> object:
        await checkpoint()
        return life

    scheduler = TaskScheduler(max_concurrency=limit)
    used: list[object] = []

    async def run() -> None:
        used.append((await scheduler.run())[user].result)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)
    await run()

    assert 3 == len(set(opened))
    assert set(opened) == set(used)


# A teardown that fails


async def test_one_whose_teardown_fails_has_failed_and_its_dependents_keep_their_results() -> None:
    error = ValueError("teardown")

    @task(retries=3)
    async def life() -> AsyncIterator[str]:
        yield "open"
        raise error

    @task
    async def user(life: str) -> str:
        return life

    results = await TaskScheduler().run()

    assert "open" == results[user].result
    assert (TaskStatus.FAILED, None, 1) == (
        results[life].status,
        results[life].result,
        results[life].attempts,
    )
    assert error is results[life].exception
    assert [error] == [failure.exception for failure in results[life].failures]
    with pytest.raises(ExceptionGroup) as caught:
        results.raise_for_failures()
    assert (error,) == caught.value.exceptions


async def test_the_traceback_of_a_teardown_begins_with_the_users_function() -> None:
    @task
    async def life() -> AsyncIterator[None]:
        yield
        raise ValueError

    exception = (await TaskScheduler().run())[life].exception

    assert exception is not None
    assert exception.__traceback__ is not None
    assert life.__code__ is exception.__traceback__.tb_frame.f_code
    assert exception.__context__ is None


@pytest.mark.virtual_time
@pytest.mark.parametrize("policy", FailurePolicy)
async def test_policies_do_not_act_on_a_teardown_that_fails(policy: FailurePolicy) -> None:
    @task
    async def life() -> AsyncIterator[None]:
        yield
        raise ValueError

    diary = Diary()
    sleeper(diary, "runs", 1)
    sleeper(diary, "starts later", 1, depends_on=["runs"])
    results = await TaskScheduler(on_failure=policy).run()

    assert {
        "life": TaskStatus.FAILED,
        "runs": TaskStatus.COMPLETED,
        "starts later": TaskStatus.COMPLETED,
    } == statuses(results)


async def test_what_one_used_closes_though_its_teardown_failed() -> None:
    closed: list[str] = []

    @task
    async def outer() -> AsyncIterator[None]:
        yield
        closed.append("outer")

    @task(depends_on=[outer])
    async def inner() -> AsyncIterator[None]:
        yield
        closed.append("inner")
        raise ValueError

    results = await TaskScheduler().run()

    assert ["inner", "outer"] == closed
    assert TaskStatus.COMPLETED is results[outer].status


# A body that ends while it is open


@pytest.mark.virtual_time
async def test_a_child_of_its_task_group_that_crashes_ends_the_body_and_it_has_failed() -> None:
    diary = Diary()

    @task
    async def life() -> AsyncIterator[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(crash_after, 1)
            try:
                yield "open"
            finally:
                diary("told")

    @task
    async def user(life: str) -> str:
        await anyio.sleep(3)
        return life

    results = await TaskScheduler().run()

    assert [(1, "told")] == diary.entries
    assert TaskStatus.FAILED is results[life].status
    assert isinstance(results[life].exception, ExceptionGroup)
    assert ["child"] == [str(error) for error in results[life].exception.exceptions]
    assert "open" == results[user].result


@pytest.mark.virtual_time
@pytest.mark.parametrize("policy", FailurePolicy)
async def test_a_dependent_that_starts_after_the_body_failed_is_given_what_it_yielded(
    policy: FailurePolicy,
) -> None:
    @task
    async def life() -> AsyncIterator[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(crash_after, 1)
            yield "open"

    @task(depends_on=[life])
    async def early() -> None:
        await anyio.sleep(3)

    @task(depends_on=[early])
    async def late(life: str) -> str:
        return life

    results = await TaskScheduler(on_failure=policy).run()

    assert "open" == results[late].result
    assert (TaskStatus.FAILED, None) == (results[life].status, results[life].result)


@pytest.mark.virtual_time
async def test_a_dependent_that_is_tried_again_after_the_body_failed_is_given_the_same() -> None:
    given: list[str] = []

    @task
    async def life() -> AsyncIterator[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(crash_after, 1)
            yield "open"

    @task(retries=2)
    async def user(life: str) -> None:
        given.append(life)
        await crash_after(2)

    await TaskScheduler().run()

    assert ["open", "open"] == given


@pytest.mark.virtual_time
async def test_a_timeout_of_the_body_that_expires_while_it_is_open_fails_it() -> None:
    @task
    async def life() -> AsyncIterator[str]:
        with anyio.fail_after(1):
            yield "open"

    @task(depends_on=[life])
    async def user() -> None:
        await anyio.sleep(3)

    results = await TaskScheduler().run()

    assert TaskStatus.FAILED is results[life].status
    # Its own, not the one that we raise.
    assert TimeoutError is type(results[life].exception)
    assert TaskStatus.COMPLETED is results[user].status


@pytest.mark.virtual_time
async def test_a_scope_of_the_body_that_is_cancelled_while_it_is_open_ends_it_well() -> None:
    diary = Diary()

    @task
    async def life() -> AsyncIterator[str]:
        with anyio.move_on_after(1):
            yield "open"
        diary("over")
        await anyio.sleep(1)
        diary("closed")

    sleeper(diary, "user", 5, depends_on=[life])
    results = await TaskScheduler().run()

    assert [(1, "over"), (2, "closed"), (5, "user ended")] == diary.entries[1:]
    assert results.ok


@on_asyncio_in_virtual_time
@pytest.mark.virtual_time
async def test_an_asyncio_timeout_of_the_body_that_expires_while_it_is_open_fails_it() -> None:
    @task
    async def life() -> AsyncIterator[str]:
        async with asyncio.timeout(1):
            yield "open"

    @task(depends_on=[life])
    async def user() -> None:
        await anyio.sleep(3)

    results = await TaskScheduler().run()

    assert "TimeoutError" == results[life].error
    assert TaskStatus.COMPLETED is results[user].status


@on_asyncio_in_virtual_time
@pytest.mark.virtual_time
async def test_a_child_of_an_asyncio_task_group_that_crashes_fails_the_body() -> None:
    @task
    async def life() -> AsyncIterator[str]:
        async with asyncio.TaskGroup() as group:
            group.create_task(crash_after(1))
            yield "open"

    @task(depends_on=[life])
    async def user() -> None:
        await anyio.sleep(3)

    results = await TaskScheduler().run()

    assert isinstance(results[life].exception, ExceptionGroup)
    assert TaskStatus.COMPLETED is results[user].status


@on_trio
@pytest.mark.virtual_time
async def test_a_child_of_a_trio_nursery_that_crashes_fails_the_body() -> None:
    @task
    async def life() -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash_after, 1)
            yield "open"

    @task(depends_on=[life])
    async def user() -> None:
        await anyio.sleep(3)

    results = await TaskScheduler().run()

    assert isinstance(results[life].exception, ExceptionGroup)
    assert TaskStatus.COMPLETED is results[user].status


@on_asyncio
async def test_a_body_that_cancels_itself_while_it_is_open_has_failed() -> None:
    @task
    async def life() -> AsyncIterator[str]:
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        yield "open"

    @task
    async def user(life: str) -> str:
        return life

    results = await TaskScheduler().run()

    assert isinstance(results[life].exception, TaskCancelledError)
    assert "open" == results[user].result


async def test_a_body_that_ends_in_the_turn_of_its_yield_has_opened_all_the_same() -> None:
    """trio runs the body before whoever waits for it to open, or after, as chance will have it."""

    @task(retries=2)
    async def life() -> AsyncIterator[str]:
        with anyio.CancelScope() as scope:
            scope.cancel()
            yield "open"
        raise ValueError("over")

    @task
    async def user(life: str) -> str:
        return life

    for _ in range(20):
        with anyio.fail_after(10):
            results = await TaskScheduler().run()

        assert ("ValueError: over", 1) == (results[life].error, results[life].attempts)
        assert "open" == results[user].result


@pytest.mark.virtual_time
async def test_a_body_that_ends_before_the_hooks_have_left_has_opened_all_the_same() -> None:
    @asynccontextmanager
    async def slow_to_leave(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield
        await anyio.sleep(5)

    @task
    async def life() -> AsyncIterator[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(crash)
            yield "open"

    @task
    async def user(life: str) -> str:
        return life

    with anyio.fail_after(100):
        results = await TaskScheduler(attempt_hooks=[slow_to_leave]).run()

    assert TaskStatus.FAILED is results[life].status
    assert "open" == results[user].result


async def test_the_observers_are_told_that_the_body_failed_after_it_had_opened() -> None:
    events: list[Event] = []

    @task
    async def life() -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(crash)
            yield

    await TaskScheduler(observers=[events.append]).run()

    told = [type(event).__name__ for event in events if getattr(event, "task", None) == "life"]
    assert ["TaskCompleted", "TaskClosed", "TaskFailed"] == told[-3:]
    assert isinstance(events[-2], TaskFailed)


# One task, one context


async def test_the_body_is_in_one_async_task_from_start_to_end() -> None:
    inside: list[int] = []

    @task
    async def life() -> AsyncIterator[None]:
        inside.append(anyio.get_current_task().id)
        await checkpoint()
        yield
        inside.append(anyio.get_current_task().id)

    task("user", depends_on=[life])(no_op)
    await TaskScheduler().run()

    assert 2 == len(inside)
    assert 1 == len(set(inside))


seen_by: ContextVar[str] = ContextVar("seen_by", default="nobody")


async def test_a_context_variable_set_before_the_yield_is_reset_after_it() -> None:
    seen: list[str] = []

    @task
    async def life() -> AsyncIterator[None]:
        seen.append(seen_by.get())
        token = seen_by.set("the body")
        yield
        seen.append(seen_by.get())
        seen_by.reset(token)
        seen.append(seen_by.get())

    @task(depends_on=[life])
    async def user() -> None:
        seen.append(seen_by.get())

    seen_by.set("the caller")
    results = await TaskScheduler().run()

    assert results.ok
    assert ["the caller", "the caller", "the body", "the caller"] == seen


async def test_the_body_sees_what_a_hook_has_set_for_the_attempt() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def naming(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        seen_by.set(definition.name)
        yield

    @task
    async def life() -> AsyncIterator[None]:
        seen.append(seen_by.get())
        yield
        seen.append(seen_by.get())

    await TaskScheduler(attempt_hooks=[naming]).run()

    assert ["life", "life"] == seen


async def test_its_dependents_can_use_a_task_group_that_it_has_opened() -> None:
    done: list[str] = []

    async def in_the_background() -> None:
        await checkpoint()
        done.append("background")

    @task
    async def background() -> AsyncIterator[anyio.abc.TaskGroup]:
        async with anyio.create_task_group() as group:
            yield group
        done.append("closed")

    @task
    async def user(background: anyio.abc.TaskGroup) -> None:
        background.start_soon(in_the_background)

    results = await TaskScheduler().run()

    assert results.ok
    assert ["background", "closed"] == done


async def test_its_dependents_can_end_it_by_cancelling_its_task_group() -> None:
    @task
    async def background() -> AsyncIterator[anyio.abc.TaskGroup]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            yield group

    @task
    async def user(background: anyio.abc.TaskGroup) -> None:
        background.cancel_scope.cancel()

    assert (await TaskScheduler().run()).ok


@pytest.mark.virtual_time
async def test_scopes_and_task_groups_of_set_up_and_teardown_are_left_in_any_order() -> None:
    diary = Diary()

    @task(timeout=10)
    async def life() -> AsyncIterator[None]:
        with anyio.move_on_after(1):
            await anyio.sleep_forever()
        with anyio.CancelScope(shield=True), anyio.fail_after(8):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 4)
                yield
                with anyio.move_on_after(1):
                    await anyio.sleep_forever()
                diary("in the group")
            diary("out of the group")

    sleeper(diary, "user", 1, depends_on=[life])
    results = await TaskScheduler().run()

    assert results.ok
    assert [(3, "in the group"), (5, "out of the group")] == diary.entries[-2:]


@on_asyncio
async def test_an_asyncio_task_group_works_across_the_yield() -> None:
    @task
    async def background() -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group, asyncio.timeout(100):
            yield group

    @task
    async def user(background: asyncio.TaskGroup) -> None:
        background.create_task(asyncio.sleep(0))

    assert (await TaskScheduler().run()).ok


@on_trio
async def test_a_trio_nursery_works_across_the_yield() -> None:
    @task
    async def background() -> AsyncIterator[trio.Nursery]:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                yield nursery

    @task
    async def user(background: trio.Nursery) -> None:
        background.start_soon(trio.lowlevel.checkpoint)

    assert (await TaskScheduler().run()).ok


async def test_a_run_inside_the_body_is_under_way_while_it_is_open() -> None:
    inner = TaskRegistry()
    stop = anyio.Event()

    @inner.task
    async def serve() -> str:
        await stop.wait()
        return "served"

    @task
    async def service() -> AsyncIterator[TaskScheduler]:
        scheduler = TaskScheduler(inner)
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            yield scheduler
            stop.set()

    task("user", depends_on=[service])(no_op)
    results = await TaskScheduler().run()
    scheduler = results[service].result

    assert scheduler is not None
    assert "served" == scheduler.results[serve].result


# The set-up is the attempt


@pytest.mark.virtual_time
async def test_a_set_up_is_tried_again_after_its_backoff() -> None:
    diary = Diary()

    @task(retries=3, backoff=Backoff(initial=2, factor=2, jitter=0))
    async def life() -> AsyncIterator[str]:
        diary("tried")
        if len(diary.entries) < 3:
            raise ValueError(len(diary.entries))
        yield "open"
        diary("closed")

    sleeper(diary, "user", 1, depends_on=[life])
    result = (await TaskScheduler().run())[life]

    assert [(0, "tried"), (2, "tried"), (6, "tried")] == diary.entries[:3]
    assert (7, "closed") == diary.entries[-1]
    assert (TaskStatus.COMPLETED, "open", 3) == (result.status, result.result, result.attempts)
    assert ["1", "2"] == [str(failure.exception) for failure in result.failures]


async def test_one_whose_set_up_fails_does_not_close_and_its_dependents_are_told() -> None:
    closed: list[str] = []
    error = ValueError("set-up")

    async def body() -> AsyncIterator[None]:
        await checkpoint()
        raise error
        yield
        closed.append("life")

    life = task("life")(body)
    task("user", depends_on=["life"])(no_op)
    results = await TaskScheduler().run()

    assert error is results["life"].exception
    assert error.__traceback__ is not None
    assert life.__code__ is error.__traceback__.tb_frame.f_code
    assert "Dependency 'life' failed: ValueError: set-up" == results["user"].error
    assert [] == closed


@pytest.mark.parametrize("policy", [FailurePolicy.DRAIN, FailurePolicy.CANCEL])
async def test_policies_act_on_a_set_up_that_fails(policy: FailurePolicy) -> None:
    ready = anyio.Event()

    async def body() -> AsyncIterator[None]:
        await ready.wait()
        raise ValueError
        yield

    task("life")(body)

    @task
    async def running() -> None:
        ready.set()
        await anyio.wait_all_tasks_blocked() if policy is FailurePolicy.DRAIN else (
            await anyio.sleep_forever()
        )

    task("not started", depends_on=[running])(no_op)
    results = await TaskScheduler(on_failure=policy).run()

    running_ends = {
        FailurePolicy.DRAIN: TaskStatus.COMPLETED,
        FailurePolicy.CANCEL: TaskStatus.CANCELLED,
    }
    assert {
        "life": TaskStatus.FAILED,
        "running": running_ends[policy],
        "not started": TaskStatus.CANCELLED,
    } == statuses(results)


class Odd(BaseException):
    """Something that is no `Exception`."""


@pytest.mark.parametrize("raised", [Odd, GeneratorExit])
@pytest.mark.parametrize("turns", [0, 1])
async def test_what_is_no_exception_fails_the_set_up_and_is_not_tried_again(
    raised: type[BaseException], turns: int
) -> None:
    async def body() -> AsyncIterator[None]:
        for _ in range(turns):
            await checkpoint()
        raise raised("text")
        yield

    task("life", retries=3)(body)
    with anyio.fail_after(10):
        result = (await TaskScheduler().run())["life"]

    assert (TaskStatus.FAILED, 1) == (result.status, result.attempts)
    assert f"{raised.__name__}: text" == result.error


@pytest.mark.parametrize("raised", [Odd, GeneratorExit])
@pytest.mark.parametrize("turns", [0, 1])
async def test_what_is_no_exception_fails_the_teardown(
    raised: type[BaseException], turns: int
) -> None:
    @task
    async def life() -> AsyncIterator[None]:
        yield
        for _ in range(turns):
            await checkpoint()
        raise raised("text")

    assert f"{raised.__name__}: text" == (await TaskScheduler().run())[life].error


async def test_a_set_up_that_raises_a_cancellation_by_itself_has_failed() -> None:
    @task(retries=3)
    async def life() -> AsyncIterator[None]:
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
        yield

    task("beside")(checkpoint)
    results = await TaskScheduler().run()

    assert isinstance(results[life].exception, TaskCancelledError)
    assert 1 == results[life].attempts
    assert TaskStatus.COMPLETED is results["beside"].status


async def test_a_teardown_that_raises_a_cancellation_by_itself_has_failed() -> None:
    @task
    async def life() -> AsyncIterator[None]:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                caught = error
        yield
        try:
            raise caught
        finally:
            del caught

    results = await TaskScheduler().run()

    assert isinstance(results[life].exception, TaskCancelledError)


async def test_one_that_does_not_yield_has_failed() -> None:
    async def body() -> AsyncIterator[None]:
        if False:
            yield

    task("life")(body)
    error = (await TaskScheduler().run())["life"].exception

    assert isinstance(error, LifetimeError)
    assert ("life", "did not yield") == (error.task, error.problem)


async def test_one_that_yields_twice_has_failed_and_its_clean_up_is_done() -> None:
    cleaned_up: list[str] = []

    @task
    async def life() -> AsyncIterator[str]:
        try:
            yield "once"
            yield "twice"
        finally:
            await checkpoint()
            cleaned_up.append("life")

    @task
    async def user(life: str) -> str:
        return life

    results = await TaskScheduler().run()
    error = results[life].exception

    assert isinstance(error, LifetimeError)
    assert ("life", "yielded more than once") == (error.task, error.problem)
    assert "once" == results[user].result
    assert ["life"] == cleaned_up


@pytest.mark.virtual_time
async def test_a_hook_is_around_the_set_up_alone() -> None:
    diary = Diary()

    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        if definition.name == "life":
            diary(f"enter {attempt}")
        yield
        if definition.name == "life":
            diary(f"leave {attempt}")

    lifetime(diary, "life", set_up=1, teardown=1)
    sleeper(diary, "user", 1, depends_on=["life"])
    await TaskScheduler(attempt_hooks=[hook]).run()

    assert [
        (0, "enter 1"),
        (1, "life opened"),
        (1, "leave 1"),
        (1, "user started"),
        (2, "user ended"),
        (2, "life closes"),
        (3, "life closed"),
    ] == diary.entries


async def test_one_that_opens_and_whose_hook_ends_the_attempt_badly_closes() -> None:
    """What a hook raises that is no `Exception` is not ours to catch."""
    closed: list[str] = []

    class Spoils:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *exc_info: object) -> None:
            raise Odd("hook")

    @task
    async def life() -> AsyncIterator[None]:
        yield
        await checkpoint()
        closed.append("life")
        raise ValueError("teardown")

    task("user", depends_on=[life])(no_op)
    results = await TaskScheduler(attempt_hooks=[lambda definition, attempt: Spoils()]).run()

    assert ["life"] == closed
    assert TaskStatus.FAILED is results["user"].status
    failures = [str(failure.exception) for failure in results[life].failures]
    assert ["hook", "teardown"] == failures


# The time that a set-up may take


@pytest.mark.virtual_time
async def test_a_set_up_that_takes_too_long_is_cancelled_and_tried_again_when_it_has_ended() -> (
    None
):
    diary = Diary()

    @task(timeout=1, retries=2)
    async def life() -> AsyncIterator[None]:
        diary("tried")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            diary("ended")
        yield

    result = (await TaskScheduler().run())[life]

    assert [(0, "tried"), (4, "ended"), (4, "tried"), (8, "ended")] == diary.entries
    assert [TaskTimeoutError, TaskTimeoutError] == [
        type(failure.exception) for failure in result.failures
    ]
    assert "" == result.failures[0].exception.remark  # type: ignore[attr-defined]


@pytest.mark.virtual_time
async def test_the_timeout_of_the_set_up_does_not_run_while_it_is_open() -> None:
    diary = Diary()
    lifetime(diary, "life", set_up=1, teardown=1, timeout=2)
    sleeper(diary, "user", 100, depends_on=["life"])
    results = await TaskScheduler().run()

    assert results.ok
    assert (102, "life closed") == diary.entries[-1]


@pytest.mark.virtual_time
async def test_what_a_set_up_raises_when_its_time_is_up_is_the_cause() -> None:
    error = ValueError("cleaning up")

    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        try:
            await anyio.sleep_forever()
        finally:
            raise error
        yield

    result = (await TaskScheduler().run())[life]

    assert isinstance(result.exception, TaskTimeoutError)
    assert error is result.exception.__cause__


@pytest.mark.virtual_time
async def test_a_set_ups_own_timeout_error_is_its_own() -> None:
    @task(timeout=5)
    async def life() -> AsyncIterator[None]:
        with anyio.fail_after(1):
            await anyio.sleep_forever()
        yield

    result = (await TaskScheduler().run())[life]

    assert TimeoutError is type(result.exception)


def block(seconds: float) -> None:
    """Let time pass on a virtual clock, as a call does that blocks the event loop."""
    loop: Any = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        loop._jumping.now += seconds  # type: ignore[attr-defined]
    else:
        trio.lowlevel.current_clock().jump(seconds)  # type: ignore[attr-defined]


@pytest.mark.virtual_time
@pytest.mark.parametrize("retries", [1, 2])
async def test_a_set_up_that_blocks_past_its_deadline_has_failed_and_is_torn_down(
    retries: int,
) -> None:
    diary = Diary()

    @task(timeout=1, retries=retries)
    async def life() -> AsyncIterator[None]:
        block(2)
        yield
        await anyio.sleep(0.5)
        diary("closed")

    task("user", depends_on=[life])(no_op)
    results = await TaskScheduler().run()

    assert [(2.5, "closed"), (5, "closed")][:retries] == diary.entries
    assert isinstance(results[life].exception, TaskTimeoutError)
    assert retries == results[life].attempts
    assert TaskStatus.FAILED is results["user"].status


@pytest.mark.virtual_time
@pytest.mark.parametrize("shielded", [True, False])
async def test_a_set_up_that_yields_in_spite_of_its_cancellation_is_torn_down_in_full(
    shielded: bool,  # noqa: FBT001 - given by parametrize
) -> None:
    """It shields itself, or swallows the cancellation. From the yield on it is not cancelled."""
    diary = Diary()

    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        with suppress(BaseException), anyio.CancelScope(shield=shielded):
            await anyio.sleep(3)
        yield
        await anyio.sleep(0.5)
        diary("closed")

    task("user", depends_on=[life])(no_op)
    results = await TaskScheduler().run()

    assert [(3.5 if shielded else 1.5, "closed")] == diary.entries
    assert isinstance(results[life].exception, TaskTimeoutError)
    assert TaskStatus.FAILED is results["user"].status


@pytest.mark.virtual_time
async def test_a_set_up_that_yields_in_the_moment_of_its_deadline_is_torn_down() -> None:
    """Whichever comes first: it never knows a yield without the rest."""

    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        await anyio.sleep(1)
        seen.append("opened")
        yield
        await anyio.sleep(0.5)
        seen.append("closed")

    for _ in range(20):
        seen: list[str] = []
        results = await TaskScheduler().run()

        assert seen in ([], ["opened", "closed"])
        assert isinstance(results[life].exception, TaskTimeoutError)


# The time that a teardown may take


@pytest.mark.virtual_time
@pytest.mark.parametrize(("settings", "limit"), [({"timeout": 2}, 2), ({}, 30)])
async def test_a_teardown_may_take_its_timeout_or_else_30_seconds(
    settings: dict[str, Any], limit: float
) -> None:
    diary = Diary()

    @task(**settings)
    async def life() -> AsyncIterator[str]:
        await anyio.sleep(1)
        yield "open"
        try:
            await anyio.sleep_forever()
        finally:
            diary("ended")

    sleeper(diary, "user", 5, depends_on=[life])
    results = await TaskScheduler().run()
    error = results[life].exception

    assert (6 + limit, "ended") == diary.entries[-1]
    assert isinstance(error, TaskTimeoutError)
    assert ("life", limit) == (error.task, error.timeout)
    assert "It was in its teardown." == error.remark
    assert error.__cause__ is None
    assert TaskStatus.COMPLETED is results["user"].status


@pytest.mark.virtual_time
async def test_a_teardown_that_just_keeps_its_time_is_not_late() -> None:
    diary = Diary()
    lifetime(diary, "life", teardown=29)
    results = await TaskScheduler().run()

    assert results.ok


@pytest.mark.virtual_time
async def test_a_teardown_that_swallows_the_cancellation_is_late_and_the_run_ends() -> None:
    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        yield
        with suppress(BaseException):
            await anyio.sleep_forever()

    results = await TaskScheduler().run()

    assert isinstance(results[life].exception, TaskTimeoutError)
    assert 1 == results.wall_time


@pytest.mark.virtual_time
async def test_a_teardown_that_blocks_past_its_deadline_is_late() -> None:
    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        yield
        block(2)

    results = await TaskScheduler().run()

    assert isinstance(results[life].exception, TaskTimeoutError)


@pytest.mark.virtual_time
async def test_what_a_teardown_raises_when_its_time_is_up_is_the_cause() -> None:
    error = ValueError("cleaning up")

    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        yield
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    result = (await TaskScheduler().run())[life]

    assert isinstance(result.exception, TaskTimeoutError)
    assert error is result.exception.__cause__


@pytest.mark.virtual_time
async def test_a_teardowns_own_timeout_error_is_its_own() -> None:
    @task(timeout=5)
    async def life() -> AsyncIterator[None]:
        yield
        with anyio.fail_after(1):
            await anyio.sleep_forever()

    result = (await TaskScheduler().run())[life]

    assert TimeoutError is type(result.exception)


@pytest.mark.virtual_time
async def test_the_time_limit_holds_for_a_teardown_after_the_body_failed_while_it_was_open() -> (
    None
):
    diary = Diary()

    @task(timeout=2)
    async def life() -> AsyncIterator[None]:
        with anyio.move_on_after(1):
            yield
        try:
            await anyio.sleep_forever()
        finally:
            diary("ended")

    sleeper(diary, "user", 10, depends_on=[life])
    results = await TaskScheduler().run()

    assert (3, "ended") in diary.entries
    assert isinstance(results[life].exception, TaskTimeoutError)


# Slots and resources


@pytest.mark.virtual_time
async def test_it_holds_no_slot_while_it_is_open() -> None:
    diary = Diary()
    lifetime(diary, "outer", set_up=1)
    lifetime(diary, "inner", set_up=1, depends_on=["outer"])
    sleeper(diary, "user", 1, depends_on=["outer", "inner"])
    results = await TaskScheduler(max_concurrency=1).run()

    assert results.ok
    assert 3 == results.wall_time


@pytest.mark.virtual_time
async def test_its_set_up_holds_a_slot() -> None:
    diary = Diary()
    lifetime(diary, "one", set_up=1)
    lifetime(diary, "two", set_up=1)
    results = await TaskScheduler(max_concurrency=1).run()

    assert (1, 2) == (results.most_running, results.wall_time)


@pytest.mark.virtual_time
async def test_its_teardown_is_outside_the_limits() -> None:
    diary = Diary()
    lifetime(diary, "life", teardown=5)
    sleeper(diary, "user", 1, depends_on=["life"])
    sleeper(diary, "next", 5, after=["user"])
    results = await TaskScheduler(max_concurrency=1).run()

    assert (1, "next started") in diary.entries
    assert 6 == results.wall_time


@pytest.mark.virtual_time
async def test_it_holds_its_resources_in_its_set_up_alone() -> None:
    diary = Diary()
    lifetime(diary, "one", set_up=1, teardown=5, resources=["db"])
    lifetime(diary, "two", set_up=1, teardown=5, resources=["db"])
    sleeper(diary, "user", 1, depends_on=["one", "two"], resources=["db"])
    sleeper(diary, "next", 1, after=["user"], resources=["db"])
    results = await TaskScheduler(resources={"db": 1}).run()

    assert results.ok
    assert (2, "user started") in diary.entries
    assert (3, "next started") in diary.entries


@pytest.mark.virtual_time
async def test_its_slot_is_free_during_the_backoff_of_its_set_up() -> None:
    diary = Diary()

    @task(retries=2, backoff=Backoff(initial=5, jitter=0))
    async def life() -> AsyncIterator[None]:
        diary("tried")
        if len(diary.entries) == 1:
            raise ValueError
        yield

    sleeper(diary, "other", 1)
    results = await TaskScheduler(max_concurrency=1).run()

    assert results.ok
    assert [(0, "tried"), (0, "other started"), (1, "other ended"), (5, "tried")] == diary.entries


# What is a lifetime


async def generator(*names: str) -> AsyncIterator[str]:
    yield "opened"


class Opens:
    async def method(self) -> AsyncIterator[str]:
        yield "opened"

    @staticmethod
    async def static() -> AsyncIterator[str]:
        yield "opened"

    async def __call__(self) -> AsyncIterator[str]:
        yield "opened"


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(generator, id="function"),
        pytest.param(partial(generator, "a"), id="partial"),
        pytest.param(partial(partial(generator, "a"), "b"), id="partial of a partial"),
        pytest.param(Opens().method, id="bound method"),
        pytest.param(Opens.static, id="static method"),
        pytest.param(Opens(), id="callable object"),
        pytest.param(partial(Opens()), id="partial of a callable object"),
        pytest.param(partial(Opens().method), id="partial of a bound method"),
    ],
)
async def test_every_callable_that_is_an_async_generator_function_is_a_lifetime(
    function: Callable[..., Any],
) -> None:
    task("life")(function)

    @task
    async def user(life: str) -> str:
        return life

    results = await TaskScheduler().run()

    assert "opened" == results[user].result


async def test_it_takes_results_by_name_like_any_task() -> None:
    @task
    async def url() -> str:
        return "url"

    @task
    async def connection(url: str, *, user: str) -> AsyncIterator[str]:
        yield f"{user} at {url}"

    results = await TaskScheduler().run(inputs={"user": "me"})

    assert "me at url" == results[connection].result


async def test_one_that_cannot_be_called_fails() -> None:
    task("life")(partial(generator, no_such_parameter=1))
    result = (await TaskScheduler().run())["life"]

    assert isinstance(result.exception, TypeError)


# Policies, and being told to stop


@pytest.mark.virtual_time
async def test_under_drain_what_uses_it_runs_to_its_end_and_then_it_closes() -> None:
    diary = Diary()
    lifetime(diary, "life", teardown=1)
    sleeper(diary, "user", 3, depends_on=["life"])
    sleeper(diary, "not started", 3, depends_on=["user", "life"])
    task("fails")(partial(crash_after, 1))
    results = await TaskScheduler(on_failure=FailurePolicy.DRAIN).run()

    assert [(3, "user ended"), (3, "life closes"), (4, "life closed")] == diary.entries[-3:]
    assert TaskStatus.COMPLETED is results["life"].status
    assert TaskStatus.CANCELLED is results["not started"].status


@pytest.mark.virtual_time
async def test_under_cancel_what_uses_it_is_cancelled_first_and_then_it_closes_in_full() -> None:
    diary = Diary()
    lifetime(diary, "life", teardown=5)

    @task(depends_on=["life"])
    async def user() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            diary("user ended")

    task("fails")(partial(crash_after, 1))
    results = await TaskScheduler(on_failure=FailurePolicy.CANCEL).run()

    assert [(3, "user ended"), (3, "life closes"), (8, "life closed")] == diary.entries[1:]
    assert {
        "life": TaskStatus.COMPLETED,
        "user": TaskStatus.CANCELLED,
        "fails": TaskStatus.FAILED,
    } == statuses(results)


def stop_at(scheduler: TaskScheduler, *seconds: float) -> Callable[[], Awaitable[None]]:
    """What calls `stop()` in these seconds, to run beside the scheduler."""

    async def stops() -> None:
        passed = 0.0
        for at in seconds:
            await anyio.sleep(at - passed)
            passed = at
            scheduler.stop()

    return stops


async def run_and_stop(scheduler: TaskScheduler, *seconds: float) -> RunResults:
    async with anyio.create_task_group() as group:
        group.start_soon(stop_at(scheduler, *seconds))
        return await scheduler.run()


def timeline(diary: Diary) -> None:
    """Set-up from 0 to 2, use from 2 to 4, teardown from 4 to 6."""
    lifetime(diary, "life", set_up=2, teardown=2)
    sleeper(diary, "user", 2, depends_on=["life"])
    sleeper(diary, "user's user", 2, depends_on=["user"])


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("at", "user", "closed"),
    [(1, TaskStatus.CANCELLED, 4), (3, TaskStatus.COMPLETED, 6), (5, TaskStatus.COMPLETED, 6)],
)
async def test_stop_lets_it_open_be_used_and_close(
    at: float, user: TaskStatus, closed: float
) -> None:
    diary = Diary()
    timeline(diary)
    results = await run_and_stop(TaskScheduler(), at)

    # A set-up that is running runs to its end, and closes at once where nobody will use it.
    assert (closed, "life closed") in diary.entries
    assert TaskStatus.COMPLETED is results["life"].status
    assert user is results["user"].status


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("at", "expected", "status"),
    [
        (1, [], TaskStatus.CANCELLED),
        (3, [(2, "opened"), (3, "closes"), (5, "closed")], TaskStatus.COMPLETED),
        (5, [(2, "opened"), (4, "closes"), (6, "closed")], TaskStatus.COMPLETED),
    ],
)
async def test_a_second_stop_ends_set_up_and_use_and_never_a_teardown(
    at: float, expected: list[tuple[float, str]], status: TaskStatus
) -> None:
    diary = Diary()
    timeline(diary)
    results = await run_and_stop(TaskScheduler(), at, at)

    assert [(second, f"life {what}") for second, what in expected] == [
        entry for entry in diary.entries if "life" in entry[1]
    ]
    assert status is results["life"].status


@pytest.mark.virtual_time
async def test_stop_ends_the_backoff_of_a_set_up() -> None:
    @task(retries=3, backoff=Backoff(initial=100, jitter=0))
    async def life() -> AsyncIterator[None]:
        raise ValueError
        yield

    results = await run_and_stop(TaskScheduler(), 1)

    assert (TaskStatus.FAILED, 1) == (results[life].status, results[life].attempts)
    assert 1 == results.wall_time


@pytest.mark.virtual_time
@pytest.mark.parametrize("turns", range(5))
async def test_a_stop_twice_in_the_moment_of_the_yield_closes_what_has_opened(turns: int) -> None:
    diary = Diary()
    lifetime(diary, "outer", teardown=1)
    lifetime(diary, "inner", set_up=1, teardown=1, depends_on=["outer"])
    sleeper(diary, "user", 1, depends_on=["inner"])
    scheduler = TaskScheduler()

    async def stops() -> None:
        await anyio.sleep(1)
        for _ in range(turns):
            await checkpoint()
        scheduler.stop()
        scheduler.stop()

    async with anyio.create_task_group() as group:
        group.start_soon(stops)
        await scheduler.run()

    entries = [entry for entry in diary.entries if "user" not in entry[1]]
    if (1, "inner opened") in entries:
        assert [
            (0, "outer opened"),
            (1, "inner opened"),
            (1, "inner closes"),
            (2, "inner closed"),
            (2, "outer closes"),
            (3, "outer closed"),
        ] == entries
    else:
        assert [(0, "outer opened"), (1, "outer closes"), (2, "outer closed")] == entries


@pytest.mark.virtual_time
async def test_one_that_opened_in_vain_closes_before_what_it_uses() -> None:
    """It is cancelled after its yield, while a hook around its attempt takes its time."""
    diary = Diary()

    @asynccontextmanager
    async def slow_to_leave(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield
        if definition.name == "inner":
            await anyio.sleep(5)

    lifetime(diary, "outer", teardown=1)
    lifetime(diary, "inner", teardown=2, depends_on=["outer"])
    results = await run_and_stop(TaskScheduler(attempt_hooks=[slow_to_leave]), 1, 1)

    assert [
        (0, "outer opened"),
        (0, "inner opened"),
        (1, "inner closes"),
        (3, "inner closed"),
        (3, "outer closes"),
        (4, "outer closed"),
    ] == diary.entries
    assert TaskStatus.CANCELLED is results["inner"].status
    assert TaskStatus.COMPLETED is results["outer"].status


@pytest.mark.virtual_time
async def test_what_the_teardown_of_one_raises_that_opened_in_vain_is_kept() -> None:
    @asynccontextmanager
    async def slow_to_leave(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield
        await anyio.sleep(5)

    @task
    async def life() -> AsyncIterator[None]:
        yield
        await anyio.sleep(1)
        raise ValueError("teardown")

    results = await run_and_stop(TaskScheduler(attempt_hooks=[slow_to_leave]), 1, 1)

    assert TaskStatus.CANCELLED is results[life].status
    assert ["teardown"] == [str(failure.exception) for failure in results[life].failures]
    assert results[life].result is None


@pytest.mark.virtual_time
async def test_a_set_up_that_is_cancelled_and_yields_all_the_same_is_torn_down_in_full() -> None:
    diary = Diary()

    @task
    async def life() -> AsyncIterator[None]:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
        yield
        await anyio.sleep(1)
        diary("closed")

    results = await run_and_stop(TaskScheduler(), 1, 1)

    assert [(4, "closed")] == diary.entries
    assert TaskStatus.CANCELLED is results[life].status


@pytest.mark.virtual_time
async def test_what_a_cancelled_set_up_raises_instead_keeps_its_cause_and_context() -> None:
    @task
    async def life() -> AsyncIterator[None]:
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001 - it is what a careless function does
            raise ValueError("cleaning up") from KeyError("cause")
        yield

    results = await run_and_stop(TaskScheduler(), 1, 1)
    (failure,) = results[life].failures

    assert TaskStatus.CANCELLED is results[life].status
    assert "cleaning up" == str(failure.exception)
    assert isinstance(failure.exception.__cause__, KeyError)
    assert isinstance(failure.exception.__context__, anyio.get_cancelled_exc_class())


@pytest.mark.virtual_time
async def test_a_teardown_that_calls_stop_twice_runs_to_its_end() -> None:
    diary = Diary()

    @task
    async def life() -> AsyncIterator[None]:
        yield
        scheduler.stop()
        scheduler.stop()
        await anyio.sleep(1)
        diary("closed")

    sleeper(diary, "beside", 10)
    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert [(0, "beside started"), (0, "beside ended"), (1, "closed")] == diary.entries
    assert TaskStatus.COMPLETED is results[life].status


@pytest.mark.virtual_time
async def test_a_set_up_that_calls_stop_twice_and_yields_is_cancelled_and_torn_down() -> None:
    diary = Diary()

    @task
    async def life() -> AsyncIterator[None]:
        scheduler.stop()
        scheduler.stop()
        yield
        await anyio.sleep(1)
        diary("closed")

    task("user", depends_on=[life])(no_op)
    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert [(1, "closed")] == diary.entries
    assert {"life": TaskStatus.CANCELLED, "user": TaskStatus.CANCELLED} == statuses(results)


# Cancelled from outside


async def by_a_scope(scheduler: TaskScheduler, seconds: float) -> None:
    with anyio.move_on_after(seconds) as scope:
        await scheduler.run()
    assert scope.cancelled_caught


async def by_a_timeout(scheduler: TaskScheduler, seconds: float) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(seconds):
        await scheduler.run()


async def by_its_block(scheduler: TaskScheduler, seconds: float) -> None:
    async with anyio.create_task_group() as group, scheduler:
        group.start_soon(scheduler.run)
        await anyio.sleep(seconds)


async def by_a_native_cancellation(scheduler: TaskScheduler, seconds: float) -> None:
    running = asyncio.create_task(scheduler.run())
    await anyio.sleep(seconds)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def by_two_native_cancellations(scheduler: TaskScheduler, seconds: float) -> None:
    running = asyncio.create_task(scheduler.run())
    for _ in range(2):
        await anyio.sleep(seconds / 2)
    running.cancel()
    await checkpoint()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def by_an_asyncio_timeout(scheduler: TaskScheduler, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await scheduler.run()


Way = Callable[[TaskScheduler, float], Awaitable[None]]

OUTCOMES = [
    pytest.param(1, [], TaskStatus.CANCELLED, id="set-up"),
    pytest.param(3, [(2, "opened"), (3, "closes"), (5, "closed")], TaskStatus.COMPLETED, id="open"),
    pytest.param(
        5, [(2, "opened"), (4, "closes"), (6, "closed")], TaskStatus.COMPLETED, id="teardown"
    ),
]


async def check_that_it_closes(
    way: Way, seconds: float, expected: list[tuple[float, str]], status: TaskStatus
) -> None:
    diary = Diary()
    timeline(diary)
    scheduler = TaskScheduler()
    await way(scheduler, seconds)

    assert [(second, f"life {what}") for second, what in expected] == [
        entry for entry in diary.entries if "life" in entry[1]
    ]
    assert status is scheduler.results["life"].status
    assert [] == tasks_of_ours()


def tasks_of_ours() -> list[str | None]:
    return [one.name for one in anyio.get_running_tasks() if "portable_sched" in (one.name or "")]


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", [by_a_scope, by_a_timeout, by_its_block])
@pytest.mark.parametrize(("seconds", "expected", "status"), OUTCOMES)
async def test_a_cancellation_from_outside_ends_set_up_and_use_and_never_a_teardown(
    way: Way, seconds: float, expected: list[tuple[float, str]], status: TaskStatus
) -> None:
    await check_that_it_closes(way, seconds, expected, status)


@on_asyncio_in_virtual_time
@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "way", [by_a_native_cancellation, by_two_native_cancellations, by_an_asyncio_timeout]
)
@pytest.mark.parametrize(("seconds", "expected", "status"), OUTCOMES)
async def test_a_native_cancellation_ends_set_up_and_use_and_never_a_teardown(
    way: Way, seconds: float, expected: list[tuple[float, str]], status: TaskStatus
) -> None:
    await check_that_it_closes(way, seconds, expected, status)


@pytest.mark.virtual_time
@pytest.mark.parametrize("seconds", [0, 2, 4, 6])
@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_in_the_moment_of_a_change_leaves_nothing_open(
    seconds: float, turns: int
) -> None:
    """At its start, its yield, the end of its use and its own end, and a few turns later."""
    diary = Diary()
    timeline(diary)
    scheduler = TaskScheduler()
    scope = anyio.CancelScope()

    async def cancel() -> None:
        await anyio.sleep(seconds)
        for _ in range(turns):
            await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(cancel)
        with scope:
            await scheduler.run()
        assert [] == tasks_of_ours()

    # Where it opened it closed, in its two seconds.
    texts = [text for text in diary.texts() if "life" in text]
    assert texts in ([], ["life opened", "life closes", "life closed"])
    if texts:
        ends = {text: second for second, text in diary.entries}
        assert 2 == ends["life closed"] - ends["life closes"]
        assert ends["life closes"] >= ends.get("user ended", 0)
    assert {TaskStatus.COMPLETED, TaskStatus.CANCELLED} >= set(scheduler.results.counts())


@pytest.mark.virtual_time
async def test_a_teardown_that_hangs_keeps_a_cancelled_run_for_its_time_and_no_longer() -> None:
    @task(timeout=4)
    async def life() -> AsyncIterator[None]:
        yield
        await anyio.sleep_forever()

    diary = Diary()
    sleeper(diary, "user", 10, depends_on=[life])
    scheduler = TaskScheduler()
    with anyio.move_on_after(1):
        await scheduler.run()

    diary("over")
    assert (5, "over") == diary.entries[-1]
    assert isinstance(scheduler.results[life].exception, TaskTimeoutError)


@pytest.mark.virtual_time
async def test_a_teardown_that_fails_in_a_cancelled_run_is_reported() -> None:
    @task
    async def life() -> AsyncIterator[None]:
        yield
        await anyio.sleep(1)
        raise ValueError("teardown")

    diary = Diary()
    sleeper(diary, "user", 10, depends_on=[life])
    scheduler = TaskScheduler()
    with anyio.move_on_after(1) as scope:
        await scheduler.run()

    assert scope.cancelled_caught
    assert "ValueError: teardown" == scheduler.results[life].error


@pytest.mark.virtual_time
async def test_in_a_cancelled_run_one_that_uses_another_closes_first() -> None:
    diary = Diary()
    lifetime(diary, "outer", teardown=1)
    lifetime(diary, "inner", teardown=1, depends_on=["outer"])
    sleeper(diary, "user", 10, depends_on=["inner", "outer"])
    with anyio.move_on_after(1):
        await TaskScheduler().run()

    assert [
        (1, "user ended"),
        (1, "inner closes"),
        (2, "inner closed"),
        (2, "outer closes"),
        (3, "outer closed"),
    ] == diary.entries[3:]


@on_asyncio
def test_the_end_of_asyncio_run_closes_it_after_what_uses_it(
    run_on_backend: Callable[..., Any],
) -> None:
    """It cancels all tasks in one turn: the body too, which is not to go before its users."""
    order: list[str] = []
    schedulers: list[TaskScheduler] = []
    background: list[asyncio.Task[Any]] = []

    @task
    async def life() -> AsyncIterator[None]:
        yield
        await checkpoint()
        order.append("life closed")

    async def main() -> None:
        started = anyio.Event()

        @task(depends_on=[life])
        async def user() -> None:
            started.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    for _ in range(5):
                        await checkpoint()
                order.append("user ended")

        schedulers.append(TaskScheduler())
        background.append(asyncio.create_task(schedulers[0].run()))
        await started.wait()

    run_on_backend(main)

    assert ["user ended", "life closed"] == order
    assert {"life": TaskStatus.COMPLETED, "user": TaskStatus.CANCELLED} == statuses(
        schedulers[0].results
    )


def test_a_body_whose_event_loop_is_gone_ends_and_tells_nobody() -> None:
    """To try it would raise again, since a closed loop wakes nobody."""
    complaints: list[BaseException] = []

    @task
    async def life() -> AsyncIterator[None]:
        await asyncio.get_running_loop().create_future()
        yield

    async def start() -> None:
        running = asyncio.create_task(TaskScheduler().run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not running.done()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    left = asyncio.all_tasks(loop)
    loop.close()
    for each in left:
        each._log_destroy_pending = False  # type: ignore[attr-defined] # that is the point here
        coroutine = each.get_coro()
        assert coroutine is not None
        if "lifetime" in each.get_name():
            try:
                coroutine.close()
            except RuntimeError as error:
                complaints.append(error)

    assert 1 == sum("lifetime" in each.get_name() for each in left)
    # anyio's scopes, one in the other, find that they are in no event loop; that is not ours.
    assert [] == [one for one in complaints if not isinstance(origin(one), GeneratorExit)]


def origin(error: BaseException) -> BaseException:
    """What was raised first, before all that was raised because of it."""
    while error.__context__ is not None:
        error = error.__context__
    return error


# KeyboardInterrupt and SystemExit


QUITS = [KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("raised", QUITS)
@pytest.mark.parametrize("turns", [0, 1])
async def test_what_ends_a_program_leaves_the_run_bare_from_a_set_up(
    raised: type[BaseException], turns: int
) -> None:
    error = raised("text")
    closed: list[str] = []

    @task
    async def used() -> AsyncIterator[None]:
        yield
        await checkpoint()
        closed.append("used")

    @task(depends_on=[used], retries=3)
    async def life() -> AsyncIterator[None]:
        for _ in range(turns):
            await checkpoint()
        raise error
        yield

    task("user", depends_on=[life])(no_op)
    scheduler = TaskScheduler()
    with pytest.raises(raised) as caught:
        await scheduler.run()

    assert error is caught.value
    assert ["used"] == closed
    assert {
        "used": TaskStatus.COMPLETED,
        "life": TaskStatus.CANCELLED,
        "user": TaskStatus.CANCELLED,
    } == statuses(scheduler.results)
    assert () == scheduler.results[life].failures


@pytest.mark.parametrize("raised", QUITS)
@pytest.mark.parametrize("turns", [0, 1])
async def test_what_ends_a_program_leaves_the_run_bare_from_a_teardown(
    raised: type[BaseException], turns: int
) -> None:
    error = raised("text")
    closed: list[str] = []

    @task
    async def used() -> AsyncIterator[None]:
        yield
        await checkpoint()
        closed.append("used")

    @task(depends_on=[used])
    async def life() -> AsyncIterator[None]:
        yield
        for _ in range(turns):
            await checkpoint()
        raise error

    task("beside")(anyio.sleep_forever)
    scheduler = TaskScheduler()
    with pytest.raises(raised) as caught:
        await scheduler.run()

    assert error is caught.value
    assert ["used"] == closed
    assert TaskStatus.CANCELLED is scheduler.results["beside"].status
    assert () == scheduler.results[life].failures


@pytest.mark.parametrize("raised", QUITS)
async def test_what_ends_a_program_is_found_in_a_group_that_the_body_raises(
    raised: type[BaseException],
) -> None:
    error = raised("text")

    @task
    async def life() -> AsyncIterator[None]:
        yield
        raise BaseExceptionGroup("group", [ValueError(), error])

    with pytest.raises(raised) as caught:
        await TaskScheduler().run()

    assert error is caught.value


@pytest.mark.virtual_time
@pytest.mark.parametrize("raised", QUITS)
async def test_what_ends_a_program_leaves_the_run_bare_from_a_set_up_whose_time_is_up(
    raised: type[BaseException],
) -> None:
    error = raised("text")

    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        try:
            await anyio.sleep_forever()
        finally:
            raise error
        yield

    with pytest.raises(raised) as caught:
        await TaskScheduler().run()

    assert error is caught.value


@pytest.mark.virtual_time
@pytest.mark.parametrize("raised", QUITS)
async def test_what_ends_a_program_leaves_the_run_bare_from_a_teardown_whose_time_is_up(
    raised: type[BaseException],
) -> None:
    error = raised("text")

    @task(timeout=1)
    async def life() -> AsyncIterator[None]:
        yield
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    with pytest.raises(raised) as caught:
        await TaskScheduler().run()

    assert error is caught.value


@pytest.mark.parametrize("raised", QUITS)
async def test_what_ends_a_program_closes_what_other_tasks_use(raised: type[BaseException]) -> None:
    order: list[str] = []
    running = anyio.Event()

    @task
    async def life() -> AsyncIterator[None]:
        yield
        await checkpoint()
        order.append("life closed")

    @task(depends_on=[life])
    async def user() -> None:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            order.append("user ended")

    @task
    async def ends() -> None:
        await running.wait()
        raise raised

    with pytest.raises(raised):
        await TaskScheduler().run()

    assert ["user ended", "life closed"] == order


# Nothing is left


class Witness:
    """Something that a body had in its hands."""


def lifetimes_that_end_in_every_way(
    witnesses: list["weakref.ref[Witness]"],
) -> TaskRegistry:
    registry = TaskRegistry()

    def kept() -> Witness:
        witness = Witness()
        witnesses.append(weakref.ref(witness))
        return witness

    @registry.task
    async def well() -> AsyncIterator[None]:
        witness = kept()  # noqa: F841 - the frame is to hold it
        yield

    @registry.task(retries=2)
    async def in_set_up() -> AsyncIterator[None]:
        witness = kept()  # noqa: F841 - the frame is to hold it
        await checkpoint()
        raise ValueError("set-up")
        yield

    @registry.task
    async def in_teardown() -> AsyncIterator[None]:
        witness = kept()  # noqa: F841 - the frame is to hold it
        yield
        await checkpoint()
        raise ValueError("teardown")

    @registry.task
    async def while_open() -> AsyncIterator[None]:
        witness = kept()  # noqa: F841 - the frame is to hold it
        async with anyio.create_task_group() as group:
            group.start_soon(crash)
            yield

    @registry.task(timeout=0.01, retries=2)
    async def late_in_set_up() -> AsyncIterator[None]:
        witness = kept()  # noqa: F841 - the frame is to hold it
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("late in set-up")
        yield

    @registry.task(timeout=0.01)
    async def late_in_teardown() -> AsyncIterator[None]:
        witness = kept()  # noqa: F841 - the frame is to hold it
        yield
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("late in teardown")

    @registry.task
    async def twice() -> AsyncIterator[None]:
        witness = kept()  # noqa: F841 - the frame is to hold it
        yield
        yield

    registry.task("user", depends_on=[well, in_teardown, while_open, twice])(no_op)
    registry.task("skipped", depends_on=[in_set_up, well])(no_op)
    return registry


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.virtual_time
@pytest.mark.usefixtures("no_collector")
async def test_what_bodies_held_is_freed_with_the_results() -> None:
    """By its reference count, at once: the collector is off."""
    witnesses: list[weakref.ref[Witness]] = []
    scheduler = TaskScheduler(lifetimes_that_end_in_every_way(witnesses))
    results = await scheduler.run()
    alive = sum(witness() is not None for witness in witnesses)
    read = list(results)
    del results, scheduler, read

    assert 9 == len(witnesses)
    # Those of the seven failed attempts; what ended well, or yielded twice, holds nothing.
    assert 7 == alive
    assert [None] * 9 == [witness() for witness in witnesses]


async def quits() -> NoReturn:
    raise KeyboardInterrupt


async def quits_in_its_teardown() -> AsyncIterator[None]:
    yield
    raise KeyboardInterrupt


@pytest.mark.virtual_time
@pytest.mark.parametrize("quitting", [None, quits, quits_in_its_teardown])
def test_nothing_of_a_run_with_lifetimes_is_in_a_cycle(
    run_on_backend: Callable[..., Any], quitting: Callable[..., Any] | None
) -> None:
    """The collector, told to keep what it finds, finds nothing of ours and no task's exception."""
    tasks = lifetimes_that_end_in_every_way([])
    if quitting is not None:
        # While others are in a set-up that raises when it is cancelled.
        tasks.task("quits", after=["while_open"])(quitting)

    async def run_and_read() -> None:
        with suppress(KeyboardInterrupt):
            # Nothing is returned: event loops keep what their main task returned.
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


async def test_no_async_task_of_ours_is_left_when_the_run_returns() -> None:
    async def body() -> AsyncIterator[None]:
        await checkpoint()
        yield
        await checkpoint()

    for number in range(5):
        task(f"t{number}")(body)
        task(f"user of t{number}", depends_on=[f"t{number}"])(no_op)
    await TaskScheduler().run()

    assert [] == tasks_of_ours()


async def test_a_body_that_is_abandoned_before_it_has_begun_never_begins() -> None:
    """On trio it depends on chance which of the two tasks runs first; here it does not."""
    entered = []

    async def database() -> AsyncIterator[None]:
        entered.append(1)
        yield

    body = _lifetimes._Body(0, TaskDef(name="database", function=database))

    await body.abandon()
    await body.live(None, (), {})

    assert [] == entered

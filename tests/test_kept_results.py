"""Results that stay where the executor is."""

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any, NoReturn

import anyio
import pytest
from executor_runs import Held, in_time, one, running

from portable_sched import (
    ExecutorError,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskTimeoutError,
    WorkerDiedError,
)
from portable_sched._errors import error_text
from portable_sched._remote_failures import RemoteFailure

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize


def two() -> int:
    return 2


async def test_what_working_out_the_result_of_another_again_fails_with_is_told_so(
    registry: TaskRegistry,
) -> None:
    """A cluster may have lost it, and call that one's function once more."""
    registry.task("use", executor="far")(one)
    held = Held()
    async with running(TaskScheduler(registry, executors={"far": held})) as run:
        await in_time(lambda: held.calls)
        future, _ = held.calls.pop("use")
        future.set_exception(RemoteFailure(ValueError("no such row"), part=7, task="load"))

    assert (
        "ExecutorError: Task 'use' could not run, because of the executor 'far': fetching the "
        "result of 'load' failed: ValueError: no such row"
    ) == run.results["use"].error


class Handle:
    def __init__(self, value: Any) -> None:
        self.value = value


class Keeping(Held):
    """It keeps what it is asked to keep."""

    def __init__(self) -> None:
        super().__init__(4)
        self.fetched: list[Any] = []
        self.kept: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        values = [one.value if isinstance(one, Handle) else one for one in args]
        future: Future[Any] = Future()
        future.set_result(fn(*values, **kwargs))
        return future

    def keep(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        self.kept.append(args[0].task)
        future: Future[Any] = Future()
        future.set_result(Handle(self.submit(fn, *args).result()))
        return future

    def fetch(self, handle: Any) -> Any:
        self.fetched.append(handle.value)
        return handle.value


def twice(one: int) -> int:
    return 2 * one


@each("keep_results", [True, False])
async def test_a_result_stays_where_another_task_takes_it(
    registry: TaskRegistry, *, keep_results: bool
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task
    async def here(one: int, twice: int, factor: int = 10) -> int:
        return factor * (one + twice)

    @registry.task(executor="thread")
    def thread(one: int, /) -> int:
        return one

    executor = Keeping()
    scheduler = TaskScheduler(registry, executors={"far": executor}, keep_results=keep_results)

    results = await scheduler.run()

    assert ["one"] == executor.kept
    assert [1, 1] == executor.fetched
    assert (30, 1) == (results[here].result, results[thread].result)
    if keep_results:
        assert isinstance(results["one"].result, Handle)
        assert 2 == results["twice"].result


async def test_a_result_that_is_taken_as_a_whole_does_not_stay(registry: TaskRegistry) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task(after=["one"])
    async def here(one: TaskResult) -> Any:
        return one.result

    executor = Keeping()

    results = await TaskScheduler(registry, executors={"far": executor}).run()

    assert [] == executor.kept
    assert (1, 2) == (results[here].result, results["twice"].result)


async def test_what_stayed_in_an_executor_that_is_replaced_is_fetched(
    registry: TaskRegistry,
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)
    registry.task(executor="far", depends_on=["twice"])(two)

    @registry.task(after=["two"])
    async def here(one: int) -> int:
        return one

    class Brittle(Keeping):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            if args[0].task == "two":
                future = Future()
                future.set_exception(BrokenExecutor("it is gone"))
            return future

    executor = Brittle()

    results = await TaskScheduler(registry, executors={"far": lambda: executor}).run()

    assert isinstance(results["two"].exception, WorkerDiedError)
    assert 1 == results[here].result


@each(
    ("error", "text"),
    [
        (OSError("no route"), "OSError: no route"),
        (RemoteFailure(ValueError("no such row")), "ValueError: no such row"),
    ],
)
async def test_a_result_that_cannot_be_fetched_fails_who_takes_it(
    registry: TaskRegistry, error: Exception, text: str
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task
    async def here(one: int) -> int:
        return one

    executor = Keeping()

    def fetch(handle: Any) -> NoReturn:
        raise error

    executor.fetch = fetch  # type: ignore[method-assign]

    results = await TaskScheduler(registry, executors={"far": executor}).run()

    failure = results[here].exception
    assert isinstance(failure, ExecutorError)
    assert (
        "Task 'here' could not run, because of the executor 'far': fetching the result of 'one' "
        f"failed: {text}"
    ) == str(failure)
    assert text == error_text(failure.__cause__)


async def test_fetching_a_result_is_part_of_an_attempt_that_has_a_timeout(
    registry: TaskRegistry,
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)
    may_end = threading.Event()

    @registry.task(timeout=0.1)
    async def here(one: int) -> int:
        return one

    executor = Keeping()
    executor.fetch = lambda handle: may_end.wait(60)  # type: ignore[method-assign]

    with anyio.fail_after(30):
        results = await TaskScheduler(registry, executors={"far": executor}).run()

    may_end.set()
    assert isinstance(results[here].exception, TaskTimeoutError)


async def test_a_lifetime_gets_the_value_of_a_result_that_stays(registry: TaskRegistry) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task
    async def here(one: int) -> Any:
        yield one

    @registry.task
    async def user(here: int) -> int:
        return here

    results = await TaskScheduler(registry, executors={"far": Keeping()}).run()

    assert 1 == results[user].result


async def test_an_executor_that_keeps_nothing_is_not_asked_to(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task(executor="cpu")(one)
    registry.task(executor="cpu")(twice)

    @registry.task
    async def here(one: int) -> int:
        return one

    results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert [1, 2, 1] == [results[name].result for name in ("one", "twice", "here")]

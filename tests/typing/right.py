"""What users may write, and the types that they get. Read by type checkers alone, never run."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, assert_type

import anyio

from portable_sched import (
    AttemptFailure,
    CyclicDependencyError,
    DependencyError,
    DependencyFailedError,
    DuplicateTaskError,
    Graph,
    Priority,
    RunResults,
    TaskCancelledError,
    TaskDef,
    TaskError,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    clear_registry,
    task,
)

# The decorator's forms keep the signature.


@task
async def fetch(url: str = "here", *, verbose: bool = False) -> bytes:
    return b""


@task()
async def transform() -> list[str]:
    return []


@task("load-rows", Priority.LOW, 3, ["fetch", transform])
async def load(rows: int = 0) -> int:
    return rows


@task(name="count", priority=Priority.HIGH, retries=2, depends_on=(fetch, load))
def count(rows: Sequence[str] = ()) -> int:
    return len(rows)


registry = TaskRegistry()


@registry.task
def report() -> str:
    return ""


@registry.task(retries=2)
async def nothing() -> None: ...


async def use_the_functions() -> None:
    assert_type(await fetch("there", verbose=True), bytes)
    coroutine: Coroutine[Any, Any, bytes] = fetch()
    assert_type(await coroutine, bytes)
    assert_type(await transform(), list[str])
    assert_type(await load(rows=3), int)
    assert_type(count(["a"]), int)
    assert_type(report(), str)
    assert_type(await nothing(), None)


# Methods, partials and lambdas are functions too.


class Table:
    @registry.task("rows")
    async def rows(self) -> list[str]:
        return []

    async def size(self) -> int:
        return 0


async def use_other_callables() -> None:
    assert_type(await Table().rows(), list[str])
    assert_type(await task("size")(Table().size)(), int)
    assert_type(await task(name="fetch-there")(partial(fetch, "there"))(), bytes)
    number: int = task("one")(lambda: 1)()
    assert_type([number], list[int])


# A task's result has the type that its function returns.


async def read_results(results: RunResults) -> None:
    assert_type(results[fetch], TaskResult[bytes])
    assert_type(results[fetch].result, bytes | None)
    assert_type(results[transform].result, list[str] | None)
    assert_type(results[load].result, int | None)
    assert_type(results[count], TaskResult[int])
    assert_type(results[report].result, str | None)
    assert_type(results[nothing], TaskResult[None])

    assert_type(results["fetch"], TaskResult[Any])
    assert_type(results[0], TaskResult[Any])
    assert_type(results[1:], list[TaskResult[Any]])
    assert_type(len(results), int)
    assert_type(results.counts(), dict[TaskStatus, int])
    assert_type(results.wall_time, float)
    assert_type(results.most_running, int)
    for result in results:
        assert_type(result, TaskResult[Any])
    as_sequence: Sequence[TaskResult[Any]] = results
    assert_type(as_sequence[0].task_name, str)


def read_a_result(result: TaskResult[bytes]) -> None:
    assert_type(result.task_name, str)
    assert_type(result.status, TaskStatus)
    assert_type(result.error, str | None)
    assert_type(result.exception, BaseException | None)
    assert_type(result.attempts, int)
    assert_type(result.duration, float)
    assert_type(result.started_at, float | None)
    assert_type(result.failures, tuple[AttemptFailure, ...])
    for failure in result.failures:
        assert_type(failure.attempt, int)
        assert_type(failure.exception, BaseException)
    read_a_general_result(result)


def read_a_general_result(result: TaskResult[object]) -> None:
    assert_type(result.result, object | None)


# The scheduler


def build_schedulers(tasks: Iterable[TaskDef], functions: list[Callable[[], int]]) -> None:
    TaskScheduler()
    TaskScheduler(None, max_concurrency=None)
    TaskScheduler(registry, max_concurrency=4)
    TaskScheduler([fetch, transform, count])
    TaskScheduler(tasks)
    TaskScheduler(functions)
    TaskScheduler([*registry, fetch])
    TaskScheduler(each for each in registry)


def run_in_an_event_loop_of_its_own(scheduler: TaskScheduler) -> None:
    assert_type(asyncio.run(scheduler.run()), RunResults)
    assert_type(anyio.run(scheduler.run), RunResults)


async def use_a_scheduler() -> None:
    async with TaskScheduler() as scheduler:
        assert_type(scheduler, TaskScheduler)
        assert_type(await scheduler.run(), RunResults)
    assert_type(scheduler.results, RunResults)
    assert_type(scheduler.graph, Graph)
    assert_type(scheduler.report(), str)
    assert_type(scheduler.report(scheduler.results), str)
    assert_type(scheduler.status_snapshot(), Iterator[tuple[str, TaskStatus]])


class OwnScheduler(TaskScheduler):
    pass


async def use_a_subclass() -> None:
    async with OwnScheduler() as scheduler:
        assert_type(scheduler, OwnScheduler)


# Registries, definitions, graphs


def use_a_registry() -> None:
    assert_type(registry["fetch"], TaskDef)
    assert_type(len(registry), int)
    assert_type("fetch" in registry, bool)
    for definition in registry:
        assert_type(definition.name, str)
        assert_type(definition.function, Callable[..., Any])
        assert_type(definition.priority, Priority)
        assert_type(definition.retries, int)
        assert_type(definition.depends_on, tuple[str, ...])
        assert_type(definition.is_async(), bool)
    registry.clear()
    clear_registry()


def use_a_graph() -> None:
    graph = Graph(registry)
    assert_type(graph.tasks, tuple[TaskDef, ...])
    assert_type(graph.numbers, dict[str, int])
    assert_type(graph.dependencies, list[Sequence[int]])
    assert_type(graph.dependents, list[Sequence[int]])
    assert_type(graph.remaining_path(), list[float])
    Graph([TaskDef(name="fetch", function=fetch, depends_on=("other",))])


# Errors


def read_errors(error: TaskError) -> None:
    if isinstance(error, DependencyError):
        assert_type(error.task, str)
        assert_type(error.dependency, str)
        assert_type(error.nearest, tuple[str, ...])
    if isinstance(error, CyclicDependencyError):
        assert_type(error.path, tuple[str, ...])
    if isinstance(error, DuplicateTaskError):
        assert_type(error.existing, str)
        assert_type(error.refused, str)
    if isinstance(error, TaskTimeoutError):
        assert_type(error.timeout, float)
        timeout_error: TimeoutError = error
        assert_type(str(timeout_error), str)
    if isinstance(error, DependencyFailedError):
        assert_type(error.root_cause, str)
        assert_type(error.reason, str)
    if isinstance(error, TaskCancelledError):
        assert_type(error.task, str)

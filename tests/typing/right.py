"""What users may write, and the types that they get. Read by type checkers alone, never run."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Annotated, Any, Literal, Self, assert_type

import anyio

from portable_sched import (
    AttemptCancelled,
    AttemptCompleted,
    AttemptEnded,
    AttemptEvent,
    AttemptFailed,
    AttemptFailure,
    Backoff,
    CyclicDependencyError,
    DependencyError,
    DependencyFailedError,
    DuplicateTaskError,
    Event,
    ExecutorError,
    FailurePolicy,
    Graph,
    InputError,
    LifetimeError,
    NoRetry,
    NotPicklableError,
    Parameter,
    ParameterError,
    Priority,
    RemoteTaskError,
    ResourceError,
    ResultOf,
    ResultTypeWarning,
    RunFinished,
    RunResults,
    RunStarted,
    TaskCancelledError,
    TaskCompleted,
    TaskDef,
    TaskError,
    TaskEvent,
    TaskFailed,
    TaskRegistry,
    TaskResult,
    TaskRetrying,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    UnknownExecutorError,
    UnknownTargetError,
    WorkerDiedError,
    carry,
    clear_registry,
    task,
)
from portable_sched.testing import (
    ExecutorReport,
    Finding,
    PlannedFailure,
    Recorder,
    VirtualTimeLoop,
    check_executor,
    run_graph,
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


# A function that yields once keeps its signature too.


@task(timeout=5, resources=["db"])
async def connect(url: str = "here") -> AsyncIterator[bytearray]:
    yield bytearray()


@task
async def open_file() -> AsyncGenerator[str]:
    yield ""


@task("session")
async def open_session() -> AsyncGenerator[dict[str, int], None]:
    yield {}


async def use_the_lifetimes() -> None:
    assert_type(connect("there"), AsyncIterator[bytearray])
    async for connection in connect():
        assert_type(connection, bytearray)
    async with asynccontextmanager(open_session)() as one:
        assert_type(one, dict[str, int])
    await open_file().aclose()


# Parameters are filled by name, or as marked: no checker needs to know.


@task(after=[fetch], depends_on=["transform"])
async def store(
    connect: bytearray,
    rows: Annotated[int, ResultOf("load-rows")],
    lines: Annotated[Sequence[str], ResultOf(transform)],
    date: str,
    /,
    *,
    limit: Annotated[int, ResultOf(count)] = 3,
) -> float:
    assert_type(rows, int)
    assert_type(lines, Sequence[str])
    assert_type(limit, int)
    return 0.5


async def tell(fetch: TaskResult[bytes]) -> None:
    assert_type(fetch.unwrap(), bytes)


# Settings


def is_busy(error: Exception) -> bool:
    return "busy" in str(error)


def wait(attempt: int, error: Exception) -> float:
    return getattr(error, "retry_after", 1.0 * attempt)


def settings() -> None:
    task("a", retry_on=OSError)(fetch)
    task("b", retry_on=[OSError, TimeoutError])(fetch)
    task("c", retry_on=(OSError, ValueError))(fetch)
    task("d", retry_on=is_busy)(fetch)
    task("e", retry_on=lambda error: bool(error.args))(fetch)
    task("f", backoff=Backoff())(fetch)
    task("g", backoff=Backoff(initial=0.5, factor=3, maximum=10, jitter=0))(fetch)
    task("h", backoff=wait)(fetch)
    task("i", backoff=lambda attempt, error: 2)(fetch)
    task("j", resources={"db": 2})(fetch)
    task("k", resources=("db", "gpu"), estimate=90, timeout=0.5)(fetch)
    task("l", after=[fetch, "transform", registry["rows"]], depends_on=[connect])(tell)
    assert_type(Backoff().delay(3), float)
    assert_type(Backoff().initial, float)
    assert_type(ResultOf("fetch").task, str | Callable[..., object])


async def gives_up() -> None:
    raise NoRetry("the account is closed") from LookupError()


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
    assert_type(results[store], TaskResult[float])
    # Of one that yields, what it yields.
    assert_type(results[connect], TaskResult[bytearray])
    assert_type(results[open_file], TaskResult[str])
    assert_type(results[open_session], TaskResult[dict[str, int]])

    assert_type(results[fetch].unwrap(), bytes)
    assert_type(results[connect].unwrap(), bytearray)
    assert_type(results[count].unwrap() + 1, int)
    assert_type(results["fetch"].unwrap(), Any)

    assert_type(results.ok, bool)
    assert_type(results.order, str)
    assert_type(results.completed, list[TaskResult[Any]])
    assert_type(results.failed, list[TaskResult[Any]])
    assert_type(results.cancelled, list[TaskResult[Any]])
    results.raise_for_failures()
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
    assert_type(result.ok, bool)
    assert_type(result.unwrap(), bytes)
    # `ok` says nothing about `result` to a type checker; `unwrap()` does, and so does `None`.
    if result.ok:
        assert_type(result.result, bytes | None)
    if result.result is not None:
        assert_type(result.result, bytes)
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
        assert_type(failure.duration, float)
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
    TaskScheduler(
        [connect, open_file],
        resources={"db": 4},
        on_failure=FailurePolicy.DRAIN,
        inherit_priority=True,
        keep_results=False,
        observers=[Recorder(), print, watch, lambda event: event.at],
        attempt_hooks=[trace, around],
    )
    TaskScheduler(observers=(watch for _ in range(2)), attempt_hooks=(trace,))


def watch(event: Event) -> None:
    assert_type(event.at, float)
    if isinstance(event, TaskEvent):
        assert_type(event.task, str)
    if isinstance(event, AttemptEvent):
        assert_type(event.attempt, int)
    if isinstance(event, AttemptEnded):
        assert_type(event.duration, float)
    if isinstance(event, AttemptFailed):
        assert_type(event.exception, BaseException)
    match event:
        case RunStarted(tasks=names):
            assert_type(names, tuple[str, ...])
        case RunFinished(results=results):
            assert_type(results, RunResults)
        case TaskRetrying(task=name, attempt=attempt, delay=delay):
            assert_type(name, str)
            assert_type(attempt, int)
            assert_type(delay, float)
        case TaskCompleted(duration=duration):
            assert_type(duration, float)
        case TaskFailed(error=error):
            assert_type(error, str)
        case AttemptCompleted() | AttemptCancelled():
            assert_type(event, AttemptCompleted | AttemptCancelled)
        case _:
            pass


@asynccontextmanager
async def trace(definition: TaskDef, attempt: int) -> AsyncGenerator[str]:
    assert_type(definition.name, str)
    yield f"{definition.name} {attempt}"


class Span:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def around(definition: TaskDef, attempt: int) -> Span:
    return Span()


def read_a_hook() -> None:
    hook: Callable[[TaskDef, int], AbstractAsyncContextManager[object]] = trace
    TaskScheduler(attempt_hooks=[hook])


def run_in_an_event_loop_of_its_own(scheduler: TaskScheduler) -> None:
    assert_type(asyncio.run(scheduler.run()), RunResults)
    assert_type(anyio.run(scheduler.run), RunResults)


async def use_a_scheduler() -> None:
    async with TaskScheduler() as scheduler:
        assert_type(scheduler, TaskScheduler)
        assert_type(await scheduler.run(), RunResults)
    assert_type(await scheduler.run(["load-rows", fetch, registry["rows"]]), RunResults)
    assert_type(await scheduler.run(targets=[connect]), RunResults)
    assert_type(await scheduler.run(inputs={"date": "today", "limit": 3}), RunResults)
    assert_type(await scheduler.run(order="reverse"), RunResults)
    assert_type(await scheduler.run(order="shuffle", seed=7), RunResults)
    order: Literal["priority", "reverse", "shuffle"] = "priority"
    inputs: Mapping[str, object] = {}
    assert_type(await scheduler.run(None, inputs=inputs, order=order, seed=None), RunResults)
    assert_type(scheduler.tasks, tuple[TaskDef, ...])
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
        assert_type(definition.after, tuple[str, ...])
        assert_type(definition.timeout, float | None)
        assert_type(definition.estimate, float | None)
        assert_type(definition.resources, tuple[tuple[str, int], ...])
        assert_type(definition.parameters, tuple[Parameter, ...])
        assert_type(definition.is_async(), bool)
        assert_type(definition.is_lifetime(), bool)
        for parameter in definition.parameters:
            assert_type(parameter.name, str)
            assert_type(parameter.required, bool)
            assert_type(parameter.result_of, str | Callable[..., object] | None)
    registry.clear()
    clear_registry()


def use_a_graph() -> None:
    graph = Graph(registry)
    assert_type(graph.tasks, tuple[TaskDef, ...])
    assert_type(graph.numbers, dict[str, int])
    assert_type(graph.dependencies, list[Sequence[int]])
    assert_type(graph.dependents, list[Sequence[int]])
    assert_type(graph.remaining_path(), list[float])
    assert_type(len(graph), int)
    assert_type(graph.order, list[str])
    assert_type(graph.levels(), list[list[str]])
    assert_type(graph.critical_path(), list[str])
    assert_type(graph.subset(["fetch"]), Graph)
    assert_type(graph.waits_for(0), Sequence[int])
    assert_type(graph.inputs, dict[str, list[str]])
    Graph(registry, inherit_priority=True)
    Graph([TaskDef(name="fetch", function=fetch, depends_on=("other",))])


# Testing


def test_a_graph() -> None:
    recorder = Recorder()
    assert_type(run_graph(), RunResults)
    results = run_graph(
        registry,
        targets=["rows", fetch],
        inputs={"date": "today"},
        order="shuffle",
        seed=7,
        replace={fetch: lambda: b"rows", "transform": transform},
        fail={"load-rows": [1, 2], connect: range(3)},
        seconds={fetch: 3600, "transform": 0.5},
        virtual_time=False,
        backend="trio",
        observers=[recorder],
        max_concurrency=3,
    )
    assert_type(results[fetch].unwrap(), bytes)
    assert_type(recorder.events, list[Event])
    assert_type(recorder.started, list[str])
    assert_type(recorder.ended, list[str])
    assert_type(recorder.of(fetch), list[TaskEvent])
    assert_type(recorder.started_before(fetch, "load-rows"), Finding)
    assert_type(recorder.ended_before("load-rows", registry["rows"]), Finding)
    assert_type(recorder.overlapped(fetch, transform), Finding)
    assert_type(bool(recorder.overlapped(fetch, transform)), bool)
    assert_type(recorder.overlapped(fetch, transform).seen, str)
    assert_type(PlannedFailure("fetch", 1).attempt, int)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert_type(runner.run(transform()), list[str])


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
    if isinstance(error, ParameterError):
        assert_type(error.parameter, str)
    if isinstance(error, ResourceError):
        assert_type(error.asked, int)
        assert_type(error.available, int | None)
    if isinstance(error, InputError):
        assert_type(error.is_task, bool)
        value_error: ValueError = error
        assert_type(str(value_error), str)
    if isinstance(error, UnknownTargetError):
        assert_type(error.nearest, tuple[str, ...])
    if isinstance(error, LifetimeError):
        assert_type(error.problem, str)
    warning: type[UserWarning] = ResultTypeWarning
    assert_type(warning.__name__, str)


def read_errors_of_executors(error: TaskError) -> None:
    if isinstance(error, UnknownExecutorError):
        assert_type(error.known, tuple[str, ...])
    if isinstance(error, RemoteTaskError):
        assert_type(error.kind, str)
        assert_type(error.traceback, str)
    if isinstance(error, WorkerDiedError):
        assert_type(error.running, tuple[str, ...])
    if isinstance(error, NotPicklableError):
        assert_type(error.part, str)
    if isinstance(error, ExecutorError):
        assert_type(error.reason, str)


def executors(mine: Executor) -> None:
    task("l", executor="process")(fetch)
    TaskScheduler(executors={"given": mine, "threads": ThreadPoolExecutor(2)})
    TaskScheduler(executors={"made": lambda: ProcessPoolExecutor(2), "class": ProcessPoolExecutor})
    carry(nullcontext, "an argument")
    report = check_executor(lambda: ThreadPoolExecutor(1), backend="trio")
    assert_type(report, ExecutorReport)
    assert_type(report.workers, int | None)

"""What users may not write: each line is an error to the type checkers, or they complain of it."""

import asyncio
from collections.abc import AsyncIterator

from portable_sched import (
    Backoff,
    Event,
    FailurePolicy,
    Graph,
    Priority,
    ResultOf,
    RunResults,
    RunStarted,
    TaskDef,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStarted,
    TaskTimeoutError,
    clear_registry,
    task,
)
from portable_sched.testing import Recorder, run_graph

registry = TaskRegistry()


@task
async def fetch(url: str = "here") -> bytes:
    return b""


@task
async def connect(url: str = "here") -> AsyncIterator[bytearray]:
    yield bytearray()


def take_text(text: str) -> None: ...


# Settings


@task(priority="HIGH")  # type: ignore[call-overload,untyped-decorator]
async def wrong_priority() -> None: ...


@task(retries="3")  # type: ignore[call-overload,untyped-decorator]
async def wrong_retries() -> None: ...


@task(depends_on=fetch)  # type: ignore[call-overload,untyped-decorator]
async def one_function_for_a_list() -> None: ...


@task(depends_on=[1])  # type: ignore[list-item]
async def wrong_dependency() -> None: ...


@task(retry=3)  # type: ignore[call-overload,untyped-decorator]
async def unknown_setting() -> None: ...


def text_of(error: Exception) -> str:
    return str(error)


def wait(attempt: int) -> float:
    return 1.0 * attempt


task(timeout="5")  # type: ignore[call-overload]
task(estimate="long")  # type: ignore[call-overload]
task(resources=3)  # type: ignore[call-overload]
task(executor=3)  # type: ignore[call-overload]
task(after=fetch)  # type: ignore[call-overload]
task(retry_on=KeyboardInterrupt)  # type: ignore[arg-type]
task(retry_on=[ValueError()])  # type: ignore[list-item]
task(retry_on=text_of)  # type: ignore[arg-type]
task(backoff=3)  # type: ignore[call-overload]
task(backoff=wait)  # type: ignore[arg-type]
task("a", Priority.LOW, 3, [], [])  # type: ignore[call-overload]
Backoff(1)  # type: ignore[call-arg]
Backoff(initial="1")  # type: ignore[arg-type]
Backoff().factor = 3  # type: ignore[misc]
ResultOf(5)  # type: ignore[arg-type]

task(5)  # type: ignore[call-overload]
task(fetch())  # type: ignore[call-overload]
registry.task(fetch, retries=3)  # type: ignore[call-overload]
task("fetch")(5)  # type: ignore[type-var]
clear_registry(registry)  # type: ignore[call-arg]


# The signature is kept, so a wrong call of a task is found too.


async def call_wrongly() -> None:
    await fetch(5)  # type: ignore[arg-type]
    take_text(await fetch())  # type: ignore[arg-type]
    connect(5)  # type: ignore[arg-type]
    await connect()  # type: ignore[misc]
    async for connection in connect():
        take_text(connection)  # type: ignore[arg-type]


# Definitions and graphs

TaskDef("fetch", fetch)  # type: ignore[call-arg]
TaskDef(name="fetch")  # type: ignore[call-arg]
TaskDef(name="fetch", function=fetch, depends_on=[5])  # type: ignore[list-item]
TaskDef(name="fetch", function=5)  # type: ignore[arg-type]
TaskDef(name="fetch", function=fetch).retries = 2  # type: ignore[misc]
Graph([fetch])  # type: ignore[list-item]
Graph(registry, 5)  # type: ignore[arg-type,call-arg]
Graph(registry).order = ["fetch"]  # type: ignore[misc]
take_text(Graph(registry).levels()[0])  # type: ignore[arg-type]
take_text(Priority.URGENT)  # type: ignore[attr-defined]


# The scheduler

TaskScheduler("fetch")  # type: ignore[arg-type]
TaskScheduler(["fetch"])  # type: ignore[list-item]
TaskScheduler(registry, 4)  # type: ignore[call-arg]
TaskScheduler(max_concurrency="4")  # type: ignore[arg-type]
TaskScheduler(on_failure="CANCEL")  # type: ignore[arg-type]
TaskScheduler(on_failure=FailurePolicy.STOP)  # type: ignore[attr-defined]
TaskScheduler(resources=["db"])  # type: ignore[arg-type]
TaskScheduler(resources={"db": 1.5})  # type: ignore[dict-item]
TaskScheduler(executors={"cpu": 2})  # type: ignore[dict-item]
TaskScheduler(executors=["cpu"])  # type: ignore[arg-type]
TaskScheduler(inherit_priority="yes")  # type: ignore[arg-type]
TaskScheduler(observers=print)  # type: ignore[arg-type]
TaskScheduler(observers=["print"])  # type: ignore[list-item]
TaskScheduler(attempt_hooks=[print])  # type: ignore[list-item]


def watch_starts(event: TaskStarted) -> None: ...


async def trace(definition: TaskDef, attempt: int) -> None: ...


# It is told everything, not starts alone; and a hook is no coroutine.
TaskScheduler(observers=[watch_starts])  # type: ignore[list-item]
TaskScheduler(attempt_hooks=[trace])  # type: ignore[list-item]


def read_wrongly(event: Event, result: TaskResult[bytes]) -> None:
    take_text(event.task)  # type: ignore[attr-defined]
    event.at = 3.0  # type: ignore[misc]
    take_text(result.unwrap())  # type: ignore[arg-type]
    if result.ok:
        result.result.decode()  # type: ignore[union-attr]
    result.ok = True  # type: ignore[misc]


RunStarted(0.0, ())  # type: ignore[call-arg]


async def use_wrongly(scheduler: TaskScheduler, results: RunResults) -> None:
    scheduler.report(scheduler.run())  # type: ignore[arg-type]
    scheduler.report(list(results))  # type: ignore[arg-type]
    await scheduler.run(5)  # type: ignore[arg-type]
    await scheduler.run(fetch)  # type: ignore[arg-type]
    await scheduler.run([5])  # type: ignore[list-item]
    await scheduler.run(None, {"date": "today"})  # type: ignore[call-arg]
    await scheduler.run(inputs=["date"])  # type: ignore[arg-type]
    await scheduler.run(order="random")  # type: ignore[arg-type]
    await scheduler.run(order="shuffle", seed="7")  # type: ignore[arg-type]
    await scheduler.stop()  # type: ignore[func-returns-value,misc]
    scheduler.tasks = ()  # type: ignore[misc]
    take_text(results[connect].unwrap())  # type: ignore[arg-type]
    results.ok = True  # type: ignore[misc]
    scheduler.results = results  # type: ignore[misc]
    results[0] = results[1]  # type: ignore[index]
    results[1.0]  # type: ignore[call-overload]
    results[None]  # type: ignore[call-overload]
    take_text(results[fetch].result or "")  # type: ignore[arg-type]
    results[fetch].result.decode()  # type: ignore[union-attr]
    results[fetch].attempts = 2  # type: ignore[misc]


asyncio.run(TaskScheduler().run)  # type: ignore[arg-type]
TaskTimeoutError("fetch")  # type: ignore[call-arg]


def test_wrongly(recorder: Recorder) -> None:
    run_graph(registry, backend="curio")  # type: ignore[arg-type]
    run_graph(registry, order="random")  # type: ignore[arg-type]
    run_graph(registry, fail={"fetch": 1})  # type: ignore[dict-item]
    run_graph(registry, seconds={"fetch": "1"})  # type: ignore[dict-item]
    run_graph(registry, replace={"fetch": b"rows"})  # type: ignore[dict-item]
    recorder.of(5)  # type: ignore[arg-type]
    recorder.started_before("fetch")  # type: ignore[call-arg]
    take_text(recorder.overlapped("a", "b"))  # type: ignore[arg-type]

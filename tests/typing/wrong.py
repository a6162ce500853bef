"""What users may not write: each line is an error to the type checkers, or they complain of it."""

import asyncio

from portable_sched import (
    Graph,
    Priority,
    RunResults,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
    TaskTimeoutError,
    clear_registry,
    task,
)

registry = TaskRegistry()


@task
async def fetch(url: str = "here") -> bytes:
    return b""


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


task(5)  # type: ignore[call-overload]
task(fetch())  # type: ignore[call-overload]
registry.task(fetch, retries=3)  # type: ignore[call-overload]
task("fetch")(5)  # type: ignore[type-var]
clear_registry(registry)  # type: ignore[call-arg]


# The signature is kept, so a wrong call of a task is found too.


async def call_wrongly() -> None:
    await fetch(5)  # type: ignore[arg-type]
    take_text(await fetch())  # type: ignore[arg-type]


# Definitions and graphs

TaskDef("fetch", fetch)  # type: ignore[call-arg]
TaskDef(name="fetch")  # type: ignore[call-arg]
TaskDef(name="fetch", function=fetch, depends_on=[5])  # type: ignore[list-item]
TaskDef(name="fetch", function=5)  # type: ignore[arg-type]
TaskDef(name="fetch", function=fetch).retries = 2  # type: ignore[misc]
Graph([fetch])  # type: ignore[list-item]
take_text(Priority.URGENT)  # type: ignore[attr-defined]


# The scheduler

TaskScheduler("fetch")  # type: ignore[arg-type]
TaskScheduler(["fetch"])  # type: ignore[list-item]
TaskScheduler(registry, 4)  # type: ignore[call-arg]
TaskScheduler(max_concurrency="4")  # type: ignore[arg-type]


async def use_wrongly(scheduler: TaskScheduler, results: RunResults) -> None:
    scheduler.report(scheduler.run())  # type: ignore[arg-type]
    scheduler.report(list(results))  # type: ignore[arg-type]
    await scheduler.run(5)  # type: ignore[arg-type]
    scheduler.results = results  # type: ignore[misc]
    results[0] = results[1]  # type: ignore[index]
    results[1.0]  # type: ignore[call-overload]
    results[None]  # type: ignore[call-overload]
    take_text(results[fetch].result or "")  # type: ignore[arg-type]
    results[fetch].result.decode()  # type: ignore[union-attr]
    results[fetch].attempts = 2  # type: ignore[misc]


asyncio.run(TaskScheduler().run)  # type: ignore[arg-type]
TaskTimeoutError("fetch")  # type: ignore[call-arg]

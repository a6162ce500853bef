"""What was asked for, sentence by sentence. Each of the other files goes into one part of it."""

import ast
import dataclasses
import enum
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import portable_sched
from portable_sched import (
    CyclicDependencyError,
    DependencyError,
    Priority,
    TaskDef,
    TaskError,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    clear_registry,
    task,
)

pytestmark = pytest.mark.anyio

PENDING, RUNNING = TaskStatus.PENDING, TaskStatus.RUNNING
COMPLETED, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED


async def do_nothing() -> None: ...


# What you will build


async def test_fetch_transform_and_load_run_in_that_order_and_are_reported() -> None:
    data: list[str] = []
    saved: list[str] = []

    @task(name="fetch", priority=Priority.HIGH)
    async def fetch() -> list[str]:
        await anyio.lowlevel.checkpoint()
        data.extend([" a", "b "])
        return data

    @task(name="transform", depends_on=["fetch"])
    async def transform() -> list[str]:
        data[:] = [each.strip() for each in data]
        return data

    @task(name="load", depends_on=["transform"], priority=Priority.LOW, retries=3)
    async def load() -> None:
        saved.extend(data)

    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert ["a", "b"] == saved
    assert [COMPLETED] * 3 == [result.status for result in results]
    assert ["fetch", "transform", "load"] == [
        line.split()[0] for line in scheduler.report(results).splitlines()[2:-1]
    ]


def test_the_same_program_runs_by_the_backends_own_run(run_on_backend: Callable[..., Any]) -> None:
    @task
    async def fetch() -> str:
        return "rows"

    results = run_on_backend(TaskScheduler().run)

    assert "rows" == results[fetch].result


# Task definition


async def test_tasks_are_async_functions_decorated_with_task() -> None:
    @task()
    async def fetch() -> str:
        await anyio.lowlevel.checkpoint()
        return "rows"

    results = await TaskScheduler().run()

    assert "rows" == results["fetch"].result


async def test_the_decorator_accepts_a_name() -> None:
    @task(name="fetch-rows")
    async def fetch() -> None: ...

    results = await TaskScheduler().run()

    assert ["fetch-rows"] == [result.task_name for result in results]


def test_the_name_defaults_to_the_functions_name() -> None:
    @task(priority=Priority.HIGH)
    async def fetch() -> None: ...

    assert ["fetch"] == list(TaskScheduler().graph.numbers)


def test_a_name_is_unique() -> None:
    @task(name="fetch")
    async def one() -> None: ...

    with pytest.raises(TaskError):

        @task(name="fetch")
        async def other() -> None: ...

    assert one is TaskScheduler().graph.tasks[0].function


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.MEDIUM, Priority.LOW])
def test_the_decorator_accepts_each_priority(priority: Priority) -> None:
    task(priority=priority)(do_nothing)

    assert priority is TaskScheduler().graph.tasks[0].priority


async def test_retries_is_how_many_times_a_task_is_attempted_before_giving_up() -> None:
    @task(retries=3)
    async def load() -> None:
        raise ConnectionError

    results = await TaskScheduler().run()

    assert 3 == results["load"].attempts
    assert FAILED is results["load"].status


async def test_retries_defaults_to_one_attempt() -> None:
    @task
    async def load() -> None:
        raise ConnectionError

    results = await TaskScheduler().run()

    assert 1 == results["load"].attempts


@pytest.mark.virtual_time
async def test_tasks_in_depends_on_complete_before_the_task_starts() -> None:
    ended: list[str] = []

    @task
    async def slow() -> None:
        await anyio.sleep(2)
        ended.append("slow")

    @task
    async def quick() -> None:
        await anyio.sleep(1)
        ended.append("quick")

    @task(depends_on=["slow", "quick"])
    async def last() -> list[str]:
        return list(ended)

    results = await TaskScheduler().run()

    assert ["quick", "slow"] == results["last"].result


def test_decorating_registers_in_a_registry_that_all_modules_share() -> None:
    for module in ["extract", "store"]:
        exec(f"import portable_sched\n@portable_sched.task\nasync def {module}(): ...", {})

    assert ["extract", "store"] == list(TaskScheduler().graph.numbers)


def test_clear_registry_forgets_every_task() -> None:
    task(do_nothing)
    clear_registry()

    assert 0 == len(TaskScheduler().graph)


# Priority


def test_priority_is_an_enum_of_high_1_medium_2_low_3() -> None:
    assert issubclass(Priority, enum.Enum)
    assert {"HIGH": 1, "MEDIUM": 2, "LOW": 3} == {each.name: each.value for each in Priority}


@pytest.mark.parametrize("max_concurrency", [1, 2, None])
async def test_of_two_ready_tasks_the_one_of_higher_priority_starts_first(
    max_concurrency: int | None,
) -> None:
    for _ in range(20):
        started: list[Priority] = []
        registry = TaskRegistry()

        def starter(priority: Priority, started: list[Priority] = started) -> Callable[..., Any]:
            async def start() -> None:
                started.append(priority)
                await anyio.lowlevel.checkpoint()

            return start

        for priority in [Priority.LOW, Priority.MEDIUM, Priority.HIGH]:
            registry.task(priority.name, priority)(starter(priority))
        await TaskScheduler(registry, max_concurrency=max_concurrency).run()

        assert [Priority.HIGH, Priority.MEDIUM, Priority.LOW] == started


async def test_tasks_that_become_ready_together_start_by_priority() -> None:
    started: list[str] = []

    @task
    async def first() -> None: ...

    @task(priority=Priority.LOW, depends_on=[first])
    async def low() -> None:
        started.append("low")

    @task(priority=Priority.HIGH, depends_on=[first])
    async def high() -> None:
        started.append("high")

    await TaskScheduler().run()

    assert ["high", "low"] == started


# Dependency resolution


async def test_the_order_is_a_topological_sort_of_the_dependency_graph() -> None:
    started: list[str] = []

    def starter(name: str) -> Callable[..., Any]:
        async def start() -> None:
            started.append(name)

        return start

    depends_on = {"roof": ["walls"], "walls": ["base"], "garden": [], "base": ["plan"], "plan": []}
    for name, needed in depends_on.items():
        task(name, depends_on=needed)(starter(name))
    results = await TaskScheduler().run()

    for order in [started, [result.task_name for result in results]]:
        assert depends_on.keys() == set(order)
        assert all(
            order.index(each) < order.index(name)
            for name, needed in depends_on.items()
            for each in needed
        )


@pytest.mark.parametrize(
    "depends_on",
    [
        {"a": ["a"]},
        {"a": ["b"], "b": ["a"]},
        {"first": [], "a": ["c", "first"], "b": ["a"], "c": ["b"], "last": ["c"]},
    ],
)
async def test_a_cycle_raises_cyclic_dependency_error_and_nothing_starts(
    depends_on: dict[str, list[str]],
) -> None:
    started: list[str] = []

    async def start() -> None:
        started.append("one")

    for name, needed in depends_on.items():
        task(name, depends_on=needed)(start)

    with pytest.raises(CyclicDependencyError):
        await TaskScheduler().run()

    assert [] == started


async def test_an_unknown_dependency_raises_dependency_error_and_nothing_starts() -> None:
    started: list[str] = []

    @task
    async def first() -> None:
        started.append("first")

    @task(depends_on=["first", "missing"])
    async def second() -> None: ...

    with pytest.raises(DependencyError):
        await TaskScheduler().run()

    assert [] == started


# Execution


async def test_tasks_run_concurrently() -> None:
    """Each waits for the other to have started, so one after the other would never end."""
    here, there = anyio.Event(), anyio.Event()

    @task
    async def one() -> None:
        here.set()
        await there.wait()

    @task
    async def other() -> None:
        there.set()
        await here.wait()

    results = await TaskScheduler().run()

    assert [COMPLETED, COMPLETED] == [result.status for result in results]


async def test_a_task_does_not_start_unless_its_dependencies_completed_successfully() -> None:
    started: list[str] = []

    @task
    async def good() -> None: ...

    @task
    async def bad() -> None:
        raise ValueError

    @task(depends_on=["good", "bad"])
    async def dependent() -> None:
        started.append("dependent")

    results = await TaskScheduler().run()

    assert [] == started
    assert FAILED is results["dependent"].status
    assert 0 == results["dependent"].attempts


async def test_a_failed_task_with_retries_left_is_run_again_until_it_succeeds() -> None:
    attempts: list[int] = []

    @task(retries=5)
    async def flaky() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError
        return "done"

    results = await TaskScheduler().run()

    assert 3 == len(attempts)
    assert "done" == results["flaky"].result
    assert COMPLETED is results["flaky"].status


async def test_dependents_of_a_task_that_succeeds_at_its_last_attempt_run() -> None:
    left = [ConnectionError(), ConnectionError()]

    @task(retries=3)
    async def flaky() -> None:
        if left:
            raise left.pop()

    @task(depends_on=[flaky])
    async def dependent() -> None: ...

    results = await TaskScheduler().run()

    assert [COMPLETED, COMPLETED] == [result.status for result in results]


@pytest.mark.parametrize("ends", [COMPLETED, FAILED])
async def test_a_status_goes_from_pending_by_running_to_completed_or_failed(
    ends: TaskStatus,
) -> None:
    seen: list[TaskStatus] = []

    def look() -> None:
        seen.append(dict(scheduler.status_snapshot())["watched"])

    @task
    async def before() -> None:
        look()

    @task(depends_on=["before"])
    async def watched() -> None:
        look()
        if ends is FAILED:
            raise ValueError

    scheduler = TaskScheduler()
    look()
    await scheduler.run()
    look()

    assert [PENDING, PENDING, RUNNING, ends] == seen


# Reporting


async def report_lines() -> list[str]:
    @task
    async def fetch() -> None: ...

    @task(retries=2)
    async def load() -> None:
        raise ValueError("no such table")

    scheduler = TaskScheduler()
    return scheduler.report(await scheduler.run()).splitlines()


@pytest.mark.parametrize(
    ("heading", "fetch", "load"),
    [
        ("Task", "fetch", "load"),
        ("Status", "COMPLETED", "FAILED"),
        ("Attempts", "1", "2"),
    ],
)
async def test_the_report_has_a_column_of(heading: str, fetch: str, load: str) -> None:
    rows = [line.split() for line in await report_lines()]
    column = rows[0].index(heading)

    assert [fetch, load] == [rows[2][column], rows[3][column]]


@pytest.mark.virtual_time
async def test_the_report_has_durations_in_seconds() -> None:
    @task
    async def slow() -> None:
        await anyio.sleep(90)

    scheduler = TaskScheduler()
    lines = scheduler.report(await scheduler.run()).splitlines()

    assert "90.0000s" == lines[2].split()[3]


async def test_the_report_has_the_error_of_a_failed_task_alone() -> None:
    header, _, fetch, load, _ = await report_lines()

    assert "" == fetch[header.index("Error") :]
    assert "ValueError: no such table" == load[header.index("Error") :]


# Code quality


def test_every_function_signature_has_type_hints() -> None:
    unannotated = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in Path(portable_sched.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (
            node.returns is None
            or any(
                argument.annotation is None
                for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if argument.arg not in {"self", "cls"}
            )
        )
    ]

    assert [] == unannotated


@pytest.mark.parametrize("structure", [TaskDef, TaskResult])
def test_structured_data_is_a_dataclass(structure: type) -> None:
    assert dataclasses.is_dataclass(structure)


@pytest.mark.parametrize("error", [TaskError, DependencyError, CyclicDependencyError])
def test_exceptions_are_the_packages_own(error: type[Exception]) -> None:
    assert issubclass(error, TaskError)
    assert issubclass(TaskError, Exception)


async def test_the_scheduler_is_an_async_context_manager() -> None:
    task(do_nothing)

    async with TaskScheduler() as scheduler:
        results = await scheduler.run()

    assert [COMPLETED] == [result.status for result in results]


def test_statuses_are_given_by_a_generator() -> None:
    assert inspect.isgeneratorfunction(TaskScheduler.status_snapshot)

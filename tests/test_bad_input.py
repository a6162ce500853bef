"""What is no good is refused at once, with what was expected, what came, and what to write."""

import asyncio
import contextlib
import functools
import inspect
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from math import inf, nan
from typing import Any

import anyio
import pytest
import trio

from portable_sched import (
    CyclicDependencyError,
    DependencyError,
    DuplicateTaskError,
    Graph,
    Priority,
    RunResults,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
    task,
)

pytestmark = pytest.mark.anyio


async def fetch() -> str:
    return "rows"


def undecorated() -> None: ...


def generate() -> Generator[int]:
    yield 1


async def generate_async() -> AsyncGenerator[int]:
    yield 1


class Loader:
    """A class, where a function is wanted."""


class Generating:
    def __call__(self) -> Generator[int]:
        yield 1


class GeneratingAsync:
    async def __call__(self) -> AsyncGenerator[int]:
        yield 1


@pytest.fixture
def coroutine() -> Iterator[Coroutine[Any, Any, str]]:
    made = fetch()
    yield made
    made.close()


def refusal_of(call: Callable[..., object], *arguments: Any, **settings: Any) -> tuple[type, str]:
    """The type and the message of what `call` raises, with addresses in memory as `0x0`."""
    with pytest.raises((TypeError, ValueError, LookupError)) as caught:
        call(*arguments, **settings)
    # `str()` of a KeyError is the repr of its message.
    return caught.type, re.sub(r"0x[0-9a-fA-F]+", "0x0", str(caught.value.args[0]))


each = pytest.mark.parametrize
HERE = f"{__name__}."


# The name of a task, to `task`, to a registry's `task`, to `TaskDef`


@each(
    ("name", "shown"),
    [
        (5, "5 (int)"),
        (0, "0 (int)"),
        (-1, "-1 (int)"),
        (nan, "nan (float)"),
        (True, "True (bool)"),
        (b"fetch", "b'fetch' (bytes)"),
        (["fetch"], "['fetch'] (list)"),
        (Priority.HIGH, "<Priority.HIGH: 1> (Priority)"),
    ],
)
def test_a_name_that_is_no_string_is_refused(registry, name, shown) -> None:
    message = f"Expected a task name, a string, got {shown}."

    assert (TypeError, message) == refusal_of(registry.task, name)
    assert (TypeError, message) == refusal_of(task, name)
    assert (TypeError, message) == refusal_of(TaskDef, name=name, function=fetch)


def test_an_empty_name_is_refused(registry) -> None:
    refused = (ValueError, "Expected a task name, got an empty string.")

    assert refused == refusal_of(registry.task(""), fetch)
    assert refused == refusal_of(TaskDef, name="", function=fetch)


def test_no_name_is_a_type_error_in_a_definition() -> None:
    assert (
        TypeError,
        "Expected a task name, a string, got None (NoneType).",
    ) == refusal_of(TaskDef, name=None, function=fetch)


@each(
    ("function", "shown"),
    [
        (lambda: 1, "<function <lambda> at 0x0> (function)"),
        (
            functools.partial(undecorated),
            "functools.partial(<function undecorated at 0x0>) (partial)",
        ),
        (Generating(), f"<{HERE}Generating object at 0x0> (Generating)"),
    ],
    ids=["lambda", "partial", "object"],
)
def test_a_function_without_a_name_needs_one(registry, function, shown) -> None:
    refused = (
        TypeError,
        f"{shown} has no name of its own. Give the task one: @task(name=...).",
    )

    assert refused == refusal_of(registry.task, function)
    assert refused == refusal_of(registry.task(), function)


def test_a_name_that_another_function_has_is_refused(registry) -> None:
    registry.task("fetch")(fetch)

    with pytest.raises(DuplicateTaskError) as caught:
        registry.task("fetch")(undecorated)

    assert (
        f"Task name 'fetch' belongs to {HERE}fetch already, so {HERE}undecorated cannot have it. "
        "Give one of them another name: @task(name=...)."
    ) == str(caught.value)


# The function

CLASS = "got the class Loader. Write a function that makes the object and returns it."
GENERATOR = (
    "that returns its result, got a generator. Collect the values and return a list; a task that "
    "yields once is an async def."
)
ASYNC_GENERATOR = (
    "expected a function, got an async generator object. Pass the function without calling it: "
    "generate_async, not generate_async()."
)


@each(
    ("function", "name", "complaint"),
    [
        (Loader, "Loader", f"expected a function, {CLASS}"),
        (generate, "generate", f"expected a function {GENERATOR}"),
        (generate(), "generate", f"expected a function {GENERATOR}"),
        (generate_async(), "generate_async", ASYNC_GENERATOR),
    ],
    ids=["class", "generator function", "generator", "async generator"],
)
def test_what_is_no_function_is_refused_however_it_comes(
    registry, function, name, complaint
) -> None:
    for register in [registry.task, registry.task(), task]:
        assert (TypeError, f"Task {name!r}: {complaint}") == refusal_of(register, function)

    named = (TypeError, f"Task 'a': {complaint}")
    assert named == refusal_of(registry.task("a"), function)
    assert named == refusal_of(TaskDef, name="a", function=function)


def test_a_coroutine_object_is_refused_with_the_function_to_write(registry, coroutine) -> None:
    complaint = (
        "expected a function, got a coroutine object. Pass the function without calling it: "
        "fetch, not fetch()."
    )

    for register in [registry.task, registry.task(), task]:
        assert (TypeError, f"Task 'fetch': {complaint}") == refusal_of(register, coroutine)
    assert (TypeError, f"Task 'a': {complaint}") == refusal_of(registry.task("a"), coroutine)
    assert (TypeError, f"Task 'a': {complaint}") == refusal_of(
        TaskDef, name="a", function=coroutine
    )


@each(
    ("function", "complaint"),
    [
        (functools.partial(Loader), CLASS),
        (functools.partial(generate), GENERATOR),
        (functools.partial(functools.partial(generate)), GENERATOR),
        (Generating(), GENERATOR),
        (functools.partial(Generating()), GENERATOR),
        (Generating().__call__, GENERATOR),
    ],
    ids=[
        "partial of a class",
        "partial of a generator function",
        "partial of a partial",
        "generating object",
        "partial of a generating object",
        "generating method",
    ],
)
def test_what_hides_it_is_looked_through(registry, function, complaint) -> None:
    refused, message = refusal_of(registry.task("a"), function)

    assert TypeError is refused
    assert message.startswith("Task 'a': expected a function")
    assert message.endswith(complaint)


@each(
    ("function", "shown"),
    [
        (None, "None (NoneType)"),
        (5, "5 (int)"),
        (nan, "nan (float)"),
        (True, "True (bool)"),
        ("", "'' (str)"),
        ("fetch", "'fetch' (str)"),
        ([undecorated], "[<function undecorated at 0x0>] (list)"),
    ],
)
def test_what_cannot_be_called_is_no_function(registry, function, shown) -> None:
    refused = (TypeError, f"Task 'a': expected a function, got {shown}.")

    assert refused == refusal_of(registry.task("a"), function)
    assert refused == refusal_of(TaskDef, name="a", function=function)


def test_what_is_shown_of_a_value_is_never_a_page_long(registry) -> None:
    assert (
        TypeError,
        f"Task 'a': expected a function, got [{'0, ' * 18}0,... (list).",
    ) == refusal_of(registry.task("a"), [0] * 10_000)


# The priority

PRIORITIES = "Priority.HIGH, Priority.MEDIUM or Priority.LOW"


@each(
    ("priority", "shown"),
    [
        ("HIGH", "'HIGH' (str)"),
        ("", "'' (str)"),
        (None, "None (NoneType)"),
        (True, "True (bool)"),
        (1.0, "1.0 (float)"),
        (nan, "nan (float)"),
        ([Priority.HIGH], "[<Priority.HIGH: 1>] (list)"),
        (Priority, "<enum 'Priority'> (EnumType)"),
    ],
)
def test_a_priority_of_another_type_is_refused(registry, priority, shown) -> None:
    refused = (TypeError, f"Task 'fetch': expected priority to be {PRIORITIES}, got {shown}.")

    assert refused == refusal_of(registry.task(priority=priority), fetch)
    assert refused == refusal_of(TaskDef, name="fetch", function=fetch, priority=priority)


@each("priority", [0, 4, -1])
def test_a_priority_that_there_is_not_is_refused(registry, priority) -> None:
    refused = (ValueError, f"Task 'fetch': expected priority to be {PRIORITIES}, got {priority}.")

    assert refused == refusal_of(registry.task(priority=priority), fetch)
    assert refused == refusal_of(TaskDef, name="fetch", function=fetch, priority=priority)


# The retries


@each(
    ("retries", "error", "shown"),
    [
        (0, ValueError, "0 (int)"),
        (-1, ValueError, "-1 (int)"),
        (True, TypeError, "True (bool)"),
        (False, TypeError, "False (bool)"),
        (None, TypeError, "None (NoneType)"),
        ("3", TypeError, "'3' (str)"),
        (3.0, TypeError, "3.0 (float)"),
        (nan, TypeError, "nan (float)"),
        (inf, TypeError, "inf (float)"),
        ([3], TypeError, "[3] (list)"),
        (ConnectionError, TypeError, "<class 'ConnectionError'> (type)"),
    ],
)
def test_retries_are_a_whole_number_of_at_least_one(registry, retries, error, shown) -> None:
    refused = (
        error,
        (
            "Task 'fetch': expected retries to be the number of attempts in total, a whole number "
            f"of at least 1, got {shown}."
        ),
    )

    assert refused == refusal_of(registry.task(retries=retries), fetch)
    assert refused == refusal_of(TaskDef, name="fetch", function=fetch, retries=retries)


# The dependencies


@each(
    ("depends_on", "complaint"),
    [
        ("fetch", "tasks, got the string 'fetch'. Write depends_on=['fetch']."),
        ("", "tasks, got the string ''. Write depends_on=['']."),
        (undecorated, "tasks, got one function. Write depends_on=[undecorated]."),
        (None, "task names and decorated functions, got None (NoneType)."),
        (0, "task names and decorated functions, got 0 (int)."),
        (-1, "task names and decorated functions, got -1 (int)."),
        (nan, "task names and decorated functions, got nan (float)."),
        (True, "task names and decorated functions, got True (bool)."),
        (b"fetch", "task names and decorated functions, got b'fetch' (bytes)."),
        (
            generate_async(),
            (
                "task names and decorated functions, got <async_generator object generate_async at "
                "0x0> (async_generator)."
            ),
        ),
    ],
)
def test_dependencies_are_a_list(registry, depends_on, complaint) -> None:
    refused = (TypeError, f"Task 'load': expected depends_on to be a list of {complaint}")

    assert refused == refusal_of(registry.task("load", depends_on=depends_on), fetch)
    assert refused == refusal_of(TaskDef, name="load", function=fetch, depends_on=depends_on)


def test_a_coroutine_object_is_no_list_of_dependencies(registry, coroutine) -> None:
    assert (
        TypeError,
        (
            "Task 'load': expected depends_on to be a list of task names and decorated functions, "
            "got <coroutine object fetch at 0x0> (coroutine)."
        ),
    ) == refusal_of(registry.task("load", depends_on=coroutine), undecorated)


@each(
    ("dependency", "shown"),
    [
        (5, "5 (int)"),
        (nan, "nan (float)"),
        (True, "True (bool)"),
        (None, "None (NoneType)"),
        (b"fetch", "b'fetch' (bytes)"),
        (["fetch"], "['fetch'] (list)"),
        (generate(), "<generator object generate at 0x0> (generator)"),
        (TaskRegistry(), "<TaskRegistry of 0 tasks> (TaskRegistry)"),
    ],
)
def test_a_dependency_is_a_name_or_a_function(registry, dependency, shown) -> None:
    for depends_on in [[dependency], ["first", dependency], iter([dependency])]:
        assert (
            TypeError,
            (
                "Task 'load': depends_on: Expected a task's name or a decorated function, got "
                f"{shown}."
            ),
        ) == refusal_of(registry.task("load", depends_on=depends_on), fetch)


def test_an_empty_name_is_no_dependency(registry) -> None:
    """Nothing could bear it, so the graph is refused, and says so."""
    registry.task(depends_on=[""])(fetch)

    with pytest.raises(DependencyError) as caught:
        TaskScheduler(registry).graph  # noqa: B018 - asking is what raises

    assert "Task 'fetch' depends on '', which is not registered." == str(caught.value)


def test_a_coroutine_object_is_no_dependency(registry, coroutine) -> None:
    assert (
        TypeError,
        (
            "Task 'load': depends_on: Expected a task's name or a decorated function, got a "
            "coroutine object. Pass the function without calling it: fetch, not fetch()."
        ),
    ) == refusal_of(registry.task("load", depends_on=[coroutine]), undecorated)


@each("dependency", [undecorated, Loader], ids=["function", "class"])
def test_an_undecorated_function_is_no_dependency(registry, dependency) -> None:
    assert (
        TypeError,
        (
            f"Task 'load': depends_on: Function {HERE}{dependency.__name__} is not a task yet. "
            "Decorate it with @task before referring to it, or give the task's name."
        ),
    ) == refusal_of(registry.task("load", depends_on=[dependency]), fetch)


@each(
    ("names", "shown"),
    [
        (["one", "other"], "'one' and 'other'"),
        (["one", "other", "one"], "'other' and 'one'"),
        (["one", "other", "third", "fourth"], "'one' and 'fourth'"),
    ],
    ids=["two", "two, one of them twice", "four"],
)
def test_a_function_of_several_names_is_no_dependency(registry, names, shown) -> None:
    """Two of the names are enough to say so."""

    async def several() -> None: ...

    for name in names:
        registry.task(name)(several)
    where = "test_a_function_of_several_names_is_no_dependency.<locals>.several"

    assert (
        TypeError,
        (
            f"Task 'load': depends_on: Function {HERE}{where} is registered as {shown}: say which "
            "task is meant by its name."
        ),
    ) == refusal_of(registry.task("load", depends_on=[several]), fetch)


@each("depends_on", [["load"], ["load", "load"]], ids=["once", "twice"])
async def test_a_task_that_depends_on_itself_is_refused_before_anything_runs(
    registry, depends_on
) -> None:
    started: list[str] = []

    @registry.task
    async def first() -> None:
        started.append("first")

    registry.task("load", depends_on=depends_on)(fetch)

    with pytest.raises(CyclicDependencyError) as caught:
        await TaskScheduler(registry).run()

    assert "Tasks form a cycle: load -> load." == str(caught.value)
    assert [] == started


@each(
    ("asked", "hint"),
    [
        ("fetsh", " Did you mean 'fetch'?"),
        ("FETCH", ""),
        ("quite different", ""),
    ],
)
async def test_an_unknown_name_is_refused_before_anything_runs(registry, asked, hint) -> None:
    started: list[str] = []

    @registry.task("fetch")
    async def first() -> None:
        started.append("fetch")

    registry.task("load", depends_on=["fetch", asked])(fetch)

    with pytest.raises(DependencyError) as caught:
        await TaskScheduler(registry).run()

    assert f"Task 'load' depends on {asked!r}, which is not registered.{hint}" == str(caught.value)
    assert [] == started


async def test_a_function_of_a_foreign_registry_is_an_unknown_name(registry) -> None:
    @TaskRegistry().task
    async def fetch_elsewhere() -> None: ...

    registry.task("load", depends_on=[fetch_elsewhere])(fetch)

    with pytest.raises(DependencyError) as caught:
        await TaskScheduler(registry).run()

    assert "Task 'load' depends on 'fetch_elsewhere', which is not registered." == str(caught.value)


async def test_a_cycle_is_told_with_its_path(registry) -> None:
    for name, needed in {"a": "c", "b": "a", "c": "b", "d": "c"}.items():
        registry.task(name, depends_on=[needed])(fetch)

    with pytest.raises(CyclicDependencyError) as caught:
        await TaskScheduler(registry).run()

    path = caught.value.path
    assert f"Tasks form a cycle: {' -> '.join(path)}." == str(caught.value)
    assert {"a", "b", "c"} == set(path)
    assert 4 == len(path)


# What a registry is asked for


@each(
    ("name", "message"),
    [
        ("fetsh", "No task 'fetsh' in this registry. Did you mean 'fetch'?"),
        ("quite different", "No task 'quite different' in this registry."),
        ("", "No task '' in this registry."),
    ],
)
def test_a_name_that_a_registry_has_not_is_a_key_error(registry, name, message) -> None:
    registry.task("fetch")(fetch)

    assert (KeyError, message) == refusal_of(registry.__getitem__, name)


@each(
    ("key", "shown"),
    [
        (0, "0 (int)"),
        (nan, "nan (float)"),
        (None, "None (NoneType)"),
        (["fetch"], "['fetch'] (list)"),
        (undecorated, "<function undecorated at 0x0> (function)"),
    ],
)
def test_a_registry_is_asked_by_name(registry, key, shown) -> None:
    assert (
        TypeError,
        f"Expected a task name, a string, got {shown}.",
    ) == refusal_of(registry.__getitem__, key)


# A scheduler's tasks

TASKS = "Expected tasks to be a TaskRegistry or a list of decorated functions, got"


@each(
    ("tasks", "shown"),
    [
        ("fetch", "'fetch' (str)"),
        ("", "'' (str)"),
        (b"fetch", "b'fetch' (bytes)"),
        (0, "0 (int)"),
        (-1, "-1 (int)"),
        (nan, "nan (float)"),
        (True, "True (bool)"),
        (undecorated, "<function undecorated at 0x0> (function)"),
        (TaskRegistry, "<class 'portable_sched.TaskRegistry'> (type)"),
        (generate_async(), "<async_generator object generate_async at 0x0> (async_generator)"),
    ],
)
def test_tasks_are_a_registry_or_a_list(tasks, shown) -> None:
    assert (TypeError, f"{TASKS} {shown}.") == refusal_of(TaskScheduler, tasks)


@each(
    ("given", "shown"),
    [
        ("fetch", "'fetch' (str)"),
        (5, "5 (int)"),
        (nan, "nan (float)"),
        (None, "None (NoneType)"),
        (TaskRegistry(), "<TaskRegistry of 0 tasks> (TaskRegistry)"),
        ([], "[] (list)"),
        (generate(), "<generator object generate at 0x0> (generator)"),
    ],
)
def test_a_list_of_tasks_has_functions_and_definitions(given, shown) -> None:
    definition = TaskDef(name="fetch", function=fetch)

    for tasks in [[given], [definition, given], iter([given])]:
        assert (
            TypeError,
            f"{TASKS} {shown} in the list. Pass the function itself, or registry[name].",
        ) == refusal_of(TaskScheduler, tasks)


def test_a_coroutine_object_is_no_task(coroutine) -> None:
    shown = "<coroutine object fetch at 0x0> (coroutine)"

    assert (TypeError, f"{TASKS} {shown}.") == refusal_of(TaskScheduler, coroutine)
    assert (
        TypeError,
        f"{TASKS} {shown} in the list. Pass the function itself, or registry[name].",
    ) == refusal_of(TaskScheduler, [coroutine])


def test_an_undecorated_function_is_no_task() -> None:
    assert (
        TypeError,
        (
            f"Function {HERE}undecorated is not a task yet. Decorate it with @task before "
            "referring to it, or give the task's name."
        ),
    ) == refusal_of(TaskScheduler, [undecorated])


def test_two_definitions_of_one_name_are_refused() -> None:
    definitions = [
        TaskDef(name="fetch", function=fetch),
        TaskDef(name="fetch", function=undecorated),
    ]
    message = (
        f"Task name 'fetch' belongs to {HERE}fetch already, so {HERE}undecorated cannot have it. "
        "Give one of them another name: @task(name=...)."
    )

    for build in [TaskScheduler, Graph]:
        with pytest.raises(DuplicateTaskError) as caught:
            build(definitions)

        assert message == str(caught.value)


# A scheduler's limit


@each(
    ("limit", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (True, TypeError),
        (False, TypeError),
        (2.0, TypeError),
        (nan, TypeError),
        (inf, TypeError),
        ("2", TypeError),
        ("", TypeError),
        ([2], TypeError),
    ],
)
def test_a_limit_is_a_whole_number_of_at_least_one_or_none(limit, error) -> None:
    assert (
        error,
        (
            "Expected max_concurrency to be a whole number of at least 1, or None for no limit, "
            f"got {limit!r}."
        ),
    ) == refusal_of(TaskScheduler, [], max_concurrency=limit)


def test_a_limit_is_given_by_name() -> None:
    refused, message = refusal_of(TaskScheduler, [], 2)

    assert TypeError is refused
    assert "TaskScheduler.__init__() takes from 1 to 2 positional arguments but 3 were given" == (
        message
    )


# Runs


def test_a_run_in_no_event_loop_says_how_to_start_one(registry) -> None:
    registry.task(fetch)
    scheduler = TaskScheduler(registry)

    with pytest.raises(RuntimeError) as caught:
        scheduler.run().send(None)

    assert (
        "Expected a running event loop, found none. Write asyncio.run(scheduler.run()) or "
        "trio.run(scheduler.run), or await scheduler.run() in an async function."
    ) == str(caught.value)


def test_after_a_run_in_no_event_loop_the_scheduler_can_run(registry, run_on_backend) -> None:
    registry.task(fetch)
    scheduler = TaskScheduler(registry)
    with pytest.raises(RuntimeError):
        scheduler.run().send(None)

    assert "rows" == run_on_backend(scheduler.run)["fetch"].result


def test_asyncio_refuses_the_method_itself(registry) -> None:
    """What it says is asyncio's to word; that it is about the coroutine is what matters."""
    with pytest.raises((TypeError, ValueError), match="a coroutine"):
        asyncio.run(TaskScheduler(registry).run)  # type: ignore[arg-type]


@each("run", [trio.run, anyio.run], ids=["trio", "anyio"])
def test_trio_and_anyio_refuse_the_coroutine(registry, run) -> None:
    coroutine = TaskScheduler(registry).run()

    with pytest.raises(TypeError, match="coroutine"):
        run(coroutine)
    coroutine.close()


# Reports, and results before there are any


@each(
    ("results", "shown"),
    [
        ([], "[] (list)"),
        ("", "'' (str)"),
        (0, "0 (int)"),
        (nan, "nan (float)"),
        (True, "True (bool)"),
        (RunResults, "<class 'portable_sched.RunResults'> (ABCMeta)"),
        (TaskScheduler([]), "<portable_sched.TaskScheduler object at 0x0> (TaskScheduler)"),
        (
            TaskScheduler([]).run,
            "<bound method TaskScheduler.run of <portable_sched.TaskSc... (method)",
        ),
    ],
)
def test_a_report_of_something_else_is_refused(results, shown) -> None:
    assert (
        TypeError,
        f"Expected the results of a run, got {shown}. Pass what scheduler.run() returned.",
    ) == refusal_of(TaskScheduler([]).report, results)


def test_a_report_of_a_run_that_was_not_awaited_says_so(registry) -> None:
    """Nor does the forgotten coroutine warn that nobody awaited it: the error has said so."""
    scheduler = TaskScheduler(registry)
    run = scheduler.run()

    assert (
        TypeError,
        (
            "Expected the results of a run, got a coroutine: run() was called and not awaited. "
            "Write results = await scheduler.run(), or results = asyncio.run(scheduler.run())."
        ),
    ) == refusal_of(scheduler.report, run)
    assert inspect.CORO_CLOSED == inspect.getcoroutinestate(run)


@each(
    "ask",
    [lambda scheduler: scheduler.results, lambda scheduler: scheduler.report()],
    ids=["results", "report"],
)
def test_there_are_no_results_before_a_run(registry, ask) -> None:
    with pytest.raises(RuntimeError) as caught:
        ask(TaskScheduler(registry))

    assert (
        "Expected results of a run, but nothing has been run yet. Await scheduler.run() first."
    ) == str(caught.value)


async def test_a_run_that_was_refused_leaves_no_results(registry) -> None:
    registry.task("load", depends_on=["missing"])(fetch)
    scheduler = TaskScheduler(registry)
    with pytest.raises(DependencyError):
        await scheduler.run()

    with pytest.raises(RuntimeError):
        scheduler.results  # noqa: B018 - asking is what raises


# What results are asked for


@pytest.fixture
def results(registry) -> RunResults:
    registry.task(fetch)
    return asyncio.run(TaskScheduler(registry).run())


@each(
    ("key", "shown"),
    [
        (None, "None (NoneType)"),
        (1.0, "1.0 (float)"),
        (nan, "nan (float)"),
        (b"fetch", "b'fetch' (bytes)"),
        ([], "[] (list)"),
        (("fetch",), "('fetch',) (tuple)"),
        (generate(), "<generator object generate at 0x0> (generator)"),
    ],
)
def test_results_are_asked_by_place_name_or_function(results, key, shown) -> None:
    assert (
        TypeError,
        f"Expected a task's name or a decorated function, got {shown}.",
    ) == refusal_of(results.__getitem__, key)


def test_results_are_not_asked_by_a_coroutine_object(results, coroutine) -> None:
    assert (
        TypeError,
        (
            "Expected a task's name or a decorated function, got a coroutine object. Pass the "
            "function without calling it: fetch, not fetch()."
        ),
    ) == refusal_of(results.__getitem__, coroutine)


@each("function", [undecorated, Loader], ids=["function", "class"])
def test_results_are_not_asked_by_an_undecorated_function(results, function) -> None:
    assert (
        TypeError,
        (
            f"Function {HERE}{function.__name__} is not a task yet. Decorate it with @task before "
            "referring to it, or give the task's name."
        ),
    ) == refusal_of(results.__getitem__, function)


@each(
    ("key", "error", "message"),
    [
        ("fetsh", KeyError, "No task 'fetsh' in these results. Did you mean 'fetch'?"),
        ("", KeyError, "No task '' in these results."),
        (1, IndexError, "No result at place 1: there are 1."),
        (-2, IndexError, "No result at place -2: there are 1."),
    ],
)
def test_results_that_there_are_not_are_a_lookup_error(results, key, error, message) -> None:
    assert (error, message) == refusal_of(results.__getitem__, key)


# A graph's tasks

DEFINITIONS = "Expected tasks to be a TaskRegistry or a list of TaskDef, got"


@each(
    ("tasks", "shown"),
    [
        (None, "None (NoneType)"),
        ("fetch", "'fetch' (str)"),
        ("", "'' (str)"),
        (b"fetch", "b'fetch' (bytes)"),
        (5, "5 (int)"),
        (nan, "nan (float)"),
        (True, "True (bool)"),
        (undecorated, "<function undecorated at 0x0> (function)"),
    ],
)
def test_a_graph_is_made_of_a_registry_or_a_list(tasks, shown) -> None:
    assert (TypeError, f"{DEFINITIONS} {shown}.") == refusal_of(Graph, tasks)


@each(
    ("given", "shown"),
    [
        ("fetch", "'fetch' (str)"),
        (5, "5 (int)"),
        (None, "None (NoneType)"),
        (undecorated, "<function undecorated at 0x0> (function)"),
    ],
)
def test_a_graph_is_made_of_definitions(given, shown) -> None:
    definition = TaskDef(name="fetch", function=fetch)

    for tasks in [[given], [definition, given], iter([given])]:
        assert (
            TypeError,
            (
                f"{DEFINITIONS} {shown} in the list. TaskScheduler(tasks).graph takes decorated "
                "functions."
            ),
        ) == refusal_of(Graph, tasks)


# Everything else takes no arguments, or none from users


@each(
    "call",
    [
        TaskRegistry,
        TaskRegistry().clear,
        TaskScheduler([]).status_snapshot,
        Graph([]).remaining_path,
        TaskDef(name="fetch", function=fetch).is_async,
    ],
    ids=lambda call: call.__name__,
)
def test_an_argument_where_none_is_taken_is_a_type_error(call) -> None:
    refused, message = refusal_of(call, "fetch")

    assert TypeError is refused
    assert "takes 1 positional argument but 2 were given" in message


def test_a_plain_with_block_is_refused_by_python(registry) -> None:
    with (
        pytest.raises(TypeError, match="does not support the context manager protocol"),
        TaskScheduler(registry),  # type: ignore[attr-defined]
    ):
        pass


def test_a_context_manager_is_refused_where_a_lifetime_is_meant(registry) -> None:
    managed = contextlib.asynccontextmanager(generate_async)

    refused = (
        TypeError,
        (
            "Task 'db': expected a function that yields once, got a context manager. Leave "
            "@asynccontextmanager out: what it yields is its result, and the rest its teardown."
        ),
    )

    assert refused == refusal_of(registry.task("db"), managed)


@each("field", ["observers", "attempt_hooks"])
def test_an_async_function_is_refused_where_nobody_would_await_it(registry, field) -> None:
    refused = (
        TypeError,
        (
            f"Expected {field} to be a list of plain callables, got the async function fetch in "
            "the list. Nobody would await it."
        ),
    )

    assert refused == refusal_of(TaskScheduler, registry, **{field: [fetch]})


@each("field", ["inherit_priority", "keep_results"])
def test_a_flag_is_true_or_false(registry, field) -> None:
    refused = (TypeError, f"Expected {field} to be True or False, got 1 (int).")

    assert refused == refusal_of(TaskScheduler, registry, **{field: 1})


def test_no_resources_may_be_said_by_none(registry) -> None:
    registry.task("fetch", resources=None)(fetch)

    assert () == registry["fetch"].resources

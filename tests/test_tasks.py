"""What a task is: the decorator's forms, what it notes on functions, and who may take a name."""

import asyncio
import copy
import dataclasses
import functools
import importlib
import inspect
import pickle
import sys
import time
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any

import anyio
import pytest

from portable_sched import (
    DuplicateTaskError,
    Priority,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
    clear_registry,
    task,
)

pytestmark = pytest.mark.anyio

# Functions that are to be pickled must be found in a module. Their registry is that of nobody else.
AT_HOME = TaskRegistry()


@AT_HOME.task(retries=2)
async def fetch_at_home(rows: int = 3) -> list[int]:
    """Fetch some rows."""
    return list(range(rows))


@AT_HOME.task
def count_at_home() -> int:
    return 3


def names_of(registry: TaskRegistry) -> list[str]:
    return [definition.name for definition in registry]


def made_in_a_function(value: object) -> Callable[[], object]:
    def closure() -> object:
        return value

    return closure


class Table:
    def __init__(self, rows: int = 0) -> None:
        self.rows = rows

    async def count(self) -> int:
        return self.rows

    async def __call__(self) -> int:
        return self.rows


# The decorator's forms


@pytest.mark.parametrize(
    "decorate",
    [
        lambda registry: registry.task,
        lambda registry: registry.task(),
        lambda registry: registry.task("fetch"),
        lambda registry: registry.task(name="fetch"),
        lambda registry: registry.task(None, Priority.MEDIUM, 1, ()),
    ],
    ids=["bare", "called", "positional name", "keyword name", "all positional"],
)
def test_every_form_of_the_decorator_makes_the_same_task(registry, decorate) -> None:
    async def fetch() -> None: ...

    decorate(registry)(fetch)

    assert [TaskDef(name="fetch", function=fetch)] == list(registry)


def test_the_decorator_keeps_what_it_is_told(registry) -> None:
    async def load() -> None: ...

    registry.task("load-rows", Priority.HIGH, 3, ["fetch"])(load)

    assert [
        TaskDef(
            name="load-rows",
            function=load,
            priority=Priority.HIGH,
            retries=3,
            depends_on=("fetch",),
        )
    ] == list(registry)


@pytest.mark.parametrize("form", ["bare", "called"])
def test_the_decorator_returns_the_function_itself(registry, form) -> None:
    async def fetch() -> None: ...

    assert fetch is (registry.task if form == "bare" else registry.task())(fetch)


def test_one_decorator_can_be_used_for_several_functions(registry) -> None:
    urgent = registry.task(priority=Priority.HIGH)

    async def one() -> None: ...
    async def other() -> None: ...

    urgent(one)
    urgent(other)

    assert ["one", "other"] == names_of(registry)
    assert {Priority.HIGH} == {definition.priority for definition in registry}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_priority_may_be_given_as_its_number(registry, number) -> None:
    async def fetch() -> None: ...

    registry.task(priority=number)(fetch)

    assert registry["fetch"].priority is Priority(number)


async def test_a_decorated_function_is_called_and_awaited_as_before() -> None:
    assert [0, 1] == await fetch_at_home(2)
    assert 3 == count_at_home()


def test_a_decorated_function_is_inspected_as_before() -> None:
    assert inspect.iscoroutinefunction(fetch_at_home)
    assert "fetch_at_home" == fetch_at_home.__name__
    assert "Fetch some rows." == fetch_at_home.__doc__
    assert "(rows: int = 3) -> list[int]" == str(inspect.signature(fetch_at_home))
    assert not hasattr(fetch_at_home, "__wrapped__")


@pytest.mark.parametrize("function", [fetch_at_home, count_at_home])
def test_a_decorated_function_is_pickled_as_before(function) -> None:
    assert function is pickle.loads(pickle.dumps(function))


def test_a_definition_is_pickled_with_its_function() -> None:
    definition = AT_HOME["fetch_at_home"]

    assert definition == pickle.loads(pickle.dumps(definition))


# Dependencies


@pytest.mark.parametrize("container", [list, tuple, set, iter, dict.fromkeys])
def test_dependencies_come_in_any_iterable(registry, container) -> None:
    async def load() -> None: ...

    registry.task(depends_on=container(["fetch"]))(load)

    assert ("fetch",) == registry["load"].depends_on


def test_dependencies_are_names_or_functions_or_definitions(registry) -> None:
    @registry.task("fetch-rows")
    async def fetch() -> None: ...

    @registry.task
    async def clean() -> None: ...

    @registry.task(depends_on=["check", fetch, registry["clean"]])
    async def load() -> None: ...

    assert ("check", "fetch-rows", "clean") == registry["load"].depends_on


def test_a_dependency_that_is_named_twice_counts_once(registry) -> None:
    @registry.task
    async def fetch() -> None: ...

    @registry.task(depends_on=["fetch", "clean", fetch, "clean"])
    async def load() -> None: ...

    assert ("fetch", "clean") == registry["load"].depends_on


def test_a_list_of_dependencies_can_be_changed_afterwards(registry) -> None:
    needed = ["fetch", "clean"]

    @registry.task(depends_on=needed)
    async def load() -> None: ...

    needed.append("other")

    assert ("fetch", "clean") == registry["load"].depends_on


class StringName(StrEnum):
    FETCH = "fetch"


class MixedName(str, Enum):  # noqa: UP042 - its str() is not its value, which is the point
    FETCH = "fetch"


@pytest.mark.parametrize(
    "name", [StringName.FETCH, MixedName.FETCH], ids=["StrEnum", "str and Enum"]
)
def test_a_string_enums_member_stands_for_its_value(registry, name) -> None:
    @registry.task(name)
    async def one() -> None: ...

    @registry.task(depends_on=[name, "other"])
    async def load() -> None: ...

    assert ["fetch", "load"] == [str(each) for each in names_of(registry)]
    assert ("fetch", "other") == registry["load"].depends_on
    assert {str} == {type(each) for each in [*names_of(registry), *registry["load"].depends_on]}


# Callables that are no plain functions


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (lambda: 1, 1),
        (functools.partial(fetch_at_home, 2), [0, 1]),
        (functools.partial(functools.partial(fetch_at_home), rows=1), [0]),
        (functools.partial(count_at_home), 3),
        (functools.partial(Table(4)), 4),
        (Table(4), 4),
        (Table(4).count, 4),
        (functools.partial(Table.count, Table(4)), 4),
        (int, None),
        (sys.getrecursionlimit, sys.getrecursionlimit()),
    ],
    ids=[
        "lambda",
        "partial",
        "partial of a partial",
        "partial of a plain function",
        "partial of an object",
        "object",
        "bound method",
        "partial of a method",
        "class",
        "builtin",
    ],
)
async def test_a_task_may_be_any_callable_but_a_class(registry, function, result) -> None:
    if inspect.isclass(function):
        with pytest.raises(TypeError):
            registry.task("any")(function)
        return
    registry.task("any")(function)
    results = await TaskScheduler(registry).run()

    assert [None, result] == [results["any"].error, results["any"].result]


def test_bound_methods_and_builtins_lend_their_name(registry) -> None:
    registry.task(Table().count)
    registry.task(time.monotonic)

    assert ["count", "monotonic"] == names_of(registry)


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (fetch_at_home, True),
        (count_at_home, False),
        (functools.partial(functools.partial(fetch_at_home)), True),
        (functools.partial(count_at_home), False),
        (Table(), True),
        (Table().count, True),
        (functools.partial(Table()), True),
        (time.monotonic, False),
        (functools.wraps(fetch_at_home)(lambda: None), False),
    ],
)
def test_a_definition_knows_whether_its_function_is_async(function, is_async) -> None:
    assert is_async is TaskDef(name="any", function=function).is_async()


@pytest.mark.parametrize("function", [Table().count, time.monotonic])
def test_what_takes_no_attributes_is_referred_to_by_name(registry, function) -> None:
    registry.task("any")(function)
    registry.task("after", depends_on=["any"])(fetch_at_home)

    assert {"any": 0, "after": 1} == TaskScheduler(registry).graph.numbers
    with pytest.raises(TypeError, match="is not a task yet"):
        registry.task("other", depends_on=[function])(count_at_home)


def test_a_method_of_two_objects_is_two_functions(registry) -> None:
    one, other = Table(), Table()
    registry.task("one")(one.count)
    registry.task("other")(other.count)

    with pytest.raises(DuplicateTaskError):
        registry.task("one")(other.count)


def test_a_method_of_a_class_whose_function_is_a_task_is_no_task(registry) -> None:
    class Loader:
        @registry.task("unbound")
        async def load(self) -> None: ...

    registry.task("bound")(Loader().load)

    assert ["unbound", "bound"] == names_of(registry)
    registry.task("after", depends_on=[Loader.load])(fetch_at_home)
    assert ("unbound",) == registry["after"].depends_on


# What is noted on a function


def test_a_function_of_several_names_is_referred_to_by_name(registry) -> None:
    async def fetch() -> None: ...

    registry.task("morning")(fetch)
    registry.task("evening")(fetch)
    registry.task("after", depends_on=["morning", "evening"])(count_at_home)

    assert ("morning", "evening") == registry["after"].depends_on
    with pytest.raises(TypeError, match="is registered as 'morning' and 'evening'"):
        registry.task("other", depends_on=[fetch])(count_at_home)


def test_a_function_of_one_name_in_two_registries_is_referred_to_by_itself() -> None:
    one, other = TaskRegistry(), TaskRegistry()

    async def fetch() -> None: ...

    one.task(fetch)
    other.task(retries=2)(fetch)
    other.task("after", depends_on=[fetch])(count_at_home)

    assert [1, 2] == [one["fetch"].retries, other["fetch"].retries]
    assert ("fetch",) == other["after"].depends_on


def test_a_wrapper_made_by_functools_wraps_is_a_task_of_its_own(registry) -> None:
    """`functools.wraps` copies the note of the wrapped function."""

    @registry.task
    async def fetch() -> None: ...

    @registry.task("logged")
    @functools.wraps(fetch)
    async def logged() -> None:
        await fetch()

    @registry.task(depends_on=[fetch, logged])
    async def load() -> None: ...

    assert ("fetch", "logged") == registry["load"].depends_on


def test_a_wrapper_around_a_task_stands_for_the_task(registry) -> None:
    """Another decorator above `@task` does not make the name useless for `depends_on`."""

    @registry.task("fetch-rows")
    async def fetch() -> None: ...

    @functools.wraps(fetch)
    async def wrapper() -> None:
        await fetch()

    registry.task("load", depends_on=[wrapper])(count_at_home)

    assert ("fetch-rows",) == registry["load"].depends_on


def test_a_wrapper_of_a_function_with_several_names_is_a_task_of_its_own(registry) -> None:
    async def fetch() -> None: ...

    registry.task("morning")(fetch)
    registry.task("evening")(fetch)

    @registry.task("logged")
    @functools.wraps(fetch)
    async def logged() -> None: ...

    registry.task("after", depends_on=[logged])(count_at_home)

    assert ("logged",) == registry["after"].depends_on


def test_a_copied_object_is_a_task_of_its_own(registry) -> None:
    one = Table(1)
    registry.task("one")(one)
    other = copy.copy(one)
    registry.task("other")(other)
    registry.task("after", depends_on=[one, other])(count_at_home)

    assert ("one", "other") == registry["after"].depends_on


# Who may take a name


def test_another_function_may_not_take_a_name(registry) -> None:
    @registry.task("fetch")
    async def one() -> None: ...

    with pytest.raises(DuplicateTaskError) as caught:

        @registry.task("fetch")
        async def other() -> None: ...

    here = "test_another_function_may_not_take_a_name.<locals>"
    assert (
        f"Task name 'fetch' belongs to {__name__}.{here}.one already, so {__name__}.{here}.other "
        "cannot have it. Give one of them another name: @task(name=...)."
    ) == str(caught.value)
    assert one is registry["fetch"].function
    assert 1 == len(registry)


def test_the_same_object_may_be_registered_again_with_other_settings(registry) -> None:
    async def fetch() -> None: ...

    registry.task(fetch)
    registry.task(retries=3)(fetch)

    assert [3] == [definition.retries for definition in registry]


def test_a_bound_method_may_be_registered_again(registry) -> None:
    """Each time it is asked for, it is another object."""
    table = Table()
    registry.task(table.count)
    registry.task(retries=3)(table.count)

    assert [3] == [definition.retries for definition in registry]


def test_a_notebook_cell_that_is_run_again_replaces_its_tasks_in_place() -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec("from portable_sched import task", notebook)
    exec("@task\nasync def fetch(): return 'old'", notebook)
    exec("@task(depends_on=[fetch])\nasync def load(): ...", notebook)
    exec("@task\nasync def fetch(): return 'new'", notebook)
    graph = TaskScheduler().graph

    assert ["fetch", "load"] == list(graph.numbers)
    assert notebook["fetch"] is graph.tasks[0].function


def test_a_reloaded_module_replaces_its_tasks(tmp_path, monkeypatch) -> None:
    source = "from portable_sched import task\n@task\nasync def fetch(): ...\n"
    (tmp_path / "reloaded_pipeline.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("reloaded_pipeline")
    importlib.reload(module)
    monkeypatch.delitem(sys.modules, "reloaded_pipeline")

    assert [module.fetch] == [definition.function for definition in TaskScheduler().graph.tasks]


def test_functions_of_two_modules_may_not_share_a_name() -> None:
    source = "from portable_sched import task\n@task\nasync def fetch(): ..."
    exec(source, {"__name__": "files"})

    with pytest.raises(DuplicateTaskError) as caught:
        exec(source, {"__name__": "tables"})

    assert ("files.fetch", "tables.fetch") == (caught.value.existing, caught.value.refused)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (made_in_a_function(1), made_in_a_function(2)),
        (lambda: 1, lambda: 2),
        (functools.partial(fetch_at_home), functools.partial(fetch_at_home)),
        (Table(), Table()),
        (Table().count, Table().count),
        (time.monotonic, time.time),
    ],
    ids=["closures", "lambdas", "partials", "objects", "methods of two objects", "builtins"],
)
def test_these_do_not_replace_each_other_silently(registry, one, other) -> None:
    registry.task("any")(one)

    with pytest.raises(DuplicateTaskError):
        registry.task("any")(other)

    assert one == registry["any"].function


def test_closures_made_in_a_loop_are_tasks_of_their_own(registry) -> None:
    for number in range(3):
        registry.task(f"task-{number}")(made_in_a_function(number))
    results = asyncio.run(TaskScheduler(registry).run())

    assert [0, 1, 2] == [result.result for result in results]


def test_a_refused_definition_leaves_no_trace(registry) -> None:
    async def fetch() -> None: ...

    with pytest.raises(ValueError, match="retries"):
        registry.task(retries=0)(fetch)

    assert 0 == len(registry)
    with pytest.raises(TypeError, match="is not a task yet"):
        registry.task(depends_on=[fetch])(count_at_home)


# Registries


def test_a_registry_is_iterated_in_the_order_of_registration(registry) -> None:
    for name in ["c", "a", "b"]:
        registry.task(name)(count_at_home)

    assert ["c", "a", "b"] == names_of(registry)


def test_a_registry_has_a_length_members_and_a_repr(registry) -> None:
    registry.task("fetch")(count_at_home)

    assert 1 == len(registry)
    assert "fetch" in registry
    assert "load" not in registry
    assert "<TaskRegistry of 1 tasks>" == repr(registry)


def test_registries_keep_their_tasks_apart() -> None:
    one, other = TaskRegistry(), TaskRegistry()

    @one.task("fetch")
    async def fetch_one() -> None: ...

    @other.task("fetch")
    async def fetch_other() -> None: ...

    assert [fetch_one] == [definition.function for definition in one]
    assert [fetch_other] == [definition.function for definition in other]
    assert 0 == len(TaskScheduler().graph)


def test_a_cleared_registry_takes_every_name_again(registry) -> None:
    registry.task("any")(made_in_a_function(1))
    registry.clear()
    other = registry.task("any")(made_in_a_function(2))

    assert [other] == [definition.function for definition in registry]


def test_clear_registry_leaves_other_registries_alone(registry) -> None:
    task("shared")(count_at_home)
    registry.task("own")(count_at_home)
    clear_registry()

    assert ["own"] == names_of(registry)
    assert 0 == len(TaskScheduler().graph)


# Definitions


def test_a_definition_is_frozen_has_slots_and_is_hashable() -> None:
    definition = TaskDef(name="fetch", function=fetch_at_home, depends_on=("other",))

    assert not hasattr(definition, "__dict__")
    assert 1 == len({definition, dataclasses.replace(definition)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        definition.retries = 2  # type: ignore[misc]


def test_a_changed_definition_is_checked_like_a_new_one() -> None:
    definition = TaskDef(name="fetch", function=fetch_at_home)

    assert 5 == dataclasses.replace(definition, retries=5).retries
    with pytest.raises(ValueError, match="retries"):
        dataclasses.replace(definition, retries=0)


async def test_a_definition_needs_no_registry() -> None:
    definitions = [
        TaskDef(name="fetch", function=fetch_at_home),
        TaskDef(name="load", function=count_at_home, depends_on=("fetch",)),
    ]
    results = await TaskScheduler(definitions).run()

    assert [[0, 1, 2], 3] == [result.result for result in results]


async def test_a_task_may_hide_an_async_function_behind_a_plain_one(registry) -> None:
    def hidden() -> object:
        return fetch_at_home(1)

    registry.task(hidden)
    results = await TaskScheduler(registry).run()
    await anyio.lowlevel.checkpoint()

    assert [0] == results[hidden].result

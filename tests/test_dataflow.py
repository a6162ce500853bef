"""What fills the parameters of a run's tasks, what is kept of the results, and which tasks run.

Results by name, `after` with the whole `TaskResult`, inputs of a run, warnings, `keep_results`,
targets, and what `scheduler.graph` tells before anything runs.
"""

import functools
import gc
import inspect
import tracemalloc
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import anyio
import pytest

from portable_sched import (
    CyclicDependencyError,
    DependencyError,
    Graph,
    InputError,
    NoRetry,
    ParameterError,
    Priority,
    ResultOf,
    ResultTypeWarning,
    TaskDef,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    UnknownTargetError,
    _graph,
    _parameters,
)

pytestmark = pytest.mark.anyio

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


@pytest.fixture(params=[True, False], ids=["results kept", "not kept"])
def filling(request) -> dict[str, bool]:
    """Settings that parameters are filled alike with, although by another way."""
    return {"keep_results": request.param}


def giving(value: object) -> Callable[[], Any]:
    async def give() -> Any:
        return value

    return give


def raising(error: Exception) -> Callable[[], Any]:
    async def fail() -> Any:
        raise error

    return fail


async def idle() -> None: ...


def defined(name: str, *depends_on: str, **settings: Any) -> TaskDef:
    return TaskDef(name=name, function=idle, depends_on=depends_on, **settings)


async def results_of(registry: TaskRegistry, **settings: Any) -> dict[str, object]:
    """The results by name, of a run in which everything has to succeed."""
    results = await TaskScheduler(registry, **settings).run()
    results.raise_for_failures()
    return {one.task_name: one.result for one in results}


def dependencies(scheduler: TaskScheduler, name: str) -> list[str]:
    graph = scheduler.graph
    return sorted(graph.tasks[number].name for number in graph.dependencies[graph.numbers[name]])


# Results by name


async def test_a_parameter_with_the_name_of_a_task_takes_its_result(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def load(fetch):
        return fetch

    assert "rows" == (await results_of(registry, **filling))["load"]


async def test_it_makes_that_task_a_dependency(registry) -> None:
    """Although it is registered later and would start first by its priority."""
    order = []

    @registry.task(priority=Priority.HIGH)
    async def load(fetch):
        order.append("load")

    @registry.task(priority=Priority.LOW)
    async def fetch():
        order.append("fetch")

    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert ["fetch"] == dependencies(scheduler, "load")
    assert ["fetch", "load"] == order


async def test_what_it_takes_has_failed_so_it_has_failed(registry) -> None:
    registry.task("fetch")(raising(ValueError("no rows")))

    @registry.task
    async def load(fetch): ...

    results = await TaskScheduler(registry).run()

    assert (FAILED, 0) == (results["load"].status, results["load"].attempts)
    assert "Dependency 'fetch' failed: ValueError: no rows" == results["load"].error


async def test_a_plain_function_takes_results_by_name(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    def load(fetch, *, again: Annotated[str, ResultOf("fetch")]):
        return fetch, again

    assert ("rows", "rows") == (await results_of(registry, **filling))["load"]


async def test_a_plain_function_gives_results_by_name(registry, filling) -> None:
    @registry.task
    def fetch():
        return "rows"

    @registry.task
    async def load(fetch):
        return fetch

    assert "rows" == (await results_of(registry, **filling))["load"]


async def test_a_lifetime_takes_results_and_gives_what_it_yields(registry, filling) -> None:
    registry.task("url")(giving("db://"))

    @registry.task
    async def connection(url, *, again: Annotated[str, ResultOf("url")]):
        yield url, again

    @registry.task
    async def load(connection):
        return connection

    assert ("db://", "db://") == (await results_of(registry, **filling))["load"]


async def test_one_result_may_be_taken_by_many_and_many_times(registry, filling) -> None:
    rows = ["a"]
    registry.task("fetch")(giving(rows))

    @registry.task
    async def count(fetch, again: Annotated[list[str], ResultOf("fetch")]):
        return fetch is again is rows

    @registry.task
    async def load(fetch):
        return fetch is rows

    found = await results_of(registry, **filling)
    assert (True, True) == (found["count"], found["load"])


async def test_none_is_a_result_like_others(registry, filling) -> None:
    registry.task("fetch")(giving(None))

    @registry.task
    async def load(fetch):
        return [fetch]

    assert [None] == (await results_of(registry, **filling))["load"]


async def test_every_attempt_is_given_the_results_anew(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))
    given = []

    @registry.task(retries=3)
    async def load(fetch):
        given.append(fetch)
        if len(given) < 3:
            raise ValueError

    await results_of(registry, **filling)
    assert ["rows"] * 3 == given


async def test_order_alone_passes_nothing(registry, filling) -> None:
    order = []

    @registry.task(depends_on=["fetch"], priority=Priority.HIGH)
    async def load():
        order.append("load")

    @registry.task
    async def fetch():
        order.append("fetch")

    await results_of(registry, **filling)
    assert ["fetch", "load"] == order


async def test_the_dependencies_are_those_of_both_kinds(registry) -> None:
    for name in ("first", "rows", "both", "marked-one", "other"):
        registry.task(name)(giving(name))

    @registry.task(depends_on=["first", "both"])
    async def load(rows, both, marked: Annotated[str, ResultOf("marked-one")]):
        return rows, both, marked

    scheduler = TaskScheduler(registry)

    assert ["both", "first", "marked-one", "rows"] == dependencies(scheduler, "load")
    assert ("rows", "both", "marked-one") == (await results_of(registry))["load"]


@pytest.mark.parametrize("by", ["name", "function"])
async def test_a_mark_fills_a_parameter_of_another_name(registry, filling, by) -> None:
    @registry.task(name="fetch-rows")
    async def fetch():
        return "rows"

    @registry.task
    async def load(rows: Annotated[str, ResultOf("fetch-rows" if by == "name" else fetch)]):
        return rows

    assert "rows" == (await results_of(registry, **filling))["load"]


async def test_a_mark_goes_before_the_name_of_the_parameter(registry, filling) -> None:
    registry.task("rows")(giving("not these"))
    registry.task("fetch")(giving("these"))

    @registry.task
    async def load(rows: Annotated[str, ResultOf("fetch")]):
        return rows

    assert ["fetch"] == dependencies(TaskScheduler(registry), "load")
    assert "these" == (await results_of(registry, **filling))["load"]


async def test_a_default_is_kept_although_a_task_has_the_name(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def load(fetch="default", *, more="more"):
        return fetch, more

    assert [] == dependencies(TaskScheduler(registry), "load")
    assert ("default", "more") == (await results_of(registry, **filling))["load"]


async def test_a_mark_fills_a_parameter_that_has_a_default(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def load(rows: Annotated[str, ResultOf("fetch")] = "default"):
        return rows

    assert ["fetch"] == dependencies(TaskScheduler(registry), "load")
    assert "rows" == (await results_of(registry, **filling))["load"]


async def test_a_mark_fills_a_parameter_that_may_be_none(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def load(rows: Annotated[str, ResultOf("fetch")] | None = None):
        return rows

    assert "rows" == (await results_of(registry, **filling))["load"]


async def test_positional_only_parameters_are_filled_in_their_order(registry, filling) -> None:
    for name in ("one", "two", "three"):
        registry.task(name)(giving(name))

    @registry.task
    async def load(two, one, /, three):
        return two, one, three

    assert ("two", "one", "three") == (await results_of(registry, **filling))["load"]


async def test_a_default_between_positional_only_parameters_is_kept(registry, filling) -> None:
    registry.task("one")(giving("one"))
    registry.task("three")(giving("three"))

    @registry.task
    async def load(
        one, two="default", three: Annotated[str, ResultOf("three")] = "no", four="four", /
    ):
        return one, two, three, four

    assert ("one", "default", "three", "four") == (await results_of(registry, **filling))["load"]


async def test_a_default_before_marked_parameters_that_go_by_name_is_kept(
    registry, filling
) -> None:
    registry.task("three")(giving("three"))

    @registry.task
    async def load(one="one", two="two", three: Annotated[str, ResultOf("three")] = "no"):
        return one, two, three

    assert ("one", "two", "three") == (await results_of(registry, **filling))["load"]


async def test_keyword_only_parameters_are_filled_by_name(registry, filling) -> None:
    registry.task("one")(giving("one"))
    registry.task("two")(giving("two"))

    @registry.task
    async def load(*, two, one):
        return one, two

    assert ("one", "two") == (await results_of(registry, **filling))["load"]


async def test_collected_arguments_are_never_filled(registry, filling) -> None:
    registry.task("one")(giving("one"))
    registry.task("rest")(giving("rest"))

    @registry.task
    async def load(one, *rest, **more):
        return one, rest, more

    assert ["one"] == dependencies(TaskScheduler(registry), "load")
    assert ("one", (), {}) == (await results_of(registry, **filling))["load"]


class Loader:
    async def method(self, fetch):
        return "method", fetch

    @classmethod
    async def of_class(cls, fetch):
        return "class", fetch

    async def __call__(self, fetch):
        return "object", fetch


class PlainLoader:
    def __call__(self, fetch):
        return "plain object", fetch


async def with_more(before, fetch, after):
    return before, fetch, after


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return "wrapped", await function(*args, **kwargs)

    return wrapper


def with_a_signature_of_its_own(first=None, **more):
    """Takes what it says it takes by name, whatever its code looks like."""
    return hidden_coroutine(first, more)


async def hidden_coroutine(first, more):
    return first, more


with_a_signature_of_its_own.__signature__ = inspect.Signature(
    [inspect.Parameter("fetch", inspect.Parameter.KEYWORD_ONLY)]
)


async def async_with_a_signature_of_its_own(first=None, **more):
    return first, more


async_with_a_signature_of_its_own.__signature__ = with_a_signature_of_its_own.__signature__


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(Loader().method, ("method", "rows"), id="method"),
        pytest.param(Loader.of_class, ("class", "rows"), id="class method"),
        pytest.param(Loader(), ("object", "rows"), id="object"),
        pytest.param(PlainLoader(), ("plain object", "rows"), id="plain object"),
        pytest.param(lambda fetch: ("lambda", fetch), ("lambda", "rows"), id="lambda"),
        pytest.param(
            functools.partial(with_more, "before", after="after"),
            ("before", "rows", "after"),
            id="partial",
        ),
        pytest.param(functools.partial(Loader()), ("object", "rows"), id="partial of an object"),
        pytest.param(wrapped(Loader().method), ("wrapped", ("method", "rows")), id="wrapper"),
        pytest.param(
            with_a_signature_of_its_own, (None, {"fetch": "rows"}), id="plain, own signature"
        ),
        pytest.param(
            async_with_a_signature_of_its_own, (None, {"fetch": "rows"}), id="async, own signature"
        ),
    ],
)
async def test_any_callable_takes_results_by_name(registry, filling, function, expected) -> None:
    registry.task("fetch")(giving("rows"))
    registry.task("load")(function)

    assert expected == (await results_of(registry, **filling))["load"]


async def test_a_builtin_takes_results_by_position(registry, filling) -> None:
    registry.task("rows")(giving([3, 1, 2]))

    @registry.task(name="iterable")
    async def iterable(rows):
        return rows

    registry.task("sum")(sum)

    assert 6 == (await results_of(registry, **filling))["sum"]


OWN_NAMES = ("self", "task", "function", "name", "seconds", "remark", "entry", "args", "kwargs")


async def in_the_event_loop(self, task, function, name, seconds, remark, entry, args, kwargs):  # noqa: PLR0917
    return self, task, function, name, seconds, remark, entry, args, kwargs


def in_a_thread(self, task, function, name, seconds, remark, entry, args, kwargs):  # noqa: PLR0917
    return self, task, function, name, seconds, remark, entry, args, kwargs


async def open_for_a_while(self, task, function, name, seconds, remark, entry, args, kwargs):  # noqa: PLR0917
    yield self, task, function, name, seconds, remark, entry, args, kwargs


@pytest.mark.parametrize("limits", [{}, {"timeout": 60}], ids=["no timeout", "timeout"])
@pytest.mark.parametrize(
    "function",
    [
        in_the_event_loop,
        in_a_thread,
        open_for_a_while,
        pytest.param(functools.partial(in_the_event_loop), id="partial_in_the_event_loop"),
        pytest.param(functools.partial(in_a_thread), id="partial_in_a_thread"),
    ],
)
async def test_no_name_of_a_parameter_is_taken_by_the_library_itself(
    registry, filling, function, limits
) -> None:
    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield

    registry.task("t", **limits)(function)
    scheduler = TaskScheduler(registry, **filling, attempt_hooks=[hook])
    results = await scheduler.run(inputs={name: f"the {name}" for name in OWN_NAMES})

    results.raise_for_failures()
    assert tuple(f"the {name}" for name in OWN_NAMES) == results["t"].result


# `after`, with the whole result


async def test_a_parameter_named_after_what_it_comes_after_takes_the_task_result(
    registry, filling
) -> None:
    error = ValueError("no rows")
    registry.task("fetch")(raising(error))

    @registry.task(after=["fetch"])
    async def tell(fetch):
        return fetch

    results = await TaskScheduler(registry, **filling).run()
    told = results["tell"].result

    assert isinstance(told, TaskResult)
    assert ("fetch", FAILED, error, 1) == (
        told.task_name,
        told.status,
        told.exception,
        told.attempts,
    )


async def test_the_task_result_of_one_that_succeeded_has_its_result(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task(after=["fetch"])
    async def tell(fetch):
        return fetch.status, fetch.result

    assert (COMPLETED, "rows") == (await results_of(registry, **filling))["tell"]


async def test_the_task_result_of_one_that_was_never_started_says_so(registry, filling) -> None:
    registry.task("fetch")(raising(ValueError("no rows")))
    registry.task("load", depends_on=["fetch"])(giving(None))

    @registry.task(after=["load"])
    async def tell(load):
        return load.status, load.attempts, load.error

    results = await TaskScheduler(registry, **filling).run()

    expected = (FAILED, 0, "Dependency 'fetch' failed: ValueError: no rows")
    assert expected == results["tell"].result


async def test_a_mark_takes_the_task_result_too_where_the_task_comes_after(
    registry, filling
) -> None:
    @registry.task(name="fetch-rows")
    async def fetch():
        return "rows"

    @registry.task(after=[fetch])
    async def tell(how: Annotated[TaskResult[str], ResultOf("fetch-rows")] = None):  # type: ignore[assignment]
        return how.result

    assert "rows" == (await results_of(registry, **filling))["tell"]


async def test_after_makes_no_dependency(registry) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task(after=["fetch"])
    async def tell(fetch): ...

    assert [] == dependencies(TaskScheduler(registry), "tell")


def test_after_is_a_list(registry) -> None:
    message = r"Task 'tell': expected after to be a list of tasks, .* Write after=\['fetch'\]\."
    with pytest.raises(TypeError, match=message):
        registry.task("tell", after="fetch")(idle)


async def test_what_is_in_both_counts_as_a_dependency(registry, filling) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task(after=["fetch"], depends_on=["fetch"])
    async def load(fetch):
        return fetch

    assert ["fetch"] == dependencies(TaskScheduler(registry), "load")
    assert "rows" == (await results_of(registry, **filling))["load"]


async def test_one_task_may_take_results_and_task_results(registry, filling) -> None:
    registry.task("rows")(giving("rows"))
    registry.task("load")(raising(ValueError("full")))

    @registry.task(after=["load"])
    async def tell(rows, load, day):
        return rows, load.error, day

    results = await TaskScheduler(registry, **filling).run(inputs={"day": "today"})

    assert ("rows", "ValueError: full", "today") == results["tell"].result


async def test_after_a_lifetime_its_task_result_says_how_it_was_closed(registry, filling) -> None:
    @registry.task
    async def connection():
        yield "open"
        raise ValueError("lost")

    @registry.task(after=["connection"])
    async def tell(connection):
        return connection.status, connection.error

    results = await TaskScheduler(registry, **filling).run()

    assert (FAILED, "ValueError: lost") == results["tell"].result


# What nothing fills


async def refused(registry: TaskRegistry, error: type[DependencyError], **wanted: Any) -> Any:
    """What the run is refused with, of which nothing has run."""
    started = []

    @registry.task(priority=Priority.HIGH)
    async def innocent() -> None:
        started.append("innocent")

    with pytest.raises(error) as caught:
        await TaskScheduler(registry).run(**wanted)
    assert [] == started
    return caught.value


async def test_a_parameter_that_nothing_fills_is_refused_before_anything_runs(registry) -> None:
    @registry.task
    async def load(rows, path="."): ...

    error = await refused(registry, ParameterError)

    assert isinstance(error, DependencyError)
    assert ("load", "rows", ()) == (error.task, error.parameter, error.nearest)
    assert (
        "Task 'load' has a parameter 'rows' that nothing fills: no task and no input of this run "
        "has that name, and it has no default. Give it by run(inputs={'rows': ...}), or name a "
        "task with ResultOf."
    ) == str(error)


async def test_a_misspelt_parameter_is_refused_with_the_nearest_names(registry) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def takes(date): ...

    @registry.task
    async def load(fetsh): ...

    error = await refused(registry, ParameterError, inputs={"date": 1})

    assert ("load", "fetsh", ("fetch",)) == (error.task, error.parameter, error.nearest)
    assert str(error).endswith("it has no default. Did you mean 'fetch'?")


async def test_an_input_may_be_the_nearest_name(registry) -> None:
    @registry.task
    async def fetch(date): ...

    @registry.task
    async def load(dat): ...

    error = await refused(registry, ParameterError, inputs={"date": 1})

    assert ("load", "dat", ("date",)) == (error.task, error.parameter, error.nearest)


@pytest.mark.parametrize("default", [False, True], ids=["required", "with a default"])
async def test_a_misspelt_mark_is_refused_with_the_nearest_names(registry, default) -> None:
    registry.task("fetch")(giving("rows"))

    if default:

        @registry.task
        async def load(rows: Annotated[str, ResultOf("fetsh")] = "default"): ...
    else:

        @registry.task
        async def load(rows: Annotated[str, ResultOf("fetsh")]): ...

    error = await refused(registry, DependencyError)

    assert ("load", "fetsh", ("fetch",)) == (error.task, error.dependency, error.nearest)


async def test_a_positional_only_parameter_that_nothing_fills_is_refused(registry) -> None:
    registry.task("length")(len)

    error = await refused(registry, ParameterError)

    assert ("length", "obj") == (error.task, error.parameter)


async def test_a_parameter_named_after_its_own_task_is_a_cycle(registry) -> None:
    @registry.task
    async def load(load): ...

    with pytest.raises(CyclicDependencyError) as caught:
        await TaskScheduler(registry).run()
    assert ("load", "load") == caught.value.path


async def test_parameters_make_cycles_like_dependencies(registry) -> None:
    @registry.task
    async def one(three): ...

    @registry.task(depends_on=["one"])
    async def two(): ...

    @registry.task
    async def three(it: Annotated[object, ResultOf("two")]): ...

    with pytest.raises(CyclicDependencyError) as caught:
        await TaskScheduler(registry).run()
    path = caught.value.path
    assert {"one", "two", "three"} == set(path)
    assert (4, path[0]) == (len(path), path[-1])


# Inputs of a run


async def test_an_input_fills_every_parameter_of_its_name(registry, filling) -> None:
    @registry.task
    async def fetch(date):
        return f"rows of {date}"

    @registry.task
    async def load(fetch, date, /):
        return fetch, date

    @registry.task
    def plain(*, date):
        return date

    @registry.task
    async def opened(date):
        yield date

    results = await TaskScheduler(registry, **filling).run(inputs={"date": "today"})

    results.raise_for_failures()
    assert ("rows of today", "today") == results["load"].result
    assert ("today", "today") == (results["plain"].result, results["opened"].result)


async def test_none_is_an_input_like_others(registry, filling) -> None:
    @registry.task
    async def fetch(date):
        return [date]

    results = await TaskScheduler(registry, **filling).run(inputs={"date": None})

    assert [None] == results["fetch"].result


async def test_each_run_has_inputs_of_its_own(registry, filling) -> None:
    @registry.task
    async def fetch(date):
        return date

    scheduler = TaskScheduler(registry, **filling)
    first = await scheduler.run(inputs={"date": 1})
    second = await scheduler.run(inputs={"date": 2})

    assert (1, 2) == (first["fetch"].result, second["fetch"].result)
    with pytest.raises(ParameterError):
        await scheduler.run()


async def test_two_runs_at_once_have_inputs_of_their_own(registry, filling) -> None:
    both_started = anyio.Event()
    started, found = [], {}

    @registry.task
    async def fetch(date):
        started.append(date)
        if len(started) == 2:
            both_started.set()
        await both_started.wait()
        return date

    @registry.task
    async def load(fetch, date):
        return fetch, date

    scheduler = TaskScheduler(registry, **filling)

    async def run(date):
        found[date] = (await scheduler.run(inputs={"date": date}))["load"].result

    async with anyio.create_task_group() as group:
        group.start_soon(run, 1)
        group.start_soon(run, 2)

    assert {1: (1, 1), 2: (2, 2)} == found


async def test_inputs_can_be_changed_while_the_run_goes_on(registry) -> None:
    inputs = {"date": "today"}

    @registry.task
    async def change():
        inputs.clear()

    @registry.task(depends_on=["change"])
    async def fetch(date):
        return date

    results = await TaskScheduler(registry).run(inputs=inputs)

    assert "today" == results["fetch"].result


async def test_an_input_with_the_name_of_a_task_is_refused(registry) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def load(fetch): ...

    error = await refused(registry, InputError, inputs={"fetch": "others"})

    assert isinstance(error, DependencyError)
    assert ("fetch", True) == (error.dependency, error.is_task)
    assert "The input 'fetch' has the name of a task. Give one of them another name." == str(error)


async def test_an_input_that_nobody_takes_is_refused_with_the_nearest_names(registry) -> None:
    @registry.task
    async def load(date): ...

    error = await refused(registry, InputError, inputs={"date": 1, "dates": 2})

    assert ("dates", False, ("date",)) == (error.dependency, error.is_task, error.nearest)
    assert (
        "The input 'dates' is taken by no parameter of a task; one with a default keeps that. "
        "Did you mean 'date'?"
    ) == str(error)


@pytest.mark.parametrize(
    "inputs", [{"": 1}, {3: 1}, {None: 1}, {("date",): 1}], ids=["empty", "int", "None", "tuple"]
)
async def test_an_input_of_no_possible_name_is_taken_by_nobody(registry, inputs) -> None:
    @registry.task
    async def load(path="."): ...

    await refused(registry, InputError, inputs=inputs)


async def test_an_input_fills_no_parameter_that_has_a_default(registry) -> None:
    @registry.task
    async def load(date="today"): ...

    error = await refused(registry, InputError, inputs={"date": "tomorrow"})

    assert "date" == error.dependency


async def test_inputs_that_only_tasks_outside_the_targets_take_are_accepted(registry) -> None:
    @registry.task
    async def fetch(date):
        return date

    @registry.task
    async def other(path):
        return path

    scheduler = TaskScheduler(registry)
    results = await scheduler.run(["fetch"], inputs={"date": "today", "path": "."})

    assert ["fetch"] == [one.task_name for one in results]
    assert "today" == results["fetch"].result


async def test_inputs_that_only_tasks_outside_the_targets_take_may_be_missing(registry) -> None:
    @registry.task
    async def fetch(date):
        return date

    @registry.task
    async def other(path): ...

    results = await TaskScheduler(registry).run(["fetch"], inputs={"date": "today"})

    assert "today" == results["fetch"].result


async def test_a_task_outside_the_targets_has_its_name_all_the_same(registry) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def other(path): ...

    with pytest.raises(InputError) as caught:
        await TaskScheduler(registry).run(["other"], inputs={"path": ".", "fetch": 1})
    assert caught.value.is_task


@pytest.mark.parametrize("inputs", ["date", ["date"], {"date"}, 3], ids=repr)
async def test_inputs_are_a_mapping(registry, inputs) -> None:
    with pytest.raises(TypeError, match="Expected inputs to be a mapping of names to values"):
        await TaskScheduler(registry).run(inputs=inputs)


# Worked out once


async def test_parameters_are_worked_out_once_for_a_graph_and_not_for_each_run(
    registry, monkeypatch
) -> None:
    asked = []

    def counting(module: Any, name: str) -> None:
        function = getattr(module, name)

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    registry.task("fetch")(giving("rows"))

    @registry.task
    async def load(fetch: str, date: str): ...

    for name in ("dependencies_of", "sources_of", "warn_of_misfits"):
        counting(_graph, name)
    counting(_parameters.inspect, "signature")
    scheduler = TaskScheduler(registry)
    await scheduler.run(inputs={"date": "today"})
    assert {"dependencies_of", "sources_of", "warn_of_misfits", "signature"} == set(asked)
    asked.clear()
    await scheduler.run(inputs={"date": "tomorrow"})

    assert [] == asked


# Types that do not fit


class Readable(Protocol):
    def read(self) -> bytes: ...


class Animal: ...


class Cat(Animal): ...


class Opening:
    async def __call__(self) -> AsyncIterator[int]:
        yield 3


def async_giving(annotation: Any) -> Callable[..., Any]:
    async def fetch(): ...

    fetch.__annotations__["return"] = annotation
    # Shown by pytest.
    fetch.__name__ = f"async to {annotation!r}"
    return fetch


def plain_giving(annotation: Any) -> Callable[..., Any]:
    def fetch(): ...

    fetch.__annotations__["return"] = annotation
    # Shown by pytest.
    fetch.__name__ = f"plain to {annotation!r}"
    return fetch


def warnings_of(source: Callable[..., Any], wanted: Any, **settings: Any) -> list[str]:
    """What is warned of where `load` wants the result of the source to be of a type."""

    async def load(fetch): ...

    load.__annotations__["fetch"] = wanted
    registry = TaskRegistry()
    registry.task("fetch")(source)
    registry.task("load", **settings)(load)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert 2 == len(TaskScheduler(registry).graph)
    assert all(one.category is ResultTypeWarning for one in caught)
    return [str(one.message) for one in caught]


async def test_a_result_that_plainly_cannot_fit_is_warned_of_before_the_run(registry) -> None:
    started = []

    @registry.task
    async def fetch() -> int:
        started.append("fetch")
        return 3

    @registry.task
    async def load(fetch: list[str]) -> list[str]:
        return fetch

    scheduler = TaskScheduler(registry)
    with pytest.warns(ResultTypeWarning) as caught:
        assert 2 == len(scheduler.graph)

    assert [] == started
    expected = (
        "Task 'fetch' says to return int, and the parameter 'fetch' of task 'load', which takes "
        "it, says to be list[str]."
    )
    assert [expected] == [str(one.message) for one in caught]


async def test_the_warning_refuses_nothing(registry) -> None:
    @registry.task
    async def fetch() -> int:
        return 3

    @registry.task
    async def load(fetch: str) -> str:
        return fetch

    scheduler = TaskScheduler(registry)
    with pytest.warns(ResultTypeWarning):
        results = await scheduler.run()

    assert (COMPLETED, 3) == (results["load"].status, results["load"].result)


async def test_the_warning_comes_once_for_a_graph_and_not_with_every_run(registry) -> None:
    registry.task("fetch")(async_giving(int))

    @registry.task
    async def load(fetch: str): ...

    scheduler = TaskScheduler(registry)
    with pytest.warns(ResultTypeWarning):
        await scheduler.run()
    await scheduler.run()


def test_a_warning_names_classes_as_they_are_written() -> None:
    expected = (
        "Task 'fetch' says to return Priority, and the parameter 'fetch' of task 'load', which "
        "takes it, says to be Iterable."
    )
    assert [expected] == warnings_of(async_giving(Priority), Iterable)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (async_giving(int), str),
        (plain_giving(int), str),
        (async_giving(None), str),
        (async_giving("int"), str),
        (async_giving("int"), "bytes"),
        (async_giving(int | bytes), str | None),
        (async_giving(Cat), Path),
        (async_giving(Awaitable[int]), int),
        (Opening(), str),
        (functools.partial(plain_giving(int)), str),
    ],
)
def test_these_are_warned_of(source, wanted) -> None:
    assert 1 == len(warnings_of(source, wanted))


def test_what_a_mark_asks_for_is_looked_at_too() -> None:
    assert 1 == len(warnings_of(async_giving(int), Annotated[str, ResultOf("fetch")]))
    assert [] == warnings_of(async_giving(int), Annotated[int, ResultOf("fetch")])


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (async_giving(int), int),
        (async_giving(int), Any),
        (async_giving(Any), int),
        (async_giving(int), object),
        (async_giving(object), int),
        (async_giving(int), int | None),
        (async_giving(int | None), int),
        (async_giving(int), Readable),
        (async_giving(Readable), int),
        (async_giving(int), float),
        (async_giving(Priority), float),
        (async_giving(Cat), Animal),
        (async_giving(Animal), Cat),
        (async_giving(list[int]), Iterable[str]),
        (async_giving("OnlyForTypeCheckers"), int),
        (async_giving(int), "OnlyForTypeCheckers"),
        (giving(3), str),
        (plain_giving(Awaitable[int]), int),
        (Opening(), int),
    ],
)
def test_these_are_not_warned_of(source, wanted) -> None:
    assert [] == warnings_of(source, wanted)


def test_what_only_comes_after_takes_another_type_and_is_not_warned_of() -> None:
    assert [] == warnings_of(async_giving(int), TaskResult[int], after=["fetch"])


# Results that are not kept


class Rows(bytearray):
    """A result that tells when it is gone."""


class Watched:
    """Makes results that nobody but the run holds, and tells which of them are still there."""

    def __init__(self) -> None:
        self._made: dict[str, weakref.ref[Rows]] = {}

    def task(self, registry: TaskRegistry, name: str, **settings: Any) -> None:
        async def make() -> Rows:
            return self.made(name)

        registry.task(name, **settings)(make)

    def made(self, name: str) -> Rows:
        rows = Rows()
        self._made[name] = weakref.ref(rows)
        return rows

    def alive(self) -> list[str]:
        gc.collect()
        return [name for name, made in self._made.items() if made() is not None]


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def test_a_result_is_gone_as_soon_as_its_last_taker_lets_it_go(registry, watched) -> None:
    watched.task(registry, "fetch")

    @registry.task
    async def load(fetch):
        given = watched.alive()
        del fetch
        return given, watched.alive()

    assert (["fetch"], []) == (await results_of(registry, keep_results=False))["load"]


async def test_a_result_is_gone_when_its_last_taker_has_ended(registry, watched) -> None:
    watched.task(registry, "fetch")

    @registry.task
    async def first(fetch):
        return fetch is not None

    @registry.task(depends_on=["first"])
    async def between():
        return watched.alive()

    @registry.task(depends_on=["between"])
    async def last(fetch):
        return fetch is not None

    @registry.task(depends_on=["last"])
    async def afterwards():
        return watched.alive()

    found = await results_of(registry, keep_results=False)

    assert (True, True) == (found["first"], found["last"])
    assert (["fetch"], []) == (found["between"], found["afterwards"])


async def test_a_plain_function_holds_what_it_takes_no_longer_than_it_runs(
    registry, watched
) -> None:
    @registry.task
    def fetch():
        return watched.made("fetch")

    @registry.task
    def load(fetch):
        return watched.alive()

    @registry.task(depends_on=["load"])
    async def afterwards():
        return watched.alive()

    found = await results_of(registry, keep_results=False)

    assert (["fetch"], []) == (found["load"], found["afterwards"])


async def test_what_a_plain_function_leaves_to_await_holds_nothing_that_it_took(
    registry, watched
) -> None:
    watched.task(registry, "fetch")

    @registry.task
    def load(fetch):
        async def rest():
            return watched.alive()

        return rest()

    assert [] == (await results_of(registry, keep_results=False))["load"]


async def test_a_callable_object_holds_what_it_takes_no_longer_than_it_wants(
    registry, watched
) -> None:
    class Load:
        async def __call__(self, fetch):
            del fetch
            return watched.alive()

    watched.task(registry, "fetch")
    registry.task("load")(Load())

    assert [] == (await results_of(registry, keep_results=False))["load"]


async def test_a_task_with_a_timeout_holds_what_it_takes_no_longer_than_it_wants(
    registry, watched
) -> None:
    watched.task(registry, "fetch", timeout=60)

    @registry.task(timeout=60)
    async def load(fetch):
        del fetch
        return watched.alive()

    assert [] == (await results_of(registry, keep_results=False))["load"]


async def test_hooks_do_not_hold_what_a_task_takes(registry, watched) -> None:
    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield

    watched.task(registry, "fetch")

    @registry.task
    async def load(fetch):
        del fetch
        return watched.alive()

    found = await results_of(registry, keep_results=False, attempt_hooks=[hook])
    assert [] == found["load"]


async def test_who_made_a_result_does_not_hold_it_while_it_does_something_else(
    registry, watched
) -> None:
    """A worker goes on with another task, that may take long."""
    loaded = anyio.Event()
    watched.task(registry, "fetch")

    @registry.task(depends_on=["fetch"], priority=Priority.HIGH)
    async def long():
        await loaded.wait()
        return watched.alive()

    @registry.task
    async def load(fetch): ...

    @registry.task(depends_on=["load"])
    async def afterwards():
        loaded.set()

    assert [] == (await results_of(registry, keep_results=False))["long"]


async def test_a_result_is_kept_as_long_as_its_taker_has_attempts_left(registry, watched) -> None:
    watched.task(registry, "fetch")
    seen = []

    @registry.task(retries=3)
    async def load(fetch):
        del fetch
        seen.append(watched.alive())
        if len(seen) < 3:
            raise ValueError

    await results_of(registry, keep_results=False)

    assert [["fetch"], ["fetch"], []] == seen


async def test_a_result_is_gone_when_its_taker_succeeds_before_its_last_attempt(
    registry, watched
) -> None:
    watched.task(registry, "fetch")
    registry.task("load", retries=3)(takes_fetch)

    @registry.task(depends_on=["load"])
    async def afterwards():
        return watched.alive()

    assert [] == (await results_of(registry, keep_results=False))["afterwards"]


async def takes_fetch(fetch) -> None: ...


async def test_a_result_is_gone_when_its_taker_fails_with_attempts_left(registry, watched) -> None:
    watched.task(registry, "fetch")

    @registry.task(retries=3)
    async def load(fetch):
        # Or the frame would keep it, which the traceback of what is raised keeps.
        del fetch
        raise NoRetry

    @registry.task(after=["load"])
    async def afterwards():
        return watched.alive()

    results = await TaskScheduler(registry, keep_results=False).run()

    assert (FAILED, 1) == (results["load"].status, results["load"].attempts)
    assert [] == results["afterwards"].result


async def test_a_result_is_gone_when_its_taker_will_never_be_started(registry, watched) -> None:
    watched.task(registry, "fetch")
    registry.task("broken", depends_on=["fetch"])(raising(ValueError()))

    @registry.task(depends_on=["broken"])
    async def load(fetch): ...

    @registry.task(after=["load"])
    async def afterwards():
        return watched.alive()

    results = await TaskScheduler(registry, keep_results=False).run()

    assert [] == results["afterwards"].result


async def test_a_lifetime_lets_go_of_what_it_takes_when_it_wants(registry, watched) -> None:
    watched.task(registry, "fetch")

    @registry.task
    async def opened(fetch):
        del fetch
        yield watched.alive()

    @registry.task
    async def load(opened):
        return opened

    assert [] == (await results_of(registry, keep_results=False))["load"]


async def test_a_lifetime_that_is_open_has_no_more_attempts_to_keep_results_for(
    registry, watched
) -> None:
    watched.task(registry, "fetch")

    @registry.task(retries=3)
    async def opened(fetch):
        del fetch
        yield "open"

    @registry.task
    async def load(opened):
        return watched.alive()

    assert [] == (await results_of(registry, keep_results=False))["load"]


async def test_what_a_lifetime_yields_is_gone_when_its_users_have_it(registry, watched) -> None:
    @registry.task
    async def opened():
        yield watched.made("opened")

    @registry.task
    async def load(opened):
        given = watched.alive()
        del opened
        return given, watched.alive()

    assert (["opened"], []) == (await results_of(registry, keep_results=False))["load"]


async def test_who_takes_the_whole_result_counts_as_a_taker(registry, watched) -> None:
    watched.task(registry, "fetch")

    @registry.task
    async def load(fetch): ...

    @registry.task(after=["fetch", "load"])
    async def tell(fetch):
        given = type(fetch.result)
        del fetch
        return given, watched.alive()

    assert (Rows, []) == (await results_of(registry, keep_results=False))["tell"]


async def test_who_depends_without_taking_does_not_count(registry, watched) -> None:
    watched.task(registry, "fetch")

    @registry.task(priority=Priority.HIGH)
    async def load(fetch): ...

    @registry.task(depends_on=["fetch", "load"])
    async def ordered():
        return watched.alive()

    assert [] == (await results_of(registry, keep_results=False))["ordered"]


async def test_afterwards_it_is_none_and_the_task_is_completed(registry) -> None:
    registry.task("fetch")(giving("rows"))
    registry.task("load")(takes_fetch)

    results = await TaskScheduler(registry, keep_results=False).run()

    assert (COMPLETED, None) == (results["fetch"].status, results["fetch"].result)


async def test_results_that_no_parameter_takes_are_kept(registry) -> None:
    registry.task("fetch")(giving("rows"))
    registry.task("ordered", depends_on=["fetch"])(giving("last"))

    results = await TaskScheduler(registry, keep_results=False).run()

    assert ("rows", "last") == (results["fetch"].result, results["ordered"].result)


@pytest.mark.parametrize("by", ["name", "function"])
async def test_the_results_of_explicit_targets_are_kept(registry, by) -> None:
    fetch = registry.task("fetch")(giving("rows"))

    @registry.task
    async def between(fetch):
        return "between"

    @registry.task
    async def load(between):
        return "loaded"

    scheduler = TaskScheduler(registry, keep_results=False)
    results = await scheduler.run(["load", "fetch" if by == "name" else fetch])

    assert ["rows", None, "loaded"] == [one.result for one in results]


async def test_by_default_every_result_is_kept(registry) -> None:
    registry.task("fetch")(giving("rows"))
    registry.task("load")(takes_fetch)

    results = await TaskScheduler(registry).run()

    assert "rows" == results["fetch"].result


MEGABYTES = 2**20
LINKS = 8


def peak_of(run: Callable[[], Any]) -> int:
    """The most memory that was in use at one time, beyond what was there before."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def chain_of_arrays(size: int) -> TaskRegistry:
    registry = TaskRegistry()

    @registry.task(name="t0")
    async def first():
        return bytearray(size)

    for number in range(1, LINKS):

        @registry.task(name=f"t{number}")
        async def link(array: Annotated[bytearray, ResultOf(f"t{number - 1}")]):
            await anyio.lowlevel.checkpoint()
            return bytearray(len(array))

    return registry


def test_a_chain_of_10_mb_arrays_needs_no_more_than_three_of_them(run_on_backend) -> None:
    size = 10 * MEGABYTES
    registry = chain_of_arrays(size)

    released = peak_of(lambda: run_on_backend(TaskScheduler(registry, keep_results=False).run))
    kept = peak_of(lambda: run_on_backend(TaskScheduler(registry).run))

    assert released < 3 * size
    assert kept >= LINKS * size


# Targets


@pytest.fixture
def steps(registry) -> TaskRegistry:
    """Fetch, then clean and count it, then report; with a clean-up and a task apart."""

    @registry.task
    async def fetch():
        return "rows"

    @registry.task
    async def clean(fetch): ...

    @registry.task
    async def count(fetch): ...

    @registry.task(depends_on=["clean"])
    async def report(): ...

    @registry.task(after=["report", "apart"])
    async def tidy(): ...

    @registry.task
    async def apart(): ...

    return registry


async def names_run(registry: TaskRegistry, targets: Any) -> list[str]:
    """The names of what ran, which is what there are results of."""
    started = []
    definitions = [noting(definition, started) for definition in registry]
    results = await TaskScheduler(definitions).run(targets)
    assert sorted(started) == sorted(one.task_name for one in results)
    assert results.ok
    return [one.task_name for one in results]


def noting(definition: TaskDef, started: list[str]) -> TaskDef:
    async def noted(*args: Any, **kwargs: Any) -> Any:
        started.append(definition.name)

    return TaskDef(
        name=definition.name,
        function=noted,
        depends_on=definition.depends_on,
        after=definition.after,
        parameters=definition.parameters,
    )


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["report"], ["fetch", "clean", "report"]),
        (["count"], ["fetch", "count"]),
        (["count", "clean"], ["fetch", "clean", "count"]),
        (["apart"], ["apart"]),
        (["fetch", "fetch"], ["fetch"]),
        ([], []),
    ],
)
async def test_targets_run_with_what_they_need_and_nothing_else(steps, targets, expected) -> None:
    assert expected == await names_run(steps, targets)


async def test_without_targets_everything_runs(steps) -> None:
    assert len(steps) == len(await names_run(steps, None))


async def test_targets_may_be_functions_and_definitions(registry) -> None:
    @registry.task
    async def fetch(): ...

    @registry.task
    async def load(): ...

    registry.task("apart")(giving(None))

    results = await TaskScheduler(registry).run([fetch, registry["load"]])

    assert ["fetch", "load"] == [one.task_name for one in results]


async def test_after_alone_pulls_nothing_in(steps) -> None:
    assert ["tidy"] == await names_run(steps, ["tidy"])


async def test_after_holds_among_what_runs(steps) -> None:
    names = await names_run(steps, ["tidy", "report"])

    assert ["fetch", "clean", "report", "tidy"] == names


async def test_what_takes_a_task_result_needs_that_task(registry) -> None:
    """Nothing else could fill the parameter."""

    @registry.task
    async def fetch(): ...

    @registry.task(after=["fetch", "apart"])
    async def tell(fetch):
        return fetch.status

    @registry.task
    async def apart(): ...

    results = await TaskScheduler(registry).run(["tell"])

    assert ["fetch", "tell"] == [one.task_name for one in results]
    assert COMPLETED is results["tell"].result


async def test_what_a_mark_names_is_needed_by_a_target(registry) -> None:
    registry.task("fetch-rows")(giving("rows"))

    @registry.task
    async def load(rows: Annotated[str, ResultOf("fetch-rows")] = "default"):
        return rows

    results = await TaskScheduler(registry).run(["load"])

    assert "rows" == results["load"].result


async def test_an_unknown_target_is_refused_with_the_nearest_names(registry) -> None:
    registry.task("report")(giving(None))

    error = await refused(registry, UnknownTargetError, targets=["reprot"])

    assert isinstance(error, DependencyError)
    assert ("reprot", ("report",)) == (error.dependency, error.nearest)
    assert "The target 'reprot' is not registered. Did you mean 'report'?" == str(error)


async def test_the_function_of_another_registry_is_an_unknown_target(registry) -> None:
    @TaskRegistry().task
    async def elsewhere(): ...

    error = await refused(registry, UnknownTargetError, targets=[elsewhere])

    assert "elsewhere" == error.dependency


@pytest.mark.parametrize("targets", ["report", idle, 3], ids=["string", "function", "number"])
async def test_targets_are_a_list(registry, targets) -> None:
    with pytest.raises(TypeError, match=r"run\(\): expected targets to be a list of"):
        await TaskScheduler(registry).run(targets)


async def test_a_graph_that_cannot_be_run_is_refused_whatever_the_targets(registry) -> None:
    registry.task("fetch")(giving(None))
    registry.task("broken", depends_on=["missing"])(giving(None))

    error = await refused(registry, DependencyError, targets=["fetch"])

    assert "missing" == error.dependency


async def test_a_parameter_of_a_task_outside_the_targets_may_be_filled_by_nothing(registry) -> None:
    registry.task("fetch")(giving("rows"))

    @registry.task
    async def load(missing): ...

    scheduler = TaskScheduler(registry)
    assert "rows" == (await scheduler.run(["fetch"]))["fetch"].result
    with pytest.raises(ParameterError):
        await scheduler.run(["load"])


async def test_the_results_know_no_task_that_did_not_run(steps) -> None:
    results = await TaskScheduler(steps).run(["count"])

    assert "report" not in results
    with pytest.raises(KeyError):
        results["report"]


# The graph, before anything runs


async def test_the_order_of_the_graph_is_that_of_the_results(steps) -> None:
    scheduler = TaskScheduler(steps)
    order = scheduler.graph.order
    results = await scheduler.run()

    assert ["fetch", "clean", "count", "report", "apart", "tidy"] == order
    assert order == [one.task_name for one in results]


def test_levels_say_what_may_run_beside_what(steps) -> None:
    levels = TaskScheduler(steps).graph.levels()

    assert [["fetch", "apart"], ["clean", "count"], ["report"], ["tidy"]] == levels


def test_an_empty_graph_has_no_order_no_levels_and_no_critical_path() -> None:
    graph = TaskScheduler([]).graph

    assert ([], [], []) == (graph.order, graph.levels(), graph.critical_path())


def test_the_critical_path_has_the_most_tasks_where_nobody_knows_seconds(steps) -> None:
    path = TaskScheduler(steps).graph.critical_path()

    assert ["fetch", "clean", "report", "tidy"] == path


def test_the_critical_path_has_the_most_seconds_where_they_are_known() -> None:
    graph = Graph(
        [
            defined("fetch"),
            defined("clean", "fetch"),
            defined("load", "clean"),
            defined("count", "fetch", estimate=2.5),
        ]
    )

    assert ["fetch", "count"] == graph.critical_path()


def test_a_task_without_an_estimate_counts_as_one_second() -> None:
    tasks = [defined("a"), defined("b", "a"), defined("c", estimate=1.5)]
    graph = Graph(tasks)

    assert ["a", "b"] == graph.critical_path()
    assert [2, 1, 1.5] == graph.remaining_path()


def test_of_equally_long_paths_the_first_is_the_critical_one() -> None:
    graph = Graph([defined("a"), defined("b"), defined("c", "b"), defined("d", "a")])

    assert ["a", "d"] == graph.critical_path()


def test_an_estimate_of_no_seconds_is_an_estimate() -> None:
    graph = Graph([defined("a", estimate=0), defined("b", "a", estimate=0), defined("c")])

    assert ["c"] == graph.critical_path()


def test_the_subset_is_what_the_targets_would_run(steps) -> None:
    graph = TaskScheduler(steps).graph

    assert ["fetch", "clean", "report"] == graph.subset(["report"]).order
    assert ["tidy"] == graph.subset(["tidy"]).order
    assert len(steps) == len(graph)


def test_a_subset_has_numbers_and_edges_of_its_own(steps) -> None:
    subset = TaskScheduler(steps).graph.subset(["count", "apart", "tidy"])
    fetch, count, apart, tidy = (
        subset.numbers[name] for name in ("fetch", "count", "apart", "tidy")
    )

    assert ["fetch", "count", "apart", "tidy"] == subset.order
    assert ([fetch], [apart]) == (
        list(subset.dependencies[count]),
        list(subset.waits_for(tidy)),
    )


def test_a_subset_inherits_priority_as_the_graph_does() -> None:
    tasks = [
        defined("other", priority=Priority.MEDIUM),
        defined("needed", priority=Priority.LOW),
        defined("urgent", "needed", priority=Priority.HIGH),
    ]
    targets = ["other", "urgent"]

    own = Graph(tasks).subset(targets)
    inherited = Graph(tasks, inherit_priority=True).subset(targets)

    assert ["urgent", "other", "needed"] == start_order(own)
    assert ["needed", "urgent", "other"] == start_order(inherited)


def test_a_subset_of_an_unknown_name_is_refused(steps) -> None:
    with pytest.raises(UnknownTargetError) as caught:
        TaskScheduler(steps).graph.subset(["fetsh"])
    assert ("fetch",) == caught.value.nearest


# The start order


def start_order(graph: Graph) -> list[str]:
    order = [graph.tasks[number].name for number in graph.by_place]
    assert order == sorted(order, key=lambda name: graph.place[graph.numbers[name]])
    return order


NEEDED_BY_AN_URGENT_ONE = [
    defined("medium"),
    defined("needed", priority=Priority.LOW),
    defined("before", "needed", priority=Priority.LOW),
    defined("urgent", "before", priority=Priority.HIGH),
    defined("low", priority=Priority.LOW),
]


def test_a_task_has_its_own_priority_and_no_other() -> None:
    graph = Graph(NEEDED_BY_AN_URGENT_ONE)

    assert ["urgent", "medium", "needed", "before", "low"] == start_order(graph)


def test_what_a_more_urgent_task_needs_near_or_far_may_count_as_that_urgent() -> None:
    graph = Graph(NEEDED_BY_AN_URGENT_ONE, inherit_priority=True)

    assert ["needed", "before", "urgent", "medium", "low"] == start_order(graph)


def test_inheriting_makes_no_task_less_urgent() -> None:
    tasks = [defined("high", priority=Priority.HIGH), defined("low", "high", priority=Priority.LOW)]

    assert Graph(tasks).urgency == Graph(tasks, inherit_priority=True).urgency


def test_what_a_more_urgent_task_comes_after_may_count_as_that_urgent_too() -> None:
    tasks = [
        defined("medium"),
        defined("failing", priority=Priority.LOW),
        defined("tell", priority=Priority.HIGH, after=["failing"]),
    ]

    assert ["failing", "tell", "medium"] == start_order(Graph(tasks, inherit_priority=True))


@pytest.mark.parametrize(
    ("inherit_priority", "expected"),
    [(False, ["medium", "needed", "urgent"]), (True, ["needed", "urgent", "medium"])],
)
async def test_tasks_are_started_with_the_priority_they_inherit(
    registry, inherit_priority, expected
) -> None:
    started = []

    @registry.task
    async def medium():
        started.append("medium")

    @registry.task(priority=Priority.LOW)
    async def needed():
        started.append("needed")

    @registry.task(priority=Priority.HIGH)
    async def urgent(needed):
        started.append("urgent")

    await TaskScheduler(registry, max_concurrency=1, inherit_priority=inherit_priority).run()

    assert expected == started


def test_of_equal_priority_the_longest_path_in_seconds_goes_first() -> None:
    tasks = [
        defined("three"),
        defined("three-b", "three"),
        defined("three-c", "three-b"),
        defined("ten", estimate=10),
        defined("four"),
        defined("four-b", "four", estimate=3),
    ]

    expected = ["ten", "four", "three", "four-b", "three-b", "three-c"]
    assert expected == start_order(Graph(tasks))


def test_priority_goes_before_any_number_of_seconds() -> None:
    tasks = [
        defined("long", estimate=1e9),
        defined("high", priority=Priority.HIGH),
        defined("low", priority=Priority.LOW, estimate=1e9),
    ]

    assert ["high", "long", "low"] == start_order(Graph(tasks))


def test_what_comes_after_counts_for_the_length_of_a_path() -> None:
    tasks = [
        defined("short"),
        defined("long"),
        defined("tidy", after=["long"], estimate=5),
    ]

    assert ["long", "tidy", "short"] == start_order(Graph(tasks))


def test_what_takes_a_result_counts_for_the_length_of_a_path(registry) -> None:
    registry.task("short")(giving(None))
    registry.task("fetch")(giving(None))

    @registry.task(estimate=5)
    async def load(fetch): ...

    assert ["fetch", "load", "short"] == start_order(TaskScheduler(registry).graph)


async def test_tasks_are_started_in_that_order(registry) -> None:
    started = []

    def noting_name(name: str, **settings: Any) -> None:
        async def body() -> None:
            started.append(name)

        registry.task(name, **settings)(body)

    noting_name("short")
    noting_name("middle", estimate=2)
    noting_name("long")
    noting_name("end", depends_on=["long"], estimate=5)
    await TaskScheduler(registry, max_concurrency=1).run()

    assert ["long", "end", "middle", "short"] == started


# Cycles


def cycle_of(*tasks: TaskDef) -> tuple[str, ...]:
    with pytest.raises(CyclicDependencyError) as caught:
        Graph(tasks)
    return caught.value.path


async def lifetime() -> AsyncIterator[None]:
    yield


def open_while(name: str, *depends_on: str, **settings: Any) -> TaskDef:
    return TaskDef(name=name, function=lifetime, depends_on=depends_on, **settings)


def test_a_task_that_comes_after_itself_is_a_cycle() -> None:
    assert ("a", "a") == cycle_of(defined("a", after=["a"]))


def test_tasks_that_come_after_each_other_are_a_cycle() -> None:
    path = cycle_of(defined("a", after=["c"]), defined("b", after=["a"]), defined("c", "b"))

    assert ("a", "c", "b", "a") in turned(path)


def turned(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The same cycle from every start."""
    steps = path[:-1]
    return [(*steps[at:], *steps[:at], steps[at]) for at in range(len(steps))]


def test_an_unknown_name_in_after_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(DependencyError) as caught:
        Graph([defined("fetch"), defined("tidy", after=["fetsh"])])
    assert ("tidy", "fetsh", ("fetch",)) == (
        caught.value.task,
        caught.value.dependency,
        caught.value.nearest,
    )


def test_to_use_what_uses_a_lifetime_and_come_after_that_is_a_cycle() -> None:
    """The first closes only when the second has closed, which waits for the task."""
    path = cycle_of(
        open_while("first"),
        open_while("second", "first"),
        defined("task", "second", after=["first"]),
    )

    assert ("task", "first", "second", "task") in turned(path)


def test_to_use_a_lifetime_through_others_and_come_after_it_is_no_cycle() -> None:
    """What is between is no lifetime, so it has ended and does not hold the lifetime open."""
    graph = Graph(
        [open_while("first"), defined("between", "first"), defined("t", "between", after=["first"])]
    )

    assert ["first", "between", "t"] == graph.order


def test_to_be_needed_by_a_user_of_a_lifetime_and_come_after_that_is_a_cycle() -> None:
    path = cycle_of(
        open_while("opened"),
        defined("waits", after=["opened"]),
        defined("user", "opened", "waits"),
    )

    assert ("waits", "opened", "user", "waits") in turned(path)


def test_a_lifetime_on_a_cycle_is_named_once_whether_it_opens_or_closes() -> None:
    """The user closes before what it uses, and opens before it closes."""
    path = cycle_of(
        open_while("opened"),
        defined("waits", after=["opened"]),
        open_while("user", "opened", "waits"),
    )

    assert ("waits", "opened", "user", "waits") in turned(path)


def test_each_of_two_lifetimes_after_the_close_of_the_other_is_a_cycle() -> None:
    path = cycle_of(open_while("one", after=["two"]), open_while("two", after=["one"]))

    assert ("one", "two", "one") in turned(path)


def test_a_lifetime_may_come_after_the_close_of_another() -> None:
    graph = Graph(
        [
            open_while("one"),
            defined("user", "one"),
            open_while("two", after=["one"]),
            defined("other", "two", after=["user"]),
        ]
    )

    assert 4 == len(graph)


def test_cycles_through_a_close_are_found_in_whatever_order_tasks_are_registered() -> None:
    tasks = [
        defined("task", "second", after=["first"]),
        open_while("second", "first"),
        open_while("first"),
    ]

    assert ("task", "first", "second", "task") in turned(cycle_of(*tasks))


async def test_a_cycle_through_a_close_that_parameters_make_is_refused(registry) -> None:
    started = []

    @registry.task
    async def first():
        started.append("first")
        yield

    @registry.task
    async def second(first):
        yield

    @registry.task(after=["first"])
    async def load(second): ...

    with pytest.raises(CyclicDependencyError) as caught:
        await TaskScheduler(registry).run()
    assert ("load", "first", "second", "load") in turned(caught.value.path)
    assert [] == started


def test_a_cycle_through_the_close_of_10_000_lifetimes_is_found_whole() -> None:
    """Each closes after the next one, and the last one is used by what waits for the first."""
    count = 10_000
    chain = [open_while("t0"), defined("tidy", after=["t0"])]
    chain += [open_while(f"t{at}", f"t{at - 1}") for at in range(1, count)]

    assert count + 1 == len(Graph(chain))
    path = cycle_of(*chain, defined("user", f"t{count - 1}", "tidy"))
    assert count + 2 == len(set(path)) == len(path) - 1


async def test_the_graph_of_the_same_targets_is_worked_out_once(registry, monkeypatch) -> None:
    made = []
    subset = Graph.subset
    monkeypatch.setattr(
        Graph, "subset", lambda graph, names: made.append(names) or subset(graph, names)
    )
    registry.task("fetch")(giving("rows"))
    registry.task("other")(giving("rows"))
    scheduler = TaskScheduler(registry)

    await scheduler.run(["fetch"])
    await scheduler.run(["fetch"])
    await scheduler.run(["other"])

    assert [("fetch",), ("other",)] == made

"""`TaskScheduler`: what it takes, what it shows while it runs, and what its block leaves behind."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest

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
    TaskStatus,
    clear_registry,
    task,
)

pytestmark = pytest.mark.anyio

PENDING, RUNNING = TaskStatus.PENDING, TaskStatus.RUNNING
COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


def returning(value: object) -> Callable[[], Any]:
    async def give() -> object:
        await anyio.lowlevel.checkpoint()
        return value

    return give


def names_of(scheduler: TaskScheduler) -> list[str]:
    return [definition.name for definition in scheduler.graph.tasks]


# The snapshot


def test_the_default_registry_is_what_runs_if_nothing_is_said() -> None:
    task("fetch")(returning(1))

    assert ["fetch"] == names_of(TaskScheduler())


@pytest.mark.parametrize("own", [True, False], ids=["own registry", "default registry"])
def test_what_is_registered_later_is_not_part_of_it(registry, own) -> None:
    decorate = registry.task if own else task
    decorate("before")(returning(1))
    scheduler = TaskScheduler(registry if own else None)
    decorate("after")(returning(1))

    assert ["before"] == names_of(scheduler)


async def test_a_cleared_registry_does_not_matter_to_it() -> None:
    task("fetch")(returning("rows"))
    scheduler = TaskScheduler()
    clear_registry()
    results = await scheduler.run()

    assert "rows" == results["fetch"].result


def test_a_task_that_is_defined_again_later_stays_as_it_was(registry) -> None:
    async def fetch() -> None: ...

    registry.task(fetch)
    scheduler = TaskScheduler(registry)
    registry.task(retries=5)(fetch)

    assert 1 == scheduler.graph.tasks[0].retries


def test_a_list_can_be_changed_afterwards(registry) -> None:
    tasks = [registry.task("fetch")(returning(1))]
    scheduler = TaskScheduler(tasks)
    tasks.clear()

    assert ["fetch"] == names_of(scheduler)


# What it takes


@pytest.mark.parametrize("container", [list, tuple, set, iter, dict.fromkeys])
def test_tasks_come_in_any_iterable(registry, container) -> None:
    fetch = registry.task("fetch")(returning(1))

    assert ["fetch"] == names_of(TaskScheduler(container([fetch])))


def test_tasks_are_functions_and_definitions_in_any_mixture(registry) -> None:
    fetch = registry.task("fetch")(returning(1))
    registry.task("clean")(returning(1))
    definition = TaskDef(name="load", function=returning(1), depends_on=("fetch", "clean"))

    assert ["fetch", "clean", "load"] == names_of(
        TaskScheduler([fetch, registry["clean"], definition])
    )


def test_the_tasks_of_several_registries_can_run_together(registry) -> None:
    other = TaskRegistry()
    registry.task("fetch")(returning(1))
    other.task("load", depends_on=["fetch"])(returning(1))

    assert ["fetch", "load"] == names_of(TaskScheduler([*registry, *other]))


def test_a_task_that_is_given_twice_runs_once(registry) -> None:
    fetch = registry.task("fetch")(returning(1))

    assert ["fetch"] == names_of(TaskScheduler([fetch, registry["fetch"], fetch]))


def test_two_tasks_of_one_name_cannot_run_together(registry) -> None:
    other = TaskRegistry()
    registry.task("fetch")(returning(1))
    other.task("fetch")(returning(2))

    with pytest.raises(DuplicateTaskError):
        TaskScheduler([*registry, *other])


@pytest.mark.parametrize("tasks", [[], (), TaskRegistry()], ids=["list", "tuple", "registry"])
async def test_no_tasks_are_a_run_too(tasks: Iterable[Any]) -> None:
    task("not asked for")(returning(1))
    results = await TaskScheduler(tasks).run()

    assert [] == list(results)


@pytest.mark.parametrize(("limit", "reached"), [(1, 1), (2, 2), (4, 4), (9, 5), (None, 5)])
@pytest.mark.virtual_time
async def test_max_concurrency_is_how_many_tasks_run_at_one_time(registry, limit, reached) -> None:
    running: set[str] = set()
    most = 0

    def sleeping(name: str) -> Callable[[], Any]:
        async def sleep() -> None:
            nonlocal most
            running.add(name)
            most = max(most, len(running))
            await anyio.sleep(1)
            running.discard(name)

        return sleep

    for name in "abcde":
        registry.task(name)(sleeping(name))
    results = await TaskScheduler(registry, max_concurrency=limit).run()

    assert reached == most == results.most_running


# The graph


def test_the_graph_is_worked_out_once_and_when_it_is_asked_for(registry) -> None:
    registry.task("load", depends_on=["missing"])(returning(1))
    broken = TaskScheduler(registry)
    registry.clear()
    registry.task("fetch")(returning(1))
    scheduler = TaskScheduler(registry)

    assert isinstance(scheduler.graph, Graph)
    assert scheduler.graph is scheduler.graph
    with pytest.raises(DependencyError):
        broken.graph  # noqa: B018 - asking is what raises


def test_the_graph_is_what_would_run(registry) -> None:
    registry.task("last", depends_on=["first"])(returning(1))
    registry.task("first", Priority.HIGH)(returning(1))
    graph = TaskScheduler(registry).graph

    assert ["first", "last"] == [definition.name for definition in graph.tasks]
    assert "<Graph of 2 tasks>" == repr(graph)


# Runs


async def test_it_runs_again_and_each_run_has_results_of_its_own(registry) -> None:
    numbers = iter(range(10))

    @registry.task
    async def count() -> int:
        return next(numbers)

    scheduler = TaskScheduler(registry)
    first = await scheduler.run()
    second = await scheduler.run()

    assert [0, 1] == [first[count].result, second[count].result]


def test_it_runs_in_one_event_loop_after_another(registry, run_on_backend) -> None:
    registry.task("fetch")(returning("rows"))
    scheduler = TaskScheduler(registry)
    runs = [run_on_backend(scheduler.run), asyncio.run(scheduler.run())]

    assert ["rows", "rows"] == [results["fetch"].result for results in runs]


async def test_two_runs_at_once_are_two_runs(registry) -> None:
    """Each waits for the other, so that they can only end together."""
    arrived: list[anyio.Event] = []
    both = anyio.Event()
    runs: list[RunResults] = []

    @registry.task
    async def wait_for_the_other_run() -> int:
        arrived.append(anyio.Event())
        if len(arrived) == 2:
            both.set()
        await both.wait()
        return len(arrived)

    scheduler = TaskScheduler(registry, max_concurrency=1)

    async def run() -> None:
        runs.append(await scheduler.run())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)

    assert [2, 2] == [results[wait_for_the_other_run].result for results in runs]
    assert runs[0][0] is not runs[1][0]


@pytest.mark.virtual_time
async def test_of_two_runs_at_once_the_one_begun_last_is_shown(registry) -> None:
    durations = [5, 1]

    @registry.task
    async def sleep() -> int:
        seconds = durations.pop(0)
        await anyio.sleep(seconds)
        return seconds

    scheduler = TaskScheduler(registry)
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        await anyio.sleep(1)
        group.start_soon(scheduler.run)
        await anyio.sleep(2)

        assert [("sleep", COMPLETED)] == list(scheduler.status_snapshot())
        assert 1 == scheduler.results["sleep"].result

    assert 1 == scheduler.results["sleep"].result


async def test_a_task_can_run_a_graph_of_its_own(registry) -> None:
    inner = TaskRegistry()
    inner.task("inner")(returning("from within"))

    @registry.task
    async def outer() -> object:
        results = await TaskScheduler(inner, max_concurrency=1).run()
        return results["inner"].result

    results = await TaskScheduler(registry, max_concurrency=1).run()

    assert "from within" == results[outer].result


@pytest.mark.parametrize(
    ("depends_on", "error"),
    [(["missing"], DependencyError), (["fetch"], CyclicDependencyError)],
    ids=["unknown", "cycle"],
)
async def test_a_graph_that_cannot_be_run_is_refused_each_time(registry, depends_on, error) -> None:
    registry.task("fetch", depends_on=depends_on)(returning(1))
    scheduler = TaskScheduler(registry)

    for _ in range(2):
        with pytest.raises(error):
            await scheduler.run()


# Results and report


async def test_results_are_those_of_the_run(registry) -> None:
    registry.task("fetch")(returning("rows"))
    scheduler = TaskScheduler(registry)
    results = await scheduler.run()

    assert list(results) == list(scheduler.results)


async def test_the_report_is_that_of_the_run_begun_last_if_nothing_is_said(registry) -> None:
    left = [ValueError()]

    @registry.task
    async def fetch() -> None:
        if left:
            raise left.pop()

    scheduler = TaskScheduler(registry)
    first = await scheduler.run()
    second = await scheduler.run()

    assert "1 failed" in scheduler.report(first)
    assert scheduler.report(second) == scheduler.report()


async def test_any_scheduler_reports_any_results(registry) -> None:
    registry.task("fetch")(returning("rows"))
    scheduler = TaskScheduler(registry)
    results = await scheduler.run()

    assert scheduler.report() == TaskScheduler([]).report(results)


@pytest.mark.virtual_time
async def test_results_are_there_after_a_run_that_was_cancelled(registry) -> None:
    @registry.task
    async def sleep() -> None:
        await anyio.sleep(10)

    scheduler = TaskScheduler(registry)
    with anyio.move_on_after(1) as scope:
        await scheduler.run()

    assert scope.cancelled_caught
    assert [CANCELLED] == [result.status for result in scheduler.results]


# The status snapshot


def test_before_the_first_run_every_task_is_pending_in_topological_order(registry) -> None:
    registry.task("last", depends_on=["first"])(returning(1))
    registry.task("first")(returning(1))

    assert [("first", PENDING), ("last", PENDING)] == list(
        TaskScheduler(registry).status_snapshot()
    )


def test_a_snapshot_of_a_graph_that_cannot_be_run_is_refused(registry) -> None:
    registry.task("load", depends_on=["missing"])(returning(1))

    with pytest.raises(DependencyError):
        list(TaskScheduler(registry).status_snapshot())


async def test_during_a_run_it_shows_each_task_where_it_stands(registry) -> None:
    seen: list[dict[str, TaskStatus]] = []

    @registry.task
    async def bad() -> None:
        raise ValueError

    registry.task("skipped", depends_on=["bad"])(returning(1))
    registry.task("good", depends_on=[])(returning(1))

    @registry.task(depends_on=["good"])
    async def looks() -> None:
        seen.append(dict(scheduler.status_snapshot()))

    registry.task("later", depends_on=["looks"])(returning(1))
    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert [
        {"bad": FAILED, "skipped": FAILED, "good": COMPLETED, "looks": RUNNING, "later": PENDING}
    ] == seen


async def test_a_task_with_an_attempt_to_come_stays_running(registry) -> None:
    """Between the two, its slot is taken by a more urgent task, which looks."""
    begun, holding, looked = anyio.Event(), anyio.Event(), anyio.Event()
    seen: list[tuple[TaskStatus, int]] = []

    @registry.task(priority=Priority.HIGH)
    async def opens() -> None:
        await begun.wait()

    @registry.task(priority=Priority.LOW, retries=2)
    async def flaky() -> None:
        begun.set()
        await holding.wait()
        raise ValueError

    @registry.task(priority=Priority.HIGH, depends_on=[opens])
    async def holds_the_other_slot() -> None:
        holding.set()
        await looked.wait()

    @registry.task(priority=Priority.HIGH, depends_on=[opens])
    async def looks() -> None:
        result = scheduler.results["flaky"]
        seen.append((result.status, result.attempts))
        looked.set()

    scheduler = TaskScheduler(registry, max_concurrency=2)
    results = await scheduler.run()

    assert [(RUNNING, 1)] == seen
    assert (FAILED, 2) == (results["flaky"].status, results["flaky"].attempts)


async def test_a_plain_function_can_ask_from_its_thread(registry) -> None:
    @registry.task
    def look() -> list[tuple[str, TaskStatus]]:
        return list(scheduler.status_snapshot())

    scheduler = TaskScheduler(registry)
    results = await scheduler.run()

    assert [("look", RUNNING)] == results[look].result


async def test_a_snapshot_shows_each_status_as_it_is_when_it_is_asked_for(registry) -> None:
    registry.task("one")(returning(1))
    registry.task("two")(returning(1))

    @registry.task(priority=Priority.HIGH)
    async def three() -> None: ...

    scheduler = TaskScheduler(registry)
    await scheduler.run()
    snapshot = scheduler.status_snapshot()

    assert ("one", COMPLETED) == next(snapshot)
    assert [("two", COMPLETED), ("three", COMPLETED)] == list(snapshot)


async def test_after_a_run_it_shows_how_each_task_ended(registry) -> None:
    @registry.task
    async def bad() -> None:
        raise ValueError

    registry.task("skipped", depends_on=["bad"])(returning(1))
    registry.task("good")(returning(1))
    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert [("bad", FAILED), ("skipped", FAILED), ("good", COMPLETED)] == list(
        scheduler.status_snapshot()
    )


# The block


async def test_the_block_gives_the_scheduler_itself(registry) -> None:
    scheduler = TaskScheduler(registry)

    async with scheduler as given:
        assert scheduler is given


@pytest.mark.parametrize(
    ("depends_on", "error"),
    [(["missing"], DependencyError), (["fetch"], CyclicDependencyError)],
    ids=["unknown", "cycle"],
)
async def test_a_graph_that_cannot_be_run_is_refused_before_the_block_begins(
    registry, depends_on, error
) -> None:
    registry.task("fetch", depends_on=depends_on)(returning(1))
    entered: list[str] = []

    with pytest.raises(error):
        async with TaskScheduler(registry):
            entered.append("the block")

    assert [] == entered


async def test_what_the_block_raises_goes_on(registry) -> None:
    error = LookupError()

    with pytest.raises(LookupError) as caught:
        async with TaskScheduler(registry):
            raise error

    assert error is caught.value


async def test_results_are_there_after_the_block(registry) -> None:
    registry.task("fetch")(returning("rows"))
    async with TaskScheduler(registry) as scheduler:
        await scheduler.run()

    assert "rows" == scheduler.results["fetch"].result


async def test_a_scheduler_can_be_used_after_its_block_and_in_another(registry) -> None:
    registry.task("fetch")(returning("rows"))
    scheduler = TaskScheduler(registry)
    async with scheduler:
        pass
    after = await scheduler.run()
    async with scheduler:
        again = await scheduler.run()

    assert ["rows", "rows"] == [after["fetch"].result, again["fetch"].result]


@pytest.mark.virtual_time
@pytest.mark.parametrize("count", [1, 3])
async def test_leaving_the_block_cancels_the_runs_that_are_under_way(registry, count) -> None:
    runs: list[RunResults] = []

    @registry.task
    async def sleep() -> None:
        await anyio.sleep(10)

    registry.task("later", depends_on=["sleep"])(returning(1))
    scheduler = TaskScheduler(registry)

    async def run() -> None:
        runs.append(await scheduler.run())

    async with anyio.create_task_group() as group, scheduler:
        for _ in range(count):
            group.start_soon(run)
        await anyio.sleep(1)

    # What ran it is not cancelled: it gets the results that there are.
    assert [[CANCELLED, CANCELLED]] * count == [
        [result.status for result in results] for results in runs
    ]
    assert [1] * count == [round(results.wall_time, 6) for results in runs]


@pytest.mark.virtual_time
async def test_no_task_runs_after_the_block(registry) -> None:
    """Clean-up that is shielded from the cancellation ends within it."""
    ended: list[str] = []

    @registry.task
    async def sleep() -> None:
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
                ended.append("clean-up")

    scheduler = TaskScheduler(registry)
    async with anyio.create_task_group() as group:
        async with scheduler:
            group.start_soon(scheduler.run)
            await anyio.sleep(1)

        assert ["clean-up"] == ended


@pytest.mark.virtual_time
async def test_an_error_in_the_block_cancels_the_runs_and_goes_on(registry) -> None:
    runs: list[RunResults] = []

    @registry.task
    async def sleep() -> None:
        await anyio.sleep(10)

    scheduler = TaskScheduler(registry)

    async def run() -> None:
        runs.append(await scheduler.run())

    async with anyio.create_task_group() as group:
        with pytest.raises(LookupError):  # noqa: PT012 - the block is what the test is about
            async with scheduler:
                group.start_soon(run)
                await anyio.sleep(1)
                raise LookupError

    assert [CANCELLED] == [result.status for result in runs[0]]


@pytest.mark.virtual_time
async def test_a_block_that_is_cancelled_is_left_at_once(registry) -> None:
    @registry.task
    async def sleep() -> None:
        await anyio.sleep(10)

    scheduler = TaskScheduler(registry)
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(2) as scope:
            async with scheduler:
                group.start_soon(scheduler.run)
                await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert 2 == round(anyio.current_time() - began, 6)
    assert [CANCELLED] == [result.status for result in scheduler.results]


@pytest.mark.virtual_time
async def test_a_block_inside_a_task_of_its_own_run_cancels_that_run(registry) -> None:
    @registry.task
    async def end_it() -> None:
        async with scheduler:
            pass
        await anyio.sleep(10)

    scheduler = TaskScheduler(registry)
    results = await scheduler.run()

    assert [CANCELLED] == [result.status for result in results]
    assert 0 == round(results.wall_time, 6)


def test_another_setting_does_not_mean_another_graph(registry) -> None:
    registry.task("fetch", resources=["db"])(returning(1))
    scheduler = TaskScheduler(registry, resources={"db": 1})

    assert scheduler.graph is scheduler.with_settings(max_concurrency=1).graph
    assert scheduler.graph is not scheduler.with_settings(inherit_priority=True).graph
    with pytest.raises(DependencyError):
        _ = scheduler.with_settings(resources={}).graph

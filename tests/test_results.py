"""What came out: `RunResults` as a sequence and by name, and what each `TaskResult` says."""

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest

from portable_sched import (
    AttemptFailure,
    DependencyFailedError,
    RunResults,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
)

pytestmark = pytest.mark.anyio

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


def returning(value: object) -> Callable[[], Any]:
    async def give() -> object:
        return value

    return give


async def letters(count: int = 4) -> RunResults:
    """Results of tasks "a", "b", ..., which return their own names."""
    registry = TaskRegistry()
    for name in "abcdefgh"[:count]:
        registry.task(name)(returning(name))
    return await TaskScheduler(registry).run()


def names_of(results: Sequence[TaskResult[Any]]) -> list[str]:
    return [result.task_name for result in results]


class LoadError(Exception):
    """As a user's own."""


# A sequence


async def test_results_are_a_sequence() -> None:
    results = await letters()

    assert isinstance(results, Sequence)
    assert 4 == len(results)
    assert ["a", "b", "c", "d"] == names_of(results)
    assert ["d", "c", "b", "a"] == names_of(list(reversed(results)))


async def test_results_stand_in_topological_order(registry) -> None:
    registry.task("last", depends_on=["middle"])(returning(3))
    registry.task("middle", depends_on=["first"])(returning(2))
    registry.task("first")(returning(1))
    results = await TaskScheduler(registry).run()

    assert ["first", "middle", "last"] == names_of(results)


@pytest.mark.parametrize("place", range(-4, 4))
async def test_a_result_is_found_by_its_place(place) -> None:
    results = await letters()

    assert "abcd"[place] == results[place].task_name


@pytest.mark.parametrize("place", [4, -5])
async def test_a_place_that_there_is_not_is_an_index_error(place) -> None:
    results = await letters()

    with pytest.raises(IndexError) as caught:
        results[place]

    assert f"No result at place {place}: there are 4." == str(caught.value)


@pytest.mark.parametrize(
    "which",
    [slice(None), slice(1, 3), slice(None, None, -1), slice(-2, None), slice(0, 9, 2), slice(3, 1)],
)
async def test_a_slice_gives_a_list(which) -> None:
    results = await letters()
    part = results[which]

    assert list is type(part)
    assert list("abcd")[which] == names_of(part)


async def test_a_result_is_in_its_results_and_has_its_place_there() -> None:
    results = await letters()
    third = results["c"]

    assert third in results
    assert 2 == results.index(third)
    assert 1 == results.count(third)
    assert dataclasses.replace(third, task_name="other") not in results


async def test_a_name_is_in_the_results_of_a_graph_that_has_it() -> None:
    results = await letters()

    assert "a" in results
    assert "z" not in results


async def test_an_empty_graph_gives_empty_results(registry) -> None:
    results = await TaskScheduler(registry).run()

    assert [] == list(results)
    assert [] == results[:]
    assert not results
    assert {} == results.counts()
    assert "<RunResults: no tasks>" == repr(results)
    with pytest.raises(IndexError) as caught:
        results[0]
    assert "No result at place 0: there are 0." == str(caught.value)


async def test_results_can_be_unpacked() -> None:
    first, *rest = await letters()

    assert "a" == first.task_name
    assert ["b", "c", "d"] == names_of(rest)


# By name and by function


async def test_a_result_is_found_by_name() -> None:
    results = await letters()

    assert TaskResult("c", COMPLETED, "c", attempts=1) == dataclasses.replace(
        results["c"], duration=0.0, started_at=None
    )


async def test_a_result_is_found_by_function(registry) -> None:
    @registry.task("fetch-rows")
    async def fetch() -> str:
        return "rows"

    @registry.task
    def count() -> int:
        return 4

    results = await TaskScheduler(registry).run()

    assert "rows" == results[fetch].result
    assert 4 == results[count].result


async def test_a_task_may_be_named_like_a_number(registry) -> None:
    for name in ["1", "0"]:
        registry.task(name)(returning(name))
    results = await TaskScheduler(registry).run()

    assert ("0", "1") == (results["0"].result, results[0].result)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fetsh", "No task 'fetsh' in these results. Did you mean 'fetch'?"),
        ("quite different", "No task 'quite different' in these results."),
        ("", "No task '' in these results."),
    ],
)
async def test_an_unknown_name_is_a_key_error_that_offers_the_nearest(
    registry, name, message
) -> None:
    registry.task("fetch")(returning(1))
    results = await TaskScheduler(registry).run()

    with pytest.raises(KeyError) as caught:
        results[name]

    assert (message,) == caught.value.args


async def test_a_function_of_another_graph_is_a_key_error(registry) -> None:
    @TaskRegistry().task
    async def elsewhere() -> None: ...

    results = await TaskScheduler(registry).run()

    with pytest.raises(KeyError) as caught:
        results[elsewhere]

    assert ("No task 'elsewhere' in these results.",) == caught.value.args


# Totals


async def test_counts_has_the_statuses_that_there_are(registry) -> None:
    @registry.task
    async def bad() -> None:
        raise LoadError

    registry.task("good")(returning(1))
    registry.task("skipped", depends_on=["bad"])(returning(1))
    results = await TaskScheduler(registry).run()

    assert {COMPLETED: 1, FAILED: 2} == results.counts()
    assert "<RunResults: 1 COMPLETED, 2 FAILED>" == repr(results)


@pytest.mark.virtual_time
async def test_wall_time_is_from_start_to_end_of_the_run(registry) -> None:
    @registry.task
    async def one() -> None:
        await anyio.sleep(2)

    @registry.task
    async def other() -> None:
        await anyio.sleep(3)

    results = await TaskScheduler(registry).run()

    assert 3 == round(results.wall_time, 6)


async def test_most_running_is_the_concurrency_that_was_reached(registry) -> None:
    started = [anyio.Event() for _ in range(3)]

    def waiting_for_all(mine: anyio.Event) -> Callable[[], Any]:
        async def wait() -> None:
            mine.set()
            for each in started:
                await each.wait()

        return wait

    for number, event in enumerate(started):
        registry.task(f"waits-{number}")(waiting_for_all(event))
    registry.task("last", depends_on=["waits-0", "waits-1", "waits-2"])(returning(1))
    results = await TaskScheduler(registry).run()

    assert 3 == results.most_running


# One result


async def test_a_completed_task_has_its_result_and_no_error(registry) -> None:
    registry.task("fetch")(returning(["rows"]))
    [result] = await TaskScheduler(registry).run()

    assert COMPLETED is result.status
    assert ["rows"] == result.result
    assert (None, None, ()) == (result.error, result.exception, result.failures)
    assert 1 == result.attempts


async def test_a_failed_task_has_its_exception_and_no_result(registry) -> None:
    error = LoadError("no such table")

    @registry.task
    async def load() -> None:
        raise error

    [result] = await TaskScheduler(registry).run()

    assert FAILED is result.status
    assert "LoadError: no such table" == result.error
    assert error is result.exception
    assert result.result is None
    assert (AttemptFailure(1, error, result.duration, result.started_at),) == result.failures


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LoadError(), "LoadError"),
        (LoadError(""), "LoadError"),
        (LoadError("two\nlines"), "LoadError: two\nlines"),
        (KeyError("fetch"), "KeyError: 'fetch'"),
        (ExceptionGroup("both", [LoadError(), LoadError()]), "ExceptionGroup: both"),
    ],
    ids=["no argument", "empty", "two lines", "key error", "group"],
)
async def test_the_error_is_the_exceptions_name_and_text(registry, error, text) -> None:
    @registry.task
    async def load() -> None:
        raise error

    [result] = await TaskScheduler(registry).run()

    # A group adds how many there are in it.
    assert text == str(result.error).removesuffix(" (2 sub-exceptions)")


class SilentError(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


async def test_an_exception_that_cannot_be_shown_has_failed_all_the_same(registry) -> None:
    @registry.task
    async def load() -> None:
        raise SilentError

    registry.task("skipped", depends_on=[load])(returning(1))
    results = await TaskScheduler(registry).run()

    assert [
        "SilentError: <exception str() failed>",
        "Dependency 'load' failed: SilentError: <exception str() failed>",
    ] == [result.error for result in results]


async def test_a_task_that_succeeds_at_last_keeps_the_failures_of_its_attempts(registry) -> None:
    errors = [LoadError("first"), LoadError("second")]
    left = list(errors)

    @registry.task(retries=3)
    async def load() -> str:
        if left:
            raise left.pop(0)
        return "rows"

    [result] = await TaskScheduler(registry).run()

    assert (COMPLETED, "rows", 3) == (result.status, result.result, result.attempts)
    assert (None, None) == (result.error, result.exception)
    assert [(1, errors[0]), (2, errors[1])] == [
        (failure.attempt, failure.exception) for failure in result.failures
    ]


async def test_the_exception_of_a_failed_task_is_that_of_its_last_attempt(registry) -> None:
    errors = [LoadError("first"), LoadError("second")]
    left = list(errors)

    @registry.task(retries=2)
    async def load() -> None:
        raise left.pop(0)

    [result] = await TaskScheduler(registry).run()

    assert errors[1] is result.exception
    assert "LoadError: second" == result.error
    assert [1, 2] == [failure.attempt for failure in result.failures]
    assert errors == [failure.exception for failure in result.failures]


@pytest.mark.virtual_time
async def test_a_duration_is_from_the_first_start_to_the_end_of_the_last_attempt(registry) -> None:
    left = [LoadError(), LoadError()]

    @registry.task
    async def before() -> None:
        await anyio.sleep(5)

    @registry.task(retries=3, depends_on=[before])
    async def load() -> None:
        await anyio.sleep(2)
        if left:
            raise left.pop()

    began = anyio.current_time()
    results = await TaskScheduler(registry).run()

    assert 6 == round(results[load].duration, 6)
    assert 5 == round((results[load].started_at or 0.0) - began, 6)


async def test_a_task_that_was_not_started_has_no_attempt_no_duration_and_no_start(
    registry,
) -> None:
    @registry.task
    async def fetch() -> None:
        raise LoadError("no rows")

    registry.task("skipped", depends_on=["fetch"])(returning(1))
    result = (await TaskScheduler(registry).run())["skipped"]

    assert FAILED is result.status
    assert (0, 0.0, None, ()) == (
        result.attempts,
        result.duration,
        result.started_at,
        result.failures,
    )
    assert "Dependency 'fetch' failed: LoadError: no rows" == result.error


async def test_what_a_skipped_task_says_names_its_dependency_and_the_root_cause(registry) -> None:
    @registry.task
    async def fetch() -> None:
        raise LoadError("no rows")

    registry.task("clean", depends_on=["fetch"])(returning(1))
    registry.task("load", depends_on=["clean"])(returning(1))
    registry.task("tell", depends_on=["load"])(returning(1))
    results = await TaskScheduler(registry).run()

    assert [
        "LoadError: no rows",
        "Dependency 'fetch' failed: LoadError: no rows",
        "Dependency 'clean' failed, because 'fetch' failed: LoadError: no rows",
        "Dependency 'load' failed, because 'fetch' failed: LoadError: no rows",
    ] == [result.error for result in results]
    error = results["tell"].exception
    assert isinstance(error, DependencyFailedError)
    assert ("tell", "load", "fetch", "LoadError: no rows") == (
        error.task,
        error.dependency,
        error.root_cause,
        error.reason,
    )


async def test_two_reads_give_one_and_the_same_exception(registry) -> None:
    @registry.task
    async def fetch() -> None:
        raise LoadError

    registry.task("load", depends_on=["fetch"])(returning(1))
    scheduler = TaskScheduler(registry)
    results = await scheduler.run()

    for name in ["fetch", "load"]:
        assert results[name].exception is results[name].exception
        assert results[name].exception is scheduler.results[name].exception


async def test_two_tasks_that_were_not_started_have_exceptions_of_their_own(registry) -> None:
    @registry.task
    async def fetch() -> None:
        raise LoadError

    registry.task("one", depends_on=["fetch"])(returning(1))
    registry.task("other", depends_on=["fetch"])(returning(1))
    results = await TaskScheduler(registry).run()

    assert results["one"].exception is not results["other"].exception


async def test_two_reads_give_equal_results() -> None:
    results = await letters()

    assert list(results) == list(results)


async def test_a_result_is_frozen_has_slots_and_can_be_pickled() -> None:
    result = (await letters())["a"]

    assert not hasattr(result, "__dict__")
    assert result == pickle.loads(pickle.dumps(result))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.attempts = 2  # type: ignore[misc]


def test_a_status_is_shown_by_its_name() -> None:
    assert "TaskStatus.PENDING" == repr(TaskStatus.PENDING)
    assert ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"] == [
        status.value for status in TaskStatus
    ]


# While the run goes on, and after it was cancelled


async def test_results_can_be_read_during_a_run(registry) -> None:
    seen: list[tuple[str, TaskStatus, int]] = []
    left = [LoadError("first")]

    registry.task("before")(returning("rows"))

    @registry.task(retries=2, depends_on=["before"])
    async def looks() -> None:
        for result in scheduler.results:
            seen.append((result.task_name, result.status, result.attempts))
            assert (None, None) == (result.error, result.exception)
        if left:
            raise left.pop()

    registry.task("later", depends_on=["looks"])(returning(1))
    scheduler = TaskScheduler(registry)
    await scheduler.run()

    later = ("later", TaskStatus.PENDING, 0)
    assert [
        ("before", COMPLETED, 1),
        ("looks", TaskStatus.RUNNING, 1),
        later,
        ("before", COMPLETED, 1),
        ("looks", TaskStatus.RUNNING, 2),
        later,
    ] == seen


@pytest.mark.virtual_time
async def test_a_running_task_has_a_start_and_its_failures_and_no_duration_yet(registry) -> None:
    seen: list[TaskResult[Any]] = []
    error = LoadError("first")

    @registry.task(retries=2)
    async def load() -> None:
        await anyio.sleep(1)
        seen.append(scheduler.results["load"])
        if len(seen) == 1:
            raise error

    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert [0.0, 0.0] == [result.duration for result in seen]
    assert [[], [error]] == [[each.exception for each in result.failures] for result in seen]
    assert None is not seen[0].started_at == seen[1].started_at


async def test_wall_time_is_zero_while_the_run_goes_on(registry) -> None:
    seen: list[float] = []

    @registry.task
    async def looks() -> None:
        seen.append(scheduler.results.wall_time)

    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert [0.0] == seen


async def test_results_read_during_a_run_show_its_end_later(registry) -> None:
    kept: list[RunResults] = []

    @registry.task
    async def looks() -> None:
        kept.append(scheduler.results)

    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert [COMPLETED] == [result.status for result in kept[0]]


@pytest.mark.virtual_time
async def test_a_cancelled_run_leaves_what_there_is(registry) -> None:
    registry.task("done")(returning("rows"))

    @registry.task
    async def sleeps() -> None:
        await anyio.sleep(10)

    registry.task("later", depends_on=["sleeps"])(returning(1))
    scheduler = TaskScheduler(registry)
    with anyio.move_on_after(3):
        await scheduler.run()
    done, sleeping, later = scheduler.results

    assert (COMPLETED, "rows") == (done.status, done.result)
    assert (CANCELLED, 1, 3) == (sleeping.status, sleeping.attempts, round(sleeping.duration, 6))
    assert (CANCELLED, 0, 0.0) == (later.status, later.attempts, later.duration)
    assert [(None, None, ())] * 3 == [
        (result.error, result.exception, result.failures) for result in (done, sleeping, later)
    ]
    assert 3 == round(scheduler.results.wall_time, 6)
    assert "<RunResults: 1 COMPLETED, 2 CANCELLED>" == repr(scheduler.results)


def test_the_result_of_a_task_that_is_not_completed_cannot_be_unwrapped() -> None:
    error = ValueError("no rows")
    failed = TaskResult("load", TaskStatus.FAILED, error="ValueError: no rows", exception=error)

    with pytest.raises(RuntimeError) as caught:
        failed.unwrap()

    assert "Expected task 'load' to be COMPLETED, but it is FAILED: ValueError: no rows" == str(
        caught.value
    )
    assert error is caught.value.__cause__


def test_what_was_never_started_has_nothing_to_unwrap() -> None:
    with pytest.raises(RuntimeError, match=r"but it is CANCELLED\.$"):
        TaskResult("load", TaskStatus.CANCELLED).unwrap()

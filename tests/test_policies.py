"""What a failure, and `stop()`, mean for the rest of a run, and how the results tell of it.

Order is forced by the clock, which jumps: a task that takes 5 s is running at 3 s, and nobody
waits for it.
"""

import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portable_sched import (
    AttemptFailed,
    Backoff,
    Event,
    FailurePolicy,
    Priority,
    RunFinished,
    RunResults,
    RunStarted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskRegistry,
    TaskRetrying,
    TaskScheduled,
    TaskScheduler,
    TaskStarted,
    TaskStatus,
    task,
)
from portable_sched.testing import Recorder

pytestmark = pytest.mark.anyio

virtual_time = pytest.mark.virtual_time

_, RUNNING, COMPLETED, FAILED, CANCELLED = TaskStatus
CONTINUE, DRAIN, CANCEL = FailurePolicy

stops_what_is_new = pytest.mark.parametrize("policy", [DRAIN, CANCEL])

Body = Callable[[], Any]


class LoadError(Exception):
    pass


def takes(seconds: float, error: BaseException | None = None) -> Body:
    """A function that takes so long, and then returns "done" or raises."""

    async def body() -> str:
        await anyio.sleep(seconds)
        if error is not None:
            raise error
        return "done"

    return body


def fails_once(seconds: float = 0) -> Body:
    """A function whose first attempt fails after so long, and whose second is "done"."""
    attempts: Iterator[Body] = iter([takes(seconds, LoadError("once")), takes(0)])

    async def body() -> Any:
        return await next(attempts)()

    return body


def waiting(seconds: float) -> Backoff:
    return Backoff(initial=seconds, factor=1, maximum=seconds, jitter=0)


def statuses(results: RunResults) -> dict[str, TaskStatus]:
    return {result.task_name: result.status for result in results}


async def stop_later(scheduler: TaskScheduler, *moments: float) -> None:
    """Call `stop()` at each of these moments, in seconds from now."""
    began = anyio.current_time()
    for moment in moments:
        await anyio.sleep(moment - (anyio.current_time() - began))
        scheduler.stop()


async def run_and_stop(scheduler: TaskScheduler, *moments: float) -> RunResults:
    """The results of a run that another task of the event loop stops at these moments."""
    async with anyio.create_task_group() as group:
        group.start_soon(partial(stop_later, scheduler, *moments))
        return await scheduler.run()


def register_one_of_each() -> None:
    """A task that fails at 3 s, and whatever else there can be at that moment."""
    task("bad")(takes(3, LoadError("no table")))
    task("dependent", depends_on=["bad"])(takes(1))
    task("far", depends_on=["dependent"])(takes(1))
    task("after", after=["bad"])(takes(1))
    task("done")(takes(1))
    task("running")(takes(5))
    task("next", depends_on=["running"])(takes(1))
    # A `LoadError` at 2 s, and another attempt at 12 s.
    task("flaky", retries=2, backoff=waiting(10))(fails_once(2))
    task("needs-flaky", depends_on=["flaky"])(takes(1))


# CONTINUE


@virtual_time
async def test_continue_runs_everything_that_does_not_depend_on_what_failed() -> None:
    register_one_of_each()
    results = await TaskScheduler(on_failure=CONTINUE).run()

    assert {
        "bad": FAILED,
        "dependent": FAILED,
        "far": FAILED,
        "after": COMPLETED,
        "done": COMPLETED,
        "running": COMPLETED,
        "next": COMPLETED,
        "flaky": COMPLETED,
        "needs-flaky": COMPLETED,
    } == statuses(results)


@virtual_time
async def test_what_depends_on_a_failure_says_why_and_was_never_started() -> None:
    register_one_of_each()
    results = await TaskScheduler().run()

    assert "Dependency 'bad' failed: LoadError: no table" == results["dependent"].error
    assert "Dependency 'dependent' failed, because 'bad' failed: LoadError: no table" == (
        results["far"].error
    )
    assert [(0, None), (0, None)] == [
        (results[name].attempts, results[name].started_at) for name in ("dependent", "far")
    ]


@virtual_time
async def test_continue_is_the_default() -> None:
    register_one_of_each()
    by_default = await TaskScheduler().run()

    assert {COMPLETED: 6, FAILED: 3} == by_default.counts()


# DRAIN


@virtual_time
async def test_drain_starts_nothing_new_and_lets_what_is_running_end() -> None:
    register_one_of_each()
    results = await TaskScheduler(on_failure=DRAIN).run()

    assert {
        "bad": FAILED,
        "dependent": FAILED,
        "far": FAILED,
        "after": CANCELLED,
        "done": COMPLETED,
        "running": COMPLETED,
        "next": CANCELLED,
        "flaky": FAILED,
        "needs-flaky": FAILED,
    } == statuses(results)
    assert "done" == results["running"].result
    # Not a second later than what was running.
    assert 5 == results.wall_time


@virtual_time
async def test_drain_lets_what_is_running_fail_too() -> None:
    task("bad")(takes(3, LoadError("first")))
    task("worse")(takes(5, LoadError("second")))
    task("dependent", depends_on=["worse"])(takes(1))
    results = await TaskScheduler(on_failure=DRAIN).run()

    assert ["LoadError: first", "LoadError: second"] == [
        results[name].error for name in ("bad", "worse")
    ]
    # It was given up at the first failure.
    assert CANCELLED is results["dependent"].status


@virtual_time
async def test_drain_gives_no_other_attempt_to_what_was_running() -> None:
    task("bad")(takes(3, LoadError()))
    task("flaky", retries=3)(fails_once(5))
    results = await TaskScheduler(on_failure=DRAIN).run()

    assert (FAILED, 1, "LoadError: once") == (
        results["flaky"].status,
        results["flaky"].attempts,
        results["flaky"].error,
    )


# CANCEL


@virtual_time
async def test_cancel_starts_nothing_new_and_cancels_what_is_running() -> None:
    register_one_of_each()
    results = await TaskScheduler(on_failure=CANCEL).run()

    assert {
        "bad": FAILED,
        "dependent": FAILED,
        "far": FAILED,
        "after": CANCELLED,
        "done": COMPLETED,
        "running": CANCELLED,
        "next": CANCELLED,
        "flaky": FAILED,
        "needs-flaky": FAILED,
    } == statuses(results)
    assert 3 == results.wall_time


@virtual_time
async def test_cancel_returns_results_and_raises_nothing() -> None:
    """The cancellation is the run's own business, and stays inside."""
    task("bad")(takes(3, LoadError()))
    task("running")(takes(5))
    with anyio.CancelScope() as scope:
        results = await TaskScheduler(on_failure=CANCEL).run()
        await checkpoint()

    assert not scope.cancelled_caught
    assert {"bad": FAILED, "running": CANCELLED} == statuses(results)


@virtual_time
async def test_a_shielded_clean_up_finishes_when_the_policy_cancels() -> None:
    cleaned = []

    @task
    async def running() -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(4)
                cleaned.append("up")

    task("bad")(takes(3, LoadError()))
    results = await TaskScheduler(on_failure=CANCEL).run()

    assert ["up"] == cleaned
    assert (CANCELLED, 7) == (results[running].status, results[running].duration)
    assert 7 == results.wall_time


@virtual_time
async def test_what_a_cancelled_task_raises_in_its_clean_up_is_kept_and_is_no_failure() -> None:
    error = LoadError("in the clean-up")

    @task(retries=3)
    async def running() -> None:
        try:
            await anyio.sleep(100)
        finally:
            raise error

    task("bad")(takes(3, LoadError()))
    results = await TaskScheduler(on_failure=CANCEL).run()
    result = results[running]

    assert (CANCELLED, 1, None) == (result.status, result.attempts, result.error)
    assert [error] == [failure.exception for failure in result.failures]


async def test_cancel_never_enters_a_task_that_was_ready_when_another_failed() -> None:
    entered = []

    @task(priority=Priority.HIGH)
    async def bad() -> None:
        raise LoadError

    for number in range(20):

        @task(f"ready-{number}")
        async def ready(number: int = number) -> None:
            entered.append(number)

    results = await TaskScheduler(on_failure=CANCEL).run()

    assert [] == entered
    assert {FAILED: 1, CANCELLED: 20} == results.counts()


# DRAIN and CANCEL


@virtual_time
@stops_what_is_new
async def test_dependents_have_failed_before_the_rest_is_cancelled(policy) -> None:
    recorder = Recorder()
    # The rest comes first in every order there is but that of the policy.
    task("rest", priority=Priority.HIGH, depends_on=["slow"])(takes(1))
    task("slow", priority=Priority.HIGH)(takes(5))
    task("bad")(takes(3, LoadError()))
    task("dependent", priority=Priority.LOW, depends_on=["bad"])(takes(1))
    task("far", priority=Priority.LOW, depends_on=["dependent"])(takes(1))
    await TaskScheduler(on_failure=policy, observers=[recorder]).run()

    assert ["bad", "dependent", "far", "rest", "slow"] == recorder.ended


@virtual_time
@stops_what_is_new
async def test_what_depends_on_a_failure_and_on_the_rest_has_failed(policy) -> None:
    task("slow")(takes(5))
    task("bad")(takes(3, LoadError()))
    task("both", depends_on=["slow", "bad"])(takes(1))
    task("after-both", depends_on=["slow"], after=["bad"])(takes(1))
    results = await TaskScheduler(on_failure=policy).run()

    assert (FAILED, CANCELLED) == (results["both"].status, results["after-both"].status)


@virtual_time
@stops_what_is_new
async def test_a_task_in_backoff_has_failed_with_its_exceptions(policy) -> None:
    register_one_of_each()
    results = await TaskScheduler(on_failure=policy).run()
    flaky = results["flaky"]

    assert (FAILED, 1, "LoadError: once") == (flaky.status, flaky.attempts, flaky.error)
    assert [flaky.exception] == [failure.exception for failure in flaky.failures]
    assert "Dependency 'flaky' failed: LoadError: once" == results["needs-flaky"].error
    # It ended when the run gave it up, a second after its attempt.
    assert 3 == flaky.duration


@virtual_time
@stops_what_is_new
async def test_a_task_that_waits_for_a_slot_to_try_again_has_failed_too(policy) -> None:
    """Its backoff is over, or there was none, and it is in nobody's hands."""
    task("flaky", retries=2)(fails_once(2))
    task("first", priority=Priority.HIGH)(takes(1))
    # They have the two slots from 1 s and 2 s on.
    task("bad", priority=Priority.HIGH, depends_on=["first"])(takes(5, LoadError()))
    task("urgent", priority=Priority.HIGH, depends_on=["first"])(takes(10))
    results = await TaskScheduler(on_failure=policy, max_concurrency=2).run()
    flaky = results["flaky"]

    assert (FAILED, 1, "LoadError: once") == (flaky.status, flaky.attempts, flaky.error)


@virtual_time
@stops_what_is_new
async def test_a_task_that_has_been_tried_again_and_succeeds_triggers_nothing(policy) -> None:
    task("flaky", retries=2, backoff=waiting(2))(fails_once(1))
    task("running")(takes(10))
    task("next", depends_on=["running"])(takes(1))
    results = await TaskScheduler(on_failure=policy).run()

    assert results.ok
    assert 11 == results.wall_time


@virtual_time
@stops_what_is_new
async def test_a_failed_attempt_with_another_to_come_triggers_nothing(policy) -> None:
    calls = []

    @task(retries=2, backoff=waiting(5))
    async def bad() -> None:
        calls.append(anyio.current_time())
        raise LoadError

    # It starts between the two attempts, and ends before the second.
    task("before")(takes(1))
    task("between", depends_on=["before"])(takes(1))
    task("never", depends_on=["between"], after=[bad])(takes(1))
    results = await TaskScheduler(on_failure=policy).run()

    assert 2 == len(calls)
    assert {"bad": FAILED, "before": COMPLETED, "between": COMPLETED, "never": CANCELLED} == (
        statuses(results)
    )


@virtual_time
@stops_what_is_new
async def test_a_timeout_is_a_failure_like_any_other(policy) -> None:
    task("late", timeout=3)(takes(100))
    task("next", after=["late"])(takes(1))
    results = await TaskScheduler(on_failure=policy).run()

    assert {"late": FAILED, "next": CANCELLED} == statuses(results)


@virtual_time
@stops_what_is_new
async def test_a_task_that_cancels_itself_is_a_failure_too(policy) -> None:
    @task
    async def cancels_itself() -> None:
        await anyio.sleep(3)
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                caught = error
        try:
            raise caught
        finally:
            del caught

    task("next", after=[cancels_itself])(takes(1))
    results = await TaskScheduler(on_failure=policy).run()

    assert {"cancels_itself": FAILED, "next": CANCELLED} == statuses(results)


@virtual_time
@stops_what_is_new
async def test_tasks_that_wait_for_a_resource_are_cancelled_and_it_is_free_for_the_next_run(
    policy,
) -> None:
    errors: list[LoadError | None] = [LoadError(), None]

    @task(priority=Priority.HIGH, resources=["db"])
    async def bad() -> None:
        await anyio.sleep(3)
        error = errors.pop(0)
        if error is not None:
            raise error

    task("waits", resources=["db"])(takes(1))
    scheduler = TaskScheduler(on_failure=policy, resources={"db": 1})
    first = await scheduler.run()
    second = await scheduler.run()

    assert {"bad": FAILED, "waits": CANCELLED} == statuses(first)
    assert {"bad": COMPLETED, "waits": COMPLETED} == statuses(second)


@virtual_time
@stops_what_is_new
async def test_a_clean_up_that_must_happen_is_a_lifetime(policy) -> None:
    closed = []

    @task
    async def connection() -> Any:
        yield "connection"
        await anyio.sleep(1)
        closed.append(anyio.current_time() - began)

    @task
    async def load(connection: str) -> None:
        await anyio.sleep(3)
        raise LoadError

    @task
    async def index(connection: str, load: None) -> None:
        pass

    began = anyio.current_time()
    results = await TaskScheduler(on_failure=policy).run()

    assert [4] == closed
    assert {"connection": COMPLETED, "load": FAILED, "index": FAILED} == statuses(results)


@virtual_time
@stops_what_is_new
async def test_a_policy_holds_for_each_of_two_runs_by_itself(policy) -> None:
    fails = [True, False]

    @task
    async def maybe() -> None:
        failing = fails.pop(0)
        await anyio.sleep(3)
        if failing:
            raise LoadError

    task("next", after=[maybe])(takes(1))
    scheduler = TaskScheduler(on_failure=policy)
    outcomes = []

    async def run() -> None:
        outcomes.append((await scheduler.run()).counts())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)

    assert 2 == len(outcomes)
    assert {COMPLETED: 2} in outcomes
    assert {FAILED: 1, CANCELLED: 1} in outcomes


@pytest.mark.parametrize("given", ["DRAIN", None, 1, FailurePolicy])
def test_what_is_no_policy_is_refused(given) -> None:
    with pytest.raises(TypeError) as caught:
        TaskScheduler([], on_failure=given)

    assert (
        "Expected on_failure to be FailurePolicy.CONTINUE, FailurePolicy.DRAIN or "
        f"FailurePolicy.CANCEL, got {given!r} ({type(given).__name__})."
    ) == str(caught.value)


def test_a_policy_is_shown_as_it_is_written() -> None:
    assert "[FailurePolicy.CONTINUE, FailurePolicy.DRAIN, FailurePolicy.CANCEL]" == (
        repr(list(FailurePolicy))
    )


# A run that is stopped


def register_a_chain_and_more() -> None:
    """At 3 s: `running` runs, `flaky` is in backoff, the rest is yet to start."""
    task("done")(takes(1))
    task("running")(takes(5))
    task("next", depends_on=["running"])(takes(1))
    task("after", after=["running"])(takes(1))
    task("flaky", retries=2, backoff=waiting(100))(fails_once(2))
    task("needs-flaky", depends_on=["flaky"])(takes(1))
    task("after-flaky", after=["flaky"])(takes(1))


STOPPED_AT_3 = {
    "done": COMPLETED,
    "running": COMPLETED,
    "next": CANCELLED,
    "after": CANCELLED,
    "flaky": FAILED,
    "needs-flaky": FAILED,
    "after-flaky": CANCELLED,
}


@virtual_time
@pytest.mark.parametrize("policy", FailurePolicy)
async def test_stop_starts_nothing_new_and_lets_what_is_running_end(policy) -> None:
    register_a_chain_and_more()
    results = await run_and_stop(TaskScheduler(on_failure=policy), 3)

    assert STOPPED_AT_3 == statuses(results)
    assert 5 == results.wall_time


@virtual_time
async def test_stop_ends_backoffs_at_once_and_keeps_their_exceptions() -> None:
    error = LoadError("once")
    task("flaky", retries=2, backoff=waiting(100))(takes(1, error))
    results = await run_and_stop(TaskScheduler(), 3)
    flaky = results["flaky"]

    assert (FAILED, 1, error) == (flaky.status, flaky.attempts, flaky.exception)
    assert [error] == [failure.exception for failure in flaky.failures]
    assert (3, 3) == (flaky.duration, results.wall_time)


@virtual_time
async def test_a_task_that_fails_after_stop_has_no_other_attempt() -> None:
    asked = []
    task("flaky", retries=5, retry_on=asked.append)(fails_once(5))
    results = await run_and_stop(TaskScheduler(), 3)

    assert (FAILED, 1) == (results["flaky"].status, results["flaky"].attempts)
    # So nobody is asked whether it is worth one.
    assert [] == asked


@virtual_time
async def test_a_second_stop_cancels_what_is_running() -> None:
    register_a_chain_and_more()
    results = await run_and_stop(TaskScheduler(), 3, 4)

    assert {**STOPPED_AT_3, "running": CANCELLED} == statuses(results)
    assert 4 == results.wall_time


@virtual_time
async def test_two_stops_in_one_moment_cancel_too() -> None:
    register_a_chain_and_more()
    results = await run_and_stop(TaskScheduler(), 3, 3)

    assert {**STOPPED_AT_3, "running": CANCELLED} == statuses(results)
    assert 3 == results.wall_time


@virtual_time
async def test_a_third_stop_changes_nothing() -> None:
    @task
    async def cleans_up() -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)

    results = await run_and_stop(TaskScheduler(), 3, 4, 5)

    assert (CANCELLED, 14) == (results[cleans_up].status, results.wall_time)


@virtual_time
async def test_a_shielded_clean_up_finishes_when_stop_cancels() -> None:
    cleaned = []

    @task
    async def running() -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(4)
                cleaned.append("up")

    results = await run_and_stop(TaskScheduler(), 3, 5)

    assert ["up"] == cleaned
    assert (CANCELLED, 9) == (results[running].status, results.wall_time)


@virtual_time
async def test_the_first_stop_cancels_nothing_where_the_policy_has_drained_already() -> None:
    """Whoever calls it for the first time asks for an end, whatever has happened before."""
    task("bad")(takes(1, LoadError()))
    task("running")(takes(10))
    scheduler = TaskScheduler(on_failure=DRAIN)
    results = await run_and_stop(scheduler, 3)

    assert {"bad": FAILED, "running": COMPLETED} == statuses(results)


@virtual_time
async def test_a_second_stop_cancels_where_the_policy_has_drained_already() -> None:
    task("bad")(takes(1, LoadError()))
    task("running")(takes(10))
    results = await run_and_stop(TaskScheduler(on_failure=DRAIN), 3, 4)

    assert {"bad": FAILED, "running": CANCELLED} == statuses(results)
    assert 4 == results.wall_time


@virtual_time
async def test_the_policy_still_holds_after_stop() -> None:
    """With CANCEL a failure cancels what stop() had left running."""
    task("bad")(takes(5, LoadError()))
    task("running")(takes(10))
    results = await run_and_stop(TaskScheduler(on_failure=CANCEL), 3)

    assert {"bad": FAILED, "running": CANCELLED} == statuses(results)
    assert 5 == results.wall_time


async def test_a_task_may_stop_its_own_run_and_completes() -> None:
    @task(priority=Priority.HIGH)
    async def stops() -> str:
        scheduler.stop()
        await checkpoint()
        return "done"

    task("dependent", depends_on=[stops])(takes(0))
    task("other")(takes(0))
    scheduler = TaskScheduler(max_concurrency=1)
    results = await scheduler.run()

    assert {"stops": COMPLETED, "dependent": CANCELLED, "other": CANCELLED} == statuses(results)
    assert "done" == results[stops].result


async def test_a_task_that_stops_its_run_twice_is_cancelled_where_it_waits_next() -> None:
    reached = []

    @task
    async def stops() -> None:
        scheduler.stop()
        scheduler.stop()
        reached.append("the checkpoint")
        await checkpoint()
        reached.append("the end")

    task("dependent", depends_on=[stops])(takes(0))
    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert ["the checkpoint"] == reached
    assert {"stops": CANCELLED, "dependent": CANCELLED} == statuses(results)


async def test_a_task_that_stops_its_run_twice_and_never_waits_has_completed() -> None:
    @task
    async def stops() -> str:
        scheduler.stop()
        scheduler.stop()
        return "done"

    task("dependent", depends_on=[stops])(takes(0))
    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert {"stops": COMPLETED, "dependent": CANCELLED} == statuses(results)


async def test_nothing_starts_after_stop_however_much_is_ready() -> None:
    entered = []

    @task(priority=Priority.HIGH)
    async def stops() -> None:
        # By then workers for all of them have been sent for.
        for _ in range(10):
            await checkpoint()
        scheduler.stop()
        entered.clear()

    for number in range(100):

        @task(f"t{number}")
        async def other(number: int = number) -> None:
            entered.append(number)
            await checkpoint()

    scheduler = TaskScheduler(max_concurrency=3)
    results = await scheduler.run()

    assert [] == entered
    assert {COMPLETED, CANCELLED} == set(results.counts())


async def test_stop_before_and_after_a_run_does_nothing() -> None:
    task("t")(takes(0))
    scheduler = TaskScheduler()
    scheduler.stop()
    first = await scheduler.run()
    scheduler.stop()
    scheduler.stop()
    second = await scheduler.run()

    assert (True, True) == (first.ok, second.ok)
    assert COMPLETED is first["t"].status


@virtual_time
async def test_a_run_after_one_that_was_stopped_is_not_stopped() -> None:
    registry = TaskRegistry()
    registry.task("running")(takes(5))
    registry.task("next", depends_on=["running"])(takes(1))
    scheduler = TaskScheduler(registry)
    first = await run_and_stop(scheduler, 3)
    second = await scheduler.run()

    assert {"running": COMPLETED, "next": CANCELLED} == statuses(first)
    assert second.ok


@virtual_time
async def test_stop_stops_all_the_runs_of_a_scheduler_and_no_other() -> None:
    registry = TaskRegistry()
    registry.task("running")(takes(5))
    registry.task("next", depends_on=["running"])(takes(1))
    stopped, other = TaskScheduler(registry), TaskScheduler(registry)
    counts: dict[str, dict[TaskStatus, int]] = {}

    async def run(name: str, scheduler: TaskScheduler) -> None:
        counts[name] = (await scheduler.run()).counts()

    async with anyio.create_task_group() as group:
        group.start_soon(run, "one", stopped)
        group.start_soon(run, "two", stopped)
        group.start_soon(run, "other", other)
        group.start_soon(stop_later, stopped, 3)

    drained = {COMPLETED: 1, CANCELLED: 1}
    assert {"one": drained, "two": drained, "other": {COMPLETED: 2}} == counts


@virtual_time
async def test_a_second_stop_drains_a_run_that_was_begun_after_the_first() -> None:
    registry = TaskRegistry()
    registry.task("running")(takes(5))
    registry.task("next", depends_on=["running"])(takes(1))
    scheduler = TaskScheduler(registry)
    seen: dict[str, dict[str, TaskStatus]] = {}

    async def run(name: str, wait: float) -> None:
        await anyio.sleep(wait)
        seen[name] = statuses(await scheduler.run())

    async with anyio.create_task_group() as group:
        group.start_soon(run, "first", 0)
        group.start_soon(run, "later", 2)
        group.start_soon(stop_later, scheduler, 1, 3)

    assert {"running": CANCELLED, "next": CANCELLED} == seen["first"]
    assert {"running": COMPLETED, "next": CANCELLED} == seen["later"]


@virtual_time
async def test_stop_cancels_what_waits_for_a_resource() -> None:
    task("holds", priority=Priority.HIGH, resources=["db"])(takes(5))
    task("waits", resources=["db"])(takes(1))
    results = await run_and_stop(TaskScheduler(resources={"db": 1}), 3)

    assert {"holds": COMPLETED, "waits": CANCELLED} == statuses(results)


@virtual_time
async def test_a_task_that_waits_for_its_resource_to_try_again_has_failed_when_stopped() -> None:
    task("flaky", priority=Priority.HIGH, retries=2, backoff=waiting(1), resources=["db"])(
        fails_once(1)
    )
    # It has what `flaky` wants from 1 s on.
    task("holds", resources=["db"])(takes(10))
    results = await run_and_stop(TaskScheduler(resources={"db": 1}), 3)

    assert {"flaky": FAILED, "holds": COMPLETED} == statuses(results)
    assert (1, "LoadError: once") == (results["flaky"].attempts, results["flaky"].error)


@virtual_time
async def test_lifetimes_are_closed_when_a_run_is_stopped() -> None:
    closed = []

    @task
    async def connection() -> Any:
        yield "connection"
        closed.append(anyio.current_time() - began)

    @task
    async def load(connection: str) -> None:
        await anyio.sleep(5)

    @task
    async def index(connection: str, load: None) -> None:
        pass

    began = anyio.current_time()
    results = await run_and_stop(TaskScheduler(), 3)

    assert [5] == closed
    assert {"connection": COMPLETED, "load": COMPLETED, "index": CANCELLED} == statuses(results)


@virtual_time
async def test_the_snapshot_shows_at_once_what_stop_has_done() -> None:
    register_a_chain_and_more()
    scheduler = TaskScheduler()
    seen: dict[str, TaskStatus] = {}

    async def stop() -> None:
        await anyio.sleep(3)
        scheduler.stop()
        seen.update(scheduler.status_snapshot())

    async with anyio.create_task_group() as group:
        group.start_soon(stop)
        await scheduler.run()

    assert {**STOPPED_AT_3, "running": RUNNING} == seen


# A run that an observer stops


def stopping(scheduler_of: Callable[[], TaskScheduler], *kinds: type[Event]) -> Any:
    """An observer that stops the run whenever it is told such an event."""

    def observer(event: Event) -> None:
        if isinstance(event, kinds):
            scheduler_of().stop()

    return observer


async def test_an_observer_that_stops_a_run_that_has_started_lets_nothing_start() -> None:
    entered = []

    @task
    async def first() -> None:
        entered.append("first")

    task("second", depends_on=[first])(takes(0))
    observer = stopping(lambda: scheduler, RunStarted)
    scheduler = TaskScheduler(observers=[observer])
    results = await scheduler.run()

    assert [] == entered
    assert {CANCELLED: 2} == results.counts()


async def test_an_observer_may_stop_twice_before_anything_has_started() -> None:
    task("first")(takes(0))
    observer = stopping(lambda: scheduler, RunStarted, TaskScheduled)
    scheduler = TaskScheduler(observers=[observer])
    with anyio.CancelScope() as scope:
        results = await scheduler.run()
        await checkpoint()

    assert not scope.cancelled_caught
    assert {CANCELLED: 1} == results.counts()


async def test_an_observer_that_stops_a_run_that_has_finished_changes_nothing() -> None:
    task("first")(takes(0))
    observer = stopping(lambda: scheduler, RunFinished)
    scheduler = TaskScheduler(observers=[observer, observer])
    with anyio.CancelScope() as scope:
        results = await scheduler.run()
        await checkpoint()

    assert not scope.cancelled_caught
    assert results.ok
    assert (await scheduler.run()).ok


@virtual_time
async def test_an_observer_may_stop_the_run_when_a_task_has_completed() -> None:
    task("first")(takes(1))
    task("second", depends_on=["first"])(takes(1))
    task("running")(takes(5))
    observer = stopping(lambda: scheduler, TaskCompleted)
    scheduler = TaskScheduler(observers=[observer])
    results = await scheduler.run()

    assert {"first": COMPLETED, "second": CANCELLED, "running": COMPLETED} == statuses(results)


@virtual_time
async def test_an_observer_may_stop_the_run_instead_of_another_attempt() -> None:
    task("flaky", retries=2, backoff=waiting(100))(fails_once(1))
    task("dependent", depends_on=["flaky"])(takes(1))
    observer = stopping(lambda: scheduler, TaskRetrying)
    scheduler = TaskScheduler(observers=[observer])
    results = await scheduler.run()

    assert {"flaky": FAILED, "dependent": FAILED} == statuses(results)
    assert 1 == results.wall_time


@virtual_time
@pytest.mark.parametrize("kind", [AttemptFailed, TaskFailed])
async def test_dependents_of_a_failure_have_failed_where_an_observer_stops_the_run_for_it(
    kind,
) -> None:
    """It is told when the failure is a fact, and so is all that follows from it."""
    task("bad")(takes(1, LoadError("no table")))
    task("dependent", depends_on=["bad"])(takes(1))
    task("running")(takes(5))
    task("next", depends_on=["running"])(takes(1))
    stopped = []

    def observer(event: Event) -> None:
        if isinstance(event, kind) and not stopped:
            stopped.append(event)
            scheduler.stop()

    scheduler = TaskScheduler(observers=[observer])
    results = await scheduler.run()

    assert {"bad": FAILED, "dependent": FAILED, "running": COMPLETED, "next": CANCELLED} == (
        statuses(results)
    )
    assert "Dependency 'bad' failed: LoadError: no table" == results["dependent"].error


@virtual_time
async def test_a_lifetime_is_open_for_its_last_user_where_an_observer_stops_the_run() -> None:
    log = []

    @task
    async def connection() -> Any:
        yield "connection"
        log.append("closed")

    task("bad")(takes(1, LoadError()))

    @task(depends_on=["bad"])
    async def dependent(connection: str) -> None:
        pass

    @task
    async def load(connection: str) -> None:
        await anyio.sleep(5)
        log.append("loaded")

    def observer(event: Event) -> None:
        if isinstance(event, TaskFailed) and event.task == "dependent":
            scheduler.stop()

    scheduler = TaskScheduler(observers=[observer])
    results = await scheduler.run()

    assert ["loaded", "closed"] == log
    assert COMPLETED is results[load].status


@virtual_time
async def test_each_task_ends_once_where_an_observer_stops_at_every_end() -> None:
    recorder = Recorder()
    ends = (TaskCompleted, TaskFailed, TaskCancelled)
    task("bad")(takes(1, LoadError()))
    # Two to be cancelled are enough to show it; each more would double what it costs.
    for number in range(2):
        task(f"after-{number}", after=["bad"])(takes(1))
    observer = stopping(lambda: scheduler, *ends)
    scheduler = TaskScheduler(observers=[observer, recorder])
    await scheduler.run()

    assert ["bad", "after-0", "after-1"] == [
        event.task for event in recorder.events if isinstance(event, ends)
    ]


async def test_a_task_that_an_observer_stopped_the_run_for_is_not_scheduled_any_more() -> None:
    recorder = Recorder()
    for number in range(3):
        task(f"t{number}")(takes(0))
    observer = stopping(lambda: scheduler, TaskScheduled)
    scheduler = TaskScheduler(observers=[observer, recorder])
    await scheduler.run()
    kinds = [type(event) for event in recorder.events]

    assert TaskScheduled not in kinds[kinds.index(TaskCancelled) :]
    assert TaskStarted not in kinds


# What the results say


async def results_of_all_kinds() -> RunResults:
    registry = TaskRegistry()
    registry.task("good")(takes(1))
    registry.task("bad")(takes(3, LoadError("no table")))
    registry.task("dependent", depends_on=["bad"])(takes(1))
    registry.task("running")(takes(5))
    registry.task("after", after=["bad"])(takes(1))
    return await TaskScheduler(registry, on_failure=CANCEL).run()


@virtual_time
async def test_results_are_told_apart_by_how_their_tasks_ended() -> None:
    results = await results_of_all_kinds()

    assert not results.ok
    assert {"good"} == {one.task_name for one in results.completed}
    assert {"bad", "dependent"} == {one.task_name for one in results.failed}
    assert {"running", "after"} == {one.task_name for one in results.cancelled}


@virtual_time
async def test_those_that_ended_alike_come_in_topological_order() -> None:
    results = await results_of_all_kinds()

    assert ["bad", "dependent"] == [one.task_name for one in results.failed]
    assert [one for one in results if one.status is CANCELLED] == results.cancelled


async def test_a_run_is_ok_where_every_task_has_completed() -> None:
    task("good")(takes(0))
    results = await TaskScheduler().run()

    assert results.ok
    assert (["good"], [], []) == (
        [one.task_name for one in results.completed],
        results.failed,
        results.cancelled,
    )


async def test_an_empty_run_is_ok_and_raises_nothing() -> None:
    results = await TaskScheduler([]).run()
    results.raise_for_failures()

    assert results.ok
    assert ([], [], []) == (results.completed, results.failed, results.cancelled)


@virtual_time
async def test_a_run_with_a_cancelled_task_is_not_ok() -> None:
    task("running")(takes(5))
    task("next", depends_on=["running"])(takes(1))
    results = await run_and_stop(TaskScheduler(), 3)

    assert not results.ok
    assert ["next"] == [one.task_name for one in results.cancelled]


@virtual_time
async def test_a_task_that_succeeded_at_last_is_among_the_completed() -> None:
    task("flaky", retries=2)(fails_once())
    results = await TaskScheduler().run()

    assert results.ok
    results.raise_for_failures()


# Raising what went wrong


def caught_from(results: RunResults) -> BaseExceptionGroup[BaseException]:
    with pytest.raises(BaseExceptionGroup) as caught:
        results.raise_for_failures()
    return caught.value


async def test_the_root_causes_are_raised_as_one_group_and_nothing_else() -> None:
    errors = [LoadError("one"), ValueError("two")]
    task("one")(takes(0, errors[0]))
    task("two")(takes(0, errors[1]))
    task("dependent", depends_on=["one"])(takes(0))
    task("far", depends_on=["dependent", "two"])(takes(0))
    task("good")(takes(0))
    group = caught_from(await TaskScheduler().run())

    assert ExceptionGroup is type(group)
    assert "2 tasks failed (2 sub-exceptions)" == str(group)
    assert tuple(errors) == group.exceptions


async def test_one_failure_is_raised_in_a_group_too() -> None:
    error = LoadError("one")
    task("one")(takes(0, error))
    group = caught_from(await TaskScheduler().run())

    assert ExceptionGroup is type(group)
    assert "1 task failed (1 sub-exception)" == str(group)
    assert (error,) == group.exceptions


async def test_a_failure_that_is_a_group_stays_one_inside() -> None:
    error = ExceptionGroup("children", [LoadError("one"), LoadError("two")])
    task("one")(takes(0, error))
    group = caught_from(await TaskScheduler().run())

    assert (error,) == group.exceptions


async def test_failures_can_be_caught_by_their_type() -> None:
    task("one")(takes(0, LoadError("one")))
    results = await TaskScheduler().run()
    caught = []
    try:
        results.raise_for_failures()
    except* LoadError as group:
        caught.extend(group.exceptions)

    assert [results["one"].exception] == caught


async def test_a_note_names_the_task_and_its_attempt() -> None:
    task("fetch rows", retries=3)(takes(0, LoadError("no table")))
    task("load")(takes(0, ValueError("bad row")))
    group = caught_from(await TaskScheduler().run())

    assert [
        ["in task 'fetch rows', attempt 3 of 3"],
        ["in task 'load', attempt 1 of 1"],
    ] == [error.__notes__ for error in group.exceptions]


async def test_a_note_names_the_attempt_after_which_there_was_no_other() -> None:
    task("fetch", retries=3, retry_on=OSError)(takes(0, LoadError("no table")))
    group = caught_from(await TaskScheduler().run())

    assert ["in task 'fetch', attempt 1 of 3"] == group.exceptions[0].__notes__


async def test_a_note_stands_beside_those_of_the_user() -> None:
    error = LoadError("no table")
    error.add_note("is the disk full?")
    task("load")(takes(0, error))
    group = caught_from(await TaskScheduler().run())

    assert ["is the disk full?", "in task 'load', attempt 1 of 1"] == (
        group.exceptions[0].__notes__
    )


async def test_one_exception_of_two_tasks_has_a_note_for_each() -> None:
    error = LoadError("no table")
    task("one")(takes(0, error))
    task("two")(takes(0, error))
    group = caught_from(await TaskScheduler().run())

    assert (error, error) == group.exceptions
    assert ["in task 'one', attempt 1 of 1", "in task 'two', attempt 1 of 1"] == error.__notes__


async def test_raising_twice_adds_neither_notes_nor_steps_to_the_traceback() -> None:
    task("load")(takes(0, LoadError("no table")))
    results = await TaskScheduler().run()
    seen = []
    for _ in range(3):
        group = caught_from(results)
        [error] = group.exceptions
        steps = traceback.extract_tb(error.__traceback__)
        seen.append((len(steps), len(traceback.extract_tb(group.__traceback__)), error.__notes__))

    assert seen[0] == seen[1] == seen[2]
    assert ["in task 'load', attempt 1 of 1"] == seen[2][2]
    # It leads to the function that raised it, and begins there.
    assert 1 == seen[0][0]


async def test_what_is_no_exception_makes_it_a_base_exception_group() -> None:
    class StrangeError(BaseException):
        pass

    strange = StrangeError("text")
    error = LoadError("no table")
    task("strange")(takes(0, strange))
    task("load")(takes(0, error))
    group = caught_from(await TaskScheduler().run())

    assert BaseExceptionGroup is type(group)
    assert (strange, error) == group.exceptions


async def test_the_last_attempt_alone_is_raised() -> None:
    errors = iter([LoadError("one"), LoadError("two")])

    @task(retries=2)
    async def load() -> None:
        raise next(errors)

    group = caught_from(await TaskScheduler().run())

    assert ["two"] == [str(error) for error in group.exceptions]


@virtual_time
async def test_nothing_is_raised_for_what_was_cancelled() -> None:
    error = LoadError("in the clean-up")

    @task
    async def running() -> None:
        try:
            await anyio.sleep(100)
        finally:
            raise error

    task("next", depends_on=[running])(takes(1))
    results = await run_and_stop(TaskScheduler(), 3, 3)
    results.raise_for_failures()

    assert {"running": CANCELLED, "next": CANCELLED} == statuses(results)


@virtual_time
async def test_of_a_run_that_the_policy_cancelled_the_failure_alone_is_raised() -> None:
    results = await results_of_all_kinds()
    group = caught_from(results)

    assert [results["bad"].exception] == list(group.exceptions)


@virtual_time
async def test_a_backoff_that_was_ended_by_stop_is_a_failure_that_is_raised() -> None:
    error = LoadError("once")
    task("flaky", retries=5, backoff=waiting(100))(takes(1, error))
    results = await run_and_stop(TaskScheduler(), 3)
    group = caught_from(results)

    assert (error,) == group.exceptions
    assert ["in task 'flaky', attempt 1 of 5"] == error.__notes__


@virtual_time
async def test_results_can_be_asked_while_the_run_goes_on() -> None:
    task("bad")(takes(1, LoadError("no table")))
    task("running")(takes(5))
    scheduler = TaskScheduler()
    seen: dict[str, object] = {}

    async def look() -> None:
        await anyio.sleep(3)
        results = scheduler.results
        seen["ok"] = results.ok
        seen["failed"] = [one.task_name for one in results.failed]
        seen["raised"] = [str(error) for error in caught_from(results).exceptions]

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await scheduler.run()

    assert {"ok": False, "failed": ["bad"], "raised": ["no table"]} == seen

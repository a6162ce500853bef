"""What a task is promised when an attempt fails: another one, in time, or none.

What is worth another attempt, how long the wait before it is, what an attempt may take, and what
the results say of it all. Times are exact: the clock of most tests jumps. Threads have the real
one, and are held by events.
"""

import asyncio
import logging
import math
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from portable_sched import (
    AttemptFailure,
    Backoff,
    NoRetry,
    Priority,
    TaskCancelledError,
    TaskDef,
    TaskError,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    task,
)

pytestmark = pytest.mark.anyio

virtual_time = pytest.mark.virtual_time

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED

# How long a thread waits before a test that has gone wrong fails instead of hanging.
PATIENCE = 30


class FlakyError(Exception):
    """What a server says that may do better next time."""


class BusyError(FlakyError):
    """What a server says that knows when to come back."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"come back in {retry_after} s")
        self.retry_after = retry_after


async def no_op() -> None:
    pass


def steps(*outcomes: object) -> Callable[[], Any]:
    """A function whose attempts go as planned: exceptions are raised, the rest is returned."""
    left = iter(outcomes)

    async def body() -> object:
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return body


async def run_alone(function: Callable[..., Any], **settings: Any) -> TaskResult[Any]:
    """The result of a graph of one task."""
    definition = TaskDef(name="t", function=function, **settings)
    [result] = await TaskScheduler([definition]).run()
    return result


def statuses(scheduler: TaskScheduler) -> dict[str, TaskStatus]:
    return dict(scheduler.status_snapshot())


def block(seconds: float) -> None:
    """Let time pass while the event loop can do nothing, as code that never waits does."""
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        clock: Any = trio.lowlevel.current_clock()
        clock.jump(seconds)
    else:
        loop._jumping.now += seconds


# Backoff


def test_each_wait_is_so_many_times_the_one_before() -> None:
    backoff = Backoff(initial=0.5, factor=3, jitter=0)

    assert [0.5, 1.5, 4.5, 13.5] == [backoff.delay(attempt) for attempt in (1, 2, 3, 4)]


def test_no_wait_is_longer_than_the_maximum() -> None:
    backoff = Backoff(initial=1, factor=10, maximum=50, jitter=0)

    assert [1, 10, 50, 50] == [backoff.delay(attempt) for attempt in (1, 2, 3, 4)]


def test_a_maximum_below_the_first_wait_is_the_wait() -> None:
    assert 2 == Backoff(initial=5, maximum=2, jitter=0).delay(1)


def test_a_factor_of_one_waits_the_same_each_time() -> None:
    backoff = Backoff(initial=3, factor=1, jitter=0)

    assert [3, 3, 3] == [backoff.delay(attempt) for attempt in (1, 2, 10_000)]


def test_a_backoff_that_begins_with_nothing_never_waits() -> None:
    backoff = Backoff(initial=0)

    assert [0, 0, 0] == [backoff.delay(attempt) for attempt in (1, 2, 100_000)]


@pytest.mark.parametrize("factor", [2, 1e300, 10**300])
def test_a_wait_beyond_what_a_float_can_hold_is_the_maximum(factor) -> None:
    backoff = Backoff(initial=1, factor=factor, maximum=30, jitter=0)

    assert 30 == backoff.delay(100_000)


@pytest.mark.parametrize(
    ("drawn", "wait"),
    [(0.0, 8.0), (0.5, 7.0), (1.0, 6.0)],
)
def test_a_random_part_of_up_to_the_jitter_is_left_out(monkeypatch, drawn, wait) -> None:
    monkeypatch.setattr(random, "random", lambda: drawn)

    assert wait == Backoff(initial=8, jitter=0.25).delay(1)


def test_jitter_is_taken_from_the_maximum_too(monkeypatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)

    assert 3 == Backoff(initial=100, maximum=4, jitter=0.5).delay(1)


def test_waits_with_jitter_differ_and_stay_in_their_range() -> None:
    backoff = Backoff(initial=8, jitter=0.25)
    waits = [backoff.delay(1) for _ in range(1000)]

    assert all(6 <= wait <= 8 for wait in waits)
    assert len(set(waits)) > 900


def test_by_default_waits_begin_at_a_tenth_and_double_up_to_a_minute() -> None:
    assert Backoff(initial=0.1, factor=2.0, maximum=60.0, jitter=0.5) == Backoff()


def test_a_backoff_is_a_frozen_value() -> None:
    backoff: Any = Backoff()
    with pytest.raises(FrozenInstanceError):
        backoff.initial = 1

    assert 1 == len({Backoff(), Backoff()})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("initial", -1, "initial to be a number of at least 0, got -1 (int)."),
        ("initial", math.nan, "initial to be a number of at least 0, got nan (float)."),
        ("initial", math.inf, "initial to be a number of at least 0, got inf (float)."),
        ("factor", 0.5, "factor to be a number of at least 1, got 0.5 (float)."),
        ("factor", math.inf, "factor to be a number of at least 1, got inf (float)."),
        ("maximum", -0.1, "maximum to be a number of at least 0, got -0.1 (float)."),
        ("maximum", math.inf, "maximum to be a number of at least 0, got inf (float)."),
        ("jitter", -0.1, "jitter to be a number from 0 to 1, got -0.1 (float)."),
        ("jitter", 1.5, "jitter to be a number from 0 to 1, got 1.5 (float)."),
        ("jitter", math.nan, "jitter to be a number from 0 to 1, got nan (float)."),
    ],
)
def test_a_number_out_of_its_range_is_refused(field, value, message) -> None:
    with pytest.raises(ValueError, match="Backoff") as caught:
        Backoff(**{field: value})

    assert f"Backoff: expected {message}" == str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("initial", "1", "initial to be a number of at least 0, got '1' (str)."),
        ("factor", None, "factor to be a number of at least 1, got None (NoneType)."),
        ("maximum", [60], "maximum to be a number of at least 0, got [60] (list)."),
        ("jitter", True, "jitter to be a number from 0 to 1, got True (bool)."),
    ],
)
def test_what_is_no_number_is_refused(field, value, message) -> None:
    with pytest.raises(TypeError) as caught:
        Backoff(**{field: value})

    assert f"Backoff: expected {message}" == str(caught.value)


@virtual_time
async def test_the_next_attempt_begins_so_long_after_the_failure() -> None:
    began = anyio.current_time()
    starts = []

    async def fails_twice() -> None:
        starts.append(anyio.current_time() - began)
        await anyio.sleep(10)
        if len(starts) < 3:
            raise FlakyError

    result = await run_alone(fails_twice, retries=3, backoff=Backoff(initial=1, factor=4, jitter=0))

    assert COMPLETED is result.status
    assert [0, 11, 25] == starts


@virtual_time
async def test_without_a_backoff_the_next_attempt_begins_at_once() -> None:
    began = anyio.current_time()
    result = await run_alone(steps(FlakyError(), FlakyError(), "done"), retries=3)

    assert ("done", 3) == (result.result, result.attempts)
    assert 0 == anyio.current_time() - began


@virtual_time
async def test_a_task_does_not_wait_after_its_last_attempt() -> None:
    began = anyio.current_time()
    backoff = Backoff(initial=5, factor=1, jitter=0)
    result = await run_alone(steps(FlakyError(), FlakyError()), retries=2, backoff=backoff)

    assert FAILED is result.status
    assert 5 == anyio.current_time() - began


# A function in place of a Backoff


@virtual_time
async def test_a_function_says_how_long_to_wait_after_which_attempt_and_exception() -> None:
    errors = [FlakyError("one"), FlakyError("two")]
    asked = []
    began = anyio.current_time()

    def seconds(attempt: int, exception: Exception) -> float:
        asked.append((attempt, exception))
        return 10.0 * attempt

    result = await run_alone(steps(*errors, "done"), retries=3, backoff=seconds)

    assert COMPLETED is result.status
    assert [(1, errors[0]), (2, errors[1])] == asked
    assert 30 == anyio.current_time() - began


@virtual_time
async def test_an_exception_that_knows_when_to_come_back_can_be_honoured() -> None:
    starts = []
    began = anyio.current_time()

    async def call() -> str:
        starts.append(anyio.current_time() - began)
        if len(starts) == 1:
            raise BusyError(retry_after=90)
        if len(starts) == 2:
            raise FlakyError
        return "done"

    def seconds(attempt: int, exception: Exception) -> float:
        return exception.retry_after if isinstance(exception, BusyError) else 2

    result = await run_alone(call, retries=3, backoff=seconds)

    assert "done" == result.result
    assert [0, 90, 92] == starts


@virtual_time
async def test_a_function_that_says_zero_has_the_next_attempt_begin_at_once() -> None:
    began = anyio.current_time()
    result = await run_alone(
        steps(FlakyError(), "done"), retries=2, backoff=lambda attempt, exception: 0
    )

    assert "done" == result.result
    assert 0 == anyio.current_time() - began


@virtual_time
async def test_nobody_is_asked_how_long_to_wait_where_there_is_no_other_attempt() -> None:
    asked = []

    def seconds(attempt: int, exception: Exception) -> float:
        asked.append(attempt)
        return 1

    await run_alone(steps(FlakyError(), FlakyError()), retries=2, backoff=seconds)
    await run_alone(steps(NoRetry()), retries=2, backoff=seconds)
    await run_alone(steps(FlakyError()), retries=2, retry_on=OSError, backoff=seconds)

    assert [1] == asked


@pytest.mark.parametrize("setting", ["retry_on", "backoff"])
async def test_a_function_that_raises_when_asked_fails_its_task_and_the_run_goes_on(
    setting,
) -> None:
    error = FlakyError("the server is down")

    def broken(*args: object) -> bool:
        raise LookupError("nobody thought of that")

    task("broken", priority=Priority.HIGH, retries=3, **{setting: broken})(steps(error))
    task("dependent", depends_on=["broken"])(no_op)
    task("other")(no_op)
    results = await TaskScheduler(max_concurrency=1).run()
    result = results["broken"]

    assert (FAILED, 1) == (result.status, result.attempts)
    assert "LookupError: nobody thought of that" == result.error
    assert isinstance(result.exception, LookupError)
    # What the attempt raised is kept beside it.
    assert [(1, error), (1, result.exception)] == [
        (failure.attempt, failure.exception) for failure in result.failures
    ]
    assert "Dependency 'broken' failed: LookupError: nobody thought of that" == (
        results["dependent"].error
    )
    assert COMPLETED is results["other"].status


async def test_the_traceback_of_a_function_that_raises_when_asked_begins_there() -> None:
    def broken(attempt: int, exception: Exception) -> float:
        raise LookupError

    result = await run_alone(steps(FlakyError()), retries=2, backoff=broken)

    assert result.exception is not None
    assert result.exception.__traceback__ is not None
    names = [frame.name for frame in traceback.extract_tb(result.exception.__traceback__)]
    assert "broken" == names[-1]
    assert "failed" not in names


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (None, "None (NoneType)"),
        (-1, "-1 (int)"),
        (math.nan, "nan (float)"),
        (math.inf, "inf (float)"),
        ("1", "'1' (str)"),
        (True, "True (bool)"),
    ],
)
async def test_an_answer_that_is_no_number_of_seconds_fails_the_task(answer, shown) -> None:
    error = FlakyError()
    result = await run_alone(steps(error), retries=3, backoff=lambda attempt, exception: answer)

    assert (FAILED, 1) == (result.status, result.attempts)
    assert (
        f"ValueError: Expected backoff to return seconds, a number of at least 0, got {shown}."
        == result.error
    )
    assert error is result.failures[0].exception


@virtual_time
@pytest.mark.parametrize("setting", ["retry_on", "backoff"])
async def test_nothing_starts_after_a_stop_by_a_function_that_was_asked(setting) -> None:
    """It may be the one to see that there is no point in going on."""

    def stops(*args: object) -> bool:
        scheduler.stop()
        return True

    backoff: Any = (lambda attempt, exception: stops() and 5) if setting == "backoff" else None
    retry_on: Any = stops if setting == "retry_on" else Exception
    calls = []

    @task(retries=3, retry_on=retry_on, backoff=backoff)
    async def fails() -> None:
        calls.append(anyio.current_time())
        raise FlakyError

    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert 1 == len(calls)
    assert (FAILED, 1) == (results[fails].status, results[fails].attempts)


# What is worth another attempt


@pytest.mark.parametrize(
    ("retry_on", "error", "attempts"),
    [
        (FlakyError, FlakyError(), 2),
        (FlakyError, BusyError(1), 2),
        (BusyError, FlakyError(), 1),
        ([OSError, FlakyError], FlakyError(), 2),
        ((OSError, FlakyError), ConnectionError(), 2),
        ({OSError, FlakyError}, FlakyError(), 2),
        (frozenset({OSError}), FlakyError(), 1),
        ([OSError, LookupError], FlakyError(), 1),
        (lambda error: "busy" in str(error), FlakyError("busy"), 2),
        (lambda error: "busy" in str(error), FlakyError("gone"), 1),
        # What is as good as true or false will do.
        (lambda error: error.args, FlakyError("busy"), 2),
        (lambda error: error.args, FlakyError(), 1),
    ],
    ids=[
        "type",
        "subtype",
        "supertype",
        "list",
        "tuple and subtype",
        "set",
        "frozenset without it",
        "list without it",
        "predicate says yes",
        "predicate says no",
        "predicate says something",
        "predicate says nothing",
    ],
)
async def test_only_what_retry_on_names_is_tried_again(retry_on, error, attempts) -> None:
    result = await run_alone(steps(error, error), retries=2, retry_on=retry_on)

    assert (FAILED, attempts) == (result.status, result.attempts)
    assert error is result.exception


async def test_every_exception_is_tried_again_by_default() -> None:
    errors = [ValueError(), OSError(), ExceptionGroup("both", [LookupError(), FlakyError()])]
    result = await run_alone(steps(*errors, "done"), retries=4)

    assert ("done", 4) == (result.result, result.attempts)


async def test_each_failed_attempt_but_the_last_is_judged_by_itself() -> None:
    asked = []

    def is_flaky(error: Exception) -> bool:
        asked.append(error)
        return isinstance(error, FlakyError)

    errors = [FlakyError("one"), FlakyError("two"), ValueError("three")]
    result = await run_alone(steps(*errors, "never"), retries=5, retry_on=is_flaky)
    once = await run_alone(steps(FlakyError()), retries=1, retry_on=is_flaky)

    assert (FAILED, 3) == (result.status, result.attempts)
    assert "ValueError: three" == result.error
    assert errors == asked
    assert (FAILED, 1) == (once.status, once.attempts)


@pytest.mark.parametrize(
    ("retry_on", "error", "rest"),
    [
        (None, TypeError, "None (NoneType)."),
        ("OSError", TypeError, "'OSError' (str)."),
        ([], TypeError, "() (tuple)."),
        (OSError(), TypeError, "OSError() (OSError)."),
        (int, TypeError, "<class 'int'> (type)."),
        ([OSError, "x"], TypeError, "(<class 'OSError'>, 'x') (tuple)."),
        (
            KeyboardInterrupt,
            ValueError,
            (
                "<class 'KeyboardInterrupt'> (type). What is no Exception, as KeyboardInterrupt, "
                "is never tried again."
            ),
        ),
        (
            [OSError, BaseException],
            ValueError,
            (
                "(<class 'OSError'>, <class 'BaseException'>) (tuple). What is no Exception, as "
                "BaseException, is never tried again."
            ),
        ),
    ],
)
def test_what_cannot_be_retried_on_is_refused(retry_on, error, rest) -> None:
    with pytest.raises(error) as caught:
        task("load", retries=2, retry_on=retry_on)(no_op)

    assert (
        "Task 'load': expected retry_on to be exception types, as in retry_on=[OSError], or a "
        f"function that is given the exception, got {rest}"
    ) == str(caught.value)


@pytest.mark.parametrize(
    ("backoff", "shown"),
    [
        (1, "1 (int)"),
        (0.5, "0.5 (float)"),
        ("1s", "'1s' (str)"),
        (Backoff, "<class 'portable_sched.Backoff'> (type)"),
    ],
)
def test_what_is_no_backoff_is_refused(backoff, shown) -> None:
    with pytest.raises(TypeError) as caught:
        task("load", retries=2, backoff=backoff)(no_op)

    assert (
        "Task 'load': expected backoff to be a Backoff, as in backoff=Backoff(initial=0.5), or a "
        f"function of the attempt's number and its exception, got {shown}."
    ) == str(caught.value)


@pytest.mark.parametrize("setting", ["retry_on", "backoff"])
def test_an_async_function_is_refused_where_a_plain_one_is_asked(setting) -> None:
    """What it returns is always true, so it would have everything tried again."""

    async def ask(*args: object) -> bool:
        return False

    settings: dict[str, Any] = {setting: ask}
    with pytest.raises(TypeError, match=f"Task 'load': expected {setting} to be"):
        task("load", retries=2, **settings)(no_op)


# What is never tried again


async def test_no_retry_ends_the_task_whatever_attempts_are_left() -> None:
    error = NoRetry("the account is closed")
    result = await run_alone(steps(error), retries=5)

    assert (FAILED, 1) == (result.status, result.attempts)
    assert error is result.exception
    assert "NoRetry: the account is closed" == result.error


async def test_no_retry_ends_the_task_at_a_later_attempt_too() -> None:
    result = await run_alone(steps(FlakyError(), NoRetry(), "never"), retries=5)

    assert (FAILED, 2) == (result.status, result.attempts)
    assert [FlakyError, NoRetry] == [type(failure.exception) for failure in result.failures]


async def test_no_retry_keeps_the_cause_that_it_was_raised_from() -> None:
    error = FlakyError("404")

    async def gives_up() -> None:
        raise NoRetry("it is gone") from error

    result = await run_alone(gives_up, retries=5)

    assert 1 == result.attempts
    assert isinstance(result.exception, NoRetry)
    assert error is result.exception.__cause__


@pytest.mark.parametrize(
    "group",
    [
        ExceptionGroup("both", [FlakyError(), NoRetry()]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [FlakyError(), NoRetry()])]),
    ],
    ids=["one group", "two groups"],
)
async def test_no_retry_inside_an_exception_group_ends_the_task_too(group) -> None:
    result = await run_alone(steps(group), retries=5)

    assert (FAILED, 1) == (result.status, result.attempts)
    assert group is result.exception


async def test_no_retry_from_a_child_of_the_task_ends_it_too() -> None:
    async def has_children() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(steps(NoRetry()))

    result = await run_alone(has_children, retries=5)

    assert (FAILED, 1) == (result.status, result.attempts)


@pytest.mark.parametrize("retry_on", [NoRetry, TaskError, lambda error: True])
async def test_no_retry_is_not_tried_again_even_where_retry_on_names_it(retry_on) -> None:
    result = await run_alone(steps(NoRetry()), retries=5, retry_on=retry_on)

    assert (FAILED, 1) == (result.status, result.attempts)


async def test_a_kind_of_no_retry_is_one_too() -> None:
    class ClosedError(NoRetry):
        pass

    result = await run_alone(steps(ClosedError()), retries=5)

    assert 1 == result.attempts


async def test_a_task_that_cancels_itself_is_not_tried_again_whatever_retry_on_says() -> None:
    asked = []

    async def raises_a_cancellation() -> None:
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

    result = await run_alone(raises_a_cancellation, retries=5, retry_on=asked.append)

    assert (FAILED, 1) == (result.status, result.attempts)
    assert isinstance(result.exception, TaskCancelledError)
    assert [] == asked


@virtual_time
async def test_a_task_that_was_cancelled_with_its_run_is_not_tried_again() -> None:
    calls = []

    @task(retries=5, backoff=Backoff(initial=1))
    async def sleeps() -> None:
        calls.append(1)
        await anyio.sleep(100)

    scheduler = TaskScheduler()
    with anyio.move_on_after(10):
        await scheduler.run()
    result = scheduler.results[sleeps]

    assert (CANCELLED, 1, None, ()) == (
        result.status,
        result.attempts,
        result.exception,
        result.failures,
    )
    assert 1 == len(calls)


@virtual_time
async def test_a_task_in_backoff_is_cancelled_with_its_run_and_keeps_its_failures() -> None:
    error = FlakyError()
    task("t", retries=5, backoff=Backoff(initial=100, jitter=0))(steps(error))
    scheduler = TaskScheduler()
    with anyio.move_on_after(10):
        await scheduler.run()
    result = scheduler.results["t"]

    assert (CANCELLED, 1, None) == (result.status, result.attempts, result.error)
    assert [AttemptFailure(1, error, 0, result.started_at, backoff=60)] == list(result.failures)
    assert 10 == result.duration


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("in_a_group", [False, True])
def test_what_ends_a_program_is_not_tried_again_and_is_no_failure(
    run_on_backend, raised, in_a_group
) -> None:
    calls = []

    @task(retries=5)
    async def ends() -> None:
        calls.append(1)
        if in_a_group:
            raise BaseExceptionGroup("group", [FlakyError(), raised("text")])
        raise raised("text")

    scheduler = TaskScheduler()
    with pytest.raises(raised, match="text"):
        run_on_backend(scheduler.run)
    result = scheduler.results[ends]

    assert 1 == len(calls)
    assert (CANCELLED, ()) == (result.status, result.failures)


class StrangeError(BaseException):
    """What is no `Exception` and yet no order to end the program."""


@pytest.mark.parametrize(
    "error",
    [StrangeError("text"), BaseExceptionGroup("group", [FlakyError(), StrangeError()])],
    ids=["alone", "in a group"],
)
async def test_what_is_no_exception_fails_its_task_and_is_not_tried_again(error) -> None:
    asked = []
    task("strange", retries=5, retry_on=asked.append)(steps(error))
    task("other")(no_op)
    results = await TaskScheduler().run()
    result = results["strange"]

    assert (FAILED, 1) == (result.status, result.attempts)
    assert error is result.exception
    assert [] == asked
    assert COMPLETED is results["other"].status


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that refuses to be written to, its traceback included."""

    code: int


async def test_an_exception_that_is_a_frozen_dataclass_is_like_any_other() -> None:
    async def fails() -> None:
        await checkpoint()
        raise FrozenError(7)

    task("frozen", retries=2)(fails)
    task("other")(no_op)
    results = await TaskScheduler().run()

    assert (FAILED, 2) == (results["frozen"].status, results["frozen"].attempts)
    assert FrozenError(7) == results["frozen"].exception
    assert COMPLETED is results["other"].status
    with pytest.raises(ExceptionGroup) as caught:
        results.raise_for_failures()
    assert (FrozenError(7),) == caught.value.exceptions


# Timeouts


@virtual_time
async def test_an_attempt_that_is_not_done_in_time_fails_with_a_task_timeout_error() -> None:
    began = anyio.current_time()

    async def sleeps() -> None:
        await anyio.sleep(100)

    late = await run_alone(sleeps, timeout=2.5)

    assert (FAILED, 1, 2.5) == (late.status, late.attempts, late.duration)
    assert 2.5 == anyio.current_time() - began
    assert "TaskTimeoutError: Task 't' took longer than its timeout of 2.5 s." == late.error
    assert isinstance(late.exception, TaskTimeoutError)
    assert isinstance(late.exception, TimeoutError)
    assert ("t", 2.5, "") == (late.exception.task, late.exception.timeout, late.exception.remark)
    assert late.exception.__cause__ is None


@virtual_time
async def test_an_attempt_that_is_done_in_time_is_not_touched() -> None:
    async def sleeps() -> str:
        await anyio.sleep(2)
        return "done"

    result = await run_alone(sleeps, timeout=2.5)

    assert ("done", 2) == (result.result, result.duration)


@virtual_time
async def test_each_attempt_has_the_whole_time_for_itself() -> None:
    starts = []
    began = anyio.current_time()

    async def is_slow_at_first() -> str:
        starts.append(anyio.current_time() - began)
        await anyio.sleep(100 if len(starts) < 3 else 9)
        return "done"

    backoff = Backoff(initial=1, factor=1, jitter=0)
    result = await run_alone(is_slow_at_first, timeout=10, retries=3, backoff=backoff)

    assert ("done", 3) == (result.result, result.attempts)
    assert [0, 11, 22] == starts
    assert [TaskTimeoutError, TaskTimeoutError] == [
        type(failure.exception) for failure in result.failures
    ]


@virtual_time
@pytest.mark.parametrize(
    ("retry_on", "attempts"),
    [(TimeoutError, 2), (TaskTimeoutError, 2), (OSError, 2), (KeyError, 1)],
)
async def test_a_late_attempt_is_tried_again_where_retry_on_names_its_error(
    retry_on, attempts
) -> None:
    """A `TimeoutError` is an `OSError` in Python."""

    async def sleeps() -> None:
        await anyio.sleep(100)

    result = await run_alone(sleeps, timeout=1, retries=2, retry_on=retry_on)

    assert (FAILED, attempts) == (result.status, result.attempts)


@virtual_time
async def test_the_functions_own_timeout_error_is_kept_as_its_own() -> None:
    error = TimeoutError("the server did not answer")

    async def times_out_by_itself() -> None:
        await anyio.sleep(1)
        raise error

    result = await run_alone(times_out_by_itself, timeout=10)

    assert error is result.exception
    assert not isinstance(result.exception, TaskTimeoutError)
    assert "TimeoutError: the server did not answer" == result.error


@virtual_time
async def test_a_time_limit_inside_the_function_is_its_own() -> None:
    async def has_a_limit_inside() -> None:
        with anyio.fail_after(1):
            await anyio.sleep(100)

    result = await run_alone(has_a_limit_inside, timeout=10)

    assert (FAILED, 1) == (result.status, result.duration)
    assert TimeoutError is type(result.exception)


@virtual_time
async def test_a_time_limit_inside_that_ends_later_is_not_in_the_way() -> None:
    async def has_a_limit_inside() -> None:
        with anyio.fail_after(10):
            await anyio.sleep(100)

    result = await run_alone(has_a_limit_inside, timeout=1)

    assert (FAILED, 1) == (result.status, result.duration)
    assert TaskTimeoutError is type(result.exception)


@virtual_time
async def test_the_functions_own_timeout_error_that_comes_too_late_is_the_cause_of_ours() -> None:
    error = TimeoutError("the server did not answer")

    async def turns_its_cancellation_into_a_timeout() -> None:
        try:
            await anyio.sleep(100)
        finally:
            raise error

    result = await run_alone(turns_its_cancellation_into_a_timeout, timeout=1)

    assert TaskTimeoutError is type(result.exception)
    assert result.exception is not None
    assert error is result.exception.__cause__


@virtual_time
async def test_an_attempt_that_swallows_its_cancellation_is_late() -> None:
    async def swallows() -> str:
        with suppress(BaseException):
            await anyio.sleep(100)
        return "done"

    result = await run_alone(swallows, timeout=1)

    assert (FAILED, None) == (result.status, result.result)
    assert TaskTimeoutError is type(result.exception)


@virtual_time
async def test_an_attempt_that_does_something_else_when_it_is_cancelled_is_late() -> None:
    error = FlakyError("could not say goodbye")

    async def fails_in_its_clean_up() -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            raise error

    result = await run_alone(fails_in_its_clean_up, timeout=1)

    assert TaskTimeoutError is type(result.exception)
    assert result.exception is not None
    assert error is result.exception.__cause__
    # The clean-up has had its time.
    assert 6 == result.duration


@virtual_time
async def test_an_attempt_that_blocks_past_its_deadline_is_late() -> None:
    """It never waited, so nobody could ask it to stop."""

    async def blocks() -> str:
        block(5)
        return "done"

    result = await run_alone(blocks, timeout=1)

    assert (FAILED, None, 5) == (result.status, result.result, result.duration)
    assert "TaskTimeoutError: Task 't' took longer than its timeout of 1 s." == result.error


@virtual_time
async def test_an_attempt_that_blocks_past_its_deadline_and_fails_is_late() -> None:
    error = FlakyError()

    async def blocks_and_fails() -> None:
        block(5)
        raise error

    result = await run_alone(blocks_and_fails, timeout=1)

    assert TaskTimeoutError is type(result.exception)
    assert result.exception is not None
    assert error is result.exception.__cause__


@virtual_time
async def test_no_retry_that_comes_too_late_is_the_cause_of_what_is_tried_again() -> None:
    async def gives_up_too_late() -> None:
        block(5)
        raise NoRetry

    result = await run_alone(gives_up_too_late, timeout=1, retries=2)

    assert (FAILED, 2) == (result.status, result.attempts)


@virtual_time
async def test_the_tasks_after_a_late_one_are_not_touched() -> None:
    """Whatever was cancelled for the timeout, and swallowed it, belongs to that attempt."""

    async def swallows() -> None:
        with suppress(BaseException):
            await anyio.sleep(100)

    async def has_children() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
        return "done"

    task("late", priority=Priority.HIGH, timeout=1, retries=3)(swallows)
    task("next")(has_children)
    results = await TaskScheduler(max_concurrency=1).run()

    assert (FAILED, 3) == (results["late"].status, results["late"].attempts)
    assert "done" == results["next"].result


@virtual_time
async def test_a_run_that_is_cancelled_before_the_deadline_has_no_late_attempt() -> None:
    @task(timeout=50)
    async def sleeps() -> None:
        await anyio.sleep(100)

    scheduler = TaskScheduler()
    with anyio.move_on_after(10):
        await scheduler.run()
    result = scheduler.results[sleeps]

    assert (CANCELLED, ()) == (result.status, result.failures)


@pytest.mark.parametrize(
    ("timeout", "error", "shown"),
    [
        (0, ValueError, "0 (int)"),
        (-1, ValueError, "-1 (int)"),
        (math.inf, ValueError, "inf (float)"),
        (math.nan, ValueError, "nan (float)"),
        ("5", TypeError, "'5' (str)"),
        (True, TypeError, "True (bool)"),
    ],
)
def test_a_timeout_that_is_none_is_refused(timeout, error, shown) -> None:
    with pytest.raises(error) as caught:
        task("load", timeout=timeout)(no_op)

    assert (
        f"Task 'load': expected timeout to be a number of seconds above 0, or None, got {shown}."
        == str(caught.value)
    )


# Plain functions, which nobody can stop


class Stuck:
    """A plain function that is in its thread until the test lets it go."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entered = 0
        self.left = 0
        self.released = threading.Event()

    def __call__(self) -> str:
        with self.lock:
            self.entered += 1
        assert self.released.wait(PATIENCE)
        with self.lock:
            self.left += 1
        return "done"

    async def is_entered(self) -> None:
        while not self.entered:
            await checkpoint()


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    function = Stuck()
    yield function
    function.released.set()


ABANDONED = "It is in a thread, which cannot be stopped and goes on by itself."


async def test_a_plain_function_that_is_late_is_abandoned_and_the_error_says_so(stuck) -> None:
    task("stuck", timeout=0.01)(stuck)
    task("after", after=["stuck"])(no_op)
    results = await TaskScheduler().run()
    result = results["stuck"]

    assert (FAILED, 1) == (result.status, result.attempts)
    assert (
        f"TaskTimeoutError: Task 'stuck' took longer than its timeout of 0.01 s. {ABANDONED}"
        == result.error
    )
    assert COMPLETED is results["after"].status
    # The run is over, and the thread was not waited for.
    assert 0 == stuck.left


async def test_a_warning_tells_of_the_thread_that_a_timeout_leaves_behind(stuck, caplog) -> None:
    with caplog.at_level(logging.WARNING, "portable_sched"):
        await run_alone(stuck, timeout=0.01)

    assert [
        (
            "portable_sched",
            logging.WARNING,
            f"Task 't' was cancelled, by its timeout or with its run. {ABANDONED}",
        )
    ] == caplog.record_tuples


async def test_the_next_attempt_does_not_wait_for_an_abandoned_thread(stuck) -> None:
    result = await run_alone(stuck, timeout=0.01, retries=3)

    assert (FAILED, 3) == (result.status, result.attempts)
    assert 0 == stuck.left


async def test_a_plain_function_is_abandoned_when_its_run_is_cancelled(stuck, caplog) -> None:
    task("stuck")(stuck)
    scheduler = TaskScheduler()
    with caplog.at_level(logging.WARNING, "portable_sched"):
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            await stuck.is_entered()
            group.cancel_scope.cancel()

    assert CANCELLED is scheduler.results["stuck"].status
    assert (1, 0) == (stuck.entered, stuck.left)
    assert [
        f"Task 'stuck' was cancelled, by its timeout or with its run. {ABANDONED}"
    ] == caplog.messages


async def test_what_an_abandoned_thread_comes_to_in_the_end_matters_to_nobody(stuck) -> None:
    """The event loop is still there, and takes no notice."""
    task("stuck")(stuck)
    scheduler = TaskScheduler()
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        await stuck.is_entered()
        group.cancel_scope.cancel()
    stuck.released.set()
    while not stuck.left:
        await checkpoint()
    for _ in range(10):
        await checkpoint()
    result = scheduler.results["stuck"]

    assert (CANCELLED, None) == (result.status, result.result)


async def test_a_plain_function_that_is_done_in_time_is_not_touched(caplog) -> None:
    result = await run_alone(lambda: "done", timeout=PATIENCE)

    assert (COMPLETED, "done") == (result.status, result.result)
    assert [] == caplog.messages


async def test_the_own_timeout_error_of_a_plain_function_is_kept_as_its_own() -> None:
    error = TimeoutError("the server did not answer")

    def times_out_by_itself() -> None:
        raise error

    result = await run_alone(times_out_by_itself, timeout=PATIENCE)

    assert error is result.exception


async def test_a_plain_function_is_tried_again_like_any_other() -> None:
    calls = []

    def fails_twice() -> str:
        calls.append(threading.get_ident())
        if len(calls) < 3:
            raise FlakyError
        return "done"

    result = await run_alone(fails_twice, retries=3, retry_on=FlakyError)

    assert ("done", 3) == (result.result, result.attempts)
    assert [FlakyError, FlakyError] == [type(failure.exception) for failure in result.failures]


# A task in backoff


@virtual_time
async def test_a_task_in_backoff_holds_no_slot() -> None:
    began = anyio.current_time()
    task("flaky", priority=Priority.HIGH, retries=2, backoff=Backoff(initial=10, jitter=0))(
        steps(FlakyError(), "done")
    )

    @task
    async def other() -> float:
        await anyio.sleep(3)
        return anyio.current_time() - began

    results = await TaskScheduler(max_concurrency=1).run()

    assert 3 == results[other].result
    assert "done" == results["flaky"].result
    assert 10 == results.wall_time
    assert 1 == results.most_running


@virtual_time
async def test_a_task_in_backoff_holds_no_resource() -> None:
    began = anyio.current_time()
    task(
        "flaky",
        priority=Priority.HIGH,
        retries=2,
        backoff=Backoff(initial=10, jitter=0),
        resources=["db"],
    )(steps(FlakyError(), "done"))

    @task(resources=["db"])
    async def other() -> float:
        await anyio.sleep(3)
        return anyio.current_time() - began

    results = await TaskScheduler(resources={"db": 1}).run()

    assert 3 == results[other].result
    assert 10 == results.wall_time


@virtual_time
async def test_a_task_whose_backoff_is_over_waits_for_its_resource_again() -> None:
    backoff = Backoff(initial=10, jitter=0)
    began = anyio.current_time()
    starts = []

    @task(priority=Priority.HIGH, retries=2, backoff=backoff, resources=["db"])
    async def flaky() -> None:
        starts.append(anyio.current_time() - began)
        if len(starts) == 1:
            raise FlakyError

    @task(resources=["db"])
    async def long() -> None:
        await anyio.sleep(25)

    await TaskScheduler(resources={"db": 1}).run()

    assert [0, 25] == starts


@virtual_time
async def test_a_task_in_backoff_stays_running() -> None:
    task("flaky", priority=Priority.HIGH, retries=2, backoff=Backoff(initial=10, jitter=0))(
        steps(FlakyError(), "done")
    )

    @task
    async def looks() -> TaskStatus:
        await anyio.sleep(5)
        return statuses(scheduler)["flaky"]

    scheduler = TaskScheduler()
    results = await scheduler.run()

    assert TaskStatus.RUNNING is results[looks].result


@virtual_time
@pytest.mark.parametrize(
    ("priority", "order"),
    [
        (Priority.HIGH, ["flaky", "first", "flaky", "second"]),
        (Priority.LOW, ["first", "second", "flaky", "flaky"]),
    ],
)
async def test_a_task_whose_backoff_is_over_competes_by_priority_for_the_next_slot(
    priority, order
) -> None:
    starts: list[str] = []

    @task(priority=priority, retries=2, backoff=Backoff(initial=3, jitter=0))
    async def flaky() -> None:
        starts.append("flaky")
        if starts.count("flaky") == 1:
            raise FlakyError

    def noting(name: str) -> Callable[[], Any]:
        async def body() -> None:
            starts.append(name)
            await anyio.sleep(5)

        return body

    task("first")(noting("first"))
    task("second")(noting("second"))
    await TaskScheduler(max_concurrency=1).run()

    assert order == starts


@virtual_time
async def test_a_backoff_that_ends_while_all_slots_are_taken_waits_for_one() -> None:
    began = anyio.current_time()
    starts = []

    @task(priority=Priority.HIGH, retries=2, backoff=Backoff(initial=1, jitter=0))
    async def flaky() -> None:
        starts.append(anyio.current_time() - began)
        if len(starts) == 1:
            raise FlakyError

    async def long() -> None:
        await anyio.sleep(20)

    task("long-0")(long)
    task("long-1")(long)
    await TaskScheduler(max_concurrency=2).run()

    assert [0, 20] == starts


@virtual_time
async def test_many_tasks_in_backoff_come_back_each_at_its_time() -> None:
    began = anyio.current_time()
    again: list[tuple[float, int]] = []
    # In an order that is not that of their ends.
    delays = [(number * 37) % 100 + 1 for number in range(100)]

    def flaky(number: int) -> Callable[[], Any]:
        calls = []

        async def body() -> None:
            calls.append(1)
            if len(calls) == 1:
                raise FlakyError
            again.append((anyio.current_time() - began, number))

        return body

    for number, delay in enumerate(delays):
        task(f"t{number}", retries=2, backoff=Backoff(initial=delay, maximum=100, jitter=0))(
            flaky(number)
        )
    results = await TaskScheduler().run()

    assert {COMPLETED: 100} == results.counts()
    assert sorted((delay, number) for number, delay in enumerate(delays)) == again
    assert 100 == results.wall_time


@virtual_time
async def test_a_backoff_that_begins_later_and_ends_sooner_is_not_late() -> None:
    """Whoever waits for the first one is told of the second."""
    began = anyio.current_time()
    task("long", retries=2, backoff=Backoff(initial=60, jitter=0))(steps(FlakyError(), "done"))
    calls = []

    @task(retries=2, backoff=Backoff(initial=1, jitter=0))
    async def short() -> float:
        calls.append(1)
        if len(calls) == 1:
            await anyio.sleep(5)
            raise FlakyError
        return anyio.current_time() - began

    results = await TaskScheduler().run()

    assert 6 == results[short].result
    assert 60 == results.wall_time


@virtual_time
async def test_a_run_with_nothing_but_backoffs_goes_on_to_their_end() -> None:
    backoff = Backoff(initial=1, factor=2, maximum=1000, jitter=0)
    errors = [FlakyError() for _ in range(5)]
    task("flaky", retries=6, backoff=backoff)(steps(*errors, "done"))
    task("dependent", depends_on=["flaky"])(no_op)
    results = await TaskScheduler(max_concurrency=1).run()

    assert {COMPLETED: 2} == results.counts()
    assert 31 == results.wall_time


# What the results say of it


@virtual_time
async def test_every_failed_attempt_is_kept_with_its_exact_duration() -> None:
    errors = [FlakyError("one"), FlakyError("two")]
    durations = [3, 0.5, 7]
    calls = []

    async def fails_twice() -> str:
        number = len(calls)
        calls.append(number)
        await anyio.sleep(durations[number])
        if number < 2:
            raise errors[number]
        return "done"

    result = await run_alone(fails_twice, retries=3, backoff=lambda attempt, error: 100 * attempt)

    first = AttemptFailure(1, errors[0], 3, result.started_at, backoff=100)
    second = AttemptFailure(2, errors[1], 0.5, result.started_at + 103, backoff=200)
    assert (first, second) == result.failures
    # From the first start to the end, waits included.
    assert 3 + 100 + 0.5 + 200 + 7 == result.duration


@virtual_time
async def test_the_duration_of_a_task_that_failed_for_good_ends_with_its_last_attempt() -> None:
    async def fails() -> None:
        await anyio.sleep(2)
        raise FlakyError

    backoff = Backoff(initial=10, factor=1, jitter=0)
    result = await run_alone(fails, retries=3, backoff=backoff)

    assert (FAILED, 3) == (result.status, result.attempts)
    assert [2, 2, 2] == [failure.duration for failure in result.failures]
    assert 2 + 10 + 2 + 10 + 2 == result.duration


@virtual_time
async def test_a_task_in_backoff_shows_its_failures_so_far() -> None:
    error = FlakyError("one")
    task("flaky", retries=2, backoff=Backoff(initial=10, jitter=0))(steps(error, "done"))

    @task
    async def looks() -> TaskResult[Any]:
        await anyio.sleep(5)
        return scheduler.results["flaky"]

    scheduler = TaskScheduler()
    seen = (await scheduler.run())[looks].unwrap()

    assert (TaskStatus.RUNNING, 1, 0.0) == (seen.status, seen.attempts, seen.duration)
    assert (AttemptFailure(1, error, 0, seen.started_at, backoff=10),) == seen.failures
    assert (None, None) == (seen.error, seen.exception)


@virtual_time
async def test_a_second_run_begins_with_all_attempts_again() -> None:
    registry = TaskRegistry()
    registry.task("flaky", retries=2)(steps(FlakyError(), "one", FlakyError(), "two"))
    scheduler = TaskScheduler(registry)
    first = await scheduler.run()
    second = await scheduler.run()

    assert [("one", 2), ("two", 2)] == [
        (results["flaky"].result, results["flaky"].attempts) for results in (first, second)
    ]

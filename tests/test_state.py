"""What may start next, decided without an event loop."""

from collections.abc import AsyncIterator, Callable

import pytest
from naive import defined

from portable_sched import (
    DependencyFailedError,
    FailurePolicy,
    Graph,
    NoRetry,
    Parameter,
    Priority,
    TaskCancelledError,
    TaskDef,
    TaskResult,
    TaskStatus,
)
from portable_sched._resources import ResourceState
from portable_sched._results import CANCELLED
from portable_sched._state import NOTHING, RunState

MANY = 100_000

PENDING, RUNNING = TaskStatus.PENDING, TaskStatus.RUNNING
COMPLETED, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED


def state_of(
    *tasks: TaskDef,
    policy: FailurePolicy = FailurePolicy.CONTINUE,
    keep: tuple[str, ...] | None = None,
) -> RunState:
    return RunState(Graph(tasks), began=0.0, policy=policy, keep=keep)


async def lives() -> AsyncIterator[str]:
    """The function of lifetimes that are never run."""
    yield "open"


def lifetime(name: str, *depends_on: str, **wanted: object) -> TaskDef:
    return TaskDef(name=name, function=lives, depends_on=depends_on, **wanted)


def taker(name: str, *sources: str, **wanted: object) -> TaskDef:
    """A task that takes the results of others by parameter."""
    parameters = tuple(Parameter(name=source) for source in sources)
    return defined(name, parameters=parameters, **wanted)


def noted_closings(state: RunState, *in_vain: str) -> list[str]:
    """The names of the lifetimes that are asked to close from here on.

    Args:
        state: who asks.
        in_vain: those that have opened although their attempt does not end well.
    """
    closings: list[str] = []

    def close(number: int) -> bool:
        closings.append(state.record.tasks[number].name)
        return closings[-1] in in_vain

    state.close = close
    return closings


def state_with_threads(threads: int, *tasks: TaskDef) -> ResourceState:
    """Every task whose name begins with "thread" needs one."""
    graph = Graph(tasks)
    needs_thread = [definition.name.startswith("thread") for definition in graph.tasks]
    demands = [(("", 1),) if each else () for each in needs_thread]
    return ResourceState(graph, 0.0, demands, {"": threads})


def number_of(state: RunState, name: str) -> int:
    return state.record.numbers[name]


def take(state: RunState, now: float = 0.0) -> str | None:
    """The name of the task that is taken, or None."""
    number = state.take(now)
    return None if number == NOTHING else state.record.tasks[number].name


def take_all(state: RunState) -> list[str]:
    """The names of all tasks that may start now, in their order."""
    taken = []
    while (name := take(state)) is not None:
        taken.append(name)
    return taken


def complete(state: RunState, name: str, result: object = None, now: float = 0.0) -> None:
    state.completed(number_of(state, name), result, now)


def fail(state: RunState, name: str, exception: BaseException, now: float = 0.0) -> None:
    state.failed(number_of(state, name), exception, now)


def cancel(state: RunState, name: str, now: float = 0.0) -> None:
    state.cancelled(number_of(state, name), None, now)


def closed(
    state: RunState, name: str, exception: BaseException | None = None, now: float = 0.0
) -> None:
    state.closed(number_of(state, name), exception, now)


def result_of(state: RunState, name: str) -> TaskResult[object]:
    return state.record.result_of(number_of(state, name))


def statuses(state: RunState) -> dict[str, str]:
    return {name: status.name for name, status in state.record.statuses()}


# What is taken


def test_nothing_is_taken_from_an_empty_graph() -> None:
    state = state_of()

    assert 0 == state.ready_count()
    assert NOTHING == state.take(0.0)


def test_the_most_urgent_task_is_taken_first() -> None:
    state = state_of(
        defined("low", priority=Priority.LOW),
        defined("high", priority=Priority.HIGH),
        defined("medium"),
    )

    assert ["high", "medium", "low"] == take_all(state)


def test_of_equally_urgent_tasks_the_one_with_most_before_it_is_taken_first() -> None:
    state = state_of(defined("short"), defined("long"), defined("end", "long"))

    assert ["long", "short"] == take_all(state)


def test_of_tasks_that_are_alike_the_one_registered_first_is_taken_first() -> None:
    state = state_of(defined("z"), defined("a"))

    assert ["z", "a"] == take_all(state)


def test_a_task_is_not_taken_before_all_it_depends_on_has_succeeded() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "a", "b"))
    take_all(state)

    complete(state, "a")
    before = take_all(state)
    complete(state, "b")

    assert [] == before
    assert ["c"] == take_all(state)


def test_a_task_that_has_become_ready_overtakes_less_urgent_ones_that_always_were() -> None:
    state = state_of(
        defined("first", priority=Priority.HIGH),
        defined("medium"),
        defined("urgent", "first", priority=Priority.HIGH),
    )
    take(state)
    complete(state, "first")

    assert ["urgent", "medium"] == take_all(state)


def test_a_task_that_has_become_ready_waits_for_more_urgent_ones_that_always_were() -> None:
    state = state_of(
        defined("first", priority=Priority.HIGH),
        defined("medium"),
        defined("late", "first", priority=Priority.LOW),
    )
    take(state)
    complete(state, "first")

    assert ["medium", "late"] == take_all(state)


def test_tasks_that_have_become_ready_are_taken_by_priority_whatever_came_first() -> None:
    state = state_of(
        defined("a"),
        defined("b"),
        defined("after a", "a", priority=Priority.LOW),
        defined("after b", "b", priority=Priority.HIGH),
    )
    take_all(state)
    complete(state, "a")
    complete(state, "b")

    assert ["after b", "after a"] == take_all(state)


def test_a_task_that_is_taken_is_running_since_then() -> None:
    state = state_of(defined("a"))

    state.take(5.0)

    assert TaskResult(
        "a", TaskStatus.RUNNING, attempts=1, duration=0.0, started_at=5.0
    ) == result_of(state, "a")


def test_a_task_that_was_not_taken_is_pending() -> None:
    state = state_of(defined("a"))

    assert TaskResult("a", TaskStatus.PENDING) == result_of(state, "a")


def test_the_ready_tasks_are_counted_wherever_they_come_from() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "a"), defined("d", "a"))
    take(state)
    alone = state.ready_count()
    complete(state, "a")

    assert 1 == alone
    assert 3 == state.ready_count()


# What a success does


def test_a_success_keeps_the_result_and_the_time() -> None:
    state = state_of(defined("a"))
    state.take(5.0)

    complete(state, "a", "rows", now=7.5)

    assert TaskResult(
        "a", TaskStatus.COMPLETED, result="rows", attempts=1, duration=2.5, started_at=5.0
    ) == result_of(state, "a")


def test_a_success_releases_every_dependent_that_waits_for_nothing_else() -> None:
    state = state_of(defined("a"), defined("b", "a"), defined("c", "a"), defined("d", "b", "c"))
    take(state)

    complete(state, "a")

    assert ["b", "c"] == take_all(state)


# What a failure does


def test_a_failed_attempt_makes_the_task_ready_again_while_it_stays_running() -> None:
    state = state_of(defined("a", retries=2))
    state.take(1.0)
    error = ValueError("once")

    fail(state, "a", error, now=2.0)

    result = result_of(state, "a")
    assert TaskStatus.RUNNING is result.status
    assert None is result.exception
    assert [(1, error)] == [(one.attempt, one.exception) for one in result.failures]
    assert 1 == state.ready_count()


def test_another_attempt_is_counted_and_the_first_start_stays_the_start() -> None:
    state = state_of(defined("a", retries=2))
    state.take(1.0)
    fail(state, "a", ValueError("once"), now=2.0)

    state.take(3.0)
    complete(state, "a", "rows", now=5.0)

    result = result_of(state, "a")
    assert TaskStatus.COMPLETED is result.status
    assert "rows" == result.result
    assert 2 == result.attempts
    assert (1.0, 4.0) == (result.started_at, result.duration)
    assert None is result.exception
    assert 1 == len(result.failures)


def test_a_task_that_is_to_try_again_competes_by_its_priority() -> None:
    state = state_of(
        defined("again", retries=2),
        defined("low", priority=Priority.LOW),
        defined("high", priority=Priority.HIGH),
        defined("also high", "high", priority=Priority.HIGH),
    )
    assert "high" == take(state)
    assert "again" == take(state)
    fail(state, "again", ValueError())
    complete(state, "high")

    assert ["also high", "again", "low"] == take_all(state)


def test_a_task_has_as_many_attempts_as_it_says_and_then_has_failed() -> None:
    state = state_of(defined("a", retries=3))
    errors = [ValueError("one"), ValueError("two"), ValueError("three")]
    for at, error in enumerate(errors):
        state.take(float(at))
        fail(state, "a", error, now=at + 0.5)

    result = result_of(state, "a")
    assert NOTHING == state.take(9.0)
    assert TaskStatus.FAILED is result.status
    assert 3 == result.attempts
    assert errors[-1] is result.exception
    assert "ValueError: three" == result.error
    assert list(enumerate(errors, 1)) == [(one.attempt, one.exception) for one in result.failures]
    assert (0.0, 2.5) == (result.started_at, result.duration)


class NoError(BaseException):
    """As others make them: neither an error nor a cancellation."""


@pytest.mark.parametrize("exception", [NoError(), TaskCancelledError("a")], ids=type)
def test_there_is_no_other_attempt_after(exception) -> None:
    state = state_of(defined("a", retries=3))
    take(state)

    fail(state, "a", exception)

    assert 0 == state.ready_count()
    assert TaskStatus.FAILED is result_of(state, "a").status
    assert exception is result_of(state, "a").exception


def test_the_dependents_of_a_failed_task_have_failed_without_an_attempt() -> None:
    state = state_of(defined("a"), defined("b", "a"))
    take(state)

    fail(state, "a", ValueError("broken"))

    result = result_of(state, "b")
    assert NOTHING == state.take(0.0)
    assert TaskStatus.FAILED is result.status
    assert 0 == result.attempts
    assert None is result.started_at
    assert 0.0 == result.duration
    assert () == result.failures
    assert isinstance(result.exception, DependencyFailedError)
    assert "Dependency 'a' failed: ValueError: broken" == result.error


def test_a_failure_that_came_from_afar_names_the_task_that_began_it() -> None:
    state = state_of(defined("a"), defined("b", "a"), defined("c", "b"))
    take(state)

    fail(state, "a", ValueError("broken"))

    result = result_of(state, "c")
    assert "Dependency 'b' failed, because 'a' failed: ValueError: broken" == result.error
    assert isinstance(result.exception, DependencyFailedError)
    assert "c" == result.exception.task
    assert "b" == result.exception.dependency
    assert "a" == result.exception.root_cause
    assert "ValueError: broken" == result.exception.reason


def test_two_readings_of_a_result_give_one_and_the_same_exception() -> None:
    state = state_of(defined("a"), defined("b", "a"))
    take(state)
    fail(state, "a", ValueError())

    assert result_of(state, "b").exception is result_of(state, "b").exception


def test_a_task_with_two_failed_dependencies_has_failed_because_of_the_first() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "a", "b"))
    take_all(state)

    fail(state, "b", ValueError("first"))
    fail(state, "a", ValueError("second"))

    assert "Dependency 'b' failed: ValueError: first" == result_of(state, "c").error


def test_a_dependency_that_succeeds_later_does_not_revive_a_task_that_has_failed() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "a", "b"))
    take_all(state)
    fail(state, "a", ValueError())

    complete(state, "b")

    assert NOTHING == state.take(0.0)
    assert TaskStatus.FAILED is result_of(state, "c").status


def test_what_does_not_need_the_failed_task_goes_on() -> None:
    state = state_of(defined("a"), defined("b"), defined("after b", "b"))
    take_all(state)
    fail(state, "a", ValueError())

    complete(state, "b")

    assert ["after b"] == take_all(state)


def test_a_chain_of_100_000_dependents_fails_at_once() -> None:
    state = state_of(defined("0"), *(defined(str(at), str(at - 1)) for at in range(1, MANY)))
    take(state)

    fail(state, "0", ValueError("broken"))

    assert (
        f"Dependency '{MANY - 2}' failed, because '0' failed: ValueError: broken"
        == result_of(state, str(MANY - 1)).error
    )


# What a cancellation does


def test_a_cancelled_attempt_is_neither_a_failure_nor_tried_again() -> None:
    state = state_of(defined("a", retries=3), defined("b", "a"))
    state.take(1.0)

    state.cancelled(number_of(state, "a"), None, 3.0)

    assert NOTHING == state.take(3.0)
    assert TaskResult(
        "a", TaskStatus.CANCELLED, attempts=1, duration=2.0, started_at=1.0
    ) == result_of(state, "a")
    assert TaskStatus.PENDING is result_of(state, "b").status


def test_what_a_cancelled_attempt_raised_is_kept() -> None:
    state = state_of(defined("a", retries=2))
    take(state)
    fail(state, "a", ValueError("at first"))
    take(state)
    error = ValueError("while cleaning up")

    state.cancelled(number_of(state, "a"), error, 0.0)

    result = result_of(state, "a")
    assert TaskStatus.CANCELLED is result.status
    assert None is result.exception
    assert [1, 2] == [failure.attempt for failure in result.failures]
    assert error is result.failures[1].exception


# How it ends


def test_what_has_not_ended_when_the_run_is_over_is_cancelled() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "a"))
    state.take(1.0)

    state.finish(4.0)

    assert TaskResult(
        "a", TaskStatus.CANCELLED, attempts=1, duration=3.0, started_at=1.0
    ) == result_of(state, "a")
    assert TaskResult("b", TaskStatus.CANCELLED) == result_of(state, "b")
    assert TaskResult("c", TaskStatus.CANCELLED) == result_of(state, "c")


def test_what_has_ended_stays_as_it_is_when_the_run_is_over() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "b"))
    take_all(state)
    complete(state, "a")
    fail(state, "b", ValueError())
    before = [result_of(state, name) for name in "abc"]

    state.finish(9.0)

    assert before == [result_of(state, name) for name in "abc"]


def test_nothing_is_taken_when_the_run_is_over() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "a"))
    take(state)
    complete(state, "a")

    state.finish(0.0)

    assert 0 == state.ready_count()
    assert NOTHING == state.take(0.0)


def test_the_record_knows_when_the_run_began_and_finished() -> None:
    state = RunState(Graph([]), began=2.0)
    during = state.record.finished

    state.finish(3.0)

    assert None is during
    assert (2.0, 3.0) == (state.record.began, state.record.finished)


# Other attempts, now or later


def waits(*delays: float) -> Callable[[int, Exception], float]:
    """A `backoff` of so many seconds after each attempt."""
    return lambda attempt, exception: delays[attempt - 1]


def test_a_task_in_backoff_is_running_and_not_ready() -> None:
    state = state_of(defined("a", retries=2, backoff=waits(3)))
    take(state)

    fail(state, "a", ValueError(), now=1.0)

    assert RUNNING is result_of(state, "a").status
    assert 0 == state.ready_count()
    assert NOTHING == state.take(1.0)
    assert [(4.0, 0)] == state.paused


@pytest.mark.parametrize(("now", "ready"), [(3.9, 0), (4.0, 1), (9.0, 1)])
def test_a_task_is_ready_again_once_its_backoff_is_over(now: float, ready: int) -> None:
    state = state_of(defined("a", retries=2, backoff=waits(3)))
    take(state)
    fail(state, "a", ValueError(), now=1.0)

    state.resume(now)

    assert ready == state.ready_count()
    assert 1 - ready == len(state.paused)


def test_the_backoff_that_is_over_first_comes_first_in_the_heap_of_the_paused() -> None:
    state = state_of(
        defined("long", retries=2, backoff=waits(9), priority=Priority.HIGH),
        defined("short", retries=2, backoff=waits(2)),
        defined("medium", retries=2, backoff=waits(5)),
    )
    for name in take_all(state):
        fail(state, name, ValueError())
    first = state.paused[0][0]

    state.resume(2.0)
    by_two = take_all(state)
    state.resume(9.0)

    assert 2.0 == first
    assert ["short"] == by_two
    assert ["long", "medium"] == take_all(state)


def test_tasks_whose_backoff_is_over_compete_by_priority_with_all_others() -> None:
    state = state_of(
        defined("low", retries=2, backoff=waits(1), priority=Priority.LOW),
        defined("high", retries=2, backoff=waits(5), priority=Priority.HIGH),
        defined("first", priority=Priority.HIGH),
        defined("medium", "first"),
    )
    take_all(state)
    fail(state, "low", ValueError())
    fail(state, "high", ValueError())
    complete(state, "first")

    state.resume(5.0)

    assert ["high", "medium", "low"] == take_all(state)


def test_the_wait_is_that_of_the_attempt_and_a_wait_of_nothing_is_none_at_all() -> None:
    state = state_of(defined("a", retries=3, backoff=waits(0, 7)))
    take(state)
    fail(state, "a", ValueError())
    at_once = state.ready_count()
    take(state)

    fail(state, "a", ValueError(), now=1.0)

    assert 1 == at_once
    assert [(8.0, 0)] == state.paused


def test_each_failure_knows_how_long_its_own_attempt_took() -> None:
    state = state_of(defined("a", retries=3, backoff=waits(10, 10)))
    state.take(1.0)
    fail(state, "a", ValueError(), now=3.0)
    state.resume(13.0)
    state.take(14.0)
    fail(state, "a", ValueError(), now=19.0)
    state.resume(29.0)
    state.take(30.0)
    fail(state, "a", ValueError(), now=31.0)

    assert [2.0, 5.0, 1.0] == [one.duration for one in result_of(state, "a").failures]
    assert 30.0 == result_of(state, "a").duration


@pytest.mark.parametrize(
    "exception", [KeyError("not asked for"), NoRetry(), ExceptionGroup("", [NoRetry()])], ids=type
)
def test_what_is_not_worth_another_attempt_is_the_last_one(exception: Exception) -> None:
    state = state_of(defined("a", retries=3, retry_on=[OSError, ExceptionGroup]))
    take(state)
    fail(state, "a", OSError())
    take(state)

    fail(state, "a", exception)

    assert FAILED is result_of(state, "a").status
    assert 2 == result_of(state, "a").attempts
    assert exception is result_of(state, "a").exception


def test_what_a_broken_backoff_raises_is_kept_beside_what_it_was_asked_about() -> None:
    asked = ValueError()
    state = state_of(defined("a", retries=3, backoff=waits()))
    take(state)

    fail(state, "a", asked)

    result = result_of(state, "a")
    assert FAILED is result.status
    assert 1 == result.attempts
    assert [1, 1] == [failure.attempt for failure in result.failures]
    assert asked is result.failures[0].exception
    assert isinstance(result.exception, IndexError)


@pytest.mark.parametrize("retries", [1, 2])
def test_neither_is_asked_where_there_can_be_no_other_attempt(retries: int) -> None:
    """It was the last one, or nothing new starts any more."""
    asked: list[str] = []
    state = state_of(
        defined(
            "a",
            retries=retries,
            retry_on=lambda exception: asked.append("retry_on") or True,
            backoff=lambda attempt, exception: asked.append("backoff") or 0.0,
        )
    )
    take(state)
    if retries == 2:
        state.drain(0.0)

    fail(state, "a", ValueError())

    assert [] == asked
    assert FAILED is result_of(state, "a").status


def test_there_is_no_other_attempt_if_nothing_new_starts_since_it_was_asked_for() -> None:
    def drains(attempt: int, exception: Exception) -> float:
        state.drain(0.0)
        return 0.0

    state = state_of(defined("a", retries=2, backoff=drains))
    take(state)

    fail(state, "a", ValueError())

    assert FAILED is result_of(state, "a").status
    assert 0 == state.ready_count()


# What comes after


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
def test_a_follower_starts_when_what_it_comes_after_has_ended_however(how: str) -> None:
    state = state_of(defined("a"), defined("follower", after=["a"]))
    before = take_all(state)

    if how == "completed":
        complete(state, "a")
    elif how == "failed":
        fail(state, "a", ValueError())
    else:
        cancel(state, "a")

    assert ["a"] == before
    assert ["follower"] == take_all(state)


def test_a_follower_starts_when_what_it_comes_after_has_failed_without_an_attempt() -> None:
    state = state_of(defined("a"), defined("b", "a"), defined("c", "b"), defined("d", after=["c"]))
    take(state)

    fail(state, "a", ValueError())

    assert ["d"] == take_all(state)


def test_a_follower_does_not_start_while_there_are_attempts_left() -> None:
    state = state_of(defined("a", retries=2), defined("follower", after=["a"]))
    take(state)

    fail(state, "a", ValueError())

    assert ["a"] == take_all(state)


def test_a_follower_waits_for_all_it_comes_after_and_all_it_depends_on() -> None:
    state = state_of(
        defined("a"), defined("b"), defined("c"), defined("last", "c", after=["a", "b"])
    )
    take_all(state)

    taken = []
    fail(state, "a", ValueError())
    taken.append(take_all(state))
    complete(state, "c")
    taken.append(take_all(state))
    complete(state, "b")

    assert [[], []] == taken
    assert ["last"] == take_all(state)


@pytest.mark.parametrize("first", ["dependency", "other"])
def test_a_follower_whose_dependency_has_failed_does_not_start(first: str) -> None:
    """Whichever ends first, and it is told once that it has failed."""
    state = state_of(
        defined("dependency"), defined("other"), defined("x", "dependency", after=["other"])
    )
    take_all(state)
    if first == "other":
        complete(state, "other")
    fail(state, "dependency", ValueError(), now=3.0)
    if first != "other":
        complete(state, "other")

    assert NOTHING == state.take(0.0)
    assert "Dependency 'dependency' failed: ValueError" == result_of(state, "x").error


def test_a_follower_that_fails_does_not_fail_what_it_came_after() -> None:
    state = state_of(defined("a"), defined("follower", after=["a"]))
    take(state)
    complete(state, "a", "rows")
    take(state)

    fail(state, "follower", ValueError())

    assert COMPLETED is result_of(state, "a").status


def test_10_000_followers_one_after_another_are_no_deep_recursion() -> None:
    count = 10_000
    state = state_of(
        defined("0"), *(defined(str(at), after=[str(at - 1)]) for at in range(1, count))
    )

    for _ in range(count):
        state.failed(state.take(0.0), ValueError(), 0.0)

    assert NOTHING == state.take(0.0)
    assert FAILED is result_of(state, str(count - 1)).status


# What a failure means for the rest


def test_by_default_everything_else_goes_on() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "b"))
    taken = take_all(state)

    fail(state, "a", ValueError())
    complete(state, "b")

    assert ["b", "a"] == taken
    assert not state.draining
    assert not state.wants_cancel
    assert ["c"] == take_all(state)


@pytest.mark.parametrize(
    ("policy", "wants_cancel"), [(FailurePolicy.DRAIN, False), (FailurePolicy.CANCEL, True)]
)
def test_a_failure_cancels_what_has_not_started_and_fails_its_dependents(
    policy: FailurePolicy, *, wants_cancel: bool
) -> None:
    state = state_of(
        defined("a", priority=Priority.HIGH),
        defined("running", priority=Priority.HIGH),
        defined("ready"),
        defined("dependent", "a"),
        defined("waiting", "running"),
        defined("after a", after=["a"]),
        policy=policy,
    )
    assert ["a", "running"] == [take(state), take(state)]
    before = state.wants_cancel

    fail(state, "a", ValueError(), now=3.0)

    assert {
        "a": "FAILED",
        "running": "RUNNING",
        "ready": "CANCELLED",
        "dependent": "FAILED",
        "waiting": "CANCELLED",
        "after a": "CANCELLED",
    } == statuses(state)
    assert state.draining
    assert (False, wants_cancel) == (before, state.wants_cancel)
    assert (0, NOTHING) == (state.ready_count(), state.take(3.0))


@pytest.mark.parametrize("policy", [FailurePolicy.DRAIN, FailurePolicy.CANCEL])
def test_a_failure_that_is_to_be_tried_again_is_none_for_the_policy(policy: FailurePolicy) -> None:
    state = state_of(defined("a", retries=2), defined("b"), policy=policy)
    take(state)

    fail(state, "a", ValueError())

    assert not state.draining
    assert ["a", "b"] == take_all(state)


def test_who_waits_for_another_attempt_has_failed_when_nothing_new_starts_any_more() -> None:
    """In backoff or already back among the ready ones, and so have those who depend on it."""
    error = ValueError("at first")
    state = state_of(
        defined("in backoff", retries=2, backoff=waits(9)),
        defined("ready again", retries=2),
        defined("dependent", "in backoff"),
    )
    take_all(state)
    fail(state, "in backoff", error, now=1.0)
    fail(state, "ready again", ValueError(), now=2.0)

    state.drain(5.0)

    assert ["FAILED"] * 3 == list(statuses(state).values())
    assert error is result_of(state, "in backoff").exception
    assert 5.0 == result_of(state, "in backoff").duration
    assert (
        "Dependency 'in backoff' failed: ValueError: at first"
        == result_of(state, "dependent").error
    )
    assert [] == state.paused
    assert (0, NOTHING) == (state.ready_count(), state.take(9.0))


@pytest.mark.parametrize("policy", FailurePolicy)
def test_of_all_who_waited_for_another_attempt_the_dependents_have_failed(
    policy: FailurePolicy,
) -> None:
    """None is cancelled because it comes second, and the cause is the first in the graph."""
    state = state_of(
        defined("one", retries=2, priority=Priority.LOW),
        defined("other", retries=2, priority=Priority.HIGH),
        defined("after one", "one"),
        defined("after other", "other"),
        defined("after both", "other", "one"),
        policy=policy,
    )
    for name in take_all(state):
        fail(state, name, ValueError(name))

    state.drain(0.0)

    assert ["FAILED"] * 5 == list(statuses(state).values())
    assert "Dependency 'one' failed: ValueError: one" == result_of(state, "after both").error


def test_who_waits_for_another_attempt_is_cancelled_with_the_run() -> None:
    state = state_of(defined("a", retries=2, backoff=waits(9)), defined("b", "a"))
    take(state)
    fail(state, "a", ValueError(), now=1.0)

    state.drain(5.0, CANCELLED)

    assert ["CANCELLED"] * 2 == list(statuses(state).values())
    assert None is result_of(state, "a").exception
    assert 1 == len(result_of(state, "a").failures)


def test_a_failure_while_nothing_new_starts_is_the_last() -> None:
    state = state_of(defined("a", retries=3, backoff=waits(1, 1)))
    take(state)
    state.drain(0.0)

    fail(state, "a", ValueError())

    assert FAILED is result_of(state, "a").status
    assert [] == state.paused


def test_what_was_cancelled_stays_so_whatever_becomes_of_what_it_waited_for() -> None:
    state = state_of(
        defined("good"),
        defined("bad"),
        defined("needs good", "good"),
        defined("needs bad", "bad"),
        defined("after both", after=["good", "bad"]),
    )
    take_all(state)
    state.drain(0.0)

    complete(state, "good", "rows")
    fail(state, "bad", ValueError())

    assert {
        "good": "COMPLETED",
        "bad": "FAILED",
        "needs good": "CANCELLED",
        "needs bad": "CANCELLED",
        "after both": "CANCELLED",
    } == statuses(state)
    assert NOTHING == state.take(0.0)


def test_to_drain_twice_is_to_drain_once() -> None:
    state = state_of(defined("a"), defined("b", "a"))
    take(state)
    state.drain(1.0)
    before = [result_of(state, name) for name in "ab"]

    state.drain(2.0)

    assert before == [result_of(state, name) for name in "ab"]


def test_what_nobody_carries_out_any_more_is_cancelled() -> None:
    state = state_of(defined("a"), defined("b"), defined("c", "a"))
    take(state)

    state.cancel_running(2.0)

    assert {"a": "CANCELLED", "b": "PENDING", "c": "PENDING"} == statuses(state)
    assert 2.0 == result_of(state, "a").duration


# Lifetimes


def test_a_lifetime_that_has_opened_has_completed_and_its_users_start() -> None:
    state = state_of(lifetime("db"), defined("user", "db"))
    closings = noted_closings(state)
    take(state)

    complete(state, "db", "connection", now=2.0)

    assert COMPLETED is result_of(state, "db").status
    assert "connection" == result_of(state, "db").result
    assert 2.0 == result_of(state, "db").duration
    assert {number_of(state, "db")} == state.open
    assert [] == closings
    assert ["user"] == take_all(state)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
def test_a_lifetime_is_asked_to_close_when_the_last_that_uses_it_has_ended_however(
    how: str,
) -> None:
    state = state_of(lifetime("db"), defined("one", "db"), defined("other", "db"))
    closings = noted_closings(state)
    take(state)
    complete(state, "db")
    take_all(state)

    complete(state, "one")
    after_one = list(closings)
    if how == "completed":
        complete(state, "other")
    elif how == "failed":
        fail(state, "other", ValueError())
    else:
        cancel(state, "other")

    assert [] == after_one
    assert ["db"] == closings


def test_a_lifetime_stays_open_while_a_user_has_attempts_left() -> None:
    state = state_of(lifetime("db"), defined("user", "db", retries=2))
    closings = noted_closings(state)
    take(state)
    complete(state, "db")
    take(state)

    fail(state, "user", ValueError())

    assert [] == closings


def test_a_lifetime_that_nobody_uses_is_asked_to_close_as_soon_as_it_has_opened() -> None:
    state = state_of(lifetime("db"))
    closings = noted_closings(state)
    take(state)

    complete(state, "db")

    assert ["db"] == closings


def test_a_lifetime_whose_users_have_all_failed_meanwhile_is_asked_to_close_when_it_opens() -> None:
    state = state_of(lifetime("db"), defined("bad"), defined("user", "db", "bad"))
    closings = noted_closings(state)
    take_all(state)
    fail(state, "bad", ValueError())
    before = list(closings)

    complete(state, "db")

    assert [] == before
    assert ["db"] == closings


def test_a_lifetime_is_used_by_another_one_until_that_has_closed() -> None:
    state = state_of(lifetime("outer"), lifetime("inner", "outer"), defined("user", "inner"))
    closings = noted_closings(state)
    for name in ["outer", "inner", "user"]:
        assert name == take(state)
        complete(state, name)
    before = list(closings)

    closed(state, "inner")

    assert ["inner"] == before
    assert ["inner", "outer"] == closings
    assert {number_of(state, "outer")} == state.open


def test_a_lifetime_that_did_not_open_has_failed_and_its_users_with_it() -> None:
    state = state_of(lifetime("outer"), lifetime("inner", "outer"), defined("user", "inner"))
    closings = noted_closings(state)
    take(state)
    complete(state, "outer")
    take(state)

    fail(state, "inner", ValueError())

    assert ["COMPLETED", "FAILED", "FAILED"] == list(statuses(state).values())
    assert {number_of(state, "outer")} == state.open
    # What has not opened is told too, should there be something to clean up.
    assert {"outer", "inner"} == set(closings)


def test_who_comes_after_a_lifetime_waits_for_its_close() -> None:
    state = state_of(lifetime("db"), defined("user", "db"), defined("last", after=["db"]))
    take(state)
    complete(state, "db")
    taken = [take_all(state)]
    complete(state, "user")
    taken.append(take_all(state))

    closed(state, "db")

    assert [["user"], []] == taken
    assert ["last"] == take_all(state)


@pytest.mark.parametrize("policy", FailurePolicy)
def test_a_lifetime_that_fails_to_close_has_failed_and_nothing_else_comes_of_it(
    policy: FailurePolicy,
) -> None:
    state = state_of(
        lifetime("db"),
        defined("user", "db"),
        defined("last", after=["db"]),
        policy=policy,
    )
    for name in ["db", "user"]:
        assert name == take(state)
        complete(state, name, name, now=1.0)
    error = ValueError("lost")

    closed(state, "db", error, now=5.0)

    result = result_of(state, "db")
    # How long it took is how long it took to open.
    assert (FAILED, None, error, 1.0) == (
        result.status,
        result.result,
        result.exception,
        result.duration,
    )
    assert [(1, error, 5.0)] == [
        (one.attempt, one.exception, one.duration) for one in result.failures
    ]
    assert "user" == result_of(state, "user").result
    assert not state.draining
    assert set() == state.open
    assert ["last"] == take_all(state)


def test_a_lifetime_that_opened_in_vain_has_ended_and_is_over_when_it_has_closed() -> None:
    """It was cancelled while it opened; what its teardown raises is kept and changes nothing."""
    state = state_of(lifetime("outer"), lifetime("db", "outer"), defined("last", after=["db"]))
    closings = noted_closings(state, "db")
    take(state)
    complete(state, "outer")
    state.take(1.0)
    cancel(state, "db", now=2.0)
    before = (list(closings), take_all(state))
    error = ValueError("while closing")

    closed(state, "db", error, now=5.0)

    result = result_of(state, "db")
    assert (["db"], []) == before
    assert ["db", "outer"] == closings
    assert ["last"] == take_all(state)
    assert TaskStatus.CANCELLED is result.status
    assert (None, 1.0) == (result.exception, result.duration)
    assert [error] == [failure.exception for failure in result.failures]


def test_a_lifetime_that_has_nothing_to_close_is_over_at_once() -> None:
    state = state_of(lifetime("outer"), lifetime("db", "outer"), defined("last", after=["db"]))
    closings = noted_closings(state)
    take(state)
    complete(state, "outer")
    take(state)

    cancel(state, "db")

    assert {"db", "outer"} == set(closings)
    assert ["last"] == take_all(state)


def test_what_a_body_raises_that_nobody_waits_for_is_kept_and_changes_nothing() -> None:
    state = state_of(lifetime("db"), defined("last", after=["db"]))
    take(state)
    cancel(state, "db", now=2.0)
    error = ValueError("while closing")

    closed(state, "db", error, now=5.0)

    result = result_of(state, "db")
    assert (TaskStatus.CANCELLED, None, 2.0) == (result.status, result.exception, result.duration)
    assert [error] == [failure.exception for failure in result.failures]
    assert ["last"] == take_all(state)


def test_what_a_lifetime_raises_at_its_close_counts_from_the_start_of_its_last_attempt() -> None:
    """Also where that attempt had failed as well, having opened in vain."""
    state = state_of(lifetime("db", retries=2))
    noted_closings(state, "db")
    state.take(0.0)
    fail(state, "db", ValueError("at first"), now=1.0)
    state.take(10.0)
    fail(state, "db", ValueError("by a hook"), now=12.0)

    closed(state, "db", ValueError("while closing"), now=15.0)

    assert [(1, 1.0), (2, 2.0), (2, 5.0)] == [
        (failure.attempt, failure.duration) for failure in result_of(state, "db").failures
    ]


def test_lifetimes_are_asked_to_close_when_nothing_new_starts_any_more() -> None:
    state = state_of(lifetime("db"), defined("user", "db"), lifetime("unopened", "user"))
    closings = noted_closings(state)
    take(state)
    complete(state, "db")

    state.drain(0.0)

    assert {"db", "unopened"} == set(closings)
    assert ["COMPLETED", "CANCELLED", "CANCELLED"] == list(statuses(state).values())
    assert {number_of(state, "db")} == state.open


def test_a_user_that_starts_after_the_lifetime_broke_still_has_what_it_yielded() -> None:
    """It is not given None in place of a connection, and finds out itself what has become of it."""
    state = state_of(
        lifetime("db"), taker("one", "db", priority=Priority.HIGH), taker("other", "db")
    )
    take(state)
    complete(state, "db", "connection")
    take(state)

    closed(state, "db", ValueError("connection lost"))
    kept = state.record.results[number_of(state, "db")]
    for name in ["one", "other"]:
        if name == "other":
            take(state)
        complete(state, name)

    assert "connection" == kept
    assert None is result_of(state, "db").result


# Results that are not kept


def test_all_results_are_kept_by_default() -> None:
    state = state_of(defined("a"), taker("b", "a"))
    take(state)
    complete(state, "a", "rows")
    take(state)

    complete(state, "b")

    assert "rows" == result_of(state, "a").result


def test_a_result_that_nobody_takes_is_kept() -> None:
    state = state_of(defined("a"), defined("b", "a"), keep=())
    take(state)
    complete(state, "a", "rows")
    take(state)

    complete(state, "b", "done")

    assert ["rows", "done"] == [result_of(state, name).result for name in "ab"]


def test_a_result_that_is_to_be_kept_is() -> None:
    state = state_of(defined("a"), taker("b", "a"), keep=("a",))
    take(state)
    complete(state, "a", "rows")
    take(state)

    complete(state, "b")

    assert "rows" == result_of(state, "a").result


def test_a_result_is_let_go_of_when_the_last_attempt_of_the_last_taker_has_it() -> None:
    state = state_of(defined("a"), taker("b", "a"), taker("c", "a"), keep=())
    take(state)
    complete(state, "a", "rows")
    take_all(state)

    state.has_arguments(number_of(state, "b"))
    while_c_needs_it = result_of(state, "a").result
    state.has_arguments(number_of(state, "c"))

    assert "rows" == while_c_needs_it
    assert None is result_of(state, "a").result
    assert COMPLETED is result_of(state, "a").status


def test_a_result_stays_for_another_attempt() -> None:
    state = state_of(defined("a"), taker("b", "a", retries=2), keep=())
    take(state)
    complete(state, "a", "rows")
    take(state)
    state.has_arguments(number_of(state, "b"))
    fail(state, "b", ValueError())
    for_the_second = result_of(state, "a").result
    take(state)

    state.has_arguments(number_of(state, "b"))

    assert "rows" == for_the_second
    assert None is result_of(state, "a").result


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "drained"])
def test_a_taker_that_has_ended_needs_nothing_any_more(how: str) -> None:
    """It had attempts left, or never had one."""
    state = state_of(defined("a"), taker("b", "a", retries=3, retry_on=OSError), keep=())
    take(state)
    complete(state, "a", "rows")
    if how == "drained":
        state.drain(0.0)
    else:
        take(state)
        if how == "completed":
            complete(state, "b")
        elif how == "failed":
            fail(state, "b", ValueError())
        else:
            cancel(state, "b")

    assert None is result_of(state, "a").result


def test_a_lifetime_that_has_opened_needs_nothing_any_more() -> None:
    db = TaskDef(name="db", function=lives, retries=2, parameters=(Parameter(name="a"),))
    state = state_of(defined("a"), db, defined("user", "db"), keep=())
    take(state)
    complete(state, "a", "rows")
    take(state)

    complete(state, "db", "connection")

    assert None is result_of(state, "a").result
    assert "connection" == result_of(state, "db").result


def test_a_result_that_comes_when_its_takers_have_failed_meanwhile_is_let_go_of_at_once() -> None:
    state = state_of(defined("a"), defined("bad"), taker("b", "a", "bad"), keep=())
    take_all(state)
    fail(state, "bad", ValueError())

    complete(state, "a", "rows")

    assert FAILED is result_of(state, "b").status
    assert None is result_of(state, "a").result


# Threads


def test_no_more_tasks_run_in_threads_than_there_are() -> None:
    state = state_with_threads(2, *(defined(f"thread {at}") for at in range(3)))

    assert ["thread 0", "thread 1"] == take_all(state)


def test_a_task_that_waits_for_a_thread_is_in_nobody_elses_way() -> None:
    state = state_with_threads(
        1, defined("thread 1"), defined("thread 2"), defined("thread 3"), defined("loop")
    )

    assert ["thread 1", "loop"] == take_all(state)


def test_a_thread_that_is_free_again_goes_to_the_most_urgent_of_those_that_wait() -> None:
    state = state_with_threads(
        1,
        defined("thread 1", priority=Priority.HIGH),
        defined("thread low", priority=Priority.LOW),
        defined("thread medium"),
    )
    take_all(state)

    complete(state, "thread 1")

    assert ["thread medium"] == take_all(state)


def test_a_thread_that_is_free_goes_to_a_task_just_released_if_it_is_more_urgent() -> None:
    state = state_with_threads(
        1,
        defined("thread 1", priority=Priority.HIGH),
        defined("thread low", priority=Priority.LOW),
        defined("thread released", "thread 1"),
    )
    take_all(state)

    complete(state, "thread 1")

    assert ["thread released"] == take_all(state)


def test_a_task_for_the_loop_goes_before_a_less_urgent_one_that_has_got_a_thread() -> None:
    state = state_with_threads(
        1,
        defined("thread 1", priority=Priority.HIGH),
        defined("thread low", priority=Priority.LOW),
        defined("loop", "thread 1"),
    )
    take_all(state)

    complete(state, "thread 1")

    assert ["loop", "thread low"] == take_all(state)


def test_several_threads_that_are_free_at_once_are_all_used_in_the_right_order() -> None:
    state = state_with_threads(
        2,
        defined("thread 1", priority=Priority.HIGH),
        defined("thread 2", priority=Priority.HIGH),
        defined("thread c", priority=Priority.LOW),
        defined("thread d"),
        defined("loop", "thread 1", priority=Priority.LOW),
    )
    take_all(state)

    complete(state, "thread 1")
    complete(state, "thread 2")

    assert ["thread d", "thread c", "loop"] == take_all(state)


def test_a_failed_attempt_gives_its_thread_to_whoever_is_next() -> None:
    state = state_with_threads(
        1,
        defined("thread 1", priority=Priority.LOW, retries=2),
        defined("thread 2", "loop"),
        defined("loop"),
    )
    assert ["loop", "thread 1"] == take_all(state)
    complete(state, "loop")

    fail(state, "thread 1", ValueError())

    assert ["thread 2"] == take_all(state)
    complete(state, "thread 2")
    assert ["thread 1"] == take_all(state)


def test_whoever_waits_for_a_thread_does_not_count_as_ready_until_there_is_one() -> None:
    state = state_with_threads(1, *(defined(f"thread {at}") for at in range(3)))
    take_all(state)
    none_free = state.ready_count()

    complete(state, "thread 0")

    assert 0 == none_free
    assert 1 == state.ready_count()


def test_whoever_waits_for_a_thread_when_the_run_is_over_is_cancelled() -> None:
    state = state_with_threads(1, defined("thread 1"), defined("thread 2"))
    take_all(state)

    state.finish(0.0)
    complete(state, "thread 1")

    assert 0 == state.ready_count()
    assert NOTHING == state.take(0.0)
    assert TaskStatus.CANCELLED is result_of(state, "thread 2").status

"""What may start next, decided without an event loop."""

import pytest
from naive import defined

from portable_sched import (
    DependencyFailedError,
    Graph,
    Priority,
    TaskCancelledError,
    TaskDef,
    TaskResult,
    TaskStatus,
)
from portable_sched._resources import ResourceState
from portable_sched._state import NOTHING, RunState

MANY = 100_000


def state_of(*tasks: TaskDef) -> RunState:
    return RunState(Graph(tasks), began=0.0)


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


def result_of(state: RunState, name: str) -> TaskResult[object]:
    return state.record.result_of(number_of(state, name))


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

"""Answers from what a run knows: its timeline, where the time went, why a task waits, plans."""

from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portable_sched import (
    Backoff,
    FailurePolicy,
    Priority,
    RunResults,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
)
from portable_sched._resources import ResourceState
from portable_sched._state import RunState
from portable_sched.analysis.breakdown import Breakdown, breakdown
from portable_sched.analysis.explanation import explain
from portable_sched.analysis.plan import remaining, seconds_of
from portable_sched.analysis.timeline import attempt_spans, open_spans
from portable_sched.analysis.wording import in_seconds, listed
from portable_sched.testing import run_graph

pytestmark = pytest.mark.anyio

RUNNING = TaskStatus.RUNNING
COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


async def no_op() -> None: ...


async def failing() -> None:
    raise ValueError("no rows")


def taking(seconds: float) -> Callable[[], Any]:
    async def body() -> None:
        await anyio.sleep(seconds)

    return body


def chained(registry: TaskRegistry, **tasks: str) -> None:
    """Tasks by name, each with the names that it depends on."""
    for name, depends_on in tasks.items():
        registry.task(name, depends_on=depends_on.split())(no_op)


def spans_of(results: RunResults, until: float | None = None) -> list[tuple[Any, ...]]:
    return [
        (span.task_name, span.attempt, span.slot, span.start, span.end, span.status)
        for span in attempt_spans(results, until)
    ]


# The timeline


def test_every_attempt_has_its_time_and_the_lowest_free_slot(registry) -> None:
    chained(registry, a="", b="", c="a", d="b")
    results = run_graph(registry, seconds={"a": 2, "b": 5, "c": 1, "d": 1})

    assert [
        ("a", 1, 0, 0, 2, COMPLETED),
        ("b", 1, 1, 0, 5, COMPLETED),
        ("c", 1, 0, 2, 3, COMPLETED),
        ("d", 1, 0, 5, 6, COMPLETED),
    ] == spans_of(results)


def test_failed_attempts_are_spans_of_their_own(registry) -> None:
    registry.task("a", retries=3, backoff=Backoff(initial=4, factor=2, jitter=0))(no_op)
    results = run_graph(registry, seconds={"a": 1}, fail={"a": [1, 2]})

    assert [
        ("a", 1, 0, 0, 1, FAILED),
        ("a", 2, 0, 5, 6, FAILED),
        ("a", 3, 0, 14, 15, COMPLETED),
    ] == spans_of(results)
    assert [1, 1, 1] == [span.duration for span in attempt_spans(results)]


def test_a_failed_attempt_leaves_its_slot_to_the_next_whatever_floats_add_up_to(registry) -> None:
    registry.task("a")(no_op)
    registry.task("b", retries=3)(no_op)
    results = run_graph(
        registry, seconds={"a": 0.1, "b": 0.7}, fail={"b": [1, 2]}, max_concurrency=1
    )

    assert [0, 0, 0, 0] == [span.slot for span in attempt_spans(results)]


def test_a_task_that_failed_for_good_has_its_last_attempt_once(registry) -> None:
    registry.task("a", retries=2)(failing)

    assert [("a", 1, FAILED), ("a", 2, FAILED)] == [
        (span.task_name, span.attempt, span.status) for span in attempt_spans(run_graph(registry))
    ]


def test_what_retry_on_raised_is_no_attempt_of_its_own(registry) -> None:
    def confused(error: Exception) -> bool:
        raise LookupError

    registry.task("a", retries=2, retry_on=confused)(failing)
    results = run_graph(registry, seconds={"a": 2})

    assert [("a", 1, 0, 0, 2, FAILED)] == spans_of(results)


def test_a_task_that_never_started_has_no_span(registry) -> None:
    registry.task("a")(failing)
    chained(registry, b="a")

    assert ["a"] == [span.task_name for span in attempt_spans(run_graph(registry))]


@pytest.mark.virtual_time
async def test_what_is_cancelled_ends_then(registry) -> None:
    registry.task("a")(taking(10))
    scheduler = TaskScheduler(registry)
    with anyio.move_on_after(3):
        await scheduler.run()

    assert [("a", 1, 0, 0, 3, CANCELLED)] == spans_of(scheduler.results)


@pytest.mark.virtual_time
async def test_what_goes_on_is_cut_off_where_it_is_asked_to(registry) -> None:
    seen: list[Any] = []

    @registry.task("flaky", retries=2, backoff=Backoff(initial=100, jitter=0))
    async def flaky() -> None:
        if not seen:
            await anyio.sleep(1)
            seen.append("tried")
            raise ValueError

    registry.task("a")(taking(9))

    @registry.task("looks")
    async def looks() -> None:
        await anyio.sleep(5)
        seen.append(spans_of(scheduler.results, until=5))
        seen.append(spans_of(scheduler.results))

    scheduler = TaskScheduler(registry)
    await scheduler.run()

    until_5 = {("a", 1, 0, 5, RUNNING), ("looks", 1, 0, 5, RUNNING), ("flaky", 1, 0, 1, FAILED)}
    assert until_5 == {
        (name, number, start, end, how) for name, number, _, start, end, how in seen[1]
    }
    # Nothing is known to have happened since the attempts began.
    assert {0, 1} == {end for *_, end, _ in seen[2]}


def test_a_lifetime_has_an_attempt_to_its_yield_and_is_open_from_there(registry) -> None:
    @registry.task
    async def database() -> AsyncIterator[str]:
        await anyio.sleep(2)
        yield "open"
        await anyio.sleep(1)

    @registry.task
    async def load(database: str) -> None:
        await anyio.sleep(4)

    results = run_graph(registry)

    assert [("database", 1, 0, 0, 2, COMPLETED), ("load", 1, 0, 2, 6, COMPLETED)] == spans_of(
        results
    )
    assert [("database", 2, 7, 5)] == [
        (span.task_name, span.start, span.end, span.duration) for span in open_spans(results)
    ]


def test_a_lifetime_whose_teardown_failed_has_had_one_good_attempt(registry) -> None:
    @registry.task
    async def database() -> AsyncIterator[str]:
        yield "open"
        await anyio.sleep(1)
        raise OSError("lost")

    @registry.task
    async def load(database: str) -> None:
        await anyio.sleep(4)

    results = run_graph(registry)

    assert FAILED is results["database"].status
    assert [("database", 1, 0, 0, 0, COMPLETED), ("load", 1, 0, 0, 4, COMPLETED)] == spans_of(
        results
    )
    assert [(0, 5)] == [(span.start, span.end) for span in open_spans(results)]


def test_a_lifetime_that_never_opened_was_not_open(registry) -> None:
    @registry.task
    async def database() -> AsyncIterator[str]:
        raise OSError("no such host")
        yield ""

    assert [] == open_spans(run_graph(registry))


@pytest.mark.virtual_time
async def test_a_lifetime_that_is_open_is_so_until_now(registry) -> None:
    seen = []

    @registry.task
    async def database() -> AsyncIterator[str]:
        yield "open"

    @registry.task
    async def load(database: str) -> None:
        await anyio.sleep(4)
        seen.extend(open_spans(scheduler.results, until=4))

    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert [(0, 4)] == [(span.start, span.end) for span in seen]


def test_no_two_attempts_of_a_slot_overlap_and_no_slot_is_in_vain() -> None:
    registry = TaskRegistry()
    seconds = {f"t{at}": (at * 7) % 11 + 1 for at in range(60)}
    for at, name in enumerate(seconds):
        registry.task(name, depends_on=[f"t{at // 3}"] if at else [])(no_op)
    results = run_graph(registry, seconds=seconds, max_concurrency=5)

    spans = attempt_spans(results)
    assert set(range(results.most_running)) == {span.slot for span in spans}
    for slot in range(results.most_running):
        mine = [span for span in spans if span.slot == slot]
        assert all(one.end <= next_.start for one, next_ in pairwise(mine))


# Where the time went


def times_of(told: Breakdown) -> dict[str, tuple[Any, ...]]:
    return {
        one.task_name: (
            one.dependencies,
            one.slot,
            one.resources,
            one.backoff,
            one.running,
            one.slack,
        )
        for one in told.tasks
    }


def chain_of(told: Breakdown) -> list[tuple[Any, ...]]:
    return [(one.task_name, one.reason, one.resource, one.start, one.end) for one in told.chain]


def test_waiting_for_dependencies_is_told_and_so_is_the_slack(registry) -> None:
    chained(registry, a="", b="", c="a b")
    told = breakdown(run_graph(registry, seconds={"a": 2, "b": 5, "c": 1}))

    assert {
        "a": (0, 0, {}, 0, 2, 3),
        "b": (0, 0, {}, 0, 5, 0),
        "c": (5, 0, {}, 0, 1, 0),
    } == times_of(told)
    assert [("b", "start", "", 0, 5), ("c", "dependency", "", 5, 6)] == chain_of(told)
    assert 6 == told.wall_time
    assert told.advice is None
    assert [
        "Where the 6.0 s went: b (5.0 s) → c (1.0 s)",
        "All tasks together: 8.0 s in functions.",
        "No limit was in the way: only shorter tasks in that chain save time.",
    ] == str(told).splitlines()


def test_waiting_for_a_slot_is_told_with_who_left_it(registry) -> None:
    chained(registry, a="", b="", c="")
    told = breakdown(run_graph(registry, seconds={"a": 2, "b": 3, "c": 4}, max_concurrency=1))

    assert {
        "a": (0, 0, {}, 0, 2, 0),
        "b": (0, 2, {}, 0, 3, 0),
        "c": (0, 5, {}, 0, 4, 0),
    } == times_of(told)
    assert [
        ("a", "start", "", 0, 2),
        ("b", "slot", "", 2, 5),
        ("c", "slot", "", 5, 9),
    ] == chain_of(told)
    assert "`max_concurrency` 1 → 2 saves at most 4.5 s" == str(told.advice)


def test_waiting_for_a_resource_is_told_with_its_name(registry) -> None:
    registry.task("a", resources={"db": 2, "gpu": 1})(no_op)
    registry.task("b", resources={"db": 2, "gpu": 1})(no_op)
    registry.task("c", resources=["gpu"])(no_op)
    limits = {"db": 3, "gpu": 2}
    told = breakdown(run_graph(registry, seconds={"a": 4, "b": 3, "c": 6}, resources=limits))

    assert {
        "a": (0, 0, {}, 0, 4, 0),
        # Until 4 s it lacked both; the first one that it lacks counts.
        "b": (0, 0, {"db": 4}, 0, 3, 0),
        "c": (0, 0, {}, 0, 6, 1),
    } == times_of(told)
    assert [("a", "start", "", 0, 4), ("b", "resource", "db", 4, 7)] == chain_of(told)
    assert "`db` 3 → 4 saves at most 0.5 s" == str(told.advice)


def test_what_takes_no_time_came_after_what_left_it_the_slot(registry) -> None:
    for name in "abc":
        registry.task(name)(no_op)
    results = run_graph(registry, seconds={"a": 14}, max_concurrency=1)

    assert [
        ("a", "start", "", 0, 14),
        ("b", "slot", "", 14, 14),
        ("c", "slot", "", 14, 14),
    ] == chain_of(breakdown(results))


def test_a_chain_does_not_break_where_floats_are_rounded(registry) -> None:
    registry.task("a")(failing)
    chained(registry, b="")
    state = RunState(TaskScheduler(registry).graph, 0.1)
    state.record.limit = 1
    # From its start, 0.1 s after the run's, the attempt took 0.9 s, and 0.1 + 0.9 > 1.1 - 0.1.
    state.failed(state.take(0.2), ValueError(), 1.1)
    state.completed(state.take(1.1), None, 2.1)
    state.finish(2.1)

    assert ["a", "b"] == [link.task_name for link in breakdown(RunResults(state.record)).chain]


def test_whoever_waits_for_one_resource_and_then_for_another_has_waited_for_both(registry) -> None:
    registry.task("a", resources=["db"])(no_op)
    registry.task("b", resources=["gpu"])(no_op)
    registry.task("c", resources=["gpu"], depends_on=["a"])(no_op)
    registry.task("both", resources=["db", "gpu"], priority=Priority.LOW)(no_op)
    seconds = {"a": 3, "b": 2, "c": 4, "both": 1}
    told = breakdown(run_graph(registry, seconds=seconds, resources={"db": 1, "gpu": 1}))

    # From 2 s to 3 s only the first was taken; from 3 s to 7 s only the second.
    assert (0, 0, {"db": 3, "gpu": 4}, 0, 1, 0) == times_of(told)["both"]
    assert [
        ("a", "start", "", 0, 3),
        ("c", "dependency", "", 3, 7),
        ("both", "resource", "gpu", 7, 8),
    ] == chain_of(told)
    lines = str(told).splitlines()
    assert (
        "Where the 8.0 s went: a (3.0 s) → c (4.0 s), then `gpu` was free: both (1.0 s)" == lines[0]
    )
    assert (
        "All tasks together: 10 s in functions, 3.0 s waiting for `db`, 4.0 s waiting for `gpu`."
    ) == lines[1]


def test_two_who_wait_for_the_same_are_summed(registry) -> None:
    for name in ["a", "b", "c"]:
        registry.task(name, resources=["db"])(no_op)
    told = breakdown(run_graph(registry, seconds={"a": 2, "b": 2, "c": 2}, resources={"db": 1}))

    assert "6.0 s waiting for `db`" in str(told)
    # Two units would leave one of the three to wait: twice as many is the next step.
    assert "`db` 1 → 2 saves at most 3.0 s" == str(told.advice)


def test_of_several_limits_the_one_that_could_save_most_is_named(registry) -> None:
    for at in range(6):
        registry.task(f"db-{at}", resources=["db"])(no_op)
        registry.task(f"gpu-{at}", resources=["gpu"])(no_op)
    seconds = {
        f"{kind}-{at}": at + {"db": 5, "gpu": 1}[kind] for kind in ["db", "gpu"] for at in range(6)
    }
    limits = {"db": 1, "gpu": 1}
    advice = breakdown(run_graph(registry, seconds=seconds, resources=limits)).advice

    assert advice is not None
    assert ("db", 1, 2, 45 - 22.5) == (
        advice.limit,
        advice.units,
        advice.better,
        advice.saves_at_most,
    )


def test_no_more_is_advised_than_is_needed(registry) -> None:
    for at in range(9):
        registry.task(f"t{at}", resources=["db"])(no_op)
    registry.task("long")(no_op)
    seconds = {**{f"t{at}": 1 for at in range(9)}, "long": 2}
    advice = breakdown(run_graph(registry, seconds=seconds, resources={"db": 4})).advice

    assert advice is not None
    assert (4, 5, 3 - 2) == (advice.units, advice.better, advice.saves_at_most)


def test_what_saves_next_to_nothing_is_no_advice(registry) -> None:
    registry.task("a", resources=["db"])(no_op)
    registry.task("b", resources=["db"], depends_on=["c"])(no_op)
    registry.task("c")(no_op)
    seconds = {"a": 100.5, "b": 1, "c": 100}
    told = breakdown(run_graph(registry, seconds=seconds, resources={"db": 1}))

    assert {"db": 0.5} == times_of(told)["b"][2]
    assert told.advice is None


def test_backoff_is_told_and_what_comes_after_it(registry) -> None:
    registry.task("a", retries=2, backoff=Backoff(initial=4, jitter=0))(no_op)
    registry.task("b")(no_op)
    results = run_graph(registry, seconds={"a": 1, "b": 20}, fail={"a": [1]}, max_concurrency=1)
    told = breakdown(results)

    # The second attempt was due after 5 s, and the only slot was b's until 21 s.
    assert (0, 16, {}, 4, 2) == times_of(told)["a"][:5]
    assert [
        ("a", "start", "", 0, 1),
        ("b", "slot", "", 1, 21),
        ("a", "slot", "", 21, 22),
    ] == chain_of(told)


def test_a_chain_through_a_backoff_says_so(registry) -> None:
    registry.task("a", retries=2, backoff=Backoff(initial=4, jitter=0))(no_op)
    told = breakdown(run_graph(registry, seconds={"a": 1}, fail={"a": [1]}))

    assert [("a", "start", "", 0, 6)] == chain_of(told)
    assert (0, 0, {}, 4, 2, 0) == times_of(told)["a"]


def test_threads_are_a_limit_that_max_concurrency_widens_for_all(registry) -> None:
    chained(registry, a="", b="", c="")
    thread: list[Any] = [(("", 1),)] * 3
    state = ResourceState(TaskScheduler(registry).graph, 0.0, thread, {"": 1})
    for at in range(3):
        state.completed(state.take(2.0 * at), None, 2.0 * at + 2)
    state.finish(6.0)
    # Tasks without a thread, which that would be a limit for too.
    state.record.most_running = 7
    told = breakdown(RunResults(state.record))

    assert {"a": {}, "b": {"": 2}, "c": {"": 4}} == {
        one.task_name: one.resources for one in told.tasks
    }
    assert "All tasks together: 6.0 s in functions, 6.0 s waiting for a thread." in str(told)
    assert "`max_concurrency` 1 → 7 saves at most 4.0 s" == str(told.advice)


def test_a_run_of_nothing_went_nowhere() -> None:
    told = breakdown(run_graph(TaskRegistry()))

    assert ((), (), None) == (told.tasks, told.chain, told.advice)
    assert "no task ran" in str(told)


def test_a_long_chain_is_told_by_its_ends(registry) -> None:
    registry.task("t0")(no_op)
    for at in range(1, 30):
        registry.task(f"t{at}", depends_on=[f"t{at - 1}"])(no_op)
    first = str(breakdown(run_graph(registry))).splitlines()[0]

    assert (
        "Where the 0 s went: t0 (0 s) → t1 (0 s) → t2 (0 s) → t3 (0 s) → … 22 more … → "
        "t26 (0 s) → t27 (0 s) → t28 (0 s) → t29 (0 s)"
    ) == first


def test_a_task_that_never_was_ready_has_waited_for_its_dependencies(registry) -> None:
    registry.task("a")(failing)
    chained(registry, b="a")
    told = breakdown(run_graph(registry, seconds={"a": 0}))

    assert (0, 0, {}, 0, 0, 0) == times_of(told)["b"]


def test_who_comes_after_what_was_never_started_comes_after_what_failed(registry) -> None:
    registry.task("a")(failing)
    chained(registry, b="a", c="b")
    registry.task("tidy", after=["c"])(no_op)

    assert [("a", "start", "", 0, 2), ("tidy", "dependency", "", 2, 3)] == chain_of(
        breakdown(run_graph(registry, seconds={"a": 2, "tidy": 1}))
    )


@pytest.mark.virtual_time
async def test_a_run_under_way_is_told_as_far_as_it_is_known(registry) -> None:
    told: list[Breakdown] = []
    registry.task("a", retries=2, backoff=Backoff(initial=100, jitter=0))(failing)

    @registry.task("looks")
    async def looks() -> None:
        await anyio.sleep(5)
        told.append(scheduler.breakdown())
        scheduler.stop()

    chained(registry, c="looks")
    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert {"a", "looks", "c"} == set(times_of(told[0]))
    assert FAILED is scheduler.results["a"].status
    # The backoff was cut short by the stop.
    assert (0, 0, {}, 5, 0) == times_of(scheduler.breakdown())["a"][:5]


@pytest.mark.virtual_time
async def test_all_times_are_seconds_since_the_run_began(registry) -> None:
    seen: list[Any] = []

    @registry.task
    async def database() -> AsyncIterator[str]:
        await anyio.sleep(2)
        yield ""
        await anyio.sleep(1)

    @registry.task("flaky", retries=2, backoff=Backoff(initial=3, jitter=0), depends_on=[database])
    async def flaky() -> None:
        await anyio.sleep(1)
        if len(seen) % 2 == 0:
            seen.append(remaining(scheduler.results, 3, {"load": 4, "export": 4}))
            raise ValueError

    for name in ["load", "export"]:
        registry.task(name, resources=["db"], depends_on=[database])(taking(4))
    registry.task("tidy", after=["database"])(taking(1))
    scheduler = TaskScheduler(registry, resources={"db": 1})
    told = []
    for _ in range(2):
        results = await scheduler.run()
        told.append(
            (
                attempt_spans(results),
                open_spans(results),
                breakdown(results),
                [explain(results, name) for name in results.graph.order],
            )
        )
        seen.append(None)
        # A power of two, so that what is added to it is exact.
        await anyio.sleep(1024 - results.wall_time)

    assert told[0] == told[1]
    assert seen[0] == seen[2]
    assert [(2, 11)] == [(span.start, span.end) for span in told[0][1]]


def test_what_comes_after_a_lifetime_comes_after_who_used_it(registry) -> None:
    @registry.task
    async def pool() -> AsyncIterator[None]:
        yield
        await anyio.sleep(2)

    registry.task("use", depends_on=["pool"])(taking(5))
    registry.task("clean", after=["pool"])(taking(1))
    told = breakdown(run_graph(registry))

    assert ["pool", "use", "clean"] == [link.task_name for link in told.chain]
    assert [0, 0, 0] == [one.slack for one in told.tasks]


def test_the_time_that_lifetimes_close_in_is_not_blamed_on_tasks(registry) -> None:
    @registry.task
    async def pool() -> AsyncIterator[None]:
        yield
        await anyio.sleep(25)

    registry.task("use", depends_on=["pool"])(taking(5))

    assert [
        "Where the 30 s went: pool (0 s) → use (5.0 s)",
        "All tasks together: 5.0 s in functions.",
        "The last 25 s went to lifetimes, which were closing.",
    ] == str(breakdown(run_graph(registry))).splitlines()


@st.composite
def graphs(draw: st.DrawFn) -> tuple[TaskRegistry, dict[str, Any], dict[str, Any]]:
    """A registry, what `run_graph` is to be told, and the limits."""
    registry = TaskRegistry()
    count = draw(st.integers(1, 9))
    seconds: dict[str, float] = {}
    fail: dict[str, list[int]] = {}
    for at in range(count):
        name = f"t{at}"
        earlier = [f"t{one}" for one in range(at)]
        depends_on = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if at else []
        after = draw(st.lists(st.sampled_from(earlier), max_size=1)) if at else []
        retries = draw(st.integers(1, 3))
        registry.task(
            name,
            depends_on=depends_on,
            after=after,
            retries=retries,
            backoff=Backoff(initial=draw(st.integers(0, 3)) or 0.5, jitter=0),
            resources=draw(st.sampled_from([[], ["db"], {"db": 2}, ["gpu"], ["db", "gpu"]])),
        )(no_op)
        seconds[name] = draw(st.integers(0, 6))
        fail[name] = draw(st.lists(st.integers(1, 3), max_size=3, unique=True))
    limits: dict[str, Any] = {
        "max_concurrency": draw(st.sampled_from([None, 1, 2, 3])),
        "resources": {"db": 2, "gpu": 1},
        "on_failure": draw(st.sampled_from(FailurePolicy)),
    }
    return registry, {"seconds": seconds, "fail": fail}, limits


@given(graphs())
@settings(deadline=None)
def test_the_parts_of_every_started_task_add_up_and_the_chain_goes_forward(graph) -> None:
    registry, told, limits = graph
    results = run_graph(registry, **told, **limits)
    where = breakdown(results)

    for one, result in zip(where.tasks, results, strict=True):
        parts = (
            one.dependencies + one.slot + sum(one.resources.values()) + one.backoff + one.running
        )
        if result.started_at is not None:
            ended = result.started_at - results.started_at + result.duration
            assert ended == pytest.approx(parts)
        assert min([one.dependencies, one.slot, one.backoff, one.running, one.slack]) >= 0
    for link, following in pairwise(where.chain):
        assert link.end <= following.start
    if where.advice is not None:
        assert 0 < where.advice.saves_at_most < where.wall_time
        assert where.advice.better > where.advice.units
        assert str(where.advice.units) in str(where)


# Why


def why(results: RunResults, task: str) -> str:
    return str(explain(results, task))


def test_a_task_that_was_not_started_is_led_back_to_the_root_cause(registry) -> None:
    registry.task("fetch", retries=2)(failing)
    chained(registry, parse="fetch", load="parse")
    told = explain(run_graph(registry), "load")

    assert (FAILED, ("load", "parse", "fetch"), None) == (told.status, told.chain, told.ready_since)
    assert (
        "'load' was not started: it depends on 'parse', which depends on 'fetch', which failed: "
        "ValueError: no rows"
    ) == str(told)


def test_of_a_long_way_to_the_root_cause_both_ends_are_told(registry) -> None:
    registry.task("t0")(failing)
    for at in range(1, 20):
        registry.task(f"t{at}", depends_on=[f"t{at - 1}"])(no_op)
    told = explain(run_graph(registry), "t19")

    assert tuple(f"t{at}" for at in range(19, -1, -1)) == told.chain
    assert (
        "'t19' was not started: it depends on 't18', which depends on 't17', which depends on "
        "'t16', which depends on … 13 more …, which depends on 't2', which depends on 't1', which "
        "depends on 't0', which failed: ValueError: no rows"
    ) == str(told)


def test_what_failed_by_itself_says_so(registry) -> None:
    registry.task("fetch", retries=2)(failing)

    assert "'fetch' failed at attempt 2 of 2: ValueError: no rows" == why(
        run_graph(registry), "fetch"
    )


def test_what_completed_says_how_long_it_took(registry) -> None:
    registry.task("a", retries=3)(no_op)
    chained(registry, b="a")
    results = run_graph(registry, seconds={"a": 2, "b": 0.25}, fail={"a": [1]})

    assert "'a' has completed in 4.0 s, at attempt 2" == why(results, "a")
    assert "'b' has completed in 0.25 s" == why(results, "b")
    assert 4 == explain(results, "b").ready_since


def test_a_teardown_that_failed_is_told_from_an_attempt(registry) -> None:
    @registry.task
    async def database() -> AsyncIterator[str]:
        yield "open"
        raise OSError("lost")

    @registry.task
    async def load(database: str) -> None:
        await anyio.sleep(4)

    assert "'database' failed after its `yield`: OSError: lost" == why(
        run_graph(registry), "database"
    )


@pytest.mark.parametrize("policy", [FailurePolicy.DRAIN, FailurePolicy.CANCEL])
def test_what_a_policy_kept_from_starting_names_the_failure(registry, policy) -> None:
    registry.task("bad")(failing)
    registry.task("slow")(taking(10))
    chained(registry, later="slow", last="later")
    results = run_graph(registry, seconds={"bad": 3}, on_failure=policy)

    assert CANCELLED is results["later"].status
    assert "'later' was not started: 'bad' had failed after 3.0 s; it waited for 'slow'" == why(
        results, "later"
    )
    assert "'last' was not started: 'bad' had failed after 3.0 s; it waited for 'later'" == why(
        results, "last"
    )


@pytest.mark.virtual_time
async def test_what_a_cancellation_struck_says_when(registry) -> None:
    registry.task("a")(taking(10))
    chained(registry, b="a")
    scheduler = TaskScheduler(registry, max_concurrency=1)
    with anyio.move_on_after(3):
        await scheduler.run()

    stopped = "the run was stopped after 3.0 s"
    assert [
        f"'a' was cancelled during attempt 1, after 3.0 s: {stopped}",
        f"'b' was not started: {stopped}; it waited for 'a'",
    ] == [str(scheduler.explain(name)) for name in "ab"]


@pytest.mark.virtual_time
async def test_while_it_runs_everything_can_be_explained(registry) -> None:
    told: dict[str, str] = {}
    tried: list[int] = []

    @registry.task
    async def database() -> AsyncIterator[str]:
        yield "open"

    @registry.task("flaky", retries=3, backoff=Backoff(initial=20, jitter=0))
    async def flaky() -> None:
        tried.append(1)
        await anyio.sleep(1)
        if len(tried) < 2:
            raise ValueError("not yet")

    registry.task("load-1", resources=["db"], depends_on=["database"])(taking(9))
    registry.task("load-2", resources=["db"], depends_on=["database"])(taking(9))
    chained(registry, report="load-1 load-2")

    @registry.task("looks", priority=Priority.HIGH)
    async def looks() -> None:
        await anyio.sleep(5)
        for name, _ in scheduler.status_snapshot():
            told[name] = str(scheduler.explain(name))

    scheduler = TaskScheduler(registry, resources={"db": 1})
    await scheduler.run()

    assert {
        "database": "'database' has completed in 0 s; it is open, used by 'load-1', 'load-2'",
        "flaky": (
            "'flaky', of which attempt 1 of 3 failed (ValueError: not yet), is tried again in 16 s"
        ),
        "load-1": "'load-1' is running: attempt 1 of 1, for 5.0 s",
        "load-2": "'load-2' is ready since 0 s, for 5.0 s, wants `db`, held by 'load-1'",
        "report": "'report' waits for 'load-1', 'load-2'; running: 'load-1'",
        "looks": "'looks' is running: attempt 1 of 1, for 5.0 s",
    } == told


@pytest.mark.virtual_time
async def test_moments_are_told_as_seconds_since_the_run_began(registry) -> None:
    told: list[str] = []
    registry.task("first")(taking(2))
    registry.task("a", resources={"db": 2}, depends_on=["first"])(taking(9))
    registry.task("b", resources={"db": 2}, depends_on=["first"])(taking(9))
    registry.task("c", resources={"db": 2}, depends_on=["first"])(taking(9))

    @registry.task("looks", priority=Priority.HIGH)
    async def looks() -> None:
        await anyio.sleep(5)
        told.extend(str(scheduler.explain(name)) for name in "abc")
        scheduler.stop()
        scheduler.stop()

    scheduler = TaskScheduler(registry, resources={"db": 4})
    await anyio.sleep(100)
    await scheduler.run()

    # Two units are free for b, as many as it asks for: it runs.
    assert [
        "'a' is running: attempt 1 of 1, for 3.0 s",
        "'b' is running: attempt 1 of 1, for 3.0 s",
        "'c' is ready since 2.0 s, for 3.0 s, wants `db`, held by 'a', 'b'",
    ] == told
    assert (
        "'a' was cancelled during attempt 1, after 3.0 s: the run was stopped after 5.0 s"
        == str(scheduler.explain("a"))
    )


@pytest.mark.virtual_time
async def test_what_is_free_as_far_as_it_is_asked_for_is_no_shortage(registry) -> None:
    told: list[Any] = []
    registry.task("long", resources={"db": 2})(taking(9))
    registry.task("b", resources={"db": 2}, priority=Priority.LOW)(no_op)

    @registry.task("looks", priority=Priority.HIGH)
    async def looks() -> None:
        await anyio.sleep(1)
        told.append(scheduler.explain("b"))

    scheduler = TaskScheduler(registry, resources={"db": 4}, max_concurrency=2)
    await scheduler.run()

    assert () == told[0].shortages
    assert "wants one of 2 slots, held by 'long', 'looks'" in str(told[0])


@pytest.mark.virtual_time
async def test_a_task_that_wants_a_slot_is_told_who_has_them(registry) -> None:
    told: list[Any] = []
    tried: list[int] = []

    @registry.task("flaky", retries=2)
    async def flaky() -> None:
        tried.append(1)
        if len(tried) < 2:
            raise ValueError("not yet")

    @registry.task("looks", priority=Priority.HIGH, after=["flaky"])
    async def looks() -> None: ...

    @registry.task("sees", priority=Priority.HIGH)
    async def sees() -> None:
        await anyio.sleep(2)
        told.append(scheduler.explain(flaky))
        told.append(scheduler.explain("looks"))

    scheduler = TaskScheduler(registry, max_concurrency=1)
    await scheduler.run()

    assert "'flaky' is ready since 0 s, for 2.0 s, wants the only slot, held by 'sees'" == str(
        told[0]
    )
    assert (("flaky",), None) == (told[1].waits_for, told[1].ready_since)


@pytest.mark.virtual_time
async def test_a_second_attempt_that_is_due_wants_what_a_first_one_wants(registry) -> None:
    told: list[Any] = []

    @registry.task("flaky", retries=2, resources={"db": 2}, backoff=Backoff(initial=1, jitter=0))
    async def flaky() -> None:
        if not told:
            told.append(None)
            raise ValueError("not yet")

    registry.task("long", resources={"db": 2}, priority=Priority.LOW)(taking(9))

    @registry.task("sees")
    async def sees() -> None:
        await anyio.sleep(5)
        told.append(scheduler.explain("flaky"))

    scheduler = TaskScheduler(registry, resources={"db": 3}, max_concurrency=4)
    await scheduler.run()

    assert [("db", 2, 1, ("long",))] == [
        (one.resource, one.wanted, one.free, one.held_by) for one in told[1].shortages
    ]
    assert (
        "'flaky', of which attempt 1 of 2 failed (ValueError: not yet), is ready since 0 s, for "
        "5.0 s, wants `db`, held by 'long'"
    ) == str(told[1])


@pytest.mark.virtual_time
async def test_what_nothing_hinders_is_about_to_start(registry) -> None:
    told: list[str] = []
    chained(registry, b="")

    def look(event: object) -> None:
        told.append(str(scheduler.explain("b")))

    scheduler = TaskScheduler(registry, observers=[look])
    await scheduler.run()

    assert (
        "'b' is ready since 0 s, for 0 s, starts as soon as the event loop comes to it"
    ) == told[0]


@pytest.mark.virtual_time
async def test_after_a_lifetime_means_after_its_teardown(registry) -> None:
    told: list[str] = []

    @registry.task
    async def database() -> AsyncIterator[str]:
        yield "open"
        await anyio.sleep(3)
        told.append(str(scheduler.explain("tidy")))
        told.append(str(scheduler.explain("database")))

    registry.task("load", depends_on=["database"])(taking(2))
    registry.task("tidy", after=["database", "load"])(no_op)
    scheduler = TaskScheduler(registry)
    results = await scheduler.run()

    assert [
        "'tidy' waits for 'database'",
        "'database' has completed in 0 s; it is open",
    ] == told
    assert 5 == explain(results, "tidy").ready_since


def test_a_run_that_was_cut_off_says_so(registry) -> None:
    chained(registry, a="", b="a")
    state = RunState(TaskScheduler(registry).graph, 0.0)
    state.take(0.0)
    state.finish(2.0)
    results = RunResults(state.record)

    assert "'a' was cancelled during attempt 1, after 2.0 s: the run was cut off" == why(
        results, "a"
    )


def test_who_comes_after_a_task_that_has_not_ended_was_never_ready(registry) -> None:
    chained(registry, a="")
    registry.task("b", after=["a"])(no_op)
    results = RunResults(RunState(TaskScheduler(registry).graph, 0.0).record)

    assert (("a",), None) == (explain(results, "b").waits_for, explain(results, "b").ready_since)
    assert 0 == breakdown(results).tasks[1].dependencies


@pytest.mark.parametrize("edge", ["depends_on", "after"])
def test_what_was_given_up_waited_for_what_ended_later(registry, edge) -> None:
    registry.task("bad")(failing)
    registry.task("long")(no_op)
    registry.task("then", **{edge: ["long"]})(no_op)
    results = run_graph(registry, seconds={"bad": 2, "long": 9}, on_failure=FailurePolicy.DRAIN)

    assert "'then' was not started: 'bad' had failed after 2.0 s; it waited for 'long'" == why(
        results, "then"
    )
    assert explain(results, "then").ready_since is None
    assert 2 == breakdown(results).tasks[2].dependencies


def test_a_lifetime_was_there_for_what_was_given_up_even_if_its_teardown_failed(registry) -> None:
    @registry.task
    async def pool() -> AsyncIterator[None]:
        yield
        raise ValueError("not empty")

    registry.task("bad", depends_on=["pool"])(failing)
    registry.task("use", depends_on=["pool"], priority=Priority.LOW)(no_op)
    results = run_graph(
        registry, seconds={"bad": 2}, max_concurrency=1, on_failure=FailurePolicy.DRAIN
    )

    assert "'use' was not started: 'bad' had failed after 2.0 s" == why(results, "use")


def test_an_unknown_task_is_answered_with_the_nearest_name(registry) -> None:
    chained(registry, fetch="")

    with pytest.raises(
        KeyError, match=r"No task 'fetsh' in these results\. Did you mean 'fetch'\?"
    ):
        explain(run_graph(registry), "fetsh")


def test_before_the_first_run_there_is_nothing_to_explain(registry) -> None:
    chained(registry, fetch="")

    with pytest.raises(RuntimeError, match="nothing has been run yet"):
        TaskScheduler(registry).explain("fetch")


# Plans


def test_a_plan_tries_every_limit_without_a_call(registry) -> None:
    def never() -> None:
        raise AssertionError

    for name, seconds in {"a": 6, "b": 3, "c": 3, "d": 2}.items():
        registry.task(name, estimate=seconds)(never)
    plan = TaskScheduler(registry).plan([1, 2, 3, None])

    assert [(1, 14, 14, 1), (2, 8, 7, 1.75), (3, 6, 6, 14 / 6), (None, 6, 6, 14 / 6)] == [
        (run.max_concurrency, run.makespan, run.lower_bound, run.busy) for run in plan.runs
    ]
    assert (6, 14, 3, ()) == (plan.critical_path, plan.work, plan.knee, plan.unknown)


def test_a_plan_is_a_table(registry) -> None:
    registry.task("a", estimate=90)(no_op)
    chained(registry, b="a")

    assert [
        "max_concurrency      takes   at least  busy",
        "              1  3 min 0 s  3 min 0 s   1.0  <- more gains less than 5 %",
        "           none  3 min 0 s  3 min 0 s   1.0",
        "longest path 3 min 0 s, work of all tasks 3 min 0 s",
        "counted as 90 s each, for want of an estimate: 'b'",
    ] == str(TaskScheduler(registry).plan([1, None])).splitlines()


def test_a_plan_takes_the_seconds_of_an_earlier_run(registry) -> None:
    registry.task("a", retries=2, backoff=Backoff(initial=50, jitter=0))(no_op)
    chained(registry, b="", c="a b")
    results = run_graph(registry, seconds={"a": 4, "b": 3, "c": 1}, fail={"a": [1]})
    plan = TaskScheduler(registry).plan([1, 2], seconds=results)

    assert "for want of" not in str(plan)
    assert {"a": 8, "b": 3, "c": 1} == seconds_of(results)
    assert [12, 9] == [run.makespan for run in plan.runs]
    assert [] == list(plan.unknown)


def test_a_plan_takes_seconds_by_name_and_targets(registry) -> None:
    chained(registry, a="", b="a", c="")
    plan = TaskScheduler(registry).plan(None, seconds={"a": 2.5}, targets=["b"])

    # What nobody knows counts as the average of what is known.
    assert [(None, 5)] == [(run.max_concurrency, run.makespan) for run in plan.runs]
    assert (("b",), None) == (plan.unknown, plan.knee)


def test_a_plan_respects_resources_and_lifetimes(registry) -> None:
    @registry.task(estimate=1)
    async def database() -> AsyncIterator[str]:
        yield ""

    for name in ["a", "b"]:
        registry.task(name, depends_on=[database], resources=["db"], estimate=5)(no_op)
    registry.task("tidy", after=[database], estimate=2)(no_op)
    plan = TaskScheduler(registry, resources={"db": 1}).plan([4])

    assert [(13, 10)] == [(run.makespan, run.lower_bound) for run in plan.runs]


def test_a_plan_knows_how_many_threads_a_run_has() -> None:
    registry = TaskRegistry()
    for at in range(80):
        registry.task(f"t{at}", estimate=1)(lambda: None)
    scheduler = TaskScheduler(registry)

    assert [2, 1] == [run.makespan for run in scheduler.plan([None, 80]).runs]


def test_an_empty_graph_takes_no_time() -> None:
    plan = TaskScheduler(TaskRegistry()).plan([1, 2])

    assert [(0, 0, 0), (0, 0, 0)] == [
        (run.makespan, run.lower_bound, run.busy) for run in plan.runs
    ]


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        (
            3,
            TypeError,
            r"Expected seconds to be the results of a run, or a mapping .+, got 3 \(int\)\.",
        ),
        (
            {"a": -1},
            ValueError,
            r"Task 'a': expected seconds to be a number of seconds of at least 0, .+ -1 \(int\)\.",
        ),
        ({"a": None}, TypeError, r"Expected the seconds of task 'a' to be a number, got None\."),
    ],
)
def test_seconds_that_are_none_are_refused(registry, seconds, error, message) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        TaskScheduler(registry).plan(seconds=seconds)


@given(graphs())
@settings(deadline=None)
def test_a_plan_of_what_never_fails_is_what_a_run_takes(graph) -> None:
    registry, told, limits = graph
    limits.pop("on_failure")
    # No two ends at one moment: which of them is heard of first decides what starts next.
    seconds = {name: 1 + each + 2**-at for at, (name, each) in enumerate(told["seconds"].items())}
    results = run_graph(registry, seconds=seconds, **limits)
    scheduler = TaskScheduler(registry, **limits)
    plan = scheduler.plan(limits["max_concurrency"], seconds=results)

    assert plan.runs[0].makespan == pytest.approx(results.wall_time)
    assert plan.runs[0].lower_bound <= results.wall_time + 1e-9


# What is left


async def left_at(moment: float, registry: TaskRegistry, **limits: Any) -> float | None:
    """What `remaining` says after so many seconds of a run."""
    told: list[float | None] = []

    @registry.task("looks", estimate=moment, priority=Priority.HIGH)
    async def looks() -> None:
        await anyio.sleep(moment)
        told.append(remaining(scheduler.results, moment))

    scheduler = TaskScheduler(registry, **limits)
    await scheduler.run()
    return told[0]


@pytest.mark.virtual_time
async def test_what_is_left_is_what_is_running_and_what_is_to_come(registry) -> None:
    registry.task("a", estimate=4)(taking(4))
    registry.task("b", estimate=5, depends_on=["a"])(taking(5))
    registry.task("c", estimate=2, depends_on=["b"])(taking(2))

    assert 5 + 2 - (7 - 4) == await left_at(7, registry)


@pytest.mark.virtual_time
async def test_what_is_left_goes_through_the_limits(registry) -> None:
    for name in ["a", "b", "c", "d"]:
        registry.task(name, estimate=4, resources=["db"])(taking(4))

    assert 4 * 4 - 5 == await left_at(5, registry, resources={"db": 1}, max_concurrency=3)


@pytest.mark.virtual_time
async def test_a_task_without_an_estimate_counts_as_those_that_have_completed(registry) -> None:
    registry.task("a")(taking(4))
    registry.task("b")(taking(2))
    registry.task("c", depends_on=["a"])(taking(10))
    registry.task("d", depends_on=["a"])(taking(10))

    # a and b took 3 on average, and c and d have been running for 1.
    assert 3 - 1 == await left_at(5, registry)


@pytest.mark.virtual_time
async def test_what_is_left_is_unknown_where_nothing_has_shown_it(registry) -> None:
    registry.task("a")(taking(4))

    assert await left_at(1, registry) is None


@pytest.mark.virtual_time
async def test_a_task_that_takes_longer_than_expected_is_taken_to_end_now(registry) -> None:
    registry.task("a", estimate=2)(taking(40))

    assert 0 == await left_at(5, registry)


@pytest.mark.virtual_time
async def test_a_task_in_backoff_is_still_to_run_and_so_is_what_waits_for_a_close(registry) -> None:
    tried: list[int] = []

    @registry.task("flaky", estimate=3, retries=2, backoff=Backoff(initial=20, jitter=0))
    async def flaky() -> None:
        tried.append(1)
        if len(tried) < 2:
            raise ValueError

    @registry.task(estimate=1)
    async def database() -> AsyncIterator[str]:
        yield ""

    registry.task("load", estimate=4, depends_on=["database"])(taking(4))
    registry.task("late", estimate=9, depends_on=["database"])(taking(9))
    registry.task("tidy", estimate=8, after=["database"])(taking(8))

    @registry.task(estimate=1)
    async def unused() -> AsyncIterator[str]:
        yield ""

    registry.task("sweep", estimate=1, after=["unused"])(taking(1))

    # The second attempt is due at 20 s.
    assert 15 + 3 == await left_at(5, registry)


@given(graphs(), st.integers(0, 12))
@settings(deadline=None)
def test_what_is_left_of_what_never_fails_is_what_it_takes(graph, moment) -> None:
    registry, told, limits = graph
    seconds = told["seconds"]
    limits.pop("on_failure")
    left: list[tuple[float, float | None]] = []

    def look(event: Any) -> None:
        if hasattr(event, "task") and scheduler_results:
            at = event.at - scheduler_results[0].started_at
            if at >= moment:
                left.append((at, remaining(scheduler_results[0], at, seconds)))
        elif hasattr(event, "tasks"):
            scheduler_results.append(event.results)

    scheduler_results: list[RunResults] = []
    results = run_graph(registry, seconds=seconds, observers=[look], **limits)

    for at, expected in left:
        assert expected is not None
        # A task that keeps a resource for itself after it was passed over is not known to do so.
        assert expected <= results.wall_time - at + sum(seconds.values()) / 2 + 1e-9


def test_a_notebook_shows_answers_by_their_text(registry) -> None:
    chained(registry, a="", b="a")
    results = run_graph(registry)
    told: list[str] = []

    class Printer:
        def text(self, text: str) -> None:
            told.append(text)

    answers = [explain(results, "b"), breakdown(results), TaskScheduler(registry).plan(1)]
    for answer in answers:
        answer._repr_pretty_(Printer(), False)  # noqa: FBT003 - as IPython calls it

    assert list(map(str, answers)) == told


def test_names_tell_a_terminal_nothing_in_a_chain(registry) -> None:
    chained(registry, **{"a\x1b[2J": ""})

    assert "a�[2J (0 s)" in str(breakdown(run_graph(registry)))


def test_without_a_limit_nobody_waits_for_a_slot(registry) -> None:
    registry.task("a")(taking(1))
    state = RunState(TaskScheduler(registry).graph, 0.0)
    state.take(2.0)
    state.completed(0, None, 3.0)
    state.finish(3.0)

    assert "2.0 s waiting to be started" in str(breakdown(RunResults(state.record)))


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0004, "0 s"),
        (0.0214, "0.021 s"),
        (0.5, "0.5 s"),
        (0.9996, "1.0 s"),
        (4.14, "4.1 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (125, "2 min 5 s"),
        (3600, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_a_time_is_said_as_people_say_it(seconds, text) -> None:
    assert text == in_seconds(seconds)


def test_many_names_are_the_first_few_and_a_count() -> None:
    assert "'a', 'b'" == listed(["a", "b"])
    assert "'a', 'b', 'c', 'd', 'e' and 2 more" == listed(list("abcdefg"))

"""Random graphs of random functions on every backend, judged by checkers that stand apart.

The functions write down when they start and end, and an observer writes down what it is told;
`run_checker` and `event_checker` say what is wrong with that. That they do say so is shown by
`test_run_checker`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import anyio
import pytest
from event_checker import event_complaints
from hypothesis import given
from hypothesis import strategies as st
from naive import (
    RESOURCES,
    acyclic_tasks,
    crowded_tasks,
    examples,
    is_lifetime,
    restricted,
    tasks_of_every_kind,
)
from run_checker import Conditions, complaints
from run_log import DAY, DEFAULT, Body, Interference, Theatre

from portable_sched import (
    FailurePolicy,
    Priority,
    TaskDef,
    TaskScheduler,
    TaskStatus,
    _resources,
)

STEPS = ["suspend", "suspend", "sleep", "sleep", "sleep long", "spawn", "nest", "interrupt"]
STUBBORN_STEPS = ["suspend", "sleep", "sleep long", "spawn", "interrupt", "clean up", "swallow"]
TEARDOWN_STEPS = ["suspend", "sleep", "sleep long", "interrupt", "clean up"]
NAMES = [f"t{at}" for at in range(10)]


def steps(*kinds: str, most: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(st.sampled_from(kinds), max_size=most).map(tuple)


BODIES = st.builds(
    Body,
    steps=steps(*STEPS),
    failing=st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3]),
    how=st.sampled_from(["error", "error", "error", "group", "no error", "cancellation"]),
)
STUBBORN_BODIES = st.builds(
    Body,
    steps=steps(*STUBBORN_STEPS),
    failing=st.sampled_from([0, 0, 0, 0, 1, 3]),
    how=st.sampled_from(["error", "group", "no error"]),
)


def bodies_of_every_kind(*kinds: str, failing: int = 3) -> st.SearchStrategy[Body]:
    """Bodies of these steps, of which about so many in ten fail."""
    return st.builds(
        Body,
        steps=steps(*kinds),
        failing=st.sampled_from([0] * (10 - failing) + [1, 1, 2, 1, 3][:failing]),
        how=st.sampled_from(
            [*["error"] * 4, "other error", "give up", "group", "no error", "cancellation"]
        ),
        teardown=steps(*TEARDOWN_STEPS, most=2),
        fails_to_close=st.sampled_from([False, False, False, True]),
        breaks=st.sampled_from([False, False, False, True]),
        takes=st.frozensets(st.sampled_from(NAMES), max_size=8),
        tacit=st.booleans(),
        by_keyword=st.booleans(),
        takes_input=st.sampled_from([False, False, False, True]),
        keeps_default=st.sampled_from([None, *NAMES]),
    )


LIMITS = st.sampled_from([None, None, 1, 2, 3, 5])
POLICIES = st.sampled_from([FailurePolicy.CONTINUE, FailurePolicy.CONTINUE, *FailurePolicy])
MOMENTS = st.sampled_from([0, 1, 2, 3, 5, 6, 8, 12])


@dataclass(frozen=True)
class Wanted:
    """How a run is to go.

    Attributes:
        limit: `max_concurrency`.
        policy: `on_failure`.
        inherit_priority: see `TaskScheduler`.
        keep_results: see `TaskScheduler`.
        watched: whether it has an observer.
        targets: which of the tasks, as far as there are such, are targets; None for all.
        order: the start order.
        stops: the numbers of the events at which the observer calls `stop()`.
    """

    limit: int | None = None
    policy: FailurePolicy = FailurePolicy.CONTINUE
    inherit_priority: bool = False
    keep_results: bool = True
    watched: bool = False
    targets: frozenset[str] | None = None
    order: Literal["priority", "reverse", "shuffle"] = "priority"
    stops: frozenset[int] = frozenset()


RUNS = st.builds(
    Wanted,
    limit=LIMITS,
    policy=POLICIES,
    inherit_priority=st.booleans(),
    keep_results=st.booleans(),
    watched=st.booleans(),
    targets=st.none() | st.frozensets(st.sampled_from(NAMES), min_size=3),
    order=st.sampled_from(["priority", "priority", "priority", "reverse", "shuffle"]),
)
STOPPED_BY_THE_OBSERVER = st.builds(
    Wanted,
    limit=LIMITS,
    policy=POLICIES,
    watched=st.sampled_from([True]),
    stops=st.frozensets(st.integers(2, 40), min_size=1, max_size=2),
)
STOPS = st.lists(
    st.builds(Interference, what=st.just("stop"), moment=MOMENTS, turns=st.integers(0, 5)),
    max_size=2,
)
CANCELLATIONS = st.builds(
    Interference,
    what=st.sampled_from(["scope", "native", "timeout"]),
    moment=MOMENTS,
    turns=st.integers(0, 5),
)
INTERFERENCES = st.tuples(STOPS, st.lists(CANCELLATIONS, max_size=1)).map(
    lambda both: [*both[0], *both[1]]
)


async def assert_it_runs_as_it_should(
    tasks: list[TaskDef],
    bodies: list[Body],
    wanted: Wanted,
    interferences: list[Interference],
    *,
    virtual_time: bool,
) -> None:
    """Run the tasks with all that is wanted, and let the checkers judge."""
    theatre = Theatre(virtual_time=virtual_time, stops=wanted.stops)
    played = dict(zip([one.name for one in tasks], bodies, strict=False))
    takes = {one.name: played[one.name].taken_by(one) for one in tasks}
    scheduler = TaskScheduler(
        [theatre.task(one, played[one.name]) for one in tasks],
        max_concurrency=wanted.limit,
        resources=RESOURCES,
        on_failure=wanted.policy,
        inherit_priority=wanted.inherit_priority,
        keep_results=wanted.keep_results,
        observers=[theatre.observe] if wanted.watched else [],
    )
    running = tasks
    asked: dict[str, Any] = {"order": wanted.order}
    targets: frozenset[str] = frozenset()
    if wanted.targets is not None:
        targets = wanted.targets.intersection(played)
        running = restricted(tasks, targets, takes)
        asked["targets"] = sorted(targets)
    if any(body.takes_input for body in played.values()):
        asked["inputs"] = {"day": DAY}
    await theatre.run_with(
        scheduler,
        [
            one
            if virtual_time or one.what != "timeout"
            else Interference("scope", one.moment, one.turns)
            for one in interferences
        ],
        **asked,
    )

    conditions = Conditions(
        tasks=running,
        limit=wanted.limit,
        resources=RESOURCES,
        policy=wanted.policy,
        inherit_priority=wanted.inherit_priority,
        order=wanted.order,
        takes=takes,
        inputs={one.name: given_besides(one, played[one.name]) for one in tasks},
        breaking=frozenset(
            one.name for one in tasks if is_lifetime(one) and played[one.name].breaks
        ),
        kept=None if wanted.keep_results else targets,
        virtual_time=virtual_time,
    )
    found = complaints(conditions, theatre.log, scheduler.results)
    if wanted.watched:
        found += event_complaints(conditions, theatre.log, scheduler.results)
    assert [] == found, "\n".join(map(str, [*found, *theatre.log]))


def given_besides(definition: TaskDef, body: Body) -> dict[str, object]:
    """What a task is given beside the results of others."""
    given: dict[str, object] = {"day": DAY} if body.takes_input else {}
    default = body.keeps_default
    if default not in {None, definition.name, *body.taken_by(definition)}:
        given[str(default)] = DEFAULT
    return given


@pytest.mark.virtual_time
@given(tasks=acyclic_tasks(), bodies=st.lists(BODIES, min_size=10, max_size=10), limit=LIMITS)
@examples(50)
def test_random_graphs_run_as_they_should(run_on_backend, tasks, bodies, limit) -> None:
    run_on_backend(
        partial(
            assert_it_runs_as_it_should,
            tasks,
            bodies,
            Wanted(limit=limit),
            [],
            virtual_time=True,
        )
    )


EVERYTHING = given(
    tasks=tasks_of_every_kind(),
    bodies=st.lists(bodies_of_every_kind(*STEPS), min_size=10, max_size=10),
    wanted=RUNS,
)


@pytest.mark.virtual_time
@EVERYTHING
@examples(50)
def test_random_graphs_of_everything_run_as_they_should(
    run_on_backend, tasks, bodies, wanted
) -> None:
    run_on_backend(
        partial(assert_it_runs_as_it_should, tasks, bodies, wanted, [], virtual_time=True)
    )


@pytest.mark.virtual_time
@given(
    tasks=tasks_of_every_kind(),
    bodies=st.lists(
        bodies_of_every_kind(*STUBBORN_STEPS, *STUBBORN_STEPS, *STUBBORN_STEPS, "stop", failing=5),
        min_size=10,
        max_size=10,
    ),
    wanted=RUNS,
    interferences=INTERFERENCES,
)
@examples(50)
def test_random_graphs_of_everything_end_when_they_are_stopped_and_cancelled(
    run_on_backend, tasks, bodies, wanted, interferences
) -> None:
    run_on_backend(
        partial(
            assert_it_runs_as_it_should, tasks, bodies, wanted, interferences, virtual_time=True
        )
    )


@given(
    tasks=tasks_of_every_kind(virtual_time=False),
    bodies=st.lists(
        bodies_of_every_kind(*STUBBORN_STEPS, *STUBBORN_STEPS, *STUBBORN_STEPS, "stop", failing=5),
        min_size=10,
        max_size=10,
    ),
    wanted=RUNS,
    interferences=INTERFERENCES,
)
@examples(25)
def test_random_graphs_of_everything_end_when_they_are_stopped_in_the_middle_of_a_turn(
    run_on_backend, tasks, bodies, wanted, interferences
) -> None:
    run_on_backend(
        partial(
            assert_it_runs_as_it_should, tasks, bodies, wanted, interferences, virtual_time=False
        )
    )


@pytest.mark.virtual_time
@given(
    tasks=tasks_of_every_kind(),
    bodies=st.lists(bodies_of_every_kind(*STEPS), min_size=10, max_size=10),
    wanted=STOPPED_BY_THE_OBSERVER,
)
@examples(25)
def test_random_graphs_of_everything_end_when_an_observer_stops_them(
    run_on_backend, tasks, bodies, wanted
) -> None:
    run_on_backend(
        partial(assert_it_runs_as_it_should, tasks, bodies, wanted, [], virtual_time=True)
    )


@pytest.mark.virtual_time
@given(
    tasks=crowded_tasks(),
    bodies=st.lists(
        st.builds(
            Body,
            steps=st.lists(st.sampled_from(["sleep", "sleep long"]), min_size=1, max_size=3).map(
                tuple
            ),
            failing=st.just(0),
            how=st.just("error"),
        ),
        min_size=14,
        max_size=14,
    ),
    limit=st.sampled_from([None, None, 3, 5]),
    order=st.sampled_from(["priority", "reverse"]),
)
@examples(25)
def test_random_crowds_share_what_there_is(run_on_backend, tasks, bodies, limit, order) -> None:
    wanted = Wanted(limit=limit, order=order, watched=True)
    run_on_backend(
        partial(assert_it_runs_as_it_should, tasks, bodies, wanted, [], virtual_time=True)
    )


@given(
    tasks=acyclic_tasks(),
    bodies=st.lists(BODIES, min_size=10, max_size=10),
    in_threads=st.frozensets(st.sampled_from(NAMES)),
    threads=st.integers(1, 3),
    limit=LIMITS,
)
@examples(25)
def test_random_graphs_with_threads_run_as_they_should(
    run_on_backend, *, tasks, bodies, in_threads, threads, limit
) -> None:
    async def run() -> None:
        theatre = Theatre(virtual_time=False)
        scheduler = TaskScheduler(
            [
                (theatre.thread_task if definition.name in in_threads else theatre.task)(
                    definition, body
                )
                for definition, body in zip(tasks, bodies, strict=False)
            ],
            max_concurrency=limit,
        )
        await theatre.run(scheduler)

        conditions = Conditions(
            tasks=tasks,
            limit=limit,
            in_threads=in_threads,
            threads=threads if limit is None else None,
            virtual_time=False,
            in_order=limit == 1 or not in_threads,
        )
        assert [] == complaints(conditions, theatre.log, scheduler.results)

    with pytest.MonkeyPatch.context() as patch:
        # The forty there are would be enough for any of these graphs.
        patch.setattr(_resources, "MOST_THREADS", threads)
        run_on_backend(run)


@pytest.mark.virtual_time
@given(
    tasks=acyclic_tasks(),
    bodies=st.lists(STUBBORN_BODIES, min_size=10, max_size=10),
    limit=LIMITS,
    cancellation=CANCELLATIONS,
)
@examples(50)
def test_random_graphs_end_when_they_are_cancelled(
    run_on_backend, tasks, bodies, limit, cancellation
) -> None:
    run_on_backend(
        partial(
            assert_it_runs_as_it_should,
            tasks,
            bodies,
            Wanted(limit=limit),
            [cancellation],
            virtual_time=True,
        )
    )


@given(
    tasks=acyclic_tasks(),
    bodies=st.lists(STUBBORN_BODIES, min_size=10, max_size=10),
    limit=LIMITS,
    cancellation=CANCELLATIONS,
)
@examples(25)
def test_random_graphs_end_when_they_are_cancelled_in_the_middle_of_a_turn(
    run_on_backend, tasks, bodies, limit, cancellation
) -> None:
    run_on_backend(
        partial(
            assert_it_runs_as_it_should,
            tasks,
            bodies,
            Wanted(limit=limit),
            [cancellation],
            virtual_time=False,
        )
    )


# What the random graphs have found, or nearly


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_task_that_has_slept_has_ended_when_it_returns(anyio_backend) -> None:
    """trio ends a sleep by a cancellation of its own, which must not be taken for one of ours.

    `last` gives `waiting` the sign to end, and both are followed by one task. What follows `last`
    is the more urgent one, and `last` has returned before `waiting` goes on.
    """
    for _ in range(20):
        sign = anyio.Event()
        started = []

        async def last(sign: anyio.Event = sign) -> None:
            await anyio.sleep(1)
            sign.set()

        async def urgent(started: list[str] = started) -> None:
            started.append("urgent")

        async def other(started: list[str] = started) -> None:
            started.append("other")

        tasks = [
            TaskDef(name="last", function=last, priority=Priority.HIGH),
            TaskDef(name="waiting", function=sign.wait, priority=Priority.HIGH),
            TaskDef(name="urgent", function=urgent, depends_on=("last",), priority=Priority.HIGH),
            TaskDef(name="other", function=other, priority=Priority.LOW),
        ]
        await TaskScheduler(tasks, max_concurrency=2).run()

        assert ["urgent", "other"] == started


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_who_starts_after_a_lifetime_broke_gets_what_it_had_yielded(anyio_backend) -> None:
    """It was COMPLETED from its `yield` on, so who depends on it starts, and is not given None."""
    given = []

    async def fail() -> None:
        await anyio.sleep(1)
        raise ValueError

    async def connection() -> AsyncIterator[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            yield "open"

    async def slow() -> None:
        await anyio.sleep(2)

    async def user(connection: str) -> None:
        given.append(connection)

    tasks = [
        TaskDef(name="connection", function=connection),
        TaskDef(name="slow", function=slow),
        TaskDef(name="user", function=user, depends_on=["slow"]),
    ]
    results = await TaskScheduler(tasks).run()

    assert ["open"] == given
    assert (TaskStatus.FAILED, None) == (
        results["connection"].status,
        results["connection"].result,
    )


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_result_is_not_kept_for_takers_that_have_ended_before_it_came(
    anyio_backend,
) -> None:
    async def fail() -> None:
        raise ValueError

    async def rows() -> str:
        await anyio.sleep(1)
        return "many"

    async def load(rows: str) -> None: ...

    tasks = [
        TaskDef(name="fail", function=fail),
        TaskDef(name="rows", function=rows),
        TaskDef(name="load", function=load, depends_on=["fail"]),
    ]
    results = await TaskScheduler(tasks, keep_results=False).run()

    assert (TaskStatus.COMPLETED, None) == (results["rows"].status, results["rows"].result)


@pytest.mark.anyio
async def test_targets_start_in_the_order_of_registration_too(anyio_backend) -> None:
    """What else is equal starts as it was registered, and not as the graph was sorted."""
    started: list[str] = []

    def starting(name: str, *depends_on: str) -> TaskDef:
        async def start() -> None:
            started.append(name)

        return TaskDef(name=name, function=start, depends_on=depends_on)

    tasks = [
        starting("a", "b", "e"),
        starting("b"),
        starting("c", "e"),
        starting("d"),
        starting("e"),
    ]
    await TaskScheduler(tasks, max_concurrency=1).run(targets=["a", "b", "c", "d", "e"])

    assert ["b", "e", "a", "c", "d"] == started


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_lifetime_that_opened_in_vain_closes_before_what_it_uses(anyio_backend) -> None:
    """It yields, and before its attempt hears of that the run is cancelled."""

    async def once() -> list[str]:
        sign = anyio.Event()
        closed: list[str] = []

        async def outer() -> AsyncIterator[None]:
            yield
            closed.append("outer")

        async def inner() -> AsyncIterator[None]:
            sign.set()
            yield
            await anyio.sleep(1)
            closed.append("inner")

        async def stop_twice() -> None:
            await sign.wait()
            scheduler.stop()
            scheduler.stop()

        tasks = [
            TaskDef(name="stop_twice", function=stop_twice, priority=Priority.HIGH),
            TaskDef(name="outer", function=outer),
            TaskDef(name="inner", function=inner, depends_on=["outer"]),
        ]
        scheduler = TaskScheduler(tasks)
        await scheduler.run()
        return closed

    # Which of the two trio resumes first is left to chance.
    assert [["inner", "outer"]] * 20 == [await once() for _ in range(20)]

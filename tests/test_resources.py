"""What tasks hold while they run: first who gets it, without an event loop, then for real."""

import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from naive import defined

from portable_sched import (
    DependencyError,
    FailurePolicy,
    Graph,
    Priority,
    ResourceError,
    TaskDef,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    task,
)
from portable_sched._resources import ResourceState
from portable_sched._state import NOTHING

# How long a thread waits before a test that has gone wrong fails instead of hanging.
PATIENCE = 30

HIGH, MEDIUM, LOW = Priority.HIGH, Priority.MEDIUM, Priority.LOW
COMPLETED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.CANCELLED


class Play:
    """A state, and what is done to it by name.

    Attributes:
        running: names of the tasks in an attempt, the one that was taken first at the front.
        started: names of all that were taken, in that order.
    """

    def __init__(self, capacity: dict[str, int], *tasks: TaskDef) -> None:
        graph = Graph(tasks)
        demands = [definition.resources for definition in graph.tasks]
        self.state = ResourceState(graph, 0.0, demands, capacity)
        self.running: list[str] = []
        self.started: list[str] = []

    def take(self) -> str | None:
        number = self.state.take(0.0)
        if number == NOTHING:
            return None
        name = self.state.record.tasks[number].name
        self.running.append(name)
        self.started.append(name)
        return name

    def take_all(self) -> list[str]:
        """Those that may start now, in their order."""
        taken = []
        while (name := self.take()) is not None:
            taken.append(name)
        return taken

    def complete(self, *names: str) -> None:
        for name in names:
            self.running.remove(name)
            self.state.completed(self.state.record.numbers[name], None, 0.0)

    def fail(self, name: str) -> None:
        self.running.remove(name)
        self.state.failed(self.state.record.numbers[name], ValueError(), 0.0)

    def cancel(self, name: str) -> None:
        self.running.remove(name)
        self.state.cancelled(self.state.record.numbers[name], None, 0.0)

    def run(self, *, kept_running: Iterable[str] = ()) -> list[str]:
        """Each ends in its turn, except for some; answers who was started, in that order."""
        first = len(self.started)
        self.take_all()
        while ending := [name for name in self.running if name not in kept_running]:
            self.complete(ending[0])
            self.take_all()
        return self.started[first:]


def many(name: str, count: int, *depends_on: str, **wanted: Any) -> list[TaskDef]:
    return [defined(f"{name} {at}", *depends_on, **wanted) for at in range(count)]


# Who gets it


def test_no_more_is_held_than_there_is() -> None:
    play = Play({"db": 3}, *many("pair", 3, resources={"db": 2}), *many("one", 3, resources=["db"]))

    assert ["pair 0", "one 0"] == play.take_all()
    assert {"db": 0} == play.state.free


def test_a_task_that_holds_several_things_waits_until_it_can_have_all_of_them() -> None:
    play = Play(
        {"db": 1, "gpu": 1},
        defined("db", resources=["db"]),
        defined("gpu", resources=["gpu"]),
        defined("both", resources=["db", "gpu"]),
    )
    play.take_all()

    play.complete("db")
    with_one_free = play.take_all()
    play.complete("gpu")

    assert [] == with_one_free
    assert ["both"] == play.take_all()


def test_what_is_taken_blocks_nobody_who_asks_for_something_else_or_for_nothing() -> None:
    play = Play(
        {"db": 1, "gpu": 1},
        *many("db", 3, resources=["db"], priority=HIGH),
        defined("gpu", resources=["gpu"]),
        defined("free", priority=LOW),
    )

    assert ["db 0", "gpu", "free"] == play.take_all()


def test_a_task_that_waits_for_two_things_leaves_the_free_one_to_others() -> None:
    play = Play(
        {"db": 1, "gpu": 1},
        defined("db", resources=["db"], priority=HIGH),
        defined("both", resources=["db", "gpu"], priority=HIGH),
        *many("gpu", 2, resources=["gpu"], priority=LOW),
    )

    assert ["db", "gpu 0"] == play.take_all()


def test_of_those_that_fit_the_most_urgent_one_goes_first() -> None:
    play = Play(
        {"db": 1, "gpu": 1, "disk": 1},
        defined("low", resources=["db"], priority=LOW),
        defined("free"),
        defined("medium", resources=["gpu"]),
        defined("high", resources=["disk"], priority=HIGH),
        defined("free and high", priority=HIGH),
    )

    assert ["high", "free and high", "free", "medium", "low"] == play.take_all()


def test_what_is_given_back_goes_to_the_most_urgent_of_those_it_is_enough_for() -> None:
    play = Play(
        {"db": 2},
        *many("first", 2, resources=["db"], priority=HIGH),
        defined("low", resources=["db"], priority=LOW),
        defined("pair", resources={"db": 2}, priority=HIGH),
        defined("medium", resources=["db"]),
    )
    play.take_all()

    play.complete("first 0")

    assert ["medium"] == play.take_all()


def test_of_equally_urgent_ones_the_one_with_the_longest_path_goes_first() -> None:
    play = Play(
        {"db": 1, "gpu": 1},
        defined("short", resources=["db"]),
        defined("long", resources=["gpu"]),
        defined("end", "long"),
    )

    assert ["long", "short"] == play.take_all()


def test_of_those_that_are_alike_the_one_registered_first_goes_first_whatever_it_asks_for() -> None:
    play = Play(
        {"db": 1, "gpu": 1},
        defined("z", resources=["gpu"]),
        defined("y"),
        defined("x", resources=["db"]),
        defined("w"),
    )

    assert ["z", "y", "x", "w"] == play.take_all()


def test_one_that_comes_later_goes_before_a_less_urgent_one_that_waits_for_the_same() -> None:
    play = Play(
        {"db": 1},
        defined("first", resources=["db"], priority=HIGH),
        defined("early", resources=["db"], priority=LOW),
        defined("late", "first", resources=["db"]),
    )
    play.take_all()

    play.complete("first")

    assert ["late"] == play.take_all()


def test_urgency_may_be_inherited_from_who_waits() -> None:
    tasks = [
        defined("medium", resources=["db"]),
        defined("low", resources=["db"], priority=LOW),
        defined("urgent", "low", priority=HIGH),
    ]
    graph = Graph(tasks, inherit_priority=True)
    demands = [definition.resources for definition in graph.tasks]
    state = ResourceState(graph, 0.0, demands, {"db": 1})

    assert "low" == graph.tasks[state.take(0.0)].name


# What is held is given back


def test_what_was_held_is_given_back_by_a_success() -> None:
    play = Play({"db": 2}, *many("pair", 2, resources={"db": 2}))
    play.take_all()

    play.complete("pair 0")

    assert {"db": 2} == play.state.free
    assert ["pair 1"] == play.take_all()


def test_what_was_held_is_given_back_by_a_failure() -> None:
    play = Play({"db": 2}, *many("pair", 2, resources={"db": 2}))
    play.take_all()

    play.fail("pair 0")

    assert {"db": 2} == play.state.free
    assert ["pair 1"] == play.take_all()


def test_what_was_held_is_given_back_by_an_attempt_that_is_to_be_tried_again() -> None:
    play = Play(
        {"db": 1},
        defined("again", resources=["db"], retries=2),
        defined("other", resources=["db"]),
    )
    assert ["again"] == play.take_all()

    play.fail("again")

    # It competes anew, and it is the better one.
    assert ["again"] == play.take_all()
    play.fail("again")
    assert ["other"] == play.take_all()


def test_a_task_in_backoff_holds_nothing() -> None:
    play = Play(
        {"db": 1},
        defined("again", resources=["db"], retries=2, backoff=lambda attempt, exception: 10),
        defined("other", resources=["db"]),
    )
    play.take_all()

    play.fail("again")
    meanwhile = play.take_all()
    play.state.resume(10.0)
    while_it_is_taken = play.take_all()
    play.complete("other")

    assert ["other"] == meanwhile
    assert [] == while_it_is_taken
    assert ["again"] == play.take_all()


def test_what_was_held_is_given_back_by_a_cancelled_attempt() -> None:
    play = Play({"db": 2}, *many("pair", 2, resources={"db": 2}))
    play.take_all()

    play.cancel("pair 0")

    assert {"db": 2} == play.state.free
    assert ["pair 1"] == play.take_all()


# How many are ready


def test_who_waits_for_what_is_taken_is_not_ready() -> None:
    play = Play({"db": 2}, *many("one", 4, resources=["db"]))
    play.take_all()
    none_free = play.state.ready_count()

    play.complete("one 0")

    assert 0 == none_free
    assert 1 == play.state.ready_count()


def test_no_more_are_ready_than_there_is_enough_for() -> None:
    play = Play(
        {"db": 5, "gpu": 1},
        *many("all", 2, resources={"db": 5}, priority=HIGH),
        *many("pair", 3, resources={"db": 2}),
        *many("gpu", 2, resources=["gpu"]),
        *many("free", 2, priority=LOW),
    )
    assert ["all 0", "gpu 0", "free 0", "free 1"] == play.take_all()

    play.complete("all 0", "gpu 0")

    # One that asks for all or two that ask for a pair, which is for `take` to say, and one "gpu".
    assert 1 + 2 + 1 == play.state.ready_count()


def test_who_waits_when_nothing_new_starts_any_more_is_cancelled() -> None:
    play = Play({"db": 1}, *many("one", 3, resources=["db"]))
    play.take_all()

    play.state.drain(0.0)
    play.complete("one 0")

    assert 0 == play.state.ready_count()
    assert [] == play.take_all()
    statuses = [status for _, status in play.state.record.statuses()]
    assert [COMPLETED, CANCELLED, CANCELLED] == statuses


def test_who_waits_to_be_tried_again_when_nothing_new_starts_any_more_has_failed() -> None:
    play = Play(
        {"db": 1},
        defined("again", resources=["db"], retries=2),
        defined("urgent", "first", resources=["db"], priority=HIGH),
        defined("first", priority=HIGH),
        defined("dependent", "again"),
    )
    assert ["first", "again"] == play.take_all()
    play.complete("first")
    play.fail("again")
    # It has come up again, and the other one was quicker.
    assert ["urgent"] == play.take_all()

    play.state.drain(0.0)

    statuses = dict(play.state.record.statuses())
    assert [TaskStatus.FAILED] * 2 == [statuses[name] for name in ["again", "dependent"]]


# A large ask behind a stream of small ones


@pytest.mark.parametrize("units", [2, 3, 5])
def test_a_large_ask_is_passed_over_twice_as_often_as_there_are_units(units: int) -> None:
    play = Play(
        {"db": units},
        *many("small", 50, resources=["db"]),
        defined("large", resources={"db": units}),
    )
    [*before_it, large] = play.run()[: 2 * units + 1]

    assert [f"small {at}" for at in range(2 * units)] == before_it
    assert "large" == large


def test_what_is_kept_is_given_to_nobody_else_and_nobody_is_sent_to_look_for_it() -> None:
    play = Play(
        {"db": 2}, *many("small", 50, resources=["db"]), defined("large", resources={"db": 2})
    )
    play.take_all()
    while len(play.started) < 4:
        play.complete(play.running[0])
        play.take_all()

    play.complete(play.running[0])

    assert [] == play.take_all()
    assert {"db": 1} == play.state.free
    assert 0 == play.state.ready_count()
    play.complete(play.running[0])
    assert 1 == play.state.ready_count()
    assert ["large"] == play.take_all()


def test_what_is_kept_of_one_thing_blocks_nobody_who_asks_for_another() -> None:
    play = Play(
        {"db": 2, "gpu": 1},
        *many("small", 6, resources=["db"]),
        defined("large", resources={"db": 2}),
        defined("first"),
        defined("gpu", "first", resources=["gpu"], priority=LOW),
        defined("free", "first", priority=LOW),
    )
    play.take_all()
    for at in range(3):
        play.complete(f"small {at}")
        play.take_all()
    assert ["first", "small 3"] == play.running

    play.complete("first")

    assert ["gpu", "free"] == play.take_all()


def test_after_the_large_ask_the_small_ones_go_on_and_the_next_large_one_is_counted_anew() -> None:
    play = Play(
        {"db": 2},
        *many("small", 40, resources=["db"]),
        *many("large", 2, resources={"db": 2}),
    )
    started = play.run()

    assert 4 == started.index("large 0")
    assert 4 + 1 + 4 == started.index("large 1")
    assert 42 == len(started)


def test_the_second_of_two_large_asks_does_not_have_the_first_ones_place_in_the_count() -> None:
    """They are not passed over by each other, if they ask for the same."""
    play = Play({"db": 2}, *many("large", 3, resources={"db": 2}), defined("x", resources=["db"]))

    assert ["large 0", "large 1", "large 2", "x"] == play.run()


def test_more_urgent_small_ones_pass_a_large_ask_as_often_as_they_come() -> None:
    play = Play(
        {"db": 2},
        *many("urgent", 20, resources=["db"], priority=HIGH),
        *many("small", 20, resources=["db"]),
        defined("large", resources={"db": 2}),
    )
    started = play.run()

    # And they are not counted: as many small ones follow as if there had been no urgent ones.
    assert [f"urgent {at}" for at in range(20)] == started[:20]
    assert [f"small {at}" for at in range(4)] == started[20:24]
    assert "large" == started[24]


def test_less_urgent_small_ones_are_counted_too() -> None:
    play = Play(
        {"db": 2},
        defined("first", resources=["db"], priority=HIGH),
        defined("large", resources={"db": 2}),
        *many("small", 20, resources=["db"], priority=LOW),
    )

    assert ["first", *(f"small {at}" for at in range(4)), "large"] == play.run()[:6]


def test_what_is_kept_is_not_kept_from_a_more_urgent_task() -> None:
    play = Play(
        {"db": 2},
        defined("first", priority=LOW),
        *many("small", 20, resources=["db"]),
        defined("large", resources={"db": 2}),
        defined("urgent", "first", resources=["db"], priority=HIGH),
    )
    play.take_all()
    for at in range(3):
        play.complete(f"small {at}")
        play.take_all()
    assert ["first", "small 3"] == play.running

    play.complete("first")

    assert ["urgent"] == play.take_all()
    assert "large" == play.run()[0]


def test_a_less_urgent_large_ask_waits_until_no_more_urgent_small_one_is_left() -> None:
    play = Play(
        {"db": 2},
        defined("large", resources={"db": 2}, priority=LOW),
        *many("small", 20, resources=["db"]),
    )

    assert "large" == play.run()[-1]


def test_nothing_is_kept_for_who_waits_for_something_that_is_simply_taken() -> None:
    play = Play(
        {"db": 2, "gpu": 1},
        defined("training", resources=["gpu"], priority=HIGH),
        defined("large", resources={"db": 2, "gpu": 1}),
        *many("small", 20, resources=["db"]),
    )
    started = play.run(kept_running=["training"])

    assert ["training", *(f"small {at}" for at in range(20))] == started
    play.complete("training")
    assert ["large"] == play.run()


@pytest.mark.parametrize(
    ("capacity", "large"),
    [
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}),
        ({"a": 2, "b": 2}, {"a": 2, "b": 2}),
        ({"a": 3, "b": 1}, {"a": 2, "b": 1}),
    ],
)
def test_two_streams_cannot_starve_who_asks_for_both(
    capacity: dict[str, int], large: dict[str, int]
) -> None:
    """They take turns: when something of the one is free, the other is taken."""
    play = Play(
        capacity,
        *(
            defined(f"{resource} {at}", resources=[resource])
            for at in range(100)
            for resource in capacity
        ),
        defined("large", resources=large),
    )
    started = play.run()

    # At each of the two twice as often as it has units; at the one a few times more, as long as
    # the other is not kept yet.
    assert started.index("large") <= 3 * sum(capacity.values())
    assert 201 == len(started)


def test_two_streams_that_keep_step_cannot_starve_who_asks_for_both_either() -> None:
    """Both are free at one time, but the small ones are better."""
    play = Play(
        {"a": 1, "b": 1},
        *many("a", 50, resources=["a"]),
        *many("b", 50, resources=["b"]),
        defined("large", resources=["a", "b"]),
    )
    while play.take_all():
        play.complete(*play.running)

    assert 2 + 2 == play.started.index("large")


def test_two_that_keep_what_the_other_wants_do_not_wait_for_each_other() -> None:
    """The better one keeps "a" and wants some of "b" too, and the other the other way round."""
    play = Play(
        {"a": 3, "b": 2},
        defined("first", priority=HIGH),
        defined("holds a", resources=["a"], priority=HIGH),
        defined("holds b", resources=["b"], priority=HIGH),
        *many("b", 4, resources=["b"]),
        defined("keeps b", resources={"a": 1, "b": 2}),
        *many("a", 6, "first", resources=["a"]),
        defined("keeps a", "first", resources={"a": 3, "b": 1}),
        defined("end", "keeps a"),
    )
    play.take_all()
    for at in range(4):
        play.complete(f"b {at}")
        play.take_all()
    play.complete("first")
    play.take_all()
    for at in range(6):
        play.complete(f"a {at}")
        play.take_all()
    assert ["holds a", "holds b"] == play.running
    passed = {dict(demand)["b"]: counts for demand, counts in play.state.passed.items()}
    assert 2 * 3 == passed[1]["a"]
    assert 2 * 2 == passed[2]["b"]

    play.complete("holds a", "holds b")

    assert ["keeps a", "keeps b", "end"] == play.run()


# For real


@pytest.mark.anyio
async def test_no_more_is_held_at_any_time_than_there_is() -> None:
    held = {"db": 0, "gpu": 0}
    most = dict(held)

    def holder(demand: dict[str, int], turns: int) -> Callable[[], Any]:
        async def hold() -> None:
            for resource, units in demand.items():
                held[resource] += units
                most[resource] = max(most[resource], held[resource])
            for _ in range(turns):
                await checkpoint()
            for resource, units in demand.items():
                held[resource] -= units

        return hold

    demands = [{"db": 1}, {"gpu": 1}, {"db": 2}, {"db": 3, "gpu": 2}, {"db": 1, "gpu": 1}, {}]
    for at in range(60):
        demand = demands[at % len(demands)]
        task(f"t{at}", resources=demand, priority=Priority(1 + at % 3))(holder(demand, at % 4))
    results = await TaskScheduler(resources={"db": 4, "gpu": 2}).run()

    assert {COMPLETED: 60} == results.counts()
    assert {"db": 4, "gpu": 2} == most


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_mapping_says_how_many_units_a_task_holds() -> None:
    for at in range(4):
        task(f"t{at}", resources={"db": 2})(sleeps_a_second)
    results = await TaskScheduler(resources={"db": 5}).run()

    assert 2.0 == results.wall_time


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_list_of_names_is_for_one_unit_of_each() -> None:
    for at in range(4):
        task(f"t{at}", resources=["gpu", "db"])(sleeps_a_second)
    results = await TaskScheduler(resources={"gpu": 2, "db": 3}).run()

    assert 2.0 == results.wall_time


async def sleeps_a_second() -> None:
    await anyio.sleep(1)


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_slot_is_not_held_while_a_task_waits_for_a_resource() -> None:
    for at in range(3):
        task(f"db {at}", resources=["db"], priority=HIGH)(sleeps_a_second)
    for at in range(3):
        task(f"free {at}", priority=LOW)(sleeps_a_second)
    results = await TaskScheduler(max_concurrency=2, resources={"db": 1}).run()

    assert [0.0, 1.0, 2.0] == starts(results, "db 0", "db 1", "db 2")
    assert [0.0, 1.0, 2.0] == starts(results, "free 0", "free 1", "free 2")


def starts(results: Any, *names: str) -> list[float]:
    """When those tasks were started, in seconds from the first start of all."""
    first = min(one.started_at for one in results)
    return [results[name].started_at - first for name in names]


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_what_is_given_back_wakes_who_waits_for_it() -> None:
    @task(resources=["db"], priority=HIGH)
    async def first() -> None:
        await anyio.sleep(2)

    @task(resources=["db"])
    async def second() -> None:
        await anyio.sleep(3)

    results = await TaskScheduler(resources={"db": 1}).run()

    assert [0.0, 2.0] == starts(results, "first", "second")


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_timeout_gives_back_what_was_held() -> None:
    @task(resources=["db"], timeout=2, priority=HIGH)
    async def stuck() -> None:
        await anyio.sleep_forever()

    @task(resources=["db"])
    async def next_one() -> None: ...

    results = await TaskScheduler(resources={"db": 1}).run()

    assert isinstance(results[stuck].exception, TaskTimeoutError)
    assert COMPLETED is results[next_one].status
    assert [0.0, 2.0] == starts(results, "stuck", "next_one")


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_backoff_gives_back_what_was_held_and_the_next_attempt_asks_again() -> None:
    attempts: list[float] = []

    @task(resources=["db"], retries=2, backoff=lambda attempt, exception: 10, priority=HIGH)
    async def flaky() -> None:
        attempts.append(anyio.current_time())
        await anyio.sleep(1)
        if len(attempts) == 1:
            raise ConnectionError

    @task(resources=["db"])
    async def long() -> None:
        await anyio.sleep(15)

    results = await TaskScheduler(resources={"db": 1}).run()

    assert [0.0, 1.0] == starts(results, "flaky", "long")
    # It may go on after 11 seconds, and has to wait until 16.
    assert 16.0 == attempts[1] - attempts[0]
    assert 17.0 == results.wall_time


@pytest.mark.anyio
async def test_a_task_that_cancels_itself_gives_back_what_it_held() -> None:
    @task(resources=["db"], priority=HIGH)
    async def cancels_itself() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                kept = error
                raise
        raise kept

    @task(resources=["db"])
    async def next_one() -> None: ...

    results = await TaskScheduler(resources={"db": 1}).run()

    assert [TaskStatus.FAILED, COMPLETED] == [one.status for one in results]


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_lifetime_gives_back_what_its_set_up_held_when_it_yields() -> None:
    @task(resources=["db"])
    async def connection() -> AsyncIterator[str]:
        yield "connection"

    @task(resources=["db"])
    async def load(connection: str) -> str:
        return connection

    with anyio.fail_after(10):
        results = await TaskScheduler(resources={"db": 1}).run()

    assert "connection" == results[load].result


@pytest.mark.anyio
async def test_each_of_several_runs_at_once_has_resources_of_its_own() -> None:
    inside = 0
    both = anyio.Event()

    @task(resources=["db"])
    async def holds() -> None:
        nonlocal inside
        inside += 1
        if inside == 2:
            both.set()
        await both.wait()

    scheduler = TaskScheduler(resources={"db": 1})
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            group.start_soon(scheduler.run)

    assert 2 == inside


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_who_waits_for_a_resource_when_a_failure_drains_the_run_is_cancelled() -> None:
    @task(resources=["db"], priority=HIGH)
    async def fails() -> None:
        await anyio.sleep(1)
        raise ValueError

    @task(resources=["db"])
    async def waits() -> None: ...

    scheduler = TaskScheduler(resources={"db": 1}, on_failure=FailurePolicy.DRAIN)
    results = await scheduler.run()

    assert [TaskStatus.FAILED, CANCELLED] == [one.status for one in results]
    assert 0 == results[waits].attempts


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_who_waits_for_a_resource_when_the_run_is_cancelled_is_cancelled_too() -> None:
    @task(resources=["db"], priority=HIGH)
    async def holds() -> None:
        await anyio.sleep_forever()

    @task(resources=["db"])
    async def waits() -> None: ...

    scheduler = TaskScheduler(resources={"db": 1})
    with anyio.move_on_after(1):
        await scheduler.run()

    assert [(CANCELLED, 1), (CANCELLED, 0)] == [
        (one.status, one.attempts) for one in scheduler.results
    ]


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_large_ask_is_not_starved_by_streams_in_a_run() -> None:
    """Two of them, at two resources, that never leave both free at the same time."""
    task("offset", resources=["b"], priority=HIGH)(sleeps_a_second)
    for at in range(50):
        task(f"a {at}", resources=["a"])(sleeps_two_seconds)
        task(f"b {at}", resources=["b"])(sleeps_two_seconds)
    task("large", resources=["a", "b"])(sleeps_a_second)
    results = await TaskScheduler(resources={"a": 1, "b": 1}).run()

    assert starts(results, "large")[0] <= 10.0
    assert {COMPLETED: 102} == results.counts()


async def sleeps_two_seconds() -> None:
    await anyio.sleep(2)


# What is refused before anything runs


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "capacity", "message"),
    [
        (
            ["disks"],
            {"disk": 4},
            (
                "Task 'load' asks for the resource 'disks', which the scheduler does not have. "
                "Did you mean 'disk'?"
            ),
        ),
        (
            ["gpu"],
            None,
            (
                "Task 'load' asks for the resource 'gpu', which the scheduler does not have. "
                "Write TaskScheduler(resources={'gpu': ...})."
            ),
        ),
        (
            {"db": 5, "gpu": 1},
            {"db": 4, "gpu": 1},
            (
                "Task 'load' asks for 5 of the resource 'db', and the scheduler has 4, so it could "
                "never start."
            ),
        ),
    ],
)
async def test_an_ask_that_can_never_be_met_is_refused_before_anything_runs(
    asked: Any, capacity: dict[str, int] | None, message: str
) -> None:
    started: list[str] = []

    @task(priority=HIGH)
    async def first() -> None:
        started.append("first")

    @task(resources=asked)
    async def load() -> None: ...

    scheduler = TaskScheduler(resources=capacity)
    with pytest.raises(ResourceError) as caught:
        await scheduler.run()

    assert message == str(caught.value)
    assert isinstance(caught.value, DependencyError)
    assert [] == started


def test_the_graph_of_a_scheduler_without_the_resource_is_refused_too() -> None:
    @task(resources=["db"])
    async def load() -> None: ...

    scheduler = TaskScheduler()

    with pytest.raises(ResourceError):
        scheduler.graph  # noqa: B018 - to look at it is enough


@pytest.mark.parametrize(
    ("resources", "kind", "message"),
    [
        (
            "db",
            TypeError,
            (
                "Task 'load': expected resources to be a list of names or a mapping of names to "
                "units, got the string 'db'. Write resources=['db']."
            ),
        ),
        (
            5,
            TypeError,
            (
                "Task 'load': expected resources to be a list of names or a mapping of names to "
                "units, as in resources={'db': 2}, got 5 (int)."
            ),
        ),
        (
            ["db", 5],
            TypeError,
            (
                "Task 'load': expected resources to be a list of names or a mapping of names to "
                "units, as in resources={'db': 2}, got ['db', 5] (list)."
            ),
        ),
        (
            [""],
            TypeError,
            (
                "Task 'load': expected resources to be a list of names or a mapping of names to "
                "units, as in resources={'db': 2}, got [''] (list)."
            ),
        ),
        (
            {5: 1},
            TypeError,
            (
                "Task 'load': expected resources to be a list of names or a mapping of names to "
                "units, as in resources={'db': 2}, got {5: 1} (dict)."
            ),
        ),
        (
            {"db": 0},
            ValueError,
            (
                "Task 'load': expected the units of the resource 'db' to be a whole number of at "
                "least 1, got 0 (int)."
            ),
        ),
        (
            {"db": 1.5},
            TypeError,
            (
                "Task 'load': expected the units of the resource 'db' to be a whole number of at "
                "least 1, got 1.5 (float)."
            ),
        ),
        (
            {"db": True},
            TypeError,
            (
                "Task 'load': expected the units of the resource 'db' to be a whole number of at "
                "least 1, got True (bool)."
            ),
        ),
        (
            ["db", "db"],
            ValueError,
            (
                "Task 'load': expected resources to name each resource once, got ['db', 'db'] "
                "(list). For several units write resources={'db': 2}."
            ),
        ),
    ],
)
def test_what_a_task_cannot_hold_is_refused(
    resources: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        task("load", resources=resources)(sleeps_a_second)

    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("resources", "kind", "message"),
    [
        (
            ["db"],
            TypeError,
            (
                "Expected resources to be a mapping of names to units, as in resources={'db': 4}, "
                "got ['db'] (list)."
            ),
        ),
        (
            {"": 4},
            TypeError,
            (
                "Expected resources to be a mapping of names to units, as in resources={'db': 4}, "
                "got {'': 4} (dict)."
            ),
        ),
        (
            {"db": 0},
            ValueError,
            (
                "TaskScheduler: expected the units of the resource 'db' to be a whole number of at "
                "least 1, got 0 (int)."
            ),
        ),
        (
            {"db": None},
            TypeError,
            (
                "TaskScheduler: expected the units of the resource 'db' to be a whole number of at "
                "least 1, got None (NoneType)."
            ),
        ),
    ],
)
def test_what_a_scheduler_cannot_have_is_refused(
    resources: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        TaskScheduler([], resources=resources)

    assert message == str(caught.value)


@pytest.mark.anyio
async def test_a_scheduler_keeps_the_resources_that_it_was_given() -> None:
    @task(resources=["db"])
    async def load() -> None: ...

    given = {"db": 1}
    scheduler = TaskScheduler(resources=given)
    given.clear()

    assert COMPLETED is (await scheduler.run())[load].status


# Threads are a resource too. These run in the real clock's time, since a virtual one jumps while a
# thread works.


class Meeting:
    """Plain functions come in and stay until it is over; it knows who is there.

    Attributes:
        came: their names, in the order in which they came in.
        most: how many were there at one time.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._there = 0
        self.came: list[str] = []
        self.most = 0

    def member(self, name: str) -> Callable[[], None]:
        def attend() -> None:
            with self._lock:
                self.came.append(name)
                self._there += 1
                self.most = max(self.most, self._there)
            assert self._over.wait(PATIENCE)
            with self._lock:
                self._there -= 1

        return attend

    async def has(self, count: int) -> None:
        """Wait until so many have come in; the event loop goes on meanwhile."""
        while len(self.came) < count:
            await checkpoint()

    def end(self) -> None:
        self._over.set()


@pytest.mark.anyio
async def test_without_a_limit_45_plain_functions_use_40_threads_by_priority() -> None:
    """While they are all taken, async tasks go on, and it is one of those that ends the meeting."""
    meeting = Meeting()
    for at in range(45):
        # The five that do not fit are among the first to be registered.
        name = f"low {at}" if at < 5 else f"high {at}"
        task(name, priority=LOW if at < 5 else HIGH)(meeting.member(name))

    @task(priority=LOW)
    async def one() -> None:
        await meeting.has(40)

    @task(priority=LOW, depends_on=[one])
    async def another() -> int:
        # Whoever else could come in has every chance to.
        for _ in range(50):
            await checkpoint()
        came = len(meeting.came)
        meeting.end()
        return came

    results = await TaskScheduler().run()

    assert {COMPLETED: 47} == results.counts()
    assert 40 == results[another].result
    assert 40 == meeting.most
    assert {f"high {at}" for at in range(5, 45)} == set(meeting.came[:40])


@pytest.mark.anyio
async def test_with_a_limit_of_60_all_60_plain_functions_that_wait_for_each_other_start() -> None:
    """Also where each of them holds something else, so that resources are counted."""
    barrier = threading.Barrier(60)

    def meets() -> None:
        barrier.wait(PATIENCE)

    for at in range(60):
        task(f"t{at}", resources=["seat"])(meets)
    results = await TaskScheduler(max_concurrency=60, resources={"seat": 60}).run()

    assert {COMPLETED: 60} == results.counts()


@pytest.mark.anyio
async def test_plain_functions_hold_threads_and_resources_together() -> None:
    meeting = Meeting()
    for at in range(30):
        task(f"seated {at}", resources=["seat"], priority=HIGH)(meeting.member(f"seated {at}"))
    for at in range(40):
        task(f"standing {at}")(meeting.member(f"standing {at}"))

    @task(priority=LOW)
    async def ends() -> None:
        await meeting.has(40)
        for _ in range(50):
            await checkpoint()
        meeting.end()

    results = await TaskScheduler(resources={"seat": 10}).run()

    first = [name.partition(" ")[0] for name in meeting.came[:40]]
    assert {COMPLETED: 71} == results.counts()
    assert 40 == meeting.most
    assert (10, 30) == (first.count("seated"), first.count("standing"))


@pytest.mark.anyio
async def test_plain_functions_hold_no_more_than_there_is() -> None:
    """Three of them meet at a time, so three are inside, and there is no room for a fourth."""
    lock = threading.Lock()
    barrier = threading.Barrier(3)
    inside = 0
    most = 0

    def holds() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        barrier.wait(PATIENCE)
        with lock:
            inside -= 1

    for at in range(9):
        task(f"t{at}", resources=["db"])(holds)
    results = await TaskScheduler(resources={"db": 3}).run()

    assert {COMPLETED: 9} == results.counts()
    assert 3 == most

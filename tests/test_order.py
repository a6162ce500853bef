"""`run(order=...)`: ready tasks in another order, to find the dependencies that nobody declared."""

import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from portable_sched import (
    FailurePolicy,
    Priority,
    RunStarted,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
)
from portable_sched.testing import Recorder, run_graph

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize


async def no_op() -> None: ...


async def starts_of(
    tasks: TaskRegistry | list[TaskDef], *, limit: int | None = 1, settings: Any = None, **run: Any
) -> list[str]:
    """The names of the tasks in the order in which they were started."""
    recorder = Recorder()
    scheduler = TaskScheduler(
        tasks, max_concurrency=limit, observers=[recorder], **(settings or {})
    )
    results = await scheduler.run(**run)

    assert results.ok
    return recorder.started


def letters(registry: TaskRegistry, names: str = "abcdefgh", **settings: Any) -> TaskRegistry:
    """Tasks that depend on nothing, named after letters."""
    for name in names:
        registry.task(name, **settings)(no_op)
    return registry


# Backwards


async def test_reverse_starts_the_last_one_first(registry: TaskRegistry) -> None:
    letters(registry)

    assert list("abcdefgh") == await starts_of(registry)
    assert list("hgfedcba") == await starts_of(registry, order="reverse")


async def test_reverse_turns_priority_and_longest_path_round(registry: TaskRegistry) -> None:
    registry.task("low", Priority.LOW)(no_op)
    registry.task("short")(no_op)
    registry.task("long", estimate=5)(no_op)
    registry.task("high", Priority.HIGH)(no_op)

    assert ["high", "long", "short", "low"] == await starts_of(registry)
    assert ["low", "short", "long", "high"] == await starts_of(registry, order="reverse")


async def test_reverse_keeps_to_the_dependencies(registry: TaskRegistry) -> None:
    registry.task("a")(no_op)
    registry.task("b", depends_on=["a"])(no_op)
    registry.task("c", after=["b"])(no_op)
    registry.task("d")(no_op)

    assert ["d", "a", "b", "c"] == await starts_of(registry, order="reverse")


# Shuffled


async def test_shuffle_starts_every_task_once(registry: TaskRegistry) -> None:
    letters(registry)
    starts = await starts_of(registry, order="shuffle", seed=7)

    assert list("abcdefgh") == sorted(starts)
    assert list("abcdefgh") != starts


async def test_the_same_seed_gives_the_same_order_on_every_backend_and_python(
    registry: TaskRegistry,
) -> None:
    """It is written down here, since a report that names a seed is to be good for years."""
    letters(registry)

    assert list("ghceadbf") == await starts_of(registry, order="shuffle", seed=7)
    assert list("fagebhcd") == await starts_of(registry, order="shuffle", seed=8)
    assert list("ghceadbf") == await starts_of(registry, order="shuffle", seed=7, limit=None)


async def test_one_scheduler_may_run_in_any_order_again_and_again(registry: TaskRegistry) -> None:
    letters(registry)
    recorder = Recorder()
    scheduler = TaskScheduler(registry, max_concurrency=1, observers=[recorder])
    for order in ("priority", "reverse", "shuffle", "priority"):
        await scheduler.run(order=order)  # type: ignore[arg-type]
    starts = recorder.started

    assert list("abcdefgh") == starts[:8]
    assert list("hgfedcba") == starts[8:16]
    assert list("abcdefgh") == starts[24:]


async def test_other_seeds_give_other_orders(registry: TaskRegistry) -> None:
    letters(registry)
    orders = {tuple(await starts_of(registry, order="shuffle", seed=seed)) for seed in range(20)}

    # There are 40,320 orders; the same seeds find the same 20 of them every time.
    assert 20 == len(orders)


async def test_shuffling_finds_every_order_that_the_dependencies_allow(
    registry: TaskRegistry,
) -> None:
    """And no other."""
    registry.task("a")(no_op)
    registry.task("b", depends_on=["a"])(no_op)
    registry.task("c", Priority.HIGH)(no_op)
    registry.task("d", Priority.LOW, after=["c"])(no_op)
    orders = {"".join(await starts_of(registry, order="shuffle", seed=seed)) for seed in range(100)}

    assert {"abcd", "acbd", "acdb", "cabd", "cadb", "cdab"} == orders


def random_tasks(seed: int) -> list[TaskDef]:
    choose = random.Random(seed)
    names = [f"t{number}" for number in range(12)]
    tasks = []
    for number, name in enumerate(names):
        earlier = choose.sample(names[:number], min(number, choose.randrange(4)))
        split = choose.randrange(len(earlier) + 1)
        tasks.append(
            TaskDef(
                name=name,
                function=no_op,
                priority=choose.choice(list(Priority)),
                depends_on=earlier[:split],
                after=earlier[split:],
                resources=choose.choice([(), ["db"], {"db": 2}]),
            )
        )
    return tasks


@each("limit", [1, 2, None])
async def test_whatever_the_order_no_task_starts_before_what_it_waits_for(
    limit: int | None,
) -> None:
    for seed in range(30):
        tasks = random_tasks(seed)
        recorder = Recorder()
        scheduler = TaskScheduler(
            tasks, max_concurrency=limit, resources={"db": 2}, observers=[recorder]
        )
        orders: list[dict[str, Any]] = [{"order": "reverse"}, {"order": "shuffle", "seed": seed}]
        for order in orders:
            recorder.events.clear()
            results = await scheduler.run(**order)

            assert results.ok
            assert all(
                recorder.ended_before(earlier, one.name)
                for one in tasks
                for earlier in (*one.depends_on, *one.after)
            )


# What is set aside, and what is not


async def test_priority_is_set_aside(registry: TaskRegistry) -> None:
    letters(registry, "abcd", priority=Priority.HIGH)
    letters(registry, "efgh", priority=Priority.LOW)
    firsts = [(await starts_of(registry, order="shuffle", seed=seed))[0] for seed in range(60)]

    assert set("abcdefgh") == set(firsts)


@each("settings", [{"inherit_priority": True}, {"inherit_priority": False}], ids=["inherit", "own"])
async def test_priority_is_set_aside_where_it_is_inherited_too(
    registry: TaskRegistry, settings: dict[str, Any]
) -> None:
    registry.task("plain")(no_op)
    registry.task("needed", Priority.LOW)(no_op)
    registry.task("urgent", Priority.HIGH, depends_on=["needed"])(no_op)
    orders = {
        tuple(await starts_of(registry, settings=settings, order="shuffle", seed=seed))
        for seed in range(30)
    }

    assert {
        ("plain", "needed", "urgent"),
        ("needed", "plain", "urgent"),
        ("needed", "urgent", "plain"),
    } == orders


async def test_priority_is_set_aside_among_those_that_want_a_resource(
    registry: TaskRegistry,
) -> None:
    registry.task("low", Priority.LOW, resources=["db"])(no_op)
    registry.task("high", Priority.HIGH, resources=["db"])(no_op)
    settings = {"resources": {"db": 1}}
    run = {"settings": settings, "limit": None}
    orders = [await starts_of(registry, order="shuffle", seed=seed, **run) for seed in range(20)]

    assert ["high", "low"] == await starts_of(registry, **run)
    assert ["low", "high"] == await starts_of(registry, order="reverse", **run)
    assert ["high", "low"] in orders
    assert ["low", "high"] in orders


@pytest.mark.virtual_time
async def test_a_large_ask_is_not_passed_over_for_longer_because_it_is_less_urgent(
    registry: TaskRegistry,
) -> None:
    """By priority it would come last. Shuffled, it is passed over twice for each unit at most."""

    @registry.task(priority=Priority.LOW, resources={"db": 2})
    async def large() -> None: ...

    for number in range(20):

        @registry.task(f"small-{number}", Priority.HIGH, resources=["db"])
        async def small(seconds: float = 1 + number % 3) -> None:
            await anyio.sleep(seconds)

    settings = {"resources": {"db": 2}}
    by_priority = await starts_of(registry, limit=None, settings=settings)
    passed_over = [
        (
            await starts_of(registry, limit=None, settings=settings, order="shuffle", seed=seed)
        ).index("large")
        for seed in range(20)
    ]

    assert "large" == by_priority[-1]
    # One small ask may have begun before the first that passes it over.
    assert max(passed_over) <= 1 + 2 * 2


@pytest.mark.virtual_time
async def test_limits_and_resources_hold_in_any_order(registry: TaskRegistry) -> None:
    inside: list[str] = []
    most = {"all": 0, "db": 0}

    def working(name: str, kind: str) -> Callable[[], Any]:
        async def work() -> None:
            inside.append(kind)
            most["all"] = max(most["all"], len(inside))
            most["db"] = max(most["db"], inside.count("db"))
            await anyio.sleep(1)
            inside.remove(kind)

        return work

    for name in "abcdefgh":
        kind = "db" if name in "aceg" else "no"
        registry.task(name, resources=["db"] if kind == "db" else ())(working(name, kind))
    await starts_of(registry, limit=3, settings={"resources": {"db": 1}}, order="shuffle", seed=1)

    assert {"all": 3, "db": 1} == most


async def test_lifetimes_are_open_as_long_as_ever(registry: TaskRegistry) -> None:
    notes: list[str] = []

    @registry.task
    async def db():
        notes.append("open")
        yield "connection"
        notes.append("close")

    for name in "abc":

        @registry.task(name)
        async def use(db: str) -> None:
            notes.append("use")

    letters(registry, "xyz")
    for seed in range(5):
        notes.clear()
        await starts_of(registry, order="shuffle", seed=seed)
        assert ["open", "use", "use", "use", "close"] == notes


@pytest.mark.virtual_time
async def test_another_attempt_competes_in_the_same_order(registry: TaskRegistry) -> None:
    starts: list[str] = []
    left = [ValueError()]

    @registry.task(retries=2)
    async def fails() -> None:
        starts.append("fails")
        await anyio.sleep(1)
        if left:
            raise left.pop()

    @registry.task("plain")
    async def plain() -> None:
        starts.append("plain")

    await TaskScheduler(registry, max_concurrency=1).run(order="reverse")

    assert ["plain", "fails", "fails"] == starts


async def test_the_results_are_in_topological_order_as_ever(registry: TaskRegistry) -> None:
    letters(registry)
    results = await TaskScheduler(registry).run(order="reverse")

    assert list("abcdefgh") == [one.task_name for one in results]


async def test_targets_are_taken_in_another_order_too(registry: TaskRegistry) -> None:
    letters(registry)
    starts = await starts_of(registry, targets=["b", "c", "d"], order="reverse")

    assert ["d", "c", "b"] == starts


async def test_inputs_arrive_in_any_order(registry: TaskRegistry) -> None:
    @registry.task
    async def fetch(date: str) -> str:
        return date

    results = await TaskScheduler(registry).run(inputs={"date": "today"}, order="shuffle")

    assert "today" == results[fetch].result


async def test_an_empty_graph_runs_in_any_order(registry: TaskRegistry) -> None:
    assert [] == await starts_of(registry, order="reverse")
    assert [] == await starts_of(registry, order="shuffle")


# What the results and the report say


def last_line(scheduler: TaskScheduler) -> str:
    return scheduler.report().splitlines()[-1]


@pytest.mark.virtual_time
async def test_the_report_names_the_order_and_its_seed(registry: TaskRegistry) -> None:
    letters(registry, "ab")
    scheduler = TaskScheduler(registry)
    counts = "2 tasks: 2 completed; 0.0000s wall time, 1 at once"

    await scheduler.run()
    assert counts == last_line(scheduler)
    assert "" == scheduler.results.order

    await scheduler.run(order="reverse")
    assert f"{counts}; order: reverse" == last_line(scheduler)
    assert "reverse" == scheduler.results.order

    await scheduler.run(order="shuffle", seed=7)
    assert f"{counts}; order: shuffle, seed 7" == last_line(scheduler)
    assert "shuffle, seed 7" == scheduler.results.order


async def test_a_seed_that_was_drawn_is_in_the_report_and_repeats_the_order(
    registry: TaskRegistry,
) -> None:
    letters(registry)
    recorder = Recorder()
    scheduler = TaskScheduler(registry, max_concurrency=1, observers=[recorder])
    results = await scheduler.run(order="shuffle")
    kind, _, seed = results.order.partition(", seed ")

    assert "shuffle" == kind
    assert last_line(scheduler).endswith(f"; order: shuffle, seed {seed}")
    assert recorder.started == await starts_of(registry, order="shuffle", seed=int(seed))


async def test_each_run_draws_a_seed_of_its_own(registry: TaskRegistry) -> None:
    letters(registry)
    scheduler = TaskScheduler(registry)
    # One in four thousand million that two agree.
    orders = [(await scheduler.run(order="shuffle")).order for _ in range(2)]

    assert orders[0] != orders[1]


async def test_a_seed_is_drawn_whatever_the_program_has_done_to_chance(
    registry: TaskRegistry,
) -> None:
    """Many test suites seed `random` before each test, and would find one order for ever."""
    letters(registry)
    scheduler = TaskScheduler(registry)
    orders = []
    for _ in range(2):
        random.seed(0)
        orders.append((await scheduler.run(order="shuffle")).order)

    assert orders[0] != orders[1]


async def test_shuffling_leaves_the_programs_own_chance_alone(registry: TaskRegistry) -> None:
    letters(registry)
    random.seed(5)
    expected = random.random()
    random.seed(5)
    await TaskScheduler(registry).run(order="shuffle")
    await TaskScheduler(registry).run(order="shuffle", seed=7)

    assert expected == random.random()


async def test_the_order_is_known_while_the_run_goes_on_and_after_it_was_cancelled(
    registry: TaskRegistry,
) -> None:
    during: list[str] = []

    @registry.task
    async def cancels() -> None:
        during.append(scheduler.results.order)
        scope.cancel()
        await anyio.sleep_forever()

    scheduler = TaskScheduler(registry)
    with anyio.CancelScope() as scope:
        await scheduler.run(order="shuffle", seed=3)

    assert ["shuffle, seed 3"] == during
    assert "shuffle, seed 3" == scheduler.results.order
    assert last_line(scheduler).endswith("; order: shuffle, seed 3")


async def test_observers_are_told_the_tasks_in_topological_order(registry: TaskRegistry) -> None:
    letters(registry, "abc")
    recorder = Recorder()
    await TaskScheduler(registry, observers=[recorder]).run(order="reverse")
    [started] = [event for event in recorder.events if isinstance(event, RunStarted)]

    assert ("a", "b", "c") == started.tasks


# What it is for


def shop(registry: TaskRegistry, *, declared: bool) -> TaskRegistry:
    """Three steps on one table. The last one needs the second, and does not always say so."""
    table: list[str] = []

    @registry.task
    async def create_table() -> None:
        table.clear()

    @registry.task(depends_on=[create_table])
    async def load_rows() -> None:
        table.append("row")

    @registry.task(depends_on=[create_table, *([load_rows] if declared else [])])
    async def count_rows() -> int:
        if not table:
            raise LookupError("no rows to count")
        return len(table)

    return registry


def seeds_that_fail(registry: TaskRegistry) -> set[int]:
    return {
        seed
        for seed in range(20)
        if not run_graph(registry, order="shuffle", seed=seed, max_concurrency=1).ok
    }


def test_a_dependency_that_nobody_declared_is_found_and_mended() -> None:
    forgetful = shop(TaskRegistry(), declared=False)

    # It passes as it is registered, every time, and so it has for months.
    assert all(run_graph(forgetful, max_concurrency=1).ok for _ in range(20))

    # Backwards it fails, and for some of the seeds.
    backwards = run_graph(forgetful, order="reverse", max_concurrency=1)
    assert ["count_rows"] == [one.task_name for one in backwards.failed]
    failing = seeds_that_fail(forgetful)
    assert failing
    assert failing != set(range(20))

    # The seed in the report repeats it, for whoever is to mend it.
    results = run_graph(forgetful, order="shuffle", max_concurrency=1)
    seed = int(results.order.partition("seed ")[2])
    again = run_graph(forgetful, order="shuffle", seed=seed, max_concurrency=1)
    assert [one.error for one in results] == [one.error for one in again]

    # Declared, it passes whatever the order.
    mended = shop(TaskRegistry(), declared=True)
    assert run_graph(mended, order="reverse", max_concurrency=1).ok
    assert set() == seeds_that_fail(mended)


async def test_a_policy_acts_in_any_order(registry: TaskRegistry) -> None:
    @registry.task
    async def fails() -> None:
        raise ValueError

    letters(registry, "abc")
    scheduler = TaskScheduler(registry, max_concurrency=1, on_failure=FailurePolicy.DRAIN)

    in_order = await scheduler.run()
    backwards = await scheduler.run(order="reverse")

    assert {TaskStatus.FAILED: 1, TaskStatus.CANCELLED: 3} == in_order.counts()
    assert {TaskStatus.COMPLETED: 3, TaskStatus.FAILED: 1} == backwards.counts()


# What is refused

REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"order": "random"},
        ValueError,
        "Expected order to be 'priority', 'reverse' or 'shuffle', got 'random' (str).",
    ),
    (
        {"order": None},
        ValueError,
        "Expected order to be 'priority', 'reverse' or 'shuffle', got None (NoneType).",
    ),
    (
        {"order": ["shuffle"]},
        ValueError,
        "Expected order to be 'priority', 'reverse' or 'shuffle', got ['shuffle'] (list).",
    ),
    (
        {"seed": 7},
        TypeError,
        (
            "Expected seed to be a whole number, together with order='shuffle', got 7 (int) with "
            "order='priority'."
        ),
    ),
    (
        {"order": "reverse", "seed": 7},
        TypeError,
        (
            "Expected seed to be a whole number, together with order='shuffle', got 7 (int) with "
            "order='reverse'."
        ),
    ),
    (
        {"order": "shuffle", "seed": "7"},
        TypeError,
        (
            "Expected seed to be a whole number, together with order='shuffle', got '7' (str) with "
            "order='shuffle'."
        ),
    ),
    (
        {"order": "shuffle", "seed": 7.0},
        TypeError,
        (
            "Expected seed to be a whole number, together with order='shuffle', got 7.0 (float) "
            "with order='shuffle'."
        ),
    ),
    (
        {"order": "shuffle", "seed": True},
        TypeError,
        (
            "Expected seed to be a whole number, together with order='shuffle', got True (bool) "
            "with order='shuffle'."
        ),
    ),
]


@each("arguments, kind, message", REFUSED, ids=[repr(arguments) for arguments, _, _ in REFUSED])
async def test_what_is_no_order_and_no_seed_is_refused_before_anything_runs(
    registry: TaskRegistry, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    recorder = Recorder()
    letters(registry)
    scheduler = TaskScheduler(registry, observers=[recorder])
    with pytest.raises(kind) as caught:
        await scheduler.run(**arguments)

    assert (kind, message) == (caught.type, str(caught.value))
    assert [] == recorder.events
    with pytest.raises(RuntimeError):
        _ = scheduler.results


@each("seed", [0, -3, 2**80])
async def test_any_whole_number_is_a_seed(registry: TaskRegistry, seed: int) -> None:
    letters(registry)
    results = await TaskScheduler(registry).run(order="shuffle", seed=seed)

    assert f"shuffle, seed {seed}" == results.order

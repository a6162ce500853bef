"""The slow and obvious way to say what the library works out cleverly, on random graphs.

Names and sets, everything worked out anew whenever it is asked for, nothing kept. What the tests
compare with must be easy to believe, and it must share no idea with the code under test.
"""

import inspect
import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from portable_sched import Backoff, Priority, TaskDef

RESOURCES = {"db": 3, "gpu": 1}
"""The resources of the tasks below."""


def examples(count: int) -> settings:
    """So many examples; `PORTABLE_SCHED_EXAMPLES=20` in the environment makes it twenty times.

    Nothing is timed: on a busy machine that would measure the neighbours. That all examples of a
    test share its fixtures is right, since the one they take says on which backend they run.
    """
    factor = int(os.environ.get("PORTABLE_SCHED_EXAMPLES", "1"))
    return settings(
        max_examples=count * factor,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


async def idle() -> None:
    """The function of tasks that are never run."""


async def idle_lifetime() -> AsyncIterator[None]:
    """The function of lifetimes that are never run."""
    yield


def defined(name: str, *depends_on: str, **wanted: Any) -> TaskDef:
    return TaskDef(name=name, depends_on=depends_on, **{"function": idle, **wanted})


def is_lifetime(definition: TaskDef) -> bool:
    return inspect.isasyncgenfunction(definition.function)


def waits_for(definition: TaskDef) -> set[str]:
    """What must have ended before the task starts, one way or the other."""
    return {*definition.depends_on, *definition.after}


def waits_in_a_circle(tasks: Collection[TaskDef]) -> bool:
    """Whether a task waits for itself, perhaps by way of the close of a lifetime."""
    lifetimes = {definition.name for definition in tasks if is_lifetime(definition)}

    def end(name: str) -> str:
        return f"close of {name}" if name in lifetimes else name

    before: dict[str, set[str]] = {}
    for definition in tasks:
        before[definition.name] = {*definition.depends_on, *map(end, definition.after)}
    for name in lifetimes:
        users = {end(user.name) for user in tasks if name in user.depends_on}
        before[end(name)] = {name, *users}
    while before:
        free = [name for name in before if not before[name] & before.keys()]
        if not free:
            return True
        for name in free:
            del before[name]
    return False


def restricted(
    tasks: Collection[TaskDef], targets: Collection[str], takes: Mapping[str, Collection[str]]
) -> list[TaskDef]:
    """The targets and what they need; what they come after only where they take its result.

    Args:
        tasks: all tasks.
        targets: names of those that are wanted.
        takes: for each task whose results it takes.
    """
    wanted = set(targets)
    while True:
        needed = {
            name
            for definition in tasks
            if definition.name in wanted
            for name in (
                *definition.depends_on,
                *(name for name in definition.after if name in takes[definition.name]),
            )
        }
        if needed <= wanted:
            break
        wanted |= needed
    return [
        replace(definition, after=[name for name in definition.after if name in wanted])
        for definition in tasks
        if definition.name in wanted
    ]


@st.composite
def acyclic_tasks(draw: st.DrawFn, *, most: int = 10) -> list[TaskDef]:
    """Tasks that can be run, mostly registered in another order than they can be run in."""
    count = draw(st.integers(min_value=0, max_value=most))
    names = draw(st.permutations([f"t{at}" for at in range(count)]))
    made = []
    for at, name in enumerate(names):
        # At most three each, or all of the graph hangs together and little can run at once.
        depends_on = draw(st.sets(st.sampled_from(names[:at]), max_size=3)) if at else set()
        made.append(
            defined(
                name,
                *sorted(depends_on),
                priority=draw(st.sampled_from(Priority)),
                retries=draw(st.sampled_from([1, 1, 2, 3])),
            )
        )
    return sorted(made, key=lambda definition: definition.name)


def is_valueless(error: Exception) -> bool:
    """A `retry_on` that is a function."""
    return not isinstance(error, ValueError)


def whole_attempts(attempt: int, error: Exception) -> float:
    """A `backoff` that is a function: as many seconds as there were attempts."""
    return attempt


def thousandths(attempt: int, error: Exception) -> float:
    """The same for where a second is too long to wait."""
    return attempt / 1000


@st.composite
def tasks_of_every_kind(
    draw: st.DrawFn, *, most: int = 10, virtual_time: bool = True
) -> list[TaskDef]:
    """Tasks that can be run and have everything that a task can have.

    Args:
        draw: draws.
        most: how many there are at most.
        virtual_time: whether a second costs nothing. If not, whatever has a timeout is late.
    """
    scale = 1 if virtual_time else 0.001
    timeouts = [2, 4, 6, 9] if virtual_time else [0.001]
    backoffs = [
        None,
        Backoff(initial=scale, factor=2, maximum=3 * scale, jitter=0),
        whole_attempts if virtual_time else thousandths,
    ]
    names = draw(st.permutations([f"t{at}" for at in range(draw(st.integers(1, most)))]))
    made: list[TaskDef] = []
    for at, name in enumerate(names):
        earlier = st.sets(st.sampled_from(names[:at]), max_size=2) if at else st.just(set())
        depends_on = draw(earlier)
        after = draw(earlier) - depends_on if draw(st.booleans()) else set()
        settings = {
            "priority": draw(st.sampled_from(Priority)),
            "retries": draw(st.sampled_from([1, 2, 3])),
            "timeout": draw(st.sampled_from([None] * 8 + timeouts)),
            "retry_on": draw(
                st.sampled_from([*[Exception] * 5, ValueError, (OSError,), is_valueless])
            ),
            "backoff": draw(st.sampled_from(backoffs)),
            "estimate": draw(st.sampled_from([None, None, 1, 3])),
            "resources": draw(
                st.sampled_from(
                    [{}, {}, {}, {"db": 1}, {"db": 2}, {"db": 3}, {"gpu": 1}, {"db": 1, "gpu": 1}]
                )
            ),
        }
        if draw(st.sampled_from([False, False, True])):
            settings["function"] = idle_lifetime
            if not virtual_time:
                # Its teardown would have no more time than that.
                settings["timeout"] = None
        definition = defined(name, *sorted(depends_on), after=sorted(after), **settings)
        # It may wait for the close of what it keeps open.
        if waits_in_a_circle([*made, definition]):
            definition = defined(name, *sorted(depends_on), **settings)
        if waits_in_a_circle([*made, definition]):
            definition = defined(name, **settings)
        made.append(definition)
    return sorted(made, key=lambda definition: definition.name)


@st.composite
def crowded_tasks(draw: st.DrawFn, *, most: int = 14) -> list[TaskDef]:
    """Many tasks that can start at once and ask for the same few things."""
    demands = [{"db": 1}, {"db": 1}, {"db": 1}, {"db": 2}, {"db": 3}, {"gpu": 1, "db": 2}]
    return [
        defined(
            f"t{at}",
            priority=draw(st.sampled_from([Priority.MEDIUM, Priority.MEDIUM, *Priority])),
            estimate=draw(st.sampled_from([None, 2, 3])),
            resources=draw(st.sampled_from(demands)),
        )
        for at in range(draw(st.integers(6, most)))
    ]


@st.composite
def any_tasks(draw: st.DrawFn, *, most: int = 6) -> list[TaskDef]:
    """Tasks that depend on any others and on themselves, so that many form cycles."""
    names = [f"t{at}" for at in range(draw(st.integers(min_value=1, max_value=most)))]
    return [
        defined(name, *sorted(draw(st.sets(st.sampled_from(names), max_size=2)))) for name in names
    ]


def by_name(tasks: Iterable[TaskDef]) -> dict[str, TaskDef]:
    return {definition.name: definition for definition in tasks}


def topological_order(tasks: Collection[TaskDef]) -> list[str]:
    """Again and again the first registered task that has all it depends on before it.

    Tasks that wait for each other are left out, and so are those that wait for them.
    """
    order: list[str] = []
    while True:
        possible = [
            definition.name
            for definition in tasks
            if definition.name not in order and set(definition.depends_on) <= set(order)
        ]
        if not possible:
            return order
        order.append(possible[0])


def remaining_path(name: str, tasks: Collection[TaskDef]) -> float:
    """How long the longest path from `name` to an end of the graph is, a second for each task
    that has no estimate."""
    longest: float = 0
    for definition in tasks:
        if name in waits_for(definition):
            longest = max(longest, remaining_path(definition.name, tasks))
    return (by_name(tasks)[name].estimate or 1) + longest


def inherited_priority(name: str, tasks: Collection[TaskDef]) -> Priority:
    """The highest priority of the task and all that wait for it, near and far."""
    waiting = [definition.name for definition in tasks if name in waits_for(definition)]
    inherited = [inherited_priority(one, tasks) for one in waiting]
    return min([by_name(tasks)[name].priority, *inherited])


def start_order(tasks: Collection[TaskDef], *, inherit_priority: bool = False) -> list[str]:
    """By priority, then the longest remaining path, then registration."""
    registered = [definition.name for definition in tasks]

    def key(name: str) -> tuple[Priority, float, int]:
        own = by_name(tasks)[name].priority
        priority = inherited_priority(name, tasks) if inherit_priority else own
        return priority, -remaining_path(name, tasks), registered.index(name)

    return sorted(registered, key=key)


def needed_by(name: str, tasks: Mapping[str, TaskDef]) -> set[str]:
    """All that must succeed before the task may start, near and far."""
    direct = set(tasks[name].depends_on)
    return direct.union(*(needed_by(dependency, tasks) for dependency in direct))


def cycle_lengths(start: str, tasks: Mapping[str, TaskDef]) -> set[int]:
    """How many tasks each of the cycles through `start` has."""
    lengths = set()
    walks = [[start]]
    while walks:
        walk = walks.pop()
        for name in tasks[walk[-1]].depends_on:
            if name == start:
                lengths.add(len(walk))
            elif name not in walk:
                walks.append([*walk, name])
    return lengths

"""The slow and obvious way to say what the library works out cleverly, on random graphs.

Names and sets, everything worked out anew whenever it is asked for, nothing kept. What the tests
compare with must be easy to believe, and it must share no idea with the code under test.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from portable_sched import Priority, TaskDef


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


def defined(name: str, *depends_on: str, **wanted: Any) -> TaskDef:
    return TaskDef(name=name, function=idle, depends_on=depends_on, **wanted)


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


def remaining_path(name: str, tasks: Iterable[TaskDef]) -> int:
    """How many tasks the longest path from `name` to an end of the graph has."""
    longest = 0
    for definition in tasks:
        if name in definition.depends_on:
            longest = max(longest, remaining_path(definition.name, tasks))
    return 1 + longest


def start_order(tasks: Collection[TaskDef]) -> list[str]:
    """By priority, then the longest remaining path, then registration."""
    registered = [definition.name for definition in tasks]
    return sorted(
        registered,
        key=lambda name: (
            by_name(tasks)[name].priority,
            -remaining_path(name, tasks),
            registered.index(name),
        ),
    )


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

"""The topological order of names, and the cycle where there is none."""

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from ._errors import CyclicDependencyError

CLOSE: Final = "\0close"
"""Ends the name of the step that closes a lifetime; no task's name would end like this."""


def sorted_names(before: Mapping[str, Sequence[str]]) -> list[str]:
    """The names in topological order (Kahn 1962), the earlier first where there is a choice.

    Args:
        before: for each name those that have to come before it.

    Raises:
        CyclicDependencyError: there is no such order.
    """
    names = list(before)
    numbers = {name: number for number, name in enumerate(names)}
    waiting = list(map(len, before.values()))
    after: list[list[int]] = [[] for _ in names]
    for number, earlier in enumerate(before.values()):
        for name in earlier:
            after[numbers[name]].append(number)
    ready = [number for number, left in enumerate(waiting) if not left]
    heapify(ready)
    order = []
    while ready:
        number = heappop(ready)
        order.append(names[number])
        for later in after[number]:
            waiting[later] -= 1
            if not waiting[later]:
                heappush(ready, later)
    if len(order) < len(names):
        unsorted = {names[at]: before[names[at]] for at, left in enumerate(waiting) if left}
        raise CyclicDependencyError(_as_tasks(_cycle_path(unsorted)))
    return order


def _cycle_path(unsorted: Mapping[str, Sequence[str]]) -> list[str]:
    """The shortest cycle through the name that a walk from the first one meets twice.

    Every name that Kahn's algorithm leaves over has one before it that is left over too, so a walk
    along them can only end in a cycle.
    """
    start = next(iter(unsorted))
    met: set[str] = set()
    while start not in met:
        met.add(start)
        start = next(name for name in unsorted[start] if name in unsorted)
    # Breadth first from there finds the shortest way back.
    reached_from: dict[str, str] = {}
    frontier = deque([start])
    while start not in reached_from:
        name = frontier.popleft()
        for earlier in unsorted[name]:
            if earlier in unsorted and earlier not in reached_from:
                reached_from[earlier] = name
                frontier.append(earlier)
    path = [start, reached_from[start]]
    while path[-1] != start:
        path.append(reached_from[path[-1]])
    return path[::-1]


def _as_tasks(path: Sequence[str]) -> list[str]:
    """A cycle of steps as one of tasks: set-up and close of a lifetime are one task to a reader."""
    tasks: list[str] = []
    for step in path:
        name = step.removesuffix(CLOSE)
        if tasks[-1:] != [name]:
            tasks.append(name)
    if len(tasks) == 1:
        tasks.append(tasks[0])
    return tasks

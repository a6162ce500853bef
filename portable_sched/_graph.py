"""What depends on what: a validated graph of tasks, worked out once and never changed."""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

from ._errors import CyclicDependencyError, DependencyError, nearest_names
from ._tasks import TaskDef

# Shared by all tasks that have none: a million empty lists would be 56 MB.
_NONE: tuple[int, ...] = ()


class Graph:
    """Tasks in topological order, with their edges and the order in which they are to start.

    A task's number is its place in `tasks`. Tasks keep the order in which they were given as far
    as their dependencies allow it, so most graphs are numbered as they were written.

    Attributes:
        tasks: the definitions, every one after all that it depends on.
        numbers: name to number.
        dependencies: for each task the numbers of its direct dependencies.
        dependents: for each task the numbers of its direct dependents.
        place: for each task its place in the start order: of the tasks that are ready, the one
            with the lowest place starts first.
        by_place: the inverse, from place to number.

    Raises:
        DependencyError: a task depends on a name that no task bears.
        CyclicDependencyError: tasks depend on each other in a circle.
    """

    __slots__ = ("by_place", "dependencies", "dependents", "numbers", "place", "tasks")

    tasks: tuple[TaskDef, ...]
    numbers: dict[str, int]
    dependencies: list[tuple[int, ...]]
    dependents: list[Sequence[int]]
    place: list[int]
    by_place: list[int]

    def __init__(self, tasks: Iterable[TaskDef]) -> None:
        self.tasks = tuple(tasks)
        self.numbers = {}
        for definition in self.tasks:
            self.numbers[definition.name] = len(self.numbers)
        self.dependencies = self._numbered_dependencies()
        if not self._is_topological():
            self._sort()
        self.dependents = self._dependents()
        self.by_place = self._start_order()
        self.place = _inverse(self.by_place)

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        return f"<Graph of {len(self)} tasks>"

    def remaining_path(self) -> list[int]:
        """For each task how many tasks the longest path from it to an end of the graph has.

        It is 1 for a task without dependents.
        """
        remaining = [1] * len(self.tasks)
        dependencies = self.dependencies
        for number in range(len(remaining) - 1, -1, -1):
            longer = remaining[number] + 1
            for dependency in dependencies[number]:
                remaining[dependency] = max(remaining[dependency], longer)
        return remaining

    def _numbered_dependencies(self) -> list[tuple[int, ...]]:
        number_of = self.numbers.__getitem__
        numbered = []
        for definition in self.tasks:
            names = definition.depends_on
            try:
                numbered.append(tuple(map(number_of, names)) if names else _NONE)
            except KeyError:
                unknown = next(name for name in names if name not in self.numbers)
                nearest = nearest_names(unknown, list(self.numbers))
                raise DependencyError(definition.name, unknown, nearest) from None
        return numbered

    def _is_topological(self) -> bool:
        """Whether the tasks stand in topological order as they are, as most programs write them."""
        for number, dependencies in enumerate(self.dependencies):
            for dependency in dependencies:
                if dependency >= number:
                    return False
        return True

    def _sort(self) -> None:
        """Number the tasks anew, in topological order (Kahn 1962)."""
        dependents = self._dependents()
        waiting = list(map(len, self.dependencies))
        ready = [number for number, left in enumerate(waiting) if not left]
        heapify(ready)
        order = []
        while ready:
            number = heappop(ready)
            order.append(number)
            for dependent in dependents[number]:
                waiting[dependent] -= 1
                if not waiting[dependent]:
                    heappush(ready, dependent)
        if len(order) < len(self.tasks):
            path = self._cycle_path({number for number, left in enumerate(waiting) if left})
            raise CyclicDependencyError([self.tasks[number].name for number in path])
        renumbered = _inverse(order)
        self.tasks = tuple(self.tasks[number] for number in order)
        self.dependencies = [
            tuple(renumbered[dependency] for dependency in self.dependencies[number])
            for number in order
        ]
        self.numbers = {definition.name: at for at, definition in enumerate(self.tasks)}

    def _cycle_path(self, unsorted: set[int]) -> list[int]:
        """The shortest cycle through the first task that a walk from the first one left meets twice.

        Every task that Kahn's algorithm leaves over has a dependency that is left over too, so the
        walk along them can only end in a cycle.
        """
        within = [
            [dependency for dependency in dependencies if dependency in unsorted]
            if number in unsorted
            else []
            for number, dependencies in enumerate(self.dependencies)
        ]
        start = min(unsorted)
        met: set[int] = set()
        while start not in met:
            met.add(start)
            start = within[start][0]
        # Breadth first from there finds the shortest way back.
        reached_from: dict[int, int] = {}
        frontier = deque([start])
        while start not in reached_from:
            number = frontier.popleft()
            for dependency in within[number]:
                if dependency not in reached_from:
                    reached_from[dependency] = number
                    frontier.append(dependency)
        path = [start]
        while len(path) == 1 or path[-1] != start:
            path.append(reached_from[path[-1]])
        path.reverse()
        return path

    def _dependents(self) -> list[Sequence[int]]:
        dependents: list[Sequence[int]] = [_NONE] * len(self.dependencies)
        for number, dependencies in enumerate(self.dependencies):
            for dependency in dependencies:
                existing = dependents[dependency]
                if existing:
                    existing.append(number)  # type: ignore[attr-defined] # a list from here on
                else:
                    dependents[dependency] = [number]
        return dependents

    def _start_order(self) -> list[int]:
        """Numbers by priority, then by the longest remaining path, then as registered.

        Taking the longest remaining path first is list scheduling by critical path (Kohler 1975).
        """
        remaining = self.remaining_path()
        # One integer to compare instead of a tuple: priority above, path below.
        above = len(remaining) + 1
        keys = [
            definition.priority * above - path
            for definition, path in zip(self.tasks, remaining, strict=True)
        ]
        return sorted(range(len(keys)), key=keys.__getitem__)


def _inverse(permutation: list[int]) -> list[int]:
    inverse = [0] * len(permutation)
    for at, number in enumerate(permutation):
        inverse[number] = at
    return inverse

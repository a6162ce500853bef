"""What depends on what: a validated graph of tasks, worked out once and never changed."""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from operator import neg

from ._errors import CyclicDependencyError, DependencyError, DuplicateTaskError, nearest_names
from ._tasks import Priority, TaskDef, shown

# Shared by all tasks that have none: a million empty lists would be 56 MB.
_NONE: Sequence[int] = ()


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
    dependencies: list[Sequence[int]]
    dependents: list[Sequence[int]]
    place: list[int]
    by_place: list[int]

    def __init__(self, tasks: Iterable[TaskDef]) -> None:
        self.tasks = registered = _definitions(tasks)
        if not self._connect():
            self.tasks = self._sorted()
            self._connect()
        self.by_place, self.place = self._start_order(registered)

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

    def _connect(self) -> bool:
        """Number names and edges, unless a task stands before one that it depends on.

        It mostly does not, since a program defines a function before it refers to it. Then there
        is nothing to sort, no cycle to look for, and one pass does: a name that is not numbered
        by the time it is asked for tells.
        """
        self.numbers = {}
        numbers = self.numbers
        self.dependencies = dependencies = [_NONE] * len(self.tasks)
        self.dependents = dependents = [_NONE] * len(self.tasks)
        for number, definition in enumerate(self.tasks):
            asked = definition.depends_on
            if asked:
                try:
                    # Most have one, and a tuple of one takes half as long when it is written out.
                    if len(asked) == 1:
                        needed: tuple[int, ...] = (numbers[asked[0]],)
                    else:
                        needed = tuple([numbers[name] for name in asked])
                except KeyError:
                    return False
                dependencies[number] = needed
                for dependency in needed:
                    existing = dependents[dependency]
                    if existing:
                        existing.append(number)  # type: ignore[attr-defined] # a list by now
                    else:
                        dependents[dependency] = [number]
            numbers[definition.name] = number
        return True

    def _sorted(self) -> tuple[TaskDef, ...]:
        """The tasks in topological order (Kahn 1962)."""
        numbers = {definition.name: number for number, definition in enumerate(self.tasks)}
        waiting = [len(definition.depends_on) for definition in self.tasks]
        dependents: list[list[int]] = [[] for _ in self.tasks]
        for number, definition in enumerate(self.tasks):
            for name in definition.depends_on:
                if name not in numbers:
                    raise DependencyError(definition.name, name, nearest_names(name, list(numbers)))
                dependents[numbers[name]].append(number)
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
            unsorted = {
                self.tasks[at].name: self.tasks[at] for at, left in enumerate(waiting) if left
            }
            raise CyclicDependencyError(_cycle_path(unsorted))
        return tuple(self.tasks[number] for number in order)

    def _start_order(self, registered: tuple[TaskDef, ...]) -> tuple[list[int], list[int]]:
        """Numbers by place, and places by number: by priority, longest path, registration.

        Taking the longest remaining path first is list scheduling by critical path (Kohler 1975).
        """
        remaining = self.remaining_path()
        priorities = [definition.priority for definition in self.tasks]
        if priorities.count(Priority.MEDIUM) == len(priorities):
            keys = list(map(neg, remaining))
        else:
            # One integer to compare instead of a tuple: priority above, path below.
            above = len(remaining) + 1
            keys = [
                priority * above - path
                for priority, path in zip(priorities, remaining, strict=True)
            ]
        numbers: Sequence[int] = range(len(keys))
        if registered is not self.tasks:
            numbers = [self.numbers[definition.name] for definition in registered]
        elif keys == sorted(keys):
            by_place = list(numbers)
            return by_place, by_place
        # Sorting is stable: what is equal stays as it was registered.
        by_place = sorted(numbers, key=keys.__getitem__)
        place = [0] * len(by_place)
        for at, number in enumerate(by_place):
            place[number] = at
        return by_place, place


def _definitions(tasks: object) -> tuple[TaskDef, ...]:
    """The tasks of a graph as they were given, unless they are something else or share a name."""
    if isinstance(tasks, str | bytes) or not isinstance(tasks, Iterable):
        raise TypeError(
            f"Expected tasks to be a TaskRegistry or a list of TaskDef, got {shown(tasks)}."
        )
    definitions = tuple(tasks)
    # The names' set is quicker than a look at each, and a graph may have a million tasks.
    names = {definition.name for definition in definitions if type(definition) is TaskDef}
    if len(names) == len(definitions):
        return definitions
    for given in definitions:
        if not isinstance(given, TaskDef):
            raise TypeError(
                "Expected tasks to be a TaskRegistry or a list of TaskDef, got "
                f"{shown(given)} in the list. TaskScheduler(tasks).graph takes decorated functions."
            )
    return distinct(definitions)


def distinct(definitions: Iterable[TaskDef]) -> tuple[TaskDef, ...]:
    """The definitions, each once.

    Raises:
        DuplicateTaskError: two of them have one name.
    """
    by_name: dict[str, TaskDef] = {}
    for definition in definitions:
        existing = by_name.setdefault(definition.name, definition)
        if existing is not definition:
            raise DuplicateTaskError.between(
                definition.name, existing.function, definition.function
            )
    return tuple(by_name.values())


def _cycle_path(unsorted: dict[str, TaskDef]) -> list[str]:
    """The shortest cycle through the task that a walk from the first one meets twice.

    Every task that Kahn's algorithm leaves over has a dependency that is left over too, so a walk
    along them can only end in a cycle.
    """
    start = next(iter(unsorted))
    met: set[str] = set()
    while start not in met:
        met.add(start)
        start = next(name for name in unsorted[start].depends_on if name in unsorted)
    # Breadth first from there finds the shortest way back.
    reached_from: dict[str, str] = {}
    frontier = deque([start])
    while start not in reached_from:
        name = frontier.popleft()
        for dependency in unsorted[name].depends_on:
            if dependency in unsorted and dependency not in reached_from:
                reached_from[dependency] = name
                frontier.append(dependency)
    path = [start, reached_from[start]]
    while path[-1] != start:
        path.append(reached_from[path[-1]])
    return path[::-1]

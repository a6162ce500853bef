"""What depends on what: a validated graph of tasks, worked out once and never changed."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from operator import neg

from ._errors import (
    CyclicDependencyError,
    DependencyError,
    UnknownTargetError,
    nearest_names,
)
from ._parameters import Parameter
from ._tasks import Priority, TaskDef, definition_of

# Shared by all tasks that have none: a million empty lists would be 56 MB.
_NONE: Sequence[int] = ()


class Graph:
    """Tasks in topological order, with their edges and the order in which they are to start.

    A task's number is its place in `tasks`. Tasks keep the order in which they were given as far
    as their dependencies allow it, so most graphs are numbered as they were written.

    Attributes:
        tasks: the definitions, every one after all that it depends on.
        numbers: name to number.
        inputs: for each parameter that no task fills, so that a run has to, the names of the tasks
            that ask for it.
        sources: for the tasks that have parameters to fill, pairs of the parameter and the number
            of the task whose result it takes; None for an input of the run.
        lifetimes: numbers of the tasks that yield once.
        followers: for the tasks that others come `after`, the numbers of those.
        dependencies: for each task the numbers of its direct dependencies.
        dependents: for each task the numbers of its direct dependents.
        place: for each task its place in the start order: of the tasks that are ready, the one
            with the lowest place starts first.
        by_place: the inverse, from place to number.
        waiting: for each task how many others it waits for, both kinds together.

    Raises:
        DependencyError: a task depends on a name that no task bears.
        CyclicDependencyError: tasks depend on each other in a circle.
    """

    __slots__ = (
        "by_place",
        "dependencies",
        "dependents",
        "followers",
        "inputs",
        "lifetimes",
        "numbers",
        "place",
        "sources",
        "tasks",
        "waiting",
    )

    tasks: tuple[TaskDef, ...]
    numbers: dict[str, int]
    dependencies: list[Sequence[int]]
    dependents: list[Sequence[int]]
    place: list[int]
    by_place: list[int]
    waiting: list[int]
    inputs: dict[str, list[str]]
    sources: dict[int, list[tuple[Parameter, int | None]]]
    followers: dict[int, list[int]]
    lifetimes: list[int]

    def __init__(
        self,
        tasks: Iterable[TaskDef],
        *,
        inherit_priority: bool = False,
    ) -> None:
        self.tasks = tuple(tasks)
        self.inputs = {}
        self.sources = {}
        wants = _wants(self.tasks)
        if not self._connect(wants):
            self.tasks = self._sorted(wants)
            self._connect(wants)
        self.waiting = list(map(len, self.dependencies))
        for followers in self.followers.values():
            for follower in followers:
                self.waiting[follower] += 1
        if wants:
            self._find_sources()
        self.lifetimes = [
            number for number, definition in enumerate(self.tasks) if definition.is_lifetime()
        ]
        if self.lifetimes and self.followers:
            _sorted_names(self._closing_order(wants))
        self.by_place, self.place = self._start_order(inherit_priority=inherit_priority)

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        return f"<Graph of {len(self)} tasks>"

    def remaining_path(self) -> list[float]:
        """For each task the length of the longest path from it to an end of the graph, itself too.

        In seconds where there are estimates, and a task without one counts as one second; in
        tasks where there are none.
        """
        own = [definition.estimate for definition in self.tasks]
        if own.count(None) == len(own):
            seconds: list[float] = [1] * len(own)
        else:
            seconds = [1 if estimate is None else estimate for estimate in own]
        before = self.dependencies
        if self.followers:
            before = [
                [*needed, *(self.numbers[name] for name in definition.after)]
                for needed, definition in zip(before, self.tasks, strict=True)
            ]
        remaining: list[float] = [0] * len(own)
        for number in range(len(own) - 1, -1, -1):
            length = remaining[number] = remaining[number] + seconds[number]
            for earlier in before[number]:
                remaining[earlier] = max(remaining[earlier], length)
        return remaining

    def needed_for(self, targets: Iterable[str]) -> list[TaskDef]:
        """The definitions of `targets` and of all that they depend on, in topological order.

        Raises:
            DependencyError: a target is not the name of a task.
        """
        wanted: set[int] = set()
        for name in targets:
            if name not in self.numbers:
                raise UnknownTargetError(name, nearest_names(name, list(self.numbers)))
            wanted.add(self.numbers[name])
        for number in range(len(self.tasks) - 1, -1, -1):
            if number in wanted:
                wanted.update(self.dependencies[number])
                # `after` alone pulls nothing in, but a parameter that is to be filled does.
                sources = self.sources.get(number, ())
                wanted.update(source for _, source in sources if source is not None)
        names = {self.tasks[number].name for number in wanted}
        needed = []
        for number in sorted(wanted):
            definition = self.tasks[number]
            after = tuple(name for name in definition.after if name in names)
            needed.append(replace(definition, after=after) if definition.after else definition)
        return needed

    def _connect(self, wants: dict[str, tuple[str, ...]]) -> bool:
        """Number names and edges, unless a task stands before one that it depends on.

        It mostly does not, since a program defines a function before it refers to it. Then there
        is nothing to sort, no cycle to look for, and one pass does: a name that is not numbered
        by the time it is asked for tells.
        """
        self.followers = {}
        self.numbers = {}
        numbers = self.numbers
        self.dependencies = dependencies = [_NONE] * len(self.tasks)
        self.dependents = dependents = [_NONE] * len(self.tasks)
        for number, definition in enumerate(self.tasks):
            asked = definition.depends_on
            if definition.parameters:
                asked = wants[definition.name]
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
            if definition.after:
                for name in definition.after:
                    if name not in numbers:
                        return False
                    self.followers.setdefault(numbers[name], []).append(number)
            numbers[definition.name] = number
        return True

    def _find_sources(self) -> None:
        """What fills each parameter, now that the tasks have their numbers."""
        for number, definition in enumerate(self.tasks):
            for parameter in definition.parameters or ():
                source = _source_name(parameter)
                filled: tuple[Parameter, int | None]
                if source in self.numbers and (parameter.required or parameter.result_of):
                    filled = (parameter, self.numbers[source])
                elif parameter.result_of is None and parameter.required:
                    self.inputs.setdefault(parameter.name, []).append(definition.name)
                    filled = (parameter, None)
                else:
                    continue
                self.sources.setdefault(number, []).append(filled)

    def _sorted(self, wants: dict[str, tuple[str, ...]]) -> tuple[TaskDef, ...]:
        """The tasks in topological order."""
        definitions = {definition.name: definition for definition in self.tasks}
        before = {}
        for name, definition in definitions.items():
            asked = before[name] = (*wants.get(name, definition.depends_on), *definition.after)
            for one in asked:
                if one not in definitions:
                    raise DependencyError(name, one, nearest_names(one, list(definitions)))
        return tuple(definitions[name] for name in _sorted_names(before))

    def _closing_order(self, wants: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """What comes before what, where the close of each lifetime is a node of its own.

        It comes after all who use the lifetime, and if those are lifetimes too, after their close.
        A task that comes after a lifetime waits for its close.
        """
        end = {definition.name: definition.name for definition in self.tasks}
        end.update((self.tasks[at].name, self.tasks[at].name + _CLOSE) for at in self.lifetimes)
        before: dict[str, tuple[str, ...]] = {}
        for definition in self.tasks:
            needed = wants.get(definition.name, definition.depends_on)
            before[definition.name] = (*needed, *(end[name] for name in definition.after))
        for at in self.lifetimes:
            name = self.tasks[at].name
            users = (end[self.tasks[user].name] for user in self.dependents[at])
            before[name + _CLOSE] = (name, *users)
        return before

    def _start_order(self, *, inherit_priority: bool) -> tuple[list[int], list[int]]:
        """Numbers by place, and places by number: by priority, longest path, registration.

        Taking the longest remaining path first is list scheduling by critical path (Kohler 1975).
        """
        remaining = self.remaining_path()
        priorities: list[int] = [definition.priority for definition in self.tasks]
        if inherit_priority:
            for number in range(len(priorities) - 1, -1, -1):
                for dependency in self.dependencies[number]:
                    priorities[dependency] = min(priorities[dependency], priorities[number])
        if priorities.count(Priority.MEDIUM) == len(priorities):
            keys = list(map(neg, remaining))
        else:
            # One number to compare instead of two: priority above, path below.
            above = max(remaining) + 1
            keys = [
                priority * above - path
                for priority, path in zip(priorities, remaining, strict=True)
            ]
        if keys == sorted(keys):
            by_place = list(range(len(keys)))
            return by_place, by_place
        by_place = sorted(range(len(keys)), key=keys.__getitem__)
        place = [0] * len(by_place)
        for at, number in enumerate(by_place):
            place[number] = at
        return by_place, place


def _wants(tasks: Sequence[TaskDef]) -> dict[str, tuple[str, ...]]:
    """For the tasks that have parameters, all that they depend on: said, and asked for by name."""
    asking = [definition for definition in tasks if definition.parameters]
    if not asking:
        return {}
    names = {definition.name for definition in tasks}
    wants = {}
    for definition in asking:
        asked = dict.fromkeys(definition.depends_on)
        for parameter in definition.parameters or ():
            source = _source_name(parameter)
            fills = parameter.required and source in names
            if (fills or parameter.result_of is not None) and source not in definition.after:
                asked[source] = None
        wants[definition.name] = tuple(asked)
    return wants


def _source_name(parameter: Parameter) -> str:
    marked = parameter.result_of
    if marked is None:
        return parameter.name
    return marked if isinstance(marked, str) else definition_of(marked).name


# Marks the node for the close of a lifetime; no task's name would end like this.
_CLOSE = "\0close"


def _sorted_names(before: dict[str, tuple[str, ...]]) -> list[str]:
    """The names in topological order (Kahn 1962), the earlier first where there is a choice.

    Args:
        before: for each name those that have to come before it.

    Raises:
        CyclicDependencyError: there is no such order.
    """
    names = list(before)
    numbers = {name: number for number, name in enumerate(names)}
    waiting = list(map(len, before.values()))
    dependents: list[list[int]] = [[] for _ in names]
    for number, earlier in enumerate(before.values()):
        for name in earlier:
            dependents[numbers[name]].append(number)
    ready = [number for number, left in enumerate(waiting) if not left]
    heapify(ready)
    order = []
    while ready:
        number = heappop(ready)
        order.append(names[number])
        for dependent in dependents[number]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heappush(ready, dependent)
    if len(order) < len(names):
        left_over = [names[number] for number, left in enumerate(waiting) if left]
        path = _cycle_path({name: before[name] for name in left_over})
        # The open and the close of a lifetime are one task to who reads it.
        shown = [name.removesuffix(_CLOSE) for name in path]
        raise CyclicDependencyError(
            [name for name, earlier in zip(shown, ["", *shown], strict=False) if name != earlier]
            if len(set(shown)) > 1
            else shown[:2]
        )
    return order


def _cycle_path(unsorted: dict[str, tuple[str, ...]]) -> list[str]:
    """The shortest cycle through the task that a walk from the first one meets twice.

    Every task that Kahn's algorithm leaves over has a dependency that is left over too, so a walk
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
        for dependency in unsorted[name]:
            if dependency in unsorted and dependency not in reached_from:
                reached_from[dependency] = name
                frontier.append(dependency)
    path = [start, reached_from[start]]
    while path[-1] != start:
        path.append(reached_from[path[-1]])
    return path[::-1]

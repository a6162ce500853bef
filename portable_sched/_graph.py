"""What depends on what: a validated graph of tasks, worked out once and never changed."""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from operator import neg

from ._checks import shown
from ._dataflow import (
    Source,
    dependencies_of,
    results_in_a_row,
    sources_of,
    warn_of_misfits,
)
from ._errors import DependencyError, DuplicateTaskError, UnknownTargetError, nearest_names
from ._formats import pictures_for_notebook
from ._sorting import CLOSE, sorted_names
from ._tasks import THREAD, Priority, TaskDef

# Shared by all tasks that have none: a million empty lists would be 56 MB.
_NONE: Sequence[int] = ()


class Graph:
    """Tasks in topological order, with their edges and the order in which they are to start.

    A task's number is its place in `tasks`. Tasks keep the order in which they were given as far
    as their dependencies allow it, so most graphs are numbered as they were written.

    Args:
        tasks: the definitions.
        inherit_priority: whether what a more urgent task waits for counts as that urgent.

    Attributes:
        tasks: the definitions, every one after all that it depends on or comes after.
        numbers: name to number.
        dependencies: for each task the numbers of its direct dependencies.
        dependents: for each task the numbers of its direct dependents.
        followers: for the tasks that others come `after`, the numbers of those.
        waiting: for each task how many others it waits for, both kinds together.
        sources: for the tasks that have parameters, what fills each of them.
        rows: for those of them that take nothing but results, by position, the numbers of the
            tasks that these come from.
        inputs: for each parameter that no task fills, so that a run has to, the names of the tasks
            that ask for it.
        lifetimes: numbers of the tasks that yield once.
        special: numbers of the tasks that are more than a plain `async def`, in their order.
        executors: names of the executors that its tasks run in, "thread" apart.
        urgency: for each task its priority, its own or inherited; the lowest is the most urgent.
        place: for each task its place in the start order: of the tasks that are ready, the one
            with the lowest place starts first.
        by_place: the inverse, from place to number.

    Raises:
        DependencyError: a task depends on a name that no task bears.
        CyclicDependencyError: tasks depend on each other in a circle.

    >>> from portable_sched import TaskRegistry, TaskScheduler
    >>> registry = TaskRegistry()
    >>> @registry.task(estimate=5)
    ... async def fetch() -> bytes: ...
    >>> @registry.task
    ... async def stamp() -> str: ...
    >>> @registry.task
    ... async def load(fetch: bytes, stamp: str) -> None: ...
    >>> graph = TaskScheduler(registry).graph
    >>> graph.levels()
    [['fetch', 'stamp'], ['load']]
    >>> graph.critical_path()
    ['fetch', 'load']
    """

    __slots__ = (
        "_inherit_priority",
        "_registered",
        "by_place",
        "dependencies",
        "dependents",
        "executors",
        "followers",
        "inputs",
        "lifetimes",
        "numbers",
        "place",
        "rows",
        "sources",
        "special",
        "tasks",
        "urgency",
        "waiting",
    )

    tasks: tuple[TaskDef, ...]
    numbers: dict[str, int]
    dependencies: list[Sequence[int]]
    dependents: list[Sequence[int]]
    followers: dict[int, list[int]]
    waiting: list[int]
    sources: dict[int, tuple[Source, ...]]
    rows: dict[int, tuple[int, ...]]
    inputs: dict[str, list[str]]
    lifetimes: list[int]
    special: list[int]
    executors: set[str]
    urgency: list[int]
    place: list[int]
    by_place: list[int]

    def __init__(self, tasks: Iterable[TaskDef], *, inherit_priority: bool = False) -> None:
        self._inherit_priority = inherit_priority
        self.tasks = self._registered = _definitions(tasks)
        asked = self._asked_for()
        if not self._connect(asked):
            self.tasks = self._sorted(asked)
            self._connect(asked)
        self.waiting = list(map(len, self.dependencies))
        self.sources = {}
        self.rows = {}
        self.inputs = {}
        self.lifetimes = []
        self.executors = set()
        if asked:
            self._look_at_what_is_special(asked)
        self.by_place, self.place = self._start_order()

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        return f"<Graph of {len(self)} tasks>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """What a notebook shows: a picture, as SVG where Graphviz is there, and as Mermaid."""
        return pictures_for_notebook(self)

    @property
    def order(self) -> list[str]:
        """The names of all tasks in topological order, as the results of a run will have them."""
        return [definition.name for definition in self.tasks]

    def levels(self) -> list[list[str]]:
        """The names by level: a task's level is one above the highest of what it waits for."""
        level = [0] * len(self.tasks)
        levels: list[list[str]] = []
        for number, definition in enumerate(self.tasks):
            level[number] = max(
                (level[earlier] + 1 for earlier in self.waits_for(number)), default=0
            )
            if level[number] == len(levels):
                levels.append([])
            levels[level[number]].append(definition.name)
        return levels

    def critical_path(self) -> list[str]:
        """The names along the longest path, by the seconds of `remaining_path`, first to last.

        No schedule can be shorter than this path. Of equally long ones it is the first.
        """
        remaining = self.remaining_path()
        path: list[str] = []
        reachable: Iterable[int] = range(len(self.tasks))
        while reachable:
            number = max(reachable, key=remaining.__getitem__)
            path.append(self.tasks[number].name)
            reachable = [*self.dependents[number], *self.followers.get(number, ())]
        return path

    def waits_for(self, number: int) -> Sequence[int]:
        """The numbers of what a task waits for: its dependencies, and what it comes `after`."""
        definition = self.tasks[number]
        if definition.is_simple or not definition.after:
            return self.dependencies[number]
        return [*self.dependencies[number], *(self.numbers[name] for name in definition.after)]

    def remaining_path(self) -> list[float]:
        """For each task the length of the longest path from it to an end of the graph, itself too.

        In seconds, where a task without an `estimate` counts as one second: in tasks where there
        are no estimates.
        """
        own: list[float] = [1] * len(self.tasks)
        before = self.dependencies
        for number in self.special:
            estimate = self.tasks[number].estimate
            if estimate is not None:
                own[number] = estimate
        if self.followers:
            before = [self.waits_for(number) for number in range(len(own))]
        remaining = own.copy()
        for number in range(len(own) - 1, -1, -1):
            length = remaining[number]
            for earlier in before[number]:
                remaining[earlier] = max(remaining[earlier], own[earlier] + length)
        return remaining

    def subset(self, targets: Iterable[str]) -> "Graph":
        """The graph of `targets` and what they need: their dependencies, and so on.

        What a task comes `after` is no need of it, unless it takes that one's `TaskResult`.

        Raises:
            UnknownTargetError: a target is not the name of a task.
        """
        wanted: set[int] = set()
        for name in targets:
            if name not in self.numbers:
                raise UnknownTargetError(name, nearest_names(name, list(self.numbers)))
            wanted.add(self.numbers[name])
        for number in range(len(self.tasks) - 1, -1, -1):
            if number in wanted:
                wanted.update(self.dependencies[number])
                sources = self.sources.get(number, ())
                wanted.update(source.task for source in sources if source.task is not None)
        names = {self.tasks[number].name for number in wanted}

        def without_others(definition: TaskDef) -> TaskDef:
            if names.issuperset(definition.after):
                return definition
            after = tuple([name for name in definition.after if name in names])
            return replace(definition, after=after)

        # As they were registered, not as they are sorted: that decides where all else is equal.
        needed = [without_others(each) for each in self._registered if each.name in names]
        return Graph(needed, inherit_priority=self._inherit_priority)

    def reordered(self, by_place: Iterable[int]) -> "Graph":
        """The same graph with another start order, from place to number; no task is urgent."""
        other = copy(self)
        other.by_place = list(by_place)
        other.place = _inverse(other.by_place)
        other.urgency = [Priority.MEDIUM] * len(other.by_place)
        return other

    def _asked_for(self) -> dict[str, tuple[str, ...]]:
        """For the special tasks all that they depend on, once it is known which tasks there are."""
        special = [definition for definition in self.tasks if not definition.is_simple]
        if not special:
            return {}
        names = {definition.name for definition in self.tasks}
        return {definition.name: dependencies_of(definition, names) for definition in special}

    def _look_at_what_is_special(self, asked: dict[str, tuple[str, ...]]) -> None:
        for number in self.special:
            definition = self.tasks[number]
            self.waiting[number] += len(definition.after)
            if definition.is_lifetime():
                self.lifetimes.append(number)
            if definition.executor is not None and definition.executor != THREAD:
                self.executors.add(definition.executor)
            sources = sources_of(definition, self.numbers)
            if sources:
                self.sources[number] = sources
                row = results_in_a_row(definition, sources)
                if row:
                    self.rows[number] = row
                    continue
            for source in sources:
                if source.task is None and source.parameter.required:
                    takers = self.inputs.setdefault(source.parameter.name, [])
                    takers.append(definition.name)
        warn_of_misfits(self.tasks, self.sources)
        if self.lifetimes and self.followers:
            self._refuse_to_wait_for_own_close(asked)

    def _connect(self, special: dict[str, tuple[str, ...]]) -> bool:
        """Number names and edges, unless a task stands before one that it waits for.

        It mostly does not, since a program defines a function before it refers to it. Then there
        is nothing to sort, no cycle to look for, and one pass does: a name that is not numbered
        by the time it is asked for tells.

        Args:
            special: what the special tasks depend on, by name.
        """
        self.numbers = {}
        self.followers = {}
        self.special = []
        numbers = self.numbers
        self.dependencies = dependencies = [_NONE] * len(self.tasks)
        self.dependents = dependents = [_NONE] * len(self.tasks)
        for number, definition in enumerate(self.tasks):
            asked = definition.depends_on
            if not definition.is_simple:
                self.special.append(number)
                asked = special[definition.name]
                for name in definition.after:
                    if name not in numbers:
                        return False
                    self.followers.setdefault(numbers[name], []).append(number)
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

    def _sorted(self, special: dict[str, tuple[str, ...]]) -> tuple[TaskDef, ...]:
        """The tasks in topological order."""
        definitions = {definition.name: definition for definition in self.tasks}
        before = {}
        for name, definition in definitions.items():
            before[name] = definition.depends_on
            if not definition.is_simple:
                before[name] = (*special[name], *definition.after)
            for one in before[name]:
                if one not in definitions:
                    raise DependencyError(name, one, nearest_names(one, list(definitions)))
        return tuple([definitions[name] for name in sorted_names(before)])

    def _refuse_to_wait_for_own_close(self, special: dict[str, tuple[str, ...]]) -> None:
        """Find cycles that run through the close of a lifetime, which is a step of its own.

        It comes after all who use the lifetime, and if those are lifetimes too, after their close.
        A task that comes after a lifetime waits for its close.
        """
        end = {definition.name: definition.name for definition in self.tasks}
        end.update((self.tasks[at].name, self.tasks[at].name + CLOSE) for at in self.lifetimes)
        before: dict[str, tuple[str, ...]] = {}
        for definition in self.tasks:
            needed = special.get(definition.name, definition.depends_on)
            before[definition.name] = (*needed, *(end[name] for name in definition.after))
        for at in self.lifetimes:
            name = self.tasks[at].name
            users = (end[self.tasks[user].name] for user in self.dependents[at])
            before[name + CLOSE] = (name, *users)
        sorted_names(before)

    def _start_order(self) -> tuple[list[int], list[int]]:
        """Numbers by place, and places by number: by priority, longest path, registration.

        Taking the longest remaining path first is list scheduling by critical path (Kohler 1975).
        """
        remaining = self.remaining_path()
        self.urgency = [definition.priority for definition in self.tasks]
        if self._inherit_priority:
            self._inherit()
        if self.urgency.count(Priority.MEDIUM) == len(self.urgency):
            keys = list(map(neg, remaining))
        else:
            # One number to compare instead of a tuple: priority above, path below.
            above = max(remaining) + 1
            keys = [
                priority * above - path
                for priority, path in zip(self.urgency, remaining, strict=True)
            ]
        numbers: Sequence[int] = range(len(keys))
        if self._registered is not self.tasks:
            numbers = [self.numbers[definition.name] for definition in self._registered]
        elif keys == sorted(keys):
            by_place = list(numbers)
            return by_place, by_place
        # Sorting is stable: what is equal stays as it was registered.
        by_place = sorted(numbers, key=keys.__getitem__)
        return by_place, _inverse(by_place)

    def _inherit(self) -> None:
        urgency = self.urgency
        for number in range(len(urgency) - 1, -1, -1):
            for earlier in self.waits_for(number):
                urgency[earlier] = min(urgency[earlier], urgency[number])


def _inverse(by_place: Sequence[int]) -> list[int]:
    """From number to place what is from place to number."""
    place = [0] * len(by_place)
    for at, number in enumerate(by_place):
        place[number] = at
    return place


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

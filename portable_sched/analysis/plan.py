"""What a run would take: the pure state, driven through a graph without calling any function."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import compress

from portable_sched._checks import Demand, as_seconds
from portable_sched._graph import Graph
from portable_sched._resources import ResourceState, demands_of, with_threads
from portable_sched._results import COMPLETED, PENDING, RUNNING, RunRecord, RunResults
from portable_sched._state import NOTHING, RunState

from .timeline import attempt_spans, due_at, is_in_function
from .wording import Told, in_seconds, listed

_NEAR_THE_BEST = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """What a run takes at one limit.

    Attributes:
        max_concurrency: the limit; None for none.
        makespan: seconds from start to end.
        lower_bound: seconds that no order of starting the tasks can go below: the longest path, or
            the work that has to go through a limit.
        busy: the average number of tasks that run at one time.
    """

    max_concurrency: int | None
    makespan: float
    lower_bound: float
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Told):
    """What a graph takes at several limits. `str()` makes a table.

    Attributes:
        runs: one for each limit that was asked for.
        critical_path: seconds along the longest path: no limit makes it shorter.
        work: seconds of all tasks together.
        knee: the first of the limits, from low to high, that is within 5 % of the best.
        unknown: tasks of which nobody knows the seconds: each counts as what the others take on
            average, and as one second where nobody knows anything.
        guess: the seconds that each of those counts as.
    """

    runs: tuple[PlannedRun, ...]
    critical_path: float
    work: float
    knee: int | None
    unknown: tuple[str, ...]
    guess: float

    def __str__(self) -> str:
        """A line for each limit, and what the lines have in common."""
        rows = [("max_concurrency", "takes", "at least", "busy", "")]
        for run in self.runs:
            knee = "<- more gains less than 5 %" if self._is_knee(run) else ""
            limit = "none" if run.max_concurrency is None else str(run.max_concurrency)
            bound = in_seconds(run.lower_bound)
            rows.append((limit, in_seconds(run.makespan), bound, f"{run.busy:.1f}", knee))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([*map(str.rjust, cells[:4], widths), cells[4]]).rstrip() for cells in rows
        ]
        lines.append(
            f"longest path {in_seconds(self.critical_path)}, work of all tasks "
            f"{in_seconds(self.work)}"
        )
        if self.unknown:
            each = in_seconds(self.guess)
            lines.append(f"counted as {each} each, for want of an estimate: {listed(self.unknown)}")
        return "\n".join(lines)

    def _is_knee(self, run: PlannedRun) -> bool:
        return len(self.runs) > 1 and run.max_concurrency == self.knee


def planned(
    graph: Graph,
    limits: Sequence[int | None],
    capacity: Mapping[str, int],
    seconds: Mapping[str, float],
) -> Plan:
    """What a graph takes at each limit, started in the order in which a run would start it.

    A list schedule: greedy, by priority and longest remaining path (Kohler 1975). Attempts succeed
    at once, lifetimes close in no time, and what the engine itself takes is left out.

    Args:
        graph: what is to run.
        limits: values of `max_concurrency`.
        capacity: units that there are of each resource.
        seconds: what tasks take, by name; for the others their estimate counts, else the average of
            what is known, else one second.
    """
    given = [seconds.get(definition.name, definition.estimate) for definition in graph.tasks]
    known = [each for each in given if each is not None]
    guess = sum(known) / len(known) if known else 1.0
    own = [guess if each is None else each for each in given]
    unknown = [
        definition.name for definition, each in zip(graph.tasks, given, strict=True) if each is None
    ]
    critical_path = longest_path(graph, own)
    work = sum(own)
    runs = []
    for limit in limits:
        demands = demands_of(graph, capacity, limit)
        state = _state(graph, demands, with_threads(capacity))
        makespan = _carried_through(state, own, limit or len(graph))
        bound = max(critical_path, *_bounds(own, work, demands, capacity, limit))
        busy = work / makespan if makespan else 0.0
        runs.append(
            PlannedRun(max_concurrency=limit, makespan=makespan, lower_bound=bound, busy=busy)
        )
    return Plan(
        runs=tuple(runs),
        critical_path=critical_path,
        work=work,
        knee=_knee(runs),
        unknown=tuple(unknown),
        guess=guess,
    )


def remaining(
    results: RunResults, now: float, seconds: Mapping[str, float] | None = None
) -> float | None:
    """Seconds until the end of a run that goes on, by simulation of what is left.

    A task takes what `seconds` says, else its estimate, else what those that have completed in this
    run took on average: a guess, and the only one there is. A task that has run for longer than
    that is taken to end now.

    Args:
        results: of the run.
        now: seconds since it began.
        seconds: what tasks are known to take, by name.

    Returns:
        None where nobody can know: a task is left of which nothing is known, and none has
        completed yet.
    """
    record = results._record  # noqa: SLF001 - the columns are the data, and this reads them
    seconds = {} if seconds is None else seconds
    # All at once, since the run may go on in another thread meanwhile.
    status = bytes(record.status)
    left: list[float] = [0.0] * len(record.tasks)
    average: float | None = None
    for number, code in enumerate(status):
        if code not in {PENDING, RUNNING}:
            continue
        definition = record.tasks[number]
        expected = seconds.get(definition.name, definition.estimate)
        if expected is None:
            if average is None:
                average = _average_of_the_completed(record, status)
            if average is None:
                return None
            expected = average
        if code == RUNNING:
            if is_in_function(record, number):
                expected -= now - (record.attempt_start_of(number) - record.began)
            else:
                expected += max(0.0, due_at(record, number) - now)
        left[number] = max(0.0, expected)
    state = _state(record.graph, record.demands or None, record.capacity)
    limit = record.limit or max(1, len(left))
    return _carried_through(state, left, limit, _gone_on_with(state, record, status))


def known_seconds(seconds: RunResults | Mapping[str, float] | None) -> dict[str, float]:
    """What tasks are known to take, by name: from an earlier run, or as they were given.

    Raises:
        TypeError, ValueError: they are neither.
    """
    return seconds_of(seconds) if isinstance(seconds, RunResults) else as_seconds(seconds)


def seconds_of(results: RunResults) -> dict[str, float]:
    """What each task that ran was in its function for, all attempts together, by name."""
    seconds: dict[str, float] = {}
    for span in attempt_spans(results):
        seconds[span.task_name] = seconds.get(span.task_name, 0.0) + span.duration
    return seconds


def longest_path(graph: Graph, own: Sequence[float]) -> float:
    """Seconds along the longest path of tasks that wait for each other.

    Args:
        graph: the tasks.
        own: seconds that each of them takes.
    """
    until = [0.0] * len(own)
    for number, seconds in enumerate(own):
        before = [until[earlier] for earlier in graph.waits_for(number)]
        until[number] = max(before, default=0.0) + seconds
    return max(until, default=0.0)


def _state(graph: Graph, demands: Sequence[Demand] | None, capacity: Mapping[str, int]) -> RunState:
    if demands is None:
        return RunState(graph, 0.0)
    return ResourceState(graph, 0.0, demands, capacity)


def _carried_through(
    state: RunState, own: Sequence[float], limit: int, running: Collection[int] = ()
) -> float:
    """The time at which the last task ends, where each takes its own seconds."""
    now = 0.0
    ends = [(own[number], number) for number in running]
    heapify(ends)
    complete = _completing(state)
    while True:
        while len(ends) < limit and (number := state.take(now)) != NOTHING:
            heappush(ends, (now + own[number], number))
        if not ends:
            return now
        now, number = heappop(ends)
        complete(number, now)


def _completing(state: RunState) -> Callable[[int, float], None]:
    """What completes a task, and at once closes the lifetimes that nobody uses any more."""
    unused: list[int] = []

    def close(number: int) -> bool:
        unused.append(number)
        return True

    def complete(number: int, now: float) -> None:
        state.completed(number, None, now)
        while unused:
            state.closed(unused.pop(), None, now)

    state.close = close
    return complete


def _gone_on_with(state: RunState, record: RunRecord, status: bytes) -> list[int]:
    """Bring a new state to where a run stands; answers which tasks are inside their functions."""
    graph = record.graph
    complete = _completing(state)
    ended = [code not in {PENDING, RUNNING} for code in status]
    for number in compress(range(len(ended)), ended):
        complete(number, 0.0)
    if isinstance(state, ResourceState):
        # Nobody had taken what these gave back.
        state.free = dict(record.capacity)
    ready = [
        place for place in sorted({*state.heap, *state.backlog}) if not ended[graph.by_place[place]]
    ]
    running = {
        number
        for number, code in enumerate(status)
        if code == RUNNING and is_in_function(record, number)
    }
    state.backlog = []
    state.heap = [place for place in ready if graph.by_place[place] in running]
    taken: list[int] = []
    while (number := state.take(0.0)) != NOTHING:
        taken.append(number)
    state.heap = [place for place in ready if graph.by_place[place] not in running]
    return taken


def _average_of_the_completed(record: RunRecord, status: bytes) -> float | None:
    took = [
        record.ended[number] - record.started[number]
        for number, code in enumerate(status)
        if code == COMPLETED
    ]
    return sum(took) / len(took) if took else None


def _bounds(
    own: Sequence[float],
    work: float,
    demands: Sequence[Demand] | None,
    capacity: Mapping[str, int],
    limit: int | None,
) -> list[float]:
    """Seconds that it takes at least to get all the work through each limit."""
    bounds = [0.0 if limit is None else work / limit]
    held: dict[str, float] = {}
    for seconds, demand in zip(own, demands or (), strict=demands is not None):
        for resource, units in demand:
            held[resource] = held.get(resource, 0.0) + units * seconds
    units_of = with_threads(capacity)
    return bounds + [unit_seconds / units_of[name] for name, unit_seconds in held.items()]


def _knee(runs: Sequence[PlannedRun]) -> int | None:
    """The lowest limit that is nearly as good as the best."""
    best = min((run.makespan for run in runs), default=0.0)
    good = [run.max_concurrency for run in runs if run.makespan <= best * _NEAR_THE_BEST]
    return min((limit for limit in good if limit is not None), default=None)

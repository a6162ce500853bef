"""The state of a run in which tasks hold resources while they run."""

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, Final

from ._checks import Demand
from ._graph import Graph
from ._state import RunState
from ._tasks import TaskDef

THREAD: Final = ""
"""What a plain function holds: a resource like others, under a name that no user can give."""

MOST_THREADS: Final = 40
"""Threads of one run where `max_concurrency` does not say."""


def executor_resource(executor: str) -> str:
    """The name of the resource that a task holds which runs in an executor."""
    return f"executor {executor}"


def held_by(definition: TaskDef, capacity: Mapping[str, int]) -> Demand:
    """What a task holds: what it asks for, and a place in its executor where those are counted."""
    if definition.executor is None:
        return definition.resources
    place = executor_resource(definition.executor)
    if place not in capacity:
        return definition.resources
    return tuple(sorted({place: 1, **dict(definition.resources)}.items()))


def demands_of(graph: Graph, capacity: Mapping[str, int], limit: int | None) -> list[Demand] | None:
    """For each task what it holds while an attempt runs; None where nothing needs counting.

    Args:
        graph: what runs.
        capacity: the units that there are; of an executor that it does not name nobody knows them.
        limit: how many tasks may run at one time: threads too, so that they need no counting then.
    """
    demands: dict[int, Demand] = {}
    in_thread: list[int] = []
    for number in graph.special:
        definition = graph.tasks[number]
        demand = held_by(definition, capacity)
        if demand:
            demands[number] = demand
        if limit is None and definition.needs_thread():
            in_thread.append(number)
    if len(in_thread) > MOST_THREADS:
        for number in in_thread:
            demands[number] = (*demands.get(number, ()), (THREAD, 1))
    if not demands:
        return None
    return [demands.get(number, ()) for number in range(len(graph))]


def with_threads(capacity: Mapping[str, int]) -> dict[str, int]:
    """The units of each resource, the threads of a run among them."""
    return {**capacity, THREAD: MOST_THREADS}


class ResourceState(RunState):
    """The state of a run in which some tasks hold resources while an attempt runs.

    A task that has come up and asks for resources waits in the lane of those that ask for the
    same, so it is in the way of nobody who asks for something else. Of the lanes that have what
    they ask for, and of the tasks that ask for nothing, the best goes first.

    A large ask would wait for ever behind a stream of small ones. So, while it has to wait, it may
    be passed over at each resource that it asks for twice as often as the resource has units; from
    then on what is freed there is kept for it. Not from more urgent tasks, though, and not while it
    is short of another resource where it was not passed over as often: what is simply taken blocks
    nobody else.

    Args:
        demands: for each task what it holds.
        capacity: units that there are of each resource; no demand asks for more.

    Attributes:
        free: units of each resource that nobody holds.
        lanes: for each distinct demand the places, in the start order, of the tasks that wait.
        passed: for each demand and resource how often its best task was passed over.
    """

    __slots__ = ("_capacity", "_demands", "_urgency", "free", "lanes", "passed")

    def __init__(
        self,
        graph: Graph,
        began: float,
        demands: Sequence[Demand],
        capacity: Mapping[str, int],
        **settings: Any,
    ) -> None:
        super().__init__(graph, began, **settings)
        self._demands = demands
        self._capacity = capacity
        self._urgency = graph.urgency
        self.record.demands = demands
        self.record.capacity = capacity
        self.free = dict(capacity)
        self.lanes: dict[Demand, list[int]] = {}
        self.passed: dict[Demand, dict[str, int]] = {}
        self.heap = self.backlog[::-1]
        self.backlog = []

    def ready_count(self) -> int:
        count = len(self.heap)
        kept = self._kept()
        for demand, lane in self.lanes.items():
            if lane and self._may_start(demand, kept):
                fit = min([self.free[resource] // units for resource, units in demand])
                count += min(len(lane), fit)
        return count

    def take(self, now: float) -> int:
        heap = self.heap
        while heap and (demand := self._demands[self._by_place[heap[0]]]):
            heappush(self.lanes.setdefault(demand, []), heappop(heap))
        best: Demand | None = None
        best_place = heap[0] if heap else len(self._demands)
        kept = self._kept()
        for demand, lane in self.lanes.items():
            if lane and lane[0] < best_place and self._may_start(demand, kept):
                best, best_place = demand, lane[0]
        if best is not None:
            heappop(self.lanes[best])
            for resource, units in best:
                self.free[resource] -= units
            self._pass_over_others(best, self._urgency[self._by_place[best_place]])
            heappush(heap, best_place)
        return super().take(now)

    def resize(self, resource: str, units: int) -> None:
        """There are more units of a resource than there were, or fewer."""
        capacity = self.record.capacity
        self.free[resource] += units - capacity[resource]
        self.record.capacity = self._capacity = {**capacity, resource: units}

    def completed(self, number: int, result: object, now: float) -> None:
        self._release(number)
        super().completed(number, result, now)

    def failed(self, number: int, exception: BaseException, now: float) -> None:
        self._release(number)
        super().failed(number, exception, now)

    def cancelled(self, number: int, exception: BaseException | None, now: float) -> None:
        self._release(number)
        super().cancelled(number, exception, now)

    def _release(self, number: int) -> None:
        for resource, units in self._demands[number]:
            self.free[resource] += units

    def _may_start(self, demand: Demand, kept: Mapping[str, Demand]) -> bool:
        """Whether what a lane asks for is there, and not kept for another one."""
        for resource, units in demand:
            if units > self.free[resource]:
                return False
            keeper = kept.get(resource, demand)
            if keeper != demand and self._urgency_of(demand) >= self._urgency_of(keeper):
                # Two that keep for themselves what the other wants would wait for each other.
                is_better = self.lanes[demand][0] < self.lanes[keeper][0]
                if not (is_better and demand in kept.values()):
                    return False
        return True

    def _urgency_of(self, demand: Demand) -> int:
        """How urgent the best task of a lane is."""
        return self._urgency[self._by_place[self.lanes[demand][0]]]

    def _kept(self) -> dict[str, Demand]:
        """The resources that are kept for the best task of a lane."""
        kept: dict[str, Demand] = {}
        if not self.passed:
            return kept
        patient = [demand for demand in self.passed if self.lanes[demand]]
        for demand in sorted(patient, key=lambda demand: self.lanes[demand][0]):
            passed = self.passed[demand]
            enough = {
                resource
                for resource, _ in demand
                if passed.get(resource, 0) >= 2 * self._capacity[resource]
            }
            short = {resource for resource, units in demand if units > self.free[resource]}
            if enough and short <= enough:
                for resource in enough:
                    kept.setdefault(resource, demand)
        return kept

    def _pass_over_others(self, taken: Demand, urgency: int) -> None:
        """Count that a task was taken before others, as urgent or more, that now have to wait."""
        self.passed.pop(taken, None)
        resources = dict(taken)
        for demand, lane in self.lanes.items():
            if not lane or demand == taken or self._urgency_of(demand) > urgency:
                continue
            # At all that the two ask for, short of it or not: streams that take turns at two
            # resources leave now the one free and now the other, and never both.
            if any(units > self.free[resource] for resource, units in demand):
                for resource, _ in demand:
                    if resource in resources:
                        passed = self.passed.setdefault(demand, {})
                        passed[resource] = passed.get(resource, 0) + 1

    def _drop_ready(self) -> list[int]:
        dropped = super()._drop_ready()
        for lane in self.lanes.values():
            dropped += lane
            lane.clear()
        return dropped

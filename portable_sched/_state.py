"""What may start next: the ready tasks, what an ending releases, what a failure means.

Deciding is pure. Nothing here awaits, spawns or reads a clock: whoever carries the run out says
what has happened and when, and asks what to do. So every decision is tested without an event
loop, step by step against a naive model.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from heapq import heappop, heappush

from ._graph import Graph
from ._results import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    AttemptFailure,
    RunRecord,
)

NOTHING = -1
"""What `take` answers when no task may start."""

# Counted down from here, a task never becomes ready.
_NEVER_READY = -1

NEVER = -1.0
"""What `failed` answers when there is no next attempt."""


Demand = tuple[tuple[str, int], ...]
"""What a task holds while it runs: resources and their units."""


class FailurePolicy(Enum):
    """What a task that has failed for good means for the rest of the run."""

    CONTINUE = "CONTINUE"
    """What depends on it has failed too; everything else runs."""
    DRAIN = "DRAIN"
    """Nothing new starts, and what is running runs to its end."""
    CANCEL = "CANCEL"
    """Nothing new starts, and what is running is cancelled."""


def _nobody(number: int) -> None:
    """Stands for who closes lifetimes until the run has begun."""


class RunState:
    """The changing state of one run.

    A task goes through it as: ready, `take`, then `completed`, or `failed` (and perhaps ready and
    `take` again), or `cancelled`. Its numbers are those of the graph.

    Attributes:
        record: the columns of the run; written here alone.
        waiting: for each task how many of its dependencies have not succeeded yet.
        heap: the places, in the start order, of the tasks that have become ready.
        paused: tasks in backoff: RUNNING, and in nobody's hands.
        draining: whether nothing new starts any more.
        open: lifetimes between their `yield` and the end of their teardown.
        close: called with the number of a lifetime that nobody uses any more, once.
        backlog: the places of those that were ready from the beginning, the last one first. Taking
            one off a list costs the same for a million as for ten; a heap of a million takes twenty
            steps, each a cache miss.
    """

    __slots__ = (
        "_attempt_began",
        "_by_place",
        "_dependents",
        "_ended",
        "_followers",
        "_graph",
        "_place",
        "_policy",
        "_results",
        "_started",
        "_status",
        "_unusual",
        "_users",
        "backlog",
        "close",
        "draining",
        "heap",
        "open",
        "paused",
        "record",
        "waiting",
    )

    def __init__(
        self, graph: Graph, began: float, policy: FailurePolicy = FailurePolicy.CONTINUE
    ) -> None:
        self._graph = graph
        self._policy = policy
        self.paused: set[int] = set()
        self.draining = False
        self._attempt_began: dict[int, float] = {}
        self._place = graph.place
        self._by_place = graph.by_place
        self._dependents = graph.dependents
        self._followers = graph.followers
        # Of each lifetime, how many of the tasks that use it have not ended yet.
        self._users = {number: len(graph.dependents[number]) for number in graph.lifetimes}
        self._unusual = bool(self._followers or self._users)
        self.open: set[int] = set()
        self.close: Callable[[int], None] = _nobody
        self.record = record = RunRecord(graph.tasks, graph.numbers, began)
        self._status = record.status
        self._results = record.results
        self._started = record.started
        self._ended = record.ended
        self.waiting = graph.waiting.copy()
        self.heap: list[int] = []
        waiting = self.waiting
        self.backlog = [
            place for place in range(len(waiting) - 1, -1, -1) if not waiting[graph.by_place[place]]
        ]

    def ready_count(self) -> int:
        """How many tasks could start now if there were slots for all of them."""
        return len(self.heap) + len(self.backlog)

    def take(self, now: float) -> int:
        """The number of the best ready task, which counts as RUNNING from here on; or NOTHING."""
        heap = self.heap
        backlog = self.backlog
        if heap and (not backlog or heap[0] < backlog[-1]):
            number = self._by_place[heappop(heap)]
        elif backlog:
            number = self._by_place[backlog.pop()]
        else:
            return NOTHING
        status = self._status
        if status[number] == PENDING:
            status[number] = RUNNING
            self._started[number] = now
        else:
            record = self.record
            record.attempts[number] = record.attempts.get(number, 1) + 1
            self._attempt_began[number] = now
        return number

    def completed(self, number: int, result: object, now: float) -> None:
        """An attempt has succeeded: its dependents may come."""
        self._status[number] = COMPLETED
        self._results[number] = result
        self._ended[number] = now
        waiting = self.waiting
        for dependent in self._dependents[number]:
            left = waiting[dependent] - 1
            if left:
                waiting[dependent] = left
            else:
                heappush(self.heap, self._place[dependent])
        if self._unusual:
            self._succeeded(number, now)

    def failed(self, number: int, exception: BaseException, now: float) -> float:
        """An attempt has failed; answers how many seconds the next one is to wait, or NEVER.

        After `0` the task is ready again. After more it is paused, until `resume`. After NEVER it
        has FAILED, and so has all that depends on it; the policy says what becomes of the rest.
        """
        record = self.record
        attempt = record.attempts.get(number, 1)
        began = self._attempt_began.pop(number, record.started[number])
        failures = record.failures.setdefault(number, [])
        failures.append(AttemptFailure(attempt, exception, now - began))
        definition = self._graph.tasks[number]
        if attempt < definition.retries and not self.draining:
            try:
                if definition.is_worth_another_attempt(exception):
                    delay = definition.delay_after(attempt, exception)
                    self._pause(number, delay)
                    return delay
            except Exception as error:  # noqa: BLE001 - of the user's `retry_on` or `backoff`
                # They were asked about an exception and raised another. Both are kept.
                failures.append(AttemptFailure(attempt, error, now - began))
        self._fail(number, now)
        return NEVER

    def resume(self, number: int) -> None:
        """A backoff is over: the task competes for a slot again, by its priority."""
        self.paused.remove(number)
        heappush(self.heap, self._place[number])

    def drain(self, now: float) -> None:
        """Nothing new starts: what waits is CANCELLED, and what is in backoff has FAILED."""
        self.draining = True
        for number in sorted(self.paused):
            self._fail(number, now)
        self.paused.clear()
        # What is RUNNING and ready again after a failed attempt has had its last attempt.
        for place in self._drop_ready():
            number = self._by_place[place]
            if self._status[number] == RUNNING:
                self._fail(number, now)
        status = self._status
        number = status.find(PENDING)
        while number >= 0:
            self._end(number, CANCELLED, now)
            # What is still running will complete, and must not find that it was the last.
            self.waiting[number] = _NEVER_READY
            number = status.find(PENDING, number + 1)

    @property
    def wants_cancel(self) -> bool:
        """Whether the policy has what is still running cancelled."""
        return self.draining and self._policy is FailurePolicy.CANCEL

    def closed(self, number: int, exception: BaseException | None, now: float) -> None:
        """The body of an open lifetime has ended; with an exception, the task FAILED after all."""
        self.open.remove(number)
        record = self.record
        if exception is not None:
            attempt = record.attempts.get(number, 1)
            failure = AttemptFailure(attempt, exception, now - record.started[number])
            record.failures.setdefault(number, []).append(failure)
            record.results[number] = None
            self._end(number, FAILED, now)
        else:
            self._gone(number, now)

    def cancel_running(self, now: float) -> None:
        """Nobody carries out anything any more: what still counts as RUNNING is CANCELLED."""
        number = self._status.find(RUNNING)
        while number >= 0:
            self._end(number, CANCELLED, now)
            number = self._status.find(RUNNING, number + 1)

    def cancelled(self, number: int, exception: BaseException | None, now: float) -> None:
        """An attempt was ended by the run's cancellation; `exception` is what else came of it."""
        record = self.record
        if exception is not None:
            attempt = record.attempts.get(number, 1)
            began = self._attempt_began.pop(number, record.started[number])
            failure = AttemptFailure(attempt, exception, now - began)
            record.failures.setdefault(number, []).append(failure)
        self._end(number, CANCELLED, now)

    def finish(self, now: float) -> None:
        """The run is over: whatever has not ended by now is CANCELLED."""
        record = self.record
        record.finished = now
        self._drop_ready()
        status = record.status
        for code in (PENDING, RUNNING):
            number = status.find(code)
            while number >= 0:
                self._end(number, CANCELLED, now)
                number = status.find(code, number + 1)

    def _pause(self, number: int, delay: float) -> None:
        if delay:
            self.paused.add(number)
        else:
            # It competes again by its priority, and stays RUNNING to whoever asks.
            heappush(self.heap, self._place[number])

    def _drop_ready(self) -> list[int]:
        """Take every place out of the ready ones."""
        dropped = [*self.heap, *self.backlog]
        self.heap.clear()
        self.backlog.clear()
        return dropped

    def _fail(self, number: int, now: float) -> None:
        self._end(number, FAILED, now)
        self._fail_dependents(number, now)
        if self._policy is not FailurePolicy.CONTINUE and not self.draining:
            self.drain(now)

    def _end(self, number: int, status: int, now: float) -> None:
        """A task ends without success, started or not."""
        self._status[number] = status
        self._ended[number] = now
        if self._unusual:
            self._gone(number, now)

    def _succeeded(self, number: int, now: float) -> None:
        """A task of an unusual graph has completed; a lifetime is only now open."""
        if number not in self._users:
            self._gone(number, now)
        else:
            self.open.add(number)
            if not self._users[number]:
                self.close(number)

    def _gone(self, number: int, now: float) -> None:
        """A task is over, however it ended: who follows may come, what it used may close."""
        self._release_followers(number, now)
        if self._users:
            for used in self._graph.dependencies[number]:
                if used in self._users:
                    self._users[used] -= 1
                    if not self._users[used] and used in self.open:
                        self.close(used)

    def _release_followers(self, number: int, now: float) -> None:
        """A task has ended, however it did: those that come after it may come."""
        for follower in self._followers.get(number, ()):
            self.waiting[follower] -= 1
            # One that has failed already, for want of a dependency, stays where it is.
            if not self.waiting[follower] and self._status[follower] == PENDING:
                heappush(self.heap, self._place[follower])

    def _fail_dependents(self, root: int, now: float) -> None:
        record = self.record
        spreading = [root]
        for number in spreading:
            for dependent in self._dependents[number]:
                # A task with two failed dependencies has failed because of the first.
                if record.status[dependent] == PENDING:
                    record.failed_dependency[dependent] = number
                    self._end(dependent, FAILED, now)
                    spreading.append(dependent)


class ResourceState(RunState):
    """The state of a run in which some tasks hold resources while they run.

    A task that has come up and asks for resources waits in the lane of those that ask for the
    same, so that it is in the way of nobody who asks for something else. Of the lanes that have
    what they ask for, and of the tasks that ask for nothing, the best goes first.

    A large ask would wait for ever behind a stream of small ones. It may be passed over twice as
    often as the resource has units; from then on what is freed is kept for it.

    Attributes:
        free: units of each resource that nobody holds.
        lanes: for each distinct demand the places, in the start order, of the tasks that wait.
        passed: for the tasks that were passed over, by place, how often.
    """

    __slots__ = ("_capacity", "_demands", "free", "lanes", "passed")

    def __init__(
        self,
        graph: Graph,
        began: float,
        demands: Sequence[Demand],
        capacity: Mapping[str, int],
        policy: FailurePolicy = FailurePolicy.CONTINUE,
    ) -> None:
        super().__init__(graph, began, policy)
        self._demands = demands
        self._capacity = capacity
        self.free = dict(capacity)
        self.lanes: dict[Demand, list[int]] = {}
        self.passed: dict[int, int] = {}
        self.heap = self.backlog[::-1]
        self.backlog = []

    def ready_count(self) -> int:
        count = len(self.heap)
        for demand, lane in self.lanes.items():
            fit = min(self.free[resource] // units for resource, units in demand)
            count += min(len(lane), fit)
        return count

    def take(self, now: float) -> int:
        heap = self.heap
        while heap and (demand := self._demands[self._by_place[heap[0]]]):
            heappush(self.lanes.setdefault(demand, []), heappop(heap))
        best = self._best_lane()
        if best is not None and (not heap or self.lanes[best][0] < heap[0]):
            place = heappop(self.lanes[best])
            self._note_passed_over(place, best)
            self.passed.pop(place, None)
            for resource, units in best:
                self.free[resource] -= units
            heappush(heap, place)
        return super().take(now)

    def completed(self, number: int, result: object, now: float) -> None:
        self._release(number)
        super().completed(number, result, now)

    def failed(self, number: int, exception: BaseException, now: float) -> float:
        self._release(number)
        return super().failed(number, exception, now)

    def cancelled(self, number: int, exception: BaseException | None, now: float) -> None:
        self._release(number)
        super().cancelled(number, exception, now)

    def _release(self, number: int) -> None:
        for resource, units in self._demands[number]:
            self.free[resource] += units

    def _best_lane(self) -> Demand | None:
        """The demand that can be met now and whose first task is the best."""
        best = None
        kept = self._kept()
        for demand, lane in self.lanes.items():
            if not lane or (best is not None and self.lanes[best][0] < lane[0]):
                continue
            fits = all(
                units <= self.free[resource] and kept.get(resource, demand) == demand
                for resource, units in demand
            )
            if fits:
                best = demand
        return best

    def _kept(self) -> dict[str, Demand]:
        """The resources that are kept for a demand whose best task was passed over too often."""
        kept: dict[str, Demand] = {}
        for place, times in sorted(self.passed.items()):
            demand = self._demands[self._by_place[place]]
            most = 2 * min(self._capacity[resource] for resource, _ in demand)
            if times >= most:
                for resource, _ in demand:
                    kept.setdefault(resource, demand)
        return kept

    def _note_passed_over(self, place: int, taken: Demand) -> None:
        resources = {resource for resource, _ in taken}
        for demand, lane in self.lanes.items():
            if lane and lane[0] < place and any(resource in resources for resource, _ in demand):
                self.passed[lane[0]] = self.passed.get(lane[0], 0) + 1

    def _drop_ready(self) -> list[int]:
        dropped = super()._drop_ready()
        for lane in self.lanes.values():
            dropped += lane
            lane.clear()
        return dropped

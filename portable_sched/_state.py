"""What may start next: the ready tasks, what an ending releases, what a failure means.

Deciding is pure. Nothing here awaits, spawns or reads a clock: whoever carries the run out says
what has happened and when, and asks what to do. So every decision is tested without an event
loop, step by step against a naive model.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

from ._errors import TaskCancelledError
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


class RunState:
    """The changing state of one run.

    A task goes through it as: ready, `take`, then `completed`, or `failed` (and perhaps ready and
    `take` again), or `cancelled`. Its numbers are those of the graph.

    Attributes:
        record: the columns of the run; written here alone.
        waiting: for each task how many of its dependencies have not succeeded yet.
        heap: the places, in the start order, of the tasks that have become ready.
        backlog: the places of those that were ready from the beginning, the last one first. Taking
            one off a list costs the same for a million as for ten; a heap of a million takes twenty
            steps, each a cache miss.
    """

    __slots__ = (
        "_by_place",
        "_dependents",
        "_ended",
        "_graph",
        "_place",
        "_results",
        "_started",
        "_status",
        "backlog",
        "heap",
        "record",
        "waiting",
    )

    def __init__(self, graph: Graph, began: float) -> None:
        self._graph = graph
        self._place = graph.place
        self._by_place = graph.by_place
        self._dependents = graph.dependents
        self.record = record = RunRecord(graph.tasks, graph.numbers, began)
        self._status = record.status
        self._results = record.results
        self._started = record.started
        self._ended = record.ended
        self.waiting = list(map(len, graph.dependencies))
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

    def failed(self, number: int, exception: BaseException, now: float) -> None:
        """An attempt has failed: the task is ready again, or everything that needs it has failed.

        A cancellation is never tried again, nor is anything that is no `Exception`.
        """
        record = self.record
        attempt = record.attempts.get(number, 1)
        record.failures.setdefault(number, []).append(AttemptFailure(attempt, exception))
        retries = self._graph.tasks[number].retries
        if attempt < retries and _is_worth_another_attempt(exception):
            # It competes again by its priority, and stays RUNNING to whoever asks.
            heappush(self.heap, self._place[number])
            return
        record.status[number] = FAILED
        record.ended[number] = now
        self._fail_dependents(number)

    def cancelled(self, number: int, exception: BaseException | None, now: float) -> None:
        """An attempt was ended by the run's cancellation; `exception` is what else came of it."""
        record = self.record
        if exception is not None:
            attempt = record.attempts.get(number, 1)
            record.failures.setdefault(number, []).append(AttemptFailure(attempt, exception))
        record.status[number] = CANCELLED
        record.ended[number] = now

    def finish(self, now: float) -> None:
        """The run is over: whatever has not ended by now is CANCELLED."""
        record = self.record
        record.finished = now
        self.heap.clear()
        self.backlog.clear()
        status = record.status
        for code in (PENDING, RUNNING):
            number = status.find(code)
            while number >= 0:
                status[number] = CANCELLED
                if code == RUNNING:
                    record.ended[number] = now
                number = status.find(code, number + 1)

    def _fail_dependents(self, root: int) -> None:
        record = self.record
        spreading = [root]
        for number in spreading:
            for dependent in self._dependents[number]:
                # A task with two failed dependencies has failed because of the first.
                if record.status[dependent] == PENDING:
                    record.status[dependent] = FAILED
                    record.failed_dependency[dependent] = number
                    spreading.append(dependent)


def _is_worth_another_attempt(exception: BaseException) -> bool:
    return isinstance(exception, Exception) and not isinstance(exception, TaskCancelledError)


class ThreadedState(RunState):
    """The state of a run in which some tasks hold a thread while they run, and threads are few.

    A task that comes up while no thread is free is set aside, in the way of nobody else. Once
    there is a thread, the better of the two, set aside or ready, goes first.

    Attributes:
        threads: how many are free.
        aside: the places, in the start order, of the tasks that wait for a thread.
    """

    __slots__ = ("_needs_thread", "aside", "threads")

    def __init__(
        self, graph: Graph, began: float, needs_thread: Sequence[bool], threads: int
    ) -> None:
        super().__init__(graph, began)
        self._needs_thread = needs_thread
        self.threads = threads
        self.aside: list[int] = []
        self.heap = self.backlog[::-1]
        self.backlog = []

    def ready_count(self) -> int:
        return super().ready_count() + min(len(self.aside), self.threads)

    def take(self, now: float) -> int:
        if not self.threads:
            while self.heap and self._needs_thread[self._by_place[self.heap[0]]]:
                heappush(self.aside, heappop(self.heap))
        elif self.aside:
            heappush(self.heap, heappop(self.aside))
        number = super().take(now)
        if number != NOTHING:
            self.threads -= self._needs_thread[number]
        return number

    def completed(self, number: int, result: object, now: float) -> None:
        self.threads += self._needs_thread[number]
        super().completed(number, result, now)

    def failed(self, number: int, exception: BaseException, now: float) -> None:
        self.threads += self._needs_thread[number]
        super().failed(number, exception, now)

    def finish(self, now: float) -> None:
        self.aside.clear()
        super().finish(now)

"""What may start next: the ready tasks, what an ending releases, what a failure means.

Deciding is pure. Nothing here awaits, spawns or reads a clock: whoever carries the run out says
what has happened and when, and asks what to do. So every decision is tested without an event
loop, step by step against a naive model.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from enum import Enum
from heapq import heappop, heappush
from math import inf

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
from ._retries import delay_after, is_worth_another_attempt

NOTHING = -1
"""What `take` answers when no task may start."""

# Counted down from here, a task never becomes ready.
_NEVER_READY = -1


class FailurePolicy(Enum):
    """What a task that has failed for good means for the rest of the run."""

    CONTINUE = "CONTINUE"
    """What depends on it has failed too; everything else runs."""
    DRAIN = "DRAIN"
    """Nothing new starts, and what is running runs to its end."""
    CANCEL = "CANCEL"
    """Nothing new starts, and what is running is cancelled."""

    def __repr__(self) -> str:
        return f"FailurePolicy.{self.name}"


def _nobody(number: int) -> bool:  # noqa: ARG001 - it stands for what asks
    """Stands for who closes lifetimes until the run has begun."""
    return False


class RunState:
    """The changing state of one run.

    A task goes through it as: ready, `take`, then `completed`, or `failed` (and perhaps, after a
    pause, ready and `take` again), or `cancelled`. A lifetime that has completed is open, and goes
    on to `close` and `closed`. Its numbers are those of the graph.

    Args:
        graph: what is to run.
        began: the start of the run.
        policy: what a failure means for the rest.
        keep: the tasks whose results are kept to the end although others take them; None for all.

    Attributes:
        record: the columns of the run; written here alone.
        waiting: for each task how many it waits for: dependencies that have not succeeded yet, and
            tasks it comes after that have not ended.
        heap: the places, in the start order, of the tasks that have become ready.
        backlog: the places of those that were ready from the beginning, the last one first. Taking
            one off a list costs the same for a million as for ten; a heap of a million takes twenty
            steps, each a cache miss.
        paused: a heap of the tasks in backoff, as pairs of when it is over and the place. They are
            RUNNING, and in nobody's hands.
        draining: whether nothing new starts any more.
        open: lifetimes between their `yield` and the end of their teardown.
        close: called with the number of a lifetime that nobody uses any more, or that opened in
            vain; perhaps twice. It answers whether there is something to close, so that a call of
            `closed` will follow.
    """

    __slots__ = (
        "_by_place",
        "_dependents",
        "_ended",
        "_followers",
        "_graph",
        "_has_endings",
        "_place",
        "_policy",
        "_results",
        "_started",
        "_status",
        "_takers",
        "_takes",
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
        self,
        graph: Graph,
        began: float,
        policy: FailurePolicy = FailurePolicy.CONTINUE,
        keep: Collection[str] | None = None,
    ) -> None:
        self._graph = graph
        self._policy = policy
        self._place = graph.place
        self._by_place = graph.by_place
        self._dependents = graph.dependents
        self._followers = graph.followers
        # Of each lifetime, how many of the tasks that use it have not ended yet.
        self._users = {number: len(graph.dependents[number]) for number in graph.lifetimes}
        # Of each task whose result is not kept, how many are still to take it; and who takes what.
        self._takers: dict[int, int] = {}
        self._takes: dict[int, list[int]] = {}
        if keep is not None:
            self._count_takers(keep)
        # Whether the end of a task may mean more than that its dependents may come.
        self._has_endings = bool(self._followers or self._users or self._takes)
        self.record = record = RunRecord(graph, began)
        self._status = record.status
        self._results = record.results
        self._started = record.started
        self._ended = record.ended
        self.waiting = waiting = graph.waiting.copy()
        self.heap: list[int] = []
        self.backlog = [
            place for place in range(len(waiting) - 1, -1, -1) if not waiting[graph.by_place[place]]
        ]
        self.paused: list[tuple[float, int]] = []
        self.draining = False
        self.open: set[int] = set()
        self.close: Callable[[int], bool] = _nobody

    def begin(self) -> None:
        """The run begins. It means nothing here, and much to who watches."""

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
            # The time first: who reads from another thread finds no running task without one.
            self._started[number] = now
            status[number] = RUNNING
        else:
            record = self.record
            record.attempts[number] = record.attempt_of(number) + 1
            record.attempt_began[number] = now
        return number

    def completed(self, number: int, result: object, now: float) -> None:
        """An attempt has succeeded: its dependents may come."""
        self._results[number] = result
        self._ended[number] = now
        self._status[number] = COMPLETED
        waiting = self.waiting
        for dependent in self._dependents[number]:
            left = waiting[dependent] - 1
            if left:
                waiting[dependent] = left
            else:
                heappush(self.heap, self._place[dependent])
        if self._has_endings:
            if self._takers.get(number) == 0:
                # Whoever was to take it has ended without having started.
                self._results[number] = None
            if number not in self._users:
                self._is_over(number, now)
            else:
                self.open.add(number)
                self._let_go(number)
                if not self._users[number]:
                    self.close(number)

    def failed(self, number: int, exception: BaseException, now: float) -> None:
        """An attempt has failed: the task is ready again, or will be, or has failed for good.

        Then everything that depends on it has failed too, and the policy says what becomes of the
        rest.
        """
        attempt = self._note_failure(number, exception, now)
        definition = self._graph.tasks[number]
        if attempt < definition.retries and not self.draining:
            delay = -inf
            try:
                if is_worth_another_attempt(definition.retry_on, exception):
                    delay = delay_after(definition.backoff, attempt, exception)
            except Exception as error:  # noqa: BLE001 - of the user's `retry_on` or `backoff`
                # They were asked about one exception and raised another; both are kept.
                error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
                self.record.failures[number].append(AttemptFailure(attempt, error, 0.0, now))
            # Either of them may have called `stop()`, and then there is no other attempt.
            if delay >= 0 and not self.draining:
                self._try_again(number, delay, now)
                return
        self._fail(number, now)

    def cancelled(self, number: int, exception: BaseException | None, now: float) -> None:
        """An attempt was ended by the run's cancellation; `exception` is what else came of it."""
        if exception is not None:
            self._note_failure(number, exception, now)
        self._end(number, CANCELLED, now)

    def closed(self, number: int, exception: BaseException | None, now: float) -> None:
        """The body of a lifetime has ended; with an exception, the task has FAILED after all."""
        if exception is not None:
            self._note_failure(number, exception, now)
        self.record.closed[number] = now
        # One that opened in vain has ended already, and not well.
        if number not in self.open:
            return
        self.open.remove(number)
        if exception is not None and self._status[number] == COMPLETED:
            # What it has yielded stays: dependents that are yet to start were promised it. And its
            # duration is that of its set-up.
            yielded = self._ended[number]
            self._end(number, FAILED, now)
            self._ended[number] = yielded
        else:
            self._is_over(number, now)

    def has_arguments(self, number: int) -> None:
        """An attempt has been given what its parameters take: if it is the last, let go of that."""
        if self.record.attempt_of(number) == self._graph.tasks[number].retries:
            self._let_go(number)

    def resume(self, now: float) -> None:
        """The backoffs that are over by `now` are: those tasks compete for a slot again."""
        paused = self.paused
        while paused and paused[0][0] <= now:
            heappush(self.heap, heappop(paused)[1])

    def drain(self, now: float, status: int = FAILED) -> None:
        """Nothing new starts: what has not started is CANCELLED, with its dependents.

        Args:
            now: when.
            status: what a task has that waits for another attempt.
        """
        if not self.draining and self.record.finished is None:
            self.record.drained = now
        self.draining = True
        waited = [self._by_place[place] for _, place in self.paused]
        self.paused.clear()
        waited += [self._by_place[place] for place in self._drop_ready()]
        for number in sorted(waited):
            if self._status[number] != RUNNING:
                continue
            if status == FAILED:
                self._fail(number, now)
            else:
                self._end(number, status, now)
        column = self._status
        number = column.find(PENDING)
        while number >= 0:
            # What is still running will complete, and must not find that it was the last.
            self.waiting[number] = _NEVER_READY
            self._end(number, CANCELLED, now)
            number = column.find(PENDING, number + 1)

    @property
    def wants_cancel(self) -> bool:
        """Whether the policy has what is still running cancelled."""
        return self.draining and self._policy is FailurePolicy.CANCEL

    def cancel_running(self, now: float) -> None:
        """Nobody carries out anything any more: what still counts as RUNNING is CANCELLED."""
        number = self._status.find(RUNNING)
        while number >= 0:
            self._end(number, CANCELLED, now)
            number = self._status.find(RUNNING, number + 1)

    def finish(self, now: float) -> None:
        """The run is over: whatever has not ended by now is CANCELLED."""
        self.record.finished = now
        self.drain(now, CANCELLED)
        self.cancel_running(now)

    def _note_failure(self, number: int, exception: BaseException, now: float) -> int:
        """Keep what an attempt raised; answers which attempt it was."""
        attempt, duration = self._attempt(number, now)
        began = self.record.attempt_start_of(number)
        failure = AttemptFailure(attempt, exception, duration, began)
        self.record.failures.setdefault(number, []).append(failure)
        return attempt

    def _attempt(self, number: int, now: float) -> tuple[int, float]:
        """Which attempt of a started task is the latest, and how long it has taken by now."""
        return self.record.attempt_of(number), now - self.record.attempt_start_of(number)

    def _try_again(self, number: int, delay: float, now: float) -> None:
        # It competes again by its priority, and stays RUNNING to whoever asks.
        if delay:
            failures = self.record.failures[number]
            failures[-1] = replace(failures[-1], backoff=delay)
            heappush(self.paused, (now + delay, self._place[number]))
        else:
            heappush(self.heap, self._place[number])

    def _drop_ready(self) -> list[int]:
        """Take every place out of the ready ones."""
        dropped = [*self.heap, *self.backlog]
        self.heap.clear()
        self.backlog.clear()
        return dropped

    def _fail(self, number: int, now: float) -> None:
        self._end(number, FAILED, now)
        spreading = [number]
        for failed in spreading:
            for dependent in self._dependents[failed]:
                # A task with two failed dependencies has failed because of the first.
                if self._status[dependent] == PENDING:
                    self.record.failed_dependency[dependent] = failed
                    self.record.root_cause[dependent] = number
                    self._end(dependent, FAILED, now)
                    spreading.append(dependent)
        if self._policy is not FailurePolicy.CONTINUE and not self.draining:
            self.record.drained_by = number
            self.drain(now)

    def _end(self, number: int, status: int, now: float) -> None:
        """A task ends without success, started or not."""
        self._ended[number] = now
        self._status[number] = status
        if self._has_endings:
            if number in self._users and self.close(number):
                # It opened in vain. What it uses is to wait until it has closed.
                self.open.add(number)
            else:
                self._is_over(number, now)

    def _is_over(self, number: int, now: float) -> None:  # noqa: ARG002 - for who watches
        """A task is over, however it ended: who follows may come, what it used may close."""
        for follower in self._followers.get(number, ()):
            self.waiting[follower] -= 1
            # One that has failed already, for want of a dependency, stays where it is.
            ready = not self.waiting[follower] and self._status[follower] == PENDING
            if ready and not self.draining:
                heappush(self.heap, self._place[follower])
        users = self._users
        if users:
            for used in self._graph.dependencies[number]:
                if used in users:
                    users[used] -= 1
                    if not users[used] and used in self.open:
                        self.close(used)
        self._let_go(number)

    def _count_takers(self, keep: Collection[str]) -> None:
        graph = self._graph
        for number, sources in graph.sources.items():
            taken = {source.task for source in sources if source.task is not None}
            taken = {task for task in taken if graph.tasks[task].name not in keep}
            for task in taken:
                self._takers[task] = self._takers.get(task, 0) + 1
            self._takes[number] = list(taken)

    def _let_go(self, number: int) -> None:
        """A task needs the results that it takes no more; those that nobody needs are dropped."""
        for task in self._takes.pop(number, ()):
            self._takers[task] -= 1
            if not self._takers[task]:
                self._results[task] = None

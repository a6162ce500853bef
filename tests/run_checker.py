"""Judges a run by what its tasks wrote down, knowing nothing of how it was carried out.

The tasks write into a log when they start and when they end. `complaints()` goes through the log,
works out at each line what was ready, what ran and what had to follow, and then holds the results
against it. It shares no code with the library, only the naive ranking with other tests.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from naive import by_name, needed_by, start_order

from portable_sched import (
    DependencyFailedError,
    RunResults,
    TaskCancelledError,
    TaskDef,
    TaskResult,
    TaskStatus,
)

Ending = Literal["returned", "failed", "gave up", "cancelled itself", "was cancelled"]


@dataclass(frozen=True, slots=True)
class Entered:
    """`run()` is about to be called."""

    at: float


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt begins."""

    name: str
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt ends.

    Attributes:
        name: name of the task.
        how: it returned a result, raised something after which it may try again ("failed") or may
            not ("gave up"), raised a cancellation that came from nobody, or was cancelled.
        at: when.
        outcome: what it returned or raised.
        interrupted: it has been cancelled on the way, by a scope of its own. The run needs a turn
            of the loop to know that from being cancelled itself.
    """

    name: str
    how: Ending
    at: float
    outcome: Any = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Someone has cancelled the run from outside; the event loop has not been through it yet."""

    at: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The event loop has been through it: whatever waited has got its cancellation."""

    at: float


@dataclass(frozen=True, slots=True)
class Left:
    """`run()` has returned, or raised."""

    at: float


Line = Entered | Started | Ended | Cancelled | Settled | Left


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What was asked of the run, and how exact the log is.

    Attributes:
        tasks: all tasks, as they were registered.
        limit: how many may run at once; None for no limit.
        in_threads: names of the tasks that are plain functions.
        threads: how many of them may run at once.
        virtual_time: the clock moves only when nothing else can. Then nothing may be ready while
            it moves, and times are exact.
        in_order: lines stand in the order in which the run has decided. Not so where several
            threads write at once.
    """

    tasks: Sequence[TaskDef]
    limit: int | None = None
    in_threads: frozenset[str] = frozenset()
    threads: int | None = None
    virtual_time: bool = True
    in_order: bool = True


def complaints(conditions: Conditions, log: Sequence[Line], results: RunResults) -> list[str]:
    """Whatever is wrong with the run; nothing if all is well."""
    replay = _Replay(conditions)
    for line in log:
        replay.read(line)
    replay.close()
    return [*replay.complaints, *_about_results(replay, results)]


@dataclass
class _Replay:
    """What is known at one line of the log.

    Attributes:
        running: tasks in an attempt.
        attempts: how many attempts each task began.
        succeeded: tasks that returned.
        failed: tasks that failed, each with the task whose failure began it.
        certain: those of which the run must know in the order of the log.
        stopped: tasks that were cancelled.
        endings: how each task's attempts ended, in order.
        first_start: when each task's first attempt began.
        ended_late: tasks of which an attempt ended after the cancellation, or right before it.
        settled: the cancellation has reached everyone.
    """

    conditions: Conditions
    complaints: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    attempts: Counter[str] = field(default_factory=Counter)
    succeeded: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    certain: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    endings: dict[str, list[Ended]] = field(default_factory=dict)
    first_start: dict[str, float] = field(default_factory=dict)
    ended_late: set[str] = field(default_factory=set)
    most_running: int = 0
    now: float | None = None
    cancelled_at: float | None = None
    settled: bool = False
    entered: Entered | None = None
    left: Left | None = None

    def __post_init__(self) -> None:
        self.known = by_name(self.conditions.tasks)
        self.ranking = start_order(self.conditions.tasks)
        self.needed = {name: needed_by(name, self.known) for name in self.known}

    def complain(self, complaint: str) -> None:
        self.complaints.append(complaint)

    def ready(self) -> list[str]:
        """The tasks that could start if there were a slot, the best one first."""
        threads = self.conditions.threads
        threads_in_use = len(self.running & self.conditions.in_threads)
        return [
            name
            for name in self.ranking
            if name not in self.running | self.succeeded | self.stopped | self.failed.keys()
            and self.succeeded.issuperset(self.known[name].depends_on)
            and (
                threads is None
                or name not in self.conditions.in_threads
                or threads_in_use < threads
            )
        ]

    def is_known(self, ready: str) -> bool:
        """Whether the run must know by now that the task is ready."""
        return all(
            self.is_settled(ending) and name not in self.ended_late
            for name in (ready, *self.known[ready].depends_on)
            for ending in self.endings.get(name, ())[-1:]
        )

    def is_settled(self, ending: Ended) -> bool:
        """Whether the run must know by now that the attempt has ended, and how."""
        if ending.interrupted:
            return self.conditions.virtual_time and ending.at != self.now
        return True

    def has_slot(self) -> bool:
        return self.conditions.limit is None or len(self.running) < self.conditions.limit

    def read(self, line: Line) -> None:
        if self.left:
            self.complain(f"after run() was left: {line}")
        self._let_time_pass(line.at)
        match line:
            case Entered():
                self.entered = line
            case Started():
                self._start(line)
            case Ended():
                self._end(line)
            case Cancelled():
                self.cancelled_at = line.at
                self.ended_late.update(
                    name
                    for name, endings in self.endings.items()
                    if endings[-1].interrupted and not self.is_settled(endings[-1])
                )
            case Settled():
                self.settled = True
            case Left():
                self.left = line

    def close(self) -> None:
        if self.left is None:
            self.complain("run() was never left")
        for name in sorted(self.running):
            self.complain(f"{name!r} never ended")
        if self.cancelled_at is None:
            for name in self.ready():
                self.complain(f"{name!r} was ready and did not start")

    def _let_time_pass(self, at: float) -> None:
        if self.now is not None and at < self.now and self.conditions.in_order:
            self.complain(f"time went back from {self.now} to {at}")
        moves = self.now is not None and at > self.now
        if moves and self.conditions.virtual_time and self.cancelled_at is None:
            for name in self.ready()[:1] if self.has_slot() else ():
                self.complain(f"{name!r} was ready at {self.now} and time went on")
        self.now = at

    def _start(self, line: Started) -> None:
        name = line.name
        definition = self.known[name]
        self.attempts[name] += 1
        if name in self.running:
            self.complain(f"{name!r} started while it ran")
        if name in self.succeeded | self.stopped | self.failed.keys():
            self.complain(f"{name!r} started after it had ended")
        for needed in definition.depends_on:
            if needed not in self.succeeded:
                self.complain(f"{name!r} started before {needed!r} had succeeded")
        if self.attempts[name] != line.attempt or line.attempt > definition.retries:
            self.complain(
                f"{name!r} started attempt {line.attempt} of {definition.retries} "
                f"as number {self.attempts[name]}"
            )
        if not self.has_slot():
            self.complain(f"{name!r} started beside {sorted(self.running)}: above the limit")
        in_threads = self.running & self.conditions.in_threads
        if name in self.conditions.in_threads and len(in_threads) == self.conditions.threads:
            self.complain(f"{name!r} started beside {sorted(in_threads)}: no thread was free")
        if self.conditions.in_order:
            ahead = self.ranking[: self.ranking.index(name)]
            for better in [one for one in self.ready() if one in ahead and self.is_known(one)][:1]:
                self.complain(f"{name!r} started while {better!r} was ready")
        if self.settled or (
            self.conditions.virtual_time
            and self.cancelled_at is not None
            and line.at > self.cancelled_at
        ):
            self.complain(f"{name!r} started after the run was cancelled")
        self.running.add(name)
        self.most_running = max(self.most_running, len(self.running))
        self.first_start.setdefault(name, line.at)

    def _end(self, line: Ended) -> None:
        name = line.name
        if name not in self.running:
            self.complain(f"{name!r} ended and did not run")
        self.running.discard(name)
        self.endings.setdefault(name, []).append(line)
        if self.cancelled_at is not None:
            self.ended_late.add(name)
        if line.how == "returned":
            self.succeeded.add(name)
        elif line.how == "was cancelled":
            self.stopped.add(name)
        elif line.how != "failed" or self.attempts[name] >= self.known[name].retries:
            if self.conditions.in_order and self.cancelled_at is None and not line.interrupted:
                self.certain.add(name)
            self.failed[name] = name
            for dependent in self.known:
                if name in self.needed[dependent]:
                    self.failed.setdefault(dependent, name)


def _about_results(replay: _Replay, results: RunResults) -> Iterator[str]:
    conditions = replay.conditions
    names = [result.task_name for result in results]
    if sorted(names) != sorted(replay.known):
        yield f"results of {names}"
        return
    for at, name in enumerate(names):
        for needed in replay.known[name].depends_on:
            if needed not in names[:at]:
                yield f"results have {name!r} before {needed!r}"
    for result in results:
        for complaint in _about_result(replay, result, results):
            yield f"{result.task_name!r} {complaint}"
    if replay.entered and replay.left and conditions.virtual_time:
        in_the_log = replay.left.at - replay.entered.at
        if results.wall_time != in_the_log:
            yield f"the run took {results.wall_time} in the results, {in_the_log} in the log"
    exact = conditions.in_order and replay.cancelled_at is None
    # While it is not clear what interrupted an attempt, it still counts as running.
    if exact and not any(one.interrupted for ended in replay.endings.values() for one in ended):
        if results.most_running != replay.most_running:
            yield f"{results.most_running} at once in the results, {replay.most_running} in the log"
    elif results.most_running < replay.most_running:
        yield f"{results.most_running} at once in the results, {replay.most_running} in the log"


def _about_result(replay: _Replay, result: TaskResult[Any], results: RunResults) -> Iterator[str]:
    name = result.task_name
    endings = replay.endings.get(name, [])
    wanted = _statuses(replay, name)
    if result.status not in wanted:
        yield f"is {result.status.name}, not {' or '.join(sorted(one.name for one in wanted))}"
    if result.attempts != replay.attempts[name]:
        yield f"has {result.attempts} attempts, not {replay.attempts[name]}"
    failures = [
        failure.exception.__cause__
        if isinstance(failure.exception, TaskCancelledError)
        else failure.exception
        for failure in result.failures
    ]
    last = endings[-1].outcome if endings else None
    if result.result != (last if result.status is TaskStatus.COMPLETED else None):
        yield f"has the result {result.result!r}"
    not_a_failure = {"returned", "was cancelled"}
    raised = [ended.outcome for ended in endings if ended.how not in not_a_failure]
    if raised != failures:
        yield f"has the failures {failures}, not {raised}"
    numbers = [at for at, ended in enumerate(endings, 1) if ended.how not in not_a_failure]
    if numbers != [failure.attempt for failure in result.failures]:
        yield f"has failed in other attempts than {numbers}"
    if result.status is not TaskStatus.FAILED:
        if (result.exception, result.error) != (None, None):
            yield f"has the exception {result.exception!r}"
    elif result.attempts:
        kept = [failure.exception for failure in result.failures]
        if kept[-1:] != [result.exception] or failures[-1:] != [last]:
            yield f"has the exception {result.exception!r}, not {last!r}"
        if not str(result.error).startswith(type(result.exception).__name__):
            yield f"has the error {result.error!r}"
    else:
        yield from _about_root_cause(replay, result, results)
    yield from _about_times(replay, result)


def _statuses(replay: _Replay, name: str) -> set[TaskStatus]:
    """The statuses that the task may have, which is one unless it ended beside a cancellation."""
    wanted = {TaskStatus.CANCELLED}
    if name in replay.failed:
        wanted = {TaskStatus.FAILED}
    elif name in replay.succeeded:
        wanted = {TaskStatus.COMPLETED}
    if name in replay.ended_late:
        # In the turn of the cancellation it depends on who runs first. Later it does not.
        at = replay.endings[name][-1].at
        later = replay.settled and replay.conditions.virtual_time and at > replay.cancelled_at
        return {TaskStatus.CANCELLED} if later else {*wanted, TaskStatus.CANCELLED}
    if replay.failed.get(name) in replay.ended_late:
        return {TaskStatus.CANCELLED, TaskStatus.FAILED}
    return wanted


def _about_root_cause(
    replay: _Replay, result: TaskResult[Any], results: RunResults
) -> Iterator[str]:
    name = result.task_name
    error = result.exception
    if not isinstance(error, DependencyFailedError):
        yield f"was not started and has the exception {error!r}"
        return
    root = error.root_cause
    failed = {one.task_name for one in results if one.status is TaskStatus.FAILED}
    if error.dependency not in failed.intersection(replay.known[name].depends_on):
        yield f"has failed because of {error.dependency!r}"
    if root not in failed & replay.needed[name] or not replay.attempts[root]:
        yield f"has failed because of {root!r} in the end"
    elif root != replay.failed.get(name) and replay.certain.issuperset(
        needed for needed in replay.needed[name] if replay.failed.get(needed) == needed
    ):
        yield f"has failed because of {root!r} in the end, not of {replay.failed.get(name)!r}"
    if error.dependency != root and root not in replay.needed[error.dependency]:
        yield f"has failed because of {root!r}, which {error.dependency!r} does not need"
    if (error.task, error.reason) != (name, results[root].error):
        yield f"has failed for the reason {error.reason!r}"
    if result.error != str(error):
        yield f"has the error {result.error!r}"


def _about_times(replay: _Replay, result: TaskResult[Any]) -> Iterator[str]:
    name = result.task_name
    started_at = replay.first_start.get(name)
    if started_at is None:
        if (result.started_at, result.duration) != (None, 0.0):
            yield f"did not start, at {result.started_at} for {result.duration}"
        return
    if result.started_at is None:
        yield "has no start"
        return
    if name not in replay.endings:
        yield f"did not end, and took {result.duration}"
        return
    last = replay.endings[name][-1]
    in_the_log = last.at - started_at
    if result.status is TaskStatus.CANCELLED and last.how == "failed" and replay.left:
        # It was to have another attempt, and so it ended with the run.
        in_the_log = max(in_the_log, min(result.duration, replay.left.at - started_at))
    if replay.conditions.virtual_time:
        if result.started_at != started_at:
            yield f"started at {result.started_at}, not at {started_at}"
        if result.duration != in_the_log:
            yield f"took {result.duration}, not {in_the_log}"
    # It starts before its function does and ends after it.
    elif result.started_at > started_at or result.duration < in_the_log:
        yield (
            f"started at {result.started_at} for {result.duration}, not at {started_at} for "
            f"{in_the_log}"
        )

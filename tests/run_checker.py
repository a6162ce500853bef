"""Judges a run by what its tasks wrote down, knowing nothing of how it was carried out.

`complaints()` goes through the log, works out at each line what was ready, what ran and what had
to follow, and then holds the results against it. It shares no code with the library, only the
naive ranking with other tests. What observers were told is judged by `event_checker`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal

from naive import by_name, is_lifetime, needed_by, start_order
from run_log import (
    Cancelled,
    Closed,
    Closing,
    Ended,
    Entered,
    Left,
    Line,
    Seen,
    Settled,
    Started,
    Stopped,
)

from portable_sched import (
    AttemptStarted,
    Backoff,
    DependencyFailedError,
    FailurePolicy,
    RunResults,
    TaskCancelledError,
    TaskDef,
    TaskResult,
    TaskStarted,
    TaskStatus,
    TaskTimeoutError,
)

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED

# Seconds that a teardown may take where the task has no timeout.
TEARDOWN = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What was asked of the run, and how exact the log is.

    Attributes:
        tasks: the tasks that are to run, as they were registered, with all that they depend on.
        limit: how many may run at once; None for no limit.
        in_threads: names of the tasks that are plain functions.
        threads: how many of them may run at once.
        resources: how many units there are of what tasks hold.
        policy: what a failure means for the rest.
        inherit_priority: whether what a more urgent task waits for counts as that urgent.
        order: in which order ready tasks start.
        takes: for each task the names of those whose results it takes by parameter.
        inputs: for each task what else is given to it by parameter.
        breaking: the lifetimes that may fail while they are open.
        kept: the tasks whose results are kept although others take them; None for all.
        virtual_time: the clock moves only when nothing else can. Then nothing may be ready while
            it moves, and times are exact.
        in_order: lines stand in the order in which the run has decided. Not so where several
            threads write at once.
    """

    tasks: Sequence[TaskDef]
    limit: int | None = None
    in_threads: frozenset[str] = frozenset()
    threads: int | None = None
    resources: Mapping[str, int] = field(default_factory=dict)
    policy: FailurePolicy = FailurePolicy.CONTINUE
    inherit_priority: bool = False
    order: Literal["priority", "reverse", "shuffle"] = "priority"
    takes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    breaking: frozenset[str] = frozenset()
    kept: frozenset[str] | None = None
    virtual_time: bool = True
    in_order: bool = True

    def ranking(self) -> list[str]:
        """All tasks, the one that is to start first at the beginning."""
        ranking = start_order(self.tasks, inherit_priority=self.inherit_priority)
        return ranking[::-1] if self.order == "reverse" else ranking


def complaints(conditions: Conditions, log: Sequence[Line], results: RunResults) -> list[str]:
    """Whatever is wrong with the run; nothing if all is well."""
    replay = _Replay(conditions)
    for line in log:
        replay.read(line)
    replay.close()
    return [*replay.complaints, *_about_results(replay, results)]


def is_tried_again(definition: TaskDef, line: Ended) -> bool:
    """Whether the failure is one of those that the task wants to try again after."""
    if not (line.late or line.how == "failed"):
        return False
    error = TaskTimeoutError(definition.name, 1) if line.late else line.outcome
    retry_on = definition.retry_on
    if isinstance(retry_on, type | tuple):
        return isinstance(error, retry_on)
    return bool(retry_on(error))


def pause_after(definition: TaskDef, attempt: int) -> float:
    """Seconds until the task competes again when that attempt has failed."""
    backoff = definition.backoff
    if backoff is None:
        return 0
    if isinstance(backoff, Backoff):
        pause = backoff.initial
        for _ in range(attempt - 1):
            pause *= backoff.factor
        return min(pause, backoff.maximum)
    return backoff(attempt, ValueError())


@dataclass
class _Replay:
    """What is known at one line of the log.

    Attributes:
        running: tasks in an attempt.
        attempts: how many attempts each task began.
        succeeded: tasks that returned, or yielded.
        failed: tasks that failed, each with the task whose failure began it.
        certain: those of which the run must know in the order of the log.
        allowed: the statuses that each task which has ended may have: one, unless it is not clear
            which of two things in one moment the run knew first.
        due: when the backoffs of tasks are over.
        endings: how each task's attempts ended, in order.
        first_start: when each task's first attempt began.
        open: the lifetimes that have yielded, and whose teardown has not ended.
        closing: the lifetimes of which the teardown has begun.
        closed: how the teardown of each lifetime has ended.
        vain: the lifetimes that yielded when their time was up: they close, and have failed.
        entering: tasks of which an observer was told that they begin, and which are yet to.
        halted_at: since when nothing new may start.
        halt_statuses: what becomes of a task that waits for another attempt then.
        halt_is_known: the run must know of it.
        cancelled_at: since when attempts are being cancelled.
        stops: how often `stop()` was called.
        may_not_be_cancelled: it is not clear that they are.
        watched: an observer writes into the log too.
    """

    conditions: Conditions
    complaints: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    attempts: Counter[str] = field(default_factory=Counter)
    succeeded: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    certain: set[str] = field(default_factory=set)
    allowed: dict[str, set[TaskStatus]] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    endings: dict[str, list[Ended]] = field(default_factory=dict)
    first_start: dict[str, float] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    closing: dict[str, Closing] = field(default_factory=dict)
    closed: dict[str, Closed] = field(default_factory=dict)
    vain: set[str] = field(default_factory=set)
    entering: set[str] = field(default_factory=set)
    most_running: int = 0
    now: float | None = None
    halted_at: float | None = None
    halt_statuses: set[TaskStatus] = field(default_factory=set)
    halt_is_known: bool = False
    cancelled_at: float | None = None
    stops: int = 0
    may_not_be_cancelled: bool = False
    watched: bool = False
    entered: Entered | None = None
    left: Left | None = None

    def __post_init__(self) -> None:
        self.known = by_name(self.conditions.tasks)
        self.ranking = self.conditions.ranking()
        self.needed = {name: needed_by(name, self.known) for name in self.known}
        self.lifetimes = {name for name in self.known if is_lifetime(self.known[name])}
        self.users = {
            name: [user for user in self.known if name in self.known[user].depends_on]
            for name in self.lifetimes
        }
        # Whether the starts of the log are in the order of the decisions. A lifetime begins in an
        # async task of its own, a turn later; where there are resources, others may be kept.
        self.is_ranked = (
            self.conditions.in_order
            and self.conditions.order != "shuffle"
            and not self.lifetimes
            and not any(one.resources for one in self.conditions.tasks)
        )

    def complain(self, complaint: str) -> None:
        self.complaints.append(complaint)

    # What follows from the log so far

    def is_over(self, name: str) -> bool:
        """Whether nothing more happens to the task, teardown included."""
        if name in self.running or name in self.open:
            return False
        closing = self.closing.get(name)
        if closing is not None and closing.broken and not all(map(self.is_over, self.users[name])):
            # One that was broken while others use it changes nothing for them.
            return False
        return name in self.allowed or self.halted_at is not None

    def ready(self, before: float = inf) -> list[str]:
        """The tasks that could start if there were a slot, the best one first."""
        waiting = [
            name
            for name in self.ranking
            if name not in self.running
            and name not in self.allowed
            and self.succeeded.issuperset(self.known[name].depends_on)
            and all(map(self.is_over, self.known[name].after))
            and self.due.get(name, -inf) < before
        ]
        short = [name for name in waiting if not self.fits(name)]
        return [
            name
            for name in waiting
            if name not in short and not any(self.share(name, other) for other in short)
        ]

    def fits(self, name: str) -> bool:
        """Whether there is a thread for it if it needs one, and all resources that it asks for."""
        threads = self.conditions.threads
        in_threads = self.conditions.in_threads
        if name in in_threads and threads is not None and len(self.running & in_threads) >= threads:
            return False
        return not self.lacking(name)

    def lacking(self, name: str) -> list[str]:
        """The resources of which there are not enough units for the task."""
        free = Counter(self.conditions.resources)
        for one in self.running:
            free.subtract(dict(self.known[one].resources))
        return [one for one, units in self.known[name].resources if units > free[one]]

    def share(self, name: str, other: str) -> bool:
        """Whether what one asks for may be kept for the other."""
        return bool(dict(self.known[name].resources).keys() & dict(self.known[other].resources))

    def is_known(self, ready: str) -> bool:
        """Whether the run must know by now that the task is ready."""
        definition = self.known[ready]
        causes = {ready, *definition.depends_on, *definition.after}
        causes.update(*(self.needed[name] for name in definition.after))
        if self.conditions.virtual_time:
            in_time = self.due.get(ready, -inf) < (self.now or 0)
        else:
            in_time = ready not in self.due
        return in_time and all(
            self.is_settled(ending) for name in causes for ending in self.endings.get(name, ())[-1:]
        )

    def is_settled(self, ending: Ended) -> bool:
        """Whether the run must know by now that the attempt has ended, and how."""
        if ending.interrupted:
            return self.conditions.virtual_time and ending.at != self.now
        return True

    def has_slot(self) -> bool:
        return self.conditions.limit is None or len(self.running) < self.conditions.limit

    # The lines

    def read(self, line: Line) -> None:  # noqa: C901 - one case for each kind of line
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
            case Closing():
                self._begin_to_close(line)
            case Closed():
                self._close(line)
            case Seen(event=event):
                self.watched = True
                if isinstance(event, TaskStarted | AttemptStarted) and not self.halt_is_known:
                    self.entering.add(event.task)
            case Stopped():
                self._stop(line)
            case Cancelled():
                self._cancel(line.at)
                self._halt(line.at, CANCELLED, is_known=False)
            case Settled():
                self._learn_of_halt()
            case Left():
                self.left = line

    def close(self) -> None:
        if self.left is None:
            self.complain("run() was never left")
        for name in sorted(self.running):
            self.complain(f"{name!r} never ended")
        for name in sorted(self.open):
            self.complain(f"{name!r} never closed")
        if self.halted_at is None:
            for name in self.ready():
                self.complain(f"{name!r} was ready and did not start")
        else:
            self._learn_of_halt()

    def _let_time_pass(self, at: float) -> None:
        if self.now is not None and at < self.now and self.conditions.in_order:
            self.complain(f"time went back from {self.now} to {at}")
        if self.now is not None and at > self.now and self.conditions.virtual_time:
            if self.halted_at is None:
                for name in self.ready(before=at)[:1] if self.has_slot() else ():
                    self.complain(f"{name!r} was ready at {self.now} and time went on")
            else:
                self._learn_of_halt()
            for name in sorted(self.open - self.closing.keys()):
                if all(map(self.is_over, self.users[name])):
                    self.complain(f"{name!r} could close at {self.now} and time went on")
            if self.entered and all(map(self.is_over, self.known)):
                self.complain(f"everything had ended at {self.now} and time went on")
        self.now = at

    def _start(self, line: Started) -> None:
        name = line.name
        self.attempts[name] += 1
        if name in self.running:
            self.complain(f"{name!r} started while it ran")
        if not self.halt_is_known:
            if name in self.allowed:
                self.complain(f"{name!r} started after it had ended")
        elif self._was_taken(name):
            # That was before.
            self.allowed.pop(name, None)
            self.failed.pop(name, None)
        else:
            what = "stopped" if self.cancelled_at is None else "cancelled"
            self.complain(f"{name!r} started after the run was {what}")
        retries = self.known[name].retries
        if self.attempts[name] != line.attempt or line.attempt > retries:
            self.complain(
                f"{name!r} started attempt {line.attempt} of {retries} "
                f"as number {self.attempts[name]}"
            )
        if line.at < self.due.get(name, -inf):
            self.complain(f"{name!r} started at {line.at}, in its backoff until {self.due[name]}")
        self._complain_of_what_is_before(name)
        self._complain_of_limits(name)
        if self.is_ranked and self.halted_at is None:
            ahead = self.ranking[: self.ranking.index(name)]
            for better in [one for one in self.ready() if one in ahead and self.is_known(one)][:1]:
                self.complain(f"{name!r} started while {better!r} was ready")
        if line.given is not None:
            self._complain_of_arguments(name, line.given)
        self.entering.discard(name)
        self.due.pop(name, None)
        self.running.add(name)
        self.most_running = max(self.most_running, len(self.running))
        self.first_start.setdefault(name, line.at)

    def _complain_of_what_is_before(self, name: str) -> None:
        for needed in self.known[name].depends_on:
            if needed not in self.succeeded:
                self.complain(f"{name!r} started before {needed!r} had succeeded")
            elif needed in self.closing and not self.closing[needed].broken:
                self.complain(f"{name!r} started after {needed!r} had begun to close")
        for earlier in self.known[name].after:
            if not self.is_over(earlier):
                self.complain(f"{name!r} started before {earlier!r} had ended")

    def _was_taken(self, name: str) -> bool:
        """Whether it may have been taken before the line that its function writes."""
        return name in (self.entering if self.watched else self.lifetimes)

    def _complain_of_limits(self, name: str) -> None:
        if not self.has_slot():
            self.complain(f"{name!r} started beside {sorted(self.running)}: above the limit")
        in_threads = self.running & self.conditions.in_threads
        if name in self.conditions.in_threads and len(in_threads) == self.conditions.threads:
            self.complain(f"{name!r} started beside {sorted(in_threads)}: no thread was free")
        for resource in self.lacking(name):
            self.complain(f"{name!r} started beside {sorted(self.running)}: not enough {resource}")

    def _complain_of_arguments(self, name: str, given: Mapping[str, Any]) -> None:
        taken = self.conditions.takes.get(name, frozenset())
        expected: dict[str, object] = dict(self.conditions.inputs.get(name, {}))
        for one in taken:
            if one in self.known[name].depends_on:
                expected[one] = self.endings[one][-1].outcome
        for one in taken.intersection(self.known[name].after):
            result = given.get(one)
            if not isinstance(result, TaskResult) or result.task_name != one:
                self.complain(f"{name!r} was given {result!r} for {one!r}")
                continue
            expected[one] = result
            if result.status not in self.allowed.get(one, {CANCELLED}):
                self.complain(f"{name!r} was given {one!r} as {result.status.name}")
            if result.ok and result.result != self.endings[one][-1].outcome:
                self.complain(f"{name!r} was given {one!r} with {result.result!r}")
        if expected != given:
            self.complain(f"{name!r} was given {dict(given)}, not {expected}")

    def _end(self, line: Ended) -> None:
        name = line.name
        if name not in self.running:
            self.complain(f"{name!r} ended and did not run")
        self.endings.setdefault(name, []).append(line)
        if name in self.lifetimes and line.how == "returned":
            self.open.add(name)
            self.closing.pop(name, None)
            if line.late:
                # The attempt goes on until the teardown has ended.
                self.vain.add(name)
                return
        self._settle(name, line)

    def _settle(self, name: str, line: Ended) -> None:
        """An attempt is over, for good or not."""
        definition = self.known[name]
        self.running.discard(name)
        if line.how == "returned" and not line.late:
            self.succeeded.add(name)
            self._finish(name, COMPLETED, line)
        elif line.how == "was cancelled" and not line.late:
            if self.cancelled_at is None:
                self.complain(f"{name!r} was cancelled by nobody")
            self._finish(name, CANCELLED, line)
        elif (
            not self.halt_is_known
            and self.attempts[name] < definition.retries
            and is_tried_again(definition, line)
        ):
            pause = pause_after(definition, self.attempts[name])
            if pause:
                self.due[name] = line.at + pause
        else:
            self._fail(name, line)

    def _finish(self, name: str, status: TaskStatus, line: Ended) -> None:
        self.allowed[name] = {status}
        if self.cancelled_at is not None:
            # In the turn of the cancellation it depends on who runs first. Later it does not.
            later = self.conditions.virtual_time and line.at > self.cancelled_at
            sure = later and not self.may_not_be_cancelled
            self.allowed[name] = {CANCELLED} if sure else {status, CANCELLED}

    def _fail(self, name: str, line: Ended) -> None:
        self._finish(name, FAILED, line)
        if self.conditions.in_order and self.halted_at is None and not line.interrupted:
            self.certain.add(name)
        policy = self.conditions.policy
        # Where it takes the run a turn to know, another failure may cancel the run meanwhile.
        unsure = policy is FailurePolicy.CANCEL and not self.is_settled(line)
        if unsure:
            self.allowed[name].add(CANCELLED)
        sure = self.halted_at is None and not unsure
        self._fail_dependents(name, {FAILED} if sure else {FAILED, CANCELLED})
        is_known = not line.interrupted
        if policy is not FailurePolicy.CONTINUE and self.halted_at is None:
            self._halt(line.at, FAILED, is_known=is_known)
        if policy is FailurePolicy.CANCEL and self.cancelled_at is None:
            self._cancel(line.at)

    def _fail_dependents(self, name: str, statuses: set[TaskStatus]) -> None:
        self.failed[name] = name
        for dependent in self.known:
            if name in self.needed[dependent] and dependent not in self.allowed:
                self.failed[dependent] = name
                self.allowed[dependent] = set(statuses)

    def _begin_to_close(self, line: Closing) -> None:
        name = line.name
        if name not in self.open or name in self.closing:
            self.complain(f"{name!r} began to close and was not open")
        self.closing[name] = line
        if name in self.vain:
            return
        if not line.broken:
            for user in self.users.get(name, ()):
                if not self.is_over(user):
                    self.complain(f"{name!r} began to close before {user!r} had ended")
        elif name not in self.conditions.breaking and self.cancelled_at is None:
            self.complain(f"{name!r} was broken by nobody")

    def _close(self, line: Closed) -> None:
        name = line.name
        if name not in self.open or name not in self.closing:
            self.complain(f"{name!r} closed and had not begun to")
            return
        self.open.discard(name)
        self.closed[name] = line
        if name in self.vain:
            self.vain.discard(name)
            ended = replace(self.endings[name][-1], at=line.at)
            self.endings[name][-1] = ended
            self._settle(name, ended)
            return
        if line.how == "was cancelled" and not self.teardown_is_late(name):
            in_vain = self.cancelled_at is not None and CANCELLED in self.allowed[name]
            if not in_vain:
                self.complain(f"{name!r} was cancelled in its teardown")
        if line.how != "returned" or self.teardown_is_late(name):
            self.allowed[name] = (self.allowed[name] - {COMPLETED}) | {FAILED}

    def teardown_is_late(self, name: str) -> bool:
        if name not in self.closed or not self.conditions.virtual_time:
            return False
        limit = self.known[name].timeout or TEARDOWN
        return self.closed[name].at - self.closing[name].at >= limit

    def _stop(self, line: Stopped) -> None:
        self.stops += 1
        if self.stops > 1:
            self._cancel(line.at)
        elif (
            self.conditions.policy is FailurePolicy.CANCEL
            and self.cancelled_at is None
            and any(map(self._waits_again, self.endings))
        ):
            # Called by the observer of a failure, it makes that one the last.
            self._cancel(line.at)
            self.may_not_be_cancelled = True
        self._halt(line.at, FAILED, is_known=True)

    def _cancel(self, at: float) -> None:
        """Whoever is in an attempt will be cancelled."""
        if self.cancelled_at is not None and not self.may_not_be_cancelled:
            return
        self.may_not_be_cancelled = False
        self.cancelled_at = at
        for name, endings in self.endings.items():
            if name in self.allowed and not self.is_settled(endings[-1]):
                self.allowed[name].add(CANCELLED)

    def _halt(self, at: float, status: TaskStatus, *, is_known: bool) -> None:
        """Nothing new starts: from here on, or, if the run may not know yet, a little later."""
        if self.halted_at is None:
            self.halted_at = at
        self.halt_statuses.add(status)
        if is_known:
            self._learn_of_halt()

    def _learn_of_halt(self) -> None:
        """The run knows that nothing new starts: whatever has not started has ended."""
        if self.halt_is_known or self.halted_at is None:
            return
        self.halt_is_known = True
        for name, root in list(self.failed.items()):
            # Perhaps it learned of the failure later.
            if name == root and name in self.endings and not self._was_first(name):
                for dependent, other in self.failed.items():
                    if other == name and dependent != name:
                        self.allowed[dependent].add(CANCELLED)
        for name in [one for one in self.endings if self._waits_again(one)]:
            statuses = set(self.halt_statuses)
            ending = self.endings[name][-1]
            # The run may have judged it only after it was cancelled.
            judged_late = self.cancelled_at is not None and not self.is_settled(ending)
            if judged_late or (self.cancelled_at is not None and ending.at >= self.cancelled_at):
                statuses.add(CANCELLED)
            self.allowed[name] = statuses
            if FAILED in statuses:
                sure = statuses == {FAILED} and self.is_settled(self.endings[name][-1])
                sure = sure and (self.watched or name not in self.lifetimes)
                self._fail_dependents(name, {FAILED} if sure else {FAILED, CANCELLED})
        for name in self.known:
            if name not in self.running and name not in self.allowed:
                self.allowed[name] = {CANCELLED}

    def _was_first(self, name: str) -> bool:
        """Whether the run knew of the failure before it was to start nothing new."""
        return self.is_settled(self.endings[name][-1])

    def _waits_again(self, name: str) -> bool:
        return not {name} & (self.running | self.entering | self.allowed.keys())


def _about_results(replay: _Replay, results: RunResults) -> Iterator[str]:
    conditions = replay.conditions
    names = [result.task_name for result in results]
    if sorted(names) != sorted(replay.known):
        yield f"results of {names}"
        return
    for at, name in enumerate(names):
        for needed in (*replay.known[name].depends_on, *replay.known[name].after):
            if needed not in names[:at]:
                yield f"results have {name!r} before {needed!r}"
    for result in results:
        for complaint in _about_result(replay, result, results):
            yield f"{result.task_name!r} {complaint}"
    if replay.entered and replay.left and conditions.virtual_time:
        in_the_log = replay.left.at - replay.entered.at
        if results.wall_time != in_the_log:
            yield f"the run took {results.wall_time} in the results, {in_the_log} in the log"
    exact = conditions.in_order and replay.halted_at is None and not replay.lifetimes
    # While it is not clear what interrupted an attempt, it still counts as running.
    if exact and not any(one.interrupted for ended in replay.endings.values() for one in ended):
        if results.most_running != replay.most_running:
            yield f"{results.most_running} at once in the results, {replay.most_running} in the log"
    elif results.most_running < replay.most_running:
        yield f"{results.most_running} at once in the results, {replay.most_running} in the log"


def _about_result(replay: _Replay, result: TaskResult[Any], results: RunResults) -> Iterator[str]:
    name = result.task_name
    endings = replay.endings.get(name, [])
    wanted = replay.allowed.get(name, {CANCELLED})
    if result.status not in wanted:
        yield f"is {result.status.name}, not {' or '.join(sorted(one.name for one in wanted))}"
    if result.status is CANCELLED and replay.halted_at is None:
        yield "is CANCELLED by nobody"
    attempts = replay.attempts[name]
    # One that was taken and cancelled before it had begun in an async task of its own.
    never_entered = name in replay.lifetimes and replay.halted_at is not None
    if result.attempts != attempts and not (never_entered and result.attempts == attempts + 1):
        yield f"has {result.attempts} attempts, not {attempts}"
    last = endings[-1].outcome if endings else None
    if result.result != (last if result.ok and _is_kept(replay, name) else None):
        yield f"has the result {result.result!r}"
    yield from _about_failures(replay, result)
    if result.status is not FAILED:
        if (result.exception, result.error) != (None, None):
            yield f"has the exception {result.exception!r}"
    elif result.attempts:
        if [failure.exception for failure in result.failures[-1:]] != [result.exception]:
            yield f"has the exception {result.exception!r}, not that of its last failure"
        if not str(result.error).startswith(type(result.exception).__name__):
            yield f"has the error {result.error!r}"
    else:
        yield from _about_root_cause(replay, result, results)
    yield from _about_times(replay, result)


def _is_kept(replay: _Replay, name: str) -> bool:
    """Whether a result is there at the end of the run."""
    kept = replay.conditions.kept
    is_taken = any(name in replay.conditions.takes.get(one, ()) for one in replay.known)
    return kept is None or name in kept or not is_taken


def _about_failures(replay: _Replay, result: TaskResult[Any]) -> Iterator[str]:
    name = result.task_name
    endings = replay.endings.get(name, [])
    raised = [
        (attempt, "late" if ended.late else ended.outcome)
        for attempt, ended in enumerate(endings, 1)
        if ended.late or ended.how not in {"returned", "was cancelled"}
    ]
    closed = replay.closed.get(name)
    if closed is not None and not (endings and endings[-1].late):
        if replay.teardown_is_late(name):
            raised.append((len(endings), "late"))
        elif closed.how != "returned":
            raised.append((len(endings), closed.outcome))
    found = [
        (
            failure.attempt,
            "late" if isinstance(failure.exception, TaskTimeoutError) else _cause_of(failure),
        )
        for failure in result.failures
    ]
    # What an attempt raises that is being cancelled may be its own or not.
    doubtful = CANCELLED in replay.allowed.get(name, set())
    if not (found == raised or (doubtful and _differ_in_the_end(found, raised))):
        if [attempt for attempt, _ in found] != [attempt for attempt, _ in raised]:
            yield f"has failed in other attempts than {[attempt for attempt, _ in raised]}"
        yield f"has the failures {[one for _, one in found]}, not {[one for _, one in raised]}"


def _differ_in_the_end(found: list[Any], raised: list[Any]) -> bool:
    """Whether one is the other without its last ones."""
    return found == raised[: len(found)] and len(raised) - len(found) <= 2


def _cause_of(failure: Any) -> BaseException | None:
    """The exception that the function raised."""
    if isinstance(failure.exception, TaskCancelledError):
        return failure.exception.__cause__
    exception: BaseException = failure.exception
    return exception


def _about_root_cause(
    replay: _Replay, result: TaskResult[Any], results: RunResults
) -> Iterator[str]:
    name = result.task_name
    error = result.exception
    if not isinstance(error, DependencyFailedError):
        yield f"was not started and has the exception {error!r}"
        return
    root = error.root_cause
    failed = {one.task_name for one in results if one.status is FAILED}
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
        never_entered = name in replay.lifetimes and replay.halted_at is not None
        if (result.started_at, result.duration) != (None, 0.0) and not never_entered:
            yield f"did not start, at {result.started_at} for {result.duration}"
        return
    if result.started_at is None:
        yield "has no start"
        return
    if name not in replay.endings:
        yield f"did not end, and took {result.duration}"
        return
    last = replay.endings[name][-1]
    in_the_log = {last.at - started_at}
    if replay.halted_at is not None and not result.ok and replay.left:
        # It was to have another attempt, and so it ended with the run, or it ended in vain.
        span = min(result.duration, replay.left.at - started_at)
        in_the_log.add(max(last.at - started_at, span))
    if replay.conditions.virtual_time:
        if result.started_at != started_at:
            yield f"started at {result.started_at}, not at {started_at}"
        if result.duration not in in_the_log:
            yield f"took {result.duration}, not {min(in_the_log)}"
    # It starts before its function does and ends after it.
    elif result.started_at > started_at or result.duration < min(in_the_log):
        yield (
            f"started at {result.started_at} for {result.duration}, not at {started_at} for "
            f"{min(in_the_log)}"
        )

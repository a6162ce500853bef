"""Judges what the observers of a run were told: whether it is well formed, right, and in order.

An observer is told of each decision at once, so its lines stand in the order of the decisions. That
makes it possible to hold every start against all that was ready, with lifetimes and resources too.
What the functions wrote into the same log must agree with it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from naive import by_name, inherited_priority, is_lifetime
from run_checker import Conditions, pause_after
from run_log import Cancelled, Ended, Entered, Left, Line, Seen, Settled, Started, Stopped

from portable_sched import (
    AttemptCancelled,
    AttemptCompleted,
    AttemptFailed,
    AttemptStarted,
    FailurePolicy,
    RunFinished,
    RunResults,
    RunStarted,
    TaskCancelled,
    TaskCancelledError,
    TaskClosed,
    TaskCompleted,
    TaskEvent,
    TaskFailed,
    TaskRetrying,
    TaskScheduled,
    TaskStarted,
    TaskStatus,
    TaskTimeoutError,
)

LETTERS: dict[type, str] = {
    TaskScheduled: "s",
    TaskStarted: "t",
    AttemptStarted: "a",
    AttemptCompleted: "c",
    AttemptFailed: "f",
    AttemptCancelled: "x",
    TaskRetrying: "r",
    TaskCompleted: "C",
    TaskFailed: "F",
    TaskCancelled: "X",
    TaskClosed: "L",
}

# What may happen to one task, in letters: every attempt that starts ends in one way.
PLAIN = re.compile(r"F|s?X|sta(fra)*(cC|fF|xX|fr[FX])")
# One that was cancelled when it had just yielded closes too.
LIFETIME = re.compile(r"F|s?X|sta(fra)*(cCLF?|fF|xXL?|fr[FX])")

ATTEMPT_ENDS = (AttemptCompleted, AttemptFailed, AttemptCancelled)

FINAL = {"C": TaskStatus.COMPLETED, "F": TaskStatus.FAILED, "X": TaskStatus.CANCELLED}


def event_complaints(conditions: Conditions, log: Sequence[Line], results: RunResults) -> list[str]:
    """Whatever is wrong with what the observer was told."""
    events = [line.event for line in log if isinstance(line, Seen)]
    found = []
    if [RunStarted] != [type(one) for one in events if isinstance(one, RunStarted)] or not (
        isinstance(events[0], RunStarted) and isinstance(events[-1], RunFinished)
    ):
        found.append("the events do not begin with RunStarted, or do not end with RunFinished")
    if sum(isinstance(one, RunFinished) for one in events) != 1:
        found.append("RunFinished does not come once")
    decisions = Decisions(conditions)
    for line in log:
        decisions.read(line)
    return [*found, *decisions.complaints, *decisions.about_the_end(events, results)]


@dataclass
class Decisions:
    """What the run has decided by one line of the log, as its observer was told.

    Attributes:
        told: for each task the letters of its events.
        running: tasks in an attempt, with its start.
        succeeded: tasks that have completed.
        over: tasks that have ended, teardown included.
        due: when the backoffs of tasks are over.
        passed: for each task that waits for resources, how often a worse one was taken before it
            that holds one which it is short of.
        patient: the tasks before which any other was taken that holds what they are short of, so
            that something may be kept for them.
        taken: tasks that were taken when an observer called `stop()` at hearing so.
        in_function: attempts that the functions say to be in, and those they say to have ended.
    """

    conditions: Conditions
    complaints: list[str] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    succeeded: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    due: dict[str, float] = field(default_factory=dict)
    passed: dict[str, Counter[str]] = field(default_factory=dict)
    patient: set[str] = field(default_factory=set)
    in_function: dict[str, Started | Ended] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    halted: bool = False
    now: float = -inf

    def __post_init__(self) -> None:
        self.known = by_name(self.conditions.tasks)
        self.ranking = self.conditions.ranking()
        self.told = dict.fromkeys(self.known, "")
        self.passed = {name: Counter() for name in self.known}

    def complain(self, complaint: str) -> None:
        self.complaints.append(complaint)

    def read(self, line: Line) -> None:
        if line.at > self.now:
            self._let_time_pass(line.at)
        self.now = max(self.now, line.at)
        match line:
            case Seen(event=TaskEvent() as event):
                self._note(event, line)
            case Seen(event=event):
                self._check_time(event, line)
            case Started():
                self._enter(line)
            case Ended():
                self.in_function[line.name] = line
            case Stopped():
                self.halted = True
                # What is decided is still told of.
                self.taken = {name for name in self.told if self.told[name].endswith("t")}
            case Entered() | Left() | Cancelled() | Settled():
                pass

    def _check_time(self, event: Any, line: Seen) -> None:
        if event.at != line.at if self.conditions.virtual_time else event.at > line.at:
            self.complain(f"told at {line.at} of {event}")

    def _let_time_pass(self, at: float) -> None:
        if not self.conditions.virtual_time or self.now == -inf:
            return
        for name in self.running:
            # What a lifetime of its own does is over when its teardown is.
            ended = self.in_function.get(name)
            if isinstance(ended, Ended) and not (ended.late or ended.how == "returned"):
                self.complain(f"{name!r} ended at {ended.at} and nobody was told by {self.now}")
            if ended is None:
                self.complain(f"{name!r} began an attempt and did not enter it by {self.now}")
        if self.halted:
            return
        for name in self.ready(before=at):
            if "s" not in self.told[name]:
                self.complain(f"{name!r} was ready at {self.now} and not scheduled")

    def ready(self, before: float = inf) -> list[str]:
        """The tasks that wait for nothing but a slot and their resources, the best one first."""
        return [
            name
            for name in self.ranking
            if name not in self.running
            and name not in self.over
            and name not in self.succeeded
            and self.succeeded.issuperset(self.known[name].depends_on)
            and self.over.issuperset(self.known[name].after)
            and self.due.get(name, -inf) < before
        ]

    def lacking(self, name: str) -> set[str]:
        """The resources of which there are not enough units for the task."""
        free = Counter(self.conditions.resources)
        for one in self.running:
            free.subtract(dict(self.known[one].resources))
        return {one for one, units in self.known[name].resources if units > free[one]}

    def holds(self, name: str) -> set[str]:
        return set(dict(self.known[name].resources))

    def _note(self, event: TaskEvent, line: Seen) -> None:
        self._check_time(event, line)
        name = event.task
        self.told[name] += LETTERS[type(event)]
        if isinstance(event, TaskScheduled) and name not in self.ready():
            self.complain(f"{name!r} was scheduled and was not ready")
        elif isinstance(event, AttemptStarted):
            self._take(event)
        elif isinstance(event, ATTEMPT_ENDS):
            self._end(event)
        elif isinstance(event, TaskRetrying):
            pause = pause_after(self.known[name], self.attempts[name])
            if (event.attempt, event.delay) != (self.attempts[name] + 1, pause):
                self.complain(f"{name!r} is told to try again as {event}, not after {pause}")
            if pause:
                self.due[name] = event.at + pause
        elif isinstance(event, TaskCompleted):
            self.succeeded.add(name)
            if not is_lifetime(self.known[name]):
                self.over.add(name)
        elif isinstance(event, TaskFailed | TaskCancelled | TaskClosed):
            self.over.add(name)
            # A lifetime that fails when it is open, or closes, is no failure to the policy.
            if isinstance(event, TaskFailed) and self.attempts[name] and name not in self.succeeded:
                self.halted = self.halted or self.conditions.policy is not FailurePolicy.CONTINUE
            # An attempt may be cancelled a little before the run knows that it is.
            if isinstance(event, TaskCancelled) and not self.attempts[name]:
                self.halted = True

    def _take(self, event: AttemptStarted) -> None:
        name = event.task
        self.attempts[name] += 1
        if event.attempt != self.attempts[name]:
            self.complain(f"{name!r} began attempt {event.attempt} as {self.attempts[name]}")
        if name not in self.ready():
            self.complain(f"{name!r} was taken and was not ready")
        if event.at < self.due.get(name, -inf):
            self.complain(f"{name!r} was taken in its backoff")
        if self.halted and name not in self.taken:
            self.complain(f"{name!r} was taken after the run was stopped")
        if self.conditions.limit is not None and len(self.running) >= self.conditions.limit:
            self.complain(f"{name!r} was taken beside {sorted(self.running)}: above the limit")
        for resource in self.lacking(name):
            self.complain(f"{name!r} was taken beside {sorted(self.running)}: no {resource}")
        if self.conditions.order != "shuffle":
            self._complain_of_order(name)
        self.taken.discard(name)
        self.due.pop(name, None)
        self.running[name] = event.at
        self._count_who_is_passed_over(name)
        self.in_function.pop(name, None)

    def _complain_of_order(self, name: str) -> None:
        """Whether a better task could have been taken, or was passed over too often."""
        # Of a backoff that is over just now, the run need not know.
        ready = self.ready(before=self.now if self.conditions.virtual_time else -inf)
        patient = [one for one in ready if one in self.patient]
        for better in [one for one in ready if self._is_better(one, name)]:
            kept = any(self.holds(one) & self.holds(better) for one in patient)
            if not (self.lacking(better) or kept):
                self.complain(f"{name!r} was taken while {better!r} was ready")
            enough = {
                one
                for one in self.holds(better)
                if self.passed[better][one] >= 2 * self.conditions.resources[one]
            }
            is_kept = enough & self.holds(name) and self.lacking(better) <= enough
            same = self.known[better].resources == self.known[name].resources
            if is_kept and not same and not self._is_more_urgent(name, better):
                self.complain(f"{name!r} was taken before {better!r}, as others were too often")

    def _count_who_is_passed_over(self, name: str) -> None:
        """Those who have to wait, now that the task holds what they ask for too."""
        for one in self.ready():
            shared = self.holds(one) & self.holds(name)
            if shared and self.lacking(one):
                self.patient.add(one)
                if self._is_better(one, name):
                    self.passed[one].update(shared)
        # Those that ask for the same as the one that is taken wait in one line with it.
        for one in self.known:
            if self.known[one].resources == self.known[name].resources:
                self.passed[one].clear()
                self.patient.discard(one)

    def _is_better(self, one: str, other: str) -> bool:
        return self.ranking.index(one) < self.ranking.index(other)

    def _is_more_urgent(self, name: str, other: str) -> bool:
        if self.conditions.order != "priority":
            return False
        tasks = self.conditions.tasks
        if self.conditions.inherit_priority:
            return inherited_priority(name, tasks) < inherited_priority(other, tasks)
        return self.known[name].priority < self.known[other].priority

    def _end(self, event: Any) -> None:
        name = event.task
        began = self.running.pop(name, None)
        if began is None or event.attempt != self.attempts[name]:
            self.complain(f"{name!r} was not in the attempt that has ended: {event}")
            return
        if event.duration != event.at - began:
            self.complain(f"{name!r} took {event.at - began}, and was told: {event}")
        ended = self.in_function.get(name)
        if not isinstance(ended, Ended):
            if not (is_lifetime(self.known[name]) and isinstance(event, AttemptCancelled)):
                self.complain(f"{name!r} has not ended, and this was told: {event}")
        elif isinstance(event, AttemptCompleted):
            if ended.how != "returned" or ended.late:
                self.complain(f"{name!r} ended as {ended}, and this was told: {event}")
        elif isinstance(event, AttemptFailed):
            self._compare(event, ended)
        # A lifetime that yields in vain closes before its attempt has ended.
        is_exact = self.conditions.virtual_time and not is_lifetime(self.known[name])
        if is_exact and ended is not None and ended.at != event.at:
            self.complain(f"{name!r} ended at {ended.at}, and this was told: {event}")

    def _compare(self, event: AttemptFailed, ended: Ended) -> None:
        error = event.exception
        if ended.late:
            right = isinstance(error, TaskTimeoutError)
        elif ended.how == "cancelled itself":
            right = isinstance(error, TaskCancelledError) and error.__cause__ is ended.outcome
        else:
            right = error is ended.outcome
        if not right:
            self.complain(f"{event.task!r} ended as {ended}, and this was told: {event}")

    def _enter(self, line: Started) -> None:
        name = line.name
        if line.attempt != self.attempts[name] or name not in self.running:
            self.complain(f"{name!r} entered attempt {line.attempt}, and nobody was told")
        elif line.at != self.running[name] and self.conditions.virtual_time:
            self.complain(f"{name!r} was taken at {self.running[name]} and entered at {line.at}")
        self.in_function[name] = line

    def about_the_end(self, events: Sequence[Any], results: RunResults) -> Iterator[str]:
        for name, told in self.told.items():
            grammar = LIFETIME if is_lifetime(self.known[name]) else PLAIN
            if not grammar.fullmatch(told):
                yield f"{name!r} was told of as {told}"
                continue
            result = results[name]
            [*_, final] = [FINAL[letter] for letter in told if letter in FINAL]
            if result.status is not final:
                yield f"{name!r} is {result.status.name}, and was told of as {told}"
            if result.attempts != told.count("a"):
                yield f"{name!r} has {result.attempts} attempts, and was told of as {told}"
        for event in events:
            if isinstance(event, TaskFailed) and event.error != results[event.task].error:
                yield f"{event.task!r} has the error {results[event.task].error}, not {event.error}"
            if isinstance(event, TaskFailed):
                exception = results[event.task].exception
                if event.exception is not exception:
                    yield f"{event.task!r} has failed with {exception!r}, not {event.exception!r}"
            if isinstance(event, RunStarted) and sorted(event.tasks) != sorted(self.known):
                yield f"the run began with {event.tasks}"
            if isinstance(event, RunFinished) and list(event.results) != list(results):
                yield "the run was finished with other results"

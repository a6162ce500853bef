"""Where the time of a run went: what each task waited for, and which tasks set the wall time."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, isnan
from typing import Final, Literal, NamedTuple

from portable_sched._checks import Demand
from portable_sched._resources import THREAD
from portable_sched._results import RunRecord, RunResults

from .plan import longest_path
from .timeline import AT_ONCE, AttemptSpan, attempt_spans, last_moment, ready_at
from .usage import Usage
from .wording import Told, both_ends, in_seconds, printable, resource_text

_SLOT: Final = "\0slot"
"""The slots of a run as if they were one more resource; no user can give this name."""

_SHOWN: Final = 4
"""Tasks at each end of a long chain that are named."""

_WORTH_SAYING: Final = 0.01
"""Advice that saves less than this part of the wall time is none."""

Reason = Literal["start", "dependency", "slot", "resource", "backoff"]
"""Why a task began when it did: the run began, a dependency had ended, a slot or a resource had
become free, or its backoff was over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTime:
    """What one task did with the time from the start of the run to its own end, in seconds.

    The parts add up to the time from the start of the run to the end of the task.

    Attributes:
        task_name: the task.
        dependencies: until everything that it depends on, or comes after, was there.
        slot: when it could have started, had there been another slot.
        resources: when what it asks for was held by others, by resource; "" stands for a thread.
        backoff: between two attempts, on purpose.
        running: in its function, all attempts together.
        slack: by how much it could have ended later without delay to the run, as far as the tasks
            tell that depend on it, come after it, or took the slot or resource that it left.
    """

    task_name: str
    dependencies: float
    slot: float
    resources: dict[str, float]
    backoff: float
    running: float
    slack: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLink:
    """One task of the chain that set the wall time.

    Attributes:
        task_name: the task.
        reason: what it waited for last before it started.
        resource: which resource, if it was one; "" stands for a thread.
        start: its first start, in seconds since the run began.
        end: its end, likewise.
    """

    task_name: str
    reason: Reason
    resource: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice(Told):
    """What would have made the run shorter, and by how much at most.

    Attributes:
        limit: "max_concurrency", or the name of a resource; "" where no limit stands in the way.
        units: how many there were.
        better: how many to try.
        saves_at_most: seconds by which the run can be shorter then, if tasks take as long as they
            did: no order of starting them does better.
    """

    limit: str
    units: int
    better: int
    saves_at_most: float

    def __str__(self) -> str:
        """One line: `db` 1 → 2 saves at most 38 s."""
        saved = in_seconds(self.saves_at_most)
        return f"`{self.limit}` {self.units} → {self.better} saves at most {saved}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown(Told):
    """Where the time of a run went.

    Attributes:
        wall_time: seconds from the start of the run to its end.
        tasks: one for each task, in topological order.
        chain: the tasks that set the wall time, first to last: each started when the one before it
            had made room for it.
        advice: what would have helped most; None where no limit was in the way.
        max_concurrency: how many slots there were; None for one for each task.
    """

    wall_time: float
    tasks: tuple[TaskTime, ...]
    chain: tuple[ChainLink, ...]
    advice: Advice | None
    max_concurrency: int | None

    def __str__(self) -> str:
        """A few lines of text: the chain, the sums of waiting, the advice."""
        lines = [f"Where the {in_seconds(self.wall_time)} went: {_chain_text(self.chain)}"]
        sums = {"in functions": sum(task.running for task in self.tasks)}
        for task in self.tasks:
            for resource, seconds in task.resources.items():
                what = f"waiting for {resource_text(resource)}"
                sums[what] = sums.get(what, 0.0) + seconds
        what = "waiting to be started" if self.max_concurrency is None else "waiting for a slot"
        sums[what] = sum(task.slot for task in self.tasks)
        sums["in backoff"] = sum(task.backoff for task in self.tasks)
        said = [f"{in_seconds(each)} {what}" for what, each in sums.items() if each >= 0.001]  # noqa: PLR2004 - what is not shown as 0 s
        lines.append(f"All tasks together: {', '.join(said) or 'no time'}.")
        if self.advice is not None:
            lines.append(f"{self.advice}.")
        elif self.chain and self.wall_time - self.chain[-1].end > _WORTH_SAYING * self.wall_time:
            left = in_seconds(self.wall_time - self.chain[-1].end)
            lines.append(f"The last {left} went to lifetimes, which were closing.")
        elif self.chain:
            lines.append("No limit was in the way: only shorter tasks in that chain save time.")
        return "\n".join(lines)


def breakdown(results: RunResults) -> Breakdown:
    """Where the time of a run went, and what would have made it shorter.

    It is worked out from the start and the end of every attempt: a task that could start and did
    not, while a resource that it asks for was held, waited for that; otherwise for a slot, which
    includes what was given to more urgent tasks and the event loop's own time.

    Args:
        results: of a run; of one that goes on, what is known by now.

    >>> from portable_sched import TaskRegistry
    >>> from portable_sched.analysis.breakdown import breakdown
    >>> from portable_sched.testing import run_graph
    >>> registry = TaskRegistry()
    >>> for name in ["north", "south"]:
    ...     @registry.task(name, resources=["db"])
    ...     async def export() -> None: ...
    >>> results = run_graph(registry, seconds={"north": 2, "south": 3}, resources={"db": 1})
    >>> print(breakdown(results))
    Where the 5.0 s went: north (2.0 s), then `db` was free: south (3.0 s)
    All tasks together: 5.0 s in functions, 2.0 s waiting for `db`.
    `db` 1 → 2 saves at most 2.0 s.
    """
    record = results._record  # noqa: SLF001 - the columns are the data, and this reads them
    run = _Run(record, attempt_spans(results))
    return Breakdown(
        wall_time=run.finish,
        tasks=tuple(run.task_times()),
        chain=tuple(run.chain()),
        advice=run.advice(),
        max_concurrency=record.limit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """Why an attempt began when it did, and the attempt whose end made room for it."""

    reason: Reason
    resource: str = ""
    before: int | None = None


class _Parts(NamedTuple):
    """What one task did with its time, in seconds, as in `TaskTime`."""

    dependencies: float
    slot: float
    resources: dict[str, float]
    backoff: float
    running: float


class _Run:
    """The attempts of one run, and what each of them waited for."""

    def __init__(self, record: RunRecord, spans: Sequence[AttemptSpan]) -> None:
        self._record = record
        self._spans = spans
        self.finish = last_moment(record)
        self._limits: dict[str, int] = {
            name: units for name, units in record.capacity.items() if units
        }
        if record.limit is not None:
            self._limits[_SLOT] = record.limit
        self._numbers = [record.numbers[span.task_name] for span in spans]
        self._of_task: dict[int, list[int]] = {}
        for at, number in enumerate(self._numbers):
            self._of_task.setdefault(number, []).append(at)
        self._usages: dict[tuple[str, int], Usage] = {}
        self._any_usages: dict[Demand, Usage] = {}
        # For each limit the attempts that used it, with their ends and by them.
        self._ends: dict[str, list[tuple[float, int]]] = {}
        self._causes: dict[int, _Cause] = {}
        self._times = [self._time_of(number) for number in range(len(record.tasks))]

    def task_times(self) -> Iterable[TaskTime]:
        """What each task did with its time."""
        for definition, parts, slack in zip(
            self._record.tasks, self._times, self._slacks(), strict=True
        ):
            yield TaskTime(task_name=definition.name, slack=slack, **parts._asdict())

    def chain(self) -> list[ChainLink]:
        """From the attempt that ended last back to the start of the run."""
        if not self._spans:
            return []
        # Of several that end at one moment the one that began last.
        at: int | None = max(range(len(self._spans)), key=lambda one: (self._spans[one].end, one))
        links: list[tuple[str, _Cause, AttemptSpan]] = []
        seen: set[int] = set()
        while at is not None and at not in seen:
            seen.add(at)
            cause = self._causes[at]
            links.append((self._spans[at].task_name, cause, self._spans[at]))
            at = cause.before
        links.reverse()
        return [
            ChainLink(
                task_name=name,
                reason=of_task[0][1].reason,
                resource=of_task[0][1].resource,
                start=of_task[0][2].start,
                end=of_task[-1][2].end,
            )
            for name, group in groupby(links, key=lambda link: link[0])
            for of_task in [list(group)]
        ]

    def advice(self) -> Advice | None:
        """The limit whose widening could save most, if anybody waited for one."""
        waited: dict[str, float] = {_SLOT: sum(parts.slot for parts in self._times)}
        held: dict[str, float] = {}
        for number, parts in enumerate(self._times):
            for resource, seconds in parts.resources.items():
                waited[resource] = waited.get(resource, 0.0) + seconds
            for resource, units in self._demand(number):
                held[resource] = held.get(resource, 0.0) + units * parts.running
        own = [parts.backoff + parts.running for parts in self._times]
        path = longest_path(self._record.graph, own)
        bounds = {name: held.get(name, 0.0) / units for name, units in self._limits.items()}
        best: Advice | None = None
        for name, units in self._limits.items():
            if waited.get(name, 0.0) <= 0:
                continue
            others = max(path, *(bound for other, bound in bounds.items() if other != name), 0.0)
            # More than double is a leap, and more than is needed is waste.
            needed = ceil(held[name] / others) if others else units + 1
            better = max(units + 1, min(2 * units, needed))
            if name == THREAD and _SLOT not in self._limits:
                # It would be a limit for those too that need no thread.
                better = max(better, self._record.most_running)
            saved = self.finish - max(others, held[name] / better)
            if saved > _WORTH_SAYING * self.finish and (best is None or saved > best.saves_at_most):
                best = Advice(
                    limit=_limit_name(name), units=units, better=better, saves_at_most=saved
                )
        return best

    def _demand(self, number: int) -> Demand:
        """What a task holds while it is in its function, a slot included where they are counted."""
        demand = self._record.demand_of(number)
        return (*demand, (_SLOT, 1)) if _SLOT in self._limits else demand

    def _time_of(self, number: int) -> _Parts:
        """What one task did with its time."""
        record = self._record
        ended = record.ended[number] - record.began
        if isnan(ended):
            ended = self.finish
        ready = ready_at(record, number)
        if ready is None:
            return _Parts(ended, 0.0, {}, 0.0, 0.0)
        waits_until = since = ready - record.began
        slot = backoff = running = 0.0
        resources: dict[str, float] = {}
        attempts = self._of_task.get(number, [])
        pauses = {one.attempt: one.backoff for one in record.failures.get(number, ())}
        before: int | None = None
        for at in attempts:
            span = self._spans[at]
            if before is not None:
                pause = min(pauses.get(span.attempt - 1, 0.0), span.start - waits_until)
                backoff += pause
                waits_until += pause
            self._causes[at] = self._cause(at, waits_until, before)
            slot += self._waited(number, waits_until, span.start, resources)
            running += span.duration
            waits_until, before = span.end, at
        if waits_until < ended:
            # It ended, or the run goes on, while it waited.
            latest = self._spans[before].attempt if before is not None else 0
            pause = min(pauses.get(latest, 0.0), ended - waits_until)
            backoff += pause
            slot += self._waited(number, waits_until + pause, ended, resources)
        return _Parts(since, slot, resources, backoff, running)

    def _waited(self, number: int, start: float, end: float, resources: dict[str, float]) -> float:
        """Seconds for a slot; those for resources are added to `resources`."""
        left = end - start
        if left <= 0:
            return 0.0
        # While several are short the first is blamed, and that time counts once.
        asked: Demand = ()
        told = 0.0
        for resource, units in self._demand(number):
            if resource != _SLOT:
                asked = (*asked, (resource, units))
                short = self._any_usage(asked).short_in(start, end)
                if short > told:
                    resources[resource] = resources.get(resource, 0.0) + short - told
                    told = short
        return max(0.0, left - told)

    def _left(self, limit: str, moment: float, at: int) -> int | None:
        """The attempt whose end at a moment made room at a limit for the attempt `at`."""
        ends = self._ends[limit]
        # Of those that take no time, not one that began later, nor itself.
        found = bisect_left(ends, (moment, at)) - 1
        if found >= 0 and ends[found][0] >= moment - AT_ONCE:
            return ends[found][1]
        # A failed attempt began when a difference says so, which rounding may make too early.
        just_after = ends[found + 1 : bisect_right(ends, (moment + AT_ONCE, at))]
        return next((earlier for _, earlier in just_after if earlier < at), None)

    def _cause(self, at: int, ready: float, before: int | None) -> _Cause:
        """Why an attempt began when it did, with nothing but limits in the way since `ready`."""
        number = self._numbers[at]
        start = self._spans[at].start
        latest = ready
        reason: Reason = "start"
        blamed = ""
        for resource, units in self._demand(number):
            freed = self._usage(resource, units).last_short_in(ready, start)
            if freed is not None and freed > latest:
                latest, blamed = freed, resource
                reason = "slot" if resource == _SLOT else "resource"
        if reason != "start":
            resource = blamed if reason == "resource" else ""
            return _Cause(reason=reason, resource=resource, before=self._left(blamed, latest, at))
        if before is not None:
            return _Cause(reason="backoff", before=before)
        # What was not started because of a failure was over when that had happened.
        root_cause = self._record.root_cause
        earlier = [
            at
            for one in self._before(number)
            for at in self._of_task.get(root_cause.get(one, one), ())
        ]
        if earlier:
            last = max(earlier, key=lambda at: self._spans[at].end)
            return _Cause(reason="dependency", before=last)
        return _Cause(reason="start")

    def _before(self, number: int) -> Iterable[int]:
        """What a task waited for; of a lifetime that it comes after, those who used it as well."""
        graph = self._record.graph
        dependencies = graph.dependencies[number]
        yield from dependencies
        for earlier in graph.waits_for(number)[len(dependencies) :]:
            yield earlier
            if earlier in self._record.closed:
                yield from graph.dependents[earlier]

    def _usage(self, resource: str, units: int) -> Usage:
        usage = self._usages.get((resource, units))
        if usage is None:
            used = [
                (at, held)
                for at, number in enumerate(self._numbers)
                for name, held in self._demand(number)
                if name == resource
            ]
            spans = [(self._spans[at].start, self._spans[at].end, held) for at, held in used]
            usage = self._usages[resource, units] = Usage(spans, self._limits[resource], units)
            if resource not in self._ends:
                self._ends[resource] = sorted((self._spans[at].end, at) for at, _ in used)
        return usage

    def _any_usage(self, asked: Demand) -> Usage:
        """When any of what is asked for was short."""
        if len(asked) == 1:
            return self._usage(*asked[0])
        usage = self._any_usages.get(asked)
        if usage is None:
            both = (self._any_usage(asked[:-1]), self._usage(*asked[-1]))
            spans = [(*span, 1) for one in both for span in zip(one.starts, one.ends, strict=True)]
            usage = self._any_usages[asked] = Usage(spans, 1, 1)
        return usage

    def _closing(self, number: int) -> float:
        """Seconds from the end of the last that used a lifetime to its own; 0.0 for other tasks."""
        closed = self._record.closed.get(number)
        if closed is None:
            return 0.0
        users = (number, *self._record.graph.dependents[number])
        return closed - max(self._record.ended[one] for one in users)

    def _slacks(self) -> list[float]:
        """By how much each task could have ended later."""
        record = self._record
        graph = record.graph
        last = {number: spans[-1] for number, spans in self._of_task.items()}
        first = {number: spans[0] for number, spans in self._of_task.items()}
        late = [self.finish] * len(record.tasks)
        lifetimes = set(graph.lifetimes)
        freed: dict[int, list[int]] = {}
        for at, cause in self._causes.items():
            if cause.reason in {"slot", "resource"} and cause.before is not None:
                freed.setdefault(self._numbers[cause.before], []).append(self._numbers[at])
        slacks = [0.0] * len(record.tasks)
        order = sorted(last, key=lambda one: (self._spans[last[one]].end, one), reverse=True)
        for number in order:
            end = self._spans[last[number]].end
            bound = late[number]
            # Who comes after a lifetime waits for all who use it.
            held = [one for one in (number, *graph.dependencies[number]) if one in lifetimes]
            later = [(other, 0.0) for other in graph.dependents[number]]
            for one in held or [number]:
                closing = self._closing(one)
                later += [(other, closing) for other in graph.followers.get(one, ())]
            for other, closing in later:
                if other in last:
                    took = self._spans[last[other]].end - self._times[other].dependencies
                    bound = min(bound, late[other] - took - closing)
            for other in freed.get(number, ()):
                took = self._spans[last[other]].end - self._spans[first[other]].start
                bound = min(bound, late[other] - took)
            late[number] = bound
            slacks[number] = max(0.0, bound - end)
        return slacks


def _limit_name(limit: str) -> str:
    """What a user sets to widen a limit: threads are as many as `max_concurrency` says."""
    return "max_concurrency" if limit in {_SLOT, THREAD} else limit


def _chain_text(chain: Sequence[ChainLink]) -> str:
    """The chain in a line; of a long one the beginning and the end."""
    said: list[str] = []
    for at, link in enumerate(chain):
        joined = {
            "resource": f", then {resource_text(link.resource)} was free: ",
            "slot": ", then a slot was free: ",
        }.get(link.reason, " → ")
        name = f"{printable(link.task_name)} ({in_seconds(link.end - link.start)})"
        said.append(f"{joined if at else ''}{name}")
    return "".join(both_ends(said, _SHOWN, " → … {} more …")) or "no task ran"

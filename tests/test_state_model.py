"""`_state` and a naive model go through the same random histories, and must agree at each step.

The model keeps nothing but what has happened, a list. Whatever it is asked, it works out from
the whole list, with sets and `sorted`.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st
from naive import acyclic_tasks, by_name, defined, examples, needed_by, topological_order

from portable_sched import (
    CyclicDependencyError,
    DependencyFailedError,
    Event,
    FailurePolicy,
    Graph,
    Parameter,
    Priority,
    TaskCancelledError,
    TaskDef,
    TaskResult,
    TaskStatus,
)
from portable_sched._checks import Demand
from portable_sched._events import Announcer
from portable_sched._resources import ResourceState
from portable_sched._results import CANCELLED
from portable_sched._state import NOTHING, RunState
from portable_sched._watch import WatchedResourceState, WatchedState

PENDING, RUNNING = TaskStatus.PENDING, TaskStatus.RUNNING
FINAL = {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}

Step = Literal[
    "take",  # a task is taken, if there is one
    "arguments",  # an attempt is given its arguments
    "complete",  # an attempt succeeds
    "fail",  # it fails, and may be worth another one
    "give up",  # it fails by what is no error
    "cancel itself",  # it raises a cancellation that came from nobody
    "time",  # whatever is over by now is
    "close",  # the body of a lifetime comes to its end, as it was asked to
    "break",  # the body of a lifetime fails, asked to end or not
    "stop",  # nothing new starts; who waits for another attempt has failed
    "call off",  # nothing new starts; who waits for another attempt is cancelled
]
What = Literal[Step, "look", "cancel", "finish"]

FAILURES = {"fail", "give up", "cancel itself"}
# A lifetime whose attempt ends so had opened all the same, and goes on to its close.
IN_VAIN = {"give up", "cancel"}
# An attempt's end, whichever: it holds nothing from then on.
ENDINGS = {*FAILURES, "complete", "cancel", "finish"}
DRAINS = {"stop", "call off", "finish"}


class Trouble(Exception):  # noqa: N818 - it is no error of ours
    """What an attempt raises; it says itself how long to wait before the next one."""

    def __init__(self, delay: float) -> None:
        self.delay = delay


def as_it_says(attempt: int, exception: Exception) -> float:
    """The `backoff` of all tasks."""
    assert isinstance(exception, Trouble)
    return exception.delay


class NoError(BaseException):
    """Neither an error nor a cancellation: there is no other attempt after it."""


async def lives() -> AsyncIterator[None]:
    """The function of lifetimes that are never run."""
    yield


def is_lifetime(definition: TaskDef) -> bool:
    return definition.function is lives


@dataclass(frozen=True)
class Fact:
    """What has happened, to which task if to one, when, and what it raised if it did.

    Attributes:
        ready: who waited for nothing but resources when a task was taken or asked for, the best
            one first.
    """

    what: What
    name: str
    at: float
    exception: BaseException | None = None
    ready: tuple[str, ...] = ()


@dataclass
class Model:
    """What has happened in a run, and what follows from it.

    Attributes:
        tasks: all tasks, as they were registered.
        demands: what tasks hold while they run, by name; the others hold nothing.
        capacity: how many units of that there are.
        policy: what a failure means for the rest.
        keep: names of those whose results are kept to the end; None for all.
        facts: all that has happened, in order.
    """

    tasks: list[TaskDef]
    demands: Mapping[str, Demand] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    policy: FailurePolicy = FailurePolicy.CONTINUE
    keep: frozenset[str] | None = None
    facts: list[Fact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts_of: dict[str, list[Fact]] = {}
        # Of the graph, which never changes.
        self.names = [definition.name for definition in self.tasks]
        self.known = by_name(self.tasks)
        self.needed = {name: needed_by(name, self.known) for name in self.names}
        self.users = {
            name: {user for user in self.names if name in self.known[user].depends_on}
            for name in self.names
        }
        self.in_order = topological_order(self.tasks)
        self.ranking = sorted(
            self.names,
            key=lambda name: (
                self.known[name].priority,
                -self.remaining(name),
                self.names.index(name),
            ),
        )

    def remaining(self, name: str) -> int:
        """How many tasks the longest path to an end of the graph has."""
        later = [
            definition.name
            for definition in self.tasks
            if name in {*definition.depends_on, *definition.after}
        ]
        return 1 + max(map(self.remaining, later), default=0)

    # What has happened

    def now(self) -> float:
        """Time goes on by a second with whatever happens."""
        return float(len(self.facts))

    def happen(self, what: What, name: str = "", **more: object) -> None:
        fact = Fact(what, name, self.now(), **more)  # type: ignore[arg-type]
        self.facts.append(fact)
        self.facts_of.setdefault(name, []).append(fact)
        # What was worked out held until now.
        for question in ("drain", "last_failures", "failed_tasks", "passed_over", "may_start"):
            vars(self).pop(question, None)

    def of(self, name: str, *whats: What) -> list[Fact]:
        return [fact for fact in self.facts_of.get(name, ()) if fact.what in whats]

    def attempts(self, name: str) -> int:
        return len(self.of(name, "take"))

    def failures(self, name: str) -> list[tuple[int, BaseException, float]]:
        """Each exception, with the number of the attempt and how long that had gone on."""
        failures = []
        attempt, began = 0, 0.0
        for fact in self.facts_of.get(name, ()):
            if fact.what == "take":
                attempt, began = attempt + 1, fact.at
            if fact.exception:
                failures.append((attempt, fact.exception, fact.at - began))
        return failures

    def is_running(self, name: str) -> bool:
        """Whether the task is inside an attempt."""
        own = self.of(name, "take", *ENDINGS)
        return bool(own) and own[-1].what == "take" and self.facts[-1].what != "finish"

    def running(self) -> list[str]:
        return [name for name in self.names if self.is_running(name)]

    # How tasks end

    @cached_property
    def last_failures(self) -> dict[str, Fact]:
        """The failures after which there is no other attempt, by task, wherever they come."""
        last = {}
        failed: Counter[str] = Counter()
        for fact in self.facts:
            if fact.what in FAILURES:
                failed[fact.name] += 1
                has_had_all = failed[fact.name] == self.known[fact.name].retries
                if fact.what != "fail" or has_had_all:
                    last[fact.name] = fact
        return last

    @cached_property
    def drain(self) -> Fact | None:
        """What made it so that nothing new starts, the first of it if there was more."""
        drains = [fact for fact in self.facts if fact.what in DRAINS]
        if self.policy is not FailurePolicy.CONTINUE:
            drains += self.last_failures.values()
        return min(drains, key=lambda fact: fact.at, default=None)

    @cached_property
    def failed_tasks(self) -> dict[str, Fact]:
        """Those that failed by themselves, and what ended them, the first to fail first."""
        failed = self.last_failures
        drain = self.drain
        if drain is not None:
            for name in self.in_order:
                for fact in self.of(name, "fail")[-1:]:
                    if fact.at > drain.at:
                        failed.setdefault(name, fact)
                    elif not self.is_waiting_at(name, drain):
                        continue
                    elif drain.what not in {"call off", "finish"}:
                        # Who waited for another attempt will have none.
                        failed.setdefault(name, drain)
        # At one moment who made it first comes first, then the others in topological order.
        return dict(
            sorted(
                failed.items(),
                key=lambda one: (one[1].at, one[1].name != one[0], self.in_order.index(one[0])),
            )
        )

    def is_waiting_at(self, name: str, moment: Fact) -> bool:
        """Whether the task had failed and not begun another attempt by then."""
        own = [fact for fact in self.of(name, "take", *ENDINGS) if fact.at <= moment.at]
        return bool(own) and own[-1].what == "fail"

    def root_cause(self, name: str) -> str | None:
        """The first task to fail of all those that `name` needs."""
        drain = self.drain
        for failed, fact in self.failed_tasks.items():
            # What fails later finds that all that was PENDING has been cancelled.
            if failed in self.needed[name] and (drain is None or fact.at <= drain.at):
                return failed
        return None

    def status(self, name: str) -> TaskStatus:
        drain = self.drain
        if self.of(name, "complete"):
            return TaskStatus.FAILED if self.of(name, "break") else TaskStatus.COMPLETED
        if name in self.failed_tasks or self.root_cause(name):
            return TaskStatus.FAILED
        if self.of(name, "cancel") or (self.facts and self.facts[-1].what == "finish"):
            return TaskStatus.CANCELLED
        if drain is not None and (not self.attempts(name) or self.is_waiting_at(name, drain)):
            return TaskStatus.CANCELLED
        return RUNNING if self.attempts(name) else PENDING

    def times(self, name: str) -> tuple[float | None, float]:
        """When the task was first taken, and how long it took from then to its end."""
        taken = self.of(name, "take")
        if not taken:
            return None, 0.0
        began = taken[0].at
        if self.status(name) is RUNNING:
            return began, 0.0
        completed = self.of(name, "complete")
        if completed:
            # A lifetime goes on, but how long it took is how long it took to open.
            ended = completed[0].at
        elif name in self.failed_tasks:
            ended = self.failed_tasks[name].at
        elif self.of(name, "cancel"):
            ended = self.of(name, "cancel")[0].at
        else:
            drain = self.drain
            assert drain is not None
            waited = self.is_waiting_at(name, drain)
            ended = drain.at if waited else self.facts[-1].at
        return began, ended - began

    # Lifetimes

    def is_open(self, name: str) -> bool:
        has_opened = is_lifetime(self.known[name]) and self.of(name, "complete", *IN_VAIN)
        return bool(has_opened) and not self.of(name, "close", "break")

    def is_over(self, name: str) -> bool:
        return self.status(name) in FINAL and not self.is_open(name)

    def asked_to_close(self) -> set[str]:
        """The lifetimes that nobody uses any more, that opened in vain, or that are broken."""
        return {
            name
            for name in self.names
            if is_lifetime(self.known[name])
            and self.status(name) in FINAL
            and (
                not self.of(name, "complete")
                or self.of(name, "break")
                or all(map(self.is_over, self.users[name]))
            )
        }

    def may_close(self) -> list[str]:
        return [name for name in self.may_break() if name in self.asked_to_close()]

    def may_break(self) -> list[str]:
        """While it is open, a body may fail at any time."""
        return [name for name in self.names if self.is_open(name)]

    # Results

    def result(self, name: str) -> str | None:
        takers = [user for user in self.names if name in self.taken_by(user)]
        let_go = self.keep is not None and name not in self.keep and takers
        is_there = self.status(name) is TaskStatus.COMPLETED
        if is_there and let_go and not any(map(self.still_needs_results, takers)):
            return None
        return name if is_there else None

    def taken_by(self, name: str) -> set[str]:
        return {parameter.name for parameter in self.known[name].parameters}

    def still_needs_results(self, name: str) -> bool:
        """Until it has ended, or opened, or its last attempt has been given them."""
        given = self.of(name, "take", "arguments")[-1:]
        has_them = given and given[0].what == "arguments"
        is_last = self.attempts(name) == self.known[name].retries
        has_opened = self.of(name, "complete")
        return not (has_opened or self.is_over(name) or (has_them and is_last))

    # What may start

    def ready(self) -> list[str]:
        """All tasks that wait for nothing but resources, the best one first."""
        if self.drain is not None:
            return []
        return [name for name in self.ranking if self.is_ready(name)]

    def is_ready(self, name: str) -> bool:
        definition = self.known[name]
        status = self.status(name)
        if status is PENDING:
            return all(self.of(needed, "complete") for needed in definition.depends_on) and all(
                map(self.is_over, definition.after)
            )
        return status is RUNNING and not self.is_running(name) and not self.is_in_backoff(name)

    def is_in_backoff(self, name: str) -> bool:
        *_, failure = self.of(name, "fail")
        assert isinstance(failure.exception, Trouble)
        over_at = failure.at + failure.exception.delay
        looked = [fact.at for fact in self.facts if fact.what == "time" and fact.at > failure.at]
        return bool(failure.exception.delay) and max(looked, default=failure.at) < over_at

    @cached_property
    def may_start(self) -> list[str]:
        """Those of the ready tasks that have what they ask for, the best one first."""
        ready = self.ready()
        free = self.free_units()
        kept = self.kept(ready, free)
        return [name for name in ready if self.has_what_it_asks_for(name, ready, free, kept)]

    # Resources

    def demand(self, name: str) -> Demand:
        return self.demands.get(name, ())

    def free_units(self) -> Counter[str]:
        free = Counter(self.capacity)
        for name in self.running():
            free.subtract(dict(self.demand(name)))
        return free

    def has_what_it_asks_for(
        self,
        name: str,
        ready: list[str],
        free: Counter[str],
        kept: Mapping[str, Demand],
    ) -> bool:
        demand = self.demand(name)
        if any(units > free[resource] for resource, units in demand):
            return False
        for resource, _ in demand:
            keeper = kept.get(resource, demand)
            if keeper == demand:
                continue
            best = self.best_of(keeper, ready)
            is_more_urgent = self.known[name].priority < self.known[best].priority
            # The better one of two that keep something goes first, or they wait for each other.
            keeps_too = demand in kept.values()
            is_better = ready.index(name) < ready.index(best)
            if not (is_more_urgent or (keeps_too and is_better)):
                return False
        return True

    def best_of(self, demand: Demand, ready: Iterable[str]) -> str:
        return next(name for name in ready if self.demand(name) == demand)

    def come_up(self, ready: Iterable[str], before: Iterable[str] = ()) -> list[str]:
        """Of those that ask for something, who has been better than all that ask for nothing."""
        up: list[str] = []
        ahead = True
        for name in ready:
            ahead = ahead and bool(self.demand(name))
            if ahead or name in before:
                up.append(name)
        return up

    def kept(self, ready: list[str], free: Counter[str]) -> dict[str, Demand]:
        """The resources that are kept, and for which demand."""
        up, passed_over = self.passed_over
        waiting = self.come_up(ready, up)
        kept: dict[str, Demand] = {}
        for name in waiting:
            demand = self.demand(name)
            enough = {
                resource
                for resource, _ in demand
                if passed_over[demand, resource] >= 2 * self.capacity[resource]
            }
            short = {resource for resource, units in demand if units > free[resource]}
            if short <= enough:
                kept = {**dict.fromkeys(enough, demand), **kept}
        return kept

    @cached_property
    def passed_over(self) -> tuple[list[str], Counter[tuple[Demand, str]]]:
        """Who has come up by now, and how often each demand was passed over at each resource."""
        up: list[str] = []
        passed_over: Counter[tuple[Demand, str]] = Counter()
        free = Counter(self.capacity)
        running: set[str] = set()
        for fact in self.facts:
            if fact.what in {"take", "look"}:
                up = [name for name in self.come_up(fact.ready, up) if name != fact.name]
            if fact.what == "take":
                taken = self.demand(fact.name)
                for resource, _ in taken:
                    del passed_over[taken, resource]
                free.subtract(dict(taken))
                for demand in {self.demand(name) for name in up} - {taken}:
                    best = self.best_of(demand, up)
                    is_urgent = self.known[best].priority <= self.known[fact.name].priority
                    if is_urgent and any(units > free[resource] for resource, units in demand):
                        for resource in dict(taken).keys() & dict(demand).keys():
                            passed_over[demand, resource] += 1
                running.add(fact.name)
            if fact.what in ENDINGS and fact.name in running:
                free.update(dict(self.demand(fact.name)))
                running.remove(fact.name)
        return up, passed_over


def assert_they_agree(model: Model, state: RunState, closing: set[str]) -> None:
    """Everything that can be read of the run is what the model says."""
    record = state.record
    results = [record.result_of(number) for number in range(len(record.tasks))]
    assert set(model.names) == {one.task_name for one in results}
    for result in results:
        name = result.task_name
        assert model.status(name) == result.status
        assert model.attempts(name) == result.attempts
        assert model.times(name) == (result.started_at, result.duration)
        assert model.failures(name) == [
            (failure.attempt, failure.exception, failure.duration) for failure in result.failures
        ]
        assert model.result(name) == result.result
        if result.status is not TaskStatus.FAILED:
            assert result.exception is None
        elif result.attempts:
            assert result.failures[-1].exception is result.exception
        else:
            assert_the_root_cause_is_named(model, result)
    drains = model.drain is not None
    assert drains == state.draining
    assert (drains and model.policy is FailurePolicy.CANCEL) == state.wants_cancel
    assert {name for name in model.names if model.is_open(name)} == {
        record.tasks[number].name for number in state.open
    }
    assert model.asked_to_close() == closing
    assert_what_may_start_is_counted(model, state)


def assert_what_may_start_is_counted(model: Model, state: RunState) -> None:
    may_start = model.may_start
    if not isinstance(state, ResourceState):
        assert len(may_start) == state.ready_count()
        return
    # Of those at hand it need not know how many will get what they ask for. But it must not say
    # that there is nothing, or nobody would come; nor, once it has looked, that there is something.
    top = state.heap and model.ranking[state.heap[0]]
    if may_start or not (top and model.demand(top)):
        assert bool(may_start) == bool(state.ready_count())


def assert_the_root_cause_is_named(model: Model, result: TaskResult[object]) -> None:
    error = result.exception
    assert isinstance(error, DependencyFailedError)
    assert result.task_name == error.task
    assert model.root_cause(result.task_name) == error.root_cause
    assert error.dependency in model.known[error.task].depends_on
    assert error.root_cause in {error.dependency, model.root_cause(error.dependency)}


class Pair:
    """A model and a state to which the same things happen."""

    def __init__(self, model: Model, state: RunState) -> None:
        self.model = model
        self.state = state
        self.closing: set[str] = set()
        self.in_vain: set[str] = set()
        state.close = self.ask_to_close
        self.agree()

    def ask_to_close(self, number: int) -> bool:
        name = self.state.record.tasks[number].name
        self.closing.add(name)
        return name in self.in_vain

    def agree(self) -> None:
        assert_they_agree(self.model, self.state, self.closing)

    def number(self, name: str) -> int:
        return self.state.record.numbers[name]

    def take(self) -> bool:
        """Both take a task, the same one; answers whether there was one."""
        model, state = self.model, self.state
        ready, may_start = tuple(model.ready()), model.may_start
        number = state.take(model.now())
        if number == NOTHING:
            assert [] == may_start
            # Or whoever has found nothing would be sent to look again and again.
            assert 0 == state.ready_count()
            model.happen("look", ready=ready)
        else:
            name = state.record.tasks[number].name
            assert may_start[:1] == [name]
            model.happen("take", name, ready=ready)
        self.agree()
        return number != NOTHING

    def end(self, what: What, name: str, delay: float = 0.0) -> None:
        """An attempt ends."""
        number, now = self.number(name), self.model.now()
        exception: BaseException | None = None
        if what in IN_VAIN:
            self.in_vain.add(name)
        if what == "complete":
            self.state.completed(number, name, now)
        elif what == "cancel":
            self.state.cancelled(number, None, now)
        else:
            exception = {
                "fail": Trouble(delay),
                "give up": NoError(),
                "cancel itself": TaskCancelledError(name),
            }[what]
            self.state.failed(number, exception, now)
        self.model.happen(what, name, exception=exception)
        self.agree()

    def close(self, what: What, name: str) -> None:
        """The body of a lifetime ends."""
        exception = ValueError() if what == "break" else None
        self.state.closed(self.number(name), exception, self.model.now())
        self.model.happen(what, name, exception=exception)
        self.agree()

    def give_arguments(self, name: str) -> None:
        # Nobody says so where all results are kept.
        if self.model.keep is not None:
            self.state.has_arguments(self.number(name))
            self.model.happen("arguments", name)
            self.agree()

    def look_at_the_clock(self) -> None:
        self.state.resume(self.model.now())
        self.model.happen("time")
        self.agree()

    def drain(self, what: What) -> None:
        if what == "stop":
            self.state.drain(self.model.now())
        else:
            self.state.drain(self.model.now(), CANCELLED)
        self.model.happen(what)
        self.agree()

    def finish(self) -> None:
        self.state.finish(self.model.now())
        self.model.happen("finish")
        self.agree()
        assert NOTHING == self.state.take(0.0)
        assert 0 == self.state.ready_count()

    def go_through(self, history: list[tuple[Step, int, float]]) -> None:
        for what, which, delay in history:
            if what == "take":
                self.take()
            elif what == "time":
                self.look_at_the_clock()
            elif what in {"stop", "call off"}:
                self.drain(what)
            elif what in {"close", "break"}:
                bodies = self.model.may_close() if what == "close" else self.model.may_break()
                if bodies:
                    self.close(what, bodies[which % len(bodies)])
            elif running := self.model.running():
                name = running[which % len(running)]
                if what == "arguments":
                    self.give_arguments(name)
                else:
                    self.end(what, name, delay)

    def run_out(self) -> None:
        """All goes well from here on, and it must be enough to bring the run to its end."""
        while True:
            if self.take():
                continue
            bodies = self.model.may_close()
            for name in bodies:
                self.close("close", name)
            running = self.model.running()
            for name in running[:1]:
                self.end("complete", name)
            if not (bodies or running):
                if not self.state.paused:
                    break
                self.look_at_the_clock()
        assert all(map(self.model.is_over, self.model.names))


# What is to happen next, and to which of those that it may happen to: mostly something is taken,
# and mostly all goes well, or there would soon be nothing left to decide.
WHATS: list[Step] = [
    *["take"] * 8,
    *["complete"] * 6,
    *["fail", "arguments", "close", "time"] * 3,
    *["break", "give up", "cancel itself"],
]
STEPS = st.tuples(st.sampled_from(WHATS), st.integers(0, 9), st.sampled_from([0, 0, 1, 2, 7]))
DRAIN_STEPS = st.tuples(st.sampled_from(["stop", "call off"]), st.just(0), st.just(0))
# What a task has to do with another one that comes before it.
LINKS = st.lists(st.sampled_from(["needs", "takes", "takes", "follows", "looks at"]), max_size=2)

HISTORIES = st.lists(STEPS, min_size=30, max_size=60)

CAPACITIES = st.sampled_from([{"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 3, "b": 1}])
# Asks of most of what there is, and smaller ones that pass them over.
ASKS = st.sampled_from([(0, 0), (1, 0), (1, 0), (0, 1), (0, 1), (1, 1), (3, 0), (3, 1), (1, 2)])


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Step, int, float]]:
    """One in three is drained somewhere, and perhaps once more."""
    history = draw(HISTORIES)
    if draw(st.sampled_from([False, False, True])):
        for drain in draw(st.lists(DRAIN_STEPS, min_size=1, max_size=2)):
            history.insert(draw(st.integers(0, len(history))), drain)
    return history


@st.composite
def tasks_of_all_kinds(draw: st.DrawFn) -> list[TaskDef]:
    """Tasks that depend on others, come after others, take results, are lifetimes, try again."""
    names = draw(st.permutations([f"t{at}" for at in range(draw(st.integers(3, 10)))]))
    made = []
    for at, name in enumerate(names):
        links = draw(LINKS)[:at]
        # A task has one link to another one; nearer ones are rarer, or little can run at once.
        linked = dict(zip(draw(st.permutations(names[:at])), links, strict=False))
        made.append(
            defined(
                name,
                *(one for one, how in linked.items() if how in {"needs", "takes"}),
                priority=draw(st.sampled_from(Priority)),
                retries=draw(st.sampled_from([1, 2, 2, 3])),
                backoff=as_it_says,
                after=[one for one, how in linked.items() if how in {"follows", "looks at"}],
                parameters=tuple(
                    Parameter(name=one)
                    for one, how in linked.items()
                    if how in {"takes", "looks at"}
                ),
            )
        )
        if draw(st.sampled_from([False, False, True])):
            made[-1] = replace(made[-1], function=lives, parameters=made[-1].parameters)
    made.sort(key=lambda definition: definition.name)
    try:
        Graph(made)
    except CyclicDependencyError:
        # Of those that come after a lifetime, one would have to end before it closes.
        return [replace(one, after=(), parameters=()) for one in made]
    return made


def ignore(event: Event) -> None:
    """Watches, and does nothing about it."""


def state_of(model: Model, *, watched: bool) -> RunState:
    """The state of a run of the model's tasks, with what the model was told."""
    graph = Graph(model.tasks)
    settings = {"policy": model.policy, "keep": model.keep}
    if not model.capacity:
        if not watched:
            return RunState(graph, 0.0, **settings)
        watching = WatchedState(graph, 0.0, **settings)
        watching.announcer = Announcer((ignore,))
        return watching
    demands = [model.demand(definition.name) for definition in graph.tasks]
    if not watched:
        return ResourceState(graph, 0.0, demands, model.capacity, **settings)
    watching_too = WatchedResourceState(graph, 0.0, demands, model.capacity, **settings)
    watching_too.announcer = Announcer((ignore,))
    return watching_too


@given(tasks=acyclic_tasks(), history=HISTORIES, cancelled=st.integers(0, 4))
@examples(50)
def test_every_decision_about_plain_tasks_is_that_of_the_naive_model(
    tasks, history, cancelled
) -> None:
    model = Model([replace(definition, backoff=as_it_says) for definition in tasks])
    pair = Pair(model, state_of(model, watched=False))

    pair.go_through(history)
    for name in model.running()[:cancelled]:
        pair.end("cancel", name)
    pair.finish()


@st.composite
def models_of_all_kinds(draw: st.DrawFn, *, resources: bool = False) -> Model:
    tasks = draw(tasks_of_all_kinds())
    policy = draw(st.sampled_from([FailurePolicy.CONTINUE, *FailurePolicy]))
    names = [definition.name for definition in tasks]
    keep = draw(st.none() | st.frozensets(st.sampled_from(names), max_size=2))
    capacity = draw(CAPACITIES) if resources else {}
    return Model(tasks, draw(demands_of(tasks, capacity)), capacity, policy, keep)


@st.composite
def demands_of(
    draw: st.DrawFn, tasks: list[TaskDef], capacity: Mapping[str, int]
) -> dict[str, Demand]:
    """What each task holds: no more than there is."""
    demands = {}
    for definition in tasks if capacity else ():
        pairs = zip(capacity, draw(ASKS), strict=True)
        demands[definition.name] = tuple(
            [(resource, min(units, capacity[resource])) for resource, units in pairs if units]
        )
    return demands


@given(
    model=models_of_all_kinds(),
    watched=st.booleans(),
    history=histories(),
    cancelled=st.none() | st.integers(0, 4),
)
@examples(100)
def test_every_decision_about_tasks_of_all_kinds_is_that_of_the_naive_model(
    model, watched, history, cancelled
) -> None:
    go_through_and_end(Pair(model, state_of(model, watched=watched)), history, cancelled)


@given(
    model=models_of_all_kinds(resources=True),
    watched=st.booleans(),
    history=histories(),
    cancelled=st.none() | st.integers(0, 4),
)
@examples(100)
def test_every_decision_about_tasks_that_hold_resources_is_that_of_the_naive_model(
    model, watched, history, cancelled
) -> None:
    go_through_and_end(Pair(model, state_of(model, watched=watched)), history, cancelled)


# Whoever fails comes again, so that there is always somebody to pass others over.
COMING_AND_GOING = st.lists(
    st.tuples(st.sampled_from(["take", "fail", "fail", "fail"]), st.integers(0, 9), st.just(0)),
    min_size=20,
    max_size=40,
)


@st.composite
def crowds(draw: st.DrawFn) -> Model:
    """Tasks that are all ready at once, and come again and again."""
    medium = Priority.MEDIUM
    tasks = [
        defined(
            f"t{at}",
            priority=draw(st.sampled_from([medium, medium, medium, Priority.LOW, Priority.HIGH])),
            retries=100,
            backoff=as_it_says,
        )
        for at in range(draw(st.integers(4, 8)))
    ]
    capacity = draw(CAPACITIES)
    return Model(tasks, draw(demands_of(tasks, capacity)), capacity)


@given(model=crowds(), history=COMING_AND_GOING)
@examples(100)
def test_every_decision_about_who_is_passed_over_is_that_of_the_naive_model(model, history) -> None:
    with_takes = [step for one in history for step in (one, ("take", 0, 0))]
    go_through_and_end(Pair(model, state_of(model, watched=False)), with_takes, None)


def go_through_and_end(
    pair: Pair, history: list[tuple[Step, int, float]], cancelled: int | None
) -> None:
    """The history, then the end: by running out, or by a cancellation of so many attempts."""
    pair.go_through(history)
    if cancelled is None:
        pair.run_out()
    else:
        for name in pair.model.running()[:cancelled]:
            pair.end("cancel", name)
    pair.finish()

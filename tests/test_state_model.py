"""`_state` and a naive model go through the same random histories, and must agree at each step.

The model keeps nothing but what has happened, a list. Whatever it is asked, it works out from
the whole list, with sets and `sorted`.
"""

from dataclasses import dataclass, field
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st
from naive import acyclic_tasks, by_name, examples, needed_by, start_order

from portable_sched import (
    DependencyFailedError,
    Graph,
    TaskCancelledError,
    TaskDef,
    TaskResult,
    TaskStatus,
)
from portable_sched._resources import ResourceState
from portable_sched._results import RunRecord
from portable_sched._state import NOTHING, RunState

What = Literal["take", "complete", "fail", "give up", "cancel itself", "cancel"]


class NoError(BaseException):
    """Neither an error nor a cancellation: there is no other attempt after it."""


@dataclass(frozen=True)
class Fact:
    """What has happened to a task, when, and what it raised if it did."""

    what: What
    name: str
    at: float
    exception: BaseException | None = None


@dataclass
class Model:
    """What has happened in a run, and what follows from it.

    Attributes:
        tasks: all tasks, as they were registered.
        in_threads: names of those that hold a thread while they run.
        threads: how many threads there are.
        facts: all that has happened, in order.
        finished: when the run was over; None before that.
    """

    tasks: list[TaskDef]
    in_threads: frozenset[str] = frozenset()
    threads: int = 0
    facts: list[Fact] = field(default_factory=list)
    finished: float | None = None

    def now(self) -> float:
        """Time goes on by a second with whatever happens."""
        return float(len(self.facts))

    def of(self, name: str, *whats: What) -> list[Fact]:
        return [fact for fact in self.facts if fact.name == name and fact.what in whats]

    def attempts(self, name: str) -> int:
        return len(self.of(name, "take"))

    def exceptions(self, name: str) -> list[BaseException]:
        return [fact.exception for fact in self.facts if fact.name == name and fact.exception]

    def is_running(self, name: str) -> bool:
        own = [fact for fact in self.facts if fact.name == name]
        return bool(own) and own[-1].what == "take" and self.finished is None

    def failed_tasks(self) -> list[str]:
        """Those that failed by themselves, the first to fail first."""
        known = by_name(self.tasks)
        failed = []
        for fact in self.facts:
            attempts_left = known[fact.name].retries - len(self.exceptions(fact.name))
            is_last = fact.exception and fact.exception is self.exceptions(fact.name)[-1]
            if is_last and not (fact.what == "fail" and attempts_left):
                failed.append(fact.name)
        return failed

    def root_cause(self, name: str) -> str | None:
        """The first task to fail of all those that `name` needs."""
        needed = needed_by(name, by_name(self.tasks))
        return next((failed for failed in self.failed_tasks() if failed in needed), None)

    def status(self, name: str) -> TaskStatus:
        if self.of(name, "complete"):
            return TaskStatus.COMPLETED
        if name in self.failed_tasks() or self.root_cause(name):
            return TaskStatus.FAILED
        if self.of(name, "cancel") or self.finished is not None:
            return TaskStatus.CANCELLED
        return TaskStatus.RUNNING if self.attempts(name) else TaskStatus.PENDING

    def times(self, name: str) -> tuple[float | None, float]:
        """When the task was first taken, and how long it took from then to its end."""
        own = [fact for fact in self.facts if fact.name == name]
        if not own:
            return None, 0.0
        if self.status(name) is TaskStatus.RUNNING:
            return own[0].at, 0.0
        if self.status(name) is TaskStatus.CANCELLED and own[-1].what != "cancel":
            assert self.finished is not None
            return own[0].at, self.finished - own[0].at
        return own[0].at, own[-1].at - own[0].at

    def running(self) -> list[str]:
        return [definition.name for definition in self.tasks if self.is_running(definition.name)]

    def may_start(self) -> list[str]:
        """All tasks that may start now, the best one first."""
        statuses = {definition.name: self.status(definition.name) for definition in self.tasks}
        return [
            name
            for name in start_order(self.tasks)
            if statuses[name] in {TaskStatus.PENDING, TaskStatus.RUNNING}
            and not self.is_running(name)
            and all(
                statuses[needed] is TaskStatus.COMPLETED
                for needed in by_name(self.tasks)[name].depends_on
            )
            and (name not in self.in_threads or self.free_threads())
        ]

    def may_start_at_once(self) -> int:
        """How many of these may start one after another, as far as the threads go."""
        want_threads = len(self.in_threads.intersection(self.may_start()))
        return len(self.may_start()) - max(0, want_threads - self.free_threads())

    def free_threads(self) -> int:
        return self.threads - len(self.in_threads.intersection(self.running()))


def assert_they_agree(model: Model, record: RunRecord) -> None:
    """Everything that can be read of the run is what the model says."""
    results = [record.result_of(number) for number in range(len(record.tasks))]
    assert {definition.name for definition in model.tasks} == {one.task_name for one in results}
    for result in results:
        name = result.task_name
        assert model.status(name) == result.status
        assert model.attempts(name) == result.attempts
        assert model.times(name) == (result.started_at, result.duration)
        assert model.exceptions(name) == [failure.exception for failure in result.failures]
        assert (name if result.status is TaskStatus.COMPLETED else None) == result.result
        if result.status is not TaskStatus.FAILED:
            assert result.exception is None
        elif result.attempts:
            assert model.exceptions(name)[-1] is result.exception
        else:
            assert_the_root_cause_is_named(model, result)


def assert_the_root_cause_is_named(model: Model, result: TaskResult[object]) -> None:
    error = result.exception
    assert isinstance(error, DependencyFailedError)
    assert result.task_name == error.task
    assert model.root_cause(result.task_name) == error.root_cause
    assert error.dependency in by_name(model.tasks)[error.task].depends_on
    assert error.root_cause in {error.dependency, model.root_cause(error.dependency)}


def take(model: Model, state: RunState) -> None:
    """Both take a task, the same one."""
    may_start = model.may_start()
    number = state.take(model.now())
    if number == NOTHING:
        assert [] == may_start
        # Or whoever has found nothing would be sent to look again and again.
        assert 0 == state.ready_count()
    else:
        name = state.record.tasks[number].name
        assert may_start[:1] == [name]
        model.facts.append(Fact("take", name, model.now()))


def end(model: Model, state: RunState, what: What, name: str) -> None:
    """An attempt ends, for both."""
    number = state.record.numbers[name]
    exception: BaseException | None = None
    if what == "complete":
        state.completed(number, name, model.now())
    elif what == "cancel":
        state.cancelled(number, None, model.now())
    else:
        exception = {
            "fail": ValueError(),
            "give up": NoError(),
            "cancel itself": TaskCancelledError(name),
        }[what]
        state.failed(number, exception, model.now())
    model.facts.append(Fact(what, name, model.now(), exception))


# What is to happen next, and to which of the running tasks: mostly something is taken, and mostly
# all goes well, or there would soon be nothing left to decide.
STEPS = st.tuples(
    st.sampled_from([*["take"] * 6, *["complete"] * 4, *["fail"] * 3, "give up", "cancel itself"]),
    st.integers(min_value=0, max_value=9),
)
HISTORIES = st.lists(STEPS, min_size=10, max_size=50)


def go_through(
    model: Model, state: RunState, history: list[tuple[What, int]], cancelled: int
) -> None:
    """Both go through the history; then the run is cancelled, and some attempts end by that."""
    assert_they_agree(model, state.record)
    for what, which in history:
        running = model.running()
        if what == "take":
            take(model, state)
        elif running:
            end(model, state, what, running[which % len(running)])
        if isinstance(state, ResourceState):
            # It need not know how many of those at hand will find a thread.
            assert model.may_start_at_once() <= state.ready_count()
        else:
            assert model.may_start_at_once() == state.ready_count()
        assert_they_agree(model, state.record)
    for name in model.running()[:cancelled]:
        end(model, state, "cancel", name)
        assert_they_agree(model, state.record)
    model.finished = model.now()
    state.finish(model.finished)
    assert NOTHING == state.take(0.0)
    assert 0 == state.ready_count()
    assert_they_agree(model, state.record)


@given(tasks=acyclic_tasks(), history=HISTORIES, cancelled=st.integers(0, 4))
@examples(100)
def test_every_decision_is_that_of_the_naive_model(tasks, history, cancelled) -> None:
    go_through(Model(tasks), RunState(Graph(tasks), 0.0), history, cancelled)


@given(
    tasks=acyclic_tasks(),
    in_threads=st.frozensets(st.sampled_from([f"t{at}" for at in range(10)]), min_size=3),
    threads=st.integers(1, 3),
    history=HISTORIES,
    cancelled=st.integers(0, 4),
)
@examples(100)
def test_every_decision_about_threads_is_that_of_the_naive_model(
    tasks, in_threads, threads, history, cancelled
) -> None:
    graph = Graph(tasks)
    needs_thread = [definition.name in in_threads for definition in graph.tasks]
    demands = [(("", 1),) if each else () for each in needs_thread]
    state = ResourceState(graph, 0.0, demands, {"": threads})

    go_through(Model(tasks, in_threads, threads), state, history, cancelled)

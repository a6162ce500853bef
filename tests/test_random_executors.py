"""Random graphs on processes, with workers that die: what is due to fail fails, and nothing else.

Each call writes down when it began and ended, in a file that all processes append to, and a naive
model says how each task has to end. The clock of the file is the machine's, one for all processes.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from portable_sched import (
    NotPicklableError,
    RemoteTaskError,
    RunResults,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    WorkerDiedError,
)
from portable_sched._standard_executors import _processors

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="there is one clock for all processes, and /proc"
)

WORKERS = 2

EXPECTED = {
    "die": WorkerDiedError,
    "unpicklable": NotPicklableError,
    "exit": RemoteTaskError,
    "raise": ValueError,
}


@dataclass(frozen=True)
class Plan:
    """One task of a random graph.

    Attributes:
        number: which one; it depends on smaller ones.
        executor: where it runs; None for here.
        depends_on: numbers.
        retries: how many attempts it has.
        fails: how many of its attempts fail.
        how: in which way.
    """

    number: int
    executor: str | None
    depends_on: tuple[int, ...] = ()
    retries: int = 1
    fails: int = 0
    how: str = "raise"

    @property
    def name(self) -> str:
        return f"task {self.number}"


@dataclass
class Call:
    """What one call wrote down."""

    name: str
    process: int
    began: float
    ended: float | None = None


@dataclass
class Log:
    """What all calls of a run wrote down."""

    path: Path
    calls: list[Call] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Log":
        log = cls(path)
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            what, moment, process, name = line.split(" ", 3)
            if what == "began":
                log.calls.append(Call(name, int(process), float(moment)))
            else:
                call = next(
                    one
                    for one in log.calls
                    if (one.name, one.process, one.ended) == (name, int(process), None)
                )
                call.ended = float(moment)
        return log

    def of(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]


def write(path: str, what: str, name: str) -> None:
    # One write, which no other one comes in between.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{what} {time.monotonic()} {os.getpid()} {name}\n".encode())
    os.close(file)


def play(path: str, plan: Plan) -> Any:
    """What a task does, wherever it runs."""
    ended = sum(call.ended is not None for call in Log.read(Path(path)).of(plan.name))
    write(path, "began", plan.name)
    if ended < plan.fails and plan.how == "die":
        os._exit(3)
    write(path, "ended", plan.name)
    if ended < plan.fails:
        if plan.how == "exit":
            sys.exit(3)
        if plan.how == "unpicklable":
            return threading.Lock()
        raise ValueError(plan.name)
    return plan.number


async def play_here(path: str, plan: Plan) -> int:
    write(path, "began", plan.name)
    await anyio.lowlevel.checkpoint()
    write(path, "ended", plan.name)
    return plan.number


@st.composite
def plans(draw: st.DrawFn, executors: Sequence[str | None], ways: Sequence[str]) -> list[Plan]:
    """A graph of up to ten tasks."""
    found: list[Plan] = []
    for number in range(draw(st.integers(1, 10))):
        executor = draw(st.sampled_from(executors))
        needed = st.lists(st.integers(0, number - 1), unique=True, max_size=3)
        how = draw(st.sampled_from(ways))
        retries = draw(st.integers(1, 3))
        fails = draw(st.sampled_from([0, 0, 0, 1, 3])) if executor is not None else 0
        if fails and how in {"die", "unpicklable"}:
            # They cannot know how often they were called, or it is the same each time.
            fails = 3
        found.append(
            Plan(
                number=number,
                executor=executor,
                depends_on=tuple(draw(needed)) if number else (),
                retries=retries,
                fails=fails,
                how=how,
            )
        )
    return found


def registry_of(graph: Sequence[Plan], path: Path) -> TaskRegistry:
    registry = TaskRegistry()
    for plan in graph:
        function = play if plan.executor is not None else play_here
        registry.task(
            plan.name,
            executor=plan.executor,
            retries=plan.retries,
            depends_on=[graph[number].name for number in plan.depends_on],
        )(partial(function, str(path), plan))
    return registry


def spawned() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))


def children() -> set[int]:
    """The processes that this one has started, those of `multiprocessing` itself left out."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(")")
            state, parent = rest.split()[:2]
            command = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and "resource_tracker" not in command:
            found.add(int(head.split(" ", 1)[0]))
    return found


def complaints_of(graph: Sequence[Plan], results: RunResults, log: Log) -> Iterator[str]:
    """What is not as the model has it, where the run came to its end by itself."""
    succeeds: dict[int, bool] = {}
    for plan in graph:
        result = results[plan.name]
        may_start = all(succeeds[number] for number in plan.depends_on)
        succeeds[plan.number] = may_start and plan.fails < plan.retries
        status = TaskStatus.COMPLETED if succeeds[plan.number] else TaskStatus.FAILED
        attempts = min(plan.fails + 1, plan.retries) if may_start else 0
        if (status, attempts) != (result.status, result.attempts):
            yield f"{plan.name}: expected {status} after {attempts} attempts, got {result!r}"
        yield from complaints_of_errors(plan, result)
        yield from complaints_of_calls(plan, result, log)
    yield from complaints_of_order(graph, log)


def complaints_of_errors(plan: Plan, result: TaskResult[Any]) -> Iterator[str]:
    for failure in result.failures if result.attempts else ():
        error = failure.exception
        if type(error) is not EXPECTED[plan.how]:
            yield f"{plan.name}: an attempt that is to {plan.how} failed with {error!r}"
        if isinstance(error, WorkerDiedError) and error.running != (plan.name,):
            yield f"{plan.name}: it died alone, and it says {error.running}"


def complaints_of_calls(plan: Plan, result: TaskResult[Any], log: Log) -> Iterator[str]:
    calls = log.of(plan.name)
    ended = [call for call in calls if call.ended is not None]
    if plan.how != "die" or not plan.fails:
        # A suspect may have come to its end all the same, and been called once more.
        if not result.attempts <= len(ended) <= 2 * result.attempts:
            yield f"{plan.name}: {len(ended)} calls for {result.attempts} attempts"
    elif ended:
        yield f"{plan.name}: it died, and came to its end"
    if len(calls) > 2 * result.attempts:
        yield f"{plan.name}: {len(calls)} calls for {result.attempts} attempts"


def complaints_of_order(graph: Sequence[Plan], log: Log) -> Iterator[str]:
    for plan in graph:
        for needed in (graph[number] for number in plan.depends_on):
            ends = [call.ended for call in log.of(needed.name) if call.ended is not None]
            for call in log.of(plan.name):
                if not ends or call.began < min(ends):
                    yield f"{plan.name} began before {needed.name} had ended"
    for executor, workers in (("cpu", WORKERS), ("process", _processors())):
        names = {plan.name for plan in graph if plan.executor == executor}
        calls = [call for call in log.calls if call.name in names and call.ended is not None]
        for call in calls:
            at_once = [one for one in calls if one.began <= call.began < (one.ended or 0)]
            if len(at_once) > workers:
                yield f"{len(at_once)} calls at one time in {executor}"


few = settings(
    max_examples=int(os.environ.get("RANDOM_CASES", "12")),
    deadline=None,
    derandomize="RANDOM_CASES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Ways:
    """The executors of a test, and the runs in them."""

    def __init__(self, folder: Path, executors: Mapping[str, Any]) -> None:
        self._folder = folder
        self._executors = executors
        self._count = 0

    def next_path(self) -> Path:
        self._count += 1
        return self._folder / f"log {self._count}"

    def scheduler(self, graph: Sequence[Plan], path: Path) -> TaskScheduler:
        return TaskScheduler(registry_of(graph, path), executors=self._executors)


def test_random_graphs_end_as_they_should(tmp_path: Path, run_on_backend: Any) -> None:
    ways = Ways(tmp_path, {"cpu": spawned})
    before = children()

    @few
    @given(plans(["cpu", "process", None], ["die", "raise", "exit", "unpicklable"]))
    @example([Plan(0, "cpu", fails=3, how="die"), *(Plan(at, "cpu") for at in range(1, 6))])
    def judged(graph: list[Plan]) -> None:
        path = ways.next_path()

        async def run() -> RunResults:
            with anyio.fail_after(100):
                return await ways.scheduler(graph, path).run()

        results = run_on_backend(run)

        assert [] == list(complaints_of(graph, results, Log.read(path)))
        assert set() == children() - before

    judged()


def test_random_graphs_that_are_cut_off_leave_nothing(tmp_path: Path, run_on_backend: Any) -> None:
    ways = Ways(tmp_path, {"cpu": spawned})
    before = children()

    @few
    @given(
        plans(["cpu", "process", None], ["die", "raise", "exit"]),
        st.integers(0, 400),
        st.sampled_from(["stop", "stop twice", "cancel"]),
        st.integers(0, 2**32),
    )
    def judged(graph: list[Plan], milliseconds: int, how: str, seed: int) -> None:
        path = ways.next_path()
        # How long it takes is left to chance; where it is cut off differs each time anyway.
        seconds = milliseconds / 1000 * random.Random(seed).random()
        scheduler = ways.scheduler(graph, path)

        async def run() -> None:
            with anyio.fail_after(100):
                async with anyio.create_task_group() as group:
                    group.start_soon(scheduler.run)
                    await anyio.sleep(seconds)
                    if how == "cancel":
                        group.cancel_scope.cancel()
                    for _ in range({"stop": 1, "stop twice": 2, "cancel": 0}[how]):
                        scheduler.stop()

        run_on_backend(run)

        counts = scheduler.results.counts()
        assert {TaskStatus.PENDING, TaskStatus.RUNNING}.isdisjoint(counts)
        assert [] == list(complaints_of_order(graph, Log.read(path)))
        limit = time.monotonic() + 60
        while children() - before:
            assert time.monotonic() < limit
            time.sleep(0.01)

    judged()

"""Workers that die, and pools that break with them: who is to blame, and who goes on."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures import ThreadPoolExecutor as Threads
from functools import partial
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any, ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from executor_runs import (
    Held,
    die,
    fail,
    in_time,
    made,
    one,
    outcome_of,
    running,
    settle,
    spawned,
    status_of,
    until,
)

from portable_sched import (
    ExecutorError,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    WorkerDiedError,
)
from portable_sched._any_executor import end, end_where_stuck
from portable_sched._envelope import Sent
from portable_sched._remote_failures import RemoteFailure

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")


def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    ctypes.string_at(0)


ENDS = [
    (die, " It ended with exit code 3."),
    pytest.param(
        kill_own_process,
        " It was ended by SIGKILL, as the system does where memory runs out.",
        marks=needs_posix,
    ),
    pytest.param(crash, " It was ended by SIGSEGV.", marks=needs_posix),
]


@each("where", [spawned, "process"])
@each(("function", "how"), ENDS)
async def test_a_worker_that_dies_fails_its_attempt_alone(
    registry: TaskRegistry, function: Any, how: str, where: Any
) -> None:
    name = where if isinstance(where, str) else "cpu"
    executors = {} if isinstance(where, str) else {"cpu": where}
    registry.task("culprit", executor=name, retries=2)(function)
    for number in range(4):
        registry.task(f"innocent {number}", executor=name)(one)

    with anyio.fail_after(100):
        results = await TaskScheduler(registry, executors=executors).run()

    assert ["culprit"] == [result.task_name for result in results.failed]
    culprit = results["culprit"]
    told = f"A worker of the executor {name!r} died while running: culprit."
    # Of a pool it is not known which of its workers it was.
    assert f"{told}{how if where == 'process' else ''}" == str(culprit.exception)
    assert 2 == culprit.attempts
    assert [1] * 4 == [result.attempts for result in results.completed]


def die_in_the_middle_of_a_result() -> None:
    frame: Any = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    # So many bytes are to come, and do not.
    os.write(frame.f_locals["result_queue"]._writer.fileno(), (1000).to_bytes(4, "big"))
    kill_own_process()


@needs_posix
def test_a_pool_whose_worker_died_in_the_middle_of_a_result_is_ended() -> None:
    pool = spawned(1)
    future = pool.submit(die_in_the_middle_of_a_result)
    (process,) = pool._processes.values()
    process.join(60)
    # Not in this thread, which would never be told.
    ending = threading.Thread(target=partial(end, pool, wait=True, at_once=True), daemon=True)
    ending.start()
    ending.join(60)

    assert not ending.is_alive()
    assert isinstance(future.exception(0), BrokenExecutor)


async def test_suspects_are_called_once_more_one_at_a_time(registry: TaskRegistry) -> None:
    for name in ("a", "b", "c"):
        registry.task(name, executor="cpu")(one)
    first, second = Held(3), Held(3)
    with made(first, second) as make:
        scheduler = TaskScheduler(registry, executors={"cpu": make})
        async with running(scheduler) as run:
            await in_time(lambda: len(first.taken) == 3)
            first.break_down()
            await in_time(lambda: second.taken)
            for _ in range(3):
                await until(lambda: second.calls)
                [name] = second.calls
                await settle()
                assert [name] == list(second.calls)
                second.finish(name)

    assert run.results.ok
    assert [1, 1, 1] == [result.attempts for result in run.results]
    assert ["a", "b", "c"] == sorted(second.taken)


async def test_a_suspect_that_breaks_the_next_one_alone_is_the_culprit(
    registry: TaskRegistry,
) -> None:
    registry.task("a", executor="cpu")(one)
    registry.task("b", executor="cpu")(one)
    first, second, third = Held(), Held(), Held()
    with made(first, second, third) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.taken) == 2)
            first.break_down()
            await in_time(lambda: second.taken)
            second.break_down()
            await in_time(lambda: third.taken)
            third.finish(*third.taken)

    [culprit] = second.taken
    error = run.results[culprit].exception
    assert isinstance(error, WorkerDiedError)
    assert (culprit,) == error.running
    assert isinstance(error.__cause__, BrokenExecutor)
    assert third.taken == [result.task_name for result in run.results.completed]


async def test_calls_that_an_executor_forgets_as_it_breaks_are_suspects_too(
    registry: TaskRegistry, process: BaseProcess
) -> None:
    """As Python 3.11 may, where one is taken while the pool tells the others."""
    for name in ("a", "b", "c"):
        registry.task(name, executor="cpu")(one)
    first, second = Held(3, _processes={1: process}), Held(3)
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.taken) == 3)
            told, _ = first.calls["b"]
            told.set_exception(BrokenExecutor("a process died"))
            await in_time(lambda: second.taken)
            # It may be one that was just started, which nobody knows of.
            await in_time(lambda: not process.is_alive())
            while len(second.taken) < 3 or second.calls:
                second.finish(*list(second.calls))
                await checkpoint()

    assert run.results.ok
    assert [1, 1, 1] == [result.attempts for result in run.results]


async def test_a_call_that_is_taken_and_forgotten_while_the_executor_breaks_is_told(
    registry: TaskRegistry, process: BaseProcess
) -> None:
    registry.task("a", executor="cpu", retries=2)(one)
    first, second = Held(_processes={1: process}, _broken="a process died"), Held()
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: second.calls)
            second.finish("a")

    assert (["a"], 2) == (first.taken, run.results["a"].attempts)


async def test_a_call_that_is_refused_by_what_broke_tells_those_that_it_forgot(
    registry: TaskRegistry, process: BaseProcess
) -> None:
    registry.task("a", executor="cpu")(one)

    @registry.task
    async def opened() -> None:
        await may_go.wait()

    registry.task("b", depends_on=["opened"], executor="cpu")(one)
    may_go = anyio.Event()
    first, second = Held(_processes={1: process}), Held()
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: first.calls)
            first.refusal = BrokenExecutor("a process died")
            may_go.set()
            await in_time(lambda: second.calls)
            second.finish("b")

    assert isinstance(run.results["a"].exception, WorkerDiedError)
    assert run.results["b"].ok


async def test_what_has_ended_before_the_executor_broke_is_no_suspect(
    registry: TaskRegistry,
) -> None:
    registry.task("a", executor="cpu")(one)
    registry.task("b", executor="cpu")(one)
    first = Held()
    with made(first) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.taken) == 2)
            # In one turn of the loop.
            first.finish("a")
            first.break_down()

    assert run.results["a"].ok
    assert ("b",) == run.results["b"].exception.running


def two_and_one_more(registry: TaskRegistry, name: str) -> anyio.Event:
    """Tasks a and b, and another, which becomes ready when the event is set."""
    may_go = anyio.Event()
    for each_name in ("a", "b"):
        registry.task(each_name, executor="cpu")(one)

    @registry.task
    async def opened() -> None:
        await may_go.wait()

    registry.task(name, depends_on=["opened"], executor="cpu")(one)
    return may_go


async def test_others_wait_until_there_are_no_suspects_any_more(registry: TaskRegistry) -> None:
    may_go = two_and_one_more(registry, "later")
    first, second = Held(3), Held(3)
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.taken) == 2)
            first.break_down()
            await in_time(lambda: second.taken)
            may_go.set()
            await settle()
            assert 1 == len(second.taken)
            second.finish(*second.taken)
            await until(lambda: second.calls)
            assert ["a", "b"] == sorted(second.taken)
            second.finish(second.taken[-1])
            await until(lambda: second.calls)
            second.finish("later")

    assert run.results.ok


async def test_suspects_wait_for_who_was_before_them(registry: TaskRegistry) -> None:
    may_go = two_and_one_more(registry, "between")
    first, second = Held(3), Held(3)
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.taken) == 2)
            # It finds that the executor is broken before those hear of it who are in it.
            first.refusal = BrokenExecutor("a process died")
            may_go.set()
            await in_time(lambda: second.taken)
            first.break_down()
            await settle()
            assert ["between"] == second.taken
            second.finish("between")
            for _ in range(2):
                await until(lambda: second.calls)
                assert 1 == len(second.calls)
                second.finish(*list(second.calls))

    assert run.results.ok


@each("refusal", [BrokenExecutor("a process died"), OSError("handle is closed")])
async def test_an_executor_that_broke_while_it_had_nothing_to_do_is_replaced(
    registry: TaskRegistry, refusal: Exception
) -> None:
    registry.task("a", executor="cpu")(one)
    registry.task("b", executor="cpu", depends_on=["a"])(one)
    first, second = Held(), Held()
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: first.calls)
            # Python 3.11 may say the other while it breaks.
            first.refusal, first._broken = refusal, "a process died"
            first.finish("a")
            await in_time(lambda: second.calls)
            second.finish("b")

    assert run.results.ok
    assert ([False], [True]) == (first.shutdowns, second.shutdowns)


class BrokenByItsFirst(Held):
    """Takes one call, which breaks it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.refusal = BrokenExecutor("it is broken")
        return future


async def test_a_call_is_not_to_blame_for_what_others_break_before_it(
    registry: TaskRegistry,
) -> None:
    for name in ("a", "b", "c"):
        registry.task(name, executor="cpu")(one)
    executors = [BrokenByItsFirst(3), BrokenByItsFirst(3), BrokenByItsFirst(3)]
    with made(*executors) as make:
        async with running(
            TaskScheduler(registry, executors={"cpu": make}, resources={"executor cpu": 3})
        ) as run:
            # Before anybody hears what has become of the first ones.
            await in_time(lambda: all(each.taken for each in executors))
            for each in executors:
                each.break_down()

    assert [(name,) for name in "abc"] == sorted(result.exception.running for result in run.results)


async def test_what_was_given_up_is_under_suspicion_too(registry: TaskRegistry) -> None:
    registry.task("a", executor="cpu", timeout=0.2)(one)
    registry.task("b", executor="cpu")(one)
    first, second = Held(begins={"a", "b"}), Held()
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.calls) == 2)
            await in_time(lambda: status_of(run, "a") is TaskStatus.FAILED)
            first.break_down()
            await in_time(lambda: second.calls)
            second.finish("b")

    assert (1, 1) == (run.results["b"].attempts, run.results["b"].result)


async def test_an_executor_that_is_broken_whenever_it_is_made_fails_the_task(
    registry: TaskRegistry,
) -> None:
    broken = Held()
    broken.refusal = BrokenExecutor("no memory")

    result = await outcome_of(registry, lambda: broken, one, retries=2)

    assert (2, ExecutorError) == (result.attempts, type(result.exception))
    assert (
        "Task 'load' could not run, because of the executor 'cpu': it did not take the call: "
        "BrokenExecutor: no memory"
    ) == str(result.exception)


async def test_an_executor_that_was_given_as_it_is_stays_broken(registry: TaskRegistry) -> None:
    registry.task("a", executor="cpu")(one)
    registry.task("b", executor="cpu")(one)
    registry.task("later", executor="cpu", after=["a", "b"])(one)
    held = Held()
    async with running(TaskScheduler(registry, executors={"cpu": held})) as run:
        await until(lambda: len(held.taken) == 2)
        held.break_down()

    assert (
        "A worker of the executor 'cpu' died while running: a, b. It is broken now. So that it can "
        "be replaced, give a function that makes it, as in executors={'cpu': lambda: "
        "ProcessPoolExecutor(2)}."
    ) == str(run.results["a"].exception)
    assert ("a", "b") == run.results["b"].exception.running
    assert isinstance(run.results["later"].exception, ExecutorError)
    assert str(run.results["later"].exception).endswith(" lambda: ProcessPoolExecutor(2)}.")
    assert [] == held.shutdowns


async def test_a_worker_of_an_executor_that_isolates_takes_nobody_along(
    registry: TaskRegistry,
) -> None:
    registry.task("a", executor="cpu")(one)
    registry.task("b", executor="cpu")(one)
    held = Held(isolates=True)
    async with running(TaskScheduler(registry, executors={"cpu": held})) as run:
        await until(lambda: len(held.taken) == 2)
        held.calls.pop("a")[0].set_exception(BrokenExecutor("a process died"))
        held.finish("b")

    assert ("a",) == run.results["a"].exception.running
    assert run.results["b"].ok


async def test_a_suspect_that_is_cancelled_leaves_the_way_free(registry: TaskRegistry) -> None:
    registry.task("a", executor="cpu", timeout=2)(one)
    registry.task("b", executor="cpu")(one)
    first, second = Held(), Held()
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.taken) == 2)
            first.break_down()
            await in_time(lambda: "b" in second.taken)
            second.finish("b")

    assert isinstance(run.results["a"].exception, TaskTimeoutError)
    assert run.results["b"].ok


async def test_executors_that_have_broken_end_before_the_run_does(registry: TaskRegistry) -> None:
    registry.task("a", executor="cpu", retries=3)(one)
    executors = [Held() for _ in range(3)]
    with made(*executors) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            for number, held in enumerate(executors):
                await in_time(lambda held=held: held.calls)
                if number:
                    await in_time(lambda number=number: executors[number - 1].shutdowns)
                if number < 2:
                    held.break_down()
            executors[2].finish("a")

    assert run.results.ok
    # Without processes there is nothing to wait for.
    assert [[False], [False], [True]] == [held.shutdowns for held in executors]


async def test_a_pool_whose_processes_end_now_and_then_is_not_watched(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch, process: BaseProcess
) -> None:
    monkeypatch.setattr("portable_sched._any_executor._LOOK", 0.01)
    process.kill()
    process.join()
    killed: list[object] = []
    monkeypatch.setattr("portable_sched._any_executor.end_processes", killed.append)
    for most in (5, None):
        pool = SimpleNamespace(_processes={1: process}, _max_tasks_per_child=most)
        is_over = threading.Event()
        watch = threading.Thread(target=end_where_stuck, args=(pool, is_over))
        watch.start()
        if most is None:
            await in_time(lambda: killed)
        watch.join(60)
        assert ([] if most else [pool]) == killed


async def test_a_pool_that_has_noticed_a_death_itself_is_not_ended(
    monkeypatch: pytest.MonkeyPatch, process: BaseProcess
) -> None:
    monkeypatch.setattr("portable_sched._any_executor._LOOK", 0.01)
    process.kill()
    process.join()
    killed: list[object] = []
    monkeypatch.setattr("portable_sched._any_executor.end_processes", killed.append)
    asked: list[None] = []

    class Broken:
        _processes: ClassVar = {1: process}

        @property
        def _broken(self) -> str:
            asked.append(None)
            return "a process has died"

    is_over = threading.Event()
    watch = threading.Thread(target=end_where_stuck, args=(Broken(), is_over))
    watch.start()
    await in_time(lambda: asked)
    is_over.set()
    watch.join(60)

    assert not watch.is_alive()
    assert [] == killed


async def test_a_suspect_that_the_worker_does_not_find_goes_by_value(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sent, "fall_back", lambda sent: True)
    for name in ("a", "b"):
        registry.task(name, executor="cpu")(one)
    first, second = Held(), Held()
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: len(first.taken) == 2)
            first.break_down()
            for _ in range(2):
                await in_time(lambda: second.calls)
                [(name, (future, _))] = second.calls.items()
                del second.calls[name]
                future.set_exception(RemoteFailure(AttributeError(name), part="the function"))
                await in_time(lambda: second.calls)
                second.finish(name)
                await settle()

    assert run.results.ok


@needs_posix
@each("make", [partial(spawned, 1), partial(spawned, 2)])
async def test_a_pool_that_does_not_notice_a_death_is_ended(
    registry: TaskRegistry, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._any_executor._LOOK", 0.05)
    registry.task("before", executor="cpu")(one)
    registry.task("dies", executor="cpu", depends_on=["before"])(die_in_the_middle_of_a_result)
    registry.task("after", executor="cpu", after=["dies"])(one)

    with anyio.fail_after(60):
        results = await TaskScheduler(registry, executors={"cpu": make}).run()

    assert isinstance(results["dies"].exception, WorkerDiedError)
    assert results["after"].ok


async def test_threads_that_cannot_begin_are_not_told_as_a_death(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def make() -> Threads:
        tries.append(1)
        return Threads(1, initializer=fail if len(tries) == 1 else one)

    result = await outcome_of(registry, make, one, retries=2)

    assert (1, 2) == (result.result, result.attempts)
    assert str(result.failures[0].exception).startswith(
        "Task 'load' could not run, because of the executor 'cpu': it is broken: "
    )

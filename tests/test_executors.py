"""Tasks that run in an executor: where, how many at one time, and from its opening to its end."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor as Threads
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint
from executor_runs import (
    VARIABLE,
    Held,
    die,
    fail,
    in_time,
    is_alive,
    is_asyncio,
    leave,
    lock,
    made,
    one,
    outcome_of,
    pid,
    run_python,
    running,
    settle,
    spawned,
    status_of,
    until,
    variable_set,
    write_and_sleep,
)

from portable_sched import (
    FailurePolicy,
    Priority,
    RemoteTaskError,
    RunResults,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    UnknownExecutorError,
    carry,
)
from portable_sched._any_executor import end, end_processes, has_died
from portable_sched._opened import Opened
from portable_sched._standard_executors import _processors
from portable_sched._supply import Supply

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize


async def finish_all(held: Held) -> None:
    """Let the calls end, and those that come after them."""
    while held.calls:
        held.finish(*list(held.calls))
        await settle()


async def structured(one: int) -> list[int]:
    found: list[int] = []

    async def add(number: int) -> None:
        await anyio.sleep(0.001 * number)
        found.append(number + one)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for number in (2, 1):
                group.start_soon(add, number)
    return sorted(found)


def awaitable_in_disguise() -> Any:
    return is_asyncio()


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, one: int) -> int:
        return self.factor * one

    def multiplied(self, one: int) -> int:
        return self.factor * one

    async def later(self, one: int) -> int:
        return self.factor * one


def variable() -> str:
    return VARIABLE.get()


async def variable_in_event_loop() -> str:
    return VARIABLE.get()


# Where tasks run


async def test_a_task_runs_in_the_executor_that_it_names(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task("there", executor="cpu")(pid)
    registry.task("here")(pid)

    results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert results["there"].result != results["here"].result == os.getpid()


async def test_results_go_by_name_from_process_to_process_and_back(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task(executor="cpu")(one)

    @registry.task
    async def both(one: int, structured: list[int]) -> list[int]:
        return [one, *structured]

    registry.task(executor="cpu")(structured)

    results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert [1, 2, 3] == results[both].result


async def test_an_async_function_runs_there_in_an_event_loop_of_the_same_kind(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task("async", executor="cpu")(is_asyncio)
    registry.task("disguised", executor="cpu")(awaitable_in_disguise)
    registry.task("thread", executor="thread")(is_asyncio)
    here = await is_asyncio()

    results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert [here] * 3 == [result.result for result in results]


async def test_an_async_function_runs_in_a_worker_that_was_forked_off_an_event_loop(
    registry: TaskRegistry,
) -> None:
    if sys.platform != "linux":
        pytest.skip("nothing is forked elsewhere")
    registry.task("async", executor="cpu")(is_asyncio)
    registry.task(executor="cpu")(one)
    registry.task(executor="cpu")(structured)
    here = await is_asyncio()
    with warnings.catch_warnings():
        # Of threads, which is why to fork is no good idea.
        warnings.simplefilter("ignore", DeprecationWarning)
        executors = {"cpu": lambda: ProcessPoolExecutor(1, mp_context=get_context("fork"))}
        with anyio.fail_after(60):
            results = await TaskScheduler(registry, executors=executors).run()

    assert (here, [2, 3]) == (results["async"].result, results["structured"].result)


async def test_threads_are_an_executor_by_name(registry: TaskRegistry) -> None:
    registry.task("plain", executor="thread")(threading.get_ident)

    results = await TaskScheduler(registry).run()

    assert threading.get_ident() != results["plain"].result


async def test_processes_need_no_set_up(registry: TaskRegistry) -> None:
    registry.task("there", executor="process")(pid)

    results = await TaskScheduler(registry).run()

    assert results.ok
    assert os.getpid() != results["there"].result


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python has no pool of interpreters yet")
async def test_interpreters_need_no_set_up(  # pragma: no cover - as it says
    registry: TaskRegistry,
) -> None:
    registry.task(executor="interpreter")(one)
    registry.task("async", executor="interpreter")(structured)
    registry.task("exit", executor="interpreter")(leave)

    results = await TaskScheduler(registry).run()

    assert [2, 3] == results["async"].result
    assert isinstance(results["exit"].exception, RemoteTaskError)


async def test_there_is_one_interpreter_for_each_processor(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_for: list[int] = []

    def pool(workers: int) -> Threads:
        made_for.append(workers)
        return Threads(workers)

    monkeypatch.setattr(futures, "InterpreterPoolExecutor", pool, raising=False)
    registry.task("there", executor="interpreter")(one)

    assert (await TaskScheduler(registry).run()).ok

    assert [_processors()] == made_for


async def test_any_callable_can_be_sent(registry: TaskRegistry, pool: ProcessPoolExecutor) -> None:
    registry.task(executor="cpu")(one)
    registry.task("partial", executor="cpu")(partial(max, 7))
    registry.task("object", executor="cpu")(Multiplier(3))
    registry.task("method", executor="cpu")(Multiplier(4).multiplied)
    registry.task("async method", executor="cpu")(Multiplier(5).later)
    inputs = dict.fromkeys(TaskScheduler(registry, executors={"cpu": pool}).graph.inputs, 7)

    results = await TaskScheduler(registry, executors={"cpu": pool}).run(inputs=inputs)

    assert [3, 4, 5] == [results[name].result for name in ("object", "method", "async method")]


def picky(fn: int, /, self: int, *, call: int, key: int = 4) -> tuple[int, ...]:
    return fn, self, call, key


async def test_parameters_may_have_any_name_and_kind(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task(executor="cpu")(picky)
    scheduler = TaskScheduler(registry, executors={"cpu": pool})

    results = await scheduler.run(inputs={"fn": 1, "self": 2, "call": 3})

    assert (1, 2, 3, 4) == results["picky"].result


async def test_context_variables_stay_at_home(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task("there", executor="cpu")(variable)
    registry.task("thread", executor="thread")(variable)
    with variable_set("here"):
        results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert ["nothing", "here"] == [result.result for result in results]


async def test_a_hook_has_a_context_manager_entered_around_the_function(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    def hook(definition: TaskDef, attempt: int) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def around() -> Any:
            carry(variable_set, "outer")
            carry(variable_set, f"{definition.name}, attempt {attempt}")
            yield

        return around()

    registry.task("plain", executor="cpu")(variable)
    registry.task("async", executor="cpu")(variable_in_event_loop)
    registry.task("here")(variable)

    results = await TaskScheduler(registry, executors={"cpu": pool}, attempt_hooks=[hook]).run()

    assert ["plain, attempt 1", "async, attempt 1", "nothing"] == [one.result for one in results]
    assert "nothing" == pool.submit(variable).result()


# Opening and closing


def test_a_run_whose_event_loop_is_gone_shuts_its_executors_down(registry: TaskRegistry) -> None:
    registry.task("a", executor="cpu")(one)
    held = Held()
    scheduler = TaskScheduler(registry, executors={"cpu": lambda: held})
    coroutines: list[Any] = []

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        coroutines.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.new_event_loop()
    loop.set_task_factory(factory)
    loop.set_exception_handler(lambda *_: None)  # of tasks that are destroyed
    task = loop.create_task(scheduler.run())

    async def taken() -> None:
        while not held.taken:  # noqa: ASYNC110 - there is none to wait for
            await asyncio.sleep(0.001)

    loop.run_until_complete(taken())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    for coroutine in reversed(coroutines):
        with suppress(RuntimeError):
            coroutine.close()
    del task

    limit = time.monotonic() + 60
    while not held.shutdowns and time.monotonic() < limit:
        time.sleep(0.01)
    assert [False] == held.shutdowns


async def test_an_executor_that_opens_when_the_run_is_over_is_shut_down() -> None:
    is_opening, may_open, is_told = threading.Event(), threading.Event(), threading.Event()
    held = Held()

    def make() -> Held:
        is_opening.set()
        may_open.wait(60)
        return held

    supply = Supply("cpu", make, lambda workers, look_ahead: is_told.set())
    async with anyio.create_task_group() as group:
        group.start_soon(supply.open, "load")
        await in_time(is_opening.is_set)
        group.cancel_scope.cancel()
    is_over = supply.end(at_once=False)
    await settle()
    assert not is_over.is_set()
    may_open.set()
    with anyio.fail_after(60):
        await is_over.wait()

    assert [True] == held.shutdowns
    assert not is_told.is_set()


async def test_an_executor_is_made_at_its_first_use_once_and_in_a_thread(
    registry: TaskRegistry,
) -> None:
    made_in: list[int] = []

    def make() -> Threads:
        made_in.append(threading.get_ident())
        return Threads(2)

    for number in range(5):
        registry.task(f"task {number}", executor="cpu")(one)
    scheduler = TaskScheduler(registry, executors={"cpu": make, "other": make})
    assert [] == made_in

    assert (await scheduler.run()).ok

    assert 1 == len(made_in)
    assert threading.get_ident() not in made_in


async def test_an_executor_that_no_task_of_the_run_needs_is_not_made(
    registry: TaskRegistry,
) -> None:
    registry.task("here")(one)
    registry.task("there", executor="cpu")(one)

    results = await TaskScheduler(registry, executors={"cpu": pytest.fail}).run(targets=["here"])

    assert results.ok


async def test_what_ends_the_program_while_an_executor_is_made_ends_it(
    registry: TaskRegistry,
) -> None:
    registry.task("load", executor="cpu")(one)

    with pytest.raises(SystemExit):
        await TaskScheduler(registry, executors={"cpu": leave}).run()


async def test_an_executor_that_cannot_be_made_fails_the_attempt(registry: TaskRegistry) -> None:
    tries: list[int] = []

    def make() -> Threads:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no such host")
        return Threads(1)

    result = await outcome_of(registry, make, one, retries=2)

    assert (1, 2) == (result.result, result.attempts)
    first = result.failures[0].exception
    assert isinstance(first.__cause__, OSError)
    assert (
        "Task 'load' could not run, because of the executor 'cpu': opening it failed: "
        "OSError: no such host"
    ) == str(first)


async def test_what_cannot_be_opened_is_tried_once_for_all_of_an_attempt(
    registry: TaskRegistry,
) -> None:
    """It may take its time to fail."""
    tries: list[None] = []

    def make() -> Threads:
        tries.append(None)
        raise OSError("no such host")

    for number in range(20):
        registry.task(f"{number}", executor="cpu", retries=3)(one)

    results = await TaskScheduler(registry, executors={"cpu": make}).run()

    assert [3] * 20 == [result.attempts for result in results.failed]
    assert all(isinstance(result.exception.__cause__, OSError) for result in results.failed)
    assert 3 == len(tries)


async def test_what_could_not_be_opened_is_tried_again_after_a_while(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._supply._FRESH", 0.0)
    tries: list[None] = []

    def make() -> Threads:
        tries.append(None)
        if len(tries) == 1:
            raise OSError("no such host")
        return Threads(1)

    registry.task("first", executor="cpu")(one)
    registry.task("later", executor="cpu", after=["first"])(one)

    results = await TaskScheduler(registry, executors={"cpu": make}).run()

    assert ["first"] == [result.task_name for result in results.failed]
    assert 2 == len(tries)


async def test_what_makes_something_else_is_refused(registry: TaskRegistry) -> None:
    result = await outcome_of(registry, lambda: 7, one)

    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'cpu': opening it "
        "failed: TypeError: expected the function that makes it to return an executor, got 7 (int)."
    ) == result.error


async def test_what_is_not_made_at_once_is_refused(registry: TaskRegistry) -> None:
    async def make() -> Held:
        return Held()

    result = await outcome_of(registry, make, one)

    assert result.error.endswith(". An async def cannot make one.")


def test_a_client_of_dask_is_no_executor() -> None:
    client = SimpleNamespace(submit=print, get_executor=Held)

    with pytest.raises(TypeError) as caught:
        TaskScheduler([], executors={"cluster": client})

    assert str(caught.value).endswith(" Write DaskExecutor(client), from portable_sched.dask.")


async def test_an_executor_is_shut_down_with_the_run_and_one_that_was_given_is_not(
    registry: TaskRegistry,
) -> None:
    registry.task("a", executor="made")(one)
    registry.task("b", executor="given")(one)
    made_one, given = Held(), Held()
    executors = {"made": lambda: made_one, "given": given}
    async with running(TaskScheduler(registry, executors=executors)):
        await in_time(lambda: made_one.calls and given.calls)
        assert [] == made_one.shutdowns
        made_one.finish("a")
        given.finish("b")

    assert ([True], []) == (made_one.shutdowns, given.shutdowns)


@each("error", [OSError("no such pipe"), SystemExit(3)])
async def test_an_executor_that_raises_when_it_is_shut_down_is_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Clumsy(Threads):
        def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
            super().shutdown(wait=wait)
            raise error

    result = await outcome_of(registry, lambda: Clumsy(1), one)

    assert 1 == result.result
    [record] = caplog.records
    assert "An executor raised when it was shut down." == record.getMessage()


async def test_an_executor_that_does_not_shut_down_is_left_and_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._pools._SHUTDOWN", 0.01)
    may_end = threading.Event()

    class Slow(Threads):
        def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
            may_end.wait(60)
            super().shutdown(wait=wait)

    result = await outcome_of(registry, lambda: Slow(1), one)

    assert 1 == result.result
    [record] = caplog.records
    assert record.getMessage().startswith("The executor 'cpu' has not shut down within ")
    may_end.set()


async def test_what_a_run_waits_for_at_its_end_is_logged_after_a_while(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._pools._SAID", 0.01)

    class Slow(Threads):
        def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
            limit = time.monotonic() + 60
            while not caplog.records and time.monotonic() < limit:
                time.sleep(0.01)
            super().shutdown(wait=wait)

    await outcome_of(registry, lambda: Slow(1), one)

    [record] = caplog.records
    assert (
        "The run waits for its executors to shut down, up to 30 s: 'cpu'."
    ) == record.getMessage()


async def test_executors_shut_down_at_the_same_time(registry: TaskRegistry) -> None:
    both = threading.Barrier(2)

    class Sociable(Threads):
        def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
            both.wait(60)
            super().shutdown(wait=wait)

    for name in ("a", "b"):
        registry.task(name, executor=name)(one)
    executors = {"a": lambda: Sociable(1), "b": lambda: Sociable(1)}

    with anyio.fail_after(60):
        assert (await TaskScheduler(registry, executors=executors).run()).ok

    assert not both.broken


@each("times", [1, 2])
def test_a_run_that_is_cancelled_while_executors_shut_down_waits_for_them(
    registry: TaskRegistry, times: int
) -> None:
    """By asyncio itself, against which nothing is shielded."""
    may_end = threading.Event()
    shut_down: list[str] = []

    class Slow(Threads):
        def __init__(self, name: str) -> None:
            super().__init__(1)
            self.name = name

        def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
            may_end.wait(60)
            super().shutdown(wait=wait)
            shut_down.append(self.name)

    for name in ("a", "b"):
        registry.task(name, executor=name)(one)
    executors = {"a": lambda: Slow("a"), "b": lambda: Slow("b")}
    scheduler = TaskScheduler(registry, executors=executors)

    async def main() -> None:
        task = asyncio.create_task(scheduler.run())
        await in_time(lambda: scheduler._ends and not scheduler._runs and scheduler.results.ok)
        for _ in range(times):
            task.cancel()
            await settle()
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ["a", "b"] == sorted(shut_down)

    asyncio.run(asyncio.wait_for(main(), 60))


async def test_while_executors_shut_down_the_run_can_be_explained_and_left(
    registry: TaskRegistry,
) -> None:
    is_closing, may_end = threading.Event(), threading.Event()

    class Slow(Threads):
        def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
            is_closing.set()
            may_end.wait(60)
            super().shutdown(wait=wait)

    registry.task("a", executor="cpu")(one)
    scheduler = TaskScheduler(registry, executors={"cpu": lambda: Slow(1)})
    async with running(scheduler) as run:
        async with scheduler:
            await in_time(is_closing.is_set)
            scheduler.stop()
            scheduler.stop()
            assert str(scheduler.explain("a")).startswith("'a' has completed")
            may_end.set()
        # Its end comes before that of the block.
        assert run.results is not None

    assert run.results.ok


async def test_a_run_that_is_cancelled_while_an_executor_opens_leaves_none_open(
    registry: TaskRegistry,
) -> None:
    is_opening, may_open = threading.Event(), threading.Event()
    held = Held()

    def make() -> Held:
        is_opening.set()
        may_open.wait(60)
        return held

    registry.task("a", executor="cpu")(one)
    scheduler = TaskScheduler(registry, executors={"cpu": make})
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        await in_time(is_opening.is_set)
        group.cancel_scope.cancel()
        may_open.set()

    assert [True] == held.shutdowns
    assert TaskStatus.CANCELLED is scheduler.results["a"].status


async def test_an_executor_that_does_not_open_is_left_and_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._pools._SHUTDOWN", 0.01)
    may_open = threading.Event()

    def make() -> Threads:
        may_open.wait(60)
        return Threads(1)

    result = await outcome_of(registry, make, one, timeout=0.05)

    assert isinstance(result.exception, TaskTimeoutError)
    [record] = caplog.records
    assert record.getMessage().startswith("The executor 'cpu' has not opened within ")
    may_open.set()


@each("ending", ["success", "failure", "cancelled", "stopped", "policy"])
async def test_no_process_remains_however_the_run_ends(
    registry: TaskRegistry, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / "pid"
    registry.task("long", executor="cpu")(partial(write_and_sleep, str(path)))
    registry.task("short", executor="cpu", retries=2)(pid)
    if ending == "success":
        registry = TaskRegistry()
        registry.task("short", executor="cpu")(pid)

    @registry.task
    async def decides() -> None:
        if ending == "success":
            return
        await in_time(lambda: path.exists() and path.read_text())
        if ending == "cancelled":
            scope.cancel()
            await anyio.sleep(3600)
        if ending == "stopped":
            scheduler.stop()
            scheduler.stop()
        raise ValueError("it is over")

    policy = FailurePolicy.CANCEL
    scheduler = TaskScheduler(registry, executors={"cpu": spawned}, on_failure=policy)
    with anyio.fail_after(60), anyio.CancelScope() as scope:
        await scheduler.run()

    found = {scheduler.results["short"].result} - {None}
    if path.exists() and path.read_text():
        found.add(int(path.read_text()))
    assert found
    await in_time(lambda: not any(map(is_alive, found)))


def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return os.getpid()


@each("where", [partial(spawned, 1), "process"])
async def test_a_worker_in_which_a_function_has_left_a_thread_ends_with_the_run(
    registry: TaskRegistry, where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_any_executor", "_processes"):
        monkeypatch.setattr(f"portable_sched.{module}.PATIENCE", 0.1)
    name = where if isinstance(where, str) else "cpu"
    registry.task("load", executor=name)(leave_a_thread)

    results = await TaskScheduler(registry, executors={} if name == where else {name: where}).run()

    assert not is_alive(results["load"].result)


def test_a_pool_that_others_use_is_not_ended_though_it_is_late(
    process: BaseProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._any_executor.PATIENCE", 0.0)

    class Shared(Held):
        @property
        def _pending_work_items(self) -> dict[int, Any]:
            asked.set()
            # Of another run.
            return {1: SimpleNamespace(future=Future())}

        def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
            assert asked.wait(60)

    asked = threading.Event()
    end(Shared(_processes={1: process}), wait=True, at_once=False)

    assert process.is_alive()


async def test_no_thread_remains(registry: TaskRegistry) -> None:
    before = set(threading.enumerate())
    registry.task("there", executor="cpu")(pid)
    registry.task("process", executor="process")(pid)

    assert (await TaskScheduler(registry, executors={"cpu": spawned}).run()).ok

    # The backends keep threads of theirs for a while.
    others = [one for one in set(threading.enumerate()) - before if "ThreadPool" not in one.name]
    named = ("AnyIO", "Trio", "asyncio")
    await in_time(
        lambda: (
            not [
                one
                for one in others
                if one.is_alive() and one.name[:4] not in {name[:4] for name in named}
            ]
        )
    )


def test_a_process_that_was_closed_needs_no_end() -> None:
    process = get_context("spawn").Process(target=one)
    process.start()
    process.join()
    process.close()

    assert not has_died(process)
    assert end_processes(SimpleNamespace(_processes={1: process}))


async def test_a_process_that_cannot_be_started_fails_the_attempt(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_start(*_: object) -> NoReturn:
        raise OSError("no more processes")

    monkeypatch.setattr(ProcessPoolExecutor, "_adjust_process_count", fail_to_start)
    monkeypatch.setattr(ProcessPoolExecutor, "_launch_processes", fail_to_start)
    registry.task("load", executor="process")(one)

    result = (await TaskScheduler(registry).run())["load"]

    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'process': it gave up "
        "the call: OSError: no more processes"
    ) == result.error


def test_a_program_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        dedent("""
        import asyncio
        from portable_sched import TaskScheduler, task

        @task
        def pay():
            with open("paid", "a") as file:
                file.write("once")

        @task(executor="process", after=[pay])
        def load():
            return 1

        print(asyncio.run(TaskScheduler().run())[load].error)
        """)
    )
    ran = run_python(tmp_path, "program.py")

    assert 0 == ran.returncode
    # By the worker, and, for whoever does not see that, by the program.
    assert ran.stderr.endswith(
        "RuntimeError: Expected the run to begin in the program itself. This is a worker that has "
        "begun to read the program, which runs the tasks as soon as it is read. Put what runs them "
        'under `if __name__ == "__main__":`.\n'
    )
    assert (
        "WorkerDiedError: A worker of the executor 'process' died while running: load. It ended "
        "with exit code 1 before it could begin: it may have printed why. If the program runs the "
        'tasks as soon as it is read, put that under `if __name__ == "__main__":`.\n'
    ) == ran.stdout
    assert "once" == (tmp_path / "paid").read_text()


def test_a_module_may_run_what_it_needs_also_in_a_worker(tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(
        dedent("""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        from portable_sched import TaskRegistry, TaskScheduler

        registry = TaskRegistry()

        @registry.task(executor="own")
        def load():
            return 1

        executors = {"own": lambda: ThreadPoolExecutor(1)}
        value = asyncio.run(TaskScheduler(registry, executors=executors).run())[load].result
        """)
    )
    (tmp_path / "program.py").write_text(
        dedent("""
        import asyncio
        import settings
        from portable_sched import TaskScheduler, task

        @task(executor="process")
        def load():
            return settings.value

        if __name__ == "__main__":
            print(asyncio.run(TaskScheduler().run())[load].result)
        """)
    )
    ran = run_python(tmp_path, "program.py")

    assert (0, "1\n", "") == (ran.returncode, ran.stdout, ran.stderr)


def test_a_program_that_is_read_from_standard_input_is_told_to_be_a_file() -> None:
    ran = subprocess.run(
        [sys.executable, "-"],
        input=dedent("""
        import asyncio
        from portable_sched import TaskScheduler, task

        @task(executor="process")
        def load():
            return 1

        if __name__ == "__main__":
            print(asyncio.run(TaskScheduler().run())[0].error)
        """),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (0, "") == (ran.returncode, ran.stderr)
    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'process': opening it "
        "failed: RuntimeError: a worker begins by reading the program, and that is in no file: "
        "'<stdin>'. Write it to one, as standard input can be read but once.\n"
    ) == ran.stdout


# Limits


async def test_an_executor_has_as_many_calls_as_workers(registry: TaskRegistry) -> None:
    for number in range(6):
        registry.task(f"{number}", executor="cpu")(one)
    held = Held(2)
    scheduler = TaskScheduler(registry, executors={"cpu": held})
    async with running(scheduler):
        await until(lambda: len(held.calls) == 2)
        await settle()
        assert ["0", "1"] == held.taken
        assert "wants a place in the executor `cpu`, held by '0', '1'" in str(
            scheduler.explain("5")
        )
        await finish_all(held)

    assert {"executor cpu"} == set(scheduler.results.resources)


async def test_what_is_urgent_overtakes_what_waits_for_the_executor(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._capacity._SHORT", 0.0)
    for number in range(4):
        registry.task(f"low {number}", Priority.LOW, executor="cpu")(one)
    registry.task("high", Priority.HIGH, executor="cpu", depends_on=["low 0"])(one)
    held = Held(2)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await until(lambda: len(held.taken) == 2)
        held.finish("low 0")
        await until(lambda: len(held.taken) == 3)
        assert ["low 0", "low 1", "high"] == held.taken
        while len(held.taken) < 5 or held.calls:
            held.finish(*list(held.calls))
            await checkpoint()


@pytest.fixture
def calls_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr("portable_sched._capacity._SHORT", 60.0)


@pytest.mark.usefixtures("calls_are_short")
async def test_while_calls_are_short_there_are_as_many_again(registry: TaskRegistry) -> None:
    for number in range(8):
        registry.task(f"{number}", executor="cpu")(one)
    held = Held(2)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await until(lambda: len(held.calls) == 2)
        held.finish("0")
        await until(lambda: len(held.calls) == 4)
        await settle()
        assert 5 == len(held.taken)
        await finish_all(held)


@pytest.mark.usefixtures("calls_are_short")
async def test_when_calls_take_long_again_there_are_no_more_than_workers(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        registry.task(f"{number}", executor="cpu")(one)
    held = Held(2)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await until(lambda: len(held.calls) == 2)
        held.finish("0")
        await until(lambda: len(held.calls) == 4)
        monkeypatch.setattr("portable_sched._capacity._SHORT", 0.0)
        held.finish("1")
        await until(lambda: "1" not in held.calls)
        await settle()
        held.finish("2")
        await settle()
        assert 2 == len(held.calls)
        await finish_all(held)


@pytest.mark.usefixtures("calls_are_short")
async def test_how_far_to_look_ahead_may_be_for_the_executor_to_say(
    registry: TaskRegistry,
) -> None:
    for number in range(9):
        registry.task(f"{number}", executor="cpu")(one)
    held = Held(1, look_ahead=5)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await until(lambda: held.calls)
        held.finish("0")
        await until(lambda: len(held.calls) == 6)
        await settle()
        assert 7 == len(held.taken)
        await finish_all(held)


async def test_of_an_executor_that_does_not_say_all_calls_are_in_flight(
    registry: TaskRegistry,
) -> None:
    for number in range(30):
        registry.task(f"{number}", executor="cpu")(one)
    held = Held(None)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await until(lambda: len(held.calls) == 30)
        held.finish(*list(held.calls))


async def test_the_limit_may_be_for_the_user_to_say(registry: TaskRegistry) -> None:
    for number in range(9):
        registry.task(f"{number}", executor="cpu")(one)
    held = Held(1)
    resources = {"executor cpu": 7}
    async with running(TaskScheduler(registry, executors={"cpu": held}, resources=resources)):
        await until(lambda: len(held.calls) == 7)
        await settle()
        assert 7 == len(held.calls)
        await finish_all(held)


async def test_a_task_that_waits_for_an_executor_holds_no_slot(registry: TaskRegistry) -> None:
    for number in range(4):
        registry.task(f"{number}", executor="cpu")(one)
    others: list[int] = []
    for number in range(3):

        @registry.task(f"here {number}")
        async def here(number: int = number) -> None:
            others.append(number)

    held = Held(1)
    async with running(TaskScheduler(registry, executors={"cpu": held}, max_concurrency=2)):
        await until(lambda: len(others) == 3)
        assert ["0"] == held.taken
        await finish_all(held)


async def test_a_second_run_knows_how_many_workers_there_were(registry: TaskRegistry) -> None:
    for number in range(4):
        registry.task(f"{number}", estimate=1, executor="cpu")(one)
    scheduler = TaskScheduler(registry, executors={"cpu": lambda: Threads(2)})
    unknown = scheduler.plan([None])

    assert (await scheduler.run()).ok

    assert [1.0, 2.0] == [plan.runs[0].makespan for plan in (unknown, scheduler.plan([None]))]


async def test_an_executor_that_tells_of_its_workers_is_followed(registry: TaskRegistry) -> None:
    told: list[Callable[[int], None]] = []
    ended: list[int] = []

    class Growing(Held):
        def follow(self, tell: Callable[[int], None]) -> Callable[[], None]:
            told.append(tell)
            return lambda: ended.append(1)

    for number in range(9):
        registry.task(f"{number}", executor="cpu")(one)
    held = Growing(1)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await until(lambda: len(held.calls) == 1)
        await settle()
        assert 1 == len(held.calls)
        # In whatever thread.
        await anyio.to_thread.run_sync(told[0], 3)
        await until(lambda: len(held.calls) == 3)
        await settle()
        assert 3 == len(held.calls)
        await finish_all(held)

    assert ([1], 1) == (ended, len(told))
    # It may yet tell.
    told[0](7)
    await settle()


@each("what", ["follow()", "after follow()"])
async def test_following_that_raises_is_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    def fail_here() -> NoReturn:
        raise ValueError("no such row")

    def follow(tell: Callable[[int], None]) -> Callable[[], None]:
        if what == "follow()":
            fail_here()
        return fail_here

    registry.task("a", executor="cpu")(one)
    made_one = Held(follow=follow)
    async with running(TaskScheduler(registry, executors={"cpu": lambda: made_one})) as run:
        await in_time(lambda: made_one.calls)
        made_one.finish("a")

    assert run.results.ok
    assert [True] == made_one.shutdowns
    [record] = caplog.records
    assert record.getMessage().startswith("The executor 'cpu' raised ")


async def test_news_of_an_executor_that_was_replaced_is_of_no_account() -> None:
    told: list[tuple[int | None, ...]] = []
    supply = Supply("cpu", list, lambda *numbers: told.append(numbers))
    old, new = Opened(Held(look_ahead=5)), Opened(Held())
    supply._use(old, 2)
    supply.replace(old)
    supply._use(new, 3)
    supply._note_workers(old, 7)
    supply._note_workers(new, 4)
    await settle()

    assert [(2, 5), (3, None), (4, None)] == told


def test_one_that_was_replaced_is_followed_no_more() -> None:
    followed: list[str] = []

    def following(name: str) -> Held:
        return Held(follow=lambda tell: (followed.append(name), partial(followed.append, "end"))[1])

    supply = object.__new__(Supply)
    supply._unfollow = lambda: None
    for name in ("first", "second"):
        supply._follow(Opened(following(name)))
    supply._unfollow()

    assert ["first", "end", "second", "end"] == followed


async def test_what_is_not_known_of_an_executor_that_was_not_opened_is_not_planned_with(
    registry: TaskRegistry,
) -> None:
    @registry.task
    async def fails() -> None:
        raise ValueError("no")

    for number in range(4):
        registry.task(f"{number}", estimate=1, executor="cpu", depends_on=["fails"])(one)
    scheduler = TaskScheduler(registry, executors={"cpu": lambda: Threads(2)})
    before = scheduler.plan([None], seconds={"fails": 1})

    assert not (await scheduler.run()).ok

    after = scheduler.plan([None], seconds={"fails": 1})
    assert before.runs[0].makespan == after.runs[0].makespan


# What is refused


async def test_what_submit_returns_has_to_be_a_future(registry: TaskRegistry) -> None:
    class Silent(Held):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return None

    result = await outcome_of(registry, Silent(), one)

    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'cpu': its submit() "
        "returned None (NoneType), and has to return a Future of each call."
    ) == result.error


async def test_a_future_is_of_one_call(registry: TaskRegistry) -> None:
    class Thrifty(Held):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return self.calls["a"][0] if self.calls else super().submit(fn, *args, **kwargs)

    held = Thrifty()
    for name in ("a", "b"):
        registry.task(name, executor="cpu")(one)
    async with running(TaskScheduler(registry, executors={"cpu": held})) as run:
        await in_time(lambda: status_of(run, "b") is TaskStatus.FAILED)
        held.finish("a")

    assert run.results["a"].ok
    assert "has to return a Future of each call." in (run.results["b"].error or "")


async def test_an_unknown_executor_is_refused_before_anything_runs(registry: TaskRegistry) -> None:
    ran: list[int] = []

    @registry.task
    async def first() -> None:
        ran.append(1)

    registry.task("load", executor="cpus")(one)
    scheduler = TaskScheduler(registry, executors={"cpu": spawned})

    with pytest.raises(UnknownExecutorError) as caught:
        await scheduler.run()

    assert [] == ran
    known = ("process", *(["interpreter"] if sys.version_info >= (3, 14) else []), "cpu", "thread")
    assert (known, ("cpu",)) == (caught.value.known, caught.value.nearest)


@each(
    ("executors", "message"),
    [
        (
            [spawned],
            (
                "Expected executors to be a mapping of names to executors, as in executors={'cpu': "
                "ProcessPoolExecutor(2)}, got [<function spawned at "
            ),
        ),
        ({"": spawned}, "Expected executors to be a mapping of names to executors"),
        (
            {"cpu": 2},
            (
                "Expected the executor 'cpu' to be an executor, as ProcessPoolExecutor(2) is, or a "
                "function that makes one, as in lambda: ProcessPoolExecutor(2), got 2 (int)."
            ),
        ),
        (
            {"thread": spawned},
            (
                "Expected executors to have names of their own, got 'thread', which is the threads "
                "of this process. Call yours something else."
            ),
        ),
    ],
)
async def test_executors_that_are_none_are_refused(executors: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        TaskScheduler([], executors=executors)

    assert str(caught.value).startswith(message)


async def test_a_name_that_is_none_is_refused(registry: TaskRegistry) -> None:
    with pytest.raises(TypeError) as caught:
        registry.task("load", executor=spawned)(one)  # type: ignore[call-overload]

    assert (
        "Task 'load': expected executor to be the name of one, as in executor='process', got "
        "<function spawned at "
    ) in str(caught.value)


async def test_a_task_that_yields_has_no_executor(registry: TaskRegistry) -> None:
    async def database() -> Any:
        yield 1

    with pytest.raises(TypeError) as caught:
        registry.task(executor="process")(database)

    assert (
        "Task 'database': expected a function that returns its result, got an async generator. "
        "What is open while others use it cannot be in the executor 'process': leave executor out."
    ) == str(caught.value)


async def test_settings_are_changed_with_the_executors_that_there_are(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task("there", executor="cpu")(pid)
    scheduler = TaskScheduler(registry, executors={"cpu": pool})

    assert (await scheduler.with_settings(max_concurrency=1).run()).ok
    with pytest.raises(UnknownExecutorError):
        await scheduler.with_settings(executors={}).run()


# Nothing of it remains


async def test_nothing_of_a_run_with_an_executor_is_in_a_cycle(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task("bad", executor="cpu")(fail)
    registry.task("locked", executor="cpu")(lock)
    registry.task("dies", executor="own")(die)
    registry.task("good", executor="cpu")(one)
    executors = {"cpu": pool, "own": spawned}

    async def run() -> None:
        results: RunResults = await TaskScheduler(registry, executors=executors).run()
        assert 3 == len(results.failed)

    await run()
    # Threads that other tests have left behind hold something of theirs.
    await in_time(
        lambda: not [one for one in threading.enumerate() if one.name.startswith("portable_sched")]
    )
    gc.collect()
    gc.disable()
    try:
        await run()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = [
            type(thing).__name__
            for thing in gc.garbage
            if isinstance(thing, BaseException)
            or type(thing).__module__.startswith("portable_sched")
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert [] == found


async def test_two_runs_at_once_have_executors_of_their_own(registry: TaskRegistry) -> None:
    registry.task("there", executor="cpu")(threading.get_ident)
    first, second = Held(), Held()
    with made(first, second) as make:
        scheduler = TaskScheduler(registry, executors={"cpu": make})
        async with running(scheduler):
            await in_time(lambda: first.calls)
            async with running(scheduler):
                await in_time(lambda: second.calls)
                second.finish("there")
            assert ([], [True]) == (first.shutdowns, second.shutdowns)
            first.finish("there")


def test_a_program_that_ends_its_event_loop_ends_its_processes(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = dedent(f"""
        import asyncio, pathlib, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from functools import partial
        from portable_sched import TaskRegistry, TaskScheduler
        from executor_runs import spawned, write_and_sleep

        registry = TaskRegistry()
        path = {str(path)!r}
        for name, executor in (("a", "cpu"), ("b", "process")):
            registry.task(name, executor=executor)(partial(write_and_sleep, path + name))

        async def main():
            scheduler = TaskScheduler(registry, executors={{"cpu": spawned}})
            running = asyncio.ensure_future(scheduler.run())
            written = [pathlib.Path(path + name) for name in "ab"]
            while not all(one.exists() and one.read_text() for one in written):
                await asyncio.sleep(0.01)

        if __name__ == "__main__":
            asyncio.run(main())
        """)
    (tmp_path / "program.py").write_text(program)

    ran = run_python(tmp_path, "program.py")

    assert 0 == ran.returncode, ran.stderr
    processes = [int(Path(f"{path}{name}").read_text()) for name in "ab"]
    limit = time.monotonic() + 60
    while any(map(is_alive, processes)):
        assert time.monotonic() < limit
        time.sleep(0.01)

"""Timeouts and cancellation of tasks that run in an executor."""

import logging
import pickle
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor as Threads
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from executor_runs import (
    Held,
    fail,
    in_time,
    is_alive,
    made,
    one,
    outcome_of,
    running,
    settle,
    spawned,
    status_of,
    write_and_sleep,
)

from portable_sched import (
    Backoff,
    Priority,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
)
from portable_sched._any_executor import forget_calls
from portable_sched._envelope import Call, Sent, carry_out
from portable_sched._opened import Opened
from portable_sched._pool import Pool
from portable_sched._remote_failures import RemoteFailure
from portable_sched._supply import Supply
from portable_sched._timeouts import restart, time_stopped, within

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def sleep(seconds: float = 3600) -> None:
    time.sleep(seconds)


class Shelf(Supply):
    """Takes executors from a shelf, without a thread, in which virtual time would jump."""

    def __init__(self, seconds: float, *executors: Executor) -> None:
        super().__init__("cpu", list, lambda workers, look_ahead: None)
        self._seconds = seconds
        self._shelf = list(executors)
        self._one_at_a_time = anyio.Lock()

    async def open(self, task: str) -> None:
        async with self._one_at_a_time:
            if self.opened is None:
                await anyio.sleep(self._seconds)
                self._use(Opened(self._shelf.pop(0)), 4)


@pytest.mark.virtual_time
async def test_time_does_not_run_while_an_executor_opens_or_suspects_wait(
    registry: TaskRegistry,
) -> None:
    first, second = Held(4), Held(4)
    pool = Pool("cpu", list, 4)
    pool.supply = Shelf(6, first, second)
    begun = anyio.current_time()
    ended: dict[str, float] = {}

    async def call(name: str) -> None:
        registry.task(name, executor="cpu", timeout=10)(one)
        there = Call(name, Sent(one))
        await within(10, name, "", pool.call, there, (), registry[name], keep=False)
        ended[name] = anyio.current_time() - begun

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(call, name)
        await in_time(lambda: len(first.calls) == 3)
        await anyio.sleep(9)
        first.break_down()
        await settle()
        group.start_soon(call, "later")
        for _ in range(3):
            await in_time(lambda: second.calls)
            assert 1 == len(second.calls)
            await anyio.sleep(9)
            second.finish(*list(second.calls))
            await settle()
        await anyio.sleep(9)
        second.finish("later")

    # Two openings and five times nine seconds, and what was slept meanwhile for want of an event.
    assert list(ended)[-1] == "later"
    assert ended["later"] == pytest.approx(2 * 6 + 5 * 9, abs=0.1)


@each("by", ["restart", "time_stopped"])
@pytest.mark.virtual_time
async def test_an_attempt_that_was_late_stays_late(by: str) -> None:
    """What it waited for has come in the very moment in which its time was over."""

    async def wait() -> None:
        try:
            await anyio.sleep(5)
        except anyio.get_cancelled_exc_class():
            if by == "restart":
                restart(5)
            else:
                with time_stopped(5):
                    pass
            raise

    with pytest.raises(TaskTimeoutError):
        await within(1, "load", "", wait)


async def test_the_time_of_what_is_late_is_not_begun_anew_though_the_event_loop_was_held_up(
    registry: TaskRegistry,
) -> None:
    began = threading.Event()

    @registry.task(executor="slow", timeout=0.4)
    def work() -> int:
        return 42

    @registry.task
    async def busy() -> None:
        await in_time(began.is_set)
        time.sleep(0.7)  # noqa: ASYNC251 - that is what it is for

    def make() -> Threads:
        began.set()
        time.sleep(0.3)
        return Threads(1)

    result = (await TaskScheduler(registry, executors={"slow": make}).run())["work"]

    # Whatever the event loop hears of first.
    assert result.result == 42 or isinstance(result.exception, TaskTimeoutError)


async def test_only_where_there_is_one_clock_a_call_says_when_it_is_not_to_begin_any_more(
    registry: TaskRegistry,
) -> None:
    seen: list[Call] = []

    class Elsewhere(Held):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            seen.append(args[0])
            future: Future[Any] = Future()
            future.set_result(fn(*args))
            return future

    registry.task("load", executor="cpu", timeout=60)(one)

    results = await TaskScheduler(registry, executors={"cpu": Elsewhere(dumps=pickle.dumps)}).run()

    assert results.ok
    assert [None] == [call.expires for call in seen]


async def test_opening_an_executor_is_part_of_an_attempt_that_has_a_timeout(
    registry: TaskRegistry,
) -> None:
    may_open = threading.Event()
    registry.task("load", executor="cpu", timeout=0.1)(one)
    registry.task("later", executor="cpu", after=["load"])(one)

    def make() -> Threads:
        may_open.wait(60)
        return Threads(1)

    async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
        await in_time(lambda: status_of(run, "load") is TaskStatus.FAILED)
        may_open.set()

    assert isinstance(run.results["load"].exception, TaskTimeoutError)
    assert run.results["later"].ok


async def test_a_call_whose_time_is_over_does_not_begin(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    """A pool takes more calls out of its queue than it has workers, and those run to their end."""
    may_go, written = tmp_path / "may go", tmp_path / "written"
    registry.task("a", executor="cpu")(partial(wait_for, may_go))
    registry.task("b", executor="cpu", timeout=0.5)(partial(written.write_text, "it has begun"))
    with spawned(1) as pool:
        async with running(
            TaskScheduler(registry, executors={"cpu": pool}, resources={"executor cpu": 2})
        ) as run:
            await in_time(lambda: status_of(run, "b") is TaskStatus.FAILED)
            may_go.touch()

    assert isinstance(run.results["b"].exception, TaskTimeoutError)
    assert run.results["a"].ok
    assert not written.exists()


def test_a_call_that_came_too_late_says_so() -> None:
    with pytest.raises(RemoteFailure) as caught:
        carry_out(Call("load", Sent(one), expires=time.monotonic()))

    assert "the time of the attempt was over" in str(caught.value.unpacked("load"))


async def test_a_call_that_waits_in_the_executor_is_taken_out(registry: TaskRegistry) -> None:
    held = Held()
    registry.task("load", executor="cpu", timeout=0.05)(one)

    results = await TaskScheduler(registry, executors={"cpu": held}).run()

    assert isinstance(results["load"].exception, TaskTimeoutError)
    assert held.calls["load"][0].cancelled()


async def test_a_call_that_runs_is_stopped_where_the_executor_can(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    stopped: list[Future[Any]] = []
    held = Held(stop=lambda future: not stopped.append(future), begins={"load"})
    registry.task("load", executor="cpu", timeout=0.1)(one)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await in_time(lambda: held.calls)

    assert [held.calls["load"][0]] == stopped
    assert [] == caplog.records


@each("can_stop", [None, lambda future: False])
async def test_a_call_that_cannot_be_stopped_goes_on_by_itself(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture, can_stop: Any
) -> None:
    held = Held(begins={"load"}) if can_stop is None else Held(stop=can_stop, begins={"load"})
    registry.task("load", executor="cpu", timeout=0.1)(one)
    async with running(TaskScheduler(registry, executors={"cpu": held})):
        await in_time(lambda: held.calls)

    [record] = caplog.records
    assert (logging.WARNING, "portable_sched") == (record.levelno, record.name)
    assert (
        "Task 'load' was cancelled, by its timeout or with its run, and is in the executor 'cpu', "
        "which cannot stop it. It goes on by itself."
    ) == record.getMessage()
    # What comes of it is of no account.
    held.finish("load")


async def test_an_executor_with_a_call_that_cannot_be_stopped_is_replaced(
    registry: TaskRegistry, process: BaseProcess, caplog: pytest.LogCaptureFixture
) -> None:
    registry.task("a", executor="cpu", timeout=1)(one)
    registry.task("b", executor="cpu")(one)
    registry.task("c", executor="cpu", after=["a"])(one)
    first, second = Held(_processes={1: process}, begins={"a", "b"}), Held()
    with made(first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: first.calls)
            await in_time(lambda: second.taken)
            second.finish("c")
            # Somebody still waits for what it has.
            assert process.is_alive()
            first.finish("b")
            await in_time(lambda: not process.is_alive())
            # It has files open.
            await in_time(lambda: first.shutdowns)

    assert ["b", "c"] == sorted(result.task_name for result in run.results.completed)
    assert (
        caplog.records[0]
        .getMessage()
        .endswith("The executor is replaced, and shut down when nobody waits for what it has.")
    )
    assert ([True], [True]) == (first.shutdowns, second.shutdowns)


async def test_an_executor_that_is_made_twice_goes_on(registry: TaskRegistry) -> None:
    """As where a function returns the one of the whole program."""
    registry.task("a", executor="cpu", timeout=1.5)(one)
    registry.task("b", executor="cpu")(one)
    registry.task("c", executor="cpu", after=["a"])(one)
    held = Held(_processes={1: "none that could be ended"}, begins={"a", "b"})
    async with running(TaskScheduler(registry, executors={"cpu": lambda: held})) as run:
        await in_time(lambda: held.calls)
        await in_time(lambda: "c" in held.calls)
        held.finish("b", "c")

    assert {"a"} == {result.task_name for result in run.results.failed}


async def test_an_executor_that_is_made_again_after_its_end_is_shut_down_first(
    registry: TaskRegistry, process: BaseProcess
) -> None:
    """It may not have noticed that its processes are gone, and blame who comes next."""
    registry.task("a", executor="cpu", timeout=1.5)(one)
    registry.task("b", executor="cpu", after=["a"])(one)
    first, second = Held(_processes={1: process}, begins={"a", "b"}), Held()
    with made(first, first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: first.calls)
            await in_time(lambda: second.calls)
            assert [True] == first.shutdowns
            second.finish("b")

    assert run.results["b"].ok


async def test_a_process_pool_with_a_call_for_an_hour_ends_with_the_run(
    registry: TaskRegistry,
) -> None:
    registry.task("hangs", executor="cpu", timeout=0.5)(sleep)
    registry.task("hangs too", executor="cpu", timeout=0.5)(sleep)
    registry.task("after", executor="cpu", after=["hangs", "hangs too"])(one)

    with anyio.fail_after(60):
        results = await TaskScheduler(registry, executors={"cpu": spawned}).run()

    assert ["after"] == [result.task_name for result in results.completed]


async def test_a_call_in_the_processes_is_ended_by_its_timeout(
    registry: TaskRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pid"
    registry.task("hangs", executor="process", timeout=1)(partial(write_and_sleep, str(path)))

    @registry.task(after=["hangs"])
    async def look() -> None:
        # On a slow machine its process may not have come so far as to write.
        text = path.read_text() if path.exists() else ""
        await in_time(lambda: not (text and is_alive(int(text))))

    with anyio.fail_after(60):
        results = await TaskScheduler(registry).run()

    assert ["look"] == [result.task_name for result in results.completed]
    assert [] == caplog.records


async def test_retries_and_backoff_hold_in_an_executor(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    result = await outcome_of(registry, pool, fail, retries=3, backoff=Backoff(initial=0.001))

    assert (3, 3) == (result.attempts, len(result.failures))


@each("make", [partial(spawned, 1), partial(Threads, 1)])
async def test_what_waits_behind_a_call_that_was_given_up_begins_elsewhere(
    registry: TaskRegistry, make: Any
) -> None:
    """And its time with it."""
    may_go = threading.Event()
    hang = partial(may_go.wait, 60) if make.func is Threads else partial(time.sleep, 60)
    registry.task("hangs", Priority.HIGH, executor="cpu", timeout=1)(hang)
    for number in range(3):
        registry.task(f"waits {number}", executor="cpu", timeout=60)(one)

    results = await TaskScheduler(
        registry, executors={"cpu": make}, resources={"executor cpu": 4}
    ).run()

    may_go.set()
    assert ["hangs"] == [result.task_name for result in results.failed]
    assert [1] * 3 == [result.attempts for result in results.completed]
    assert max(result.duration for result in results) < 50


async def test_a_pool_goes_on_while_somebody_waits_for_what_it_is_at(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    """Two workers, two calls that begin, of which one is given up, and one that waits."""
    may_go = tmp_path / "may go"
    registry.task("hangs", Priority.HIGH, executor="cpu", timeout=1)(partial(time.sleep, 60))
    registry.task("works", Priority.HIGH, executor="cpu")(partial(wait_for, may_go))
    registry.task("waits", executor="cpu")(one)
    async with running(
        TaskScheduler(registry, executors={"cpu": spawned}, resources={"executor cpu": 3})
    ) as run:
        await in_time(lambda: status_of(run, "hangs") is TaskStatus.FAILED)
        may_go.touch()

    assert [1, 1] == [result.attempts for result in run.results.completed]


async def test_what_is_passed_on_may_come_to_the_same_executor(registry: TaskRegistry) -> None:
    may_go = threading.Event()
    registry.task("hangs", Priority.HIGH, executor="cpu", timeout=0.5)(partial(may_go.wait, 60))
    for number in range(3):
        registry.task(f"waits {number}", executor="cpu")(one)
    with Threads(1) as threads:
        scheduler = TaskScheduler(
            registry, executors={"cpu": lambda: threads}, resources={"executor cpu": 4}
        )
        async with running(scheduler) as run:
            await in_time(lambda: status_of(run, "hangs") is TaskStatus.FAILED)
            await settle()
            may_go.set()

    assert ["hangs"] == [result.task_name for result in run.results.failed]


def given_up(**abilities: Any) -> tuple[Opened, Future[Any], Future[Any]]:
    """An executor with one worker that has a call which is to be given up, and one behind that."""
    opened = Opened(Held(1, **abilities))
    first, second = Future[Any](), Future[Any]()
    for future in (first, second):
        future.set_running_or_notify_cancel()
        opened.note(future, "load")
    return opened, first, second


async def test_a_pool_that_others_use_is_not_ended_with_what_was_given_up(
    process: BaseProcess,
) -> None:
    of_others = SimpleNamespace(future=Future())
    opened, first, _ = given_up(_processes={1: process}, _pending_work_items={1: of_others})
    opened.give_up(first)
    opened.let_go()

    assert opened.has_given_up()
    assert opened.is_shared()
    assert not opened.is_ended
    assert process.is_alive()


async def test_a_pool_is_not_ended_whose_call_has_ended_in_that_very_moment(
    process: BaseProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, first, _ = given_up(_processes={1: process})
    monkeypatch.setattr("portable_sched._opened.sleep", lambda _: first.set_result(1))
    opened.give_up(first)
    opened.let_go()

    assert not opened.has_given_up()
    assert process.is_alive()


async def test_a_pool_is_not_ended_of_which_there_is_news(process: BaseProcess) -> None:
    reader, writer = get_context("spawn").Pipe(duplex=False)
    queue = SimpleNamespace(_reader=reader, _writer=writer)
    opened, first, _ = given_up(_processes={1: process}, _result_queue=queue)
    writer.send(1)
    opened.give_up(first)
    assert process.is_alive()

    reader.close()
    opened.give_up(first)
    opened.let_go()

    assert opened.is_ended


def test_a_pool_that_ends_has_forgotten_its_calls() -> None:
    cancelled, waited_for = Future[Any](), Future[Any]()
    cancelled.cancel()
    items = {1: SimpleNamespace(future=cancelled), 2: SimpleNamespace(future=waited_for)}
    forget_calls(SimpleNamespace(_pending_work_items=items), cancelled=True)
    assert items[2].future is waited_for

    for _ in range(2):
        items[1].future.set_result(1)
        items[1].future.set_exception(ValueError("no"))
        assert not items[1].future.set_running_or_notify_cancel()
        forget_calls(SimpleNamespace(_pending_work_items=items), cancelled=False)

    assert not waited_for.done()


async def test_a_worker_that_does_not_start_is_timed_out(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._pool._START", 0.05)

    class Starting(Held):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: Any = super().submit(fn, *args, **kwargs)
            future.when_begun = lambda told: None
            threading.Timer(0.2, future.set_running_or_notify_cancel).start()
            return future

    result = await outcome_of(registry, Starting(), one, timeout=0.1)

    assert isinstance(result.exception, TaskTimeoutError)
    # The while in the queue, at most that for the start, and its own time.
    assert result.duration >= 0.1 + 0.05 + 0.1

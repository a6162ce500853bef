"""Tasks that run in an executor: what goes there and comes back, who waits, what may break."""

import asyncio
import ctypes
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor as Threads
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from contextvars import ContextVar
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token

from portable_sched import (
    Backoff,
    ExecutorError,
    FailurePolicy,
    NotPicklableError,
    Priority,
    RemoteTaskError,
    RunResults,
    TaskDef,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
    UnknownExecutorError,
    WorkerDiedError,
    carry,
)
from portable_sched._any_executor import end, end_processes, end_where_stuck, has_died
from portable_sched._envelope import Call, Sent, _Arrived, carry_out, packed, result_of
from portable_sched._errors import error_text
from portable_sched._opened import Opened
from portable_sched._pool import Pool
from portable_sched._processes import ProcessExecutor
from portable_sched._remote_failures import RemoteFailure, _Link
from portable_sched._standard_executors import _processors
from portable_sched._supply import Supply
from portable_sched._timeouts import restart, time_stopped, within

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")


@pytest.fixture
def registry() -> TaskRegistry:
    return TaskRegistry()


def spawned(workers: int = 2) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """For what leaves it whole."""
    with spawned() as executor:
        yield executor


@pytest.fixture
def process() -> Iterator[BaseProcess]:
    """One that goes on until it is ended."""
    process = get_context("spawn").Process(target=time.sleep, args=(3600,))
    process.start()
    yield process
    process.kill()
    process.join()


async def until(condition: Callable[[], object]) -> None:
    """Let others go on until it is so."""
    for _ in range(10_000):
        if condition():
            return
        await checkpoint()
    pytest.fail("it did not come to that")


def status_of(run: Any, name: str) -> TaskStatus:
    """Of a task of a run that may not have begun."""
    return dict(run.scheduler.status_snapshot())[name]


async def in_time(condition: Callable[[], object]) -> None:
    """Wait until it is so, where other threads or processes are to bring it about."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - it is no task of ours that brings it about
            await anyio.sleep(0.01)


async def settle() -> None:
    """Let all that may go on come to where it waits."""
    for _ in range(50):
        await checkpoint()


class Held(Executor):
    """Has calls until the test ends them."""

    def __init__(self, workers: int | None = 2, **abilities: Any) -> None:
        self.calls: dict[str, tuple[Future[Any], Callable[[], Any]]] = {}
        self.taken: list[str] = []
        self.shutdowns: list[bool] = []
        self.refusal: Exception | None = None
        self.begins: set[str] = set()
        self._broken: Any = False
        if workers is not None:
            self.workers = workers
        vars(self).update(abilities)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.refusal is not None:
            raise self.refusal
        future: Future[Any] = Future()
        name = args[0].task
        if name in self.begins:
            # It can be cancelled no more.
            future.set_running_or_notify_cancel()
        self.taken.append(name)
        self.calls[name] = future, partial(fn, *args, **kwargs)
        return future

    def finish(self, *names: str) -> None:
        for name in names:
            future, call = self.calls.pop(name)
            try:
                future.set_result(call())
            except RemoteFailure as failure:
                future.set_exception(failure)

    def break_down(self) -> None:
        self.refusal = BrokenExecutor("it is broken")
        for future, _ in self.calls.values():
            future.set_exception(BrokenExecutor("a process died"))
        self.calls.clear()

    def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
        self.shutdowns.append(wait)


async def finish_all(held: Held) -> None:
    """Let the calls end, and those that come after them."""
    while held.calls:
        held.finish(*list(held.calls))
        await settle()


@contextmanager
def made(*executors: Any) -> Iterator[Callable[[], Any]]:
    """A function that makes each of them in turn; all of them are to be asked for."""
    left = iter(executors)
    yield lambda: next(left)
    assert [] == list(left)


@asynccontextmanager
async def running(scheduler: TaskScheduler) -> Any:
    """A run that goes on meanwhile, and has to end by the end of the block."""
    found = SimpleNamespace(results=None, scheduler=scheduler)

    async def run() -> None:
        found.results = await scheduler.run()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield found


# What functions do elsewhere


def pid() -> int:
    return os.getpid()


def identity(given: Any) -> Any:
    return given


def one() -> int:
    return 1


def two() -> int:
    return 2


async def is_asyncio() -> bool:
    await checkpoint()
    return hasattr(current_token().native_token, "time")


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


def fail() -> NoReturn:
    raise ValueError("no such row")


def fail_because() -> NoReturn:
    try:
        fail()
    except ValueError as error:
        raise LookupError("nothing to load") from error


def fail_meanwhile() -> NoReturn:
    try:
        fail()
    except ValueError:
        raise LookupError("nothing to load")  # noqa: B904 - the context is what is wanted


def fail_plainly() -> NoReturn:
    try:
        fail()
    except ValueError:
        raise LookupError("nothing to load") from None


async def fail_in_event_loop() -> NoReturn:
    await checkpoint()
    raise ValueError("no such row")


class OddError(Exception):
    """It pickles, and cannot be made again from what it pickles to."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"row {row}")
        self.column = column


class LockedError(Exception):
    """It does not pickle."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle")


class DeceiverError(Exception):
    def __reduce__(self) -> Any:
        return int, (1,)


class FrozenError(Exception):
    """It takes no attributes."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(name)

    def __reduce__(self) -> Any:
        return FrozenError, self.args


def fail_with_frozen() -> NoReturn:
    raise FrozenError(7) from ValueError("why")


def fail_with(kind: Callable[..., BaseException], *args: Any) -> NoReturn:
    raise kind(*args)


def fail_in_a_circle() -> NoReturn:
    one, other = ValueError("one"), LookupError("other")
    one.__cause__, other.__cause__ = other, one
    raise one


def fail_in_a_group() -> NoReturn:
    raise ExceptionGroup("rows", [ValueError("first"), LookupError("second")])


def leave(code: Any = 3) -> NoReturn:
    sys.exit(code)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def lock() -> Any:
    return threading.Lock()


def function_in_function() -> Any:
    return lambda: 1


class LeavesError(Exception):
    """It ends the program wherever it is looked at."""

    def __reduce__(self) -> NoReturn:
        leave()

    def __str__(self) -> str:
        raise SystemExit


class Leaves:
    """It pickles, and ends the program when it is unpickled."""

    def __reduce__(self) -> Any:
        return leave, ()


class LeavesAtOnce:
    """It ends the program when it is pickled."""

    def __reduce__(self) -> NoReturn:
        leave()


def leaves(kind: type) -> Any:
    return kind()


class Unloadable:
    """It pickles, and raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return fail, ()


def unloadable() -> Unloadable:
    return Unloadable()


def die() -> NoReturn:
    os._exit(3)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    ctypes.string_at(0)


def sleep(seconds: float = 3600) -> None:
    time.sleep(seconds)


def wait_for_file(path: str) -> str:
    """A call whose end the test decides."""
    limit = time.monotonic() + 60
    while not Path(path).exists():
        assert time.monotonic() < limit
        time.sleep(0.01)
    return path


def write_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(3600)


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, one: int) -> int:
        return self.factor * one

    def multiplied(self, one: int) -> int:
        return self.factor * one

    async def later(self, one: int) -> int:
        return self.factor * one


VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="nothing")


def variable() -> str:
    return VARIABLE.get()


@contextmanager
def variable_set(value: str) -> Iterator[None]:
    token = VARIABLE.set(value)
    try:
        yield
    finally:
        VARIABLE.reset(token)


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


# What comes back when a function fails


async def outcome_of(
    registry: TaskRegistry, pool: Any, function: Callable[..., Any], **settings: Any
) -> Any:
    """What a task of that function ends with, in an executor."""
    registry.task("load", executor="cpu", **settings)(function)
    scheduler = TaskScheduler(registry, executors={"cpu": pool})
    with anyio.fail_after(60):
        results = await scheduler.run(inputs=dict.fromkeys(scheduler.graph.inputs, 1))
    return results["load"]


@each(
    ("function", "cause", "context"),
    [
        (fail_because, ValueError, type(None)),
        (fail_meanwhile, type(None), ValueError),
        (fail_plainly, type(None), type(None)),
    ],
)
async def test_an_exception_arrives_with_its_type_and_what_came_before(
    registry: TaskRegistry, pool: ProcessPoolExecutor, function: Any, cause: type, context: type
) -> None:
    error = (await outcome_of(registry, pool, function)).exception

    assert (LookupError, "nothing to load") == (type(error), str(error))
    assert (cause, context) == (type(error.__cause__), type(error.__context__))


@each("function", [fail, fail_in_event_loop])
async def test_an_exception_has_the_traceback_of_the_worker_in_its_notes(
    registry: TaskRegistry, pool: ProcessPoolExecutor, function: Any
) -> None:
    error = (await outcome_of(registry, pool, function)).exception

    [note] = error.__notes__
    first, second, *rest = note.splitlines()
    assert ("In the worker:", "Traceback (most recent call last):") == (first, second)
    assert f"in {function.__name__}" in note
    assert "ValueError: no such row" == rest[-1]
    # Nothing of ours is in it.
    if function is fail:
        assert "_envelope" not in note


@each(
    ("kind", "args", "text"),
    [
        (OddError, (1, 2), "test_executors.OddError: row 1"),
        (LockedError, (), "test_executors.LockedError: <unlocked _thread.lock object"),
        (SpeechlessError, (), "test_executors.SpeechlessError: <exception str() failed>"),
        (DeceiverError, (), "test_executors.DeceiverError"),
        (SystemExit, (3,), "SystemExit: 3"),
        (KeyboardInterrupt, (), "KeyboardInterrupt"),
        (GeneratorExit, (), "GeneratorExit"),
        (BaseExceptionGroup, ("both", [SystemExit(1)]), "BaseExceptionGroup: both"),
    ],
)
async def test_what_cannot_be_sent_or_would_end_a_program_arrives_as_a_text(
    registry: TaskRegistry, pool: ProcessPoolExecutor, kind: Any, args: Any, text: str
) -> None:
    result = await outcome_of(registry, pool, partial(fail_with, kind, *args))

    error = result.exception
    assert isinstance(error, RemoteTaskError)
    assert "load" == error.task
    assert f"{error.kind}: {error.text}".startswith(text) or text == error.kind
    assert "Traceback (most recent call last):" in error.traceback
    assert TaskStatus.FAILED is result.status


async def test_an_exception_that_takes_no_attributes_arrives_all_the_same(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    error = (await outcome_of(registry, pool, fail_with_frozen)).exception

    assert (FrozenError, (7,)) == (type(error), error.args)


async def test_a_circle_of_causes_ends(registry: TaskRegistry, pool: ProcessPoolExecutor) -> None:
    error = (await outcome_of(registry, pool, fail_in_a_circle)).exception

    assert (ValueError, LookupError) == (type(error), type(error.__cause__))
    assert error.__cause__.__cause__ is None


async def test_a_group_of_exceptions_arrives_as_one(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    error = (await outcome_of(registry, pool, fail_in_a_group)).exception

    assert isinstance(error, ExceptionGroup)
    assert [ValueError, LookupError] == [type(inner) for inner in error.exceptions]


@each("where", [Threads, spawned])
async def test_a_function_that_exits_fails_its_attempt_and_is_tried_again(
    registry: TaskRegistry, where: Any
) -> None:
    result = await outcome_of(registry, where, leave, retries=2)

    assert (TaskStatus.FAILED, 2) == (result.status, result.attempts)
    assert "RemoteTaskError: Task 'load' raised in a worker: SystemExit: 3" == result.error


async def test_an_exception_of_a_thread_is_the_very_same(registry: TaskRegistry) -> None:
    errors = [ValueError("no")]
    with Threads(1) as threads:
        result = await outcome_of(registry, threads, partial(fail_with, lambda: errors[0]))

    assert result.exception is errors[0]
    assert not hasattr(errors[0], "__notes__")


def test_a_failure_tells_in_logs_what_it_brings() -> None:
    with pytest.raises(RemoteFailure) as caught:
        carry_out(Call("load", Sent(fail)))
    there = caught.value

    here = pickle.loads(pickle.dumps(there))

    expected = "<RemoteFailure of ValueError: no such row>"
    assert [expected, expected] == [repr(there), repr(here)]
    # It may be sent on.
    assert "no such row" == str(pickle.loads(pickle.dumps(here)).unpacked("load"))


def not_there() -> NoReturn:
    raise ModuleNotFoundError("no module of that name")


@each("load", [lambda: fail, not_there])
def test_a_failure_brings_nothing_along_by_which_it_could_not_be_pickled(load: Any) -> None:
    """tblib, which comes with Dask, has every exception pickled with its cause and context."""
    function: Any = SimpleNamespace(load=load)

    with pytest.raises(RemoteFailure) as caught:
        carry_out(Call("load", function))

    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


def test_a_function_may_be_sent_on_by_a_worker() -> None:
    there = pickle.loads(pickle.dumps(Sent(one)))

    assert 1 == pickle.loads(pickle.dumps(there)).load()()


@each("pickled", [pickle.dumps(7), b"no pickle at all"])
def test_what_is_no_exception_here_is_told_as_a_text(pickled: bytes) -> None:
    link = _Link(pickled, "app.Odd", "row 1", "Traceback ...", is_cause=False)

    assert "Task 'load' raised in a worker: app.Odd: row 1" == str(link.loaded("load"))


def test_an_event_loop_needs_no_sniffio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sniffio", raising=False)

    assert result_of(is_asyncio(), "asyncio")


# What cannot be pickled


async def test_a_result_that_cannot_be_pickled_is_named(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    error = (await outcome_of(registry, pool, lock)).exception

    assert isinstance(error, NotPicklableError)
    assert (
        "Task 'load' runs in the executor 'cpu', and the result cannot get there or back by "
        "pickling: TypeError: cannot pickle '_thread.lock' object. Return plain data, and close "
        "files and connections in the function."
    ) == str(error)


@each("by_name", [False, True])
async def test_an_argument_that_cannot_be_pickled_is_named(
    registry: TaskRegistry, pool: ProcessPoolExecutor, *, by_name: bool
) -> None:
    @registry.task
    async def given() -> Any:
        return threading.Lock()

    registry.task("load", executor="cpu")(identity)
    scheduler = TaskScheduler(registry, executors={"cpu": pool}, keep_results=by_name)

    results = await scheduler.run()

    error = results["load"].exception
    assert isinstance(error, NotPicklableError)
    assert "the parameter 'given'" == error.part
    assert "TypeError: cannot pickle '_thread.lock' object" == error.reason
    assert error.remark.startswith("Pass plain data")
    assert isinstance(error.__cause__, TypeError)


async def test_a_lambda_is_sent_by_value(registry: TaskRegistry, pool: ProcessPoolExecutor) -> None:
    factor = 3
    result = await outcome_of(registry, pool, lambda: factor * 2)

    assert 6 == result.result


async def test_a_function_that_cannot_be_pickled_is_named(
    registry: TaskRegistry, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    error = (await outcome_of(registry, pool, lambda: 1)).exception

    assert isinstance(error, NotPicklableError)
    assert "the function" == error.part
    assert error.remark == (
        "Define it by `def` at the top level of a module, or have it sent by value: "
        "pip install 'portable_sched[cloudpickle]'."
    )


async def test_a_function_that_pickles_in_no_way_is_named(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    held = threading.Lock()

    error = (await outcome_of(registry, pool, lambda: held)).exception

    assert ("the function", "TypeError") == (error.part, error.reason.partition(":")[0])


async def test_a_function_that_the_worker_cannot_load_is_named_and_the_worker_lives(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    def function() -> None: ...

    function.__reduce_ex__ = None  # type: ignore[assignment,method-assign]
    error = (await outcome_of(registry, pool, partial(identity, Unloadable()))).exception

    assert isinstance(error, NotPicklableError)
    assert ("the function", "ValueError: no such row") == (error.part, error.reason)
    assert 1 == pool.submit(one).result()


async def error_of_one_whose_worker_lives(
    registry: TaskRegistry, make: Any, function: Callable[..., Any], **inputs: Any
) -> NotPicklableError:
    """What cannot be pickled of a task, between two others that have the same worker."""
    registry.task("before", executor="cpu")(pid)
    registry.task("after", executor="cpu", after=["load"])(pid)
    registry.task("load", executor="cpu", depends_on=["before"])(function)
    with make(1) as pool:
        results = await TaskScheduler(registry, executors={"cpu": pool}).run(inputs=inputs)

    assert results["before"].result == results["after"].result
    error = results["load"].exception
    assert isinstance(error, NotPicklableError)
    return error


@each("make", [spawned, ProcessExecutor])
async def test_an_argument_that_the_worker_cannot_load_is_named_and_the_worker_lives(
    registry: TaskRegistry, make: Any
) -> None:
    error = await error_of_one_whose_worker_lives(registry, make, identity, given=Unloadable())

    assert ("the parameter 'given'", "ValueError: no such row") == (error.part, error.reason)
    assert error.__cause__ is not None
    assert "Traceback" in error.__cause__.__notes__[0]


@each("make", [spawned, ProcessExecutor])
async def test_a_result_that_cannot_be_loaded_is_named_and_the_worker_lives(
    registry: TaskRegistry, make: Any
) -> None:
    error = await error_of_one_whose_worker_lives(registry, make, unloadable)

    assert ("the result", "ValueError: no such row") == (error.part, error.reason)


@each(
    ("packs", "kind", "reason"),
    [
        (True, threading.Lock, "TypeError: cannot pickle '_thread.lock' object"),
        (False, threading.Lock, "TypeError: cannot pickle '_thread.lock' object"),
        (True, Unloadable, "ValueError: no such row"),
    ],
)
async def test_what_a_hook_carries_is_named_where_it_does_not_get_there(
    registry: TaskRegistry, pool: ProcessPoolExecutor, *, packs: bool, kind: Any, reason: str
) -> None:
    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> Any:
        carry(variable_set, kind())
        yield

    executor = pool if packs else Reluctant(pool)
    registry.task("load", executor="cpu")(one)

    results = await TaskScheduler(registry, executors={"cpu": executor}, attempt_hooks=[hook]).run()

    error = results["load"].exception
    assert isinstance(error, NotPicklableError)
    assert ("what carry() sends", reason) == (error.part, error.reason)


class Reluctant(Executor):
    """It does not say how it pickles."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._pool.submit(fn, *args, **kwargs)


def fail_without_a_traceback() -> NoReturn:
    error = ValueError("no such row")
    error.__notes__ = Noteworthy()  # type: ignore[assignment]
    raise error


class Noteworthy(list[str]):
    """Notes that nobody can read."""

    def __iter__(self) -> NoReturn:
        raise SystemExit

    def __reduce__(self) -> Any:
        return list, ()


async def test_an_exception_of_which_there_is_no_traceback_arrives(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    error = (await outcome_of(registry, pool, fail_without_a_traceback)).exception

    assert (ValueError, "no such row") == (type(error), str(error))
    assert ["In the worker:\nValueError: no such row"] == error.__notes__


async def test_what_ends_the_program_on_its_way_ends_its_attempt(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task("takes", executor="cpu")(identity)
    registry.task("raised", executor="cpu")(partial(fail_with, LeavesError))
    for kind in (Leaves, LeavesAtOnce):
        registry.task(kind.__name__, executor="cpu")(partial(leaves, kind))
    scheduler = TaskScheduler(registry, executors={"cpu": pool})

    for given in (Leaves(), LeavesAtOnce()):
        results = await scheduler.run(inputs={"given": given})

        errors = {result.task_name: result.exception for result in results}
        assert "the parameter 'given'" == errors.pop("takes").part
        raised = errors.pop("raised")
        assert isinstance(raised, RemoteTaskError)
        assert "<exception str() failed>" in str(raised)
        assert ["the result"] * 2 == [error.part for error in errors.values()]


VALUES = [None, True, 3, 2.5, 1j, "text \udc80", b"bytes", [1, {2: (3,)}], {"a": {4}}]


@each("value", VALUES, ids=repr)
async def test_values_arrive_as_they_were(
    registry: TaskRegistry, pool: ProcessPoolExecutor, value: Any
) -> None:
    registry.task("load", executor="cpu")(identity)

    results = await TaskScheduler(registry, executors={"cpu": pool}).run(inputs={"given": value})

    assert (value, type(value)) == (results["load"].result, type(results["load"].result))


SCRIPT = """
import anyio, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from portable_sched import TaskScheduler, task

class Row(list):
    pass

@task(executor="cpu")
def rows():
    return Row([1, 2])

@task(executor="cpu")
async def count(rows):
    assert isinstance(rows, Row)
    return len(rows)

@task(executor="process")
def double(count):
    return 2 * count

if __name__ == "__main__":
    executors = {"cpu": lambda: ProcessPoolExecutor(1, mp_context=get_context("spawn"))}
    results = anyio.run(TaskScheduler(executors=executors).run, backend=sys.argv[1])
    results.raise_for_failures()
    print(type(results[rows].result) is Row, results[double].result)
"""


@each("backend", ["asyncio", "trio"])
@each("way", ["script.py", "-m", "-c"])
def test_functions_of_a_program_are_found_however_it_was_started(
    tmp_path: Path, way: str, backend: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    source = SCRIPT
    if way == "-c":
        # Its classes go by value, and then they are others in each process.
        source = source.replace("return Row([1, 2])", "return [1, 2]")
        source = source.replace("assert isinstance(rows, Row)", "pass")
        source = source.replace("type(results[rows].result) is Row", "True")
    arguments = {"script.py": ["script.py"], "-m": ["-m", "script"], "-c": ["-c", source]}[way]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}

    ran = subprocess.run(
        [sys.executable, *arguments, backend],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (0, "True 4\n", "") == (ran.returncode, ran.stdout, ran.stderr)


GUARDED = """
import anyio, sys
from portable_sched import TaskScheduler, task

if __name__ == "__main__":
    factor = 3

    @task(executor="process", retries=2)
    def there():
        return factor * 2

    @task(executor="process", depends_on=["there"])
    async def again():
        return factor

    results = anyio.run(TaskScheduler().run, backend=sys.argv[1])
    print(*[(result.result, result.attempts, result.error) for result in results], sep="\\n")
"""


def test_what_was_not_sent_does_not_go_another_way() -> None:
    assert not Sent(one).fall_back()


def test_a_function_that_is_not_at_home_either_is_taken_from_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "program.py", raising=False)
    reference = b"c__main__\nnowhere\n."
    assert 1 == _Arrived(reference, pickle.dumps(one), "program.py").load()()
    with pytest.raises(AttributeError, match="nowhere"):
        _Arrived(reference, None, "program.py").load()


@each("backend", ["asyncio", "trio"])
@each("by_value", [True, False])
def test_functions_under_the_guard_of_the_program_go_by_value(
    tmp_path: Path, backend: str, *, by_value: bool
) -> None:
    (tmp_path / "script.py").write_text(GUARDED)
    if not by_value:
        (tmp_path / "cloudpickle.py").write_text("raise ImportError('it is not installed')")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}

    ran = subprocess.run(
        [sys.executable, "script.py", backend],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (0, "") == (ran.returncode, ran.stderr)
    if by_value:
        assert "(6, 1, None)\n(3, 1, None)\n" == ran.stdout
    else:
        assert "(None, 2, \"NotPicklableError: Task 'there' runs in the executor" in ran.stdout
        assert "and the function cannot get there or back by pickling: AttributeError" in ran.stdout


# Workers that die


ENDS = [die, pytest.param(kill_own_process, marks=needs_posix), pytest.param(crash, id="crash")]


@each("where", [spawned, "process"])
@each("function", ENDS)
async def test_a_worker_that_dies_fails_its_attempt_alone(
    registry: TaskRegistry, function: Any, where: Any
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
    assert (2, f"A worker of the executor {name!r} died while running: culprit.") == (
        culprit.attempts,
        str(culprit.exception),
    )
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


async def test_others_wait_until_there_are_no_suspects_any_more(registry: TaskRegistry) -> None:
    for name in ("a", "b"):
        registry.task(name, executor="cpu")(one)

    @registry.task
    async def opened() -> None:
        await may_go.wait()

    registry.task("later", depends_on=["opened"], executor="cpu")(one)
    may_go = anyio.Event()
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
    for name in ("a", "b"):
        registry.task(name, executor="cpu")(one)

    @registry.task
    async def opened() -> None:
        await may_go.wait()

    registry.task("between", depends_on=["opened"], executor="cpu")(one)
    may_go = anyio.Event()
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

    supply = Supply("cpu", make, lambda workers: is_told.set())
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


class Shelf(Supply):
    """Takes executors from a shelf, without a thread, in which virtual time would jump."""

    def __init__(self, seconds: float, *executors: Executor) -> None:
        super().__init__("cpu", list, lambda workers: None)
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


async def test_what_working_out_the_result_of_another_again_fails_with_is_told_so(
    registry: TaskRegistry,
) -> None:
    """A cluster may have lost it, and call that one's function once more."""
    registry.task("use", executor="far")(one)
    held = Held()
    async with running(TaskScheduler(registry, executors={"far": held})) as run:
        await in_time(lambda: held.calls)
        future, _ = held.calls.pop("use")
        future.set_exception(RemoteFailure(ValueError("no such row"), part=7, task="load"))

    assert (
        "ExecutorError: Task 'use' could not run, because of the executor 'far': fetching the "
        "result of 'load' failed: ValueError: no such row"
    ) == run.results["use"].error


async def test_a_large_result_is_loaded_in_a_thread(
    registry: TaskRegistry, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._pool._LARGE", 10)
    registry.task("load", executor="cpu")(homebound)

    results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert threading.get_ident() != results["load"].result.loaded_in


class Homebound:
    """It knows where it was loaded."""

    def __init__(self) -> None:
        self.loaded_in = 0

    def __setstate__(self, state: object) -> None:
        self.loaded_in = threading.get_ident()


def homebound() -> Homebound:
    return Homebound()


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


@each("once", [True, False])
def test_what_is_packed_is_let_go_where_it_is_asked_for_once(*, once: bool) -> None:
    packed_list = pickle.loads(pickle.dumps(packed([1], pickle.dumps, once=once)))

    assert [1] == packed_list.load()
    if once:
        assert b"" == packed_list._pickled
    else:
        assert [1] == packed_list.load()


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


async def test_what_submit_returns_has_to_be_a_future(registry: TaskRegistry) -> None:
    class Silent(Held):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return None

    result = await outcome_of(registry, Silent(), one)

    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'cpu': its submit() "
        "returned None (NoneType), and has to return a Future."
    ) == result.error


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


# Opening and closing


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


async def test_what_makes_something_else_is_refused(registry: TaskRegistry) -> None:
    result = await outcome_of(registry, lambda: 7, one)

    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'cpu': opening it "
        "failed: TypeError: expected a function that makes an executor, got 7 (int)"
    ) == result.error


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


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended, and that nobody has asked about yet, is still in the table.
    status = Path(f"/proc/{process}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


# Time


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
    first, second = Held(_processes={1: process}, begins={"a"}), Held()
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
        .endswith("It is replaced, and ended as soon as nobody waits for what it has.")
    )
    assert ([True], [True]) == (first.shutdowns, second.shutdowns)


async def test_an_executor_that_is_made_twice_goes_on(registry: TaskRegistry) -> None:
    """As where a function returns the one of the whole program."""
    registry.task("a", executor="cpu", timeout=1.5)(one)
    registry.task("b", executor="cpu")(one)
    registry.task("c", executor="cpu", after=["a"])(one)
    held = Held(_processes={1: "none that could be ended"}, begins={"a"})
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
    first, second = Held(_processes={1: process}, begins={"a"}), Held()
    with made(first, first, second) as make:
        async with running(TaskScheduler(registry, executors={"cpu": make})) as run:
            await in_time(lambda: first.calls)
            await in_time(lambda: second.calls)
            assert [True] == first.shutdowns
            second.finish("b")

    assert run.results["b"].ok


def test_a_process_that_was_closed_needs_no_end() -> None:
    process = get_context("spawn").Process(target=one)
    process.start()
    process.join()
    process.close()

    assert not has_died(process)
    assert end_processes(SimpleNamespace(_processes={1: process}))


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

        @task(executor="process")
        def load():
            return 1

        print(asyncio.run(TaskScheduler().run())[0].error)
        """)
    )
    ran = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (0, "") == (ran.returncode, ran.stderr)
    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'process': opening it "
        "failed: RuntimeError: this is a worker that has begun to read the program, which runs the "
        "tasks as soon as it is read. Put what runs them under "
        '`if __name__ == "__main__":`.\nNone\n'
    ) == ran.stdout


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


async def test_a_call_that_the_executor_gives_up_fails_the_attempt(registry: TaskRegistry) -> None:
    registry.task("load", executor="cpu")(one)
    held = Held()
    async with running(TaskScheduler(registry, executors={"cpu": held})) as run:
        await until(lambda: held.calls)
        held.calls["load"][0].cancel()

    assert (
        "ExecutorError: Task 'load' could not run, because of the executor 'cpu': it was shut "
        "down, and gave up the call."
    ) == run.results["load"].error


async def test_an_executor_that_was_shut_down_fails_the_attempt(registry: TaskRegistry) -> None:
    threads = Threads(1)
    threads.shutdown()

    result = await outcome_of(registry, threads, one)

    assert isinstance(result.exception, ExecutorError)
    assert "cannot schedule new futures after shutdown" in result.error


async def test_what_an_unknown_executor_raises_is_told_as_it_is(registry: TaskRegistry) -> None:
    registry.task("load", executor="cpu")(one)
    held = Held()
    async with running(TaskScheduler(registry, executors={"cpu": held})) as run:
        await until(lambda: held.calls)
        held.calls["load"][0].set_exception(ConnectionError("the cluster is gone"))

    assert "ConnectionError: the cluster is gone" == run.results["load"].error


async def test_an_argument_that_an_executor_refuses_at_once_is_named(
    registry: TaskRegistry,
) -> None:
    registry.task("load", executor="cpu")(identity)
    held = Held()
    held.refusal = TypeError("no")
    scheduler = TaskScheduler(registry, executors={"cpu": held})

    results = await scheduler.run(inputs={"given": (item for item in ())})

    assert "the parameter 'given'" == results["load"].exception.part


async def test_an_argument_is_named_without_cloudpickle_too(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    registry.task("load", executor="cpu")(identity)
    held = Held()
    held.refusal = TypeError("no")
    scheduler = TaskScheduler(registry, executors={"cpu": held})

    results = await scheduler.run(inputs={"given": (item for item in ())})

    error = results["load"].exception
    assert ("the parameter 'given'", "TypeError: cannot pickle 'generator' object") == (
        error.part,
        error.reason,
    )


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
    monkeypatch.setattr("portable_sched._pool._SHORT", 0.0)
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
    monkeypatch.setattr("portable_sched._pool._SHORT", 60.0)


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
        monkeypatch.setattr("portable_sched._pool._SHORT", 0.0)
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
    told: list[int | None] = []
    supply = Supply("cpu", list, told.append)
    old, new = Opened(Held()), Opened(Held())
    supply._use(old, 2)
    supply.replace(old)
    supply._use(new, 3)
    supply._note_workers(old, 7)
    supply._note_workers(new, 4)
    await settle()

    assert [2, 3, 4] == told


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


# Results that stay where they are


class Handle:
    def __init__(self, value: Any) -> None:
        self.value = value


class Keeping(Held):
    """It keeps what it is asked to keep."""

    def __init__(self) -> None:
        super().__init__(4)
        self.fetched: list[Any] = []
        self.kept: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        values = [one.value if isinstance(one, Handle) else one for one in args]
        future: Future[Any] = Future()
        future.set_result(fn(*values, **kwargs))
        return future

    def keep(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        self.kept.append(args[0].task)
        future: Future[Any] = Future()
        future.set_result(Handle(self.submit(fn, *args).result()))
        return future

    def fetch(self, handle: Any) -> Any:
        self.fetched.append(handle.value)
        return handle.value


def twice(one: int) -> int:
    return 2 * one


@each("keep_results", [True, False])
async def test_a_result_stays_where_another_task_takes_it(
    registry: TaskRegistry, *, keep_results: bool
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task
    async def here(one: int, twice: int, factor: int = 10) -> int:
        return factor * (one + twice)

    @registry.task(executor="thread")
    def thread(one: int, /) -> int:
        return one

    executor = Keeping()
    scheduler = TaskScheduler(registry, executors={"far": executor}, keep_results=keep_results)

    results = await scheduler.run()

    assert ["one"] == executor.kept
    assert [1, 1] == executor.fetched
    assert (30, 1) == (results[here].result, results[thread].result)
    if keep_results:
        assert isinstance(results["one"].result, Handle)
        assert 2 == results["twice"].result


async def test_a_result_that_is_taken_as_a_whole_does_not_stay(registry: TaskRegistry) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task(after=["one"])
    async def here(one: TaskResult) -> Any:
        return one.result

    executor = Keeping()

    results = await TaskScheduler(registry, executors={"far": executor}).run()

    assert [] == executor.kept
    assert (1, 2) == (results[here].result, results["twice"].result)


async def test_what_stayed_in_an_executor_that_is_replaced_is_fetched(
    registry: TaskRegistry,
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)
    registry.task(executor="far", depends_on=["twice"])(two)

    @registry.task(after=["two"])
    async def here(one: int) -> int:
        return one

    class Brittle(Keeping):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            if args[0].task == "two":
                future = Future()
                future.set_exception(BrokenExecutor("it is gone"))
            return future

    executor = Brittle()

    results = await TaskScheduler(registry, executors={"far": lambda: executor}).run()

    assert isinstance(results["two"].exception, WorkerDiedError)
    assert 1 == results[here].result


@each(
    ("error", "text"),
    [
        (OSError("no route"), "OSError: no route"),
        (RemoteFailure(ValueError("no such row")), "ValueError: no such row"),
    ],
)
async def test_a_result_that_cannot_be_fetched_fails_who_takes_it(
    registry: TaskRegistry, error: Exception, text: str
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task
    async def here(one: int) -> int:
        return one

    executor = Keeping()

    def fetch(handle: Any) -> NoReturn:
        raise error

    executor.fetch = fetch  # type: ignore[method-assign]

    results = await TaskScheduler(registry, executors={"far": executor}).run()

    failure = results[here].exception
    assert isinstance(failure, ExecutorError)
    assert (
        "Task 'here' could not run, because of the executor 'far': fetching the result of 'one' "
        f"failed: {text}"
    ) == str(failure)
    assert text == error_text(failure.__cause__)


async def test_fetching_a_result_is_part_of_an_attempt_that_has_a_timeout(
    registry: TaskRegistry,
) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)
    may_end = threading.Event()

    @registry.task(timeout=0.1)
    async def here(one: int) -> int:
        return one

    executor = Keeping()
    executor.fetch = lambda handle: may_end.wait(60)  # type: ignore[method-assign]

    with anyio.fail_after(30):
        results = await TaskScheduler(registry, executors={"far": executor}).run()

    may_end.set()
    assert isinstance(results[here].exception, TaskTimeoutError)


async def test_a_lifetime_gets_the_value_of_a_result_that_stays(registry: TaskRegistry) -> None:
    registry.task(executor="far")(one)
    registry.task(executor="far")(twice)

    @registry.task
    async def here(one: int) -> Any:
        yield one

    @registry.task
    async def user(here: int) -> int:
        return here

    results = await TaskScheduler(registry, executors={"far": Keeping()}).run()

    assert 1 == results[user].result


async def test_an_executor_that_keeps_nothing_is_not_asked_to(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    registry.task(executor="cpu")(one)
    registry.task(executor="cpu")(twice)

    @registry.task
    async def here(one: int) -> int:
        return one

    results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert [1, 2, 1] == [results[name].result for name in ("one", "twice", "here")]


# What is refused


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
        from test_executors import spawned, write_and_sleep

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

    ran = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    processes = [int(Path(f"{path}{name}").read_text()) for name in "ab"]
    limit = time.monotonic() + 60
    while any(map(is_alive, processes)):
        assert time.monotonic() < limit
        time.sleep(0.01)

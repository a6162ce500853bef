"""Calls that go to an executor: what comes back, and what cannot go or come."""

import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor as Threads
from contextlib import asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, NoReturn

import pytest
from anyio.lowlevel import checkpoint
from executor_runs import (
    Held,
    fail,
    is_asyncio,
    leave,
    lock,
    one,
    outcome_of,
    pid,
    run_python,
    running,
    spawned,
    until,
    variable_set,
)

from portable_sched import (
    ExecutorError,
    NoRetry,
    NotPicklableError,
    RemoteTaskError,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
    carry,
)
from portable_sched._envelope import Call, Sent, _Arrived, carry_out, result_of
from portable_sched._pickling import dumped_somehow, packed
from portable_sched._processes import ProcessExecutor
from portable_sched._remote_failures import RemoteFailure, _Link

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize


def identity(given: Any) -> Any:
    return given


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
    """It cannot be made again from what it passes on."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"row {row}")
        self.column = column


class OddOSError(OSError):
    """The same, of one that is made in a way of its own."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(5, f"row {row}")
        self.column = column


class RestlessError(Exception):
    """Its text is never the same."""

    def __str__(self) -> str:
        return f"{id(self)}"


class PlainOddError(Exception):
    """The same, with nothing but what it passes on."""

    __slots__ = ()

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"row {row}")


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


def fail_in_a_mixed_group() -> NoReturn:
    errors: list[Exception] = [NoRetry("closed"), LockedError()]
    try:
        fail_because()
    except LookupError as error:
        errors.append(error)
    group = ExceptionGroup("rows", errors)
    group.add_note("as noted")
    # The same as that of one in it.
    raise group from errors[-1].__cause__


INSIDE: list[Callable[[], str]] = []


def wrapped(function: Callable[[], str]) -> Callable[[], str]:
    INSIDE.append(function)

    @wraps(function)
    def wrapper() -> str:
        return f"not {function()}"

    return wrapper


@wrapped
@wrapped
def inside() -> str:
    return "inside"


def endless() -> str:
    return "endless"


endless.__wrapped__ = endless  # type: ignore[attr-defined]


def leaves(kind: type) -> Any:
    return kind()


class Unloadable:
    """It pickles, and raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return fail, ()


def unloadable() -> Unloadable:
    return Unloadable()


class Homebound:
    """It knows where it was loaded."""

    def __init__(self) -> None:
        self.loaded_in = 0

    def __setstate__(self, state: object) -> None:
        self.loaded_in = threading.get_ident()


def homebound() -> Homebound:
    return Homebound()


# What comes back when a function fails


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


@each("kind", [OddError, OddOSError, PlainOddError])
async def test_an_exception_arrives_that_its_own_init_could_not_make_again(
    registry: TaskRegistry, pool: ProcessPoolExecutor, kind: Any
) -> None:
    raised = kind(1, 2)

    result = await outcome_of(
        registry, pool, partial(fail_with, kind, 1, 2), retries=2, retry_on=kind
    )

    error = result.exception
    assert type(raised) is type(error)
    assert (str(raised), raised.args) == (str(error), error.args)
    assert vars(raised).items() <= vars(error).items()
    assert 2 == result.attempts


@each(
    ("kind", "args", "text"),
    [
        (LockedError, (), "test_remote_calls.LockedError: <unlocked _thread.lock object"),
        (SpeechlessError, (), "test_remote_calls.SpeechlessError: <exception str() failed>"),
        (DeceiverError, (), "test_remote_calls.DeceiverError"),
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


async def test_an_exception_arrives_whose_text_is_another_each_time(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    result = await outcome_of(registry, pool, partial(fail_with, RestlessError, 7))

    assert RestlessError is type(result.exception)
    assert (7,) == result.exception.args


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


async def test_members_of_a_group_arrive_one_by_one(
    registry: TaskRegistry, pool: ProcessPoolExecutor
) -> None:
    result = await outcome_of(registry, pool, fail_in_a_mixed_group, retries=3)

    group = result.exception
    last, locked, because = group.exceptions
    assert ("rows", "closed", "nothing to load") == (group.message, str(last), str(because))
    assert [NoRetry, RemoteTaskError, LookupError] == [type(error) for error in group.exceptions]
    assert [ValueError] * 2 == [type(error.__cause__) for error in (group, because)]
    assert "as noted" == group.__notes__[0]
    assert "fail_in_a_mixed_group" in locked.traceback or "LockedError" in locked.traceback
    # One of them says so.
    assert 1 == result.attempts


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


async def test_a_function_is_found_behind_the_wrapper_that_has_its_name(
    registry: TaskRegistry, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    assert "inside" == (await outcome_of(registry, pool, INSIDE[0])).result


async def test_what_wraps_itself_is_not_looked_behind_for_ever(
    registry: TaskRegistry, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    error = (await outcome_of(registry, pool, FunctionType(endless.__code__, globals()))).exception

    assert ("the function", NotPicklableError) == (error.part, type(error))


def test_what_is_of_the_program_itself_goes_by_value_to_workers_with_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Row:
        __module__ = "__main__"
        __qualname__ = "Row"

    monkeypatch.setattr(sys.modules["__main__"], "Row", Row, raising=False)
    assert b"cloudpickle" in dumped_somehow(Row())

    with monkeypatch.context() as patch:
        patch.setattr("cloudpickle.dumps", lambda _: fail())
        assert isinstance(pickle.loads(dumped_somehow(Row())), Row)
        with pytest.raises(ValueError, match="no such row"):
            dumped_somehow(lambda: 1)

    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    assert isinstance(pickle.loads(dumped_somehow(Row())), Row)


async def test_a_function_that_cannot_be_pickled_is_named(
    registry: TaskRegistry, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    error = (await outcome_of(registry, pool, lambda: 1)).exception

    assert isinstance(error, NotPicklableError)
    assert "the function" == error.part
    assert error.remark == (
        "Define it by `def` at the top level of a module. Or have it sent by value: "
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

    ran = run_python(tmp_path, *arguments, backend)

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

    class Busy(Exception):
        pass

    @task(executor="process", retries=2, retry_on=Busy, after=["again"])
    def busy():
        raise Busy("later")

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

    ran = run_python(tmp_path, "script.py", backend)

    assert (0, "") == (ran.returncode, ran.stderr)
    if by_value:
        assert "(6, 1, None)\n(3, 1, None)\n(None, 2, 'Busy: later')\n" == ran.stdout
    else:
        assert ran.stdout.startswith("(None, 2, 'NotPicklableError: Task \\'there\\' runs in the ")
        assert "and the function cannot get there or back by pickling: AttributeError" in ran.stdout
        assert "Define it above `if __name__ == " in ran.stdout


async def test_a_large_result_is_loaded_in_a_thread(
    registry: TaskRegistry, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._pool._LARGE", 10)
    registry.task("load", executor="cpu")(homebound)

    results = await TaskScheduler(registry, executors={"cpu": pool}).run()

    assert threading.get_ident() != results["load"].result.loaded_in


@each("once", [True, False])
def test_what_is_packed_is_let_go_where_it_is_asked_for_once(*, once: bool) -> None:
    packed_list = pickle.loads(pickle.dumps(packed([1], pickle.dumps, once=once)))

    assert [1] == packed_list.load()
    if once:
        assert b"" == packed_list._pickled
    else:
        assert [1] == packed_list.load()


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

"""`check_executor`: it passes what keeps its word, and names what another one does not keep."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import pytest

from portable_sched import WorkerDiedError
from portable_sched._contract import _a_dead_worker
from portable_sched._envelope import RemoteFailure
from portable_sched._processes import ProcessExecutor
from portable_sched.testing import ExecutorReport, check_executor

each = pytest.mark.parametrize


def spawned() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


@each("backend", ["asyncio", "trio"])
def test_a_pool_of_processes_keeps_it(backend: str) -> None:
    report = check_executor(spawned, backend=backend)

    assert report == ExecutorReport(
        in_other_process=True,
        workers=2,
        survives_dead_worker=True,
        keeps_results=False,
        stops_calls=False,
    )


def test_the_processes_that_need_no_set_up_keep_it() -> None:
    report = check_executor(lambda: ProcessExecutor(2))

    assert (
        "in another process      yes\n"
        "workers                 2\n"
        "survives a dead worker  yes\n"
        "keeps results           no\n"
        "stops running calls     yes"
    ) == str(report)


@pytest.mark.anyio
async def test_it_may_be_called_from_inside_an_event_loop() -> None:
    report = check_executor(lambda: ThreadPoolExecutor(2))

    assert (False, None) == (report.in_other_process, report.survives_dead_worker)


class Twisted(ThreadPoolExecutor):
    """It does to each call, by the name of its function, what a test wants."""

    twist: Callable[[str, Callable[[], Any]], Any]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        name = args[0].function.load().__name__
        return super().submit(self.twist, name, lambda: fn(*args, **kwargs))


def twisted(twist: Callable[[str, Callable[[], Any]], Any]) -> Callable[[], Executor]:
    def make() -> Executor:
        executor = Twisted(2)
        executor.twist = twist  # type: ignore[method-assign]
        return executor

    return make


def failing_with(error: Exception, *names: str) -> Callable[[], Executor]:
    """An executor in which those functions fail with something else."""

    def twist(name: str, call: Callable[[], Any]) -> Any:
        if name in names:
            raise error
        return call()

    return twisted(twist)


def without_cause(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RemoteFailure as failure:
        error = failure.unpacked("checked")
        error.__cause__ = None
        raise RemoteFailure(error) from None


@each(
    ("make", "line"),
    [
        (
            twisted(lambda name, call: 3 if name == "_sum" else call()),
            "- results go from task to task by name: expected 2, got TaskResult(",
        ),
        (
            twisted(lambda name, call: 3 if name == "_one" else call()),
            "- each of 50 calls returns its result: got <RunResults: 50 COMPLETED>",
        ),
        (
            failing_with(OSError("no"), "_backend"),
            "- an async function runs in an event loop of its own: got None",
        ),
        (
            failing_with(OSError("no"), "_fail"),
            "- an exception arrives as it was raised: expected a ValueError, got OSError('no')",
        ),
        (twisted(without_cause), "- an exception arrives with its cause: got None"),
        (
            failing_with(OSError("no"), "_fail_unpicklably"),
            (
                "- an exception that cannot be pickled is told as a RemoteTaskError: got "
                "OSError('no')"
            ),
        ),
        (
            failing_with(OSError("no"), "_exit"),
            (
                "- a SystemExit fails its attempt alone: expected a RemoteTaskError, got "
                "OSError('no')"
            ),
        ),
        (
            failing_with(OSError("no"), "_lock"),
            "- the result that cannot be pickled is named: got TaskResult(",
        ),
        (
            failing_with(OSError("no"), "_sleep"),
            "- an attempt ends at its timeout: got OSError('no')",
        ),
    ],
)
def test_what_an_executor_does_not_keep_is_named(make: Any, line: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_executor(make)

    first, *lines = str(caught.value).splitlines()
    assert "The executor does not keep what tasks rely on:" == first
    assert [line] == [found[: len(line)] for found in lines if found.startswith(line)]


class Brittle(ProcessPoolExecutor):
    """It hides what a death is."""

    def __init__(self) -> None:
        super().__init__(2, mp_context=get_context("spawn"))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()

        def end(inner: Future[Any]) -> None:
            error = inner.exception()
            if error is None:
                outer.set_result(inner.result())
            else:
                is_ours = isinstance(error, RemoteFailure)
                outer.set_exception(error if is_ours else OSError("it is gone"))

        super().submit(fn, *args, **kwargs).add_done_callback(end)
        return outer


def test_an_executor_that_does_not_tell_of_deaths_is_found_out() -> None:
    with pytest.raises(AssertionError) as caught:
        check_executor(Brittle)

    line = "- a worker that dies fails the attempt with WorkerDiedError: got OSError("
    assert line in str(caught.value)


class Results(dict[str, Any]):
    """They are gone through as those of a run."""

    def __iter__(self) -> Any:
        return iter(self.values())


def test_an_executor_in_which_others_die_too_is_found_out() -> None:
    died = WorkerDiedError("culprit", "checked", ["culprit"])

    def run(registry: Any) -> Any:
        return Results(
            {
                name: SimpleNamespace(task_name=name, ok=ok, exception=None if ok else died)
                for name, ok in {"culprit": False, "first": False, "second": True}.items()
            }
        )

    [line] = _a_dead_worker(run)

    assert line.startswith("a worker that dies fails no other task: [namespace(task_name='first'")
    assert "second" not in line


class Stuck(ThreadPoolExecutor):
    """None of its calls ever ends."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


def test_an_executor_that_never_ends_a_call_is_found_out_in_time() -> None:
    with pytest.raises(AssertionError) as caught:
        check_executor(lambda: Stuck(1), seconds=0.05)

    assert "- each of 50 calls returns its result: got <RunResults: " in str(caught.value)

"""`check_executor`: it passes what keeps its word, and names what another one does not keep."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import copy_context
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import pytest

from portable_sched import WorkerDiedError, _contract
from portable_sched._contract import _a_dead_worker, _cancels, _Trial
from portable_sched._processes import ProcessExecutor
from portable_sched._remote_failures import RemoteFailure
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
        urgent_overtakes=True,
        survives_dead_worker=True,
        keeps_results=False,
        cancels_waiting_calls=True,
        stops_calls=False,
        context_variables=False,
    )


def test_the_processes_that_need_no_set_up_keep_it() -> None:
    report = check_executor(lambda: ProcessExecutor(2))

    assert (
        "in another process      yes\n"
        "workers                 2\n"
        "urgent tasks overtake   yes\n"
        "survives a dead worker  yes\n"
        "keeps results           no\n"
        "cancels waiting calls   yes\n"
        "stops running calls     yes\n"
        "context variables       no"
    ) == str(report)


@pytest.mark.anyio
async def test_it_may_be_called_from_inside_an_event_loop() -> None:
    report = check_executor(lambda: ThreadPoolExecutor(2))

    assert (False, None) == (report.in_other_process, report.survives_dead_worker)


class Wrapped(Executor):
    """Threads that do not say how many they are."""

    def __init__(self, workers: int = 2) -> None:
        self.threads = ThreadPoolExecutor(workers)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.threads.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as the class above has it
        self.threads.shutdown(wait, cancel_futures=cancel_futures)


def test_what_does_not_say_how_many_workers_it_has_may_keep_what_is_urgent_waiting() -> None:
    report = check_executor(Wrapped)

    assert (None, False) == (report.workers, report.urgent_overtakes)


class Many(Wrapped):
    workers = 1000


def test_with_many_workers_it_is_not_tried_who_waits() -> None:
    report = check_executor(Many)

    assert (1000, None, None) == (
        report.workers,
        report.urgent_overtakes,
        report.cancels_waiting_calls,
    )


class AtOnce(Executor):
    """A call has ended when it has been submitted, so none ever waits."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except RemoteFailure as failure:
            future.set_exception(failure)
        return future


def test_where_no_call_waits_none_can_be_taken_out() -> None:
    assert _cancels(AtOnce(), workers=2) is None


class Stubborn(ThreadPoolExecutor):
    """What waits in it cannot be taken out."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        vars(future)["cancel"] = lambda: False
        return future


def test_an_executor_that_cannot_take_out_what_waits_is_told_so() -> None:
    report = check_executor(lambda: Stubborn(2))

    assert report.cancels_waiting_calls is False


class WithContext(ThreadPoolExecutor):
    """Its functions see the context variables of who submits."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(copy_context().run, fn, *args, **kwargs)


def test_context_variables_that_are_seen_are_told_of() -> None:
    report = check_executor(lambda: WithContext(2))

    assert report.context_variables is True


class Twisted(ThreadPoolExecutor):
    """It does to each call, by the name of its function, what a test wants."""

    twist: Callable[[str, Callable[[], Any]], Any]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        name = args[0].function.load().__name__
        return super().submit(self.twist, name, lambda: fn(*args, **kwargs))


class InThisThread(Executor):
    """Carries calls out before it returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def twisted(twist: Callable[[str, Callable[[], Any]], Any]) -> Callable[[], Executor]:
    def make() -> Executor:
        executor = Twisted(2)
        executor.twist = twist
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


def without_notes(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RemoteFailure as failure:
        error = failure.unpacked("checked")
        error.__notes__ = []
        raise RemoteFailure(error) from None


class Forgetful(ThreadPoolExecutor):
    """What it keeps nobody else ever gets."""

    def keep(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.submit(fn, *args, **kwargs)

    def fetch(self, handle: Any) -> Any:
        raise OSError("lost")


class LastOfAll(Wrapped):
    """It says that it has two workers, and has what is urgent wait until the others have ended."""

    workers = 2

    def __init__(self) -> None:
        super().__init__()
        self.ended = 0
        self.urgent: Callable[[], None] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if args[0].task == "urgent":
            future: Future[Any] = Future()

            def begin() -> None:
                future.set_running_or_notify_cancel()
                future.set_result(fn(*args, **kwargs))

            self.urgent = begin
            return future
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self.note_end)
        return future

    def note_end(self, future: Future[Any]) -> None:
        self.ended += 1
        if self.ended == 24 and self.urgent is not None:
            self.urgent()


@each(
    ("check", "make", "line"),
    [
        (
            _contract._results_and_arguments,
            twisted(lambda name, call: call()[::-1] if name == "_pair" else call()),
            "results go from task to task by name: expected (1, 2), got TaskResult(",
        ),
        (
            _contract._results_and_arguments,
            twisted(lambda name, call: call()[:9] if name == "_large" else call()),
            "a result of 2 MB arrives whole: got bytes",
        ),
        (
            _contract._timeouts,
            InThisThread,
            "an attempt ends at its timeout: submit() did not return before the call had ended",
        ),
        (
            _contract._results_and_arguments,
            lambda: Forgetful(2),
            (
                "results go from task to task by name: expected (1, 2), got "
                "TaskResult(task_name='here'"
            ),
        ),
        (
            _contract._all_of_many,
            twisted(lambda name, call: 3 if name == "_one" else call()),
            "each of 50 calls returns its result: got <RunResults: 50 COMPLETED>",
        ),
        (
            _contract._async_functions,
            failing_with(OSError("no"), "_backend"),
            (
                "an async function runs in an event loop of its own, of the run's kind: expected "
                "'asyncio', got None"
            ),
        ),
        (
            _contract._async_functions,
            twisted(lambda name, call: "trio" if name == "_backend" else call()),
            (
                "an async function runs in an event loop of its own, of the run's kind: expected "
                "'asyncio', got 'trio'"
            ),
        ),
        (
            _contract._exceptions,
            failing_with(OSError("no"), "_fail"),
            "an exception arrives as it was raised: expected a ValueError, got OSError('no')",
        ),
        (
            _contract._exceptions,
            twisted(without_cause),
            "an exception arrives with its cause: got None",
        ),
        (
            _contract._exceptions,
            failing_with(OSError("no"), "_fail_unpicklably"),
            "an exception that cannot be pickled is told as a RemoteTaskError: got OSError('no')",
        ),
        (
            _contract._notes,
            twisted(without_notes),
            "an exception arrives with the worker's traceback in its notes: got []",
        ),
        (
            _contract._exits,
            failing_with(OSError("no"), "_exit"),
            "a SystemExit fails its attempt: expected a RemoteTaskError, got OSError('no')",
        ),
        (
            _contract._exits,
            failing_with(OSError("no"), "_one"),
            "a SystemExit fails no other task: [TaskResult(task_name='other 0'",
        ),
        (
            _contract._what_cannot_be_pickled,
            failing_with(RemoteFailure(OSError("no")), "_given"),
            "the parameter 'lock' that cannot be pickled is named: got TaskResult(",
        ),
        (
            _contract._what_cannot_be_pickled,
            failing_with(OSError("no"), "_lock"),
            "the result that cannot be pickled is named: got TaskResult(",
        ),
        (
            _contract._timeouts,
            failing_with(OSError("no"), "_sleep"),
            "an attempt ends at its timeout: got OSError('no')",
        ),
        (
            _contract._timeouts,
            failing_with(OSError("no"), "_one"),
            "it goes on after a timeout: got TaskResult(task_name='next'",
        ),
        (
            _contract._priorities,
            failing_with(OSError("no"), "_nap"),
            "what is urgent overtakes what waits: got TaskResult(task_name='urgent'",
        ),
        (
            _contract._priorities,
            LastOfAll,
            "what is urgent overtakes what waits: 2",
        ),
    ],
)
def test_what_an_executor_does_not_keep_is_named(check: Any, make: Any, line: str) -> None:
    trial = _Trial(make, "asyncio", 60)
    trial.workers = 2
    # One that is kept is named like one that is returned.
    [found, *_] = check(trial)

    assert line == found[: len(line)]


@each("check", _contract._CHECKS)
def test_an_executor_that_keeps_it_is_not_complained_of(check: Any) -> None:
    assert [] == list(check(_Trial(lambda: ThreadPoolExecutor(2), "trio", 60)))


def test_all_that_an_executor_does_not_keep_is_told_at_once() -> None:
    with pytest.raises(AssertionError) as caught:
        check_executor(failing_with(OSError("no"), "_exit", "_sleep"))

    assert (
        "The executor does not keep what tasks rely on:\n"
        "- a SystemExit fails its attempt: expected a RemoteTaskError, got OSError('no')\n"
        "- an attempt ends at its timeout: got OSError('no')"
    ) == str(caught.value)


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
    died = WorkerDiedError("dies", "checked", ["dies"])

    def run(registry: Any) -> Any:
        return Results(
            {
                name: SimpleNamespace(task_name=name, ok=ok, exception=None if ok else died)
                for name, ok in {"dies": False, "first": False, "second": True}.items()
            }
        )

    trial: Any = SimpleNamespace(run=run)
    [line] = _a_dead_worker(trial)

    assert line.startswith("a worker that dies fails no other task: [namespace(task_name='first'")
    assert "second" not in line


class Noteless(ProcessPoolExecutor):
    """What is raised there arrives without a word of where."""

    def __init__(self) -> None:
        super().__init__(2, mp_context=get_context("spawn"))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()

        def end(inner: Future[Any]) -> None:
            if not outer.set_running_or_notify_cancel():
                return
            error = inner.exception()
            if error is None:
                outer.set_result(inner.result())
                return
            if isinstance(error, RemoteFailure):
                raised = error.unpacked("checked")
                raised.__notes__ = []
                error = RemoteFailure(raised, part=error.part)
            outer.set_exception(error)

        super().submit(fn, *args, **kwargs).add_done_callback(end)
        return outer


def test_an_executor_that_loses_the_traceback_is_found_out() -> None:
    with pytest.raises(AssertionError) as caught:
        check_executor(Noteless)

    [line] = str(caught.value).splitlines()[1:]
    assert "- an exception arrives with the worker's traceback in its notes: got []" == line


class Liar(ThreadPoolExecutor):
    def stop(self, future: Future[Any]) -> bool:
        return True


def test_an_executor_that_says_it_has_ended_what_goes_on_is_found_out() -> None:
    with pytest.raises(AssertionError) as caught:
        check_executor(lambda: Liar(2))

    [line] = str(caught.value).splitlines()[1:]
    assert "- stop() says the truth: it ended a call that came to its end" == line


def test_an_executor_that_leaves_a_process_behind_is_found_out() -> None:
    context = get_context("spawn")
    go = context.Event()
    left = context.Process(target=go.wait, name="left behind")

    def make() -> Executor:
        if left.pid is None:
            left.start()
        return ThreadPoolExecutor(2)

    try:
        with pytest.raises(AssertionError) as caught:
            check_executor(make, seconds=5)
    finally:
        go.set()
        left.join()

    [line] = str(caught.value).splitlines()[1:]
    assert line.startswith("- its processes end with it: these remain: ")
    assert "left behind" in line


def test_what_the_function_raises_that_makes_it_is_raised() -> None:
    def make() -> Executor:
        raise OSError("no room")

    with pytest.raises(OSError, match=r"^no room$"):
        check_executor(make)


class Stuck(ThreadPoolExecutor):
    """None of its calls ever ends."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


RELEASED = threading.Event()


class StuckAtSubmit(ThreadPoolExecutor):
    """It holds up the event loop."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        RELEASED.wait()
        raise RuntimeError("it has been let go")


class StuckAtShutdown(ThreadPoolExecutor):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as the class above has it
        RELEASED.wait()


@each(
    ("make", "what"),
    [
        (Stuck, "the run of 'first', 'second', 'there', 'here', 'large'"),
        (StuckAtSubmit, "the run of 'first', 'second', 'there', 'here', 'large'"),
        (StuckAtShutdown, "making it and shutting it down"),
    ],
)
def test_an_executor_that_is_stuck_is_found_out_in_time(make: Any, what: str) -> None:
    RELEASED.clear()
    before = set(threading.enumerate())
    try:
        with pytest.raises(AssertionError) as caught:
            check_executor(lambda: make(1), seconds=2)
    finally:
        RELEASED.set()
        for thread in set(threading.enumerate()) - before:
            thread.join()

    [line] = str(caught.value).splitlines()[1:]
    assert f"- all comes to an end: {what} had not after 2 s" == line


def test_what_makes_no_executor_is_refused() -> None:
    with pytest.raises(TypeError) as caught:
        check_executor(lambda: None)  # type: ignore[arg-type,return-value]

    assert ("Expected make to return a concurrent.futures.Executor, got None (NoneType).") == str(
        caught.value
    )


def test_what_cannot_be_shut_down_is_refused() -> None:
    with pytest.raises(TypeError, match="Expected make to return a "):
        check_executor(lambda: SimpleNamespace(submit=print))  # type: ignore[arg-type,return-value]


def test_the_name_of_an_executor_is_refused() -> None:
    with pytest.raises(TypeError, match="that makes an executor, got 'process'"):
        check_executor("process")  # type: ignore[arg-type]


def test_an_executor_in_place_of_what_makes_it_is_refused() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(TypeError) as caught:
        check_executor(executor)  # type: ignore[arg-type]

    assert str(caught.value).startswith("Expected a function that makes an executor, got <conc")
    assert str(caught.value).endswith("Write lambda: ... around what makes it.")

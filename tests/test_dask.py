"""Tasks on a Dask cluster, for real: results that stay there, workers that are lost."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import anyio
import pytest

from portable_sched import (
    Event,
    ExecutorError,
    NotPicklableError,
    Priority,
    RemoteTaskError,
    TaskRegistry,
    TaskScheduler,
    TaskStarted,
    TaskTimeoutError,
    WorkerDiedError,
)
from portable_sched._envelope import Call, Sent, carry_out
from portable_sched._remote_failures import RemoteFailure

distributed = pytest.importorskip("distributed")
numpy = pytest.importorskip("numpy")

import dask  # noqa: E402 - it comes with distributed
from distributed import Client, LocalCluster  # noqa: E402 - not everybody has it

from portable_sched.dask import DaskExecutor, _handle_of, _packed, _tried  # noqa: E402 - as above

pytestmark = [pytest.mark.anyio, pytest.mark.executors]

each = pytest.mark.parametrize

SETTINGS = {
    "logging": {"distributed": "critical"},
    "distributed.scheduler.allowed-failures": 1,
    # Some time after a worker has died its cluster looks whether it is there again, and gives it up
    # if it is not: then another test may have killed it once more.
    "distributed.deploy.lost-worker-timeout": "1 hour",
}
ONE_THREAD = {"threads_per_worker": 1, "dashboard_address": ":0"}
LOCAL = {"n_workers": 2, **ONE_THREAD}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with dask.config.set(SETTINGS), LocalCluster(processes=True, **LOCAL) as made:
        yield made


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as made:
        yield made


@pytest.fixture
def executor(client: Client) -> DaskExecutor:
    in_time(lambda: len(client.nthreads()) == 2)
    return DaskExecutor(client)


def fail_twice(folder: Path) -> int:
    calls = len([*folder.iterdir()]) + 1
    (folder / f"{calls}").touch()
    if calls < 3:
        raise ValueError("not yet")
    return calls


def in_time(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - it is no task of ours that brings it about
            await anyio.sleep(0.01)


# What functions do elsewhere


def pid() -> int:
    return os.getpid()


def written(path: Path) -> list[int]:
    """The process ids in a file, which may be there before they are."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def array(megabytes: float) -> Any:
    return numpy.ones(int(megabytes * 125_000))


def doubled(made: Any) -> Any:
    return 2 * made


async def total(doubled: Any) -> float:
    await anyio.lowlevel.checkpoint()
    return float(doubled.sum())


def fail() -> NoReturn:
    raise ValueError("no such row") from LookupError("why")


def leave() -> NoReturn:
    sys.exit(3)


def lock() -> Any:
    return threading.Lock()


def identity(given: Any) -> Any:
    return given


def no_op() -> None: ...


def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def append(path: str, name: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{name}\n")


def write_and_wait(began: str, until: str) -> int:
    append(began, str(os.getpid()))
    in_time(Path(until).exists)
    return os.getpid()


def chain(registry: TaskRegistry, megabytes: float) -> None:
    """Three tasks, each of which takes the result of the one before."""
    registry.task("made", executor="far")(partial(array, megabytes))
    registry.task(executor="far")(doubled)
    registry.task(executor="far")(total)


# Results


async def test_results_go_from_worker_to_worker(
    registry: TaskRegistry, executor: DaskExecutor
) -> None:
    chain(registry, 1)

    @registry.task
    async def here(doubled: Any, total: float) -> bool:
        return float(doubled.sum()) == total

    results = await TaskScheduler(registry, executors={"far": executor}).run()

    assert results.ok, results
    assert (250_000.0, True) == (results["total"].result, results[here].result)
    # What a task of the cluster takes has stayed there.
    assert isinstance(results["doubled"].result, distributed.Future)
    assert 250_000.0 == results["doubled"].result.result().sum()


@contextmanager
def counting_proxy(address: str) -> Iterator[tuple[str, list[int]]]:
    """An address that leads to another one, and how many bytes have gone through."""
    host, port = address.removeprefix("tcp://").split(":")
    counted = [0]
    listener = socket.create_server(("127.0.0.1", 0))
    sockets = [listener]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                counted[0] += len(data)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                sockets.extend([near, far])
                for pair in ((near, far), (far, near)):
                    threads.append(threading.Thread(target=pump, args=pair))
                    threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", counted
    finally:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for one in sockets:
            one.close()


async def test_what_stays_on_the_cluster_does_not_come_through_the_client(
    registry: TaskRegistry, cluster: LocalCluster
) -> None:
    chain(registry, 4)
    through: list[int] = []
    with (
        counting_proxy(cluster.scheduler_address) as (address, counted),
        Client(address, set_as_default=False) as client,
    ):
        plain = client.get_executor(pure=False)
        for executor in (plain, DaskExecutor(client)):
            before = counted[0]
            results = await TaskScheduler(registry, executors={"far": executor}).run()
            assert 1_000_000.0 == results["total"].result
            del results
            through.append(counted[0] - before)

    # Two results come, and go out again.
    assert through[0] > 15_000_000
    assert through[1] < 500_000


async def test_ten_thousand_tasks_leave_nothing_behind(
    registry: TaskRegistry,
    client: Client,
    executor: DaskExecutor,
    request: pytest.FixtureRequest,
) -> None:
    # Once on each backend; the others are asyncio too.
    backend = request.node.callspec.params["anyio_backend"]
    count = 10_000 if backend in {"asyncio", "trio"} else 1_000
    for number in range(count):
        registry.task(f"{number}", executor="far")(no_op)
    most = 0

    def watch(event: Event) -> None:
        nonlocal most
        if isinstance(event, TaskStarted):
            most = max(most, len(client.futures))

    executors = {"far": executor}
    results = await TaskScheduler(registry, executors=executors, observers=[watch]).run()

    assert results.ok
    assert most <= 2 * (executor.workers + executor.look_ahead)
    await until(lambda: len(client.futures) < 50)


def waiting_in(client: Client) -> int:
    """How many calls wait on the workers or for them."""
    waiting = client.run(lambda dask_worker: len(dask_worker.state.ready))
    queued = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.queued))
    return sum(waiting.values()) + queued


async def test_what_is_urgent_overtakes_what_waits_on_the_cluster(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    path, began, may_go = tmp_path / "order", tmp_path / "began", tmp_path / "go"
    first = partial(write_and_wait, str(began), str(may_go))
    registry.task("first", Priority.HIGH, executor="far")(first)
    for number in range(4):
        function = partial(append, str(path), "low")
        registry.task(f"low {number}", Priority.LOW, executor="far")(function)

    @registry.task
    async def opened() -> None:
        await until(began.exists)

    high = partial(append, str(path), "high")
    registry.task("high", Priority.HIGH, depends_on=["opened"], executor="far")(high)

    @registry.task(after=["opened"])
    async def go() -> None:
        # All of them are in the cluster, and it is for Dask to say which begins first.
        with anyio.fail_after(60):
            while await anyio.to_thread.run_sync(waiting_in, client) < 5:  # noqa: ASYNC110 - as in `until`
                await anyio.sleep(0.01)
        may_go.touch()

    # One thread: each worker has an order of its own.
    with (
        dask.config.set(SETTINGS),
        LocalCluster(n_workers=1, processes=False, **ONE_THREAD) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executors = {"far": DaskExecutor(client)}
        resources = {"executor far": 50}
        scheduler = TaskScheduler(registry, executors=executors, resources=resources)
        assert (await scheduler.run()).ok

    assert ["high", *["low"] * 4] == path.read_text().splitlines()


async def test_a_cluster_that_grows_gets_more_calls(registry: TaskRegistry, tmp_path: Path) -> None:
    may_go = tmp_path / "go"
    began = [tmp_path / f"began {number}" for number in range(2)]
    for number in range(2):
        function = partial(write_and_wait, str(began[number]), str(may_go))
        registry.task(f"{number}", executor="far")(function)

    @registry.task
    async def grow() -> None:
        await until(began[0].exists)
        cluster.scale(2)
        await until(began[1].exists)
        may_go.touch()

    options = {"processes": True, **ONE_THREAD}
    with (
        dask.config.set(SETTINGS),
        LocalCluster(n_workers=0, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)
        assert 1 == executor.workers
        cluster.scale(1)
        with anyio.fail_after(100):
            assert (await TaskScheduler(registry, executors={"far": executor}).run()).ok
        assert 2 == executor.workers


# Failures


async def outcome_of(
    registry: TaskRegistry, executor: Any, function: Callable[..., Any], **settings: Any
) -> Any:
    registry.task("load", executor="far", **settings)(function)
    with anyio.fail_after(60):
        results = await TaskScheduler(registry, executors={"far": executor}).run()
    return results["load"]


@each("kept", [False, True])
async def test_an_exception_arrives_with_cause_and_traceback(
    registry: TaskRegistry, executor: DaskExecutor, *, kept: bool
) -> None:
    if kept:

        @registry.task(executor="far")
        def taker(load: int) -> int:
            return load

    error = (await outcome_of(registry, executor, fail)).exception

    assert (ValueError, LookupError) == (type(error), type(error.__cause__))
    assert "in fail\n" in error.__notes__[0]


async def test_a_function_that_exits_fails_its_attempt_alone(
    registry: TaskRegistry, executor: DaskExecutor
) -> None:
    error = (await outcome_of(registry, executor, leave)).exception

    assert isinstance(error, RemoteTaskError)
    assert 1 == executor.submit(identity, 1).result()


async def test_a_result_that_cannot_be_pickled_is_named_and_takes_no_other_along(
    registry: TaskRegistry, executor: DaskExecutor
) -> None:
    for number in range(10):
        registry.task(f"good {number}", executor="far")(pid)
    error = (await outcome_of(registry, executor, lock)).exception

    assert isinstance(error, NotPicklableError)
    assert "the result" == error.part


async def test_an_argument_that_cannot_be_pickled_is_named(
    registry: TaskRegistry, executor: DaskExecutor
) -> None:
    @registry.task
    async def given() -> Any:
        return threading.Lock()

    error = (await outcome_of(registry, executor, identity)).exception

    assert isinstance(error, NotPicklableError)
    assert "the parameter 'given'" == error.part


async def test_a_function_and_a_result_may_go_by_value(
    registry: TaskRegistry, executor: DaskExecutor
) -> None:
    result = (await outcome_of(registry, executor, lambda: lambda: 7)).result

    assert 7 == result()


async def test_a_worker_that_dies_in_the_middle_is_replaced(
    registry: TaskRegistry, executor: DaskExecutor, tmp_path: Path
) -> None:
    began, may_go = tmp_path / "began", tmp_path / "go"
    registry.task("load", executor="far")(partial(write_and_wait, str(began), str(may_go)))

    @registry.task
    async def kill() -> None:
        await until(lambda: written(began))
        os.kill(written(began)[0], signal.SIGKILL)
        await until(lambda: len(written(began)) == 2)
        may_go.touch()

    results = await TaskScheduler(registry, executors={"far": executor}).run()

    first, second = written(began)
    assert (second, 1) == (results["load"].result, results["load"].attempts)
    assert first != second


async def test_a_function_that_kills_every_worker_fails(
    registry: TaskRegistry, executor: DaskExecutor
) -> None:
    error = (await outcome_of(registry, executor, kill_own_process)).exception

    assert isinstance(error, WorkerDiedError)
    assert ("load",) == error.running
    assert isinstance(error.__cause__.__cause__, distributed.KilledWorker)


async def test_a_kept_result_that_is_lost_is_worked_out_again(
    registry: TaskRegistry, executor: DaskExecutor, tmp_path: Path
) -> None:
    path = tmp_path / "pids"

    @registry.task(executor="far")
    def made() -> int:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return 7

    @registry.task
    async def kill() -> None:
        await until(lambda: written(path))
        os.kill(written(path)[0], signal.SIGKILL)

    @registry.task(depends_on=["kill"], executor="far")
    def taker(made: int) -> int:
        return made

    results = await TaskScheduler(registry, executors={"far": executor}).run()

    assert (7, 1) == (results[taker].result, results[made].attempts)
    assert 2 == len(written(path))


async def test_a_call_that_waits_is_taken_out_at_its_timeout(
    registry: TaskRegistry, executor: DaskExecutor, tmp_path: Path
) -> None:
    may_go = tmp_path / "go"
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        waiting = partial(write_and_wait, str(path), str(may_go))
        registry.task(path.name, executor="far")(waiting)

    @registry.task
    async def busy() -> None:
        await until(lambda: all(path.exists() for path in paths))

    never = partial(append, str(tmp_path / "never"), "x")
    registry.task("late", depends_on=[busy], executor="far", timeout=0.3)(never)

    @registry.task(after=["late"])
    async def go() -> None:
        # To take it out is a matter of messages.
        try:
            await until(lambda: not executor.client.run_on_scheduler(late_at_scheduler))
            await until(lambda: not any(executor.client.run(late_at_worker).values()))
        finally:
            may_go.touch()

    resources = {"executor far": 3}
    executors = {"far": executor}
    results = await TaskScheduler(registry, executors=executors, resources=resources).run()

    assert isinstance(results["late"].exception, TaskTimeoutError)
    assert results[go].ok
    assert not (tmp_path / "never").exists()


def late_at_scheduler(dask_scheduler: Any) -> bool:
    return any(str(key).startswith("late-") for key in dask_scheduler.tasks)


def late_at_worker(dask_worker: Any) -> bool:
    return any(str(key).startswith("late-") for key in dask_worker.state.tasks)


def returning(value: Any) -> Any:
    return value


def unloadable() -> Any:
    return Unloadable()


def failing() -> NoReturn:
    carry_out(Call("load", Sent(fail)))


def test_what_comes_back_is_packed_by_the_worker() -> None:
    """Here, since what runs in a worker is not measured."""
    assert (7, None) == pickle.loads(_packed(returning, 7))
    assert 7 == pickle.loads(_packed(returning, lambda: 7))[0]()
    _, failure = pickle.loads(_packed(returning, threading.Lock()))
    assert ("the result", TypeError) == (failure.part, type(failure.unpacked("load")))
    nothing, failure = pickle.loads(_packed(failing))
    assert (None, RemoteFailure) == (nothing, type(failure))


class Unloadable:
    """It pickles, and raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return fail, ()


def test_what_stays_in_a_worker_is_tried_there() -> None:
    """As above."""
    stays = array(1)
    assert stays is _tried(returning, stays)
    for value, kind in ((threading.Lock(), TypeError), (Unloadable(), ValueError)):
        with pytest.raises(RemoteFailure) as caught:
            _tried(returning, value)
        assert ("the result", kind) == (caught.value.part, type(caught.value.unpacked("load")))


def test_what_is_large_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portable_sched.dask._SMALL", 10)

    assert isinstance(_tried(Unloadable), Unloadable)


async def test_a_call_that_was_lost_is_no_result() -> None:
    async def exception() -> None: ...

    lost = SimpleNamespace(exception=exception, cancelled=lambda: True, key="load-1")
    with pytest.raises(distributed.CancelledError):
        await _handle_of(lost)


@each(
    ("function", "reason"),
    [(lock, "TypeError: ('Could not serialize"), (unloadable, "ValueError: no such row")],
)
async def test_a_result_that_cannot_stay_there_fails_its_own_task(
    registry: TaskRegistry, executor: DaskExecutor, function: Any, reason: str
) -> None:
    """Who takes it in another worker would wait for ever."""
    registry.task("load", executor="far")(function)
    for number in range(2):

        @registry.task(f"takes {number}", executor="far")
        def takes(load: Any) -> None: ...

    with anyio.fail_after(60):
        results = await TaskScheduler(registry, executors={"far": executor}).run()

    error = results["load"].exception
    assert isinstance(error, NotPicklableError)
    assert "the result" == error.part
    assert error.reason.startswith(reason)


async def test_an_argument_that_the_worker_cannot_load_is_named(
    registry: TaskRegistry, executor: DaskExecutor
) -> None:
    registry.task("load", executor="far")(doubled)

    results = await TaskScheduler(registry, executors={"far": executor}).run(
        inputs={"made": Unloadable()}
    )

    error = results["load"].exception
    assert isinstance(error, NotPicklableError)
    assert ("the parameter 'made'", "ValueError: no such row") == (error.part, error.reason)


async def test_a_cluster_that_is_restarted_has_lost_no_connection(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    waiting = partial(write_and_wait, str(began), str(tmp_path / "never"))
    registry.task("load", executor="far")(waiting)

    with (
        dask.config.set(SETTINGS),
        LocalCluster(n_workers=1, processes=True, **ONE_THREAD) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        @registry.task
        async def restart() -> None:
            await until(began.exists)
            await anyio.to_thread.run_sync(client.restart)

        with anyio.fail_after(100):
            results = await TaskScheduler(registry, executors={"far": DaskExecutor(client)}).run()

    assert results["restart"].ok
    assert ("RuntimeError: The cluster dropped the call; it may have been restarted.") == results[
        "load"
    ].error


def read() -> list[int]:
    """It can be had once."""
    path = Path(os.environ["PORTABLE_SCHED_TEST_ONCE"])
    if path.exists():
        raise ValueError("the file is gone")
    path.touch()
    return [os.getpid()]


def first(read: list[int]) -> int:
    return read[0]


@each("again", [True, False])
async def test_a_result_that_was_lost_is_worked_out_again_or_that_is_told(
    registry: TaskRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    monkeypatch.setenv("PORTABLE_SCHED_TEST_ONCE", str(tmp_path / "read"))
    # Its time is over when it is called once more.
    registry.task(executor="far", timeout=2)(read)
    registry.task(executor="far")(first)
    registry.task("use", executor="far", depends_on=["lose"])(first)

    @registry.task
    async def lose(first: int) -> None:
        await anyio.sleep(2)
        if again:
            (tmp_path / "read").unlink()
        os.kill(first, signal.SIGKILL)
        await anyio.sleep(1)

    with (
        dask.config.set(SETTINGS),
        LocalCluster(processes=True, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
        anyio.fail_after(100),
    ):
        executors = {"far": DaskExecutor(client)}
        results = await TaskScheduler(registry, executors=executors).run()

    if again:
        assert results["use"].result not in {None, results["first"].result}
    else:
        assert (
            "ExecutorError: Task 'use' could not run, because of the executor 'far': fetching the "
            "result of 'read' failed: ValueError: the file is gone"
        ) == results["use"].error


def kinds(*given: Any) -> list[str]:
    return [type(one).__name__ for one in given]


def test_futures_of_dasks_in_what_is_sent_are_put_values_for(
    executor: DaskExecutor, client: Client
) -> None:
    handle = client.submit(int, "5")
    for value in (handle, [handle], (1, {"a": handle})):
        assert executor.dumps(value) is None
    assert executor.dumps([1, {"a": (2, {3})}]) is not None


def test_a_client_that_is_closed_is_not_asked_for_its_workers(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("portable_sched.dask._LOOK", 0.01)
    client = Client(cluster, set_as_default=False)
    executor = DaskExecutor(client)
    # Its event loop is the cluster's, and goes on.
    end = executor.follow(pytest.fail)
    client.close()
    time.sleep(0.2)
    end()

    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


# A cluster that is started by its commands


@contextmanager
def commands(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and two workers as processes of their own."""
    address_file = folder / "scheduler.json"
    here = Path(__file__).parent
    quiet: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": folder,
        "env": os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
    }
    python = [sys.executable, "-m"]
    scheduler = subprocess.Popen(
        [
            *(*python, "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"),
            *("--no-show", "--scheduler-file", str(address_file)),
        ],
        **quiet,
    )
    workers = []
    try:
        in_time(lambda: address_file.exists() and address_file.read_text())
        workers = [
            subprocess.Popen(
                [
                    *(*python, "distributed.cli.dask_worker", "--nthreads", "1"),
                    *("--no-dashboard", "--no-nanny", "--scheduler-file", str(address_file)),
                ],
                **quiet,
            )
            for _ in range(2)
        ]
        with Client(scheduler_file=str(address_file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address, scheduler
    finally:
        for process in (scheduler, *workers):
            process.kill()
            process.wait()


async def test_a_cluster_that_runs_elsewhere_is_found_by_its_address(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    chain(registry, 1)
    with commands(tmp_path) as (address, _):
        executors = {"far": lambda: DaskExecutor(address)}
        results = await TaskScheduler(registry, executors=executors).run()

    assert results.ok
    assert 250_000.0 == results["total"].result


@each("backend", ["asyncio", "trio"])
def test_functions_of_a_program_go_there_by_value(tmp_path: Path, backend: str) -> None:
    """Its workers know nothing of that program."""
    program = Path(__file__).parent.parent / "examples" / "cluster.py"
    if not program.is_file():
        pytest.skip("the examples are not beside the tests")
    with commands(tmp_path) as (address, _):
        arguments = ["--on", "dask", "--address", address, "--backend", backend]
        ran = subprocess.run(
            [sys.executable, "-W", "error", str(program), *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    assert (0, "") == (ran.returncode, ran.stderr)
    assert "it is 156,159, with 382 steps" in ran.stdout


async def test_a_scheduler_that_is_lost_fails_what_runs_and_the_run_ends(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    waiting = partial(write_and_wait, str(began), str(tmp_path / "never"))
    registry.task("running", executor="far", retries=2)(waiting)
    registry.task("later", executor="far", after=["running"])(pid)
    with commands(tmp_path) as (address, scheduler):

        @registry.task
        async def kill() -> None:
            await until(began.exists)
            scheduler.kill()

        executors = {"far": lambda: DaskExecutor(address)}
        with anyio.fail_after(60), dask.config.set({"logging": {"distributed": "critical"}}):
            results = await TaskScheduler(registry, executors=executors).run()

    first, second = (failure.exception for failure in results["running"].failures)
    lost = f"The connection to the Dask scheduler at {address} was lost."
    assert (ConnectionError, lost) == (type(first), str(first))
    assert isinstance(second, ExecutorError)
    assert lost in str(results["later"].exception)


# Making one


async def test_a_cluster_of_its_own_ends_with_the_run(registry: TaskRegistry) -> None:
    registry.task("there", executor="far")(pid)
    options = {"n_workers": 1, **ONE_THREAD}

    with dask.config.set(SETTINGS):
        executors = {"far": lambda: DaskExecutor(**options)}
        results = await TaskScheduler(registry, executors=executors).run()

    assert results.ok, results["there"].error
    assert os.getpid() != results["there"].result
    with pytest.raises(ProcessLookupError):
        os.kill(results["there"].result, 0)


def test_a_client_that_was_given_stays_open(client: Client) -> None:
    executor = DaskExecutor(client)
    executor.shutdown()

    assert "running" == client.status
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pid)


def test_it_is_an_executor_of_any_call(executor: DaskExecutor) -> None:
    assert [5, 5] == [
        executor.submit(int, "101", base=2).result(),
        executor.fetch(executor.keep(int, "101", base=2).result()),
    ]
    assert 7 == executor.fetch(7)


def test_the_workers_of_a_cluster_that_is_gone_are_those_that_were_known(
    cluster: LocalCluster,
) -> None:
    with Client(cluster, set_as_default=False) as client:
        executor = DaskExecutor(client)
        known = executor.workers

    assert known == executor.workers
    with pytest.raises(ConnectionError):
        executor.submit(pid)


@each(
    ("arguments", "options", "message"),
    [
        (
            (7,),
            {},
            (
                "Expected client to be a distributed.Client, a cluster, the address of a Dask "
                "scheduler or None, got 7."
            ),
        ),
    ],
)
def test_what_is_no_client_is_refused(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        DaskExecutor(*arguments, **options)

    assert message == str(caught.value)


def test_a_cluster_may_be_given_and_stays(cluster: LocalCluster) -> None:
    executor = DaskExecutor(cluster)
    assert executor.submit(pid).result(60)
    executor.shutdown()

    assert "running" == cluster.status.name


async def test_calls_that_are_alike_are_calls_of_their_own(
    registry: TaskRegistry, client: Client, tmp_path: Path
) -> None:
    """Dask takes what is called alike for one, as what is pure."""
    registry.task("load", executor="far", retries=3)(partial(fail_twice, tmp_path))

    results = await TaskScheduler(registry, executors={"far": client.get_executor()}).run()

    assert (3, 3) == (results["load"].attempts, results["load"].result)


def test_a_client_that_is_asynchronous_is_refused(cluster: LocalCluster) -> None:
    async def make() -> None:
        address = cluster.scheduler_address
        async with Client(address, asynchronous=True, set_as_default=False) as client:
            DaskExecutor(client)

    with pytest.raises(TypeError, match="got one that was made with asynchronous=True"):
        anyio.run(make)


def test_options_for_a_client_that_is_there_are_refused(client: Client) -> None:
    with pytest.raises(TypeError) as caught:
        DaskExecutor(client, n_workers=2)

    assert (
        "Expected options for a client that is to be made, got n_workers for one that is there."
    ) == str(caught.value)


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "portable_sched.dask")
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(ImportError) as caught:
        import portable_sched.dask  # noqa: F401, PLC0415 - it is the point

    assert (
        "portable_sched.dask needs dask.distributed, which is not installed: "
        "pip install 'portable_sched[dask]'"
    ) == str(caught.value)

"""Tasks in loky's processes, for real."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import pytest

from portable_sched import TaskRegistry, TaskScheduler, TaskTimeoutError, WorkerDiedError
from portable_sched.testing import check_executor

loky = pytest.importorskip("loky")

pytestmark = [pytest.mark.anyio, pytest.mark.executors]

each = pytest.mark.parametrize


@pytest.fixture(scope="module")
def pool() -> Iterator[Any]:
    executor = loky.ProcessPoolExecutor(2)
    yield executor
    executor.shutdown(kill_workers=True)


def new() -> Any:
    return loky.ProcessPoolExecutor(2)


def reused() -> Any:
    """The one that the whole program shares."""
    return loky.get_reusable_executor(2)


def pid() -> int:
    return os.getpid()


def one() -> int:
    return 1


async def added(one: int) -> int:
    await anyio.lowlevel.checkpoint()
    return one + 1


def die() -> NoReturn:
    os._exit(3)


def write_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(3600)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@each("make", [new, reused])
@each("backend", ["asyncio", "trio"])
def test_loky_keeps_what_tasks_rely_on(make: Any, backend: str) -> None:
    report = check_executor(make, backend=backend)

    assert (True, 2, True) == (
        report.in_other_process,
        report.workers,
        report.survives_dead_worker,
    )


async def test_results_go_by_name(registry: TaskRegistry, pool: Any) -> None:
    registry.task(executor="loky")(one)
    registry.task(executor="loky")(added)

    results = await TaskScheduler(registry, executors={"loky": pool}).run()

    assert 2 == results["added"].result


async def test_a_lambda_and_what_it_returns_go_by_value(registry: TaskRegistry, pool: Any) -> None:
    factor = 3
    registry.task("made", executor="loky")(lambda: lambda: 2 * factor)

    results = await TaskScheduler(registry, executors={"loky": pool}).run()

    assert 6 == results["made"].result()


@each("make", [new, reused])
async def test_a_worker_that_dies_fails_its_attempt_alone(
    registry: TaskRegistry, make: Any
) -> None:
    registry.task("culprit", executor="loky", retries=2)(die)
    for number in range(6):
        registry.task(f"innocent {number}", executor="loky")(one)

    with anyio.fail_after(100):
        results = await TaskScheduler(registry, executors={"loky": make}).run()

    assert ["culprit"] == [result.task_name for result in results.failed]
    assert isinstance(results["culprit"].exception, WorkerDiedError)
    assert [1] * 6 == [result.attempts for result in results.completed]


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@each("make", [new, reused])
async def test_a_call_that_would_go_on_for_an_hour_ends_with_the_run(
    registry: TaskRegistry, tmp_path: Path, make: Any
) -> None:
    path = tmp_path / "pid"

    def hang() -> None:
        write_and_sleep(str(path))

    registry.task("hangs", executor="loky", timeout=3)(hang)
    registry.task("after", executor="loky", after=["hangs"])(pid)

    with anyio.fail_after(100):
        results = await TaskScheduler(registry, executors={"loky": make}).run()

    assert isinstance(results["hangs"].exception, TaskTimeoutError)
    # On a slow machine the one that hangs may not have come so far as to write.
    written = [int(path.read_text())] if path.exists() else []
    processes = [*written, results["after"].result]
    with anyio.fail_after(60):
        while any(map(is_alive, processes)):  # noqa: ASYNC110 - it is no task that ends them
            await anyio.sleep(0.01)

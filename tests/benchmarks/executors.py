"""What it costs to run tasks in an executor, beside the executor's own `submit` of the same calls.

Three figures for each. Everything submitted at once, by itself: what the executor can do. The same
calls by hand with as few in flight as a run has: so much is the price of honest priorities, since
what waits in the executor cannot be overtaken. And the run.
"""

import asyncio
import subprocess
import sys
import sysconfig
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import calls
import checkout  # noqa: F401  (before portable_sched, which it makes findable)
from backends import BACKENDS
from measure import interleaved_medians
from tables import Score, print_table

from portable_sched import TaskRegistry, TaskScheduler
from portable_sched._processes import ProcessExecutor

WORKERS = 2
REPEATS = 3
TESTS = {"test", "tests", "idle_test"}
CALLS = {"no-op": (calls.no_op, 2_000), "1 ms": (calls.one_ms, 1_000), "10 ms": (calls.ten_ms, 200)}

Reading = Callable[[], float]


def spawned(workers: int = WORKERS) -> ProcessPoolExecutor:
    """A pool of the standard library."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


@contextmanager
def dask_cluster() -> Iterator[str]:
    """The address of a scheduler with two workers, each a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        address_file = Path(name) / "scheduler.json"
        here = str(Path(__file__).parent)
        common: dict[str, Any] = {
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "cwd": here,
        }
        options = ["--no-dashboard", "--scheduler-file", str(address_file)]
        module = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        processes = [subprocess.Popen([*module, "--port", "0", "--no-show", *options], **common)]
        try:
            while not (address_file.exists() and address_file.read_text("utf-8")):
                sleep(0.01)
            module = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
            processes += [
                subprocess.Popen([*module, "--no-nanny", *options], **common)
                for _ in range(WORKERS)
            ]
            from distributed import Client  # noqa: PLC0415 - not everybody has Dask

            with Client(scheduler_file=str(address_file), set_as_default=False) as client:
                client.wait_for_workers(WORKERS)
                yield client.scheduler.address
        finally:
            for process in processes:
                process.kill()
                process.wait()


@contextmanager
def executors() -> Iterator[dict[str, tuple[Executor, Executor, int, float | None]]]:
    """By name: for ours, by itself, how many calls a run has in flight, and the target."""
    found: dict[str, tuple[Executor, Executor, int, float | None]] = {}
    pool, own = spawned(), ProcessExecutor(WORKERS)
    threads = ThreadPoolExecutor(WORKERS)
    found["ProcessPoolExecutor"] = pool, pool, 2 * WORKERS, 0.8
    found['"process"'] = own, own, 2 * WORKERS, None
    found["ThreadPoolExecutor"] = threads, threads, 2 * WORKERS, None
    made: list[Executor] = [pool, own, threads]
    try:
        import loky  # noqa: PLC0415 - not everybody has it

        loky_pool = loky.ProcessPoolExecutor(WORKERS)
        made.append(loky_pool)
        found["loky"] = loky_pool, loky_pool, 2 * WORKERS, 0.8
    except ImportError:
        print("\nloky is not installed.")
    try:
        from portable_sched.dask import DaskExecutor  # noqa: PLC0415 - not everybody has it
    except ImportError:
        print("\nDask is not installed.")
        yield found
    else:
        with dask_cluster() as address:
            dask = DaskExecutor(address)
            made.append(dask)
            plain = dask.client.get_executor(pure=False)
            found["Dask"] = dask, plain, WORKERS + dask.look_ahead, 0.9
            yield found
            made.pop().shutdown()
    for executor in made:
        executor.shutdown()


def report(options: Namespace) -> None:
    """Measure each executor, call and backend, and print the tables."""
    score = Score()
    rows = []
    with executors() as found:
        for name, (executor, plain, in_flight, target) in found.items():
            for kind, (call, count) in CALLS.items():
                wait([plain.submit(call) for _ in range(20)])
                rows += rows_of(
                    score,
                    (name, kind),
                    (executor, plain, in_flight),
                    (call, count if name != "Dask" else count // 2),
                    target if kind == "no-op" else None,
                )
    head = ("executor", "call", "alone", "few in flight", "backend", "a run", "of alone", "of few")
    print_table(f"### Calls a second, {WORKERS} workers", head, rows)
    print(
        f"\nMedians of {REPEATS} interleaved runs, wall time. Alone: everything submitted at once. "
        "Few in\nflight: by hand, with as many at one time as the run has at most."
        f"\n\n{score}"
    )
    report_census()


def rows_of(
    score: Score,
    names: tuple[str, str],
    where: tuple[Executor, Executor, int],
    what: tuple[Callable[[], None], int],
    target: float | None,
) -> list[list[str]]:
    """One line for each backend."""
    executor, plain, in_flight = where
    call, count = what
    registry = TaskRegistry()
    for number in range(count):
        registry.task(f"{number}", executor="measured")(call)
    backends = ["asyncio", "trio"]
    contenders: dict[str, Reading] = {
        "alone": partial(seconds_alone, plain, call, count),
        "few": partial(seconds_by_hand, plain, call, count, in_flight),
    }
    for backend in backends:
        contenders[backend] = partial(seconds_of_run, backend, registry, executor)
    medians = interleaved_medians(contenders, REPEATS)
    rates = {name: count / seconds for name, seconds in medians.items()}
    return [
        [
            *names,
            f"{rates['alone']:,.0f}",
            f"{rates['few']:,.0f}",
            backend,
            f"{rates[backend]:,.0f}",
            score.at_least(rates[backend] / rates["alone"], target),
            f"{rates[backend] / rates['few']:.2f}",
        ]
        for backend in backends
    ]


def seconds_alone(executor: Executor, call: Callable[[], None], count: int) -> float:
    """Submit everything, and wait."""
    start = perf_counter()
    wait([executor.submit(call) for _ in range(count)])
    return perf_counter() - start


def seconds_by_hand(
    executor: Executor, call: Callable[[], None], count: int, in_flight: int
) -> float:
    """The least that an event loop can do: the next call when one has ended."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        begun = ended = 0

        def begin() -> None:
            nonlocal begun
            if begun < count:
                begun += 1
                future = executor.submit(call)
                future.add_done_callback(lambda _: loop.call_soon_threadsafe(end))

        def end() -> None:
            nonlocal ended
            ended += 1
            begin()
            if ended == count:
                done.set()

        for _ in range(in_flight):
            begin()
        await done.wait()

    start = perf_counter()
    asyncio.run(main())
    return perf_counter() - start


def seconds_of_run(backend: str, registry: TaskRegistry, executor: Executor) -> float:
    """Run the graph, which is at hand."""
    scheduler = TaskScheduler(registry, executors={"measured": executor})
    assert len(scheduler.graph) == len(registry)
    start = perf_counter()
    results = BACKENDS[backend].run(scheduler.run)
    seconds = perf_counter() - start
    assert results.ok
    return seconds


def report_census() -> None:
    """Parse the standard library on threads, on one process and on two."""
    registry = {where: census(where) for where in ("thread", "cpu")}
    wheres: dict[str, tuple[str, int]] = {
        "threads": ("thread", 1),
        "1 process": ("cpu", 1),
        "2 processes": ("cpu", 2),
    }
    contenders = {
        name: partial(seconds_of_census, registry[executor], workers)
        for name, (executor, workers) in wheres.items()
    }
    medians = interleaved_medians(contenders, 3)
    rows = [
        [name, f"{seconds:.2f}", f"{medians['1 process'] / seconds:.2f}"]
        for name, seconds in medians.items()
    ]
    head = ("where", "seconds", "times as fast as 1 process")
    print_table(f"### The census: {len(registry['cpu']):,} packages parsed", head, rows)
    print("\nWall time, medians of 3 interleaved runs; starting the processes is part of it.")


def census(executor: str) -> TaskRegistry:
    """A task for each package of the standard library, the largest first."""
    folder = Path(sysconfig.get_path("stdlib"))
    registry = TaskRegistry()
    for path in sorted(folder.iterdir()):
        files = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
        # Without its tests, as the census leaves them out: they are as much as all the rest.
        files = [file for file in files if TESTS.isdisjoint(file.parts)]
        if path.name == "site-packages" or not files:
            continue
        size = sum(file.stat().st_size for file in files)
        function = partial(calls.statements_in, [str(file) for file in files])
        registry.task(path.name, estimate=size, executor=executor)(function)
    return registry


def seconds_of_census(registry: TaskRegistry, workers: int) -> float:
    """Run the census."""
    scheduler = TaskScheduler(registry, executors={"cpu": partial(spawned, workers)})
    start = perf_counter()
    results = BACKENDS["asyncio"].run(scheduler.run)
    seconds = perf_counter() - start
    assert results.ok, results
    assert sum(result.result for result in results) > 100_000
    return seconds

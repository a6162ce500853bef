"""One graph in this process, on its processors, or on a Dask cluster: which number goes furthest?

    python examples/cluster.py
    python examples/cluster.py --on processes
    python examples/cluster.py --on dask --backend trio
    python examples/cluster.py --on dask --address tcp://10.0.0.1:8786

A number that is even is halved, another one tripled and increased by one, until it is 1 (Collatz).
Four tasks look through a quarter of the numbers each, and two more, and a last one, compare what
they have found. They are the same functions wherever they run: all that differs is the executor
that the tasks name. Without an address Dask starts two workers on this machine.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import anyio

from portable_sched import TaskRegistry, TaskScheduler

NUMBERS = 200_000

Found = tuple[int, int]
"""How many steps, and from where."""


def longest_chain(start: int, stop: int) -> Found:
    """The longest way from a number of that range."""
    best = 0, 0
    for number in range(start, stop):
        steps, at = 0, number
        while at != 1:
            at = at // 2 if at % 2 == 0 else 3 * at + 1
            steps += 1
        best = max(best, (steps, number))
    return best


def lower(first: Found, second: Found) -> Found:
    """The better one of the lower half."""
    return max(first, second)


def upper(third: Found, fourth: Found) -> Found:
    """The better one of the upper half."""
    return max(third, fourth)


async def longest(lower: Found, upper: Found) -> Found:
    """The best one, and an `async def` may run anywhere too."""
    return max(lower, upper)


def process() -> int:
    """Who has done it."""
    return os.getpid()


def graph(executor: str | None) -> TaskRegistry:
    """The tasks, in an executor of that name, or in this process."""
    registry = TaskRegistry()
    task = partial(registry.task, executor=executor)
    quarter = NUMBERS // 4
    for number, name in enumerate(["first", "second", "third", "fourth"]):
        start, stop = max(1, number * quarter), (number + 1) * quarter
        task(name)(partial(longest_chain, start, stop))
    for function in (lower, upper, longest, process):
        task()(function)
    return registry


def on_dask(address: str | None) -> Callable[[], Any]:
    """What makes the executor when the run first needs it."""
    from portable_sched.dask import DaskExecutor  # noqa: PLC0415 - not everybody has Dask

    if address is not None:
        return lambda: DaskExecutor(address)
    return lambda: DaskExecutor(n_workers=2, threads_per_worker=1, dashboard_address=":0")


def main() -> None:
    """Run the graph where the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--on", choices=["here", "processes", "dask"], default="here")
    parser.add_argument("--address", help="of a Dask scheduler")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()

    executor = {"here": None, "processes": "process", "dask": "cluster"}[options.on]
    executors = {"cluster": on_dask(options.address)} if options.on == "dask" else {}
    scheduler = TaskScheduler(graph(executor), executors=executors)
    began = perf_counter()
    results = anyio.run(scheduler.run, backend=options.backend)
    took = perf_counter() - began

    print(scheduler.report(results))
    results.raise_for_failures()
    steps, number = results[longest].result
    where = "in this process" if results[process].result == os.getpid() else "in another process"
    print(
        f"\nBelow {NUMBERS:,} it is {number:,}, with {steps} steps. Found {where} in {took:.2f} s."
    )


if __name__ == "__main__":
    main()

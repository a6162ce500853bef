"""A million tasks: time per task against ten thousand, memory, and how the loop responds.

Each is measured in a process of its own, since memory that was once taken is seldom given back.
Run as a program, this module is that process: `python tests/benchmarks/scale.py chain`.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import checkout  # noqa: F401  (before portable_sched, which it makes findable)
from backends import BACKENDS, Body, another_no_op
from measure import cpu_seconds_on
from ours import build_and_run
from tables import Score, print_table

from portable_sched import RunResults, TaskRegistry, TaskScheduler

MANY = 1_000_000
FEW = 10_000
BEAT = 0.001  # seconds
STATM = Path("/proc/self/statm")

MOST_GROWTH = 1.5
MOST_KIB = 1.2
MOST_GAP = 20.0  # milliseconds, at the 99th percentile


def report(options: Namespace) -> None:
    """Measure in fresh processes and print two tables."""
    score = Score()
    rows = []
    beats: list[list[Any]] = []
    for shape in ("chain", "wide"):
        if shape in options.shapes:
            [few, many, kib], gaps = in_fresh_process(shape)
            beats.extend(gaps)
            rows.append(
                [
                    shape,
                    f"{few:.2f}",
                    f"{many:.2f}",
                    score.against(many / few, MOST_GROWTH),
                    score.against(kib, MOST_KIB) if kib else "not known here",
                ]
            )
    head = ("shape", f"µs a task at {FEW:,}", f"at {MANY:,}", "growth", "KiB of memory a task")
    print_table("### A million tasks", head, rows)
    print(
        "\nCPU time of building, validating and running no-ops on asyncio. Memory: what the process"
        f"\ngrew by, definitions, graph and results included, at {MANY:,} tasks."
    )
    if beats:
        report_heartbeat(beats, score)
    print(f"\n{score}")


def report_heartbeat(beats: Sequence[Sequence[Any]], score: Score) -> None:
    """Print the gaps between the beats of a 1 ms heartbeat that shares its loop with a run."""
    rows = [
        [
            graph,
            f"{middle:.1f}",
            score.against(late, MOST_GAP, digits=1),
            f"{worst:.1f}",
            f"{count}",
        ]
        for graph, middle, late, worst, count in beats
    ]
    head = ("graph", "median", "99th percentile", "worst", "beats")
    print_table(
        f"### {MANY:,} no-ops, wide, beside a heartbeat of 1 ms in the same loop: ms", head, rows
    )


def in_fresh_process(shape: str) -> Any:
    """What this module measures when it is run as a program."""
    done = subprocess.run(
        [sys.executable, __file__, shape], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def no_ops(count: int) -> list[Body]:
    """So many functions that do nothing."""
    return [another_no_op() for _ in range(count)]


def define(shape: str, functions: list[Body]) -> TaskRegistry:
    """A registry of no-ops, with nothing beside it that would count as memory of ours."""
    registry = TaskRegistry()
    dependencies: list[str] = []
    gc.disable()  # nothing here is garbage, and a million definitions take long to look through
    for number, function in enumerate(functions):
        name = f"task-{number}"
        registry.task(name=name, depends_on=dependencies)(function)
        if shape == "chain":
            dependencies = [name]
    gc.enable()
    return registry


def measure(shape: str) -> tuple[list[float], list[list[Any]]]:
    """µs a task at FEW and at MANY and KiB a task; and for wide the lines on the heartbeat."""
    few = median(seconds_to_run(define(shape, no_ops(FEW))) for _ in range(5))
    functions = no_ops(MANY)  # the user's, so they do not count; what is noted on them does
    before = resident_kib()
    registry = define(shape, functions)
    after = before

    async def run_and_weigh() -> tuple[TaskScheduler, RunResults]:
        nonlocal after
        kept = await build_and_run(registry)
        after = resident_kib()
        return kept

    many = cpu_seconds_on(BACKENDS["asyncio"], run_and_weigh)
    figures = [few / FEW * 1e6, many / MANY * 1e6, (after - before) / MANY]
    return figures, asyncio.run(heartbeats(registry)) if shape == "wide" else []


def seconds_to_run(registry: TaskRegistry) -> float:
    """The CPU time of building, validating and running on asyncio."""
    return cpu_seconds_on(BACKENDS["asyncio"], partial(build_and_run, registry))


def resident_kib() -> float:
    """The memory of this process that is in RAM; 0 where the system has no `/proc` to tell it."""
    if not STATM.exists():
        return 0.0
    pages = int(STATM.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


async def gaps_beside(scheduler: TaskScheduler) -> list[float]:
    """The gaps in ms between the beats of a heartbeat that shares its loop with a run.

    The collector is left as users have it: its pauses are part of what a heartbeat feels.
    """
    now = asyncio.get_running_loop().time
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(now())
            await asyncio.sleep(BEAT)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(BEAT)
    await scheduler.run()
    beats.append(now())  # a beat that came too late to be heard is a gap all the same
    heart.cancel()
    return [(later - earlier) * 1e3 for earlier, later in pairwise(beats)]


async def heartbeats(registry: TaskRegistry) -> list[list[Any]]:
    """The heartbeat beside a run that builds its graph, and beside one that has it."""
    gc.unfreeze()
    gc.collect()
    scheduler = TaskScheduler(registry)
    return [
        [graph, *summary(await gaps_beside(scheduler))] for graph in ("built in the run", "at hand")
    ]


def summary(gaps: list[float]) -> tuple[float, float, float, int]:
    """Median, 99th percentile, the worst, and how many there were."""
    late = quantiles(gaps, n=100, method="inclusive")[98]
    return median(gaps), late, max(gaps), len(gaps)


def main(shape: str) -> None:
    """Measure `shape` in this process and print it for `in_fresh_process`."""
    print(json.dumps(measure(shape)))


if __name__ == "__main__":
    main(sys.argv[1])

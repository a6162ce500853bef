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
    for shape in ("chain", "wide"):
        if shape in options.shapes:
            few, many, kib = in_fresh_process(shape)
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
    report_heartbeat(score)
    print(f"\n{score}")


def report_heartbeat(score: Score) -> None:
    """Print the gaps between the beats of a 1 ms heartbeat that shares its loop with a run."""
    labels = ("first run, which builds the graph", "second run, the graph at hand")
    rows = [
        [
            label,
            f"{middle:.1f}",
            score.against(late, MOST_GAP, digits=1),
            f"{worst:.1f}",
            f"{beats:,.0f}",
        ]
        for label, (middle, late, worst, beats) in zip(
            labels, in_fresh_process("heartbeat"), strict=True
        )
    ]
    head = ("gap between beats, ms", "median", "99th percentile", "worst", "beats")
    print_table(f"### {MANY:,} no-ops beside a heartbeat of 1 ms in the same loop", head, rows)


def in_fresh_process(what: str) -> Any:
    """What this module measures when it is run as a program."""
    done = subprocess.run(
        [sys.executable, __file__, what], check=True, stdout=subprocess.PIPE, text=True
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


def growth(shape: str) -> tuple[float, float, float | None]:
    """µs a task at FEW and at MANY, and KiB a task at MANY (None where memory is not told)."""
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
    kib = (after - before) / MANY if before and after else None
    return few / FEW * 1e6, many / MANY * 1e6, kib


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


async def heartbeats() -> list[list[float]]:
    """The heartbeat beside a run that builds its graph, and beside one that has it."""
    scheduler = TaskScheduler(define("wide", no_ops(MANY)))
    return [summary(await gaps_beside(scheduler)) for _ in range(2)]


def summary(gaps: list[float]) -> list[float]:
    """Median, 99th percentile, the worst, and how many there were."""
    late = quantiles(gaps, n=100, method="inclusive")[98]
    return [median(gaps), late, max(gaps), len(gaps)]


def main(what: str) -> None:
    """Measure `what` in this process and print it for `in_fresh_process`."""
    print(json.dumps(asyncio.run(heartbeats()) if what == "heartbeat" else growth(what)))


if __name__ == "__main__":
    main(sys.argv[1])

"""Fetch, transform, load: three tasks, run on asyncio and then, unchanged, on trio.

    python examples/quickstart.py

The database refuses the first two connections, and `load` may try three times.
"""

import asyncio
from dataclasses import dataclass, field
from itertools import cycle

import anyio
import trio

from portable_sched import Priority, RunResults, TaskScheduler, task


@dataclass
class Desk:
    """Where each task leaves what the next one needs."""

    downloaded: str = ""
    readings: dict[str, float] = field(default_factory=dict)
    stored: dict[str, float] = field(default_factory=dict)


desk = Desk()
database_answers = cycle([False, False, True])


@task(name="fetch", priority=Priority.HIGH)
async def fetch() -> int:
    """Download this morning's temperatures, as text; returns its length."""
    await anyio.sleep(0.1)
    desk.downloaded = "Oslo: 4.5, Lima: 19.0, Cairo: 31.5, Quito: 14.0"
    return len(desk.downloaded)


@task(name="transform", depends_on=["fetch"])
async def transform() -> int:
    """Read the text; returns how many temperatures it has."""
    pairs = (entry.split(": ") for entry in desk.downloaded.split(", "))
    desk.readings = {city: float(celsius) for city, celsius in pairs}
    return len(desk.readings)


@task(name="load", depends_on=["transform"], priority=Priority.LOW, retries=3)
async def load() -> int:
    """Store the temperatures; returns how many there are by now."""
    await anyio.sleep(0.05)
    if not next(database_answers):
        raise ConnectionError("the database is starting up")
    desk.stored.update(desk.readings)
    return len(desk.stored)


def show(backend: str, scheduler: TaskScheduler, results: RunResults) -> None:
    """Print the report, and what became of the last task."""
    print(f"On {backend}:\n")
    print(scheduler.report(results))
    loaded = results[load]
    print()
    for failure in loaded.failures:
        print(f"load, attempt {failure.attempt}: {failure.exception}")
    print(f"load, attempt {loaded.attempts}: {loaded.result} temperatures stored\n")


def main() -> None:
    """Run the three tasks on each backend."""
    scheduler = TaskScheduler()
    show("asyncio", scheduler, asyncio.run(scheduler.run()))
    show("trio", scheduler, trio.run(scheduler.run))


if __name__ == "__main__":
    main()

"""What we are measured against: the programs one would write without us, and the fastest peer.

O and T keep what our results keep (name, status, attempts, result, error, times) and do no more:
no limits, no priority, no retries, and a failure is written down without telling the dependents.
"""

import asyncio
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from types import ModuleType

import anyio
import trio
from backends import Body, BodyOfResults
from shapes import Graph


@dataclass(slots=True)
class Record:
    """What O and T keep of a task."""

    name: str
    status: str = "PENDING"
    attempts: int = 0
    result: object = None
    error: Exception | None = None
    started: float | None = None
    ended: float | None = None


async def attempt(record: Record, body: Body) -> None:
    """Run `body` once and write down how it went."""
    record.status = "RUNNING"
    record.attempts += 1
    record.started = monotonic()
    try:
        record.result = await body()
        record.status = "COMPLETED"
    except Exception as error:  # noqa: BLE001  (any failure is a result, as it is with us)
        record.error = error
        record.status = "FAILED"
    record.ended = monotonic()


async def obvious_asyncio(names: Sequence[str], graph: Graph, body: Body) -> list[Record]:
    """O: a coroutine and an `asyncio.Event` for each task, all under one `gather`."""
    records = [Record(name) for name in names]
    done = [asyncio.Event() for _ in names]

    async def carry_out(number: int) -> None:
        for dependency in graph[number]:
            await done[dependency].wait()
        await attempt(records[number], body)
        done[number].set()

    await asyncio.gather(*(carry_out(number) for number in range(len(names))))
    return records


async def obvious_trio(names: Sequence[str], graph: Graph, body: Body) -> list[Record]:
    """T: a nursery, and a `trio.Event` for each task."""
    records = [Record(name) for name in names]
    done = [trio.Event() for _ in names]

    async def carry_out(number: int) -> None:
        for dependency in graph[number]:
            await done[dependency].wait()
        await attempt(records[number], body)
        done[number].set()

    async with trio.open_nursery() as nursery:
        for number in range(len(names)):
            nursery.start_soon(carry_out, number)
    return records


async def bare_task_group(size: int, body: Body) -> None:
    """G: an anyio task group that spawns the bodies, keeping nothing and waiting for nothing."""
    async with anyio.create_task_group() as group:
        for _ in range(size):
            group.start_soon(body)


def find_async_dag() -> ModuleType | None:
    """The package async-dag; None where it is not installed (it needs Python 3.12)."""
    if importlib.util.find_spec("async_dag"):
        return importlib.import_module("async_dag")
    return None


async def async_dag(package: ModuleType, graph: Graph, body: BodyOfResults) -> object:
    """A: the same graph built, sorted and run by async-dag; nodes take what they depend on."""
    with package.build_dag() as manager:
        nodes: list[object] = []
        for dependencies in graph:
            nodes.append(manager.add_node(body, *(nodes[number] for number in dependencies)))
    return await manager.invoke(None)

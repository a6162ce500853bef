"""The event loops that are timed, and the bodies that tasks run on each."""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

import trio

Program: TypeAlias = Callable[[], Coroutine[Any, Any, float]]
Body: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
BodyOfResults: TypeAlias = Callable[..., Coroutine[Any, Any, object]]


async def no_op() -> None:
    """End at once, without giving way to the event loop."""
    return


def another_no_op() -> Body:
    """A `no_op` that is a function of its own, as the tasks of a real program are."""

    async def body() -> None:
        return

    return body


async def suspend_on_asyncio() -> None:
    """Give way for one turn of the loop, the cheapest way asyncio has."""
    await asyncio.sleep(0)


async def suspend_on_trio() -> None:
    """Give way for one turn of the loop, the cheapest way that trio tells its users of."""
    await trio.lowlevel.checkpoint()


async def no_op_of_results(*results: object) -> None:
    """`no_op` for async-dag, which hands every node the results it depends on."""
    return


async def suspend_of_results(*results: object) -> None:
    """`suspend_on_asyncio` for async-dag."""
    await asyncio.sleep(0)


# async-dag runs on asyncio alone, so one body of its form is enough.
BODIES_OF_RESULTS: dict[str, BodyOfResults] = {
    "no-op": no_op_of_results,
    "suspends": suspend_of_results,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """An event loop: its name, how to run a program on it, and the bodies that suit it."""

    name: str
    run: Callable[[Program], float]
    bodies: dict[str, Body]


def run_on_asyncio(program: Program) -> float:
    """What `program` returns, run on asyncio's own event loop."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(program())


def run_on_uvloop(program: Program) -> float:
    """What `program` returns, run on uvloop."""
    uvloop = importlib.import_module("uvloop")  # here, because there is none for Windows
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(program())


def run_on_trio(program: Program) -> float:
    """What `program` returns, run on trio."""
    return trio.run(program)


ASYNCIO_BODIES: dict[str, Body] = {"no-op": no_op, "suspends": suspend_on_asyncio}
TRIO_BODIES: dict[str, Body] = {"no-op": no_op, "suspends": suspend_on_trio}

BACKENDS = {
    "asyncio": Backend(name="asyncio", run=run_on_asyncio, bodies=ASYNCIO_BODIES),
    "uvloop": Backend(name="uvloop", run=run_on_uvloop, bodies=ASYNCIO_BODIES),
    "trio": Backend(name="trio", run=run_on_trio, bodies=TRIO_BODIES),
}


def installed_backends() -> list[str]:
    """The names of the backends that can be timed here."""
    return [name for name in BACKENDS if importlib.util.find_spec(name)]

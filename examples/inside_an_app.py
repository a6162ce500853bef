"""Graphs inside a running application: a small shop on asyncio, and the same shop on trio.

    python examples/inside_an_app.py
    python examples/inside_an_app.py --backend trio --seconds 60      (and press Ctrl-C)

The shop takes an order every fifth of a second, and each order is a graph, run beside the others
in the event loop of the application. The courier of order 3 never comes. When the shop closes,
every run that is still under way is cancelled, and tells how far it got.
"""

import argparse
import asyncio
import signal
from contextlib import suppress
from itertools import count
from textwrap import indent

import anyio
import trio

from portable_sched import Priority, TaskScheduler, task

SECONDS_BETWEEN_ORDERS = 0.2
LOST_ORDER = 3
BACKENDS = ["asyncio", "trio"]


# What is done for an order, the same on every backend: check, then charge and pack at the same
# time, then ship, then thank. `order` is an input of the run, the other parameters are results.


@task
async def check(order: int) -> float:
    """See that there is enough of it; returns the price."""
    await anyio.sleep(0.02)
    return 9.5 * order


@task(priority=Priority.HIGH)
async def charge(check: float) -> str:
    """Take the money; returns the receipt."""
    await anyio.sleep(0.05)
    return f"{check:.2f} paid"


@task(depends_on=[check])
async def pack(order: int) -> str:
    """Fill the parcel; returns its label."""
    await anyio.sleep(0.08)
    return f"parcel {order}"


@task(depends_on=[charge, pack])
async def ship(order: int) -> None:
    """Wait for the courier."""
    await (anyio.sleep_forever() if order == LOST_ORDER else anyio.sleep(0.05))


@task(depends_on=[ship])
async def thank(charge: str, pack: str) -> str:
    """Write to the customer."""
    await anyio.sleep(0.01)
    return f"{charge}, {pack} is on its way"


async def handle_order(number: int) -> None:
    """Run the graph for one order, and tell how far it got, also if it is cancelled on the way."""
    scheduler = TaskScheduler()  # with one for each order, its results are at hand whatever happens
    try:
        await scheduler.run(inputs={"order": number})
    finally:
        results = scheduler.results
        if results.ok:
            print(f"Order {number} is done: {results[thank].result}, {results.wall_time:.2f} s.")
        else:
            print(f"Order {number} was cut short:")
            print(indent(scheduler.report(results), "    "))


# The two applications, each written as its backend likes it best.


async def asyncio_shop(seconds: float) -> None:
    """Take orders until closing time, or until Ctrl-C, by which `asyncio.run()` cancels us."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as orders:
            for number in count(1):
                orders.create_task(handle_order(number))
                await asyncio.sleep(SECONDS_BETWEEN_ORDERS)


async def trio_shop(seconds: float) -> None:
    """Take orders until closing time, or until Ctrl-C."""
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as orders:
            orders.start_soon(close_on_ctrl_c, orders.cancel_scope)
            for number in count(1):
                orders.start_soon(handle_order, number)
                await trio.sleep(SECONDS_BETWEEN_ORDERS)


async def close_on_ctrl_c(shop: trio.CancelScope) -> None:
    """Let Ctrl-C cancel the shop and nothing else."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            shop.cancel()


def main() -> None:
    """Open one shop after the other."""
    parser = argparse.ArgumentParser(description="Graphs inside a running application.")
    parser.add_argument("--backend", choices=BACKENDS, help="default: both in turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a shop is open")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):  # asyncio.run() raises it again when all is closed
        for backend in [options.backend] if options.backend else BACKENDS:
            print(f"The shop on {backend} opens.")
            try:
                if backend == "trio":
                    trio.run(trio_shop, options.seconds)
                else:
                    asyncio.run(asyncio_shop(options.seconds))
            finally:
                print(f"The shop on {backend} is closed.")


if __name__ == "__main__":
    main()

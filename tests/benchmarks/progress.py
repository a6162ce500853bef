"""What it costs to be watched: CPU time with `Progress` beside without, all threads included.

The view is drawn in a pseudo-terminal that is read by nobody but a thread of ours, whose time
counts too. The graph is at hand, so that what is measured is the run.
"""

import os
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import checkout  # noqa: F401  (before portable_sched, which it makes findable)
from backends import BACKENDS, Backend, Body
from measure import cpu_seconds_on, interleaved_medians
from ours import register, task_names
from rich.console import Console
from shapes import wide
from tables import Score, print_table

from portable_sched import TaskScheduler
from portable_sched.progress import Progress

SIZE = 100_000
REPEATS = 11  # a run takes a tenth of a second, and no more
MOST = 1.10

Reading = Callable[[], float]


def report(options: Namespace) -> None:
    """Measure each backend and body, and print a table."""
    score = Score()
    rows = []
    with terminal() as console:
        for name in options.backends or ["asyncio", "trio"]:
            backend = BACKENDS[name]
            for kind, body in backend.bodies.items():
                without, watched = readings_of(backend, body, console)
                rows.append(
                    [
                        name,
                        kind,
                        f"{without / SIZE * 1e6:.2f}",
                        f"{watched / SIZE * 1e6:.2f}",
                        score.against(watched / without, MOST),
                    ]
                )
    head = ("backend", "body", "µs a task without", "with Progress", "ratio")
    print_table(f"### {SIZE:,} tasks with live progress", head, rows)
    print(
        f"\nCPU time of all threads for running a graph that is at hand, wide, medians of {REPEATS}"
        f"\ninterleaved runs; a terminal of 100 x 30.\n\n{score}"
    )


def readings_of(backend: Backend, body: Body, console: Console) -> tuple[float, float]:
    """CPU seconds of a run without `Progress`, and of one with it."""
    registry = register(task_names(SIZE), wide(SIZE), body)
    schedulers = {
        "without": TaskScheduler(registry),
        "watched": TaskScheduler(registry, observers=[Progress(console)]),
    }
    contenders: dict[str, Reading] = {}
    for name, scheduler in schedulers.items():
        assert len(scheduler.graph) == SIZE
        contenders[name] = partial(cpu_seconds_on, backend, scheduler.run)
        contenders[name]()  # rich looks up much when it draws for the first time
    medians = interleaved_medians(contenders, REPEATS)
    return medians["without"], medians["watched"]


@contextmanager
def terminal() -> Iterator[Console]:
    """A console that leads to a terminal, or where the system has none, into the void."""
    os.environ.pop("CI", None)  # there are no live views where it is set
    if sys.platform == "win32":
        with Path(os.devnull).open("w", encoding="utf-8") as void:
            yield Console(file=void, force_terminal=True, width=100, height=30)
        return
    ours, theirs = os.openpty()
    reader = threading.Thread(target=read_all, args=(ours,), daemon=True)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as file:
        yield Console(file=file, force_terminal=True, width=100, height=30)
    reader.join()
    os.close(ours)


def read_all(terminal: int) -> None:
    """Read what comes, to the end."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return  # this is how a terminal of Linux ends

"""CPU time, taken so that one contender does not pay for another."""

import gc
from collections.abc import Callable, Coroutine, Mapping
from statistics import median
from time import process_time
from typing import Any, TypeAlias, TypeVar

from backends import Backend

Work: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
Key = TypeVar("Key")


def set_aside_what_exists() -> None:
    """From here on the garbage collector does not walk what is there already."""
    gc.collect()
    gc.freeze()


def cpu_seconds(work: Callable[[], object]) -> float:
    """The CPU time of `work()`, without that of taking apart what it returns."""
    set_aside_what_exists()
    start = process_time()
    kept = work()
    seconds = process_time() - start
    del kept
    return seconds


def cpu_seconds_on(backend: Backend, work: Work) -> float:
    """The CPU time of `await work()`, without starting the event loop and without the clean-up."""

    async def timed() -> float:
        start = process_time()
        kept = await work()
        seconds = process_time() - start
        del kept
        return seconds

    set_aside_what_exists()
    return backend.run(timed)


def interleaved_medians(
    contenders: Mapping[Key, Callable[[], float]], repeats: int
) -> dict[Key, float]:
    """The median of `repeats` readings of each contender.

    They take turns, so that a slow spell of the machine hits them alike.
    """
    readings: dict[Key, list[float]] = {key: [] for key in contenders}
    for _ in range(repeats):
        for key, read in contenders.items():
            readings[key].append(read())
    gc.unfreeze()  # once here and not after each reading: the next collection walks it all again
    return {key: median(values) for key, values in readings.items()}

"""The matrix: every async test runs on each backend, in real time or, where it says so, virtual.

A test marked `virtual_time` takes no time at all: the clock jumps to whatever is due next. uvloop
has no such clock, so those tests are not collected for it. Threads need the real clock, since a
virtual one jumps while a thread works.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import anyio
import pytest
import trio.testing
from executor_runs import spawned

from portable_sched import TaskRegistry, clear_registry
from portable_sched.testing import VirtualTimeLoop

BACKENDS = ["asyncio", "asyncio-eager", "uvloop", "trio"]


def _eager(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    loop = new_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


def backend_options(backend: str, *, virtual_time: bool) -> tuple[str, dict[str, Any]]:
    """What `anyio.run(..., backend=, backend_options=)` takes for one column of the matrix."""
    if backend == "trio":
        clock = trio.testing.MockClock(autojump_threshold=0) if virtual_time else None
        return "trio", {"clock": clock}
    if backend == "uvloop":
        return "asyncio", {"use_uvloop": True}
    new_loop: Callable[[], asyncio.AbstractEventLoop]
    new_loop = VirtualTimeLoop if virtual_time else asyncio.new_event_loop
    if backend == "asyncio-eager":
        new_loop = partial(_eager, new_loop)
    return "asyncio", {"loop_factory": new_loop}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=["asyncio", "uvloop", "trio"],
        help="run the async tests on this backend alone (asyncio: with and without eager tasks)",
    )


def _missing(backend: str) -> bool:
    if backend == "uvloop":
        return sys.platform == "win32"
    return backend == "asyncio-eager" and sys.version_info < (3, 12)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what the chosen backend, this Python, or uvloop's clock rules out."""
    wanted = config.getoption("--backend")
    kept, ruled_out = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        backend = callspec.params.get("anyio_backend") if callspec else None
        no_virtual_time = backend == "uvloop" and item.get_closest_marker("virtual_time")
        unwanted = backend and wanted and not backend.startswith(wanted)
        # Tests without a backend run once in the matrix, with asyncio.
        elsewhere = backend is None and wanted in {"uvloop", "trio"}
        out = (backend and _missing(backend)) or no_virtual_time or unwanted or elsewhere
        (ruled_out if out else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=ruled_out)


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    virtual_time = request.node.get_closest_marker("virtual_time") is not None
    return backend_options(request.param, virtual_time=virtual_time)


@pytest.fixture
def run_on_backend(anyio_backend: tuple[str, dict[str, Any]]) -> Callable[..., Any]:
    """`run_on_backend(async_function, *args)` from a test that is not async itself.

    For what `run()` does to the event loop as a whole, such as raising `KeyboardInterrupt`.
    """
    name, options = anyio_backend
    if name == "trio":
        # Not through anyio, whose older versions drop the options, and with them the clock.
        return lambda function, *args: trio.run(function, *args, **options)
    return partial(anyio.run, backend=name, backend_options=options)


@pytest.fixture(autouse=True, scope="session")
def _pools_of_python_3_11() -> Iterator[None]:
    """There, a pool that breaks while it is given a call may stumble; it is no fault of ours."""
    tell = threading.excepthook

    def tell_the_rest(args: threading.ExceptHookArgs) -> None:
        of_pool = type(args.thread).__name__ == "_ExecutorManagerThread"
        if not (of_pool and "dictionary changed size" in str(args.exc_value)):
            tell(args)

    if sys.version_info < (3, 12):
        threading.excepthook = tell_the_rest
    yield
    threading.excepthook = tell


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """No test sees another's tasks."""
    clear_registry()
    yield
    clear_registry()


@pytest.fixture
def registry() -> TaskRegistry:
    return TaskRegistry()


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """For what leaves it whole."""
    with spawned() as executor:
        yield executor


@pytest.fixture
def process() -> Iterator[BaseProcess]:
    """One that goes on until it is ended."""
    process = get_context("spawn").Process(target=time.sleep, args=(3600,))
    process.start()
    yield process
    process.kill()
    process.join()

"""What the tests of executors share: functions, executors that do as told, runs that go on."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token

from portable_sched import TaskRegistry, TaskScheduler, TaskStatus
from portable_sched._remote_failures import RemoteFailure


def spawned(workers: int = 2) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


async def until(condition: Callable[[], object]) -> None:
    """Let others go on until it is so."""
    for _ in range(10_000):
        if condition():
            return
        await checkpoint()
    pytest.fail("it did not come to that")


def status_of(run: Any, name: str) -> TaskStatus:
    """Of a task of a run that may not have begun."""
    return dict(run.scheduler.status_snapshot())[name]


async def in_time(condition: Callable[[], object]) -> None:
    """Wait until it is so, where other threads or processes are to bring it about."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - it is no task of ours that brings it about
            await anyio.sleep(0.01)


async def settle() -> None:
    """Let all that may go on come to where it waits."""
    for _ in range(50):
        await checkpoint()


class Held(Executor):
    """Has calls until the test ends them."""

    def __init__(self, workers: int | None = 2, **abilities: Any) -> None:
        self.calls: dict[str, tuple[Future[Any], Callable[[], Any]]] = {}
        self.taken: list[str] = []
        self.shutdowns: list[bool] = []
        self.refusal: Exception | None = None
        self.begins: set[str] = set()
        self._broken: Any = False
        if workers is not None:
            self.workers = workers
        vars(self).update(abilities)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.refusal is not None:
            raise self.refusal
        future: Future[Any] = Future()
        name = args[0].task
        if name in self.begins:
            # It can be cancelled no more.
            future.set_running_or_notify_cancel()
        self.taken.append(name)
        self.calls[name] = future, partial(fn, *args, **kwargs)
        return future

    def finish(self, *names: str) -> None:
        for name in names:
            future, call = self.calls.pop(name)
            try:
                future.set_result(call())
            except RemoteFailure as failure:
                future.set_exception(failure)

    def break_down(self) -> None:
        self.refusal = BrokenExecutor("it is broken")
        for future, _ in self.calls.values():
            future.set_exception(BrokenExecutor("a process died"))
        self.calls.clear()

    def shutdown(self, wait: Any = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as Executor has it
        self.shutdowns.append(wait)


@contextmanager
def made(*executors: Any) -> Iterator[Callable[[], Any]]:
    """A function that makes each of them in turn; all of them are to be asked for."""
    left = iter(executors)
    yield lambda: next(left)
    assert [] == list(left)


@asynccontextmanager
async def running(scheduler: TaskScheduler) -> Any:
    """A run that goes on meanwhile, and has to end by the end of the block."""
    found = SimpleNamespace(results=None, scheduler=scheduler)

    async def run() -> None:
        found.results = await scheduler.run()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield found


def pid() -> int:
    return os.getpid()


def one() -> int:
    return 1


async def is_asyncio() -> bool:
    await checkpoint()
    return hasattr(current_token().native_token, "time")


def fail() -> NoReturn:
    raise ValueError("no such row")


def leave(code: Any = 3) -> NoReturn:
    sys.exit(code)


def lock() -> Any:
    return threading.Lock()


def die() -> NoReturn:
    os._exit(3)


def write_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(3600)


VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="nothing")


@contextmanager
def variable_set(value: str) -> Iterator[None]:
    token = VARIABLE.set(value)
    try:
        yield
    finally:
        VARIABLE.reset(token)


async def outcome_of(
    registry: TaskRegistry, pool: Any, function: Callable[..., Any], **settings: Any
) -> Any:
    """What a task of that function ends with, in an executor."""
    registry.task("load", executor="cpu", **settings)(function)
    scheduler = TaskScheduler(registry, executors={"cpu": pool})
    with anyio.fail_after(60):
        results = await scheduler.run(inputs=dict.fromkeys(scheduler.graph.inputs, 1))
    return results["load"]


def run_python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A program that has come to its end, in that folder, with this package."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended, and that nobody has asked about yet, is still in the table.
    status = Path(f"/proc/{process}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

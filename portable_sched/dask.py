"""Attempts on a Dask cluster: results stay there, and go from worker to worker.

    from portable_sched import TaskScheduler
    from portable_sched.dask import DaskExecutor

    scheduler = TaskScheduler(executors={"farm": lambda: DaskExecutor("tcp://10.0.0.1:8786")})

Dask's own `client.get_executor()` brings every result back to the program, which sends it out again
to whoever takes it. Here what another task of the same cluster takes by name stays where it is: the
task's result is Dask's future of it, and a task that runs elsewhere gets the value. As long as the
client is open `results["load"].result.result()` brings it: with `DaskExecutor(client)` after the
run too, since that client is yours.
"""

import pickle
from collections.abc import Awaitable, Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final
from uuid import uuid4

from ._pickling import dumped_somehow
from ._remote_failures import RESULT, RemoteFailure

try:
    from distributed import CancelledError, Client, KilledWorker
    from distributed import Future as Handle
    from distributed.deploy.cluster import Cluster
    from distributed.protocol.serialize import deserialize, serialize
    from tornado.ioloop import PeriodicCallback
except ImportError as _missing:
    raise ImportError(
        "portable_sched.dask needs dask.distributed, which is not installed: "
        "pip install 'portable_sched[dask]'"
    ) from _missing

__all__ = ["DaskExecutor"]

# Until a cluster has workers.
_AT_LEAST: Final = 1

# Seconds between two looks at how many workers there are, and those that the first may take.
_LOOK: Final = 1.0
_PATIENCE: Final = 10.0

# Bytes up to which it is tried whether what stays in a worker can be read elsewhere.
_SMALL: Final = 10_000_000

# Of a task without a priority.
_MEDIUM: Final = 2


class DaskExecutor(Executor):
    """A Dask cluster as an executor.

    Calls that are given up are cancelled: those that no worker has begun are taken out. One that
    runs goes on in its worker, which Dask cannot stop, and keeps its thread busy. Dask begins a
    call anew whose worker has died, three times by its own settings; then the attempt has failed.
    A result that was lost with a worker is worked out again: the function is called once more,
    without an attempt of the task's.

    Args:
        client: of the cluster, which stays yours; or the cluster, as a `LocalCluster`; or the
            address of its scheduler. Where it is left out a cluster is started on this machine.
        options: what else `distributed.Client` takes, as `n_workers=4`, where it is to be made.

    Attributes:
        client: of the cluster.
        workers: how many calls the cluster carries out at one time, by the last count: the threads
            of its workers.
        look_ahead: how many calls more than it has workers it is to have while calls are short. A
            call is some 20 ms on its way there and back, and Dask begins the most urgent first.
        isolates: a worker that dies breaks its own calls alone.

    Raises:
        TypeError: `client` is something else or asynchronous, or there are options for one that is
            there.
    """

    look_ahead = 64
    isolates = True

    def __init__(self, client: "Client | Cluster | str | None" = None, **options: Any) -> None:
        self._owns_client = not isinstance(client, Client)
        if isinstance(client, Client):
            if client.asynchronous:
                raise TypeError(
                    "Expected a client that works in a thread of its own, got one that was made "
                    "with asynchronous=True. Pass the cluster's address, or make another client."
                )
            if options:
                raise TypeError(
                    "Expected options for a client that is to be made, got "
                    f"{', '.join(options)} for one that is there."
                )
            self.client: Any = client
        elif client is None or isinstance(client, (str, Cluster)):
            make: Any = Client  # it has no types
            self.client = make(client, **{"set_as_default": False, **options})
        else:
            raise TypeError(
                "Expected client to be a distributed.Client, a cluster, the address of a Dask "
                f"scheduler or None, got {client!r}."
            )
        self._prefix = uuid4().hex[:8]
        self._numbers = count()
        self._is_shut_down = False
        self.workers: int = _AT_LEAST
        # What is wrong with the connection the first call will hear.
        with suppress(OSError):
            self.client.sync(self._count, callback_timeout=_PATIENCE)

    async def _count(self) -> int:
        threads = await self.client.scheduler.ncores()
        self.workers = max(_AT_LEAST, sum(threads.values()))
        return self.workers

    def follow(self, told: Callable[[int], object]) -> Callable[[], None]:
        """Have the number of workers told whenever it changes, in the client's thread.

        Args:
            told: called with it.

        Returns:
            what ends that.
        """
        known = self.workers

        async def look() -> None:
            nonlocal known
            before = known
            # The connection may be lost.
            if self.client.status == "running":
                with suppress(OSError):
                    known = await self._count()
            if known != before:
                told(known)

        following = PeriodicCallback(look, 1000 * _LOOK)
        self.client.loop.add_callback(following.start)
        return partial(self.client.loop.add_callback, following.stop)

    @staticmethod
    def dumps(value: Any) -> bytes | None:
        """A value as bytes; None for one that is in the cluster, and goes by handle."""
        return None if _has_handle(value) else dumped_somehow(value)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of what `fn(*args, **kwargs)` returns.

        Raises:
            RuntimeError: it has been shut down.
            ConnectionError: there is no connection to the cluster.
        """
        # Packed there: Dask brings several results in one message, which is lost as a whole where
        # one of them cannot be packed.
        return self._submit(_value_of, args, partial(_packed, partial(fn, **kwargs)))

    def keep(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of Dask's future of the same: the value stays where it is."""
        return self._submit(_handle_of, args, partial(_tried, partial(fn, **kwargs)))

    def fetch(self, handle: Any) -> Any:
        """The value of a future of Dask's; it blocks until it is here."""
        return handle.result() if isinstance(handle, Handle) else handle

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - as the class above has it; what is not awaited has been cancelled
        """Take no more calls; close the client if it was made here, and its cluster with it."""
        self._is_shut_down = True
        if self._owns_client:
            self.client.close()

    def _submit(
        self,
        outcome_of: Callable[[Any], Awaitable[Any]],
        args: tuple[Any, ...],
        call: Callable[..., Any],
    ) -> Future[Any]:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self.client.status != "running":
            raise self._lost()
        # As Dask's dashboard shows it: what stands before the last hyphen is the task.
        about = args[0] if args else None
        key = f"{getattr(about, 'task', 'call')}-{self._prefix}{next(self._numbers)}"
        priority = -getattr(about, "priority", _MEDIUM)
        handle = self.client.submit(call, *args, key=key, priority=priority, pure=False)
        future: Future[Any] = Future()
        # Let go of when the call has ended: what nobody has a handle of, the cluster forgets.
        held = [handle]
        future.add_done_callback(partial(_cancel, held))
        # In the client's event loop, where one call more needs no thread.
        self.client.loop.add_callback(self._watch, future, held, outcome_of)
        return future

    async def _watch(
        self,
        future: Future[Any],
        held: list[Any],
        outcome_of: Callable[[Any], Awaitable[Any]],
    ) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = await outcome_of(held[0])
        except KilledWorker as killed:
            error = BrokenExecutor(str(killed))
            error.__cause__ = killed
        except CancelledError:
            error = self._lost()
            if self.client.status == "running":
                error = RuntimeError("The cluster dropped the call; it may have been restarted.")
        except BaseException as raised:  # noqa: BLE001 - the function's, or Dask's
            error = raised
        if not future.set_running_or_notify_cancel():
            return
        held.clear()
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def _lost(self) -> ConnectionError:
        address = getattr(getattr(self.client, "scheduler", None), "address", "its address")
        return ConnectionError(f"The connection to the Dask scheduler at {address} was lost.")


def _has_handle(value: Any) -> bool:
    """Whether there is a future for Dask to put the value in place of, where it looks for them."""
    if type(value) is dict:
        return any(map(_has_handle, value.values()))
    if type(value) in {list, tuple, set}:
        return any(map(_has_handle, value))
    return isinstance(value, Handle)


def _packed(call: Callable[..., Any], /, *args: Any) -> bytes:
    """In the worker: what the call returns or raises, as bytes."""
    try:
        outcome: tuple[Any, RemoteFailure | None] = (call(*args), None)
    except RemoteFailure as failure:
        outcome = (None, failure)
    try:
        return dumped_somehow(outcome)
    except Exception as error:  # noqa: BLE001 - pickling calls whatever the user has written
        return dumped_somehow((None, RemoteFailure(error, part=RESULT)))


def _tried(call: Callable[..., Any], /, *args: Any) -> Any:
    """In the worker: what the call returns, if another worker could have it.

    Else whoever takes it there would wait for it for ever.
    """
    result = call(*args)
    failure: RemoteFailure | None = None
    try:
        header, frames = serialize(result, on_error="raise")
        if sum(memoryview(frame).nbytes for frame in frames) <= _SMALL:
            read: Any = deserialize  # it has no types
            read(header, frames)
    except Exception as error:  # noqa: BLE001 - as above
        failure = RemoteFailure(error, part=RESULT)
    # Not in a handler, as in `carry_out`.
    if failure is not None:
        raise failure
    return result


async def _value_of(handle: Any) -> Any:
    result, failure = pickle.loads(await handle.result())  # noqa: S301 - of a worker of our own
    if failure is not None:
        raise failure
    return result


async def _handle_of(handle: Any) -> Any:
    error = await handle.exception()
    if error is not None:
        raise error
    if handle.cancelled():
        raise CancelledError(handle.key)
    return handle


def _cancel(held: list[Any], future: Future[Any]) -> None:
    if future.cancelled():
        handle = held.pop()
        # In the client's event loop: nobody is to wait for that.
        handle.client.loop.add_callback(partial(handle.cancel, asynchronous=True))

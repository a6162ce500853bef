"""What is sent to a worker: the call of a function, and how it is carried out there.

A worker is another process, perhaps on another machine, or another thread: wherever an executor has
it.
"""

import pickle
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from contextvars import ContextVar
from importlib import import_module
from inspect import isawaitable
from threading import Thread
from time import monotonic
from typing import Any, Final, NamedTuple

import anyio

from ._backend import context_outside
from ._pickling import Dumps, packed, unpacked
from ._remote_failures import CARRIED, FUNCTION, RESULT, RemoteFailure

Around = tuple[Callable[..., AbstractContextManager[object]], tuple[Any, ...]]
"""A context manager to be, as what makes it and the arguments for that."""

_AROUND: Final[ContextVar[tuple[Around, ...]]] = ContextVar("portable_sched.around", default=())


def carry(manager: Callable[..., AbstractContextManager[object]], /, *args: Any) -> None:
    """Have a context manager entered around the task's function, in the worker where it runs.

    For an attempt hook: what it enters is here, and a function that runs in an executor is not.
    So `carry(manager, *args)` sends `manager` and its arguments along, by pickling, and
    `manager(*args)` is entered there. Of a task without an executor it means nothing.

    Args:
        manager: a function, importable in the worker, that returns a context manager.
        args: what it is called with.

    >>> from contextlib import asynccontextmanager, nullcontext
    >>> from portable_sched import carry
    >>> @asynccontextmanager
    ... async def hook(definition, attempt):
    ...     carry(nullcontext, f"{definition.name}, attempt {attempt}")
    ...     yield
    """
    _AROUND.set((*_AROUND.get(), (manager, args)))


def carried() -> tuple[Around, ...]:
    """What the hooks of the current attempt have asked to carry."""
    return _AROUND.get()


# What wraps itself would wrap for ever.
_MOST_WRAPPERS: Final = 10


class Sent:
    """A function on its way to a worker.

    It goes by reference, as functions do: module and name. One that is not found that way (a
    lambda, one made inside another, one of a `__main__` that is no file) goes by value where
    `cloudpickle` is installed.

    Args:
        function: what is sent.
        far: whether the worker may be one that knows nothing of this program's `__main__`; then
            what comes from there goes both ways.
    """

    __slots__ = ("_far", "_function", "_parts", "_to_go_far")

    def __init__(self, function: Callable[..., Any], *, far: bool = False) -> None:
        self._function = function
        self._to_go_far = far
        self._parts: tuple[bytes | None, bytes | None, str | None] | None = None
        self._far: Sent | None = None

    def far(self) -> "Sent":
        """The same, for a worker that knows nothing of this program's `__main__`."""
        if self._far is None:
            self._far = Sent(self._function, far=True)
        return self._far

    def fall_back(self) -> bool:
        """Have it go by value from now on, since what it refers to is not there; if it can."""
        if self._parts is None or self._parts[0] is None:
            return False
        value = self.far().packed().value
        if value is None:
            return False
        self._parts = (None, value, None)
        return True

    def packed(self) -> "_Arrived":
        """What of it goes to a worker.

        Raises:
            Exception: whatever pickling raises, where it can be sent neither way.
        """
        if self._parts is None:
            self._parts = self._pickled()
        return _Arrived(*self._parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.packed().__reduce__()

    def load(self) -> Callable[..., Any]:
        """The function; here it is still at home."""
        return self._function

    def _pickled(self) -> tuple[bytes | None, bytes | None, str | None]:
        """The function by reference, by value, and where the `__main__` is that it comes from."""
        failure: Exception | None = None
        reference: bytes | None = None
        try:
            reference = pickle.dumps(self._function)
        except Exception as error:  # noqa: BLE001 - pickling calls whatever the user has written
            failure = error
            reference = _reference_behind_wrappers(self._function)
        home: str | None = None
        if reference is not None:
            # Asked of the pickle itself: a partial or a method may come from there too.
            if b"__main__" not in reference:
                return reference, None, None
            home = _path_of_main()
            if home is not None and not self._to_go_far:
                return reference, None, home
        value: bytes | None = None
        # Brought by those who need it, and by executors that do.
        with suppress(ImportError):
            import cloudpickle  # noqa: PLC0415 - see above

            try:
                value = cloudpickle.dumps(self._function)
            except Exception as error:  # noqa: BLE001 - as above
                failure = error
        if reference is None and value is None:
            raise failure or pickle.PicklingError(f"{self._function!r} cannot be pickled")
        return reference, value, home


class _Behind:
    """A function by reference whose name is that of a wrapper which another decorator has made."""

    def __init__(self, module: str, name: str, depth: int) -> None:
        self._where = module, name, depth

    def __reduce__(self) -> tuple[Any, ...]:
        return _found_behind, self._where


def _found_behind(module: str, name: str, depth: int) -> Any:
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    for _ in range(depth):
        found = found.__wrapped__
    return found


def _reference_behind_wrappers(function: Any) -> bytes | None:
    """The pickle of a function that is behind its name; None of one that is not."""
    # It may have no name, or what has it no more wrappers.
    with suppress(AttributeError, ImportError, ValueError):
        for depth in range(1, _MOST_WRAPPERS):
            where = function.__module__, function.__qualname__, depth
            if _found_behind(*where) is function:
                return pickle.dumps(_Behind(*where))
    return None


def _path_of_main() -> str | None:
    return getattr(sys.modules["__main__"], "__file__", None)


class _Arrived:
    """A function that has come to a worker, and is loaded when it is called.

    So that what is wrong with it fails the call, and not the worker.
    """

    __slots__ = ("_home", "_reference", "value")

    def __init__(self, reference: bytes | None, value: bytes | None, home: str | None) -> None:
        self._reference = reference
        self.value = value
        self._home = home

    def __reduce__(self) -> tuple[Any, ...]:
        # An executor may send it on to another worker.
        return _Arrived, (self._reference, self.value, self._home)

    def load(self) -> Callable[..., Any]:
        # A worker that `multiprocessing` has started has its parent's `__main__`; others have their
        # own, in which there may be something else of that name.
        is_at_home = self._home is not None and self._home == _path_of_main()
        if self._reference is not None and (self.value is None or is_at_home):
            try:
                return self._loaded(self._reference)
            except Exception:
                # What stands under the guard is not there.
                if self.value is None:
                    raise
        return self._loaded(self.value or b"")

    @staticmethod
    def _loaded(pickled: bytes) -> Callable[..., Any]:
        function: Callable[..., Any] = pickle.loads(pickled)  # noqa: S301 - of the program that sent us here
        return function


class Call(NamedTuple):
    """The call of a task's function in a worker, but for the arguments.

    Attributes:
        task: name of the task.
        function: what is called, as `Sent`.
        priority: of the task; 1 is the most urgent.
        names: of each argument the parameter that it is for; None for the next positional one.
        backend: the event loop that an `async def` gets there: "asyncio" or "trio".
        around: what is entered around it; it may be packed.
        dumps: by what the result is packed; None where it goes or stays as it is.
        expires: when it is not to begin any more, by this machine's `time.monotonic()`; None where
            it always may.
        key: what no other call has, where a cluster would take two that are alike for one.
    """

    task: str
    function: Any
    priority: int = 2
    names: tuple[str | None, ...] = ()
    backend: str = "asyncio"
    around: Any = ()
    dumps: Dumps | None = None
    expires: float | None = None
    key: str | None = None


def carry_out(call: Call, /, *values: Any) -> Any:
    """In a worker: call the function, and return what it returns.

    Args:
        call: what to call.
        values: its arguments, in the order of the call's names; they may be packed.

    Raises:
        RemoteFailure: the function raised something, or something could not be loaded or packed.
    """
    part: str | int | None = None
    arguments: list[Any] = []
    named: dict[str, Any] = {}
    returned: Any = None
    try:
        _refuse_what_is_over(call)
        part = FUNCTION
        function = call.function.load()
        part = CARRIED
        around = unpacked(call.around)
        for part, (name, value) in enumerate(zip(call.names, values, strict=True)):  # noqa: B007 - it is said where one fails
            if name is None:
                arguments.append(unpacked(value))
            else:
                named[name] = unpacked(value)
        part, values = None, ()
        returned = _called(function, call.backend, around, arguments, named)
        part = RESULT
        return returned if call.dumps is None else packed(returned, call.dumps)
    except BaseException as error:  # noqa: BLE001 - all of it goes back
        failure = RemoteFailure(error, part=part, task=call.task)
    # Not in a handler, or it would have what was raised as its context. tblib, which comes with
    # Dask, has every exception pickled with that, whatever the exception itself says.
    try:
        raise failure
    finally:
        # An exception that knows a frame that knows the exception is a cycle.
        del failure, returned, arguments, named, values


def _refuse_what_is_over(call: Call) -> None:
    # A pool takes calls out of its queue before they begin, and then they cannot be cancelled.
    if call.expires is not None and monotonic() >= call.expires:
        raise TimeoutError("the time of the attempt was over before its call began")


def _called(
    function: Callable[..., Any],
    backend: str,
    around: Sequence[Around],
    arguments: list[Any],
    named: dict[str, Any],
) -> Any:
    with ExitStack() as stack:
        for manager, given in around:
            stack.enter_context(manager(*given))
        returned = function(*arguments, **named)
        return result_of(returned, backend) if isawaitable(returned) else returned


def result_of(awaitable: Awaitable[Any], backend: str) -> Any:
    """What awaiting it gives, in an event loop of its own."""
    ended: list[tuple[Any, BaseException | None]] = []

    async def awaited() -> Any:
        return await awaitable

    def run() -> None:
        try:
            ended.append((anyio.run(awaited, backend=backend), None))
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            ended.append((None, error))

    # In a thread of its own, since a worker that was forked off a program with an event loop
    # believes that it is in that, and would start no other.
    thread = Thread(target=context_outside().run, args=(run,), name="portable_sched event loop")
    thread.start()
    thread.join()
    result, failure = ended.pop()
    if failure is not None:
        try:
            raise failure
        finally:
            # An exception that knows a frame that knows the exception is a cycle.
            del failure
    return result

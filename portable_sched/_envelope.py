"""What is sent to a worker: the call of a function, and the failure that may come back.

A worker is another process, perhaps on another machine, or another thread: wherever an executor has
it. What a function returns and the arguments that it gets go by the executor's own pickling. What
we add is made so that pickling and unpickling it cannot fail: a worker that cannot read a call
dies of it, and a pool that cannot read a failure breaks.
"""

import pickle
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from threading import Thread
from typing import Any, Final, NamedTuple

import anyio

from ._errors import RemoteTaskError, full_name

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
        self._far: Sent | None = self if far else None

    def far(self) -> "Sent":
        """The same, for a worker that knows nothing of this program's `__main__`."""
        if self._far is None:
            self._far = Sent(self._function, far=True)
        return self._far

    def __reduce__(self) -> tuple[Any, ...]:
        if self._parts is None:
            self._parts = self._packed()
        return _Arrived, self._parts

    def load(self) -> Callable[..., Any]:
        """The function; here it is still at home."""
        return self._function

    def _packed(self) -> tuple[bytes | None, bytes | None, str | None]:
        """The function by reference, by value, and where the `__main__` is that it comes from.

        Raises:
            Exception: whatever pickling raises, where it can be sent neither way.
        """
        failure: Exception | None = None
        reference: bytes | None = None
        try:
            reference = pickle.dumps(self._function)
        except Exception as error:  # noqa: BLE001 - pickling calls whatever the user has written
            failure = error
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


def _path_of_main() -> str | None:
    return getattr(sys.modules["__main__"], "__file__", None)


class _Arrived:
    """A function that has come to a worker, and is loaded when it is called.

    So that what is wrong with it fails the call, and not the worker.
    """

    __slots__ = ("_home", "_reference", "_value")

    def __init__(self, reference: bytes | None, value: bytes | None, home: str | None) -> None:
        self._reference = reference
        self._value = value
        self._home = home

    def __reduce__(self) -> tuple[Any, ...]:
        # An executor may send it on to another worker.
        return _Arrived, (self._reference, self._value, self._home)

    def load(self) -> Callable[..., Any]:
        function: Callable[..., Any]
        # A worker that `multiprocessing` has started has its parent's `__main__`; others have their
        # own, in which there may be something else of that name.
        is_at_home = self._home is not None and self._home == _path_of_main()
        if self._reference is not None and (self._value is None or is_at_home):
            function = pickle.loads(self._reference)  # noqa: S301 - of the program that sent us here
        else:
            function = pickle.loads(self._value or b"")  # noqa: S301 - as above
        return function


class Call(NamedTuple):
    """The call of a task's function in a worker, but for the arguments.

    Attributes:
        task: name of the task.
        function: what is called, as `Sent`.
        priority: of the task; 1 is the most urgent.
        names: of each argument the parameter that it is for; None for the next positional one.
        backend: the event loop that an `async def` gets there: "asyncio" or "trio".
        around: what is entered around it.
    """

    task: str
    function: Any
    priority: int = 2
    names: tuple[str | None, ...] = ()
    backend: str = "asyncio"
    around: tuple[Around, ...] = ()


class RemoteFailure(Exception):  # noqa: N818 - it is the envelope, the error is in it
    """Brings what a function raised back from a worker.

    It is pickled by what is plain data, so that it arrives whatever it has to tell.

    Attributes:
        in_function: whether it was raised there; else the function could not be loaded.
    """

    def __init__(
        self,
        error: BaseException | None,
        links: Sequence["_Link"] = (),
        *,
        in_function: bool = True,
    ) -> None:
        super().__init__()
        self.in_function = in_function
        self._error = error
        self._links = links

    def __reduce__(self) -> tuple[Any, ...]:
        links = self._links if self._error is None else list(_links_of(self._error))
        return partial(RemoteFailure, in_function=self.in_function), (None, links)

    def __repr__(self) -> str:
        """For logs of executors that write down what calls raise."""
        if self._error is not None:
            return f"<RemoteFailure of {_kind_of(self._error)}: {_text_of(self._error)}>"
        return f"<RemoteFailure of {self._links[0].kind}: {self._links[0].text}>"

    def unpacked(self, task: str) -> Exception:
        """What the function raised, or what stands for it.

        Its cause or context comes with it, and what Python would have printed in the worker is in
        its notes. Where the worker was a thread, it is the exception itself.

        Args:
            task: name of the task.
        """
        if self._error is not None:
            if isinstance(self._error, Exception):
                return self._error
            links: Sequence[_Link] = list(_links_of(self._error))
        else:
            links = self._links
        errors = [link.loaded(task) for link in links]
        for link, error, inner in zip(links, errors, errors[1:], strict=False):
            # Whoever wrote the exception may have made it refuse attributes.
            with suppress(Exception):
                if link.is_cause:
                    error.__cause__ = inner
                else:
                    error.__context__ = inner
        with suppress(Exception):
            errors[0].add_note(f"In the worker:\n{links[0].traceback.rstrip()}")
        return errors[0]


@dataclass(frozen=True, slots=True)
class _Link:
    """One exception of a chain of causes and contexts, on its way back.

    Attributes:
        pickled: itself; None where it cannot be pickled, or is not to be raised here.
        kind: its type.
        text: what `str()` makes of it.
        traceback: what Python would print, for the first one of a chain; else empty.
        is_cause: whether the next one is its cause, and not its context.
    """

    pickled: bytes | None
    kind: str
    text: str
    traceback: str
    is_cause: bool

    def loaded(self, task: str) -> Exception:
        """The exception, or a `RemoteTaskError` in its place."""
        if self.pickled is not None:
            # Its module may be missing here.
            with suppress(Exception):
                error = pickle.loads(self.pickled)  # noqa: S301 - of a worker of our own
                if isinstance(error, Exception):
                    return error
        return RemoteTaskError(task, self.kind, self.text, self.traceback)


def _links_of(error: BaseException) -> Iterator[_Link]:
    # Here, since most calls go well, and every worker would pay for the import.
    from traceback import format_exception  # noqa: PLC0415

    traceback = "".join(format_exception(_without_our_steps(error)))
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        cause = current.__cause__
        inner = cause if cause is not None or current.__suppress_context__ else current.__context__
        text = _text_of(current)
        yield _Link(_pickled(current), _kind_of(current), text, traceback, cause is not None)
        current, traceback = inner, ""


def _without_our_steps(error: BaseException) -> BaseException:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") == __name__:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def _pickled(error: BaseException) -> bytes | None:
    """An exception that is known to be the same kind when it is unpickled, or None."""
    # What is no `Exception` ends programs and event loops, and is to end no more than its attempt.
    if not isinstance(error, Exception):
        return None
    try:
        pickled = pickle.dumps(error)
        copy = pickle.loads(pickled)  # noqa: S301 - made one line above
    except Exception:  # noqa: BLE001 - pickling calls whatever the user has written
        return None
    return pickled if type(copy) is type(error) else None


def _kind_of(error: BaseException) -> str:
    kind = type(error)
    # A `multiprocessing` worker's name for the program's own module.
    name = full_name(kind).replace("__mp_main__.", "__main__.")
    return kind.__qualname__ if kind.__module__ == "builtins" else name


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        return "<exception str() failed>"


def carry_out(call: Call, /, *values: Any) -> Any:
    """In a worker: call the function, and return what it returns.

    Args:
        call: what to call.
        values: its arguments, in the order of the call's names.

    Raises:
        RemoteFailure: the function raised something, or could not be loaded.
    """
    failure: RemoteFailure | None = None
    try:
        function = call.function.load()
    except Exception as error:  # noqa: BLE001 - loading runs whatever the user has written
        failure = RemoteFailure(error, in_function=False)
    else:
        try:
            return _called(function, call, values)
        except BaseException as error:  # noqa: BLE001 - all of it goes back
            failure = RemoteFailure(error)
    # Not in a handler, or it would have what was raised as its context. tblib, which comes with
    # Dask, has every exception pickled with that, whatever the exception itself says.
    try:
        raise failure
    finally:
        # An exception that knows a frame that knows the exception is a cycle.
        del failure, values


def _called(function: Callable[..., Any], call: Call, values: Sequence[Any]) -> Any:
    arguments = [value for name, value in zip(call.names, values, strict=True) if name is None]
    named = {name: value for name, value in zip(call.names, values, strict=True) if name}
    del values
    with ExitStack() as stack:
        for manager, given in call.around:
            stack.enter_context(manager(*given))
        returned = function(*arguments, **named)
        return result_of(returned, call.backend) if isawaitable(returned) else returned


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

    context = copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    # In a thread of its own, since a worker that was forked off a program with an event loop
    # believes that it is in that, and would start no other.
    thread = Thread(target=context.run, args=(run,), name="portable_sched event loop")
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

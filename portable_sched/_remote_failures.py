"""How a worker tells what a function has raised, and what did not get through on the way.

It is pickled by what is plain data, so that it arrives whatever it has to tell: a pool that cannot
read a failure breaks.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Final, cast

from ._errors import RemoteTaskError, full_name
from ._failures import without_our_steps
from ._pickling import dumped_somehow

FUNCTION: Final = "the function"
CARRIED: Final = "what carry() sends"
RESULT: Final = "the result"


class RemoteFailure(Exception):  # noqa: N818 - it is the envelope, the error is in it
    """Brings what was raised in a worker back from there.

    Attributes:
        part: None where the function raised it; else what could not be loaded or packed: one of
            the names above, or the number of an argument.
        task: name of the task whose call it was; a cluster may work out another's result again.
    """

    def __init__(
        self,
        error: BaseException | None,
        links: Sequence["_Link"] = (),
        *,
        part: str | int | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__()
        self.part = part
        self.task = task
        self._error = error
        self._links = links

    def __reduce__(self) -> tuple[Any, ...]:
        links = self._links if self._error is None else list(_links_of(self._error))
        return partial(RemoteFailure, part=self.part, task=self.task), (None, links)

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
        error = _loaded(links, task)
        # Whoever wrote the exception may have made it refuse attributes.
        with suppress(Exception):
            error.add_note(f"In the worker:\n{links[0].traceback.rstrip()}")
        return error


@dataclass(frozen=True, slots=True)
class _Link:
    """One exception of a chain of causes and contexts, on its way back.

    Attributes:
        pickled: itself; None where it cannot be pickled, or is not to be raised here.
        kind: its type.
        text: what `str()` makes of it.
        traceback: what Python would print, for the first one of a chain; else empty.
        is_cause: whether the next one is its cause, and not its context.
        members: of a group, the chains of those in it; itself has another one in their place.
    """

    pickled: bytes | None
    kind: str
    text: str
    traceback: str
    is_cause: bool
    members: tuple[tuple["_Link", ...], ...] = ()

    def loaded(self, task: str) -> Exception:
        """The exception, or a `RemoteTaskError` in its place."""
        if self.pickled is not None:
            # Its module may be missing here.
            with suppress(Exception, SystemExit):
                error = pickle.loads(self.pickled)  # noqa: S301 - of a worker of our own
                if self.members:
                    group = error.derive([_loaded(links, task) for links in self.members])
                    vars(group).update(vars(error))
                    error = group
                if isinstance(error, Exception):
                    return error
        return RemoteTaskError(task, self.kind, self.text, self.traceback)


def _loaded(links: Sequence[_Link], task: str) -> Exception:
    """The first exception of a chain, with the others as its causes and contexts."""
    errors = [link.loaded(task) for link in links]
    for link, error, inner in zip(links, errors, errors[1:], strict=False):
        # It may refuse attributes.
        with suppress(Exception):
            if link.is_cause:
                error.__cause__ = inner
            else:
                error.__context__ = inner
    return errors[0]


def _links_of(error: BaseException, seen: set[int] | None = None) -> Iterator[_Link]:
    traceback = _traceback_of(error)
    seen = set() if seen is None else seen
    current: BaseException | None = error
    while current is not None:
        seen.add(id(current))
        cause = current.__cause__
        inner = cause if cause is not None or current.__suppress_context__ else current.__context__
        kind, text = _kind_of(current), _text_of(current)
        members: tuple[tuple[_Link, ...], ...] = ()
        itself = current
        # One of another kind may hold more than that, and goes as a whole.
        if type(current) is ExceptionGroup:
            members = tuple(tuple(_links_of(member, {*seen})) for member in current.exceptions)
            itself = current.derive([Exception()])
            vars(itself).update(vars(current))
        yield _Link(_pickled(itself), kind, text, traceback, cause is not None, members)
        current, traceback = None if id(inner) in seen else inner, ""


def _traceback_of(error: BaseException) -> str:
    # Here, since most calls go well, and every worker would pay for the import.
    from traceback import format_exception  # noqa: PLC0415

    try:
        without_our_steps(error)
        return "".join(format_exception(error))
    except BaseException:  # noqa: BLE001 - it looks at whatever the user has written
        return f"{_kind_of(error)}: {_text_of(error)}\n"


def _pickled(error: BaseException) -> bytes | None:
    """An exception that is known to be the same kind when it is unpickled, or None."""
    # What is no `Exception` ends programs and event loops, and is to end no more than its attempt.
    if not isinstance(error, Exception):
        return None
    found: bytes | None = None
    dumpings: tuple[Callable[[Any], bytes], ...] = (pickle.dumps, dumped_somehow)
    for way, dumps in product((error, _Anew(error)), dumpings):
        # Pickling calls whatever the user has written.
        with suppress(BaseException):
            pickled: bytes = dumps(way)
            copy = pickle.loads(pickled)  # noqa: S301 - made one line above
            if type(copy) is type(error):
                # What it passes on may be what it takes by number alone.
                if _text_of(copy) == _text_of(error):
                    return pickled
                found = pickled
    return found


class _Anew:
    """An exception whose `__init__` does not take what it has passed on to that of its base."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        kind, args, *state = cast("tuple[Any, ...]", self._error.__reduce__())
        if kind is not type(self._error):
            raise pickle.PicklingError("it says itself how it is made")
        return _made_anew, (kind, args, *state)


def _made_anew(kind: type[Exception], args: tuple[Any, ...], state: Any = None) -> Exception:
    """An exception as its `__init__` has left it."""
    base: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    error: Any = base.__new__(kind, *args)
    base.__init__(error, *args)
    if state is not None:
        error.__setstate__(state)
    return cast("Exception", error)


def _kind_of(error: BaseException) -> str:
    kind = type(error)
    # A `multiprocessing` worker's name for the program's own module.
    name = full_name(kind).replace("__mp_main__.", "__main__.")
    return kind.__qualname__ if kind.__module__ == "builtins" else name


def _text_of(error: BaseException) -> str:
    try:
        # Whatever kind of string it is, it is to be a plain one.
        return "".join([str(error)])
    except BaseException:  # noqa: BLE001 - the user's own __str__
        return "<exception str() failed>"

"""How values become bytes on their way to a worker and back.

What a function returns and the arguments that it gets go by the executor's own pickling. But where
we know that one, they go as bytes: a worker that cannot read a call dies of it, a pool that cannot
read a result breaks, and some that cannot write a call wait for themselves for ever. Of bytes
nothing goes wrong but where they are made and read, and there we can say what it was.
"""

import pickle
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from types import NoneType
from typing import Any, Final


class Packed:
    """A value on its way, as bytes.

    Args:
        pickled: those.
        once: whether it is asked for once, and lets go of them then.
    """

    __slots__ = ("_once", "_pickled")

    def __init__(self, pickled: bytes, once: bool) -> None:  # noqa: FBT001 - pickling passes its arguments by position
        self._pickled = pickled
        self._once = once

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self._pickled, self._once)

    def __len__(self) -> int:
        return len(self._pickled)

    def load(self) -> Any:
        """The value."""
        pickled = self._pickled
        if self._once:
            self._pickled = b""
        return pickle.loads(pickled)  # noqa: S301 - of a worker of our own, or who sent us here


Dumps = Callable[[Any], bytes | None]
"""Makes bytes of a value; None of one that is to go as it is."""

# Of what is of these types nothing can go wrong on the way.
_PLAIN: Final = frozenset({NoneType, bool, int, float, complex, str, bytes})


def packed(value: Any, dumps: Dumps, *, once: bool = False) -> Any:
    """A value as it is sent.

    Args:
        value: it.
        dumps: makes bytes of it.
        once: whether it is asked for once where it arrives.
    """
    if type(value) in _PLAIN:
        return value
    pickled = dumps(value)
    return value if pickled is None else Packed(pickled, once)


def unpacked(value: Any) -> Any:
    """What was sent."""
    return value.load() if type(value) is Packed else value


def dumped(value: Any) -> bytes:
    """Pickled as pools of the standard library do it."""
    # Who has processes has it already.
    from multiprocessing.reduction import ForkingPickler  # noqa: PLC0415

    buffer = BytesIO()
    ForkingPickler(buffer).dump(value)
    return buffer.getvalue()


def dumped_by_loky(value: Any) -> bytes:
    """Pickled as loky does it."""
    # Only where it is in use.
    buffer = BytesIO()
    import_module("loky.backend.reduction").dump(value, buffer)
    return buffer.getvalue()


def dumped_somehow(value: Any) -> bytes:
    """Pickled as by executors that go beyond `pickle`, for workers with a `__main__` of their own.

    Raises:
        Exception: whatever pickling raises, where it can go in no way.
    """
    pickled: bytes | None = None
    failure: Exception | None = None
    try:
        pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - pickling calls whatever the user has written
        failure = error
    if pickled is None or b"__main__" in pickled:
        # Brought by executors that go so far.
        with suppress(ImportError):
            import cloudpickle  # noqa: PLC0415 - see above

            try:
                pickled = cloudpickle.dumps(value)
            except Exception as error:  # noqa: BLE001 - as above
                failure = error
    try:
        if pickled is None:
            raise failure or pickle.PicklingError(f"{value!r} cannot be pickled")
        return pickled
    finally:
        # An exception that knows a frame that knows the exception is a cycle.
        del failure, value

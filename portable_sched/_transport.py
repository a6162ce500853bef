"""What goes wrong between a call and its worker: something cannot be pickled, and we say what.

An executor says no more than that pickling has failed, and some not even that. So the parts of the
call are tried here one by one, once it has failed; if they all can be pickled, it was the result.
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final

from ._envelope import Call
from ._errors import NotPicklableError, error_text
from ._tasks import TaskDef

# Where those executors come from that pickle by nothing but `pickle`, and whose workers have this
# program's `__main__`.
_NEAR: Final = ("concurrent.", "portable_sched._processes")

# And those whose calls end with nothing else that is not of the function's.
_POOLS: Final = (*_NEAR, "loky.")

_REMARKS: Final = {
    "the function": (
        "Define it by `def` at the top level of a module, or have it sent by value: "
        "pip install 'portable_sched[cloudpickle]'."
    ),
    "the result": "Return plain data, and close files and connections in the function.",
}
_OF_A_PARAMETER: Final = "Pass plain data, and open files, locks and connections in the function."


def is_far(executor: object) -> bool:
    """Whether its workers may know nothing of this program's `__main__`."""
    return not type(executor).__module__.startswith(_NEAR)


def what_went_wrong(  # noqa: PLR0917 - its one caller passes what it has, each of a type of its own
    executor: object,
    name: str,
    call: Call,
    values: Sequence[Any],
    definition: TaskDef,
    error: BaseException,
) -> BaseException:
    """What a call has failed with that the function had no part in.

    Args:
        executor: where it was sent.
        name: what tasks call that.
        call: what was sent.
        values: its arguments.
        definition: the task.
        error: what the executor has ended it with.
    """
    parts = {"the function": call.function}
    for at, (named, value) in enumerate(zip(call.names, values, strict=True)):
        parts[f"the parameter {named or definition.parameters[at].name!r}"] = value
    dumps = _dumped_somehow if is_far(executor) else pickle.dumps
    blamed = next((part for part, value in parts.items() if not _goes_by(dumps, value)), None)
    if blamed is None:
        kinds = (pickle.PicklingError, TypeError, AttributeError)
        is_pool = type(executor).__module__.startswith(_POOLS)
        if not (is_pool or isinstance(error, kinds)):
            return error
        blamed = "the result"
    remark = _REMARKS.get(blamed, _OF_A_PARAMETER)
    failure = NotPicklableError(call.task, name, blamed, error_text(error), remark)
    failure.__cause__ = error
    return failure


def _dumped_somehow(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001 - pickling calls whatever the user has written
        import cloudpickle  # noqa: PLC0415 - the executors that go beyond pickle bring it

        dumped: bytes = cloudpickle.dumps(value)
        return dumped


def _goes_by(dumps: Callable[[object], bytes], value: object) -> bool:
    try:
        dumps(value)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True

"""What goes wrong between a call and its worker: something cannot be pickled, and we say what.

An executor says no more than that pickling has failed, and some not even that. So the parts of the
call are tried here one by one, once it has failed; if they all can be pickled, it was the result.
"""

import pickle
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from ._envelope import Call
from ._errors import ExecutorError, NotPicklableError, error_text
from ._tasks import TaskDef

# Where those executors come from whose workers have this program's `__main__`.
_NEAR: Final = (
    *("concurrent.futures.process", "concurrent.futures.thread"),
    "portable_sched._processes",
)

# And those that pickle by nothing but `pickle`.
_PLAIN: Final = ("concurrent.", "portable_sched._processes")

# What pools of processes, loky's too, give an exception for a cause that was raised on the other
# side, or on the way there.
_RAISED_THERE: Final = "_RemoteTraceback"

FUNCTION: Final = "the function"
RESULT: Final = "the result"

_REMARKS: Final = {
    FUNCTION: (
        "Define it by `def` at the top level of a module, or have it sent by value: "
        "pip install 'portable_sched[cloudpickle]'."
    ),
    RESULT: "Return plain data, and close files and connections in the function.",
}
_OF_A_PARAMETER: Final = "Pass plain data, and open files, locks and connections in the function."


def is_far(executor: object) -> bool:
    """Whether its workers may know nothing of this program's `__main__`."""
    return not type(executor).__module__.startswith(_NEAR)


def what_cannot_go(  # noqa: PLR0917 - its callers pass what they have, each of a type of its own
    executor: object,
    name: str,
    call: Call,
    values: Sequence[Any],
    definition: TaskDef,
    error: BaseException,
) -> NotPicklableError | None:
    """The error for the first part of a call that cannot be pickled; None where they all can.

    Args:
        executor: where it was sent.
        name: what tasks call that.
        call: what was sent.
        values: its arguments.
        definition: the task.
        error: what the executor has raised.
    """
    parts = {FUNCTION: call.function}
    for at, (named, value) in enumerate(zip(call.names, values, strict=True)):
        parts[f"the parameter {named or definition.parameters[at].name!r}"] = value
    dump = pickle.dumps if type(executor).__module__.startswith(_PLAIN) else _dumped_somehow
    for part, value in parts.items():
        try:
            dump(value)
        except Exception as reason:  # noqa: BLE001 - pickling calls whatever the user has written
            return not_picklable(call.task, name, part, error_text(reason), error)
    return None


def what_went_wrong(  # noqa: PLR0917 - as above
    executor: object,
    name: str,
    call: Call,
    values: Sequence[Any],
    definition: TaskDef,
    error: BaseException,
) -> BaseException:
    """What an attempt has failed with whose call has ended with no failure of the function's.

    Args:
        executor: where it was sent; and so the others.
        name: see there.
        call: see there.
        values: see there.
        definition: see there.
        error: what it has ended with.
    """
    blamed = what_cannot_go(executor, name, call, values, definition, error)
    if blamed is not None:
        return blamed
    # Of what has no such cause, an interpreter say, those are what pickling raises.
    was_raised_there = type(error.__cause__).__name__ == _RAISED_THERE
    if was_raised_there or isinstance(error, (pickle.PicklingError, TypeError, AttributeError)):
        return not_picklable(call.task, name, RESULT, error_text(error), error)
    if is_far(executor):
        return error
    # Of ours and of the standard library's: a process could not be started, say.
    failure = ExecutorError(call.task, name, f"it gave up the call: {error_text(error)}")
    failure.__cause__ = error
    return failure


def not_picklable(
    task: str, executor: str, part: str, reason: str, cause: BaseException
) -> NotPicklableError:
    """The error for a part of a call that does not get there or back."""
    remark = _REMARKS.get(part, _OF_A_PARAMETER)
    failure = NotPicklableError(task, executor, part, reason, remark)
    failure.__cause__ = cause
    return failure


def _dumped_somehow(value: object) -> object:
    try:
        return pickle.dumps(value)
    except Exception:
        # Executors that go beyond `pickle` bring it.
        with suppress(ImportError):
            import cloudpickle  # noqa: PLC0415 - where it is not there, it is not needed

            return cloudpickle.dumps(value)
        raise

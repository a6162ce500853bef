"""The way of a call to its worker: packing it, and saying what it was that could not be packed.

Of an executor whose pickling we know the calls are packed here, part by part. Any other says no
more than that pickling has failed, and some not even that. So there the parts are tried one by one,
once it has failed; if they all can be pickled, it was the result.
"""

import pickle
from collections.abc import Sequence
from typing import Any, Final

from ._envelope import Call
from ._errors import ExecutorError, NotPicklableError, error_text
from ._pickling import Dumps, dumped, dumped_by_loky, dumped_somehow, packed
from ._remote_failures import CARRIED, FUNCTION, RESULT
from ._tasks import TaskDef

# Where the executors come from that pickle as `multiprocessing` does.
_POOLS: Final = {"concurrent.futures.process", "portable_sched._processes"}

# And those whose workers have this program's `__main__`.
_NEAR: Final = {*_POOLS, "concurrent.futures.thread"}

_LOKY: Final = "loky.process_executor"

# And those that pickle by nothing but `pickle`.
_PLAIN: Final = "concurrent."

# What pools of processes, loky's too, give an exception for a cause that was raised on the other
# side, or on the way there.
_RAISED_THERE: Final = "_RemoteTraceback"

_BY_VALUE: Final = "Or have it sent by value: pip install 'portable_sched[cloudpickle]'."
_REMARKS: Final = {
    FUNCTION: f"Define it by `def` at the top level of a module. {_BY_VALUE}",
    RESULT: "Return plain data, and close files and connections in the function.",
}
# Where the reason is that something of the program itself was not found by its name.
_OF_MAIN: Final = (
    'Define it above `if __name__ == "__main__":`, or in a module that the worker can import.'
)
_OF_A_PARAMETER: Final = "Pass plain data, and open files, locks and connections in the function."


def _homes(executor: object) -> set[str]:
    """The modules of what an executor is, and of what it is made from."""
    return {kind.__module__ for kind in type(executor).__mro__}


def is_far(executor: object) -> bool:
    """Whether its workers may know nothing of this program's `__main__`."""
    return not _homes(executor) & _NEAR


def pickling_of(executor: Any) -> Dumps | None:
    """By what the values of an executor's calls are packed; None where they go as they are."""
    dumps: Dumps | None = getattr(executor, "dumps", None)
    homes = _homes(executor)
    if dumps is not None or hasattr(executor, "keep"):
        return dumps
    if homes & _POOLS:
        return dumped
    # So has a loky that was told how to pickle some types.
    is_plain = getattr(getattr(executor, "_call_queue", None), "_reducers", None) is None
    return dumped_by_loky if _LOKY in homes and is_plain else None


def packed_call(
    dumps: Dumps,
    name: str,
    call: Call,
    values: Sequence[Any],
    definition: TaskDef,
    *,
    keep: bool,
    once: bool,
) -> tuple[Call, list[Any]]:
    """A call and its arguments, of which nothing can go wrong on the way.

    Args:
        dumps: by what they are packed.
        name: what tasks call the executor.
        call: what is to be sent.
        values: its arguments.
        definition: the task.
        keep: whether the result may stay where it is.
        once: whether each is loaded once where it arrives.

    Raises:
        NotPicklableError: one of the parts cannot be packed.
    """
    part: str | int = FUNCTION
    try:
        function = call.function.packed()
        part = CARRIED
        around = packed(call.around, dumps) if call.around else ()
        sent = []
        for part, value in enumerate(values):  # noqa: B007 - it is said where one fails
            sent.append(packed(value, dumps, once=once))
    except (Exception, SystemExit) as error:
        reason = error_text(error)
        raise not_picklable(
            call.task, name, part_name(part, call, definition), reason, error
        ) from error
    dumps_result = None if keep else dumps
    return call._replace(function=function, around=around, dumps=dumps_result), sent


def part_name(part: str | int, call: Call, definition: TaskDef) -> str:
    """A part of a call as errors name it.

    Args:
        part: itself, as failures name it.
        call: it.
        definition: the task.
    """
    if isinstance(part, str):
        return part
    return f"the parameter {call.names[part] or definition.parameters[part].name!r}"


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
    parts = {FUNCTION: call.function, CARRIED: call.around}
    for at, value in enumerate(values):
        parts[part_name(at, call, definition)] = value
    dump = pickle.dumps if type(executor).__module__.startswith(_PLAIN) else dumped_somehow
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
    if type(executor).__module__ not in _NEAR:
        return error
    # Of ours and of the standard library's own: a process could not be started, say.
    failure = ExecutorError(call.task, name, f"it gave up the call: {error_text(error)}")
    failure.__cause__ = error
    return failure


def not_picklable(
    task: str, executor: str, part: str, reason: str, cause: BaseException
) -> NotPicklableError:
    """The error for a part of a call that does not get there or back."""
    remark = _REMARKS.get(part, _OF_A_PARAMETER)
    if "attribute" in reason and "main__" in reason:
        remark = _OF_MAIN if part != FUNCTION else f"{_OF_MAIN} {_BY_VALUE}"
    failure = NotPicklableError(task, executor, part, reason, remark)
    failure.__cause__ = cause
    return failure

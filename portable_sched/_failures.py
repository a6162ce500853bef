"""What an attempt raised: whether it is to leave the run, and how it goes into the results."""

from types import TracebackType
from typing import Final

from ._errors import TaskCancelledError

QUITTING: Final = (KeyboardInterrupt, SystemExit)
"""What leaves the run, bare, whoever raised it."""

# How the names of our private modules begin.
_OURS: Final = f"{__name__.rpartition('.')[0]}._"


def from_the_users_function(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without our own steps that it begins with, which tell the user nothing."""
    while traceback is not None:
        if not str(traceback.tb_frame.f_globals.get("__name__")).startswith(_OURS):
            break
        traceback = traceback.tb_next
    return traceback


def quitting_in(failure: BaseException) -> BaseException | None:
    """The `KeyboardInterrupt` or `SystemExit` in `failure`, which may be a group around it."""
    while isinstance(failure, BaseExceptionGroup):
        group = failure.subgroup(QUITTING)
        if group is None:
            return None
        failure = group.exceptions[0]
    return failure if isinstance(failure, QUITTING) else None


def self_cancelled(task: str, cancellation: BaseException) -> TaskCancelledError:
    """What a task has failed with that raised a cancellation which was nobody else's."""
    error = TaskCancelledError(task)
    error.__cause__ = cancellation
    return error

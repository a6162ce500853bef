"""What an attempt raised: whether it is to leave the run, and how it goes into the results."""

from typing import Final

from ._errors import TaskCancelledError

QUITTING: Final = (KeyboardInterrupt, SystemExit)
"""What leaves the run, bare, whoever raised it."""

# How the names of our private modules begin.
_OURS: Final = f"{__name__.rpartition('.')[0]}._"


def without_our_steps(failure: BaseException) -> None:
    """Take from a traceback our own steps that it begins with, which tell the user nothing."""
    traceback = failure.__traceback__
    while traceback is not None:
        if not str(traceback.tb_frame.f_globals.get("__name__")).startswith(_OURS):
            break
        traceback = traceback.tb_next
    # Not by assignment, which an exception that is a frozen dataclass refuses.
    failure.with_traceback(traceback)


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

"""What Python prints of an exception, for every format that has room for it."""

from traceback import format_exception


def traceback_of(exception: BaseException) -> str:
    """The traceback of an exception with its causes and notes, as Python prints it.

    Of one that was read from a file, the traceback that was written there.
    """
    recorded = getattr(exception, "recorded_traceback", None)
    if isinstance(recorded, str):
        return recorded
    return "".join(format_exception(exception))

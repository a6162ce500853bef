"""What is logged, which is little."""

from typing import Any


def logger() -> Any:
    """The logger of the package."""
    # Here, because it takes a third of our import time, and most runs have nothing to log.
    import logging  # noqa: PLC0415

    return logging.getLogger("portable_sched")

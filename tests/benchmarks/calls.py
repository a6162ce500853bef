"""What the workers of the benchmark of executors are given to do."""

import ast
import warnings
from collections.abc import Sequence
from time import perf_counter


def no_op() -> None:
    """Nothing."""


def busy(seconds: float) -> None:
    """Keep a processor busy for so long."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def one_ms() -> None:
    """Take a millisecond."""
    busy(0.001)


def ten_ms() -> None:
    """Take ten."""
    busy(0.01)


def statements_in(files: Sequence[str]) -> int:
    """How many statements the files have, by parsing them as the census does."""
    count = 0
    for name in files:
        try:
            with open(name, "rb") as file, warnings.catch_warnings():  # noqa: PTH123 - a worker needs no more
                warnings.simplefilter("ignore")
                tree = ast.parse(file.read())
        except (SyntaxError, ValueError):
            continue
        count += sum(isinstance(node, ast.stmt) for node in ast.walk(tree))
    return count

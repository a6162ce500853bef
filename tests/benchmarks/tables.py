"""Figures as plain Markdown tables, and whether they hold."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(slots=True)
class Score:
    """How many of the figures that have a target hold it."""

    held: int = 0
    missed: int = 0

    def against(self, value: float, target: float, digits: int = 2) -> str:
        """`value` beside the most it may be, with "ok" or "miss"; counted."""
        holds = value <= target
        self.held += holds
        self.missed += not holds
        return f"{value:.{digits}f} (≤ {target:g} {'ok' if holds else 'miss'})"

    def at_least(self, value: float, target: float | None, digits: int = 2) -> str:
        """`value` beside the least it may be, if there is one; counted."""
        if target is None:
            return f"{value:.{digits}f}"
        holds = value >= target
        self.held += holds
        self.missed += not holds
        return f"{value:.{digits}f} (≥ {target:g} {'ok' if holds else 'miss'})"

    def __str__(self) -> str:
        """How many were held, for the line under a table."""
        return f"{self.held} of {self.held + self.missed} targets held."


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table whose columns are aligned in plain text too."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print(f"\n{title}\n")
    print_row(head, widths)
    print_row(["-" * width for width in widths], widths)
    for row in rows:
        print_row(row, widths)


def print_row(cells: Sequence[str], widths: Sequence[int]) -> None:
    """Print one line of a table."""
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    print(f"| {' | '.join(padded)} |", flush=True)


def print_heading() -> None:
    """Print on what, with what and by which command the figures came about."""
    packages = ", ".join(
        f"{name} {version_of(name)}" for name in ("anyio", "trio", "uvloop", "async-dag")
    )
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"Machine: {cpu_model()}, {os.cpu_count()} cores, {platform.system()}")
    print(f"Python: {python}; {packages}")
    print(f"Command: {' '.join(['python', 'tests/benchmarks', *sys.argv[1:]])}")


def version_of(distribution: str) -> str:
    """The installed version of `distribution`, or "not installed"."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

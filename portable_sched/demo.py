"""A job to try: a census of Python's standard library, a task for each package.

`python -m portable_sched demo` runs it with live progress and reports; it needs no file of yours.
"""

import ast
import platform
import sysconfig
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from portable_sched import TaskRegistry, TaskScheduler

SUMMARY = "the summary"
"""The task that writes the tables; no package has a name of two words."""

_ROWS = 10
_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
# About; what counts is that larger packages take longer.
_SECONDS_PER_BYTE = 2e-7


def census(folder: Path | None = None) -> TaskScheduler:
    """A scheduler that reads and parses Python files, package by package, largest first.

    Args:
        folder: where the packages are; the standard library where it is left out.
    """
    folder = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    registry = TaskRegistry()
    found: dict[str, tuple[int, ...]] = {}  # each task leaves its row here
    for name, files in _packages(folder).items():
        size = sum(file.stat().st_size for file in files)
        read = partial(_read_package, name, files, found)
        registry.task(name, estimate=(1 + size) * _SECONDS_PER_BYTE)(read)

    @registry.task(name=SUMMARY, depends_on=[definition.name for definition in registry])
    def summary() -> str:
        return _table(found)

    # Parsing holds the interpreter, so that more threads than a few only take turns.
    return TaskScheduler(registry, max_concurrency=4)


def _packages(folder: Path) -> dict[str, list[Path]]:
    """The files of each package and single module, without their tests."""
    packages: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        # What cannot be imported is left out: site-packages, lib-dynload.
        if not entry.stem.isidentifier():
            continue
        files = entry.rglob("*.py") if entry.is_dir() else [entry] if entry.suffix == ".py" else []
        ours = [
            file
            for file in sorted(files)
            if _TEST_FOLDERS.isdisjoint(file.relative_to(folder).parts)
        ]
        if ours:
            packages.setdefault(entry.stem, []).extend(ours)
    return packages


def _read_package(name: str, files: Sequence[Path], found: dict[str, tuple[int, ...]]) -> None:
    """Count modules, lines, functions and classes."""
    modules = lines = functions = classes = 0
    for file in files:
        source = file.read_bytes()
        with warnings.catch_warnings():
            # What the parser has to say about other people's code is not for us.
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(source)
            except (SyntaxError, ValueError):
                continue
        modules += 1
        lines += len(source.splitlines())
        for node in ast.walk(tree):
            functions += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            classes += isinstance(node, ast.ClassDef)
    found[name] = (modules, lines, functions, classes)


def _table(found: dict[str, tuple[int, ...]]) -> str:
    """The packages with most lines, and the totals."""
    largest = sorted(found, key=lambda name: (-found[name][1], name))[:_ROWS]
    totals = tuple(map(sum, zip(*found.values(), strict=True)))
    rows: list[tuple[str, ...]] = [("package", "modules", "lines", "functions", "classes")]
    rows += [(name, *(f"{count:,}" for count in found[name])) for name in largest]
    rows.append((f"all {len(found)}", *(f"{count:,}" for count in totals)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        [
            f"The standard library of Python {platform.python_version()}, without its tests",
            *(
                "  ".join([name.ljust(widths[0]), *map(str.rjust, counts, widths[1:])])
                for name, *counts in rows
            ),
        ]
    )

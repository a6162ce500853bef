"""A census of Python's standard library: what is largest, most imported, most deeply nested?

    python examples/stdlib_census.py
    python examples/stdlib_census.py --backend trio --tests
    python examples/stdlib_census.py path/to/your/code

Each package, and each module that belongs to none, is a task: it reads and parses its files. One
more task depends on all of them and writes the tables. They are plain functions, so they run in
threads; an ordinary Python parses in one thread at a time, a free-threaded one in all of them.
"""

import argparse
import ast
import os
import platform
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from portable_sched import RunResults, TaskRegistry, TaskScheduler, TaskStatus

ROWS = 10  # of each table
SECONDS_PER_BYTE = 2e-7  # about; what counts is that larger packages take longer
SUMMARY = "the summary"  # two words, so no package is called that
TEST_FOLDERS = {"test", "tests", "idle_test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """What one file has. `nesting` counts the blocks around its deepest statement."""

    name: str
    lines: int
    functions: int
    classes: int
    nesting: int
    deepest_line: int
    imports: set[str]


@dataclass(slots=True)
class Package:
    """What one task finds: modules, and for each file that does not parse the reason."""

    modules: list[Module] = field(default_factory=list)
    unparsed: dict[str, str] = field(default_factory=dict)

    def sizes(self) -> tuple[int, int, int, int]:
        """How many modules, lines, functions and classes."""
        return (
            len(self.modules),
            sum(module.lines for module in self.modules),
            sum(module.functions for module in self.modules),
            sum(module.classes for module in self.modules),
        )


def census(folder: Path, sources: Mapping[str, Sequence[Path]]) -> TaskRegistry:
    """The graph: a task for each package, and one that depends on all of them."""
    registry = TaskRegistry()
    found: dict[str, Package] = {}  # each task leaves here what the last one needs
    for name, files in sources.items():
        # The long tasks begin first, so that none is left over at the end.
        seconds = (1 + sum(file.stat().st_size for file in files)) * SECONDS_PER_BYTE
        registry.task(name, estimate=seconds)(partial(read_package, folder, name, files, found))

    @registry.task(name=SUMMARY, depends_on=[definition.name for definition in registry])
    def summary() -> str:
        return written_summary(found)

    return registry


def read_package(folder: Path, name: str, files: Sequence[Path], found: dict[str, Package]) -> None:
    """Parse the files of one package."""
    package = found[name] = Package()
    for file in files:
        path = file.relative_to(folder)
        try:
            source = file.read_bytes()
            tree = ast.parse(source)
        except SyntaxError as error:  # also an unknown encoding, or bytes that are not in it
            package.unparsed[path.as_posix()] = error.msg
        except (OSError, ValueError, RecursionError) as error:
            package.unparsed[path.as_posix()] = str(error)
        else:
            package.modules.append(measured(path, source, tree))


def measured(path: Path, source: bytes, tree: ast.Module) -> Module:
    """Look at every statement of a module once."""
    functions = classes = nesting = 0
    deepest_line = 1
    imports = set[str]()
    for statement, depth in nested_statements(tree):
        if depth > nesting:
            nesting, deepest_line = depth, statement.lineno
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.ClassDef():
                classes += 1
            case ast.Import(names=aliases):
                imports.update(alias.name.partition(".")[0] for alias in aliases)
            case ast.ImportFrom(module=str(imported), level=0):
                imports.add(imported.partition(".")[0])
    parts = path.with_suffix("").parts
    return Module(
        name=".".join(parts).removesuffix(".__init__"),
        lines=len(source.splitlines()),
        functions=functions,
        classes=classes,
        nesting=nesting,
        deepest_line=deepest_line,
        imports=imports - {parts[0]},
    )


def nested_statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, int]]:
    """Each statement in the order of the text, with the number of blocks around it."""
    waiting: list[tuple[ast.AST, int, int]] = [(tree, -1, -1)]
    while waiting:
        node, column, depth = waiting.pop()
        if isinstance(node, ast.stmt):
            # By the column, since an `elif` is an `if` in the `else` of the one before it.
            if node.col_offset > column:
                column, depth = node.col_offset, depth + 1
            yield node, depth
        waiting.extend(
            (child, column, depth)
            for child in reversed(list(ast.iter_child_nodes(node)))
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case)
        )


def written_summary(found: Mapping[str, Package]) -> str:
    """The totals, the three tables, and the files that do not parse."""
    sizes = {name: package.sizes() for name, package in found.items()}
    modules, lines, functions, classes = map(sum, zip(*sizes.values(), strict=True))
    headline = (
        f"{len(found):,} packages, {modules:,} modules, {lines:,} lines, "
        f"{functions:,} functions, {classes:,} classes"
    )
    all_modules = [module for package in found.values() for module in package.modules]
    importers = Counter(name for module in all_modules for name in module.imports)
    imported = {name: (count,) for name, count in importers.items()}
    nesting = {f"{one.name}, line {one.deepest_line}": (one.nesting,) for one in all_modules}
    return "\n\n".join(
        [
            headline,
            table("Largest packages", ["modules", "lines", "functions", "classes"], sizes, by=1),
            table("Most imported", ["modules of other packages"], imported),
            table("Most deeply nested", ["blocks"], nesting),
            listed_unparsed(found),
        ]
    )


def table(
    title: str, headings: Sequence[str], rows: Mapping[str, Sequence[int]], by: int = 0
) -> str:
    """The rows that have most in column `by`, most first, ties in the order of the alphabet."""
    best = sorted(rows, key=lambda name: (-rows[name][by], name))[:ROWS]
    cells = [[title, *headings], *([name, *(f"{n:,}" for n in rows[name])] for name in best)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]).rstrip()
        for name, *numbers in (cells[0], rule, *cells[1:])
    )


def listed_unparsed(found: Mapping[str, Package]) -> str:
    """How many files do not parse, and for the first of them the reason."""
    unparsed = sorted(pair for package in found.values() for pair in package.unparsed.items())
    if not unparsed:
        return "Every file parses."
    lines = [f"Files that do not parse: {len(unparsed):,}"]
    lines += [f"  {path}: {reason}" for path, reason in unparsed[:ROWS]]
    lines += [f"  and {len(unparsed) - ROWS:,} more"] if len(unparsed) > ROWS else []
    return "\n".join(lines)


def find_sources(folder: Path, *, with_tests: bool) -> dict[str, list[Path]]:
    """The files of each package and single module."""
    sources: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        # What cannot be imported is left out: site-packages, lib-dynload.
        if not entry.stem.isidentifier():
            continue
        files = entry.rglob("*.py") if entry.is_dir() else [entry] if entry.suffix == ".py" else []
        ours = [
            file
            for file in sorted(files)
            if with_tests or TEST_FOLDERS.isdisjoint(file.relative_to(folder).parts)
        ]
        if ours:
            sources.setdefault(entry.stem, []).extend(ours)
    return sources


def totals(results: RunResults, backend: str) -> str:
    """The run in three lines, where the report would have one for each task."""
    counts = [f"{count:,} {status.name.lower()}" for status, count in results.counts().items()]
    average = sum(result.duration for result in results) / results.wall_time
    slowest = sorted(results, key=lambda result: -result.duration)[:3]
    shown = [f"{result.task_name} {result.duration:.2f} s" for result in slowest]
    return (
        f"{len(results):,} tasks on {backend}: {', '.join(counts)}\n"
        f"{results.wall_time:.2f} s, {results.most_running} at once, {average:.1f} on average\n"
        f"slowest: {', '.join(shown)}"
    )


def main() -> int:
    """Take the census that the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description="A census of Python code, package by package.")
    parser.add_argument("folder", nargs="?", type=Path, help="default: the standard library")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--tests", action="store_true", help="count the tests as well")
    options = parser.parse_args()
    folder = options.folder or Path(sysconfig.get_path("stdlib"))
    sources = find_sources(folder, with_tests=options.tests) if folder.is_dir() else {}
    if not sources:
        parser.error(f"no Python files in {folder}")
    # What the parser has to say about other people's code is not for us.
    warnings.simplefilter("ignore")

    scheduler = TaskScheduler(census(folder, sources), max_concurrency=os.cpu_count())
    results = anyio.run(scheduler.run, backend=options.backend)

    summary = results[SUMMARY]
    if summary.status is not TaskStatus.COMPLETED:
        print(scheduler.report(results))
        return 1
    place = options.folder or f"The standard library of Python {platform.python_version()}"
    print(f"{place}, {'with' if options.tests else 'without'} its tests")
    print(summary.result)
    print()
    print(totals(results, options.backend))
    return 0


if __name__ == "__main__":
    sys.exit(main())

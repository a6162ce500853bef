"""The command line: `portable-sched`, and `python -m portable_sched`."""

import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ImportError as _missing:
    raise ImportError(
        "portable_sched.cli needs typer, which is not installed: pip install 'portable_sched[cli]'"
    ) from _missing

from portable_sched import (
    FailurePolicy,
    Graph,
    ResultTypeWarning,
    RunResults,
    TaskError,
    TaskScheduler,
)
from portable_sched._errors import did_you_mean, nearest_names
from portable_sched._formats import GRAPH_FORMATS, drawn
from portable_sched._jobs import COMPLETED, FAILED, WRONG_USE, Job, carried_out, refused
from portable_sched._loading import UsageError, loaded
from portable_sched._options import (
    Backend,
    Limits,
    Place,
    Reports,
    Resources,
    ShowProgress,
    ShowTraceback,
    Targets,
    as_backend,
    as_input,
    as_limits,
    as_reports,
    one_of,
    place_and_targets,
    wants_progress,
    with_limits,
    with_seed,
)
from portable_sched._settings import POLICIES, project_settings
from portable_sched.analysis.explanation import explain as explained
from portable_sched.analysis.wording import both_ends, printable
from portable_sched.demo import SUMMARY, census
from portable_sched.reporting import results_from_json

_EPILOG: Final = """
**Exit codes**: 0 all tasks completed, 1 a task failed or was not run, 2 wrong use, 130 interrupted.

**Ctrl-C** once lets what is running end and starts nothing new, twice cancels it; SIGTERM cancels.
Both leave the reports of what was done. One more ends the program as it stands.

Defaults come from **[tool.portable-sched]** of the nearest pyproject.toml: target, backend,
max-concurrency, on-failure, resources, report, progress.
"""

_HEADINGS: Final[tuple[str, ...]] = ("Task", "Priority", "Attempts", "Depends on", "What it does")
_MOST_AT_AN_END: Final = 6

app: Final[typer.Typer] = typer.Typer(
    name="portable-sched",
    help="Run graphs of tasks that depend on each other, and look at them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def command_line(arguments: Sequence[str]) -> int:
    """Carry out a command; the answer is its exit code."""
    code: object = WRONG_USE
    # A name or a branch of a tree may have what this terminal cannot write.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(args=with_seed(arguments))
    except SystemExit as leaving:
        # typer ends every command so, and a task may.
        code = COMPLETED if leaving.code is None else leaving.code
    except UsageError as error:
        in_full = "--traceback" in arguments
        if in_full:
            print(error.details, file=sys.stderr, end="")
        hint = " (--traceback shows where)" if error.details and not in_full else ""
        print(f"portable-sched: {error}{hint}", file=sys.stderr)
    if isinstance(code, int):
        return code
    # As Python does with what is no number.
    print(code, file=sys.stderr)
    return FAILED


@app.callback(invoke_without_command=True)
def options(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,  # noqa: FBT002 - typer fills it by name
) -> None:
    """Run graphs of tasks that depend on each other, and look at them."""
    if show_version:
        print(f"portable_sched {version('portable_sched')}")
        raise typer.Exit


@app.command(
    epilog="Examples: `run pipeline.py`, `run pipeline.py:nightly report --input date=2026-01-01 "
    "--backend trio`, `run pipeline.py --report html=run.html --resource db=4`"
)
def run(
    place: Place = None,
    targets: Targets = None,
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=TEXT",
            help="An input of the run, as text, or as JSON with `:=`, as in count:=3. Repeatable.",
        ),
    ] = None,
    backend: Backend = None,
    max_concurrency: Limits = None,
    on_failure: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="What a failure means for the rest: continue runs what does not depend on it, "
            "drain starts nothing new, cancel ends what is running too.",
            show_default="continue",
        ),
    ] = None,
    resources: Resources = None,
    shuffle: Annotated[
        bool,
        typer.Option(
            "--shuffle",
            help="Start ready tasks in any order, to find dependencies that nobody declared. "
            "`--shuffle=SEED` repeats one.",
        ),
    ] = False,
    seed: Annotated[int | None, typer.Option(hidden=True)] = None,
    progress: ShowProgress = None,
    reports: Reports = None,
    traceback: ShowTraceback = False,
) -> None:
    """Run the tasks, and report how each of them ended."""
    settings = project_settings(Path.cwd())
    where, names = place_and_targets(place, targets, settings)
    policy = one_of("--on-failure", on_failure or settings.get("on-failure", "continue"), POLICIES)
    scheduler = with_limits(loaded(where), settings, max_concurrency, resources)
    if on_failure or "on-failure" in settings:
        scheduler = scheduler.with_settings(on_failure=FailurePolicy[policy.upper()])
    _graph_of(scheduler, names)
    job = Job(
        scheduler=scheduler,
        targets=names,
        inputs=dict(map(as_input, inputs or ())),
        backend=as_backend(backend, settings),
        shuffle=shuffle or seed is not None,
        seed=seed,
        progress=wants_progress(progress, settings),
        reports=as_reports(reports or settings.get("report", [])),
        verbose=traceback,
    )
    raise typer.Exit(carried_out(job)[0])


@app.command()
def demo(
    *,
    backend: Backend = None,
    progress: ShowProgress = None,
    reports: Reports = None,
) -> None:
    """Try it: a census of Python's standard library, a task for each package. Needs no file."""
    job = Job(
        scheduler=census(),
        targets=None,
        inputs={},
        backend=as_backend(backend, {}),
        shuffle=False,
        seed=None,
        progress=wants_progress(progress, {}),
        reports=as_reports(reports or [], text_if_none_is_printed=False),
        verbose=False,
    )
    code, results = carried_out(job)
    if results is not None and results[SUMMARY].ok:
        print(results[SUMMARY].result)
        print()
        print(_totals(results))
        print(job.scheduler.breakdown(results))
    raise typer.Exit(code)


@app.command(epilog="Examples: `graph pipeline.py`, `graph pipeline.py --svg graph.svg`")
def graph(
    place: Place = None,
    targets: Targets = None,
    *,
    format: Annotated[  # noqa: A002 - what it is
        str, typer.Option(metavar="NAME", help=f"How it is written: {', '.join(GRAPH_FORMATS)}.")
    ] = "tree",
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw it to a file, by Graphviz, which has to be there."),
    ] = None,
    seen: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="FILE",
            help="The graph of an earlier run, coloured, by its JSON report.",
        ),
    ] = None,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """Show what depends on what."""
    results = None if seen is None else _read_results(seen)
    if results is not None:
        shown = results.graph
    else:
        where, names = place_and_targets(place, targets, project_settings(Path.cwd()))
        shown = _graph_of(loaded(where), names)
    wanted = one_of("--format", format, list(GRAPH_FORMATS)) if svg is None else "svg"
    try:
        text = drawn(shown, wanted, results)
        if svg is not None:
            svg.write_text(text, "utf-8")
    except (OSError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    print(text if svg is None else f"wrote {svg}", file=sys.stdout if svg is None else sys.stderr)


@app.command("list")
def list_tasks(
    place: Place = None,
    *,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """List the tasks with priority, attempts, dependencies and what their docstrings say."""
    where, _ = place_and_targets(place, None, project_settings(Path.cwd()))
    graph = _graph_of(loaded(where), None)
    rows = [_HEADINGS]
    for number, definition in enumerate(graph.tasks):
        doc = (definition.function.__doc__ or "").strip().splitlines()
        needs = [graph.tasks[one].name for one in graph.dependencies[number]]
        needs += [f"{name} (after)" for name in definition.after]
        cells = (definition.name, definition.priority.name, str(definition.retries))
        rows.append(tuple(map(printable, (*cells, ", ".join(needs), doc[0] if doc else ""))))
    if sys.stdout.isatty():
        _print_to_fit(rows)
        return
    # As wide as it takes, for `grep`.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


@app.command()
def check(
    place: Place = None,
    targets: Targets = None,
    *,
    max_concurrency: Limits = None,
    resources: Resources = None,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """Say whether the graph can be run, without running it."""
    settings = project_settings(Path.cwd())
    where, names = place_and_targets(place, targets, settings)
    scheduler = with_limits(loaded(where), settings, max_concurrency, resources)
    graph = _graph_of(scheduler, names)
    edges = sum(map(len, graph.dependencies))
    print(f"{_counted(len(graph), 'task')}, {_counted(edges, 'dependency', 'dependencies')}")
    if len(graph):
        path = both_ends(list(map(printable, graph.critical_path())), _MOST_AT_AN_END)
        print(f"levels: {len(graph.levels())}; longest path: {' -> '.join(path)}")
    names = [definition.name for definition in graph.tasks]
    for name, takers in graph.inputs.items():
        # A misspelt dependency looks like an input, which only a run can tell.
        hint = did_you_mean(nearest_names(name, names))
        print(f"input: {name}, of {printable(', '.join(takers))}{hint and f'.{hint}'}")


@app.command(
    epilog="Examples: `plan pipeline.py`, `plan pipeline.py --limits 4,8 --seconds run.json`"
)
def plan(
    place: Place = None,
    targets: Targets = None,
    *,
    limits: Annotated[
        str, typer.Option(metavar="N,N,...", help="Values of max-concurrency to try, or none.")
    ] = "1,2,4,8,16,none",
    seconds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The JSON report of an earlier run: what tasks take."),
    ] = None,
    resources: Resources = None,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """Say what a run would take at several limits, by simulation; no task is run."""
    settings = project_settings(Path.cwd())
    where, names = place_and_targets(place, targets, settings)
    scheduler = with_limits(loaded(where), settings, None, resources)
    known = None if seconds is None else _read_results(seconds)
    with _refusals():
        print(scheduler.plan(as_limits(limits), seconds=known, targets=names))


@app.command()
def explain(
    task: Annotated[str, typer.Argument(help="The name of a task.", show_default=False)],
    results: Annotated[
        Path, typer.Argument(metavar="FILE", help="The JSON report of a run.", show_default=False)
    ],
) -> None:
    """Say why a task of an earlier run did not run, or how it went."""
    read = _read_results(results)
    try:
        print(printable(str(explained(read, task))))
    except KeyError as error:
        raise UsageError(f"{results}: {error.args[0]}") from error


def _read_results(file: Path) -> RunResults:
    try:
        return results_from_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {error}") from error


def _graph_of(scheduler: TaskScheduler, targets: Sequence[str] | None) -> Graph:
    """The graph that a command is about; what looks wrong in it is told once."""
    with warnings.catch_warnings(record=True) as caught, _refusals():
        warnings.simplefilter("always")
        graph = scheduler.graph if targets is None else scheduler.graph.subset(targets)
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"warning: {text}", file=sys.stderr)
    warnings.simplefilter("ignore", ResultTypeWarning)
    return graph


@contextmanager
def _refusals() -> Iterator[None]:
    """What the library refuses is wrong use of the command line."""
    try:
        yield
    except TaskError as error:
        raise refused(error) from error


def _totals(results: RunResults) -> str:
    """A run of many tasks in two lines."""
    counts = [f"{count} {status.name.lower()}" for status, count in results.counts().items()]
    slowest = sorted(results, key=lambda result: -result.duration)[:3]
    shown = ", ".join(f"{result.task_name} {result.duration:.2f} s" for result in slowest)
    return (
        f"{_counted(len(results), 'task')}: {', '.join(counts)}; {results.wall_time:.2f} s, "
        f"{results.most_running} at once\nslowest: {shown}"
    )


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _print_to_fit(rows: Sequence[Sequence[str]]) -> None:
    """A table, its first row the headings, whose columns are folded to fit the terminal."""
    table = Table(*map(escape, rows[0]), box=None, pad_edge=False)
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    Console().print(table)

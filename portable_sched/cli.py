"""The command line: `portable-sched`, and `python -m portable_sched`."""

import io
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

try:
    import typer
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
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
from portable_sched._formats import drawn
from portable_sched._jobs import COMPLETED, WRONG_USE, Job, carried_out, change, refused
from portable_sched._loading import UsageError, loaded
from portable_sched._options import (
    Backend,
    GraphFormat,
    Inputs,
    KnownSeconds,
    Limit,
    LimitsToTry,
    OnFailure,
    Place,
    Reports,
    Resources,
    RunToDraw,
    Seed,
    ShowProgress,
    ShowTraceback,
    Shuffle,
    SvgFile,
    Targets,
    as_input,
    as_limits,
    as_reports,
    limit,
    place_and_targets,
    wants_progress,
    with_seed,
)
from portable_sched._settings import project_settings
from portable_sched.analysis.explanation import explain as explained
from portable_sched.analysis.wording import both_ends, counts_text, printable
from portable_sched.demo import SUMMARY, census
from portable_sched.reporting import results_from_json

_EPILOG: Final = """
Begin with `portable-sched demo`, which needs no file. Then, with functions decorated by @task in
pipeline.py: `portable-sched run pipeline.py`. Each command has examples in its own --help.

**Exit codes**: 0 all tasks completed, 1 a task failed or was not run, 2 wrong use, 130 interrupted.

**Ctrl-C** once lets what is running end and starts nothing new, twice cancels it; SIGTERM cancels.
All of them leave the reports of what was done. A third Ctrl-C ends the program as it stands.

Defaults come from **[tool.portable-sched]** of the nearest pyproject.toml: target, backend,
max-concurrency, on-failure, resources, report, progress.
"""

_HEADINGS: Final[tuple[str, ...]] = ("Task", "Priority", "Attempts", "Depends on", "What it does")
_MOST_AT_AN_END: Final = 6

# typer keeps the name of what it raises for a wrong command line to itself.
_Refused: Final[type[Exception]] = typer.BadParameter.__mro__[1]

app: Final[typer.Typer] = typer.Typer(
    name="portable-sched",
    help="Run graphs of tasks that depend on each other, and look at them.",
    epilog=_EPILOG,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def command_line(arguments: Sequence[str]) -> int:
    """Carry out a command; the answer is its exit code."""
    # A name or a branch of a tree may have what this terminal cannot write.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = app(
            args=with_seed(arguments) or ["--help"],
            prog_name="portable-sched",
            standalone_mode=False,
        )
    except SystemExit as leaving:
        # typer's own: a shell has been told what fits, or whoever reads the output is gone.
        return int(leaving.code or COMPLETED)
    except UsageError as error:
        in_full = "--traceback" in arguments
        if in_full:
            print(error.details, file=sys.stderr, end="")
        hint = " (--traceback shows where)" if error.details and not in_full else ""
        return _refuse(f"{error}{hint}")
    except _Refused as error:
        return _refuse(_as_sentence(error))
    return code or (COMPLETED if arguments else WRONG_USE)


def _refuse(message: str) -> int:
    print(f"portable-sched: {message}", file=sys.stderr)
    return WRONG_USE


def _as_sentence(error: Any) -> str:
    """What typer says in a box, on one line."""
    message = " ".join(error.format_message().replace("Value error, ", "").split())
    end = "" if message.endswith((".", "?")) else "."
    return f"{message}{end} Try {error.ctx.command_path} --help."


def _examples(*commands: str) -> str:
    return "Examples:\n\n" + "\n".join(f"- `portable-sched {command}`" for command in commands)


@app.callback(invoke_without_command=True)
def options(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,  # noqa: FBT002 - typer fills it by name
) -> None:
    """Run graphs of tasks that depend on each other, and look at them."""
    if show_version:
        print(f"portable_sched {version('portable_sched')}")
        raise typer.Exit


@app.command(
    epilog=_examples(
        "run pipeline.py",
        "run pipeline.py:nightly report --input date=2026-01-01 --backend trio",
        "run pipeline.py --report run.html --report junit=results.xml",
        "run pipeline.py --resource db=4 --max-concurrency 8 --on-failure drain",
    )
)
def run(
    place: Place = None,
    targets: Targets = None,
    *,
    inputs: Inputs = None,
    backend: Backend = None,
    max_concurrency: Limit = None,
    on_failure: OnFailure = None,
    resources: Resources = None,
    shuffle: Shuffle = False,
    seed: Seed = None,
    progress: ShowProgress = None,
    reports: Reports = None,
    traceback: ShowTraceback = False,
) -> None:
    """Run the tasks, and report how each of them ended."""
    settings = project_settings(Path.cwd())
    where, names = place_and_targets(place, targets, settings)
    given = dict(map(as_input, inputs or ()))
    wanted = as_reports(reports or settings.get("report", []))
    scheduler = loaded(where)
    limit(scheduler, settings, max_concurrency, resources)
    policy = on_failure or settings.get("on-failure")
    if policy is not None:
        change(scheduler, on_failure=FailurePolicy[policy.upper()])
    _graph_of(scheduler, names)
    job = Job(
        scheduler=scheduler,
        targets=names,
        inputs=given,
        backend=backend or settings.get("backend", "asyncio"),
        shuffle=shuffle or seed is not None,
        seed=seed,
        progress=wants_progress(progress, settings),
        reports=wanted,
        verbose=traceback,
    )
    code, results = carried_out(job)
    if results is not None and results.failed and not traceback:
        print("--traceback shows where tasks failed.", file=sys.stderr)
    raise typer.Exit(code)


@app.command(epilog=_examples("demo", "demo --report census.html --backend trio"))
def demo(
    *,
    backend: Backend = None,
    progress: ShowProgress = None,
    reports: Reports = None,
) -> None:
    """Try it: a census of Python's standard library, a task for each package. Needs no file."""
    wanted = as_reports(reports or [], text_if_none_is_printed=False)
    job = Job(
        scheduler=census(),
        targets=None,
        inputs={},
        backend=backend or "asyncio",
        shuffle=False,
        seed=None,
        progress=wants_progress(progress, {}),
        reports=wanted,
        verbose=False,
    )
    code, results = carried_out(job)
    if results is not None and results[SUMMARY].ok:
        print(results[SUMMARY].result)
        print()
        print(_totals(results))
        print(job.scheduler.breakdown(results))
        if not wanted:
            print("\nTo see its timeline: portable-sched demo --report census.html")
    raise typer.Exit(code)


@app.command(
    epilog=_examples(
        "graph pipeline.py",
        "graph pipeline.py report --format mermaid",
        "graph pipeline.py --svg graph.svg",
        "graph --results run.json --svg run.svg",
    )
)
def graph(
    place: Place = None,
    targets: Targets = None,
    *,
    format: GraphFormat = "tree",  # noqa: A002 - what it is
    svg: SvgFile = None,
    results: RunToDraw = None,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """Show what depends on what."""
    seen = None if results is None else _read_results(results)
    if seen is not None and targets:
        raise UsageError("Expected no targets with --results, which has the graph of its run.")
    shown = _graph_at(place, targets) if seen is None else seen.graph
    try:
        text = drawn(shown, "svg" if svg is not None else format.lower(), seen)
        if svg is not None:
            svg.write_text(text, "utf-8")
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(str(error)) from error
    print(text if svg is None else f"wrote {svg}", file=sys.stdout if svg is None else sys.stderr)


@app.command("list", epilog=_examples("list pipeline.py", "list pipeline.py report"))
def list_tasks(
    place: Place = None,
    targets: Targets = None,
    *,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """List the tasks with priority, attempts, dependencies and what their docstrings say."""
    graph = _graph_at(place, targets)
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for number, definition in enumerate(graph.tasks):
        needs = [graph.tasks[one].name for one in graph.dependencies[number]]
        needs += [f"{name} (after)" for name in definition.after]
        cells = (
            *(definition.name, definition.priority.name, str(definition.retries)),
            *(", ".join(needs), _first_line(definition.function)),
        )
        rows.append(tuple(map(printable, cells)))
    if sys.stdout.isatty():
        _print_to_fit(rows)
        return
    # As wide as it takes, for `grep`.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


@app.command(epilog=_examples("check pipeline.py", "check pipeline.py --resource db=4"))
def check(
    place: Place = None,
    targets: Targets = None,
    *,
    max_concurrency: Limit = None,
    resources: Resources = None,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """Say whether the graph can be run, without running it."""
    graph = _graph_at(place, targets, max_concurrency, resources)
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
    epilog=_examples("plan pipeline.py", "plan pipeline.py --limits 4,8,none --seconds run.json")
)
def plan(
    place: Place = None,
    targets: Targets = None,
    *,
    limits: LimitsToTry = "1,2,4,8,16,none",
    seconds: KnownSeconds = None,
    resources: Resources = None,
    traceback: ShowTraceback = False,  # noqa: ARG001 - looked for where errors are shown
) -> None:
    """Say what a run would take at several limits, by simulation; no task is run."""
    settings = project_settings(Path.cwd())
    where, names = place_and_targets(place, targets, settings)
    known = None if seconds is None else _read_results(seconds)
    tried = as_limits(limits)
    scheduler = loaded(where)
    limit(scheduler, settings, None, resources)
    _graph_of(scheduler, names)
    print(scheduler.plan(tried, seconds=known, targets=names))


@app.command(epilog=_examples("explain load run.json"))
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


def _graph_at(
    place: str | None,
    targets: Sequence[str] | None,
    max_concurrency: int | None = None,
    resources: Sequence[str] | None = None,
) -> Graph:
    settings = project_settings(Path.cwd())
    where, names = place_and_targets(place, targets, settings)
    scheduler = loaded(where)
    limit(scheduler, settings, max_concurrency, resources)
    return _graph_of(scheduler, names)


def _graph_of(scheduler: TaskScheduler, targets: Sequence[str] | None) -> Graph:
    """The graph that a command is about; what looks wrong in it is told once.

    What the library refuses is wrong use of the command line.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            graph = scheduler.graph
            if targets is not None:
                graph = graph.subset(targets)
        except TaskError as error:
            raise refused(error) from error
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"warning: {text}", file=sys.stderr)
    warnings.simplefilter("ignore", ResultTypeWarning)
    return graph


def _totals(results: RunResults) -> str:
    """A run of many tasks in two lines."""
    slowest = sorted(results, key=lambda result: -result.duration)[:3]
    shown = ", ".join(f"{result.task_name} {result.duration:.2f} s" for result in slowest)
    return (
        f"{_counted(len(results), 'task')}: {counts_text(results.counts())}; "
        f"{results.wall_time:.2f} s, {results.most_running} at once\nslowest: {shown}"
    )


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _first_line(function: object) -> str:
    """The first line of a docstring; that of a partial is its function's, not its class's."""
    while isinstance(function, partial):
        function = function.func
    lines = (function.__doc__ or "").strip().splitlines()
    return lines[0] if lines else ""


def _print_to_fit(rows: Sequence[Sequence[str]]) -> None:
    """A table, its first row the headings, whose columns are folded to fit the terminal."""
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows[1:]:
        # No markup, no emoji: names are what they are.
        table.add_row(*map(Text, row))
    Console().print(table)

"""What may stand on a command line, and what it means."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from os import environ
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from portable_sched import TaskScheduler
from portable_sched._formats import FORMATS, GRAPH_FORMATS, format_of
from portable_sched._jobs import Report, change
from portable_sched._loading import UsageError, loaded, names_a_place
from portable_sched._settings import BackendName, PolicyName, project_settings


def _task_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names that a shell may offer."""
    # What the module prints would be taken for names, and there is nobody to tell of an error in
    # the middle of a command that is being typed.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            place, _ = place_and_targets(
                ctx.params.get("place"), None, project_settings(Path.cwd())
            )
            names = [definition.name for definition in loaded(place).tasks]
        except UsageError:
            return []
    return [name for name in names if name.startswith(incomplete)]


_HOW: Final = "How it runs"
_SHOWN: Final = "What is shown"

_PLACE_HELP: Final = (
    "Where the tasks are: a module, or a file, and after a colon the name of a registry, a "
    "scheduler, a list, or a function that returns one. Without a name: the only registry there, "
    "or what was decorated with @task. A project can settle it once; then one word is a target."
)
Place = Annotated[
    str | None,
    typer.Argument(metavar="MODULE_OR_FILE[:NAME]", help=_PLACE_HELP, show_default=False),
]
Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TARGETS",
        help="These tasks, and what they need, and no others.",
        show_default=False,
        autocompletion=_task_names,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=TEXT",
        help="An input of the run, as text, or as JSON with `:=`, as in count:=3. Repeatable.",
        rich_help_panel=_HOW,
    ),
]
Backend = Annotated[
    BackendName | None,
    typer.Option(
        help="The event loop.",
        case_sensitive=False,
        show_default="asyncio",
        rich_help_panel=_HOW,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--max-concurrency",
        "-j",
        min=1,
        metavar="N",
        help="At most so many tasks at one time.",
        rich_help_panel=_HOW,
    ),
]
OnFailure = Annotated[
    PolicyName | None,
    typer.Option(
        help="What a failure means for the rest: continue runs what does not depend on it, drain "
        "starts nothing new, cancel ends what is running too.",
        case_sensitive=False,
        show_default="continue",
        rich_help_panel=_HOW,
    ),
]
Resources = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=UNITS",
        help="Units of a resource, as in db=4. Repeatable.",
        rich_help_panel=_HOW,
    ),
]
Shuffle = Annotated[
    bool,
    typer.Option(
        "--shuffle",
        help="Start ready tasks in any order, to find dependencies that nobody declared. "
        "`--shuffle=SEED` repeats one.",
        rich_help_panel=_HOW,
    ),
]
Seed = Annotated[int | None, typer.Option(hidden=True)]
ShowProgress = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress",
        help="Show how the run goes on.",
        show_default="on a terminal",
        rich_help_panel=_SHOWN,
    ),
]
Reports = Annotated[
    list[str] | None,
    typer.Option(
        "--report",
        metavar="FORMAT[=FILE]",
        help=f"{', '.join(FORMATS)}; to a file, or printed. Repeatable. A file's name says its "
        "format too: run.html.",
        show_default="text",
        rich_help_panel=_SHOWN,
        autocompletion=lambda: list(FORMATS),
    ),
]
ShowTraceback = Annotated[
    bool, typer.Option("--traceback", help="Show your own code's tracebacks in full.")
]


GraphFormat = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"How it is written: {', '.join(GRAPH_FORMATS)}.",
        autocompletion=lambda: list(GRAPH_FORMATS),
    ),
]
SvgFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw it to a file, by Graphviz, which has to be there."),
]
RunToDraw = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw the graph of a run, coloured by how it went, from its JSON report. No module is "
        "needed then.",
    ),
]
LimitsToTry = Annotated[
    str, typer.Option(metavar="N,N,...", help="Values of max-concurrency to try, or none.")
]
KnownSeconds = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The JSON report of an earlier run: what tasks take."),
]


def with_seed(arguments: Sequence[str]) -> list[str]:
    """`--shuffle=7` as the two options that it stands for.

    Raises:
        UsageError: the seed is no number.
    """
    taken: list[str] = []
    for argument in arguments:
        option, equals, seed = argument.partition("=")
        if option != "--shuffle" or not equals:
            taken.append(argument)
        elif seed.isdecimal():
            taken += ["--shuffle", "--seed", seed]
        else:
            raise UsageError(f"Expected --shuffle=SEED to have a whole number, got {seed!r}.")
    return taken


def place_and_targets(
    place: str | None, targets: Sequence[str] | None, settings: Mapping[str, Any]
) -> tuple[str, Sequence[str] | None]:
    """Where the tasks are, and which of them; the project may have settled the former."""
    settled = settings.get("target")
    if place is None:
        if settled is None:
            raise UsageError(
                "Expected a module or a file, as in portable-sched run pipeline.py, got none. Or "
                "settle it: target = 'pipeline.py' under [tool.portable-sched] in pyproject.toml."
            )
        return settled, None
    if settled is not None and not names_a_place(place):
        # With a settled place the words that follow are tasks.
        return settled, [place, *(targets or ())]
    return place, targets or None


def limit(
    scheduler: TaskScheduler,
    settings: Mapping[str, Any],
    max_concurrency: int | None,
    resources: Sequence[str] | None,
) -> None:
    """Give a scheduler the limits of the command line, else of the project, else leave its own."""
    changes: dict[str, Any] = {}
    most = max_concurrency or settings.get("max-concurrency")
    if most is not None:
        changes["max_concurrency"] = most
    units = {**settings.get("resources", {}), **dict(map(_as_units, resources or ()))}
    if units:
        changes["resources"] = {**scheduler.resources, **units}
    change(scheduler, **changes)


def _as_units(text: str) -> tuple[str, int]:
    name, _, units = text.partition("=")
    if not name or not units.isdecimal() or not int(units):
        raise UsageError(
            f"Expected --resource to be a name and its units, as in db=4, got {text!r}."
        )
    return name, int(units)


def as_input(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name.removesuffix(":"):
        raise UsageError(
            f"Expected --input to be a name and a text, as in date=2026-01-01, got {text!r}."
        )
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError as error:
        raise UsageError(f"Expected JSON after := of --input {text!r}: {error}") from error


def wants_progress(asked: bool | None, settings: Mapping[str, Any]) -> bool:  # noqa: FBT001 - as the option has it
    """Where nobody says, a person at a terminal sees it, and a log does not."""
    settled: bool | None = settings.get("progress") if asked is None else asked
    if settled is not None:
        return settled
    return sys.stderr.isatty() and environ.get("CI", "").lower() in {"", "0", "false"}


def as_reports(texts: Sequence[str], *, text_if_none_is_printed: bool = True) -> list[Report]:
    """What is to be written at the end of a run."""
    reports = list(map(_as_report, texts))
    printed = [report.format for report in reports if report.file is None]
    if len(printed) > 1:
        raise UsageError(
            f"Expected one report to be printed, got {' and '.join(printed)}. Write the others to "
            f"files, as in --report {printed[1]}=run{FORMATS[printed[1]]}."
        )
    if text_if_none_is_printed and not printed:
        reports.insert(0, Report(format="text", file=None))
    return reports


def _as_report(text: str) -> Report:
    name, equals, file = text.partition("=")
    if name in FORMATS:
        if equals and not file:
            raise UsageError(f"Expected the name of a file after --report {name}=, got none.")
        return Report(format=name, file=_as_file(file) if file else None)
    if equals:
        raise UsageError(f"Expected --report to be one of {', '.join(FORMATS)}, got {name!r}.")
    try:
        return Report(format=format_of(Path(text)), file=_as_file(text))
    except ValueError:
        raise UsageError(
            f"Expected --report to be one of {', '.join(FORMATS)}, or a file name that ends in one "
            f"of {', '.join(FORMATS.values())}, got {text!r}."
        ) from None


def _as_file(name: str) -> Path:
    """A file to be written at the end of a run: better refused now than then."""
    file = Path(name)
    if not file.parent.is_dir():
        raise UsageError(f"Expected a file in a folder that is there after --report, got {name!r}.")
    if file.is_dir():
        raise UsageError(f"Expected a file after --report, got the folder {name!r}.")
    return file


def as_limits(text: str) -> list[int | None]:
    limits: list[int | None] = []
    for part in text.split(","):
        if part.strip() == "none":
            limits.append(None)
        elif part.strip().isdecimal() and int(part):
            limits.append(int(part))
        else:
            raise UsageError(
                f"Expected --limits to be whole numbers of at least 1, or none, as in 4,8,none, "
                f"got {text!r}."
            )
    return limits

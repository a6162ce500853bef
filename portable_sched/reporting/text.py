"""The report as plain text: a table that pastes well, and a summary line."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from portable_sched._results import RunResults, TaskResult, TaskStatus
from portable_sched.analysis.breakdown import breakdown
from portable_sched.analysis.explanation import explain
from portable_sched.analysis.wording import counts_text, in_seconds, printable, tasks_text

from .tracebacks import traceback_of

_HEADINGS = ("Task", "Status", "Attempts", "Duration", "Error")
_RIGHT_ALIGNED = frozenset({2, 3})
# The way to a root cause may be as long as the graph.
_MOST_EXPLAINED = 100
_UNPRINTABLE = frozenset({"Cc", "Cs"})


def report(results: RunResults, *, verbose: bool = False) -> str:
    """A table with a line for each task, in topological order, and a line of totals.

    Durations are seconds. Columns are as wide as what stands in them, counted in columns of a
    terminal; an error of several lines is shown on one. An empty graph gives the totals alone. A
    run in another order than by priority says so, with the seed that repeats it.

    Args:
        results: of a run, over or not.
        verbose: whether to add every attempt that failed, with its traceback, what became of
            tasks that were tried again or cancelled, why others did not run, and where the time
            went.
    """
    rows = [_row(result) for result in results]
    table = _aligned([_HEADINGS, *rows]) if rows else []
    lines = [*table, _summary(results)]
    if verbose:
        for result in results:
            lines += _attempts(results, result)
        lines += _not_started(results)
        lines += ["", str(breakdown(results))]
    return "\n".join(lines)


def _not_started(results: RunResults) -> Iterator[str]:
    """Why tasks did not run, the first hundred of them."""
    names = [result.task_name for result in results if not result.attempts]
    for name in names[:_MOST_EXPLAINED]:
        yield from _explained(results, name)
    if len(names) > _MOST_EXPLAINED:
        yield ""
        yield f"And {len(names) - _MOST_EXPLAINED} more were not started."


def _explained(results: RunResults, name: str) -> Iterator[str]:
    yield ""
    yield f"{_one_line(str(explain(results, name)))}."


def _attempts(results: RunResults, result: TaskResult[object]) -> Iterator[str]:
    """The attempts of a task that failed, and what became of it if that is not the end of it."""
    for failure in result.failures:
        began = failure.started_at - results.started_at
        next_one = f", the next one {in_seconds(failure.backoff)} later" if failure.backoff else ""
        yield ""
        yield (
            f"{_one_line(result.task_name)}, attempt {failure.attempt}: began after "
            f"{in_seconds(began)}, took {in_seconds(failure.duration)}{next_one}"
        )
        for line in traceback_of(failure.exception).splitlines():
            yield f"    {printable(line.expandtabs(4))}"
    is_cut_off = result.status is TaskStatus.CANCELLED and result.attempts
    if is_cut_off or (result.failures and result.status is not TaskStatus.FAILED):
        yield from _explained(results, result.task_name)


def _row(result: TaskResult[object]) -> tuple[str, ...]:
    return (
        _one_line(result.task_name),
        result.status.name,
        str(result.attempts),
        f"{result.duration:.4f}s",
        _one_line(result.error or ""),
    )


def _summary(results: RunResults) -> str:
    total = len(results)
    return (
        f"{tasks_text(total)}: {counts_text(results.counts())}; "
        f"{results.wall_time:.4f}s wall time, {results.most_running} at once"
        f"{results.order and f'; order: {results.order}'}"
    )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            _padded(cell, width, right=at in _RIGHT_ALIGNED)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    """Columns that a terminal gives to `text`: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    if "\u1160" <= character <= "\u11ff":
        # Vowels and finals of a Hangul syllable that is written in parts, as macOS writes files.
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _one_line(text: str) -> str:
    """`text` without what would break the table: line ends become ` | `, controls a picture."""
    lines = [line.strip() for line in text.splitlines()]
    joined = " | ".join(line for line in lines if line)
    return "".join(
        # Lone surrogates too: they stand in file names that are no text, and cannot be printed.
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in joined.replace("\t", " ")
    )

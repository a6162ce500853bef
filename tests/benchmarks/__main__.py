"""The benchmarks, as plain Markdown tables: `python tests/benchmarks --help`.

They measure and do not test: whatever the figures, the exit code is 0.
"""

from argparse import ArgumentParser, Namespace

import checkout  # noqa: F401  (before portable_sched, which it makes findable)
import engine
import executors
import import_time
import makespan
import progress
import scale
from backends import installed_backends
from shapes import SHAPES
from tables import print_heading

# A suite is one line: its name, and its parts with what reports each.
SUITES = {
    "speed": {"engine": engine.report, "scale": scale.report, "import": import_time.report},
    "makespan": {"makespan": makespan.report},
    "progress": {"progress": progress.report},
    "executors": {"executors": executors.report},
}


def arguments() -> Namespace:
    """What the command line asks for."""
    parser = ArgumentParser(prog="python tests/benchmarks", description="Measure portable_sched.")
    parser.add_argument("suite", nargs="?", choices=list(SUITES), default="speed")
    parts = [part for suite in SUITES.values() for part in suite]
    parser.add_argument("--only", choices=parts, help="one part of the suite")
    speed = parser.add_argument_group("what only speed asks for")
    speed.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    speed.add_argument(
        "--backends",
        nargs="+",
        choices=installed_backends(),
        help="default: all at 20,000 tasks, asyncio at 5,000",
    )
    speed.add_argument("--repeats", type=int, default=3, help="interleaved runs (default: 3)")
    options = parser.parse_args()
    if options.only not in (None, *SUITES[options.suite]):
        parser.error(f"{options.only} is no part of {options.suite}: {[*SUITES[options.suite]]}")
    return options


def main() -> None:
    """Run what the command line asks for."""
    options = arguments()
    print_heading()
    for part, report in SUITES[options.suite].items():
        if options.only in (None, part):
            report(options)


# The processes of executors read this file too.
if __name__ == "__main__":
    main()

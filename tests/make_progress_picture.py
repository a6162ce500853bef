"""Draws the picture of a terminal for the README: `python tests/make_progress_picture.py`.

A run in virtual time, looked at after 23 seconds of it, so that the picture is the same each time.
"""

import io
import re
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from unittest.mock import patch

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from portable_sched import Backoff, Event, RunStarted, TaskRegistry, progress
from portable_sched.testing import run_graph

FILE = Path(__file__).parent.parent / "examples" / "pictures" / "progress.svg"
WIDTH, HEIGHT = 84, 14
MOMENT = 23.0
SOURCES = ["orders", "refunds", "stock", "prices", "visits", "reviews", "returns", "couriers"]

# Colours that can be told apart on the dark ground, by the colour-blind too.
THEME = TerminalTheme(
    (24, 26, 31),
    (208, 212, 220),
    [
        (24, 26, 31),
        (240, 106, 106),
        (126, 200, 120),
        (230, 190, 100),
        (97, 160, 240),
        (190, 140, 230),
        (92, 190, 210),
        (208, 212, 220),
    ],
    [(108, 114, 128)] * 8,
)


def registry() -> TaskRegistry:
    """A night of a small shop: from eight sources to one report."""
    tasks = TaskRegistry()
    backoff = Backoff(initial=9, jitter=0)
    for source in SOURCES:
        tasks.task(f"fetch-{source}", retries=3, backoff=backoff)(no_op)
        tasks.task(f"check-{source}", depends_on=[f"fetch-{source}"])(no_op)
        tasks.task(f"clean-{source}", depends_on=[f"fetch-{source}"])(no_op)
        needs = [f"check-{source}", f"clean-{source}"]
        tasks.task(f"load-{source}", depends_on=needs)(no_op)
    loaded = [f"load-{source}" for source in SOURCES]
    tasks.task("margins", depends_on=["load-orders", "load-prices", "load-refunds"])(no_op)
    tasks.task("stockouts", depends_on=["load-stock", "load-orders"])(no_op)
    tasks.task("funnel", depends_on=["load-visits", "load-orders"])(no_op)
    tasks.task("punctuality", depends_on=["load-couriers"])(no_op)
    tasks.task("forecast", depends_on=["margins", "stockouts"])(no_op)
    tasks.task("dashboard", depends_on=["margins", "funnel", "stockouts"])(no_op)
    tasks.task("report", depends_on=["dashboard", "forecast"])(no_op)
    tasks.task("archive", after=loaded)(no_op)
    return tasks


async def no_op() -> None:
    """A task whose seconds are planned."""


class Camera:
    """An observer that draws the view once, at a moment of the run."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.lines: list[Text] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.began = event.at
            with at(event.at):
                self.run = progress._Run(event.results, event.at, self.seconds)
        elif not self.lines and event.at >= self.began + MOMENT:
            with at(event.at):
                self.lines = list(self.run.view(WIDTH, HEIGHT))


def at(moment: float) -> AbstractContextManager[object]:
    """The clock as it stands at a moment of the run."""
    return patch.object(progress, "monotonic", lambda: moment)


def picture() -> str:
    """The terminal as SVG."""
    random = Random(11)
    tasks = registry()
    seconds = {definition.name: random.uniform(2, 9) for definition in tasks}
    camera = Camera({name: own * random.uniform(0.9, 1.1) for name, own in seconds.items()})
    run_graph(
        tasks,
        seconds=seconds,
        fail={
            "fetch-couriers": {1: ConnectionError("reset by peer"), 2: ConnectionError("reset")},
            "check-reviews": {1: ValueError("3 rows without a date, the first one 20411")},
        },
        max_concurrency=6,
        observers=[camera],
    )
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=WIDTH)
    console.print(Text.assemble(("$ ", "green"), "python nightly.py"))
    console.print(Text("02:00:14 INFO 12,806 rows of stock loaded"))
    console.print(Text("02:00:19 INFO 48,211 rows of orders loaded"))
    for line in camera.lines:
        console.print(line)
    svg = console.export_svg(title="nightly.py", theme=THEME, unique_id="progress")
    # Not from the network: the width of each text is given, so any monospace font will do.
    return re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(picture(), encoding="utf-8")

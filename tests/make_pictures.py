"""Draws the pictures of the HTML report in examples/pictures: run it where Chromium is.

    python tests/make_pictures.py

It also has the run that they show, which the tests of the report use too.
"""

import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from browser import chromium

from portable_sched import Backoff, Priority, RunResults, TaskRegistry
from portable_sched.reporting.html import report
from portable_sched.testing import run_graph

PICTURES = Path(__file__).parent.parent / "examples" / "pictures"

REGIONS = ["north", "south", "east", "west", "isles", "coast"]
TABLES = ["orders", "refunds", "visits"]


class UnknownColumnError(Exception):
    """As a user's own."""


def nightly_run() -> RunResults:
    """A night's work: exports by region, a database that takes four, a service that is flaky."""
    registry = TaskRegistry()
    task = registry.task
    seconds: dict[str, float] = {}

    def add(name: str, takes: float, **settings: object) -> Callable[..., object]:
        async def work() -> None: ...

        seconds[name] = takes
        return task(name, **settings)(work)  # type: ignore[call-overload,no-any-return] # settings are any

    @task("warehouse")
    async def warehouse() -> AsyncIterator[None]:
        """A connection to the warehouse, open as long as somebody loads."""
        yield

    seconds["warehouse"] = 1.2
    add("calendar", 0.6, priority=Priority.HIGH)
    add("rates", 1.4, retries=4, backoff=Backoff(initial=1))
    for place, region in enumerate(REGIONS):
        add(f"login-{region}", 0.8 + 0.2 * place, depends_on=["calendar"])
        for row, table in enumerate(TABLES):
            takes = 3.1 + 1.3 * ((2 * place + 3 * row) % 5)
            add(
                f"export-{region}-{table}",
                takes,
                depends_on=[f"login-{region}"],
                resources=["db"],
                retries=3,
                backoff=Backoff(initial=0.5),
            )
        add(
            f"clean-{region}",
            1.5 + 0.4 * place,
            depends_on=[f"export-{region}-{table}" for table in TABLES],
        )

    for region in REGIONS:
        settings = {"depends_on": [f"clean-{region}", "rates", "warehouse"], "resources": ["db"]}
        add(f"load-{region}", 2.2, **settings)
    add("totals", 3.5, depends_on=[f"load-{region}" for region in REGIONS if region != "isles"])
    add("totals-isles", 1.5, depends_on=["load-isles"])
    add("publish", 1.0, depends_on=["totals", "totals-isles"], priority=Priority.HIGH)
    add("forecast", 6.0, depends_on=["totals"], resources={"gpu": 1})
    add("tell", 0.3, after=["publish", "forecast"])
    missing = "table 'refunds' of region 'isles' has no column 'amount_eur'"
    return run_graph(
        registry,
        seconds=seconds,
        fail={
            "rates": {
                1: ConnectionError("the rates service answered 503"),
                2: TimeoutError("no answer"),
            },
            "export-east-visits": {1: ConnectionResetError("Connection reset by peer")},
            "export-isles-refunds": {attempt: UnknownColumnError(missing) for attempt in (1, 2, 3)},
        },
        max_concurrency=8,
        resources={"db": 4, "gpu": 1},
    )


def main() -> int:
    page = report(nightly_run(), title="Nightly export")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        for name, dark in [("report.png", False), ("report-dark.png", True)]:
            browser.show(page, width=1280, height=1560, dark=dark)
            browser.wait_until("document.getElementById('graph-shown').textContent")
            browser.wait_for_frames()
            (PICTURES / name).write_bytes(browser.picture())
    return 0


if __name__ == "__main__":
    sys.exit(main())

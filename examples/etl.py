"""A nightly load: the sales of four branches, from CSV files into SQLite.

    python examples/etl.py
    python examples/etl.py --backend trio --day 2026-03-29
    python examples/etl.py --fail          (one file is useless: see what is done all the same)

The files are read and cleaned while the exchange rates are still being asked for: their server
refuses the first two calls. The database stays open until the last task that uses it has ended.
Then the mail is written, whatever has happened.
"""

import argparse
import csv
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import anyio

from portable_sched import Backoff, Priority, ResultOf, TaskResult, TaskScheduler, task

BRANCHES = {"Oslo": "NOK", "Lima": "PEN", "Cairo": "EGP", "Quito": "USD"}
LINES = {"Oslo": 4000, "Lima": 2500, "Cairo": 1500, "Quito": 500}
MOST_BAD_LINES = 0.1  # a file with a larger part of bad lines is not worth loading

server_answers = cycle([False, False, True])


class Sale(NamedTuple):
    """One line of a file that makes sense."""

    product: str
    pieces: int
    price: float


# The tasks. A parameter named after a task takes its result; `folder` and `day` come with the run.


@task(priority=Priority.HIGH, retries=5, retry_on=ConnectionError, backoff=Backoff(initial=0.05))
async def rates(day: str) -> dict[str, float]:
    """Ask what the currencies were worth in euros. All loads wait for it, so it is urgent."""
    await anyio.sleep(0.02)
    if not next(server_answers):
        raise ConnectionError(f"no rates for {day} yet")
    return {"NOK": 0.0867, "PEN": 0.242, "EGP": 0.0185, "USD": 0.861}


@task
async def database(folder: Path) -> AsyncIterator[sqlite3.Connection]:
    """Open until the last task that uses it has ended; what follows the yield runs then, always."""
    # Threads take turns with it, by the resource "writer".
    with closing(sqlite3.connect(folder / "sales.db", check_same_thread=False)) as connection:
        connection.execute("CREATE TABLE sales (branch, product, pieces INT, euros REAL)")
        yield connection
        connection.execute("CREATE INDEX by_branch ON sales (branch)")


def add_branch(branch: str) -> None:
    """Three tasks for one branch: plain functions, which run in threads.

    By the estimates, in seconds, the files with the longest way to go are begun first.
    """

    @task(name=f"read {branch}", estimate=LINES[branch] / 200_000)
    def read(folder: Path, day: str) -> list[dict[str, str]]:
        with (folder / f"{day}-{branch}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @task(name=f"clean {branch}", estimate=LINES[branch] / 500_000)
    def clean(rows: Annotated[list[dict[str, str]], ResultOf(read)]) -> list[Sale]:
        sales = []
        for row in rows:
            try:
                sales.append(Sale(row["product"], int(row["pieces"]), float(row["price"])))
            except (KeyError, ValueError):
                continue
        bad_lines = len(rows) - len(sales)
        if bad_lines > MOST_BAD_LINES * len(rows):
            raise ValueError(f"{bad_lines} of {len(rows)} lines make no sense")
        return sales

    @task(name=f"load {branch}", estimate=LINES[branch] / 500_000, resources=["writer"])
    def load(
        sales: Annotated[list[Sale], ResultOf(clean)],
        rates: dict[str, float],
        database: sqlite3.Connection,
    ) -> None:
        rate = rates[BRANCHES[branch]]
        lines = [(branch, sale.product, sale.pieces, sale.price * rate) for sale in sales]
        with database:  # commits all the lines of a branch, or none
            database.executemany("INSERT INTO sales VALUES (?, ?, ?, ?)", lines)


for each in BRANCHES:
    add_branch(each)


@task(depends_on=[f"load {branch}" for branch in BRANCHES])
def totals(database: sqlite3.Connection) -> list[tuple[str, int, float]]:
    """Lines and turnover of each branch, once all of them are loaded."""
    query = "SELECT branch, count(*), sum(pieces * euros) FROM sales GROUP BY branch"
    return database.execute(query).fetchall()


@task(after=[totals, database])
def mail(totals: TaskResult[list[tuple[str, int, float]]], folder: Path, day: str) -> str:
    """Tell how it went. It runs when the database has been closed, after failures too."""
    with closing(sqlite3.connect(folder / "sales.db")) as connection:
        [loaded] = connection.execute("SELECT count(*) FROM sales").fetchone()
    lines = [f"The sales of {day}: {loaded:,} of {sum(LINES.values()):,} lines were loaded."]
    if totals.ok:
        table = "  {:6}{:6,} lines {:10,.2f} EUR"
        lines += [table.format(*total) for total in totals.unwrap()]
    else:
        lines += [f"No totals. {totals.error}"]
    return "\n".join(lines)


# The program around them.


def deliver(folder: Path, day: str, *, useless: str | None) -> None:
    """Write the files that the branches would send: some lines are bad, and of one file all."""
    dice = random.Random(day)  # noqa: S311 - it keeps no secret
    for branch, lines in LINES.items():
        with (folder / f"{day}-{branch}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=";" if branch == useless else ",")
            writer.writerow(["product", "pieces", "price"])
            for number in range(lines):
                pieces = "?" if number % 100 == 0 else number % 9 + 1
                product = dice.choice(["tea", "coffee", "cocoa"])
                writer.writerow([product, pieces, f"{dice.uniform(2, 9):.2f}"])


def main() -> int:
    """Load the files of one day, and print the report and the mail."""
    parser = argparse.ArgumentParser(description="A nightly load of CSV files into SQLite.")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--day", default="2026-03-01")
    parser.add_argument("--fail", action="store_true", help="one file is useless")
    options = parser.parse_args()
    scheduler = TaskScheduler(max_concurrency=4, resources={"writer": 1})
    with TemporaryDirectory() as name:
        folder = Path(name)
        deliver(folder, options.day, useless="Quito" if options.fail else None)
        run = partial(scheduler.run, inputs={"folder": folder, "day": options.day})
        results = anyio.run(run, backend=options.backend)
    print(scheduler.report(results), results[mail].result, sep="\n\n")
    return 0 if results.ok else 1


if __name__ == "__main__":
    sys.exit(main())

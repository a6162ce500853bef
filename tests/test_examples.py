"""The programs of `examples/`, each run as a process of its own, with warnings as errors."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = pytest.mark.examples

EXAMPLES = Path(__file__).parent.parent / "examples"

on_each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def command(program: str, *arguments: str) -> list[str]:
    """What starts one of the programs; its output comes at once, and as UTF-8 everywhere."""
    options = ["-W", "error", "-X", "utf8", "-u"]
    return [sys.executable, *options, str(EXAMPLES / program), *arguments]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs to its end."""
    return subprocess.run(
        command(program, *arguments),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )


def output_of(program: str, *arguments: str) -> str:
    """What one of the programs prints; it must succeed, and complain of nothing."""
    ran = run(program, *arguments)

    assert (0, "") == (ran.returncode, ran.stderr)

    return without_times(ran.stdout)


def without_times(text: str) -> str:
    """`text` with each number that has a decimal point set to zero, at the same width."""
    return re.sub(r"\d+\.\d+(?= ?s\b)", lambda time: re.sub(r"\d", "0", time[0]), text)


# --- quickstart.py ---


@on_each_backend
def test_quickstart_loads_at_the_third_attempt(backend) -> None:
    expected = dedent(f"""\
        On {backend}:

        Task       Status     Attempts  Duration  Error
        ---------  ---------  --------  --------  -----
        fetch      COMPLETED         1   0.0000s
        transform  COMPLETED         1   0.0000s
        load       COMPLETED         3   0.0000s
        3 tasks: 3 completed; 0.0000s wall time, 1 at once

        load, attempt 1: the database is starting up
        load, attempt 2: the database is starting up
        load, attempt 3: 4 temperatures stored

        """)

    printed = output_of("quickstart.py")

    assert expected in printed


# --- stdlib_census.py ---


@on_each_backend
def test_the_census_counts_the_standard_library_of_this_python(backend) -> None:
    printed = output_of("stdlib_census.py", "--backend", backend)

    first, totals, *_ = printed.splitlines()
    version = ".".join(map(str, sys.version_info[:3]))

    assert first.startswith(f"The standard library of Python {version}")
    # Every Python since 3.11 has more than 150 packages with some source.
    assert re.match(r"\d{3} packages, \d{3} modules, \d{3},\d{3} lines, ", totals)
    assert re.search(r"^asyncio +\d+ ", printed, re.MULTILINE)
    assert re.search(r"^Most imported .*\n-.*\nsys +\d+$", printed, re.MULTILINE)
    assert re.search(rf"^(\d+) tasks on {backend}: \1 completed$", printed, re.MULTILINE)


@pytest.fixture
def library(tmp_path) -> Path:
    """A small library, with files that no parser likes and a test that they are not part of."""
    files = {
        "flat.py": b"import os, shop\nfrom json import dumps\n",
        "empty.py": b"",
        "broken.py": b"x = = 1\n",
        "shop/__init__.py": b"from . import till\nimport shop.till\nimport os.path\n",
        "shop/till.py": dedent("""\
            class Till:
                async def open(self):
                    if self.locked:
                        pass
                    elif self.lost:
                        pass
                    elif self.broken:
                        return None

            def count():
                try:
                    pass
                except ValueError:
                    import os
            """).encode(),
        "shop/encoded.py": b"# coding: no-such-encoding\n",
        "shop/latin.py": b"name = 'caf\xe9'\n",
        "shop/tests/test_till.py": b"import unittest\n",
        "not-a-package/setup.py": b"import shop\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


@on_each_backend
def test_the_census_is_the_same_on_each_backend(library, backend) -> None:
    expected = dedent("""\
        4 packages, 4 modules, 19 lines, 2 functions, 1 classes

        Largest packages  modules  lines  functions  classes
        ----------------  -------  -----  ---------  -------
        shop                    2     17          2        1
        flat                    1      2          0        0
        broken                  0      0          0        0
        empty                   1      0          0        0

        Most imported  modules of other packages
        -------------  -------------------------
        os                                     3
        json                                   1
        shop                                   1

        Most deeply nested  blocks
        ------------------  ------
        shop.till, line 4        3
        empty, line 1            0
        flat, line 1             0
        shop, line 1             0

        """)

    printed = output_of("stdlib_census.py", str(library), "--backend", backend)

    assert f"{library}, without its tests\n{expected}" in printed


def test_the_census_lists_the_files_that_do_not_parse(library) -> None:
    printed = output_of("stdlib_census.py", str(library))

    assert "\nFiles that do not parse: 3\n" in printed
    assert "\n  broken.py: invalid syntax\n" in printed
    assert "\n  shop/encoded.py: unknown encoding: no-such-encoding\n" in printed
    assert "\n  shop/latin.py: (unicode error) 'utf-8' codec can't decode" in printed


def test_the_census_counts_tests_where_it_is_asked_to(library) -> None:
    printed = output_of("stdlib_census.py", str(library), "--tests")

    assert printed.startswith(f"{library}, with its tests\n4 packages, 5 modules, 20 lines,")
    assert re.search(r"^unittest +1$", printed, re.MULTILINE)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_the_census_says_where_it_has_found_nothing(tmp_path, folder) -> None:
    (tmp_path / "empty").mkdir()

    ran = run("stdlib_census.py", str(tmp_path / folder))

    assert 2 == ran.returncode
    assert ran.stderr.endswith(f"error: no Python files in {tmp_path / folder}\n")


# --- etl.py ---


@on_each_backend
def test_the_nightly_load_retries_the_rates_and_loads_every_line_that_makes_sense(backend) -> None:
    printed = output_of("etl.py", "--backend", backend)

    assert re.search(r"^rates +COMPLETED +3 ", printed, re.MULTILINE)
    assert "\n16 tasks: 16 completed; " in printed
    assert "\n\nThe sales of 2026-03-01: 8,415 of 8,500 lines were loaded.\n" in printed
    totals = re.findall(r"^  (\w+) +([\d,]+) lines +[\d,]+\.\d\d EUR$", printed, re.MULTILINE)
    # Every hundredth line is bad.
    expected = [("Cairo", "1,485"), ("Lima", "2,475"), ("Oslo", "3,960"), ("Quito", "495")]
    assert expected == totals


@on_each_backend
def test_the_nightly_load_loads_what_it_can_and_writes_the_mail_after_a_failure(backend) -> None:
    reason = "ValueError: 500 of 500 lines make no sense"

    ran = run("etl.py", "--backend", backend, "--fail")

    assert (1, "") == (ran.returncode, ran.stderr)
    assert re.search(rf"^clean Quito +FAILED +1 +\S+  {reason}$", ran.stdout, re.MULTILINE)
    assert "\n16 tasks: 13 completed, 3 failed; " in ran.stdout
    assert ran.stdout.endswith(
        "\n\nThe sales of 2026-03-01: 7,920 of 8,500 lines were loaded.\n"
        f"No totals. Dependency 'load Quito' failed, because 'clean Quito' failed: {reason}\n"
    )


def test_the_nightly_load_takes_the_day_from_the_command_line() -> None:
    printed = output_of("etl.py", "--day", "2026-03-29")

    assert "\nThe sales of 2026-03-29: 8,415 of 8,500 lines were loaded.\n" in printed


# --- service.py ---


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def visits(request) -> dict[str, str]:
    """What the service prints on one backend, each part under its title."""
    pytest.importorskip("httpx")
    parts = output_of("service.py", "--backend", request.param).split("\n\n")
    return dict(part.split("\n", 1) for part in parts)


def statuses(part: str) -> dict[str, tuple[str, str]]:
    """Status and attempts of each task in the report that a part has."""
    found = re.findall(r"^ +(\w+) +([A-Z]{4,}) +(\d) ", part, re.MULTILINE)
    return {task: (status, attempts) for task, status, attempts in found}


def test_three_requests_at_once_share_the_scheduler_of_the_service(visits) -> None:
    lines = visits["Three clients at once"].splitlines()

    logged = [line for line in lines if line.startswith("    log: /page/")]
    answered = [line for line in lines if not line.startswith(" ")]
    kinds = ["weather", "hotels", "trains", "museums", "concerts"]
    expected = [
        f"{city}: 200 "
        + json.dumps({"city": city, "parts": [f"{kind} in {city}" for kind in kinds]})
        for city in ("Cairo", "Lima", "Oslo")
    ]
    assert (3, expected) == (len(logged), sorted(answered))


def test_a_source_that_fails_cancels_the_other_calls_of_its_page(visits) -> None:
    part = visits["A source that fails at once"]

    assert part.endswith("\nAtlantis: 502 LookupError: no museums in Atlantis")
    assert {
        "weather": ("CANCELLED", "0"),
        "hotels": ("CANCELLED", "1"),
        "trains": ("CANCELLED", "0"),
        "museums": ("FAILED", "1"),
        "concerts": ("CANCELLED", "1"),
        "page": ("FAILED", "0"),
    } == statuses(part)


def test_a_source_that_takes_too_long_is_a_timeout_for_the_client(visits) -> None:
    part = visits["A source that takes too long"]

    late = "TaskTimeoutError: Task 'trains' took longer than its timeout of 1 s."
    assert part.endswith(f"\nVenice: 504 {late}")
    assert ("FAILED", "1") == statuses(part)["trains"]


def test_the_run_of_a_client_that_goes_away_is_cancelled(visits) -> None:
    part = visits["A client that does not wait"]

    assert part.startswith("Quito: the client goes away\n    log: /page/Quito took ")
    found = statuses(part)
    assert (("CANCELLED", "1"), ("CANCELLED", "0")) == (found["hotels"], found["page"])


# --- inside_an_app.py ---

ORDER_CUT_SHORT = """\
Order 3 was cut short:
    Task    Status     Attempts  Duration  Error
    ------  ---------  --------  --------  -----
    check   COMPLETED         1   0.0000s
    charge  COMPLETED         1   0.0000s
    pack    COMPLETED         1   0.0000s
    ship    CANCELLED         1   0.0000s
    thank   CANCELLED         0   0.0000s
"""


def test_both_shops_close_by_themselves() -> None:
    printed = output_of("inside_an_app.py")

    lines = [line for line in printed.splitlines() if line.startswith("The shop")]

    assert [
        "The shop on asyncio opens.",
        "The shop on asyncio is closed.",
        "The shop on trio opens.",
        "The shop on trio is closed.",
    ] == lines
    done = "Order 1 is done: 9.50 paid, parcel 1 is on its way, 0.00 s.\n"
    assert 2 == printed.count(done)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let processes that are started meanwhile take Ctrl-C.

    They inherit that it is ignored where the tests run in the background of a shell.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process")
@on_each_backend
def test_ctrl_c_cancels_the_orders_under_way_and_closes_the_shop(backend) -> None:
    started = command("inside_an_app.py", "--backend", backend, "--seconds", "100")
    with (
        interruptible(),
        subprocess.Popen(
            started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        ) as shop,
    ):
        assert shop.stdout is not None

        # By then order 3, which came before, waits for its courier.
        for line in shop.stdout:
            if line.startswith("Order 4 is done"):
                break
        shop.send_signal(signal.SIGINT)
        rest, errors = shop.communicate(timeout=100)

    assert (0, "") == (shop.returncode, errors)
    assert ORDER_CUT_SHORT in without_times(rest)
    assert rest.endswith(f"The shop on {backend} is closed.\n")


# --- cluster.py ---


FURTHEST = "\n\nBelow 200,000 it is 156,159, with 382 steps. Found in "


@on_each_backend
@pytest.mark.parametrize("on", ["here", "processes"])
def test_the_longest_chain_is_the_same_here_and_on_processes(backend, on) -> None:
    printed = output_of("cluster.py", "--backend", backend, "--on", on)

    assert "\n8 tasks: 8 completed; " in printed
    where = {"here": "this", "processes": "another"}[on]
    assert f"{FURTHEST}{where} process in " in printed


@pytest.mark.executors
@on_each_backend
def test_the_longest_chain_is_the_same_on_a_dask_cluster(backend) -> None:
    pytest.importorskip("distributed")

    ran = run("cluster.py", "--backend", backend, "--on", "dask")

    # A worker of Dask's may complain of a heartbeat that was on its way as the cluster closed.
    assert 0 == ran.returncode, ran.stderr
    assert f"{FURTHEST}another process in " in without_times(ran.stdout)

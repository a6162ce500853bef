"""How long `import portable_sched` takes, beside the `import anyio` that it needs."""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory

from checkout import ROOT
from measure import interleaved_medians
from tables import print_table

REPEATS = 9
PROGRAM = """\
import sys
from time import perf_counter
sys.path.append({root!r})
start = perf_counter()
import {package}
print(perf_counter() - start)
"""


def report(_: Namespace) -> None:
    """Time both imports in fresh processes and print them."""
    contenders: dict[str, Callable[[], float]] = {
        package: partial(seconds_to_import, package) for package in ("portable_sched", "anyio")
    }
    with TemporaryDirectory() as bytecode:
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode
        for read in contenders.values():
            read()  # the first import writes bytecode
        seconds = interleaved_medians(contenders, REPEATS)
    print_table(
        f"### Import time: ms, medians of {REPEATS} fresh processes",
        ("import", "ms"),
        [(package, f"{value * 1e3:.1f}") for package, value in seconds.items()],
    )


def seconds_to_import(package: str) -> float:
    """The time `import package` takes in a fresh process."""
    program = PROGRAM.format(root=str(ROOT), package=package)
    # Whoever keeps bytecode off the disk would measure the compiler.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    command = [sys.executable, "-P", "-c", program]
    return float(subprocess.check_output(command, text=True, env=environment))

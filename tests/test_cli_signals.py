"""Ctrl-C and SIGTERM: what a run from the command line does, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from portable_sched import RunResults, TaskRegistry, TaskScheduler, _jobs
from portable_sched._jobs import Interruption, Job, Report, carried_out

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no such signals to send"
)

# "waits" ends when a file is there; its process says when it has begun.
PIPELINE = """
from pathlib import Path

import anyio
from portable_sched import Priority, task


@task
async def waits() -> None:
    print("begun", flush=True)
    while not Path("go").exists():
        await anyio.sleep(0.005)


@task(depends_on=[waits])
async def after() -> None: ...


# It begins before the one that says that it has begun.
@task(resources=["db"], priority=Priority.HIGH)
async def holds() -> None:
    while not Path("go").exists():
        await anyio.sleep(0.005)


@task(resources=["db"], priority=Priority.LOW)
async def wants() -> None: ...
"""


# It does not let itself be cancelled.
STUBBORN = """
import anyio
from anyio import CancelScope
from portable_sched import task


@task
async def waits() -> None:
    print("begun", flush=True)
    with CancelScope(shield=True):
        await anyio.sleep_forever()
"""

# Python waits for a process that it has started.
WITH_A_PROCESS = """
import time
from multiprocessing import get_context

import anyio
from anyio import CancelScope
from portable_sched import task


@task
async def waits() -> None:
    get_context("spawn").Process(target=time.sleep, args=(3600,)).start()
    print("begun", flush=True)
    with CancelScope(shield=True):
        await anyio.sleep_forever()
"""

# What it does in a thread goes on when the run is over.
IN_A_THREAD = """
from pathlib import Path
from time import sleep

from portable_sched import task


@task
def waits() -> None:
    print("begun", flush=True)
    while not Path("go").exists():
        sleep(0.005)
"""


class Command:
    """A command line as a process of its own, which has begun its first task."""

    def __init__(self, folder: Path, backend: str, *options: str, pipeline: str = PIPELINE) -> None:
        self.folder = folder
        (folder / "pipeline.py").write_text(pipeline)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "portable_sched", "run", "pipeline.py"),
                *("--backend", backend, "--resource=db=1", "--report=run.json", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=folder,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        assert "begun\n" == self.process.stdout.readline()

    def read_until(self, beginning: str) -> list[str]:
        """The lines on standard error, up to one that begins like this."""
        assert self.process.stderr is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith(beginning):
            line = self.process.stderr.readline()
            assert line, f"it ended before it said {beginning!r}: {lines}"
            lines.append(line)
        return lines

    def end(self) -> tuple[str, str, int]:
        """What else it prints, and its exit code."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        # Not by `communicate`, which would lose what has been read ahead of the last line.
        out, err = self.process.stdout.read(), self.process.stderr.read()
        return out, err, self.process.wait(timeout=60)

    @property
    def statuses(self) -> dict[str, str]:
        """Each task's status, of the report that it has left behind."""
        report = json.loads((self.folder / "run.json").read_text("utf-8"))
        return {task["name"]: task["status"] for task in report["tasks"]}


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each in every session that has these tests: the event loop is another process's."""
    name: str = request.param
    return name


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def begin(*arguments: str, **options: str) -> Command:
        commands.append(Command(tmp_path, *arguments, **options))
        return commands[-1]

    yield begin
    for command in commands:
        command.process.kill()
        command.process.communicate()


def test_the_first_ctrl_c_lets_what_is_running_end(start, backend) -> None:
    command = start(backend)
    command.process.send_signal(signal.SIGINT)
    said = "".join(command.read_until("  'wants'"))
    (command.folder / "go").touch()
    out, err, code = command.end()

    assert said.startswith(
        "Stopping: nothing new is started. Ctrl-C again cancels what is running.\n"
    )
    assert "  'waits' is running: attempt 1 of 1, for " in said
    assert "  'after' waits for 'waits'; running: 'waits'\n" in said
    assert "wants `db`, held by 'holds'\n" in said
    assert 130 == code
    expected = {"waits": "COMPLETED", "holds": "COMPLETED"}
    assert {**expected, "after": "CANCELLED", "wants": "CANCELLED"} == command.statuses
    assert "4 tasks: 2 completed, 2 cancelled" in out
    assert "wrote run.json\n" == err.replace(said, "")


def test_the_second_ctrl_c_cancels_it(start, backend) -> None:
    command = start(backend)
    command.process.send_signal(signal.SIGINT)
    command.read_until("  'wants'")
    command.process.send_signal(signal.SIGINT)
    said = command.read_until("Cancelling")
    out, _, code = command.end()

    assert ["Cancelling what is running. Ctrl-C again leaves at once.\n"] == said
    assert ({"CANCELLED"}, 130) == (set(command.statuses.values()), code)
    assert "4 tasks: 4 cancelled" in out


def test_sigterm_cancels(start, backend) -> None:
    command = start(backend)
    command.process.send_signal(signal.SIGTERM)
    said = "".join(command.read_until("  'wants'"))
    out, _, code = command.end()

    assert said.startswith(
        "Cancelling what is running. Ctrl-C again leaves at once.\n"
        "  'waits' is running: attempt 1 of 1"
    )
    assert ({"CANCELLED"}, 130) == (set(command.statuses.values()), code)
    assert "4 tasks: 4 cancelled" in out


def test_of_many_tasks_a_few_are_explained(capsys) -> None:
    registry = TaskRegistry()
    for at in range(20):

        @registry.task(f"t{at}", depends_on=["t0"] if at else [])
        async def stop() -> None:
            interruption._drain()

    scheduler = TaskScheduler(registry)
    interruption = Interruption(scheduler, print)
    anyio.run(scheduler.run)
    said = capsys.readouterr().err.splitlines()

    assert [
        "  't0' is running: attempt 1 of 1, for",
        *(f"  't{at}' waits for 't0'; running: 't0'" for at in range(1, 4)),
        "  and 16 more PENDING",
    ] == [said[1].partition(" 0")[0], *said[2:]]


def test_with_progress_the_last_words_are_whole(start, backend) -> None:
    command = start(backend, "--progress")
    command.process.send_signal(signal.SIGTERM)
    said = "".join(command.read_until("  'wants'"))
    _, err, code = command.end()

    assert "\nCancelling what is running. Ctrl-C again leaves at once.\n" in f"\n{said}"
    assert "4 tasks" in err
    assert 130 == code


@pytest.mark.parametrize("pipeline", [STUBBORN, WITH_A_PROCESS], ids=["task", "process"])
def test_the_third_ctrl_c_leaves_at_once_and_the_reports_are_there(
    start, backend, pipeline
) -> None:
    command = start(backend, pipeline=pipeline)
    for said in ["  'waits'", "Cancelling", "Leaving"]:
        command.process.send_signal(signal.SIGINT)
        command.read_until(said)
    out, err, code = command.end()

    assert ({"waits": "RUNNING"}, 130) == (command.statuses, code)
    assert "1 task: 1 running" in out
    assert "wrote run.json\n" == err


def test_a_thread_that_goes_on_can_be_left_behind(start, backend) -> None:
    command = start(backend, pipeline=IN_A_THREAD)
    command.process.send_signal(signal.SIGTERM)
    command.read_until("wrote run.json")
    if backend != "trio":
        # There Python does not wait for it.
        command.process.send_signal(signal.SIGINT)
        command.read_until("Leaving at once.")
    _, err, code = command.end()

    assert ({"waits": "CANCELLED"}, 130) == (command.statuses, code)
    assert "Traceback" not in err


def job(tmp_path: Path, ran: list[str]) -> Job:
    registry = TaskRegistry()

    @registry.task
    async def one() -> None:
        ran.append("one")

    return Job(
        scheduler=TaskScheduler(registry),
        targets=None,
        inputs={},
        backend="asyncio",
        shuffle=False,
        seed=None,
        progress=False,
        reports=[Report(format="json", file=tmp_path / "run.json")],
        verbose=False,
    )


def test_before_the_run_ctrl_c_means_that_there_will_be_none(monkeypatch, tmp_path) -> None:
    ran: list[str] = []
    run = anyio.run

    def interrupted(*arguments: object, **options: object) -> None:
        signal.raise_signal(signal.SIGINT)
        run(*arguments, **options)

    monkeypatch.setattr(_jobs.anyio, "run", interrupted)
    before = signal.getsignal(signal.SIGINT)

    assert (130, None) == carried_out(job(tmp_path, ran))
    assert [] == ran
    assert before is signal.getsignal(signal.SIGINT)


def test_after_the_run_the_reports_are_written_all_the_same(monkeypatch, tmp_path) -> None:
    ran: list[str] = []
    write = _jobs.write_reports

    def interrupted(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        write(*arguments)

    monkeypatch.setattr(_jobs, "write_reports", interrupted)
    code, results = carried_out(job(tmp_path, ran))

    assert (130, True) == (code, results.ok)
    assert (tmp_path / "run.json").exists()


def test_what_has_been_reported_is_not_reported_again(monkeypatch, tmp_path) -> None:
    written: list[RunResults] = []
    left: list[int] = []
    monkeypatch.setattr(_jobs, "write_reports", lambda job, results: written.append(results))
    monkeypatch.setattr(_jobs, "leave", left.append)
    registry = TaskRegistry()

    @registry.task
    async def end() -> None:
        signal.raise_signal(signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code, results = carried_out(replace(job(tmp_path, []), scheduler=TaskScheduler(registry)))
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert (130, [130]) == (code, left)
    assert [results] == written


def test_who_leaves_tidies_up_first_and_goes_in_any_case(monkeypatch) -> None:
    done: list[object] = []

    def tidy_up() -> None:
        done.append("tidied up")
        raise OSError("the disk is full")

    monkeypatch.setattr(_jobs.atexit, "_run_exitfuncs", tidy_up)
    monkeypatch.setattr(_jobs.os, "_exit", done.append)
    _jobs.leave(130)

    assert ["tidied up", 130] == done

"""Ctrl-C and SIGTERM: what a run from the command line does, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from portable_sched import TaskRegistry, TaskScheduler
from portable_sched._jobs import _Interruption

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


class Command:
    """A command line as a process of its own, which has begun its first task."""

    def __init__(self, folder: Path, backend: str, *options: str) -> None:
        self.folder = folder
        (folder / "pipeline.py").write_text(PIPELINE)
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
        out, err = self.process.communicate(timeout=60)
        return out, err, self.process.returncode

    @property
    def statuses(self) -> dict[str, str]:
        """Each task's status, of the report that it has left behind."""
        report = json.loads((self.folder / "run.json").read_text("utf-8"))
        return {task["name"]: task["status"] for task in report["tasks"]}


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    wanted = request.config.getoption("--backend")
    if wanted and wanted != request.param:
        pytest.skip("another backend was asked for")
    name: str = request.param
    return name


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def begin(*arguments: str) -> Command:
        commands.append(Command(tmp_path, *arguments))
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

    assert ["Cancelling what is running.\n"] == said
    assert ({"CANCELLED"}, 130) == (set(command.statuses.values()), code)
    assert "4 tasks: 4 cancelled" in out


def test_sigterm_cancels(start, backend) -> None:
    command = start(backend)
    command.process.send_signal(signal.SIGTERM)
    said = "".join(command.read_until("  'wants'"))
    out, _, code = command.end()

    assert said.startswith("Cancelling what is running.\n  'waits' is running: attempt 1 of 1")
    assert ({"CANCELLED"}, 130) == (set(command.statuses.values()), code)
    assert "4 tasks: 4 cancelled" in out


def test_of_many_tasks_a_few_are_explained(capsys) -> None:
    registry = TaskRegistry()
    for at in range(20):

        @registry.task(f"t{at}", depends_on=["t0"] if at else [])
        async def stop() -> None:
            interruption._drain()

    scheduler = TaskScheduler(registry)
    interruption = _Interruption(scheduler)
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

    assert "\nCancelling what is running.\n" in f"\n{said}"
    assert "4 tasks" in err
    assert 130 == code


def test_the_cursor_is_shown_before_a_third_signal_can_kill(monkeypatch, tmp_path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with (tmp_path / "terminal").open("w") as terminal:
        monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stderr", terminal)
        interruption = _Interruption(TaskScheduler([]), progress=True)
        interruption.call_soon = lambda function: function()
        with interruption.handled():
            signal.raise_signal(signal.SIGTERM)
            assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)

    assert "\x1b[?25h" in (tmp_path / "terminal").read_text()
    assert handler is signal.getsignal(signal.SIGTERM)


def test_before_there_is_a_run_ctrl_c_means_what_it_always_means(monkeypatch) -> None:
    interruption = _Interruption(TaskScheduler([]))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruption.handled():
        signal.raise_signal(signal.SIGINT)

    assert before is signal.getsignal(signal.SIGINT)

"""Carries a run out: workers, gates, attempts, cancellation. The only module that spawns.

What we want: everything that may run runs at once, the best ready task always starts first, and
the engine is not noticed beside the work.

What does not work. One async task for each task of the graph, waiting for the events of its
dependencies, costs 14-22 µs a task and keeps a parked coroutine of 4 KiB for each that waits. And
it starts tasks in the wrong order: trio runs each batch of runnable tasks in random order, so
whoever was woken first is not who runs first.

What we do:

- *Workers pull.* A worker takes the best ready task when it really runs. Whichever worker the
  loop runs first takes the best task, so the order is right on every backend by construction.
- *Workers go on.* A worker that has finished a task releases its dependents and takes the next
  one. A chain of a million tasks needs one worker and no event at all.
- *Gates.* A worker that finds nothing waits behind an event of its own, the gate.
- *Rounds.* Another worker costs 16-20 µs, so it is worth it only where tasks keep waiting. A
  worker whose attempt suspends while more tasks could start asks for a round. The caller's task
  then lets two checkpoints pass and sends for one worker more, and for as many as are *still* in
  the attempt they were in when the round began. Tasks that suspend for one turn of the loop are
  done by a few workers; sleepers double the workers with every round. Doubling alone costs 23-47 µs
  a task where tasks suspend for one turn; rounds cost 4.
- *The caller's task carries out nothing.* Whatever cancels the caller (a scope, `Task.cancel()`, a
  timeout) reaches the workers through our task group. So a cancellation in an attempt that is not
  pending on the worker was raised by the attempt itself.
- *An attempt has a context of its own*, a copy of the caller's. The worker steps the coroutine by
  hand inside it.
- *Fair.* After 5 ms without giving way, the run takes a checkpoint.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import coroutine
from typing import Any, Final

from anyio import (
    CancelScope,
    Event,
    create_task_group,
    get_cancelled_exc_class,
    get_current_task,
)
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from ._backend import cancellation_count, runs_on_asyncio
from ._executors import ENDED, Entry, attempts_in
from ._failures import QUITTING, quitting_in, self_cancelled, without_our_steps
from ._lifetimes import Lifetime
from ._results import CANCELLED
from ._state import NOTHING, RunState

# Seconds that a run keeps the event loop for itself at a stretch.
_FAIR_SHARE: Final = 0.005


class Run:
    """One execution of a graph.

    Attributes:
        state: what may start next.
        busy: workers in an attempt, and those on the way to one: spawned, or with an open gate,
            and not yet running. Never more than `limit`; who is on the way must count, or workers
            are sent for without end.
        working: workers in an attempt.
        gates: of the workers that wait for work, the last one to wait at the end.
        asked: whether a round is wanted or under way.
        wake: what the caller's task waits for; it is replaced before each look at the rest.
        round: number of the current round; an attempt knows by it whether it began before.
        still: of the workers in an attempt when the round began, how many still are in the same.
        lifetimes: the tasks that yield once, by number.
        gave_way: when the run last let the event loop go on with other things.
        ended: no task is running, ready or in backoff, and no lifetime is open.
        stopping: `stop()` has been called.
        interrupted: the caller's task has been cancelled, or the run cancels itself.
        quitting: a `KeyboardInterrupt` or `SystemExit` that is to leave the run.
    """

    __slots__ = (
        "asked",
        "busy",
        "clock",
        "ended",
        "entries",
        "gates",
        "gave_way",
        "group",
        "interrupted",
        "lifetimes",
        "limit",
        "quitting",
        "round",
        "scope",
        "state",
        "still",
        "stopping",
        "wake",
        "working",
    )

    group: TaskGroup
    scope: CancelScope

    def __init__(
        self,
        state: RunState,
        entries: Sequence[Entry],
        limit: int,
        clock: Callable[[], float],
        lifetimes: Mapping[int, Lifetime],
    ) -> None:
        self.state = state
        self.lifetimes = lifetimes
        if lifetimes:
            state.close = lambda number: lifetimes[number].close()
            for lifetime in lifetimes.values():
                lifetime.host = self
        self.entries = entries
        self.limit = limit
        self.clock = clock
        self.busy = 0
        self.working = 0
        self.gates: list[Event] = []
        self.asked = False
        self.wake = Event()
        self.round = 0
        self.still = 0
        self.gave_way = clock()
        self.ended = not state.ready_count()
        self.stopping = False
        self.interrupted = False
        self.quitting: BaseException | None = None

    async def carry_out(self) -> None:
        """Run every task that may run, to its end.

        Raises:
            KeyboardInterrupt, SystemExit: a task raised it; bare, with the other tasks cancelled.
        """
        try:
            async with create_task_group() as self.group:
                self.scope = self.group.cancel_scope
                await self._send_for_workers()
        finally:
            with self._until_it_quits():
                self.state.finish(self.clock())
            # They know us as we know them; let go, so that no collector is needed. trio makes the
            # cancellations of waiting tasks inside `cancel`, so that tracebacks lead to its frame.
            for lifetime in self.lifetimes.values():
                lifetime.forget_the_run()
            del self.state.close, self.state, self.entries
            if self.quitting is not None:
                try:
                    raise self.quitting
                finally:
                    self.quitting = None

    def cancel(self) -> None:
        """End the run: what has not ended will be CANCELLED."""
        self._start_nothing_more()
        self.scope.cancel()

    def _start_nothing_more(self) -> None:
        """The run is being cancelled. Lifetimes close when all that uses them has ended."""
        self.interrupted = True
        with self._until_it_quits():
            self.state.drain(self.clock(), CANCELLED)
            self.look_around()

    @contextmanager
    def _until_it_quits(self) -> Iterator[None]:
        """Keep what an observer raises to end the program for the end of the run."""
        try:
            yield
        except QUITTING as error:
            self.quitting = error

    def stop(self) -> None:
        """Start nothing new; at the second call, cancel what is running."""
        if self.stopping:
            self.cancel()
        else:
            # Nothing is left to do where the policy has done so already.
            self.stopping = True
            self.state.drain(self.clock())
            self.look_around()

    def spawn(self, function: Callable[..., Any], *args: object, name: str) -> None:
        """Start an async task within the run, for a lifetime."""
        self.group.start_soon(function, *args, name=name)

    def closed(self, number: int, failure: BaseException | None) -> None:
        """A lifetime that had yielded is over; with a failure, its task has FAILED after all."""
        if failure is not None:
            without_our_steps(failure)
            quitting = quitting_in(failure)
            if quitting is not None:
                self.quitting = quitting
                # It leads to the run's results, and what is in them may lead to this frame.
                failure = quitting = None
            elif isinstance(failure, get_cancelled_exc_class()):
                failure = self_cancelled(self.state.record.tasks[number].name, failure)
        with self._until_it_quits():
            self.state.closed(number, failure, self.clock())
            self.look_around()
        if self.quitting is not None:
            self.cancel()

    async def _send_for_workers(self) -> None:
        """Hold rounds for as long as they are asked for. The caller's task spends the run here."""
        try:
            self.state.begin()
            # A caller that is cancelled already starts nothing, and an empty graph gives way too.
            await checkpoint()
            self._hire(1)
            while not self.ended:
                # The new event comes before the look, or a wake-up between the two is lost.
                self.wake = Event()
                if not self.asked:
                    await self._wait_for_wake()
                    continue
                self.round += 1
                self.still = self.working
                # Two, since trio's order within a turn of its loop is random: after one, half of
                # the attempts that suspend for one turn have not been resumed yet.
                await checkpoint()
                await checkpoint()
                self.asked = False
                self._hire(1 + self.still)
        except QUITTING as error:
            self.quitting = error
            self.cancel()
        except BaseException:
            self._start_nothing_more()
            raise
        for gate in self.gates:
            gate.set()

    async def _wait_for_wake(self) -> None:
        """Wait for whoever wakes the caller's task, or for the end of the next backoff."""
        paused = self.state.paused
        if not paused:
            await self.wake.wait()
            return
        with CancelScope(deadline=paused[0][0]):
            await self.wake.wait()
        self.state.resume(self.clock())
        if self.state.ready_count():
            self.asked = True

    def _hire(self, wanted: int) -> None:
        """Send for `wanted` workers, as far as there are tasks and slots: the parked ones first."""
        on_the_way = self.busy - self.working
        wanted = min(wanted, self.state.ready_count() - on_the_way, self.limit - self.busy)
        for _ in range(wanted):
            self.busy += 1
            if self.gates:
                self.gates.pop().set()
            else:
                self.group.start_soon(_worker, self, name="portable_sched worker")

    def ask_for_round(self) -> None:
        """Tell the caller's task that more workers may be worth it."""
        self.asked = True
        self.wake.set()

    def leave(self) -> None:
        """One worker is no longer busy: it found nothing to do, or it is going for good."""
        self.busy -= 1
        self.look_around()

    def look_around(self) -> None:
        """Something has changed: ask for workers if there is work, or see that the run is over."""
        if self.state.ready_count():
            self.ask_for_round()
        elif not self.busy:
            if self.interrupted:
                # A worker may have been torn from its task, whose lifetimes wait for its end.
                self.state.cancel_running(self.clock())
            if not (self.state.paused or self.state.open):
                self.ended = True
            self.wake.set()

    def settle(
        self,
        number: int,
        box: list[Any],
        interrupted: bool,  # noqa: FBT001 - the worker passes its own local of that name
        now: float,
    ) -> Generator[Any, Any, bool]:
        """Judge an attempt that failed, or was interrupted; answers whether its worker goes on."""
        result: Any
        failure: BaseException | None
        result, failure = box
        box[1] = None
        if failure is not None:
            without_our_steps(failure)
            quitting = quitting_in(failure)
            if quitting is not None:
                self.state.cancelled(number, None, now)
                self.quitting = quitting
                # As in `closed`.
                del failure, quitting
                self.cancel()
                return False
        is_cancellation = isinstance(failure, get_cancelled_exc_class())
        if (interrupted or is_cancellation) and (yield from self.confirm_cancellation()):
            self.state.cancelled(number, None if is_cancellation else failure, now)
            return False
        if failure is None:
            self.state.completed(number, result, now)
        else:
            if is_cancellation:
                failure = self_cancelled(self.state.record.tasks[number].name, failure)
            self.state.failed(number, failure, now)
            if self.state.wants_cancel:
                self.cancel()
            elif self.state.paused:
                # The caller's task is to know when the next backoff is over.
                self.wake.set()
        return True

    def confirm_cancellation(self) -> Generator[Any, Any, bool]:
        """Whether the run is being cancelled, so that what a worker was thrown came from outside.

        Asked only where a worker was interrupted or the run is known to be cancelled: it costs
        half a microsecond, and a turn of asyncio's loop where the answer is no.
        """
        # trio knows at once, and it ends every sleep by a cancellation of its own: a turn more for
        # each lets others go first (`test_a_task_that_has_slept_has_ended_when_it_returns`).
        if not self.interrupted and runs_on_asyncio():
            # `asyncio.run()` cancels all tasks in one turn, and perhaps us before the caller. And
            # an attempt that cancelled its asyncio task and did not wait for it left that to us.
            with suppress(get_cancelled_exc_class()):
                yield from cancel_shielded_checkpoint().__await__()
        return self.interrupted or get_current_task().has_pending_cancellation()

    def wait_for_work(self) -> Generator[Any, Any, bool]:
        """Park the worker behind a gate of its own; answers whether it has work to do then."""
        gate = Event()
        self.gates.append(gate)
        try:
            yield from gate.wait().__await__()
        except get_cancelled_exc_class():
            # If not the run, then an attempt that had kept its asyncio task has been cancelled
            # late. That is nobody's business any more, but this worker is spoilt.
            if not (yield from self.confirm_cancellation()):
                if gate.is_set():
                    self.leave()
                else:
                    self.gates.remove(gate)
            return False
        return not self.ended

    def give_way(self) -> Generator[Any, Any, bool]:
        """Let the event loop go on with other things; answers whether the worker goes on."""
        before = self.gave_way
        try:
            # One turn for a timer to fire, one for whom it wakes, one for what that one does.
            for _ in range(3):
                yield from checkpoint().__await__()
        except get_cancelled_exc_class():
            yield from self.confirm_cancellation()
            return False
        # The first worker to be back begins the next stretch, and the others share it.
        if self.gave_way == before:
            self.gave_way = self.clock()
        return True


async def _worker(run: Run) -> None:
    try:
        await _work(run)
    except QUITTING as error:
        run.quitting = error
        run.cancel()
    finally:
        # Tracebacks of the user's exceptions keep this frame; without its locals it holds nothing.
        del run


@coroutine
def _work(run: Run) -> Generator[Any, Any, None]:  # noqa: C901, PLR0912, PLR0915 - see below
    """Carry out tasks, one after another, for as long as there are any.

    Longer than a function should be: it is the loop that every task goes through, and each call
    that would make it shorter is paid for by every task.
    """
    state = run.state
    entries = run.entries
    clock = run.clock
    cancellations = cancellation_count()
    fork = copy_context().copy
    box: list[Any] = [None, None]
    attempts: Any = attempts_in(box)
    step = attempts.send
    step(None)
    enter: Any = None
    yielded: Any = ENDED
    sent: Any = None
    thrown: BaseException | None = None
    busy = True  # counted in run.busy
    working = False  # counted in run.working
    born = 0
    now = clock()
    try:
        while not run.interrupted:
            # Pull only once running: trio starts a batch in random order.
            number = state.take(now)
            if number == NOTHING:
                if working:
                    working = False
                    run.working -= 1
                busy = False
                run.leave()
                if run.ended:
                    return
                enter = sent = None
                if not (yield from run.wait_for_work()):
                    return
                busy = True
                now = clock()
                continue
            if not working:
                working = True
                run.working += 1
                state.record.most_running = max(state.record.most_running, run.working)

            enter = fork().run
            interrupted = False
            yielded = enter(step, entries[number])
            if yielded is not ENDED:
                born = run.round
                if not run.asked and run.busy < run.limit and state.ready_count():
                    run.ask_for_round()
                while yielded is not ENDED:
                    try:
                        sent = yield yielded
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - the attempt's, not ours
                        thrown = error
                    else:
                        # trio delivers a cancellation as an outcome that is sent, never thrown.
                        if sent is not None and getattr(sent, "error", None) is not None:
                            interrupted = True
                        yielded = enter(step, sent)
                        continue
                    # Not in the handler, or what the attempt raises now gets it as its context.
                    yielded = enter(attempts.throw, thrown)
                    thrown = None
                if born != run.round:
                    run.still -= 1
                interrupted = interrupted or run.interrupted

            now = clock()
            # asyncio throws a cancellation as it throws what a future raised; but it counts it.
            if cancellations():
                interrupted = True
            if box[1] is None and not interrupted:
                state.completed(number, box[0], now)
            # asyncio counts the cancellations of a task, and `asyncio.TaskGroup` in the next
            # attempt would take what is left of them for its own. So the worker goes with them.
            elif not (yield from run.settle(number, box, interrupted, now)) or cancellations():
                return
            # Or a result that is not kept would live on here while the next task runs.
            box[0] = None
            if now - run.gave_way > _FAIR_SHARE:
                # Not in an attempt meanwhile, or the next round would think it long and hire.
                working = False
                run.working -= 1
                if not (yield from run.give_way()):
                    return
                now = clock()
    except BaseException as error:
        # The event loop is gone, or Ctrl-C has struck the engine: nobody will resume this attempt.
        if yielded is not ENDED:
            enter(attempts.throw, GeneratorExit())
        # With the loop gone there is nobody to be told either.
        busy = busy and not isinstance(error, GeneratorExit)
        raise
    finally:
        if working:
            run.working -= 1
        if busy:
            run.leave()
        # Tracebacks of the user's exceptions lead to this frame, and it would lead to the results
        # that hold the exceptions (`test_nothing_of_a_failed_run_is_in_a_cycle`).
        del run, state, entries, clock, cancellations, fork, box, attempts
        del step, enter, yielded, sent, thrown

"""What is entered around each attempt: what hooks are given, see, and cannot do."""

import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint

from portable_sched import (
    RunResults,
    TaskDef,
    TaskRegistry,
    TaskResult,
    TaskScheduler,
    TaskStatus,
    TaskTimeoutError,
)

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize

Hook = Callable[[TaskDef, int], AbstractAsyncContextManager[object]]


async def no_op() -> None: ...


class Witness:
    """A hook that notes when it is entered and left, and with what exception."""

    def __init__(self, name: str = "hook", notes: list[str] | None = None) -> None:
        self.name = name
        self.notes: list[str] = [] if notes is None else notes
        self.seen: list[BaseException | None] = []

    def __call__(self, definition: TaskDef, attempt: int) -> "Entered":
        return Entered(self, f"{self.name} {definition.name} {attempt}")


class Entered:
    def __init__(self, witness: Witness, label: str) -> None:
        self.witness = witness
        self.label = label

    async def __aenter__(self) -> None:
        await checkpoint()
        self.witness.notes.append(f"enter {self.label}")

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.witness.seen.append(exc_value)
        raised = "" if exc_value is None else f" with {type(exc_value).__name__}"
        self.witness.notes.append(f"leave {self.label}{raised}")


async def hooked_run(registry: TaskRegistry, *hooks: Hook, **settings: Any) -> RunResults:
    return await TaskScheduler(registry, attempt_hooks=hooks, **settings).run()


# When they are entered


async def test_a_hook_is_entered_around_the_attempt(registry: TaskRegistry) -> None:
    witness = Witness()

    @registry.task
    async def fetch() -> None:
        witness.notes.append("fetch")
        await checkpoint()

    await hooked_run(registry, witness)

    assert ["enter hook fetch 1", "fetch", "leave hook fetch 1"] == witness.notes
    assert [None] == witness.seen


async def test_the_first_hook_is_the_outermost(registry: TaskRegistry) -> None:
    notes: list[str] = []
    registry.task("fetch")(no_op)
    await hooked_run(registry, Witness("one", notes), Witness("two", notes))

    assert [
        "enter one fetch 1",
        "enter two fetch 1",
        "leave two fetch 1",
        "leave one fetch 1",
    ] == notes


async def test_a_hook_is_entered_anew_for_each_attempt(registry: TaskRegistry) -> None:
    witness = Witness()
    left = [ValueError(), ValueError()]

    @registry.task(retries=3)
    async def fetch() -> None:
        if left:
            raise left.pop()

    await hooked_run(registry, witness)

    assert [
        "enter hook fetch 1",
        "leave hook fetch 1 with ValueError",
        "enter hook fetch 2",
        "leave hook fetch 2 with ValueError",
        "enter hook fetch 3",
        "leave hook fetch 3",
    ] == witness.notes


async def test_a_hook_is_given_the_definition_of_the_task(registry: TaskRegistry) -> None:
    given: list[tuple[TaskDef, int]] = []

    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        given.append((definition, attempt))
        yield

    registry.task("fetch", timeout=5)(no_op)
    await hooked_run(registry, hook)

    [(definition, attempt)] = given
    assert registry["fetch"] is definition
    assert 1 == attempt


async def test_a_task_that_is_not_started_enters_no_hook(registry: TaskRegistry) -> None:
    witness = Witness()

    @registry.task
    async def fails() -> None:
        raise ValueError

    registry.task("skipped", depends_on=[fails])(no_op)
    await hooked_run(registry, witness)

    assert ["enter hook fails 1", "leave hook fails 1 with ValueError"] == witness.notes


async def test_a_hook_is_left_before_the_task_counts_as_completed(registry: TaskRegistry) -> None:
    statuses: list[TaskStatus] = []

    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield
        await checkpoint()
        statuses.append(dict(scheduler.status_snapshot())[definition.name])

    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, attempt_hooks=[hook])
    await scheduler.run()

    assert [TaskStatus.RUNNING] == statuses


async def test_a_lifetime_is_in_its_hook_until_it_yields(registry: TaskRegistry) -> None:
    """The set-up is the attempt, and what comes after the yield is none."""
    witness = Witness()

    @registry.task
    async def db() -> AsyncIterator[str]:
        witness.notes.append("set-up")
        yield "connection"
        witness.notes.append("teardown")

    @registry.task
    async def load(db: str) -> None:
        witness.notes.append("load")

    await hooked_run(registry, witness)

    assert [
        "enter hook db 1",
        "set-up",
        "leave hook db 1",
        "enter hook load 1",
        "load",
        "leave hook load 1",
        "teardown",
    ] == witness.notes


async def test_each_run_enters_its_hooks(registry: TaskRegistry) -> None:
    witness = Witness()
    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, attempt_hooks=(one for one in [witness]))
    await scheduler.run()
    await scheduler.run()

    assert ["enter hook fetch 1", "leave hook fetch 1"] * 2 == witness.notes


@pytest.mark.virtual_time
async def test_the_time_that_hooks_take_belongs_to_the_attempt_and_not_to_its_timeout(
    registry: TaskRegistry,
) -> None:
    @asynccontextmanager
    async def slow(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        await anyio.sleep(10)
        yield
        await anyio.sleep(10)

    @registry.task(timeout=5)
    async def fetch() -> str:
        await anyio.sleep(4)
        return "rows"

    result = (await hooked_run(registry, slow))[fetch]

    assert ("rows", 24) == (result.result, result.duration)


async def test_results_and_inputs_still_arrive_inside_a_hook(registry: TaskRegistry) -> None:
    registry.task("fetch")(lambda: "rows")

    @registry.task
    async def load(fetch: str, /, date: str, *, limit: int = 3) -> tuple[str, str, int]:
        return fetch, date, limit

    scheduler = TaskScheduler(registry, attempt_hooks=[Witness()])
    results = await scheduler.run(inputs={"date": "today"})

    assert ("rows", "today", 3) == results[load].result


# Context

place: ContextVar[str] = ContextVar("place", default="nowhere")


@asynccontextmanager
async def placing(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
    token = place.set(f"in {definition.name}, attempt {attempt}")
    yield
    place.reset(token)


async def in_the_loop() -> str:
    await checkpoint()
    return place.get()


def in_a_thread() -> str:
    return place.get()


async def in_a_lifetime() -> AsyncIterator[str]:
    await checkpoint()
    yield place.get()


async def in_what_it_spawns() -> str:
    seen: list[str] = []

    async def look() -> None:
        seen.append(place.get())

    async with anyio.create_task_group() as group:
        group.start_soon(look)
    return seen[0]


@each("function", [in_the_loop, in_a_thread, in_a_lifetime, in_what_it_spawns])
async def test_what_a_hook_sets_is_seen_by_the_function(
    registry: TaskRegistry, function: Callable[[], Any]
) -> None:
    registry.task("fetch")(function)
    result = (await hooked_run(registry, placing))["fetch"]

    assert (None, "in fetch, attempt 1") == (result.error, result.result)


async def test_what_a_hook_sets_is_seen_by_no_other_task_and_not_by_the_caller(
    registry: TaskRegistry,
) -> None:
    @asynccontextmanager
    async def leaving_it_set(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        if definition.name == "first":
            place.set("in first")
        yield

    registry.task("first")(in_the_loop)
    registry.task("second", depends_on=["first"])(in_the_loop)
    results = await hooked_run(registry, leaving_it_set)

    assert ["in first", "nowhere"] == [one.result for one in results]
    assert "nowhere" == place.get()


async def test_what_a_function_sets_is_seen_by_its_hook_on_the_way_out(
    registry: TaskRegistry,
) -> None:
    """As with the body of any context manager; a thread and a lifetime have a copy."""
    seen: list[str] = []

    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield
        seen.append(place.get())

    @registry.task
    async def fetch() -> None:
        place.set("in the function")

    await hooked_run(registry, hook)

    assert ["in the function"] == seen


# What they see of an attempt that goes wrong, and what they cannot do about it


def raises_at_once() -> Any:
    async def body() -> None:
        raise ValueError("no rows")

    return body


def raises_later() -> Any:
    async def body() -> None:
        await checkpoint()
        raise ValueError("no rows")

    return body


def raises_in_a_thread() -> Any:
    def body() -> None:
        raise ValueError("no rows")

    return body


def raises_in_a_set_up() -> Any:
    async def body() -> AsyncIterator[None]:
        await checkpoint()
        raise ValueError("no rows")
        yield

    return body


each_failure = each(
    "failing", [raises_at_once, raises_later, raises_in_a_thread, raises_in_a_set_up]
)


@each_failure
async def test_a_hook_sees_the_exception_itself(
    registry: TaskRegistry, failing: Callable[[], Any]
) -> None:
    witness = Witness()
    registry.task("fetch")(failing())
    result = (await hooked_run(registry, witness))["fetch"]

    assert [result.exception] == witness.seen
    assert "ValueError: no rows" == result.error


class Swallowing:
    """A hook as a class, which says that it has dealt with whatever came."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> bool:
        return True


@asynccontextmanager
async def swallowing(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
    with suppress(BaseException):
        yield


@asynccontextmanager
async def adding_a_note(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
    try:
        yield
    except ValueError as error:
        error.add_note(f"in {definition.name}")
        raise


@asynccontextmanager
async def in_a_task_group(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
    async with anyio.create_task_group():
        yield


def swallowing_as_a_class(definition: TaskDef, attempt: int) -> Swallowing:
    return Swallowing()


HARMLESS = [swallowing_as_a_class, swallowing, adding_a_note, in_a_task_group, placing]
each_harmless = each("hook", HARMLESS, ids=lambda hook: hook.__name__)


@each_harmless
@each_failure
async def test_a_hook_does_not_change_how_an_attempt_fails(
    registry: TaskRegistry,
    caplog: pytest.LogCaptureFixture,
    failing: Callable[[], Any],
    hook: Hook,
) -> None:
    """Nor is it logged: a task group cannot but raise the attempt's exception in a group."""
    registry.task("fetch", retries=2)(failing())
    result = (await hooked_run(registry, hook))["fetch"]

    assert (TaskStatus.FAILED, "ValueError: no rows", 2) == (
        result.status,
        result.error,
        result.attempts,
    )
    assert [] == caplog.records


def steps(result: TaskResult[Any]) -> list[str]:
    assert result.exception is not None
    traceback = result.exception.__traceback__
    names = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


@each_harmless
async def test_a_hook_leaves_no_step_in_a_traceback(registry: TaskRegistry, hook: Hook) -> None:
    registry.task("fetch")(raises_later())
    without = steps((await hooked_run(registry))["fetch"])
    results = await hooked_run(registry, hook, Witness())

    assert ["body"] == without
    assert without == steps(results["fetch"])
    assert results["fetch"].exception is not None
    assert results["fetch"].exception.__context__ is None


@pytest.mark.virtual_time
async def test_a_hook_sees_the_timeout(registry: TaskRegistry) -> None:
    witness = Witness()

    @registry.task(timeout=5)
    async def fetch() -> None:
        await anyio.sleep(10)

    result = (await hooked_run(registry, swallowing, witness))[fetch]

    assert isinstance(result.exception, TaskTimeoutError)
    assert [result.exception] == witness.seen
    assert 5 == result.duration


async def test_cancellation_passes_through(registry: TaskRegistry) -> None:
    witness = Witness()

    @registry.task
    async def waits() -> None:
        scope.cancel()
        await anyio.sleep_forever()

    scheduler = TaskScheduler(registry, attempt_hooks=[swallowing, witness])
    with anyio.CancelScope() as scope:
        await scheduler.run()

    assert scope.cancelled_caught
    assert TaskStatus.CANCELLED is scheduler.results[waits].status
    [seen] = witness.seen
    assert isinstance(seen, anyio.get_cancelled_exc_class())


async def test_cancellation_ends_a_hook_that_waits_on_the_way_in(registry: TaskRegistry) -> None:
    entered: list[str] = []

    @asynccontextmanager
    async def waiting(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        scope.cancel()
        await anyio.sleep_forever()
        yield

    @registry.task
    async def fetch() -> None:
        entered.append("fetch")

    scheduler = TaskScheduler(registry, attempt_hooks=[waiting])
    with anyio.CancelScope() as scope:
        await scheduler.run()

    assert [] == entered
    assert TaskStatus.CANCELLED is scheduler.results[fetch].status


async def test_cancellation_ends_a_hook_that_waits_on_the_way_out(registry: TaskRegistry) -> None:
    @asynccontextmanager
    async def waiting(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        yield
        scope.cancel()
        await anyio.sleep_forever()

    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, attempt_hooks=[waiting])
    with anyio.CancelScope() as scope:
        await scheduler.run()

    assert TaskStatus.CANCELLED is scheduler.results["fetch"].status


async def test_a_shielded_clean_up_of_a_hook_is_waited_for(registry: TaskRegistry) -> None:
    notes: list[str] = []

    @asynccontextmanager
    async def cleaning(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
                await checkpoint()
                notes.append("clean")

    @registry.task
    async def waits() -> None:
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await hooked_run(registry, cleaning)

    assert ["clean"] == notes


@each("raised", [KeyboardInterrupt, SystemExit])
@each("where", ["factory", "enter", "exit", "function"])
def test_what_ends_the_program_leaves_the_run_from_a_hook_too(
    registry: TaskRegistry,
    run_on_backend: Callable[..., Any],
    raised: type[BaseException],
    where: str,
) -> None:
    def raise_in(here: str) -> None:
        if where == here:
            raise raised

    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        raise_in("enter")
        try:
            yield
        finally:
            raise_in("exit")

    def hook(definition: TaskDef, attempt: int) -> AbstractAsyncContextManager[None]:
        raise_in("factory")
        return manager()

    @registry.task
    async def fetch() -> None:
        raise_in("function")

    with pytest.raises(raised):
        run_on_backend(hooked_run, registry, hook)


# Hooks that go wrong themselves


class BadHook:
    """A hook that raises in one place, at every attempt."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.calls = 0

    def __repr__(self) -> str:
        return "<BadHook>"

    def __call__(self, definition: TaskDef, attempt: int) -> Self:
        self.calls += 1
        self.raise_in("factory")
        return self

    async def __aenter__(self) -> None:
        self.raise_in("enter")

    async def __aexit__(self, *exception: object) -> None:
        await checkpoint()
        self.raise_in("exit")

    def raise_in(self, here: str) -> None:
        if here == self.where:
            raise LookupError(f"in its {here}, call {self.calls}")


each_place = each("where", ["factory", "enter", "exit"])


@each_place
async def test_a_hook_that_raises_is_logged_once_a_run_and_the_attempts_are_unharmed(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    hook = BadHook(where)
    left = [ValueError("no rows")]

    @registry.task(retries=2)
    async def fetch() -> str:
        if left:
            raise left.pop()
        return "rows"

    registry.task("load", depends_on=[fetch])(no_op)
    scheduler = TaskScheduler(registry, attempt_hooks=[hook])
    results = await scheduler.run()
    [record] = caplog.records

    assert [None, None] == [one.error for one in results]
    assert ("rows", 2) == (results[fetch].result, results[fetch].attempts)
    assert 3 == hook.calls
    assert ("portable_sched", logging.ERROR) == (record.name, record.levelno)
    assert (
        "Hook <BadHook> raised around attempt 1 of task 'fetch'; what else it raises in this run "
        "is not logged."
    ) == record.getMessage()
    assert f"in its {where}, call 1" == str(record.exc_info[1])  # type: ignore[index]

    await scheduler.run()
    assert 2 == len(caplog.records)


@each_place
async def test_an_attempt_that_fails_fails_by_its_own_exception(
    registry: TaskRegistry, where: str
) -> None:
    registry.task("fetch")(raises_later())
    result = (await hooked_run(registry, BadHook(where)))["fetch"]

    assert "ValueError: no rows" == result.error


@each_place
async def test_the_hooks_around_and_inside_a_bad_one_are_entered_and_left(
    registry: TaskRegistry, where: str
) -> None:
    notes: list[str] = []
    registry.task("fetch")(no_op)
    await hooked_run(registry, Witness("one", notes), BadHook(where), Witness("two", notes))

    assert [
        "enter one fetch 1",
        "enter two fetch 1",
        "leave two fetch 1",
        "leave one fetch 1",
    ] == notes


@each_place
async def test_what_a_bad_hook_raises_is_not_seen_by_the_others(
    registry: TaskRegistry, where: str
) -> None:
    outer, inner = Witness(), Witness()
    registry.task("fetch")(no_op)
    await hooked_run(registry, outer, BadHook(where), inner)

    assert ([None], [None]) == (outer.seen, inner.seen)


async def test_each_bad_hook_is_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.task("fetch")(no_op)
    await hooked_run(registry, BadHook("enter"), BadHook("exit"))

    assert 2 == len(caplog.records)


async def test_a_hook_that_gives_no_context_manager_is_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(definition: TaskDef, attempt: int) -> Any:
        return None

    registry.task("fetch")(no_op)
    results = await hooked_run(registry, hook)

    assert results.ok
    assert 1 == len(caplog.records)


async def test_a_hook_that_raises_something_else_at_a_failure_is_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def translating(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        try:
            yield
        except ValueError as error:
            raise LookupError("translated") from error

    registry.task("fetch")(raises_later())
    result = (await hooked_run(registry, translating))["fetch"]

    assert "ValueError: no rows" == result.error
    assert ["translated"] == [str(one.exc_info[1]) for one in caplog.records]  # type: ignore[index]


async def test_a_hook_whose_task_group_fails_by_itself_is_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """What its child raised cancels the attempt, which nobody else has cancelled: it has failed."""

    async def child() -> None:
        raise LookupError("of the child")

    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            yield

    @registry.task
    async def waits() -> None:
        await anyio.sleep_forever()

    registry.task("later", after=[waits])(no_op)
    results = await hooked_run(registry, hook)

    assert TaskStatus.FAILED is results[waits].status
    assert [
        "Hook <function test_a_hook_whose_task_group_fails_by_itself_is_logged.<locals>.hook"
    ] == [one.getMessage().partition(" at 0x")[0] for one in caplog.records]


# Scopes inside


@pytest.mark.virtual_time
async def test_a_scope_in_a_hook_holds_for_the_attempt(registry: TaskRegistry) -> None:
    """The hook's timeout is not the task's: what it cancels has failed, as by its own doing."""

    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        with anyio.move_on_after(3):
            yield

    @registry.task
    async def quick() -> str:
        await anyio.sleep(2)
        return "rows"

    @registry.task
    async def slow() -> None:
        await anyio.sleep(10)

    # Whoever comes after finds the worker and its scopes in order.
    @registry.task(after=[slow])
    async def later() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(checkpoint)
        return "later"

    results = await hooked_run(registry, hook, max_concurrency=2)

    assert (TaskStatus.COMPLETED, "rows") == (results[quick].status, results[quick].result)
    assert (TaskStatus.FAILED, 3) == (results[slow].status, results[slow].duration)
    assert "later" == results[later].result


async def test_what_a_hook_spawns_runs_beside_the_attempt(registry: TaskRegistry) -> None:
    notes: list[str] = []

    @asynccontextmanager
    async def hook(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        async def beat() -> None:
            notes.append("beat")
            beaten.set()

        beaten = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            yield
            await beaten.wait()
            group.cancel_scope.cancel()
        notes.append("left")

    registry.task("first")(no_op)
    registry.task("second", depends_on=["first"])(no_op)
    results = await hooked_run(registry, hook)

    assert results.ok
    assert ["beat", "left"] * 2 == notes


async def test_a_task_group_in_a_hook_and_one_around_the_run_are_left_in_order(
    registry: TaskRegistry,
) -> None:
    async def waits_in_a_group() -> AsyncIterator[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(checkpoint)
            yield "connection"

    registry.task("db")(waits_in_a_group)
    registry.task("load", depends_on=["db"])(no_op)
    async with anyio.create_task_group() as group:
        group.start_soon(checkpoint)
        results = await hooked_run(registry, in_a_task_group)

    assert results.ok


# Memory


def fails_in_every_way() -> TaskRegistry:
    registry = TaskRegistry()
    for make in (raises_at_once, raises_later, raises_in_a_thread, raises_in_a_set_up):
        registry.task(make.__name__, retries=2)(make())

    @registry.task
    async def takes(raises_at_once: None) -> None: ...

    @registry.task(after=["raises_later"])
    async def told(raises_later: TaskResult[None]) -> None:
        raise ValueError

    return registry


def test_nothing_of_a_hooked_run_is_in_a_cycle(run_on_backend: Callable[..., Any]) -> None:
    """The collector, told to keep what it finds, finds nothing of ours and no task's exception."""
    tasks = fails_in_every_way()

    async def run_and_read() -> None:
        # Nothing is returned: event loops keep what their main task returned, in cycles of theirs.
        list(await hooked_run(tasks, *HARMLESS))

    run_on_backend(run_and_read)  # what is imported and cached at first is not what we look for
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run_on_backend(run_and_read)
        gc.collect()
        found = [
            one
            for one in gc.garbage
            if isinstance(one, ValueError) or type(one).__module__.startswith("portable_sched")
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()

    assert [] == found


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_what_a_hooked_attempt_held_is_freed_with_the_results(registry: TaskRegistry) -> None:
    """By its reference count, at once: the collector is off."""

    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    @registry.task
    async def fails() -> None:
        one = Held()
        held.append(weakref.ref(one))
        await checkpoint()
        raise ValueError

    results = await hooked_run(registry, swallowing)
    kept = held[0]() is not None
    del results

    assert kept
    assert held[0]() is None


# What is no hook

REFUSED: list[tuple[Any, str]] = [
    (
        None,
        (
            "Expected attempt_hooks to be a list of callables, got None (NoneType). Write "
            "attempt_hooks=[...]."
        ),
    ),
    (
        len,
        (
            "Expected attempt_hooks to be a list of callables, got <built-in function len> "
            "(builtin_function_or_method). Write attempt_hooks=[...]."
        ),
    ),
    (
        ["trace"],
        "Expected attempt_hooks to be a list of callables, got 'trace' (str) in the list.",
    ),
]


@each("hooks, message", REFUSED, ids=[repr(given) for given, _ in REFUSED])
def test_what_is_no_list_of_callables_is_refused(hooks: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        TaskScheduler([], attempt_hooks=hooks)

    assert message == str(caught.value)

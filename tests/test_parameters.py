"""What a function asks for: its parameters and their marks, and which types plainly do not fit."""

import __future__

import abc
import functools
import types
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
    runtime_checkable,
)

import pytest

from portable_sched import Parameter, ResultOf, TaskDef, TaskRegistry
from portable_sched._parameters import (
    parameters_of,
    plainly_misfits,
    returned_by,
    takes_nothing,
)


def names_of(function: Callable[..., object]) -> list[str]:
    return [parameter.name for parameter in parameters_of(function)]


def mark_of(function: Callable[..., object], **namespace: Any) -> object:
    """What `ResultOf` names in the only parameter."""
    [parameter] = parameters_of(function, namespace)
    return parameter.result_of


def module_of(source: str) -> types.ModuleType:
    """A module of its own, written with `from __future__ import annotations`."""
    module = types.ModuleType("of_its_own")
    flags = __future__.annotations.compiler_flag
    exec(compile(source, "of_its_own.py", "exec", flags), module.__dict__)
    return module


# Which parameters there are


def test_a_function_without_parameters_asks_for_nothing() -> None:
    async def fetch() -> None: ...

    assert () == parameters_of(fetch)
    assert takes_nothing(fetch)


def test_a_parameter_is_required_passed_by_name_and_of_any_type_if_it_says_no_more() -> None:
    async def load(rows): ...

    expected = Parameter(
        name="rows", by_position=False, required=True, default=None, result_of=None, annotation=None
    )
    assert (expected,) == parameters_of(load)
    assert not takes_nothing(load)


def test_parameters_stand_in_their_order() -> None:
    async def load(one, /, two, *, three): ...

    assert ["one", "two", "three"] == names_of(load)


def test_positional_only_ones_are_passed_by_position_and_all_others_by_name() -> None:
    async def load(one, /, two, *, three): ...

    by_position = [parameter.by_position for parameter in parameters_of(load)]
    assert [True, False, False] == by_position


def test_a_default_is_kept_and_makes_a_parameter_not_required() -> None:
    async def load(rows=(), /, path="x", *, retry=None): ...

    found = [(one.name, one.required, one.default) for one in parameters_of(load)]
    assert [("rows", False, ()), ("path", False, "x"), ("retry", False, None)] == found


def test_a_default_that_is_equal_to_anything_is_still_a_default() -> None:
    class Everything:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None

    everything = Everything()

    async def load(rows=everything): ...

    [parameter] = parameters_of(load)
    assert not parameter.required
    assert everything is parameter.default


def test_collected_arguments_are_never_filled() -> None:
    async def load(one, *rest, two, **more): ...

    assert ["one", "two"] == names_of(load)


def test_a_function_of_nothing_but_collected_arguments_asks_for_nothing() -> None:
    async def load(*rest, **more): ...

    assert () == parameters_of(load)
    assert takes_nothing(load)


def test_annotations_are_kept() -> None:
    async def load(rows: list[str], path: Path | None = None): ...

    annotations = [parameter.annotation for parameter in parameters_of(load)]
    assert [list[str], Path | None] == annotations


def test_what_annotated_adds_is_no_part_of_the_type() -> None:
    async def load(rows: Annotated[list[str], "sorted"]): ...

    [parameter] = parameters_of(load)
    assert list[str] == parameter.annotation
    assert parameter.result_of is None


# Which callables there are


def test_a_partial_asks_for_what_it_has_not_been_given() -> None:
    def load(one, two, three): ...

    assert ["two", "three"] == names_of(functools.partial(load, 1))


def test_what_a_partial_has_been_given_by_name_is_a_default() -> None:
    def load(one, two, three): ...

    found = {one.name: (one.required, one.default) for one in parameters_of(partial_of(load))}
    assert {"one": (True, None), "two": (False, 2), "three": (True, None)} == found


def partial_of(function: Callable[..., object]) -> Callable[..., object]:
    return functools.partial(functools.partial(function), two=2)


class Store:
    async def load(self, rows: "Annotated[list[str], ResultOf('fetch')]") -> "Path": ...

    @classmethod
    async def of_class(cls, rows): ...

    @staticmethod
    async def of_nothing(rows): ...

    async def __call__(self, rows: "Annotated[list[str], ResultOf('fetch')]") -> "Path": ...


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(Store().load, id="method"),
        pytest.param(Store.of_class, id="class method"),
        pytest.param(Store.of_nothing, id="static method"),
        pytest.param(Store(), id="callable object"),
        pytest.param(lambda rows: rows, id="lambda"),
        pytest.param(functools.partial(Store().load), id="partial of a method"),
        pytest.param(functools.partial(Store()), id="partial of an object"),
    ],
)
def test_the_object_that_a_callable_is_bound_to_is_no_parameter(function) -> None:
    assert ["rows"] == names_of(function)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(Store().load, id="method"),
        pytest.param(Store(), id="callable object"),
        pytest.param(functools.partial(Store().load), id="partial of a method"),
        pytest.param(functools.partial(functools.partial(Store())), id="partial of an object"),
    ],
)
def test_strings_are_read_where_the_function_behind_a_callable_was_written(function) -> None:
    [parameter] = parameters_of(function)

    assert (list[str], "fetch") == (parameter.annotation, parameter.result_of)
    assert Path == returned_by(function)


def test_an_object_that_keeps_a_function_of_another_module_is_read_where_it_was_written() -> None:
    """Its attribute may be called `func`, as that of a partial is."""

    class Wrapping:
        def __init__(self, func: Callable[..., object]) -> None:
            self.func = func

        async def __call__(self, rows: "Annotated[list[str], ResultOf('fetch')]") -> "Path": ...

    wrapping = Wrapping(module_of("def other(): ...").other)

    assert "fetch" == mark_of(wrapping)
    assert Path == returned_by(wrapping)


def test_a_builtin_asks_for_what_its_signature_says() -> None:
    [parameter] = parameters_of(len)

    assert ("obj", True, True) == (parameter.name, parameter.by_position, parameter.required)


def test_a_builtin_that_does_not_tell_its_signature_asks_for_nothing() -> None:
    assert () == parameters_of(max)
    assert returned_by(max) is None


def test_what_cannot_be_called_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="not a callable object"):
        parameters_of(3)


def test_a_wrapper_asks_for_what_it_wraps() -> None:
    async def load(rows: list[str], *, path: Path = Path()) -> int: ...

    @functools.wraps(load)
    async def wrapper(*args, **kwargs):
        return await load(*args, **kwargs)

    assert parameters_of(load) == parameters_of(wrapper)
    assert not takes_nothing(wrapper)
    assert int is returned_by(wrapper)


def test_the_strings_of_a_wrapped_function_are_read_where_that_was_written() -> None:
    module = module_of(
        "from typing import Annotated\n"
        "from portable_sched import ResultOf\n"
        "class Row: ...\n"
        "async def load(rows: Annotated[Row, ResultOf('fetch')]) -> Row: ...\n"
    )

    @functools.wraps(module.load)
    async def wrapper(*args, **kwargs): ...

    [parameter] = parameters_of(wrapper)
    assert (module.Row, "fetch") == (parameter.annotation, parameter.result_of)
    assert module.Row is returned_by(wrapper)


# The mark


def test_a_mark_names_a_task() -> None:
    async def load(rows: Annotated[list[str], ResultOf("fetch-rows")]): ...

    [parameter] = parameters_of(load)
    assert ("fetch-rows", list[str]) == (parameter.result_of, parameter.annotation)


def test_a_mark_may_be_given_a_function() -> None:
    async def fetch(): ...

    async def load(rows: Annotated[list[str], ResultOf(fetch)]): ...

    assert fetch is mark_of(load)


def test_a_mark_may_stand_among_others() -> None:
    async def load(
        rows: Annotated[Annotated[list[str], "sorted"], ResultOf("fetch"), "unique"],
    ): ...

    [parameter] = parameters_of(load)
    assert ("fetch", list[str]) == (parameter.result_of, parameter.annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        pytest.param(Annotated[int, ResultOf("fetch")] | None, id="|"),
        pytest.param(Optional[Annotated[int, ResultOf("fetch")]], id="Optional"),  # noqa: UP045 - before 3.14 another class than |
        pytest.param(Union[None, str, Annotated[int, ResultOf("fetch")]], id="Union"),  # noqa: UP007 - likewise
    ],
)
def test_a_mark_counts_in_a_member_of_a_union_too(annotation) -> None:
    """Or the default would be taken without a word."""

    async def load(rows: annotation = None): ...

    assert "fetch" == mark_of(load)


@pytest.mark.parametrize("wrong", ["", 3, None, ["fetch"]], ids=repr)
def test_a_mark_is_of_a_name_or_a_function(wrong) -> None:
    with pytest.raises(TypeError, match="Expected ResultOf of a task's name or a decorated func"):
        ResultOf(wrong)


def test_a_mark_shows_what_it_names() -> None:
    assert "ResultOf('fetch')" == repr(ResultOf("fetch"))


def test_a_mark_of_a_function_means_the_name_it_has_when_the_task_is_defined(registry) -> None:
    """As `depends_on` does: it may get another name in another registry later."""

    @registry.task(name="fetch-rows")
    async def fetch(): ...

    @registry.task
    async def load(rows: Annotated[list[str], ResultOf(fetch)]): ...

    TaskRegistry().task("other")(fetch)

    [parameter] = registry["load"].parameters
    assert "fetch-rows" == parameter.result_of


def test_a_mark_of_a_function_that_is_no_task_is_refused_with_who_asks(registry) -> None:
    async def fetch(): ...

    async def load(rows: Annotated[list[str], ResultOf(fetch)]): ...

    with pytest.raises(TypeError, match=r"Task 'load': ResultOf: Function .*fetch is not a task"):
        registry.task(load)


def test_a_mark_of_a_function_of_several_names_is_refused(registry) -> None:
    async def fetch(): ...

    registry.task("one")(fetch)
    registry.task("two")(fetch)

    async def load(rows: Annotated[list[str], ResultOf(fetch)]): ...

    with pytest.raises(TypeError, match="is registered as 'one' and 'two': say which"):
        registry.task(load)


# Annotations that are strings


def test_a_string_is_read_in_the_globals_of_the_function() -> None:
    async def load(rows: "Annotated[Path, ResultOf('fetch')]"): ...

    [parameter] = parameters_of(load)
    assert ("fetch", Path) == (parameter.result_of, parameter.annotation)


def test_a_string_is_read_with_the_names_that_are_given_too() -> None:
    async def load(rows: "Annotated[Row, Taken('fetch')]"): ...  # noqa: F821

    [parameter] = parameters_of(load, {"Row": bytes, "Taken": ResultOf})
    assert ("fetch", bytes) == (parameter.result_of, parameter.annotation)


def test_given_names_go_before_globals() -> None:
    async def load(rows: "Path"): ...

    [parameter] = parameters_of(load, {"Path": bytes})
    assert bytes is parameter.annotation


def test_a_string_that_cannot_be_read_says_nothing_of_the_type() -> None:
    async def load(rows: "OnlyForTypeCheckers", path: "not even Python"):  # noqa: F722, F821
        ...

    found = parameters_of(load)
    assert ["rows", "path"] == [parameter.name for parameter in found]
    assert [None, None] == [parameter.result_of for parameter in found]
    assert not any(plainly_misfits(int, parameter.annotation) for parameter in found)


@pytest.mark.parametrize(
    ("annotation", "error"),
    [
        ("Annotated[OnlyForTypeCheckers, ResultOf('fetch')]", NameError),
        ("Annotated[int, ResultOf('fetch']", SyntaxError),
        ("Annotated[int, ResultOf(3)]", TypeError),
        ("Annotated[int, ResultOf.task.nothing]", AttributeError),
    ],
)
def test_a_string_that_cannot_be_read_is_an_error_where_it_mentions_a_mark(
    registry, annotation, error
) -> None:
    async def load(rows): ...

    load.__annotations__["rows"] = annotation

    with pytest.raises(error):
        parameters_of(load)
    with pytest.raises(error):
        registry.task(load)
    assert 0 == len(registry)


def test_a_module_may_have_all_its_annotations_as_strings() -> None:
    module = module_of(
        "from typing import TYPE_CHECKING, Annotated\n"
        "from portable_sched import ResultOf\n"
        "if TYPE_CHECKING:\n"
        "    from somewhere import Row\n"
        "async def load(rows: Annotated[list[int], ResultOf('fetch')], row: Row) -> Row: ...\n"
    )
    rows, row = parameters_of(module.load)

    assert ("fetch", list[int]) == (rows.result_of, rows.annotation)
    assert row.result_of is None
    assert returned_by(module.load) is None


DECORATED_IN_A_FUNCTION = """
def define(registry):
    from typing import Annotated
    from portable_sched import ResultOf
    class Row: ...

    @registry.task
    async def bare(rows: Annotated[Row, ResultOf('fetch')]): ...
    @registry.task()
    async def called(rows: Annotated[Row, ResultOf('fetch')]): ...
    @registry.task(name='other', timeout=3)
    async def set_up(rows: Annotated[Row, ResultOf('fetch')]): ...
    async def plain(rows: Annotated[Row, ResultOf('fetch')]): ...
    registry.task(plain)

    return Row
"""


@pytest.mark.parametrize("name", ["bare", "called", "other", "plain"])
def test_a_string_may_use_the_local_names_of_where_it_was_decorated(registry, name) -> None:
    row = module_of(DECORATED_IN_A_FUNCTION).define(registry)

    [parameter] = registry[name].parameters
    assert ("fetch", row) == (parameter.result_of, parameter.annotation)


@pytest.mark.parametrize("form", ["task", "task()"])
def test_the_default_registry_sees_local_names_too(form) -> None:
    module = module_of(
        "def define():\n"
        "    from portable_sched import ResultOf as Taken, task\n"
        "    from typing import Annotated\n"
        "    class Row: ...\n"
        f"    @{form}\n"
        "    async def load(rows: Annotated[Row, Taken('fetch')]): ...\n"
        "    return load, Row\n"
    )
    load, row = module.define()

    [parameter] = load.__portable_sched_task__[0].parameters
    assert ("fetch", row) == (parameter.result_of, parameter.annotation)


def test_a_string_may_use_the_names_of_the_class_it_was_decorated_in(registry) -> None:
    class Steps:
        class Row: ...

        @registry.task
        @staticmethod
        async def load(rows: "Annotated[Row, ResultOf('fetch')]"): ...

    [parameter] = registry["load"].parameters
    assert ("fetch", Steps.Row) == (parameter.result_of, parameter.annotation)


def test_a_definition_made_by_hand_reads_its_parameters_itself() -> None:
    async def load(rows: "Annotated[Path, ResultOf('fetch')]"): ...

    [parameter] = TaskDef(name="load", function=load).parameters
    assert ("fetch", Path) == (parameter.result_of, parameter.annotation)


# What a function says to return


async def to_nothing() -> None: ...
async def to_number() -> int: ...
async def to_string_of_a_number() -> "int": ...
async def to_who_knows() -> "OnlyForTypeCheckers": ...  # noqa: F821
async def to_silence(): ...
def plain_to_number() -> int: ...
async def opened() -> AsyncIterator[int]:
    yield 3


async def opened_in_full() -> AsyncGenerator[int, None]:
    yield 3


async def opened_as_a_string() -> "AsyncIterator[int]":
    yield 3


async def opened_bare() -> AsyncIterator:
    yield 3


async def opened_in_silence():
    yield 3


def hidden() -> Awaitable[int]: ...
async def to_something_to_await() -> Awaitable[int]: ...


class Opening:
    async def __call__(self) -> AsyncIterator[int]:
        yield 3

    async def method(self) -> AsyncIterator[int]:
        yield 3


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (to_nothing, type(None)),
        (to_number, int),
        (to_string_of_a_number, int),
        (to_who_knows, None),
        (to_silence, None),
        (plain_to_number, int),
        (functools.partial(to_number), int),
        (opened, int),
        (opened_in_full, int),
        (opened_as_a_string, int),
        (opened_bare, None),
        (opened_in_silence, None),
        (functools.partial(opened), int),
        (Opening().method, int),
        (Opening(), int),
        (to_something_to_await, Awaitable[int]),
    ],
)
def test_the_type_of_a_result_is_what_a_function_says_to_return_or_yield(
    function, expected
) -> None:
    assert expected == returned_by(function)


def test_a_plain_function_that_returns_an_awaitable_does_not_say_what_comes_of_it() -> None:
    """The awaitable is awaited, so it is not the result."""
    assert returned_by(hidden) is None


# Which types do not fit


T = TypeVar("T")


class Animal: ...


class Cat(Animal): ...


class Stone: ...


class Box(Generic[T]): ...


class Level(IntEnum):
    LOW = 1


class Readable(Protocol):
    def read(self) -> bytes: ...


@runtime_checkable
class Closable(Protocol):
    def close(self) -> None: ...


class Row(TypedDict):
    name: str


class Point(NamedTuple):
    x: int


class OneAbstract(abc.ABC):
    @abc.abstractmethod
    def one(self) -> None: ...


class OtherAbstract(abc.ABC):
    @abc.abstractmethod
    def other(self) -> None: ...


class Unasked(type):
    def __subclasscheck__(cls, other: type) -> bool:
        raise TypeError("not to be asked")


class Opaque(metaclass=Unasked): ...


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (int, list[str]),
        (int, str),
        (str, int),
        (bytes, str),
        (list[str], dict[str, int]),
        (Animal, Stone),
        (Cat, Stone),
        (Box[int], Stone),
        (type(None), int),
        (None, int),
        (int, None),
        (float, int),
        (complex, float),
        (float, Level),
        (Decimal, float),
        (int, str | bytes),
        (int | None, str),
        (int | float, str | None),
        (Union[int, bytes], Optional[str]),  # noqa: UP007, UP045 - before 3.14 another class than |
        (int, Iterable[int]),
        (Point, list[int]),
    ],
    ids=str,
)
def test_these_plainly_do_not_fit(given, wanted) -> None:
    assert plainly_misfits(given, wanted)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (int, int),
        (list[str], list[str]),
        # What is inside is not looked at.
        (list[int], list[str]),
        (list[str], list),
        (list[str], Sequence[str]),
        (dict[str, int], Mapping[str, int]),
        (Iterator[str], Iterable[str]),
        (Cat, Animal),
        (Box[int], Box),
        # It may be one all the same.
        (Animal, Cat),
        (object, int),
        (int, object),
        (Iterable[str], list[str]),
        (Any, int),
        (int, Any),
        (int, T),
        (T, int),
        (int, UserId),
        (UserId, str),
        (int, Literal["a"]),
        (Literal["a"], int),
        (int, "OnlyForTypeCheckers"),
        ("OnlyForTypeCheckers", int),
        # Anything may have the methods of a protocol.
        (int, Readable),
        (Readable, int),
        (Stone, Readable),
        (Stone, Closable),
        (Closable, Stone),
        # PEP 484: an int is welcome where a float is asked for.
        (int, float),
        (int, complex),
        (float, complex),
        (bool, int),
        (bool, float),
        (int, bool),
        (Level, int),
        (Level, float),
        (int, Level),
        (None, None),
        (type(None), None),
        (None, int | None),
        (int, int | None),
        pytest.param(int, Optional[int], id="int-Optional[int]"),  # noqa: UP045 - before 3.14 another class than |
        (int | None, int),
        (int | str, str | bytes),
        (int | Any, str),
        (int, float | str),
        (Row, dict[str, Any]),
        (dict[str, Any], Row),
        (Point, tuple[int]),
        (Callable[[], int], Callable[..., Any]),
        # A third class may be both.
        (Iterable[str], Sized),
        (Sized, Iterable[str]),
        (OneAbstract, OtherAbstract),
        (tuple[int, ...], Hashable),
        # These do not tell.
        (Row, list[str]),
        (Stone, Opaque),
        (Opaque, Stone),
    ],
    ids=str,
)
def test_these_may_fit(given, wanted) -> None:
    assert not plainly_misfits(given, wanted)

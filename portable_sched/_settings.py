"""What a project has settled for its command lines: the table `[tool.portable-sched]`."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, get_args

from portable_sched._errors import did_you_mean, nearest_names

from ._loading import UsageError, from_here, look_in

BackendName = Literal["asyncio", "trio", "uvloop"]
PolicyName = Literal["continue", "drain", "cancel"]


def _is_whole(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_units(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_whole, value.values()))


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


# Each setting with what it has to be.
_KNOWN: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "target": (lambda value: isinstance(value, str), "a module or file, as in 'pipeline.py'"),
    "backend": (lambda value: value in get_args(BackendName), "'asyncio', 'trio' or 'uvloop'"),
    "max-concurrency": (_is_whole, "a whole number of at least 1"),
    "on-failure": (lambda value: value in get_args(PolicyName), "'continue', 'drain' or 'cancel'"),
    "resources": (_is_units, "a table of whole numbers, as in { db = 4 }"),
    "report": (_are_texts, "a list of formats, as in ['html=run.html']"),
    "progress": (lambda value: isinstance(value, bool), "true or false"),
}


def project_settings(folder: Path) -> dict[str, Any]:
    """The settings of the nearest `pyproject.toml`, of `folder` or above; empty if there are none.

    Raises:
        UsageError: the file cannot be read, or is no TOML, or a setting is unknown or not what it
            should be.
    """
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            return _read(file)
    return {}


def _read(file: Path) -> dict[str, Any]:
    name = from_here(str(file))
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: {error}") from error
    tools = table.get("tool")
    settings = tools.get("portable-sched", {}) if isinstance(tools, dict) else {}
    if not isinstance(settings, dict):
        raise UsageError(f"{name}: expected [tool.portable-sched] to be a table.")
    for key, value in settings.items():
        if key not in _KNOWN:
            nearest = did_you_mean(nearest_names(key, list(_KNOWN)))
            raise UsageError(f"{name}: [tool.portable-sched] has no setting {key!r}.{nearest}")
        fits, expected = _KNOWN[key]
        if not fits(value):
            raise UsageError(
                f"{name}: expected {key} of [tool.portable-sched] to be {expected}, got {value!r}."
            )
    return _as_seen_from(file.parent, settings)


def _as_seen_from(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose files and modules are meant as they are seen from where the settings stand."""
    seen = dict(settings)
    if "target" in seen:
        place = seen["target"].partition(":")[0]
        if place.endswith(".py"):
            seen["target"] = from_here(str(folder / seen["target"]))
        else:
            look_in(folder)
    if "report" in seen:
        seen["report"] = [_report_seen_from(folder, text) for text in seen["report"]]
    return seen


def _report_seen_from(folder: Path, text: str) -> str:
    name, equals, file = text.partition("=")
    if equals:
        return f"{name}={from_here(str(folder / file))}" if file else text
    # A file that says its format has a suffix, and a format has none.
    return from_here(str(folder / text)) if "." in text else text

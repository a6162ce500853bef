"""Where progress is shown: in a terminal, in a notebook, or as lines of a log.

A terminal is shared with whatever else is printed. While a view stands at its end, `sys.stdout` and
`sys.stderr` are replaced, and so are the streams of logging handlers that hold them: what is
written there stands above the view, as it is. Rich would do the first of these. It wraps long
lines, reads its own markup in what is flushed within a line, draws the view anew for every line
however many there are, and does not know of handlers.
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import import_module
from io import StringIO
from threading import RLock
from time import monotonic
from typing import IO, Any, Final, TypeAlias, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

# Seconds from one look at a terminal to the next: ten times a second.
_TENTH: Final = 0.1
# What stands for the characters of the view where there are none but those of ASCII.
_POOR: Final = str.maketrans("━╍─…", "#>-.")
# The width and height of the view in a notebook, which has no size of its own.
_NOTEBOOK_WIDTH, _NOTEBOOK_HEIGHT = 100, 24
# Inline, since the notebook of somebody else has no style sheet of ours.
_HTML: Final = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)


def open_place(console: Console | None) -> "Place":
    """Where to show what goes on: a live view if there is a place for one.

    Args:
        console: the one to use; None for standard error.
    """
    stream = sys.stderr
    if console is None:
        # Its file is given, or it would write to what will stand there in its place.
        console = Console(file=stream) if stream is not None else Console(stderr=True)
        if console.is_jupyter:
            return _in_notebook() or Lines(None)
        # Not if a colourful log file is asked for, nor above somebody else's live display.
        is_ours = stream is not None and stream.isatty()
        if not is_ours or hasattr(stream, "rich_proxied_file") or not _is_live(console):
            return Lines(None)
        return Terminal(console, is_ours=True)
    if console.is_jupyter:
        return _in_notebook() or Lines(None)
    return Terminal(console) if _is_live(console) else Lines(console)


def _is_live(console: Console) -> bool:
    in_ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return console.is_terminal and console.is_interactive and not in_ci


class Lines:
    """A log, or whatever is no terminal: lines one after another."""

    is_live = False
    pause = 0.5
    size = (0, 0)

    def __init__(self, console: Console | None) -> None:
        self._console = console

    def show(self, lines: Sequence[Text]) -> None:
        """Draw a view in the place of the one before; here there is none."""

    def say(self, lines: Sequence[Text]) -> None:
        """Put down lines that stay."""
        for line in lines:
            if self._console is not None:
                self._console.print(_encodable(line, self._console.encoding), soft_wrap=True)
            elif sys.stderr is not None:
                text = _encodable(line, sys.stderr.encoding or "utf-8").plain
                sys.stderr.write(text + "\n")
                sys.stderr.flush()

    def stop(self) -> None:
        """Take the view away, and leave everything as it was found."""


class Notebook:
    """One output of a notebook, which is updated: it needs IPython, and no widgets as rich does."""

    is_live = True
    pause = 0.25
    size = (_NOTEBOOK_WIDTH, _NOTEBOOK_HEIGHT)

    def __init__(self, display: Any) -> None:
        self._said: list[Text] = []
        self._view: list[Text] = []
        self._handle = display(self._data(), raw=True, display_id=True)

    def show(self, lines: Sequence[Text]) -> None:
        self._view = list(lines)
        self._handle.update(self._data(), raw=True)

    def say(self, lines: Sequence[Text]) -> None:
        self._said += lines
        self.show(self._view)

    def stop(self) -> None:
        self._view = []

    def _data(self) -> dict[str, str]:
        console = Console(
            record=True,
            file=StringIO(),
            force_terminal=True,
            force_jupyter=False,
            color_system="truecolor",
            width=_NOTEBOOK_WIDTH,
        )
        for line in [*self._said, *self._view]:
            console.print(line, soft_wrap=True)
        text = console.export_text(clear=False)
        return {
            "text/plain": text,
            "text/html": console.export_html(inline_styles=True, code_format=_HTML),
        }


def _in_notebook() -> Notebook | None:
    try:
        display = import_module("IPython.display").display
    except ImportError:
        return None
    return Notebook(display)


class Terminal:
    """The end of a terminal: a view that is drawn in place, below what others print.

    Args:
        console: leads to it.
        is_ours: whether nobody else has this console. If somebody has, it must find its way around
            what stands in for the streams, and so do all other consoles of rich.
    """

    is_live = True
    pause = _TENTH

    def __init__(self, console: Console, *, is_ours: bool = False) -> None:
        self._console = console
        self._view: list[Text] = []
        self._streams: list[_Stream] = []
        self._above: deque[str] = deque()
        self._printed = monotonic()
        # Held while lines are printed, so that those of two threads stay in their order. A signal
        # handler may print too.
        self._printing = RLock()
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
            get_renderable=self._whole_view,
        )
        self._live.start()
        if console.file.isatty():
            self._stand_in_for_streams(bypassed=not is_ours)

    @property
    def size(self) -> tuple[int, int]:
        width, height = self._console.size
        # The last row stays free, or the terminal would scroll at the end of the view.
        return width, height - 1 - len(self._unfinished())

    def show(self, lines: Sequence[Text]) -> None:
        self._view = [_encodable(line, self._console.encoding) for line in lines]
        self._print_above()
        self._live.refresh()

    def say(self, lines: Sequence[Text]) -> None:
        self._print_above()
        for line in lines:
            self._console.print(_encodable(line, self._console.encoding), soft_wrap=True)

    def stop(self) -> None:
        # One line, since rich before 15 takes none for one, and would leave it.
        self._view = [Text()]
        # From now on all is printed at once: another thread may be about to write.
        self.pause = 0.0
        try:
            for stream in self._streams:
                stream.leave()
            self._print_above()
        finally:
            self._live.stop()

    def write_above(self, text: str) -> None:
        """Print whole lines above the view: at once, or with others a tenth of a second later."""
        self._above.append(text)
        if monotonic() - self._printed >= self.pause:
            self._print_above()

    def _print_above(self) -> None:
        with self._printing:
            pieces = []
            while self._above:
                pieces.append(self._above.popleft())
            if pieces:
                self._console.print(_AsItIs("".join(pieces)), soft_wrap=True)
                self._printed = monotonic()

    def _stand_in_for_streams(self, *, bypassed: bool) -> None:
        found = {name: getattr(sys, name) for name in ("stdout", "stderr")}
        for name, stream in found.items():
            # Not for one that leads to a file: what is written there stays there.
            if stream is not None and stream.isatty():
                stand_in = _Stream(stream, self, bypassed=bypassed)
                setattr(sys, name, stand_in)
                self._streams.append(stand_in)
                stand_in.names.append(name)
        for handler in _stream_handlers():
            for stand_in in self._streams:
                if handler.stream is stand_in.stream:
                    handler.setStream(cast("Any", stand_in))
                    stand_in.handlers.append(handler)

    def _unfinished(self) -> list[Text]:
        """The lines that have been begun, which stand above the view until they end."""
        begun = [stream.unfinished.rstrip("\r") for stream in self._streams if stream.unfinished]
        return [Text.from_ansi(text, no_wrap=True, overflow="crop") for text in begun]

    def _whole_view(self) -> Group:
        return Group(*self._unfinished(), *self._view)


class _AsItIs:
    """Text that rich hands on without a look at it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        yield Segment(self._text)


class _Stream:
    """Stands in for a stream that leads to the terminal.

    Whatever else is asked of it is asked of the stream. After `leave`, and in a forked process, it
    writes there too, for those who have kept it.

    Attributes:
        stream: the stream itself.
        unfinished: the line that has been begun.
        names: where it stands in `sys`.
        handlers: of logging, those that have been given it.
    """

    def __init__(self, stream: IO[str], terminal: Terminal, *, bypassed: bool) -> None:
        self.stream = stream
        self.unfinished = ""
        self.names: list[str] = []
        self.handlers: list[logging.StreamHandler[Any]] = []
        self._terminal: Terminal | None = terminal
        self._process = os.getpid()
        self._lock = RLock()
        if bypassed:
            # This is how a console of rich finds what it should write to.
            self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        terminal = self._terminal
        if terminal is None or not isinstance(text, str) or os.getpid() != self._process:
            return self.stream.write(text)
        with self._lock:
            finished, newline, begun = (self.unfinished + text).rpartition("\n")
            # Of what begins the same line anew and anew, the last: there are progress bars.
            self.unfinished = begun[begun.rstrip("\r").rfind("\r") + 1 :]
        if newline:
            terminal.write_above(finished + newline)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        if self._terminal is None or os.getpid() != self._process:
            self.stream.flush()

    def leave(self) -> None:
        """Give the place back, to the stream. If somebody else has it by now, it stays theirs."""
        for name in self.names:
            if getattr(sys, name) is self:
                setattr(sys, name, self.stream)
        for handler in self.handlers:
            if handler.stream is self:
                handler.setStream(self.stream)
        with self._lock:
            terminal, self._terminal = self._terminal, None
            begun, self.unfinished = self.unfinished, ""
        if terminal is not None and begun:
            terminal.write_above(begun + "\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    loggers = [logging.root, *list(logging.root.manager.loggerDict.values())]
    for logger in loggers:
        # Those in between that nobody has asked for are placeholders.
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler):
                yield handler


def _encodable(line: Text, encoding: str) -> Text:
    """A line of characters that a place has, others replaced one for one."""
    text = line.plain
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        line.plain = text.translate(_POOR).encode(encoding, "replace").decode(encoding)
    return line


# Each has `is_live`, whether a view is drawn over and over again; `pause`, the seconds between two
# looks at least; `size`, the columns and rows for a view; and does the same four things.
Place: TypeAlias = Terminal | Notebook | Lines


def fitted(text: str, width: int) -> str:
    """A text that takes so many columns, cut with dots if need be."""
    if cell_len(text) > width:
        cut = Text(text)
        cut.truncate(width, overflow="ellipsis")
        return cut.plain
    return text + " " * (width - cell_len(text))

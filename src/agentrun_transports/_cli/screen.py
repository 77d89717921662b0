"""Where the command line writes: results to stdout, all else to stderr.

Rules of this file: on a terminal, and with rich, there is colour, and JSON is indented; anywhere else the
output is plain and stable. No text from outside can command the terminal: what is not printable is escaped.
No character fails because the stream cannot encode it. Whatever is written can be seen at once.
"""

from __future__ import annotations

import json
from codecs import getincrementaldecoder
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console

Span = tuple[str, str]
"""A text, and its style in rich's words (``bold red``); ``""`` is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is told about an error: what happened, facts by name, and what can be done."""

    message: str
    facts: tuple[tuple[str, str], ...] = ()


class Meter(Protocol):
    """Something that shows how far a transfer is."""

    def __call__(self, done: int, total: int | None) -> None:
        """So many bytes are done; of so many, where that is known."""
        ...


class Screen:
    """stdout and stderr of one run; either may be None, as Python has it when a shell closed it."""

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        self._out = _Stream(out)
        self._err = _Stream(err)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at stdout."""
        return self._out.is_terminal

    def json(self, value: Any, *, one_line: bool = False) -> None:
        """A result: indented on a terminal, unless it is one of many, else on one line.

        Raises:
            ValueError: it is nested too deeply to be written.
        """
        indented = self.is_terminal and not one_line
        indentation, separators = (2, (",", ": ")) if indented else (None, (",", ":"))
        try:
            text = json.dumps(value, ensure_ascii=False, indent=indentation, separators=separators)
        except RecursionError:
            raise ValueError("the answer is nested too deeply to be shown") from None
        self._out.write_json(self._out.escaped(text, _json_escape))

    def line(self, *spans: Span) -> None:
        """One line of a result."""
        self._out.write_line(spans)

    def text(self, text: str) -> None:
        """A piece of a result, which ends where it ends; its line breaks and tabs stay what they are."""
        self._out.write_text(text)

    def content(self, pieces: Iterable[bytes]) -> None:
        """A result as it comes, byte for byte; on a terminal as text."""
        if not self.is_terminal:
            for piece in pieces:
                self._out.write_bytes(piece)
            return
        decoder = getincrementaldecoder("utf-8")("backslashreplace")
        for piece in pieces:
            self._out.write_text(decoder.decode(piece))
        self._out.write_text(decoder.decode(b"", final=True))

    def prompt(self, text: str) -> None:
        """What stands before that which a person is to type, on stderr."""
        self._err.write_text(text)

    def rows(self, rows: Sequence[Sequence[Span]]) -> None:
        """Lines of a result in columns, the last of which may be of any width."""
        for line in _aligned(rows):
            self._out.write_line(line)

    def beside(self, head: Sequence[Span], told: str) -> None:
        """Lines of a result beside a head, the further ones under the first; on a terminal wrapped there."""
        used = sum(len(text) for text, _ in head)
        first, *further = self._out.wrapped(told, used)
        self._out.write_line([*head, (first, "")])
        for line in further:
            self._out.write_line([(" " * used + line, "dim")])

    def failure(self, failure: Failure) -> None:
        """An error, to stderr."""
        self._tell("error: ", "bold red", failure.message)
        width = max((len(name) for name, _ in failure.facts), default=0)
        for name, told in failure.facts:
            self._tell(f"  {name.ljust(width)}  ", "dim", told)

    def _tell(self, name: str, style: str, told: str) -> None:
        """A name and what is told under it, on a terminal wrapped between words beside the name."""
        first, *further = self._err.wrapped(told, len(name))
        self._err.write_line([(name, style), (first, "")])
        for line in further:
            self._err.write_line([(" " * len(name) + line, "")])

    @contextmanager
    def transfer(self, label: str) -> Generator[Meter, None, None]:
        """A bar on stderr while bytes are moved, with speed and remaining time; nothing off a terminal."""
        console = self._err.console
        if console is None:
            yield lambda done, total: None
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(
            TextColumn("{task.description}", markup=False), *columns, console=console, transient=True
        ) as bar:
            task = bar.add_task(self._err.escaped(label, _escape), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Stream:
    """One stream. ``console`` is rich's, where there is rich and a person looking."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.is_terminal = stream is not None and stream.isatty()
        self.console: Console | None = None
        if self.is_terminal:
            try:
                from rich.console import Console
            except ImportError:
                return
            self.console = Console(file=stream, highlight=False, soft_wrap=True)

    def wrapped(self, text: str, used: int) -> list[str]:
        """The lines of a text that stands beside so many columns, on a terminal wrapped between words.

        What a line goes on with stands under the line's own text, after its indentation and its arrow.
        """
        lines = text.split("\n")
        if self.console is None:
            return lines
        room = max(self.console.width - used, 20)
        return [
            piece
            for line in lines
            for piece in wrap(
                line,
                room,
                subsequent_indent=" " * (len(line) - len(line.lstrip("-> "))),
                break_long_words=False,
                break_on_hyphens=False,
            )
            or [line]
        ]

    def write_line(self, spans: Sequence[Span]) -> None:
        shown = [(self.escaped(text, _escape), style) for text, style in spans]
        if self.console is None:
            self._write("".join(text for text, _ in shown).rstrip() + "\n")
            return
        from rich.text import Text

        self.console.print(Text.assemble(*shown))

    def write_text(self, text: str) -> None:
        """A piece of text; where nobody looks, only that is escaped which cannot be encoded."""
        encoding = self._encoding()

        def harmless(text: str) -> bool:
            shown = text.replace("\n", "").replace("\t", "")
            return (not self.is_terminal or shown.isprintable()) and _fits(text, encoding)

        if not harmless(text):
            text = "".join(char if harmless(char) else _escape(char) for char in text)
        self._write(text)

    def write_bytes(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.buffer.write(data)
            self._stream.flush()

    def write_json(self, text: str) -> None:
        if self.console is None:
            self._write(text + "\n")
            return
        from rich.highlighter import JSONHighlighter
        from rich.text import Text

        highlighted = Text(text)
        JSONHighlighter().highlight(highlighted)
        self.console.print(highlighted)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()

    def _encoding(self) -> str:
        return (self._stream and self._stream.encoding) or "utf-8"

    def escaped(self, text: str, escape: _Escape) -> str:
        """The text without what would command a terminal, or what the stream cannot encode."""
        encoding = self._encoding()
        if text.replace("\n", "").isprintable() and _fits(text, encoding):
            return text
        return "".join(
            char if char == "\n" or (char.isprintable() and _fits(char, encoding)) else escape(char)
            for char in text
        )


class _Escape(Protocol):
    def __call__(self, char: str, /) -> str: ...


def _escape(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode() if char > "\x7f" else f"\\x{ord(char):02x}"


def _json_escape(char: str) -> str:
    # Beyond ASCII, or a control character, JSON has such characters inside of strings only.
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _aligned(rows: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """The rows with their cells padded to columns, two spaces apart; the last column is left as it is."""
    widths = [max((len(cell[0]) for cell in column), default=0) for column in _columns(rows)]
    return [
        [
            (text if position == len(row) - 1 else text.ljust(widths[position]) + "  ", style)
            for position, (text, style) in enumerate(row)
        ]
        for row in rows
    ]


def _columns(rows: Sequence[Sequence[Span]]) -> list[list[Span]]:
    most = max((len(row) for row in rows), default=0)
    return [[row[position] for row in rows if position < len(row)] for position in range(most)]

"""Local files: what is sent, and what is saved. Blocking calls; a driver decides where they run.

Rules of this file: a file is sent at the length it had when it was opened; nothing shows at a target until
it is whole; whatever is not committed leaves no trace, unless it is there to be resumed. What the caller has
opened is the caller's: it is written to, and neither moved nor closed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from typing import IO, Any, BinaryIO, Protocol

from agentrun_proto import Sink

from ._crc64 import CRC64

_CHUNK = 262144

# What a header field may hold: a note that was tampered with is no note.
_VALIDATOR = re.compile(r"[ -~\x80-\xff]+")


class FileSource:
    """A regular file to be sent.

    Raises:
        OSError: it is missing, no regular file, or not readable.
    """

    __slots__ = ("_file", "length")

    replayable = True

    def __init__(self, path: str) -> None:
        _refuse_nul(path)
        # A pipe must not hold us up before it is found to be one.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            kind = "is a directory" if stat.S_ISDIR(status.st_mode) else "is no regular file"
            raise OSError(None, kind, path)
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self.length: int = status.st_size

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; ``b""`` at the end."""
        return self._file.read(size)

    def rewind(self) -> None:
        """Goes back to the start."""
        self.seek(0)

    def seek(self, offset: int) -> None:
        """Goes to a place, in bytes from the start."""
        self._file.seek(offset)

    def fileno(self) -> int:
        """The descriptor, for whom sends it without reading it here."""
        return self._file.fileno()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _refuse_nul(path: str) -> None:
    if "\0" in path:
        raise OSError(None, "a path cannot hold NUL", path)


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


_DIGESTS: dict[str, Callable[[], _Digest]] = {
    "md5": lambda: hashlib.md5(usedforsecurity=False),  # against accidents, as Content-MD5 is
    "sha256": hashlib.sha256,
    "crc64ecma": CRC64,
}


class LocalSink(Sink, Protocol):
    """What drivers do with a sink, beside what flows do."""

    def prepare(self, size: int, validator: str | None, digests: tuple[str, ...]) -> None:
        """Keeps the first `size` bytes, notes whose they are, and sees to the checksums of them."""
        ...

    def write(self, piece: bytes | memoryview) -> None:
        """Adds bytes at the end."""
        ...

    def commit(self) -> None:
        """It is whole."""
        ...


class HandleSink:
    """An open binary file that is written to, from where it stands.

    Args:
        file: has `write`; where content may have to start over, `seek` and `truncate`, too.

    Raises:
        OSError: it is closed.
    """

    __slots__ = ("_digests", "_file", "_start", "size", "validator")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start: int | None = None
        self._digests: dict[str, _Digest] = {}
        self.size = 0
        self.validator: str | None = None
        try:
            if file.seekable():
                self._start = file.tell()
        except AttributeError:
            pass  # it can do nothing but take bytes
        except ValueError as error:
            raise OSError(None, str(error)) from None  # closed

    def prepare(self, size: int, validator: str | None, digests: tuple[str, ...]) -> None:
        """As `LocalSink.prepare`. Raises OSError where content starts over, and the file cannot."""
        if size != self.size:
            if self._start is None:
                raise OSError(None, "the content starts over, and what was written cannot be taken back")
            self._file.seek(self._start + size)
            self._file.truncate()
            self.size = size
        self.validator = validator
        if not size:
            self._digests = {name: _DIGESTS[name]() for name in digests}

    def write(self, piece: bytes | memoryview) -> None:
        """Adds bytes at the end."""
        _write_all(self, self._file, piece)
        for digest in self._digests.values():
            digest.update(piece)

    def digest(self, name: str) -> bytes:
        """The checksum of what was written."""
        return self._digests[name].digest()

    def commit(self) -> None:
        """Hands on what the file still holds back."""
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()

    def spoil(self) -> None:
        """What was written is the caller's."""

    def discard(self) -> None:
        """So is the file."""


def _write_all(sink: HandleSink | FileSink, file: IO[Any], piece: bytes | memoryview) -> None:
    """Writes all of it: a raw file may take less than it is given."""
    size, written = len(piece), 0
    try:
        while written < size:
            taken: Any = file.write(piece[written:])
            if taken is None:
                raise OSError(None, "the file takes nothing now, and nobody tells when it will")
            written += taken
    except ValueError as error:
        raise OSError(None, str(error)) from None  # closed meanwhile
    finally:
        sink.size += written


class FileSink:
    """A file in the making, beside its target and under another name until it is committed.

    A target that is a symbolic link stays one; the file that it leads to is replaced.

    Args:
        path: the target.
        source: tells the content apart. With it, what is not committed stays, with its version noted beside
            it, and is taken up by the next sink for the same target and source.

    Raises:
        OSError: the target is a directory, its folder is missing or not writable, or another process is about
            to save the same.
    """

    __slots__ = (
        "_digests",
        "_file",
        "_gone",
        "_note",
        "_source",
        "_spoilt",
        "_target",
        "_temporary",
        "size",
        "validator",
    )

    def __init__(self, path: str, source: str | None = None) -> None:
        _refuse_nul(path)
        self._target = os.path.realpath(path)
        if os.path.isdir(self._target) or path.endswith(("/", os.sep)):
            raise OSError(None, "is a directory", path)
        if os.path.exists(self._target) and not os.path.isfile(self._target):
            raise OSError(None, "is no regular file", path)  # a pipe or a device must not be replaced
        folder, name = os.path.split(self._target)
        # A long name must still leave room for what is added to it (255 bytes on common file systems).
        told = os.urandom(8).hex() if source is None else _fingerprint(name)[:16]
        self._temporary = os.path.join(folder, f".{name[:48]}.{told}.part")
        self._note = f"{self._temporary}.json"
        self._source = None if source is None else _fingerprint(source)
        self._spoilt = False
        self._gone = False
        """Whether it has let go of its names."""
        self._digests: dict[str, _Digest] = {}
        self.size: int = 0
        self.validator: str | None = None
        # Opened as any new file is, so that it has the mode of a new file.
        try:
            if self._source is None:
                self._file: IO[Any] = open(self._temporary, "xb", buffering=0)  # noqa: SIM115 - it outlives this
            else:
                self._file = _take_up(self._temporary)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None  # the name that the caller knows
        if self._source is not None:
            self._remember()

    def _remember(self) -> None:
        """Finds out what an earlier sink has left."""
        try:
            with open(self._note, encoding="utf-8") as file:
                note = json.load(file)
            if note["source"] == self._source and _VALIDATOR.fullmatch(note["validator"]):
                self.validator = note["validator"]
                self.size = self._file.seek(0, os.SEEK_END)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            pass  # nothing that could be told to be the beginning of this content

    def prepare(self, size: int, validator: str | None, digests: tuple[str, ...]) -> None:
        """Keeps the first `size` bytes, notes whose they are, and sees to the checksums of them."""
        known = size == self.size and digests == tuple(self._digests)
        self._file.truncate(size)
        self._file.seek(size)
        self.size = size
        if self._source is not None and (validator != self.validator or not size):
            self._write_note(validator)
        self.validator = validator
        if not known or not size:
            self._digests = {name: _DIGESTS[name]() for name in digests}
            self._digest_what_is_there()

    def _digest_what_is_there(self) -> None:
        if not self._digests or not self.size:
            return
        with open(self._temporary, "rb") as file:
            while piece := file.read(_CHUNK):
                for digest in self._digests.values():
                    digest.update(piece)

    def _write_note(self, validator: str | None) -> None:
        """Notes the version before a byte of it is written: a process may end at any moment."""
        with open(self._note, "w", encoding="utf-8", opener=_open_no_link) as file:
            json.dump({"source": self._source, "validator": validator}, file)

    def write(self, piece: bytes | memoryview) -> None:
        """Adds bytes at the end."""
        _write_all(self, self._file, piece)
        for digest in self._digests.values():
            digest.update(piece)

    def digest(self, name: str) -> bytes:
        """The checksum of what it holds."""
        return self._digests[name].digest()

    def commit(self) -> None:
        """Makes it appear at its target, on disk and whole."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if os.name == "nt":  # Windows renames no open file
            self._file.close()
        os.replace(self._temporary, self._target)
        if self._source is not None:
            _remove(self._note)
        self._file.close()  # last: the lock keeps others away until the names are free
        self._gone = True

    def spoil(self) -> None:
        """What it holds is of no use to anybody."""
        self._spoilt = True

    def discard(self) -> None:
        """Removes it, unless it was committed, or is there to be resumed."""
        if self._gone:
            return  # what has the name now is another's
        self._gone = True
        if os.name == "nt":  # Windows removes no open file
            self._file.close()
        if self._source is None or self._spoilt or not self.size or self.validator is None:
            _remove(self._temporary)
            if self._source is not None:
                _remove(self._note)
        self._file.close()


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _open_no_link(path: str, flags: int) -> int:
    """Opens a name that can be foreseen: somebody else's link must not lead us to write elsewhere."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _take_up(path: str) -> IO[Any]:
    """Opens what an earlier sink may have left; nobody else does so at the same time."""
    while True:
        descriptor = _open_no_link(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0))
        try:
            _lock(descriptor)
            if _is_at(descriptor, path):
                return os.fdopen(descriptor, "r+b", buffering=0)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
    """Whether a file still has its name: it may have become the target, or been removed, before the lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: it is opened by one process at a time by itself, as long as it is written
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(error.errno, "another download to this path is under way") from None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # committed, or gone

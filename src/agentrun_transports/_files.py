"""Local files: what is sent, and what is saved. Blocking calls; a driver decides where they run.

Rules of this file: a file is sent at the length it had when it was opened; nothing shows at a target until
it is whole; whatever is not committed leaves no trace.
"""

from __future__ import annotations

import os
import stat


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
        self.length = status.st_size

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; ``b""`` at the end."""
        return self._file.read(size)

    def rewind(self) -> None:
        """Goes back to the start."""
        self._file.seek(0)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _refuse_nul(path: str) -> None:
    if "\0" in path:
        raise OSError(None, "a path cannot hold NUL", path)


class FileSink:
    """A file in the making, beside its target and under another name until it is committed.

    A target that is a symbolic link stays one; the file that it leads to is replaced.

    Raises:
        OSError: the target is a directory, its folder is missing or not writable.
    """

    __slots__ = ("_file", "_target", "_temporary", "size")

    def __init__(self, path: str) -> None:
        _refuse_nul(path)
        self._target = os.path.realpath(path)
        if os.path.isdir(self._target) or path.endswith(("/", os.sep)):
            raise OSError(None, "is a directory", path)
        if os.path.exists(self._target) and not os.path.isfile(self._target):
            raise OSError(None, "is no regular file", path)  # a pipe or a device must not be replaced
        folder, name = os.path.split(self._target)
        # A long name must still leave room for what is added to it (255 bytes on common file systems).
        self._temporary = os.path.join(folder, f".{name[:48]}.{os.urandom(8).hex()}.part")
        # Opened as any new file is, so that it has the mode of a new file.
        try:
            self._file = open(self._temporary, "xb", buffering=0)  # noqa: SIM115 - it outlives this call
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None  # the name that the caller knows
        self.size = 0

    def write(self, piece: bytes | memoryview) -> None:
        """Adds bytes at the end."""
        size = len(piece)
        written = self._file.write(piece)
        while written < size:  # a raw file may take less than it is given
            written += self._file.write(piece[written:])
        self.size += size

    def commit(self) -> None:
        """Makes it appear at its target, on disk and whole."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._target)

    def discard(self) -> None:
        """Removes it, unless it was committed."""
        self._file.close()
        try:
            os.unlink(self._temporary)
        except OSError:
            pass  # committed, or gone

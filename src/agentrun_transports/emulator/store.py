"""What the service knows: records (small JSON values in named tables) and blobs (the contents of files).

Rules that hold here:
1. With a folder, everything is in it: records in ``journal.ndjson``, one line for each change, blobs in
   ``blobs/``. Without one, everything is in memory.
2. A change to a record is one appended line, its newline first: a line that a crash or a full disk cut
   short spoils none but itself. Such a line is no JSON, is dropped on opening, and the journal is rewritten
   then, so that it holds each record once.
3. A record is never changed in place: whoever has read one may keep it.
4. A blob is written once, and named by a record or not at all: what no record names is removed on opening.
5. A folder belongs to one service at a time. Locking is the service's business; a ``BlobWriter`` alone may
   be used outside its lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from .checksums import DEFAULT, Checksums
from .messages import FileBody

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]

_EMPTY: Mapping[str, Row] = MappingProxyType({})


class Records:
    """Tables of JSON objects.

    >>> records = Records(None)
    >>> records.put("fruit", "a", {"name": "apple"})
    >>> records.table("fruit")["a"]
    {'name': 'apple'}
    """

    def __init__(self, folder: Path | None) -> None:
        self._tables: dict[str, dict[str, Row]] = {}
        self._journal = None if folder is None else folder / "journal.ndjson"
        if self._journal is not None:
            self._load(self._journal)

    def _load(self, journal: Path) -> None:
        try:
            lines = journal.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                table, key, value = json.loads(line)
            except ValueError:  # empty, or cut short
                continue
            self._apply(table, key, value)
        fresh = journal.with_suffix(".new")
        with fresh.open("wb") as file:
            for table, rows in self._tables.items():
                file.writelines(_line(table, key, value) for key, value in rows.items())
        os.replace(fresh, journal)

    def _apply(self, table: str, key: str | None, value: Row | None) -> None:
        if key is None:
            self._tables.pop(table, None)
        elif value is None:
            self._tables.get(table, {}).pop(key, None)
        else:
            self._tables.setdefault(table, {})[key] = value

    def _change(self, table: str, key: str | None, value: Row | None) -> None:
        if self._journal is not None:
            with self._journal.open("ab") as file:
                file.write(_line(table, key, value))
        self._apply(table, key, value)

    def table(self, name: str) -> Mapping[str, Row]:
        """Return the rows of a table in the order in which they came; empty where there is none."""
        return self._tables.get(name, _EMPTY)

    def everything(self) -> Mapping[str, Mapping[str, Row]]:
        """Return all tables by name."""
        return self._tables

    def put(self, table: str, key: str, value: Row) -> None:
        """Set a record."""
        self._change(table, key, value)

    def delete(self, table: str, key: str) -> None:
        """Remove a record, if it is there."""
        self._change(table, key, None)

    def drop(self, table: str) -> None:
        """Remove a table with all that is in it."""
        self._change(table, None, None)


def _line(table: str, key: str | None, value: Row | None) -> bytes:
    return b"\n" + json.dumps([table, key, value], allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The content of a file that has been kept: its blob, its length in bytes, its SHA-256 in hex, and the
    header fields that say its checksums.
    """

    blob: str
    size: int
    sha256: str
    checksums: Mapping[str, str]

    def row(self, modified: float) -> Row:
        """Return the record of a file with this content, last changed at ``modified`` (since the epoch)."""
        return {
            "blob": self.blob,
            "size": self.size,
            "sha256": self.sha256,
            "checksums": dict(self.checksums),
            "modified": modified,
        }


class BlobWriter:
    """A blob on its way in: ``write`` any number of times, then either ``finish`` or ``discard``."""

    def __init__(self, name: str, blobs: Blobs, file: IO[bytes], checksums: Checksums) -> None:
        self._name = name
        self._blobs = blobs
        self._file = file
        self._hash = sha256()
        self._checksums = checksums
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._hash.update(data)
        self._checksums.update(data)
        self._file.write(data)
        self._size += len(data)

    def finish(self) -> Stored:
        """Keep what was written."""
        if isinstance(self._file, BytesIO):
            self._blobs.memory[self._name] = self._file.getvalue()
        self._file.close()
        return Stored(
            blob=self._name,
            size=self._size,
            sha256=self._hash.hexdigest(),
            checksums=self._checksums.fields(),
        )

    def discard(self) -> None:
        """Throw away what was written, finished or not."""
        self._file.close()
        self._blobs.remove(self._name)


class Blobs:
    """Contents of files by name, in ``folder/blobs`` or in memory. ``new_id`` gives names not given before.

    >>> blobs = Blobs(None, iter("ab").__next__)
    >>> stored = blobs.keep(b"hello")
    >>> blobs.read(stored.blob, 1, 3)
    b'ell'
    """

    def __init__(self, folder: Path | None, new_id: Callable[[], str]) -> None:
        self._folder = None if folder is None else folder / "blobs"
        self._new_id = new_id
        self.memory: dict[str, bytes] = {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def writer(self, checksums: Iterable[str] = DEFAULT) -> BlobWriter:
        """Begin a new blob, of which these checksums are to be kept."""
        name = self._new_id()
        file = BytesIO() if self._folder is None else (self._folder / name).open("xb")
        return BlobWriter(name, self, file, Checksums(checksums))

    def keep(self, data: bytes) -> Stored:
        """Keep bytes that are already whole."""
        writer = self.writer()
        writer.write(data)
        return writer.finish()

    def read(self, name: str, offset: int, length: int) -> bytes | FileBody:
        """Return a part of a blob, as bytes or as the part of a file that they are."""
        if self._folder is None:
            return self.memory[name][offset : offset + length]
        return FileBody(path=self._folder / name, offset=offset, length=length)

    def whole(self, name: str) -> bytes:
        """Return all of a blob."""
        return self.memory[name] if self._folder is None else (self._folder / name).read_bytes()

    def remove(self, name: str) -> None:
        """Remove a blob."""
        if self._folder is None:
            self.memory.pop(name, None)
        else:
            (self._folder / name).unlink()

    def sweep(self, named: set[str]) -> None:
        """Remove every blob that is not ``named``."""
        if self._folder is not None:
            for path in self._folder.iterdir():
                if path.name not in named:
                    path.unlink()

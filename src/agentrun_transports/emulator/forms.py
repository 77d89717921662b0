"""Uploads: what a multipart form must hold, and what is kept of it.

A form brings exactly one ``file`` with a file name, exactly one ``path``, and any further fields and files.
Of the further files, the answer tells what arrived; they are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .checksums import wanted
from .messages import invalid
from .multipart import Part, boundary_of, read_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .messages import Request
    from .store import Blobs, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """An uploaded file: its content, the path it goes to, and every further field with all its values.

    ``files`` tells of every file of the form, in their order: name, file name, content type, size, hash.
    """

    path: str
    file_name: str
    stored: Stored
    fields: Mapping[str, Sequence[str]]
    files: Sequence[Mapping[str, Any]]

    def told(self) -> dict[str, Any]:
        """Return what callers are told about their form."""
        return {"fileName": self.file_name, "fields": self.fields, "files": self.files}


def read_form(request: Request, blobs: Blobs) -> Form:
    """Read an upload. Raises ``Refusal``; no blob is left behind then."""
    checksums = wanted(request)
    boundary = boundary_of(request.header("Content-Type"))
    parts = read_parts(request.body, boundary, lambda: blobs.writer(checksums))
    kept: Stored | None = None
    try:
        form = _form(parts)
        kept = form.stored
    finally:
        for part in parts:
            if part.stored is not None and part.stored is not kept:
                blobs.remove(part.stored.blob)
    return form


def _form(parts: list[Part]) -> Form:
    files = [part for part in parts if part.stored is not None]
    chosen = [part for part in files if part.name == "file"]
    if len(chosen) != 1:
        names = ", ".join(repr(part.name) for part in files) or "none"
        raise invalid(f"The form must have exactly one file called 'file'; its files are: {names}.")
    stored, file_name = chosen[0].stored, chosen[0].file_name
    assert stored is not None
    assert file_name is not None
    fields: dict[str, list[str]] = {}
    for part in parts:
        if part.stored is None:
            fields.setdefault(part.name, []).append(part.value)
    paths = fields.pop("path", [])
    if len(paths) != 1 or not paths[0]:
        raise invalid("The form must have exactly one 'path' that is not empty.")
    return Form(
        path=paths[0],
        file_name=file_name,
        stored=stored,
        fields=fields,
        files=[_told(part, part.stored) for part in files if part.stored is not None],
    )


def _told(part: Part, stored: Stored) -> dict[str, Any]:
    return {
        "name": part.name,
        "fileName": part.file_name,
        "contentType": part.content_type,
        "size": stored.size,
        "sha256": stored.sha256,
    }

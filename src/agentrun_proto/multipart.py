"""multipart/form-data (RFC 7578), with names escaped as the WHATWG HTML standard has browsers do it.

Rules of this file: the length is known before a byte is sent, if it can be known; file content is never in
memory; the boundary comes from the caller, who has a source of randomness.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from .messages import Body, Source

# RFC 2046, 5.1.1, less what would have to be quoted in the Content-Type.
_BOUNDARY = re.compile(r"[0-9A-Za-z+_.-]{1,70}")
# WHATWG HTML, "multipart/form-data encoding algorithm", has the first three. The backslash is ours: some
# decoders take it for an escape (RFC 9110, 5.6.4), others do not.
_ESCAPES = {ord("\r"): "%0D", ord("\n"): "%0A", ord('"'): "%22", ord("\\"): "%5C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A file in a form: the field's name, the file name to declare, and where its bytes come from.

    A source that is a str is the path of a local file, which is opened when the form is sent.
    """

    name: str
    filename: str
    source: Source | str
    content_type: str = "application/octet-stream"


def encode_multipart(
    fields: Mapping[str, object] | None, files: Iterable[FilePart], *, boundary: str
) -> Body:
    """A form with text fields first, then files.

    Args:
        fields: values are ``str``, ``int``, ``float``, ``bool`` (``true``/``false``) or an ``Enum`` of these;
            None is left out.
        files: the file parts, in order; the length each declares is what will be sent.
        boundary: 1 to 70 characters (letters, digits, ``+_.-``) that do not occur in the content; take at
            least 128 random bits.

    Raises:
        TypeError: a field's name or value of another type.
        ValueError: no valid boundary, NUL or a lone surrogate in a name, a line break in a content type.

    >>> body = encode_multipart({"path": "/a.txt"}, [], boundary="b")
    >>> print(body.data.decode().replace("\\r\\n", "|"), body.length)
    --b|Content-Disposition: form-data; name="path"||/a.txt|--b--| 67
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise ValueError(f"not a multipart boundary (RFC 2046, 5.1.1): {boundary!r}")
    segments: list[bytes | Source] = []
    pending = ""
    for name, value in (fields or {}).items():
        if value is not None:
            pending += f"--{boundary}\r\nContent-Disposition: form-data; name={_quoted(name)}\r\n\r\n"
            pending += f"{_text(name, value)}\r\n"
    for part in files:
        if not part.content_type.isprintable() or not part.content_type.isascii():
            raise ValueError(f"a content type is printable ASCII: {part.content_type!r}")
        pending += (
            f"--{boundary}\r\nContent-Disposition: form-data; name={_quoted(part.name)}; "
            f"filename={_quoted(part.filename)}\r\nContent-Type: {part.content_type}\r\n\r\n"
        )
        if isinstance(part.source, str):
            raise TypeError(f"the file {part.source!r} has to be opened first")
        segments += [_utf8(pending), part.source]
        pending = "\r\n"
    segments.append(_utf8(f"{pending}--{boundary}--\r\n"))
    lengths = [len(segment) if isinstance(segment, bytes) else segment.length for segment in segments]
    known = [length for length in lengths if length is not None]
    length = sum(known) if len(known) == len(lengths) else None
    content_type = f"multipart/form-data; boundary={boundary}"
    return Body(segments=tuple(segments), length=length, content_type=content_type)


def _quoted(name: str) -> str:
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
        raise TypeError(f"the name of a form field is a str, not {type(name).__name__}")
    if "\0" in name:
        raise ValueError(f"a name in a form cannot hold NUL: {name!r}")
    return f'"{name.translate(_ESCAPES)}"'


def _text(name: str, value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TypeError(f"the form field {name!r} cannot be of type {type(value).__name__}; give a str")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("a form field holds a lone surrogate, which UTF-8 cannot encode") from None

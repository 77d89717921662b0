"""A form of any names, values and files is refused with a ValueError, or foreign decoders read back what was
put in, and it is as long as it says.

An input is three groups: the boundary, the fields as ``name=value`` records, and the files as records of four
units: name, file name, media type, content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from agentrun_proto import Body, FilePart, encode_multipart
from form_decoders import by_email, by_multipart, by_werkzeug, unescaped
from fuzz.inputs import GROUP, RECORD, UNIT, groups, joined, only, pairs, records, text
from proto_strategies import FakeSource

# Where the email package has no habits of its own: it undoes encoded words and white space at the ends,
# breaks lines at control characters, and reads parts by their media type.
_PLAIN = re.compile(r"[A-Za-z0-9.é中](?:[A-Za-z0-9._é中 %;=,'\"\r\n&+:/()\[\]{}-]{0,40}[A-Za-z0-9.é中])?")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9é中 %;=\"\t&+:/()\[\]{}\\-]*")

FOUND: dict[str, bytes] = {}


BOUNDARY = "----agentrun-0123456789abcdef"


def _files(group: bytes) -> list[tuple[str, str, str, bytes]]:
    found = []
    for record in records(group):
        name, filename, kind, content = (record.split(UNIT, 3) + [b""] * 4)[:4]
        found.append((text(name), text(filename), text(kind), content))
    return found


def check(data: bytes) -> None:
    first, second, third = groups(data, 3)
    boundary, fields, files = text(first), dict(pairs(second)), _files(third)
    contents = [content for *_, content in files]
    parts = [
        FilePart(name=name, filename=filename, content_type=kind, source=FakeSource(len(content)))
        for name, filename, kind, content in files
    ]
    try:
        body = encode_multipart(fields, parts, boundary=boundary)
    except ValueError as error:
        only(error, ValueError)
        return
    waiting = iter(contents)
    body = replace(
        body, segments=tuple(part if isinstance(part, bytes) else next(waiting) for part in body.segments)
    )
    assert body.data is not None
    assert len(body.data) == body.length
    if any(boundary in told for told in (second.decode("latin-1"), *(c.decode("latin-1") for c in contents))):
        return  # the caller is to choose one that does not occur
    if not all(filename for _, filename, _, _ in files):
        return  # so do browsers say that there is no file, and decoders differ in what they make of that
    decoders = [by_werkzeug, by_multipart]
    if _is_plain(fields, files):
        decoders.append(by_email)
    for decoder in decoders:
        _read_back(decoder(body), fields, files, body)


def _is_plain(fields: dict[str, str], files: list[tuple[str, str, str, bytes]]) -> bool:
    names = [*fields, *(name for name, *_ in files), *(filename for _, filename, *_ in files)]
    kinds = {kind for _, _, kind, _ in files}
    return (
        all(map(_PLAIN.fullmatch, names))
        and all(map(_PLAIN_VALUE.fullmatch, fields.values()))
        and kinds <= {"application/octet-stream"}
    )


def _read_back(
    read: tuple[list[tuple[str, str]], list[tuple[str, str, bytes]]],
    fields: dict[str, str],
    files: list[tuple[str, str, str, bytes]],
    body: Body,
) -> None:
    heard = [(unescaped(name), value) for name, value in read[0]]
    assert heard == [(unescaped(name), value) for name, value in fields.items()], body
    saved = [(unescaped(name), unescaped(filename), content) for name, filename, content in read[1]]
    given = [(unescaped(name), unescaped(filename), content) for name, filename, _, content in files]
    assert _by_name(saved) == _by_name(given)


def _by_name(files: list[tuple[str, str, bytes]]) -> dict[str, list[tuple[str, bytes]]]:
    """Decoders keep the order of the files of one name, and no other."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for name, filename, content in files:
        found.setdefault(name, []).append((filename, content))
    return found


NAMES = (
    "plain.txt", "a b", 'a"b', "a\r\nb", "é中😀", "a;b=c", "a%22b", "../x", "a\tb", "a\\b", "\0", "\x7f", "",
    "=?utf-8?q?x?=", 'x"; filename="y', "\u2028", "\udc80",
)  # fmt: skip


def corpus() -> Iterator[bytes]:
    for number, name in enumerate(NAMES):
        other = NAMES[(number + 5) % len(NAMES)]
        fields = [f"{name}={other}", "path=/a.txt"]
        files = [joined(UNIT, ["file", name, "application/octet-stream", b"data\r\n\0\xff--x"])]
        if number % 2:
            files.append(joined(UNIT, [other, "f", "text/plain; charset=utf-8", b""]))
        boundary = (BOUNDARY, "b", "a" * 71, "a b")[number % 4 if number % 8 > 5 else 0]
        yield joined(GROUP, [boundary, joined(RECORD, fields), joined(RECORD, files)])
    for name in filter(_PLAIN.fullmatch, NAMES):
        for content in (b"", b"data\r\n\0\xff--x"):
            file = joined(UNIT, ["file", name, "application/octet-stream", content])
            yield joined(
                GROUP, [BOUNDARY, joined(RECORD, [f"{name}=v", "path=/a b;c"]), joined(RECORD, [file, file])]
            )

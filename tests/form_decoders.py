"""Forms, read back by three decoders that are not ours: werkzeug's, multipart's and the standard library's.

Rules of this file: nothing here calls the code under test.
"""

from __future__ import annotations

import email.parser
import email.policy
import io
import itertools
from typing import Any

import multipart
import werkzeug.formparser

from agentrun_proto import Body

# (fields, files as (name, file name, content)), as a decoder read them.
Read = tuple[list[tuple[str, str]], list[tuple[str, str, bytes]]]


def environ(body: Body) -> dict[str, Any]:
    assert body.data is not None
    assert body.content_type is not None
    return {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": body.content_type,
        "CONTENT_LENGTH": str(body.length),
        "wsgi.input": io.BytesIO(body.data),
    }


def by_werkzeug(body: Body) -> Read:
    _, form, files = werkzeug.formparser.parse_form_data(environ(body), silent=False)
    read = [(name, file.filename or "", file.read()) for name, file in files.items(multi=True)]
    for file in itertools.chain(*files.listvalues()):
        file.close()
    return list(form.items(multi=True)), read


def by_multipart(body: Body) -> Read:
    form, files = multipart.parse_form_data(environ(body), strict=True)
    read = [(name, file.filename, file.raw) for name, file in files.iterallitems()]
    for _, file in files.iterallitems():
        file.close()
    return list(form.iterallitems()), read


def by_email(body: Body) -> Read:
    head = f"Content-Type: {body.content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + (body.data or b""))
    fields, files = [], []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        filename = part.get_filename()
        if filename is None:
            fields.append((name, content.decode()))
        else:
            files.append((name, filename, content))
    return fields, files


DECODERS = [by_werkzeug, by_multipart, by_email]


def unescaped(text: str) -> str:
    """What the percent escapes of the WHATWG standard (and ours of a backslash) stand for.

    Decoders differ in which of them they undo, and a literal ``%22`` is the same as an escaped quote there.
    """
    for escape, character in (("%0D", "\r"), ("%0A", "\n"), ("%22", '"'), ("%5C", "\\")):
        text = text.replace(escape, character)
    return text

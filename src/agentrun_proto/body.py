"""What a request carries, as a value: JSON, text, bytes, or sources read while it is sent.

Rules of this file: a body is complete before anything is sent, so that misuse shows early; the core never
reads a source, it only asks for its length.
"""

from __future__ import annotations

import json
from typing import Any, cast

from .messages import EMPTY, Body, Source

JSON_TYPE = "application/json"


# The published client writes JSON in this form; equal bytes make the two comparable.
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode_body(data: object) -> Body:
    """The body for what a caller passes as `data`.

    Args:
        data: a dict, list or tuple goes out as JSON; a str as UTF-8 text, declared as JSON as the published
            client does (give a Content-Type to say otherwise); bytes as they are; a `Source` as what it
            gives; None is no body.

    Raises:
        TypeError: something JSON has no form for, or a type that is none of these.
        ValueError: NaN or an infinity, a lone surrogate, a structure that contains itself or is too deep.

    >>> encode_body({"name": "é"}).data
    b'{"name":"\\xc3\\xa9"}'
    >>> encode_body(b"raw").content_type
    'application/octet-stream'
    """
    if data is None:
        return EMPTY
    if isinstance(data, (dict, list, tuple)):
        return _in_memory(_utf8(to_json(data)), JSON_TYPE)
    if isinstance(data, str):
        return _in_memory(_utf8(data), JSON_TYPE)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return _in_memory(
            bytes(cast("bytes | bytearray | memoryview[int]", data)), "application/octet-stream"
        )
    if all(hasattr(data, name) for name in ("length", "read", "rewind", "close", "replayable")):
        source = cast("Source", data)
        return Body(segments=(source,), length=source.length, content_type="application/octet-stream")
    raise TypeError(f"a body is a dict, list, str or bytes, not {type(data).__name__}")


def to_json(value: Any) -> str:
    """Strict JSON, compact; see `encode_body` for the errors."""
    try:
        return _encode_json(value)
    except RecursionError:
        raise ValueError("the body is nested too deeply for JSON") from None
    except ValueError as error:
        raise ValueError(f"the body cannot be sent as JSON: {error}") from None
    except TypeError as error:
        raise TypeError(f"the body cannot be sent as JSON: {error}") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("the body holds a lone surrogate, which UTF-8 cannot encode") from None


def _in_memory(data: bytes, content_type: str) -> Body:
    return Body(segments=(data,), length=len(data), content_type=content_type)

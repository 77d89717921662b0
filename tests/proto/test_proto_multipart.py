"""multipart/form-data, read back by three decoders that are not ours."""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import Body, Config, DataEndpoint, FilePart, encode_multipart
from form_decoders import DECODERS, by_multipart, by_werkzeug, unescaped
from proto_strategies import PROPERTY, FakeSource, any_text

BOUNDARY = "----agentrun-0123456789abcdef"
CONTENT = b"data\r\n\0\xff--" + BOUNDARY[:-1].encode() + b"\r\n"


def with_content(body: Body, contents: list[bytes]) -> Body:
    """The body as it would be sent: each source's bytes in its place."""
    waiting = iter(contents)
    return replace(body, segments=tuple(s if isinstance(s, bytes) else next(waiting) for s in body.segments))


def form(name: str, filename: str, value: str = "v", content: bytes = CONTENT) -> Body:
    file = FilePart(name=name, filename=filename, source=FakeSource(len(content)))
    return with_content(encode_multipart({name: value}, [file], boundary=BOUNDARY), [content])


def assert_read_back(decoder: Any, name: str, filename: str, value: str = "v") -> None:
    fields, files = decoder(form(name, filename, value))
    assert [(unescaped(read), text) for read, text in fields] == [(unescaped(name), value)]
    assert [(unescaped(read), unescaped(file), content) for read, file, content in files] == [
        (unescaped(name), unescaped(filename), CONTENT)
    ]


# --- HOSTILE, Requests: "CR, LF, `"`, `\`, non-ASCII in a file name of a multipart part"

AWKWARD = [
    "plain.txt", "a b", 'a"b', '"', "a\r\nb", "\r", "\n", "é中😀", "a;b", "a=b", "a,b", "a'b", "a%b",
    "a%22b", "%0D%0A",
    "a/b", "a:b", "a*b", "a\x7fb", "--" + BOUNDARY, "name=\"x\"; filename=\"y\"", "ﬁ", "(a)", "a&b", "a+b",
    "a\tb", "..", "=?utf-8?q?x?", '";evil="', "\r\nEvil: 1\r\n\r\n",
]  # fmt: skip


@pytest.mark.hostile("requests-file-names")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("text", AWKWARD)
def test_row_awkward_names_are_read_back_by_three_decoders(text, decoder):
    assert_read_back(decoder, text, "file.txt")
    assert_read_back(decoder, "file", text)
    assert_read_back(decoder, text, text)


@pytest.mark.hostile("requests-file-names")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("text", ["a\\b", "a\\", "\\", "\\\\", 'a\\"b', '\\"; filename=\\"x', "\\\r\n"])
def test_row_a_backslash_is_read_back_or_refused(text, decoder):
    """Some decoders take it for the start of a quoted pair: at the end of a name it swallows what follows."""
    try:
        form(text, text)
    except ValueError:
        return
    assert_read_back(decoder, text, text)


@pytest.mark.hostile("requests-file-names")
@pytest.mark.parametrize("text", ["\0", "a\0b"])
def test_row_nul_in_a_name_is_refused(text):
    for fields, files in (({text: 1}, []), ({}, [FilePart(name=text, filename="f", source=FakeSource())]),
                          ({}, [FilePart(name="f", filename=text, source=FakeSource())])):  # fmt: skip
        with pytest.raises(ValueError, match="NUL"):
            encode_multipart(fields, files, boundary=BOUNDARY)


@pytest.mark.hostile("requests-file-names")
def test_row_a_lone_surrogate_is_refused():
    for fields, files in (({"\ud800": 1}, []), ({"a": "\ud800"}, []),
                          ({}, [FilePart(name="f", filename="\ud800", source=FakeSource())])):  # fmt: skip
        with pytest.raises(ValueError, match="surrogate") as caught:
            encode_multipart(fields, files, boundary=BOUNDARY)
        assert type(caught.value) is ValueError
        assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("decoder", [by_werkzeug, by_multipart])
def test_row_a_unicode_line_separator_is_no_line_break(decoder):
    """The email package breaks header lines there by its own habit, and is no witness."""
    assert_read_back(decoder, "a\u2028b", "\x85\u2029")


# Where decoders have habits of their own, the alphabet leaves them out: white space at the ends and encoded
# words are undone by email, control characters break its lines.
safe_names = st.text("aZ09.-_é中 %;=,'\"\r\n&+:/()[]{}", min_size=1, max_size=12).map(
    lambda text: f"x{text}x"
)
values = st.text('aZ09é中 %;="\t&+:/()[]{}\\-', max_size=20)


@pytest.mark.hostile("requests-file-names")
@pytest.mark.parametrize("decoder", DECODERS)
@PROPERTY
@given(name=safe_names, filename=safe_names, value=values)
def test_law_names_and_values_are_read_back(decoder, name, filename, value):
    assert_read_back(decoder, name, filename, value)


@PROPERTY
@given(
    st.dictionaries(any_text.filter(lambda t: "\0" not in t), any_text, max_size=3),
    st.lists(st.tuples(any_text, any_text, st.integers(0, 2**60)), max_size=3),
)
def test_law_the_declared_length_is_the_real_one_and_sources_are_not_read(fields, files):
    parts = [
        FilePart(name=name.replace("\0", ""), filename=filename.replace("\0", ""), source=FakeSource(length))
        for name, filename, length in files
    ]
    try:
        body = encode_multipart(fields, parts, boundary=BOUNDARY)
    except ValueError:
        assert "\\" in repr((fields, files)), "only a backslash may be refused"
        return
    in_memory = sum(len(segment) for segment in body.segments if isinstance(segment, bytes))
    assert body.length == in_memory + sum(length for *_, length in files)
    assert [segment for segment in body.segments if not isinstance(segment, bytes)] == [
        p.source for p in parts
    ]
    assert b"".join(s for s in body.segments if isinstance(s, bytes)).count(
        b"\r\n--" + BOUNDARY.encode()
    ) >= len(fields) + len(files)


# --- values


class Word(str, enum.Enum):
    ONE = "one"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (1.5, "1.5"),
        (Word.ONE, "one"),
        (Level.HIGH, "3"),
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_field_values(decoder, value, text):
    assert decoder(encode_multipart({"a": value}, [], boundary=BOUNDARY)) == ([("a", text)], [])


def test_a_part_of_unknown_length_makes_the_whole_of_unknown_length():
    parts = [FilePart(name="f", filename="f", source=FakeSource(length)) for length in (1, None)]
    assert encode_multipart({"a": 1}, parts, boundary="b").length is None
    assert encode_multipart({"a": 1}, parts[:1], boundary="b").length is not None


def test_a_path_has_to_be_opened_first():
    with pytest.raises(TypeError, match="'/etc/x' has to be opened first"):
        encode_multipart({}, [FilePart(name="f", filename="f", source="/etc/x")], boundary="b")


def test_none_is_left_out_and_order_is_kept():
    file = FilePart(name="file", filename="f", source=FakeSource(1), content_type="text/plain")
    body = with_content(
        encode_multipart({"b": 1, "x": None, "a": 2}, [file, file], boundary="b"), [b"1", b"2"]
    )
    assert body.data == (
        b'--b\r\nContent-Disposition: form-data; name="b"\r\n\r\n1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n2\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
        b"Content-Type: text/plain\r\n\r\n1\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
        b"Content-Type: text/plain\r\n\r\n2\r\n"
        b"--b--\r\n"
    )
    assert body.content_type == "multipart/form-data; boundary=b"
    assert encode_multipart(None, [], boundary="b").data == b"--b--\r\n"


@pytest.mark.parametrize("value", [b"x", ["x"], {"a": 1}, object()])
def test_values_of_other_types_are_type_errors(value):
    with pytest.raises(TypeError, match="'a'"):
        encode_multipart({"a": value}, [], boundary=BOUNDARY)


@pytest.mark.parametrize("name", [1, None, b"x"])
def test_names_are_text(name):
    with pytest.raises(TypeError, match="form field"):
        encode_multipart({name: "x"}, [], boundary=BOUNDARY)
    with pytest.raises(TypeError, match="form field"):
        encode_multipart({}, [FilePart(name="f", filename=name, source=FakeSource())], boundary=BOUNDARY)


@pytest.mark.parametrize("boundary", ["", "a" * 71, "a b", "a\r\n", 'a"', "a;b", "é", "a\n"])
def test_a_boundary_is_checked(boundary):
    with pytest.raises(ValueError, match="boundary"):
        encode_multipart({}, [], boundary=boundary)


@pytest.mark.parametrize("boundary", ["a", "a" * 70, "0aZ-_.", BOUNDARY])
@pytest.mark.parametrize("decoder", DECODERS)
def test_usual_boundaries_are_read_back(decoder, boundary):
    assert decoder(encode_multipart({"a": "b"}, [], boundary=boundary)) == ([("a", "b")], [])


@pytest.mark.parametrize("character", "'()+,/:=?")
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_boundary_that_must_be_quoted_is_quoted_or_refused(decoder, character):
    """RFC 2046 allows them in a boundary, RFC 2045, 5.1 not in a parameter's value without quotes."""
    try:
        body = encode_multipart({"a": "b"}, [], boundary=f"x{character}y")
    except ValueError:
        return
    assert decoder(body) == ([("a", "b")], [])


@pytest.mark.parametrize("content_type", ["a/b\r\nEvil: 1", "a/b\n", "é/b", "a\0b"])
def test_a_parts_content_type_cannot_inject(content_type):
    part = FilePart(name="f", filename="f", source=FakeSource(), content_type=content_type)
    with pytest.raises(ValueError, match="content type"):
        encode_multipart({}, [part], boundary=BOUNDARY)


# --- as a request


@pytest.mark.hostile("published-content-type")
def test_a_callers_content_type_on_a_form_is_refused_and_the_configs_is_left_out():
    endpoint = DataEndpoint(Config(account_id="1", headers={"Content-Type": "a/b", "x-a": "1"}))
    request = endpoint.form_request("files", fields={"path": "/x"}, files=[], boundary=BOUNDARY)
    assert [value for name, value in request.fields() if name.lower() == "content-type"] == [
        f"multipart/form-data; boundary={BOUNDARY}"
    ]
    assert request.headers["x-a"] == "1"
    assert dict(request.fields())["Content-Length"] == str(len(request.body.data))
    for name in ("Content-Type", "content-TYPE"):
        with pytest.raises(ValueError, match="boundary"):
            endpoint.form_request("files", fields={}, files=[], boundary=BOUNDARY, headers={name: "a/b"})


def test_what_is_passed_in_is_not_changed():
    fields, files, headers = {"a": 1}, [FilePart(name="f", filename="f", source=FakeSource())], {"x": "1"}
    DataEndpoint(Config(account_id="1")).form_request(
        "x", fields=fields, files=files, boundary="b", headers=headers
    )
    assert (fields, len(files), headers) == ({"a": 1}, 1, {"x": "1"})

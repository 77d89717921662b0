"""Uploads and downloads: multipart read strictly, ranges and validators, the generated recording."""

from __future__ import annotations

import base64
import hashlib
from email.utils import formatdate

import pytest

from agentrun_transports.emulator.multipart import boundary_of, read_parts
from agentrun_transports.emulator.recording import recording
from agentrun_transports.emulator.store import Blobs

FILES = "/2025-09-10/agents/files"


@pytest.mark.parametrize(
    "target",
    [FILES, "/2025-09-10/super-agents/files", "/agent-runtimes/files", "/models/files", "/tools/files"],
)
def test_up_and_down(ask, content_of, target):
    content = bytes(range(256)) * 5000
    data = ask.upload(target, "ü/a b.bin", content, note="中").json()["data"]
    digest = hashlib.sha256(content).hexdigest()
    assert (data["path"], data["size"], data["sha256"]) == ("ü/a b.bin", len(content), digest)
    assert (data["fileName"], data["fields"]) == ("f.bin", {"note": ["中"]})
    answer = ask("GET", f"{target}?path=%C3%BC%2Fa+b.bin")
    assert hashlib.sha256(content_of(answer)).hexdigest() == digest
    assert answer.header("Content-Type") == "application/octet-stream"
    assert answer.header("ETag") == data["etag"]
    assert not answer.header("ETag").startswith("W/")
    assert answer.header("Content-Length") == str(len(content))
    assert answer.header("Last-Modified") == "Fri, 06 Mar 2026 12:00:00 GMT"


def test_namespaces_do_not_share_files(ask):
    ask.upload(FILES, "a", b"1")
    assert ask.refused("GET", "/tools/files?path=a") == (404, "FileNotFound")
    assert ask.refused("GET", f"{FILES}?path=/a") == (404, "FileNotFound")
    # However the path is escaped, it is the same place.
    assert ask("GET", "/2025-09-10/agents/fil%65s?path=a").status == 200


def test_an_upload_takes_the_place_of_the_one_before(asker, tmp_path, content_of):
    ask = asker(tmp_path)
    tags = {ask.upload(FILES, "a", content).json()["data"]["etag"] for content in (b"1", b"2", b"")}
    assert len(tags) == 3
    assert content_of(ask("GET", f"{FILES}?path=a")) == b""
    assert len(list((tmp_path / "blobs").iterdir())) == 1


@pytest.mark.parametrize("path", ["../x", "a/./b", "..", "a\0b"])
def test_paths_that_are_refused_leave_nothing(asker, tmp_path, path):
    ask = asker(tmp_path)
    assert ask.upload(FILES, path, b"1").json()["code"] == "ERR_VALIDATION_FAILED"
    assert list((tmp_path / "blobs").iterdir()) == []


def test_download_needs_a_path(ask):
    assert ask.refused("GET", FILES) == (400, "ERR_VALIDATION_FAILED")
    assert ask.refused("GET", f"{FILES}?path=") == (400, "ERR_VALIDATION_FAILED")
    assert ask.refused("GET", f"{FILES}?path=none") == (404, "FileNotFound")


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([("file", "f", b"1")], 400),
        ([("path", None, b"a")], 400),
        ([("path", None, b""), ("file", "f", b"1")], 400),
        ([("path", None, b"a"), ("path", None, b"b"), ("file", "f", b"1")], 400),
        ([("path", None, b"a"), ("file", None, b"1")], 400),
        ([("path", None, b"a"), ("other", "f", b"1")], 400),
        ([("path", None, b"a"), ("file", "f", b"1"), ("file", "g", b"1")], 400),
        ([("path", None, b"\xff"), ("file", "f", b"1")], 400),
        ([("file", "f", b"1"), ("path", None, b"x" * ((1 << 20) + 1))], 413),
        ([("path", None, b"a"), *[("n", None, b"")] * 1000], 413),
        ([("path", None, b"a"), ("n" * 20_000, None, b"")], 413),
        ([("path", None, b"a"), ("file", "", b"1")], 200),
    ],
    ids=range(12),
)
def test_forms(asker, tmp_path, form, parts, status):
    ask = asker(tmp_path)
    body, kind = form(parts)
    assert ask("POST", FILES, body=body, headers={"Content-Type": kind}).status == status
    assert len(list((tmp_path / "blobs").iterdir())) == (status == 200)


HEAD = b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\na\r\n'
FILE = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n1\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--B",
        b"--C\r\n",
        b"preamble\r\n" + HEAD + FILE + b"--B--",
        HEAD + FILE,
        HEAD + FILE + b"--B",
        HEAD + FILE + b"--B-",
        HEAD + FILE + b"--B--\r\nepilogue",
        HEAD + FILE + b"--B  \r\n",
        HEAD + FILE.replace(b"\r\n", b"\n") + b"--B--",
        HEAD + FILE.replace(b'"file"', b"file") + b"--B--",
        HEAD + FILE.replace(b'"f"', b'"a\\"b"') + b"--B--",
        HEAD + FILE.replace(b'"f"', b"\"f\"; filename*=UTF-8''x") + b"--B--",
        HEAD + FILE.replace(b"form-data", b"attachment") + b"--B--",
        HEAD + FILE.replace(b"Content-Disposition", b"Content-Type") + b"--B--",
        HEAD + FILE.replace(b'"f"\r\n', b'"f"\r\nX: 1\r\nx: 2\r\n') + b"--B--",
        HEAD + FILE.replace(b'"f"\r\n', b'"f"\r\n folded\r\n') + b"--B--",
        HEAD + FILE.replace(b'"f"', b'"\xff"') + b"--B--",
        HEAD + FILE.replace(b'"f"', b'"a\rb"') + b"--B--",
        HEAD + b"--B\r\n\r\n1\r\n" + FILE + b"--B--",
    ],
    ids=range(20),
)
def test_what_is_no_form(asker, tmp_path, body):
    ask = asker(tmp_path)
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    assert ask.refused("POST", FILES, body=body, headers=kind) == (400, "ERR_BAD_REQUEST")
    assert list((tmp_path / "blobs").iterdir()) == []
    assert ask("POST", FILES, body=HEAD + FILE + b"--B--", headers=kind).status == 200


@pytest.mark.parametrize(
    "kind", [None, "", "multipart/form-data", "multipart/mixed; boundary=B", "multipart/form-data; boundary="]
)
def test_content_type_without_a_boundary(ask, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    assert ask.refused("POST", FILES, body=HEAD + FILE + b"--B--", headers=headers) == (
        400,
        "ERR_BAD_REQUEST",
    )


def test_boundaries():
    assert boundary_of("Multipart/Form-Data;boundary=a-_'()") == b"a-_'()"
    assert boundary_of('multipart/form-data; boundary="a b?"') == b"a b?"


AWKWARD = [
    "a b",
    "ü中\U0001f600",
    "semi;colon",
    "back\\slash",
    "C:\\dir\\",
    "per%cent",
    "%41",
    'quo"te',
    "cr\rlf\n",
    "'",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names(ask, form, name):
    escaped = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
    parts = [("path", None, name.encode()), (escaped, None, b"v"), ("file", escaped, b"1")]
    body, kind = form(parts)
    data = ask("POST", FILES, body=body, headers={"Content-Type": kind}).json()["data"]
    assert (data["path"], data["fileName"], data["fields"]) == (name, name, {name: ["v"]})


class Dripping:
    """A file that gives its bytes a few at a time."""

    def __init__(self, data, step):
        self._data, self._step, self._at = data, step, 0

    def read(self, size):
        start, self._at = self._at, min(len(self._data), self._at + min(size, self._step))
        return self._data[start : self._at]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
def test_delimiters_may_be_split_anywhere(form, step):
    tricky = b"\r\n--XyZ"[:-1] + b"\r\n\r\n--Xy\r\n--XyY\r\r\n-\r\n--"
    body, kind = form([("path", None, b"p"), ("a", "f", tricky), ("b", "g", b""), ("c", None, tricky)])
    names = iter("123")
    blobs = Blobs(None, names.__next__)
    parts = read_parts(Dripping(body, step), boundary_of(kind), blobs.writer)
    assert [(part.name, part.value) for part in parts] == [
        ("path", "p"),
        ("a", ""),
        ("b", ""),
        ("c", tricky.decode()),
    ]
    assert [blobs.whole(part.stored.blob) for part in parts if part.stored] == [tricky, b""]


CONTENT = bytes(range(100))


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=10-19", (10, 19)),
        ("bytes=90-", (90, 99)),
        ("bytes=90-1000", (90, 99)),
        ("bytes=-5", (95, 99)),
        ("bytes=-1000", (0, 99)),
        ("Bytes=99-99", (99, 99)),
        ("bytes=100-", 416),
        ("bytes=100-200", 416),
        ("bytes=-0", 416),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=a-b", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
    ids=range(17),
)
def test_ranges(ask, content_of, wanted, part):
    ask.upload(FILES, "a", CONTENT)
    answer = ask("GET", f"{FILES}?path=a", headers={"Range": wanted})
    if part is None:
        assert (answer.status, content_of(answer), answer.header("Content-Range")) == (200, CONTENT, None)
    elif part == 416:
        assert (answer.status, answer.header("Content-Range")) == (416, "bytes */100")
        assert answer.json()["code"] == "ERR_RANGE_NOT_SATISFIABLE"
    else:
        first, last = part
        assert (answer.status, content_of(answer)) == (206, CONTENT[first : last + 1])
        assert answer.header("Content-Range") == f"bytes {first}-{last}/100"
        assert answer.header("Content-Length") == str(last - first + 1)


def test_a_range_of_nothing(ask):
    ask.upload(FILES, "a", b"")
    assert ask("GET", f"{FILES}?path=a", headers={"Range": "bytes=0-"}).header("Content-Range") == "bytes */0"


def test_if_range(ask, fixed_now):
    etag = ask.upload(FILES, "a", CONTENT).json()["data"]["etag"]
    modified = formatdate(fixed_now, usegmt=True)

    def status(validator):
        return ask("GET", f"{FILES}?path=a", headers={"Range": "bytes=0-1", "If-Range": validator}).status

    # Within its own second a date cannot tell two versions apart.
    assert status(modified) == 200
    ask.now += 1
    assert status(modified) == 206
    assert status(etag) == 206
    assert status(f"W/{etag}") == 200
    assert status('"other"') == 200
    assert status(formatdate(fixed_now - 1, usegmt=True)) == 200
    ask.upload(FILES, "a", CONTENT + b"!")
    assert status(etag) == 200


def test_head_of_a_file(ask):
    ask.upload(FILES, "a", CONTENT)
    answer = ask("HEAD", f"{FILES}?path=a", headers={"Range": "bytes=0-1"})
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "100")
    assert answer.header("Accept-Ranges") == "bytes"


def test_video(ask):
    answer = ask("GET", "/2025-09-10/agents/videos?path=demo.mkv")
    assert (answer.header("Content-Type"), answer.body) == ("video/x-matroska", recording())
    assert (
        ask("GET", "/2025-09-10/agents/videos?path=demo.mkv", headers={"Range": "bytes=0-3"}).body
        == recording()[:4]
    )
    assert ask.refused("GET", "/2025-09-10/agents/videos?path=x.mkv") == (404, "FileNotFound")


def elements(data):
    """Read EBML elements at one level: (identifier in hex, content), as RFC 8794 has it."""
    at = 0
    while at < len(data):
        sizes = []
        for is_size in (False, True):
            width = 9 - data[at].bit_length()
            raw = data[at : at + width]
            sizes.append(int.from_bytes(raw, "big") & ((1 << 7 * width) - 1) if is_size else raw.hex())
            at += width
        identifier, size = sizes
        assert at + size <= len(data)
        yield identifier, data[at : at + size]
        at += size


def test_the_recording_is_a_matroska_file():
    head, segment = elements(recording())
    assert (head[0], segment[0]) == ("1a45dfa3", "18538067")
    assert dict(elements(head[1]))["4282"] == b"matroska"
    inside = dict(elements(segment[1]))
    assert list(inside) == ["1549a966", "1654ae6b", "1f43b675"]
    blocks = [content for name, content in elements(inside["1f43b675"]) if name == "a3"]
    assert [int.from_bytes(block[1:3], "big") for block in blocks] == list(range(0, 1000, 40))
    assert {len(block) for block in blocks} == {4 + 64 * 64}


# Several files in one form.


def test_further_files_are_told_of_and_not_kept(asker, tmp_path, content_of):
    ask = asker(tmp_path)
    body = (
        b'--B\r\nContent-Disposition: form-data; name="extra"; filename="a.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\nfirst\r\n"
        b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\nto\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="b.png"\r\n'
        b"Content-Type: image/png\r\n\r\nsecond\r\n"
        b'--B\r\nContent-Disposition: form-data; name="extra"; filename=""\r\n\r\n\r\n--B--\r\n'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    data = ask("POST", FILES, body=body, headers=kind).json()["data"]
    assert (data["fileName"], data["size"], data["fields"]) == ("b.png", 6, {})
    told = [
        (f["name"], f["fileName"], f["contentType"], f["size"], f["sha256"] == hashlib.sha256(c).hexdigest())
        for f, c in zip(data["files"], (b"first", b"second", b""), strict=True)
    ]
    assert told == [
        ("extra", "a.txt", "text/plain", 5, True),
        ("file", "b.png", "image/png", 6, True),
        ("extra", "", None, 0, True),
    ]
    assert content_of(ask("GET", f"{FILES}?path=to")) == b"second"
    assert len(list((tmp_path / "blobs").iterdir())) == 1


# Checksums.

NINE = b"123456789"
MD5 = base64.b64encode(hashlib.md5(NINE).digest()).decode()
# The check value of CRC-64/XZ, which is what the object store's clients compare with.
CRC64 = str(0x995DC9BBDF1939FA)


def checksums_of(answer):
    return answer.header("Content-MD5"), answer.header("x-oss-hash-crc64ecma")


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (None, (MD5, None)),
        ("md5", (MD5, None)),
        ("crc64", (None, CRC64)),
        ("crc64, md5", (MD5, CRC64)),
        ("none", (None, None)),
    ],
)
def test_checksums_are_those_that_the_upload_wanted(ask, form, wanted, sent):
    body, kind = form([("path", None, b"a")], NINE)
    headers = {"Content-Type": kind} | ({} if wanted is None else {"x-emulator-checksum": wanted})
    assert ask("POST", FILES, body=body, headers=headers).status == 200
    for method in ("GET", "HEAD"):
        assert checksums_of(ask(method, f"{FILES}?path=a")) == sent
    # Of a part, nobody knows what Content-MD5 would be; the other is that of the whole.
    assert checksums_of(ask("GET", f"{FILES}?path=a", headers={"Range": "bytes=3-"})) == (None, sent[1])


@pytest.mark.parametrize("wanted", ["", "sha256", "md5,", "none,md5", "MD5"])
def test_checksums_that_there_are_not(asker, tmp_path, form, wanted):
    ask = asker(tmp_path)
    body, kind = form([("path", None, b"a")], NINE)
    headers = {"Content-Type": kind, "x-emulator-checksum": wanted}
    assert ask.refused("POST", FILES, body=body, headers=headers) == (400, "ERR_BAD_REQUEST")
    assert list((tmp_path / "blobs").iterdir()) == []


def test_files_in_sandboxes_and_recordings_have_checksums(ask):
    ask.data("POST", "/sandboxes", {"templateName": "t", "sandboxId": "s"})
    ask.bare("POST", "/sandboxes/s/files", {"path": "a", "content": NINE.decode()})
    assert checksums_of(ask("GET", "/sandboxes/s/filesystem/download?path=a")) == (MD5, None)
    ask.upload("/sandboxes/s/filesystem/upload", "b", NINE)
    assert checksums_of(ask("GET", "/sandboxes/s/filesystem/download?path=b")) == (MD5, None)
    video = ask("GET", "/2025-09-10/agents/videos?path=demo.mkv")
    assert base64.b64decode(video.header("Content-MD5")) == hashlib.md5(video.body).digest()


def test_checksums_outlive_the_service(asker, tmp_path):
    asker(tmp_path).upload(FILES, "a", NINE)
    assert checksums_of(asker(tmp_path)("GET", f"{FILES}?path=a")) == (MD5, None)


def test_a_wrong_checksum(ask, form, content_of):
    body, kind = form([("path", None, b"a")], NINE)
    ask("POST", FILES, body=body, headers={"Content-Type": kind, "x-emulator-checksum": "md5,crc64"})
    answer = ask("GET", f"{FILES}?path=a", headers={"x-emulator-fault": "wrong-checksum"})
    md5, crc64 = checksums_of(answer)
    assert len(base64.b64decode(md5, validate=True)) == 16
    assert (md5 != MD5, crc64 != CRC64, 0 <= int(crc64) < 1 << 64) == (True, True, True)
    assert content_of(answer) == NINE
    assert checksums_of(ask("GET", f"{FILES}?path=a")) == (MD5, CRC64)


# Ranges that are answered wrongly.


@pytest.mark.parametrize(
    ("how", "wanted", "status", "content_range"),
    [
        ("ignored", "bytes=10-19", 200, None),
        ("ignored", "bytes=100-", 200, None),
        ("shifted", "bytes=10-19", 206, "bytes 9-19/100"),
        ("shifted", "bytes=10-", 206, "bytes 9-99/100"),
        ("shifted", "bytes=100-", 206, "bytes 99-99/100"),
        ("shifted", "bytes=0-", 206, "bytes 1-99/100"),
        ("shifted", "bytes=0-0", 206, "bytes 1-1/100"),
        ("shifted", "bytes=-5", 206, "bytes 94-99/100"),
        ("shifted", "bytes=-", 200, None),
        ("shifted", "x", 200, None),
        ("shifted", None, 200, None),
    ],
)
def test_a_range_that_is_answered_wrongly(ask, content_of, how, wanted, status, content_range):
    ask.upload(FILES, "a", CONTENT)
    headers = {"x-emulator-fault": f"wrong-range={how}"} | ({} if wanted is None else {"rAnGe": wanted})
    answer = ask("GET", f"{FILES}?path=a", headers=headers)
    assert (answer.status, answer.header("Content-Range")) == (status, content_range)
    first = 0 if content_range is None else int(content_range.split()[1].split("-")[0])
    last = 99 if content_range is None else int(content_range.split("-")[1].split("/")[0])
    assert content_of(answer) == CONTENT[first : last + 1]


def test_a_signature_over_the_range_is_checked_as_it_was_sent(ask, signer):
    ask.upload(FILES, "a", CONTENT)
    signed = signer.agentrun4("GET", f"{FILES}?path=a", extra={"range": "bytes=1-"})
    headers = {**signed, "x-emulator-fault": "wrong-range=ignored"}
    assert ask("GET", f"{FILES}?path=a", headers=headers, token=None).status == 200

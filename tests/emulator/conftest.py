"""What the emulator's tests share: signers written from SERVICE's text alone, a fixed clock, a way to ask."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl, quote

import pytest

from agentrun_transports.emulator import Account, Request, Service, StreamBody

NOW = 1772798400.0  # 2026-03-06T12:00:00Z


def canonical(method, target, fields, payload):
    """Return the canonical request of SERVICE: ``fields`` are lower-case, and all signed."""
    path, _, query = target.partition("?")
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    line = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(pairs.items()))
    signed = sorted(fields)
    return "\n".join(
        [method, path, line, *(f"{n}:{fields[n]}" for n in signed), "", ";".join(signed), payload]
    )


def hex256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Signer:
    """Signs for the key that the emulator knows by default; every part can be set to something else."""

    def agentrun4(
        self,
        method,
        target,
        *,
        host="127.0.0.1",
        key_id="emulator-id",
        secret="emulator-secret",
        token=None,
        region="cn-hangzhou",
        product="agentrun",
        now=NOW,
        scope_date=None,
        payload="UNSIGNED-PAYLOAD",
        extra=None,
    ):
        date = datetime.fromtimestamp(now, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = {"host": host, "x-acs-date": date, "x-acs-content-sha256": payload}
        if token is not None:
            fields["x-acs-security-token"] = token
        fields |= extra or {}
        scope = [scope_date or date[:10].replace("-", ""), region, product, "aliyun_v4_request"]
        key = ("aliyun_v4" + secret).encode()
        for step in scope:
            key = mac(key, step)
        digest = hex256(canonical(method, target, fields, payload))
        signature = mac(key, f"AGENTRUN4-HMAC-SHA256\n{digest}").hex()
        credential = "/".join([key_id, *scope])
        value = (
            f"AGENTRUN4-HMAC-SHA256 Credential={credential},"
            f"SignedHeaders={';'.join(sorted(fields))},Signature={signature}"
        )
        return {**fields, "Agentrun-Authorization": value}

    def acs3(
        self, method, target, *, nonce, host="127.0.0.1", now=NOW, secret="emulator-secret", body="", **extra
    ):
        date = datetime.fromtimestamp(now, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = {
            "host": host,
            "accept": "application/json",
            "x-acs-action": "GetAccessToken",
            "x-acs-version": "2025-09-10",
            "x-acs-date": date,
            "x-acs-signature-nonce": nonce,
            "x-acs-content-sha256": hex256(body),
            **extra,
        }
        digest = hex256(canonical(method, target, fields, fields["x-acs-content-sha256"]))
        signature = mac(secret.encode(), f"ACS3-HMAC-SHA256\n{digest}").hex()
        value = (
            "ACS3-HMAC-SHA256 Credential=emulator-id,"
            f"SignedHeaders={';'.join(sorted(fields))},Signature={signature}"
        )
        return {**fields, "Authorization": value}


class Asker:
    """A service on a clock that stands still until ``now`` is set, and a short way to ask it."""

    def __init__(self, folder=None, **settings):
        self.now = NOW
        numbers = itertools.count(1)
        # Over a folder that a service before it has used, names must still be new.
        prefix = f"id{len(list(folder.rglob('*')))}-" if folder is not None and folder.exists() else "id-"
        account = Account(access_key_id="emulator-id", access_key_secret="emulator-secret")
        self.service = Service(
            accounts=[account],
            tokens=["t"],
            now=lambda: self.now,
            new_id=lambda: f"{prefix}{next(numbers)}",
            folder=folder,
            **settings,
        )

    def __call__(self, method, target, data=None, *, body=None, headers=None, token="t"):
        if data is not None:
            body = json.dumps(data).encode()
        known = {} if token is None else {"Agentrun-Access-Token": token}
        sent = {**known, **(headers or {})}
        request = Request(
            method=method,
            target=target,
            headers=tuple(sent.items()),
            body=BytesIO(body if body is not None else b""),
        )
        return self.service.handle(request)

    def data(self, method, target, data=None):
        """Return the envelope's data, after checking the envelope."""
        answer = self(method, target, data)
        value = answer.json()
        assert (answer.status, value["code"]) == (200, "SUCCESS"), value
        assert value["requestId"] == answer.header("x-acs-request-id")
        return value["data"]

    def bare(self, method, target, data=None):
        """Return the bare answer of a call inside a sandbox."""
        answer = self(method, target, data)
        assert answer.status == 200, answer.json()
        return answer.json()

    def refused(self, method, target, data=None, *, body=None, headers=None):
        """Return status and code of a refusal, after checking its shape."""
        answer = self(method, target, data, body=body, headers=headers)
        value = answer.json()
        assert set(value) == {"code", "requestId", "message"}, value
        assert value["message"]
        assert value["requestId"] == answer.header("x-acs-request-id")
        assert answer.header("Date") == "Fri, 06 Mar 2026 12:00:00 GMT"
        return answer.status, value["code"]

    def upload(self, target, path, content, **fields):
        body, kind = form(
            [("path", None, path.encode()), *((k, None, v.encode()) for k, v in fields.items())], content
        )
        return self("POST", target, body=body, headers={"Content-Type": kind})


def form(parts, content=None, boundary="XyZ"):
    """Return a multipart body and its content type; ``content`` goes last, as the part ``file``."""
    if content is not None:
        parts = [*parts, ("file", "f.bin", content)]
    body = b""
    for name, file_name, value in parts:
        end = f'; filename="{file_name}"' if file_name is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{end}\r\n\r\n'.encode()
        body += value + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@pytest.fixture(name="form")
def form_fixture():
    return form


@pytest.fixture
def signer():
    return Signer()


@pytest.fixture
def fixed_now():
    return NOW


@pytest.fixture(params=["memory", "folder"])
def ask(request, tmp_path):
    return Asker(tmp_path / "state" if request.param == "folder" else None)


@pytest.fixture
def asker():
    return Asker


@pytest.fixture
def content_of():
    """Return the bytes of an answer, be they in memory, in a file, or still to come."""

    def read(answer):
        if isinstance(answer.body, bytes):
            return answer.body
        if isinstance(answer.body, StreamBody):
            return b"".join(answer.body.events)
        data = answer.body.path.read_bytes()
        return data[answer.body.offset : answer.body.offset + answer.body.length]

    return read


@pytest.fixture(scope="session")
def vectors():
    folder = Path(__file__).parent.parent / "data"
    return {
        name: json.loads((folder / f"{name}_vectors.json").read_text("utf-8"))["cases"]
        for name in ("agentrun4", "acs3")
    }

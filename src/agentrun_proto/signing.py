"""Signatures: AGENTRUN4-HMAC-SHA256 for the data plane, ACS3-HMAC-SHA256 for the control plane.

Rules of this file: what is signed is what is sent, so a signer reads a finished request and its result is
added to it, unchanged, for one attempt; the time comes from the caller; what does not change from request
to request (the day's key, the second's timestamp) is kept.

Source: the published signers; tests/data holds 64 and 24 cases computed by them.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from typing import Protocol
from urllib.parse import quote

from .credentials import AccessKey, AccessToken, Credential
from .messages import Request
from .urls import is_plain, parse_form

ALGORITHM = "AGENTRUN4-HMAC-SHA256"
ACS3_ALGORITHM = "ACS3-HMAC-SHA256"
PRODUCT = "agentrun"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
TOKEN_FIELD = "Agentrun-Access-Token"
AUTHORIZATION_FIELD = "Agentrun-Authorization"

# What a signature or a token decides; a caller's own value would go out stale, or twice.
RESERVED_FOR_KEY = frozenset(
    {"agentrun-authorization", "x-acs-content-sha256", "x-acs-date", "x-acs-security-token"}
)
RESERVED_FOR_TOKEN = frozenset({"agentrun-access-token"})


def timestamp(now: float) -> str:
    """Seconds since the epoch as signatures write a time.

    >>> timestamp(1772798400.9)
    '2026-03-06T12:00:00Z'
    """
    return datetime.fromtimestamp(int(now), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical_query(query: str) -> str:
    """The query as it is signed: decoded as a form, sorted by name, encoded down to the unreserved set.

    Of a repeated name the last value counts, as in the published signer (unchecked against the service).

    >>> canonical_query("b=2&a=1+1&b=%33&flag=")
    'a=1%201&b=3&flag='
    """
    if not query:
        return ""
    if is_plain(query):
        if "&" not in query:
            return query
        values = dict([pair.split("=") for pair in query.split("&")])
        return "&".join([f"{name}={values[name]}" for name in sorted(values)])
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in sorted(dict(parse_form(query)).items())
    )


_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


class _Hash(Protocol):
    def copy(self) -> _Hash: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


class _Mac:
    """HMAC-SHA256 with one key, which is hashed into both pads once, as RFC 2104, 4 proposes.

    Two copies of that cost less than half of what `hmac.digest` does, which begins with the key each time.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")  # a day's key is a digest: shorter than a block
        self._inner: _Hash = sha256(block.translate(_INNER_PAD))
        self._outer: _Hash = sha256(block.translate(_OUTER_PAD))

    def hexdigest(self, message: bytes) -> str:
        """RFC 2104, 2: H(K XOR opad, H(K XOR ipad, text))."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Moment:
    """All of a signature that stays the same for a second: everything but method, host, path and query."""

    mac: _Mac
    fields: tuple[tuple[str, str], ...]
    signed: dict[str, str]
    plain_tail: str  # the canonical request after the host, where only the usual fields are signed
    credential: str  # the value of the field as far as the signed names
    plain_names: str


class Signer:
    """Signs data plane requests for one access key and region.

    The signing key is four HMACs over secret, day, region and product: it is kept for the day; all that
    follows from the timestamp is kept for the second.
    """

    __slots__ = ("_access_key", "_day", "_region", "_second")

    def __init__(self, access_key: AccessKey, region: str) -> None:
        self._access_key = access_key
        self._region = region
        # Each is one value that is replaced as a whole: threads share a signer.
        self._day: tuple[str, _Mac | None] = ("", None)
        self._second: tuple[int, _Moment] | None = None

    def _at(self, now: float) -> _Moment:
        kept = self._second
        if kept is None or kept[0] != int(now):
            kept = self._second = int(now), self._make_moment(timestamp(now))
        return kept[1]

    def _make_moment(self, stamp: str) -> _Moment:
        access_key, day = self._access_key, stamp[:10].replace("-", "")
        kept_day, mac = self._day
        if mac is None or day != kept_day:
            key = b"aliyun_v4" + access_key.access_key_secret.reveal().encode()
            for part in (day, self._region, PRODUCT, "aliyun_v4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            mac = _Mac(key)
            self._day = day, mac
        signed = {"x-acs-date": stamp, "x-acs-content-sha256": UNSIGNED_PAYLOAD}
        if access_key.security_token is not None:
            signed["x-acs-security-token"] = access_key.security_token.reveal()
        names, lines = _canonical_fields({"host": "", **signed})
        after_host = lines.removeprefix("host:\n")
        return _Moment(
            mac=mac,
            fields=tuple(signed.items()),
            signed=signed,
            plain_tail=f"{after_host}\n{names}\n{UNSIGNED_PAYLOAD}",
            plain_names=names,
            credential=f"{ALGORITHM} Credential={access_key.access_key_id}/{day}/{self._region}/{PRODUCT}"
            "/aliyun_v4_request,SignedHeaders=",
        )

    def fields(
        self, request: Request, now: float, *, sign_content_type: bool = False
    ) -> tuple[tuple[str, str], ...]:
        """The field lines that sign a request.

        Args:
            request: exactly what will be sent; its own ``x-acs-*`` fields are signed with it.
            now: wall time, seconds since the epoch.
            sign_content_type: whether the Content-Type is part of the signature.

        Raises:
            ValueError: the request carries a field that only the signature may set.
        """
        moment = self._at(now)
        host = request.origin.authority
        path, _, query = request.target.partition("?")
        headers = request.headers
        if not sign_content_type and "x-acs-" not in headers.folded and "agentrun-a" not in headers.folded:
            names, rest = moment.plain_names, f"host:{host}\n{moment.plain_tail}"
        else:
            signed = {"host": host, **moment.signed, **_caller_fields(request, sign_content_type)}
            names, lines = _canonical_fields(signed)
            rest = f"{lines}\n{names}\n{UNSIGNED_PAYLOAD}"
        canonical = f"{request.method}\n{path}\n{canonical_query(query)}\n{rest}"
        string_to_sign = f"{ALGORITHM}\n{sha256(canonical.encode('latin-1')).hexdigest()}"
        signature = moment.mac.hexdigest(string_to_sign.encode())
        value = f"{moment.credential}{names},Signature={signature}"
        return (*moment.fields, (AUTHORIZATION_FIELD, value))


def _caller_fields(request: Request, sign_content_type: bool) -> dict[str, str]:
    """The request's own fields that are signed with it."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if name in RESERVED_FOR_KEY:
            raise ValueError(reserved(name))
        if name.startswith("x-acs-"):
            found[name] = value
    if sign_content_type and (content_type := request.content_type) is not None:
        found["content-type"] = content_type
    return found


def _canonical_fields(signed: dict[str, str]) -> tuple[str, str]:
    names = sorted(signed)
    return ";".join(names), "".join([f"{name}:{signed[name]}\n" for name in names])


def reserved(name: str) -> str:
    """What to tell a caller who sets a field that the credential decides."""
    return (
        f"the header {name} follows from the credential and cannot be set beside it; "
        "override auth() to authorise requests yourself"
    )


def sign_acs3(
    request: Request, access_key: AccessKey, *, action: str, version: str, nonce: str, now: float
) -> tuple[tuple[str, str], ...]:
    """The field lines that sign a control plane request with ACS3-HMAC-SHA256.

    Args:
        request: exactly what will be sent; of its fields ``accept`` is signed, its content must be in memory.
        access_key: the caller.
        action, version: the operation, such as ``GetAccessToken`` and ``2025-09-10``.
        nonce: a text that no other request of the last 15 minutes had; take 128 random bits.
        now: wall time, seconds since the epoch.

    Raises:
        ValueError: the request's content is not in memory.
    """
    content = request.body.data
    if content is None:
        raise ValueError("ACS3 signs a hash of the content, which must be in memory")
    payload = sha256(content).hexdigest()
    added = {
        "x-acs-action": action,
        "x-acs-version": version,
        "x-acs-date": timestamp(now),
        "x-acs-signature-nonce": nonce,
        "x-acs-content-sha256": payload,
    }
    if access_key.security_token is not None:
        added["x-acs-accesskey-id"] = access_key.access_key_id
        added["x-acs-security-token"] = access_key.security_token.reveal()
    signed = {"host": request.origin.authority, **added}
    if (accept := request.headers.get("accept")) is not None:
        signed["accept"] = accept
    path, _, query = request.target.partition("?")
    names, lines = _canonical_fields(signed)
    canonical = f"{request.method}\n{path}\n{canonical_query(query)}\n{lines}\n{names}\n{payload}"
    string_to_sign = f"{ACS3_ALGORITHM}\n{sha256(canonical.encode('latin-1')).hexdigest()}"
    secret = access_key.access_key_secret.reveal().encode()
    signature = hmac.digest(secret, string_to_sign.encode(), "sha256").hex()
    value = (
        f"{ACS3_ALGORITHM} Credential={access_key.access_key_id},SignedHeaders={names},Signature={signature}"
    )
    return (*added.items(), ("Authorization", value))


class Authoriser:
    """Adds to a request what shows who is calling: a signature, a token, or nothing."""

    __slots__ = ("_signer", "_token_fields", "credential", "reserved_fields")

    def __init__(self, credential: Credential | None, region: str) -> None:
        self.credential: Credential | None = credential
        self._signer = Signer(credential, region) if isinstance(credential, AccessKey) else None
        self._token_fields: tuple[tuple[str, str], ...] = ()
        self.reserved_fields: frozenset[str] = frozenset()
        if isinstance(credential, AccessToken):
            self._token_fields = ((TOKEN_FIELD, credential.token.reveal()),)
            self.reserved_fields = RESERVED_FOR_TOKEN
        elif self._signer is not None:
            self.reserved_fields = RESERVED_FOR_KEY

    def fields(self, request: Request, now: float) -> tuple[tuple[str, str], ...]:
        """The field lines that authorise this request at this time (wall time, seconds)."""
        return self._token_fields if self._signer is None else self._signer.fields(request, now)

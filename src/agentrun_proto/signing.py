"""Signatures: AGENTRUN4-HMAC-SHA256 for the data plane, ACS3-HMAC-SHA256 for the control plane.

Rules of this file: what is signed is what is sent, so a signer reads a finished request and its result is
added to it, unchanged, for one attempt; the time comes from the caller; what does not change from request
to request (the day's key, the second's timestamp) is kept.

Source: the published signers; tests/data holds 64 and 24 cases computed by them.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timezone
from urllib.parse import quote

from .credentials import AccessKey, AccessToken, Credential
from .messages import Request
from .urls import parse_form

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
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in sorted(dict(parse_form(query)).items())
    )


class Signer:
    """Signs data plane requests for one access key and region.

    The signing key is four HMACs over secret, day, region and product: it is kept for the day.
    """

    __slots__ = ("_day", "_key", "_key_id", "_region", "_second", "_secret", "_stamp", "_token")

    def __init__(self, access_key: AccessKey, region: str) -> None:
        self._key_id = access_key.access_key_id
        self._secret = access_key.access_key_secret
        self._token = access_key.security_token
        self._region = region
        self._second: int | None = None
        self._stamp = ""
        self._day = ""
        self._key = b""

    def _at(self, now: float) -> tuple[str, str, bytes]:
        """The timestamp, the day and the day's key."""
        second = int(now)
        if second != self._second:
            stamp = timestamp(now)
            day = stamp[:10].replace("-", "")
            if day != self._day:
                key = b"aliyun_v4" + self._secret.reveal().encode()
                for part in (day, self._region, PRODUCT, "aliyun_v4_request"):
                    key = hmac.digest(key, part.encode(), "sha256")
                self._key = key
            self._second, self._stamp, self._day = second, stamp, day
        return self._stamp, self._day, self._key

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
        stamp, day, key = self._at(now)
        signed = {
            "host": request.origin.authority,
            "x-acs-content-sha256": UNSIGNED_PAYLOAD,
            "x-acs-date": stamp,
        }
        added = [("x-acs-date", stamp), ("x-acs-content-sha256", UNSIGNED_PAYLOAD)]
        if self._token is not None:
            token = signed["x-acs-security-token"] = self._token.reveal()
            added.append(("x-acs-security-token", token))
        for name, value in request.headers.items():
            if name in RESERVED_FOR_KEY:
                raise ValueError(reserved(name))
            if name.startswith("x-acs-"):
                signed[name] = value
        if sign_content_type and (content_type := request.content_type) is not None:
            signed["content-type"] = content_type
        path, _, query = request.target.partition("?")
        names, lines = _canonical_fields(signed)
        canonical = (
            f"{request.method}\n{path}\n{canonical_query(query)}\n{lines}\n{names}\n{UNSIGNED_PAYLOAD}"
        )
        string_to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(key, string_to_sign.encode(), "sha256").hex()
        scope = f"{day}/{self._region}/{PRODUCT}/aliyun_v4_request"
        added.append(
            (
                AUTHORIZATION_FIELD,
                f"{ALGORITHM} Credential={self._key_id}/{scope},SignedHeaders={names},Signature={signature}",
            )
        )
        return tuple(added)


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
    payload = hashlib.sha256(content).hexdigest()
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
    string_to_sign = f"{ACS3_ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    secret = access_key.access_key_secret.reveal().encode()
    signature = hmac.digest(secret, string_to_sign.encode(), "sha256").hex()
    value = (
        f"{ACS3_ALGORITHM} Credential={access_key.access_key_id},SignedHeaders={names},Signature={signature}"
    )
    return (*added.items(), ("Authorization", value))


class Authoriser:
    """Adds to a request what shows who is calling: a signature, a token, or nothing."""

    __slots__ = ("_signer", "_token_fields", "reserved_fields")

    def __init__(self, credential: Credential | None, region: str) -> None:
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

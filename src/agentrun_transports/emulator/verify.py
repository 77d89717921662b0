"""Who is calling: signatures are checked from the received bytes.

This is the emulator's own reading of the two schemes. It shares no code with the signer of the client
library, so that an error in one of them shows as a refusal instead of cancelling out.

Rules that hold here:
1. A canonical request is built from the target and the field lines as they arrived; nothing is repaired
   first.
2. What is not covered by the signature is not believed: the host, the date, the payload marker and every
   ``x-acs-*`` field must be signed, and a signed field must have come exactly once.
3. Signatures are compared in constant time. No message quotes a secret or a signature that would have been
   right.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from .messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .messages import Request

AGENTRUN4 = "AGENTRUN4-HMAC-SHA256"
ACS3 = "ACS3-HMAC-SHA256"
PRODUCT = "agentrun"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

# How far the date of a request may be off, either way, in seconds.
DATE_WINDOW = 15 * 60

_AGENTRUN4_FIELD = re.compile(
    r"AGENTRUN4-HMAC-SHA256 "
    r"Credential=(?P<id>[^/,\s]+)/(?P<date>[0-9]{8})/(?P<region>[^/,\s]+)/(?P<product>[^/,\s]+)/aliyun_v4_request,"
    r"SignedHeaders=(?P<signed>[a-z0-9!#$%&'*+.^_`|~;-]+),"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_ACS3_FIELD = re.compile(
    r"ACS3-HMAC-SHA256 Credential=(?P<id>[^/,\s]+),"
    r"SignedHeaders=(?P<signed>[a-z0-9!#$%&'*+.^_`|~;-]+),"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An access key that the emulator knows. With a ``security_token``, requests must carry that token too.

    >>> Account(access_key_id="id", access_key_secret="secret")
    Account(access_key_id='id')
    """

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


def verify_agentrun4(
    request: Request, accounts: Mapping[str, Account], *, region: str, now: float
) -> Account:
    """Check the AGENTRUN4-HMAC-SHA256 signature of ``request`` and return whose it is.

    ``now`` is the wall time in seconds since the epoch. Raises ``Refusal`` (403) saying what is wrong.
    """
    scheme = _parse(request, "Agentrun-Authorization", _AGENTRUN4_FIELD, AGENTRUN4)
    account = _account(scheme["id"], accounts)
    fields = _signed_fields(request, scheme["signed"], ("host", "x-acs-date", "x-acs-content-sha256"))
    date = _check_date(fields["x-acs-date"], now)
    if scheme["date"] != date:
        raise _forbidden(f"The credential's scope is of {scheme['date']}, x-acs-date of {date}.")
    if scheme["region"] != region:
        raise _forbidden(f"The credential's scope names region {scheme['region']!r}; this is {region!r}.")
    if scheme["product"] != PRODUCT:
        raise _forbidden(f"The credential's scope names product {scheme['product']!r}; this is {PRODUCT!r}.")
    if fields["x-acs-content-sha256"] != UNSIGNED_PAYLOAD:
        raise _forbidden(f"x-acs-content-sha256 must be {UNSIGNED_PAYLOAD}.")
    _check_security_token(fields, account)
    key = b"aliyun_v4" + account.access_key_secret.encode()
    for step in (scheme["date"], scheme["region"], scheme["product"], "aliyun_v4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    _check_signature(request, AGENTRUN4, key, fields, UNSIGNED_PAYLOAD, scheme["signature"])
    return account


def verify_acs3(
    request: Request, body: bytes, accounts: Mapping[str, Account], *, action: str, version: str, now: float
) -> tuple[Account, str]:
    """Check the ACS3-HMAC-SHA256 signature of a control-plane request; return whose it is, and its nonce.

    Whether the nonce is new is for the caller to say. Raises ``Refusal`` (403; 400 for a wrong action or
    version).
    """
    scheme = _parse(request, "Authorization", _ACS3_FIELD, ACS3)
    account = _account(scheme["id"], accounts)
    required = (
        "host",
        "x-acs-action",
        "x-acs-version",
        "x-acs-date",
        "x-acs-signature-nonce",
        "x-acs-content-sha256",
    )
    fields = _signed_fields(request, scheme["signed"], required)
    _check_date(fields["x-acs-date"], now)
    if (fields["x-acs-action"], fields["x-acs-version"]) != (action, version):
        raise Refusal(400, f"This path serves x-acs-action {action} of x-acs-version {version}.")
    digest = sha256(body).hexdigest()
    if fields["x-acs-content-sha256"] != digest:
        raise _forbidden("x-acs-content-sha256 is not the SHA-256 of the body that arrived.")
    if fields.get("x-acs-accesskey-id", account.access_key_id) != account.access_key_id:
        raise _forbidden("x-acs-accesskey-id and the credential name different access keys.")
    _check_security_token(fields, account)
    key = account.access_key_secret.encode()
    _check_signature(request, ACS3, key, fields, digest, scheme["signature"])
    return account, fields["x-acs-signature-nonce"]


def canonical_query(query: str) -> str:
    """Return the canonical form of a raw query.

    Pairs are read as a form is, in UTF-8, where bytes that are none become U+FFFD as in the published signer;
    sorted by name; of a repeated name the last value is kept; escaped down to the unreserved characters of
    RFC 3986.

    >>> canonical_query("b=2&a=x+y&flag&b=%ff")
    'a=x%20y&b=%EF%BF%BD&flag='
    """
    last: dict[str, str] = {}
    for piece in query.split("&"):
        if piece:
            name, _, value = piece.partition("=")
            last[_form_text(name)] = _form_text(value)
    return "&".join(f"{quote(name, safe='')}={quote(last[name], safe='')}" for name in sorted(last))


def _form_text(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode(errors="replace")


def _forbidden(message: str) -> Refusal:
    return Refusal(403, message)


def _parse(request: Request, name: str, pattern: re.Pattern[str], algorithm: str) -> re.Match[str]:
    values = request.values(name)
    if len(values) != 1:
        raise _forbidden(f"{name} must be sent exactly once; it came {len(values)} times.")
    match = pattern.fullmatch(values[0])
    if match is None:
        raise _forbidden(
            f"{name} is not of the form '{algorithm} Credential=...,SignedHeaders=...,Signature=...'."
        )
    return match


def _account(access_key_id: str, accounts: Mapping[str, Account]) -> Account:
    account = accounts.get(access_key_id)
    if account is None:
        raise _forbidden(f"Access key {access_key_id!r} is unknown.")
    return account


def _signed_fields(request: Request, signed: str, required: Iterable[str]) -> dict[str, str]:
    """Return name -> value of the signed fields in their order, once the list of names is found sound."""
    names = signed.split(";")
    if names != sorted(set(names)):
        raise _forbidden("SignedHeaders must be sorted, and name no field twice.")
    fields: dict[str, str] = {}
    for name in names:
        values = request.values(name)
        if len(values) != 1:
            raise _forbidden(f"Signed field {name!r} must be sent exactly once; it came {len(values)} times.")
        fields[name] = values[0]
    sent = {name.lower() for name, _ in request.headers}
    needed = {*required, *(name for name in sent if name.startswith("x-acs-"))}
    missing = sorted(needed - fields.keys())
    if missing:
        raise _forbidden(f"SignedHeaders must include {', '.join(missing)}.")
    return fields


def _check_date(value: str, now: float) -> str:
    """Return the day of ``x-acs-date`` as YYYYMMDD, once it is found near enough to ``now``."""
    try:
        if not _DATE.fullmatch(value):
            raise ValueError
        date = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise _forbidden("x-acs-date must be UTC, written as 2026-03-06T12:00:00Z.") from None
    off = date.timestamp() - now
    if abs(off) > DATE_WINDOW:
        way = "ahead of" if off > 0 else "behind"
        raise _forbidden(
            f"x-acs-date is {abs(off):.0f} s {way} this service, whose time stands in the Date field of this "
            f"answer; {DATE_WINDOW // 60} minutes are allowed. Set the clock and sign again."
        )
    return date.strftime("%Y%m%d")


def _check_security_token(fields: Mapping[str, str], account: Account) -> None:
    sent = fields.get("x-acs-security-token")
    if sent is None and account.security_token is not None:
        raise _forbidden(
            f"Access key {account.access_key_id!r} is temporary: x-acs-security-token is missing."
        )
    if sent is not None and not hmac.compare_digest(
        sent.encode("latin-1"), (account.security_token or "").encode()
    ):
        raise _forbidden("x-acs-security-token does not belong to this access key.")


def _check_signature(
    request: Request, algorithm: str, key: bytes, fields: Mapping[str, str], payload: str, signature: str
) -> None:
    path = request.path or "/"
    query = canonical_query(request.raw_query)
    lines = [request.method, path, query, *(f"{name}:{value}" for name, value in fields.items())]
    lines += ["", ";".join(fields), payload]
    digest = sha256("\n".join(lines).encode("latin-1")).hexdigest()
    expected = hmac.new(key, f"{algorithm}\n{digest}".encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected, signature):
        raise _forbidden(
            f"The signature does not match. Signed here: method {request.method}, path {path!r}, query "
            f"{query!r}, fields {';'.join(fields)}. Compare these with what was signed; if they agree, the "
            "secret is wrong."
        )

"""Our signatures against those of the vendor's published signers, on random requests.

What is compared is all that a signature adds and signs: every field line with its value, the list of signed
names, and the signature. Rules of this file:

- A published signer runs as it is, and gets what goes over the wire: nothing that our signer made of it.
- Where it does something else than the wire says, the strategy leaves that out and says why; a test under
  "where they differ" shows the difference, and fails once the strategy can be widened.
- Without the packages the tests are skipped. None needs its dependencies beyond those named in the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import AccessKey, Body, Headers, Origin, Request, Secret
from agentrun_proto.signing import Signer, sign_acs3
from agentrun_proto.urls import normalise_query, wire_query
from proto_strategies import PROPERTY, awkward_text, header_values, loose_queries, read_form, wire_queries

AGENTRUN_SDK = "pip install --no-deps agentrun-sdk==0.0.54"
OPENAPI_UTIL = (
    "pip install --no-deps alibabacloud-openapi-util==0.2.4 alibabacloud-tea-util==0.3.15 "
    "alibabacloud-tea==0.4.0"
)
ACS3 = "ACS3-HMAC-SHA256"


@pytest.fixture(scope="module")
def agentrun4() -> ModuleType:
    """The SDK's signer, from its file alone: its package would load dozens of others, and a .env file."""
    try:
        package = distribution("agentrun-sdk")
    except PackageNotFoundError:
        pytest.skip(f"the published AGENTRUN4 signer is not installed: {AGENTRUN_SDK}")
    spec = spec_from_file_location(
        "published_agentrun4", package.locate_file("agentrun/utils/ram_signature/signer.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def acs3() -> ModuleType:
    """The module of the vendor's signer for all of its control planes."""
    return pytest.importorskip(
        "alibabacloud_openapi_util.client",
        reason=f"the published ACS3 signer is not installed: {OPENAPI_UTIL}",
    )


# --- one call, signed by ours and by theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """All that a signature follows from; the last three belong to ACS3 alone."""

    request: Request
    key: AccessKey
    time: datetime
    region: str = "cn-hangzhou"
    sign_content_type: bool = False
    action: str = "GetAccessToken"
    version: str = "2025-09-10"
    nonce: str = "0123456789abcdef"

    @property
    def wire(self) -> dict[str, str]:
        """The field lines of the unsigned request, by lower-case name."""
        return {name.lower(): value for name, value in self.request.fields()}

    @property
    def credential(self) -> dict[str, str | None]:
        """The key in the published signers' words."""
        token = self.key.security_token
        return {
            "access_key_id": self.key.access_key_id,
            "access_key_secret": self.key.access_key_secret.reveal(),
            "security_token": None if token is None else token.reveal(),
        }

    @property
    def signed_content_type(self) -> str | None:
        return self.wire.get("content-type") if self.sign_content_type else None


def once(lines: Any) -> dict[str, str]:
    """Field lines by lower-case name, of which none goes out twice."""
    found = {name.lower(): value for name, value in lines}
    assert len(found) == len([*lines])
    return found


def ours_agentrun4(call: Call) -> dict[str, str]:
    """What our signer signs and adds, as it goes over the wire."""
    added = Signer(call.key, call.region).fields(
        call.request, call.time.timestamp(), sign_content_type=call.sign_content_type
    )
    return {
        name: value
        for name, value in once([*call.request.fields(), *added]).items()
        if name in ("host", "agentrun-authorization")
        or name.startswith("x-acs-")
        or (name == "content-type" and call.sign_content_type)
    }


def theirs_agentrun4(signer: ModuleType, call: Call) -> dict[str, str]:
    """The same by the SDK's one public function, which knows no further headers."""
    fields = signer.get_agentrun_signed_headers(
        url=call.request.url,
        method=call.request.method,
        region=call.region,
        content_type=call.signed_content_type,
        sign_time=call.time,
        **call.credential,
    )
    return once(fields.items())


def theirs_agentrun4_in_parts(signer: ModuleType, call: Call) -> dict[str, str]:
    """The same by that function's own steps, which take any headers, and path and query apart."""
    date, credential = call.time.strftime("%Y%m%d"), call.credential
    headers = {
        **dict(call.request.fields()),
        "x-acs-date": call.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-content-sha256": signer.UNSIGNED_PAYLOAD,
        "x-acs-security-token": credential["security_token"],
    }
    if not call.sign_content_type:
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    path, _, query = call.request.target.partition("?")
    canonical = signer._calc_canonical_request(
        call.request.method, path, dict(read_form(query)), headers, signer.UNSIGNED_PAYLOAD
    )
    signature = signer._calc_signature(
        credential["access_key_secret"],
        date,
        call.region,
        "agentrun",
        signer._calc_string_to_sign(canonical),
    )
    names = signer._get_signed_headers(headers)
    scope = signer._build_scope(date, call.region, "agentrun")
    authorization = (
        f"{signer.ALGORITHM} Credential={credential['access_key_id']}/{scope},"
        f"SignedHeaders={';'.join(names)},Signature={signature}"
    )
    sent = {name.lower(): value for name, value in headers.items()}
    return {**{name: sent[name] for name in names}, "agentrun-authorization": authorization}


def ours_acs3(call: Call) -> dict[str, str]:
    """What `sign_acs3` signs and adds, as it goes over the wire."""
    added = sign_acs3(
        call.request,
        call.key,
        action=call.action,
        version=call.version,
        nonce=call.nonce,
        now=call.time.timestamp(),
    )
    return {
        name: value
        for name, value in once([*call.request.fields(), *added]).items()
        if name in ("host", "accept", "authorization") or name.startswith("x-acs-")
    }


def theirs_acs3(module: ModuleType, call: Call) -> dict[str, str]:
    """The same by the vendor's signer, over the headers that SERVICE lists for GetAccessToken."""
    client, credential = module.Client, call.credential
    payload = client.hex_encode(client.hash(call.request.body.data, ACS3))
    headers = {
        "host": call.wire["host"],
        "accept": call.wire.get("accept"),
        "x-acs-action": call.action,
        "x-acs-version": call.version,
        "x-acs-date": call.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": call.nonce,
        "x-acs-content-sha256": payload,
    }
    if credential["security_token"] is not None:
        headers["x-acs-accesskey-id"] = credential["access_key_id"]
        headers["x-acs-security-token"] = credential["security_token"]
    path, _, query = call.request.target.partition("?")
    asked = SimpleNamespace(
        method=call.request.method,
        pathname=path,
        # It writes names as it gets them: they are given to it encoded.
        query={quote(name, safe=""): value for name, value in read_form(query)},
        headers=headers,
    )
    authorization = client.get_authorization(
        asked, ACS3, payload, credential["access_key_id"], credential["access_key_secret"]
    )
    sent = {name: value for name, value in headers.items() if value is not None}
    return {**sent, "authorization": authorization}


# --- random calls

# All that a request target may hold (RFC 9112, 3.2.1, and the delimiters that servers let pass), but for "?".
paths = st.one_of(
    awkward_text.map(lambda text: "/" + quote(text, safe="/;:@!$&'()*+,=~")),
    st.text("aZ0/;:@!$&'()*+,=.~-_%41%2Ff%C3%A9|\"[]^`{}<>\\", max_size=14).map("/".__add__),
)
plain_queries = st.lists(
    st.tuples(st.text("aB~", min_size=1, max_size=2), st.text("a0.~_-", max_size=4)).map("=".join), max_size=6
).map("&".join)
any_queries = st.one_of(plain_queries, wire_queries, loose_queries).map(wire_query)
origins = st.builds(
    Origin,
    st.sampled_from(["http", "https"]),
    st.one_of(
        st.sampled_from(
            ["123-ram.agentrun-data.cn-hangzhou.aliyuncs.com", "127.0.0.1", "[::1]", "[2001:db8::a]"]
        ),
        st.lists(st.text("abz09-_", min_size=1, max_size=6), min_size=1, max_size=3).map(".".join),
    ),
    st.sampled_from([80, 443, 8077, 1, 65535]),
)
# The SDK signs the method in upper case; methods are case-sensitive (RFC 9110, 9.1) and go out as given.
methods = st.one_of(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
    st.text("AZ09!#$%&'*+-.^_`|~", min_size=1, max_size=6),
)
# Both sign a value's UTF-8, but over the wire go the bytes of Latin-1, which ours signs.
ascii_values = st.text('aZ09 \t"\\;,=!~', max_size=12)
acs_names = st.one_of(
    st.sampled_from(["x-acs-", "X-Acs-Meta", "x-acs-trace", "X-ACS-SIGNATURE-NONCE"]),
    st.text("aZ09-_.!|~", min_size=1, max_size=5).map("x-Acs-".__add__),
)
acs_headers = st.lists(st.tuples(acs_names, ascii_values), max_size=4, unique_by=lambda line: line[0].lower())
# Signed by nobody, whatever they look like.
other_headers = st.lists(
    st.tuples(
        st.sampled_from(["X-Other", "X-Acsx", "Agentrun-Api", "Cookie"]),
        st.one_of(header_values, st.just("x-acs-date: 1")),
    ),
    max_size=2,
    unique_by=lambda line: line[0],
)
media_types = st.one_of(st.just("text/plain; charset=utf-8"), ascii_values.map("a/{}b".format))
content_types = st.one_of(st.just([]), media_types.map(lambda value: [("content-Type", value)]))
accepts = st.one_of(st.just([]), ascii_values.map(lambda value: [("aCCept", value)]))
bodies = st.tuples(st.binary(max_size=20), st.one_of(st.none(), media_types)).map(
    lambda drawn: Body(segments=(drawn[0],), length=len(drawn[0]), content_type=drawn[1])
)
printable = st.text("".join(map(chr, range(0x20, 0x7F))), max_size=20).map("s{}k".format)
keys = st.builds(
    AccessKey,
    access_key_id=st.text('aZ09-._!"+=:@~', min_size=1, max_size=8),
    access_key_secret=printable.map(Secret),
    security_token=st.one_of(st.none(), st.just(Secret("")), printable.map(Secret)),
)
# From 2242 on, a float's step is longer than a microsecond. The SDK writes the hour of any other zone as UTC.
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone.utc))
words = st.text("aZ09-._", min_size=1, max_size=12)


def calls(
    *,
    method: st.SearchStrategy[str] = methods,
    path: st.SearchStrategy[str] = paths,
    query: st.SearchStrategy[str] = any_queries,
    headers: tuple[st.SearchStrategy[list[tuple[str, str]]], ...],
) -> st.SearchStrategy[Call]:
    requests = st.builds(
        Request,
        method=method,
        origin=origins,
        target=st.tuples(path, query).map(lambda parts: "?".join(filter(None, parts))),
        headers=st.tuples(other_headers, *headers).map(lambda lists: Headers(chain(*lists))),
        body=bodies,
    )
    return st.builds(
        Call,
        request=requests,
        key=keys,
        time=times,
        region=words,
        sign_content_type=st.booleans(),
        action=words,
        version=words,
        nonce=words,
    )


# --- they agree


@PROPERTY
@given(
    call=calls(
        # The SDK takes the URL apart with urlparse, which cuts ";" and what follows off the last segment, ...
        path=paths.filter(lambda path: ";" not in path.rpartition("/")[2]),
        # ... and skips a name without "="; ours always sends one with it.
        query=any_queries.map(normalise_query),
        headers=(content_types,),
    )
)
def test_agentrun4_equals_the_published_signer(agentrun4, call):
    theirs = theirs_agentrun4(agentrun4, call)
    assert ours_agentrun4(call) == theirs
    assert theirs_agentrun4_in_parts(agentrun4, call) == theirs, "the steps below are those of the SDK"


@PROPERTY
@given(call=calls(headers=(content_types, acs_headers)))
def test_agentrun4_equals_the_published_signers_steps_with_further_headers(agentrun4, call):
    assert ours_agentrun4(call) == theirs_agentrun4_in_parts(agentrun4, call)


def same_order_encoded(query: str) -> bool:
    names = {name for name, _ in read_form(query)}
    return sorted(names) == sorted(names, key=lambda name: quote(name, safe=""))


@PROPERTY
@given(
    call=calls(
        method=st.one_of(methods, st.sampled_from(["get", "Post"])),
        # It sorts names as it writes them: encoded. Ours sorts them decoded, as the AGENTRUN4 signer does.
        query=any_queries.filter(same_order_encoded),
        headers=(accepts,),
    )
)
def test_acs3_equals_the_published_signer(acs3, call):
    assert ours_acs3(call) == theirs_acs3(acs3, call)


# --- they can disagree: one thing is changed for ours alone

BASE = Call(
    request=Request(
        method="POST",
        origin=Origin("https", "123-ram.agentrun-data.cn-hangzhou.aliyuncs.com", 443),
        target="/2025-09-10/agents/a%20b?b=1+1&a=%C3%A9",
        headers=Headers({"Content-Type": "text/plain", "Accept": "application/json"}),
        body=Body(segments=(b"x",), length=1),
    ),
    key=AccessKey(access_key_id="id", access_key_secret=Secret("secret"), security_token=Secret("sts")),
    time=datetime(2026, 3, 6, 12, tzinfo=timezone.utc),
    sign_content_type=True,
)


def changed(**fields: Any) -> Call:
    return replace(BASE, request=replace(BASE.request, **fields))


def with_header(name: str, value: str) -> Call:
    return changed(headers=BASE.request.headers.merged({name: value}))


BOTH = {
    "method": changed(method="PUT"),
    "path": changed(target=BASE.request.target.replace("%20", "%21")),
    "path, encoded otherwise": changed(target=BASE.request.target.replace("a%20b", "%61%20b")),
    "query name": changed(target=BASE.request.target.replace("?b", "?c")),
    "query value": changed(target=BASE.request.target.replace("1+1", "1%2B1")),
    "query pair": changed(target=BASE.request.target + "&c="),
    "host": changed(origin=replace(BASE.request.origin, host="h")),
    "port": changed(origin=replace(BASE.request.origin, port=8443)),
    "time": replace(BASE, time=BASE.time.replace(second=1)),
    "secret": replace(BASE, key=replace(BASE.key, access_key_secret=Secret("Secret"))),
    "security token": replace(BASE, key=replace(BASE.key, security_token=Secret("Sts"))),
    "no security token": replace(BASE, key=replace(BASE.key, security_token=None)),
}
AGENTRUN4_ALONE = {
    "region": replace(BASE, region="cn-beijing"),
    "content type": with_header("Content-Type", "text/html"),
    "content type not signed": replace(BASE, sign_content_type=False),
    "further header": with_header("x-acs-meta", "1"),
}
ACS3_ALONE = {
    "body": changed(body=Body(segments=(b"y",), length=1)),
    "accept": with_header("Accept", "*/*"),
    "action": replace(BASE, action="GetAccessTokens"),
    "version": replace(BASE, version="2025-09-11"),
    "nonce": replace(BASE, nonce="0"),
}


def signature(fields: dict[str, str], name: str) -> str:
    value, _, found = fields[name].rpartition("Signature=")
    assert value
    return found


@pytest.mark.parametrize("what", [*BOTH, *AGENTRUN4_ALONE])
def test_agentrun4_of_another_request_does_not_agree(agentrun4, what):
    other = {**BOTH, **AGENTRUN4_ALONE}[what]
    for theirs in (theirs_agentrun4(agentrun4, BASE), theirs_agentrun4_in_parts(agentrun4, BASE)):
        assert ours_agentrun4(BASE) == theirs
        name = "agentrun-authorization"
        assert signature(ours_agentrun4(other), name) != signature(theirs, name)


@pytest.mark.parametrize("what", [*BOTH, *ACS3_ALONE])
def test_acs3_of_another_request_does_not_agree(acs3, what):
    theirs = theirs_acs3(acs3, BASE)
    assert ours_acs3(BASE) == theirs
    other = ours_acs3({**BOTH, **ACS3_ALONE}[what])
    assert signature(other, "authorization") != signature(theirs, "authorization")


# --- where they differ: each of these keeps a strategy narrow


@pytest.mark.parametrize("target", ["/a/b;c", "/a?flag", "/a?b=&c&d=1"])
def test_the_sdk_signs_another_target_than_it_was_given(agentrun4, target):
    call = changed(target=target)
    assert ours_agentrun4(call) == theirs_agentrun4_in_parts(agentrun4, call)
    assert ours_agentrun4(call) != theirs_agentrun4(agentrun4, call)


@pytest.mark.parametrize(
    "call", [changed(method="post"), with_header("x-acs-meta", "caf\xe9")], ids=["lower case", "Latin-1"]
)
def test_the_sdk_signs_another_method_and_other_bytes_than_are_sent(agentrun4, call):
    assert ours_agentrun4(call) != theirs_agentrun4_in_parts(agentrun4, call)


def test_the_sdk_takes_every_zone_for_utc(agentrun4):
    there = replace(BASE, time=BASE.time.astimezone(timezone.max))
    assert ours_agentrun4(there) == ours_agentrun4(BASE)
    assert ours_agentrun4(there) != theirs_agentrun4(agentrun4, there)


def test_the_acs3_signer_writes_names_as_they_are_and_sorts_what_it_writes(acs3):
    assert acs3.get_canonical_query_string({"é": "é"}) == "é=%C3%A9"
    call = changed(target="/a?~=1&%C3%A9=2")
    assert ours_acs3(call) != theirs_acs3(acs3, call)


def test_the_acs3_signer_signs_other_bytes_than_are_sent(acs3):
    call = with_header("Accept", "caf\xe9")
    assert ours_acs3(call) != theirs_acs3(acs3, call)

"""The access token of a resource: the request for it, what an answer is worth, what becomes of a refusal.

Rules of this file: the request is checked as the control plane would, by the emulator's reading of ACS3,
which shares no code with the signer, and against the vectors of the published one.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import fields
from datetime import datetime
from typing import Any

import pytest

from agentrun_proto import (
    AccessKey,
    AccessToken,
    AgentRunClientError,
    AuthenticationError,
    Config,
    ConnectError,
    CredentialError,
    DataEndpoint,
    Head,
    Headers,
    IncompleteError,
    Provide,
    RandomBytes,
    ReadAll,
    Refresh,
    Request,
    Resource,
    Retry,
    Secret,
    Send,
)
from agentrun_proto.codings import accept_encoding
from agentrun_transports.emulator.messages import Request as Received
from agentrun_transports.emulator.verify import Account, verify_acs3
from proto_strategies import NOON, ByHand, FakeClock, load

MARK = "hunter2"
KEY = {"access_key_id": "LTAI5t", "access_key_secret": MARK}
TEMPORARY = {**KEY, "security_token": f"{MARK}-sts"}
KINDS = ["runtime", "litellm", "tool", "template", "sandbox", "knowledgebase"]
NONCE = bytes(range(16))


def known(secret: str, security_token: str | None = None) -> dict[str, Account]:
    """The accounts of a control plane that knows this key."""
    account = Account(access_key_id="LTAI5t", access_key_secret=secret, security_token=security_token)
    return {"LTAI5t": account}


def endpoint(resource: Resource | None = None, *, provider: Any = None, **config: Any) -> DataEndpoint:
    key = {} if provider is not None else KEY
    return DataEndpoint(
        Config(**{"account_id": "1", **key, **config}),
        credentials=provider,
        resource=resource or Resource(type="runtime", name="r1"),
    )


def a_call(at: DataEndpoint, method: str = "GET", clock: FakeClock | None = None, **request: Any) -> ByHand:
    return ByHand(at.call(at.request(method, "x", **request), clock=clock or FakeClock()))


def fetching(step: ByHand, nonce: bytes = NONCE) -> ByHand:
    """The flow that a call has begun to fetch its token, up to its first request."""
    assert type(step.command) is Refresh
    flow = ByHand(step.command.flow())
    return with_nonce(flow, nonce)


def with_nonce(flow: ByHand, nonce: bytes = NONCE) -> ByHand:
    if type(flow.command) is Provide:
        flow.answer(flow.command.provider())
    assert type(flow.command) is RandomBytes
    assert flow.command.size == 16
    flow.answer(nonce)
    assert type(flow.command) is Send
    return flow


def answered(flow: ByHand, content: bytes, status: int = 200, **headers: str) -> ByHand:
    flow.answer(Head(status=status, headers=Headers(headers)))
    assert type(flow.command) is ReadAll
    return flow.answer(content)


def envelope(token: Any = "the-token", **more: Any) -> bytes:
    return json.dumps({"code": "SUCCESS", "requestId": "r", "data": {"accessToken": token}, **more}).encode()


def fetched(step: ByHand, token: str = "the-token") -> ByHand:
    """Fetches the token, and hands it to the call."""
    return step.answer(answered(fetching(step), envelope(token)).result)


def sent_token(step: ByHand) -> str:
    assert type(step.command) is Send
    signature = dict(step.command.request.signature)
    assert signature.keys() == {"Agentrun-Access-Token"}
    return signature["Agentrun-Access-Token"]


def verified(request: Request, accounts: dict[str, Account] | None = None) -> str:
    """The nonce of a request that the control plane would accept."""
    received = Received(method=request.method, target=request.target, headers=tuple(request.fields()))
    account, nonce = verify_acs3(
        received,
        request.body.data or b"",
        accounts or known(MARK),
        action="GetAccessToken",
        version="2025-09-10",
        now=NOON,
    )
    assert account.access_key_id == "LTAI5t"
    return nonce


# --- the request


@pytest.mark.parametrize("kind", KINDS)
def test_the_request_for_a_token_is_exact(kind):
    request = fetching(a_call(endpoint(Resource(type=kind, name="n1")))).command.request
    named = "resourceId" if kind == "sandbox" else "resourceName"
    assert request.method == "GET"
    assert request.url == (
        "https://agentrun.cn-hangzhou.aliyuncs.com/2025-09-10/agents/accessToken"
        f"?{named}=n1&resourceType={kind}"
    )
    assert request.body.data == b""
    assert dict(request.headers) == {
        "user-agent": "agentrun-proto/0.1.0",
        "accept": "application/json",
        "accept-encoding": accept_encoding(),
    }
    assert verified(request) == NONCE.hex()


@pytest.mark.parametrize("name", ["a b", "é~/", "a&b=c", "a+b", "%41", "a/../b", "#", "中"])
def test_a_name_is_encoded_and_the_signature_agrees(name):
    request = fetching(a_call(endpoint(Resource(type="tool", name=name)))).command.request
    verified(request)
    received = Received(method="GET", target=request.target)
    assert received.query() == {"resourceName": name, "resourceType": "tool"}


@pytest.mark.parametrize("case", load("acs3_vectors.json")["cases"], ids=lambda case: case["canonical_query"])
def test_it_equals_what_the_published_signer_computes(case):
    signed = case["signed_headers"]
    region, query = signed["host"].split(".")[1], case["query"]
    kind = query["resourceType"]
    name = query["resourceId" if kind == "sandbox" else "resourceName"]
    at = endpoint(
        Resource(type=kind, name=name),
        region_id=region,
        access_key_id=case["access_key_id"],
        access_key_secret=case["access_key_secret"],
        security_token=signed.get("x-acs-security-token"),
    )
    wall = FakeClock(wall=datetime.fromisoformat(signed["x-acs-date"].replace("Z", "+00:00")).timestamp())
    flow = ByHand(a_call(at, clock=wall).command.flow())
    flow.answer(bytes.fromhex(signed["x-acs-signature-nonce"]))
    request = flow.command.request
    assert request.path == case["path"]
    assert dict(request.signature)["Authorization"] == case["authorization"]


def test_temporary_credentials_are_all_sent_and_signed():
    request = fetching(a_call(endpoint(**TEMPORARY))).command.request
    verified(request, known(MARK, f"{MARK}-sts"))
    signature = dict(request.signature)
    assert signature["x-acs-accesskey-id"] == "LTAI5t"
    assert signature["x-acs-security-token"] == f"{MARK}-sts"


@pytest.mark.parametrize(
    ("config", "url"),
    [
        (
            {"region_id": "cn-beijing"},
            "https://agentrun.cn-beijing.aliyuncs.com/2025-09-10/agents/accessToken",
        ),
        ({"protocol": "http"}, "http://agentrun.cn-hangzhou.aliyuncs.com/2025-09-10/agents/accessToken"),
        ({"control_endpoint": "http://127.0.0.1:9"}, "http://127.0.0.1:9/2025-09-10/agents/accessToken"),
        ({"control_endpoint": "https://c/base/"}, "https://c/base/2025-09-10/agents/accessToken"),
        ({"data_endpoint": "http://h", "version": "v9"}, None),
    ],
)
def test_where_it_goes(config, url):
    request = fetching(a_call(endpoint(**config))).command.request
    assert request.url.partition("?")[0] == (
        url or "https://agentrun.cn-hangzhou.aliyuncs.com/2025-09-10/agents/accessToken"
    )
    verified(request)


def test_nothing_of_the_data_plane_goes_to_the_control_plane():
    at = endpoint(data_endpoint=f"https://user:{MARK}@h", headers={"x-mine": f"{MARK}-own", "Cookie": MARK})
    request = fetching(a_call(at, headers={"x-call": MARK})).command.request
    assert not {"x-mine", "cookie", "x-call"} & {name.lower() for name, _ in request.fields()}
    assert dict(request.fields())["Authorization"].startswith("ACS3-HMAC-SHA256 ")
    assert MARK not in str(request.fields())


def test_and_nothing_of_the_control_plane_to_the_data_plane():
    step = fetched(a_call(endpoint()))
    request = step.command.request
    assert request.origin.host == "1.agentrun-data.cn-hangzhou.aliyuncs.com"
    assert sent_token(step) == "the-token"
    assert MARK not in str(request.fields())


def test_each_attempt_has_a_nonce_and_a_date_of_its_own():
    clock = FakeClock()
    flow = ByHand(a_call(endpoint(), clock=clock).command.flow())
    seen = []
    for number in range(3):
        with_nonce(flow, bytes([number]) * 16)
        signature = dict(flow.command.request.signature)
        seen.append((signature["x-acs-signature-nonce"], signature["x-acs-date"], signature["Authorization"]))
        if number < 2:
            flow.fail(ConnectError("x"))
            assert flow.command.size == 6, "the chance of a pause, and no nonce"
            clock.wall += 10
            flow.answer(bytes(6))
    assert [nonce for nonce, _, _ in seen] == ["00" * 16, "01" * 16, "02" * 16]
    assert [date[-9:] for _, date, _ in seen] == ["12:00:00Z", "12:00:10Z", "12:00:20Z"]
    assert len({authorization for _, _, authorization in seen}) == 3


# --- the answer


def test_a_token_is_kept_for_all_calls_and_has_no_expiry():
    at, clock = endpoint(), FakeClock()
    assert sent_token(fetched(a_call(at, clock=clock))) == "the-token"
    clock.wall += 1e7
    for same in (at, at.overlaid(Config(timeout=5))):
        assert sent_token(a_call(same, clock=clock)) == "the-token"
    assert type(a_call(endpoint()).command) is Refresh, "another endpoint has another resource"


NO_TOKEN = [
    b"",
    b"{}",
    b'{"data": null}',
    b'{"data": "the-token"}',
    b'{"data": ["hunter2"]}',
    b'{"accessToken": "hunter2"}',
    b'{"data": {"token": "hunter2"}}',
    envelope(None),
    envelope(""),
    envelope(5),
    envelope(["hunter2"]),
    envelope("hunter2\r\nEvil: 1"),
    envelope(" hunter2"),
    envelope("hunter2é"),
]
NO_ANSWER = [b"<html>hunter2", b"[]", b"null", b'{"data":', b"\xff"]


@pytest.mark.parametrize("content", NO_TOKEN)
def test_an_answer_without_a_token_is_a_credential_error(content):
    flow = fetching(a_call(endpoint()))
    with pytest.raises(CredentialError, match="no access token") as caught:
        answered(flow, content)
    assert caught.value.status_code == 200
    assert not caught.value.may_be_processed
    assert MARK not in str(caught.value)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    ours = shown.partition("src/agentrun_proto/tokens.py")[2]
    assert ours
    assert MARK not in ours, "nor is it in a variable that a traceback shows"


@pytest.mark.parametrize("content", NO_ANSWER)
def test_an_answer_that_is_none_is_a_credential_error_too(content):
    flow = fetching(a_call(endpoint()))
    with pytest.raises(CredentialError, match="no access token for the runtime 'r1'") as caught:
        answered(flow, content, **{"x-acs-request-id": "r-1"})
    assert (caught.value.status_code, caught.value.request_id) == (200, "r-1")
    assert caught.value.__cause__ is None, "it would hold the answer, and there may be a token in that"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 500, 503])
def test_a_refusal_is_a_credential_error_with_all_that_was_told(status):
    flow = fetching(a_call(endpoint(retry=Retry.never())))
    content = b'{"code": "E", "requestId": "r-1", "message": "not for you"}'
    with pytest.raises(CredentialError) as caught:
        answered(flow, content, status)
    error = caught.value
    assert (error.status_code, error.error_code, error.request_id) == (status, "E", "r-1")
    assert error.message == "no access token for the runtime 'r1': not for you"
    assert isinstance(error.__cause__, AgentRunClientError)
    assert error.__cause__.status_code == status
    assert not error.may_be_processed
    assert len(error.__cause__.attempts) == 1 or status == 302


@pytest.mark.parametrize("failure", [ConnectError("x"), IncompleteError("x")], ids=["connect", "cut"])
def test_no_answer_is_a_credential_error_after_all_attempts(failure):
    flow = fetching(a_call(endpoint()))
    for _ in range(2):
        flow.fail(type(failure)("x")).answer(bytes(6))
        with_nonce(flow)
    with pytest.raises(CredentialError) as caught:
        flow.fail(failure)
    assert caught.value.__cause__ is failure
    assert len(failure.attempts) == 3
    assert caught.value.status_code == 0
    assert not caught.value.may_be_processed, "the data plane has seen nothing"


def test_what_failed_is_not_kept():
    at = endpoint(retry=Retry.never())
    with pytest.raises(CredentialError):
        answered(fetching(a_call(at)), b"", 500)
    assert at.identity.credential is None
    assert sent_token(fetched(a_call(at))) == "the-token"


# --- a token that is refused


@pytest.mark.parametrize(("status", "code"), [(401, None), (403, "ERR_TOKEN_EXPIRED")])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_token_is_fetched_again_once(method, status, code):
    at = endpoint()
    refusal = json.dumps({"code": code}).encode()
    step = fetched(a_call(at, method), "t1")
    step = fetched(answered(step, refusal, status), "t2")
    assert sent_token(step) == "t2"
    with pytest.raises(AgentRunClientError) as caught:
        answered(step, refusal, status)
    assert caught.value.status_code == status
    assert len(caught.value.attempts) == 2
    assert sent_token(fetched(a_call(at), "t3")) == "t3"


def test_a_token_that_is_fetched_again_and_is_the_same_is_not_tried_again():
    step = fetched(a_call(endpoint()), "t1")
    answered(step, b"", 401)
    with pytest.raises(AuthenticationError):
        fetched(step, "t1")


# --- whose access key it is


def test_a_provider_gives_the_access_key_that_pays_for_the_token():
    keys = [f"{MARK}-1", f"{MARK}-2"]

    def provider() -> AccessKey:
        return AccessKey(access_key_id="LTAI5t", access_key_secret=Secret(keys.pop(0)))

    def provide(asked: ByHand) -> None:
        inner = ByHand(asked.command.flow())
        assert type(inner.command) is Provide
        asked.answer(inner.answer(inner.command.provider()).result)

    step = a_call(endpoint(provider=provider))
    flow = ByHand(step.command.flow())
    provide(flow)
    verified(with_nonce(flow).command.request, known(f"{MARK}-1"))
    answered(flow, b"", 401)
    provide(flow)
    verified(with_nonce(flow).command.request, known(f"{MARK}-2"))
    step.answer(answered(flow, envelope()).result)
    assert sent_token(step) == "the-token"
    assert keys == []


@pytest.mark.parametrize("credential", [None, AccessToken(token=Secret(MARK))], ids=["none", "a token"])
def test_a_token_is_not_to_be_had_without_an_access_key(credential):
    at = endpoint(access_key_id=None, access_key_secret=None) if credential is None else None
    if at is None:
        at = endpoint(provider=lambda: credential)
    flow = ByHand(a_call(at).command.flow())
    with pytest.raises(CredentialError, match="access_key_id") as caught:
        if type(flow.command) is Refresh:
            flow.answer(credential)
        flow.answer(NONCE)
    assert MARK not in str(caught.value)
    assert "no access token for" not in str(caught.value), "the control plane was not asked"


def test_a_token_in_the_config_wins():
    step = a_call(endpoint(token="given"))
    assert sent_token(step) == "given"
    assert sent_token(a_call(endpoint().overlaid(Config(token="given")))) == "given"


def test_the_clock_of_the_control_plane_is_learned_from_it():
    clock = FakeClock()
    flow = fetching(a_call(endpoint(), clock=clock))
    answered(flow, b"", 403, Date="Fri, 06 Mar 2026 13:00:00 GMT")
    with_nonce(flow)
    assert dict(flow.command.request.signature)["x-acs-date"] == "2026-03-06T13:00:00Z"


def test_a_redirect_of_the_control_plane_takes_the_signature_nowhere_else():
    flow = fetching(a_call(endpoint(trusted_origins=["https://elsewhere"], headers={"x-mine": MARK})))
    answered(flow, b"", 307, Location="/moved?x=1")
    with_nonce(flow)
    assert flow.command.request.target == "/moved?x=1"
    verified(flow.command.request)
    answered(flow, b"", 307, Location="https://elsewhere/x")
    request = flow.command.request
    assert request.url == "https://elsewhere/x"
    assert request.signature == ()
    assert {name.lower() for name, _ in request.fields()} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
    }


# --- Resource


@pytest.mark.parametrize("kind", KINDS)
def test_what_names_a_resource(kind):
    named = "resourceId" if kind == "sandbox" else "resourceName"
    assert Resource(type=kind, name="n").query == {named: "n", "resourceType": kind}
    assert [field.name for field in fields(Resource)] == ["type", "name"]
    for broken in ({"type": "", "name": "n"}, {"type": kind, "name": ""}):
        with pytest.raises(ValueError, match="type and a name"):
            Resource(**broken)

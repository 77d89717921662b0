"""Super agents, by hand: what is asked, what is made of the answer, and what goes where it points."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import Any

import pytest

from agentrun_proto import (
    AccessKey,
    AgentRunClientError,
    Config,
    DataEndpoint,
    DecodeError,
    Head,
    Headers,
    Invocation,
    NotFoundError,
    Retry,
    Send,
)
from agentrun_proto.super_agents import NAMESPACE, invocation_body
from proto_strategies import ByHand, FakeClock

MESSAGES = [{"role": "user", "content": "hi"}]
SESSION = "X-Super-Agent-Session-Id"
GOOD: dict[str, Any] = {
    "conversationId": "c",
    "url": "https://elsewhere/s?t=1",
    "headers": {SESSION: "S3CRET"},
}


def an_endpoint(**config: Any) -> DataEndpoint:
    settings = {
        "data_endpoint": "https://home",
        "access_key_id": "id",
        "access_key_secret": "secret",
        "headers": {"X-Mine": "1"},
        "retry": Retry.never(),
        **config,
    }
    return DataEndpoint(Config(**settings))


def invoked(answer: object, status: int = 200, **config: Any) -> Invocation:
    endpoint = an_endpoint(**config).sibling(NAMESPACE)
    request = endpoint.request("POST", "invoke", data=invocation_body("n", MESSAGES))
    flow = ByHand(endpoint.invoke_super_agent(request, clock=FakeClock()))
    assert isinstance(flow.command, Send)
    assert flow.command.request.target == "/2025-09-10/super-agents/__SUPER_AGENT__/invoke"
    flow.answer(Head(status=status, headers=Headers({"x-acs-request-id": "r-1"})))
    found = flow.answer(json.dumps(answer).encode()).result
    assert isinstance(found, Invocation)
    return found


def test_what_is_asked():
    assert invocation_body("n", MESSAGES, "c", {"prompt": "p"}) == {
        "messages": MESSAGES,
        "forwardedProps": {"prompt": "p", "metadata": {"agentRuntimeName": "n"}, "conversationId": "c"},
    }
    assert "conversationId" not in invocation_body("n", MESSAGES)["forwardedProps"]


@pytest.mark.parametrize("name", ["metadata", "conversationId"])
def test_what_is_decided_elsewhere_is_no_option(name):
    with pytest.raises(ValueError, match="conversation_id"):
        invocation_body("n", MESSAGES, options={name: "x"})


def test_what_the_answer_says():
    found = invoked({"data": GOOD})
    assert (found.conversation_id, found.url) == ("c", "https://elsewhere/s?t=1")
    assert found.headers[SESSION] == "S3CRET"


def test_a_url_is_relative_to_the_request():
    assert invoked({"data": {**GOOD, "url": "/s"}}).url == "https://home/s"


def test_headers_may_be_left_out():
    assert dict(invoked({"data": {"conversationId": "c", "url": "https://h/"}}).headers) == {}
    assert Invocation(conversation_id="c", url="https://h/").headers == Headers()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "conversationId"),
        ([], "conversationId"),
        ({**GOOD, "conversationId": ""}, "conversationId"),
        ({**GOOD, "conversationId": 7}, "conversationId"),
        ({**GOOD, "url": None}, "no url"),
        ({**GOOD, "url": ""}, "no url"),
        ({**GOOD, "url": 7}, "no url"),
        ({**GOOD, "url": "file:///etc/passwd"}, "are none"),
        ({**GOOD, "url": "https://h/\r\nX: S3CRET"}, "are none"),
        ({**GOOD, "url": "https://h:99999/S3CRET"}, "are none"),
        ({**GOOD, "url": "http://elsewhere/S3CRET"}, "from https to http"),
        ({**GOOD, "headers": ["S3CRET"]}, "are none"),
        ({**GOOD, "headers": "S3CRET"}, "are none"),
        ({**GOOD, "headers": {SESSION: 7}}, "are none"),
        ({**GOOD, "headers": {SESSION: "S3CRET\r\nX: 1"}}, "are none"),
    ],
)
def test_an_answer_that_leads_nowhere(data, said):
    with pytest.raises(DecodeError, match=said) as caught:
        invoked({"requestId": "r-2", "data": data})
    error = caught.value
    assert (error.status_code, error.request_id, error.response_body) == (200, "r-2", None)
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    ours = shown.partition("src/agentrun_proto/super_agents.py")[2]
    assert "S3CRET" not in f"{error!r} {error} {vars(error)}"
    assert ours
    assert "S3CRET" not in ours


def test_http_is_followed_where_it_is_listed_or_was_spoken():
    plain = {"data": {**GOOD, "url": "http://elsewhere/s"}}
    assert invoked(plain, trusted_origins=["http://elsewhere"]).url == "http://elsewhere/s"
    assert invoked(plain, data_endpoint="http://home").url == "http://elsewhere/s"


def test_a_refusal_is_one():
    with pytest.raises(NotFoundError):
        invoked({"code": "NoSuchAgent"}, status=404)


def test_nothing_shows_what_opens_the_stream():
    found = invoked({"data": GOOD})
    assert "S3CRET" not in f"{found!r} {found} {found.headers!r}"
    assert "elsewhere" not in repr(found), "a URL may hold a secret too"
    named = Invocation(conversation_id="c", url="https://h/", headers=Headers({"X-Of-Their-Own": "S3CRET"}))
    assert "S3CRET" not in repr(named), "nor does anybody know what their headers are called"
    assert b"S3CRET" not in pickle.dumps(found)
    assert pickle.loads(pickle.dumps(found)).url == found.url


def sent(request: Any, endpoint: DataEndpoint) -> dict[str, str]:
    """What the first attempt of a stream sends."""
    flow = ByHand(endpoint.stream(request, clock=FakeClock()))
    assert isinstance(flow.command, Send)
    return {name.lower(): value for name, value in flow.command.request.fields()}


@pytest.mark.hostile("calling-foreign-urls")
def test_a_stream_elsewhere_gets_what_the_answer_names_and_no_more():
    endpoint = an_endpoint()
    request = endpoint.linked_request(
        "https://elsewhere/s?t=1", {SESSION: "S", "Accept": "text/event-stream"}
    )
    assert sent(request, endpoint) == {
        "host": "elsewhere",
        "user-agent": endpoint.request("GET", "r").headers["user-agent"],
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        SESSION.lower(): "S",
    }
    assert pickle.loads(pickle.dumps(request)).anonymous


@pytest.mark.hostile("calling-foreign-urls")
@pytest.mark.parametrize("how", ["its own", "listed"])
def test_a_stream_at_home_is_signed(how):
    listed = ["https://elsewhere"] if how == "listed" else []
    endpoint = an_endpoint(trusted_origins=listed)
    url = "https://elsewhere/s" if how == "listed" else f"{endpoint.origin}/s"
    stale = {SESSION: "S", "x-acs-date": "stale", "Agentrun-Authorization": "stale"}
    fields = sent(endpoint.linked_request(url, stale), endpoint)
    assert fields["agentrun-authorization"].startswith("AGENTRUN4-HMAC-SHA256 ")
    assert (fields["x-mine"], fields[SESSION.lower()]) == ("1", "S")
    assert "stale" not in fields.values()


def test_a_hook_is_not_asked_for_another_origin():
    def hook(*arguments: Any) -> Any:
        raise AssertionError("the credential is asked for")

    endpoint = DataEndpoint(Config(data_endpoint="https://home"), auth=hook)
    assert "agentrun-authorization" not in sent(endpoint.linked_request("https://elsewhere/s"), endpoint)


def test_no_credential_is_obtained_for_another_origin():
    def provider() -> AccessKey:
        raise AssertionError("the credential is asked for")

    endpoint = DataEndpoint(Config(data_endpoint="https://home"), credentials=provider)
    assert "x-acs-date" not in sent(endpoint.linked_request("https://elsewhere/s"), endpoint)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/other", {"elsewhere": True}),
        ("https://third/", {"third": False}),
        ("https://home/", {"home": False}),
    ],
)
def test_a_redirect_from_elsewhere_never_gains_a_credential(location, expected):
    endpoint = an_endpoint()
    flow = ByHand(
        endpoint.stream(endpoint.linked_request("https://elsewhere/s", {SESSION: "S"}), clock=FakeClock())
    )
    flow.answer(Head(status=302, headers=Headers({"Location": location}))).answer(b"")
    assert isinstance(flow.command, Send)
    request = flow.command.request
    names = {name.lower() for name, _ in request.fields()}
    assert {request.origin.host: SESSION.lower() in names} == expected
    assert names.isdisjoint({"agentrun-authorization", "x-acs-date", "x-mine"})


@pytest.mark.parametrize("url", ["elsewhere/s", "file:///s", "https://h/#f", "https://h/\n"])
def test_a_url_that_is_none(url):
    with pytest.raises(ValueError, match=r"\S"):
        an_endpoint().linked_request(url)


@pytest.mark.parametrize("url", ["https://elsewhere/", "https://home/"])
@pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding"])
def test_a_header_that_the_transport_decides(url, name):
    with pytest.raises(ValueError, match="transport"):
        an_endpoint().linked_request(url, {name: "1"})


def test_a_refusal_of_the_stream():
    endpoint = an_endpoint()
    flow = ByHand(endpoint.stream(endpoint.linked_request("https://elsewhere/s"), clock=FakeClock()))
    with pytest.raises(AgentRunClientError) as caught:
        flow.answer(Head(status=403)).answer(b"{}")
    assert caught.value.status_code == 403

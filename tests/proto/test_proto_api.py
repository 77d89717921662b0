"""DataEndpoint: what it refuses, what wins, what a hook may do, and that nothing passed in is changed."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentrun_proto
from agentrun_proto import (
    AccessKey,
    AccessToken,
    Config,
    CredentialError,
    DataEndpoint,
    FilePart,
    Head,
    NotFoundError,
    Secret,
    Send,
    merge_query,
)
from agentrun_proto.codings import accept_encoding
from proto_strategies import NOON, PROPERTY, FakeClock, FakeSource, queries, received_signature

KEYED = Config(data_endpoint="http://h:8077/base", access_key_id="i", access_key_secret="s")


# --- headers


def test_the_default_fields_and_who_wins_over_them():
    plain = DataEndpoint(Config(account_id="1")).request("GET", "x").headers
    assert dict(plain) == {
        "user-agent": f"agentrun-proto/{agentrun_proto.__version__}",
        "accept": "application/json",
        "accept-encoding": accept_encoding(),
    }
    at = DataEndpoint(Config(account_id="1", headers={"USER-AGENT": "mine", "x-a": "1"}))
    headers = at.request("GET", "x", headers={"X-A": "2", "x-b": "3"}).headers
    assert dict(headers) == {**plain, "user-agent": "mine", "x-a": "2", "x-b": "3"}
    assert at.request("GET", "x").headers["x-a"] == "1", "headers of one call stay with that call"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Keep-Alive",
        "HOST",
    ],
)
def test_what_the_transport_decides_is_refused(name):
    at = DataEndpoint(Config(account_id="1"))
    with pytest.raises(ValueError, match=f"{name.lower()} is decided by the transport"):
        at.request("GET", "x", headers={name: "x"})
    with pytest.raises(ValueError, match="transport"):
        at.file_request("x", headers={name: "x"})
    with pytest.raises(ValueError, match="transport"):
        at.form_request("x", fields=None, files=[], boundary="b", headers={name: "x"})
    with pytest.raises(ValueError, match="transport"):
        DataEndpoint(Config(account_id="1", headers={name: "x"}))


def test_user_info_of_the_endpoint_becomes_basic_authorization_and_leaves_the_wire_url():
    at = DataEndpoint(Config(data_endpoint="http://us%40er:p%3Aw@h:8077"))
    request = at.request("GET", "x")
    assert request.headers["authorization"] == "Basic dXNAZXI6cDp3"
    assert request.url == "http://h:8077/2025-09-10/agents/x"
    assert dict(request.fields())["Host"] == "h:8077"
    mine = at.request("GET", "x", headers={"authorization": "Bearer x"})
    assert mine.headers.get_all("authorization") == ["Bearer x"]
    assert "authorization" in at.file_request("x").headers


# --- nothing passed in is changed; nothing is shared by accident


@pytest.mark.hostile("files-callers-values")
@PROPERTY
@given(query=queries, data=st.dictionaries(st.text("ab é", max_size=3), st.integers()))
def test_law_what_is_passed_in_is_not_changed(query, data):
    at, headers = DataEndpoint(KEYED), {"X-A": "1", "content-type": "a/b"}
    before = repr((query, data, headers))
    at.sign(at.request("POST", "x?a=1", data=data, query=query, headers=headers), NOON)
    at.authorise_url("http://h:8077/x", headers, query, method="GET", now=NOON)
    at.form_request("x", fields=data, files=[], boundary="b", query=query)
    assert repr((query, data, headers)) == before


def test_an_endpoint_never_changes():
    at = DataEndpoint(KEYED, "sandboxes/sb-1")

    def state() -> dict[str, Any]:
        return {name: getattr(at, name) for name in DataEndpoint.__slots__}

    before = state()
    at.sign(at.request("POST", "x", data={"a": 1}, query={"q": 1}, headers={"x-b": "2"}), NOON)
    at.call(at.file_request("x"), clock=FakeClock()).send(None)
    with pytest.raises(ValueError):
        at.url("..")
    assert state() == before
    with pytest.raises(AttributeError):
        at.new = 1  # type: ignore[attr-defined]


def test_overlaid_leaves_the_original_alone():
    at = DataEndpoint(KEYED, "sandboxes/sb-1")
    other = at.overlaid(Config(headers={"x-a": "1"}, token="t", timeout=3))
    assert at.overlaid(None) is at
    key = AccessKey(access_key_id="another", access_key_secret=Secret("s"))
    assert at.overlaid(None, key).config.credential == key
    provided = DataEndpoint(Config(data_endpoint="http://h"), credentials=lambda: key)
    given = provided.overlaid(Config(token="given"))
    assert given.identity.credential == AccessToken(token=Secret("given")), "instead of the provider's"
    assert at.config == KEYED
    assert other.namespace == at.namespace
    assert other.url("y") == at.url("y")
    assert other.sign(other.request("GET", "y"), NOON).signature == (("Agentrun-Access-Token", "t"),)
    assert "x-a" not in at.request("GET", "y").headers
    seen: list[str] = []
    hooked = DataEndpoint(
        KEYED,
        auth=lambda url, headers, query, config, method, body: (seen.append(url) or url, headers, query),
    )
    again = hooked.overlaid(Config(headers={"x-a": "1"}))
    again.sign(again.request("GET", "y"), NOON)
    assert seen, "the hook is kept"


@pytest.mark.hostile("published-namespace")
def test_threads_share_an_endpoint_and_each_gets_its_own_sandbox():
    at = DataEndpoint(KEYED)
    found: list[tuple[str, str]] = []

    def work(name: str) -> None:
        for number in range(50):
            request = at.sign(at.request("GET", f"{name}/{number}"), NOON + number)
            found.append((f"/base/2025-09-10/agents/{name}/{number}", request.target))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 100
    assert all(expected == target for expected, target in found)


# --- the hook


def hooked(auth: Any, config: Config = KEYED) -> Any:
    at = DataEndpoint(config, auth=auth)
    return at.sign(at.request("POST", "r?x=1", data={"a": 1}, headers={"X-A": "1"}), NOON)


def test_a_hook_is_given_the_finished_request():
    given: list[Any] = []

    def auth(url, headers, query, config, method, body):
        given.append((url, dict(headers), query, config, method, body))
        return url, headers, query

    sent = hooked(auth)
    ((url, headers, query, config, method, body),) = given
    assert url == "http://h:8077/base/2025-09-10/agents/r?x=1"
    assert (query, config, method, body) == (None, KEYED, "POST", b'{"a":1}')
    assert headers["X-A"] == "1"
    assert headers["Content-Type"] == "application/json"
    assert sent.signature == (), "the hook authorises instead of the config's credential"
    assert sent.target == "/base/2025-09-10/agents/r?x=1"
    assert sorted(name.lower() for name, _ in sent.fields()) == sorted(
        {"host", "content-length", *(name.lower() for name in headers)}
    )


def test_a_hook_is_given_the_type_that_the_caller_states():
    given: list[dict[str, str]] = []

    def auth(url, headers, query, config, method, body):
        given.append(dict(headers))
        return url, headers, query

    at = DataEndpoint(KEYED, auth=auth)
    stated = {"content-type": "text/plain"}
    at.sign(at.request("POST", "r", data={"a": 1}, headers=stated), NOON)
    assert [value for name, value in given[0].items() if name.lower() == "content-type"] == ["text/plain"]


def test_what_a_hook_returns_is_what_is_sent():
    sent = hooked(
        lambda url, headers, query, config, method, body: (
            "https://other/p?y",
            {"Z": "1"},
            {"q": [1, 2], "y": None},
        )
    )
    assert sent.url == "https://other/p?y=&q=1&q=2"
    assert sent.fields() == [
        ("Host", "other"),
        ("Z", "1"),
        ("Content-Type", "application/json"),
        ("Content-Length", "7"),
    ]
    assert sent.body.data == b'{"a":1}'


@pytest.mark.parametrize(
    ("returned", "error", "complaint"),
    [
        (("http://h/\n", {}, None), ValueError, "line break"),
        (("nonsense", {}, None), ValueError, "not a URL"),
        (("http://h/#x", {}, None), ValueError, "fragment"),
        (("http://h/../x", {}, None), ValueError, "path_segment"),
        (("http://h/", {"a": "1\r\nEvil: 1"}, None), ValueError, "control character"),
        (("http://h/", {"a": 1}, None), TypeError, "header"),
        (("http://h/", {"Host": "other"}, None), ValueError, "Host"),
        (("http://h/", {"content-length": "1"}, None), ValueError, "transport"),
        (("http://h/", {"Transfer-Encoding": "chunked"}, None), ValueError, "transport"),
        (("http://h/", {}, {"a": b"x"}), TypeError, "type"),
    ],
)
def test_what_a_hook_returns_is_checked(returned, error, complaint):
    with pytest.raises(error, match=complaint) as caught:
        hooked(lambda *_: returned)
    ours = [frame for frame in caught.traceback if "src/agentrun_proto" in str(frame.path)]
    names = {name for frame in ours for name in frame.locals}
    assert names
    assert "returned" not in names, "a traceback may be shown with its locals, and they hold a credential"


def test_a_hook_may_return_the_host_that_was_signed():
    sent = hooked(
        lambda url, headers, query, config, method, body: (url, {**headers, "host": "h:8077"}, query)
    )
    assert [value for name, value in sent.fields() if name.lower() == "host"] == ["h:8077"]


def test_a_hook_is_asked_afresh_at_each_attempt():
    count = iter(range(10))
    at = DataEndpoint(
        KEYED, auth=lambda url, headers, query, config, method, body: (url, {"n": str(next(count))}, query)
    )
    request = at.request("GET", "x")
    assert [at.sign(request, NOON).headers["n"] for _ in range(3)] == ["0", "1", "2"]


def test_a_hook_does_not_get_a_body_that_would_have_to_be_read():
    bodies: list[Any] = []
    at = DataEndpoint(
        KEYED,
        auth=lambda url, headers, query, config, method, body: (bodies.append(body) or url, headers, query),
    )
    part = FilePart(name="file", filename="f", source=FakeSource())
    sent = at.sign(at.form_request("x", fields={}, files=[part], boundary="b"), NOON)
    assert bodies == [None]
    assert sent.content_type == "multipart/form-data; boundary=b"


def test_a_hook_may_build_on_our_own_authorisation():
    outer = DataEndpoint(KEYED)

    def auth(url, headers, query, config, method, body):
        url, headers = outer.authorise_url(
            url, {**headers, "x-acs-meta": "1"}, {"more": "a b"}, method=method, now=NOON
        )
        return url, headers, None

    sent = hooked(auth)
    computed, claimed, names = received_signature(
        method="POST", target=sent.target, lines=sent.fields(), secret="s"
    )
    assert computed == claimed
    assert "x-acs-meta" in names
    assert sent.target.endswith("?x=1&more=a+b")


@pytest.mark.hostile("calling-foreign-urls")
@pytest.mark.parametrize(
    "url", ["http://evil:8077/x", "https://h:8077/x", "http://h/x", "http://h:8077@evil/x"]
)
def test_a_credential_never_leaves_its_origin(url):
    with pytest.raises(ValueError, match=r"belongs to http://h:8077.*not sent"):
        DataEndpoint(KEYED).authorise_url(url, None, None, method="GET", now=NOON)
    with pytest.raises(ValueError, match="belongs to"):
        DataEndpoint(Config(data_endpoint="http://h:8077", token="t")).authorise_url(
            url, None, None, method="GET", now=NOON
        )


def test_nothing_is_authorised_before_the_credential_is_there():
    """A URL without one would be sent as nobody's."""
    later = DataEndpoint(Config(data_endpoint="http://h:8077"), credentials=lambda: None)
    with pytest.raises(CredentialError, match="make a call first"):
        later.authorise_url("http://h:8077/x", None, None, method="GET", now=NOON)


@pytest.mark.parametrize("url", ["http://h:8077/x?flag", "HTTP://H:8077/x?flag", "http://u:p@h:8077/x?flag"])
def test_an_authorised_url_is_the_wire_form_of_the_one_given(url):
    told, headers = DataEndpoint(KEYED).authorise_url(url, {"x-a": "1"}, {"q": "é"}, method="PUT", now=NOON)
    assert told == "http://h:8077/x?flag=&q=%C3%A9"
    computed, claimed, _ = received_signature(
        method="PUT", target="/x?flag=&q=%C3%A9", lines=[("Host", "h:8077"), *headers.items()], secret="s"
    )
    assert computed == claimed
    with pytest.raises(ValueError, match="credential"):
        DataEndpoint(KEYED).authorise_url(url, {"X-Acs-Date": "1"}, None, method="GET", now=NOON)


# --- the rest of the face


def test_decode_is_the_one_of_the_core():
    at = DataEndpoint(KEYED)
    assert at.decode(Head(status=200), b"{}") == {}
    with pytest.raises(NotFoundError):
        at.decode(Head(status=404), b"")


def test_a_get_carries_a_body_only_when_it_is_given_one():
    at = DataEndpoint(KEYED)
    assert "Content-Length" not in dict(at.request("GET", "x").fields())
    assert "Content-Type" not in dict(at.request("DELETE", "x").fields())
    assert dict(at.request("POST", "x").fields())["Content-Length"] == "0"
    assert dict(at.request("DELETE", "x", data=[]).fields())["Content-Length"] == "2"


def test_only_a_path_is_found_again():
    at = DataEndpoint(KEYED)
    with pytest.raises(ValueError, match="needs a path"):
        at.download(at.file_request("f"), io.BytesIO(), clock=FakeClock(), resume=True)


def test_nothing_is_signed_with_a_credential_that_is_yet_to_come():
    at = DataEndpoint(Config(data_endpoint="http://h"), credentials=lambda: None)
    with pytest.raises(CredentialError, match="no credential has been obtained yet"):
        at.authorise_url("http://h/x", None, None, method="GET", now=NOON)


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_stream_request_may_be_repeated_where_the_caller_says_so(idempotent):
    request = DataEndpoint(KEYED).stream_request("POST", "r", idempotent=idempotent)
    assert request.idempotent is idempotent


def test_a_file_request_asks_for_bytes_as_they_are_stored():
    at = DataEndpoint(Config(account_id="1", headers={"Accept-Encoding": "br", "x-a": "1"}))
    headers = at.file_request("files", query={"path": "/a b"}, headers={"Range": "bytes=5-"}).headers
    assert (headers["accept"], headers["accept-encoding"], headers["range"], headers["x-a"]) == (
        "*/*",
        "identity",
        "bytes=5-",
        "1",
    )


@pytest.mark.parametrize("namespace", ["../x", "a#b", "http://evil", "a\nb", "a/./b", "\ud800"])
def test_a_namespace_that_is_no_path_is_refused(namespace):
    with pytest.raises(ValueError):
        DataEndpoint(Config(account_id="1"), namespace)


@pytest.mark.parametrize(
    "call",
    [
        lambda at: at.request(None, "x"),
        lambda at: at.request("GET", "x", query=3),
        lambda at: at.request("GET", "x", query="a=b"),
        lambda at: at.request("GET", "x", headers=3),
        lambda at: at.request("GET", "x", headers="a: b"),
        lambda at: merge_query("/x", "a=b"),
        lambda at: DataEndpoint(Config(account_id="1"), 3),
    ],
    ids=["method", "query 3", "query text", "headers 3", "headers text", "merge_query text", "namespace"],
)
def test_arguments_of_another_type_are_type_errors(call):
    with pytest.raises(TypeError):
        call(DataEndpoint(KEYED))


def test_the_public_names_are_all_there():
    for name in agentrun_proto.__all__:
        assert getattr(agentrun_proto, name) is not None
    assert sorted(set(agentrun_proto.__all__)) == sorted(agentrun_proto.__all__)


def test_flows_of_an_endpoint_send_its_own_signature():
    at = DataEndpoint(KEYED)
    send = at.call(at.request("GET", "x"), clock=FakeClock()).send(None)
    assert isinstance(send, Send)
    computed, claimed, _ = received_signature(
        method="GET", target=send.request.target, lines=send.request.fields(), secret="s"
    )
    assert computed == claimed

"""Redirects: where one leads, how far, and that nothing that says who is calling leaves its origin.

Rules of this file: what goes out is looked at as the field lines of the request, all of them, for a mark that
every secret and every configured field carries; the table of locations was worked out by hand from RFC 3986.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentrun_proto import (
    AccessKey,
    AccessToken,
    AgentRunClientError,
    AuthenticationError,
    Body,
    Config,
    DataEndpoint,
    Head,
    Headers,
    NotFoundError,
    Origin,
    Provide,
    RedirectError,
    Refresh,
    Retry,
    Rewind,
    Secret,
    Send,
)
from proto_strategies import ByHand, FakeClock, FakeSink, FakeSource, received_signature

MARK = "hunter2"
MARKED = {"x-mine": f"{MARK}-config", "Cookie": f"session={MARK}"}
OTHERS_MAY_SEE = {"host", "user-agent", "accept", "accept-encoding", "range", "if-range"}


class ReadAgain(FakeSource):
    replayable = True


class ReadOnce(FakeSource):
    def __init__(self) -> None:
        super().__init__(replayable=False)


def endpoint(base: str = "https://h", *, key: bool = True, **config: Any) -> DataEndpoint:
    credential = {"access_key_id": "id", "access_key_secret": MARK, "security_token": f"{MARK}-sts"}
    if not key:
        credential = {"token": f"{MARK}-token"}
    return DataEndpoint(Config(data_endpoint=base, headers=MARKED, **{**credential, **config}))


def a_call(at: DataEndpoint, method: str = "GET", path: str = "a/b?c=1", **request: Any) -> ByHand:
    return ByHand(at.call(at.request(method, path, **request), clock=FakeClock()))


def redirect(location: str | None, status: int = 302) -> Head:
    return Head(status=status, headers=Headers({} if location is None else {"Location": location}))


def follow(step: ByHand, location: str | None, status: int = 302) -> ByHand:
    return step.answer(redirect(location, status)).answer(b"")


def sent(step: ByHand) -> list[tuple[str, str]]:
    assert type(step.command) is Send, step.command
    lines: list[tuple[str, str]] = step.command.request.fields()
    return lines


def is_bare(step: ByHand) -> bool:
    """Whether nothing goes out that says who is calling, or what the caller set for the service."""
    lines = sent(step)
    return {name.lower() for name, _ in lines} <= OTHERS_MAY_SEE and MARK not in str(lines)


def goes_to(step: ByHand) -> str:
    assert type(step.command) is Send
    url: str = step.command.request.url
    return url


# --- where a location leads

# From https://h/2025-09-10/agents/a/b?c=1.
LOCATIONS = [
    ("https://h/x?y=1", "https://h/x?y=1"),
    ("https://H/x", "https://h/x"),
    ("HTTPS://h/x", "https://h/x"),
    ("https://h:443/x", "https://h/x"),
    ("https://h", "https://h/"),
    ("/x", "https://h/x"),
    ("x", "https://h/2025-09-10/agents/a/x"),
    ("./x", "https://h/2025-09-10/agents/a/x"),
    ("../x", "https://h/2025-09-10/agents/x"),
    ("../../../../../../x", "https://h/x"),
    ("/../x", "https://h/x"),
    ("?d=2", "https://h/2025-09-10/agents/a/b?d=2"),
    ("#part", "https://h/2025-09-10/agents/a/b?c=1"),
    ("/x#part", "https://h/x"),
    ("https://h/x?y=1#a?b", "https://h/x?y=1"),
    ("", "https://h/2025-09-10/agents/a/b?c=1"),
    ("/x y/é", "https://h/x%20y/%C3%A9"),
    ("/x%2Fy", "https://h/x%2Fy"),
    ("/x%zz", "https://h/x%25zz"),
    ("/?flag", "https://h/?flag"),
    ("\\\\evil.example\\x", "https://h/2025-09-10/agents/a/%5C%5Cevil.example%5Cx"),
    ("/\\evil.example", "https://h/%5Cevil.example"),
    ("\x85\xa0:/", "https://h/2025-09-10/agents/a/%C2%85%C2%A0:/"),
    ("https:x", "https://h/2025-09-10/agents/a/x"),
    ("https://user:pass@h/x", "https://h/x"),
    ("evil.example", "https://h/2025-09-10/agents/a/evil.example"),
]
ELSEWHERE = [
    ("//evil.example/x", "https://evil.example/x"),
    ("///evil.example/x", "https://h/evil.example/x"),
    ("https://evil.example", "https://evil.example/"),
    ("https://h:444/x", "https://h:444/x"),
    ("https://h./x", "https://h./x"),
    ("https://h.evil.example/x", "https://h.evil.example/x"),
    ("https://h@evil.example/x", "https://evil.example/x"),
    ("https://user:pass@evil.example/x", "https://evil.example/x"),
    ("https://h\\@evil.example/x", "https://evil.example/x"),
    ("https://h:443@evil.example/x", "https://evil.example/x"),
    ("https://evil.example\t/x", "https://evil.example/x"),
    ("https://[::1]/x", "https://[::1]/x"),
    ("https://evil.example?c=2", "https://evil.example/?c=2"),
]
NOWHERE = [
    "file:///etc/passwd",
    "file:/etc/passwd",
    "javascript:alert(1)",
    "data:text/plain,x",
    "ftp://h/x",
    "gopher://h/x",
    "mailto:a@h",
    "ws://h/x",
    "wss://h/x",
    "blob:https://h/x",
    "https://h:99999/x",
    "https://h:0/x",
    "https://h:port/x",
    "https://[::1/x",
    "https://evil.example\\x",
    "https://h..evil/x",
    "https://a b/x",
    "https://%65vil.example/x",
    "https://évil.example/x",
    "/%2e%2e/x",
    "/a/%2E/x",
]


@pytest.mark.parametrize(("location", "url"), LOCATIONS)
def test_a_location_of_this_origin_is_followed_with_the_credential(location, url):
    step = follow(a_call(endpoint()), location)
    assert goes_to(step) == url
    request = step.command.request
    ours, theirs, names = received_signature(
        method="GET", target=request.target, lines=sent(step), secret=MARK
    )
    assert ours == theirs, "signed again, for what is sent now"
    assert "host" in names
    assert {name: request.headers[name] for name in MARKED} == MARKED
    assert "user" not in str(sent(step)).replace("User-Agent", "")


@pytest.mark.hostile("calling-redirects")
@pytest.mark.parametrize(("location", "url"), ELSEWHERE)
def test_a_location_elsewhere_is_followed_with_nothing(location, url):
    step = follow(a_call(endpoint()), location)
    assert goes_to(step) == url
    assert is_bare(step) is (step.command.request.origin != Origin("https", "h", 443))
    assert "pass" not in str(sent(step))


@pytest.mark.hostile("calling-redirects")
@pytest.mark.parametrize("location", NOWHERE)
def test_a_location_that_leads_nowhere_is_told(location):
    with pytest.raises(RedirectError, match="not followed") as caught:
        follow(a_call(endpoint()), location)
    assert caught.value.location == location.strip(" \t")
    assert caught.value.status_code == 302


@pytest.mark.hostile("calling-redirects")
@pytest.mark.parametrize("location", ["/x\r\nEvil: 1", "/x\n", "/x\0", "https://h/\r"])
def test_a_location_with_a_line_break_never_gets_this_far(location):
    with pytest.raises(ValueError, match="control character"):
        redirect(location)
    head = Head(status=302, headers=Headers.from_block(f"Location: {location}\r\n"))
    step = a_call(endpoint()).answer(head)
    try:
        step.answer(b"")
    except RedirectError:
        return
    assert is_bare(step) or step.command.request.origin.host == "h"
    assert "\r" not in goes_to(step)
    assert "\n" not in goes_to(step)
    assert "Evil" not in dict(sent(step))


def test_a_long_location_is_bounded_by_what_a_head_may_hold():
    step = follow(a_call(endpoint()), "/" + "x" * 60_000)
    assert len(goes_to(step)) == len("https://h/") + 60_000


# --- how far, and which

FOLLOWED = [301, 302, 303, 307, 308]


@pytest.mark.parametrize("status", range(300, 400))
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_which_statuses_are_followed(method, status):
    step = a_call(endpoint(), method)
    if status in FOLLOWED:
        assert goes_to(follow(step, "/x", status)) == "https://h/x"
        assert step.command.request.method == method
    else:
        with pytest.raises(RedirectError) as caught:
            follow(step, "/x", status)
        assert (caught.value.status_code, caught.value.location) == (status, "/x")


@pytest.mark.parametrize("status", FOLLOWED)
def test_a_redirect_without_a_location_is_an_error(status):
    with pytest.raises(RedirectError) as caught:
        follow(a_call(endpoint()), None, status)
    assert caught.value.location is None


@pytest.mark.hostile("calling-redirects")
def test_a_get_is_redirected_five_times():
    at = endpoint(retry=Retry.never())
    step = a_call(at)
    for number in range(5):
        assert goes_to(follow(step, f"/{number}")) == f"https://h/{number}"
    with pytest.raises(RedirectError, match="redirected 5 times already") as caught:
        follow(step, "/6")
    assert caught.value.location == "/6"
    again = a_call(at)
    for number in range(5):
        follow(again, f"/{number}")
    assert again.answer(Head(status=200)).answer(b'{"a": 1}').result == {"a": 1}


@pytest.mark.hostile("calling-redirects")
@pytest.mark.parametrize("location", ["", "#a", "/2025-09-10/agents/a/b?c=1", "https://other/x"])
def test_a_loop_ends(location):
    step = a_call(endpoint())
    for _ in range(5):
        follow(step, location)
    with pytest.raises(RedirectError, match="5 times"):
        follow(step, location)


def test_a_redirect_is_no_attempt_and_a_retry_no_redirect():
    at = endpoint(retry=Retry(attempts=2))
    step = a_call(at)
    for number in range(5):
        follow(step, f"/{number}")
    step.answer(Head(status=503)).answer(b"").answer(bytes(6))
    assert goes_to(step) == "https://h/4", "what is tried again is where it was led"
    with pytest.raises(NotFoundError) as caught:
        step.answer(Head(status=404)).answer(b"")
    assert len(caught.value.attempts) == 2


def test_no_redirect_is_followed_from_https_to_http():
    for at in (endpoint(), endpoint("https://other")):
        with pytest.raises(RedirectError, match="from https to http"):
            follow(a_call(at), "http://h/x")
    step = follow(a_call(endpoint("http://h")), "https://h/x")
    assert is_bare(step)
    with pytest.raises(RedirectError, match="from https to http"):
        follow(step, "http://h/x")
    trusted = endpoint("https://h", trusted_origins=["http://h"])
    with pytest.raises(RedirectError, match="from https to http"):
        follow(a_call(trusted), "http://h/x")


@pytest.mark.parametrize("status", [*FOLLOWED, 300, 304])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get"])
@pytest.mark.parametrize(
    ("location", "same"), [("/x", True), ("https://evil.example/x", False), ("http://h/x", False)]
)
def test_other_methods_are_redirected_on_the_same_origin_by_307_and_308_alone(method, status, location, same):
    at = endpoint(trusted_origins=["https://evil.example"])
    step = a_call(at, method, data=b"12345", idempotent=True)
    body = step.command.request.body
    if same and status in (307, 308):
        request = follow(step, location, status).command.request
        assert (request.method, request.url, request.body) == (method, "https://h/x", body)
        assert request.idempotent
    else:
        with pytest.raises(RedirectError) as caught:
            follow(step, location, status)
        assert caught.value.location == location
        if status in FOLLOWED:
            assert "not followed" in str(caught.value)


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_sent_again_only_where_it_can_be(status):
    at = endpoint()
    for source in (ReadAgain(), ReadOnce()):
        request = replace(at.request("POST", "x"), body=Body(segments=(source,), length=5))
        step = ByHand(at.call(request, clock=FakeClock()))
        if source.replayable:
            rewind = follow(step, "/y", status).command
            assert type(rewind) is Rewind
            assert rewind.body is request.body
            assert step.answer(None).command.request.body is request.body
        else:
            with pytest.raises(RedirectError, match="not followed"):
                follow(step, "/y", status)


def test_a_get_with_a_body_that_cannot_be_sent_again_is_not_redirected_with_it():
    at = endpoint()
    request = replace(at.request("GET", "x"), body=Body(segments=(ReadOnce(),), length=5))
    with pytest.raises(RedirectError, match="not followed"):
        follow(ByHand(at.call(request, clock=FakeClock())), "/y")


# --- what does not leave its origin


@pytest.mark.hostile("calling-redirects")
@pytest.mark.parametrize("key", [True, False])
def test_nothing_of_the_callers_goes_elsewhere_nor_comes_back(key):
    at = endpoint(f"https://user:{MARK}@h", key=key, retry=Retry(attempts=3))
    step = a_call(
        at,
        headers={
            "Idempotency-Key": MARK,
            "Authorization": f"Bearer {MARK}",
            "Proxy-Authorization": MARK,
            "Range": "bytes=1-",
            "If-Range": '"tag"',
            "Accept": "text/plain",
            "Content-Type": MARK,
            "X-Fc-Security-Token": MARK,
        },
        data=MARK,
    )
    assert MARK in str(sent(step))
    for location in ("https://evil.example/x", "/y", "https://h/a", "https://user@h/a", "https://third/x"):
        follow(step, location)
        assert is_bare(step), location
        request = step.command.request
        assert request.body == Body()
        assert request.headers["range"] == "bytes=1-"
        assert request.headers["if-range"] == '"tag"'
        assert request.headers["accept"] == "text/plain"
    step.answer(Head(status=503)).answer(b"").answer(bytes(6))
    assert is_bare(step), "not when it is tried again either"
    with pytest.raises(AuthenticationError):
        step.answer(Head(status=401)).answer(b"")


def test_a_field_that_is_neutral_elsewhere_is_not_where_the_config_sets_it():
    at = endpoint()
    at = at.overlaid(Config(headers={"Accept": MARK, "Accept-Encoding": MARK, "User-Agent": MARK}))
    assert is_bare(follow(a_call(at), "https://evil.example"))


def test_the_basic_authorization_of_the_endpoints_url_stays_with_it():
    at = DataEndpoint(Config(data_endpoint="https://user:pass@h"))
    step = a_call(at)
    basic = "Basic dXNlcjpwYXNz"
    assert dict(sent(step))["Authorization"] == basic
    assert dict(sent(follow(step, "/y")))["Authorization"] == basic
    assert "Authorization" not in dict(sent(follow(step, "https://h:8443/y")))
    assert "Authorization" not in dict(sent(follow(step, "https://h/y")))


def test_another_origins_refusals_cost_no_credential_and_set_no_clock():
    tokens = ["t1", "t2"]

    def provider() -> AccessToken:
        return AccessToken(token=Secret(tokens.pop(0)))

    provided = DataEndpoint(Config(data_endpoint="https://h"), credentials=provider)
    step = a_call(provided)
    flow = ByHand(step.command.flow())
    step.answer(flow.answer(flow.command.provider()).result)
    follow(step, "https://evil.example/")
    with pytest.raises(AuthenticationError):
        step.answer(Head(status=401)).answer(b"")
    assert provided.identity.credential == AccessToken(token=Secret("t1"))
    keyed = endpoint()
    step = follow(a_call(keyed), "https://evil.example/")
    with pytest.raises(AgentRunClientError):
        step.answer(Head(status=403, headers=Headers({"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}))).answer(b"")
    assert keyed.standing.offset == 0


@pytest.mark.hostile("calling-foreign-urls")
def test_a_download_from_elsewhere_is_bare_too():
    at = endpoint()
    step = ByHand(at.download(at.file_request("f"), "/local", clock=FakeClock())).answer(FakeSink())
    follow(step, "https://files.example/x")
    assert is_bare(step)
    assert step.command.request.headers["accept-encoding"] == "identity"
    step.close()


@pytest.mark.hostile("calling-foreign-urls")
def test_a_stream_from_elsewhere_is_bare_too():
    at = endpoint()
    step = ByHand(at.stream(at.stream_request("GET", "s", headers={"x-own": MARK}), clock=FakeClock()))
    assert MARK in str(sent(step))
    follow(step, "https://streams.example/x")
    assert is_bare(step)
    step.close()


# --- those whom the caller trusts


@pytest.mark.hostile("calling-foreign-urls")
@pytest.mark.parametrize("key", [True, False])
def test_a_trusted_origin_gets_all_of_it_signed_for_its_own_host(key):
    at = endpoint(key=key, trusted_origins=["https://files.example:8443"])
    step = follow(a_call(at, headers={"x-own": MARK}), "https://files.example:8443/x?y=1")
    lines = sent(step)
    assert dict(lines)["Host"] == "files.example:8443"
    assert {"x-mine", "Cookie", "x-own"} <= {name for name, _ in lines}
    if key:
        ours, theirs, names = received_signature(method="GET", target="/x?y=1", lines=lines, secret=MARK)
        assert ours == theirs
        assert "host" in names
    else:
        assert dict(lines)["Agentrun-Access-Token"] == f"{MARK}-token"
    assert not is_bare(follow(step, "https://h/back")), "between those who are trusted nothing is lost"
    assert is_bare(follow(step, "https://files.example/x")), "another port is another origin"
    assert is_bare(follow(step, "https://files.example:8443/x")), "and from there nothing comes back"


@pytest.mark.hostile("calling-foreign-urls")
@pytest.mark.parametrize(
    ("trusted", "location", "bare"),
    [
        ([], "https://files.example/", True),
        (["https://files.example"], "https://files.example/", False),
        (["https://files.example:443/"], "https://FILES.example/", False),
        ([Origin("https", "files.example", 443)], "https://files.example/", False),
        (["https://files.example"], "https://x.files.example/", True),
        (["https://files.example"], "https://files.example.evil/", True),
        (["https://files.example"], "https://files.example@evil/", True),
        (["https://a", "https://b"], "https://b/", False),
    ],
)
def test_who_is_trusted(trusted, location, bare):
    at = endpoint(trusted_origins=trusted)
    assert is_bare(follow(a_call(at), location)) is bare
    at = endpoint().overlaid(Config(trusted_origins=trusted))
    assert is_bare(follow(a_call(at), location)) is bare


# --- RAM hosts

PLAIN = "https://1.agentrun-data.cn-hangzhou.aliyuncs.com"
RAM = "https://1-ram.agentrun-data.cn-hangzhou.aliyuncs.com"


def test_a_key_belongs_to_the_ram_host_and_a_token_to_the_plain_one():
    signed = endpoint(PLAIN)
    assert goes_to(a_call(signed)).startswith(f"{RAM}/")
    assert not is_bare(follow(a_call(signed), f"{RAM}/x"))
    assert is_bare(follow(a_call(signed), f"{PLAIN}/x"))
    with_token = endpoint(PLAIN, key=False)
    assert goes_to(a_call(with_token)).startswith(f"{PLAIN}/")
    assert not is_bare(follow(a_call(with_token), f"{PLAIN}/x"))
    assert is_bare(follow(a_call(with_token), f"{RAM}/x"))


KEY = AccessKey(access_key_id="id", access_key_secret=Secret(MARK))
TOKEN = AccessToken(token=Secret(MARK))


def a_provided_call(credential: AccessKey | AccessToken, method: str = "GET", **request: Any) -> ByHand:
    at = DataEndpoint(Config(data_endpoint=PLAIN), credentials=lambda: credential)
    step = a_call(at, method, **request)
    assert type(step.command) is Refresh
    flow = ByHand(step.command.flow())
    assert type(flow.command) is Provide
    return step.answer(flow.answer(credential).result)


@pytest.mark.parametrize(("credential", "own"), [(KEY, RAM), (TOKEN, PLAIN)])
def test_a_credential_that_is_obtained_goes_to_its_own_host_of_the_two(credential, own):
    for location in ("/x", f"{PLAIN}/x", f"{RAM}/x"):
        step = a_provided_call(credential)
        assert goes_to(step).startswith(f"{own}/2025")
        assert goes_to(follow(step, location)) == f"{own}/x"
        assert not is_bare(step)
    assert is_bare(follow(a_provided_call(credential), "https://evil.example"))


@pytest.mark.parametrize(("credential", "own"), [(KEY, RAM), (TOKEN, PLAIN)])
def test_the_same_origin_is_the_one_that_answered(credential, own):
    step = a_provided_call(credential, "POST", data={"a": 1})
    assert goes_to(follow(step, f"{own}/x", 307)) == f"{own}/x"


# --- an auth hook decides itself where a request goes


def test_a_redirect_of_a_place_that_a_hook_led_to_is_relative_to_that_place():
    asked: list[str] = []

    def auth(url: str, headers: dict[str, str], query: Any, *_: Any) -> Any:
        asked.append(url)
        return url.replace("https://h/", "https://gateway/"), {**headers, "x-hooked": MARK}, query

    at = DataEndpoint(Config(data_endpoint="https://h"), auth=auth)
    step = a_call(at)
    assert goes_to(step) == "https://gateway/2025-09-10/agents/a/b?c=1"
    assert goes_to(follow(step, "/x")) == "https://gateway/x"
    assert step.command.request.headers["x-hooked"] == MARK
    assert asked == ["https://h/2025-09-10/agents/a/b?c=1", "https://gateway/x"]
    assert is_bare(follow(step, "https://evil.example/x"))
    assert len(asked) == 2, "and where nobody is trusted, the hook is not asked"

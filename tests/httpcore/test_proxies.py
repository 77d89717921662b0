"""Which proxy an environment means, row by row."""

import pickle

import pytest

from agentrun_proto import Origin
from agentrun_transports._proxies import Proxies, Proxy

A, B, C = "http://a:1", "http://b:2", "http://c:3"
HTTPS = Origin("https", "api.example.com", 443)
HTTP = Origin("http", "api.example.com", 80)

ENVIRONMENTS = [
    ({}, None, None),
    ({"https_proxy": A}, A, None),
    ({"http_proxy": A}, None, A),
    ({"HTTPS_PROXY": A}, A, None),
    ({"HTTP_PROXY": A}, None, A),
    ({"https_proxy": A, "HTTPS_PROXY": B}, A, None),
    ({"https_proxy": "", "HTTPS_PROXY": B}, None, None),
    ({"all_proxy": A}, A, A),
    ({"ALL_PROXY": A, "http_proxy": B}, A, B),
    ({"all_proxy": A, "https_proxy": ""}, A, A),
    ({"HTTP_PROXY": A, "REQUEST_METHOD": "GET"}, None, None),
    ({"http_proxy": A, "REQUEST_METHOD": "GET"}, None, A),
    ({"HTTPS_PROXY": A, "REQUEST_METHOD": "GET"}, A, None),
    ({"https_proxy": "a:1"}, A, None),
    ({"https_proxy": "  http://a:1  "}, A, None),
    ({"https_proxy": "socks5h://a"}, "socks5h://a:1080", None),
    ({"https_proxy": A, "no_proxy": "*"}, None, None),
    ({"https_proxy": A, "NO_PROXY": "example.com"}, None, None),
    ({"https_proxy": A, "no_proxy": "", "NO_PROXY": "example.com"}, A, None),
]


@pytest.mark.parametrize(("environment", "https", "http"), ENVIRONMENTS)
def test_environments(environment, https, http):
    proxies = Proxies.from_env(environment)
    told = [None if proxy is None else str(proxy) for proxy in map(proxies.for_origin, (HTTPS, HTTP))]
    assert told == [https, http]


EXCEPTIONS = [
    ("example.com", "example.com", 443, True),
    ("example.com", "api.example.com", 443, True),
    ("example.com", "notexample.com", 443, False),
    ("example.com", "example.com.evil.test", 443, False),
    (".example.com", "api.example.com", 443, True),
    (".example.com", "example.com", 443, True),
    ("*.example.com", "api.example.com", 443, True),
    ("EXAMPLE.com", "api.Example.COM", 443, True),
    ("example.com", "example.com.", 443, True),
    ("example.com:8443", "example.com", 8443, True),
    ("example.com:8443", "example.com", 443, False),
    ("a.test, b.test", "b.test", 443, True),
    ("a.test b.test", "b.test", 443, True),
    ("*", "anything", 1, True),
    ("127.0.0.1", "127.0.0.1", 443, True),
    ("127.0.0.1", "127.0.0.10", 443, False),
    ("10.0.0.0/8", "10.9.8.7", 443, True),
    ("10.0.0.0/8", "11.0.0.1", 443, False),
    ("10.0.0.0/8", "ten.example.com", 443, False),
    ("::1", "[::1]", 443, True),
    ("[::1]", "[::1]", 443, True),
    ("[::1]:8443", "[::1]", 8443, True),
    ("fe80::/10", "[fe80::1]", 443, True),
    (",,", "example.com", 443, False),
    (".", "example.com", 443, False),
    ("localhost", "localhost", 80, True),
]


@pytest.mark.parametrize(("no_proxy", "host", "port", "direct"), EXCEPTIONS)
def test_exceptions(no_proxy, host, port, direct):
    proxies = Proxies.from_env({"all_proxy": A, "no_proxy": no_proxy})
    assert (proxies.for_origin(Origin("https", host, port)) is None) == direct


@pytest.mark.parametrize(
    "url",
    [
        "socks4://a:1",
        "ftp://a",
        "http://",
        "http://a:port",
        "http://a:1/path",
        "http://a?x",
        "http://[::1",
        "http://a b",
    ],
)
def test_what_is_no_proxy(url):
    with pytest.raises(ValueError):
        Proxy.parse(url)


def test_the_variable_is_named_and_the_password_is_not():
    with pytest.raises(ValueError, match="https_proxy") as told:
        Proxies.from_env({"HTTPS_PROXY": "http://user:hunter2@host:port"})
    assert "hunter2" not in str(told.value)


def test_credentials_are_decoded_and_never_shown():
    proxy = Proxy.parse("http://us%40er:hunter%2F2@[::1]:3128")
    assert (proxy.auth, proxy.url) == (("us@er", "hunter/2"), "http://[::1]:3128")
    for shown in (repr(proxy), str(proxy), repr(Proxies(http=proxy, https=proxy))):
        assert "hunter" not in shown
    with pytest.raises(TypeError, match="password"):
        pickle.dumps(proxy)
    proxy = Proxy.parse("http://[::1]:3128")
    assert pickle.loads(pickle.dumps(proxy)) == proxy

"""The tree of errors: drawn in the docstring, whole, pickled, and in agreement with the table of statuses."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import agentrun_proto
from agentrun_proto import errors
from agentrun_proto.errors import (
    ERROR_BY_STATUS,
    AgentRunClientError,
    AgentRunError,
    HTTPError,
    TransportError,
)

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, BaseException) and kind.__module__ == errors.__name__
    if name == kind.__name__
}
# A class with a second parent, which a tree cannot draw.
SECOND_PARENTS = {"ConnectTimeout": ["ConnectError"]}
# HOSTILE and RFC 9110: the service cannot have acted on the request.
NOT_PROCESSED = {
    "AuthenticationError", "ConnectError", "ConnectTimeout", "CredentialError", "PoolTimeout",
    "RequestTimeoutError", "ServiceUnavailableError", "TLSError", "TooManyRequestsError",
}  # fmt: skip


def drawn() -> dict[str, tuple[str | None, int | None]]:
    """The tree in the docstring, as ``name -> (parent, status)``; a line may hold two columns of leaves."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str | None, int | None]] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        for index, match in enumerate(re.finditer(r"(?:[├└]── |^ {4})([A-Z]\w+)(?: (\d{3})\b)?", line)):
            column, name = match.start(), match[1]
            if index == 0:
                above = [(depth, parent) for depth, parent in above if depth < column]
                parent = above[-1][1] if above else None
                above.append((column, name))
            tree[name] = (parent, int(match[2]) if match[2] else None)
    return tree


def test_the_docstring_draws_every_class_and_no_other():
    assert set(drawn()) == set(CLASSES)


def test_the_docstring_draws_the_inheritance_and_the_statuses():
    for name, (parent, _) in drawn().items():
        bases = [base.__name__ for base in CLASSES[name].__bases__]
        assert bases == [parent or "Exception", *SECOND_PARENTS.get(name, [])], name
    assert {status: kind.__name__ for status, kind in ERROR_BY_STATUS.items()} == {
        status: name for name, (_, status) in drawn().items() if status is not None
    }


def test_every_class_is_public_and_documented():
    for name, kind in CLASSES.items():
        assert getattr(agentrun_proto, name) is kind
        assert name in agentrun_proto.__all__
        assert kind.__doc__, name
    assert HTTPError is AgentRunClientError
    assert "HTTPError" in agentrun_proto.__all__


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_class_is_pickled_and_unpickled_with_all_it_carries(name):
    kind = CLASSES[name]
    if kind is AgentRunError:
        assert str(pickle.loads(pickle.dumps(AgentRunError("x")))) == "x"
        return
    error = kind(
        "what happened",
        status_code=1,
        error_code="E",
        request_id="r",
        response_body={"a": 1},
        response_headers={"x": "y"},
        retry_after=2.5,
        may_be_processed=not kind.may_be_processed,
    )
    error.extra = "set later"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert (vars(again), again.args, str(again)) == (vars(error), error.args, str(error))
    assert issubclass(kind, AgentRunClientError)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"AgentRunError"}))
def test_each_says_whether_the_service_may_have_acted(name):
    error = CLASSES[name]("x")
    assert error.may_be_processed is (name not in NOT_PROCESSED)
    assert CLASSES[name]("x", may_be_processed=False).may_be_processed is False
    assert error.status_code == 0
    assert (error.error_code, error.request_id, error.response_body, error.retry_after) == (None,) * 4
    assert dict(error.response_headers) == {}


def test_ours_is_no_builtin_timeout():
    for name in ("TimeoutExceeded", "ReadTimeout", "ConnectTimeout"):
        assert not issubclass(CLASSES[name], (TimeoutError, OSError))
    assert not issubclass(TransportError, OSError)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "m"),
        ({"status_code": 404}, "m (HTTP 404)"),
        ({"error_code": "E"}, "m (code E)"),
        ({"status_code": 404, "error_code": "E", "request_id": "r"}, "m (HTTP 404, code E, request id r)"),
    ],
)
def test_what_a_message_tells(facts, text):
    assert str(AgentRunClientError("m", **facts)) == text

"""Everything that a caller may have to catch.

::

    AgentRunError
    └── AgentRunClientError            a request failed (published also as HTTPError)
        ├── StatusError                the service answered, and refused
        │   ├── RedirectError          3xx: the answer lies elsewhere
        │   ├── ClientError            4xx: the request is at fault
        │   │   ├── BadRequestError 400        ├── PreconditionFailedError 412
        │   │   ├── AuthenticationError 401    ├── PayloadTooLargeError 413
        │   │   ├── PermissionDeniedError 403  ├── RangeNotSatisfiableError 416
        │   │   ├── NotFoundError 404          ├── UnprocessableError 422
        │   │   ├── MethodNotAllowedError 405  └── TooManyRequestsError 429
        │   │   ├── RequestTimeoutError 408
        │   │   └── ConflictError 409
        │   └── ServerError            5xx: the service is at fault
        │       ├── InternalServerError 500    ├── ServiceUnavailableError 503
        │       └── BadGatewayError 502        └── GatewayTimeoutError 504
        ├── DecodeError                the service answered with success, and with nonsense
        ├── FileError                  a local file could not be read or written
        ├── CredentialError            no credential could be had; nothing was sent
        └── TransportError             no complete answer; status_code is 0
            ├── ConnectError           no connection could be made
            │   └── TLSError           the peer could not prove who it is
            ├── TimeoutExceeded        the time the caller allowed is over
            │   ├── PoolTimeout        ... while waiting for a free connection
            │   ├── ConnectTimeout     ... while connecting
            │   ├── WriteTimeout       ... while sending the request
            │   └── ReadTimeout        ... while waiting for the answer
            ├── ProtocolError          the peer does not speak HTTP/1.1
            ├── IncompleteError        the connection ended before the answer did
            └── BodyError              the body to be sent is not what was declared

Misuse that shows before anything is sent (a line break in a header, a path with ``..``) is a plain
``ValueError`` or ``TypeError``: it is a bug of the calling program, not a failed request.

Rules of this file: an error carries what a decision needs and no secret; every class can be pickled;
``may_be_processed`` is True unless the service cannot have acted on the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AgentRunError(Exception):
    """The root of all errors of this library."""


class AgentRunClientError(AgentRunError):
    """A request failed. Published under a second name too: ``HTTPError``.

    Args:
        message: what happened and, where something can be done, what to do.
        status_code: the HTTP status, or 0 when there was no complete answer.
        error_code: the service's own code, such as ``ERR_FORBIDDEN`` or ``SandboxNotFound``.
        request_id: the service's id of the request; support asks for it.
        response_body: the decoded JSON, or the text, of the answer; None without one.
        response_headers: the fields of the answer, names in lower case.
        retry_after: the seconds that the service asked to wait, if it did.
        may_be_processed: whether the service may have acted on the request, in any attempt.

    ``attempts`` tells of each attempt that was made why it failed, the last one included; it is empty where
    nothing was attempted.

    >>> error = NotFoundError("no such sandbox", status_code=404, error_code="SandboxNotFound")
    >>> str(error)
    'no such sandbox (HTTP 404, code SandboxNotFound)'
    >>> isinstance(error, (ClientError, HTTPError))
    True
    """

    may_be_processed: bool = True

    def __init__(
        self,
        message: str,
        *,
        status_code: int = 0,
        error_code: str | None = None,
        request_id: str | None = None,
        response_body: Any = None,
        response_headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        may_be_processed: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.error_code = error_code
        self.request_id = request_id
        self.response_body = response_body
        self.response_headers: Mapping[str, str] = {} if response_headers is None else response_headers
        self.retry_after = retry_after
        self.attempts: tuple[str, ...] = ()
        if may_be_processed is not None:
            self.may_be_processed = may_be_processed

    def __str__(self) -> str:
        told = [
            f"HTTP {self.status_code}" if self.status_code else "",
            f"code {self.error_code}" if self.error_code else "",
            f"request id {self.request_id}" if self.request_id else "",
            f"after {len(self.attempts)} attempts" if len(self.attempts) > 1 else "",
        ]
        facts = ", ".join(filter(None, told))
        return f"{self.message} ({facts})" if facts else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def bare(error: Exception) -> TypeError | ValueError:
    """The same complaint about a caller's value, without the frames and errors beneath it, which hold it.

    A traceback may be shown with its locals: where one of them is a secret, the complaint is raised anew.
    """
    return (TypeError if isinstance(error, TypeError) else ValueError)(str(error))


HTTPError = AgentRunClientError
"""The name under which published clients know :class:`AgentRunClientError`."""


def _rebuild(kind: type[AgentRunClientError], args: tuple[Any, ...], state: dict[str, Any]) -> object:
    error = kind(*args)
    error.__dict__.update(state)
    return error


class StatusError(AgentRunClientError):
    """The service answered with a status that is no success."""


class RedirectError(StatusError):
    """3xx: the answer lies elsewhere, and was not fetched from there.

    ``location`` is where the service pointed to, or None.
    """

    @property
    def location(self) -> str | None:
        """The ``Location`` field of the answer."""
        return self.response_headers.get("location")


class ClientError(StatusError):
    """4xx: the service found the request at fault."""


class BadRequestError(ClientError):
    """400."""


class AuthenticationError(ClientError):
    """401: no credential, or one that the service does not accept."""

    may_be_processed = False


class PermissionDeniedError(ClientError):
    """403: the credential does not allow this, or the signature is refused."""


class NotFoundError(ClientError):
    """404."""


class MethodNotAllowedError(ClientError):
    """405."""


class RequestTimeoutError(ClientError):
    """408: the service waited too long for the request."""

    may_be_processed = False


class ConflictError(ClientError):
    """409."""


class PreconditionFailedError(ClientError):
    """412."""


class PayloadTooLargeError(ClientError):
    """413."""


class RangeNotSatisfiableError(ClientError):
    """416."""


class UnprocessableError(ClientError):
    """422."""


class TooManyRequestsError(ClientError):
    """429: see ``retry_after``."""

    may_be_processed = False


class ServerError(StatusError):
    """5xx: the service, or a gateway before it, failed."""


class InternalServerError(ServerError):
    """500."""


class BadGatewayError(ServerError):
    """502."""


class ServiceUnavailableError(ServerError):
    """503: see ``retry_after``."""

    may_be_processed = False


class GatewayTimeoutError(ServerError):
    """504."""


ERROR_BY_STATUS: Mapping[int, type[StatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    408: RequestTimeoutError,
    409: ConflictError,
    412: PreconditionFailedError,
    413: PayloadTooLargeError,
    416: RangeNotSatisfiableError,
    422: UnprocessableError,
    429: TooManyRequestsError,
    500: InternalServerError,
    502: BadGatewayError,
    503: ServiceUnavailableError,
    504: GatewayTimeoutError,
}


def error_class(status: int) -> type[StatusError]:
    """The class for a status that is no success.

    >>> [error_class(status).__name__ for status in (404, 418, 599, 304)]
    ['NotFoundError', 'ClientError', 'ServerError', 'RedirectError']
    """
    by_family = {3: RedirectError, 4: ClientError, 5: ServerError}.get(status // 100, StatusError)
    return ERROR_BY_STATUS.get(status, by_family)


class DecodeError(AgentRunClientError):
    """The status says success, but the content is not what was promised.

    ``value`` is what was decoded instead, where something was: a JSON array, say, where an object was
    promised.
    """

    value: Any = None


class FileError(AgentRunClientError):
    """A local file could not be read or written; ``__cause__`` is the operating system's own error.

    ``may_be_processed`` is False when this was found out before the request was sent.
    """


class CredentialError(AgentRunClientError):
    """No credential could be had, and nothing was sent; ``__cause__`` is what went wrong, if anything did."""

    may_be_processed = False


class TransportError(AgentRunClientError):
    """There is no complete answer; ``status_code`` is 0."""


class ConnectError(TransportError):
    """No connection could be made: the name is unknown, or the peer refuses or is out of reach."""

    may_be_processed = False


class TLSError(ConnectError):
    """The TLS handshake failed: most often a certificate that cannot be verified."""


class TimeoutExceeded(TransportError):
    """The time that the caller allowed is over.

    Deliberately no subclass of the built-in ``TimeoutError``: code that catches the end of an
    ``asyncio.timeout`` around a call must not mistake ours for its own.
    """


class PoolTimeout(TimeoutExceeded):
    """No connection became free in time."""

    may_be_processed = False


class ConnectTimeout(TimeoutExceeded, ConnectError):
    """No connection could be made in time."""

    may_be_processed = False


class WriteTimeout(TimeoutExceeded):
    """The request could not be sent in time."""


class ReadTimeout(TimeoutExceeded):
    """The answer did not come, or did not go on, in time."""


class ProtocolError(TransportError):
    """The peer's bytes are not a well-formed HTTP/1.1 answer to this request (RFC 9112)."""


class IncompleteError(TransportError):
    """The connection ended before the answer did (RFC 9112, section 8)."""


class BodyError(TransportError):
    """The body to be sent is not what was declared: a file shrank while it was being read."""

"""DataEndpoint: a Config and a namespace in; URLs, requests and flows out. The class that embedders hold.

Rules of this file: an endpoint never changes, so that threads and tasks may share it; whatever is the same
for every request is worked out once; what a caller passes in is never changed.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from .body import JSON_TYPE, encode_body
from .commands import Clock, Flow
from .config import Config, call_timeout, transfer_timeout
from .decoding import ACCEPT_ENCODING, Response, decode
from .flows import Context, call, download, exchange, upload
from .messages import Head, Headers, Request, Source
from .multipart import FilePart, encode_multipart
from .signing import Authoriser, reserved
from .urls import encode_query, join_path, merge_pairs, merge_query, normalise_query, parse_url

VERSION = "0.1.0"

# The framing and the connection are the transport's to decide (RFC 9112, 6; RFC 9110, 7.6.1).
_TRANSPORT_FIELDS = frozenset(
    {"content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_DEFAULT_FIELDS = Headers(
    {"User-Agent": f"agentrun-proto/{VERSION}", "Accept": JSON_TYPE, "Accept-Encoding": ACCEPT_ENCODING}
)
# Files are saved as they are stored: nothing is to be taken off them.
_FILE_FIELDS = Headers({"Accept": "*/*", "Accept-Encoding": "identity"})

AuthHook = Callable[
    [str, dict[str, str], "dict[str, Any] | None", Config, str, "bytes | None"],
    "tuple[str, Mapping[str, str], Mapping[str, Any] | None]",
]
"""``(url, headers, query, config, method, body) -> (url, headers, query)``: what is returned is sent."""


class DataEndpoint:
    """One namespace of one account's data plane.

    Args:
        config: what the caller has set.
        namespace: the path that all requests share, such as ``agents`` or ``sandboxes/sb-1``; ids in it go
            through :func:`path_segment` first.
        auth: a hook that authorises requests instead of the config's credential.

    Raises:
        ValueError: no account and no endpoint, an invalid protocol, half an access key, a namespace that is
            no path.

    >>> endpoint = DataEndpoint(Config(account_id="account", protocol="http"))
    >>> endpoint.url("resources?page=1", {"limit": 10})
    'http://account.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents/resources?page=1&limit=10'
    """

    __slots__ = (
        "_auth",
        "_authoriser",
        "_call_timeout",
        "_headers",
        "_origin",
        "_prefix",
        "_root",
        "_transfer_timeout",
        "base_url",
        "config",
        "namespace",
    )

    def __init__(
        self, config: Config | None = None, namespace: str = "agents", *, auth: AuthHook | None = None
    ) -> None:
        if not isinstance(namespace, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
            raise TypeError(f"a namespace is a str, not {type(namespace).__name__}")
        self.config = config or Config()
        self.namespace = namespace
        target = self.config.data_target()
        self._auth = auth
        self._call_timeout = call_timeout(self.config.timeout)
        self._transfer_timeout = transfer_timeout(self.config.timeout)
        self._origin = target.origin
        self._prefix = join_path(target.path, self.config.version_for(namespace), namespace).rstrip("/")
        self._authoriser = Authoriser(self.config.credential, self.config.region)
        userinfo = "" if target.userinfo is None else f"{target.userinfo}@"
        self._root = f"{target.origin.scheme}://{userinfo}{target.origin.authority}"
        self.base_url = self._root + target.path.rstrip("/")
        self._headers = _DEFAULT_FIELDS
        if target.userinfo is not None:
            encoded = b2a_base64(unquote_to_bytes(target.userinfo), newline=False).decode()
            self._headers = self._headers.merged({"Authorization": f"Basic {encoded}"})
        self._headers = self._with(self.config.headers)

    def overlaid(self, config: Config | None) -> DataEndpoint:
        """This endpoint with a further config over its own, as `Config.merge` has it."""
        if config is None:
            return self
        return DataEndpoint(self.config.merge(config), self.namespace, auth=self._auth)

    def url(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        """The absolute URL of a path.

        Args:
            path: relative to the namespace; may hold a query. Slashes around it are dropped.
            query: parameters to add, or to put in the place of those of the same name; see `merge_query`.

        Raises:
            ValueError, TypeError: as `join_path` and `merge_query` say.

        Source: the documented results of ``with_path``.
        """
        return self._root + self._target(path, query)

    def _target(self, path: str, query: Mapping[str, Any] | None) -> str:
        if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
            raise TypeError(f"a path is a str, not {type(path).__name__}")
        path, _, existing = path.partition("?")
        target = self._prefix + join_path(path) if path.strip("/") else self._prefix or "/"
        existing = normalise_query(existing)
        if query:
            existing = merge_pairs(existing, encode_query(query))
        return f"{target}?{existing}" if existing else target

    def _with(self, headers: Mapping[str, str] | None) -> Headers:
        """The endpoint's own fields, and over them the caller's, if they are the caller's to set."""
        if not headers:
            return self._headers
        checked = headers if isinstance(headers, Headers) else Headers(headers)
        for name in checked:
            if name in _TRANSPORT_FIELDS:
                raise ValueError(f"the header {name} is decided by the transport; leave it out")
            if name in self._authoriser.reserved_fields:
                raise ValueError(reserved(name))
        return self._headers.merged(checked)

    def request(
        self,
        method: str,
        path: str,
        *,
        data: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        """A request for a path, not yet authorised.

        Args:
            method: such as ``GET``; sent as given.
            path, query: see `url`.
            data: see :func:`encode_body`.
            headers: fields of this request alone; they win over the config's.

        Raises:
            ValueError, TypeError: something that cannot be sent, or that is not the caller's to set.

        >>> DataEndpoint(Config(account_id="1")).request("POST", "r", data={"a": 1}).body.data
        b'{"a":1}'
        """
        return Request(
            method=method,
            origin=self._origin,
            target=self._target(path, query),
            headers=self._with(headers),
            body=encode_body(data),
        )

    def file_request(
        self,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        """A GET for content that is to be saved as it is stored; the arguments are those of `request`."""
        return Request(
            method="GET",
            origin=self._origin,
            target=self._target(path, query),
            headers=self._with(_FILE_FIELDS.merged(headers)),
        )

    def form_request(
        self,
        path: str,
        *,
        fields: Mapping[str, object] | None,
        files: list[FilePart],
        boundary: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        """A POST of a multipart form; see :func:`encode_multipart` for the form.

        Raises:
            ValueError, TypeError: as `request`; also a Content-Type, which would lose the boundary.
        """
        checked = self._with(headers)
        if headers and any(name.lower() == "content-type" for name in headers):
            raise ValueError(
                "the Content-Type of a form carries its boundary and cannot be set; leave it out"
            )
        if "content-type" in checked:
            checked = Headers([line for line in checked.fields if line[0].lower() != "content-type"])
        return Request(
            method="POST",
            origin=self._origin,
            target=self._target(path, query),
            headers=checked,
            body=encode_multipart(fields, files, boundary=boundary),
        )

    def sign(self, request: Request, now: float) -> Request:
        """The request, authorised for one attempt.

        Args:
            request: a request of this endpoint.
            now: wall time, seconds since the epoch.

        Returns:
            A new request. With an auth hook, what the hook returned; else the same with the field lines of
            the signature, or of the token, added.
        """
        if self._auth is not None:
            return self._hooked(self._auth, request)
        return Request(
            method=request.method,
            origin=request.origin,
            target=request.target,
            headers=request.headers,
            body=request.body,
            signature=self._authoriser.fields(request, now),
        )

    def _hooked(self, auth: AuthHook, request: Request) -> Request:
        fields = dict(request.headers.fields)
        if request.content_type is not None and "content-type" not in request.headers:
            fields["Content-Type"] = request.content_type
        url, returned, query = auth(request.url, fields, None, self.config, request.method, request.body.data)
        target = parse_url(merge_query(url, query))
        headers = Headers(returned)
        if headers.get("host", target.origin.authority) != target.origin.authority:
            raise ValueError("auth() returned a Host that is not the host of the URL it returned")
        if not headers.keys().isdisjoint(_TRANSPORT_FIELDS - {"host"}):
            raise ValueError(
                "auth() returned a header that is decided by the transport, such as Content-Length"
            )
        return Request(
            method=request.method,
            origin=target.origin,
            target=target.request_target,
            headers=Headers([line for line in headers.fields if line[0].lower() != "host"]),
            body=request.body,
        )

    def authorise_url(
        self,
        url: str,
        headers: Mapping[str, str] | None,
        query: Mapping[str, Any] | None,
        *,
        method: str,
        now: float,
    ) -> tuple[str, dict[str, str]]:
        """What a hook may build on: a URL with its query merged, and the headers that authorise it added.

        Raises:
            ValueError: the URL is of another origin than this endpoint, to which the credential belongs.
        """
        target = parse_url(merge_query(url, query))
        if target.origin != self._origin:
            raise ValueError(f"the credential belongs to {self._origin}, and is not sent to {target.origin}")
        query_string = normalise_query(target.query)
        request = Request(
            method=method,
            origin=target.origin,
            target=f"{target.path}?{query_string}" if query_string else target.path,
            headers=self._with(headers),
        )
        fields = {**dict(request.headers.fields), **dict(self._authoriser.fields(request, now))}
        return request.url, fields

    def decode(self, head: Head, content: bytes) -> dict[str, Any]:
        """See :func:`decode`."""
        return decode(head, content)

    def call(self, request: Request, *, clock: Clock) -> Flow[dict[str, Any]]:
        """The flow that sends a request and returns the JSON object of the answer."""
        return call(Context(self.sign, self._call_timeout, clock), request)

    def exchange(self, request: Request, *, clock: Clock) -> Flow[Response]:
        """The flow that sends a request and returns the whole answer, whatever its status."""
        return exchange(Context(self.sign, self._call_timeout, clock), request)

    def upload(
        self,
        path: str,
        local_path: str,
        *,
        filename: str,
        boundary: str,
        clock: Clock,
        fields: Mapping[str, object] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Flow[dict[str, Any]]:
        """The flow that posts a local file as the part ``file`` of a form; returns the answer's JSON object.

        Args:
            path, query, headers: as in `request`.
            local_path: the file to send.
            filename: the name to declare for it.
            boundary: see :func:`encode_multipart`.
            fields: the form's text fields.
        """

        def build(source: Source) -> Request:
            part = FilePart(name="file", filename=filename, source=source)
            return self.form_request(
                path, fields=fields, files=[part], boundary=boundary, query=query, headers=headers
            )

        return upload(Context(self.sign, self._transfer_timeout, clock), local_path, build)

    def download(self, request: Request, local_path: str, *, clock: Clock) -> Flow[int]:
        """The flow that saves the answer at a local path, whole or not at all; returns its size in bytes."""
        return download(Context(self.sign, self._transfer_timeout, clock), local_path, request)

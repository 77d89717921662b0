"""DataEndpoint: a Config and a namespace in; URLs, requests and flows out. The class that embedders hold.

Rules of this file: an endpoint never changes, so that threads and tasks may share it; whatever is the same
for every request is worked out once; what a caller passes in is never changed.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from .body import JSON_TYPE, encode_body
from .codings import accept_encoding
from .commands import Clock, Flow, Progress
from .config import Config, Retry, Timeout, call_timeout, transfer_timeout
from .context import Context, Identity, Standing
from .credentials import AccessKey, AccessToken, Credential, Provider
from .decoding import Response, decode
from .errors import CredentialError, bare
from .flows import call, exchange, upload
from .messages import EMPTY, SECRET_FIELDS, Head, Headers, Request
from .multipart import FilePart, encode_multipart
from .signing import RESERVED_FOR_KEY, RESERVED_FOR_TOKEN, Authoriser, reserved
from .streams import stream
from .super_agents import Invocation, invoke
from .telemetry import Listener, Observer
from .tokens import ControlPlane, Resource
from .transfers import check_sha256, download
from .urls import (
    Origin,
    Target,
    encode_query,
    is_plain_path,
    join_path,
    merge_pairs,
    merge_query,
    normalise_query,
    parse_url,
    ram_host,
)

VERSION = "0.1.0"

# The framing and the connection are the transport's to decide (RFC 9112, 6; RFC 9110, 7.6.1).
_TRANSPORT_FIELDS = frozenset(
    {"content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


def _default_fields() -> Headers:
    return _fields_asking_for(accept_encoding())


@lru_cache(maxsize=8)
def _fields_asking_for(codings: str) -> Headers:
    return Headers(
        {"User-Agent": f"agentrun-proto/{VERSION}", "Accept": JSON_TYPE, "Accept-Encoding": codings}
    )


# Files are saved as they are stored: nothing is to be taken off them.
_FILE_FIELDS = Headers({"Accept": "*/*", "Accept-Encoding": "identity"})
# What a request may keep when it is sent to another origin: what it asks for.
_NEUTRAL_FIELDS = ("Accept", "Accept-Encoding", "Range", "If-Range")

AuthHook = Callable[
    [str, dict[str, str], "dict[str, Any] | None", Config, str, "bytes | None"],
    "tuple[str, Mapping[str, str], Mapping[str, Any] | None]",
]
"""``(url, headers, query, config, method, body) -> (url, headers, query)``: what is returned is sent."""


def _root_of(origin: Origin, target: Target) -> str:
    """What the URLs of an endpoint begin with, its user info included."""
    userinfo = "" if target.userinfo is None else f"{target.userinfo}@"
    return f"{origin.scheme}://{userinfo}{origin.authority}"


def _basic(userinfo: str) -> str:
    """User info as a field's value (RFC 7617)."""
    return f"Basic {b2a_base64(unquote_to_bytes(userinfo), newline=False).decode()}"


class _HookFields(dict[str, str]):
    """Field lines as an auth hook gets them: its own to change, and shown without secrets."""

    def __repr__(self) -> str:
        return repr({name: "***" if name.lower() in SECRET_FIELDS else value for name, value in self.items()})


class DataEndpoint:
    """One namespace of one account's data plane.

    Args:
        config: what the caller has set.
        namespace: the path that all requests share, such as ``agents`` or ``sandboxes/sb-1``; ids in it go
            through :func:`path_segment` first.
        auth: a hook that authorises requests instead of the config's credential.
        credentials: where the credential comes from, instead of the config.
        resource: call with this resource's access token, which is fetched from the control plane with the
            access key, instead of signing each request. A token in the config wins.

    Raises:
        ValueError: no account and no endpoint, an invalid protocol, half an access key, a namespace that is
            no path, or a credential in the config beside a provider.

    >>> endpoint = DataEndpoint(Config(account_id="account", protocol="http"))
    >>> endpoint.url("resources?page=1", {"limit": 10})
    'http://account.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents/resources?page=1&limit=10'
    """

    __slots__ = (
        "_auth",
        "_authoriser",
        "_call_timeout",
        "_credentials",
        "_headers",
        "_own_origins",
        "_prefix",
        "_reserved",
        "_resource",
        "_root",
        "_transfer_timeout",
        "base_url",
        "config",
        "identity",
        "namespace",
        "origin",
        "retry",
        "standing",
    )

    nonce_size = 0

    def __init__(
        self,
        config: Config | None = None,
        namespace: str = "agents",
        *,
        auth: AuthHook | None = None,
        credentials: Provider | None = None,
        resource: Resource | None = None,
    ) -> None:
        if not isinstance(namespace, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers exist
            raise TypeError(f"a namespace is a str, not {type(namespace).__name__}")
        self.config: Config = config or Config()
        self.namespace: str = namespace
        self._auth = auth
        self._credentials = credentials
        self._resource = resource
        self.standing: Standing = Standing()
        self.identity: Identity = self._identify(self.config.credential)
        self.retry: Retry = self.config.attempts
        self._call_timeout = call_timeout(self.config.timeout)
        self._transfer_timeout = transfer_timeout(self.config.timeout)
        target = self.config.data_target()
        self._prefix = join_path(target.path, self.config.version_for(namespace), namespace).rstrip("/")
        # Requests that are signed with an access key have a host of their own; where the credential is still
        # to come, it is taken for an access key.
        self._own_origins = (target.origin, replace(target.origin, host=ram_host(target.origin.host)))
        static = self.identity.obtain is None
        signed = isinstance(self.identity.credential, AccessKey) if static else resource is None
        self.origin: Origin = self._own_origins[signed]
        self._authoriser = Authoriser(self.identity.credential, self.config.region)
        # Where the credential is still to come, it may be of either kind.
        self._reserved = self._authoriser.reserved_fields
        if self.identity.obtain is not None:
            self._reserved = RESERVED_FOR_KEY | RESERVED_FOR_TOKEN
        self._root = _root_of(self.origin, target)
        self.base_url: str = self._root + target.path.rstrip("/")
        self._headers = _default_fields()
        if target.userinfo is not None:
            self._headers = self._headers.merged({"Authorization": _basic(target.userinfo)})
        self._headers = self._with(self.config.headers)

    def _identify(self, credential: Credential | None) -> Identity:
        """Who is calling, and with what."""
        if self._credentials is not None and credential is not None:
            raise ValueError(
                "there is a credential in the config, and a provider beside it; give one of the two, since "
                "the parts of a credential are never mixed from two sources"
            )
        own = Identity(credential) if self._credentials is None else Identity.provided(self._credentials)
        if self._resource is None or isinstance(credential, AccessToken):
            return own
        return Identity(
            obtain=partial(ControlPlane(self.config, own, _default_fields()).obtain, self._resource)
        )

    def overlaid(self, config: Config | None, key: AccessKey | None = None) -> DataEndpoint:
        """This endpoint with a further config over its own, as `Config.merge` has it.

        A credential in it, or else `key`, is used as it is, instead of the endpoint's own, of a provider's
        and of a resource's token. What was learned of the endpoint, its credential and its quota for retries
        stay the same.
        """
        if config is None and key is None:
            return self
        own = self.config if key is None else self.config.with_credential(key)
        merged = own.merge(config)
        keeps_identity = merged.credential == self.config.credential
        overlaid = DataEndpoint(
            merged,
            self.namespace,
            auth=self._auth,
            credentials=self._credentials if keeps_identity else None,
            resource=self._resource if keeps_identity else None,
        )
        if keeps_identity:
            overlaid.identity = self.identity
        if overlaid._own_origins == self._own_origins:
            overlaid.standing = self.standing
        return overlaid

    def sibling(self, namespace: str) -> DataEndpoint:
        """Another namespace of the same data plane, for the same caller.

        Raises:
            ValueError, TypeError: it is no path.
        """
        found = DataEndpoint(
            self.config,
            namespace,
            auth=self._auth,
            credentials=self._credentials,
            resource=self._resource,
        )
        found.identity, found.standing = self.identity, self.standing
        return found

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
        existing = ""
        if is_plain_path(f"/{path}"):
            target = f"{self._prefix}/{path}"
        else:
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
            if name in self._reserved:
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
        idempotent: bool = False,
    ) -> Request:
        """A request for a path, not yet authorised.

        Args:
            method: such as ``GET``; sent as given.
            path, query: see `url`.
            data: see :func:`encode_body`.
            headers: fields of this request alone; they win over the config's.
            idempotent: the caller's word that sending it twice has the effect of sending it once; for GET,
                PUT and the like, and with an ``Idempotency-Key`` among the headers, that goes without saying.

        Raises:
            ValueError, TypeError: something that cannot be sent, or that is not the caller's to set.

        >>> DataEndpoint(Config(account_id="1")).request("POST", "r", data={"a": 1}).body.data
        b'{"a":1}'
        """
        return Request(
            method=method,
            origin=self.origin,
            target=self._target(path, query),
            headers=self._with(headers),
            body=encode_body(data),
            repeatable=idempotent,
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
            origin=self.origin,
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
        idempotent: bool = False,
        expect_continue: bool = False,
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
            origin=self.origin,
            target=self._target(path, query),
            headers=checked,
            body=encode_multipart(fields, files, boundary=boundary),
            repeatable=idempotent,
            expect_continue=expect_continue,
        )

    def sign(self, request: Request, now: float) -> Request:
        """The request, authorised for one attempt with the credential that is in use.

        Args:
            request: a request of this endpoint.
            now: wall time, seconds since the epoch.

        Returns:
            A new request. With an auth hook, what the hook returned; else the same with the field lines of
            the signature, or of the token, added.
        """
        return self.authorise(request, self.identity.credential, now, "")

    def authorise(self, request: Request, credential: Credential | None, now: float, nonce: str) -> Request:
        """`sign`, with a given credential; for flows."""
        if self._auth is not None:
            return self._hooked(self._auth, request)
        if self.identity.obtain is not None and request.origin in self._own_origins:
            request = replace(request, origin=self._own_origins[isinstance(credential, AccessKey)])
        return request.authorised(self._authoriser_for(credential).fields(request, now))

    def _authoriser_for(self, credential: Credential | None) -> Authoriser:
        kept = self._authoriser
        if kept.credential is not credential:
            kept = self._authoriser = Authoriser(credential, self.config.region)
        return kept

    def trusts(self, origin: Origin) -> bool:
        """Whether credential and headers may be sent there: to the endpoint, and whom the config lists."""
        own = (self.origin,) if self.identity.obtain is None else self._own_origins
        return origin in own or origin in (self.config.trusted_origins or ())

    def bare(self, request: Request, origin: Origin, target: str) -> Request:
        """The request for another origin: what it asks for, and nothing that says who asks."""
        configured = self.config.headers or Headers()
        kept = {name: request.headers.get(name) for name in _NEUTRAL_FIELDS if name not in configured}
        headers = _default_fields().merged({name: value for name, value in kept.items() if value is not None})
        return Request(method=request.method, origin=origin, target=target, headers=headers)

    def _hooked(self, auth: AuthHook, request: Request) -> Request:
        fields = _HookFields(request.headers.fields)
        if request.content_type is not None and "content-type" not in request.headers:
            fields["Content-Type"] = request.content_type
        url, returned, query = auth(request.url, fields, None, self.config, request.method, request.body.data)
        try:
            return self._as_told(request, url, returned, query)
        except (TypeError, ValueError) as error:
            complaint = bare(error)
        del returned  # a traceback may be shown with its locals
        raise complaint

    def _as_told(
        self, request: Request, url: str, returned: Mapping[str, str], query: Mapping[str, Any] | None
    ) -> Request:
        """The request as a hook wants it sent."""
        target = parse_url(merge_query(url, query))
        headers = Headers(returned)
        if headers.get("host", target.origin.authority) != target.origin.authority:
            raise ValueError("auth() returned a Host that is not the host of the URL it returned")
        if not headers.keys().isdisjoint(_TRANSPORT_FIELDS - {"host"}):
            raise ValueError(
                "auth() returned a header that is decided by the transport, such as Content-Length"
            )
        return replace(
            request,
            origin=target.origin,
            target=target.request_target,
            headers=Headers([line for line in headers.fields if line[0].lower() != "host"]),
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
            CredentialError: the credential has not been obtained yet; a call does that before it asks a hook.
        """
        target = parse_url(merge_query(url, query))
        if not self.trusts(target.origin):
            raise ValueError(f"the credential belongs to {self.origin}, and is not sent to {target.origin}")
        credential = self.identity.credential
        if credential is None and self.identity.obtain is not None:
            raise CredentialError("no credential has been obtained yet; make a call first")
        query_string = normalise_query(target.query)
        request = Request(
            method=method,
            origin=target.origin,
            target=f"{target.path}?{query_string}" if query_string else target.path,
            headers=self._with(headers),
        )
        authorised = self._authoriser_for(credential).fields(request, now)
        fields = {**dict(request.headers.fields), **dict(authorised)}
        return request.url, fields

    def decode(self, head: Head, content: bytes) -> dict[str, Any]:
        """See :func:`decode`."""
        return decode(head, content)

    def _context(
        self, timeout: Timeout, clock: Clock, listener: Listener | None, progress: Progress | None = None
    ) -> Context:
        observer = None if listener is None else Observer(listener)
        return Context(self, timeout, clock, observer, progress)

    def _timeout_for(self, request: Request) -> Timeout:
        """What is read while it is sent may take as long as it goes on."""
        body = request.body
        return self._transfer_timeout if body is not EMPTY and body.sources else self._call_timeout

    def call(
        self, request: Request, *, clock: Clock, listener: Listener | None = None
    ) -> Flow[dict[str, Any]]:
        """The flow that sends a request and returns the JSON object of the answer."""
        return call(self._context(self._timeout_for(request), clock, listener), request)

    def exchange(self, request: Request, *, clock: Clock, listener: Listener | None = None) -> Flow[Response]:
        """The flow that sends a request and returns the whole answer, whatever its status."""
        return exchange(self._context(self._timeout_for(request), clock, listener), request)

    def stream_request(
        self,
        method: str,
        path: str,
        *,
        data: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
    ) -> Request:
        """A request for an answer that is read while it arrives; the arguments are those of `request`."""
        return replace(
            self.request(method, path, data=data, query=query, idempotent=idempotent),
            headers=self._with(_FILE_FIELDS.merged(headers)),
        )

    def linked_request(self, url: str, headers: Mapping[str, str] | None = None) -> Request:
        """A GET for a live answer at a URL that an earlier answer has named.

        Args:
            url: absolute, of any origin. The credential and the config's headers go along where `trusts` says
                so; to any other origin, nothing but `headers` does.
            headers: the fields that the answer has named; where the request is signed, those that the
                signature decides are left out.

        Raises:
            ValueError, TypeError: no http or https URL, or a header that the transport decides.
        """
        target = parse_url(url)
        named = Headers(headers or {})
        trusted = self.trusts(target.origin)
        if trusted:
            named = Headers([line for line in named.fields if line[0].lower() not in self._reserved])
        elif not _TRANSPORT_FIELDS.isdisjoint(named):
            raise ValueError("the URL comes with a header that the transport decides")
        asked = _FILE_FIELDS.merged(named)
        return Request(
            method="GET",
            origin=target.origin,
            target=target.request_target,
            headers=self._with(asked) if trusted else _default_fields().merged(asked),
            anonymous=not trusted,
        )

    def invoke_super_agent(
        self, request: Request, *, clock: Clock, listener: Listener | None = None
    ) -> Flow[Invocation]:
        """The flow that sets a super agent to work, and returns where its answer is read."""
        return invoke(self._context(self._timeout_for(request), clock, listener), request)

    def stream(self, request: Request, *, clock: Clock, listener: Listener | None = None) -> Flow[None]:
        """The flow that delivers an answer while it arrives: its head first, then items; see `streams`."""
        return stream(self._context(self._transfer_timeout, clock, listener), request)

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
        idempotent: bool = False,
        progress: Progress | None = None,
        listener: Listener | None = None,
    ) -> Flow[dict[str, Any]]:
        """The flow that posts a local file as the part ``file`` of a form; returns the answer's JSON object.

        Args:
            path, query, headers, idempotent: as in `request`.
            local_path: the file to send.
            filename: the name to declare for it.
            boundary: see :func:`encode_multipart`.
            fields: the form's text fields.
            progress: is told how many bytes of the request were sent, and of how many.
        """

        return self.form(
            path,
            [FilePart(name="file", filename=filename, source=local_path)],
            boundary=boundary,
            clock=clock,
            fields=fields,
            query=query,
            headers=headers,
            idempotent=idempotent,
            progress=progress,
            listener=listener,
        )

    def form(
        self,
        path: str,
        files: Sequence[FilePart],
        *,
        boundary: str,
        clock: Clock,
        fields: Mapping[str, object] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        expect_continue: bool = False,
        progress: Progress | None = None,
        listener: Listener | None = None,
    ) -> Flow[dict[str, Any]]:
        """The flow that posts a form with any number of files; returns the answer's JSON object.

        Args:
            path, query, headers, idempotent: as in `request`.
            files: the parts that are files; those whose source is a path are opened first.
            boundary: see :func:`encode_multipart`.
            fields: the form's text fields, which come first.
            expect_continue: send the content once the service says that it wants it.
            progress: is told how many bytes of the request were sent, and of how many.
        """

        def build(opened: list[FilePart]) -> Request:
            return self.form_request(
                path,
                fields=fields,
                files=opened,
                boundary=boundary,
                query=query,
                headers=headers,
                idempotent=idempotent,
                expect_continue=expect_continue,
            )

        return upload(self._context(self._transfer_timeout, clock, listener, progress), files, build)

    def download(
        self,
        request: Request,
        local_path: str | BinaryIO,
        *,
        clock: Clock,
        resume: bool = False,
        sha256: str | None = None,
        progress: Progress | None = None,
        listener: Listener | None = None,
    ) -> Flow[int]:
        """The flow that saves the answer at a local path, whole or not at all; returns its size in bytes.

        Args:
            request: a `file_request`.
            local_path: where to; or an open binary file, which is written to from where it stands.
            resume: keep what has arrived when the rest does not, and go on from there the next time.
            sha256: what the whole must have, in hexadecimal digits.
            progress: is told how many bytes are there, and of how many.

        Raises:
            ValueError: no such checksum, or `resume` with an open file, which only its owner finds again.
        """
        if resume and not isinstance(local_path, str):
            raise ValueError("resume=True needs a path, where what has come is found again")
        return download(
            self._context(self._transfer_timeout, clock, listener),
            local_path,
            request,
            resume=resume,
            sha256=None if sha256 is None else check_sha256(sha256),
            progress=progress,
        )

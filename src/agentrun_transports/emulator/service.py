"""The service itself, small: a request value in, a response value out.

Rules that hold here:
1. No socket, no clock, no randomness. The time is ``now()``, names are ``new_id()``, and both are
   parameters. State is in memory, or in the folder given.
2. The order of checks is the order in which a caller can understand them: the fault that was asked for, who
   is calling, what is at that path, whether the body can be read, whether it makes sense.
3. Bodies are read before the lock is taken; what is done under it is short. Threads may share a service.
4. Whatever is refused is refused in the service's envelope, with a request id and a message that helps.
"""

from __future__ import annotations

import hmac
import threading
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from .chat import Chat
from .faults import Fault, Faults
from .feeds import routes as feed_routes
from .files import Files
from .forms import Form, read_form
from .messages import Refusal, Request, Response, StreamBody, invalid, json_response
from .ranges import http_date
from .resources import VERSION, Resources
from .routing import Body, Call, Router, read_json
from .sandbox import Sandboxes
from .store import Blobs, Records
from .super_agents import STREAMS, Runs, SuperAgents
from .verify import DATE_WINDOW, Account, verify_acs3, verify_agentrun4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

TOKEN_FIELD = "Agentrun-Access-Token"
KEY_FIELD = "Agentrun-Authorization"
FAULT_FIELD = "x-emulator-fault"

# The control plane's one call. What names the resource depends on its type.
TOKEN_PATH = (VERSION, "agents", "accessToken")
TOKEN_ACTION = "GetAccessToken"
RESOURCE_NAMED_BY = {
    "runtime": "resourceName",
    "litellm": "resourceName",
    "tool": "resourceName",
    "template": "resourceName",
    "sandbox": "resourceId",
    "knowledgebase": "resourceName",
}

DEFAULT_BODY_LIMIT = 2 << 30


class Service:
    """The AgentRun data plane, and GetAccessToken of the control plane, over values.

    - ``accounts``: the access keys that may sign; ``tokens``: the access tokens that are valid from the
      start.
    - ``region``: the region that signatures must name.
    - ``now``: returns the wall time, in seconds since the epoch. ``new_id``: returns text that it never
      returned before, fit for a file name.
    - ``folder``: where resources, files and sandboxes are kept, and found again by the next service that is
      given it (tokens, nonces and faults are not); it belongs to one service at a time. None: in memory.
    - ``body_limit``: the longest request body, in bytes.
    - ``origin``: where the streams of super agents are fetched, as ``scheme://authority``. ``streams``: the
      ``runs`` of the service that serves them there; None: this one.

    >>> import itertools
    >>> number = itertools.count(1)
    >>> service = Service(tokens=["t"], now=lambda: 0.0, new_id=lambda: f"id-{next(number)}")
    >>> ask = Request(method="GET", target="/2025-09-10/agents/resources?limit=5",
    ...               headers=(("Agentrun-Access-Token", "t"),))
    >>> answer = service.handle(ask)
    >>> answer.status, answer.json()
    (200, {'code': 'SUCCESS', 'requestId': 'id-1', 'data': {'items': [], 'total': 0, 'page': 1, 'limit': 5}})
    >>> service.handle(Request(method="GET", target="/sandboxes/x")).json()["code"]
    'ERR_UNAUTHORIZED'
    """

    def __init__(
        self,
        *,
        accounts: Iterable[Account] = (),
        tokens: Iterable[str] = (),
        region: str = "cn-hangzhou",
        now: Callable[[], float],
        new_id: Callable[[], str],
        folder: Path | None = None,
        body_limit: int = DEFAULT_BODY_LIMIT,
        origin: str = "http://localhost",
        streams: Runs | None = None,
    ) -> None:
        self.faults: Faults = Faults()
        self.runs: Runs = Runs()
        self.body_limit = body_limit
        self.token_fetches: int = 0
        self._accounts = {account.access_key_id: account for account in accounts}
        self._tokens = dict.fromkeys(tokens)
        self._nonces: dict[str, float] = {}
        self._region = region
        self._now = now
        self._new_id = new_id
        self._lock = threading.RLock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        records = Records(folder)
        self._blobs = Blobs(folder, new_id)
        rows = (row for table in records.everything().values() for row in table.values())
        self._blobs.sweep({row["blob"] for row in rows if isinstance(row.get("blob"), str)})
        self._router = Router(
            [
                *Chat(new_id).routes(),
                *SuperAgents(
                    records, new_id, own=self.runs, runs=streams or self.runs, origin=origin
                ).routes(),
                *feed_routes(),
                *Files(records, self._blobs).routes(),
                *Sandboxes(records, self._blobs, new_id).routes(),
                *Resources(records, new_id).routes(),
            ]
        )

    def add_token(self, token: str) -> None:
        """Make an access token valid."""
        with self._lock:
            self._tokens[token] = None

    def revoke_token(self, token: str) -> None:
        """Make an access token invalid, as when it has expired; it may be unknown."""
        with self._lock:
            self._tokens.pop(token, None)

    def admit(self, request: Request) -> Response | None:
        """Look at the head of a request whose body has not been read: the refusal (413), or None to go on."""
        length = request.header("Content-Length") or "0"
        if length.isdecimal() and int(length) > self.body_limit:
            return self.too_large(request)
        return None

    def too_large(self, request: Request) -> Response:
        """Return the refusal of a body that is longer than ``body_limit``."""
        request_id = self._new_id()
        refusal = Refusal(413, f"A body may have {self.body_limit} bytes.")
        return self._finish(request, self._refused(refusal, request_id), request_id)

    def broken(self, status: int, message: str) -> Response:
        """Return the answer to what could not be served: no HTTP (400), or an error here (500)."""
        request_id = self._new_id()
        request = Request(method="GET", target="/")
        return self._finish(request, self._refused(Refusal(status, message), request_id), request_id)

    def handle(self, request: Request) -> Response:
        """Serve one request. Faults come back as values in the response; the caller is to perform them.

        Errors of the machine (a full disk) are raised as they are.
        """
        request_id = self._new_id()
        fault = None
        try:
            fault = self.faults.take(request.method, request.path, request.header(FAULT_FIELD))
            if fault is not None:
                refusal = fault.refusal(by_key=request.header(KEY_FIELD) is not None)
                if refusal is not None:
                    raise refusal
            response = self._serve(request, request_id, fault)
        except Refusal as refusal:
            response = self._refused(refusal, request_id)
        response = self._finish(request, response, request_id)
        return response if fault is None else fault.apply(response)

    def _refused(self, refusal: Refusal, request_id: str) -> Response:
        if refusal.status == 502:  # SERVICE: a gateway's 502 is HTML
            page = f"<html><title>502 Bad Gateway</title><body>{escape(refusal.message)}</body></html>"
            headers = (("Content-Type", "text/html"), *refusal.headers)
            return Response(status=502, headers=headers, body=page.encode())
        envelope = {"code": refusal.code, "requestId": request_id, "message": refusal.message}
        return json_response(refusal.status, envelope, refusal.headers)

    def _finish(self, request: Request, response: Response, request_id: str) -> Response:
        """Add what every answer carries; to HEAD, say what GET would have brought."""
        headers = (
            *response.headers,
            ("Date", http_date(self._now())),
            ("x-acs-request-id", request_id),
        )
        # RFC 9110 8.6: a 204 has no length. That of a stream is not known.
        if response.status != 204 and not isinstance(response.body, StreamBody):
            headers = (("Content-Length", str(len(response.body))), *headers)
        return replace(response, headers=headers, body=b"" if request.method == "HEAD" else response.body)

    def _serve(self, request: Request, request_id: str, fault: Fault | None) -> Response:
        segments = request.segments()
        if segments == TOKEN_PATH:
            return self._enveloped(self._give_token(request), request_id)
        # What opens a super agent's stream is its session; see `super_agents`.
        self._authenticate(request, needed=segments[:-1] != STREAMS)
        if fault is not None:
            # After the signature has been checked: that is over what was sent.
            request = fault.misread(request)
        route, ids = self._router.find(request.method, segments)
        form = read_form(request, self._blobs) if route.body is Body.FORM else None
        try:
            value = self._call(
                route.handler, request, ids, read_json(request) if route.body is Body.JSON else {}, form
            )
        except BaseException:
            if form is not None:
                self._blobs.remove(form.stored.blob)
            raise
        if isinstance(value, Response):
            return value
        return json_response(200, value) if route.bare else self._enveloped(value, request_id)

    def _call(
        self,
        handler: Callable[[Call], Any],
        request: Request,
        ids: tuple[str, ...],
        data: dict[str, Any],
        form: Form | None,
    ) -> Any:
        call = Call(request=request, ids=ids, query=request.query(), data=data, form=form, now=self._now())
        with self._lock:
            return handler(call)

    @staticmethod
    def _enveloped(data: Any, request_id: str) -> Response:
        return json_response(200, {"code": "SUCCESS", "requestId": request_id, "data": data})

    def _authenticate(self, request: Request, *, needed: bool) -> None:
        """Check every credential that was sent; there must be one where it is ``needed``.

        Raises ``Refusal`` (401, 403).
        """
        tokens, keys = request.values(TOKEN_FIELD), request.values(KEY_FIELD)
        if needed and not tokens and not keys:
            raise Refusal(
                401, f"Who is calling? Send {TOKEN_FIELD}, or sign with an access key ({KEY_FIELD})."
            )
        if keys:
            verify_agentrun4(request, self._accounts, region=self._region, now=self._now())
        if tokens:
            with self._lock:
                known = [token.encode() for token in self._tokens]
            sent = tokens[0].encode("latin-1")
            if len(tokens) != 1 or not any(hmac.compare_digest(sent, token) for token in known):
                raise Refusal(401, "The access token is unknown or has expired; fetch a new one.")

    def _give_token(self, request: Request) -> Any:
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "An access token is fetched with GET.", headers=(("Allow", "GET, HEAD"),))
        now = self._now()
        _, nonce = verify_acs3(
            request, request.body.read(), self._accounts, action=TOKEN_ACTION, version=VERSION, now=now
        )
        with self._lock:
            self._nonces = {old: then for old, then in self._nonces.items() if now - then <= 2 * DATE_WINDOW}
            if nonce in self._nonces:
                raise Refusal(
                    400, "This nonce was used before; sign each request afresh.", code="SignatureNonceUsed"
                )
            self._nonces[nonce] = now
        query = request.query()
        kind = query.get("resourceType", "")
        named_by = RESOURCE_NAMED_BY.get(kind)
        if named_by is None:
            raise invalid(f"'resourceType' must be one of {', '.join(RESOURCE_NAMED_BY)}, and is {kind!r}.")
        if not query.get(named_by):
            raise invalid(f"A {kind} is named by {named_by!r}.")
        with self._lock:
            self.token_fetches += 1
            token = f"token-{self._new_id()}"
            self.add_token(token)
        return {"accessToken": token}

"""Access tokens for resources, which the control plane gives to the owner of an access key.

Rules of this file: a token is fetched by the same flow as everything else; the access key that pays for it
goes to the control plane alone.

Source: the published client (GetAccessToken, ACS3-HMAC-SHA256).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from .commands import Clock, Flow
from .config import Config, Retry, call_timeout
from .context import Context, Identity, Standing
from .credentials import AccessKey, AccessToken, Credential
from .errors import AgentRunClientError, CredentialError, DecodeError
from .flows import call
from .messages import Headers, Request
from .signing import sign_acs3
from .telemetry import Observer
from .urls import Origin, encode_query, merge_pairs

ACTION = "GetAccessToken"
API_VERSION = "2025-09-10"
PATH = f"/{API_VERSION}/agents/accessToken"

# Which parameter names a resource: its id for these kinds, its name for all others.
_NAMED_BY_ID = frozenset({"sandbox"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource, as the control plane names it.

    Args:
        type: ``runtime``, ``litellm``, ``tool``, ``template``, ``sandbox`` or ``knowledgebase``.
        name: its name; of a sandbox, its id.

    Raises:
        ValueError: one of the two is empty.
    """

    type: str
    name: str

    def __post_init__(self) -> None:
        if not self.type or not self.name:
            raise ValueError("a resource has a type and a name; one of them is empty")

    @property
    def query(self) -> dict[str, str]:
        """The parameters that name it."""
        named_by = "resourceId" if self.type in _NAMED_BY_ID else "resourceName"
        return {named_by: self.name, "resourceType": self.type}


class ControlPlane:
    """The control plane, as far as access tokens go.

    Args:
        config: has its endpoint and region, and how requests are sent.
        identity: the access key.
        fields: sent with every request.

    Raises:
        ValueError: the control endpoint cannot be one.
    """

    __slots__ = ("_config", "_fields", "_origin", "_prefix", "identity", "retry", "standing")

    nonce_size = 16

    def __init__(self, config: Config, identity: Identity, fields: Headers) -> None:
        target = config.control_target()
        self._config = config
        self._origin = target.origin
        self._prefix = target.path.rstrip("/")
        self._fields = fields
        self.identity: Identity = identity
        self.standing: Standing = Standing()
        self.retry: Retry = config.attempts

    def authorise(self, request: Request, credential: Credential | None, now: float, nonce: str) -> Request:
        """The request, signed with ACS3."""
        if not isinstance(credential, AccessKey):
            raise CredentialError(
                "an access token is fetched with an access key; set access_key_id and access_key_secret, "
                "or give a provider of access keys"
            )
        signed = sign_acs3(request, credential, action=ACTION, version=API_VERSION, nonce=nonce, now=now)
        return replace(request, signature=signed)

    def trusts(self, origin: Origin) -> bool:
        """Nobody but the control plane itself."""
        return origin == self._origin

    def bare(self, request: Request, origin: Origin, target: str) -> Request:
        """The request for another origin."""
        return Request(method=request.method, origin=origin, target=target, headers=self._fields)

    def obtain(self, resource: Resource, clock: Clock, observer: Observer | None) -> Flow[AccessToken]:
        """The flow that fetches a resource's access token.

        Raises:
            CredentialError: the control plane gave none; its error is the cause.
        """
        query = merge_pairs("", encode_query(resource.query))
        request = Request(
            method="GET", origin=self._origin, target=f"{self._prefix}{PATH}?{query}", headers=self._fields
        )
        # It may run beside the call that needs it: a call of its own.
        own = None if observer is None else Observer(observer.tell)
        context = Context(self, call_timeout(self._config.timeout), clock, own)
        try:
            answer = yield from call(context, request)
        except CredentialError:
            raise
        except DecodeError as error:
            # Neither its content nor the frames that hold it go any further: there may be a token in them.
            told = CredentialError(
                f"no access token for the {resource.type} {resource.name!r}: {error.message}",
                status_code=error.status_code,
                request_id=error.request_id,
            )
        except AgentRunClientError as error:
            raise CredentialError(
                f"no access token for the {resource.type} {resource.name!r}: {error.message}",
                status_code=error.status_code,
                error_code=error.error_code,
                request_id=error.request_id,
            ) from error
        else:
            found = _token_in(answer)
            if isinstance(found, AccessToken):
                return found
            del answer
            told = found
        raise told


def _token_in(answer: dict[str, Any]) -> AccessToken | CredentialError:
    """The token that an answer holds; where it holds none, the error, without the frames that hold it."""
    data = answer.get("data")
    token: Any = cast("dict[str, Any]", data).get("accessToken") if isinstance(data, dict) else None
    try:
        return AccessToken(token=token)
    except (TypeError, ValueError) as error:
        return CredentialError(f"the control plane's answer holds no access token: {error}", status_code=200)

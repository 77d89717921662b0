"""From an error to what is told about it, and to the exit code.

Rules of this file: both are tables, the first class that fits decides; a hint says what to do, and names the
command or the flag to do it with.
"""

from __future__ import annotations

import re

from agentrun_proto import (
    AgentRunClientError,
    AuthenticationError,
    BodyError,
    ClientError,
    ConnectError,
    ConnectTimeout,
    CredentialError,
    DecodeError,
    FileError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProtocolError,
    RedirectError,
    RequestTimeoutError,
    ServerError,
    ServiceUnavailableError,
    TimeoutExceeded,
    TLSError,
    TooManyRequestsError,
    TransportError,
)

from .screen import Failure

DONE = 0
REFUSED = 1
MISUSE = 2
NETWORK = 3
INTERRUPTED = 130  # what a shell shows for a program that SIGINT ended: 128 + 2
CLOSED_PIPE = 141  # and SIGPIPE: 128 + 13

EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (TransportError, NETWORK),
    (FileError, MISUSE),  # a local file: neither the service nor the network is at fault
    (CredentialError, MISUSE),  # a setting: nothing was sent
    (AgentRunClientError, REFUSED),
    (Exception, MISUSE),
)

_AGAIN = "Try again."
_LATER = "Try again later, or let it be tried more often: --attempts N."
HINTS: tuple[tuple[type[AgentRunClientError], str], ...] = (
    (
        AuthenticationError,
        "No credential was sent, or it is not accepted: `agentrun-data config` shows which is in force.",
    ),
    (
        PermissionDeniedError,
        "The credential may not do this, or the signature is refused: check key, secret and region "
        "(`agentrun-data config`).",
    ),
    (
        NotFoundError,
        "Check the path and --namespace: `agentrun-data config` shows the URL that paths are joined to.",
    ),
    (MethodNotAllowedError, "Nothing takes this method at this path: check both, and --namespace."),
    (PayloadTooLargeError, "Send large content as a file: `agentrun-data upload`."),
    (RequestTimeoutError, _LATER),
    (TooManyRequestsError, _LATER),
    (ServiceUnavailableError, _LATER),
    (
        RedirectError,
        "Only GET is followed elsewhere, and never from https to http: if this is where the service is now, "
        "give it as --endpoint URL.",
    ),
    (ClientError, "The service finds the request at fault: correct what the message names."),
    (ServerError, "The service failed: try again, and if it stays so, give its support the request id."),
    (
        DecodeError,
        "JSON is read with `agentrun-data get` and the like, anything else with `agentrun-data download`.",
    ),
    (FileError, "Check the local path, and that you may read or write there."),
    (CredentialError, "Check where the credential comes from: `agentrun-data config` shows it."),
    (TLSError, "Check --endpoint: https must be spoken there, with a certificate this machine trusts."),
    (ConnectTimeout, "Check --endpoint and the network; allow more time with --timeout SECONDS."),
    (
        ConnectError,
        "Check --endpoint, --account-id and --region (`agentrun-data config`), and the network.",
    ),
    (TimeoutExceeded, "Allow more time with --timeout SECONDS."),
    (
        ProtocolError,
        "Is this an AgentRun endpoint, and http or https right? `agentrun-data config` shows it.",
    ),
    (BodyError, "The file changed while it was sent: try again when it is at rest."),
    (TransportError, _AGAIN),
)

HINTS_OF: tuple[tuple[str, type[AgentRunClientError], str], ...] = (
    ("chat", NotFoundError, "Check the runtime's name and --endpoint-name."),
    (
        "chat",
        DecodeError,
        "Does this runtime speak OpenAI's protocol? `agentrun-data stream` shows any answer.",
    ),
    (
        "download",
        DecodeError,
        "JSON is read with `agentrun-data get`; what is damaged may be whole when it is saved again.",
    ),
    ("stream", DecodeError, "Without --events and --lines, content is shown as it comes."),
)
"""What fits one command better; it comes before `HINTS`."""

GO_ON = "Run it again to go on from what has arrived."
"""Comes after the hint where a download with --resume broke off."""

# What another run may not meet.
_PASSING = (TransportError, ServerError, RequestTimeoutError, TooManyRequestsError)

# The commands whose repetition may do a thing twice (RFC 9110, 9.2.2).
REPEATING_HARMS = frozenset({"chat", "patch", "post", "upload"})


def exit_code(error: Exception) -> int:
    """The exit code of an error.

    >>> [exit_code(error) for error in (NotFoundError("no sandbox"), ConnectError("refused"), ValueError())]
    [1, 3, 2]
    """
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def describe(error: Exception, command: str, *, resumes: bool = False) -> Failure:
    """What is told about an error of a command; `resumes` says that running it again goes on.

    >>> describe(ConnectError("refused"), "get").facts[0][0]
    'hint'
    >>> describe(ValueError("no such thing"), "get")
    Failure(message='no such thing', facts=(('hint', '`agentrun-data get --help` shows how.'),))
    """
    if isinstance(error, OSError):  # of a local file, or of a port: its own words are all there is
        what = error.strerror or str(error)
        return Failure(message=f"{error.filename}: {what}" if error.filename else what)
    if not isinstance(error, AgentRunClientError):
        hint = ("hint", f"`agentrun-data {command} --help` shows how.")
        return Failure(message=str(error), facts=(hint,))
    facts = (
        ("status", str(error.status_code) if error.status_code else None),
        ("code", error.error_code),
        ("request id", error.request_id),
        ("location", error.location if isinstance(error, RedirectError) else None),
        ("attempts", _attempts(error)),
        ("retry after", None if error.retry_after is None else f"{error.retry_after:g} s"),
        ("warning", _warning(error, command)),
        ("hint", _hint(error, command, resumes)),
    )
    return Failure(message=error.message, facts=tuple((name, told) for name, told in facts if told))


def _hint(error: AgentRunClientError, command: str, resumes: bool) -> str | None:
    own = ((kind, hint) for name, kind, hint in HINTS_OF if name == command)
    hint = next((hint for kind, hint in (*own, *HINTS) if isinstance(error, kind)), None)
    if resumes and isinstance(error, _PASSING):
        return GO_ON if hint == _AGAIN else f"{hint} {GO_ON}"
    return hint


def _attempts(error: AgentRunClientError) -> str | None:
    """How many attempts there were and why each failed, where there was more than one."""
    # The last one's request id is told by itself; of the others, it is no reason.
    reasons = [re.sub(r", request id .*\)$", ")", reason) for reason in error.attempts]
    if len(reasons) < 2:
        return None
    if len(set(reasons)) == 1:
        return f"{len(reasons)}, which all failed like this"
    return f"{len(reasons)}: " + "; ".join(f"{number}. {why}" for number, why in enumerate(reasons, 1))


def _warning(error: AgentRunClientError, command: str) -> str | None:
    if (
        isinstance(error, (TransportError, FileError, ServerError))
        and error.may_be_processed
        and command in REPEATING_HARMS
    ):
        return "The service may have acted on the request: look before you send it again."
    return None

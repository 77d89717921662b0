"""Faults on demand: what is to go wrong, as values.

A fault comes in a request's own ``x-emulator-fault`` field, or is laid out beforehand in ``Service.faults``.

Rules that hold here:
1. A fault changes what the answer is or how it travels, never what the service knows: a request whose
   answer is delayed, cut, dropped or wrong **has been carried out**. That is the unlucky case, the one that
   clients must survive. With ``status`` and ``expired_token`` the request is refused, or sent elsewhere,
   instead, and nothing has happened.
2. Nothing is random. A fault applies to the first N requests that it fits, and then no more.
"""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass, fields, replace
from typing import cast, get_args

from .checksums import falsified
from .messages import Ending, Refusal, Request, Response
from .ranges import Misreading, misread

# The longest pause that may be asked for, in seconds: longer is a slip of the pen.
_MAX_DELAY = 3600.0
# How many different fault texts are counted for `times`; the oldest are forgotten beyond it.
_MAX_TEXTS = 1000

# What a field of an answer may hold here: printable ASCII, no white space around it.
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

# The statuses that say where else to go; others of their family have no content, or no place to go to.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_FLAGS = {"drop", "drop-before", "expired-token", "wrong-checksum"}
_TEXTS = {"retry-after", "location"}
_PATTERNS = {
    "delay": r"[0-9]{1,4}(\.[0-9]{1,6})?",
    "pace": r"[0-9]{1,4}(\.[0-9]{1,6})?",
    "status": r"[0-9]{3}",
    "cut": r"[0-9]{1,15}",
    "slow": r"[1-9][0-9]{0,11}",
    "after": r"[0-9]{1,9}",
    "then": "|".join(get_args(Ending)),
    "wrong-range": "|".join(get_args(Misreading)),
    "times": r"[1-9][0-9]{0,8}",
}

HELP = (
    "x-emulator-fault is a list of these, separated by ';': delay=SECONDS, status=400..599, retry-after=TEXT "
    "(with status), location=URL (with status=301, 302, 303, 307 or 308), drop, drop-before, cut=BYTES, "
    "slow=BYTES-PER-SECOND, pace=SECONDS (between the events of a stream), then=cut, stall or error (with "
    "after=EVENTS), wrong-range=ignored or shifted, wrong-checksum, expired-token, times=COUNT. For example: "
    "status=503; retry-after=1; times=2"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    - ``delay``: seconds before the answer is sent.
    - ``status``: refuse with this status (400 to 599) instead of serving; 502 comes as HTML, as from a
      gateway. ``retry_after`` is the text of the Retry-After field that goes with it. With ``location``,
      the text of that field, it is a redirect: 301, 302, 303, 307 or 308.
    - ``drop``: serve, then close the connection without an answer.
    - ``drop_before``: serve and answer, then close as the connection's *next* request arrives, before
      reading it.
    - ``cut``: serve, send the head and this many bytes of the body, then close.
    - ``slow``: send the body at so many bytes a second.
    - ``pace``: seconds between the events of a streamed answer.
    - ``then``: what happens to a streamed answer ``after`` so many events: ``cut`` closes the connection;
      ``stall`` sends nothing more until the client leaves; ``error`` sends an event that tells of an error,
      and ends the stream. A stream with fewer events is not touched, nor is an answer that is no stream.
    - ``wrong_range``: answer a range with everything (``ignored``), or with a range that begins elsewhere
      (``shifted``).
    - ``wrong_checksum``: send the checksums of other content.
    - ``expired_token``: refuse as the service refuses a credential that has expired.

    Raises ``ValueError`` where a number is out of range, or nothing goes wrong at all.

    >>> Fault(status=503, retry_after="1").retry_after
    '1'
    >>> Fault(cut=-1)
    Traceback (most recent call last):
    ...
    ValueError: cut is a number of bytes, 0 or more
    """

    delay: float = 0.0
    status: int | None = None
    retry_after: str | None = None
    location: str | None = None
    drop: bool = False
    drop_before: bool = False
    cut: int | None = None
    slow: int | None = None
    pace: float = 0.0
    after: int = 0
    then: Ending | None = None
    wrong_range: Misreading | None = None
    wrong_checksum: bool = False
    expired_token: bool = False

    def __post_init__(self) -> None:
        for name, seconds in (("delay", self.delay), ("pace", self.pace)):
            if not (math.isfinite(seconds) and 0 <= seconds <= _MAX_DELAY):
                raise ValueError(f"{name} is a number of seconds, 0 to {_MAX_DELAY:.0f}")
        if self.location is not None and self.status not in _REDIRECTS:
            raise ValueError(f"location goes with a status of {', '.join(map(str, sorted(_REDIRECTS)))}")
        if self.location is None and self.status is not None and not 400 <= self.status <= 599:
            raise ValueError("status is a number from 400 to 599; a redirect has a location")
        if self.retry_after is not None and self.status is None:
            raise ValueError("retry-after goes with a status")
        for name, value in (("retry-after", self.retry_after), ("location", self.location)):
            if value is not None and not _FIELD_VALUE.fullmatch(value):
                raise ValueError(f"{name} is printable ASCII")
        if self.cut is not None and self.cut < 0:
            raise ValueError("cut is a number of bytes, 0 or more")
        if self.slow is not None and self.slow < 1:
            raise ValueError("slow is a number of bytes in a second, 1 or more")
        if self.after < 0 or (self.after and self.then is None):
            raise ValueError("after is a number of events, 0 or more, and goes with then")
        if all(getattr(self, each.name) == each.default for each in fields(self)):
            raise ValueError("a fault must do something")

    def refusal(self, *, by_key: bool) -> Refusal | None:
        """Return the refusal that this fault stands for, if it is one.

        ``by_key`` says that the caller signed with an access key, whose security token is then what has
        expired; else it is the access token.
        """
        if self.expired_token and by_key:
            # The name that the vendor's services use; unchecked against the live data plane.
            return Refusal(403, "The security token has expired.", code="InvalidSecurityToken.Expired")
        if self.expired_token:
            return Refusal(401, "The access token has expired; fetch a new one.", code="ERR_TOKEN_EXPIRED")
        if self.status is not None:
            fields = (("Retry-After", self.retry_after), ("Location", self.location))
            headers = tuple((name, value) for name, value in fields if value is not None)
            return Refusal(self.status, "This fault was asked for.", headers=headers)
        return None

    def misread(self, request: Request) -> Request:
        """Return ``request`` as it is understood under this fault."""
        return request if self.wrong_range is None else misread(request, self.wrong_range)

    def apply(self, response: Response) -> Response:
        """Return ``response`` with this fault's effects on it and on its way."""
        return replace(
            response,
            headers=falsified(response.headers) if self.wrong_checksum else response.headers,
            delay=self.delay,
            cut_after=self.cut,
            drop=self.drop,
            drop_next=self.drop_before,
            rate=self.slow,
            pace=self.pace,
            ending=self.then,
            events_before=self.after,
        )


def parse_fault(text: str) -> tuple[Fault, int | None]:
    """Read the value of an ``x-emulator-fault`` field: the fault, and for how many requests (None: always).

    Raises ``Refusal`` (400) that says what may be written.

    >>> parse_fault("cut=100; times=2")[0].cut
    100
    """
    values: dict[str, str] = {}
    for piece in text.split(";"):
        name, equals, value = piece.strip().partition("=")
        if (
            name in values
            or (name in _FLAGS) == bool(equals)
            or name not in _FLAGS | _PATTERNS.keys() | _TEXTS
        ):
            raise Refusal(400, f"{piece.strip()!r} is no fault, or stands here twice. {HELP}")
        values[name] = value
    try:
        for name, pattern in _PATTERNS.items():
            if name in values and not re.fullmatch(pattern, values[name]):
                raise ValueError(f"{name}={values[name]} does not fit")
        if ("after" in values) != ("then" in values):
            raise ValueError("after and then go together")
        times = int(values["times"]) if "times" in values else None
        fault = Fault(
            delay=float(values.get("delay", 0)),
            status=int(values["status"]) if "status" in values else None,
            retry_after=values.get("retry-after"),
            location=values.get("location"),
            drop="drop" in values,
            drop_before="drop-before" in values,
            cut=int(values["cut"]) if "cut" in values else None,
            slow=int(values["slow"]) if "slow" in values else None,
            pace=float(values.get("pace", 0)),
            after=int(values.get("after", 0)),
            then=cast("Ending | None", values.get("then")),
            wrong_range=cast("Misreading | None", values.get("wrong-range")),
            wrong_checksum="wrong-checksum" in values,
            expired_token="expired-token" in values,
        )
    except ValueError as error:
        raise Refusal(400, f"{error}. {HELP}") from None
    return fault, times


@dataclass(slots=True)
class _Planned:
    """A fault that waits for requests; counted down under the lock of ``Faults``."""

    fault: Fault
    left: int | None
    method: str
    prefix: str


class Faults:
    """The faults that wait, in the order in which they were added. Threads may share it.

    >>> faults = Faults()
    >>> faults.add(Fault(status=503), count=1, match="GET /sandboxes")
    >>> for _ in range(2):
    ...     print(faults.take("GET", "/sandboxes/1", None) is not None)
    True
    False
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[_Planned] = []
        self._seen: dict[str, int] = {}

    def add(self, fault: Fault, *, count: int | None = 1, match: str = "") -> None:
        """Let ``fault`` befall the next ``count`` requests that fit ``match`` (None: all of them, until
        cleared).

        ``match`` is ``"METHOD /path-prefix"``, a method alone, a path prefix alone, or empty for every
        request. Raises ``ValueError`` for anything else, and for a count below 1.
        """
        method, _, prefix = match.rpartition(" ") if "/" in match else (match, "", "")
        if (prefix and not prefix.startswith("/")) or (method and not method.isalpha()):
            raise ValueError('match is "METHOD /path-prefix", either of the two, or empty')
        if count is not None and count < 1:
            raise ValueError("count is 1 or more, or None")
        with self._lock:
            self._planned.append(_Planned(fault, count, method.upper(), prefix))

    def clear(self) -> None:
        """Forget every fault that still waits, and every count of ``times``."""
        with self._lock:
            self._planned.clear()
            self._seen.clear()

    def take(self, method: str, path: str, text: str | None) -> Fault | None:
        """Return the fault for this request, and count it.

        ``text`` is the request's own ``x-emulator-fault`` field, which comes before what was added. Raises
        ``Refusal`` (400) where it cannot be read.
        """
        if text is not None:
            fault, times = parse_fault(text)
            return fault if times is None or self._count(text) <= times else None
        with self._lock:
            for planned in self._planned:
                if planned.method in ("", method) and path.startswith(planned.prefix):
                    if planned.left is not None:
                        planned.left -= 1
                        if planned.left == 0:
                            self._planned.remove(planned)
                    return planned.fault
        return None

    def _count(self, text: str) -> int:
        with self._lock:
            if text not in self._seen and len(self._seen) >= _MAX_TEXTS:
                del self._seen[next(iter(self._seen))]
            self._seen[text] = self._seen.get(text, 0) + 1
            return self._seen[text]

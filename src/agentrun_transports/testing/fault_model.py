"""What goes wrong in a simulation, and how likely each of it is.

Rules of this file: values only; a probability is from 0 to 1, and nothing here draws.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultModel:
    """Which faults there are, each with its probability.

    For each connection that is attempted:

    - ``refused``: nobody listens. ``unreachable``: nobody answers, ever. ``slow_connect``: up to 5 s.
    - ``stale``: it is closed by the service after a short time without a request.

    For each request on its way to the service:

    - ``late_request``: by up to 2 s, so that another connection's may overtake it.
    - ``lost_request``: the connection is reset as it arrives, and the service does not see it.

    For each answer on its way to the client (of a stream, for each of its events):

    - ``late_answer``: by up to 5 s. ``split``: it comes in pieces. ``slow``: with up to 3 s between these.
    - ``cut``, ``half_closed``, ``reset``: the connection ends amid it; half-closed, the service still reads.
    - ``silent``: nothing more comes, and the connection stays open.
    - ``stray``: an answer that nobody has asked for follows it at once.

    For each request that the service is asked:

    - ``busy``: 503 or 429 with Retry-After, nothing done. ``failing``: 500. ``expired``: the credential is.
    - ``stream_error``: a stream says after some events that it has failed. ``wrong_checksum``: of a download.

    For the whole: ``skewed``: the service's clock is off, by up to two hours.

    Raises:
        ValueError: a number that is no probability.

    >>> FaultModel.only(reset=0.5).late_answer
    0.0
    """

    refused: float = 0.03
    unreachable: float = 0.005
    slow_connect: float = 0.1
    stale: float = 0.1
    late_request: float = 0.15
    lost_request: float = 0.01
    late_answer: float = 0.2
    split: float = 0.1
    slow: float = 0.02
    cut: float = 0.01
    half_closed: float = 0.01
    reset: float = 0.015
    silent: float = 0.005
    stray: float = 0.01
    busy: float = 0.03
    failing: float = 0.01
    expired: float = 0.01
    stream_error: float = 0.01
    wrong_checksum: float = 0.01
    skewed: float = 0.05

    def __post_init__(self) -> None:
        for each in fields(self):
            if not 0 <= getattr(self, each.name) <= 1:
                raise ValueError(f"{each.name} is a probability, from 0 to 1")

    @classmethod
    def only(cls, **odds: float) -> FaultModel:
        """Nothing but these.

        Raises:
            TypeError: there is no such fault.
        """
        return cls(**{**{each.name: 0.0 for each in fields(cls)}, **odds})

"""What "fast enough" means here, as data: each bar compares one figure of ours with the sum of others, or
with a number.

A bar never fails a run: whether a machine is quiet enough to judge by is for a person to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.results import SectionResult

OURS = "agentrun-proto"
MIB = 1024 * 1024
TRANSFERS = tuple(
    f"{transfer}{loop}" for loop in ("", "-asyncio", "-trio") for transfer in ("download", "multipart")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Ours, in `section`, may be at most `at_most` times the sum of `against` (contender, or
    section/contender).

    With nothing to compare with, the figure itself is held against `at_most`.
    """

    what: str
    section: str
    against: tuple[str, ...]
    at_most: float
    figure: str = "cpu"
    scale: float = 1.0  # for a figure that is held against a number: its unit

    def measure(self, results: Mapping[str, SectionResult]) -> float | None:
        """Return what was measured, or None if a row that it needs is not there."""
        ours = self._find(results, OURS)
        others = [self._find(results, name) for name in self.against]
        if ours is None:
            return None
        if not others:
            return ours * self.scale
        known = [other for other in others if other is not None]
        return ours / sum(known) if len(known) == len(others) else None

    def _find(self, results: Mapping[str, SectionResult], name: str) -> float | None:
        section, _, contender = name.rpartition("/")
        result = results.get(section or self.section)
        row = result.row(contender) if result else None
        if row is None:
            return None
        return row.most(self.figure) if self.figure == "memory_growth" else row.least(self.figure)


BARS: tuple[Bar, ...] = (
    Bar(
        what="blocking, signed: CPU against urllib3's plain request",
        section="json-blocking",
        against=("urllib3 plain",),
        at_most=1.0,
    ),
    Bar(what="blocking: CPU against urllib3", section="json-blocking", against=("urllib3",), at_most=0.40),
    Bar(
        what="blocking: CPU against the official client",
        section="json-blocking",
        against=("agentrun-sdk",),
        at_most=1 / 200,
    ),
    Bar(
        what="asyncio, 32: CPU against aiohttp", section="json-asyncio-32", against=("aiohttp",), at_most=0.45
    ),
    Bar(
        what="asyncio, 32: CPU against pooled httpx",
        section="json-asyncio-32",
        against=("httpx",),
        at_most=1 / 20,
    ),
    Bar(
        what="asyncio, 32: CPU against 2 x raw, plus signing",  # "raw, signed" is one raw and the signing
        section="json-asyncio-32",
        against=("raw", "raw, signed"),
        at_most=1.0,
    ),
    Bar(what="trio, 32: CPU against httpcore", section="json-trio-32", against=("httpcore",), at_most=1 / 8),
    *(
        Bar(
            what=f"{loop}: CPU at 1,000 in flight against 1",
            section=f"json-{loop}-1000",
            against=(f"json-{loop}-1/{OURS}",),
            at_most=4 / 3,
        )
        for loop in ("asyncio", "trio")
    ),
    Bar(
        what="build and sign: CPU against httpx's unsigned build",
        section="build",
        against=("httpx",),
        at_most=1.0,
    ),
    *(
        Bar(
            what=f"events, {loop}: CPU against raw, with the JSON parsed",
            section=f"events-{loop}",
            against=("raw",),
            at_most=2.0,
        )
        for loop in ("blocking", "asyncio", "trio")
    ),
    *(
        Bar(
            what=f"{transfer}: wall time against raw",
            section=transfer,
            against=("raw",),
            at_most=1 / 0.8,
            figure="wall",
        )
        for transfer in TRANSFERS
    ),
    *(
        Bar(
            what=f"{transfer}: growth of memory, MiB",
            section=transfer,
            against=(),
            at_most=2,
            figure="memory_growth",
            scale=1 / MIB,
        )
        for transfer in TRANSFERS
    ),
    Bar(
        what="import: CPU over a bare interpreter, ms", section="footprint", against=(), at_most=25, scale=1e3
    ),
    Bar(
        what="install: distributions, h11 and ours",
        section="footprint",
        against=(),
        at_most=2,
        figure="distributions",
    ),
    Bar(
        what="install: size, MiB",
        section="footprint",
        against=(),
        at_most=1,
        figure="installed",
        scale=1 / MIB,
    ),
)

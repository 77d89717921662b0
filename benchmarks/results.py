"""The figures: what was measured, what follows from it, and both as JSON.

All times are in seconds per call. The minimum is the cost of the work with the least noise upon it, the
median tells what to expect; ratios are of minimums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(slots=True, kw_only=True)
class Row:
    """One contender in one section. `rounds` holds what each round reported."""

    contender: str
    version: str
    calls: int
    planned_rounds: int
    rounds: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def least(self, figure: str) -> float:
        return min(played[figure] for played in self.rounds)

    def middle(self, figure: str) -> float:
        return median(played[figure] for played in self.rounds)

    def most(self, figure: str) -> float:
        return max(played[figure] for played in self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Who is not in the table, and why. `kind` is "missing" (not installed), "failed" or "left out"."""

    contender: str
    why: str
    kind: str = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionResult:
    """One section's rows, in the order of the contenders' table."""

    name: str
    title: str
    rows: list[Row]
    missing: list[Missing]
    loop: str = "none"
    in_flight: int = 1
    unit: str = "µs"
    limit: str = ""
    peers: tuple[str, ...] = ()
    transfer_bytes: int = 0
    extras: tuple[str, ...] = ()

    def row(self, contender: str) -> Row | None:
        return next((row for row in self.rows if row.contender == contender), None)

    def ratio(self, row: Row, to: str) -> float | None:
        """Return how many times the CPU of `to` this row took."""
        other = self.row(to)
        return None if other is None else row.least("cpu") / other.least("cpu")

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "loop": self.loop,
            "in_flight": self.in_flight,
            "unit": self.unit,
            "limit": self.limit,
            "peers": list(self.peers),
            "transfer_bytes": self.transfer_bytes,
            "rows": [self._row_as_json(row) for row in self.rows],
            "missing": [{"contender": m.contender, "why": m.why, "kind": m.kind} for m in self.missing],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> SectionResult:
        """Return what `as_json` gave, as far as figures and bars go."""
        rows = [
            Row(
                contender=row["contender"],
                version=row["version"],
                calls=row["calls_per_round"],
                planned_rounds=len(row["rounds"]),
                rounds=row["rounds"],
            )
            for row in document["rows"]
        ]
        missing = [Missing(**each) for each in document["missing"]]
        return cls(name=document["name"], title=document["title"], rows=rows, missing=missing)

    def _row_as_json(self, row: Row) -> dict[str, Any]:
        ratios = {name: self.ratio(row, name) for name in dict.fromkeys((self.limit, *self.peers)) if name}
        return {
            "contender": row.contender,
            "version": row.version,
            "calls_per_round": row.calls,
            "cpu_min": row.least("cpu"),
            "cpu_median": row.middle("cpu"),
            "cpu_max": row.most("cpu"),
            "wall_min": row.least("wall"),
            "wall_median": row.middle("wall"),
            "memory_growth": row.most("memory_growth"),
            "cpu_ratio_to": {name: ratio for name, ratio in ratios.items() if ratio is not None},
            "rounds": row.rounds,
        }

"""The plot, as SVG, from the JSON: `python -m benchmarks.plot results.json out.svg`.

One panel of bars for each section that was measured (least client CPU per call, the least at the top), and
one of lines for the cost per call as more calls are in flight. Written by hand: a plot is text, and needs no
package.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

PANELS = (
    *("json-blocking", "json-asyncio-32", "json-trio-32", "build"),
    *("json-tls-blocking", "json-tls-asyncio-32", "json-tls-trio-32"),
    *("events-blocking", "events-asyncio"),
    *("download", "multipart", "download-asyncio", "multipart-asyncio", "download-trio", "multipart-trio"),
)
FACTORS = {"µs": 1e6, "ms": 1e3}
OURS = "agentrun-proto"

WIDTH = 860
MARGIN = 24
LABELS = 206  # where the bars begin
VALUES = 150  # kept free for the figures at their ends
BAR = 15
STEP = 21
TITLE = 34
GAP = 26
LINES_HEIGHT = 260

INK = "#1f2937"
QUIET = "#6b7280"
GRID = "#e5e7eb"
COLOURS = {"ours": "#0f766e", "limit": "#9ca3af", "peer": "#93b4d8"}
LINE_COLOURS = {
    OURS: "#0f766e",
    "raw": "#9ca3af",
    "raw, signed": "#b08d57",
    "aiohttp": "#c2410c",
    "httpcore": "#7c3aed",
    "httpx": "#be185d",
    "niquests": "#2563eb",
    "pyreqwest": "#0891b2",
    "agentrun-sdk": "#4d7c0f",
}


def text(x: float, y: float, words: str, *, size: int = 12, fill: str = INK, more: str = "") -> str:
    """Return one line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"{more}>{escape(words)}</text>'


def kind(contender: str) -> str:
    """Return whose bar this is: ours, the limit's or a peer's."""
    if contender.startswith(OURS):
        return "ours"
    return "limit" if contender.startswith("raw") else "peer"


def bars(section: dict[str, Any], top: float) -> tuple[list[str], float]:
    """Return a panel of bars, and how high it is."""
    rows = sorted(section["rows"], key=lambda row: row["cpu_min"])
    longest = max(row["cpu_min"] for row in rows)
    # One contender that is far slower than all others must not make lines of their bars: its own is cut off.
    if len(rows) > 2 and longest > 4 * (second := rows[-2]["cpu_min"]):
        longest = 1.25 * second
    room = WIDTH - MARGIN - LABELS - VALUES
    ours = next((row["cpu_min"] for row in rows if row["contender"] == OURS), None)
    parts = [text(MARGIN, top + 18, section["title"], size=14, more=' font-weight="600"')]
    y = top + TITLE
    for row in rows:
        whose = kind(row["contender"])
        length = room * min(1.0, row["cpu_min"] / longest)
        weight = ' font-weight="600"' if whose == "ours" else ""
        parts.append(text(LABELS - 8, y + 12, row["contender"], more=f' text-anchor="end"{weight}'))
        parts.append(
            f'<rect x="{LABELS}" y="{y:.1f}" width="{max(length, 1):.1f}" height="{BAR}" '
            f'fill="{COLOURS[whose]}"/>'
        )
        if row["cpu_min"] > longest:
            cut = LABELS + length - 22
            parts.append(
                f'<path d="M{cut:.1f} {y + BAR + 2:.1f} l8 {-BAR - 4} h6 l-8 {BAR + 4} z" fill="#ffffff"/>'
            )
        figure = f"{row['cpu_min'] * FACTORS[section['unit']]:,.1f} {section['unit']}"
        if ours and whose == "peer":
            figure += f"  ({row['cpu_min'] / ours:.1f} x ours)"
        parts.append(
            text(LABELS + length + 6, y + 12, figure, fill=QUIET if whose != "ours" else INK, more=weight)
        )
        y += STEP
    return parts, y - top


def lines(loop: str, sections: Sequence[dict[str, Any]], top: float) -> tuple[list[str], float]:
    """Return a panel of lines: least CPU per call against calls in flight, both axes logarithmic."""
    series: dict[str, list[tuple[int, float]]] = {}
    for section in sections:
        for row in section["rows"]:
            series.setdefault(row["contender"], []).append((section["in_flight"], row["cpu_min"] * 1e6))
    costs = [cost for points in series.values() for _, cost in points]
    low, high = 10 ** math.floor(math.log10(min(costs))), 10 ** math.ceil(math.log10(max(costs)))
    first, last = sections[0]["in_flight"], sections[-1]["in_flight"]
    left, right, bottom = 70.0, WIDTH - MARGIN - 170.0, top + TITLE + LINES_HEIGHT

    def across(in_flight: int) -> float:
        return left + (right - left) * math.log(in_flight / first) / math.log(last / first)

    def up(cost: float) -> float:
        return bottom - LINES_HEIGHT * math.log(cost / low) / math.log(high / low)

    title = f"CPU per signed JSON call, {loop}, as more calls are in flight (µs)"
    parts = [text(MARGIN, top + 18, title, size=14, more=' font-weight="600"')]
    decade = low
    while decade <= high:
        parts.append(f'<path d="M{left} {up(decade):.1f} H{right}" stroke="{GRID}"/>')
        parts.append(text(left - 8, up(decade) + 4, f"{decade:,.0f}", fill=QUIET, more=' text-anchor="end"'))
        decade *= 10
    for section in sections:
        count = section["in_flight"]
        parts.append(text(across(count), bottom + 18, f"{count:,}", fill=QUIET, more=' text-anchor="middle"'))
    label_floor = math.inf
    for name, points in sorted(series.items(), key=lambda item: item[1][-1][1]):
        colour = LINE_COLOURS.get(name, INK)
        path = " ".join(f"{across(count):.1f},{up(cost):.1f}" for count, cost in points)
        width = 3 if name == OURS else 1.6
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        label_floor = min(up(points[-1][1]) + 4, label_floor - 14)  # labels keep clear of each other
        parts.append(text(right + 10, label_floor, f"{name}  {points[-1][1]:,.0f}", fill=colour))
    return parts, TITLE + LINES_HEIGHT + 24


def draw(results: dict[str, Any]) -> str:
    """Return the SVG for a run's results."""
    sections = {section["name"]: section for section in results["sections"] if section["rows"]}
    machine = results["machine"]
    y = float(MARGIN)
    parts = [text(MARGIN, y + 14, "Client CPU, less is better", size=18, more=' font-weight="600"')]
    day, rounds = results["started"][:10], results["rounds"]
    under = f"{machine['python']}, {machine['processor']}, {day}; least of {rounds} rounds"
    parts.append(text(MARGIN, y + 34, under, fill=QUIET))
    y += 56
    for name in PANELS:
        if name in sections:
            panel, height = bars(sections[name], y)
            parts += panel
            y += height + GAP
    for loop in ("asyncio", "trio"):
        scaling = [section for name, section in sections.items() if name.startswith(f"json-{loop}-")]
        if len(scaling) > 1:
            panel, height = lines(loop, sorted(scaling, key=lambda section: section["in_flight"]), y)
            parts += panel
            y += height + GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" '
        f'width="{WIDTH}" height="{y:.0f}" '
        f'font-family="system-ui, -apple-system, Segoe UI, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{y:.0f}" rx="8" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def main() -> int:
    """Read the JSON, write the SVG."""
    if len(sys.argv) != 3:
        print("usage: python -m benchmarks.plot results.json out.svg", file=sys.stderr)
        return 2
    Path(sys.argv[2]).write_text(
        draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

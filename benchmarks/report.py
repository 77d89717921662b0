"""The results as plain text: one table for each section, and the bars at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.bars import BARS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Row, SectionResult

FACTORS = {"µs": 1e6, "ms": 1e3}
MIB = 1024 * 1024


def heading(
    machine: dict[str, Any], server: str, tls_server: str, cores: tuple[int | None, int | None]
) -> str:
    """Return what the figures were measured on."""
    client, other = cores
    pinned = (
        "not pinned (one core, or no way to choose)"
        if client is None
        else f"core {client}, server core {other}"
    )
    servers = f"{server}; under TLS: {tls_server}" if tls_server else server
    return (
        f"{machine['python']} on {machine['processor']}, {machine['cores']} cores, {machine['system']}\n"
        f"server: {servers}\nclient: {pinned}; load at the start: {machine['load_at_start']}\n"
        "CPU is the client's, user and system, per call; ratios are of the least CPU."
    )


def section_text(section: SectionResult) -> str:
    """Return one section's table, and who is missing from it."""
    head = ["", "version", "CPU min", "median", "wall min", "median"]
    ratios = [name for name in dict.fromkeys((section.limit, *section.peers)) if name and section.row(name)]
    head += [f"x {name}" for name in ratios]
    if section.transfer_bytes:
        head += ["MiB/s", "memory MiB"]
    head += [{"installed": "installed MiB"}.get(extra, extra) for extra in section.extras]
    body = [_cells(section, row, ratios) for row in sorted(section.rows, key=lambda row: row.least("cpu"))]
    lines = [f"{section.title} ({section.unit}) [{section.name}]", *aligned([head, *body])]
    lines += [f"  {m.kind}: {m.contender}: {m.why}" for m in section.missing]
    lines += [
        f"  {row.contender}: {len(row.rounds)} rounds only, for it is slow"
        for row in section.rows
        if len(row.rounds) < max(len(other.rounds) for other in section.rows)
    ]
    return "\n".join(lines)


def _cells(section: SectionResult, row: Row, ratios: Sequence[str]) -> list[str]:
    factor = FACTORS[section.unit]
    figures = (row.least("cpu"), row.middle("cpu"), row.least("wall"), row.middle("wall"))
    cells = [row.contender, row.version, *(f"{figure * factor:.1f}" for figure in figures)]
    for name in ratios:
        ratio = section.ratio(row, name)
        cells.append("" if ratio is None else f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}")
    if section.transfer_bytes:
        cells += [
            f"{section.transfer_bytes / MIB / row.least('wall'):.0f}",
            f"{row.most('memory_growth') / MIB:.1f}",
        ]
    for extra in section.extras:
        value = row.rounds[0].get(extra)
        cells.append(
            "" if value is None else f"{value / MIB:.1f}" if extra == "installed" else f"{value:.0f}"
        )
    return cells


def bars_text(sections: Sequence[SectionResult]) -> str:
    """Return the bars beside what was measured."""
    results = {section.name: section for section in sections}
    rows = [["", "bar", "measured", ""]]
    for bar in BARS:
        measured = bar.measure(results)
        verdict = "not measured" if measured is None else "met" if measured <= bar.at_most else "NOT MET"
        rows.append([bar.what, f"{bar.at_most:.3g}", "" if measured is None else f"{measured:.3g}", verdict])
    return "\n".join(["Bars", *aligned(rows)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines: the first column left, the others right, a rule under the first row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]

"""`python -m benchmarks`: measures, prints the tables, and writes the JSON if asked to."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import contenders, footprint, machine, report, server, tls_server
from benchmarks.runner import Settings, run_section
from benchmarks.sections import SECTIONS

if TYPE_CHECKING:
    from benchmarks.results import SectionResult


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer sections, shorter rounds")
    parser.add_argument(
        "--section",
        action="append",
        default=[],
        metavar="NAME",
        help="only these; patterns such as 'json-*' are fine",
    )
    parser.add_argument(
        "--contender", action="append", default=[], metavar="NAME", help="only these; patterns too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--rounds", type=int, help="how many rounds (default: 7, quick: 2)")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="run contender NAME with another interpreter, if it cannot be installed beside the others",
    )
    parser.add_argument("--list", action="store_true", help="name the sections and contenders, and stop")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = arguments().parse_args(argv)
    names = [*(section.name for section in SECTIONS), footprint.NAME]
    if options.section:
        chosen = {name for name in names for pattern in options.section if fnmatchcase(name, pattern)}
    else:
        chosen = {name for name in names if not options.quick}
        chosen |= {section.name for section in SECTIONS if section.quick} | {footprint.NAME}
    known = {name for section in SECTIONS for name in contenders.names(section.loop, section.operation)}
    known |= {library.contender for library in footprint.LIBRARIES}
    only = {name for name in known for pattern in options.contender if fnmatchcase(name, pattern)}
    everything = f"sections: {', '.join(names)}\ncontenders: {', '.join(sorted(known))}"
    if options.list:
        print(everything)
        return 0
    if not chosen or (options.contender and not only):
        print(f"no such section or contender\n{everything}", file=sys.stderr)
        return 2

    machine.allow_many_files()
    client_core, server_core = machine.cores()
    settings = Settings(
        rounds=options.rounds or (2 if options.quick else 7),
        round_seconds=0.03 if options.quick else 0.3,
        transfer_mib=16 if options.quick else 256,
        transfer_rounds=options.rounds or (2 if options.quick else 5),
        events=1_000 if options.quick else 10_000,
        client_core=client_core,
        only=only,
        interpreters=dict(pair.split("=", 1) for pair in options.python),
    )
    described = machine.describe()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    results: list[SectionResult] = []
    sections = [section for section in SECTIONS if section.name in chosen]
    without_server: dict[str, str] = {}
    tls_kind = ""
    with ExitStack() as stack:
        running = {False: stack.enter_context(server.running(server_core))}
        if any(section.tls for section in sections):
            try:
                running[True] = stack.enter_context(tls_server.running(server_core))
                tls_kind = running[True].kind
            except tls_server.Unavailable as error:
                without_server = {section.name: str(error) for section in sections if section.tls}
        kind = running[False].kind
        print(report.heading(described, kind, tls_kind, (client_core, server_core)))
        for section in sections:
            if section.name not in without_server:
                results.append(run_section(section, settings, running[section.tls], progress))
                progress("")
                print(f"\n{report.section_text(results[-1])}", flush=True)
    if footprint.NAME in chosen:
        results.append(footprint.measure(settings, progress))
        progress("")
        print(f"\n{report.section_text(results[-1])}")
    print(f"\n{report.bars_text(results)}")
    left_out = [name for name in names if name not in chosen]
    left_out += [f"{name} ({why})" for name, why in without_server.items()]
    print(f"\nNot measured in this run: {', '.join(left_out) or 'nothing'}.")

    if options.json:
        document = {
            "format": 1,
            "started": started,
            "quick": options.quick,
            "rounds": settings.rounds,
            "machine": described,
            "server": kind,
            "tls_server": tls_kind,
            "client_core": client_core,
            "server_core": server_core,
            "sections": [result.as_json() for result in results],
            "not_measured": left_out,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def progress(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

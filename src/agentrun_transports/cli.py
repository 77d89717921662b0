"""``agentrun-data``: the data plane from a shell. Here is the entry point, and how a run ends.

Rules of this file: ``main`` returns an exit code and raises nothing that a user could have caused; an error
that is documented becomes a block on stderr, never a traceback; a bug of this program stays a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from agentrun_proto import AgentRunError

from ._cli.arguments import build_parser
from ._cli.failures import CLOSED_PIPE, DONE, INTERRUPTED, MISUSE, describe, exit_code
from ._cli.screen import Screen


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit code: 0 done, 1 refused by the service, 2 misuse, 3 network, 130 interrupted, 141 when the
        reader of stdout went away (the numbers a shell shows for SIGINT and SIGPIPE).

    >>> main(["--version"])
    agentrun-data 0.1.0
    0
    """
    try:
        code = _run(argv)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = CLOSED_PIPE
    return _flushed(code)


def _flushed(code: int) -> int:
    """Writes out what is buffered, so that nothing can fail when the interpreter ends; the exit code."""
    streams: tuple[TextIO | None, ...] = (sys.stdout, sys.stderr)  # None where a shell closed it
    for stream in filter(None, streams):
        try:
            stream.flush()
        except OSError as error:
            # It stays in the buffer: where it goes to now, it can be written.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = CLOSED_PIPE if isinstance(error, BrokenPipeError) else code or MISUSE
    return code


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # argparse has printed its help, or what is wrong
        return int(end.code or DONE)
    if args.command is None:
        parser.print_help(sys.stderr)
        return MISUSE
    screen = Screen(sys.stdout, sys.stderr)
    try:
        code: int = args.run(args, screen)
    except BrokenPipeError:
        raise
    except (AgentRunError, ValueError, TypeError, OSError) as error:
        resumes = args.command == "download" and args.resume
        screen.failure(describe(error, args.command, resumes=resumes))
        return exit_code(error)
    return code

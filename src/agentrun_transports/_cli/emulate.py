"""emulator: the service, small, on this machine, in the foreground.

Rules of this file: SIGINT and SIGTERM end it in the same way, once; what it made is removed by then.
"""

from __future__ import annotations

import argparse
import errno
import signal
from collections.abc import Generator
from contextlib import contextmanager
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING

from .failures import DONE
from .screen import Screen

if TYPE_CHECKING:
    from ..emulator import Emulator


def emulate(args: argparse.Namespace, screen: Screen) -> int:
    """The command emulator.

    Raises:
        ValueError: the port is in use.
        OSError: it cannot listen there, or not use the folder.
    """
    from ..emulator import serve

    def announce(emulator: Emulator) -> None:
        screen.line(("AgentRun emulator at ", "bold"), (emulator.endpoint, "bold cyan"))
        screen.line()
        screen.line(("In another shell:", ""))
        for name, value in emulator.environment.items():
            screen.line((f"  export {name}={quote(value)}", "cyan"))
        screen.line(("  agentrun-data get resources", "cyan"))
        screen.line()
        kept = "nothing is kept" if args.folder is None else f"all is kept in {args.folder}"
        screen.line((f"Ctrl-C ends it; {kept}.", ""))

    with _signals_interrupt():
        try:
            serve(args.port, folder=args.folder, ready=announce)
        except KeyboardInterrupt:
            pass
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ValueError(
                f"port {args.port} is in use; give another --port, or none for a free one"
            ) from None
    return DONE


@contextmanager
def _signals_interrupt() -> Generator[None, None, None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, the first of them only: clearing up is not interrupted."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Who is measured: one class per client and kind of loop, found by name.

A contender does its own imports when it is made, so that this package can be read, and a contender be named
as missing, where its client is not installed. To add one, write a class beside its like and list it in the
module's CONTENDERS; to add a kind of loop, add a module here and a driver to `benchmarks.worker`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.contenders.base import Contender

MODULES = {
    "blocking": "benchmarks.contenders.with_blocking",
    "asyncio": "benchmarks.contenders.with_asyncio",
    "trio": "benchmarks.contenders.with_trio",
    "none": "benchmarks.contenders.without_io",
}


def names(loop: str, operation: str) -> list[str]:
    """Return the names of those who can do `operation` on this kind of loop, in the order of their table."""
    return [
        contender.name
        for contender in import_module(MODULES[loop]).CONTENDERS
        if hasattr(contender, operation)
    ]


def find(loop: str, name: str) -> type[Contender]:
    """Return the class of that name."""
    contenders: tuple[type[Contender], ...] = import_module(MODULES[loop]).CONTENDERS
    return next(contender for contender in contenders if contender.name == name)

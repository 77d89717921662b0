"""Fuzzing: one invariant per target, fed by atheris where it is installed, by plain mutation where it is not.

Rules of this folder:

- A target is a file ``target_*.py``. Its docstring begins with its invariant, in one sentence. It has
  ``check(data: bytes) -> None``, which raises where that does not hold, and ``corpus()``, which makes the
  first inputs from the tables and vectors of our other tests.
- An input that was found to crash is kept in the target's ``FOUND``, under a name that says what it was, and
  runs with the corpus ever after.
- Under pytest the same targets run everywhere: see ``test_fuzz_targets.py``.

``python -m tests.fuzz`` runs them for as long as one likes; see docs/fuzzing.md.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

NAMES = tuple(sorted(path.stem.removeprefix("target_") for path in Path(__file__).parent.glob("target_*.py")))


def load(name: str) -> Any:
    """The module of a target."""
    return importlib.import_module(f"fuzz.target_{name}")


def first_inputs(target: Any) -> list[bytes]:
    """What a target begins with: its corpus, and whatever was found to crash once."""
    return [*target.corpus(), *target.FOUND.values()]

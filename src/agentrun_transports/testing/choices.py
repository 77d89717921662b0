"""Chance from one integer, told as a script that can be read, repeated and made shorter.

Rules of this file: a choice depends on the seed and on its own label, and on nothing else, so that one that
is taken out of a script moves no other; 0 is the choice where nothing bad happens, and a script does not
tell it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

Script = Mapping[str, int]
"""What was chosen, by label, where it was not 0."""


class Choices:
    """Decides what happens, from a seed; or, given a script, what that says, and nothing else.

    Args:
        seed: any integer.
        script: what to choose; a label that it does not have is 0.

    Attributes:
        script: what was chosen so far.

    >>> choices = Choices(7)
    >>> [choices.choose(f"answer {number}: late by (ms)", 0.5, 1000) for number in range(11, 14)]
    [667, 0, 561]
    >>> Choices(7, {"answer 1: late by (ms)": 20}).choose("answer 1: late by (ms)", 0.5, 1000)
    20
    """

    __slots__ = ("_key", "_replayed", "script")

    def __init__(self, seed: int, script: Script | None = None) -> None:
        self._key = str(seed).encode()[:64]
        self._replayed = script
        self.script: dict[str, int] = {}

    def choose(self, label: str, odds: float, most: int = 1) -> int:
        """A number from 1 to `most`, all alike, if it happens, which has these `odds` (0 to 1); else 0.

        Args:
            label: what is chosen, and where: text that no other choice has. Behind its last ``": "`` stands
                the kind, by which reports count.
        """
        if self._replayed is not None:
            chosen = self._replayed.get(label, 0)
        elif odds <= 0:
            return 0
        else:
            drawn = self._draw(label, 16)
            happens = int.from_bytes(drawn[:8], "big") < odds * 2**64
            chosen = 1 + int.from_bytes(drawn[8:], "big") % most if happens else 0
        if chosen:
            self.script[label] = chosen
        return chosen

    def random(self, label: str, size: int) -> bytes:
        """So many bytes by chance, the same in a script: there is nothing bad about them."""
        drawn = b""
        while len(drawn) < size:
            drawn += self._draw(f"{label} {len(drawn)}", 16)
        return drawn[:size]

    def _draw(self, label: str, size: int) -> bytes:
        return blake2b(label.encode(), digest_size=size, key=self._key).digest()


def shortest(script: Script, fails: Callable[[Script], bool], *, tries: int = 200) -> dict[str, int]:
    """A script of which nothing can be left out, by delta debugging (Zeller and Hildebrandt, 2002).

    Its numbers are made 1 where that does.

    Args:
        script: of a run that fails.
        fails: whether a run by a shorter one fails, too.
        tries: how often that is asked at most.

    >>> shortest({"a": 1, "b": 2, "c": 3, "d": 4}, lambda script: {"b", "d"} <= script.keys())
    {'b': 1, 'd': 1}
    """
    kept = dict(script)

    def attempt(shorter: dict[str, int]) -> bool:
        nonlocal kept, tries
        tries -= 1
        if tries < 0 or not fails(shorter):
            return False
        kept = shorter
        return True

    size = len(kept) // 2
    while size > 1:  # first in large pieces ...
        labels = list(kept)
        for start in range(0, len(labels), size):
            left_out = labels[start : start + size]
            attempt({label: number for label, number in kept.items() if label not in left_out})
        size //= 2
    helped = True
    while helped:  # ... then one by one, as long as that helps
        helped = False
        for label, number in list(kept.items()):
            without = {other: kept[other] for other in kept if other != label}
            helped |= attempt(without) or (number > 1 and attempt({**kept, label: 1}))
    return kept

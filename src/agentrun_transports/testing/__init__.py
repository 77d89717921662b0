"""For the tests of those who use or embed this library: servers that misbehave, and time that stands still.

`conformance` tells whether a driver does all that ours do. Nothing here needs a test framework.
"""

from .clock import TurnedClock
from .scripted import Await, Drip, Script, ScriptedRequest, ScriptedServer, Step, Tell, answer

__all__ = [
    "Await",
    "Drip",
    "Script",
    "ScriptedRequest",
    "ScriptedServer",
    "Step",
    "Tell",
    "TurnedClock",
    "answer",
]

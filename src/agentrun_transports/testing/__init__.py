"""For the tests of those who use or embed this library: answers made up or recorded, time that stands still.

`Recorder`, `Player` and `CannedTransport` are what ``transport=`` of every client takes. `conformance` tells
whether a driver does all that ours do. Nothing here needs a test framework; `agentrun_pytest` has fixtures.
"""

from .canned import CannedTransport, MadeRequest, Reply
from .clock import TurnedClock
from .memory import UnexpectedRequest
from .player import Player
from .recorder import Recorder
from .scripted import Await, Drip, Script, ScriptedRequest, ScriptedServer, Step, Tell, answer

__all__ = [
    "Await",
    "CannedTransport",
    "Drip",
    "MadeRequest",
    "Player",
    "Recorder",
    "Reply",
    "Script",
    "ScriptedRequest",
    "ScriptedServer",
    "Step",
    "Tell",
    "TurnedClock",
    "UnexpectedRequest",
    "answer",
]

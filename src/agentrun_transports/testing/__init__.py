"""For the tests of those who use or embed this library: answers made up or recorded, time that stands still.

`Recorder`, `Player` and `CannedTransport` are what ``transport=`` of every client takes. `simulate` runs a
program against the service in virtual time, with faults from a seed. `conformance` tells whether a driver
does all that ours do. Nothing here needs a test framework; `agentrun_pytest` has fixtures.
"""

from ._world import Standstill
from .canned import CannedTransport, MadeRequest, Reply
from .clock import TurnedClock
from .fault_model import FaultModel
from .memory import UnexpectedRequest
from .player import Player
from .recorder import Recorder
from .scripted import Await, Drip, Script, ScriptedRequest, ScriptedServer, Step, Tell, answer
from .simulation import Simulation, SimulationFailure, SimulationReport, simulate

__all__ = [
    "Await",
    "CannedTransport",
    "Drip",
    "FaultModel",
    "MadeRequest",
    "Player",
    "Recorder",
    "Reply",
    "Script",
    "ScriptedRequest",
    "ScriptedServer",
    "Simulation",
    "SimulationFailure",
    "SimulationReport",
    "Standstill",
    "Step",
    "Tell",
    "TurnedClock",
    "UnexpectedRequest",
    "answer",
    "simulate",
]

"""For the tests of those who use or embed this library: servers that misbehave, and time that stands still.

`simulate` runs a program against the service in virtual time, with faults from a seed. `conformance` tells
whether a driver does all that ours do. Nothing here needs a test framework.
"""

from ._world import Standstill
from .clock import TurnedClock
from .fault_model import FaultModel
from .scripted import Await, Drip, Script, ScriptedRequest, ScriptedServer, Step, Tell, answer
from .simulation import Simulation, SimulationFailure, SimulationReport, simulate

__all__ = [
    "Await",
    "Drip",
    "FaultModel",
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
    "answer",
    "simulate",
]

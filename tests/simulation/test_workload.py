"""The whole client against the service under random faults, in virtual time; and bugs that must be found.

Some hundred seeds run here; ``python -m tests.simulation`` runs as many as one likes.
"""

from __future__ import annotations

import pytest

from agentrun_transports.testing import Simulation, SimulationFailure, simulate

from .plants import PLANTS
from .workload import DRIVERS, KINDS, Workload, finish, program_in

SEEDS = range(100)
on_every_driver = pytest.mark.parametrize("driver", DRIVERS)


@on_every_driver
@pytest.mark.parametrize("first", SEEDS[::20])
def test_the_client_is_right_whatever_goes_wrong(driver, first, tmp_path):
    report = simulate(program_in(tmp_path), seeds=range(first, first + 20), driver=driver)
    assert report.runs == 20
    assert report.requests > 20
    assert list(tmp_path.iterdir()) == []


def transcript(seed, driver, folder):
    with Simulation(seed, driver=driver) as simulation:
        workload = Workload(simulation, folder)
        if driver == "blocking":
            finish(workload.run())
        else:
            simulation.run(lambda _: workload.run())
        return workload.transcript, simulation.happened, simulation.time


@on_every_driver
def test_the_same_seed_is_the_same_run(driver, tmp_path):
    for seed in range(15):
        assert transcript(seed, driver, tmp_path) == transcript(seed, driver, tmp_path)


def test_the_programs_do_all_that_there_is(tmp_path):
    done, ended = set(), set()
    for seed in SEEDS:
        with Simulation(seed) as simulation:
            workload = Workload(simulation, tmp_path)
            finish(workload.run())
            done |= {call.kind for call in workload.calls if not isinstance(call.outcome, Exception)}
            ended |= {type(call.outcome).__name__ for call in workload.calls}
    assert done == set(KINDS) - {"inject"}
    assert {"IncompleteError", "ReadTimeout", "NotFoundError", "ProtocolError"} <= ended


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "driver"), [(name, driver) for name, plant in PLANTS.items() for driver in plant.drivers]
)
def test_a_planted_bug_is_found(name, driver, tmp_path, monkeypatch):
    plant = PLANTS[name]
    with monkeypatch.context() as patch:
        plant.plant(patch)
        with pytest.raises(SimulationFailure, match=plant.told) as found:
            simulate(program_in(tmp_path), seeds=range(plant.within), driver=driver)
        seed, script = found.value.seed, found.value.script
        with pytest.raises(SimulationFailure) as again:
            simulate(program_in(tmp_path), seeds=[seed], driver=driver, script=script)
        assert again.value.script.keys() == script.keys()
    simulate(program_in(tmp_path), seeds=[seed], driver=driver)
    simulate(program_in(tmp_path), seeds=[seed], driver=driver, script=script)

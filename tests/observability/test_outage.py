"""The service is away, slow or failing: jobs run on, nodes stay, events come later, and once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from fixtures.observability import await_state, kinds
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep


@pytest.fixture
def away(observed: SlurmCluster) -> Iterator[SlurmCluster]:
    """A cluster whose service is stopped; it runs again afterwards."""
    observed.substrate.service("observability", "slurm-observability", "stop")
    yield observed
    observed.substrate.service("observability", "slurm-observability", "start")


@contextlib.contextmanager
def signalled(slurm: SlurmCluster, name: str) -> Iterator[None]:
    script = "kill -{} $(pgrep -f 'slurm-observability service')"
    slurm.substrate.exec("observability", ["sh", "-c", script.format(name)])
    try:
        yield
    finally:
        slurm.substrate.exec("observability", ["sh", "-c", script.format("CONT")])


def takes_jobs(slurm: SlurmCluster) -> bool:
    """Whether no node is drained or down."""
    states = {state for node in slurm.nodes().values() for state in node["State"].split("+")}
    return not states & {"DRAIN", "DOWN", "DRAINED", "FAIL"}


@pytest.mark.row("O-06.1", "O-06.2", "O-06.3", "O-06.4")
def test_service_that_is_away_costs_no_job_and_loses_no_event(away: SlurmCluster) -> None:
    jobs = [away.sbatch(wrap="exit 0") for _ in range(6)]
    ends = [job.wait().state for job in jobs]

    assert ends == ["COMPLETED"] * 6
    assert takes_jobs(away)
    # Restarted in between, the agents have nothing but their spool.
    for node in ("n1", "n2"):
        away.substrate.service(node, "slurm-observability-agent", "kill")
    away.substrate.service("observability", "slurm-observability", "start")
    for job in jobs:
        await_state(away, job, "completed", deadline=120)
        assert kinds(away, job.id) == [(0, "finished"), (0, "started")]


@pytest.mark.row("O-06.1", "O-06.2", "O-06.4")
def test_service_that_does_not_answer_costs_no_job(observed: SlurmCluster) -> None:
    with signalled(observed, "STOP"):
        job = observed.sbatch(wrap="true")
        assert job.wait().state == "COMPLETED"
        assert takes_jobs(observed)

    await_state(observed, job, "completed", deadline=120)
    assert kinds(observed, job.id) == [(0, "finished"), (0, "started")]

"""What Prometheus reads, and when the series of a job end."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures.observability import await_state, prometheus
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

#: promtool reserves this end of a name for histograms and summaries.
NAME_OF_THE_DOCUMENT = 'hpc_node_job_count non-histogram and non-summary metrics should not have "_count" suffix'
Series = dict[str, list[dict[str, str]]]


def scraped(slurm: SlurmCluster) -> str:
    return slurm.observability.api("GET", "metrics").text


def series(slurm: SlurmCluster) -> Series:
    """The labels of each metric's series."""
    found: Series = {}
    for family in text_string_to_metric_families(scraped(slurm)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def of(slurm: SlurmCluster, job: int) -> dict[str, set[str]]:
    """The metrics of a job with the names of their labels."""
    return {
        name: set(labels[0])
        for name, every in series(slurm).items()
        if (labels := [one for one in every if one.get("job_id") == str(job)])
    }


@pytest.mark.smoke
@pytest.mark.row("O-01.3", "O-08.1", "O-08.2", "O-08.3", "O-08.9", "O-08.10", "O-08.11", "O-08.12", "O-08.13")
def test_series_of_a_job_begin_and_end_with_it(observed: SlurmCluster) -> None:
    job = observed.sbatch(wrap="sleep 600", nodelist="n1")
    job.wait(until={"RUNNING"})
    names = {"hpc_job_runtime_seconds", "hpc_job_cpu_usage_percent", "hpc_job_memory_usage_bytes"}
    observed.wait_until(
        lambda: names <= of(observed, job.id).keys(), "the job's series", state=lambda: str(of(observed, job.id))
    )

    assert {labels for name in names for labels in of(observed, job.id)[name]} == {"job_id", "user", "node"}
    now = series(observed)
    assert {"job_id": str(job.id), "user": "alice", "node": "n1"} in now["hpc_job_memory_usage_bytes"]
    for name in ("hpc_node_cpu_usage_percent", "hpc_node_memory_usage_bytes", "hpc_node_job_count"):
        assert {"node": "n1"} in now[name]
        assert {"node": "n2"} in now[name]
    checked = observed.substrate.exec("prometheus", ["promtool", "check", "metrics"], stdin=scraped(observed))
    # The one word that it has about them is on a name that the document gives.
    assert (checked.stdout + checked.stderr).splitlines() == [NAME_OF_THE_DOCUMENT]

    job.cancel()
    await_state(observed, job, "cancelled")
    assert of(observed, job.id) == {}


@pytest.mark.row("O-14.4")
def test_prometheus_has_the_values(observed: SlurmCluster) -> None:
    observed.wait_until(
        lambda: prometheus(observed, "hpc_node_memory_usage_bytes > 0"), "values in Prometheus", deadline=60
    )
    assert [one["value"][1] for one in prometheus(observed, 'up{job="slurm-observability"}')] == ["1"]
